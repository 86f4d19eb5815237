#include "include/begin.p4"

header h_t { bit<8> length; varbit<64> options; bit<16> after; }
header copy_t { bit<8> length; varbit<64> options; bit<16> after; }
struct headers_t { h_t h; h_t copy; }
struct metadata_t {}

#define OWN_PARSER
parser P(packet_in packet, out headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    state start {
        bit<8> length = packet.lookahead<bit<8>>();
        packet.extract(hdr.h, (bit<32>)length * 8);
        transition accept;
    }
}

control I(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    apply {
        sm.egress_spec = 1;
        if (sm.parser_error == error.HeaderTooShort) { sm.egress_spec = 2; }
        if (sm.parser_error == error.PacketTooShort) { sm.egress_spec = 3; }
        if (hdr.h.isValid()) {
            hdr.copy = hdr.h;
            hdr.copy.after = hdr.copy.after + 1;
        }
    }
}
#include "include/end.p4"
