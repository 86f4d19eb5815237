//! The instructions that programs are compiled to.
//!
//! A packet's state is an array of 64-bit slots: fields of headers and metadata, constants, action
//! arguments and temporaries alike, so that operands are plain slot numbers. Wider values take several
//! slots, the least significant first.

/// The number of a slot. All of `u16` is there, which makes every access in bounds by type.
pub(crate) type Slot = u16;

/// A place in a program's code.
pub(crate) type Label = u32;

/// One instruction. `bits` is the width of the result: what is beyond it is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    // Control.
    Apply {
        table: u16,
    },
    Exit,
    Finish,
    FinishIfExited,
    Jump {
        to: Label,
    },
    JumpIfEqual {
        a: Slot,
        b: Slot,
        to: Label,
    },
    JumpIfNotEqual {
        a: Slot,
        b: Slot,
        to: Label,
    },
    JumpIfZero {
        condition: Slot,
        to: Label,
    },
    Return,

    // Arithmetic on one slot.
    Add {
        to: Slot,
        a: Slot,
        b: Slot,
        bits: u8,
    },
    And {
        to: Slot,
        a: Slot,
        b: Slot,
    },
    Copy {
        to: Slot,
        from: Slot,
    },
    Divide {
        to: Slot,
        a: Slot,
        b: Slot,
    },
    Equal {
        to: Slot,
        a: Slot,
        b: Slot,
    },
    Less {
        to: Slot,
        a: Slot,
        b: Slot,
    },
    LessOrEqual {
        to: Slot,
        a: Slot,
        b: Slot,
    },
    LessSigned {
        to: Slot,
        a: Slot,
        b: Slot,
    },
    Mask {
        to: Slot,
        from: Slot,
        bits: u8,
    },
    Multiply {
        to: Slot,
        a: Slot,
        b: Slot,
        bits: u8,
    },
    Not {
        to: Slot,
        from: Slot,
        bits: u8,
    },
    NotEqual {
        to: Slot,
        a: Slot,
        b: Slot,
    },
    Or {
        to: Slot,
        a: Slot,
        b: Slot,
    },
    Remainder {
        to: Slot,
        a: Slot,
        b: Slot,
    },
    Select {
        to: Slot,
        condition: Slot,
        a: Slot,
        b: Slot,
    },
    ShiftLeft {
        to: Slot,
        a: Slot,
        amount: Slot,
        bits: u8,
    },
    ShiftLeftBy {
        to: Slot,
        a: Slot,
        amount: u8,
        bits: u8,
    },
    ShiftRight {
        to: Slot,
        a: Slot,
        amount: Slot,
    },
    ShiftRightBy {
        to: Slot,
        a: Slot,
        amount: u8,
        bits: u8,
    },
    SignExtend {
        to: Slot,
        from: Slot,
        bits: u8,
    },
    Subtract {
        to: Slot,
        a: Slot,
        b: Slot,
        bits: u8,
    },
    Xor {
        to: Slot,
        a: Slot,
        b: Slot,
    },

    /// `a & !b`.
    AndNot {
        to: Slot,
        a: Slot,
        b: Slot,
    },
    /// `(a * b) >> amount`, of the product's low 64 bits.
    MultiplyShiftRight {
        to: Slot,
        a: Slot,
        b: Slot,
        amount: u8,
        bits: u8,
    },
    /// `a | (b & !c)`.
    OrAndNot {
        to: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
    },
    /// `a << (from >> shift & low(amount_bits))`.
    ShiftLeftByField {
        to: Slot,
        a: Slot,
        from: Slot,
        shift: u8,
        amount_bits: u8,
        bits: u8,
    },
    /// `a << amount | b`.
    ShiftLeftOr {
        to: Slot,
        a: Slot,
        amount: u8,
        b: Slot,
    },
    /// `(a ^ b >> amount) * c`.
    XorShiftMultiply {
        to: Slot,
        a: Slot,
        b: Slot,
        amount: u8,
        c: Slot,
    },
    /// `a ^ b >> amount`.
    XorShiftRight {
        to: Slot,
        a: Slot,
        b: Slot,
        amount: u8,
    },
    /// Numbers that are too large become all ones.
    ClampUnsigned {
        to: Slot,
        from: Slot,
        bits: u8,
    },

    // Arithmetic on several slots.
    Wide {
        to: Slot,
        a: Slot,
        b: Slot,
        limbs: u8,
        kind: WideKind,
    },
    /// `Wide` with a number of bits as the second operand.
    WideBits {
        to: Slot,
        a: Slot,
        limbs: u8,
        bits: u16,
        kind: WideBitsKind,
    },
    /// Copies `from_limbs` slots and fills up to `limbs` with zeros or the sign.
    Extend {
        to: Slot,
        from: Slot,
        from_limbs: u8,
        limbs: u8,
        is_signed: bool,
    },
    /// The value as 64 bits, all ones if it is larger; negative ones are zero.
    Saturate {
        to: Slot,
        from: Slot,
        limbs: u8,
        is_signed: bool,
    },
    /// Cuts off to the range of an unsigned or signed number of `bits` bits.
    Clamp {
        to: Slot,
        limbs: u8,
        from_signed: bool,
        to_signed: bool,
        bits: u16,
    },
    SelectWide {
        to: Slot,
        condition: Slot,
        a: Slot,
        b: Slot,
        limbs: u8,
    },
    LoadIndexed {
        to: Slot,
        access: u16,
        index: Slot,
    },
    StoreIndexed {
        from: Slot,
        access: u16,
        index: Slot,
    },

    // Headers.
    AddHeader {
        header: u16,
    },
    AssignHeader {
        to: u16,
        from: u16,
    },
    AssignStack {
        to: u16,
        from: u16,
    },
    AssignVariable {
        to: u16,
        from: u16,
    },
    EqualHeaders {
        to: Slot,
        a: u16,
        b: u16,
    },
    LastOfStack {
        to: Slot,
        stack: u16,
        field: u16,
    },
    PopStack {
        stack: u16,
        count: Slot,
    },
    PushStack {
        stack: u16,
        count: Slot,
    },
    RemoveHeader {
        header: u16,
        valid: Slot,
    },
    /// `RemoveHeader` for several: those of an access.
    RemoveHeaders {
        access: u16,
    },
    ValidateHeader {
        header: u16,
    },

    // Parsing.
    Advance {
        bits: Slot,
    },
    Extract {
        header: u16,
    },
    ExtractStack {
        stack: u16,
    },
    ExtractVariable {
        header: u16,
        bits: Slot,
    },
    ExtractVariableStack {
        stack: u16,
        bits: Slot,
    },
    Lookahead {
        to: Slot,
        bit_offset: u16,
        bits: u16,
    },
    Transition {
        state: u16,
    },
    Verify {
        condition: Slot,
        error: Slot,
    },

    // State.
    Count {
        counter: u16,
        index: Slot,
    },
    ExecuteMeter {
        meter: u16,
        index: Slot,
        to: Slot,
        bits: u8,
    },
    Hash {
        calculation: u16,
        to: Slot,
    },
    HashRange {
        calculation: u16,
        to: Slot,
        base: Slot,
        size: Slot,
    },
    Random {
        to: Slot,
        low: Slot,
        high: Slot,
        bits: u8,
    },
    RegisterRead {
        register: u16,
        index: Slot,
        to: Slot,
        bits: u8,
    },
    RegisterReadWide {
        access: u16,
        index: Slot,
    },
    RegisterWrite {
        register: u16,
        index: Slot,
        from: Slot,
    },

    // Everything else.
    Assert {
        condition: Slot,
        is_assume: bool,
    },
    Log {
        message: u16,
    },
    Truncate {
        length: Slot,
    },
}

