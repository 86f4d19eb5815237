// One object of every kind that P4Runtime knows on v1model, for the tests of the service.
#include <core.p4>
#include <v1model.p4>

typedef bit<9> port_t;
const port_t CPU_PORT = 510;

@controller_header("packet_in")
header packet_in_t {
    port_t ingress_port;
    bit<7> reason;
}

@controller_header("packet_out")
header packet_out_t {
    port_t egress_port;
    bit<7> mode;
}

header ethernet_t {
    bit<48> dst;
    bit<48> src;
    bit<16> ether_type;
}

header ipv4_t {
    bit<4>  version;
    bit<4>  ihl;
    bit<8>  diffserv;
    bit<16> total_length;
    bit<16> identification;
    bit<3>  flags;
    bit<13> fragment_offset;
    bit<8>  ttl;
    bit<8>  protocol;
    bit<16> checksum;
    bit<32> src;
    bit<32> dst;
}

struct headers_t {
    packet_in_t  packet_in;
    packet_out_t packet_out;
    ethernet_t   ethernet;
    ipv4_t       ipv4;
}

struct metadata_t {
    bit<16> selector_input;
}

struct learned_t {
    bit<48> address;
    port_t  port;
}

parser ParserImpl(packet_in packet, out headers_t hdr, inout metadata_t meta,
                  inout standard_metadata_t standard_metadata) {
    value_set<bit<16>>(4) ipv4_types;

    state start {
        transition select(standard_metadata.ingress_port) {
            CPU_PORT: parse_packet_out;
            default: parse_ethernet;
        }
    }

    state parse_packet_out {
        packet.extract(hdr.packet_out);
        transition parse_ethernet;
    }

    state parse_ethernet {
        packet.extract(hdr.ethernet);
        transition select(hdr.ethernet.ether_type) {
            0x0800: parse_ipv4;
            ipv4_types: parse_ipv4;
            default: accept;
        }
    }

    state parse_ipv4 {
        packet.extract(hdr.ipv4);
        transition accept;
    }
}

control VerifyChecksumImpl(inout headers_t hdr, inout metadata_t meta) {
    apply { }
}

control IngressImpl(inout headers_t hdr, inout metadata_t meta,
                    inout standard_metadata_t standard_metadata) {
    counter(512, CounterType.packets_and_bytes) port_counter;
    meter(16, MeterType.packets) port_meter;
    direct_counter(CounterType.packets_and_bytes) acl_counter;
    direct_meter<bit<2>>(MeterType.bytes) route_meter;
    register<bit<48>>(32) last_source;
    action_selector(HashAlgorithm.crc16, 128, 16) ecmp_selector;
    action_profile(16) queues;
    bit<2> route_color = 0;
    bit<2> port_color = 0;

    action drop() {
        mark_to_drop(standard_metadata);
    }

    action forward(port_t port) {
        standard_metadata.egress_spec = port;
    }

    action route(bit<48> dst, port_t port) {
        hdr.ethernet.dst = dst;
        hdr.ipv4.ttl = hdr.ipv4.ttl - 1;
        standard_metadata.egress_spec = port;
        route_meter.read(route_color);
    }

    action permit() {
        acl_counter.count();
    }

    action deny() {
        acl_counter.count();
        mark_to_drop(standard_metadata);
    }

    action to_controller(bit<7> reason) {
        standard_metadata.egress_spec = CPU_PORT;
        hdr.packet_in.setValid();
        hdr.packet_in.ingress_port = standard_metadata.ingress_port;
        hdr.packet_in.reason = reason;
    }

    action flood(bit<16> group) {
        standard_metadata.mcast_grp = group;
    }

    action mirror(bit<32> session) {
        clone(CloneType.I2E, session);
    }

    action set_priority(bit<3> priority) {
        standard_metadata.priority = priority;
    }

    action learn() {
        digest<learned_t>(1, {hdr.ethernet.src, standard_metadata.ingress_port});
    }

    @id(0x02000001)
    table l2_exact {
        key = { hdr.ethernet.dst: exact @name("dst"); }
        actions = { forward; flood; drop; to_controller; @defaultonly NoAction; }
        default_action = NoAction();
        size = 64;
        support_timeout = true;
    }

    table routes {
        key = { hdr.ipv4.dst: lpm @name("dst"); }
        actions = { route; drop; NoAction; }
        default_action = NoAction();
        meters = route_meter;
        size = 32;
    }

    table acl {
        key = {
            hdr.ipv4.src: ternary @name("src");
            hdr.ipv4.protocol: range @name("protocol");
            standard_metadata.ingress_port: optional @name("port");
        }
        actions = { permit; deny; }
        const default_action = permit();
        counters = acl_counter;
        size = 16;
    }

    table ecmp {
        key = {
            hdr.ipv4.dst: lpm @name("dst");
            hdr.ipv4.src: selector;
            hdr.ipv4.protocol: selector;
        }
        actions = { forward; drop; NoAction; }
        implementation = ecmp_selector;
        size = 32;
    }

    table queue {
        key = { hdr.ipv4.diffserv: exact @name("diffserv"); }
        actions = { set_priority; NoAction; }
        implementation = queues;
        size = 16;
    }

    table fixed {
        key = { hdr.ethernet.ether_type: exact @name("type"); }
        actions = { mirror; learn; to_controller; NoAction; }
        const default_action = NoAction();
        const entries = {
            0x88b6: mirror(7);
            0x88b7: learn();
            0x88b8: to_controller(3);
        }
    }

    apply {
        port_counter.count((bit<32>)standard_metadata.ingress_port);
        port_meter.execute_meter((bit<32>)(standard_metadata.ingress_port & 15), port_color);
        last_source.write((bit<32>)(standard_metadata.ingress_port & 31), hdr.ethernet.src);
        if (hdr.packet_out.isValid() && hdr.packet_out.mode == 0) {
            standard_metadata.egress_spec = hdr.packet_out.egress_port;
            hdr.packet_out.setInvalid();
        } else {
            hdr.packet_out.setInvalid();
            l2_exact.apply();
            fixed.apply();
            if (hdr.ipv4.isValid()) {
                routes.apply();
                queue.apply();
                ecmp.apply();
                acl.apply();
            }
        }
    }
}

control EgressImpl(inout headers_t hdr, inout metadata_t meta,
                   inout standard_metadata_t standard_metadata) {
    apply { }
}

control ComputeChecksumImpl(inout headers_t hdr, inout metadata_t meta) {
    apply {
        update_checksum(hdr.ipv4.isValid(),
            { hdr.ipv4.version, hdr.ipv4.ihl, hdr.ipv4.diffserv, hdr.ipv4.total_length,
              hdr.ipv4.identification, hdr.ipv4.flags, hdr.ipv4.fragment_offset, hdr.ipv4.ttl,
              hdr.ipv4.protocol, hdr.ipv4.src, hdr.ipv4.dst },
            hdr.ipv4.checksum, HashAlgorithm.csum16);
    }
}

control DeparserImpl(packet_out packet, in headers_t hdr) {
    apply {
        packet.emit(hdr.packet_in);
        packet.emit(hdr.ethernet);
        packet.emit(hdr.ipv4);
    }
}

V1Switch(ParserImpl(), VerifyChecksumImpl(), IngressImpl(), EgressImpl(), ComputeChecksumImpl(),
         DeparserImpl()) main;
