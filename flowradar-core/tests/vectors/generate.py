#!/usr/bin/env python3
"""Write the test vectors of flowradar-core, from its documents and not from its code.

This is an implementation of its own of docs/hash-families.md and docs/flowset-format.md: hash
families, flow filter, counting table, encoded flowset, and the flows that peeling must find. CRCs are
computed bit by bit; only XXH3 comes from a package (`pip install xxhash`).

    generate.py                 write hashes.json, flowsets.json and the files of every flowset
    generate.py --check         compare the files with what would be written; exit 1 if they differ
    generate.py --document      print the vectors and tables that docs/hash-families.md shows
"""

import argparse
import ipaddress
import json
import pathlib
import random
import struct
import sys

import xxhash

DIRECTORY = pathlib.Path(__file__).resolve().parent
MASK_32 = (1 << 32) - 1
MASK_64 = (1 << 64) - 1

# ---------------------------------------------------------------------------------------------------
# Keys: (kind, source, destination, source port, destination port, protocol), addresses as integers.


def key_bytes(key):
    """The key in network order."""
    kind, src, dst, src_port, dst_port, protocol = key
    length = 4 if kind == 4 else 16
    return src.to_bytes(length, "big") + dst.to_bytes(length, "big") + struct.pack(
        ">HHB", src_port, dst_port, protocol
    )


def key_words(key):
    """The key as 64-bit words: addresses, then ports and protocol in the low 40 bits of the last."""
    data = key_bytes(key)
    whole = [int.from_bytes(data[i : i + 8], "big") for i in range(0, len(data) - 5, 8)]
    return whole + [int.from_bytes(data[-5:], "big")]


def key_columns(key):
    kind, src, dst, src_port, dst_port, protocol = key
    address = ipaddress.IPv4Address if kind == 4 else ipaddress.IPv6Address
    return [str(address(src)), str(address(dst)), str(src_port), str(dst_port), str(protocol)]


# ---------------------------------------------------------------------------------------------------
# Hash families: lanes(key, seed) -> (8 table lanes, filter lanes).

GOLDEN = 0x9E3779B97F4A7C15
OFFSET_LANE = 7


def mix(z):
    z ^= z >> 30
    z = z * 0xBF58476D1CE4E5B9 & MASK_64
    z ^= z >> 27
    z = z * 0x94D049BB133111EB & MASK_64
    return z ^ z >> 31


def mix_seed(seed):
    """The first output of SplitMix64."""
    return mix(seed + GOLDEN & MASK_64)


def wide_lanes(low, high):
    table = []
    for word in (low, high, mix(low ^ GOLDEN), mix(high ^ GOLDEN)):
        table += [word & MASK_32, word >> 32]
    rotated = (high << 32 | high >> 32) & MASK_64
    base = (low ^ rotated) * GOLDEN & MASK_64
    filter_lanes = [base >> 32]
    for i in range(12):
        word = mix(base + i * GOLDEN & MASK_64)
        filter_lanes += [word & MASK_32, word >> 32]
    return table, filter_lanes[:24]


def xxh3_lanes(key, seed):
    data = b"".join(word.to_bytes(8, "little") for word in key_words(key))
    digest = xxhash.xxh3_128_intdigest(data, seed)
    return wide_lanes(digest & MASK_64, digest >> 64)


def mix64_lanes(key, seed):
    state = mix_seed(seed)
    for word in key_words(key):
        state = mix(state ^ word) + GOLDEN & MASK_64
    return wide_lanes(mix(state), mix(state ^ GOLDEN))