/// Operations on values of several slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WideKind {
    Add,
    And,
    Divide,
    Equal,
    LessSigned,
    LessUnsigned,
    Multiply,
    Or,
    Remainder,
    /// The amount is one slot.
    ShiftLeft,
    /// The amount is one slot; the sign is shifted in.
    ShiftRightSigned,
    /// The amount is one slot.
    ShiftRightUnsigned,
    Subtract,
    Xor,
}

/// Operations on a value of several slots and a constant number of bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WideBitsKind {
    Mask,
    Not,
    ShiftLeft,
    ShiftRightSigned,
    ShiftRightUnsigned,
    SignExtend,
}

/// The low `bits` bits: 1 to 64.
#[inline]
pub(crate) const fn low(bits: u8) -> u64 {
    u64::MAX >> ((64 - bits as u32) & 63)
}

/// The low `bits` bits: 0 to 64.
pub(crate) const fn ones(bits: u32) -> u64 {
    if bits == 0 {
        0
    } else {
        u64::MAX >> (64 - bits)
    }
}

impl Op {
    /// The slot that an instruction's one-slot result goes to.
    pub(super) fn result(&self) -> Option<Slot> {
        match *self {
            Self::Add { to, .. }
            | Self::And { to, .. }
            | Self::AndNot { to, .. }
            | Self::ClampUnsigned { to, .. }
            | Self::Copy { to, .. }
            | Self::Divide { to, .. }
            | Self::Equal { to, .. }
            | Self::Less { to, .. }
            | Self::LessOrEqual { to, .. }
            | Self::LessSigned { to, .. }
            | Self::Mask { to, .. }
            | Self::Multiply { to, .. }
            | Self::MultiplyShiftRight { to, .. }
            | Self::Not { to, .. }
            | Self::NotEqual { to, .. }
            | Self::Or { to, .. }
            | Self::OrAndNot { to, .. }
            | Self::Remainder { to, .. }
            | Self::Select { to, .. }
            | Self::ShiftLeft { to, .. }
            | Self::ShiftLeftBy { to, .. }
            | Self::ShiftLeftByField { to, .. }
            | Self::ShiftLeftOr { to, .. }
            | Self::ShiftRight { to, .. }
            | Self::ShiftRightBy { to, .. }
            | Self::Subtract { to, .. }
            | Self::Xor { to, .. }
            | Self::XorShiftMultiply { to, .. }
            | Self::XorShiftRight { to, .. } => Some(to),
            _ => None,
        }
    }

