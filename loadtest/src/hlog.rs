//! Histograms as files that other tools read: HdrHistogram's interval log (`.hlog`, a histogram for each interval and
//! phase, by tag) and percentile tables (`.hgrm`, for HdrHistogram's plotter).

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use hdrhistogram::{
    Histogram,
    serialization::{
        V2DeflateSerializer,
        interval_log::{IntervalLogWriter, IntervalLogWriterBuilder, Tag},
    },
};

use crate::{interval::Interval, phase::Histograms};

/// An open interval log: values in microseconds, times in seconds since its `BaseTime`.
pub struct IntervalLog {
    out: BufWriter<File>,
    serializer: V2DeflateSerializer,
    /// When the log, and the present run, began.
    began: SystemTime,
    offset: Duration,
    prefix: String,
}

impl IntervalLog {
    /// Creates the file, and writes its head.
    ///
    /// # Errors
    /// What the system says to the file.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut out = BufWriter::new(File::create(path)?);
        let (mut serializer, began) = (V2DeflateSerializer::new(), SystemTime::now());
        IntervalLogWriterBuilder::new()
            .add_comment("[Histogram log format version 1.3]")
            .add_comment("[loadtest: values and Interval_Max in microseconds, a tag for each phase]")
            .with_start_time(began)
            .with_base_time(began)
            .begin_log_with(&mut out, &mut serializer)?;
        writeln!(out, "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"")?;
        Ok(Self { out, serializer, began, offset: Duration::ZERO, prefix: String::new() })
    }

    /// A run begins: its intervals count from now, and its tags begin with `prefix` (no comma or white space in it).
    pub fn begin(&mut self, prefix: &str) {
        self.offset = self.began.elapsed().unwrap_or_default();
        self.prefix.clear();
        self.prefix.push_str(prefix);
    }

    /// Appends an interval: a line for each phase in which something happened.
    ///
    /// # Errors
    /// What the system says to writing.
    pub fn add(&mut self, interval: &Interval) -> io::Result<()> {
        let Self { out, serializer, offset, prefix, .. } = self;
        // The head is written: this builder adds only lines.
        let mut line = Vec::new();
        for (phase, histogram) in interval.histograms.iter().filter(|(_, histogram)| !histogram.is_empty()) {
            line.clear();
            let mut log: IntervalLogWriter<'_, '_, _, _> =
                IntervalLogWriterBuilder::new().begin_log_with(&mut line, serializer)?;
            let tag = format!("{prefix}{}", phase.key());
            log.write_histogram(histogram, *offset + interval.start, interval.length, Tag::new(&tag))
                .map_err(|error| io::Error::other(error.to_string()))?;
            out.write_all(&line)?;
        }
        out.flush()
    }
}

const MICROS_PER_MILLI: f64 = 1000.0;

/// Writes `PREFIX.PHASE.hgrm` for each phase in which something happened; returns their names.
///
/// # Errors
/// What the system says to the files, with the file's name.
pub fn write_percentiles(prefix: &Path, histograms: &Histograms) -> io::Result<Vec<PathBuf>> {
    let mut written = Vec::new();
    for (phase, histogram) in histograms.iter().filter(|(_, histogram)| !histogram.is_empty()) {
        let mut name = prefix.as_os_str().to_owned();
        name.push(format!(".{}.hgrm", phase.key()));
        let path = PathBuf::from(name);
        std::fs::write(&path, percentiles(histogram))
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        written.push(path);
    }
    Ok(written)
}

