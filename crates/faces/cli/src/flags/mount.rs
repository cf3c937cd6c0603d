//! `-v`, `--mount` and `--tmpfs`.

use std::path::PathBuf;

use dhow_engine::container::MountSpec;
use dhow_engine::{Propagation, Relabel, Submounts, VolumeRequest};

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
            "exec" | "noexec" | "suid" | "nosuid" | "dev" | "nodev" | "idmap" | "U" => {
                attributes.push(option.to_owned());
            }
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
            submounts: Submounts::default(),
        });
    }
    let name = (!source.is_empty()).then(|| source.to_owned());
    Ok(MountSpec::Volume {
        name,
        target,
        read_only,
        no_copy,
        options: attributes,
        subpath: None,
        made_with: Box::default(),
    })
}

/// `--mount type=bind,source=...,target=...`: fields separated by commas, with quotes as in CSV.
pub(crate) fn mount(text: &str) -> Result<MountSpec, String> {
    let bad = |why: String| format!("invalid mount {text:?}: {why}");
    let mut wish = Wish::default();
    for field in fields(text) {
        let (key, value) = field
            .split_once('=')
            .map_or((field.as_str(), None), |(key, value)| (key, Some(value)));
        wish.take(key, value).map_err(bad)?;
    }
    wish.spec().map_err(bad)
}

/// What the fields of a `--mount` said so far.
#[derive(Default)]
struct Wish {
    kind: Option<String>,
    source: Option<String>,
    target: Option<String>,
    /// What was said of writing, in either way.
    read_only: Option<bool>,
    no_copy: bool,
    create: bool,
    propagation: Option<Propagation>,
    submounts: Submounts,
    relabel: Relabel,
    subpath: Option<String>,
    /// `noexec` and the like.
    attributes: Vec<String>,
    /// Options of a tmpfs.
    memory: Vec<String>,
    /// Labels and options of a volume that is not there yet.
    volume: VolumeRequest,
    /// Beginnings of the options that are for one kind alone, which were used.
    kinds: Vec<&'static str>,
}

/// The files become those of the container's user.
const CHOWN: &str = "U";
/// Kinds that have options of their own, `bind-propagation` for example.
const KINDS: [&str; 4] = ["bind", "volume", "tmpfs", "image"];

impl Wish {
    fn take(&mut self, key: &str, value: Option<&str>) -> Result<(), String> {
        let needed = || {
            value
                .filter(|value| !value.is_empty())
                .map(str::to_owned)
                .ok_or_else(|| format!("{key} needs a value"))
        };
        let flag = || flag(value).ok_or_else(|| format!("{key} is true or false"));
        let own = KINDS.iter().find(|kind| {
            let rest = key.strip_prefix(**kind);
            rest.is_some_and(|rest| rest.starts_with('-'))
        });
        self.kinds.extend(own);
        match key {
            "type" => self.kind = Some(needed()?.to_ascii_lowercase()),
            "source" | "src" => self.source = Some(needed()?),
            "target" | "dst" | "dest" | "destination" => self.target = Some(needed()?),
            "exec" | "noexec" | "suid" | "nosuid" | "dev" | "nodev" if value.is_none() => {
                self.attributes.push(key.to_owned());
            }
            "idmap" if value.is_none() => self.attributes.push(key.to_owned()),
            "U" | "chown" if flag()? => self.attributes.push(CHOWN.to_owned()),
            "U" | "chown" => {}
            "rw" | "readwrite" => self.read_only = Some(!flag()?),
            "readonly" | "ro" => self.read_only = Some(flag()?),
            "volume-nocopy" => self.no_copy = flag()?,
            "volume-subpath" | "image-subpath" | "subpath" => self.subpath = Some(needed()?),
            "volume-driver" => match needed()?.as_str() {
                "local" => {}
                other => return Err(format!("there is no volume driver {other:?}: use local")),
            },
            "volume-label" => drop(self.volume.labels.insert(pair(&needed()?).0, pair(&needed()?).1)),
            "volume-opt" => drop(self.volume.options.insert(pair(&needed()?).0, pair(&needed()?).1)),
            "bind-create-src" => self.create = flag()?,
            "bind-nonrecursive" if flag()? => self.submounts = Submounts::Disabled,
            "bind-nonrecursive" => {}
            "bind-recursive" => self.submounts = submounts(&needed()?)?,
            "bind-propagation" => {
                let name = needed()?;
                let known = self::propagation(&name);
                self.propagation = Some(known.ok_or_else(|| format!("unknown propagation {name:?}"))?);
            }
            // Where files are shared with another system (docker's desktops), and nowhere else, it says how.
            "consistency" => match needed()?.as_str() {
                "default" | "consistent" | "cached" | "delegated" => {}
                other => return Err(format!("unknown consistency {other:?}")),
            },
            "relabel" => match needed()?.as_str() {
                "shared" => self.relabel = Relabel::Shared,
                "private" => self.relabel = Relabel::Private,
                other => return Err(format!("relabel is shared or private, and not {other:?}")),
            },
            "z" if value.is_none() => self.relabel = Relabel::Shared,
            "Z" if value.is_none() => self.relabel = Relabel::Private,
            "tmpfs-size" => self.memory.push(format!("size={}", needed()?)),
            "tmpfs-mode" => self.memory.push(format!("mode={}", needed()?)),
            "tmpcopyup" | "notmpcopyup" if value.is_none() => self.memory.push(key.to_owned()),
            other if value.is_none() && self::propagation(other).is_some() => {
                self.propagation = self::propagation(other);
            }
            other => return Err(format!("option {other:?} is not supported")),
        }
        Ok(())
    }

