// A switch and router with FlowRadar in it, for v1model targets (bmv2, flowradar-switch).
//
// Layer 2 with VLANs, IPv4 and IPv6 routing over equal-cost paths, an access list, port and drop
// counters, packet-in and packet-out. Every frame that comes in through a port is counted by FlowRadar
// before anything else can drop it. The tables and actions are listed in docs/p4.md.

#include <core.p4>
#include <v1model.p4>

#include "../flowradar.p4"
#include "../flowradar_parser.p4"

typedef bit<9> port_t;

const port_t CPU_PORT = 510;

// Why a packet came to the controller.
const bit<7> REASON_PUNTED = 0;
const bit<7> REASON_DRAIN_REPLY = 1;
const bit<7> REASON_TTL = 2;

// Why packets were dropped: the index of drop_counter.
const bit<32> DROP_ACL = 0;
const bit<32> DROP_L2_MISS = 1;
const bit<32> DROP_NO_ROUTE = 2;
const bit<32> DROP_TTL = 3;
const bit<32> DROP_CHECKSUM = 4;
const bit<32> DROP_MALFORMED = 5;
const bit<32> DROP_TABLE = 6;
const bit<32> DROP_REASONS = 8;

@controller_header("packet_in")
header packet_in_t {
    bit<9> ingress_port;
    bit<7> reason;
}

@controller_header("packet_out")
header packet_out_t {
    bit<9> egress_port;
    bit<7> padding;
}

struct headers_t {
    packet_in_t packet_in;
    packet_out_t packet_out;
    flowradar_headers_t flowradar;
    flowradar_frame_t frame;
}

struct metadata_t {
    flowradar_packet_t packet;
    flowradar_parsed_t parsed;
    bit<7> reason;
    bit<1> is_routed;
    bit<1> is_flooded;
    bit<12> vlan;
}

parser SwitchParser(
    packet_in packet,
    out headers_t headers,
    inout metadata_t metadata,
    inout standard_metadata_t standard_metadata
) {
    FlowRadarParser() frame;
    FlowRadarDrainParser() drain;

    state start {
        transition select(standard_metadata.ingress_port) {
            CPU_PORT: from_controller;
            default: frame_from_port;
        }
    }

    state from_controller {
        packet.extract(headers.packet_out);
        // EtherType of the frame.
        transition select(packet.lookahead<bit<112>>()[15:0]) {
            FLOWRADAR_ETHER_TYPE: drain_request;
            default: accept;
        }
    }

    state drain_request {
        packet.extract(headers.frame.ethernet);
        drain.apply(packet, headers.flowradar);
        transition accept;
    }

    state frame_from_port {
        frame.apply(packet, headers.frame, metadata.parsed, standard_metadata.packet_length);
        transition accept;
    }
}

control SwitchVerifyChecksum(inout headers_t headers, inout metadata_t metadata) {
    apply {
        verify_checksum(
            headers.frame.ipv4.isValid() && headers.frame.ipv4.header_words == 5,
            {
                headers.frame.ipv4.version,
                headers.frame.ipv4.header_words,
                headers.frame.ipv4.dscp,
                headers.frame.ipv4.ecn,
                headers.frame.ipv4.total_bytes,
                headers.frame.ipv4.identification,
                headers.frame.ipv4.flags,
                headers.frame.ipv4.fragment_offset,
                headers.frame.ipv4.ttl,
                headers.frame.ipv4.protocol,
                headers.frame.ipv4.source,
                headers.frame.ipv4.destination
            },
            headers.frame.ipv4.checksum,
            HashAlgorithm.csum16
        );
    }
}

