#include "include/begin.p4"

header h_t { bit<8> exact; bit<32> address; bit<16> bits; bit<16> number; bit<8> optional; bit<8> wide_hit; bit<160> wide; }
struct headers_t { h_t h; }
struct metadata_t { bit<9> port; }

control I(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    action add(bit<9> port) { meta.port = meta.port + port; }
    action wide_hit(bit<8> value) { hdr.h.wide_hit = value; }
    table by_exact {
        key = { hdr.h.exact: exact; }
        actions = { add; NoAction; }
        const entries = { 7: add(1); }
        const default_action = NoAction();
    }
    table by_prefix {
        key = { hdr.h.address: lpm; }
        actions = { add; }
        const default_action = add(0);
        const entries = {
            0x0a000000 &&& 0xff000000: add(2);
            0x0a010000 &&& 0xffff0000: add(4);
            0x0a010203: add(6);
            _: add(0);
        }
    }
    table by_mask {
        key = { hdr.h.bits: ternary; hdr.h.exact: ternary; }
        actions = { add; }
        const default_action = add(0);
        const entries = {
            (0x0100 &&& 0x0f00, 9): add(8);
            (0x0100 &&& 0x0f00, _): add(16);
            (_, 9): add(24);
        }
    }
    table by_range {
        key = { hdr.h.number: range; }
        actions = { add; }
        const default_action = add(0);
        const entries = {
            100 .. 200: add(32);
            150 .. 300: add(64);
        }
    }
    table by_option {
        key = { hdr.h.optional: optional; hdr.h.exact: optional; }
        actions = { add; }
        const default_action = add(0);
        const entries = {
            (1, 7): add(128);
            (1, _): add(256);
        }
    }
    table by_wide {
        key = { hdr.h.wide: exact; }
        actions = { wide_hit; NoAction; }
        const default_action = NoAction();
        const entries = { 0x0123456789abcdef0123456789abcdef01234567: wide_hit(1); }
    }
    apply {
        meta.port = 0;
        by_exact.apply();
        by_prefix.apply();
        by_mask.apply();
        by_range.apply();
        by_option.apply();
        by_wide.apply();
        sm.egress_spec = meta.port;
    }
}
#include "include/end.p4"
