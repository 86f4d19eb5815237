//! Types and values of registers and digests.

use std::collections::BTreeMap;

use thiserror::Error;

use super::P4InfoError;
use crate::Bytestring;
use crate::proto::p4::config::v1 as proto;
use crate::proto::p4::config::v1::p4_bitstring_like_type_spec::TypeSpec as BitstringSpec;
use crate::proto::p4::config::v1::p4_data_type_spec::TypeSpec;
use crate::proto::p4::config::v1::p4_new_type_spec::Representation;
use crate::proto::p4::v1 as p4;
use crate::proto::p4::v1::p4_data::Data;

/// Types of types … of types are refused beyond this.
const NESTING_LIMIT: u32 = 16;
/// Types with more members, counting all nested ones, are refused.
const MEMBER_LIMIT: usize = 4096;

/// The type of what a register holds or a digest carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataType {
    /// `bit<W>` or `int<W>`, as its two's complement.
    Bits {
        /// W.
        width_bits: u32,
    },
    /// `bool`.
    Bool,
    /// A struct or header: names and types of its members.
    Struct {
        /// In the order of declaration.
        members: Vec<(String, Self)>,
        /// Whether it is a header, which may be invalid.
        is_header: bool,
    },
    /// A tuple.
    Tuple {
        /// In the order of declaration.
        members: Vec<Self>,
    },
}

/// A value of a register or digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataValue {
    /// Of a `bit<W>` or `int<W>`.
    Bits(Bytestring),
    /// Of a `bool`.
    Bool(bool),
    /// The members of a struct, valid header or tuple; none for an invalid header.
    Members(Vec<Self>),
}

/// Why a value is not of a type.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the value is not of the type that the program declares: {reason}")]
pub struct DataValueError {
    /// What is wrong.
    reason: String,
}

impl DataType {
    pub(super) fn from_spec(
        spec: Option<&proto::P4DataTypeSpec>,
        types: Option<&proto::P4TypeInfo>,
    ) -> Result<Self, P4InfoError> {
        Resolver { types, members: 0 }.resolve(spec, 0)
    }

    /// How many numbers a value consists of, counting those of all members.
    pub fn scalar_count(&self) -> usize {
        match self {
            Self::Bits { .. } | Self::Bool => 1,
            Self::Struct { members, .. } => members
                .iter()
                .map(|(_, member)| member.scalar_count())
                .sum(),
            Self::Tuple { members } => members.iter().map(Self::scalar_count).sum(),
        }
    }

    /// The message for a value that consists of these numbers, in the order of declaration.
    ///
    /// # Errors
    ///
    /// If there are more or fewer numbers than the type has, or one is too wide.
    pub fn message_of_scalars(&self, scalars: &[Bytestring]) -> Result<p4::P4Data, DataValueError> {
        let mut rest = scalars.iter();
        let value = self.value_of_scalars(&mut rest)?;
        if rest.next().is_some() {
            return Err(mismatch(format!(
                "{} numbers, not {}",
                self.scalar_count(),
                scalars.len()
            )));
        }
        self.to_message(&value)
    }

    /// The message for a value.
    ///
    /// # Errors
    ///
    /// If the value is not of this type.
    pub fn to_message(&self, value: &DataValue) -> Result<p4::P4Data, DataValueError> {
        let data = match (self, value) {
            (Self::Bits { width_bits }, DataValue::Bits(number)) => {
                let fitting = number.clone().fitting(*width_bits);
                Data::Bitstring(fitting.map_err(mismatch)?.into_bytes())
            }
            (Self::Bool, DataValue::Bool(bit)) => Data::Bool(*bit),
            (Self::Struct { members, is_header }, DataValue::Members(values)) => {
                if *is_header {
                    return self.header_message(members, values);
                }
                let types = members.iter().map(|(_, member)| member);
                Data::Struct(struct_like(types, values)?)
            }
            (Self::Tuple { members }, DataValue::Members(values)) => {
                Data::Tuple(struct_like(members.iter(), values)?)
            }
            (Self::Bits { .. }, _) => return Err(mismatch("a number is expected")),
            (Self::Bool, _) => return Err(mismatch("a bool is expected")),
            (Self::Struct { .. } | Self::Tuple { .. }, _) => {
                return Err(mismatch("members are expected"));
            }
        };
        Ok(p4::P4Data { data: Some(data) })
    }

