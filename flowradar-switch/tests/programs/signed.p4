#include "include/begin.p4"

header h_t {
    int<8> a; int<8> b;
    int<8> sum; int<8> difference; int<8> right; int<8> left; int<16> extended; int<16> product;
    int<8> saturating_sum; int<8> saturating_difference;
    bit<8> flags; int<128> wide;
}
struct headers_t { h_t h; }
struct metadata_t {}

control I(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    apply {
        hdr.h.sum = hdr.h.a + hdr.h.b;
        hdr.h.difference = hdr.h.a - hdr.h.b;
        hdr.h.right = hdr.h.a >> 2;
        hdr.h.left = hdr.h.a << 1;
        hdr.h.extended = (int<16>)hdr.h.a;
        hdr.h.product = (int<16>)hdr.h.a * (int<16>)hdr.h.b;
        hdr.h.saturating_sum = hdr.h.a |+| hdr.h.b;
        hdr.h.saturating_difference = hdr.h.a |-| hdr.h.b;
        hdr.h.flags = 0;
        if (hdr.h.a < hdr.h.b) { hdr.h.flags = hdr.h.flags | 1; }
        if (hdr.h.a < 0) { hdr.h.flags = hdr.h.flags | 2; }
        if (hdr.h.a >= hdr.h.b) { hdr.h.flags = hdr.h.flags | 4; }
        hdr.h.wide = (int<128>)hdr.h.a - (int<128>)hdr.h.b;
        sm.egress_spec = 1;
    }
}
#include "include/end.p4"
