#include "include/begin.p4"

header h_t { bit<48> source; bit<104> key; bit<8> op; }
struct headers_t { h_t h; }
struct metadata_t {}
struct learned_t { bit<48> source; bit<104> key; bit<9> port; }

control I(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    apply {
        sm.egress_spec = 1;
        if (hdr.h.op == 1) {
            digest<learned_t>(1, { hdr.h.source, hdr.h.key, sm.ingress_port });
        }
    }
}
#include "include/end.p4"
