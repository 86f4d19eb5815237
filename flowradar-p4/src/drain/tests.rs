use std::collections::VecDeque;

use flowradar_core::decode::single_decode;
use flowradar_core::flowset::{Epoch, SwitchName, Totals};
use flowradar_core::hash::HashFamilyId;
use flowradar_core::hash::Mix64;
use flowradar_core::layout::{CellWidths, Coupling, FilterLayout, Layout, TableLayout};
use flowradar_core::{Encoder, FlowKeyV4, FlowKeyV6, Flowset, Packet};
use proptest::prelude::*;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use super::model::ModelSwitch;
use super::*;
use crate::config::ProgramConfig;

const TIMING: DrainTiming = DrainTiming {
    window: 5,
    retry_after: Duration::from_millis(100),
    tries_max: 50,
    settle: Duration::from_millis(7),
};

/// A small program that has both arrangements of the filter and sizes that divide by nothing.
fn program() -> ProgramConfig {
    let layout = |filter, byte_count_bits| {
        let widths = CellWidths::new(8, 24, byte_count_bits).expect("widths");
        let table = TableLayout::new(3, 101, Coupling::Plain, widths).expect("a table");
        Layout::new(HashFamilyId::Mix64, 77, table, filter).expect("a layout")
    };
    ProgramConfig::new(
        Some(layout(
            FilterLayout::partitioned(11, 333).expect("a filter"),
            40,
        )),
        Some(layout(FilterLayout::blocked(23).expect("a filter"), 0)),
    )
    .expect("a program")
}

fn packet_v4(flow: u32) -> Packet<FlowKeyV4> {
    Packet {
        key: FlowKeyV4::new(flow.into(), (!flow).into(), flow as u16, 53, 17),
        ip_bytes: 40 + flow % 1400,
    }
}

fn packet_v6(flow: u32) -> Packet<FlowKeyV6> {
    let address = u128::from(flow) << 64 | 1;
    Packet {
        key: FlowKeyV6::new(address.into(), (!address).into(), 443, flow as u16, 6),
        ip_bytes: 60,
    }
}

/// What happens to frames on their way.
struct Link {
    random: Xoshiro256PlusPlus,
    lost_percent: u32,
    doubled_percent: u32,
    reordered_percent: u32,
}

impl Link {
    fn perfect() -> Self {
        Self::faulty(0, 0, 0, 0)
    }

    fn faulty(seed: u64, lost_percent: u32, doubled_percent: u32, reordered_percent: u32) -> Self {
        Self {
            random: Xoshiro256PlusPlus::seed_from_u64(seed),
            lost_percent,
            doubled_percent,
            reordered_percent,
        }
    }

    fn happens(&mut self, percent: u32) -> bool {
        self.random.next_u32() % 100 < percent
    }

    fn carry(&mut self, frame: Vec<u8>, queue: &mut VecDeque<Vec<u8>>) {
        if self.happens(self.lost_percent) {
            return;
        }
        if self.happens(self.doubled_percent) {
            queue.push_back(frame.clone());
        }
        if self.happens(self.reordered_percent) {
            queue.push_front(frame);
        } else {
            queue.push_back(frame);
        }
    }
}

/// Runs a task against a switch, with `before_request` called for every request that arrives.
fn run_with<T: Task>(
    mut task: T,
    switch: &mut ModelSwitch,
    link: &mut Link,
    mut before_request: impl FnMut(&mut ModelSwitch),
) -> Result<(T::Output, ExchangeCounters), DrainError> {
    let mut now = Duration::from_secs(1);
    let (mut to_switch, mut from_switch) = (VecDeque::new(), VecDeque::new());
    loop {
        match task.poll(now)? {
            Step::Send(frame) => link.carry(frame, &mut to_switch),
            Step::Wait(until) => {
                if let Some(request) = to_switch.pop_front() {
                    before_request(switch);
                    if let Some(answer) = switch.answer(&request) {
                        link.carry(answer, &mut from_switch);
                    }
                } else if let Some(frame) = from_switch.pop_front() {
                    task.handle(&frame)?;
                } else {
                    assert!(until > now, "a task must not wait for what is past");
                    now = until;
                }
            }
            Step::Done => {
                let counters = task.counters();
                return Ok((task.output().expect("done"), counters));
            }
        }
    }
}

fn run<T: Task>(
    task: T,
    switch: &mut ModelSwitch,
    link: &mut Link,
) -> Result<(T::Output, ExchangeCounters), DrainError> {
    run_with(task, switch, link, |_| {})
}

