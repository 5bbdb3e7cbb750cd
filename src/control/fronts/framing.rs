//! Requests out of the bytes of a FIFO: `:reply_fifo_name:JSON`, one after the other.
//!
//! The field's clients write no line end behind the JSON, so that a request ends where its JSON does. A writer that
//! dies in the middle leaves a part behind: [`Framer::give_up`] hands it out, and the next request is found again.

use serde::de::IgnoredAny;
use serde_json::Deserializer;

/// Longest name of a reply FIFO (NAME_MAX).
const NAME_MAX: usize = 255;

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// A request; its JSON may be bad, which is for the answer to say.
    Request { reply: String, json: Vec<u8> },
    /// One that does not end within the limit.
    TooLong { reply: String },
}

/// Bytes that have come and are no request yet.
#[derive(Debug)]
pub struct Framer {
    buf: Vec<u8>,
    max: usize,
}

/// What the start of the bytes is.
enum Head {
    Partial,
    Broken,
    /// The name, and where the JSON begins.
    Named(String, usize),
}

impl Framer {
    /// With a limit to one request, in bytes.
    pub fn new(max: usize) -> Framer {
        Framer { buf: vec![], max }
    }

    /// Takes bytes in.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    /// Whether a part of a request waits for its rest.
    pub fn waits(&self) -> bool {
        !self.buf.is_empty()
    }

    /// The next request, if one is whole. Call it until it has none.
    pub fn next_frame(&mut self) -> Option<Frame> {
        loop {
            self.skip_blanks();
            match head(&self.buf) {
                Head::Partial => return None,
                Head::Broken => {
                    self.resume();
                }
                Head::Named(reply, at) => return self.body(reply, at),
            }
        }
    }

    /// The rest of a request does not come: what is there of it.
    pub fn give_up(&mut self) -> Option<Frame> {
        let buf = std::mem::take(&mut self.buf);
        match head(&buf) {
            Head::Named(reply, at) => Some(Frame::Request { reply, json: buf[at..].to_vec() }),
            Head::Partial | Head::Broken => None,
        }
    }

    fn body(&mut self, reply: String, at: usize) -> Option<Frame> {
        let json = &self.buf[at..];
        let first = json.iter().find(|b| !b.is_ascii_whitespace())?;
        let whole = if matches!(first, b'{' | b'[') { whole(json) } else { Err(false) };
        match whole {
            Ok(length) if at + length > self.max => {
                self.buf.drain(..at + length);
                Some(Frame::TooLong { reply })
            }
            Ok(length) => {
                let rest = self.buf.split_off(at + length);
                let json = std::mem::replace(&mut self.buf, rest).split_off(at);
                Some(Frame::Request { reply, json })
            }
            Err(true) if self.buf.len() <= self.max => None,
            Err(true) => {
                self.resume();
                Some(Frame::TooLong { reply })
            }
            Err(false) => {
                // What looks like the next request may begin with the colon that ends this one's name.
                let passed = self.resume();
                Some(Frame::Request { reply, json: passed.get(at..).unwrap_or_default().to_vec() })
            }
        }
    }

    /// Goes on at what looks like the next request, else at nothing; returns what was passed over.
    fn resume(&mut self) -> Vec<u8> {
        let candidates = (1..self.buf.len()).filter(|i| self.buf[*i] == b':');
        let mut starts = candidates.filter(|i| match head(&self.buf[*i..]) {
            Head::Named(_, at) => matches!(self.buf.get(i + at), Some(b'{' | b'[')),
            Head::Partial | Head::Broken => false,
        });
        let next = starts.next().unwrap_or(self.buf.len());
        let rest = self.buf.split_off(next);
        std::mem::replace(&mut self.buf, rest)
    }

    fn skip_blanks(&mut self) {
        let blanks = self.buf.iter().take_while(|b| b.is_ascii_whitespace()).count();
        self.buf.drain(..blanks);
    }
}

fn head(buf: &[u8]) -> Head {
    match buf.first() {
        None => return Head::Partial,
        Some(b':') => {}
        Some(_) => return Head::Broken,
    }
    let name = &buf[1..];
    let plain = |b: &u8| b.is_ascii_graphic() && *b != b':';
    let length = name.iter().take_while(|b| plain(b)).count();
    match name.get(length) {
        _ if length > NAME_MAX => Head::Broken,
        None => Head::Partial,
        Some(b':') => Head::Named(String::from_utf8_lossy(&name[..length]).into_owned(), length + 2),
        Some(_) => Head::Broken,
    }
}

