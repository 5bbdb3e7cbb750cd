//! Header field names: a fixed set that the engine knows, found by a perfect-enough hash made at compile time.

use std::fmt;

macro_rules! names {
    ($($variant:ident = $text:literal $(, $compact:literal)? ;)*) => {
        /// Header fields known by name; every other one is [`Name::Other`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Name { $(#[doc = $text] $variant,)* #[doc = "Any other field."] Other }

        /// How many variants [`Name`] has.
        pub(crate) const NAMES: usize = Name::Other as usize + 1;

        impl Name {
            /// The canonical long form; "" for [`Name::Other`].
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Name::$variant => $text,)* Name::Other => "" }
            }
        }

        const LONG: &[(&str, Name)] = &[$(($text, Name::$variant),)*];

        const fn compact(letter: u8) -> Name {
            match letter | 0x20 {
                $($($compact => Name::$variant,)?)*
                _ => Name::Other,
            }
        }
    };
}

names! {
    Via = "Via", b'v';
    From = "From", b'f';
    To = "To", b't';
    CallId = "Call-ID", b'i';
    CSeq = "CSeq";
    Contact = "Contact", b'm';
    MaxForwards = "Max-Forwards";
    Route = "Route";
    RecordRoute = "Record-Route";
    ContentType = "Content-Type", b'c';
    ContentLength = "Content-Length", b'l';
    ContentDisposition = "Content-Disposition";
    ContentEncoding = "Content-Encoding", b'e';
    ContentLanguage = "Content-Language";
    MimeVersion = "MIME-Version";
    Require = "Require";
    ProxyRequire = "Proxy-Require";
    Supported = "Supported", b'k';
    Unsupported = "Unsupported";
    Allow = "Allow";
    AllowEvents = "Allow-Events", b'u';
    Accept = "Accept";
    AcceptEncoding = "Accept-Encoding";
    AcceptLanguage = "Accept-Language";
    AcceptContact = "Accept-Contact", b'a';
    RejectContact = "Reject-Contact", b'j';
    RequestDisposition = "Request-Disposition", b'd';
    AlertInfo = "Alert-Info";
    CallInfo = "Call-Info";
    ErrorInfo = "Error-Info";
    Expires = "Expires";
    MinExpires = "Min-Expires";
    SessionExpires = "Session-Expires", b'x';
    MinSe = "Min-SE";
    RSeq = "RSeq";
    RAck = "RAck";
    Event = "Event", b'o';
    SubscriptionState = "Subscription-State";
    ReferTo = "Refer-To", b'r';
    ReferredBy = "Referred-By", b'b';
    ReferSub = "Refer-Sub";
    TargetDialog = "Target-Dialog";
    Replaces = "Replaces";
    Join = "Join";
    InfoPackage = "Info-Package";
    RecvInfo = "Recv-Info";
    Authorization = "Authorization";
    ProxyAuthorization = "Proxy-Authorization";
    WwwAuthenticate = "WWW-Authenticate";
    ProxyAuthenticate = "Proxy-Authenticate";
    AuthenticationInfo = "Authentication-Info";
    RetryAfter = "Retry-After";
    Reason = "Reason";
    PAssertedIdentity = "P-Asserted-Identity";
    PPreferredIdentity = "P-Preferred-Identity";
    RemotePartyId = "Remote-Party-ID";
    Privacy = "Privacy";
    Identity = "Identity", b'y';
    HistoryInfo = "History-Info";
    Diversion = "Diversion";
    UserToUser = "User-to-User";
    Path = "Path";
    ServiceRoute = "Service-Route";
    SipEtag = "SIP-ETag";
    SipIfMatch = "SIP-If-Match";
    Subject = "Subject", b's';
    Organization = "Organization";
    Priority = "Priority";
    InReplyTo = "In-Reply-To";
    ReplyTo = "Reply-To";
    UserAgent = "User-Agent";
    Server = "Server";
    Date = "Date";
    Timestamp = "Timestamp";
    Warning = "Warning";
    Geolocation = "Geolocation";
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Name::Other) { "(other)" } else { self.text() })
    }
}

