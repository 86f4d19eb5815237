//! Matches as they are written in files: `1`, `10.0.0.0/8`, `1..9`, `0x10&0xf0`.

use thiserror::Error;

use super::Match;
use crate::Bytestring;
use crate::p4info::{MatchField, MatchKind};

/// Why a text is not a match for a field.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("match field `{field}`: `{text}` is not {expected}")]
pub struct MatchTextError {
    /// The field.
    pub field: String,
    /// What was given.
    pub text: String,
    /// What the field wants.
    pub expected: &'static str,
}

impl Match {
    /// Reads what is to be compared with `field`: a number or address; for prefixes with `/length`, for
    /// ternary fields with `&mask` or `/length`, for ranges `low..high`.
    ///
    /// # Errors
    ///
    /// If it is not of that form. Whether it fits the field's width is seen when it is encoded.
    pub fn from_text(field: &MatchField, text: &str) -> Result<Self, MatchTextError> {
        let parsed = parse(field.kind, field.width_bits, text);
        parsed.ok_or_else(|| MatchTextError {
            field: field.name.clone(),
            text: text.into(),
            expected: match field.kind {
                MatchKind::Exact | MatchKind::Optional => "a number or address",
                MatchKind::Lpm => "a prefix (number or address, `/`, length)",
                MatchKind::Range => "a range (low, `..`, high)",
                MatchKind::Ternary => "a number or address with `&mask` or `/length`",
            },
        })
    }
}

fn parse(kind: MatchKind, width_bits: u32, text: &str) -> Option<Match> {
    let number = |text: &str| text.trim().parse::<Bytestring>().ok();
    let length = |text: &str| text.trim().parse::<u32>().ok();
    let after = |separator: &str| text.split_once(separator);
    Some(match kind {
        MatchKind::Exact => Match::Exact(number(text)?),
        MatchKind::Optional => Match::Optional(number(text)?),
        MatchKind::Lpm => {
            let (value, prefix_bits) = match after("/") {
                Some((value, prefix)) => (value, length(prefix)?),
                None => (text, width_bits),
            };
            Match::Lpm {
                value: number(value)?,
                prefix_bits,
            }
        }
        MatchKind::Range => {
            let (low, high) = after("..").unwrap_or((text, text));
            Match::Range {
                low: number(low)?,
                high: number(high)?,
            }
        }
        MatchKind::Ternary => {
            if let Some((value, mask)) = after("&") {
                return Some(Match::Ternary {
                    value: number(value)?,
                    mask: number(mask)?,
                });
            }
            let (value, prefix_bits) = match after("/") {
                Some((value, prefix)) => (value, length(prefix)?),
                None => (text, width_bits),
            };
            Match::Ternary {
                value: number(value)?,
                mask: Bytestring::prefix_mask(width_bits, prefix_bits.min(width_bits)),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(kind: MatchKind) -> MatchField {
        MatchField {
            id: 1,
            name: "address".into(),
            width_bits: 32,
            kind,
        }
    }

    #[test]
    fn every_kind_has_its_form() {
        let address = Bytestring::from(0x0a00_0000_u32);
        let cases = [
            (MatchKind::Exact, "10.0.0.0", Match::Exact(address.clone())),
            (MatchKind::Lpm, "10.0.0.0/8", Match::lpm(address.clone(), 8)),
            (
                MatchKind::Lpm,
                "0x0a000000",
                Match::lpm(address.clone(), 32),
            ),
            (MatchKind::Range, "1..9", Match::range(1_u8, 9_u8)),
            (MatchKind::Range, "7", Match::range(7_u8, 7_u8)),
            (
                MatchKind::Ternary,
                "10.0.0.0/8",
                Match::ternary(address, 0xff00_0000_u32),
            ),
            (
                MatchKind::Ternary,
                "0x10 & 0xf0",
                Match::ternary(0x10_u8, 0xf0_u8),
            ),
            (
                MatchKind::Optional,
                "3",
                Match::Optional(Bytestring::from(3_u8)),
            ),
        ];
        for (kind, text, expected) in cases {
            assert_eq!(Match::from_text(&field(kind), text), Ok(expected), "{text}");
        }
        for (kind, text) in [
            (MatchKind::Exact, "10.0.0.0/8"),
            (MatchKind::Lpm, "10.0.0.0/x"),
            (MatchKind::Range, "1.."),
            (MatchKind::Ternary, "&1"),
            (MatchKind::Optional, ""),
        ] {
            assert!(Match::from_text(&field(kind), text).is_err(), "{text}");
        }
    }
}
