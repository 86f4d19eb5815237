#include "include/begin.p4"

header h_t { bit<8> op; bit<8> index; bit<8> result; bit<8> last; }
header label_t { bit<7> value; bit<1> bottom; }
struct headers_t { h_t h; label_t[3] labels; }
struct metadata_t {}

#define OWN_PARSER
parser P(packet_in packet, out headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    state start { packet.extract(hdr.h); transition labels; }
    state labels {
        packet.extract(hdr.labels.next);
        transition select(hdr.labels.last.bottom) { 0: labels; default: accept; }
    }
}

control I(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    apply {
        sm.egress_spec = 1;
        if (sm.parser_error == error.StackOutOfBounds) { sm.egress_spec = 2; }
        if (hdr.h.op == 1) {
            hdr.labels.push_front(1);
            hdr.labels[0].setValid();
            hdr.labels[0].value = 0x55;
            hdr.labels[0].bottom = 0;
        } else if (hdr.h.op == 2) {
            hdr.labels.pop_front(1);
        } else if (hdr.h.op == 3) {
            bit<32> index = (bit<32>)hdr.h.index;
            hdr.h.result = (bit<8>)hdr.labels[index].value;
            hdr.labels[index].value = 1;
        }
    }
}
#include "include/end.p4"
