#!/usr/bin/env python3
"""Write small inputs for every fuzz target to fuzz/corpus/, for the fuzzers to start from.

Flowsets come from flowradar-core/tests/vectors; frames, capture files and topologies are made here.
"""

import gzip
import pathlib
import random
import struct

FUZZ = pathlib.Path(__file__).resolve().parent
VECTORS = FUZZ.parent / "flowradar-core/tests/vectors"


def write(target, name, data):
    directory = FUZZ / "corpus" / target
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_bytes(data)


# Frames -------------------------------------------------------------------------------------------


def ipv4(protocol, payload, options=b"", fragment=0):
    words = 5 + len(options) // 4
    length = 4 * words + len(payload)
    header = struct.pack(">BBHHHBBH", 0x40 | words, 0, length, 1, fragment, 64, protocol, 0)
    return header + bytes([10, 0, 0, 1, 10, 0, 0, 2]) + options + payload


def ipv6(protocol, payload):
    header = struct.pack(">IHBB", 6 << 28, len(payload), protocol, 64)
    return header + b"\x20\x01\x0d\xb8" + bytes(11) + b"\1" + bytes(15) + b"\2" + payload


PORTS = struct.pack(">HH", 49152, 443)
PACKETS = {
    "tcp": ipv4(6, PORTS + bytes(16)),
    "udp-options": ipv4(17, PORTS + bytes(4), options=b"\x94\x04\0\0"),
    "icmp": ipv4(1, b"\x08\0" + bytes(6)),
    "fragment": ipv4(17, bytes(8), fragment=0x2000 | 185),
    "gre": ipv4(47, bytes(8)),
    "tcp6": ipv6(6, PORTS + bytes(16)),
    "icmp6": ipv6(58, b"\x86\0" + bytes(6)),
    # Hop-by-hop, routing, destination options, fragment, then UDP.
    "extensions6": ipv6(
        0,
        b"\x2b\0" + bytes(6)
        + b"\x3c\0" + bytes(6)
        + b"\x2c\0" + bytes(6)
        + b"\x11\0\0\1" + bytes(4)
        + PORTS + bytes(4),
    ),
}


def ether_type(packet):
    return b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\0"


def frames():
    """Link type (as numbered by the packet_parser target and by pcap) and frame."""
    for name, packet in PACKETS.items():
        version = packet[0] >> 4
        kind = ether_type(packet)
        yield f"ethernet-{name}", 0, 1, bytes(12) + kind + packet
        yield f"vlan-{name}", 0, 1, bytes(12) + b"\x88\xa8\0\1\x81\0\0\2" + kind + packet
        yield f"raw-{name}", 1, 101, packet
        number, pcap = (2, 228) if version == 4 else (3, 229)
        yield f"raw-version-{name}", number, pcap, packet
        yield f"sll-{name}", 4, 113, b"\0\0\0\1\0\6" + bytes(8) + kind + packet
        yield f"sll2-{name}", 5, 276, kind + bytes(2) + struct.pack(">IHBB", 1, 1, 0, 6) + bytes(8) + packet
        family = 2 if version == 4 else 30
        yield f"loopback-{name}", 6, 0, struct.pack("<I", family) + packet


# Traces -------------------------------------------------------------------------------------------


def pcap(order, magic, link_type, packets, extra=b""):
    out = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, link_type)
    for number, packet in enumerate(packets):
        out += struct.pack(order + "IIII", 1_700_000_000 + number, number, len(packet), len(packet))
        out += extra + packet
    return out


def block(order, kind, body):
    body += bytes(-len(body) % 4)
    length = struct.pack(order + "I", 12 + len(body))
    return struct.pack(order + "I", kind) + length + body + length


def pcapng(order, link_type, packets):
    section = struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1)
    # Options: if_tsresol 10^-9, end.
    options = struct.pack(order + "HHB3xHH", 9, 1, 9, 0, 0)
    interface = struct.pack(order + "HHI", link_type, 0, 65535) + options
    out = block(order, 0x0A0D0D0A, section) + block(order, 1, interface)
    for number, packet in enumerate(packets):
        length = len(packet)
        out += block(order, 6, struct.pack(order + "IIIII", 0, 0, number, length, length) + packet)
        out += block(order, 3, struct.pack(order + "I", length) + packet)
        out += block(order, 2, struct.pack(order + "HHIIII", 0, 0, 0, 5, length, length) + packet)
    return out + block(order, 5, struct.pack(order + "III", 0, 0, 0)) + block(order, 0xBAD, b"x")


