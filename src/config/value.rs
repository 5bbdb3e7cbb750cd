//! Types of configuration values: each reads itself from TOML, checks itself, and writes itself back.

use crate::control::fronts::MiSocket;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use strowger_dispatch::ChatPolicy;
use strowger_engine::AgentOffer;
use strowger_sip::net::Transport;
use toml::de::DeValue;

/// A value of a configuration key.
pub trait Value: Sized + PartialEq {
    /// Reads the value; the error says what is expected.
    fn read(v: &DeValue<'_>) -> Result<Self, String>;
    /// As it stands in a TOML file.
    fn show(&self) -> String;
}

/// A TOML basic string.
pub fn quoted(s: &str) -> String {
    toml::Value::String(s.to_owned()).to_string()
}

fn integer(v: &DeValue<'_>) -> Result<i64, String> {
    let i = v.as_integer().ok_or_else(|| format!("expected a whole number, found {}", v.type_str()))?;
    i64::from_str_radix(i.as_str(), i.radix()).map_err(|_| format!("the number {} is out of range", i.as_str()))
}

pub(super) fn text<'a>(v: &'a DeValue<'_>) -> Result<&'a str, String> {
    v.as_str().ok_or_else(|| format!("expected a string in quotes, found {}", v.type_str()))
}

impl Value for String {
    fn read(v: &DeValue<'_>) -> Result<String, String> {
        text(v).map(str::to_owned)
    }
    fn show(&self) -> String {
        quoted(self)
    }
}

impl Value for PathBuf {
    fn read(v: &DeValue<'_>) -> Result<PathBuf, String> {
        let s = text(v)?;
        if s.is_empty() { Err("the path is empty".to_owned()) } else { Ok(PathBuf::from(s)) }
    }
    fn show(&self) -> String {
        quoted(&self.to_string_lossy())
    }
}

impl Value for f64 {
    fn read(v: &DeValue<'_>) -> Result<f64, String> {
        let number = v.as_float().map(|f| f.as_str()).or_else(|| v.as_integer().map(|i| i.as_str()));
        let number = number.and_then(|s| s.parse::<f64>().ok()).filter(|f| f.is_finite() && *f >= 0.0);
        number.ok_or_else(|| "expected a number, 0 or more".to_owned())
    }
    fn show(&self) -> String {
        format!("{self:?}")
    }
}

impl<T: Value> Value for Vec<T> {
    fn read(v: &DeValue<'_>) -> Result<Vec<T>, String> {
        match v.as_array() {
            Some(items) => items.iter().map(|i| T::read(i.get_ref())).collect(),
            None => T::read(v).map(|one| vec![one]).map_err(|e| format!("{e} (a list is written [..])")),
        }
    }
    fn show(&self) -> String {
        format!("[{}]", self.iter().map(Value::show).collect::<Vec<_>>().join(", "))
    }
}

/// "" is none.
impl<T: Value> Value for Option<T> {
    fn read(v: &DeValue<'_>) -> Result<Option<T>, String> {
        if v.as_str() == Some("") { Ok(None) } else { T::read(v).map(Some) }
    }
    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "\"\"".to_owned(), Value::show)
    }
}

/// On or off: a boolean, or an integer of which 0 is off (as the manuals write it).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switch(pub bool);

impl Value for Switch {
    fn read(v: &DeValue<'_>) -> Result<Switch, String> {
        if let Some(b) = v.as_bool() {
            return Ok(Switch(b));
        }
        integer(v).map(|i| Switch(i != 0)).map_err(|_| format!("expected 0, 1, true or false, found {}", v.type_str()))
    }
    fn show(&self) -> String {
        u8::from(self.0).to_string()
    }
}

/// A string; a number or a boolean (1, 0) stands for its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scalar(pub String);

impl Value for Scalar {
    fn read(v: &DeValue<'_>) -> Result<Scalar, String> {
        if let Some(b) = v.as_bool() {
            return Ok(Scalar(u8::from(b).to_string()));
        }
        if v.as_integer().is_some() {
            return integer(v).map(|i| Scalar(i.to_string()));
        }
        text(v).map(|s| Scalar(s.to_owned()))
    }
    fn show(&self) -> String {
        if self.0.parse::<i64>().is_ok() { self.0.clone() } else { quoted(&self.0) }
    }
}

/// A whole number from `LO` to `HI`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole<const LO: u64, const HI: u64>(pub u64);

