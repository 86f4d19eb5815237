#include "include/begin.p4"

// Parsers within parsers, controls within controls, enumerations, choices by value, tables in egress.
enum bit<8> Mode { Plain = 1, Thrice = 2, Halve = 3, Half = 4, Egress = 9 }

header h_t { Mode mode; bit<8> value; bit<8> sum; bit<8> last; bit<8> count; }
header item_t { bit<1> more; bit<7> value; }
struct headers_t { h_t h; item_t[4] items; }
struct pair_t { bit<8> first; bit<8> second; }
struct metadata_t { pair_t pair; bit<8> last; bit<8> count; }

parser Items(packet_in packet, inout item_t[4] items, out bit<8> last, out bit<8> count) {
    state start {
        packet.extract(items.next);
        last = 1w0 ++ items.last.value;
        count = (bit<8>)items.lastIndex + 1;
        transition select(items.last.more) {
            1: start;
            default: accept;
        }
    }
}

#define OWN_PARSER
parser P(packet_in packet, out headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    Items() items;
    state start {
        packet.extract(hdr.h);
        meta.last = 0;
        meta.count = 0;
        transition select(hdr.h.mode) {
            Mode.Plain: with_items;
            Mode.Thrice: with_items;
            default: accept;
        }
    }
    state with_items {
        items.apply(packet, hdr.items, meta.last, meta.count);
        transition accept;
    }
}

control Weigh(inout bit<8> sum, in item_t item, in bit<8> weight) {
    apply {
        if (item.isValid()) { sum = sum + weight * (1w0 ++ item.value); }
    }
}

control I(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    Weigh() by_one;
    Weigh() by_ten;

    action swap(inout pair_t pair) {
        bit<8> first = pair.first;
        pair.first = pair.second;
        pair.second = first;
    }
    action halve(inout bit<8> number, out bit<1> rest) {
        rest = number[0:0];
        number = number >> 1;
    }

    apply {
        sm.egress_spec = 1;
        bit<8> sum = 0;
        by_one.apply(sum, hdr.items[0], 1);
        by_one.apply(sum, hdr.items[1], 1);
        by_ten.apply(sum, hdr.items[2], 10);
        meta.pair = { hdr.h.value, sum };
        switch (hdr.h.mode) {
            Mode.Plain: { meta.pair.second = meta.pair.second + 1; }
            Mode.Thrice: {
                swap(meta.pair);
                swap(meta.pair);
                swap(meta.pair);
            }
            Mode.Halve:
            Mode.Half: {
                bit<1> rest;
                halve(meta.pair.first, rest);
                if (rest == 1) { meta.pair.second = 0xff; }
            }
            default: { meta.pair.second = 0xee; }
        }
        hdr.h.value = meta.pair.first;
        hdr.h.sum = meta.pair.second;
        hdr.h.last = meta.last;
        hdr.h.count = meta.count;
    }
}

#define OWN_EGRESS
control E(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    action add(bit<8> number) { hdr.h.value = hdr.h.value + number; }
    table in_egress {
        key = { hdr.h.mode: exact; sm.egress_port: exact; }
        actions = { add; NoAction; }
        const default_action = NoAction();
        const entries = { (Mode.Egress, 1): add(100); }
    }
    apply {
        if (in_egress.apply().miss) {
            hdr.h.last = hdr.h.last + 6;
        }
    }
}
#include "include/end.p4"