fn plan(bank: Bank) -> ReadPlan {
    ReadPlan {
        switch: name(),
        bank,
        start_ns: 5,
        length_ns: 6,
        sealed_at: Duration::from_secs(1),
    }
}

fn name() -> SwitchName {
    "leaf-1".parse().expect("a name")
}

/// The flowsets that an encoder in software makes of the same packets.
fn expected_flowsets(program: &ProgramConfig, seed: u64, epoch: u64, flows: u32) -> Vec<Vec<u8>> {
    let epoch = Epoch {
        number: epoch,
        start_ns: 5,
        length_ns: 6,
    };
    let layout = |key| {
        let table = program.table(key).expect("both tables");
        table.layout().with_seed(seed)
    };
    let mut v4 =
        Encoder::<FlowKeyV4, Mix64>::new(name(), layout(KeyKind::V4), epoch).expect("mix64");
    let mut v6 =
        Encoder::<FlowKeyV6, Mix64>::new(name(), layout(KeyKind::V6), epoch).expect("mix64");
    for flow in 0..flows {
        v4.packet(&packet_v4(flow % 50));
        v6.packet(&packet_v6(flow % 40));
    }
    vec![
        v4.end_epoch(Epoch::number(0)).expect("once").to_flowset(),
        v6.end_epoch(Epoch::number(0)).expect("once").to_flowset(),
    ]
}

fn send_packets(switch: &mut ModelSwitch, flows: u32) {
    for flow in 0..flows {
        switch.packet_v4(&packet_v4(flow % 50));
        switch.packet_v6(&packet_v6(flow % 40));
    }
}

/// Three epochs, each read, compared and cleared.
fn three_epochs(link: &mut Link) -> Result<ExchangeCounters, DrainError> {
    let program = program();
    let mut switch = ModelSwitch::new(&program);
    let (state, mut counters) = run(Control::query(&program, TIMING), &mut switch, link)?;
    assert_eq!(state.active_epoch(), 0);
    let (mut seed, mut epoch) = (77, 0);
    let mut idle = state.idle();
    for (next, flows) in [(10, 120), (11, 3), (25, 60)] {
        send_packets(&mut switch, flows);
        switch.malformed_packet();
        let task = Control::switch_epoch(&program, TIMING, idle, next, next * 1000);
        let (state, _) = run(task, &mut switch, link)?;
        assert_eq!((state.active, state.active_epoch()), (idle, next));

        let sealed = state.idle();
        let reader = BankReader::new(&program, TIMING, &state, plan(sealed))?;
        let (drained, read) = run(reader, &mut switch, link)?;
        let bytes: Vec<_> = drained
            .flowsets
            .iter()
            .map(|set| set.bytes.clone())
            .collect();
        assert_eq!(bytes, expected_flowsets(&program, seed, epoch, flows));
        assert_eq!((drained.rounds, drained.state.malformed), (1, 1));

        let cleaner = BankCleaner::new(&program, TIMING, &state, sealed)?;
        let (state, cleared) = run(cleaner, &mut switch, link)?;
        assert_eq!(state.bank(sealed).condition, BankCondition::Clean);
        assert_eq!(state.bank(sealed).v4, Totals::default());
        for part in [read, cleared] {
            counters.sent += part.sent;
            counters.sent_again += part.sent_again;
            counters.ignored += part.ignored;
        }
        (seed, epoch, idle) = (next * 1000, next, sealed);
    }
    Ok(counters)
}