control SwitchIngress(
    inout headers_t headers,
    inout metadata_t metadata,
    inout standard_metadata_t standard_metadata
) {
    FlowRadarClassify() classify;
    FlowRadar() flowradar;

    counter(512, CounterType.packets_and_bytes) ingress_port_counter;
    counter(DROP_REASONS, CounterType.packets_and_bytes) drop_counter;

    action drop_because(bit<32> reason) {
        drop_counter.count(reason);
        mark_to_drop(standard_metadata);
    }

    action drop_packet() {
        drop_because(DROP_TABLE);
    }

    action send_to_controller(bit<7> reason) {
        metadata.reason = reason;
        standard_metadata.egress_spec = CPU_PORT;
    }

    // Access list.

    direct_counter(CounterType.packets_and_bytes) acl_counter;

    action permit() {
        acl_counter.count();
    }

    action deny() {
        acl_counter.count();
        drop_because(DROP_ACL);
        exit;
    }

    action punt() {
        acl_counter.count();
        send_to_controller(REASON_PUNTED);
        exit;
    }

    table acl {
        key = {
            standard_metadata.ingress_port: ternary;
            headers.frame.ethernet.destination: ternary;
            metadata.parsed.ether_type: ternary;
            metadata.packet.address_0: ternary;
            metadata.packet.protocol: ternary;
            metadata.packet.destination_port: ternary;
        }
        actions = { permit; deny; punt; }
        default_action = permit();
        counters = acl_counter;
        size = 1024;
    }

    // Layer 2.

    action l2_to_port(port_t port) {
        standard_metadata.egress_spec = port;
    }

    action l2_to_group(bit<16> group) {
        metadata.is_flooded = 1;
        standard_metadata.mcast_grp = group;
    }

    action l2_miss() {
        drop_because(DROP_L2_MISS);
    }

    table l2 {
        key = {
            metadata.vlan: exact;
            headers.frame.ethernet.destination: exact;
        }
        actions = { l2_to_port; l2_to_group; drop_packet; l2_miss; }
        default_action = l2_miss();
        size = 16384;
    }

    // Layer 3: what is addressed to the switch's own MAC addresses is routed.

    action route() {
        metadata.is_routed = 1;
    }

    table my_station {
        key = { headers.frame.ethernet.destination: exact; }
        actions = { route; NoAction; }
        default_action = NoAction();
        size = 64;
    }

    action_selector(HashAlgorithm.crc32, 32w1024, 32w14) ipv4_next_hops;
    action_selector(HashAlgorithm.crc32, 32w1024, 32w14) ipv6_next_hops;

    action to_next_hop(port_t port, bit<48> source, bit<48> destination) {
        headers.frame.ethernet.source = source;
        headers.frame.ethernet.destination = destination;
        standard_metadata.egress_spec = port;
    }

    table ipv4_lpm {
        key = {
            headers.frame.ipv4.destination: lpm;
            headers.frame.ipv4.source: selector;
            headers.frame.ipv4.destination: selector;
            metadata.packet.source_port: selector;
            metadata.packet.destination_port: selector;
            metadata.packet.protocol: selector;
        }
        actions = { to_next_hop; send_to_controller; drop_packet; }
        implementation = ipv4_next_hops;
        size = 16384;
    }

    table ipv6_lpm {
        key = {
            headers.frame.ipv6.destination: lpm;
            headers.frame.ipv6.source: selector;
            headers.frame.ipv6.destination: selector;
            metadata.packet.source_port: selector;
            metadata.packet.destination_port: selector;
            metadata.packet.protocol: selector;
        }
        actions = { to_next_hop; send_to_controller; drop_packet; }
        implementation = ipv6_next_hops;
        size = 8192;
    }

#if FLOWRADAR_STAMP_EPOCH
    // Ports with hosts: what comes in there has not been stamped by a switch.
    action from_host() {
        metadata.packet.is_stamped = 0;
    }

    table host_ports {
        key = { standard_metadata.ingress_port: exact; }
        actions = { from_host; NoAction; }
        default_action = NoAction();
        size = 512;
    }
#endif

    apply {
        if (!headers.packet_out.isValid()) {
            ingress_port_counter.count((bit<32>)standard_metadata.ingress_port);
            classify.apply(headers.frame, metadata.parsed, metadata.packet);
#if FLOWRADAR_STAMP_EPOCH
            if (metadata.packet.kind == FLOWRADAR_KIND_V4) {
                metadata.packet.is_stamped = 1;
                metadata.packet.stamp = headers.frame.ipv4.dscp[0:0];
            } else if (metadata.packet.kind == FLOWRADAR_KIND_V6) {
                metadata.packet.is_stamped = 1;
                metadata.packet.stamp = headers.frame.ipv6.dscp[0:0];
            }
            host_ports.apply();
#endif
        }
        flowradar.apply(headers.flowradar, metadata.packet);

        if (headers.packet_out.isValid()) {
            if (headers.flowradar.drain.isValid()) {
                send_to_controller(REASON_DRAIN_REPLY);
            } else if (headers.frame.ethernet.isValid()) {
                // A drain request of another version: it gets no answer.
                mark_to_drop(standard_metadata);
            } else {
                standard_metadata.egress_spec = headers.packet_out.egress_port;
            }
            headers.packet_out.setInvalid();
            exit;
        }
#if FLOWRADAR_STAMP_EPOCH
        if (metadata.packet.kind == FLOWRADAR_KIND_V4) {
            headers.frame.ipv4.dscp[0:0] = metadata.packet.stamp;
        } else if (metadata.packet.kind == FLOWRADAR_KIND_V6) {
            headers.frame.ipv6.dscp[0:0] = metadata.packet.stamp;
        }
#endif
        if (metadata.packet.kind == FLOWRADAR_KIND_MALFORMED) {
            drop_because(DROP_MALFORMED);
            exit;
        }
        if (standard_metadata.checksum_error == 1) {
            drop_because(DROP_CHECKSUM);
            exit;
        }
        if (headers.frame.vlan_tags[0].isValid()) {
            metadata.vlan = headers.frame.vlan_tags[0].vlan;
        }
        acl.apply();
        my_station.apply();
        if (metadata.is_routed == 0) {
            l2.apply();
        } else if (headers.frame.ipv4.isValid()) {
            if (headers.frame.ipv4.ttl <= 1) {
                drop_counter.count(DROP_TTL);
                send_to_controller(REASON_TTL);
            } else {
                headers.frame.ipv4.ttl = headers.frame.ipv4.ttl - 1;
                if (ipv4_lpm.apply().miss) {
                    drop_because(DROP_NO_ROUTE);
                }
            }
        } else if (headers.frame.ipv6.isValid()) {
            if (headers.frame.ipv6.hop_limit <= 1) {
                drop_counter.count(DROP_TTL);
                send_to_controller(REASON_TTL);
            } else {
                headers.frame.ipv6.hop_limit = headers.frame.ipv6.hop_limit - 1;
                if (ipv6_lpm.apply().miss) {
                    drop_because(DROP_NO_ROUTE);
                }
            }
        } else {
            l2.apply();
        }
    }
}