/// Slots of the open-addressed table; more than twice the names keeps probes short.
const SLOTS: usize = 256;
const EMPTY: u8 = u8::MAX;

/// Hash of a name: length, first, middle and last byte, folded to lower case.
const fn slot(name: &[u8]) -> usize {
    let n = name.len();
    let a = (name[0] | 0x20) as usize;
    let m = (name[n / 2] | 0x20) as usize;
    let z = (name[n - 1] | 0x20) as usize;
    (n * 37 + a * 11 + m * 5 + z * 83) % SLOTS
}

/// Name by slot, linear probing; built by the compiler.
static TABLE: [u8; SLOTS] = {
    let mut table = [EMPTY; SLOTS];
    let mut i = 0;
    while i < LONG.len() {
        let mut at = slot(LONG[i].0.as_bytes());
        while table[at] != EMPTY {
            at = (at + 1) % SLOTS;
        }
        table[at] = i as u8;
        i += 1;
    }
    table
};

impl Name {
    /// The field that `name` (long or compact, any case, without blanks) stands for.
    #[must_use]
    pub fn of(name: &[u8]) -> Name {
        match name {
            [] => Name::Other,
            [letter] if letter.is_ascii_alphabetic() => compact(*letter),
            _ => {
                let mut at = slot(name);
                while TABLE[at] != EMPTY {
                    let (text, id) = LONG[TABLE[at] as usize];
                    // Nearly everybody writes the canonical form, which compares in one go.
                    if name == text.as_bytes() || name.eq_ignore_ascii_case(text.as_bytes()) {
                        return id;
                    }
                    at = (at + 1) % SLOTS;
                }
                Name::Other
            }
        }
    }

    /// Whether a second line of this field makes the message ambiguous (RFC 3261 section 7.3.1: only lists may
    /// repeat); restricted to the fields on which routing and matching hang.
    pub(crate) const fn single(self) -> bool {
        matches!(
            self,
            Name::From
                | Name::To
                | Name::CallId
                | Name::CSeq
                | Name::MaxForwards
                | Name::ContentLength
                | Name::ContentType
                | Name::RSeq
                | Name::RAck
                | Name::ReferTo
                | Name::Replaces
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case() {
        for (text, id) in LONG {
            assert_eq!(Name::of(text.as_bytes()), *id);
            assert_eq!(Name::of(text.to_ascii_uppercase().as_bytes()), *id);
            assert_eq!(Name::of(text.to_ascii_lowercase().as_bytes()), *id);
            assert_eq!(Name::of(format!("{text}x").as_bytes()), Name::Other);
        }
    }

    #[test]
    fn compact_forms_are_those_of_the_registry() {
        let all: &[(&str, Name)] = &[
            ("v", Name::Via),
            ("f", Name::From),
            ("t", Name::To),
            ("i", Name::CallId),
            ("m", Name::Contact),
            ("c", Name::ContentType),
            ("l", Name::ContentLength),
            ("e", Name::ContentEncoding),
            ("k", Name::Supported),
            ("u", Name::AllowEvents),
            ("a", Name::AcceptContact),
            ("j", Name::RejectContact),
            ("d", Name::RequestDisposition),
            ("x", Name::SessionExpires),
            ("o", Name::Event),
            ("r", Name::ReferTo),
            ("b", Name::ReferredBy),
            ("y", Name::Identity),
            ("s", Name::Subject),
        ];
        for (letter, id) in all {
            assert_eq!(Name::of(letter.as_bytes()), *id);
            assert_eq!(Name::of(letter.to_ascii_uppercase().as_bytes()), *id);
        }
        assert_eq!(Name::of(b"z"), Name::Other);
        assert_eq!(Name::of(b"6"), Name::Other, "0x16 and 0x36 must not fold onto letters");
    }

    #[test]
    fn probes_stay_short() {
        let longest = LONG.iter().map(|(text, id)| {
            let (mut at, mut steps) = (slot(text.as_bytes()), 1);
            while TABLE[at] != *id as u8 {
                at = (at + 1) % SLOTS;
                steps += 1;
            }
            steps
        });
        assert!(longest.max().unwrap_or(0) <= 5);
    }
}