/// Length of the JSON value at the start; an error says whether more bytes could complete it.
fn whole(json: &[u8]) -> Result<usize, bool> {
    let mut values = Deserializer::from_slice(json).into_iter::<IgnoredAny>();
    match values.next() {
        Some(Ok(_)) => Ok(values.byte_offset()),
        Some(Err(e)) => Err(e.is_eof()),
        None => Err(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(reply: &str, json: &str) -> Frame {
        Frame::Request { reply: reply.to_owned(), json: json.as_bytes().to_vec() }
    }

    fn all(framer: &mut Framer) -> Vec<Frame> {
        std::iter::from_fn(|| framer.next_frame()).collect()
    }

    #[test]
    fn requests_end_with_their_json_whether_a_line_ends_there_or_not() {
        let mut f = Framer::new(1000);
        f.push(b":r1:{\"a\":[1,\"}:x:{\"]}:r2:[1]\n\n::{}\n:r3: {\n \"b\": 2\n}");
        let expected = [
            request("r1", "{\"a\":[1,\"}:x:{\"]}"),
            request("r2", "[1]"),
            request("", "{}"),
            request("r3", " {\n \"b\": 2\n}"),
        ];
        assert_eq!(all(&mut f), expected);
        assert!(!f.waits());
    }

    #[test]
    fn a_broken_request_is_handed_out_for_its_answer_and_the_next_is_found() {
        let mut f = Framer::new(1000);
        f.push(b":r1:{not json\n:r2:{}");
        assert_eq!(all(&mut f), [request("r1", "{not json\n"), request("r2", "{}")]);
        f.push(b"noise :r3:{}:r4:5 :r5:[]");
        assert_eq!(all(&mut f), [request("r3", "{}"), request("r4", "5 "), request("r5", "[]")]);
        f.push(b":r6:{\"half\":");
        assert_eq!((f.next_frame(), f.waits()), (None, true));
        // The writer died; the next one's request still counts.
        f.push(b":r7:{}");
        assert_eq!(all(&mut f), [request("r6", "{\"half\":"), request("r7", "{}")]);
        f.push(b":r8:{\"half\"");
        assert_eq!((f.next_frame(), f.give_up(), f.waits()), (None, Some(request("r8", "{\"half\"")), false));
        f.push(b":r9");
        assert_eq!((f.next_frame(), f.give_up()), (None, None));
    }

    #[test]
    fn a_request_that_begins_with_the_end_of_a_name_is_found() {
        let mut f = Framer::new(1000);
        f.push(b":r1:r2:{}:r3:r4:[]");
        assert_eq!(all(&mut f), [request("r1", ""), request("r2", "{}"), request("r3", ""), request("r4", "[]")]);
        assert!(!f.waits());
    }

    #[test]
    fn a_request_without_end_is_cut_off_at_the_limit() {
        let mut f = Framer::new(100);
        f.push(b":r1:[");
        while f.buf.len() <= 100 {
            assert_eq!(f.next_frame(), None);
            f.push(b"1,1,1,");
        }
        assert_eq!(f.next_frame(), Some(Frame::TooLong { reply: "r1".to_owned() }));
        f.push(b"1]:r2:{}");
        assert_eq!(all(&mut f), [request("r2", "{}")]);
        f.push(&[b':'; 10_000]);
        f.push(&[b'x'; 10_000]);
        all(&mut f);
        assert!(f.buf.len() <= 10_000);
    }

    proptest! {
        #[test]
        fn pieces_make_the_same_requests_as_the_whole(
            names in prop::collection::vec("[a-z_0-9]{0,12}", 1..6),
            cut in 1usize..9,
        ) {
            let json = r#"{"jsonrpc":"2.0","id":"1","method":"version","params":{"a":["}{:"]}}"#;
            let text: String = names.iter().map(|n| format!(":{n}:{json}")).collect();
            let mut f = Framer::new(10_000);
            let mut found = vec![];
            for piece in text.as_bytes().chunks(cut) {
                f.push(piece);
                found.extend(all(&mut f));
            }
            prop_assert_eq!(found, names.iter().map(|n| request(n, json)).collect::<Vec<_>>());
        }

        #[test]
        fn no_bytes_make_it_panic_or_stand_still(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut f = Framer::new(100);
            f.push(&bytes);
            let found = all(&mut f);
            prop_assert!(found.len() <= bytes.len());
            f.give_up();
            prop_assert!(!f.waits());
        }
    }
}
