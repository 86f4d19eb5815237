#include "include/begin.p4"

// One of everything that a controller changes while a program runs; a packet tells what it met.
header h_t {
    bit<96> addresses;                      // with the type, what nobody takes for anything else
    bit<16> type;
    bit<8>  op;
    bit<8>  kind;
    bit<16> target;
    bit<8>  key;
    bit<8>  cell;
    bit<32> address;
    bit<16> bits;
    bit<16> number;
    bit<16> flow;
    bit<8>  option;
    bit<8>  by_exact;
    bit<8>  by_prefix;
    bit<8>  by_mask;
    bit<8>  by_range;
    bit<8>  by_option;
    bit<8>  by_member;
    bit<8>  by_group;
    bit<8>  color;
    bit<8>  entry_color;
    bit<8>  copy;
    bit<16> instance;
}
struct headers_t { h_t h; }
struct metadata_t { bit<8> marked; bit<2> entry_color; }
struct seen_t { bit<32> address; bit<16> number; bit<9> port; }

#define OWN_PARSER
parser P(packet_in packet, out headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    value_set<bit<8>>(4) kinds;
    state start {
        packet.extract(hdr.h);
        meta.marked = 0;
        transition select(hdr.h.kind) {
            kinds: marked;
            default: accept;
        }
    }
    state marked {
        meta.marked = 1;
        transition accept;
    }
}

control I(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    counter(4, CounterType.packets_and_bytes) counts;
    direct_counter(CounterType.packets_and_bytes) exact_counts;
    meter(4, MeterType.packets) rates;
    direct_meter<bit<2>>(MeterType.packets) entry_rate;
    register<bit<32>>(4) numbers;
    @max_group_size(8)
    action_selector(HashAlgorithm.crc16, 16, 8) choice;
    action_profile(4) profile;

    action exact_value(bit<8> value) { hdr.h.by_exact = value; exact_counts.count(); }
    action exact_none() { exact_counts.count(); }
    action prefix_value(bit<8> value) { hdr.h.by_prefix = value; }
    action mask_value(bit<8> value) { hdr.h.by_mask = value; }
    action range_value(bit<8> value) { hdr.h.by_range = value; }
    action option_value(bit<8> value) { hdr.h.by_option = value; }
    action member_value(bit<8> value) { hdr.h.by_member = value; }
    action group_value(bit<9> port, bit<8> value) { sm.egress_spec = port; hdr.h.by_group = value; }
    action metered() { entry_rate.read(meta.entry_color); }

    table exact_table {
        key = { hdr.h.key: exact @name("key"); }
        actions = { exact_value; exact_none; }
        default_action = exact_none();
        counters = exact_counts;
        support_timeout = true;
        size = 16;
    }
    table prefix_table {
        key = { hdr.h.key: exact @name("key"); hdr.h.address: lpm @name("address"); }
        actions = { prefix_value; NoAction; }
        default_action = prefix_value(0);
        size = 64;
    }
    table mask_table {
        key = { hdr.h.bits: ternary @name("bits"); hdr.h.key: ternary @name("key"); }
        actions = { mask_value; }
        const default_action = mask_value(0);
        size = 64;
    }
    table range_table {
        key = { hdr.h.number: range @name("number"); }
        actions = { range_value; NoAction; }
        default_action = NoAction();
        size = 64;
    }
    table option_table {
        key = { hdr.h.option: optional @name("option"); hdr.h.key: optional @name("key"); }
        actions = { option_value; NoAction; }
        default_action = NoAction();
        size = 64;
    }
    table member_table {
        key = { hdr.h.key: exact @name("key"); }
        actions = { member_value; NoAction; }
        implementation = profile;
        size = 16;
    }
    table group_table {
        key = { hdr.h.key: exact @name("key"); hdr.h.flow: selector; hdr.h.address: selector; }
        actions = { group_value; NoAction; }
        implementation = choice;
        size = 16;
    }
    table metered_table {
        key = { hdr.h.cell: exact @name("cell"); }
        actions = { metered; NoAction; }
        default_action = NoAction();
        meters = entry_rate;
        size = 16;
    }
    table fixed_table {
        key = { hdr.h.key: exact @name("key"); }
        actions = { NoAction; }
        const default_action = NoAction();
        const entries = { 1: NoAction(); }
    }

    apply {
        sm.egress_spec = 1;
        meta.entry_color = 3;
        bit<2> color = 3;
        exact_table.apply();
        prefix_table.apply();
        mask_table.apply();
        range_table.apply();
        option_table.apply();
        member_table.apply();
        group_table.apply();
        metered_table.apply();
        fixed_table.apply();
        counts.count((bit<32>)hdr.h.cell);
        if (hdr.h.cell < 4) {
            rates.execute_meter<bit<2>>((bit<32>)hdr.h.cell, color);
            numbers.write((bit<32>)hdr.h.cell, hdr.h.address);
        }
        hdr.h.color = 6w0 ++ color;
        hdr.h.entry_color = 5w0 ++ meta.marked[0:0] ++ meta.entry_color;
        if (hdr.h.op == 1) {
            sm.mcast_grp = hdr.h.target;
        } else if (hdr.h.op == 2) {
            clone(CloneType.I2E, (bit<32>)hdr.h.target);
        } else if (hdr.h.op == 3) {
            digest<seen_t>(1, { hdr.h.address, hdr.h.number, sm.ingress_port });
        } else if (hdr.h.op == 4) {
            mark_to_drop(sm);
        }
    }
}

#define OWN_EGRESS
control E(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    apply {
        hdr.h.copy = (bit<8>)sm.instance_type;
        hdr.h.instance = sm.egress_rid;
        if (hdr.h.op == 5 && sm.instance_type == 0) {
            clone(CloneType.E2E, (bit<32>)hdr.h.target);
        }
    }
}
#include "include/end.p4"
