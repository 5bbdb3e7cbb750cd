//! Session descriptions that say whose they are, and what is checked in those that come back.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    io::Write as _,
    net::{IpAddr, SocketAddr},
};

use crate::{
    leg::Label,
    parse::{Msg, number},
};

/// Writes a leg's SDP: its label is the session name and, in the media part, an RFC 4574 label; its port follows from it.
/// A chat's is of an MSRP session (RFC 4975) over TCP.
pub fn write(out: &mut Vec<u8>, label: Label, chat: bool, address: IpAddr) {
    let family = if address.is_ipv4() { "IP4" } else { "IP6" };
    let (number, port) = (label.id.index, label.media_port());
    // Writing to a Vec cannot fail.
    let _ = write!(out, "v=0\r\no=loadtest {number} 1 IN {family} {address}\r\ns=");
    label.write(out);
    let _ = write!(out, "\r\nc=IN {family} {address}\r\nt=0 0\r\n");
    if chat {
        let host = SocketAddr::new(address, port);
        let _ = write!(out, "m=message {port} TCP/MSRP *\r\na=accept-types:text/plain\r\na=path:msrp://{host}/");
        label.write(out);
        out.extend_from_slice(b";tcp\r\na=label:");
    } else {
        let _ = write!(
            out,
            "m=audio {port} RTP/AVP 8 0 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\n\
             a=rtpmap:101 telephone-event/8000\r\na=label:"
        );
    }
    label.write(out);
    out.extend_from_slice(b"\r\na=sendrecv\r\n");
}

/// Whether a session description is of an MSRP session.
pub fn is_chat(body: &[u8]) -> bool {
    lines(body).any(|line| line.starts_with(b"m=message "))
}

/// Whose session description a message carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// None in the message.
    Nothing,
    /// One of our legs'.
    Leg(Label),
    /// One of our legs', but its media line was changed on the way.
    Damaged(Label),
    /// Not made by this generator.
    Stranger,
}

fn lines(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    body.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

/// Reads whose SDP this is.
pub fn heard(msg: &Msg<'_>) -> Heard {
    if msg.body.is_empty() {
        return Heard::Nothing;
    }
    let (mut named, mut labelled, mut port) = (None, None, None);
    for line in lines(msg.body) {
        if let Some(name) = line.strip_prefix(b"s=") {
            named = Label::read(name).filter(|(_, rest)| rest.is_empty()).map(|(label, _)| label);
        } else if let Some(label) = line.strip_prefix(b"a=label:") {
            labelled = Label::read(label).filter(|(_, rest)| rest.is_empty()).map(|(label, _)| label);
        } else if let Some(media) = line.strip_prefix(b"m=audio ").or(line.strip_prefix(b"m=message ")) {
            port = port.or(media.split(|byte| *byte == b' ').next().and_then(number));
        }
    }
    match labelled.or(named) {
        None => Heard::Stranger,
        Some(label) if port == Some(usize::from(label.media_port())) => Heard::Leg(label),
        Some(label) => Heard::Damaged(label),
    }
}

/// The origin line that a leg saw last, to check RFC 3264 section 8: one origin for the life of a dialog, and a
/// version that goes up by one when the description changes, and only then.
#[derive(Debug, Default)]
pub struct Origin {
    seen: Option<(u64, u64, u64)>,
}

impl Origin {
    /// Takes a body in; returns what is wrong with it.
    pub fn check(&mut self, body: &[u8]) -> Option<&'static str> {
        let (mut session, mut rest) = (DefaultHasher::new(), DefaultHasher::new());
        let mut version = None;
        for line in lines(body) {
            match line.strip_prefix(b"o=") {
                Some(origin) => {
                    let mut fields = origin.split(|byte| *byte == b' ');
                    (fields.next(), fields.next()).hash(&mut session);
                    version = fields.next().and_then(|text| std::str::from_utf8(text).ok()?.parse::<u64>().ok());
                }
                None => line.hash(&mut rest),
            }
        }
        let Some(version) = version else { return Some("SDP without an o= line, or with a broken one") };
        let now = (session.finish(), version, rest.finish());
        let (session, before, content) = self.seen.replace(now)?;
        if session != now.0 {
            return Some("SDP origin (o=) changed within the dialog");
        }
        match content == now.2 {
            true if before != version => Some("SDP version went up though nothing changed"),
            false if before.wrapping_add(1) != version => Some("SDP changed, and its version did not go up by one"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leg::{LegId, Role};

    fn with_body(body: &[u8]) -> Heard {
        let mut text = b"SIP/2.0 200 OK\r\nVia: v\r\nFrom: f\r\nTo: t\r\nCall-ID: i\r\nCSeq: 1 INVITE\r\n\r\n".to_vec();
        text.extend_from_slice(body);
        heard(&Msg::parse(&text).unwrap())
    }

    #[test]
    fn a_description_tells_whose_it_is() {
        let label = Label { role: Role::Agent, id: LegId { index: 30_000, generation: 2 } };
        let mut body = Vec::new();
        write(&mut body, label, false, "127.0.0.1".parse().unwrap());
        assert_eq!(with_body(&body), Heard::Leg(label));
        let text = String::from_utf8(body).unwrap();
        let renamed = text.replace("s=a7530g2", "s=-").replace("o=loadtest 30000 1", "o=- 5 9");
        assert_eq!(with_body(renamed.as_bytes()), Heard::Leg(label));
        let moved = text.replace(&format!("m=audio {}", label.media_port()), "m=audio 9");
        assert_eq!(with_body(moved.as_bytes()), Heard::Damaged(label));
        let mut chat = Vec::new();
        write(&mut chat, label, true, "::1".parse().unwrap());
        assert_eq!((with_body(&chat), is_chat(&chat)), (Heard::Leg(label), true));
        assert!(!is_chat(text.as_bytes()));
        assert_eq!(with_body(b"v=0\r\ns=-\r\nm=audio 9 RTP/AVP 0\r\n"), Heard::Stranger);
        assert_eq!(with_body(b""), Heard::Nothing);
    }

    #[test]
    fn versions_go_up_by_one_with_each_change() {
        let mut origin = Origin::default();
        let check =
            |origin: &mut Origin, head: &str, body: &str| origin.check(format!("v=0\r\no={head}\r\n{body}").as_bytes());
        assert_eq!(check(&mut origin, "u 1 1 IN IP4 h", "s=a"), None);
        assert_eq!(check(&mut origin, "u 1 1 IN IP4 h", "s=a"), None);
        assert_eq!(check(&mut origin, "u 1 2 IN IP4 h", "s=b"), None);
        assert!(check(&mut origin, "u 1 4 IN IP4 h", "s=c").unwrap().contains("did not go up by one"));
        assert!(check(&mut origin, "u 1 5 IN IP4 h", "s=c").unwrap().contains("nothing changed"));
        assert!(check(&mut origin, "u 2 6 IN IP4 h", "s=d").unwrap().contains("origin"));
        assert!(origin.check(b"v=0\r\ns=-\r\n").unwrap().contains("without"));
    }
}
