//! The container's log, rotated by size: JSON lines as docker's json-file driver writes them, or lines as the kubelet and podman
//! have them (`k8s-file`; kubernetes design proposal "CRI logging").

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;

use crate::{Context as _, Error};

/// Longest line kept as one record; what is longer is split, as docker does at 16 KiB (moby `logger/copier.go`).
const MAX_LINE: usize = 16 << 10;

/// Where a log is and how large it may grow.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// The newest file; older ones have `.1`, `.2` and so on behind their name.
    pub path: PathBuf,
    /// Bytes of one file; 0 is without limit.
    pub max_size: u64,
    /// Number of files, with the newest.
    pub max_files: u32,
    /// What every record says of its container (docker's `attrs`).
    pub attributes: Attributes,
    /// How records are written; a reader tells by the record.
    pub form: LogForm,
}

/// How records are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogForm {
    /// `{"log":"text\n","stream":"stdout","time":"..."}`, with text that is no UTF-8 replaced.
    #[default]
    Json,
    /// `TIME stdout F text`, or `P` for a part of a line; the bytes are as they came.
    Kubernetes,
}

/// What a record says beside its line: chosen labels and variables, a tag.
pub type Attributes = std::collections::BTreeMap<String, String>;

/// Which stream a record is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    fn of(name: &str) -> Self {
        match name {
            "stderr" => Self::Stderr,
            _ => Self::Stdout,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Writes the log.
#[derive(Debug)]
pub(crate) struct LogWriter {
    settings: LogSettings,
    file: Option<File>,
    size: u64,
    partial: [Vec<u8>; 2],
    batch: Vec<u8>,
    /// The part of each record that says the attributes; empty without any.
    attributes: Vec<u8>,
}

impl LogWriter {
    pub(crate) fn open(settings: LogSettings) -> Result<Self, Error> {
        let file = open_append(&settings.path)
            .context(|| format!("open the container's log {}", settings.path.display()))?;
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        let mut attributes = Vec::new();
        if !settings.attributes.is_empty() {
            attributes.extend_from_slice(b",\"attrs\":");
            // Texts always become JSON, and writing to a vector cannot fail.
            drop(serde_json::to_writer(&mut attributes, &settings.attributes));
        }
        Ok(Self {
            attributes,
            settings,
            file: Some(file),
            size,
            partial: [Vec::new(), Vec::new()],
            batch: Vec::new(),
        })
    }

    /// Takes output: whole lines are written at once, the rest waits for its end.
    pub(crate) fn write(&mut self, stream: Stream, mut bytes: &[u8]) {
        let time = format_time(SystemTime::now());
        let mut partial = std::mem::take(&mut self.partial[stream as usize]);
        while !bytes.is_empty() {
            let room = MAX_LINE - partial.len();
            let (taken, whole) = match memchr(b'\n', bytes) {
                Some(newline) if newline < room => (newline + 1, true),
                _ => (bytes.len().min(room), bytes.len() >= room),
            };
            if whole && partial.is_empty() {
                self.add(stream, &time, &bytes[..taken]);
            } else {
                partial.extend_from_slice(&bytes[..taken]);
                if whole {
                    self.add(stream, &time, &partial);
                    partial.clear();
                }
            }
            bytes = &bytes[taken..];
        }
        self.partial[stream as usize] = partial;
        self.flush_batch();
    }

    /// Writes what has no newline yet: the stream ended.
    pub(crate) fn finish(&mut self) {
        let time = format_time(SystemTime::now());
        for stream in [Stream::Stdout, Stream::Stderr] {
            let partial = std::mem::take(&mut self.partial[stream as usize]);
            if !partial.is_empty() {
                self.add(stream, &time, &partial);
            }
        }
        self.flush_batch();
    }

    /// One more record; the file ends before the one that would make it too large.
    fn add(&mut self, stream: Stream, time: &str, line: &[u8]) {
        let before = self.batch.len();
        match self.settings.form {
            LogForm::Json => encode(&mut self.batch, stream, time, line, &self.attributes),
            LogForm::Kubernetes => encode_plain(&mut self.batch, stream, time, line),
        }
        let full = self.settings.max_size > 0 && self.size + self.batch.len() as u64 > self.settings.max_size;
        if full && before > 0 {
            let last = self.batch.split_off(before);
            self.flush_batch();
            self.batch = last;
        }
    }

    /// A full disk must not end the container: the records are dropped, and the next ones are tried again.
    fn flush_batch(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let length = self.batch.len() as u64;
        if self.settings.max_size > 0 && self.size > 0 && self.size + length > self.settings.max_size {
            self.rotate();
        }
        if self.file.is_none() {
            self.file = open_append(&self.settings.path).ok();
        }
        if let Some(file) = &mut self.file
            && file.write_all(&self.batch).is_ok()
        {
            self.size += length;
        }
        self.batch.clear();
        if self.batch.capacity() > 4 * MAX_LINE {
            self.batch.shrink_to(MAX_LINE);
        }
    }

    fn rotate(&mut self) {
        self.file = None;
        for number in (1..self.settings.max_files.max(1)).rev() {
            let older = numbered(&self.settings.path, number);
            let newer = match number {
                1 => self.settings.path.clone(),
                _ => numbered(&self.settings.path, number - 1),
            };
            // A file that is not there yet, or cannot be moved, only means fewer old records.
            drop(std::fs::rename(newer, older));
        }
        self.file = File::create(&self.settings.path).ok();
        self.size = 0;
    }
}

fn open_append(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    File::options().append(true).create(true).mode(0o640).open(path)
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

fn memchr(needle: u8, haystack: &[u8]) -> Option<usize> {
    haystack.iter().position(|&byte| byte == needle)
}

fn encode(out: &mut Vec<u8>, stream: Stream, time: &str, line: &[u8], attributes: &[u8]) {
    out.extend_from_slice(b"{\"log\":");
    // Writing to a vector cannot fail; JSON wants text, so other bytes become U+FFFD as in docker.
    drop(serde_json::to_writer(&mut *out, &String::from_utf8_lossy(line)));
    out.extend_from_slice(b",\"stream\":\"");
    out.extend_from_slice(stream.name().as_bytes());
    out.push(b'"');
    out.extend_from_slice(attributes);
    out.extend_from_slice(b",\"time\":\"");
    out.extend_from_slice(time.as_bytes());
    out.extend_from_slice(b"\"}\n");
}

/// Zero is written as conmon writes it, and not as `Z`: there are readers that look for digits.
const UTC: &str = "+00:00";

fn encode_plain(out: &mut Vec<u8>, stream: Stream, time: &str, line: &[u8]) {
    let (text, whole) = match line.strip_suffix(b"\n") {
        Some(text) => (text, "F"),
        None => (line, "P"),
    };
    let time = time.strip_suffix('Z').unwrap_or(time);
    out.extend_from_slice(format!("{time}{UTC} {} {whole} ", stream.name()).as_bytes());
    out.extend_from_slice(text);
    out.push(b'\n');
}

/// A record in either form.
fn decode(line: &[u8]) -> Option<Record> {
    if line.starts_with(b"{") {
        let line: Line = serde_json::from_slice(line).ok()?;
        return Some(Record {
            log: line.log,
            stream: Stream::of(&line.stream),
            time: line.time,
            attributes: line.attrs,
        });
    }
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let mut word = || std::str::from_utf8(parts.next()?).ok();
    let (time, stream, whole) = (word()?, word()?, word()?);
    let time = time.strip_suffix(UTC)?;
    let mut log = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    match whole {
        "F" => log.push('\n'),
        "P" => {}
        _ => return None,
    }
    Some(Record {
        log,
        stream: Stream::of(stream),
        time: format!("{time}Z"),
        attributes: Attributes::new(),
    })
}

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The bytes, with their newline when there was one.
    pub log: String,
    /// Where they were written.
    pub stream: Stream,
    /// When they were read, RFC 3339 with nine digits.
    pub time: String,
    /// What the record says of its container.
    pub attributes: Attributes,
}

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    log: String,
    #[serde(default)]
    stream: String,
    #[serde(default)]
    time: String,
    #[serde(default)]
    attrs: Attributes,
}