/// The percentile table that HdrHistogram's `outputPercentileDistribution` prints, values in milliseconds.
fn percentiles(histogram: &Histogram<u64>) -> String {
    use std::fmt::Write as _;
    let millis = |micros: f64| micros / MICROS_PER_MILLI;
    let mut text = format!("{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    let mut total = 0;
    // Writing to a String cannot fail.
    for step in histogram.iter_quantiles(5) {
        total += step.count_since_last_iteration();
        let (value, quantile) = (millis(step.value_iterated_to() as f64), step.quantile_iterated_to());
        let _ = match quantile < 1.0 {
            true => writeln!(text, "{value:12.3} {quantile:2.12} {total:10} {:14.2}", 1.0 / (1.0 - quantile)),
            false => writeln!(text, "{value:12.3} {quantile:2.12} {total:10}"),
        };
    }
    let (mean, deviation) = (millis(histogram.mean()), millis(histogram.stdev()));
    let (max, count) = (millis(histogram.max() as f64), histogram.len());
    let _ = writeln!(text, "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]");
    let _ = writeln!(text, "#[Max     = {max:12.3}, Total count    = {count:12}]");
    let (buckets, distinct) = (histogram.buckets(), histogram.distinct_values());
    let _ = writeln!(text, "#[Buckets = {buckets:12}, SubBuckets     = {distinct:12}]");
    text
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::{
        Deserializer,
        interval_log::{IntervalLogIterator, LogEntry},
    };

    use super::*;
    use crate::phase::Phase;

    /// RFC 4648 section 4, of text that is known to be right.
    fn base64(text: &str) -> Vec<u8> {
        let digit = |byte: u8| match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            _ => 63,
        };
        let bits = |four: &[u8]| four.iter().fold(0u32, |sum, byte| sum << 6 | u32::from(digit(*byte)));
        let whole = text.trim_end_matches('=').as_bytes().chunks(4);
        whole.flat_map(|four| (bits(four) << (6 * (4 - four.len()))).to_be_bytes()[1..four.len()].to_vec()).collect()
    }

    #[test]
    fn an_interval_log_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.hlog");
        let mut log = IntervalLog::create(&path).unwrap();
        log.begin("a/");
        let mut interval =
            Interval { start: Duration::from_secs(3), length: Duration::from_secs(1), ..Interval::default() };
        for millis in [2, 4, 6] {
            interval.histograms.record(Phase::Bye, millis * 1_000_000);
        }
        interval.histograms.record(Phase::First, 250_000);
        log.add(&interval).unwrap();
        let text = std::fs::read(&path).unwrap();
        let mut seen = Vec::new();
        for entry in IntervalLogIterator::new(&text) {
            let LogEntry::Interval(read) = entry.unwrap() else { continue };
            let bytes = base64(read.encoded_histogram());
            let histogram: Histogram<u64> = Deserializer::new().deserialize(&mut &bytes[..]).unwrap();
            assert_eq!(read.duration(), Duration::from_secs(1));
            assert!(read.start_timestamp() >= Duration::from_secs(3));
            seen.push((read.tag().unwrap().as_str().to_owned(), histogram.len(), histogram.max() / 1000));
        }
        assert_eq!(seen, [("a/first".to_owned(), 1, 0), ("a/bye".to_owned(), 3, 6)]);
        let text = String::from_utf8(text).unwrap();
        assert!(text.starts_with("#[Histogram log format version 1.3]\n") && text.contains("#[StartTime: "), "{text}");
    }

    #[test]
    fn percentile_tables_are_as_the_plotter_reads_them() {
        let folder = tempfile::tempdir().unwrap();
        let mut histograms = Histograms::default();
        (1..=100).for_each(|millis| histograms.record(Phase::Setup, millis * 1_000_000));
        let files = write_percentiles(&folder.path().join("run"), &histograms).unwrap();
        assert_eq!(files, [folder.path().join("run.setup.hgrm")]);
        let text = std::fs::read_to_string(&files[0]).unwrap();
        let rows: Vec<Vec<f64>> = text
            .lines()
            .skip(2)
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().map(|word| word.parse().unwrap()).collect())
            .collect();
        assert!(rows.windows(2).all(|pair| pair[0][0] <= pair[1][0] && pair[0][2] <= pair[1][2]), "{text}");
        let median = rows.iter().find(|row| row[1] >= 0.5).unwrap();
        assert!((median[0] - 50.0).abs() < 0.1 && (median[3] - 2.0).abs() < 0.1, "{text}");
        assert_eq!(rows.last().unwrap()[2], 100.0);
        assert!(text.contains("Total count    =          100]"), "{text}");
        assert!(
            write_percentiles(Path::new("/nowhere/run"), &histograms).unwrap_err().to_string().contains("/nowhere/")
        );
    }
}
