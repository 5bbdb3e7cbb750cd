//! Patterns of conditions: exact text, glob, regular expression, network.

use super::Captured;
use super::request::Field;
use regex::bytes::{CaptureLocations, Regex, RegexBuilder};
use std::net::IpAddr;

#[derive(Debug, Clone)]
pub(super) enum Pattern {
    Exact {
        text: Box<[u8]>,
        fold: bool,
    },
    /// A glob is one, too.
    Regex {
        regex: Regex,
        at: CaptureLocations,
    },
    /// Addresses whose first `bits` are those of `addr`.
    Network {
        addr: IpAddr,
        bits: u8,
    },
}

impl Pattern {
    /// Compiles what is written for a field; the error says what to do.
    pub(super) fn compile(text: &str, field: Field) -> Result<Pattern, String> {
        let fold = field.folds_case();
        if let Some(regex) = text.strip_prefix('~') {
            return regex_of(regex, fold);
        }
        let exact = text.strip_prefix('=');
        if field == Field::Source
            && let Some(network) = network(exact.unwrap_or(text))?
        {
            return Ok(network);
        }
        let plain = |text: &str| Pattern::Exact { text: text.as_bytes().into(), fold };
        if let Some(exact) = exact {
            return Ok(plain(exact));
        }
        let (mut regex, mut literal, mut wild) = (String::from("(?s-u)^"), String::new(), false);
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '*' | '?' => {
                    wild = true;
                    regex.push_str(if c == '*' { "(.*)" } else { "(.)" });
                }
                _ => {
                    let c = match c {
                        '\\' => {
                            chars.next().ok_or("ends in a backslash, which takes the meaning from what follows it")?
                        }
                        c => c,
                    };
                    literal.push(c);
                    let mut bytes = [0; 4];
                    // Bytes, for a value need not be UTF-8.
                    c.encode_utf8(&mut bytes).bytes().for_each(|b| regex.push_str(&format!("\\x{b:02X}")));
                }
            }
        }
        regex.push('$');
        if wild { regex_of(&regex, fold) } else { Ok(plain(&literal)) }
    }

    /// The names of its captures, in order.
    pub(super) fn names(&self) -> Vec<Option<Box<str>>> {
        match self {
            Pattern::Regex { regex, .. } => regex.capture_names().skip(1).map(|n| n.map(Into::into)).collect(),
            _ => vec![],
        }
    }

    /// Whether the value matches; then its captures are kept.
    pub(super) fn matches(&mut self, value: &[u8], captured: &mut Captured) -> bool {
        match self {
            Pattern::Exact { text, fold: false } => **text == *value,
            Pattern::Exact { text, fold: true } => text.eq_ignore_ascii_case(value),
            Pattern::Regex { regex, at } if at.len() == 1 => regex.is_match(value),
            Pattern::Regex { regex, at } => {
                if regex.captures_read(at, value).is_none() {
                    return false;
                }
                for group in 1..at.len() {
                    let kept = at.get(group).map(|(from, to)| captured.keep(&value[from..to]));
                    captured.groups.push(kept);
                }
                true
            }
            Pattern::Network { .. } => false,
        }
    }

    pub(super) fn is_network(&self) -> bool {
        matches!(self, Pattern::Network { .. })
    }

    pub(super) fn contains(&self, ip: IpAddr) -> bool {
        match self {
            Pattern::Network { addr, bits } => same_family(*addr, ip) && masked(*addr, *bits) == masked(ip, *bits),
            _ => false,
        }
    }
}

fn regex_of(text: &str, fold: bool) -> Result<Pattern, String> {
    let regex = RegexBuilder::new(text).case_insensitive(fold).build().map_err(|e| {
        // The last line says what is wrong; those before it draw where.
        let why = e.to_string();
        let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        format!("`{text}` is not a regular expression: {why}")
    })?;
    let at = regex.capture_locations();
    Ok(Pattern::Regex { regex, at })
}

/// An address, or ADDR/BITS; `None`: something else.
fn network(text: &str) -> Result<Option<Pattern>, String> {
    if let Ok(addr) = text.parse::<IpAddr>() {
        let addr = addr.to_canonical();
        return Ok(Some(Pattern::Network { addr, bits: width(addr) }));
    }
    let Some((addr, bits)) = text.split_once('/') else { return Ok(None) };
    let form = || format!("`{text}` is not of the form ADDR/BITS, such as 10.0.0.0/8 or 2001:db8::/32");
    let addr: IpAddr = addr.parse().map_err(|_| form())?;
    let bits: u8 = bits.parse().ok().filter(|b| *b <= width(addr)).ok_or_else(form)?;
    if masked(addr, bits) != masked(addr, width(addr)) {
        return Err(format!("`{text}` has bits set behind its first {bits}; write {}/{bits}", cut(addr, bits)));
    }
    Ok(Some(Pattern::Network { addr, bits }))
}

const fn width(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}

const fn same_family(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4()
}

/// The first bits of an address, at the top of 128.
fn masked(addr: IpAddr, bits: u8) -> u128 {
    let all = match addr {
        IpAddr::V4(a) => u128::from(a.to_bits()) << 96,
        IpAddr::V6(a) => a.to_bits(),
    };
    if bits == 0 { 0 } else { all & (u128::MAX << (128 - u32::from(bits.min(128)))) }
}

fn cut(addr: IpAddr, bits: u8) -> IpAddr {
    let kept = masked(addr, bits);
    match addr {
        IpAddr::V4(_) => IpAddr::V4(u32::try_from(kept >> 96).unwrap_or(0).into()),
        IpAddr::V6(_) => IpAddr::V6(kept.into()),
    }
}
