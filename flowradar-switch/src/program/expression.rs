//! Expressions as trees, read from the JSON and checked.

use serde_json::Value as Json;

use super::layout::{FieldLayout, Layout};
use super::{LoadError, Objects, unsupported};

/// The widest constant, in bits.
const MAX_CONSTANT_BITS: usize = 4096;

/// An expression. What it yields is given by [`Expression::is_bool`].
#[derive(Clone, Debug)]
pub(super) enum Expression {
    Binary(BinaryOperator, Box<Self>, Box<Self>),
    Bool(bool),
    Constant(Constant),
    EqualHeaders {
        a: u16,
        b: u16,
    },
    Field(FieldLayout),
    /// A field of a stack's header, by an index that is computed.
    IndexedField {
        stack: u16,
        index: Box<Self>,
        field: usize,
    },
    /// A field of the header that was extracted to a stack last.
    LastField {
        stack: u16,
        field: usize,
    },
    LastIndex {
        stack: u16,
    },
    Local(usize),
    Not(Box<Self>),
    Register {
        register: u16,
        index: Box<Self>,
    },
    Size {
        stack: u16,
    },
    Ternary(Box<Self>, Box<Self>, Box<Self>),
    Unary(UnaryOperator, Box<Self>),
    Valid {
        header: u16,
    },
    ValidUnion {
        headers: Vec<u16>,
    },
}

/// Operators with two operands. `And`, `Or` and `Xor` of Booleans have the names of the bitwise ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BinaryOperator {
    Add,
    And,
    Divide,
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    LogicalAnd,
    LogicalOr,
    Multiply,
    NotEqual,
    Or,
    Remainder,
    SaturateSigned,
    SaturateUnsigned,
    ShiftLeft,
    ShiftRight,
    Subtract,
    TwosComplement,
    Xor,
}

/// Operators with one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnaryOperator {
    BoolToData,
    Complement,
    DataToBool,
}

/// A constant of any width: sign and magnitude, the least significant limb first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Constant {
    pub(super) is_negative: bool,
    pub(super) magnitude: Vec<u64>,
}

/// What reading an expression needs to know.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) layout: &'a Layout,
    pub(super) objects: &'a Objects,
    /// The parameters of the action, as fields of the slots they are in.
    pub(super) arguments: &'a [FieldLayout],
    pub(super) place: &'a str,
}

impl Expression {
    /// Reads an object with `type` and `value`.
    pub(super) fn new(scope: Scope<'_>, json: &Json) -> Result<Self, LoadError> {
        let kind = json.get("type").and_then(Json::as_str).unwrap_or_default();
        let value = json.get("value").unwrap_or(&Json::Null);
        Self::typed(scope, kind, value)
    }

    pub(super) fn typed(scope: Scope<'_>, kind: &str, value: &Json) -> Result<Self, LoadError> {
        match kind {
            "expression" if value.get("op").is_some() => Self::operation(scope, value),
            // p4c wraps expressions once or twice.
            "expression" if value.get("type").is_some() => Self::new(scope, value),
            "field" => {
                let (header, field) = pair(scope, value)?;
                let field = scope.layout.field(scope.place, header, field)?;
                if field.is_variable {
                    return Err(scope.unsupported("a field of variable length in an expression"));
                }
                Ok(Self::Field(field))
            }
            "hexstr" => Ok(Self::Constant(Constant::new(scope, value)?)),
            "bool" => match value.as_bool() {
                Some(value) => Ok(Self::Bool(value)),
                None => Err(scope.invalid("a bool that is neither true nor false")),
            },
            "local" | "runtime_data" => {
                let index = value.as_u64().and_then(|index| usize::try_from(index).ok());
                match index.filter(|index| *index < scope.arguments.len()) {
                    Some(index) => Ok(Self::Local(index)),
                    None => Err(scope.invalid("a parameter that the action does not have")),
                }
            }
            "stack_field" => {
                let (stack, field) = pair(scope, value)?;
                let stack = scope.layout.stack_index(scope.place, stack)?;
                Ok(Self::LastField {
                    stack,
                    field: scope.stack_field(stack, field)?,
                })
            }
            "register" => {
                let (Some(name), Some(index)) = (value.get(0).and_then(Json::as_str), value.get(1))
                else {
                    return Err(scope.invalid("a register without name and index"));
                };
                let register = scope.objects.register(scope.place, name)?;
                Ok(Self::Register {
                    register,
                    index: Box::new(Self::new(scope, index)?),
                })
            }
            other => Err(scope.unsupported(&format!("\"{other}\" in an expression"))),
        }
    }

