//! A switch as `docs/p4-drain-format.md` describes it, written from that document: what the tasks are
//! tested against where no P4 target is at hand.

use flowradar_core::flowset::{SwitchCell, Totals};
use flowradar_core::hash::{HashFamily, Mix64};
use flowradar_core::layout::FilterLayout;
use flowradar_core::{FlowKey, FlowKeyV4, FlowKeyV6, KeyKind, Packet, filter::FlowFilter};

use crate::config::{ProgramConfig, TableConfig};

const ETHERNET: usize = 14;

#[derive(Clone)]
pub(super) struct ModelSwitch {
    program: ProgramConfig,
    active: usize,
    banks: [ModelBank; 2],
}

#[derive(Clone)]
struct ModelBank {
    /// 0 clean or active, 1 sealed, 2 clearing.
    state: u8,
    epoch: u64,
    seed: u64,
    v4: Option<ModelTable<FlowKeyV4>>,
    v6: Option<ModelTable<FlowKeyV6>>,
    malformed: u64,
}

#[derive(Clone)]
struct ModelTable<K> {
    table: TableConfig,
    filter: FlowFilter,
    cells: Vec<SwitchCell<K>>,
    totals: Totals,
}

impl ModelSwitch {
    pub(super) fn new(program: &ProgramConfig) -> Self {
        let bank = ModelBank {
            state: 0,
            epoch: 0,
            seed: program.seed(),
            v4: program.table(KeyKind::V4).map(ModelTable::new),
            v6: program.table(KeyKind::V6).map(ModelTable::new),
            malformed: 0,
        };
        Self {
            program: *program,
            active: 0,
            banks: [bank.clone(), bank],
        }
    }

    pub(super) fn packet_v4(&mut self, packet: &Packet<FlowKeyV4>) {
        self.late_packet_v4(self.active, packet);
    }

    /// A packet that is still counted in a bank, whatever it is.
    pub(super) fn late_packet_v4(&mut self, bank: usize, packet: &Packet<FlowKeyV4>) {
        let bank = &mut self.banks[bank];
        if let Some(table) = &mut bank.v4 {
            table.encode(packet, bank.seed);
        }
    }

    pub(super) fn packet_v6(&mut self, packet: &Packet<FlowKeyV6>) {
        let bank = &mut self.banks[self.active];
        if let Some(table) = &mut bank.v6 {
            table.encode(packet, bank.seed);
        }
    }

    pub(super) fn malformed_packet(&mut self) {
        self.banks[self.active].malformed += 1;
    }

