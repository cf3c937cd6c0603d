//! `-v`, `--mount` and `--tmpfs`.

use std::path::PathBuf;

use dhow_engine::container::MountSpec;
use dhow_engine::{Propagation, Relabel};

/// `-v [source:]target[:options]`: a source with a leading slash or dot is a path, else a volume's name.
pub(crate) fn volume(text: &str) -> Result<MountSpec, String> {
    let bad = |why: &str| format!("invalid volume {text:?}: {why}");
    if text.is_empty() {
        return Err("invalid empty volume spec".to_owned());
    }
    let parts: Vec<&str> = text.split(':').collect();
    let lone = format!("/{}", text.trim_start_matches("./"));
    if lone.split('/').any(|part| part == "..") && parts.len() == 1 {
        return Err(bad("the path in the container must be absolute"));
    }
    let (source, target, options) = match parts.as_slice() {
        // A lone path may be without its slash, as docker's.
        [target] if !target.starts_with('/') => ("", lone.as_str(), ""),
        [target] => ("", *target, ""),
        [source, target] => (*source, *target, ""),
        [source, target, options] => (*source, *target, *options),
        _ => return Err(bad("write [source:]target[:options]")),
    };
    if !target.starts_with('/') {
        return Err(bad("the path in the container must be absolute"));
    }
    let (mut read_only, mut no_copy, mut propagation) = (false, false, Propagation::default());
    let mut relabel = Relabel::No;
    let mut attributes = Vec::new();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = true,
            "rw" => {}
            // Without SELinux there is nothing to do; docker takes it there too.
            "z" => relabel = Relabel::Shared,
            "Z" => relabel = Relabel::Private,
            "nocopy" => no_copy = true,
            "copy" => no_copy = false,
            "exec" | "noexec" | "suid" | "nosuid" | "dev" | "nodev" => attributes.push(option.to_owned()),
            other => {
                propagation =
                    self::propagation(other).ok_or_else(|| bad(&format!("unknown option {other:?}")))?
            }
        }
    }
    let target = PathBuf::from(target);
    if source.is_empty() && parts.len() > 1 {
        return Err(bad("empty section between colons"));
    }
    if source.contains('/') && !source.starts_with(['/', '.']) {
        // It may be meant as either; docker makes no folder of a wrong name, too.
        return Err(bad(
            "a volume's name has no slash, and a path of the host starts with / or ./",
        ));
    }
    if source.starts_with(['/', '.']) {
        let source = std::path::absolute(source).map_err(|error| bad(&error.to_string()))?;
        return Ok(MountSpec::Bind {
            source,
            target,
            read_only,
            create: true,
            propagation,
            relabel,
            options: attributes,
        });
    }
    let name = (!source.is_empty()).then(|| source.to_owned());
    Ok(MountSpec::Volume {
        name,
        target,
        read_only,
        no_copy,
        options: attributes,
    })
}

