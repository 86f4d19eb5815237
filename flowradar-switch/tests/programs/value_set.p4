#include "include/begin.p4"

header h_t { bit<12> kind; bit<4> rest; }
header x_t { bit<8> value; }
struct headers_t { h_t h; x_t x; }
struct metadata_t {}

#define OWN_PARSER
parser P(packet_in packet, out headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    value_set<bit<12>>(4) kinds;
    state start {
        packet.extract(hdr.h);
        transition select(hdr.h.kind) { 0x001: accept; kinds: x; default: accept; }
    }
    state x { packet.extract(hdr.x); transition accept; }
}

control I(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    apply {
        sm.egress_spec = 1;
        if (hdr.x.isValid()) { sm.egress_spec = 2; }
    }
}
#include "include/end.p4"