#[test]
fn banks_are_read_as_an_encoder_would_have_written_them() {
    let counters = three_epochs(&mut Link::perfect()).expect("a perfect link");
    assert_eq!((counters.sent_again, counters.ignored), (0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn loss_doubling_and_reordering_change_nothing(
        seed: u64,
        lost in 0_u32..40,
        doubled in 0_u32..60,
        reordered in 0_u32..60,
    ) {
        let counters = three_epochs(&mut Link::faulty(seed, lost, doubled, reordered));
        let counters = counters.expect("tries enough");
        if lost > 5 {
            prop_assert!(counters.sent_again > 0);
        }
        if doubled > 5 {
            prop_assert!(counters.ignored > 0);
        }
    }

    #[test]
    fn hostile_frames_never_panic(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        length: prop::sample::Index,
    ) {
        let program = program();
        let mut switch = ModelSwitch::new(&program);
        send_packets(&mut switch, 20);
        let task = Control::switch_epoch(&program, TIMING, Bank::One, 1, 1);
        let (state, _) = run(task, &mut switch, &mut Link::perfect()).expect("a switch");
        let mut reader = BankReader::new(&program, TIMING, &state, plan(Bank::Zero)).expect("sealed");
        let mut now = Duration::from_secs(2);
        for _ in 0..300 {
            match reader.poll(now) {
                Ok(Step::Send(request)) => {
                    let mut answer = switch.answer(&request).expect("a request");
                    for (position, byte) in &damage {
                        let position = position.index(answer.len());
                        answer[position] ^= byte;
                    }
                    answer.truncate(length.index(answer.len()) + 1);
                    let _ = reader.handle(&answer);
                    let _ = Reply::parse(&answer).map(|reply| reply.state());
                }
                Ok(Step::Wait(until)) => now = until,
                Ok(Step::Done) | Err(_) => break,
            }
        }
    }
}

#[test]
fn a_bank_that_still_counts_is_read_again() {
    let program = program();
    let mut switch = ModelSwitch::new(&program);
    send_packets(&mut switch, 30);
    let mut link = Link::perfect();
    let task = Control::switch_epoch(&program, TIMING, Bank::One, 1, 1);
    let (state, _) = run(task, &mut switch, &mut link).expect("a switch");
    let reader = BankReader::new(&program, TIMING, &state, plan(Bank::Zero)).expect("sealed");
    let mut requests = 0;
    let (drained, _) = run_with(reader, &mut switch, &mut link, |switch| {
        requests += 1;
        if requests == 9 {
            switch.late_packet_v4(0, &packet_v4(999));
        }
    })
    .expect("a second round");
    assert_eq!(drained.rounds, 2);
    let flowset = Flowset::new_checked(&drained.flowsets[0].bytes[..]).expect("a flowset");
    let decoded = single_decode::<FlowKeyV4, _>(&flowset).expect("IPv4 keys");
    assert!(decoded.is_complete());
    assert_eq!(decoded.flows.len(), 31);

    let reader = BankReader::new(&program, TIMING, &state, plan(Bank::Zero)).expect("sealed");
    let error = run_with(reader, &mut switch, &mut link, |switch| {
        switch.late_packet_v4(0, &packet_v4(999));
    })
    .expect_err("packets without end");
    assert_eq!(
        error,
        DrainError::Unsettled {
            bank: Bank::Zero,
            rounds: 3
        }
    );
}

#[test]
fn a_new_controller_goes_on_where_another_stopped() {
    let program = program();
    let mut switch = ModelSwitch::new(&program);
    send_packets(&mut switch, 30);
    let mut link = Link::perfect();
    let task = Control::switch_epoch(&program, TIMING, Bank::One, 1, 1);
    run(task, &mut switch, &mut link).expect("a switch");

    // It finds a sealed bank, begins to clear it, and is gone in the middle.
    let query = |switch: &mut ModelSwitch| {
        run(
            Control::query(&program, TIMING),
            switch,
            &mut Link::perfect(),
        )
        .expect("a switch")
        .0
    };
    let state = query(&mut switch);
    assert_eq!(state.bank(state.idle()).condition, BankCondition::Sealed);
    let mut cleaner = BankCleaner::new(&program, TIMING, &state, Bank::Zero).expect("sealed");
    let Ok(Step::Send(request)) = cleaner.poll(Duration::ZERO) else {
        panic!("a first request");
    };
    switch.answer(&request).expect("an answer");

    // The next one must not take what is left for an epoch.
    let state = query(&mut switch);
    let condition = BankCondition::Clearing;
    assert_eq!(state.bank(Bank::Zero).condition, condition);
    let error = BankReader::new(&program, TIMING, &state, plan(Bank::Zero)).expect_err("half gone");
    assert!(matches!(error, DrainError::Condition { condition: found, .. } if found == condition));
    let cleaner = BankCleaner::new(&program, TIMING, &state, Bank::Zero).expect("clearing");
    let (state, _) = run(cleaner, &mut switch, &mut link).expect("a clean bank");
    assert_eq!(state.bank(Bank::Zero).condition, BankCondition::Clean);
}

#[test]
fn a_restarted_switch_is_noticed() {
    let program = program();
    let mut switch = ModelSwitch::new(&program);
    let mut link = Link::perfect();
    let task = Control::switch_epoch(&program, TIMING, Bank::One, 7, 1);
    let (state, _) = run(task, &mut switch, &mut link).expect("a switch");
    let task = Control::switch_epoch(&program, TIMING, Bank::One, 8, 1);
    let error = run(task, &mut switch, &mut link).expect_err("the bank is active");
    assert!(
        matches!(
            error,
            DrainError::Refused {
                status: Status(4),
                ..
            }
        ),
        "{error}"
    );

    let reader = BankReader::new(&program, TIMING, &state, plan(Bank::Zero)).expect("sealed");
    let error = run(reader, &mut ModelSwitch::new(&program), &mut link).expect_err("all is new");
    assert!(matches!(error, DrainError::Condition { .. }), "{error}");
    let cleaner = BankCleaner::new(&program, TIMING, &state, Bank::Zero).expect("sealed");
    let error = run(cleaner, &mut ModelSwitch::new(&program), &mut link).expect_err("all is new");
    assert!(
        matches!(
            error,
            DrainError::Refused {
                status: Status(4),
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn where_packets_are_stamped_a_release_sets_the_seed() {
    let program = program().with_epoch_stamp(true);
    let mut switch = ModelSwitch::new(&program);
    let mut link = Link::perfect();
    let task = Control::switch_epoch(&program, TIMING, Bank::One, 2, 1);
    let error = run(task, &mut switch, &mut link).expect_err("an even epoch in bank 1");
    assert!(
        matches!(
            error,
            DrainError::Refused {
                status: Status(9),
                ..
            }
        ),
        "{error}"
    );

    let task = Control::switch_epoch(&program, TIMING, Bank::One, 3, 0xabc);
    let (state, _) = run(task, &mut switch, &mut link).expect("an odd epoch");
    assert_eq!(state.bank(Bank::One).seed, program.seed());
    let cleaner = BankCleaner::new(&program, TIMING, &state, Bank::Zero).expect("sealed");
    let (state, _) = run(cleaner.with_next_seed(0xdef), &mut switch, &mut link).expect("clean");
    assert_eq!(state.bank(Bank::Zero).seed, 0xdef);
}

#[test]
fn another_program_is_noticed() {
    let stamped = program().with_epoch_stamp(true);
    let mut switch = ModelSwitch::new(&stamped);
    let error = run(
        Control::query(&program(), TIMING),
        &mut switch,
        &mut Link::perfect(),
    )
    .expect_err("another program");
    assert_eq!(
        error,
        DrainError::OtherProgram {
            expected: program().fingerprint(),
            found: stamped.fingerprint()
        }
    );
}

#[test]
fn a_silent_switch_is_given_up() {
    let mut task = Control::query(&program(), TIMING);
    let mut now = Duration::ZERO;
    let mut sent = 0;
    let error = loop {
        match task.poll(now) {
            Ok(Step::Send(_)) => sent += 1,
            Ok(Step::Wait(until)) => now = until,
            Ok(Step::Done) => panic!("nobody has answered"),
            Err(error) => break error,
        }
    };
    assert_eq!(sent, TIMING.tries_max);
    assert_eq!(now, TIMING.retry_after * TIMING.tries_max);
    let expected = DrainError::NoAnswer {
        operation: Operation::Query,
        tries: TIMING.tries_max,
        malformed: 0,
    };
    assert_eq!(error, expected);
    assert_eq!(task.poll(now), Err(expected));
}

/// The bytes of a request and of an answer, by hand from the specification.
#[test]
fn frames_are_those_of_the_specification() {
    let program = program();
    let mut task = Control::switch_epoch(&program, TIMING, Bank::One, 0x0102, 0x0304);
    let Ok(Step::Send(request)) = task.poll(Duration::ZERO) else {
        panic!("a request");
    };
    let mut expected = vec![0; 12];
    expected.extend([0x88, 0xb5, 0x46, 0x52, 1, 2, 0, 0, 0, 0]);
    expected.extend(program.fingerprint().0.to_be_bytes());
    expected.extend([0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 3, 4]);
    expected.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(request, expected);

    let mut answer = request;
    answer[17] = 0x82;
    answer.extend([1, 1, 0, 3, 0, 0, 0, 0]);
    for word in 1..=22_u64 {
        answer.extend(word.to_be_bytes());
    }
    // Bytes behind the answer have no meaning.
    answer.extend([9, 9, 9]);
    task.handle(&answer).expect("an answer");
    assert_eq!(task.poll(Duration::ZERO), Ok(Step::Done));
    let state = task.output().expect("done");
    assert_eq!((state.active, state.stamps_epoch), (Bank::One, false));
    let totals = |first| Totals {
        packets: first,
        bytes: first + 1,
        new_flows: first + 2,
    };
    let bank = |condition, first| BankState {
        condition,
        epoch: first,
        seed: first + 1,
        v4: totals(first + 2),
        v6: totals(first + 5),
        not_ip: first + 8,
        malformed: first + 9,
        ports_cut_off: first + 10,
    };
    assert_eq!(*state.bank(Bank::Zero), bank(BankCondition::Sealed, 1));
    assert_eq!(*state.bank(Bank::One), bank(BankCondition::Active, 12));
}
