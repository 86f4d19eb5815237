//! Tables that no encoder makes: what peeling does with them must stay bounded, and true.

use flowradar_core::decode::{PeelTable, Peeled, Proof, cells_of, single_decode};
use flowradar_core::filter::FlowFilter;
use flowradar_core::flowset::{Epoch, FlowsetHeader, SwitchCell, flowset_of_switch};
use flowradar_core::hash::{HashFamily, HashFamilyId, Xxh3};
use flowradar_core::layout::{CellWidths, Coupling, FilterLayout, Layout, TableLayout};
use flowradar_core::{FlowKey, FlowKeyV4, Flowset, KeyKind};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

const SEED: u64 = 3;

fn layout(hashes: u8, subtable_cells: u32, coupling: Coupling, blocks: u32) -> Layout {
    let widths = CellWidths::new(8, 32, 48).expect("good widths");
    let table = TableLayout::new(hashes, subtable_cells, coupling, widths);
    let filter = FilterLayout::blocked(blocks).expect("a small filter");
    Layout::new(HashFamilyId::Xxh3, SEED, table.expect("a table"), filter).expect("a layout")
}

fn random_key(random: &mut Xoshiro256PlusPlus) -> FlowKeyV4 {
    let mut words = [random.next_u64(), random.next_u64()];
    words[1] >>= 24;
    FlowKeyV4::from_words(words)
}

fn flowset(
    layout: Layout,
    seen: &[FlowKeyV4],
    cells: &[SwitchCell<FlowKeyV4>],
) -> Flowset<Vec<u8>> {
    let mut filter = FlowFilter::new(*layout.filter());
    for key in seen {
        filter.insert(&Xxh3::hash(key.words(), SEED));
    }
    let header = FlowsetHeader {
        switch: "leaf-1".parse().expect("a name"),
        epoch: Epoch::number(0),
        key: KeyKind::V4,
        layout,
        totals: None,
    };
    let bytes = flowset_of_switch(&header, filter.words(), cells).expect("parts of the layout");
    Flowset::new_checked(bytes).expect("a flowset")
}

fn xor(keys: &[FlowKeyV4]) -> FlowKeyV4 {
    let words = keys.iter().map(|key| *key.words());
    FlowKeyV4::from_words(words.fold([0; 2], |sum, key| [sum[0] ^ key[0], sum[1] ^ key[1]]))
}

/// Where packets and bytes are made up, the errors grow from flow to flow. Nothing overflows, and
/// nothing is called exact.
#[test]
fn made_up_counts() {
    const FLOWS: usize = 20_000;
    let layout = layout(6, 5_400, Coupling::Plain, 2_000);
    let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
    let keys: Vec<_> = (0..FLOWS).map(|_| random_key(&mut random)).collect();
    let mut cells: Vec<_> = (0..layout.table().cells())
        .map(|_| SwitchCell {
            flow_xor: xor(&[]),
            flow_count: 0,
            packet_count: random.next_u64() as u32,
            byte_count: random.next_u64() >> 16,
        })
        .collect();
    for key in &keys {
        for &cell in &cells_of(&layout, key)[..6] {
            let cell = &mut cells[cell as usize];
            cell.flow_xor = xor(&[cell.flow_xor, *key]);
            cell.flow_count += 1;
        }
    }
    let decoded = single_decode::<FlowKeyV4, _>(&flowset(layout, &keys, &cells)).expect("V4");
    assert_eq!(decoded.flows.len(), FLOWS);
    assert_ne!(decoded.packets_proof, Proof::Proved);
    assert_ne!(decoded.bytes_proof, Some(Proof::Proved));
    for flow in &decoded.flows {
        assert!(!flow.packets.is_exact());
        assert!(!flow.bytes.expect("bytes are counted").is_exact());
    }
}

/// A cell that changes from one key to another between being hashed and being verified: the key that
/// is there at last is looked for in the filter, not the first.
///
/// Cells: 0 holds q1; 1 holds minus q2; 2 holds `first`, and after q1 and q2 `second`. Both keys have
/// the same cells, but only `first` is in the filter.
#[test]
fn a_cell_that_changes_its_key() {
    let layout = layout(2, 2, Coupling::Plain, 64);
    let mut random = Xoshiro256PlusPlus::seed_from_u64(2);
    let mut key_at = |first_cell: u32| {
        std::iter::repeat_with(|| random_key(&mut random))
            .find(|key| cells_of(&layout, key)[..2] == [first_cell, 2])
            .expect("endless")
    };
    let (q1, q2, first, second) = loop {
        let (q1, q2, second) = (key_at(0), key_at(1), key_at(0));
        let first = xor(&[second, q1, q2]);
        if cells_of(&layout, &first) == cells_of(&layout, &second) {
            break (q1, q2, first, second);
        }
    };
    let cell = |keys: &[FlowKeyV4]| SwitchCell {
        flow_xor: xor(keys),
        flow_count: keys.len() as u32,
        packet_count: 1,
        byte_count: 1,
    };
    let cells = [cell(&[q1]), cell(&[]), cell(&[first, q2]), cell(&[])];
    let flowset = flowset(layout, &[q1, q2, first], &cells);

    let mut table = PeelTable::<FlowKeyV4>::new(&flowset).expect("V4");
    assert!(!table.may_contain(&second), "not a false positive");
    table.subtract_seen(&[q2], 0, |_| true, &mut vec![]);
    let mut found = vec![];
    table.peel_difference(|peeled| found.push(peeled));
    let peeled = |key, pivot, present| Peeled {
        key,
        pivot,
        packets: None,
        present,
    };
    assert_eq!(found, [peeled(q1, 0, true), peeled(q2, 1, false)]);
}
