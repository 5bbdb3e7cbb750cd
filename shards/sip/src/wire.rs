//! How records of a journal are laid out: short integers, strings with their length, and a version before it all.

use crate::net::{ListenerId, Path, Transport};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use thiserror::Error;

/// A record that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Corrupt {
    #[error("the record ends early")]
    Short,
    #[error("the record has {0} bytes too many")]
    Long(usize),
    #[error("the record has a field that makes no sense: {0}")]
    Nonsense(&'static str),
    #[error("the record is of version {0}, which this program does not know")]
    Version(u64),
}

/// The first byte of an integer that is longer than a byte.
const LONG: u64 = 0xf8;
const OF_2: u8 = 0xf8;
const OF_4: u8 = 0xf9;
const OF_8: u8 = 0xfa;

/// Appends fields to a buffer.
#[derive(Debug)]
pub struct Writer<'a>(pub &'a mut Vec<u8>);

impl Writer<'_> {
    /// An integer: a byte, or how many follow and those.
    #[inline]
    pub fn uint(&mut self, n: u64) {
        if n < LONG { self.0.push(n as u8) } else { self.long(n) }
    }

    #[inline]
    fn long(&mut self, n: u64) {
        let [a, b, c, d, ..] = n.to_le_bytes();
        match n {
            0..=0xffff => self.0.extend_from_slice(&[OF_2, a, b]),
            0x1_0000..=0xffff_ffff => self.0.extend_from_slice(&[OF_4, a, b, c, d]),
            _ => {
                let mut bytes = [OF_8; 9];
                bytes[1..].copy_from_slice(&n.to_le_bytes());
                self.0.extend_from_slice(&bytes);
            }
        }
    }

    /// An integer that may be negative.
    #[inline]
    pub fn int(&mut self, n: i64) {
        self.uint(((n << 1) ^ (n >> 63)).cast_unsigned());
    }

    #[inline]
    pub fn u128(&mut self, n: u128) {
        self.0.extend_from_slice(&n.to_le_bytes());
    }

    #[inline]
    pub fn flag(&mut self, on: bool) {
        self.0.push(u8::from(on));
    }

    #[inline]
    pub fn bytes(&mut self, b: &[u8]) {
        self.uint(b.len() as u64);
        // Most are short: two copies of fixed size that overlap take less time than a call.
        match b.len() {
            8..16 => self.overlapping::<8>(b),
            16..32 => self.overlapping::<16>(b),
            32..64 => self.overlapping::<32>(b),
            _ => self.0.extend_from_slice(b),
        }
    }

    /// Appends from `N` to `2 * N` bytes.
    #[inline]
    fn overlapping<const N: usize>(&mut self, b: &[u8]) {
        if let (Some(first), Some(last)) = (b.first_chunk::<N>(), b.last_chunk::<N>()) {
            self.0.reserve(2 * N);
            self.0.extend_from_slice(first);
            self.0.truncate(self.0.len() + b.len() - 2 * N);
            self.0.extend_from_slice(last);
        }
    }

    #[inline]
    pub fn path(&mut self, path: &Path) {
        match path.remote.ip() {
            IpAddr::V4(ip) => self.bytes(&ip.octets()),
            IpAddr::V6(ip) => self.bytes(&ip.octets()),
        }
        self.uint(u64::from(path.remote.port()));
        self.uint(u64::from(path.listener.0));
        self.uint(path.transport as u64);
        self.uint(u64::from(path.conn));
    }

    /// A field that may be missing.
    #[inline]
    pub fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }
}