    /// Makes the result go elsewhere, cut off to `new_bits`; `false` if this instruction cannot.
    pub(super) fn retarget(&mut self, new_to: Slot, new_bits: u8) -> bool {
        match self {
            Self::Add { to, bits, .. }
            | Self::Mask { to, bits, .. }
            | Self::Multiply { to, bits, .. }
            | Self::MultiplyShiftRight { to, bits, .. }
            | Self::Not { to, bits, .. }
            | Self::ShiftLeft { to, bits, .. }
            | Self::ShiftLeftBy { to, bits, .. }
            | Self::ShiftLeftByField { to, bits, .. }
            | Self::ShiftRightBy { to, bits, .. }
            | Self::Subtract { to, bits, .. } => {
                *to = new_to;
                *bits = new_bits.min(*bits);
                true
            }
            Self::And { to, .. }
            | Self::AndNot { to, .. }
            | Self::ClampUnsigned { to, .. }
            | Self::Copy { to, .. }
            | Self::Divide { to, .. }
            | Self::Equal { to, .. }
            | Self::Less { to, .. }
            | Self::LessOrEqual { to, .. }
            | Self::LessSigned { to, .. }
            | Self::NotEqual { to, .. }
            | Self::Or { to, .. }
            | Self::OrAndNot { to, .. }
            | Self::Remainder { to, .. }
            | Self::Select { to, .. }
            | Self::ShiftLeftOr { to, .. }
            | Self::ShiftRight { to, .. }
            | Self::Xor { to, .. }
            | Self::XorShiftMultiply { to, .. }
            | Self::XorShiftRight { to, .. }
                if new_bits == 64 =>
            {
                *to = new_to;
                true
            }
            _ => false,
        }
    }
}
