//! `;name=value` parameters, read when asked for.

use super::text::{end_of_quote, find_top, trim, trim_end, trim_start};
use crate::bytes::{find, find3};

/// The parameters behind a header value or URI; starts at the first `;` or is empty. Quote-aware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Params<'a>(pub(crate) &'a [u8]);

impl<'a> Params<'a> {
    /// Parameters in `bytes`, which begins with `;` (blanks before it allowed) or is empty.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Params<'a> {
        Params(trim(bytes))
    }

    /// The bytes, with the leading `;`.
    #[must_use]
    pub const fn raw(&self) -> &'a [u8] {
        self.0
    }

    /// Value of `name` (any case): None when absent, `Some(None)` when it has no value. Surrounding quotes are
    /// taken off, backslash escapes inside stay (see [`super::unescape`]).
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Option<&'a [u8]>> {
        self.pieces().find_map(|piece| {
            let (head, rest) = piece.split_at_checked(name.len())?;
            if !head.eq_ignore_ascii_case(name.as_bytes()) {
                return None;
            }
            match trim_start(rest) {
                [] => Some(None),
                [b'=', value @ ..] => Some(Some(unquote(trim_start(value)))),
                _ => None,
            }
        })
    }

    /// Value of `name` where it has one.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&'a [u8]> {
        self.get(name).flatten()
    }

    /// Whether `name` is there, with or without a value.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Name and value of each, in order; empty ones (`;;`) are skipped.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        self.pieces().map(|piece| match find(b'=', piece) {
            Some(at) => (trim_end(&piece[..at]), Some(unquote(trim_start(&piece[at + 1..])))),
            None => (piece, None),
        })
    }

    /// Whether what is put behind them stands by itself: a quote that opens must close, and a bracket outside of quotes has no
    /// place there.
    pub(crate) fn is_closed(&self) -> bool {
        let mut rest = self.0;
        while let Some(at) = find3(b'"', b'<', b'>', rest) {
            match end_of_quote(rest, at).filter(|_| rest[at] == b'"') {
                Some(end) => rest = &rest[end + 1..],
                None => return false,
            }
        }
        true
    }

    /// Each parameter as it stands, trimmed, without `;`.
    pub fn pieces(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            loop {
                rest = trim_start(rest);
                rest = rest.strip_prefix(b";")?;
                let end = find_top(rest, b';').unwrap_or(rest.len());
                let piece = trim(&rest[..end]);
                rest = &rest[end..];
                if !piece.is_empty() {
                    return Some(piece);
                }
            }
        })
    }
}

fn unquote(v: &[u8]) -> &[u8] {
    match v {
        [b'"', inner @ .., b'"'] => inner,
        _ => v,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_values_quotes_and_blanks() {
        let p = Params::new(b" ; Tag = ab ;lr;q=\"a;b=\\\"c\";;empty=");
        assert_eq!(p.get("tag"), Some(Some(&b"ab"[..])));
        assert_eq!(p.get("LR"), Some(None));
        assert_eq!(p.value("q"), Some(&b"a;b=\\\"c"[..]));
        assert_eq!(p.value("empty"), Some(&b""[..]));
        assert_eq!(p.get("b"), None);
        assert_eq!(p.iter().count(), 4);
        assert_eq!(Params::new(b"").iter().count(), 0);
        assert_eq!(Params::new(b"junk;lr").iter().count(), 0, "must begin with a semicolon");
    }
}
