#include "include/begin.p4"

header h_t { bit<8> op; bit<8> count; bit<16> session; bit<16> instance; bit<8> kind; bit<8> kept; bit<16> length; }
struct headers_t { h_t h; }
struct metadata_t { @field_list(1) bit<8> kept; bit<8> lost; }

control I(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    apply {
        sm.egress_spec = 1;
        meta.lost = 5;
        if (hdr.h.op == 1) {
            meta.kept = 7;
            clone_preserving_field_list(CloneType.I2E, (bit<32>)hdr.h.session, 1);
        } else if (hdr.h.op == 2 && sm.instance_type == 0) {
            meta.kept = 8;
            resubmit_preserving_field_list(1);
        } else if (hdr.h.op == 3) {
            sm.mcast_grp = hdr.h.session;
        } else if (hdr.h.op == 4) {
            mark_to_drop(sm);
        } else if (hdr.h.op == 5) {
            truncate((bit<32>)hdr.h.session);
        } else if (hdr.h.op == 9) {
            sm.mcast_grp = hdr.h.session;
            mark_to_drop(sm);
        }
        hdr.h.count = hdr.h.count + 1;
    }
}

#define OWN_EGRESS
control E(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    apply {
        hdr.h.instance = sm.egress_rid;
        hdr.h.kind = (bit<8>)sm.instance_type;
        hdr.h.kept = meta.kept;
        hdr.h.length = (bit<16>)sm.packet_length;
        if (hdr.h.op == 6 && hdr.h.count < 3) {
            meta.kept = hdr.h.count;
            recirculate_preserving_field_list(1);
        } else if (hdr.h.op == 7 && sm.instance_type == 0) {
            meta.kept = 11;
            clone_preserving_field_list(CloneType.E2E, (bit<32>)hdr.h.session, 1);
        } else if (hdr.h.op == 8) {
            mark_to_drop(sm);
        }
    }
}
#include "include/end.p4"
