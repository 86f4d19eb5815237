//! The program `p4src/tofino/switch.p4` as it reads, statement by statement, for IPv4: what the registers
//! would hold if a chip ran it. Shares nothing with the core, not even the hashes.

use std::collections::BTreeMap;

use super::{Array, TofinoProgram};

/// SEED_HIGH and SEED_LOW.
const SEED: [u32; 2] = [0x910a_2dec, 0x8902_5cc1];

/// POLYNOMIAL_A, POLYNOMIAL_B.
const KEY_POLYNOMIALS: [u32; 2] = [0x04c1_1db7, 0x243f_6a95];

/// POLYNOMIAL_T0 to POLYNOMIAL_T3.
const CELL_POLYNOMIALS: [u32; 4] = [0x85a3_090b, 0x1319_8a49, 0x0370_7347, 0xa409_382d];

/// POLYNOMIAL_F0 to POLYNOMIAL_F7.
const FILTER_POLYNOMIALS: [u32; 8] = [
    0x38d0_13df,
    0xbe54_6759,
    0x34e9_0d49,
    0xc0ac_29df,
    0xc97c_511d,
    0x3f84_d5f7,
    0xb547_091f,
    0x9216_d5df,
];

/// What the egress works on: the bridge header without its lanes.
#[derive(Clone, Copy)]
struct Bridge {
    source: u32,
    destination: u32,
    ports: u32,
    protocol: u8,
    ip_bytes: u32,
}

/// The egress of one pipe.
#[derive(Clone)]
pub(crate) struct ModelPipe {
    program: TofinoProgram,
    /// Whole arrays, both banks: one number of an entry or two.
    registers: BTreeMap<Array, Vec<[u32; 2]>>,
    /// Counter `total`: packets, and bytes of frames, by bank.
    pub(crate) total: [[u64; 2]; 2],
    /// Counter `total_new_flows`, by bank.
    pub(crate) total_new_flows: [u64; 2],
}

impl ModelPipe {
    pub(crate) fn new(program: &TofinoProgram) -> Self {
        assert_eq!(program.layout().seed(), 1, "SEED is that of seed 1");
        let registers = Array::all()
            .map(|array| {
                let entries = 2 * program.bank_entries(array) as usize;
                (array, vec![[0; 2]; entries])
            })
            .collect();
        Self {
            program: *program,
            registers,
            total: [[0; 2]; 2],
            total_new_flows: [0; 2],
        }
    }

    /// An array, both banks.
    pub(crate) fn array(&self, array: Array) -> &[[u32; 2]] {
        &self.registers[&array]
    }

    pub(crate) fn array_mut(&mut self, array: Array) -> &mut [[u32; 2]] {
        self.registers.get_mut(&array).expect("all arrays")
    }

    /// An Ethernet frame that leaves through this pipe; says whether it was counted.
    pub(crate) fn packet(&mut self, bank: usize, frame: &[u8]) -> bool {
        let Some(bridge) = parse(frame) else {
            return false;
        };
        let [a, b] = [0, 1].map(|half| {
            let mut key = Vec::new();
            key.extend(bridge.source.to_be_bytes());
            key.extend(bridge.destination.to_be_bytes());
            key.extend(bridge.ports.to_be_bytes());
            key.push(bridge.protocol);
            crc(KEY_POLYNOMIALS[half], &key, !SEED[half])
        });
        let c = a.wrapping_add(b);
        let rotated = c.rotate_left(16);
        let d = b.wrapping_add(rotated);
        let base = (u64::from(c) << 32 | u64::from(d)).to_be_bytes();
        let filter_lanes = FILTER_POLYNOMIALS.map(|polynomial| crc(polynomial, &base, !0));
        let cell_lanes = CELL_POLYNOMIALS.map(|polynomial| crc(polynomial, &base, !0) >> 16);

        let filter_bits = self.program.filter_index_bits;
        let cell_bits = self.program.cell_index_bits;
        self.total[bank][0] += 1;
        self.total[bank][1] += frame.len() as u64;
        let mut is_known = true;
        for (j, lane) in (0..).zip(filter_lanes) {
            let index = bank << filter_bits | (lane >> (32 - filter_bits)) as usize;
            let value = &mut self.array_mut(Array::Filter(j))[index][0];
            is_known &= *value == 1;
            *value = 1;
        }
        for (i, lane) in (0..).zip(cell_lanes) {
            let index = bank << cell_bits | (lane >> (16 - cell_bits)) as usize;
            if !is_known {
                let addresses = &mut self.array_mut(Array::Addresses(i))[index];
                addresses[0] ^= bridge.source;
                addresses[1] ^= bridge.destination;
                self.array_mut(Array::Ports(i))[index][0] ^= bridge.ports;
                let flow = &mut self.array_mut(Array::ProtocolAndFlows(i))[index];
                flow[0] ^= u32::from(bridge.protocol);
                flow[1] = 255.min(flow[1] + 1);
            }
            let counts = &mut self.array_mut(Array::Counts(i))[index];
            counts[0] = counts[0].saturating_add(1);
            counts[1] = counts[1].saturating_add(bridge.ip_bytes);
        }
        self.total_new_flows[bank] += u64::from(!is_known);
        true
    }
}

/// The ingress parser and the making of the key. `None`: dropped without a key.
fn parse(frame: &[u8]) -> Option<Bridge> {
    let word = |at: usize, bytes: usize| {
        let bytes = &frame[at..at + bytes];
        bytes
            .iter()
            .fold(0, |word, &byte| word << 8 | u32::from(byte))
    };
    let mut at = 14;
    for _ in 0..2 {
        if word(at - 2, 2) == 0x8100 {
            at += 4;
        }
    }
    if word(at - 2, 2) != 0x0800 {
        return None;
    }
    let header_words = word(at, 1) & 0xf;
    let fragment_offset = word(at + 6, 2) & 0x1fff;
    let protocol = frame[at + 9];
    let ports = match (header_words, fragment_offset, protocol) {
        (5, 0, 1) => word(at + 20, 2),
        (5, 0, 6 | 17 | 33 | 132 | 136) => word(at + 20, 4),
        _ => 0,
    };
    Some(Bridge {
        source: word(at + 12, 4),
        destination: word(at + 16, 4),
        ports,
        protocol,
        ip_bytes: word(at + 2, 2),
    })
}

/// CRCPolynomial<bit<32>>(polynomial, reversed = true, msb = false, extended = false, all ones, xor).
fn crc(polynomial: u32, bytes: &[u8], xor: u32) -> u32 {
    let reversed = polynomial.reverse_bits();
    let mut register = u32::MAX;
    for byte in bytes {
        register ^= u32::from(*byte);
        for _ in 0..8 {
            let is_odd = register & 1 == 1;
            register >>= 1;
            if is_odd {
                register ^= reversed;
            }
        }
    }
    register ^ xor
}
