"""Drives a switch that runs entities.p4 with finsy.

Usage: finsy_peer.py ADDRESS JSON P4INFO
"""

import asyncio
import sys
from pathlib import Path

import finsy as fy

address, json, p4info = sys.argv[1:]


async def collect(entities):
    return [entity async for entity in entities]


async def drive(switch):
    await switch.delete_all()
    # Entries of all kinds of match.
    await switch.write([
        +fy.P4TableEntry(
            "routes",
            match=fy.Match(dst="10.0.0.0/24"),
            action=fy.Action("route", dst="02:00:00:00:00:07", port=7),
        ),
        +fy.P4TableEntry(
            "acl",
            match=fy.Match(src="10.0.0.0/&255.0.0.0", protocol="6...17", port=3),
            action=fy.Action("deny"),
            priority=5,
        ),
        +fy.P4TableEntry(
            "l2_exact",
            match=fy.Match(dst="02:00:00:00:00:01"),
            action=fy.Action("forward", port=1),
            metadata=b"abc",
        ),
    ])
    entries = await collect(switch.read([fy.P4TableEntry("l2_exact")]))
    assert len(entries) == 1 and entries[0].metadata == b"abc", entries
    entries = await collect(switch.read([fy.P4TableEntry("acl")]))
    assert len(entries) == 1 and entries[0].priority == 5, entries
    try:
        await switch.write([+fy.P4TableEntry(
            "l2_exact", match=fy.Match(dst="02:00:00:00:00:01"), action=fy.Action("drop"))])
        raise AssertionError("inserted twice")
    except fy.P4ClientError as error:
        assert "ALREADY_EXISTS" in str(error), error

    # Action profiles.
    await switch.write([
        +fy.P4ActionProfileMember(
            action_profile_id="ecmp_selector", member_id=1, action=fy.Action("forward", port=4)),
        +fy.P4ActionProfileGroup(
            action_profile_id="ecmp_selector", group_id=1, max_size=4,
            members=[fy.P4Member(1, weight=1)]),
        +fy.P4TableEntry("ecmp", match=fy.Match(dst="10.1.0.0/16"), action=fy.P4IndirectAction(group_id=1)),
    ])
    members = await collect(switch.read([fy.P4ActionProfileMember(action_profile_id="ecmp_selector")]))
    assert [member.member_id for member in members] == [1], members

    # Registers, counters, multicast groups, clone sessions, digests.
    await switch.write([~fy.P4RegisterEntry("last_source", index=3, data=0xAABBCCDDEEFF)])
    registers = await collect(switch.read([fy.P4RegisterEntry("last_source")]))
    assert len(registers) == 32 and registers[3].data == 0xAABBCCDDEEFF, registers[3]
    counters = await collect(switch.read([fy.P4CounterEntry("port_counter")]))
    assert len(counters) == 512, len(counters)
    await switch.write([
        +fy.P4MulticastGroupEntry(5, replicas=[1, 2]),
        +fy.P4CloneSessionEntry(7, replicas=[3]),
        +fy.P4DigestEntry("learned_t", max_list_size=1, max_timeout_ns=0, ack_timeout_ns=1),
    ])
    groups = await collect(switch.read([fy.P4MulticastGroupEntry()]))
    assert [len(group.replicas) for group in groups] == [2], groups

    # Packets: out with a mode in which the tables see them; the controller gets two of three types.
    ethernet = bytes.fromhex("0200000000dd020000000055")
    async with asyncio.timeout(30):
        received = asyncio.ensure_future(anext(aiter(switch.read_packets())))
        await asyncio.sleep(0.1)
        await switch.write([fy.P4PacketOut(ethernet + bytes.fromhex("88b8") + bytes(46), egress_port=0, mode=1)])
        packet = await received
        assert packet["reason"] == 3, packet
        digests = asyncio.ensure_future(anext(aiter(switch.read_digests("learned_t"))))
        await asyncio.sleep(0.1)
        await switch.write([fy.P4PacketOut(ethernet + bytes.fromhex("88b7") + bytes(46), egress_port=0, mode=1)])
        learned = await digests
        assert learned.data[0]["address"] == 0x020000000055, learned


async def main():
    options = fy.SwitchOptions(p4info=Path(p4info), p4blob=Path(json), device_id=1)
    async with fy.Switch("s1", address, options) as switch:
        await drive(switch)
    print("finsy: all done", file=sys.stderr)


asyncio.run(main())
