//! What rules see of a request.

use std::borrow::Cow;
use std::net::IpAddr;
use strowger_sip::msg::{Message, Method, Name, NameAddr, Scheme, Uri, percent_decode};

/// A value of a request that a condition tests or a template takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Method,
    RuriUser,
    RuriHost,
    From,
    To,
    Header,
    Source,
    FromUser,
    ToUser,
    CallId,
}

impl Field {
    pub(super) const ALL: [Field; 10] = [
        Field::Method,
        Field::RuriUser,
        Field::RuriHost,
        Field::From,
        Field::To,
        Field::Header,
        Field::Source,
        Field::FromUser,
        Field::ToUser,
        Field::CallId,
    ];

    /// Its name in configurations.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Field::Method => "method",
            Field::RuriUser => "ruri_user",
            Field::RuriHost => "ruri_host",
            Field::From => "from",
            Field::To => "to",
            Field::Header => "header",
            Field::Source => "source",
            Field::FromUser => "from_user",
            Field::ToUser => "to_user",
            Field::CallId => "call_id",
        }
    }

    /// Host names and addresses are compared without regard to case.
    pub(super) const fn folds_case(self) -> bool {
        matches!(self, Field::RuriHost | Field::Source)
    }
}

/// A request outside every dialog, and where it came from.
#[derive(Debug)]
pub struct Request<'a> {
    msg: &'a Message<'a>,
    uri: Option<Uri<'a>>,
    source: IpAddr,
}

impl<'a> Request<'a> {
    #[must_use]
    pub fn new(msg: &'a Message<'a>, source: IpAddr) -> Request<'a> {
        Request { msg, uri: msg.request_uri().ok(), source: source.to_canonical() }
    }

    pub(super) fn method(&self) -> Option<Method<'a>> {
        self.msg.method()
    }

    pub(super) fn source(&self) -> IpAddr {
        self.source
    }

    /// The values of each line of a header, by any of its names.
    pub(super) fn headers<'n>(&'n self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + 'n {
        let id = Name::of(name.as_bytes());
        let named = move |h: &strowger_sip::msg::Header<'a>| {
            h.id == id && (id != Name::Other || h.name.eq_ignore_ascii_case(name.as_bytes()))
        };
        self.msg.headers().filter(named).map(|h| h.value)
    }

    /// A value; `None` where the request lacks it. The header is not here: which one, the condition knows.
    pub(super) fn value(&self, field: Field) -> Option<Cow<'a, [u8]>> {
        match field {
            Field::Method => self.msg.method().map(|m| m.as_bytes().into()),
            Field::RuriUser => self.uri.and_then(|u| u.user).map(percent_decode),
            Field::RuriHost => self.uri.map(|u| u.host.into()),
            Field::From => canonical(self.party(Name::From)?),
            Field::To => canonical(self.party(Name::To)?),
            Field::FromUser => self.party(Name::From)?.user.map(percent_decode),
            Field::ToUser => self.party(Name::To)?.user.map(percent_decode),
            Field::CallId => self.msg.call_id().ok().map(Into::into),
            Field::Source => Some(self.source.to_string().into_bytes().into()),
            Field::Header => None,
        }
    }

    fn party(&self, name: Name) -> Option<Uri<'a>> {
        NameAddr::parse(self.msg.first(name)?, name).ok()?.uri_parsed().ok()
    }
}

/// `scheme:user@host:port`: the user decoded, the host in lower case, no parameters.
fn canonical(uri: Uri<'_>) -> Option<Cow<'_, [u8]>> {
    let scheme: &[u8] = match uri.scheme {
        Scheme::Sip => b"sip",
        Scheme::Sips => b"sips",
        Scheme::Tel => b"tel",
        Scheme::Other(_) => return Some(uri.raw.into()),
    };
    let mut out = Vec::with_capacity(uri.raw.len());
    out.extend_from_slice(scheme);
    out.push(b':');
    if let Some(user) = uri.user {
        out.extend_from_slice(&percent_decode(user));
    }
    if !uri.host.is_empty() {
        if uri.user.is_some() {
            out.push(b'@');
        }
        let bracket = |b: u8, out: &mut Vec<u8>| out.extend(uri.is_ipv6.then_some(b));
        bracket(b'[', &mut out);
        out.extend(uri.host.iter().map(u8::to_ascii_lowercase));
        bracket(b']', &mut out);
        if let Some(port) = uri.port {
            out.extend_from_slice(format!(":{port}").as_bytes());
        }
    }
    Some(out.into())
}
