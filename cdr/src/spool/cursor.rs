//! The cursor: up to where the database has the spool. One line of text, replaced as a whole.
//!
//! Nothing hangs on it but work: records behind a cursor that was lost are written again, which doubles none.

use super::{Disk, Place, SpoolError, failed};
use std::io;

/// The cursor's file.
pub const NAME: &str = "cursor";
const FORM: &str = "strowger-spool-1";

/// What the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Place(Place),
    None,
    Damaged,
}

/// # Errors
/// When it is there and cannot be read.
pub(super) fn read(disk: &dyn Disk) -> Result<Found, SpoolError> {
    // A line is shorter.
    let mut bytes = [0; 256];
    match disk.read(NAME, 0, &mut bytes) {
        Ok(len) => Ok(parse(&bytes[..len]).map_or(Found::Damaged, Found::Place)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Found::None),
        Err(e) => Err(failed(disk, NAME)(e)),
    }
}

/// Replaces the file; with `sync` it is on the disk when this returns.
pub(super) fn write(disk: &dyn Disk, place: Place, sync: bool) -> Result<(), SpoolError> {
    disk.replace(NAME, line(place).as_bytes(), sync).map_err(failed(disk, NAME))
}

fn line(place: Place) -> String {
    let text = format!("{FORM} {} {} {}", place.ordinal, place.segment, place.offset);
    let sum = crc32fast::hash(text.as_bytes());
    format!("{text} {sum:08x}\n")
}

fn parse(bytes: &[u8]) -> Option<Place> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut words = text.split_ascii_whitespace().skip(1).map(|w| w.parse().ok());
    let place = Place { ordinal: words.next()??, segment: words.next()??, offset: words.next()?? };
    (line(place) == text).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_and_no_damaged_one_is_taken() {
        let place = Place { ordinal: 7, segment: 5, offset: 1234 };
        let bytes = line(place).into_bytes();
        assert_eq!(parse(&bytes), Some(place));
        assert!((0..bytes.len()).all(|len| parse(&bytes[..len]).is_none()));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse(&bad), None, "bit {bit}");
        }
    }
}