    /// Whether this yields a Boolean rather than a number.
    pub(super) fn is_bool(&self) -> bool {
        match self {
            Self::Bool(_)
            | Self::EqualHeaders { .. }
            | Self::Not(_)
            | Self::Unary(UnaryOperator::DataToBool, _)
            | Self::Valid { .. }
            | Self::ValidUnion { .. } => true,
            Self::Binary(operator, ..) => operator.yields_bool(),
            Self::Ternary(_, left, _) => left.is_bool(),
            _ => false,
        }
    }

    /// The constant, if it is one.
    pub(super) fn as_constant(&self) -> Option<&Constant> {
        match self {
            Self::Constant(constant) => Some(constant),
            _ => None,
        }
    }

    fn operation(scope: Scope<'_>, json: &Json) -> Result<Self, LoadError> {
        let name = json.get("op").and_then(Json::as_str).unwrap_or_default();
        let side = |side| json.get(side).unwrap_or(&Json::Null);
        let operand = |name| Self::new(scope, side(name));
        let number = |name| scope.number(operand(name)?);
        let boolean = |name| scope.boolean(operand(name)?);
        match name {
            "not" => Ok(Self::Not(Box::new(boolean("right")?))),
            "~" => Ok(Self::Unary(
                UnaryOperator::Complement,
                Box::new(number("right")?),
            )),
            "d2b" => Ok(Self::Unary(
                UnaryOperator::DataToBool,
                Box::new(number("right")?),
            )),
            "b2d" => Ok(Self::Unary(
                UnaryOperator::BoolToData,
                Box::new(boolean("right")?),
            )),
            "and" | "or" => {
                let (left, right) = (Box::new(boolean("left")?), Box::new(boolean("right")?));
                let is_and = name == "and";
                let operator = if is_and {
                    BinaryOperator::LogicalAnd
                } else {
                    BinaryOperator::LogicalOr
                };
                Ok(Self::Binary(operator, left, right))
            }
            "valid" => {
                let header = scope.header_name(side("right"))?;
                Ok(Self::Valid {
                    header: scope.layout.header_index(scope.place, header)?,
                })
            }
            "valid_union" => {
                let name = side("right")
                    .get("value")
                    .and_then(Json::as_str)
                    .unwrap_or_default();
                let union = scope.layout.union(scope.place, name)?;
                Ok(Self::ValidUnion {
                    headers: union.headers.clone(),
                })
            }
            "?" => {
                let condition = scope.boolean(Self::new(scope, side("cond"))?)?;
                let (left, right) = (operand("left")?, operand("right")?);
                if left.is_bool() != right.is_bool() {
                    return Err(scope.invalid("a choice between a Boolean and a number"));
                }
                Ok(Self::Ternary(
                    Box::new(condition),
                    Box::new(left),
                    Box::new(right),
                ))
            }
            "==" | "!=" | "==h" | "!=h" if is_header(side("left")) => {
                let a = scope.header_name(side("left"))?;
                let b = scope.header_name(side("right"))?;
                let a = scope.layout.header_index(scope.place, a)?;
                let b = scope.layout.header_index(scope.place, b)?;
                scope.same_type(a, b)?;
                let equal = Self::EqualHeaders { a, b };
                let is_equal = name.starts_with('=');
                Ok(if is_equal {
                    equal
                } else {
                    Self::Not(Box::new(equal))
                })
            }
            "==" | "!=" => {
                let (left, right) = (operand("left")?, operand("right")?);
                if left.is_bool() != right.is_bool() {
                    return Err(scope.invalid("a comparison of a Boolean and a number"));
                }
                let is_equal = name == "==";
                let operator = if is_equal {
                    BinaryOperator::Equal
                } else {
                    BinaryOperator::NotEqual
                };
                Ok(Self::Binary(operator, Box::new(left), Box::new(right)))
            }
            "access_field" => Self::access(scope, side("left"), side("right")),
            "last_stack_index" => Ok(Self::LastIndex {
                stack: scope.stack(side("right"))?,
            }),
            "size_stack" => Ok(Self::Size {
                stack: scope.stack(side("right"))?,
            }),
            _ => {
                let operator = BinaryOperator::new(name)
                    .ok_or_else(|| scope.unsupported(&format!("operator \"{name}\"")))?;
                let (left, right) = (Box::new(number("left")?), Box::new(number("right")?));
                Ok(Self::Binary(operator, left, right))
            }
        }
    }

