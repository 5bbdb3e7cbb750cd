//! Interval histograms on disk (`[metrics] hlog_dir`): what the shards measured in each interval, a line a stage, in the log format
//! of HdrHistogram (1.3): values in nanoseconds, the stage as the tag. A file a day (UTC), which any of that project's tools reads.
//!
//! Invariants
//! - A thread of its own writes: no call, and nobody who asks the server, waits for this disk.
//! - A disk that fails is told once, and tried again in a new file; the interval that could not be written is lost.

use super::latency::STAGES;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{
    IntervalLogWriter, IntervalLogWriterBuilder, IntervalLogWriterError, Tag,
};
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};
use std::fs::{self, File};
use std::io::{self, LineWriter};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use strowger_runtime::LatencySnapshot;

const DAY_S: u64 = 86_400;

/// Where the histograms come from; `None`: the shards are gone.
pub type Source = Box<dyn Fn() -> Option<LatencySnapshot> + Send>;

/// Writes until it is dropped, which writes what is left.
#[derive(Debug)]
pub struct Hlog {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Hlog {
    /// Begins to write to files in `dir`, which is made where it is missing.
    ///
    /// # Errors
    /// When there is no such directory and none can be made, nothing can be written there, or there can be no thread.
    pub fn begin(dir: &Path, every: Duration, source: Source) -> io::Result<Hlog> {
        fs::create_dir_all(dir)?;
        let (file, path) = open(dir)?;
        let (stop, stopped) = channel();
        let (dir, last) = (dir.to_owned(), source());
        let thread = thread::Builder::new().name("hlog".to_owned()).spawn(move || {
            let mut keeper = Keeper { last, source, every, stopped, failed: false };
            let mut next = Some((file, path));
            loop {
                match next.take().map_or_else(|| open(&dir), Ok) {
                    Ok((file, path)) => match keeper.fill(file) {
                        Ok(Ended::Day) => {}
                        Ok(Ended::Stopped) => return,
                        Err(error) => keeper.fails(&path, &error),
                    },
                    Err(error) => keeper.fails(&dir, &error),
                }
                if keeper.failed && keeper.wait() {
                    return;
                }
            }
        })?;
        Ok(Hlog { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Hlog {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // It has told of its faults itself.
            let _ = thread.join();
        }
    }
}

/// Why a line could not be written.
type Fault = IntervalLogWriterError<<V2DeflateSerializer as Serializer>::SerializeError>;

/// Why a file ended.
enum Ended {
    Day,
    Stopped,
}

struct Keeper {
    source: Source,
    /// As of the last interval.
    last: Option<LatencySnapshot>,
    every: Duration,
    stopped: Receiver<()>,
    /// The disk, and it has been told.
    failed: bool,
}

impl Keeper {
    /// Waits for the end of the interval; true: it is the last.
    fn wait(&self) -> bool {
        !matches!(self.stopped.recv_timeout(self.every), Err(RecvTimeoutError::Timeout))
    }

    fn fails(&mut self, path: &Path, error: &dyn std::fmt::Display) {
        if !std::mem::replace(&mut self.failed, true) {
            tracing::error!(path = %path.display(), %error, "latency histograms cannot be written; it is tried again");
        }
    }

    fn fill(&mut self, file: File) -> Result<Ended, Fault> {
        let (mut file, mut serializer) = (LineWriter::new(file), V2DeflateSerializer::new());
        let began = SystemTime::now();
        let mut builder = IntervalLogWriterBuilder::new();
        builder.add_comment(concat!("Strowger ", env!("CARGO_PKG_VERSION"), ", nanoseconds by stage"));
        let builder = builder.with_start_time(began).with_base_time(began).with_max_value_divisor(1_000_000.0);
        let mut log = builder.begin_log_with(&mut file, &mut serializer)?;
        let mut from = Instant::now();
        let base = from;
        loop {
            let over = self.wait();
            let to = Instant::now();
            if let Some(present) = (self.source)() {
                let last = self.last.replace(present);
                self.write(&mut log, last.as_ref(), from - base, to - from)?;
                if std::mem::take(&mut self.failed) {
                    tracing::info!("latency histograms are written again");
                }
            }
            from = to;
            if over {
                return Ok(Ended::Stopped);
            }
            if day(SystemTime::now()) != day(began) {
                return Ok(Ended::Day);
            }
        }
    }

    /// What came since `last`, stage by stage; nothing of a stage without values.
    fn write<W: io::Write>(
        &self,
        log: &mut IntervalLogWriter<'_, '_, W, V2DeflateSerializer>,
        last: Option<&LatencySnapshot>,
        at: Duration,
        lasted: Duration,
    ) -> Result<
        (),
        IntervalLogWriterError<<V2DeflateSerializer as hdrhistogram::serialization::Serializer>::SerializeError>,
    > {
        let Some(present) = &self.last else { return Ok(()) };
        for stage in STAGES {
            let mut interval: Histogram<u64> = (stage.histogram)(present).clone();
            if let Some(last) = last {
                // Counters only grow: what was there is there.
                let _ = interval.subtract((stage.histogram)(last));
            }
            if !interval.is_empty() {
                log.write_histogram(&interval, at, lasted, Tag::new(stage.name))?;
            }
        }
        Ok(())
    }
}

fn day(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / DAY_S
}

/// A new file, named by the time: two never share one.
fn open(dir: &Path) -> io::Result<(File, PathBuf)> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    for number in 0..100 {
        let again = if number == 0 { String::new() } else { format!("-{number}") };
        let path = dir.join(format!("strowger-{seconds}{again}.hlog"));
        match File::create_new(&path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            opened => return opened.map(|file| (file, path)),
        }
    }
    Err(io::Error::other("there are a hundred files of this second"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    /// Values of the dispatch stage, by the intervals of all files.
    fn intervals(dir: &Path) -> Vec<u64> {
        let mut files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|f| f.unwrap().path()).collect();
        files.sort();
        let texts: Vec<Vec<u8>> = files.iter().map(|f| fs::read(f).unwrap()).collect();
        let mut counts = vec![];
        for entry in texts.iter().flat_map(|text| IntervalLogIterator::new(text)) {
            if let LogEntry::Interval(line) = entry.unwrap() {
                assert_eq!(line.tag().unwrap().as_str(), "dispatch", "other stages have no values");
                let bytes = decode_base64(line.encoded_histogram());
                let read: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
                assert!((990..=1010).contains(&read.max()), "{}", read.max());
                counts.push(read.len());
            }
        }
        counts
    }

    fn decode_base64(text: &str) -> Vec<u8> {
        const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let bits = text.bytes().filter_map(|b| DIGITS.iter().position(|d| *d == b)).map(|d| d as u32);
        let (mut out, mut held, mut count) = (vec![], 0u32, 0);
        for digit in bits {
            (held, count) = (held << 6 | digit, count + 6);
            if count >= 8 {
                count -= 8;
                out.push((held >> count) as u8);
            }
        }
        out
    }

    fn source(values: &Arc<AtomicU64>) -> Source {
        let values = Arc::clone(values);
        Box::new(move || {
            let mut snapshot = LatencySnapshot::merge(&[]);
            snapshot.dispatch.record_n(1000, values.load(Relaxed)).unwrap();
            Some(snapshot)
        })
    }

    #[test]
    fn each_interval_has_its_own_values_and_the_last_is_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("made/for/it");
        let values = Arc::new(AtomicU64::new(3));
        let log = Hlog::begin(&dir, Duration::from_millis(5), source(&values)).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        values.store(10, Relaxed);
        while intervals(&dir).iter().sum::<u64>() < 7 {
            assert!(Instant::now() < deadline);
            thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(intervals(&dir).last(), Some(&7), "what came since it was looked at first");
        drop(log);
        let log = Hlog::begin(&dir, Duration::from_secs(3600), source(&values)).unwrap();
        values.store(15, Relaxed);
        drop(log);
        assert_eq!(intervals(&dir).iter().sum::<u64>() - 7, 5);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2, "each has a file of its own");
    }

    #[test]
    fn a_directory_that_cannot_be_is_an_error_at_once() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let values = Arc::default();
        assert!(Hlog::begin(file.path(), Duration::from_secs(1), source(&values)).is_err());
    }
}