/// Reads one log file, record by record.
#[derive(Debug)]
pub struct LogReader<R> {
    input: R,
    line: Vec<u8>,
}

impl LogReader<BufReader<File>> {
    /// Opens a log file.
    ///
    /// # Errors
    /// `NotFound` and whatever else the file system says.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).context(|| format!("open the log {}", path.display()))?;
        Ok(Self::new(BufReader::with_capacity(64 << 10, file)))
    }

    /// The file.
    pub(crate) fn file(&self) -> &File {
        self.input.get_ref()
    }
}

impl<R: BufRead> LogReader<R> {
    /// Reads from `input`.
    pub fn new(input: R) -> Self {
        Self {
            input,
            line: Vec::new(),
        }
    }

    /// The next whole record; `None` at the present end, after which more may come. A line that is no record
    /// (a crash cut it) is skipped.
    ///
    /// # Errors
    /// What reading the file said.
    pub fn record(&mut self) -> Result<Option<Record>, Error> {
        loop {
            let limit = (8 * MAX_LINE).saturating_sub(self.line.len()).max(1) as u64;
            let read = io::Read::take(&mut self.input, limit)
                .read_until(b'\n', &mut self.line)
                .context(|| "read the log")?;
            if read == 0 {
                return Ok(None);
            }
            let ended = self.line.last() == Some(&b'\n');
            if !ended && self.line.len() < 8 * MAX_LINE {
                continue;
            }
            let record = decode(&self.line);
            self.line.clear();
            if record.is_some() {
                return Ok(record);
            }
        }
    }
}

