#include "include/begin.p4"

header h_t { bit<8> key; bit<8> color; }
struct headers_t { h_t h; }
struct metadata_t { bit<2> color; }

control I(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    counter(4, CounterType.packets_and_bytes) by_index;
    direct_counter(CounterType.packets_and_bytes) by_entry;
    meter(4, MeterType.packets) by_rate;
    direct_meter<bit<2>>(MeterType.bytes) entry_rate;
    action hit() { by_entry.count(); entry_rate.read(meta.color); }
    action miss() { by_entry.count(); }
    table t {
        key = { hdr.h.key: exact; }
        actions = { hit; miss; }
        default_action = miss();
        counters = by_entry;
        meters = entry_rate;
        support_timeout = true;
    }
    apply {
        sm.egress_spec = 1;
        meta.color = 3;
        by_index.count((bit<32>)hdr.h.key);
        t.apply();
        bit<2> color = 3;
        by_rate.execute_meter<bit<2>>((bit<32>)hdr.h.key, color);
        hdr.h.color = 2w0 ++ meta.color ++ 2w0 ++ color;
    }
}
#include "include/end.p4"
