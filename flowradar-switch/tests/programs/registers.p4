#include "include/begin.p4"

header h_t { bit<8> op; bit<32> index; bit<32> value; bit<104> wide; bit<8> flag; }
struct headers_t { h_t h; }
struct metadata_t {}

control I(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    register<bit<20>>(4) numbers;
    register<bit<104>>(4) wides;
    register<bit<1>>(8) flags;
    action add() {
        bit<20> number;
        numbers.read(number, hdr.h.index);
        number = number + (bit<20>)hdr.h.value;
        numbers.write(hdr.h.index, number);
        hdr.h.value = (bit<32>)number;
    }
    action mix() {
        bit<104> wide;
        wides.read(wide, hdr.h.index);
        wide = wide ^ hdr.h.wide;
        wides.write(hdr.h.index, wide);
        hdr.h.wide = wide;
    }
    action flip() {
        bit<1> flag;
        flags.read(flag, hdr.h.index);
        hdr.h.flag = (bit<8>)flag;
        flags.write(hdr.h.index, ~flag);
    }
    apply {
        sm.egress_spec = 1;
        if (hdr.h.op == 1) { add(); }
        if (hdr.h.op == 2) { mix(); }
        if (hdr.h.op == 3) { flip(); }
    }
}
#include "include/end.p4"
