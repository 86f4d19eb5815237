use std::collections::BTreeMap;

use flowradar_core::decode::single_decode;
use flowradar_core::flowset::{Epoch, Totals};
use flowradar_core::hash::CrcAdd;
use flowradar_core::packet::{LinkType, Parsed, parse};
use flowradar_core::{Encoder, FlowKeyV4, Flowset, Packet};
use proptest::prelude::*;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use super::model::ModelPipe;
use super::*;

const EPOCH: Epoch = Epoch {
    number: 7,
    start_ns: 70,
    length_ns: 10,
};

/// Exact counts: packets, bytes.
pub(crate) type Truth = BTreeMap<FlowKeyV4, (u64, u64)>;

fn small_program() -> TofinoProgram {
    TofinoProgram::new(12, 8, 1).expect("a small layout")
}

/// An Ethernet frame with tags, of a flow that the number chooses: TCP, UDP, ICMP, ESP, fragments.
pub(crate) fn frame(flow: u32, payload_bytes: u16, vlan_tags: usize) -> Vec<u8> {
    let protocol = [6, 17, 1, 50, 132][flow as usize % 5];
    let total_bytes = (20 + 8 + payload_bytes).to_be_bytes();
    let fragment_offset = if flow.is_multiple_of(11) { 5 } else { 0 };
    let mut frame = vec![0; 12];
    for _ in 0..vlan_tags {
        frame.extend([0x81, 0, 0, 9]);
    }
    frame.extend([8, 0, 0x45, 0]);
    frame.extend(total_bytes);
    frame.extend([0, 1, 0, fragment_offset, 64, protocol, 0, 0]);
    frame.extend((0x0a00_0000 | (flow / 7)).to_be_bytes());
    frame.extend((0xc000_0000 ^ flow.wrapping_mul(0x9e37_79b1)).to_be_bytes());
    frame.extend(flow.wrapping_mul(0x85eb_ca6b).to_be_bytes());
    frame.extend([0; 4]);
    frame.resize(frame.len() + usize::from(payload_bytes), 0);
    frame
}

/// The packet that software sees in a frame.
pub(crate) fn packet(frame: &[u8]) -> Packet<FlowKeyV4> {
    let parsed = parse(LinkType::Ethernet, frame, frame.len() as u32);
    let Ok(Parsed::V4(packet)) = parsed else {
        panic!("an IPv4 packet, not {parsed:?}");
    };
    Packet {
        key: packet.key,
        ip_bytes: packet.ip_bytes,
    }
}

pub(crate) fn count(truth: &mut Truth, packet: &Packet<FlowKeyV4>) {
    let (packets, bytes) = truth.entry(packet.key).or_default();
    *packets += 1;
    *bytes += u64::from(packet.ip_bytes);
}

/// What the decoder finds, all of it exact.
pub(crate) fn decoded(bytes: &[u8]) -> Truth {
    let flowset = Flowset::new_checked(bytes).expect("a flowset");
    let decode = single_decode::<FlowKeyV4, _>(&flowset).expect("IPv4 keys");
    assert!(decode.is_complete(), "{:?}", decode.packets_proof);
    let flows = decode.flows.iter();
    flows
        .map(|flow| {
            let bytes = flow.bytes.expect("bytes are counted");
            (flow.key, (flow.packets.value, bytes.value))
        })
        .collect()
}

/// The registers of one bank, as a reader would hand them over.
fn registers_of(pipe: &ModelPipe, program: &TofinoProgram, bank: usize) -> BankRegisters {
    let mut registers = BankRegisters::new(program);
    for array in Array::all() {
        let entries = program.bank_entries(array) as usize;
        let values = &pipe.array(array)[bank * entries..(bank + 1) * entries];
        for (index, value) in (0..).zip(values) {
            let values = &value[..array.widths_bits().len()];
            registers.put(array, index, values).expect("an entry");
        }
    }
    registers
}