    /// The value in a message.
    ///
    /// # Errors
    ///
    /// If it is not of this type.
    pub fn from_message(&self, message: &p4::P4Data) -> Result<DataValue, DataValueError> {
        let data = message.data.as_ref().ok_or_else(|| mismatch("no data"))?;
        match (self, data) {
            (Self::Bits { width_bits }, Data::Bitstring(bytes)) => {
                let number = Bytestring::from_wire(bytes, *width_bits).map_err(mismatch)?;
                Ok(DataValue::Bits(number))
            }
            (Self::Bool, Data::Bool(bit)) => Ok(DataValue::Bool(*bit)),
            (
                Self::Struct {
                    members,
                    is_header: false,
                },
                Data::Struct(values),
            ) => members_of(members.iter().map(|(_, member)| member), values),
            (
                Self::Struct {
                    members,
                    is_header: true,
                },
                Data::Header(header),
            ) => {
                if !header.is_valid {
                    return Ok(DataValue::Members(Vec::new()));
                }
                let values = p4::P4StructLike {
                    members: header
                        .bitstrings
                        .iter()
                        .map(|bytes| p4::P4Data {
                            data: Some(Data::Bitstring(bytes.clone())),
                        })
                        .collect(),
                };
                members_of(members.iter().map(|(_, member)| member), &values)
            }
            (Self::Tuple { members }, Data::Tuple(values)) => members_of(members.iter(), values),
            _ => Err(mismatch("another kind of data")),
        }
    }

    fn value_of_scalars<'a>(
        &self,
        scalars: &mut impl Iterator<Item = &'a Bytestring>,
    ) -> Result<DataValue, DataValueError> {
        let mut next = || scalars.next().ok_or_else(|| mismatch("too few numbers"));
        match self {
            Self::Bits { .. } => Ok(DataValue::Bits(next()?.clone())),
            Self::Bool => Ok(DataValue::Bool(!next()?.is_zero())),
            Self::Struct { members, .. } => members
                .iter()
                .map(|(_, member)| member.value_of_scalars(scalars))
                .collect::<Result<_, _>>()
                .map(DataValue::Members),
            Self::Tuple { members } => members
                .iter()
                .map(|member| member.value_of_scalars(scalars))
                .collect::<Result<_, _>>()
                .map(DataValue::Members),
        }
    }

    fn header_message(
        &self,
        members: &[(String, Self)],
        values: &[DataValue],
    ) -> Result<p4::P4Data, DataValueError> {
        let is_valid = !values.is_empty();
        let bitstrings = if is_valid {
            struct_like(members.iter().map(|(_, member)| member), values)?
                .members
                .into_iter()
                .filter_map(|member| match member.data {
                    Some(Data::Bitstring(bytes)) => Some(bytes),
                    _ => None,
                })
                .collect()
        } else {
            Vec::new()
        };
        Ok(p4::P4Data {
            data: Some(Data::Header(p4::P4Header {
                is_valid,
                bitstrings,
            })),
        })
    }
}

impl DataValue {
    /// The number, if it is one.
    pub fn as_bits(&self) -> Option<&Bytestring> {
        match self {
            Self::Bits(number) => Some(number),
            Self::Bool(_) | Self::Members(_) => None,
        }
    }
}

struct Resolver<'a> {
    types: Option<&'a proto::P4TypeInfo>,
    members: usize,
}

