//! Units of figures: what a number is in, how people read it, how they write it.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytesize::ByteSize;

/// What a figure is in. Figures themselves are in base units: seconds, bytes, 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// A number of things.
    Count,
    /// Things a second.
    PerSecond,
    /// Bytes a second.
    BytesPerSecond,
    /// A part of 1.
    Share,
    /// Processor cores.
    Cores,
}

/// Below a minute and a half, seconds are easier to compare than minutes.
const MINUTES_FROM: f64 = 90.0;

/// Counts up to here are shown to the last digit.
const EXACT_BELOW: f64 = 1e6;

impl Unit {
    /// The number as people read it: three digits and a fitting unit.
    pub fn show(self, value: f64) -> String {
        if value < 0.0 {
            return format!("-{}", self.show(-value));
        }
        match self {
            Unit::Seconds if value >= MINUTES_FROM => {
                let whole = Duration::try_from_secs_f64(value.round()).unwrap_or(Duration::MAX);
                humantime::format_duration(whole).to_string()
            }
            Unit::Seconds if value == 0.0 => "0 s".to_owned(),
            Unit::Seconds => scaled(value * 1e9, 1000.0, &["ns", "µs", "ms", "s"]),
            Unit::Bytes => scaled(value, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"]),
            Unit::BytesPerSecond => scaled(value, 1000.0, &["B/s", "kB/s", "MB/s", "GB/s", "TB/s"]),
            Unit::PerSecond => scaled(value, 1000.0, &["/s", "k/s", "M/s", "G/s"]),
            Unit::Count if value < EXACT_BELOW => grouped(value),
            Unit::Count => format!("{:.2} M", value / 1e6),
            Unit::Share if value > 0.0 && value < 5e-5 => "< 0.01 %".to_owned(),
            Unit::Share => format!("{} %", digits(value * 100.0)),
            Unit::Cores => format!("{value:.2}"),
        }
    }

    /// The same without zeros behind the point, for sentences: 5 s.
    pub(super) fn brief(self, value: f64) -> String {
        let shown = self.show(value);
        let end = shown.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ',').unwrap_or(shown.len());
        let (number, unit) = shown.split_at(end);
        let number =
            if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number };
        format!("{number}{unit}")
    }

    /// A number that somebody wrote, in base units.
    ///
    /// # Errors
    /// A sentence that says what is accepted.
    pub fn read(self, text: &str) -> Result<f64> {
        let text = text.trim();
        let value = match text.parse::<f64>() {
            Ok(value) => value,
            Err(_) => {
                self.read_with_unit(text).with_context(|| format!("{text:?} is not {}", self.accepted()))?
            }
        };
        ensure!(value.is_finite() && value >= 0.0, "{text:?} is not {}", self.accepted());
        Ok(value)
    }

    fn read_with_unit(self, text: &str) -> Result<f64> {
        let without_second = text.strip_suffix("/s").unwrap_or(text);
        match self {
            Unit::Seconds => Ok(humantime::parse_duration(text)?.as_secs_f64()),
            Unit::Bytes => Ok(text.parse::<ByteSize>().map_err(anyhow::Error::msg)?.as_u64() as f64),
            Unit::BytesPerSecond => Unit::Bytes.read(without_second),
            Unit::Count => multiple(text),
            Unit::PerSecond => multiple(without_second),
            Unit::Share | Unit::Cores => match text.strip_suffix('%') {
                Some(percent) => Ok(percent.trim_end().parse::<f64>()? / 100.0),
                None => bail!("neither a number nor a percentage"),
            },
        }
    }

    fn accepted(self) -> &'static str {
        match self {
            Unit::Seconds => "a time such as 5ms, 1.4us or 2s",
            Unit::Bytes => "a size such as 8KiB, 64MiB or 65536",
            Unit::Count => "a number such as 0, 500k or 2M",
            Unit::PerSecond => "a rate such as 500k, 1.2M or 800/s",
            Unit::BytesPerSecond => "a rate such as 750MB, 1.1GB/s or 64MiB/s",
            Unit::Share => "a share such as 5% or 0.05",
            Unit::Cores => "a number of cores such as 0.9 or 90%",
        }
    }

    /// What figures in it are in, as documentation says it.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Seconds => "s",
            Unit::Bytes => "bytes",
            Unit::Count => "number",
            Unit::PerSecond => "1/s",
            Unit::BytesPerSecond => "bytes/s",
            Unit::Share => "share",
            Unit::Cores => "cores",
        }
    }
}

