//! Times as RFC 3339 writes them, in UTC: `2026-11-22T05:00:26.123Z`.

use crate::control::clock::civil;

/// Milliseconds of Unix time.
pub(super) fn written(unix_ms: u64) -> String {
    let (s, ms) = (unix_ms / 1000, unix_ms % 1000);
    let (year, month, day) = civil(s / 86_400);
    let of_day = s % 86_400;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{ms:03}Z", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

/// Microseconds of Unix time. A date alone is its midnight; without an offset it is UTC.
///
/// # Errors
/// Says what form is expected.
pub(super) fn read(text: &str) -> Result<u64, String> {
    parsed(text.trim())
        .ok_or_else(|| "expected a time such as 2026-11-22T05:00:26Z, or a date; not before 1970".to_owned())
}

fn parsed(text: &str) -> Option<u64> {
    let (date, time) = text.split_once(['T', 't', ' ']).unwrap_or((text, "00:00:00Z"));
    let (clock, offset) = zone(time)?;
    let mut parts = date.splitn(3, '-').map(number);
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let days = days(year, month, day)?;
    let (whole, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut parts = whole.splitn(3, ':').map(number);
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next().unwrap_or(Some(0))?);
    if hour > 23 || minute > 59 || second > 60 || fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let us: String = fraction.chars().chain("000000".chars()).take(6).collect();
    let s = i64::try_from(days * 86_400 + hour * 3600 + minute * 60 + second).ok()? - offset;
    u64::try_from(s).ok()?.checked_mul(1_000_000)?.checked_add(us.parse().ok()?)
}

/// The time without its offset, and the offset in seconds east of UTC.
fn zone(time: &str) -> Option<(&str, i64)> {
    if let Some(clock) = time.strip_suffix(['Z', 'z']) {
        return Some((clock, 0));
    }
    let Some(at) = time.rfind(['+', '-']) else { return Some((time, 0)) };
    let (clock, offset) = time.split_at(at);
    let (hours, minutes) = offset[1..].split_once(':')?;
    let east = i64::try_from(number(hours)?.checked_mul(3600)?.checked_add(number(minutes)? * 60)?).ok()?;
    (east <= 86_400).then_some((clock, if offset.starts_with('-') { -east } else { east }))
}

/// Digits, at most six.
fn number(text: &str) -> Option<u64> {
    if (1..=6).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// From 1970-01-01 to a date that the calendar has.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // No date is further from its place in years of 366 days and months of 31: count on from a little before it.
    let from = (year - 1970) * 365 + (month - 1) * 28;
    (from..from + 60 + (year - 1970) / 4).find(|days| civil(*days) == (year, month, day))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_written() {
        for ms in [0, 1_795_323_626_123, 951_868_799_999, 4_102_444_800_000, 253_402_300_799_000] {
            assert_eq!(read(&written(ms)), Ok(ms * 1000), "{}", written(ms));
        }
        assert_eq!(written(1_795_323_626_007), "2026-11-22T05:00:26.007Z");
    }

    #[test]
    fn dates_offsets_and_fractions_are_understood_and_nonsense_is_not() {
        let at = 1_795_323_626_000_000;
        for text in
            ["2026-11-22T05:00:26Z", "2026-11-22 05:00:26", "2026-11-22t07:30:26+02:30", "2026-11-21T23:00:26-06:00"]
        {
            assert_eq!(read(text), Ok(at), "{text}");
        }
        assert_eq!(read("2026-11-22T05:00:26.5Z"), Ok(at + 500_000));
        assert_eq!(read("2026-11-22"), read("2026-11-22T00:00Z"));
        assert_eq!(read("2000-02-29"), Ok(951_782_400_000_000));
        assert_eq!(read("9999-12-31"), Ok(253_402_214_400_000_000));
        for text in [
            "",
            "yesterday",
            "2026-02-29",
            "2026-13-01",
            "1969-12-31",
            "2026-11-22T24:00Z",
            "2026-11-22T05",
            "2026-11-22T05:00:26.Z",
            "2026-11-22T05:00+2",
            "1970-01-01T00:00+01:00",
            "2026-1é-22",
            "99999999999999999999-01-01",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
