//! Numbers, times and texts as the report writes them.

use std::time::SystemTime;

/// Text as HTML: nothing in it is markup.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML knows no other control characters.
            c if c.is_control() && !matches!(c, '\n' | '\t') => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// Three digits that count: `0.42`, `17.3`, `1 204`.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 100.0 || value == value.trunc() {
        grouped(value.round() as i64)
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// Thousands apart (by a narrow space).
pub fn grouped(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|part| std::str::from_utf8(part).ok()).collect();
    let sign = if value < 0 { "\u{2212}" } else { "" };
    format!("{sign}{}", groups.join("\u{202f}"))
}

/// A latency: `850 µs`, `1.25 ms`, `2.1 s`.
pub fn latency(micros: f64) -> String {
    match micros {
        m if m < 999.5 => format!("{}\u{a0}µs", number(m)),
        m if m < 999_500.0 => format!("{}\u{a0}ms", trimmed(m / 1e3)),
        m => format!("{}\u{a0}s", trimmed(m / 1e6)),
    }
}

/// As [`number`], without zeros at the end.
pub fn trimmed(value: f64) -> String {
    let text = number(value);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A rate or count on an axis: `0`, `250`, `2k`, `1.5M`.
pub fn tick(value: f64) -> String {
    match value.abs() {
        v if v >= 1e6 => format!("{}M", trimmed(value / 1e6)),
        v if v >= 10_000.0 => format!("{}k", trimmed(value / 1e3)),
        _ => trimmed(value),
    }
}

/// A moment in UTC: `2026-11-23 00:10 UTC`.
pub fn moment(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01, in eras of 400 years (Howard Hinnant, "chrono-compatible low-level date algorithms").
    let since = days + 719_468;
    let (era, day_of_era) = (since / 146_097, since % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", second / 3600, second / 60 % 60)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn numbers_are_short_and_exact_enough() {
        assert_eq!([number(0.4231), number(17.26), number(3.0)], ["0.42", "17.3", "3"]);
        assert_eq!(number(1_204_567.4), "1\u{202f}204\u{202f}567");
        assert_eq!(grouped(-1234), "\u{2212}1\u{202f}234");
        assert_eq!(
            [latency(850.0), latency(1250.0), latency(2_100_000.0)],
            ["850\u{a0}µs", "1.25\u{a0}ms", "2.1\u{a0}s"]
        );
        assert_eq!(latency(999.9), "1\u{a0}ms");
        assert_eq!([tick(0.0), tick(2500.0), tick(20_000.0), tick(1.5e6)], ["0", "2\u{202f}500", "20k", "1.5M"]);
    }

    #[test]
    fn markup_in_texts_is_none() {
        assert_eq!(escape("<a href=\"x\">&\u{7}"), "&lt;a href=&quot;x&quot;&gt;&amp; ");
    }

    #[test]
    fn moments_are_dates() {
        let at = |seconds| moment(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01 00:00 UTC");
        assert_eq!(at(1_709_164_799), "2024-02-28 23:59 UTC");
        assert_eq!(at(1_709_164_800), "2024-02-29 00:00 UTC");
        assert_eq!(at(1_795_392_600), "2026-11-23 00:10 UTC");
    }
}
