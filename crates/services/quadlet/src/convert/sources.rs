//! What is named in a file and may be another file: networks, volumes, mounts.

use super::container::{csv, escaped_path};
use super::{Command, Conversion, UNIT, bad};
use crate::Error;

impl Conversion<'_> {
    /// `Network`.
    pub(super) fn networks(&mut self, command: &mut Command) -> Result<(), Error> {
        for network in self.file.all(self.kind.group(), "Network") {
            let (name, options) = match network.split_once(':') {
                Some((name, options)) => (name, Some(options)),
                None => (network, None),
            };
            let container = name.ends_with(".container");
            if !container && !name.ends_with(".network") {
                command.add(["--network", network]);
                continue;
            }
            let Some(resource) = self.needs(name) else {
                return Err(bad(format!("requested Quadlet unit {name} was not found")));
            };
            if resource.is_empty() {
                return Err(bad(format!("cannot get the resource name of {name}")));
            }
            let network = match (container, options) {
                (true, Some(_)) => {
                    return Err(bad(
                        "extra options are not supported when joining another container's network",
                    ));
                }
                (true, None) => format!("container:{resource}"),
                (false, Some(options)) => format!("{resource}:{options}"),
                (false, None) => resource,
            };
            command.add(["--network".to_owned(), network]);
        }
        Ok(())
    }

    /// `Volume`.
    pub(super) fn volumes(&mut self, command: &mut Command) -> Result<(), Error> {
        for volume in self.file.all(self.kind.group(), "Volume") {
            let Some((source, rest)) = volume.split_once(':') else {
                command.add(["-v", volume]);
                continue;
            };
            let word = match source {
                "" => rest.split(':').next().unwrap_or(rest).to_owned(),
                source => format!("{}:{rest}", self.source(source, false)?),
            };
            command.add(["-v".to_owned(), word]);
        }
        Ok(())
    }

    /// Where files come from: a path, a name, or what another file makes.
    fn source(&mut self, source: &str, images: bool) -> Result<String, Error> {
        if source.is_empty() {
            return Err(bad("source cannot be empty"));
        }
        let source = match source.starts_with('.') {
            true => self.whole_path(source),
            false => source.to_owned(),
        };
        if source.starts_with('/') {
            self.service
                .add(UNIT, "RequiresMountsFor", &escaped_path(&source));
            return Ok(source);
        }
        let other = source.ends_with(".volume")
            || source.ends_with(".artifact")
            || images && source.ends_with(".image");
        if !other {
            return Ok(source);
        }
        self.needs(&source)
            .ok_or_else(|| bad(format!("requested Quadlet source {source} was not found")))
    }

    /// The value of `--mount`, with the source that is meant.
    pub(super) fn mount(&mut self, mount: &str) -> Result<String, Error> {
        let mut fields = fields(mount);
        let at = fields.iter().position(|field| field.starts_with("type="));
        let kind = at.map_or_else(
            || "volume".to_owned(),
            |at| fields.remove(at)["type=".len()..].to_owned(),
        );
        if !matches!(kind.as_str(), "volume" | "bind" | "glob" | "image" | "artifact") {
            return Ok(mount.to_owned());
        }
        let is_source = |field: &String| {
            let key = field.split_once('=').map_or(field.as_str(), |(key, _)| key);
            matches!(key, "source" | "src")
        };
        match fields.iter().rposition(is_source) {
            Some(at) => {
                let Some((_, source)) = fields[at].split_once('=') else {
                    return Err(bad("source parameter does not include a value"));
                };
                let source = source.to_owned();
                fields[at] = format!("source={}", self.source(&source, true)?);
            }
            // A volume without a name has a place.
            None if kind == "volume" && !fields.iter().any(|field| field.contains('=')) => {
                return Err(bad("source cannot be empty"));
            }
            None if kind == "volume" => {}
            None => return Err(bad(format!("source parameter is required for mount type {kind}"))),
        }
        fields.insert(0, format!("type={kind}"));
        Ok(csv(&fields))
    }
}

/// The fields of a CSV line.
fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut quoted) = (vec![String::new()], false);
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        let last = fields.len() - 1;
        match character {
            '"' if quoted && characters.next_if_eq(&'"').is_some() => fields[last].push('"'),
            '"' if quoted || fields[last].is_empty() => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => fields[last].push(other),
        }
    }
    fields
}
