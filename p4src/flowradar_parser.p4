// From a frame to a flow key, by the rules of flowradar_core::packet, for v1model.
//
// FlowRadarParser extracts Ethernet, VLAN tags, IP with options or extension headers, and the ports.
// FlowRadarClassify makes of it what FlowRadar() counts. Programs with a parser of their own can fill in
// flowradar_packet_t themselves.

#ifndef FLOWRADAR_PARSER_P4
#define FLOWRADAR_PARSER_P4

#include "flowradar.p4"

#define FLOWRADAR_VLAN_TAGS_MAX 4
#define FLOWRADAR_IPV6_EXTENSIONS_MAX 8

#define FLOWRADAR_ETHER_TYPE_IPV4 16w0x0800
#define FLOWRADAR_ETHER_TYPE_IPV6 16w0x86dd
#define FLOWRADAR_ETHER_TYPE_VLAN 16w0x8100
#define FLOWRADAR_ETHER_TYPE_VLAN_OUTER 16w0x88a8
#define FLOWRADAR_ETHER_TYPE_VLAN_OLD 16w0x9100

#define FLOWRADAR_ICMP 8w1
#define FLOWRADAR_TCP 8w6
#define FLOWRADAR_UDP 8w17
#define FLOWRADAR_DCCP 8w33
#define FLOWRADAR_ICMPV6 8w58
#define FLOWRADAR_SCTP 8w132
#define FLOWRADAR_UDP_LITE 8w136

#define FLOWRADAR_HOP_BY_HOP 8w0
#define FLOWRADAR_ROUTING 8w43
#define FLOWRADAR_FRAGMENT 8w44
#define FLOWRADAR_AUTHENTICATION 8w51
#define FLOWRADAR_DESTINATION_OPTIONS 8w60
#define FLOWRADAR_MOBILITY 8w135
#define FLOWRADAR_HIP 8w139
#define FLOWRADAR_SHIM6 8w140

header ethernet_t {
    bit<48> destination;
    bit<48> source;
    bit<16> ether_type;
}

header vlan_tag_t {
    bit<3>  priority;
    bit<1>  drop_eligible;
    bit<12> vlan;
    bit<16> ether_type;
}

