// FlowRadar in a program of your own: a gate between two ports that lets only named services through.
//
// Everything here but the lines marked FLOWRADAR is a program as it may have been before. It has a parser
// of its own, so it tells FlowRadar itself what a packet's flow key is; programs without one can take
// FlowRadarParser and FlowRadarClassify, as p4src/v1model/switch.p4 does.

#include <core.p4>
#include <v1model.p4>

#include "../../p4src/flowradar.p4"                                          // FLOWRADAR

// The controller's port: `flowradar switch` and `simple_switch_grpc --cpu-port` are given the same.
const bit<9> CPU_PORT = 510;

const bit<16> ETHER_TYPE_IPV4 = 0x0800;
const bit<8> PROTOCOL_TCP = 6;
const bit<8> PROTOCOL_UDP = 17;

@controller_header("packet_in")
header packet_in_t {
    bit<9> ingress_port;
    bit<7> padding;
}

@controller_header("packet_out")
header packet_out_t {
    bit<9> egress_port;
    bit<7> padding;
}

header ethernet_t {
    bit<48> destination;
    bit<48> source;
    bit<16> ether_type;
}

header ipv4_t {
    bit<4>  version;
    bit<4>  header_words;
    bit<8>  tos;
    bit<16> total_bytes;
    bit<16> identification;
    bit<3>  flags;
    bit<13> fragment_offset;
    bit<8>  ttl;
    bit<8>  protocol;
    bit<16> checksum;
    bit<32> source;
    bit<32> destination;
}

header ports_t {
    bit<16> source;
    bit<16> destination;
}

struct headers_t {
    packet_in_t packet_in;
    packet_out_t packet_out;
    ethernet_t ethernet;
    flowradar_headers_t flowradar;                                           // FLOWRADAR
    ipv4_t ipv4;
    ports_t ports;
}

struct metadata_t {
    flowradar_packet_t packet;                                               // FLOWRADAR
}

parser GateParser(
    packet_in packet,
    out headers_t headers,
    inout metadata_t metadata,
    inout standard_metadata_t standard_metadata
) {
    FlowRadarDrainParser() drain;                                            // FLOWRADAR

    state start {
        transition select(standard_metadata.ingress_port) {
            CPU_PORT: from_controller;
            default: from_port;
        }
    }

    state from_controller {
        packet.extract(headers.packet_out);
        packet.extract(headers.ethernet);
        transition select(headers.ethernet.ether_type) {
            FLOWRADAR_ETHER_TYPE: drain_request;                             // FLOWRADAR
            default: accept;
        }
    }

    state drain_request {                                                    // FLOWRADAR
        drain.apply(packet, headers.flowradar);                              // FLOWRADAR
        transition accept;                                                   // FLOWRADAR
    }                                                                        // FLOWRADAR

    state from_port {
        packet.extract(headers.ethernet);
        transition select(headers.ethernet.ether_type) {
            ETHER_TYPE_IPV4: ipv4;
            default: accept;
        }
    }

    state ipv4 {
        packet.extract(headers.ipv4);
        transition select(
            headers.ipv4.header_words, headers.ipv4.fragment_offset, headers.ipv4.protocol
        ) {
            (5, 0, PROTOCOL_TCP): ports;
            (5, 0, PROTOCOL_UDP): ports;
            default: accept;
        }
    }

    state ports {
        packet.extract(headers.ports);
        transition accept;
    }
}

control GateVerifyChecksum(inout headers_t headers, inout metadata_t metadata) {
    apply { }
}

control GateIngress(
    inout headers_t headers,
    inout metadata_t metadata,
    inout standard_metadata_t standard_metadata
) {
    FlowRadar() flowradar;                                                   // FLOWRADAR

    // What FlowRadar shall count this packet as.
    action classify() {                                                      // FLOWRADAR
        metadata.packet.kind = FLOWRADAR_KIND_V4;                            // FLOWRADAR
        metadata.packet.address_0 = headers.ipv4.source ++ headers.ipv4.destination; // FLOWRADAR
        metadata.packet.protocol = headers.ipv4.protocol;                    // FLOWRADAR
        metadata.packet.ip_bytes = (bit<32>)headers.ipv4.total_bytes;        // FLOWRADAR
    }                                                                        // FLOWRADAR
    action classify_ports() {                                                // FLOWRADAR
        metadata.packet.source_port = headers.ports.source;                  // FLOWRADAR
        metadata.packet.destination_port = headers.ports.destination;        // FLOWRADAR
    }                                                                        // FLOWRADAR
    action classify_other() {                                                // FLOWRADAR
        metadata.packet.kind = FLOWRADAR_KIND_NOT_IP;                        // FLOWRADAR
    }                                                                        // FLOWRADAR

    action pass() {
        // Ports 1 and 2 are joined.
        standard_metadata.egress_spec = 3 - standard_metadata.ingress_port;
    }

    action close() {
        mark_to_drop(standard_metadata);
    }

    table services {
        key = {
            headers.ipv4.protocol: exact;
            headers.ports.destination: exact;
        }
        actions = { pass; close; }
        default_action = close();
        size = 1024;
    }

    apply {
        if (headers.ipv4.isValid()) {                                        // FLOWRADAR
            classify();                                                      // FLOWRADAR
        } else if (!headers.packet_out.isValid()) {                          // FLOWRADAR
            classify_other();                                                // FLOWRADAR
        }                                                                    // FLOWRADAR
        if (headers.ports.isValid()) {                                       // FLOWRADAR
            classify_ports();                                                // FLOWRADAR
        }                                                                    // FLOWRADAR
        flowradar.apply(headers.flowradar, metadata.packet);                 // FLOWRADAR

        if (headers.packet_out.isValid()) {
            standard_metadata.egress_spec = headers.packet_out.egress_port;
            if (headers.flowradar.drain.isValid()) {                         // FLOWRADAR
                standard_metadata.egress_spec = CPU_PORT;                    // FLOWRADAR
            }                                                                // FLOWRADAR
            headers.packet_out.setInvalid();
        } else if (headers.ports.isValid()) {
            services.apply();
        } else {
            pass();
        }
    }
}

control GateEgress(
    inout headers_t headers,
    inout metadata_t metadata,
    inout standard_metadata_t standard_metadata
) {
    apply {
        if (standard_metadata.egress_port == CPU_PORT) {
            headers.packet_in.setValid();
            headers.packet_in.ingress_port = standard_metadata.ingress_port;
        }
    }
}

control GateComputeChecksum(inout headers_t headers, inout metadata_t metadata) {
    apply { }
}

control GateDeparser(packet_out packet, in headers_t headers) {
    apply {
        packet.emit(headers.packet_in);
        packet.emit(headers.ethernet);
        packet.emit(headers.flowradar);                                      // FLOWRADAR
        packet.emit(headers.ipv4);
        packet.emit(headers.ports);
    }
}

V1Switch(
    GateParser(),
    GateVerifyChecksum(),
    GateIngress(),
    GateEgress(),
    GateComputeChecksum(),
    GateDeparser()
) main;
