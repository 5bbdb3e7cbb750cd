//! How records of a journal are laid out: integers in LEB128, strings with their length, and a version before it all.

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

/// Appends fields to a buffer.
#[derive(Debug)]
pub struct Writer<'a>(pub &'a mut Vec<u8>);

impl Writer<'_> {
    /// An integer.
    #[inline]
    pub fn uint(&mut self, n: u64) {
        if n < 0x80 { self.0.push(n as u8) } else { self.long(n) }
    }

    fn long(&mut self, mut n: u64) {
        let mut bytes = [0; 10];
        let mut len = 0;
        while n >= 0x80 {
            bytes[len] = n as u8 | 0x80;
            n >>= 7;
            len += 1;
        }
        bytes[len] = n as u8;
        self.0.extend_from_slice(&bytes[..=len]);
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
        self.0.extend_from_slice(b);
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

    pub fn uint(&mut self) -> Result<u64, Corrupt> {
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return Err(Corrupt::Nonsense("integer"));
            }
            n |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(n);
            }
        }
        Err(Corrupt::Nonsense("integer"))
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
        let (n, rest) = self.0.split_first_chunk::<16>().ok_or(Corrupt::Short)?;
        self.0 = rest;
        Ok(u128::from_le_bytes(*n))
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
        let numbers = [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX];
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
    fn what_is_cut_or_makes_no_sense_is_said() {
        assert_eq!(Reader(&[0x80]).uint(), Err(Corrupt::Short));
        assert_eq!(Reader(&[0xff; 10]).uint(), Err(Corrupt::Nonsense("integer")));
        assert_eq!(Reader(&[5, 1]).bytes(), Err(Corrupt::Short));
        assert_eq!(Reader(&[2]).flag(), Err(Corrupt::Nonsense("flag")));
        assert_eq!(Reader(&[0x80, 0x02]).small::<u8>("n"), Err(Corrupt::Nonsense("n")));
        assert_eq!(Reader(&[1]).end(), Err(Corrupt::Long(1)));
    }
}
