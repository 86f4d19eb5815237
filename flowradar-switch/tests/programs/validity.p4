#include "include/begin.p4"

header h_t { bit<8> op; bit<8> flags; }
header x_t { bit<8> value; bit<8> rest; }
struct headers_t { h_t h; x_t a; x_t b; }
struct metadata_t {}

#define OWN_PARSER
parser P(packet_in packet, out headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    state start {
        packet.extract(hdr.h);
        transition select(hdr.h.op) { 0: accept; default: a; }
    }
    state a { packet.extract(hdr.a); transition accept; }
}

control I(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    table by_validity {
        key = { hdr.a.isValid(): exact; hdr.a.value: ternary; }
        actions = { NoAction; }
        const default_action = NoAction();
        const entries = {
            (false, 0): NoAction();
            (true, 3): NoAction();
        }
    }
    apply {
        sm.egress_spec = 1;
        hdr.h.flags = 0;
        if (by_validity.apply().hit) { hdr.h.flags = hdr.h.flags | 1; }
        if (hdr.h.op == 1) { hdr.b = hdr.a; hdr.b.value = hdr.b.value + 1; }
        if (hdr.h.op == 2) { hdr.a.setInvalid(); }
        if (hdr.h.op == 3) { hdr.b.setValid(); }
        if (hdr.h.op == 4) { hdr.b = hdr.a; }
        if (hdr.a == hdr.b) { hdr.h.flags = hdr.h.flags | 2; }
        if (hdr.a.isValid()) { hdr.h.flags = hdr.h.flags | 4; }
    }
}
#include "include/end.p4"