/// Takes fields from a record.
#[derive(Debug)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, Corrupt> {
        let (first, rest) = self.0.split_first().ok_or(Corrupt::Short)?;
        self.0 = rest;
        Ok(*first)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Corrupt> {
        let (bytes, rest) = self.0.split_first_chunk::<N>().ok_or(Corrupt::Short)?;
        self.0 = rest;
        Ok(*bytes)
    }

    pub fn uint(&mut self) -> Result<u64, Corrupt> {
        // Each has one way to be written.
        let (n, least) = match self.byte()? {
            n if u64::from(n) < LONG => return Ok(u64::from(n)),
            OF_2 => (u64::from(u16::from_le_bytes(self.array()?)), LONG),
            OF_4 => (u64::from(u32::from_le_bytes(self.array()?)), 1 << 16),
            OF_8 => (u64::from_le_bytes(self.array()?), 1 << 32),
            _ => return Err(Corrupt::Nonsense("integer")),
        };
        if n < least { Err(Corrupt::Nonsense("integer")) } else { Ok(n) }
    }

    /// An integer of a smaller type; `what` names the field.
    pub fn small<T: TryFrom<u64>>(&mut self, what: &'static str) -> Result<T, Corrupt> {
        T::try_from(self.uint()?).map_err(|_| Corrupt::Nonsense(what))
    }

    pub fn int(&mut self) -> Result<i64, Corrupt> {
        let n = self.uint()?;
        Ok((n >> 1).cast_signed() ^ -(n & 1).cast_signed())
    }

    pub fn u128(&mut self) -> Result<u128, Corrupt> {
        self.array().map(u128::from_le_bytes)
    }

    pub fn flag(&mut self) -> Result<bool, Corrupt> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Corrupt::Nonsense("flag")),
        }
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], Corrupt> {
        let len = self.small::<usize>("length")?;
        let (b, rest) = self.0.split_at_checked(len).ok_or(Corrupt::Short)?;
        self.0 = rest;
        Ok(b)
    }

    pub fn text(&mut self) -> Result<&'a str, Corrupt> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Corrupt::Nonsense("text"))
    }

    pub fn shared_text(&mut self) -> Result<Arc<str>, Corrupt> {
        self.text().map(Arc::from)
    }

    pub fn path(&mut self) -> Result<Path, Corrupt> {
        let ip = self.bytes()?;
        let ip = match (<[u8; 4]>::try_from(ip), <[u8; 16]>::try_from(ip)) {
            (Ok(v4), _) => IpAddr::from(v4),
            (_, Ok(v6)) => IpAddr::from(v6),
            _ => return Err(Corrupt::Nonsense("address")),
        };
        let remote = SocketAddr::new(ip, self.small("port")?);
        let listener = ListenerId(self.small("listener")?);
        let all = [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss];
        let transport = *all.get(self.small::<usize>("transport")?).ok_or(Corrupt::Nonsense("transport"))?;
        Ok(Path { remote, listener, transport, conn: self.small("connection")? })
    }

    pub fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Corrupt>) -> Result<Option<T>, Corrupt> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// [`Corrupt::Long`].
    pub fn end(self) -> Result<(), Corrupt> {
        if self.0.is_empty() { Ok(()) } else { Err(Corrupt::Long(self.0.len())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_as_they_were_written() {
        let mut buf = Vec::new();
        let mut w = Writer(&mut buf);
        let ends = [0, 0xf7, 0xffff, u64::from(u32::MAX), u64::MAX - 1];
        let numbers: Vec<u64> = ends.iter().flat_map(|n| [*n, n + 1]).collect();
        let signed = [0, -1, 1, i64::MIN, i64::MAX];
        numbers.iter().for_each(|n| w.uint(*n));
        signed.iter().for_each(|n| w.int(*n));
        w.u128(u128::MAX - 1);
        let paths = ["192.0.2.1:5060", "[2001:db8::1]:5061"]
            .map(|a| Path { conn: 7, ..Path::udp(a.parse().unwrap(), ListenerId(3)) });
        paths.iter().for_each(|p| w.path(p));
        w.bytes(b"a\0b");
        w.option(Some("x"), |w, x| w.bytes(x.as_bytes()));
        w.option(None::<u64>, Writer::uint);
        let mut r = Reader(&buf);
        assert!(numbers.iter().all(|n| r.uint() == Ok(*n)) && signed.iter().all(|n| r.int() == Ok(*n)));
        assert_eq!(r.u128(), Ok(u128::MAX - 1));
        assert!(paths.iter().all(|p| r.path() == Ok(*p)));
        assert_eq!(r.bytes(), Ok(&b"a\0b"[..]));
        assert_eq!((r.option(Reader::text), r.option(Reader::uint)), (Ok(Some("x")), Ok(None)));
        assert_eq!(r.end(), Ok(()));
    }

    #[test]
    fn strings_of_every_length_come_back() {
        let text: Vec<u8> = (0..150).collect();
        for len in 0..=text.len() {
            let mut buf = b"before".to_vec();
            Writer(&mut buf).bytes(&text[..len]);
            let mut r = Reader(&buf[6..]);
            assert_eq!((&buf[..6], r.bytes()), (&b"before"[..], Ok(&text[..len])));
            assert_eq!(r.end(), Ok(()));
        }
    }

    #[test]
    fn what_is_cut_or_makes_no_sense_is_said() {
        assert_eq!(Reader(&[OF_2, 0]).uint(), Err(Corrupt::Short));
        for long in
            [&[0xff; 10][..], &[OF_2, 0xf7, 0], &[OF_4, 0xff, 0xff, 0, 0], &[OF_8, 255, 255, 255, 255, 0, 0, 0, 0]]
        {
            assert_eq!(Reader(long).uint(), Err(Corrupt::Nonsense("integer")));
        }
        assert_eq!(Reader(&[5, 1]).bytes(), Err(Corrupt::Short));
        assert_eq!(Reader(&[2]).flag(), Err(Corrupt::Nonsense("flag")));
        assert_eq!(Reader(&[OF_2, 0, 1]).small::<u8>("n"), Err(Corrupt::Nonsense("n")));
        assert_eq!(Reader(&[1]).end(), Err(Corrupt::Long(1)));
    }
}