impl<const LO: u64, const HI: u64> Whole<LO, HI> {
    /// As u32 (`HI` decides whether all fits; beyond it, the largest).
    #[must_use]
    pub fn u32(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }
    /// As u16.
    #[must_use]
    pub fn u16(self) -> u16 {
        u16::try_from(self.0).unwrap_or(u16::MAX)
    }
    /// As usize.
    #[must_use]
    pub fn usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl<const LO: u64, const HI: u64> Value for Whole<LO, HI> {
    fn read(v: &DeValue<'_>) -> Result<Self, String> {
        let i = integer(v)?;
        match u64::try_from(i) {
            Ok(n) if (LO..=HI).contains(&n) => Ok(Whole(n)),
            _ => Err(format!("{i} is out of range, expected {LO} to {HI}")),
        }
    }
    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// A length of time, written in seconds, whole or decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seconds {
    pub us: u64,
}

impl Seconds {
    /// Whole seconds.
    #[must_use]
    pub const fn new(s: u64) -> Seconds {
        Seconds { us: s * 1_000_000 }
    }
}

impl Value for Seconds {
    fn read(v: &DeValue<'_>) -> Result<Seconds, String> {
        const MOST: f64 = 10.0 * 365.0 * 86_400.0;
        let number = v.as_float().map(|f| f.as_str()).or_else(|| v.as_integer().map(|i| i.as_str()));
        let s = number.and_then(|s| s.parse::<f64>().ok()).filter(|s| (0.0..=MOST).contains(s));
        let s = s.ok_or_else(|| "expected a number of seconds, 0 or more, such as 30 or 0.5".to_owned())?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // checked to be in 0..=MOST
        let us = (s * 1e6).round() as u64;
        Ok(Seconds { us })
    }
    fn show(&self) -> String {
        if self.us.is_multiple_of(1_000_000) {
            (self.us / 1_000_000).to_string()
        } else {
            let s = format!("{}.{:06}", self.us / 1_000_000, self.us % 1_000_000);
            s.trim_end_matches('0').to_owned()
        }
    }
}

/// A value that stands as a string in the file and has a form of its own.
macro_rules! from_text {
    ($($ty:ty),*) => { $(
        impl Value for $ty {
            fn read(v: &DeValue<'_>) -> Result<$ty, String> {
                text(v)?.parse()
            }
            fn show(&self) -> String {
                quoted(&self.to_string())
            }
        }
    )* };
}
from_text!(
    Listen,
    Advertise,
    Ident,
    Word<Offer>,
    Word<ChatPolicy>,
    Word<LogFormat>,
    Word<OnStop>,
    HeaderName,
    HttpPath,
    MiSocket,
    FileMode
);

/// `udp:ADDR:PORT` and the like; an IPv6 address stands in brackets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    pub transport: Transport,
    pub addr: SocketAddr,
}

impl FromStr for Listen {
    type Err = String;
    fn from_str(s: &str) -> Result<Listen, String> {
        let form =
            || format!("`{s}` is not of the form TRANSPORT:ADDR:PORT, such as udp:0.0.0.0:5060 or udp:[::]:5060");
        let (t, addr) = s.split_once(':').ok_or_else(form)?;
        let transport = match t {
            "udp" => Transport::Udp,
            "tcp" | "tls" | "ws" | "wss" => return Err(format!("transport {t} is not in this build; use udp")),
            _ => return Err(form()),
        };
        Ok(Listen { transport, addr: addr.parse().map_err(|_| form())? })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.transport.via_name().to_ascii_lowercase(), self.addr)
    }
}

/// `ADDR[:PORT]`: how peers reach a listener. Port 0: the listener's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advertise {
    pub ip: IpAddr,
    pub port: u16,
}

impl FromStr for Advertise {
    type Err = String;
    fn from_str(s: &str) -> Result<Advertise, String> {
        if let Ok(a) = s.parse::<SocketAddr>() {
            return Ok(Advertise { ip: a.ip(), port: a.port() });
        }
        let bare = s.strip_prefix('[').and_then(|s| s.strip_suffix(']'));
        let ip = bare.map_or_else(|| s.parse::<IpAddr>().ok(), |b| b.parse::<Ipv6Addr>().ok().map(IpAddr::V6));
        let ip =
            ip.ok_or_else(|| format!("`{s}` is not an address, expected ADDR or ADDR:PORT, such as 192.0.2.1:5060"))?;
        Ok(Advertise { ip, port: 0 })
    }
}

