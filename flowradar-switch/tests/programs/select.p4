#include "include/begin.p4"

header kind_t { bit<4> version; bit<12> kind; }
header one_t { bit<8> x; }
header two_t { bit<16> y; }
header error_t { bit<32> code; }
struct headers_t { error_t report; kind_t kind; one_t one; two_t two; }
struct metadata_t { bit<8> ahead; }

#define OWN_PARSER
parser P(packet_in packet, out headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    state start {
        packet.extract(hdr.kind);
        transition select(hdr.kind.version, hdr.kind.kind) {
            (4, 0x100 &&& 0xf00): one;
            (4, 0x200): two;
            (5, _): ahead;
            (6, 1 .. 3): one;
            (7, _): refuse;
            default: accept;
        }
    }
    state one { packet.extract(hdr.one); transition accept; }
    state two { packet.extract(hdr.two); transition accept; }
    state ahead {
        meta.ahead = packet.lookahead<bit<8>>();
        transition select(packet.lookahead<bit<16>>()) {
            0xaabb: skip;
            default: accept;
        }
    }
    state skip { packet.advance(8); transition one; }
    state refuse { verify(hdr.kind.kind == 0, error.NoMatch); transition accept; }
}

control I(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    apply {
        sm.egress_spec = 1;
        if (hdr.one.isValid()) { sm.egress_spec = 2; hdr.one.x = hdr.one.x + 1; }
        if (hdr.two.isValid()) { sm.egress_spec = 3; }
        hdr.report.setValid();
        hdr.report.code = (bit<32>)meta.ahead;
        if (sm.parser_error == error.PacketTooShort) { hdr.report.code = 0xdead0001; }
        if (sm.parser_error == error.NoMatch) { hdr.report.code = 0xdead0002; }
    }
}
#include "include/end.p4"
