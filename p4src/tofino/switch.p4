// FlowRadar on Tofino 1 (TNA): IPv4, 100,000 flows, two banks, beside a routing table.
//
// docs/tofino.md says what each part needs and why it is where it is. In short: the ingress makes the
// key and the lanes (hash family crc-add), and routes; the egress has flow filter and counting table, so
// that exactly the packets that leave are counted, in filter and cells alike, whatever the traffic
// manager drops. Everything is a power of two: an index is a lane's top bits, and a table takes k = 4
// subtables of 32,768 cells.

#include <core.p4>
#include <tna.p4>

// Sizes of one bank. The bank is the top bit of every index, if there are two (-D BANK_BITS=0 for one).
#ifndef BANK_BITS
#define BANK_BITS 1
#endif
#define FILTER_INDEX_BITS 19
#define CELL_INDEX_BITS 15
#define FILTER_SIZE (1 << (FILTER_INDEX_BITS + BANK_BITS))
#define CELL_SIZE (1 << (CELL_INDEX_BITS + BANK_BITS))

typedef bit<(FILTER_INDEX_BITS + BANK_BITS)> filter_index_t;
typedef bit<(CELL_INDEX_BITS + BANK_BITS)> cell_index_t;

// Polynomials of crc-add (docs/hash-families.md).
#define POLYNOMIAL_A 32w0x04c11db7
#define POLYNOMIAL_B 32w0x243f6a95
#define POLYNOMIAL_T0 32w0x85a3090b
#define POLYNOMIAL_T1 32w0x13198a49
#define POLYNOMIAL_T2 32w0x03707347
#define POLYNOMIAL_T3 32w0xa409382d
#define POLYNOMIAL_F0 32w0x38d013df
#define POLYNOMIAL_F1 32w0xbe546759
#define POLYNOMIAL_F2 32w0x34e90d49
#define POLYNOMIAL_F3 32w0xc0ac29df
#define POLYNOMIAL_F4 32w0xc97c511d
#define POLYNOMIAL_F5 32w0x3f84d5f7
#define POLYNOMIAL_F6 32w0xb547091f
#define POLYNOMIAL_F7 32w0x9216d5df

// The mixed seed of crc-add, high and low half: XORed into the CRCs of the key. A CRC's final XOR
// takes it for nothing; to change it while running, load the program again.
#define SEED_HIGH 32w0x910a2dec
#define SEED_LOW 32w0x89025cc1

const bit<16> ETHER_TYPE_IPV4 = 0x0800;
const bit<16> ETHER_TYPE_VLAN = 0x8100;

header ethernet_t {
    bit<48> destination;
    bit<48> source;
    bit<16> ether_type;
}

header vlan_tag_t {
    bit<16> tag;
    bit<16> ether_type;
}