/// Encodes in the model and in the core, and compares everything.
fn check(program: &TofinoProgram, bank: usize, frames: impl Iterator<Item = Vec<u8>>) {
    let mut pipe = ModelPipe::new(program);
    let switch: SwitchName = "leaf-1:pipe-0".parse().expect("a name");
    let mut encoder =
        Encoder::<FlowKeyV4, CrcAdd>::new(switch.clone(), *program.layout(), EPOCH).expect("new");
    let mut truth = Truth::new();
    for frame in frames {
        assert!(pipe.packet(bank, &frame));
        let packet = packet(&frame);
        encoder.packet(&packet);
        count(&mut truth, &packet);
    }
    let registers = registers_of(&pipe, program, bank);
    let counters = BankCounters {
        packets: pipe.total[bank][0],
        new_flows: pipe.total_new_flows[bank],
    };
    let sums = registers.sums().expect("equal sums");
    assert_eq!(check_counters(&[sums], &counters), Ok(()));
    assert_eq!(sums.totals(), Some(encoder.totals()));
    let flowset = registers.to_flowset(&switch, EPOCH).expect("a flowset");
    let sealed = encoder.end_epoch(Epoch::number(8)).expect("one epoch");
    assert!(flowset == sealed.to_flowset(), "not the encoder's flowset");
    assert_eq!(decoded(&flowset), truth);
    // The other bank has not been touched.
    let other = registers_of(&pipe, program, 1 - bank);
    let empty = PipeSums {
        packets: Some(0),
        bytes: Some(0),
        new_flows: Some(0),
    };
    assert_eq!(other.sums(), Ok(empty));
}

proptest! {
    #[test]
    fn registers_make_the_encoders_flowset_and_decode_to_exact_counts(
        packets in prop::collection::vec((0..120_u32, 0..1400_u16, 0..3_usize), 0..400),
        first_flow in any::<u32>(),
        bank in 0..2_usize,
    ) {
        let frames = packets.into_iter().map(|(flow, bytes, tags)| {
            frame(first_flow.wrapping_add(flow), bytes, tags)
        });
        check(&small_program(), bank, frames);
    }
}

#[test]
fn the_program_as_it_is_decodes_twenty_thousand_flows() {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(5);
    let program = TofinoProgram::default();
    let frames = (0..30_000_u32).map(|number| {
        let flow = if number < 20_000 {
            number
        } else {
            random.next_u32() % 20_000
        };
        frame(flow, (flow % 1400) as u16, 0)
    });
    check(&program, 1, frames);
}

#[test]
fn a_sum_over_pipes_would_lose_a_flow_that_leaves_by_two() {
    let program = small_program();
    let mut pipes = [ModelPipe::new(&program), ModelPipe::new(&program)];
    let frame = frame(3, 100, 0);
    for pipe in &mut pipes {
        pipe.packet(0, &frame);
    }
    let addresses = Array::Addresses(0);
    let [first, second] = pipes.each_ref().map(|pipe| pipe.array(addresses).to_vec());
    assert!(first.iter().any(|entry| *entry != [0, 0]));
    // XORed, nothing is left of it.
    assert_eq!(first, second);
    for (number, pipe) in pipes.iter().enumerate() {
        let name = pipe_switch_name(&"leaf-1".parse().expect("a name"), number).expect("a name");
        let registers = registers_of(pipe, &program, 0);
        let flowset = registers.to_flowset(&name, EPOCH).expect("a flowset");
        assert_eq!(
            decoded(&flowset),
            Truth::from([(packet(&frame).key, (1, 128))])
        );
    }
}

#[test]
fn entries_are_checked() {
    let program = small_program();
    let mut registers = BankRegisters::new(&program);
    let error = |array, index, reason| {
        Err(RegistersError::Entry {
            array,
            index,
            reason,
        })
    };
    let filter = Array::Filter(7);
    assert_eq!(registers.put(filter, 4095, &[1]), Ok(()));
    assert_eq!(
        registers.put(filter, 4095, &[1]),
        error(filter, 4095, EntryReason::Doubled)
    );
    assert_eq!(
        registers.put(filter, 4096, &[1]),
        error(filter, 4096, EntryReason::OutOfRange { entries: 4096 })
    );
    assert_eq!(
        registers.put(filter, 0, &[2]),
        error(filter, 0, EntryReason::TooWide { value: 2, bits: 1 })
    );
    let numbers = |expected, found| EntryReason::Numbers { expected, found };
    assert_eq!(
        registers.put(filter, 0, &[]),
        error(filter, 0, numbers(1, 0))
    );
    let counts = Array::Counts(2);
    assert_eq!(
        registers.put(counts, 0, &[1]),
        error(counts, 0, numbers(2, 1))
    );
    assert_eq!(registers.put(counts, 0, &[u32::MAX; 2]), Ok(()));
    let flows = Array::ProtocolAndFlows(0);
    let too_wide = EntryReason::TooWide {
        value: 256,
        bits: 8,
    };
    assert_eq!(
        registers.put(flows, 9, &[0, 256]),
        error(flows, 9, too_wide)
    );
    for array in [Array::Counts(4), Array::Filter(8)] {
        let entries = program.bank_entries(array);
        assert_eq!(
            registers.put(array, 0, &[0]),
            error(array, 0, EntryReason::OutOfRange { entries })
        );
    }
    assert_eq!(
        registers.to_flowset(&"a".parse().expect("a name"), EPOCH),
        Err(RegistersError::Entry {
            array: Array::Filter(0),
            index: 0,
            reason: EntryReason::Missing
        })
    );
}

