//! Messages as runc's clients read them: logrus lines, as text or JSON, in a file or on standard error.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// How much a message matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Error,
    #[default]
    Warning,
    Debug,
}

impl Level {
    pub(crate) fn parse(word: &str) -> Option<Self> {
        match word.to_ascii_lowercase().as_str() {
            "error" => Some(Self::Error),
            "warning" => Some(Self::Warning),
            "debug" => Some(Self::Debug),
            _ => None,
        }
    }
}

/// Where messages go.
#[derive(Debug, Default)]
pub(crate) struct Log {
    file: Option<File>,
    json: bool,
    /// The least that is written.
    level: Level,
}

impl Log {
    pub(crate) fn open(path: Option<&Path>, format: &str, level: Level) -> Result<Self, String> {
        let json = match format {
            "" | "text" => false,
            "json" => true,
            other => return Err(format!("invalid log-format: {other}")),
        };
        let file = path.map(|path| {
            let mut options = OpenOptions::new();
            options.create(true).append(true).mode(0o644);
            options
                .open(path)
                .map_err(|error| format!("open {}: {error}", path.display()))
        });
        Ok(Self {
            file: file.transpose()?,
            json,
            level,
        })
    }

    /// Whether messages go to a file, in lines for a program.
    pub(crate) const fn is_file(&self) -> bool {
        self.file.is_some()
    }

    /// An error that ends the command. With a file, a person on the terminal sees it too.
    pub(crate) fn fatal(&self, message: &str) {
        self.line("error", message);
        if self.file.is_some() {
            print_error(message);
        }
    }

    pub(crate) fn warn(&self, message: &str) {
        if self.level >= Level::Warning {
            self.line("warning", message);
        }
    }

    pub(crate) fn debug(&self, message: impl FnOnce() -> String) {
        if self.level >= Level::Debug {
            self.line("debug", &message());
        }
    }

    fn line(&self, level: &str, message: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = dhow_runtime::container::rfc3339(now.as_secs(), None);
        let line = if self.json {
            serde_json::json!({ "level": level, "msg": message, "time": time }).to_string()
        } else {
            format!("time=\"{time}\" level={level} msg={}", quoted(message))
        };
        match &self.file {
            // There is nobody else to tell that the log cannot be written.
            Some(file) => drop({ file }.write_all(format!("{line}\n").as_bytes())),
            None => print_error(&line),
        }
    }
}

/// A line on standard error, for a person.
pub(crate) fn print_error(line: &str) {
    // Standard error may be closed; nothing is left to tell it to.
    drop(writeln!(std::io::stderr().lock(), "{line}"));
}

/// Go's quoting of a string, where it needs one.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._/@^+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c if c.is_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_clients_parse_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let log = Log::open(Some(&path), "json", Level::Error).unwrap();
        log.line("error", "exec: \"x\": not\nfound");
        log.debug(|| "not asked for".to_owned());
        log.warn("nor this");
        let text = std::fs::read_to_string(&path).unwrap();
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(line["level"], "error");
        assert_eq!(line["msg"], "exec: \"x\": not\nfound");
        assert!(line["time"].as_str().unwrap().ends_with('Z'));
        assert_eq!(text.lines().count(), 1);
        assert_eq!(quoted("two \"words\"\n"), r#""two \"words\"\n""#);
        assert_eq!(quoted("word"), "word");
        assert!(Log::open(None, "xml", Level::Debug).is_err());
    }
}