header ipv4_t {
    bit<4>  version;
    bit<4>  header_words;
    bit<8>  type_of_service;
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

// Source and destination port.
header ports_t {
    bit<32> both;
}

header icmp_t {
    bit<16> type_and_code;
}

// What the ingress tells the egress: the key, its lanes (of those of the table the top half), the bank.
header bridge_t {
    bit<8>  has_key;
    bit<7>  padding;
    bit<1>  bank;
    bit<8>  protocol;
    bit<8>  padding_2;
    bit<32> source;
    bit<32> destination;
    bit<32> ports;
    bit<32> ip_bytes;
    bit<32> filter_0;
    bit<32> filter_1;
    bit<32> filter_2;
    bit<32> filter_3;
    bit<32> filter_4;
    bit<32> filter_5;
    bit<32> filter_6;
    bit<32> filter_7;
    bit<16> cell_0;
    bit<16> cell_1;
    bit<16> cell_2;
    bit<16> cell_3;
}

struct ingress_headers_t {
    bridge_t bridge;
    ethernet_t ethernet;
    vlan_tag_t[2] vlan_tags;
    ipv4_t ipv4;
    ports_t ports;
    icmp_t icmp;
}

// The two CRCs of the key, and the base that they are joined to: c and d of docs/hash-families.md.
struct ingress_metadata_t {
    bit<32> a;
    bit<32> b;
    bit<32> rotated;
    bit<32> c;
    bit<32> d;
}

struct egress_headers_t {
    bridge_t bridge;
}

struct egress_metadata_t {
    bit<1> known_0;
    bit<1> known_1;
    bit<1> known_2;
    bit<1> known_3;
    bit<1> known_4;
    bit<1> known_5;
    bit<1> known_6;
    bit<1> known_7;
}

// A pair of 32-bit words: as much as a stateful ALU takes at once.
struct pair_t {
    bit<32> first;
    bit<32> second;
}

struct byte_pair_t {
    bit<8> first;
    bit<8> second;
}

parser IngressParser(
    packet_in packet,
    out ingress_headers_t headers,
    out ingress_metadata_t metadata,
    out ingress_intrinsic_metadata_t intrinsic
) {
    state start {
        packet.extract(intrinsic);
        packet.advance(PORT_METADATA_SIZE);
        metadata = { 0, 0, 0, 0, 0 };
        transition ethernet;
    }

    state ethernet {
        packet.extract(headers.ethernet);
        transition select(headers.ethernet.ether_type) {
            ETHER_TYPE_VLAN: outer_tag;
            ETHER_TYPE_IPV4: ipv4;
            default: accept;
        }
    }

    state outer_tag {
        packet.extract(headers.vlan_tags[0]);
        transition select(headers.vlan_tags[0].ether_type) {
            ETHER_TYPE_VLAN: inner_tag;
            ETHER_TYPE_IPV4: ipv4;
            default: accept;
        }
    }

    state inner_tag {
        packet.extract(headers.vlan_tags[1]);
        transition select(headers.vlan_tags[1].ether_type) {
            ETHER_TYPE_IPV4: ipv4;
            default: accept;
        }
    }

    // Options push the ports out of a fixed place: such packets are counted with ports 0, in a counter
    // of their own, and go to the control plane's CPU if that wants them.
    state ipv4 {
        packet.extract(headers.ipv4);
        transition select(
            headers.ipv4.header_words, headers.ipv4.fragment_offset, headers.ipv4.protocol
        ) {
            (5, 0, 1): icmp;
            (5, 0, 6): ports;
            (5, 0, 17): ports;
            (5, 0, 33): ports;
            (5, 0, 132): ports;
            (5, 0, 136): ports;
            default: accept;
        }
    }

    state ports {
        packet.extract(headers.ports);
        transition accept;
    }

    state icmp {
        packet.extract(headers.icmp);
        transition accept;
    }
}

// A lane: a CRC of the base, with a polynomial of its own. An index cannot be joined from a hash and
// the bank where it is used, so lanes are made here, each in an action of its own: together they want
// more hash distribution units than a stage has.
#define LANE(name, polynomial) \
    CRCPolynomial<bit<32>>(polynomial, true, false, false, 32w0xffffffff, 32w0xffffffff) \
        polynomial_##name; \
    Hash<bit<32>>(HashAlgorithm_t.CUSTOM, polynomial_##name) lane_##name;

#define FILTER_LANE(j) \
    LANE(f##j, POLYNOMIAL_F##j) \
    action make_filter_lane_##j() { \
        headers.bridge.filter_##j = lane_f##j.get({ metadata.c, metadata.d }); \
    }

#define CELL_LANE(i) \
    LANE(t##i, POLYNOMIAL_T##i) \
    action make_cell_lane_##i() { \
        headers.bridge.cell_##i = lane_t##i.get({ metadata.c, metadata.d })[31:16]; \
    }

control Ingress(
    inout ingress_headers_t headers,
    inout ingress_metadata_t metadata,
    in ingress_intrinsic_metadata_t intrinsic,
    in ingress_intrinsic_metadata_from_parser_t from_parser,
    inout ingress_intrinsic_metadata_for_deparser_t for_deparser,
    inout ingress_intrinsic_metadata_for_tm_t for_tm
) {
    CRCPolynomial<bit<32>>(POLYNOMIAL_A, true, false, false, 32w0xffffffff,
        32w0xffffffff ^ SEED_HIGH) polynomial_a;
    CRCPolynomial<bit<32>>(POLYNOMIAL_B, true, false, false, 32w0xffffffff,
        32w0xffffffff ^ SEED_LOW) polynomial_b;
    Hash<bit<32>>(HashAlgorithm_t.CUSTOM, polynomial_a) hash_a;
    Hash<bit<32>>(HashAlgorithm_t.CUSTOM, polynomial_b) hash_b;

    FILTER_LANE(0)
    FILTER_LANE(1)
    FILTER_LANE(2)
    FILTER_LANE(3)
    FILTER_LANE(4)
    FILTER_LANE(5)
    FILTER_LANE(6)
    FILTER_LANE(7)
    CELL_LANE(0)
    CELL_LANE(1)
    CELL_LANE(2)
    CELL_LANE(3)

    DirectCounter<bit<32>>(CounterType_t.PACKETS) odd_counter;

    // The key, and the bank, which the control plane sets in one write.

    action take_addresses() {
        headers.bridge.source = headers.ipv4.source;
        headers.bridge.destination = headers.ipv4.destination;
        headers.bridge.protocol = headers.ipv4.protocol;
        headers.bridge.ip_bytes = (bit<32>)headers.ipv4.total_bytes;
        headers.bridge.has_key = 1;
    }

    action take_ports() {
        headers.bridge.ports = headers.ports.both;
    }

    action take_icmp() {
        headers.bridge.ports = (bit<32>)headers.icmp.type_and_code;
    }

    action take_no_ports() {
        headers.bridge.ports = 0;
    }

    action set_bank(bit<1> bank) {
        headers.bridge.bank = bank;
    }

    table epoch {
        actions = { set_bank; }
        default_action = set_bank(0);
        size = 1;
    }

    // Packets that are counted otherwise than by flowradar_core::packet: with options, without a
    // length. The counter says how many there are.
    action count_odd() {
        odd_counter.count();
    }

    table odd_packets {
        key = {
            headers.ipv4.isValid(): exact;
            headers.ipv4.header_words: ternary;
            headers.ipv4.total_bytes: ternary;
        }
        actions = { count_odd; }
        counters = odd_counter;
        const default_action = count_odd();
        size = 4;
    }

    // The base: c = a + b, d = b + (c <<< 16).

    action hash_key_a() {
        metadata.a = hash_a.get({
            headers.bridge.source,
            headers.bridge.destination,
            headers.bridge.ports,
            headers.bridge.protocol
        });
    }

    action hash_key_b() {
        metadata.b = hash_b.get({
            headers.bridge.source,
            headers.bridge.destination,
            headers.bridge.ports,
            headers.bridge.protocol
        });
    }

    action add_first() {
        metadata.c = metadata.a + metadata.b;
    }

    action rotate() {
        metadata.rotated = metadata.c[15:0] ++ metadata.c[31:16];
    }

    action add_second() {
        metadata.d = metadata.b + metadata.rotated;
    }

    // Routing, beside it.

    action drop_packet() {
        for_deparser.drop_ctl = 1;
    }

    action to_next_hop(PortId_t port, bit<48> source, bit<48> destination) {
        for_tm.ucast_egress_port = port;
        headers.ethernet.source = source;
        headers.ethernet.destination = destination;
        headers.ipv4.ttl = headers.ipv4.ttl - 1;
    }

    table ipv4_lpm {
        key = { headers.ipv4.destination: lpm; }
        actions = { to_next_hop; drop_packet; }
        const default_action = drop_packet();
        size = 12288;
    }

    apply {
        headers.bridge.setValid();
        headers.bridge.has_key = 0;
        headers.bridge.padding = 0;
        headers.bridge.padding_2 = 0;
        epoch.apply();
        odd_packets.apply();
        if (headers.ipv4.isValid()) {
            take_addresses();
            if (headers.ports.isValid()) {
                take_ports();
            } else if (headers.icmp.isValid()) {
                take_icmp();
            } else {
                take_no_ports();
            }
            hash_key_a();
            hash_key_b();
            add_first();
            rotate();
            add_second();
            make_filter_lane_0();
            make_filter_lane_1();
            make_filter_lane_2();
            make_filter_lane_3();
            make_filter_lane_4();
            make_filter_lane_5();
            make_filter_lane_6();
            make_filter_lane_7();
            make_cell_lane_0();
            make_cell_lane_1();
            make_cell_lane_2();
            make_cell_lane_3();
            ipv4_lpm.apply();
        } else {
            drop_packet();
        }
    }
}

control IngressDeparser(
    packet_out packet,
    inout ingress_headers_t headers,
    in ingress_metadata_t metadata,
    in ingress_intrinsic_metadata_for_deparser_t for_deparser
) {
    Checksum() ipv4_checksum;

    apply {
        headers.ipv4.checksum = ipv4_checksum.update({
            headers.ipv4.version,
            headers.ipv4.header_words,
            headers.ipv4.type_of_service,
            headers.ipv4.total_bytes,
            headers.ipv4.identification,
            headers.ipv4.flags,
            headers.ipv4.fragment_offset,
            headers.ipv4.ttl,
            headers.ipv4.protocol,
            headers.ipv4.source,
            headers.ipv4.destination
        });
        packet.emit(headers);
    }
}

parser EgressParser(
    packet_in packet,
    out egress_headers_t headers,
    out egress_metadata_t metadata,
    out egress_intrinsic_metadata_t intrinsic
) {
    state start {
        packet.extract(intrinsic);
        packet.extract(headers.bridge);
        metadata = { 0, 0, 0, 0, 0, 0, 0, 0 };
        transition accept;
    }
}

// An index is the bank and the lane's top bits.
#if BANK_BITS
#define FILTER_INDEX(j) \
    headers.bridge.bank ++ headers.bridge.filter_##j[31:(32 - FILTER_INDEX_BITS)]
#define CELL_INDEX(i) \
    headers.bridge.bank ++ headers.bridge.cell_##i[15:(16 - CELL_INDEX_BITS)]
#else
#define FILTER_INDEX(j) headers.bridge.filter_##j[31:(32 - FILTER_INDEX_BITS)]
#define CELL_INDEX(i) headers.bridge.cell_##i[15:(16 - CELL_INDEX_BITS)]
#endif

// One bit of the flow: says what it was, and is set.
#define FILTER_ARRAY(j) \
    Register<bit<1>, filter_index_t>(FILTER_SIZE, 0) filter_##j; \
    RegisterAction<bit<1>, filter_index_t, bit<1>>(filter_##j) test_and_set_##j = { \
        void apply(inout bit<1> value, out bit<1> before) { \
            before = value; \
            value = 1; \
        } \
    }; \
    action test_filter_##j() { \
        metadata.known_##j = test_and_set_##j.execute(FILTER_INDEX(j)); \
    }

// One cell of the flow. Addresses, ports and protocol are XORed in and FlowCount counted if the flow is
// new; PacketCount and ByteCount always, saturating.
#define SUBTABLE(i) \
    Register<pair_t, cell_index_t>(CELL_SIZE, { 0, 0 }) addresses_##i; \
    RegisterAction<pair_t, cell_index_t, bit<32>>(addresses_##i) insert_addresses_##i = { \
        void apply(inout pair_t value) { \
            value.first = value.first ^ headers.bridge.source; \
            value.second = value.second ^ headers.bridge.destination; \
        } \
    }; \
    Register<bit<32>, cell_index_t>(CELL_SIZE, 0) ports_##i; \
    RegisterAction<bit<32>, cell_index_t, bit<32>>(ports_##i) insert_ports_##i = { \
        void apply(inout bit<32> value) { \
            value = value ^ headers.bridge.ports; \
        } \
    }; \
    Register<byte_pair_t, cell_index_t>(CELL_SIZE, { 0, 0 }) protocol_and_flows_##i; \
    RegisterAction<byte_pair_t, cell_index_t, bit<8>>(protocol_and_flows_##i) insert_flow_##i = { \
        void apply(inout byte_pair_t value) { \
            value.first = value.first ^ headers.bridge.protocol; \
            value.second = value.second |+| 1; \
        } \
    }; \
    Register<pair_t, cell_index_t>(CELL_SIZE, { 0, 0 }) counts_##i; \
    RegisterAction<pair_t, cell_index_t, bit<32>>(counts_##i) count_packet_##i = { \
        void apply(inout pair_t value) { \
            value.first = value.first |+| 1; \
            value.second = value.second |+| headers.bridge.ip_bytes; \
        } \
    }; \
    action insert_cell_addresses_##i() { \
        insert_addresses_##i.execute(CELL_INDEX(i)); \
    } \
    action insert_cell_ports_##i() { \
        insert_ports_##i.execute(CELL_INDEX(i)); \
    } \
    action insert_cell_flow_##i() { \
        insert_flow_##i.execute(CELL_INDEX(i)); \
    } \
    action count_cell_##i() { \
        count_packet_##i.execute(CELL_INDEX(i)); \
    }

