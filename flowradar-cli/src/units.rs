//! Sizes, durations and fractions on the command line.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;

/// How packets are grouped into epochs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum EpochLength {
    /// All packets in one epoch.
    #[default]
    Whole,
    /// Epochs of this many nanoseconds, which begin at multiples of it since 1970.
    Nanoseconds(u64),
}

impl FromStr for EpochLength {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "whole" {
            return Ok(Self::Whole);
        }
        let length = parse_duration(text)
            .map_err(|error| format!("{error}; or \"whole\" for one epoch of everything"))?;
        match u64::try_from(length.as_nanos()) {
            Ok(0) => Err("an epoch cannot be empty".into()),
            Ok(length_ns) => Ok(Self::Nanoseconds(length_ns)),
            Err(_) => Err("longer than 584 years; use \"whole\"".into()),
        }
    }
}

impl Display for EpochLength {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Whole => f.pad("whole"),
            Self::Nanoseconds(length_ns) => f.pad(&duration(length_ns)),
        }
    }
}

/// A duration in its largest unit that needs no fraction, as read by [`EpochLength`].
pub(crate) fn duration(nanoseconds: u64) -> String {
    humantime::format_duration(Duration::from_nanos(nanoseconds)).to_string()
}

/// A duration with a unit, such as `10ms`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write a duration with its unit, such as 10ms or 1s"))
}

/// A size in bytes: `2MB` is 2,000,000, `2MiB` is 2,097,152, a plain number is bytes.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    match ByteSize::from_str(text) {
        Ok(ByteSize(0)) => Err("a size of nothing".into()),
        Ok(ByteSize(bytes)) => Ok(bytes),
        Err(error) => Err(format!(
            "{error}; write a size such as 2MB (2,000,000 bytes) or 2MiB (2,097,152 bytes)"
        )),
    }
}

/// A whole number of things, at least one; underscores and commas between digits are allowed.
pub(crate) fn parse_count(text: &str) -> Result<u64, String> {
    let digits: String = text.chars().filter(|c| !matches!(c, '_' | ',')).collect();
    match digits.parse() {
        Ok(0) => Err("at least 1 is needed".into()),
        Ok(count) => Ok(count),
        Err(error) => Err(format!("{error}; write a whole number such as 100000")),
    }
}

/// A fraction from 0 to 1, or a percentage such as `2%`.
pub(crate) fn parse_fraction(text: &str) -> Result<f64, String> {
    let (number, scale) = match text.strip_suffix('%') {
        Some(percentage) => (percentage.trim_end(), 100.0),
        None => (text, 1.0),
    };
    let fraction = number
        .parse::<f64>()
        .map_err(|error| format!("{error}; write a fraction such as 0.02 or 2%"))?
        / scale;
    if (0.0..=1.0).contains(&fraction) {
        Ok(fraction)
    } else {
        Err("a fraction is from 0 to 1 (or from 0% to 100%)".into())
    }
}

/// A positive number, such as cells per flow.
pub(crate) fn parse_ratio(text: &str) -> Result<f64, String> {
    let ratio: f64 = text
        .parse()
        .map_err(|error| format!("{error}; write a number such as 1.25"))?;
    if ratio > 0.0 && ratio <= 1000.0 {
        Ok(ratio)
    } else {
        Err("use a number above 0 and up to 1000".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_decimal_and_binary_units() {
        assert_eq!(parse_size("2MB"), Ok(2_000_000));
        assert_eq!(parse_size("2MiB"), Ok(2 << 20));
        assert_eq!(parse_size("1.5 kB"), Ok(1500));
        assert_eq!(parse_size("4096"), Ok(4096));
        for bad in ["", "MB", "-1", "2 parsecs", "0"] {
            assert!(parse_size(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn epochs_need_a_unit() {
        assert_eq!("whole".parse(), Ok(EpochLength::Whole));
        assert_eq!("10ms".parse(), Ok(EpochLength::Nanoseconds(10_000_000)));
        assert_eq!("250us".parse(), Ok(EpochLength::Nanoseconds(250_000)));
        for bad in ["", "10", "0s", "-1s", "never"] {
            assert!(bad.parse::<EpochLength>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn epochs_print_as_they_are_read() {
        for text in ["whole", "10ms", "1s", "250us"] {
            let epoch: EpochLength = text.parse().expect("a good epoch");
            assert_eq!(epoch.to_string(), text);
        }
    }

    #[test]
    fn fractions_are_between_nothing_and_everything() {
        assert_eq!(parse_fraction("0.02"), Ok(0.02));
        assert_eq!(parse_fraction("2%"), Ok(0.02));
        assert_eq!(parse_fraction("100%"), Ok(1.0));
        for bad in ["1.1", "-0.1", "101%", "NaN", "inf", "x"] {
            assert!(parse_fraction(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn counts_may_be_grouped() {
        assert_eq!(parse_count("100_000"), Ok(100_000));
        assert_eq!(parse_count("100,000"), Ok(100_000));
        for bad in ["0", "", "1e5", "-3"] {
            assert!(parse_count(bad).is_err(), "{bad:?}");
        }
    }
}