    /// A field of a header that an expression yields: here, of a stack's header.
    fn access(scope: Scope<'_>, header: &Json, field: &Json) -> Result<Self, LoadError> {
        let mut header = header;
        while let Some(inner) = header.get("value").filter(|_| header.get("op").is_none()) {
            header = inner;
        }
        let op = header.get("op").and_then(Json::as_str).unwrap_or_default();
        if op != "dereference_header_stack" && op != "dereference_stack" {
            return Err(scope.unsupported("access_field of anything but a header stack's element"));
        }
        let stack = scope.stack(header.get("left").unwrap_or(&Json::Null))?;
        let index = Self::new(scope, header.get("right").unwrap_or(&Json::Null))?;
        let index = Box::new(scope.number(index)?);
        let field = field.as_u64().and_then(|field| usize::try_from(field).ok());
        let first = usize::from(scope.layout.stacks[usize::from(stack)].headers[0]);
        let fields = &scope.layout.headers[first].fields;
        match field.and_then(|field| Some((field, fields.get(field)?))) {
            Some((field, layout)) if !layout.is_variable => Ok(Self::IndexedField {
                stack,
                index,
                field,
            }),
            _ => Err(scope.invalid("access_field of a field that is not there")),
        }
    }
}

impl BinaryOperator {
    fn new(name: &str) -> Option<Self> {
        Some(match name {
            "+" => Self::Add,
            "-" => Self::Subtract,
            "*" => Self::Multiply,
            "/" => Self::Divide,
            "%" => Self::Remainder,
            "<<" => Self::ShiftLeft,
            ">>" => Self::ShiftRight,
            "&" => Self::And,
            "|" => Self::Or,
            "^" => Self::Xor,
            "<" => Self::Less,
            "<=" => Self::LessOrEqual,
            ">" => Self::Greater,
            ">=" => Self::GreaterOrEqual,
            "two_comp_mod" => Self::TwosComplement,
            "sat_cast" => Self::SaturateSigned,
            "usat_cast" => Self::SaturateUnsigned,
            _ => return None,
        })
    }

    fn yields_bool(self) -> bool {
        matches!(
            self,
            Self::Equal
                | Self::Greater
                | Self::GreaterOrEqual
                | Self::Less
                | Self::LessOrEqual
                | Self::LogicalAnd
                | Self::LogicalOr
                | Self::NotEqual
        )
    }
}

impl Constant {
    pub(super) fn zero() -> Self {
        Self {
            is_negative: false,
            magnitude: Vec::new(),
        }
    }

    pub(super) fn new(scope: Scope<'_>, json: &Json) -> Result<Self, LoadError> {
        let text = json
            .as_str()
            .ok_or_else(|| scope.invalid("a hexstr that is not a string"))?;
        Self::parse(text).ok_or_else(|| scope.invalid(&format!("{text} as a hexstr")))
    }

    /// Reads `0x1f`, `-0x1f` or `1f`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (is_negative, text) = match text.strip_prefix('-') {
            Some(text) => (true, text),
            None => (false, text),
        };
        let digits = text.strip_prefix("0x").unwrap_or(text);
        if digits.is_empty() || digits.len() > MAX_CONSTANT_BITS / 4 {
            return None;
        }
        let mut magnitude = vec![0; digits.len().div_ceil(16)];
        for (position, digit) in digits.chars().rev().enumerate() {
            let digit = u64::from(digit.to_digit(16)?);
            *magnitude.get_mut(position / 16)? |= digit << (position % 16 * 4);
        }
        while magnitude.last() == Some(&0) {
            magnitude.pop();
        }
        Some(Self {
            is_negative: is_negative && !magnitude.is_empty(),
            magnitude,
        })
    }

    /// The bits of the magnitude.
    pub(super) fn bits(&self) -> u32 {
        match self.magnitude.split_last() {
            Some((last, below)) => below.len() as u32 * 64 + (64 - last.leading_zeros()),
            None => 0,
        }
    }

    /// The number, if it is not negative and fits.
    pub(super) fn to_u64(&self) -> Option<u64> {
        match self.magnitude.as_slice() {
            _ if self.is_negative => None,
            [] => Some(0),
            [number] => Some(*number),
            _ => None,
        }
    }

    /// How many low bits are one, if no others are: what masks are.
    pub(super) fn mask_bits(&self) -> Option<u32> {
        let ones: u32 = self.magnitude.iter().map(|limb| limb.count_ones()).sum();
        (!self.is_negative && ones == self.bits()).then_some(ones)
    }

    /// The two's complement, cut off to this many limbs.
    pub(super) fn to_limbs(&self, count: usize) -> Vec<u64> {
        let mut limbs = self.magnitude.clone();
        limbs.resize(count, 0);
        if self.is_negative {
            let mut carry = true;
            for limb in &mut limbs {
                (*limb, carry) = (!*limb).overflowing_add(u64::from(carry));
            }
        }
        limbs
    }
}

