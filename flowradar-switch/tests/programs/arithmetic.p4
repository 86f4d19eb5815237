#include "include/begin.p4"

header h_t {
    bit<8> a; bit<8> b; bit<16> c; bit<32> d; bit<64> e;
    bit<8> sum; bit<8> difference; bit<16> product; bit<8> inverted;
    bit<8> both; bit<8> either; bit<8> odd;
    bit<8> left; bit<8> right; bit<32> by_amount; bit<64> wide_sum; bit<64> wide_product;
    bit<8> saturating_sum; bit<8> saturating_difference;
    bit<16> joined; bit<8> middle; bit<8> larger; bit<8> negated;
    bit<1> less; bit<1> less_or_equal; bit<1> equal; bit<1> not_equal; bit<4> logic;
}
struct headers_t { h_t h; }
struct metadata_t {}

control I(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    apply {
        hdr.h.sum = hdr.h.a + hdr.h.b;
        hdr.h.difference = hdr.h.a - hdr.h.b;
        hdr.h.product = (bit<16>)hdr.h.a * (bit<16>)hdr.h.b;
        hdr.h.inverted = ~hdr.h.a;
        hdr.h.both = hdr.h.a & hdr.h.b;
        hdr.h.either = hdr.h.a | hdr.h.b;
        hdr.h.odd = hdr.h.a ^ hdr.h.b;
        hdr.h.left = hdr.h.a << 3;
        hdr.h.right = hdr.h.a >> 3;
        hdr.h.by_amount = hdr.h.d << hdr.h.b;
        hdr.h.wide_sum = hdr.h.e + hdr.h.e;
        hdr.h.wide_product = hdr.h.e * (bit<64>)hdr.h.d;
        hdr.h.saturating_sum = hdr.h.a |+| hdr.h.b;
        hdr.h.saturating_difference = hdr.h.a |-| hdr.h.b;
        hdr.h.joined = hdr.h.b ++ hdr.h.a;
        hdr.h.middle = hdr.h.c[11:4];
        hdr.h.larger = hdr.h.a > hdr.h.b ? hdr.h.a : hdr.h.b;
        hdr.h.negated = -hdr.h.a;
        hdr.h.less = (bit<1>)(hdr.h.a < hdr.h.b);
        hdr.h.less_or_equal = (bit<1>)(hdr.h.a <= hdr.h.b);
        hdr.h.equal = (bit<1>)(hdr.h.a == hdr.h.b);
        hdr.h.not_equal = (bit<1>)(hdr.h.a != hdr.h.b);
        hdr.h.logic = 0;
        if (hdr.h.a > 10 && hdr.h.b > 10) { hdr.h.logic = hdr.h.logic | 1; }
        if (hdr.h.a > 10 || hdr.h.b > 10) { hdr.h.logic = hdr.h.logic | 2; }
        if (!(hdr.h.a >= 10)) { hdr.h.logic = hdr.h.logic | 4; }
        hdr.h.c[7:4] = hdr.h.a[3:0];
        sm.egress_spec = 1;
    }
}
#include "include/end.p4"