    /// The answer to a request, or nothing.
    pub(super) fn answer(&mut self, request: &[u8]) -> Option<Vec<u8>> {
        let number = |at: usize, bytes: usize| {
            request[ETHERNET + at..ETHERNET + at + bytes]
                .iter()
                .fold(0, |number, &byte| number << 8 | u64::from(byte))
        };
        if request.len() < ETHERNET + 40
            || request[12..14] != [0x88, 0xb5]
            || request[14..17] != *b"FR\x01"
        {
            return None;
        }
        let (operation, fingerprint, epoch) = (number(3, 1), number(8, 8), number(16, 8));
        let bank = number(32, 1) as usize;
        let (status, body) = self.operate(
            operation,
            fingerprint,
            epoch,
            number(24, 8),
            bank,
            [number(33, 1), number(34, 1), number(36, 4)],
            request.len() - ETHERNET - 40,
        );
        let mut reply = request[..ETHERNET + 40].to_vec();
        reply[ETHERNET + 3] |= 128;
        reply[ETHERNET + 35] = status;
        let (epoch, seed) = self
            .banks
            .get(bank)
            .map_or((0, 0), |bank| (bank.epoch, bank.seed));
        let header = &mut reply[ETHERNET..];
        header[8..16].copy_from_slice(&self.program.fingerprint().0.to_be_bytes());
        header[16..24].copy_from_slice(&epoch.to_be_bytes());
        header[24..32].copy_from_slice(&seed.to_be_bytes());
        reply.extend(body);
        Some(reply)
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of the header")]
    fn operate(
        &mut self,
        operation: u64,
        fingerprint: u64,
        epoch: u64,
        seed: u64,
        bank: usize,
        [table, section, chunk]: [u64; 3],
        room: usize,
    ) -> (u8, Vec<u8>) {
        let refused = |status| (status, Vec::new());
        if !(1..=5).contains(&operation) {
            return refused(1);
        }
        if operation != 1 && fingerprint != self.program.fingerprint().0 {
            return refused(2);
        }
        if bank > 1 {
            return refused(7);
        }
        let (is_active, state) = (bank == self.active, self.banks[bank].state);
        let active_epoch = self.banks[self.active].epoch;
        match operation {
            2 if is_active && epoch != active_epoch => return refused(4),
            2 if is_active => {}
            2 if state != 0 => return refused(5),
            2 if epoch <= active_epoch => return refused(8),
            2 if self.program.stamps_epoch() && epoch % 2 != bank as u64 => return refused(9),
            2 => {
                self.banks[self.active].state = 1;
                self.active = bank;
                self.banks[bank].epoch = epoch;
                if !self.program.stamps_epoch() {
                    self.banks[bank].seed = seed;
                }
            }
            3..=5 if epoch != self.banks[bank].epoch => return refused(3),
            3 if !is_active && state != 1 => return refused(6),
            4 | 5 if is_active => return refused(4),
            4 if state == 0 => return refused(6),
            5 if state == 1 => return refused(6),
            5 => {
                let stamps_epoch = self.program.stamps_epoch();
                let bank = &mut self.banks[bank];
                if stamps_epoch && bank.state == 2 {
                    bank.seed = seed;
                }
                bank.state = 0;
                bank.malformed = 0;
                if let Some(table) = &mut bank.v4 {
                    table.totals = Totals::default();
                }
                if let Some(table) = &mut bank.v6 {
                    table.totals = Totals::default();
                }
            }
            _ => {}
        }
        if !matches!(operation, 3 | 4) {
            return (0, self.state());
        }
        let rows = match (table, &mut self.banks[bank]) {
            (4, ModelBank { v4: Some(v4), .. }) => v4.rows(operation == 4, section, chunk),
            (6, ModelBank { v6: Some(v6), .. }) => v6.rows(operation == 4, section, chunk),
            _ => None,
        };
        match rows {
            None => refused(7),
            Some(_) if operation == 4 => {
                self.banks[bank].state = 2;
                refused(0)
            }
            Some(rows) if rows.len() > room => refused(10),
            Some(rows) => (0, rows),
        }
    }

    fn state(&self) -> Vec<u8> {
        let features = u8::from(self.program.table(KeyKind::V4).is_some())
            | u8::from(self.program.table(KeyKind::V6).is_some()) << 1
            | u8::from(self.program.stamps_epoch()) << 2;
        let states = self.banks.each_ref().map(|bank| bank.state);
        let mut body = vec![
            self.active as u8,
            states[0],
            states[1],
            features,
            0,
            0,
            0,
            0,
        ];
        for bank in &self.banks {
            let v4 = bank
                .v4
                .as_ref()
                .map_or_else(Totals::default, |v4| v4.totals);
            let v6 = bank
                .v6
                .as_ref()
                .map_or_else(Totals::default, |v6| v6.totals);
            let words = [
                bank.epoch,
                bank.seed,
                v4.packets,
                v4.bytes,
                v4.new_flows,
                v6.packets,
                v6.bytes,
                v6.new_flows,
                0,
                bank.malformed,
                0,
            ];
            body.extend(words.iter().flat_map(|word| word.to_be_bytes()));
        }
        body
    }
}

impl<K: FlowKey> ModelTable<K> {
    fn new(table: &TableConfig) -> Self {
        Self {
            table: *table,
            filter: FlowFilter::new(*table.layout().filter()),
            cells: vec![empty_cell(); table.layout().table().cells()],
            totals: Totals::default(),
        }
    }

