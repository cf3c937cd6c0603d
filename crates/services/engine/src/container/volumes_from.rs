//! `--volumes-from`: the volumes and binds of another container.

use dhow_bundle::Propagation;
use dhow_types::ErrorKind;

use super::create::CreateContainer;
use super::mounts::MountSpec;
use super::record::MountRecord;
use crate::{Engine, Error, Relabel};

impl Engine {
    /// Adds what other containers have to what was asked for; where both want the same place, the asking one has it.
    pub(super) fn take_volumes(&self, mut wanted: CreateContainer) -> Result<CreateContainer, Error> {
        for text in std::mem::take(&mut wanted.volumes_from) {
            let (name, read_only) = parse(&text)?;
            let other = self.containers().find(name)?;
            for record in &other.config.mounts {
                let Some(spec) = taken(record, read_only) else {
                    continue;
                };
                let place = spec.target().to_owned();
                let covers = |own: &MountSpec| own.target().components().eq(place.components());
                if !wanted.mounts.iter().any(covers) {
                    wanted.mounts.push(spec);
                }
            }
        }
        Ok(wanted)
    }
}

/// `name[:options]`: the options of docker and podman are how it may be written, and labels that are kept as they are.
fn parse(text: &str) -> Result<(&str, bool), Error> {
    let (name, options) = text.split_once(':').unwrap_or((text, "rw"));
    let mut read_only = false;
    for option in options.split(',') {
        match option {
            "ro" => read_only = true,
            "rw" | "z" | "Z" => {}
            other => {
                let message = format!("invalid mode {other:?} in --volumes-from {text}");
                return Err(Error::new(ErrorKind::InvalidArgument, message).with_hint("use ro, rw or z"));
            }
        }
    }
    Ok((name, read_only))
}

fn taken(record: &MountRecord, read_only: bool) -> Option<MountSpec> {
    let target = record.destination.as_str().into();
    let read_only = read_only || !record.writable;
    match record.kind.as_str() {
        "bind" => Some(MountSpec::Bind {
            source: record.source.as_str().into(),
            target,
            read_only,
            create: false,
            propagation: Propagation::default(),
            // It has its label, if it needs one.
            relabel: Relabel::No,
            options: record.options.clone(),
            submounts: record.submounts,
        }),
        "volume" => Some(MountSpec::Volume {
            name: record.name.clone(),
            target,
            read_only,
            no_copy: true,
            options: record.options.clone(),
            subpath: record.subpath.clone(),
            made_with: Box::default(),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn the_mode_is_behind_a_colon() {
        assert_eq!(parse("web").unwrap(), ("web", false));
        assert_eq!(parse("web:ro").unwrap(), ("web", true));
        assert_eq!(parse("web:ro,z").unwrap(), ("web", true));
        assert!(
            parse("web:wx")
                .unwrap_err()
                .to_string()
                .contains("invalid mode \"wx\"")
        );
    }
}