#[test]
fn registers_of_different_moments_are_noticed() {
    let program = small_program();
    let mut pipe = ModelPipe::new(&program);
    let frame = frame(3, 100, 0);
    pipe.packet(0, &frame);
    let sums = registers_of(&pipe, &program, 0).sums().expect("equal sums");
    let counters = BankCounters {
        packets: 2,
        new_flows: 1,
    };
    assert_eq!(
        check_counters(&[sums], &counters),
        Err(RegistersError::Counter {
            kind: SumKind::Packets,
            cells: 1,
            counter: 2
        })
    );
    pipe.array_mut(Array::Counts(2)).fill([0; 2]);
    assert_eq!(
        registers_of(&pipe, &program, 0).sums(),
        Err(RegistersError::Subtables {
            array: Array::Counts(2),
            kind: SumKind::Packets,
            expected: 1,
            found: 0
        })
    );
}

#[test]
fn a_filter_that_is_too_old_leaves_flows_undecoded() {
    let program = small_program();
    let mut pipe = ModelPipe::new(&program);
    pipe.packet(0, &frame(3, 100, 0));
    for filter in 0..FILTER_ARRAYS {
        pipe.array_mut(Array::Filter(filter)).fill([0; 2]);
    }
    let registers = registers_of(&pipe, &program, 0);
    let flowset = registers.to_flowset(&"a".parse().expect("a name"), EPOCH);
    let flowset = flowset.expect("a flowset");
    let flowset = Flowset::new_checked(&flowset[..]).expect("a flowset");
    let decode = single_decode::<FlowKeyV4, _>(&flowset).expect("IPv4 keys");
    assert!(!decode.is_complete());
    assert_eq!((decode.flows.len(), decode.leftover.cells), (0, 4));
}

#[test]
fn saturated_cells_leave_totals_to_subtables_that_are_not() {
    let program = small_program();
    let mut pipe = ModelPipe::new(&program);
    let frame = frame(3, 100, 0);
    pipe.packet(0, &frame);
    let saturate = |pipe: &mut ModelPipe, subtable| {
        let cells = pipe.array_mut(Array::Counts(subtable)).iter_mut();
        for cell in cells.filter(|cell| cell[0] > 0) {
            cell[1] = u32::MAX;
        }
    };
    saturate(&mut pipe, 0);
    let sums = registers_of(&pipe, &program, 0).sums().expect("equal sums");
    let totals = Totals {
        packets: 1,
        bytes: 128,
        new_flows: 1,
    };
    assert_eq!(sums.totals(), Some(totals));
    for subtable in 1..SUBTABLES {
        saturate(&mut pipe, subtable);
    }
    let registers = registers_of(&pipe, &program, 0);
    let sums = registers.sums().expect("equal sums");
    assert_eq!((sums.packets, sums.bytes), (Some(1), None));
    let flowset = registers.to_flowset(&"a".parse().expect("a name"), EPOCH);
    let flowset = flowset.expect("a flowset");
    let flowset = Flowset::new_checked(&flowset[..]).expect("a flowset");
    assert_eq!(flowset.header().totals, None);
}

#[test]
fn sizes_without_a_layout_are_refused() {
    assert_eq!(
        TofinoProgram::new(25, 8, 1),
        Err(TofinoProgramError::IndexBits {
            filter: 25,
            cell: 8
        })
    );
    assert!(TofinoProgram::new(0, 0, 1).is_ok());
    assert_ne!(
        TofinoProgram::default().fingerprint(),
        small_program().fingerprint()
    );
}