    fn encode(&mut self, packet: &Packet<K>, seed: u64) {
        let hash = Mix64::hash(packet.key.words(), seed);
        let is_new = !self.filter.insert(&hash);
        let layout = self.table.layout().table();
        for &cell in &layout.cells_of_any(&hash)[..layout.hashes()] {
            let cell = &mut self.cells[cell as usize];
            if is_new {
                let mut words = *cell.flow_xor.words();
                for (xor, word) in words.as_mut().iter_mut().zip(packet.key.words().as_ref()) {
                    *xor ^= word;
                }
                cell.flow_xor = K::from_words(words);
                cell.flow_count += 1;
            }
            cell.packet_count += 1;
            cell.byte_count += u64::from(packet.ip_bytes);
        }
        self.totals.packets += 1;
        self.totals.bytes += u64::from(packet.ip_bytes);
        self.totals.new_flows += u64::from(is_new);
    }

    /// The rows of a chunk; cleared, if they are to be. None if there is no such chunk.
    fn rows(&mut self, clears: bool, section: u64, chunk: u64) -> Option<Vec<u8>> {
        let section = match section {
            1 => crate::config::Section::Filter,
            2 => crate::config::Section::Cells,
            _ => return None,
        };
        let chunk = u32::try_from(chunk).ok()?;
        if chunk >= self.table.chunks(section) {
            return None;
        }
        let first = chunk * self.table.chunk_rows(section);
        let mut rows = Vec::new();
        for row in first..first + self.table.chunk_rows(section) {
            match section {
                crate::config::Section::Cells => self.cell_row(row, clears, &mut rows),
                crate::config::Section::Filter => self.filter_row(row, clears, &mut rows),
            }
        }
        Some(rows)
    }

    fn cell_row(&mut self, row: u32, clears: bool, rows: &mut Vec<u8>) {
        let layout = *self.table.layout().table();
        for subtable in 0..layout.hashes() {
            if row >= layout.subtable_cells() {
                // Behind the end there may be anything.
                rows.resize(rows.len() + self.table.cell_bytes(), 0xee);
                continue;
            }
            let index = subtable * layout.subtable_cells() as usize + row as usize;
            let cell = &mut self.cells[index];
            if clears {
                *cell = empty_cell();
            }
            let mut key = vec![0; K::KIND.bytes()];
            cell.flow_xor.write_bytes(&mut key);
            let (addresses, ports) = key.split_at(K::KIND.bytes() - 5);
            rows.extend(addresses);
            rows.extend(&cell.flow_count.to_be_bytes()[1..]);
            rows.extend(ports);
            rows.extend(cell.packet_count.to_be_bytes());
            if layout.widths().counts_bytes() {
                rows.extend(cell.byte_count.to_be_bytes());
            }
        }
    }

    /// Bit by bit, so that it has nothing in common with what is tested.
    fn filter_row(&mut self, row: u32, clears: bool, rows: &mut Vec<u8>) {
        let words = self.filter.words().to_vec();
        let bit = |index: u64| words[index as usize / 64] >> (index % 64) & 1;
        match *self.table.layout().filter() {
            FilterLayout::Partitioned {
                hashes,
                partition_bits,
                ..
            } => {
                for partition in 0..u64::from(hashes) {
                    let mut word = 0;
                    for position in 0..64 {
                        let in_partition = u64::from(row) * 64 + position;
                        if in_partition < u64::from(partition_bits) {
                            word |= bit(partition * u64::from(partition_bits) + in_partition)
                                << position;
                        }
                    }
                    rows.extend(word.to_be_bytes());
                }
            }
            FilterLayout::Blocked { blocks, .. } => {
                for index in 0..8 {
                    let word = if row < blocks {
                        words[row as usize * 8 + index]
                    } else {
                        0xeeee
                    };
                    rows.extend(word.to_be_bytes());
                }
            }
        }
        // Clearing one row of many partitions: the tests clear all rows before they look.
        if clears {
            self.filter.clear();
        }
    }
}

fn empty_cell<K: FlowKey>() -> SwitchCell<K> {
    SwitchCell {
        flow_xor: K::from_words(K::Words::default()),
        flow_count: 0,
        packet_count: 0,
        byte_count: 0,
    }
}