header ipv4_t {
    bit<4>  version;
    bit<4>  header_words;
    bit<6>  dscp;
    bit<2>  ecn;
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

header ipv4_options_t {
    varbit<320> options;
}

header ipv6_t {
    bit<4>   version;
    bit<6>   dscp;
    bit<2>   ecn;
    bit<20>  flow_label;
    bit<16>  payload_bytes;
    bit<8>   next_header;
    bit<8>   hop_limit;
    bit<128> source;
    bit<128> destination;
}

// At most 256 times 8 bytes.
header ipv6_extension_t {
    bit<8>        next_header;
    bit<8>        length;
    varbit<16368> data;
}

header icmp_t {
    bit<8> icmp_type;
    bit<8> code;
}

header ports_t {
    bit<16> source;
    bit<16> destination;
}

struct flowradar_frame_t {
    ethernet_t ethernet;
    vlan_tag_t[FLOWRADAR_VLAN_TAGS_MAX] vlan_tags;
    ipv4_t ipv4;
    ipv4_options_t ipv4_options;
    ipv6_t ipv6;
    ipv6_extension_t[FLOWRADAR_IPV6_EXTENSIONS_MAX] ipv6_extensions;
    icmp_t icmp;
    ports_t ports;
}

// What the parser learns besides the headers.
struct flowradar_parsed_t {
    bit<16> ether_type;        // behind the VLAN tags
    bit<32> link_bytes;        // of Ethernet and VLAN tags
    bit<8>  kind;              // 4 or 6 as soon as there is a key, but for its ports
    bit<8>  protocol;
    bit<1>  is_later_fragment;
    bit<32> datagram_bytes;    // IPv4: the datagram; IPv6: its payload
    bit<32> ports_offset;      // in the datagram, or in the payload
    bit<8>  extensions;
    bit<16> peeked;
    bit<32> extension_bytes;
}

error {
    FlowRadarIpv4HeaderLength,
    FlowRadarIpv4TotalLength,
    FlowRadarExtensionBeyondDatagram,
    FlowRadarTooManyExtensions
}

// `frame_bytes` is the length of the frame from Ethernet on.
parser FlowRadarParser(
    packet_in packet,
    out flowradar_frame_t frame,
    inout flowradar_parsed_t parsed,
    in bit<32> frame_bytes
) {
    state start {
        packet.extract(frame.ethernet);
        parsed.ether_type = frame.ethernet.ether_type;
        parsed.link_bytes = 14;
        transition link_payload;
    }

    state link_payload {
        transition select(parsed.ether_type) {
            FLOWRADAR_ETHER_TYPE_IPV4: ipv4;
            FLOWRADAR_ETHER_TYPE_IPV6: ipv6;
            FLOWRADAR_ETHER_TYPE_VLAN: vlan_tag;
            FLOWRADAR_ETHER_TYPE_VLAN_OUTER: vlan_tag;
            FLOWRADAR_ETHER_TYPE_VLAN_OLD: vlan_tag;
            default: accept;
        }
    }

    // A fifth tag does not fit into the stack: an error, and the EtherType remains that of a tag.
    state vlan_tag {
        packet.extract(frame.vlan_tags.next);
        parsed.ether_type = frame.vlan_tags.last.ether_type;
        parsed.link_bytes = parsed.link_bytes + 4;
        transition link_payload;
    }

    state ipv4 {
        packet.extract(frame.ipv4);
        parsed.protocol = frame.ipv4.protocol;
        parsed.ports_offset = (bit<32>)frame.ipv4.header_words << 2;
        transition select(frame.ipv4.version) {
            4: ipv4_header_length;
            default: accept;
        }
    }

    state ipv4_header_length {
        verify(frame.ipv4.header_words >= 5, error.FlowRadarIpv4HeaderLength);
        transition select(frame.ipv4.total_bytes) {
            0: ipv4_length_of_frame;
            default: ipv4_length_of_header;
        }
    }

    // Total length 0: captured before segmentation offload cut the packet up.
    state ipv4_length_of_frame {
        parsed.datagram_bytes = frame_bytes - parsed.link_bytes;
        transition ipv4_key;
    }

    state ipv4_length_of_header {
        parsed.datagram_bytes = (bit<32>)frame.ipv4.total_bytes;
        verify(parsed.datagram_bytes >= parsed.ports_offset, error.FlowRadarIpv4TotalLength);
        transition ipv4_key;
    }

    state ipv4_key {
        parsed.kind = FLOWRADAR_KIND_V4;
        transition select(frame.ipv4.header_words) {
            5: ipv4_payload;
            default: ipv4_options;
        }
    }

    state ipv4_options {
        packet.extract(frame.ipv4_options, ((bit<32>)frame.ipv4.header_words - 5) << 5);
        transition ipv4_payload;
    }

    state ipv4_payload {
        transition select(frame.ipv4.fragment_offset, frame.ipv4.protocol) {
            (0, FLOWRADAR_ICMP): icmp;
            (0, FLOWRADAR_TCP): ports;
            (0, FLOWRADAR_UDP): ports;
            (0, FLOWRADAR_DCCP): ports;
            (0, FLOWRADAR_SCTP): ports;
            (0, FLOWRADAR_UDP_LITE): ports;
            (0, _): accept;
            default: later_fragment;
        }
    }

    state ipv6 {
        packet.extract(frame.ipv6);
        parsed.protocol = frame.ipv6.next_header;
        transition select(frame.ipv6.version, frame.ipv6.payload_bytes) {
            (6, 0): ipv6_length_of_frame;
            (6, _): ipv6_length_of_header;
            default: accept;
        }
    }

    // Payload length 0: a jumbogram, captured before segmentation, or no next header at all.
    state ipv6_length_of_frame {
        parsed.datagram_bytes = frame_bytes - parsed.link_bytes - 40;
        transition ipv6_next_header;
    }

    state ipv6_length_of_header {
        parsed.datagram_bytes = (bit<32>)frame.ipv6.payload_bytes;
        transition ipv6_next_header;
    }

    state ipv6_next_header {
        transition select(parsed.protocol) {
            FLOWRADAR_HOP_BY_HOP: ipv6_extension;
            FLOWRADAR_ROUTING: ipv6_extension;
            FLOWRADAR_DESTINATION_OPTIONS: ipv6_extension;
            FLOWRADAR_MOBILITY: ipv6_extension;
            FLOWRADAR_HIP: ipv6_extension;
            FLOWRADAR_SHIM6: ipv6_extension;
            FLOWRADAR_AUTHENTICATION: ipv6_authentication;
            FLOWRADAR_FRAGMENT: ipv6_fragment;
            default: ipv6_payload;
        }
    }

    state ipv6_extension {
        verify(parsed.ports_offset + 8 <= parsed.datagram_bytes,
            error.FlowRadarExtensionBeyondDatagram);
        parsed.peeked = packet.lookahead<bit<16>>();
        parsed.extension_bytes = ((bit<32>)parsed.peeked[7:0] + 1) << 3;
        transition ipv6_extension_peeked;
    }

    state ipv6_authentication {
        verify(parsed.ports_offset + 8 <= parsed.datagram_bytes,
            error.FlowRadarExtensionBeyondDatagram);
        parsed.peeked = packet.lookahead<bit<16>>();
        parsed.extension_bytes = ((bit<32>)parsed.peeked[7:0] + 2) << 2;
        transition ipv6_extension_peeked;
    }

    state ipv6_fragment {
        verify(parsed.ports_offset + 8 <= parsed.datagram_bytes,
            error.FlowRadarExtensionBeyondDatagram);
        parsed.peeked = packet.lookahead<bit<32>>()[15:0];
        parsed.extension_bytes = 8;
        transition select(parsed.peeked[15:3]) {
            0: ipv6_first_fragment;
            default: ipv6_later_fragment;
        }
    }

    state ipv6_first_fragment {
        parsed.peeked = packet.lookahead<bit<16>>();
        transition ipv6_extension_peeked;
    }

    state ipv6_later_fragment {
        parsed.protocol = packet.lookahead<bit<8>>();
        parsed.kind = FLOWRADAR_KIND_V6;
        transition later_fragment;
    }

    // The next header is known before the whole extension header is there: a packet that ends inside
    // its last extension header has a key, but for the ports.
    state ipv6_extension_peeked {
        verify(parsed.extensions < FLOWRADAR_IPV6_EXTENSIONS_MAX,
            error.FlowRadarTooManyExtensions);
        parsed.extensions = parsed.extensions + 1;
        parsed.protocol = parsed.peeked[15:8];
        parsed.ports_offset = parsed.ports_offset + parsed.extension_bytes;
        transition select(parsed.protocol) {
            FLOWRADAR_HOP_BY_HOP: ipv6_extension_whole;
            FLOWRADAR_ROUTING: ipv6_extension_whole;
            FLOWRADAR_DESTINATION_OPTIONS: ipv6_extension_whole;
            FLOWRADAR_MOBILITY: ipv6_extension_whole;
            FLOWRADAR_HIP: ipv6_extension_whole;
            FLOWRADAR_SHIM6: ipv6_extension_whole;
            FLOWRADAR_AUTHENTICATION: ipv6_extension_whole;
            FLOWRADAR_FRAGMENT: ipv6_extension_whole;
            default: ipv6_last_extension;
        }
    }

    state ipv6_last_extension {
        parsed.kind = FLOWRADAR_KIND_V6;
        transition ipv6_extension_whole;
    }

    state ipv6_extension_whole {
        packet.extract(frame.ipv6_extensions.next, (parsed.extension_bytes - 2) << 3);
        transition ipv6_next_header;
    }

    state ipv6_payload {
        parsed.kind = FLOWRADAR_KIND_V6;
        transition select(parsed.protocol) {
            FLOWRADAR_ICMPV6: icmp;
            FLOWRADAR_TCP: ports;
            FLOWRADAR_UDP: ports;
            FLOWRADAR_DCCP: ports;
            FLOWRADAR_SCTP: ports;
            FLOWRADAR_UDP_LITE: ports;
            default: accept;
        }
    }

    state icmp {
        packet.extract(frame.icmp);
        transition accept;
    }

    state ports {
        packet.extract(frame.ports);
        transition accept;
    }

    state later_fragment {
        parsed.is_later_fragment = 1;
        transition accept;
    }
}

// What is counted of a parsed frame. Stamps are left as they are.
control FlowRadarClassify(
    in flowradar_frame_t frame,
    in flowradar_parsed_t parsed,
    inout flowradar_packet_t packet
) {
    action not_ip() {
        packet.kind = FLOWRADAR_KIND_NOT_IP;
    }

    action malformed() {
        packet.kind = FLOWRADAR_KIND_MALFORMED;
    }

    action ipv4() {
        packet.kind = FLOWRADAR_KIND_V4;
        packet.address_0 = frame.ipv4.source ++ frame.ipv4.destination;
        packet.protocol = parsed.protocol;
        packet.ip_bytes = parsed.datagram_bytes;
    }

    action ipv6() {
        packet.kind = FLOWRADAR_KIND_V6;
        packet.address_0 = frame.ipv6.source[127:64];
        packet.address_1 = frame.ipv6.source[63:0];
        packet.address_2 = frame.ipv6.destination[127:64];
        packet.address_3 = frame.ipv6.destination[63:0];
        packet.protocol = parsed.protocol;
        packet.ip_bytes = parsed.datagram_bytes + 40;
    }

    action no_next_header() {
        packet.ip_bytes = 40;
    }

    action use_icmp() {
        packet.destination_port = frame.icmp.icmp_type ++ frame.icmp.code;
    }

    action use_ports() {
        packet.source_port = frame.ports.source;
        packet.destination_port = frame.ports.destination;
    }

    action ports_cut_off() {
        packet.ports_cut_off = 1;
    }

    apply {
        if (parsed.kind == 0) {
            if (!frame.ethernet.isValid()
                || parsed.ether_type == FLOWRADAR_ETHER_TYPE_IPV4
                || parsed.ether_type == FLOWRADAR_ETHER_TYPE_IPV6
                || parsed.ether_type == FLOWRADAR_ETHER_TYPE_VLAN
                || parsed.ether_type == FLOWRADAR_ETHER_TYPE_VLAN_OUTER
                || parsed.ether_type == FLOWRADAR_ETHER_TYPE_VLAN_OLD) {
                malformed();
            } else {
                not_ip();
            }
        } else {
            if (parsed.kind == FLOWRADAR_KIND_V4) {
                ipv4();
            } else {
                ipv6();
                if (frame.ipv6.payload_bytes == 0 && frame.ipv6.next_header == 59) {
                    no_next_header();
                }
            }
            if (parsed.is_later_fragment == 0) {
                if (frame.ports.isValid()) {
                    // Bytes behind the end of the datagram are no ports.
                    if (parsed.ports_offset + 4 <= parsed.datagram_bytes) {
                        use_ports();
                    }
                } else if (frame.icmp.isValid()) {
                    if (parsed.ports_offset + 2 <= parsed.datagram_bytes) {
                        use_icmp();
                    }
                } else if (parsed.protocol == FLOWRADAR_TCP
                    || parsed.protocol == FLOWRADAR_UDP
                    || parsed.protocol == FLOWRADAR_DCCP
                    || parsed.protocol == FLOWRADAR_SCTP
                    || parsed.protocol == FLOWRADAR_UDP_LITE) {
                    if (parsed.ports_offset + 4 <= parsed.datagram_bytes) {
                        ports_cut_off();
                    }
                } else if ((parsed.kind == FLOWRADAR_KIND_V4 && parsed.protocol == FLOWRADAR_ICMP)
                    || (parsed.kind == FLOWRADAR_KIND_V6 && parsed.protocol == FLOWRADAR_ICMPV6)) {
                    if (parsed.ports_offset + 2 <= parsed.datagram_bytes) {
                        ports_cut_off();
                    }
                }
            }
        }
    }
}

#endif