impl Scope<'_> {
    pub(super) fn invalid(self, reason: &str) -> LoadError {
        LoadError::Invalid {
            place: self.place.to_owned(),
            reason: reason.to_owned(),
        }
    }

    pub(super) fn unsupported(self, construct: &str) -> LoadError {
        unsupported(self.place, construct)
    }

    /// The expression, if it yields a number; Booleans become 0 and 1.
    pub(super) fn number(self, expression: Expression) -> Result<Expression, LoadError> {
        if expression.is_bool() {
            return Err(self.invalid("a Boolean where a number is expected"));
        }
        Ok(expression)
    }

    /// The expression, if it yields a Boolean.
    pub(super) fn boolean(self, expression: Expression) -> Result<Expression, LoadError> {
        if !expression.is_bool() {
            return Err(self.invalid("a number where a Boolean is expected"));
        }
        Ok(expression)
    }

    pub(super) fn same_type(self, a: u16, b: u16) -> Result<(), LoadError> {
        let header_type = |index: u16| &self.layout.headers[usize::from(index)].header_type;
        if header_type(a) != header_type(b) {
            return Err(self.invalid("headers of different types where they must be equal"));
        }
        Ok(())
    }

    fn header_name(self, json: &Json) -> Result<&str, LoadError> {
        let mut json = json;
        while let Some(inner) = json.get("value") {
            json = inner;
        }
        json.as_str()
            .ok_or_else(|| self.unsupported("a header that is computed"))
    }

    fn stack(self, json: &Json) -> Result<u16, LoadError> {
        self.layout.stack_index(self.place, self.header_name(json)?)
    }

    fn stack_field(self, stack: u16, name: &str) -> Result<usize, LoadError> {
        let first = usize::from(self.layout.stacks[usize::from(stack)].headers[0]);
        let fields = &self.layout.headers[first].fields;
        fields
            .iter()
            .position(|field| field.name == name && !field.is_variable)
            .ok_or_else(|| self.invalid(&format!("the stack's headers have no field {name}")))
    }
}

/// The two strings of a reference.
pub(super) fn pair<'a>(scope: Scope<'_>, json: &'a Json) -> Result<(&'a str, &'a str), LoadError> {
    match (
        json.get(0).and_then(Json::as_str),
        json.get(1).and_then(Json::as_str),
    ) {
        (Some(first), Some(second)) => Ok((first, second)),
        _ => Err(scope.invalid("a reference that is not two names")),
    }
}

fn is_header(json: &Json) -> bool {
    match json.get("type").and_then(Json::as_str) {
        Some("header") => true,
        Some("expression") => json.get("value").is_some_and(is_header),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_of_any_width() {
        let constant = Constant::parse("-0x1").expect("a hexstr");
        assert_eq!(constant.to_limbs(2), [u64::MAX, u64::MAX]);
        let wide = Constant::parse("0x10000000000000000").expect("a hexstr");
        assert_eq!((wide.bits(), wide.magnitude), (65, vec![0, 1]));
        assert_eq!(
            Constant::parse("0xffff").expect("a hexstr").mask_bits(),
            Some(16)
        );
        assert_eq!(
            Constant::parse("0xfffe").expect("a hexstr").mask_bits(),
            None
        );
        assert_eq!(Constant::parse("0x"), None);
        assert_eq!(Constant::parse("0xg"), None);
    }
}