impl fmt::Display for Advertise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            0 => write!(f, "{}", self.ip),
            p => write!(f, "{}", SocketAddr::new(self.ip, p)),
        }
    }
}

impl Value for SocketAddr {
    fn read(v: &DeValue<'_>) -> Result<SocketAddr, String> {
        let s = text(v)?;
        s.parse().map_err(|_| format!("`{s}` is not of the form ADDR:PORT, such as 127.0.0.1:8888"))
    }
    fn show(&self) -> String {
        quoted(&self.to_string())
    }
}

/// Name of a table or column: letters, digits and underscores, so that it can stand in a statement as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ident(String);

impl Ident {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Ident {
    type Err = String;
    fn from_str(s: &str) -> Result<Ident, String> {
        let plain = s.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if plain && s.len() <= 64 && s.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            Ok(Ident(s.to_owned()))
        } else {
            Err(format!(
                "`{s}` is not a plain name; use letters, digits and underscores, at most 64, not starting with a digit"
            ))
        }
    }
}

impl fmt::Display for Ident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Name of a SIP header (RFC 3261 token).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderName(pub String);

impl FromStr for HeaderName {
    type Err = String;
    fn from_str(s: &str) -> Result<HeaderName, String> {
        if is_token(s) {
            Ok(HeaderName(s.to_owned()))
        } else {
            Err(format!("`{s}` cannot name a SIP header; use letters, digits and dashes"))
        }
    }
}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// RFC 3261 section 25.1, `token`.
pub fn is_token(s: &str) -> bool {
    !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&b))
}

/// Access bits of a file, three or four octal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMode(pub u32);

impl FromStr for FileMode {
    type Err = String;
    fn from_str(s: &str) -> Result<FileMode, String> {
        let bits = u32::from_str_radix(s, 8).ok().filter(|bits| *bits <= 0o777 && (3..=4).contains(&s.len()));
        bits.map(FileMode).ok_or_else(|| format!("`{s}` is not a file mode, expected octal digits such as \"0660\""))
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

/// Path of an HTTP resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpPath(pub String);

impl FromStr for HttpPath {
    type Err = String;
    fn from_str(s: &str) -> Result<HttpPath, String> {
        let plain = s.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-_.~".contains(&b));
        let ok = plain && s.len() > 1 && s.starts_with('/') && !s.ends_with('/');
        if ok { Ok(HttpPath(s.to_owned())) } else { Err(format!("`{s}` is not a path such as /mi")) }
    }
}

impl fmt::Display for HttpPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One of a few words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word<T>(pub T);

/// The words that stand for the values of `Self`.
pub trait Words: Sized + Copy + PartialEq + 'static {
    const WORDS: &'static [(&'static str, Self)];
}

impl<T: Words> FromStr for Word<T> {
    type Err = String;
    fn from_str(s: &str) -> Result<Word<T>, String> {
        let found = T::WORDS.iter().find(|(w, _)| *w == s).map(|(_, v)| Word(*v));
        found.ok_or_else(|| {
            let words: Vec<String> = T::WORDS.iter().map(|(w, _)| format!("\"{w}\"")).collect();
            format!("`{s}` is not known here, expected {}", words.join(" or "))
        })
    }
}

impl<T: Words> fmt::Display for Word<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::WORDS.iter().find(|(_, v)| *v == self.0).map_or("", |(w, _)| w))
    }
}

/// `agent_offer`.
pub type Offer = AgentOffer;

impl Words for AgentOffer {
    const WORDS: &'static [(&'static str, AgentOffer)] =
        &[("caller", AgentOffer::Caller), ("delayed", AgentOffer::Delayed), ("auto", AgentOffer::Auto)];
}

impl Words for ChatPolicy {
    const WORDS: &'static [(&'static str, ChatPolicy)] =
        &[("balancing", ChatPolicy::Balancing), ("full-load", ChatPolicy::FullLoad)];
}

/// `[server] on_stop`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStop {
    Finish,
    Leave,
}

impl Words for OnStop {
    const WORDS: &'static [(&'static str, OnStop)] = &[("finish", OnStop::Finish), ("leave", OnStop::Leave)];
}

/// `[log] format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

impl Words for LogFormat {
    const WORDS: &'static [(&'static str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];
}
