#include "include/begin.p4"

header h_t {
    bit<128> a; bit<128> b; bit<104> c;
    bit<128> sum; bit<128> difference; bit<128> odd; bit<128> shifted; bit<128> shifted_by;
    bit<104> low; bit<64> high; bit<256> joined; bit<24> top; bit<128> product;
    bit<8> flags;
}
struct headers_t { h_t h; }
struct metadata_t {}

control I(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    apply {
        hdr.h.sum = hdr.h.a + hdr.h.b;
        hdr.h.difference = hdr.h.a - hdr.h.b;
        hdr.h.odd = hdr.h.a ^ hdr.h.b;
        hdr.h.shifted = hdr.h.a << 68;
        hdr.h.shifted_by = hdr.h.a >> (bit<8>)hdr.h.b[6:0];
        hdr.h.low = hdr.h.c + (bit<104>)hdr.h.a;
        hdr.h.high = hdr.h.a[127:64];
        hdr.h.joined = hdr.h.b ++ hdr.h.a;
        hdr.h.top = (bit<24>)(hdr.h.c >> 80);
        hdr.h.product = hdr.h.a * hdr.h.b;
        hdr.h.flags = 0;
        if (hdr.h.a < hdr.h.b) { hdr.h.flags = hdr.h.flags | 1; }
        if (hdr.h.a == hdr.h.b) { hdr.h.flags = hdr.h.flags | 2; }
        if (hdr.h.a - hdr.h.b > hdr.h.a) { hdr.h.flags = hdr.h.flags | 4; }
        sm.egress_spec = 1;
    }
}
#include "include/end.p4"
