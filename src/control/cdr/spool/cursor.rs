//! The cursor: up to where the database has the spool. One line of text, replaced as a whole.
//!
//! Nothing hangs on it but work: records behind a cursor that was lost are written again, which doubles none.

use super::{Place, SpoolError};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

const NAME: &str = "cursor";
const FORM: &str = "strowger-spool-1";

/// The cursor's file.
pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

/// What the file says; nothing if there is none, or it is damaged.
///
/// # Errors
/// When it is there and cannot be read.
pub(super) fn read(dir: &Path) -> Result<Option<Place>, SpoolError> {
    let path = path(dir);
    match fs::read(&path) {
        Ok(bytes) => {
            let place = parse(&bytes);
            if place.is_none() {
                tracing::warn!(file = %path.display(), "the spool's cursor is damaged; the whole spool is replayed");
            }
            Ok(place)
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(SpoolError::at(&path, e)),
    }
}

/// Replaces the file; with `sync` it is on the disk when this returns.
pub(super) fn write(dir: &Path, place: Place, sync: bool) -> Result<(), SpoolError> {
    let (path, new) = (path(dir), dir.join("cursor.new"));
    let written = || {
        let mut file = File::create(&new)?;
        file.write_all(line(place).as_bytes())?;
        if sync {
            file.sync_data()?;
        }
        fs::rename(&new, &path)?;
        if sync { File::open(dir)?.sync_all() } else { Ok(()) }
    };
    written().map_err(|e| SpoolError::at(&path, e))
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

    #[test]
    fn one_replaces_the_other() {
        let dir = tempfile::TempDir::new().unwrap();
        assert_eq!(read(dir.path()).unwrap(), None);
        for (n, sync) in [(1, false), (2, true)] {
            let place = Place { ordinal: n, segment: n, offset: n };
            write(dir.path(), place, sync).unwrap();
            assert_eq!(read(dir.path()).unwrap(), Some(place));
        }
        std::fs::write(path(dir.path()), "strowger-spool-1 1 1 1 00000000\n").unwrap();
        assert_eq!(read(dir.path()).unwrap(), None);
    }
}
