//! Searching short runs of bytes. What is looked for in a header value stands a few bytes away: the call of a library's
//! search costs more than it saves there (`memchr` serves where runs are long).

/// `byte` in each place of a word.
const fn splat(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// A word whose lowest high bit stands at the first zero byte of `w`; 0 where there is none.
const fn zeros(w: u64) -> u64 {
    w.wrapping_sub(splat(1)) & !w & splat(0x80)
}

/// Index of the first byte of `s` for which `word`, of eight bytes, or `one`, of one, says so.
#[inline(always)]
fn first(s: &[u8], word: impl Fn(u64) -> u64, one: impl Fn(u8) -> bool) -> Option<usize> {
    let Some(last) = s.last_chunk::<8>() else { return s.iter().position(|b| one(*b)) };
    let at = |hit: u64| hit.trailing_zeros() as usize / 8;
    for (i, bytes) in s.as_chunks::<8>().0.iter().enumerate() {
        let hit = word(u64::from_le_bytes(*bytes));
        if hit != 0 {
            return Some(i * 8 + at(hit));
        }
    }
    // The last eight, some of which have been looked at in vain.
    let hit = word(u64::from_le_bytes(*last));
    (hit != 0).then(|| s.len() - 8 + at(hit))
}

/// Index of the first `a`.
#[inline]
pub(crate) fn find(a: u8, s: &[u8]) -> Option<usize> {
    first(s, |w| zeros(w ^ splat(a)), |b| b == a)
}

/// Index of the first `a` or `b`.
#[inline]
pub(crate) fn find2(a: u8, b: u8, s: &[u8]) -> Option<usize> {
    // Lowest first: what stands above a hit does not count.
    first(s, |w| zeros(w ^ splat(a)) | zeros(w ^ splat(b)), |c| c == a || c == b)
}

/// Index of the first `a`, `b` or `c`.
#[inline]
pub(crate) fn find3(a: u8, b: u8, c: u8, s: &[u8]) -> Option<usize> {
    let word = |w| zeros(w ^ splat(a)) | zeros(w ^ splat(b)) | zeros(w ^ splat(c));
    first(s, word, |x| x == a || x == b || x == c)
}

/// `token` of RFC 3261 section 25.1.
pub(crate) const TOKEN: u8 = 1;
/// What a host name is written with.
pub(crate) const HOST: u8 = 2;
/// What stands in no URI: blanks, controls, quotes, angle brackets.
pub(crate) const NO_URI: u8 = 4;
/// What a display name without quotes is written with.
pub(crate) const DISPLAY: u8 = 8;
/// Space, tab, line end, form feed.
pub(crate) const BLANK: u8 = 16;

static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut i = 0;
    while i < 256 {
        let b = i as u8;
        let alphanumeric = b.is_ascii_alphanumeric();
        if alphanumeric || matches!(b, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~') {
            classes[i] |= TOKEN | DISPLAY;
        }
        if matches!(b, b' ' | b'\t' | b'\r' | b'\n' | b'@' | b'/' | b':' | 0x80..) {
            classes[i] |= DISPLAY;
        }
        if alphanumeric || matches!(b, b'.' | b'-' | b'_') {
            classes[i] |= HOST;
        }
        if b.is_ascii_whitespace() {
            classes[i] |= BLANK;
        }
        if b <= b' ' || matches!(b, 0x7f | b'<' | b'>' | b'"') {
            classes[i] |= NO_URI;
        }
        i += 1;
    }
    classes
};

/// Whether every byte is of the class.
#[inline]
pub(crate) fn all_of(class: u8, s: &[u8]) -> bool {
    s.iter().fold(class, |kept, b| kept & CLASSES[usize::from(*b)]) != 0
}

/// Index of the first byte of the class.
#[inline]
pub(crate) fn position(class: u8, s: &[u8]) -> Option<usize> {
    s.iter().position(|b| CLASSES[usize::from(*b)] & class != 0)
}

/// Whether some byte is of the class.
#[inline]
pub(crate) fn any_of(class: u8, s: &[u8]) -> bool {
    s.iter().fold(0, |seen, b| seen | CLASSES[usize::from(*b)]) & class != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Few values, so that neighbours of what is looked for (one less, with the high bit) stand beside it.
        #[test]
        fn searches_find_what_a_loop_finds(s in proptest::collection::vec(prop_oneof![0u8..4, 0x7eu8..0x83, any::<u8>()], 0..40), a: u8, b in 0u8..4, c in 0x7eu8..0x83) {
            for x in [a, b, c] {
                prop_assert_eq!(find(x, &s), s.iter().position(|y| *y == x));
                prop_assert_eq!(find2(x, c, &s), s.iter().position(|y| [x, c].contains(y)));
            }
            prop_assert_eq!(find3(a, b, c, &s), s.iter().position(|y| [a, b, c].contains(y)));
        }
    }

    #[test]
    fn classes_are_those_of_the_grammar() {
        assert!(
            all_of(TOKEN, b"a-.!%*_+`'~9Z") && !all_of(TOKEN, b"a b") && !all_of(TOKEN, b"a@b") && all_of(TOKEN, b"")
        );
        assert!(
            all_of(HOST, b"a-b_c.9")
                && !all_of(HOST, b"a:b")
                && !all_of(HOST, b"[::1]")
                && !all_of(HOST, "ä".as_bytes())
        );
        assert!(
            any_of(NO_URI, b"sip:a b") && any_of(NO_URI, b"a\x7f") && any_of(NO_URI, b"\0") && any_of(NO_URI, b"<")
        );
        assert!(!any_of(NO_URI, "sip:ä@b;x=y?h".as_bytes()) && !any_of(NO_URI, b""));
        assert!(all_of(DISPLAY, b"Bob's \t@/: x") && all_of(DISPLAY, "ä".as_bytes()) && !all_of(DISPLAY, b"a,b"));
    }
}
