#include "include/begin.p4"

header h_t {
    bit<16> in_port; bit<16> out_port; bit<32> length; bit<64> in_time; bit<64> out_time;
    bit<32> enqueued; bit<32> waited; bit<32> depth; bit<8> random; bit<8> grown;
}
header extra_t { bit<32> value; }
struct headers_t { h_t h; extra_t extra; }
struct metadata_t {}

control I(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    apply {
        hdr.h.in_port = (bit<16>)sm.ingress_port;
        hdr.h.length = sm.packet_length;
        hdr.h.in_time = (bit<64>)sm.ingress_global_timestamp;
        random<bit<8>>(hdr.h.random, 10, 12);
        log_msg("port {} length {}", { sm.ingress_port, sm.packet_length });
        assert(hdr.h.grown != 0xff);
        hdr.extra.setValid();
        hdr.extra.value = 0xcafebabe;
        sm.egress_spec = 9w3;
    }
}

#define OWN_EGRESS
control E(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    apply {
        hdr.h.out_port = (bit<16>)sm.egress_port;
        hdr.h.out_time = (bit<64>)sm.egress_global_timestamp;
        hdr.h.enqueued = (bit<32>)sm.enq_timestamp;
        hdr.h.waited = sm.deq_timedelta;
        hdr.h.depth = (bit<32>)sm.enq_qdepth + (bit<32>)sm.deq_qdepth;
        hdr.h.grown = (bit<8>)sm.packet_length;
    }
}
#include "include/end.p4"