control SwitchEgress(
    inout headers_t headers,
    inout metadata_t metadata,
    inout standard_metadata_t standard_metadata
) {
    counter(512, CounterType.packets_and_bytes) egress_port_counter;

#if FLOWRADAR_STAMP_EPOCH
    // Ports with hosts: the stamp is taken off.
    action to_host() {
        headers.frame.ipv4.dscp[0:0] = 0;
        headers.frame.ipv6.dscp[0:0] = 0;
    }

    table stamp_end {
        key = { standard_metadata.egress_port: exact; }
        actions = { to_host; NoAction; }
        default_action = NoAction();
        size = 512;
    }
#endif

    apply {
        // What is flooded does not go back where it came from.
        if (metadata.is_flooded == 1
            && standard_metadata.egress_port == standard_metadata.ingress_port) {
            mark_to_drop(standard_metadata);
        } else {
#if FLOWRADAR_STAMP_EPOCH
            stamp_end.apply();
#endif
            egress_port_counter.count((bit<32>)standard_metadata.egress_port);
            if (standard_metadata.egress_port == CPU_PORT) {
                headers.packet_in.setValid();
                headers.packet_in.ingress_port = standard_metadata.ingress_port;
                headers.packet_in.reason = metadata.reason;
            }
        }
    }
}

control SwitchComputeChecksum(inout headers_t headers, inout metadata_t metadata) {
    apply {
        update_checksum(
            headers.frame.ipv4.isValid() && headers.frame.ipv4.header_words == 5,
            {
                headers.frame.ipv4.version,
                headers.frame.ipv4.header_words,
                headers.frame.ipv4.dscp,
                headers.frame.ipv4.ecn,
                headers.frame.ipv4.total_bytes,
                headers.frame.ipv4.identification,
                headers.frame.ipv4.flags,
                headers.frame.ipv4.fragment_offset,
                headers.frame.ipv4.ttl,
                headers.frame.ipv4.protocol,
                headers.frame.ipv4.source,
                headers.frame.ipv4.destination
            },
            headers.frame.ipv4.checksum,
            HashAlgorithm.csum16
        );
        update_checksum(
            headers.frame.ipv4.isValid() && headers.frame.ipv4_options.isValid(),
            {
                headers.frame.ipv4.version,
                headers.frame.ipv4.header_words,
                headers.frame.ipv4.dscp,
                headers.frame.ipv4.ecn,
                headers.frame.ipv4.total_bytes,
                headers.frame.ipv4.identification,
                headers.frame.ipv4.flags,
                headers.frame.ipv4.fragment_offset,
                headers.frame.ipv4.ttl,
                headers.frame.ipv4.protocol,
                headers.frame.ipv4.source,
                headers.frame.ipv4.destination,
                headers.frame.ipv4_options.options
            },
            headers.frame.ipv4.checksum,
            HashAlgorithm.csum16
        );
    }
}

control SwitchDeparser(packet_out packet, in headers_t headers) {
    apply {
        packet.emit(headers.packet_in);
        packet.emit(headers.frame.ethernet);
        packet.emit(headers.flowradar.drain);
        packet.emit(headers.flowradar.state);
        packet.emit(headers.flowradar.bank_0);
        packet.emit(headers.flowradar.bank_1);
#if FLOWRADAR_V4
        packet.emit(headers.flowradar.v4_filter);
        packet.emit(headers.flowradar.v4_cells);
#endif
#if FLOWRADAR_V6
        packet.emit(headers.flowradar.v6_filter);
        packet.emit(headers.flowradar.v6_cells);
#endif
        packet.emit(headers.frame.vlan_tags);
        packet.emit(headers.frame.ipv4);
        packet.emit(headers.frame.ipv4_options);
        packet.emit(headers.frame.ipv6);
        packet.emit(headers.frame.ipv6_extensions);
        packet.emit(headers.frame.icmp);
        packet.emit(headers.frame.ports);
    }
}

V1Switch(
    SwitchParser(),
    SwitchVerifyChecksum(),
    SwitchIngress(),
    SwitchEgress(),
    SwitchComputeChecksum(),
    SwitchDeparser()
) main;