def traces():
    by_link_type = {}
    for _, _, link_type, frame in frames():
        by_link_type.setdefault(link_type, []).append(frame)
    for link_type, packets in by_link_type.items():
        yield f"pcap-{link_type}", pcap("<", 0xA1B2C3D4, link_type, packets)
    packets = by_link_type[1][:4]
    yield "pcap-big-endian", pcap(">", 0xA1B2C3D4, 1, packets)
    yield "pcap-nanoseconds", pcap("<", 0xA1B23C4D, 1, packets)
    yield "pcap-modified", pcap("<", 0xA1B2CD34, 1, packets, extra=bytes(8))
    yield "pcapng", pcapng("<", 1, packets)
    yield "pcapng-big-endian", pcapng(">", 101, by_link_type[101][:3])
    yield "pcapng-sections", pcapng("<", 1, packets[:1]) + pcapng(">", 113, by_link_type[113][:1])
    yield "pcap-gzip", gzip.compress(pcap("<", 0xA1B2C3D4, 1, packets), mtime=0)
    yield "pcapng-gzip", gzip.compress(pcapng("<", 1, packets), mtime=0)
    yield "pcap-zstd", zstd(pcap("<", 0xA1B2C3D4, 1, packets))
    yield "pcap-zstd-skippable", b"\x50\x2a\x4d\x18\4\0\0\0skip" + zstd(pcap("<", 0xA1B2C3D4, 1, packets))


def zstd(data):
    """One frame with one raw block: RFC 8878, window of 1 KiB, no checksum."""
    out = b"\x28\xb5\x2f\xfd\0\0"
    blocks = [data[i : i + 1024] for i in range(0, len(data), 1024)]
    for number, content in enumerate(blocks):
        header = len(content) << 3 | (number == len(blocks) - 1)
        out += header.to_bytes(3, "little") + content
    return out


# Topologies ---------------------------------------------------------------------------------------

TOPOLOGIES = {
    "pair": """{"version": 1, "switches": ["left", "right"],
 "hosts": [{"name": "a"}, {"name": "b", "address": "192.0.2.7"}],
 "links": [["a", "left"], ["left", "right"], ["b", "right"]]}""",
    "triangle": """{"version": 1, "switches": ["s0", "s1", "s2"],
 "hosts": [{"name": "h0"}, {"name": "h1", "address": "10.0.0.1"}],
 "links": [["s0", "s1"], ["s1", "s2"], ["s2", "s0"], ["h0", "s0"], ["s2", "h1"], ["h0", "s1"]]}""",
    "fat-tree": """{"version": 1, "fat_tree_k": 2, "switches": [], "hosts": [], "links": []}""",
    "empty": "{}",
}


# Flow exports -------------------------------------------------------------------------------------

CAPTURES = FUZZ.parent.parent / "shared/data/2_export"


