//! The messages of RFC 4475 and RFC 5118, byte by byte, out of the notation in which those documents print them.

/// One message.
#[derive(Debug, Clone)]
pub struct Torture {
    pub name: String,
    /// Section of its document.
    pub section: String,
    pub bytes: Vec<u8>,
}

/// RFC 4475.
#[must_use]
pub fn rfc4475() -> Vec<Torture> {
    read(include_str!("../data/rfc4475.txt"))
}

/// RFC 5118.
#[must_use]
pub fn rfc5118() -> Vec<Torture> {
    read(include_str!("../data/rfc5118.txt"))
}

fn read(text: &str) -> Vec<Torture> {
    let mut found = vec![];
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some((name, section)) = line.strip_prefix("== ").and_then(|l| l.split_once(' ')) else { continue };
        let message: Vec<&str> = lines.by_ref().take_while(|l| *l != "==").collect();
        let bytes = with_length(wire(&message));
        found.push(Torture { name: name.to_owned(), section: section.to_owned(), bytes });
    }
    found
}

/// Lines as they go over the wire.
fn wire(lines: &[&str]) -> Vec<u8> {
    let mut out = vec![];
    let mut whole = true;
    for line in lines {
        match *line {
            "<allOneLine>" => whole = false,
            "</allOneLine>" => {
                whole = true;
                out.extend_from_slice(b"\r\n");
            }
            line => {
                expand(line, &mut out);
                if whole {
                    out.extend_from_slice(b"\r\n");
                }
            }
        }
    }
    out
}

/// A line with its `<hex>` and `<repeat>` written out.
fn expand(line: &str, out: &mut Vec<u8>) {
    let mut rest = line;
    while let Some(at) = ["<hex>", "<repeat count="].iter().filter_map(|tag| rest.find(tag)).min() {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at..];
        if let Some((digits, tail)) = rest.strip_prefix("<hex>").and_then(|r| r.split_once("</hex>")) {
            out.extend(
                digits.as_bytes().chunks(2).filter_map(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 16).ok()),
            );
            rest = tail;
        } else if let Some((count, tail)) = rest.strip_prefix("<repeat count=").and_then(|r| r.split_once('>')) {
            let (text, tail) = tail.split_once("</repeat>").unwrap_or((tail, ""));
            (0..count.parse().unwrap_or(0)).for_each(|_| out.extend_from_slice(text.as_bytes()));
            rest = tail;
        }
    }
    out.extend_from_slice(rest.as_bytes());
}

/// With the length of the body for `<len>`.
fn with_length(bytes: Vec<u8>) -> Vec<u8> {
    let find = |what: &[u8]| bytes.windows(what.len()).position(|w| w == what);
    let (Some(at), Some(end)) = (find(b"<len>"), find(b"\r\n\r\n")) else { return bytes };
    let length = (bytes.len() - end - 4).to_string();
    [&bytes[..at], length.as_bytes(), &bytes[at + b"<len>".len()..]].concat()
}
