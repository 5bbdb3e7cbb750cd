//! Deterministic mutations of seeds, from a seeded generator: a little of what a fuzzer does, where none is at hand.

/// SplitMix64.
#[derive(Debug, Clone)]
pub struct Rng(pub u64);

impl Rng {
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    /// Below `n`; 0 for 0.
    pub fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { (self.draw() % n as u64) as usize }
    }
}

/// Bytes and words on which readers of ours turn.
const TOKENS: [&[u8]; 44] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n ",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"<",
    b">",
    b"\"",
    b"\\",
    b"\\\"",
    b"@",
    b"[",
    b"]",
    b"=",
    b"?",
    b"/",
    b"%00",
    b"%",
    b"--",
    b"\0",
    b"\xff",
    b";tag=",
    b";tag=sw0f1-x",
    b";rport",
    b";received=1.2.3.4",
    b";maddr=::1",
    b";branch=z9hG4bKsw001-",
    b";lr",
    b"SIP/2.0",
    b"To: ",
    b"v: SIP/2.0/UDP h\r\n",
    b"l: 0\r\n",
    b"m=audio 9 RTP/AVP 0\r\n",
    b"a=inactive\r\n",
    b"[::1]",
    b"{}",
    b"[]",
    b"null",
    b"\\u0000",
];

/// Numbers at the edges of their types.
const EDGES: [&str; 14] = [
    "0",
    "-1",
    "1",
    "99",
    "255",
    "256",
    "65535",
    "65536",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "18446744073709551616",
    "00000000000000000000001",
];

/// A mutation of `seed`; `other` gives what is spliced in.
#[must_use]
pub fn mutate(rng: &mut Rng, seed: &[u8], other: &[u8]) -> Vec<u8> {
    let mut out = seed.to_vec();
    for _ in 0..1 + rng.below(4) {
        step(rng, &mut out, other);
    }
    out.truncate(70_000);
    out
}

fn step(rng: &mut Rng, out: &mut Vec<u8>, other: &[u8]) {
    let at = rng.below(out.len() + 1);
    let to = (at + 1 + rng.below(16)).min(out.len());
    match rng.below(10) {
        0 => {
            if let Some(b) = out.get_mut(at) {
                *b ^= 1 << (rng.draw() % 8);
            }
        }
        1 => {
            if let Some(b) = out.get_mut(at) {
                *b = rng.draw() as u8;
            }
        }
        2 | 3 => {
            let token = TOKENS[rng.below(TOKENS.len())];
            out.splice(at..at, token.iter().copied());
        }
        4 => drop(out.drain(at.min(to)..to)),
        5 => {
            let again = out[at.min(to)..to].repeat(1 + rng.below(4));
            out.splice(at..at, again);
        }
        6 => out.truncate(at),
        7 => {
            let from = rng.below(other.len() + 1);
            let piece = other[from..(from + rng.below(64)).min(other.len())].to_vec();
            let end = (at + rng.below(piece.len() + 1)).min(out.len());
            out.splice(at..end, piece);
        }
        8 => number(rng, out, at),
        _ => lines(rng, out),
    }
}

/// Puts an edge in the place of the next number.
fn number(rng: &mut Rng, out: &mut Vec<u8>, at: usize) {
    let Some(start) = out[at..].iter().position(u8::is_ascii_digit).map(|p| at + p) else { return };
    let end = out[start..].iter().position(|b| !b.is_ascii_digit()).map_or(out.len(), |p| start + p);
    out.splice(start..end, EDGES[rng.below(EDGES.len())].bytes());
}

/// Repeats a line, or takes it to another place.
fn lines(rng: &mut Rng, out: &mut Vec<u8>) {
    let all: Vec<Vec<u8>> = out.split_inclusive(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
    if all.is_empty() {
        return;
    }
    let line = all[rng.below(all.len())].clone();
    let before = all[..rng.below(all.len() + 1)].iter().map(Vec::len).sum::<usize>();
    out.splice(before..before, line);
}