def udp_payloads(path):
    """The UDP payloads of a pcap file with Ethernet or cooked frames of whole IPv4 packets."""
    data = path.read_bytes()
    order = "<" if data[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
    link = {1: 14, 113: 16, 101: 0, 0: 4}.get(struct.unpack_from(order + "I", data, 20)[0])
    offset = 24
    while link is not None and offset + 16 <= len(data):
        length = struct.unpack_from(order + "I", data, offset + 8)[0]
        packet = data[offset + 16 : offset + 16 + length][link:]
        offset += 16 + length
        if len(packet) > 28 and packet[0] == 0x45 and packet[9] == 17:
            yield packet[28:]


def exports():
    """(target, name, datagrams): made ones, and real ones where there are captures."""
    fields = struct.pack(">8H", 8, 4, 12, 4, 7, 2, 1, 4)
    record = struct.pack(">IIHI", 0x0A000001, 0x0A000002, 53, 100) + b"\0\0"
    for target, header, ids in (
        ("balancer_netflow_v9", struct.pack(">HHIIII", 9, 2, 1, 1, 1, 0), (0, 1)),
        ("balancer_ipfix", struct.pack(">HHIII", 10, 0, 1, 1, 0), (2, 3)),
    ):
        template = struct.pack(">HHHH", ids[0], 24, 256, 4) + fields
        data = struct.pack(">HH", 256, 20) + record
        counts = (4, 4) if ids[0] == 0 else (2, 1)
        options = struct.pack(">HHHHH8s", ids[1], 18, 257, *counts, fields[:8])
        options_data = struct.pack(">HHII", 257, 12, 1, 2)
        yield target, "made", [header + template + data, header + data, header + options + options_data]
    yield "balancer_netflow_v5", "made", [struct.pack(">HH20x", 5, 2) + bytes(range(96))]
    for path in sorted(CAPTURES.glob("*.pcap")):
        datagrams = {}
        for payload in udp_payloads(path):
            target = {b"\0\5": "netflow_v5", b"\0\t": "netflow_v9", b"\0\n": "ipfix"}.get(payload[:2])
            if payload[:4] == b"\0\0\0\5":
                target = "sflow"
            if target and len(payload) < 2048:
                datagrams.setdefault(f"balancer_{target}", []).append(payload)
        for target, found in datagrams.items():
            for start in range(0, min(len(found), 40), 4):
                yield target, f"{path.stem}-{start}", found[start : start + 4]


# What a collector is told -------------------------------------------------------------------------


def varint(number):
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def message(**fields):
    """A protobuf message of numbers, texts and messages; fields are named f1, f2, ..."""
    out = b""
    for name, value in fields.items():
        number = int(name[1:])
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


def agents():
    """Messages of an agent (flowradar-server/proto): it registers, and sends two flowsets."""
    link = message(f1=1, f2=b"spine-1", f3=7)
    yield message(f1=message(f1=1, f2=b"leaf-1", f3=5, f4=1, f5=b"test", f6=link))
    for sequence, path in enumerate(sorted(VECTORS.glob("*.flowset"))[:2], 1):
        data = path.read_bytes()
        yield message(f2=message(f1=sequence, f2=len(data)))
        for start in range(0, len(data), 1000):
            yield message(f3=message(f1=data[start : start + 1000]))
    yield message(f4=message(f1=3, f2=b"lost"))


# Programs of switches -----------------------------------------------------------------------------

PROGRAMS = FUZZ.parent / "flowradar-switch/tests/programs/compiled"
SWITCH = FUZZ.parent / "p4src/v1model/compiled"


def main():
    for name, datagrams in {"agent": list(agents())}.items():
        write("server_ingest", name, b"".join(struct.pack("<H", len(d)) + d for d in datagrams))
    guide = (FUZZ.parent / "docs/collector.md").read_text()
    for number, part in enumerate(guide.split("```toml\n")[1:]):
        write("server_config", f"guide-{number}", part.split("```")[0].replace("\n# ", "\n").encode())
        write("server_config", f"guide-{number}-short", part.split("```")[0].encode())
    for directory in (PROGRAMS, SWITCH):
        for path in sorted(directory.glob("*.json")):
            write("switch_program_json", path.stem, path.read_bytes())
        for path in sorted(directory.glob("*.txtpb")):
            write("p4_p4info", path.stem, path.read_bytes())
    for choice in range(len(list(PROGRAMS.glob("*.json"))) + 1):
        kept = [frame[:255] for _, number, _, frame in frames() if number == 0]
        packets = b"".join(bytes([1 + i % 4, len(frame)]) + frame for i, frame in enumerate(kept))
        write("switch_packets", f"{choice}", bytes([choice]) + packets)
    for target, name, datagrams in exports():
        # For the collector, too, behind lengths of the other order.
        lengths = b"".join(struct.pack("<H", len(d)) + d for d in datagrams)
        write("server_exports", f"{target}-{name}", lengths)
        # Each behind its length; an even one has its IPFIX length put right.
        write(target, name, b"".join(struct.pack(">H", len(d)) + d for d in datagrams))
    for path in sorted(VECTORS.glob("*.flowset")):
        data = path.read_bytes()
        write("flowset_reader", path.stem, data)
        for choice in (0, 0x5555555555555555, 0xFFFFFFFFFFFFFFFF):
            seed = data + struct.pack("<Q", choice)
            write("flowset_fixed_checksums", f"{path.stem}-{choice:x}", seed)
    tiny = (VECTORS / "tiny-empty.flowset").read_bytes()
    write("flowset_reader", "two", tiny + tiny)
    # Structured input: any bytes will do.
    source = random.Random(1)
    for length in (40, 100, 300, 1000, 3000):
        for number in range(8):
            write("decoder_truth", f"{length}-{number}", source.randbytes(length))
    for name, number, _, frame in frames():
        write("packet_parser", name, bytes([number, 0, 0]) + frame)
        write("packet_parser", f"{name}-cut", bytes([number, 0, 20]) + frame[:-20])
    for name, data in traces():
        write("trace_reader", name, b"\0" + data)
    write("trace_reader", "tuple13", b"\3" + bytes(range(39)))
    for name, text in TOPOLOGIES.items():
        write("topology_parser", name, text.encode())


if __name__ == "__main__":
    main()
