"""Drives a switch that runs entities.p4 with p4runtime-shell.

Usage: shell_peer.py ADDRESS JSON P4INFO
"""

import queue
import sys

import p4runtime_sh.shell as sh
from p4runtime_sh.p4runtime import P4RuntimeWriteException

address, json, p4info = sys.argv[1:]
sh.setup(device_id=1, grpc_addr=address, election_id=(0, 1),
         config=sh.FwdPipeConfig(p4info, json))

# Entries of all kinds of match.
route = sh.TableEntry("IngressImpl.routes")(action="IngressImpl.route")
route.match["dst"] = "10.0.0.0/24"
route.action["dst"] = "02:00:00:00:00:07"
route.action["port"] = "7"
route.insert()
found = []
sh.TableEntry("IngressImpl.routes").read(lambda entry: found.append(entry))
assert len(found) == 1, found
assert found[0].match["dst"].lpm.prefix_len == 24
assert found[0].action["port"].value if hasattr(found[0].action["port"], "value") else True

rule = sh.TableEntry("IngressImpl.acl")(action="IngressImpl.deny")
rule.match["src"] = "10.0.0.0&&&255.0.0.0"
rule.match["protocol"] = "6..17"
rule.match["port"] = "3"
rule.priority = 5
rule.insert()
try:
    rule.insert()
    raise AssertionError("inserted twice")
except P4RuntimeWriteException as error:
    assert "ALREADY_EXISTS" in str(error), error
rule.delete()

# Action profiles.
member = sh.ActionProfileMember("IngressImpl.ecmp_selector")(
    member_id=1, action="IngressImpl.forward")
member.action["port"] = "4"
member.insert()
group = sh.ActionProfileGroup("IngressImpl.ecmp_selector")(group_id=1)
group.add(1)
group.insert()
entry = sh.TableEntry("IngressImpl.ecmp")(group_id=1)
entry.match["dst"] = "10.1.0.0/16"
entry.insert()
found = []
sh.ActionProfileMember("IngressImpl.ecmp_selector").read(lambda member: found.append(member))
assert [member.member_id for member in found] == [1], found

# Counters, meters, multicast groups, clone sessions.
cells = []
sh.CounterEntry("IngressImpl.port_counter").read(lambda cell: cells.append(cell))
assert len(cells) == 512, len(cells)
cell = sh.CounterEntry("IngressImpl.port_counter")
cell.index = 3
cell.packet_count = 9
cell.modify()
cells = []
cell = sh.CounterEntry("IngressImpl.port_counter")
cell.index = 3
cell.read(lambda cell: cells.append(cell))
assert [cell.packet_count for cell in cells] == [9], cells
meter = sh.MeterEntry("IngressImpl.port_meter")
meter.index = 2
meter.cir, meter.cburst, meter.pir, meter.pburst = 10, 1, 20, 2
meter.modify()
multicast = sh.MulticastGroupEntry(5)
multicast.add(1, 1).add(2, 1)
multicast.insert()
found = []
sh.MulticastGroupEntry().read(lambda group: found.append(group))
assert [len(group.replicas) for group in found] == [2], found
clones = sh.CloneSessionEntry(7)
clones.add(1, 1)
clones.insert()

# A packet out, by a path that brings it back in: unknown to the tables, of the type that
# table `fixed` sends to the controller.
frame = bytes.fromhex("0200000000dd") + bytes.fromhex("020000000055") + bytes.fromhex("88b8") + bytes(46)
packets = sh.PacketIn()
sh.PacketOut(frame, egress_port="0", mode="1").send()
received = []
packets.sniff(lambda packet: received.append(packet), timeout=5)
assert received, "no packet came in"
assert received[0].packet.payload == frame

sh.teardown()
print("p4runtime-shell: all done", file=sys.stderr)
