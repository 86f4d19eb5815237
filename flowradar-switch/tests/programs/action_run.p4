#include "include/begin.p4"

header h_t { bit<8> key; bit<8> trace; }
struct headers_t { h_t h; }
struct metadata_t {}

control I(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    action one() { hdr.h.trace = 1; }
    action two(bit<8> value) { hdr.h.trace = value; }
    action leave() { hdr.h.trace = 9; exit; }
    action none() {}
    table first {
        key = { hdr.h.key: exact; }
        actions = { one; two; leave; none; }
        const default_action = none();
        const entries = { 1: one(); 2: two(0x20); 3: leave(); }
    }
    table second {
        key = { hdr.h.key: exact; }
        actions = { none; }
        const default_action = none();
        const entries = { 2: none(); 4: none(); }
    }
    apply {
        sm.egress_spec = 1;
        switch (first.apply().action_run) {
            one: { hdr.h.trace = hdr.h.trace + 1; }
            two: { hdr.h.trace = hdr.h.trace + 2; }
            default: { hdr.h.trace = hdr.h.trace + 3; }
        }
        if (second.apply().hit) {
            hdr.h.trace = hdr.h.trace | 0x40;
        } else {
            hdr.h.trace = hdr.h.trace | 0x80;
        }
        if (hdr.h.key == 5) { return; }
        sm.egress_spec = 2;
    }
}
#include "include/end.p4"
