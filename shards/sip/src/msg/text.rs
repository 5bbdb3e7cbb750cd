//! Byte helpers of the SIP grammar (RFC 3261 section 25): blanks, folds, tokens, quotes, numbers, escapes.

use crate::bytes::{self, find, find2, find3};
use std::borrow::Cow;

/// Blank inside a header value: space, tab, or a byte of a folded line end.
pub(crate) const fn is_blank(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | b'\r' | b'\n')
}

/// Whether a blank is anywhere in `s`.
pub(crate) fn has_blank(s: &[u8]) -> bool {
    find3(b' ', b'\t', b'\n', s).is_some() || find(b'\r', s).is_some()
}

/// Without leading and trailing blanks and folds.
#[must_use]
pub fn trim(s: &[u8]) -> &[u8] {
    trim_end(trim_start(s))
}

pub(crate) fn trim_start(mut s: &[u8]) -> &[u8] {
    while let [b, rest @ ..] = s
        && is_blank(*b)
    {
        s = rest;
    }
    s
}

pub(crate) fn trim_end(mut s: &[u8]) -> &[u8] {
    while let [rest @ .., b] = s
        && is_blank(*b)
    {
        s = rest;
    }
    s
}

/// `token` of RFC 3261: method and parameter names.
pub(crate) fn is_token(s: &[u8]) -> bool {
    !s.is_empty() && bytes::all_of(bytes::TOKEN, s)
}

/// A decimal number of digits only; None when it is none or does not fit.
#[must_use]
pub fn number(s: &[u8]) -> Option<u32> {
    if s.is_empty() {
        return None;
    }
    s.iter().try_fold(0u32, |n, b| {
        if !b.is_ascii_digit() {
            return None;
        }
        n.checked_mul(10)?.checked_add(u32::from(b - b'0'))
    })
}

/// A delta-seconds value: digits, clamped to `u32::MAX` where they overflow (RFC 3261 section 20.19).
pub(crate) fn clamped_number(s: &[u8]) -> Option<u32> {
    if s.is_empty() || !s.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(number(s).unwrap_or(u32::MAX))
}

/// Splits at the first `byte` that stands outside quoted strings and angle brackets; an unclosed quote or
/// bracket reaches to the end.
pub(crate) fn split_top(s: &[u8], byte: u8) -> (&[u8], Option<&[u8]>) {
    match find_top(s, byte) {
        Some(at) => (&s[..at], Some(&s[at + 1..])),
        None => (s, None),
    }
}

/// Index of the first top-level `byte`; see [`split_top`].
pub(crate) fn find_top(s: &[u8], byte: u8) -> Option<usize> {
    let candidate = find(byte, s)?;
    // Most values hold neither quote nor bracket before the candidate.
    if find2(b'"', b'<', &s[..candidate]).is_none() {
        return Some(candidate);
    }
    let mut at = 0;
    while at < s.len() {
        match s[at] {
            b'"' => at = end_of_quote(s, at)?,
            b'<' => at += find(b'>', &s[at..])?,
            b if b == byte => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

/// Index of the quote that closes the one at `open`.
pub(crate) fn end_of_quote(s: &[u8], open: usize) -> Option<usize> {
    let mut at = open + 1;
    loop {
        at += find2(b'"', b'\\', s.get(at..)?)?;
        if s[at] == b'"' {
            return Some(at);
        }
        at += 2;
    }
}

/// Appends `value` with each fold (line end plus blanks, RFC 3261 section 7.3.1) and each stray CR or LF
/// replaced by one space, so that what is written is one line whatever came in.
pub fn unfold(value: &[u8], out: &mut Vec<u8>) {
    let mut rest = value;
    while let Some(at) = find2(b'\r', b'\n', rest) {
        out.extend_from_slice(trim_end(&rest[..at]));
        out.push(b' ');
        rest = trim_start(&rest[at..]);
    }
    out.extend_from_slice(rest);
}

/// Percent-decoded user part (RFC 3261 section 19.1.2): `%41` is `A`; a `%` that two hex digits do not follow
/// stays. Allocates only when something is escaped.
#[must_use]
pub fn percent_decode(s: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = find(b'%', s) else { return Cow::Borrowed(s) };
    let mut out = Vec::with_capacity(s.len());
    out.extend_from_slice(&s[..first]);
    let mut rest = &s[first..];
    while let [b, tail @ ..] = rest {
        if let (b'%', [h, l, after @ ..]) = (b, tail)
            && let (Some(h), Some(l)) = (hex(*h), hex(*l))
        {
            out.push(h * 16 + l);
            rest = after;
        } else {
            out.push(*b);
            rest = tail;
        }
    }
    Cow::Owned(out)
}

/// The text of a quoted string's inside: backslash escapes resolved (RFC 3261 section 25.1 `quoted-pair`).
/// Allocates only when something is escaped.
#[must_use]
pub fn unescape(s: &[u8]) -> Cow<'_, [u8]> {
    if find(b'\\', s).is_none() {
        return Cow::Borrowed(s);
    }
    let mut out = Vec::with_capacity(s.len());
    let mut bytes = s.iter();
    while let Some(b) = bytes.next() {
        out.push(if *b == b'\\' { *bytes.next().unwrap_or(b) } else { *b });
    }
    Cow::Owned(out)
}

pub(crate) const fn hex(b: u8) -> Option<u8> {
    match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        b'A'..=b'F' => Some(b - b'A' + 10),
        _ => None,
    }
}

/// Appends `n` in decimal, without allocating.
pub fn push_number(n: u64, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut n = n;
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_top_skips_quotes_and_brackets() {
        assert_eq!(find_top(b"a,b", b','), Some(1));
        assert_eq!(find_top(br#""a,\",b" <sip:x,y>,c"#, b','), Some(18));
        assert_eq!(find_top(br#""open, quote"#, b','), None);
        assert_eq!(find_top(b"<sip:open,bracket", b','), None);
        assert_eq!(find_top(br#""trailing backslash\"#, b'"'), Some(0));
    }

    #[test]
    fn unfold_leaves_one_line() {
        let mut out = Vec::new();
        unfold(b"a \r\n\t b\n c\rd", &mut out);
        assert_eq!(out, b"a b c d");
    }

    #[test]
    fn escapes() {
        assert_eq!(percent_decode(b"a%42c%4").as_ref(), b"aBc%4");
        assert!(matches!(percent_decode(b"abc"), Cow::Borrowed(_)));
        assert_eq!(unescape(br#"a\"b\\c\"#).as_ref(), br#"a"b\c\"#);
    }

    #[test]
    fn numbers() {
        assert_eq!(number(b"0068"), Some(68));
        assert_eq!(number(b"4294967296"), None);
        assert_eq!(number(b""), None);
        assert_eq!(number(b"-1"), None);
        assert_eq!(clamped_number(b"99999999999999999999"), Some(u32::MAX));
        let mut out = Vec::new();
        push_number(0, &mut out);
        push_number(u64::MAX, &mut out);
        assert_eq!(out, b"018446744073709551615");
    }
}