def pi_words(count):
    """The first 32-bit words of the fraction of pi, by Machin's formula."""
    bits = 32 * count + 64
    one = 1 << bits

    def arctan_of_inverse(x):
        term = total = one // x
        divisor, sign = 3, -1
        while term:
            term //= x * x
            total += sign * (term // divisor)
            divisor, sign = divisor + 2, -sign
        return total

    fraction = 4 * (4 * arctan_of_inverse(5) - arctan_of_inverse(239)) - 3 * one
    return [fraction >> (bits - 32 * (i + 1)) & MASK_32 for i in range(count)]


def is_primitive(polynomial):
    """Whether x^32 + polynomial is primitive over GF(2): x has order 2^32 - 1."""
    modulus = 1 << 32 | polynomial

    def times(a, b):
        product = 0
        while b:
            if b & 1:
                product ^= a
            a, b = a << 1, b >> 1
            if a >> 32:
                a ^= modulus
        return product

    def power_of_x(exponent):
        result, base = 1, 2
        while exponent:
            if exponent & 1:
                result = times(result, base)
            base, exponent = times(base, base), exponent >> 1
        return result

    order = 2**32 - 1
    return power_of_x(order) == 1 and all(
        power_of_x(order // prime) != 1 for prime in (3, 5, 17, 257, 65537)
    )


def next_primitive(polynomial):
    while not is_primitive(polynomial):
        polynomial += 1
    return polynomial


# Key A; key B; table lanes 0 to 7; filter lanes 0 to 7.
POLYNOMIALS = [0x04C11DB7] + [next_primitive(word) for word in pi_words(17)]


def crc(polynomial, data):
    """CRC-32 with another polynomial: least significant bit first, all ones in and out."""
    reflected = int(f"{polynomial:032b}"[::-1], 2)
    register = MASK_32
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (reflected if register & 1 else 0)
    return register ^ MASK_32


def crc_add_lanes(key, seed):
    data = key_bytes(key)
    seed = mix_seed(seed)
    a = crc(POLYNOMIALS[0], data) ^ seed >> 32
    b = crc(POLYNOMIALS[1], data) ^ seed & MASK_32
    c = a + b & MASK_32
    rotated = (c << 16 | c >> 16) & MASK_32
    d = b + rotated & MASK_32
    base = struct.pack(">II", c, d)
    lanes = [crc(polynomial, base) for polynomial in POLYNOMIALS[2:]]
    return lanes[:8], lanes[8:]


FAMILIES = {"xxh3": (1, xxh3_lanes), "mix64": (2, mix64_lanes), "crc-add": (3, crc_add_lanes)}


def reduce(lane, size):
    return lane * size >> 32


# ---------------------------------------------------------------------------------------------------
# Filter, table and flowset.


class Switch:
    """Filter and counting table of one epoch."""

    def __init__(self, spec):
        self.spec = spec
        self.cells = [
            {"xor": 0, "flows": 0, "packets": 0, "bytes": 0}
            for _ in range(spec["hashes"] * spec["subtable_cells"])
        ]
        self.filter = 0
        self.packets = self.bytes = self.new_flows = 0
        self.hidden_flows = set()
        self.recorded_flows = []

    def filter_bits(self):
        spec = self.spec
        if spec["filter_kind"] == "partitioned":
            return spec["filter_hashes"] * spec["filter_size"]
        return 512 * spec["filter_size"]

    def bits_of(self, key):
        spec = self.spec
        _, lanes = FAMILIES[spec["family"]][1](key, spec["seed"])
        if spec["filter_kind"] == "partitioned":
            size = spec["filter_size"]
            return [j * size + reduce(lanes[j], size) for j in range(spec["filter_hashes"])]
        block = reduce(lanes[0], spec["filter_size"])
        bits = []
        for word in range(8):
            shift = 26 - 6 * (word % 4)
            bits.append(512 * block + 64 * word + (lanes[1 + word // 4] >> shift & 63))
        return bits

    def cells_of(self, key):
        spec = self.spec
        lanes, _ = FAMILIES[spec["family"]][1](key, spec["seed"])
        subtable_cells, window = spec["subtable_cells"], spec["window_cells"]
        if window:
            start = reduce(lanes[OFFSET_LANE], subtable_cells - window + 1)
        else:
            start, window = 0, subtable_cells
        return [
            i * subtable_cells + start + reduce(lanes[i], window) for i in range(spec["hashes"])
        ]

    def packet(self, key, ip_bytes):
        new = False
        for bit in self.bits_of(key):
            new |= not self.filter >> bit & 1
            self.filter |= 1 << bit
        if new:
            self.new_flows += 1
            self.recorded_flows.append(key)
        elif key not in self.recorded_flows:
            self.hidden_flows.add(key)
        for index in self.cells_of(key):
            cell = self.cells[index]
            if new:
                cell["xor"] ^= int.from_bytes(key_bytes(key), "big")
                cell["flows"] += 1
            cell["packets"] += 1
            cell["bytes"] += ip_bytes
        self.packets += 1
        self.bytes += ip_bytes

    def peelable_flows(self):
        """Recorded flows that peeling finds. The order of peeling does not matter for that."""
        saturated = 2 ** self.spec["flow_count_bits"] - 1
        closed = {i for i, cell in enumerate(self.cells) if cell["flows"] >= saturated}
        flows_in = [set() for _ in self.cells]
        for key in self.recorded_flows:
            for index in self.cells_of(key):
                flows_in[index].add(key)
        found = set()
        progress = True
        while progress:
            progress = False
            for index, flows in enumerate(flows_in):
                if index not in closed and len(flows) == 1:
                    (key,) = flows
                    found.add(key)
                    for cell in self.cells_of(key):
                        flows_in[cell].discard(key)
                    progress = True
        return found

    def flowset(self):
        spec = self.spec
        name = spec["switch"].encode()
        totals = [self.packets, self.bytes & MASK_64, self.new_flows]
        head = struct.pack(
            "<BBBBBBBBQIIIIQQQB7x",
            spec["key_kind"],
            FAMILIES[spec["family"]][0],
            spec["hashes"],
            spec["flow_count_bits"],
            spec["packet_count_bits"],
            spec["byte_count_bits"],
            {"partitioned": 1, "blocked": 2}[spec["filter_kind"]],
            spec["filter_hashes"],
            spec["seed"],
            spec["subtable_cells"],
            spec["window_cells"],
            spec["filter_size"],
            0,
            *(totals if spec["totals"] else (0, 0, 0)),
            len(name),
        )
        key_length = 13 if spec["key_kind"] == 4 else 37
        words = -(-self.filter_bits() // 64)
        payload = self.filter.to_bytes(8 * words, "little")
        payload += padded(b"".join(cell["xor"].to_bytes(key_length, "big") for cell in self.cells))
        for counter, bits in [
            ("flows", spec["flow_count_bits"]),
            ("packets", spec["packet_count_bits"]),
            ("bytes", spec["byte_count_bits"]),
        ]:
            width, most = -(-bits // 8), 2**bits - 1
            payload += padded(
                b"".join(min(cell[counter], most).to_bytes(width, "little") for cell in self.cells)
                if bits
                else b""
            )
        header_length = len(padded(b"\0" * 112 + name)) + 8
        header = padded(
            b"\x89FLOWR\r\n"
            + struct.pack(
                "<HHIQQQQ",
                1,
                header_length,
                1 if spec["totals"] else 0,
                header_length + len(payload) + 8,
                spec["epoch_number"],
                spec["epoch_start_ns"],
                spec["epoch_length_ns"],
            )
            + head
            + name
        )
        sealed = header + checksum(header)
        return sealed + payload + checksum(payload, int.from_bytes(sealed[-8:], "little"))


def padded(data):
    return data + b"\0" * (-len(data) % 8)


def checksum(data, seed=0):
    return xxhash.xxh3_64_intdigest(data, seed).to_bytes(8, "little")


# ---------------------------------------------------------------------------------------------------
# What the vectors are.


def hash_keys():
    v6 = lambda text: int(ipaddress.IPv6Address(text))
    v4 = lambda text: int(ipaddress.IPv4Address(text))
    return [
        (4, 0, 0, 0, 0, 0),
        (4, v4("10.0.0.1"), v4("10.0.0.2"), 49152, 443, 6),
        (4, v4("10.0.0.1"), v4("10.0.0.2"), 49153, 443, 6),
        (4, v4("192.0.2.255"), v4("198.51.100.7"), 0, 0x0800, 1),
        (4, MASK_32, MASK_32, 0xFFFF, 0xFFFF, 0xFF),
        (6, 0, 0, 0, 0, 0),
        (6, v6("2001:db8::1"), v6("2001:db8::2"), 49152, 443, 6),
        (6, v6("2001:db8::1"), v6("2001:db8::3"), 49152, 443, 6),
        (6, v6("fe80::1234:5678:9abc:def0"), v6("ff02::1"), 0, 0x8600, 58),
        (6, 2**128 - 1, 2**128 - 1, 0xFFFF, 0xFFFF, 0xFF),
    ]


SEEDS = [0, 1, 0x0123456789ABCDEF, MASK_64]


def hash_vectors():
    return [
        {
            "family": family,
            "key": key_bytes(key).hex(),
            "seed": f"{seed:016x}",
            "table_lanes": " ".join(f"{lane:08x}" for lane in lanes(key, seed)[0]),
            "filter_lanes": " ".join(f"{lane:08x}" for lane in lanes(key, seed)[1]),
        }
        for family, (_, lanes) in FAMILIES.items()
        for key in hash_keys()
        for seed in SEEDS
    ]


def flowset_specs():
    """Every family with both kinds of key, plain and coupled, with each filter; then special cases."""
    base = {
        "switch": "leaf-1",
        "epoch_number": 7,
        "epoch_start_ns": 1_700_000_000_000_000_000,
        "epoch_length_ns": 10_000_000,
        "key_kind": 4,
        "family": "xxh3",
        "hashes": 3,
        "subtable_cells": 24,
        "window_cells": 0,
        "flow_count_bits": 8,
        "packet_count_bits": 24,
        "byte_count_bits": 0,
        "filter_kind": "partitioned",
        "filter_hashes": 7,
        "filter_size": 127,
        "totals": True,
        "flows": 30,
        "packets": 120,
        # Whether SingleDecode can find everything and prove it.
        "complete": True,
    }
    coupled = {"subtable_cells": 30, "window_cells": 12}
    blocked = {"filter_kind": "blocked", "filter_hashes": 8, "filter_size": 3}
    with_bytes = {"byte_count_bits": 40}
    v6 = {"key_kind": 6}
    specs = []
    for family in FAMILIES:
        for name, changes in [
            ("v4-plain-partitioned", with_bytes),
            ("v4-coupled-blocked", coupled | blocked),
            ("v4-coupled-partitioned", coupled | with_bytes | {"totals": False}),
            ("v6-plain-blocked", v6 | blocked | {"totals": False}),
            ("v6-coupled-partitioned", v6 | coupled | {"hashes": 4, "filter_hashes": 8}),
            ("v6-plain-partitioned", v6 | with_bytes | {"hashes": 2, "subtable_cells": 61}),
        ]:
            specs.append(base | changes | {"name": f"{family}-{name}", "family": family})
    specs += [
        # The smallest flowset there is, and nothing in it.
        base
        | {
            "name": "tiny-empty",
            "switch": "s",
            "epoch_number": 0,
            "epoch_start_ns": 0,
            "epoch_length_ns": 0,
            "hashes": 2,
            "subtable_cells": 1,
            "flow_count_bits": 2,
            "packet_count_bits": 2,
            "filter_hashes": 1,
            "filter_size": 1,
            "flows": 0,
            "packets": 0,
        },
        # The longest name, six subtables, all filter hashes, widths that fill no byte, numbers at
        # their limits.
        base
        | {
            "name": "odd-sizes",
            "switch": "r\u00e9gion-9." + "x" * 118,
            "epoch_number": MASK_64,
            "epoch_start_ns": MASK_64,
            "epoch_length_ns": MASK_64,
            "hashes": 6,
            "subtable_cells": 23,
            "window_cells": 23,
            "flow_count_bits": 5,
            "packet_count_bits": 17,
            "byte_count_bits": 33,
            "filter_hashes": 24,
            "filter_size": 61,
        },
        # PacketCount and ByteCount of 16 bits and fewer, and one flow that goes beyond both.
        base
        | {
            "name": "saturated-packets",
            "family": "mix64",
            "packet_count_bits": 6,
            "byte_count_bits": 16,
            "flows": 20,
            "elephant_packets": 70,
            "complete": False,
        },
        # FlowCount of 2 bits: cells of three flows and more are closed, some flows cannot be found.
        base
        | {
            "name": "saturated-flows",
            "family": "crc-add",
            "flow_count_bits": 2,
            "flows": 34,
            "subtable_cells": 20,
            "complete": False,
        },
        # More flows than the table can give back.
        base
        | {
            "name": "overloaded",
            "family": "mix64",
            "flows": 44,
            "subtable_cells": 12,
            "filter_size": 311,
            "complete": False,
        },
        # A filter so small that some flow is taken for known: nothing may be called exact.
        base
        | {
            "name": "hidden-flow",
            "family": "xxh3",
            "filter_hashes": 3,
            "filter_size": 67,
            "complete": False,
        },
    ]
    return specs


def packets_of(spec):
    """The packets of a vector: some flows, more packets of the first ones, interleaved."""
    source = random.Random(spec["name"])
    bits = 32 if spec["key_kind"] == 4 else 128
    keys = []
    for number in range(spec["flows"]):
        src, dst = source.getrandbits(bits), source.getrandbits(bits)
        if number % 3 and keys:
            # Neighbours: keys that differ little must decode as well.
            src, dst = keys[-1][1], keys[-1][2] ^ 1 << source.randrange(bits)
        ports = source.getrandbits(16), source.getrandbits(16)
        keys.append((spec["key_kind"], src, dst, *ports, source.choice([1, 6, 17, 58, 255])))
    chosen = keys + [
        keys[min(source.randrange(len(keys)) for _ in range(3))]
        for _ in range(spec["packets"] - len(keys))
    ]
    chosen += keys[:1] * spec.get("elephant_packets", 0)
    source.shuffle(chosen)
    return [(key, source.choice([20, 40, 64, 576, 1500, 9000, 65535])) for key in chosen]


def encode(spec):
    """Encodes the packets under the first of a few random seeds that shows what it should."""
    packets = packets_of(spec)
    seeds = random.Random("seeds of " + spec["name"])
    for _ in range(1000):
        spec["seed"] = seeds.getrandbits(64)
        switch = Switch(spec)
        for key, ip_bytes in packets:
            switch.packet(key, ip_bytes)
        if shows_what_it_should(switch):
            return switch, packets
    sys.exit("no seed shows what it should: " + spec["name"])


def shows_what_it_should(switch):
    spec = switch.spec
    found = switch.peelable_flows()
    all_found = len(found) == len(switch.recorded_flows) == spec["flows"]
    some_missing = 0 < len(found) < spec["flows"] == len(switch.recorded_flows)
    if spec["name"] == "hidden-flow":
        return bool(switch.hidden_flows) and len(found) == len(switch.recorded_flows)
    if spec["name"] == "saturated-packets":
        return all_found
    if spec["name"] == "saturated-flows":
        return some_missing and any(cell["flows"] >= 3 for cell in switch.cells)
    if spec["name"] == "overloaded":
        return some_missing
    return all_found


# ---------------------------------------------------------------------------------------------------
# Files.


def rows(header, lines):
    return "".join(",".join(line) + "\n" for line in [header, *lines]).encode()


KEY_COLUMNS = ["src", "dst", "src_port", "dst_port", "protocol"]


def outputs():
    files = {"hashes.json": json.dumps(hash_vectors(), indent=1).encode() + b"\n"}
    manifest = []
    for spec in flowset_specs():
        switch, packets = encode(spec)
        found = switch.peelable_flows()
        truth = {}
        for key, ip_bytes in packets:
            count, total = truth.get(key, (0, 0))
            truth[key] = count + 1, total + ip_bytes
        name = spec["name"]
        files[f"{name}.flowset"] = switch.flowset()
        flows = sorted(truth)
        # The packets in the order they were encoded; `flow` counts the rows of the other file.
        files[f"{name}.packets.csv"] = rows(
            ["flow", "ip_bytes"],
            [[str(flows.index(key)), str(ip_bytes)] for key, ip_bytes in packets],
        )
        # All that is there; `found` says what SingleDecode finds of it.
        files[f"{name}.flows.csv"] = rows(
            KEY_COLUMNS + ["packets", "bytes", "found"],
            [
                key_columns(key)
                + [str(truth[key][0]), str(truth[key][1]), "yes" if key in found else "no"]
                for key in flows
            ],
        )
        entry = {key: value for key, value in spec.items() if key not in ("flows", "packets")}
        entry.pop("elephant_packets", None)
        entry["seed"] = f"{spec['seed']:016x}"
        entry["total_packets"] = switch.packets
        entry["total_bytes"] = switch.bytes
        entry["total_new_flows"] = switch.new_flows
        manifest.append(entry)
    files["flowsets.json"] = json.dumps(manifest, indent=1).encode() + b"\n"
    return files


def document():
    uses = ["key, A", "key, B"]
    uses += [f"T({lane})" for lane in range(8)] + [f"F({lane})" for lane in range(8)]
    for use, polynomial in zip(uses, POLYNOMIALS):
        check = crc(polynomial, b"123456789")
        print(f"| {use} | `{polynomial:08x}` | `{check:08x}` |")
    print()
    for family, (_, lanes) in FAMILIES.items():
        for key in (hash_keys()[1], hash_keys()[6]):
            for seed in (0, 0x0123456789ABCDEF):
                table, filter_lanes = lanes(key, seed)
                print(f"{family} key {key_bytes(key).hex()} seed {seed:016x}")
                print("  T " + " ".join(f"{lane:08x}" for lane in table))
                print("  F " + " ".join(f"{lane:08x}" for lane in filter_lanes[:8]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the files, write nothing")
    parser.add_argument("--document", action="store_true", help="print the document's vectors")
    arguments = parser.parse_args()
    if arguments.document:
        document()
        return
    files = outputs()
    differing = []
    for name, data in files.items():
        path = DIRECTORY / name
        if not arguments.check:
            path.write_bytes(data)
        elif not path.exists() or path.read_bytes() != data:
            differing.append(name)
    known = set(files) | {"generate.py"}
    differing += sorted(path.name for path in DIRECTORY.iterdir() if path.name not in known)
    if differing:
        sys.exit("differ from what the documents give: " + ", ".join(differing))


if __name__ == "__main__":
    main()
