//! Words and numbers for people.

use std::fmt::Arguments;
use std::io::Write;

/// Writes a line to standard error. Unlike `eprintln!` it does not panic if nobody reads it.
macro_rules! note {
    ($($argument:tt)*) => {
        $crate::text::write_note(format_args!($($argument)*))
    };
}
pub(crate) use note;

pub(crate) fn write_note(line: Arguments<'_>) {
    // Nobody to tell if standard error is gone.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// A number with commas between thousands: `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number and a noun, in the plural (with an s) unless the number is one: `1 flow`, `2 flows`.
pub(crate) fn counted(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(number))
}

/// A size: `1.5 MB (1,500,000 bytes)` from a kilobyte up.
pub(crate) fn size(bytes: u64) -> String {
    if bytes < 1000 {
        return counted(bytes, "byte");
    }
    format!("{} ({} bytes)", short_size(bytes), grouped(bytes))
}

/// A size in decimal units: `1.5 MB`.
pub(crate) fn short_size(bytes: u64) -> String {
    bytesize::ByteSize::b(bytes).display().si().to_string()
}

/// A share in percent: `12.3 %`.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "0 %".into();
    }
    format!("{:.1} %", part as f64 * 100.0 / whole as f64)
}

/// A probability in per cent, or as a power of ten where that would show nothing.
pub(crate) fn probability(probability: f64) -> String {
    if probability > 0.0 && probability < 1e-4 {
        return format!("{probability:.0e}");
    }
    format!("{:.2} %", probability * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_separated() {
        let cases = [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ];
        for (number, text) in cases {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(grouped(u64::MAX), "18,446,744,073,709,551,615");
    }

    #[test]
    fn nouns_follow_numbers() {
        assert_eq!(counted(1, "flow"), "1 flow");
        assert_eq!(counted(0, "flow"), "0 flows");
        assert_eq!(counted(2000, "packet"), "2,000 packets");
    }

    #[test]
    fn small_probabilities_stay_visible() {
        assert_eq!(probability(1.0), "100.00 %");
        assert_eq!(probability(0.005), "0.50 %");
        assert_eq!(probability(0.000_02), "2e-5");
        assert_eq!(probability(0.0), "0.00 %");
    }
}