control Egress(
    inout egress_headers_t headers,
    inout egress_metadata_t metadata,
    in egress_intrinsic_metadata_t intrinsic,
    in egress_intrinsic_metadata_from_parser_t from_parser,
    inout egress_intrinsic_metadata_for_deparser_t for_deparser,
    inout egress_intrinsic_metadata_for_output_port_t for_port
) {

    FILTER_ARRAY(0)
    FILTER_ARRAY(1)
    FILTER_ARRAY(2)
    FILTER_ARRAY(3)
    FILTER_ARRAY(4)
    FILTER_ARRAY(5)
    FILTER_ARRAY(6)
    FILTER_ARRAY(7)

    SUBTABLE(0)
    SUBTABLE(1)
    SUBTABLE(2)
    SUBTABLE(3)

    // The totals are those of this counter, read by the control plane: by bank, packets and bytes.
    Counter<bit<64>, bit<1>>(2, CounterType_t.PACKETS_AND_BYTES) total;
    Counter<bit<64>, bit<1>>(2, CounterType_t.PACKETS) total_new_flows;

    apply {
        if (headers.bridge.has_key == 1) {
            test_filter_0();
            test_filter_1();
            test_filter_2();
            test_filter_3();
            test_filter_4();
            test_filter_5();
            test_filter_6();
            test_filter_7();
            total.count(headers.bridge.bank);
            // All bits in one condition: stored in a field first, it is too complex for a gateway.
            if (metadata.known_0 == 0 || metadata.known_1 == 0 || metadata.known_2 == 0
                || metadata.known_3 == 0 || metadata.known_4 == 0 || metadata.known_5 == 0
                || metadata.known_6 == 0 || metadata.known_7 == 0) {
                insert_cell_addresses_0();
                insert_cell_addresses_1();
                insert_cell_addresses_2();
                insert_cell_addresses_3();
                insert_cell_ports_0();
                insert_cell_ports_1();
                insert_cell_ports_2();
                insert_cell_ports_3();
                insert_cell_flow_0();
                insert_cell_flow_1();
                insert_cell_flow_2();
                insert_cell_flow_3();
                total_new_flows.count(headers.bridge.bank);
            }
            count_cell_0();
            count_cell_1();
            count_cell_2();
            count_cell_3();
        }
        headers.bridge.setInvalid();
    }
}

control EgressDeparser(
    packet_out packet,
    inout egress_headers_t headers,
    in egress_metadata_t metadata,
    in egress_intrinsic_metadata_for_deparser_t for_deparser
) {
    apply {
        packet.emit(headers);
    }
}

Pipeline(
    IngressParser(),
    Ingress(),
    IngressDeparser(),
    EgressParser(),
    Egress(),
    EgressDeparser()
) pipe;

Switch(pipe) main;
