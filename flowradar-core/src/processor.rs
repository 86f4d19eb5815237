//! What the processor offers beyond portable code; the only unsafe code of the crate.

/// Starts loading `items[index]` into the cache. Changes nothing else, whatever the index.
#[inline(always)]
pub(crate) fn prefetch<T>(items: &[T], index: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let item = items.as_ptr().wrapping_add(index);
        // SAFETY: a prefetch reads nothing architecturally and cannot fault, whatever the address;
        // SSE, which it belongs to, is part of every x86-64.
        #[allow(unsafe_code)]
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(item.cast());
        }
    }
    // No stable intrinsic on other architectures: there the out-of-order window has to do.
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (items, index);
}

/// A word of a filter: in an encoder's memory, or little-endian in a flowset.
pub(crate) trait Word: Copy {
    /// The word's bits.
    fn bits(self) -> u64;
}

impl Word for u64 {
    #[inline(always)]
    fn bits(self) -> u64 {
        self
    }
}

impl Word for [u8; 8] {
    #[inline(always)]
    fn bits(self) -> u64 {
        u64::from_le_bytes(self)
    }
}

/// A loop that is compiled for each instruction set and runs in the best one that there is.
pub(crate) trait Loop {
    /// Runs the loop with the given instructions. Must be `#[inline(always)]`: only code that is
    /// inlined here is compiled for them.
    fn run<I: Instructions>(self);
}

/// Instructions that a [`Loop`] may use.
pub(crate) trait Instructions {
    /// Whether the bit of each word of a block whose number is in `lanes` is set: for words 0 to 3 in
    /// the low half, for words 4 to 7 in the high half, six bits for each word, the top six for the
    /// first.
    fn has_bits<W: Word>(block: &[W; 8], lanes: u64) -> bool;
}

/// Runs a loop with the best instructions of this processor.
#[inline]
pub(crate) fn run(work: impl Loop) {
    #[cfg(target_arch = "x86_64")]
    {
        cpufeatures::new!(avx2_and_bmi2, "avx2", "bmi2");
        if avx2_and_bmi2::get() {
            // SAFETY: the processor has these instructions, as was just seen.
            #[allow(unsafe_code)]
            return unsafe { x86::run(work) };
        }
    }
    work.run::<Portable>();
}

/// What every target has.
pub(crate) struct Portable;

impl Instructions for Portable {
    #[inline(always)]
    fn has_bits<W: Word>(block: &[W; 8], lanes: u64) -> bool {
        // A shift takes the lowest six bits of its count: no mask is needed.
        let mut all = 1;
        for (word, shift) in block.iter().zip(LANE_SHIFTS) {
            all &= word.bits().wrapping_shr((lanes >> shift) as u32);
        }
        all & 1 == 1
    }
}

/// Where in a pair of lanes the bit number for each word of a block begins.
pub(crate) const LANE_SHIFTS: [u32; 8] = [26, 20, 14, 8, 58, 52, 46, 40];

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod x86 {
    use core::arch::x86_64::*;

    use super::{Instructions, LANE_SHIFTS, Loop, Word};

    #[target_feature(enable = "avx2,bmi2")]
    pub(super) fn run(work: impl Loop) {
        work.run::<Avx2>();
    }

    /// AVX2 and BMI2. Named only in [`run`], so that it is used only where they are.
    struct Avx2;

    impl Instructions for Avx2 {
        #[inline(always)]
        fn has_bits<W: Word>(block: &[W; 8], lanes: u64) -> bool {
            const { assert!(size_of::<W>() == size_of::<u64>()) };
            const fn shifts(first: usize) -> [i64; 4] {
                let mut shifts = [0; 4];
                let mut word = 0;
                while word < 4 {
                    shifts[word] = LANE_SHIFTS[first + word] as i64;
                    word += 1;
                }
                shifts
            }
            const LOW: [i64; 4] = shifts(0);
            const HIGH: [i64; 4] = shifts(4);
            // SAFETY: the instructions are there, as this type is used only in `run`; both halves of
            // the block are loaded within its 64 bytes, without asking for alignment. Every kind of
            // word is in memory as this processor has it: lowest byte first.
            unsafe {
                let lanes = _mm256_set1_epi64x(lanes as i64);
                let one = _mm256_set1_epi64x(1);
                let six_bits = _mm256_set1_epi64x(63);
                let masks = |shifts: [i64; 4]| {
                    let shifts = _mm256_setr_epi64x(shifts[0], shifts[1], shifts[2], shifts[3]);
                    let bits = _mm256_and_si256(_mm256_srlv_epi64(lanes, shifts), six_bits);
                    _mm256_sllv_epi64(one, bits)
                };
                let half = |half| _mm256_loadu_si256(block.as_ptr().cast::<__m256i>().add(half));
                let missing = _mm256_or_si256(
                    _mm256_andnot_si256(half(0), masks(LOW)),
                    _mm256_andnot_si256(half(1), masks(HIGH)),
                );
                _mm256_testz_si256(missing, missing) == 1
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Compare {
        block: [u64; 8],
        lanes: u64,
    }

    impl Loop for Compare {
        #[inline(always)]
        fn run<I: Instructions>(self) {
            let expected = Portable::has_bits(&self.block, self.lanes);
            assert_eq!(I::has_bits(&self.block, self.lanes), expected);
            let bytes = self.block.map(u64::to_le_bytes);
            assert_eq!(I::has_bits(&bytes, self.lanes), expected);
        }
    }

    proptest::proptest! {
        /// All sets of instructions agree, also where just one bit is missing.
        #[test]
        fn instructions_agree(noise: [u64; 8], lanes: u64, missing in 0..9_usize) {
            let mut block = noise;
            for (index, word) in block.iter_mut().enumerate() {
                let bit = 1_u64 << (lanes >> LANE_SHIFTS[index] & 63);
                *word = if index == missing { *word & !bit } else { *word | bit };
            }
            assert_eq!(Portable::has_bits(&block, lanes), missing == 8);
            run(Compare { block, lanes });
            run(Compare { block: noise, lanes });
        }
    }
}