/// `--mount type=bind,source=...,target=...`: fields separated by commas, with quotes as in CSV.
pub(crate) fn mount(text: &str) -> Result<MountSpec, String> {
    let bad = |why: String| format!("invalid mount {text:?}: {why}");
    let (mut kind, mut source, mut target) = ("volume".to_owned(), None, None);
    let (mut read_only, mut no_copy, mut propagation) = (false, false, Propagation::default());
    let (mut options, mut attributes, mut create) = (Vec::new(), Vec::new(), false);
    for field in fields(text) {
        let (key, value) = field
            .split_once('=')
            .map_or((field.as_str(), None), |(key, value)| (key, Some(value)));
        let needed = || {
            value
                .map(str::to_owned)
                .ok_or_else(|| bad(format!("{key} needs a value")))
        };
        match key {
            "type" => kind = needed()?,
            "source" | "src" => source = Some(needed()?),
            "target" | "dst" | "destination" => target = Some(needed()?),
            "exec" | "noexec" | "suid" | "nosuid" | "dev" | "nodev" if value.is_none() => {
                attributes.push(key.to_owned());
            }
            "rw" => {
                read_only = !flag(value).ok_or_else(|| bad(format!("{key} is true or false")))?;
            }
            "readonly" | "ro" => {
                read_only = flag(value).ok_or_else(|| bad(format!("{key} is true or false")))?
            }
            "volume-nocopy" => no_copy = flag(value).ok_or_else(|| bad(format!("{key} is true or false")))?,
            "bind-create-src" => {
                create = flag(value).ok_or_else(|| bad(format!("{key} is true or false")))?
            }
            "bind-propagation" => {
                let name = needed()?;
                propagation =
                    self::propagation(&name).ok_or_else(|| bad(format!("unknown propagation {name:?}")))?;
            }
            "tmpfs-size" => options.push(format!("size={}", needed()?)),
            "tmpfs-mode" => options.push(format!("mode={}", needed()?)),
            other => return Err(bad(format!("option {other:?} is not supported"))),
        }
    }
    let target = target.filter(|path| path.starts_with('/')).map(PathBuf::from);
    let target = target.ok_or_else(|| bad("target must be an absolute path".to_owned()))?;
    if create && kind != "bind" {
        return Err(bad("bind-create-src is for type=bind".to_owned()));
    }
    match kind.as_str() {
        "bind" => {
            let source = source.filter(|path| path.starts_with('/'));
            let source = source.ok_or_else(|| bad("source must be an absolute path".to_owned()))?;
            Ok(MountSpec::Bind {
                source: source.into(),
                target,
                read_only,
                create,
                propagation,
                relabel: Relabel::No,
                options: attributes,
            })
        }
        "volume" => Ok(MountSpec::Volume {
            name: source.filter(|n| !n.is_empty()),
            target,
            read_only,
            no_copy,
            options: attributes,
        }),
        "tmpfs" if source.is_none() => Ok(MountSpec::Tmpfs { target, options }),
        "tmpfs" => Err(bad("a tmpfs has no source".to_owned())),
        other => Err(bad(format!(
            "type {other:?} is not supported: use bind, volume or tmpfs"
        ))),
    }
}

/// `--tmpfs target[:options]`.
pub(crate) fn tmpfs(text: &str) -> Result<MountSpec, String> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    if !target.starts_with('/') {
        return Err(format!("invalid tmpfs {text:?}: the path must be absolute"));
    }
    let options = options
        .split(',')
        .filter(|option| !option.is_empty())
        .map(str::to_owned)
        .collect();
    Ok(MountSpec::Tmpfs {
        target: target.into(),
        options,
    })
}

fn flag(value: Option<&str>) -> Option<bool> {
    match value {
        None | Some("true" | "1") => Some(true),
        Some("false" | "0") => Some(false),
        Some(_) => None,
    }
}

fn propagation(name: &str) -> Option<Propagation> {
    Some(match name {
        "private" => Propagation::Private,
        "rprivate" => Propagation::Rprivate,
        "shared" => Propagation::Shared,
        "rshared" => Propagation::Rshared,
        "slave" => Propagation::Slave,
        "rslave" => Propagation::Rslave,
        _ => return None,
    })
}

/// Fields of one CSV line: commas inside double quotes do not separate, two quotes are one.
pub(crate) fn fields(text: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                push(&mut fields, '"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => push(&mut fields, other),
        }
    }
    fields
}

fn push(fields: &mut [String], character: char) {
    if let Some(last) = fields.last_mut() {
        last.push(character);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_path_or_a_name() {
        assert!(
            matches!(volume("data:/var/lib"), Ok(MountSpec::Volume { name: Some(name), .. }) if name == "data")
        );
        assert!(matches!(
            volume("/srv:/x:ro"),
            Ok(MountSpec::Bind {
                read_only: true,
                create: true,
                ..
            })
        ));
        assert!(matches!(
            volume("/anonymous"),
            Ok(MountSpec::Volume { name: None, .. })
        ));
        assert!(matches!(volume("./here:/x"), Ok(MountSpec::Bind { source, .. }) if source.is_absolute()));
        for bad in ["", "a:b", "a:/b:c:d", "a:/b:huh"] {
            assert!(volume(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn mount_fields_may_be_quoted_and_unknown_ones_are_named() {
        let spec = mount(r#"type=bind,"source=/a,b",target=/x,readonly"#).unwrap();
        assert!(
            matches!(spec, MountSpec::Bind { source, read_only: true, create: false, .. } if source.as_os_str() == "/a,b")
        );
        assert!(
            mount("type=bind,source=/a,target=/b,fancy=1")
                .unwrap_err()
                .contains("fancy")
        );
        assert!(
            mount("type=image,source=x,target=/b")
                .unwrap_err()
                .contains("image")
        );
        assert!(mount("type=tmpfs,target=/b,tmpfs-size=1m").is_ok());
    }
}