    /// What it all means.
    fn spec(self) -> Result<MountSpec, String> {
        let kind = self.kind.as_deref().unwrap_or("volume");
        if !KINDS.contains(&kind) {
            return Err(format!(
                "type {kind:?} is not supported: use bind, volume, tmpfs or image"
            ));
        }
        // Docker's words (docker/cli `opts/mount_utils.go`).
        if let Some(other) = self.kinds.iter().find(|other| **other != kind) {
            return Err(format!(
                "cannot mix '{other}-*' options with mount type '{kind}': they are for type={other}"
            ));
        }
        let target = self.target.as_deref().filter(|path| path.starts_with('/'));
        let target = PathBuf::from(target.ok_or("target must be an absolute path")?);
        let read_only = self.read_only.unwrap_or(false);
        let subpath = self.subpath.as_deref().map(part);
        match kind {
            "bind" => {
                self.check_recursion(read_only)?;
                let source = self.source.as_deref().filter(|path| path.starts_with(['/', '.']));
                let source = source.ok_or("source must be an absolute path")?;
                Ok(MountSpec::Bind {
                    source: std::path::absolute(source).map_err(|error| error.to_string())?,
                    target,
                    read_only,
                    create: self.create,
                    propagation: self.propagation.unwrap_or_default(),
                    relabel: self.relabel,
                    options: self.attributes,
                    submounts: self.submounts,
                })
            }
            "volume" => Ok(MountSpec::Volume {
                name: self.source,
                target,
                read_only,
                no_copy: self.no_copy,
                options: self.attributes,
                subpath,
                made_with: Box::new(self.volume),
            }),
            "image" => Ok(MountSpec::Image {
                image: self.source.ok_or("source must be the name of an image")?,
                target,
                subpath,
                writable: self.read_only == Some(false),
            }),
            _ if self.source.is_some() => Err("a tmpfs has no source".to_owned()),
            _ => Ok(MountSpec::Tmpfs {
                target,
                options: self.memory_options(),
            }),
        }
    }

    fn memory_options(self) -> Vec<String> {
        let read_only = (self.read_only == Some(true)).then(|| "ro".to_owned());
        [self.memory, self.attributes]
            .concat()
            .into_iter()
            .chain(read_only)
            .collect()
    }

    /// What `bind-recursive` goes with (docker/cli `opts/mount_utils.go`).
    fn check_recursion(&self, read_only: bool) -> Result<(), String> {
        let needs = |what: &str, flag: &str| {
            Err(format!(
                "option 'bind-recursive={what}' requires '{flag}' to be specified in conjunction"
            ))
        };
        match self.submounts {
            Submounts::Writable if !read_only => needs("writable", "readonly"),
            Submounts::ReadOnly if !read_only => needs("readonly", "readonly"),
            Submounts::ReadOnly if self.propagation != Some(Propagation::Rprivate) => {
                needs("readonly", "bind-propagation=rprivate")
            }
            _ => Ok(()),
        }
    }
}

fn submounts(text: &str) -> Result<Submounts, String> {
    match text {
        "enabled" => Ok(Submounts::Enabled),
        "disabled" => Ok(Submounts::Disabled),
        "writable" => Ok(Submounts::Writable),
        "readonly" => Ok(Submounts::ReadOnly),
        _ => Err(format!(
            "invalid value for bind-recursive: {text} (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")"
        )),
    }
}

/// A part of a volume or image: podman's begin with a slash, and mean the same.
fn part(text: &str) -> PathBuf {
    let relative = text.trim_start_matches('/');
    if crate::dialect::spoken().is_podman() {
        PathBuf::from(relative)
    } else {
        PathBuf::from(text)
    }
}

fn pair(text: &str) -> (String, String) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    (key.to_owned(), value.to_owned())
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
            mount("type=cache,source=x,target=/b")
                .unwrap_err()
                .contains("cache")
        );
        assert!(mount("type=tmpfs,target=/b,tmpfs-size=1m").is_ok());
    }

    #[test]
    fn options_are_for_their_own_kind_and_go_together() {
        let says = |text: &str, part: &str| {
            let error = mount(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        };
        says(
            "type=volume,target=/b,bind-recursive=disabled",
            "cannot mix 'bind-*' options with mount type 'volume'",
        );
        says("type=bind,src=/a,target=/b,image-subpath=x", "'image-*'");
        says(
            "type=bind,src=/a,target=/b,bind-recursive=writable",
            "requires 'readonly'",
        );
        says(
            "type=bind,src=/a,target=/b,readonly,bind-recursive=readonly",
            "requires 'bind-propagation=rprivate'",
        );
        says(
            "type=bind,src=/a,target=/b,bind-recursive=often",
            "must be \"enabled\"",
        );
        says("type=image,target=/b", "source");
        says("type=volume,volume-driver=nfs,target=/b", "volume driver \"nfs\"");
    }

    #[test]
    fn images_are_read_only_unless_they_are_asked_to_be_written() {
        let writable = |text: &str| match mount(text) {
            Ok(MountSpec::Image { writable, .. }) => writable,
            other => panic!("{text}: {other:?}"),
        };
        assert!(!writable("type=image,source=x,target=/b"));
        assert!(!writable("type=image,source=x,target=/b,readonly"));
        assert!(writable("type=image,source=x,target=/b,rw=true"));
    }
}