/// The files of a log that are there, oldest first.
#[must_use]
pub fn log_files(path: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = (1..)
        .map(|number| numbered(path, number))
        .take_while(|file| file.exists())
        .collect();
    files.reverse();
    files.push(path.to_owned());
    files
}

/// RFC 3339 in UTC with nine digits of a second, as Go's `RFC3339Nano` would without dropping zeros.
///
/// The calendar is computed here (Howard Hinnant's days-to-civil), since the monitor must not load a time zone.
#[must_use]
pub fn format_time(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, rest) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:09}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60,
        since.subsec_nanos()
    )
}

/// A time that [`format_time`] wrote; none for another text.
#[must_use]
pub fn parse_time(text: &str) -> Option<SystemTime> {
    let (date, clock) = text.strip_suffix('Z')?.split_once('T')?;
    let (clock, fraction) = clock.split_once('.')?;
    let numbers = |text: &str, separator: char| -> Option<[u64; 3]> {
        let all: Option<Vec<u64>> = text.split(separator).map(|part| part.parse().ok()).collect();
        all?.try_into().ok()
    };
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(clock, ':')?;
    let sound = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !sound || hour > 23 || minute > 59 || second > 59 || fraction.len() != 9 {
        return None;
    }
    let year = year - u64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let from_march = (month + 9) % 12;
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second;
    UNIX_EPOCH.checked_add(Duration::new(seconds, fraction.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(folder: &Path, max_size: u64, max_files: u32) -> LogWriter {
        LogWriter::open(LogSettings {
            path: folder.join("log"),
            max_size,
            max_files,
            attributes: Attributes::new(),
            form: LogForm::Json,
        })
        .unwrap()
    }

    fn records(path: &Path) -> Vec<Record> {
        let mut reader = LogReader::open(path).unwrap();
        std::iter::from_fn(|| reader.record().unwrap()).collect()
    }

    #[test]
    fn time_is_written_as_rfc_3339() {
        assert_eq!(format_time(UNIX_EPOCH), "1970-01-01T00:00:00.000000000Z");
        let leap = UNIX_EPOCH + Duration::new(1_709_210_096, 5);
        assert_eq!(format_time(leap), "2024-02-29T12:34:56.000000005Z");
    }

    #[test]
    fn lines_are_whole_however_the_output_is_cut_and_the_last_needs_no_newline() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = writer(folder.path(), 0, 1);
        for piece in ["he", "llo\nwor", "ld\n\"quoted\"\nend"] {
            log.write(Stream::Stdout, piece.as_bytes());
        }
        log.write(Stream::Stderr, b"oops\n");
        log.finish();
        let lines: Vec<_> = records(&folder.path().join("log"))
            .into_iter()
            .map(|r| (r.log, r.stream))
            .collect();
        let expected = [
            ("hello\n", Stream::Stdout),
            ("world\n", Stream::Stdout),
            ("\"quoted\"\n", Stream::Stdout),
            ("oops\n", Stream::Stderr),
            ("end", Stream::Stdout),
        ];
        assert_eq!(lines, expected.map(|(text, stream)| (text.to_owned(), stream)));
    }

    #[test]
    fn a_line_without_end_is_split_at_sixteen_kibibytes_and_bad_bytes_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = writer(folder.path(), 0, 1);
        log.write(Stream::Stdout, &vec![b'x'; MAX_LINE * 2 + 1]);
        log.write(Stream::Stdout, b"\xff\n");
        let lines = records(&folder.path().join("log"));
        assert_eq!(
            lines.iter().map(|r| r.log.chars().count()).collect::<Vec<_>>(),
            [MAX_LINE, MAX_LINE, 3]
        );
        assert!(lines[2].log.contains('\u{fffd}'));
    }

    #[test]
    fn a_written_time_is_read_again() {
        for nanoseconds in [
            0,
            951_827_696_000_000_001,
            1_709_210_096_123_456_789,
            4_107_542_399_999_999_999,
        ] {
            let time = UNIX_EPOCH + Duration::from_nanos(nanoseconds);
            assert_eq!(parse_time(&format_time(time)), Some(time), "{nanoseconds}");
        }
        for wrong in [
            "",
            "2024-01-31T12:00:00Z",
            "2024-13-31T12:00:00.000000000Z",
            "1-2-3T4:5:6.x",
        ] {
            assert_eq!(parse_time(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn rotation_keeps_so_many_files_of_about_that_size() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = writer(folder.path(), 1000, 3);
        for number in 0..100 {
            log.write(Stream::Stdout, format!("line {number}\n").as_bytes());
        }
        let files = log_files(&folder.path().join("log"));
        assert_eq!(files.len(), 3);
        assert!(files.iter().all(|file| file.metadata().unwrap().len() <= 1000));
        assert_eq!(records(files.last().unwrap()).last().unwrap().log, "line 99\n");
        // However much comes at once.
        let text: String = (0..50).map(|number| format!("more {number}\n")).collect();
        log.write(Stream::Stdout, text.as_bytes());
        assert!(files.iter().all(|file| file.metadata().unwrap().len() <= 1000));
        assert_eq!(records(files.last().unwrap()).last().unwrap().log, "more 49\n");
    }

    #[test]
    fn attributes_are_in_every_record_as_docker_writes_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let attributes: Attributes = [("MODE", "fast"), ("t\"", "\n")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let settings = LogSettings {
            path: path.clone(),
            max_size: 0,
            max_files: 1,
            attributes: attributes.clone(),
            form: LogForm::Json,
        };
        LogWriter::open(settings)
            .unwrap()
            .write(Stream::Stdout, b"a\nb\n");
        let text = std::fs::read_to_string(&path).unwrap();
        let head = r#"{"log":"a\n","stream":"stdout","attrs":{"MODE":"fast","t\"":"\n"},"time":""#;
        assert!(text.starts_with(head), "{text}");
        assert!(
            records(&path)
                .iter()
                .all(|record| record.attributes == attributes)
        );
    }

    #[test]
    fn the_kubelets_form_keeps_bytes_and_tells_parts_of_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let settings = LogSettings {
            path: path.clone(),
            max_size: 0,
            max_files: 1,
            attributes: Attributes::new(),
            form: LogForm::Kubernetes,
        };
        let mut log = LogWriter::open(settings).unwrap();
        log.write(Stream::Stdout, b"a \0 b\n\nno end");
        log.write(Stream::Stderr, b"{\"x\":1}\n");
        log.finish();
        let bytes = std::fs::read(&path).unwrap();
        let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
        assert!(lines[0].ends_with(b"+00:00 stdout F a \0 b"), "{lines:?}");
        assert!(lines[3].ends_with(b"+00:00 stdout P no end"), "{lines:?}");
        let read: Vec<_> = records(&path)
            .into_iter()
            .map(|record| (record.log, record.stream))
            .collect();
        let expected = [
            ("a \0 b\n", Stream::Stdout),
            ("\n", Stream::Stdout),
            ("{\"x\":1}\n", Stream::Stderr),
            ("no end", Stream::Stdout),
        ];
        assert_eq!(read, expected.map(|(text, stream)| (text.to_owned(), stream)));
        assert!(parse_time(&records(&path)[0].time).is_some());
    }

    #[test]
    fn a_line_that_a_crash_cut_is_skipped() {
        let text = b"{\"log\":\"a\n\n{\"log\":\"b\\n\",\"stream\":\"stdout\",\"time\":\"t\"}\n";
        let mut reader = LogReader::new(&text[..]);
        assert_eq!(reader.record().unwrap().unwrap().log, "b\n");
        assert_eq!(reader.record().unwrap(), None);
    }
}
