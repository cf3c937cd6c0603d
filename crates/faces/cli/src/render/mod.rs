//! How answers look: tables, templates, progress.

pub(crate) mod build;
pub(crate) mod list;
mod progress;
pub(crate) mod table;
pub(crate) mod template;
pub(crate) mod time;

use std::io::Write as _;

use serde_json::Value;

use crate::CliError;

pub(crate) use list::{Fields, Look, Row};
pub(crate) use progress::Progress;

/// Writes data to standard output. A reader that went away (`| head`) ends the command, quietly and well.
pub(crate) fn say(text: &str) -> Result<(), CliError> {
    say_bytes(text.as_bytes())
}

/// The same for bytes that need not be text.
pub(crate) fn say_bytes(bytes: &[u8]) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(gone)
}

/// The same with a newline.
pub(crate) fn say_line(text: &str) -> Result<(), CliError> {
    say(&format!("{text}\n"))
}

/// Writes a line to standard error; a terminal that is gone needs no line.
pub(crate) fn note(text: &str) {
    drop(writeln!(std::io::stderr(), "{text}"));
}

/// Writing to standard output failed: quiet success when nobody reads it any more.
pub(crate) fn gone(error: std::io::Error) -> CliError {
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        return CliError::exit(0);
    }
    CliError::plain(format!("write to standard output: {error}"))
}

/// What `inspect` shows: all objects as JSON, or each through `--format`.
pub(crate) fn inspected(objects: &[Value], format: Option<&str>) -> Result<String, CliError> {
    let json = |error: serde_json::Error| CliError::plain(error.to_string());
    match format {
        None | Some("") => {
            let mut out = Vec::new();
            let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
            let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
            serde::Serialize::serialize(objects, &mut serializer).map_err(json)?;
            out.push(b'\n');
            String::from_utf8(out).map_err(|error| CliError::plain(error.to_string()))
        }
        Some("json") => Ok(serde_json::to_string(objects).map_err(json)? + "\n"),
        Some(format) => {
            let template = template::Template::parse(format);
            let bad = |error: template::TemplateError| CliError::plain(error.to_string()).with_code(64);
            let template = template.map_err(bad)?;
            let mut out = String::new();
            for object in objects {
                out.push_str(&template.fill(object, None).map_err(bad)?);
                out.push('\n');
            }
            Ok(out)
        }
    }
}