/// Three significant digits.
pub(super) fn digits(value: f64) -> String {
    match value {
        // Limits at which rounding would bring a fourth digit.
        _ if value == 0.0 => "0".to_owned(),
        _ if value >= 99.95 => format!("{value:.0}"),
        _ if value >= 9.995 => format!("{value:.1}"),
        _ if value >= 0.01 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// The value in the largest of the units in which it is at least 1.
fn scaled(mut value: f64, step: f64, units: &[&str]) -> String {
    let mut at = 0;
    // 999.6 would be rounded to four digits; 1,023 bytes are still bytes.
    while value >= step - 0.5 && at + 1 < units.len() {
        value /= step;
        at += 1;
    }
    let number = if at == 0 && value.fract() == 0.0 { format!("{value:.0}") } else { digits(value) };
    let blank = if units[at].starts_with('/') { "" } else { " " };
    format!("{number}{blank}{}", units[at])
}

/// A whole number, its thousands set apart.
pub(super) fn grouped(value: f64) -> String {
    let plain = format!("{value:.0}");
    let mut text = String::with_capacity(plain.len() + plain.len() / 3);
    for (at, digit) in plain.chars().enumerate() {
        if at > 0 && (plain.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with `k`, `M` or `G`.
fn multiple(text: &str) -> Result<f64> {
    let text = text.trim_end();
    let (number, factor) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1e3),
        Some(b'M') => (&text[..text.len() - 1], 1e6),
        Some(b'G') => (&text[..text.len() - 1], 1e9),
        _ => (text, 1.0),
    };
    Ok(number.trim_end().parse::<f64>()? * factor)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Unit; 7] = [
        Unit::Seconds,
        Unit::Bytes,
        Unit::Count,
        Unit::PerSecond,
        Unit::BytesPerSecond,
        Unit::Share,
        Unit::Cores,
    ];

    #[test]
    fn numbers_are_shown_as_people_say_them() {
        for (unit, value, shown) in [
            (Unit::Seconds, 0.0, "0 s"),
            (Unit::Seconds, 9.7e-7, "970 ns"),
            (Unit::Seconds, 1.4e-6, "1.40 µs"),
            (Unit::Seconds, 9.999e-4, "1.00 ms"),
            (Unit::Seconds, 0.0123, "12.3 ms"),
            (Unit::Seconds, 61.0, "61.0 s"),
            (Unit::Seconds, 605.2, "10m 5s"),
            (Unit::Bytes, 512.0, "512 B"),
            (Unit::Bytes, 14.8 * 1024.0, "14.8 KiB"),
            (Unit::Bytes, 3.5 * 1024.0 * 1024.0, "3.50 MiB"),
            (Unit::Count, 0.0, "0"),
            (Unit::Count, 28_980.0, "28,980"),
            (Unit::Count, 28_980_000.0, "28.98 M"),
            (Unit::PerSecond, 966_000.0, "966 k/s"),
            (Unit::PerSecond, 12.0, "12/s"),
            (Unit::BytesPerSecond, 1.1e9, "1.10 GB/s"),
            (Unit::Share, 0.0, "0 %"),
            (Unit::Share, 0.123, "12.3 %"),
            (Unit::Share, 1e-6, "< 0.01 %"),
            (Unit::Share, -0.05, "-5.00 %"),
            (Unit::Cores, 0.973, "0.97"),
        ] {
            assert_eq!(unit.show(value), shown);
        }
    }

    #[test]
    fn a_sentence_has_no_zeros_behind_the_point() {
        for (unit, value, brief) in [
            (Unit::Seconds, 5.0, "5 s"),
            (Unit::Seconds, 2.3, "2.3 s"),
            (Unit::Count, 1_200.0, "1,200"),
            (Unit::Count, 1_500_000.0, "1.5 M"),
            (Unit::PerSecond, 1_000_000.0, "1 M/s"),
            (Unit::Seconds, 605.0, "10m 5s"),
            (Unit::Share, 0.5, "50 %"),
        ] {
            assert_eq!(unit.brief(value), brief);
        }
    }

    #[test]
    fn numbers_are_read_as_people_write_them() {
        for (unit, text, value) in [
            (Unit::Seconds, "5ms", 0.005),
            (Unit::Seconds, "1.4us", 1.4e-6),
            (Unit::Seconds, "0.25", 0.25),
            (Unit::Bytes, "8KiB", 8192.0),
            (Unit::Bytes, "65536", 65_536.0),
            (Unit::Count, "2M", 2e6),
            (Unit::PerSecond, "500k", 5e5),
            (Unit::PerSecond, "800/s", 800.0),
            (Unit::BytesPerSecond, "1.1GB/s", 1.1e9),
            (Unit::BytesPerSecond, "64MiB", 67_108_864.0),
            (Unit::Share, "5%", 0.05),
            (Unit::Cores, "0.9", 0.9),
        ] {
            assert_eq!(unit.read(text).unwrap(), value, "{text}");
        }
        for (unit, text) in [
            (Unit::Seconds, "5"), // Seconds need no unit.
            (Unit::Count, "0"),
        ] {
            unit.read(text).unwrap();
        }
    }

    #[test]
    fn what_is_not_a_number_is_refused_with_an_example() {
        for unit in ALL {
            for text in ["", "much", "5 parsecs", "-1", "NaN", "inf", "1e999"] {
                let refusal = unit.read(text).unwrap_err().to_string();
                assert!(refusal.contains("such as"), "{text:?} in {unit:?}: {refusal}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_number_never_takes_more_room_than_a_column(value in 0.0..1e12_f64) {
            for unit in ALL {
                // Nothing is measured for longer than some days.
                let shown = unit.show(if unit == Unit::Seconds { value / 1e6 } else { value });
                prop_assert!(!shown.contains("e+"), "{shown}");
                prop_assert!(shown.chars().count() <= 24, "{shown}");
            }
        }

        #[test]
        fn a_shown_time_reads_back_to_three_digits(nanos in 1_u64..80_000_000_000) {
            let value = Duration::from_nanos(nanos).as_secs_f64();
            let read = Unit::Seconds.read(&Unit::Seconds.show(value)).unwrap();
            prop_assert!((read / value - 1.0).abs() < 0.006, "{value} {read}");
        }

        #[test]
        fn no_text_makes_a_reader_panic(text in ".{0,20}") {
            for unit in ALL {
                let _read = unit.read(&text);
            }
        }
    }
}