impl<'a> Resolver<'a> {
    fn resolve(
        &mut self,
        spec: Option<&proto::P4DataTypeSpec>,
        nesting: u32,
    ) -> Result<DataType, P4InfoError> {
        self.members += 1;
        if nesting > NESTING_LIMIT || self.members > MEMBER_LIMIT {
            return Err(unsupported(
                "a type of more than 16 levels or 4,096 members",
            ));
        }
        let spec = spec.and_then(|spec| spec.type_spec.as_ref());
        match spec.ok_or_else(|| unsupported("a value without type"))? {
            TypeSpec::Bitstring(spec) => bits(spec),
            TypeSpec::Bool(_) => Ok(DataType::Bool),
            TypeSpec::Tuple(tuple) => {
                let members = tuple.members.iter();
                let members = members.map(|member| self.resolve(Some(member), nesting + 1));
                Ok(DataType::Tuple {
                    members: members.collect::<Result<_, _>>()?,
                })
            }
            TypeSpec::Struct(named) => {
                let declared = self.named(named, |types| &types.structs)?;
                let members = declared.members.iter().map(|member| {
                    let data_type = self.resolve(member.type_spec.as_ref(), nesting + 1)?;
                    Ok((member.name.clone(), data_type))
                });
                Ok(DataType::Struct {
                    members: members.collect::<Result<_, P4InfoError>>()?,
                    is_header: false,
                })
            }
            TypeSpec::Header(named) => {
                let declared = self.named(named, |types| &types.headers)?;
                let members = declared.members.iter().map(|member| {
                    let spec = member.type_spec.as_ref();
                    let data_type = bits(spec.ok_or_else(|| unsupported("a field without type"))?)?;
                    Ok((member.name.clone(), data_type))
                });
                Ok(DataType::Struct {
                    members: members.collect::<Result<_, P4InfoError>>()?,
                    is_header: true,
                })
            }
            TypeSpec::SerializableEnum(named) => {
                let declared = self.named(named, |types| &types.serializable_enums)?;
                let underlying = declared.underlying_type.as_ref();
                checked_width(underlying.map_or(0, |underlying| underlying.bitwidth))
            }
            TypeSpec::NewType(named) => {
                let declared = self.named(named, |types| &types.new_types)?;
                match declared.representation.as_ref() {
                    Some(Representation::OriginalType(original)) => {
                        self.resolve(Some(original), nesting + 1)
                    }
                    _ => Err(unsupported("a translated type")),
                }
            }
            TypeSpec::HeaderUnion(_) => Err(unsupported("a header union")),
            TypeSpec::HeaderStack(_) => Err(unsupported("a header stack")),
            TypeSpec::HeaderUnionStack(_) => Err(unsupported("a stack of header unions")),
            TypeSpec::Enum(_) => Err(unsupported("an enum without underlying type")),
            TypeSpec::Error(_) => Err(unsupported("a value of type error")),
        }
    }

    fn named<T>(
        &self,
        named: &proto::P4NamedType,
        kind: impl FnOnce(&'a proto::P4TypeInfo) -> &'a BTreeMap<String, T>,
    ) -> Result<&'a T, P4InfoError> {
        let declared = self.types.map(kind);
        declared
            .and_then(|declared| declared.get(&named.name))
            .ok_or_else(|| P4InfoError::UnknownType {
                name: named.name.clone(),
            })
    }
}

fn bits(spec: &proto::P4BitstringLikeTypeSpec) -> Result<DataType, P4InfoError> {
    match spec.type_spec.as_ref() {
        Some(BitstringSpec::Bit(bit)) => checked_width(bit.bitwidth),
        Some(BitstringSpec::Int(int)) => checked_width(int.bitwidth),
        Some(BitstringSpec::Varbit(_)) => Err(unsupported("a varbit")),
        None => Err(unsupported("a field without type")),
    }
}

fn checked_width(width_bits: i32) -> Result<DataType, P4InfoError> {
    super::convert::width(width_bits).map(|width_bits| DataType::Bits { width_bits })
}

fn struct_like<'a>(
    types: impl ExactSizeIterator<Item = &'a DataType>,
    values: &[DataValue],
) -> Result<p4::P4StructLike, DataValueError> {
    check_count(types.len(), values.len())?;
    let members = types.zip(values);
    let members = members.map(|(data_type, value)| data_type.to_message(value));
    Ok(p4::P4StructLike {
        members: members.collect::<Result<_, _>>()?,
    })
}

fn members_of<'a>(
    types: impl ExactSizeIterator<Item = &'a DataType>,
    values: &p4::P4StructLike,
) -> Result<DataValue, DataValueError> {
    check_count(types.len(), values.members.len())?;
    let members = types.zip(&values.members);
    members
        .map(|(data_type, value)| data_type.from_message(value))
        .collect::<Result<_, _>>()
        .map(DataValue::Members)
}

fn check_count(expected: usize, given: usize) -> Result<(), DataValueError> {
    if expected != given {
        return Err(mismatch(format!("{expected} members, not {given}")));
    }
    Ok(())
}

fn mismatch(reason: impl ToString) -> DataValueError {
    DataValueError {
        reason: reason.to_string(),
    }
}

fn unsupported(construct: &'static str) -> P4InfoError {
    P4InfoError::Unsupported { construct }
}
