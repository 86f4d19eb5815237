#include "include/begin.p4"

header h_t { bit<8> op; }
header one_t { bit<8> x; }
header two_t { bit<16> y; }
header_union either_t { one_t one; two_t two; }
struct headers_t { h_t h; either_t either; }
struct metadata_t {}

#define OWN_PARSER
parser P(packet_in packet, out headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    state start {
        packet.extract(hdr.h);
        transition select(hdr.h.op) { 1: one; 2: two; default: accept; }
    }
    state one { packet.extract(hdr.either.one); transition accept; }
    state two { packet.extract(hdr.either.two); transition accept; }
}

control I(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    apply {
        sm.egress_spec = 1;
        if (hdr.either.one.isValid()) {
            bit<8> x = hdr.either.one.x;
            hdr.either.two.setValid();
            hdr.either.two.y = (bit<16>)x;
            sm.egress_spec = 2;
        }
    }
}
#include "include/end.p4"
