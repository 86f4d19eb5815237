#include "include/begin.p4"

header h_t {
    bit<32> a; bit<16> b; bit<24> c;
    bit<32> crc32; bit<16> crc16; bit<16> csum16; bit<16> xor16; bit<64> identity; bit<32> reduced;
    bit<32> odd_bits;
}
struct headers_t { h_t h; }
struct metadata_t {}

control I(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    apply {
        sm.egress_spec = 1;
        hash(hdr.h.crc32, HashAlgorithm.crc32, 32w0, { hdr.h.a, hdr.h.b, hdr.h.c }, 64w0x100000000);
        hash(hdr.h.crc16, HashAlgorithm.crc16, 16w0, { hdr.h.a, hdr.h.b, hdr.h.c }, 32w0x10000);
        hash(hdr.h.csum16, HashAlgorithm.csum16, 16w0, { hdr.h.a, hdr.h.b, hdr.h.c }, 32w0x10000);
        hash(hdr.h.xor16, HashAlgorithm.xor16, 16w0, { hdr.h.a, hdr.h.b, hdr.h.c }, 32w0x10000);
        hash(hdr.h.identity, HashAlgorithm.identity, 64w0, { hdr.h.b, hdr.h.c }, 64w0xffffffffffffffff);
        hash(hdr.h.reduced, HashAlgorithm.crc32, 32w1000, { hdr.h.a, hdr.h.b, hdr.h.c }, 32w97);
        hash(hdr.h.odd_bits, HashAlgorithm.crc32, 32w0, { hdr.h.a[2:0], hdr.h.b }, 64w0x100000000);
    }
}
#include "include/end.p4"
