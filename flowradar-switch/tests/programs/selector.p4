#include "include/begin.p4"

header h_t { bit<32> source; bit<32> destination; bit<8> chosen; }
struct headers_t { h_t h; }
struct metadata_t {}

control I(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    action forward(bit<9> port, bit<8> chosen) { sm.egress_spec = port; hdr.h.chosen = chosen; }
    action refuse() { mark_to_drop(sm); }
    @name("balance") action_selector(HashAlgorithm.crc16, 64, 16) balance;
    @name("fixed") action_profile(16) fixed;
    table by_group {
        key = { hdr.h.destination: exact; hdr.h.source: selector; hdr.h.destination: selector; }
        actions = { forward; refuse; }
        implementation = balance;
    }
    table by_member {
        key = { hdr.h.source: lpm; }
        actions = { forward; NoAction; }
        implementation = fixed;
    }
    apply {
        sm.egress_spec = 1;
        if (!by_group.apply().hit) { by_member.apply(); }
    }
}
#include "include/end.p4"
