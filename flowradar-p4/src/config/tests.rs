use flowradar_core::layout::TableLayout;
use proptest::prelude::*;

use super::*;

prop_compose! {
    fn any_layout()(
        hashes in 2_u8..=6,
        subtable_cells in 1_u32..100_000,
        window in 0_u32..100_000,
        flow_count_bits in 2_u8..=16,
        packet_count_bits in 2_u8..=32,
        byte_count_bits in prop_oneof![Just(0_u8), 16_u8..=48],
        filter in prop_oneof![
            (1_u8..=24, 1_u32..1_000_000)
                .prop_map(|(hashes, bits)| FilterLayout::partitioned(hashes, bits)),
            (1_u32..100_000).prop_map(FilterLayout::blocked),
        ],
    ) -> Layout {
        let coupling = match window % (subtable_cells + 1) {
            0 => Coupling::Plain,
            cells => Coupling::Window { cells },
        };
        let widths = CellWidths::new(flow_count_bits, packet_count_bits, byte_count_bits)
            .expect("widths in their ranges");
        let table = TableLayout::new(hashes, subtable_cells, coupling, widths)
            .expect("a table in its range");
        Layout::new(HashFamilyId::Mix64, 0, table, filter.expect("a filter in its range"))
            .expect("as many hashes as mix64 has")
    }
}

prop_compose! {
    pub(crate) fn any_program()(
        v4 in any_layout(),
        v6 in any_layout(),
        which in 0..3,
        seed: u64,
        stamps_epoch: bool,
    ) -> ProgramConfig {
        let (v4, v6) = (v4.with_seed(seed), v6.with_seed(seed));
        ProgramConfig::new((which != 1).then_some(v4), (which != 2).then_some(v6))
            .expect("a program")
            .with_epoch_stamp(stamps_epoch)
    }
}

proptest! {
    #[test]
    fn a_header_is_read_back(program in any_program()) {
        prop_assert_eq!(ProgramConfig::from_p4(&program.to_p4()), Ok(program));
    }

    #[test]
    fn a_changed_header_is_refused(
        program in any_program(),
        position: prop::sample::Index,
        byte in b' '..=b'~',
    ) {
        let mut text = program.to_p4().into_bytes();
        let position = position.index(text.len());
        prop_assume!(text[position] != byte);
        text[position] = byte;
        let text = String::from_utf8(text).expect("ASCII");
        prop_assert!(ProgramConfig::from_p4(&text).is_err());
    }

    #[test]
    fn no_answer_is_too_long_and_chunks_have_all_rows(program in any_program()) {
        for table in program.tables() {
            for section in [Section::Cells, Section::Filter] {
                let rows = table.chunk_rows(section);
                prop_assert!(rows >= 1);
                prop_assert!(54 + rows as usize * table.row_bytes(section) <= REPLY_BYTES_MAX);
                prop_assert!(table.chunks(section) * rows >= table.rows(section));
                prop_assert!((table.chunks(section) - 1) * rows < table.rows(section));
            }
        }
    }

    #[test]
    fn any_text_is_an_error_or_a_program(text in "(#define FLOWRADAR_[A-Z0-9_]{1,12} [0-9a-fx]{1,9}\n){0,9}") {
        let _ = ProgramConfig::from_p4(&text);
    }
}

#[test]
fn the_sizes_of_the_reference_program_are_those_of_the_specification() {
    let program = ProgramConfig::reference();
    let sizes = |key, section| {
        let table = program.table(key).expect("both tables");
        (
            table.rows(section),
            table.row_bytes(section),
            table.chunk_rows(section),
            table.chunks(section),
        )
    };
    assert_eq!(sizes(KeyKind::V4, Section::Cells), (4150, 84, 16, 260));
    assert_eq!(sizes(KeyKind::V4, Section::Filter), (821, 64, 21, 40));
    assert_eq!(sizes(KeyKind::V6, Section::Cells), (855, 156, 8, 107));
    assert_eq!(sizes(KeyKind::V6, Section::Filter), (125, 64, 21, 6));
}

#[test]
fn the_fingerprint_is_the_hash_of_the_specified_text() {
    let program = ProgramConfig::reference();
    let text = "flowradar drain 1\n\
        stamped 0\n\
        v4 hash mix64 hashes 3 cells 4150 window 0 widths 8 32 48 filter blocked 8 821 rows 16 21\n\
        v6 hash mix64 hashes 3 cells 855 window 0 widths 8 32 48 filter blocked 8 125 rows 8 21\n";
    assert_eq!(program.fingerprint(), Fingerprint(xxh3_64(text.as_bytes())));
    assert_ne!(
        program.with_epoch_stamp(true).fingerprint(),
        program.fingerprint()
    );
}

#[test]
fn the_fingerprint_does_not_depend_on_the_seed() {
    let program = ProgramConfig::reference();
    let reseeded = |key| {
        program
            .table(key)
            .map(|table| table.layout().with_seed(0xfeed))
    };
    let other =
        ProgramConfig::new(reseeded(KeyKind::V4), reseeded(KeyKind::V6)).expect("a program");
    assert_ne!(other, program);
    assert_eq!(other.fingerprint(), program.fingerprint());
}

#[test]
fn impossible_programs_are_refused() {
    assert_eq!(
        ProgramConfig::new(None, None),
        Err(ProgramConfigError::NoTable)
    );
    let layout = *ProgramConfig::reference()
        .table(KeyKind::V4)
        .expect("an IPv4 table")
        .layout();
    assert_eq!(
        ProgramConfig::new(Some(layout.with_seed(1)), Some(layout.with_seed(2))),
        Err(ProgramConfigError::Seeds { v4: 1, v6: 2 })
    );
    let xxh3 =
        Layout::new(HashFamilyId::Xxh3, 1, *layout.table(), *layout.filter()).expect("a layout");
    assert_eq!(
        ProgramConfig::new(Some(xxh3), None),
        Err(ProgramConfigError::Family {
            key: KeyKind::V4,
            family: HashFamilyId::Xxh3
        })
    );
}
