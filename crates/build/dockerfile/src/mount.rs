use dhow_types::ByteSize;

use crate::suggest::did_you_mean;

/// A `RUN --mount` with all its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// What is mounted.
    pub kind: MountKind,
    /// Stage or image it comes from.
    pub from: Option<String>,
    /// Path in the source, or the secret's id under its other name.
    pub source: Option<String>,
    /// Where to, relative to the working directory.
    pub target: Option<String>,
    /// Whether it cannot be written to.
    pub read_only: bool,
    /// Most bytes of a tmpfs.
    pub size: Option<u64>,
    /// Whether a tmpfs begins with what is at its target; buildah's `tmpcopyup`.
    pub copy_up: bool,
    /// Id of a cache, secret or ssh agent.
    pub id: Option<String>,
    /// How users of one cache share it.
    pub sharing: Sharing,
    /// Whether a missing secret or agent is an error.
    pub required: bool,
    /// Environment variable that holds a secret; empty for its default name.
    pub env: Option<String>,
    /// Permissions.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}

/// The types of `--mount`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MountKind {
    /// Files of the context, a stage or an image.
    Bind,
    /// A directory that outlives the build.
    Cache,
    /// A secret.
    Secret,
    /// An ssh agent.
    Ssh,
    /// Memory.
    Tmpfs,
}

impl MountKind {
    const NAMES: [(&'static str, Self); 5] = [
        ("bind", Self::Bind),
        ("cache", Self::Cache),
        ("secret", Self::Secret),
        ("ssh", Self::Ssh),
        ("tmpfs", Self::Tmpfs),
    ];

    /// Its name in a Dockerfile.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
            Self::Tmpfs => "tmpfs",
        }
    }
}

/// How users of one cache mount share it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Sharing {
    /// One at a time.
    Locked,
    /// Each its own.
    Private,
    /// All at once.
    #[default]
    Shared,
}

impl Sharing {
    const NAMES: [(&'static str, Self); 3] = [
        ("locked", Self::Locked),
        ("private", Self::Private),
        ("shared", Self::Shared),
    ];
}

/// `z` of buildah, and `Z`, stand below: keys are compared in lower case.
const KEYS: [&str; 21] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "env",
    "z",
    "tmpcopyup",
];

/// What is wrong with a mount, and what may have been meant.
pub(crate) type Fault = (String, Option<String>);

fn fault(message: impl Into<String>) -> Fault {
    (message.into(), None)
}

impl Mount {
    /// Reads the comma-separated fields of a `--mount`. `expand` replaces the variables of a value, also in `from`, where
    /// docker has none.
    ///
    /// # Errors
    /// What is wrong with which field, and a hint.
    pub fn parse(
        text: &str,
        expand: &mut dyn FnMut(&str) -> Result<String, String>,
    ) -> Result<Self, (String, Option<String>)> {
        let mut mount = Self::new();
        let mut given_access = None;
        let mut given_sharing = None;
        for field in fields(text)? {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key.to_ascii_lowercase(), Some(value)),
                None => (field.to_ascii_lowercase(), None),
            };
            check_key(&key, &field)?;
            let written = value;
            let value = value.map(&mut *expand).transpose().map_err(fault)?;
            if key == "from" && value.as_deref() == Some("") && written != Some("") {
                let hint = "give the argument a value: ARG name=stage".to_owned();
                return Err(("from expands to nothing".to_owned(), Some(hint)));
            }
            match key.as_str() {
                "readonly" | "ro" => given_access = Some(boolean(&key, value.as_deref())?),
                "readwrite" | "rw" => given_access = Some(!boolean(&key, value.as_deref())?),
                "sharing" => given_sharing = Some(sharing(value.as_deref().unwrap_or_default())?),
                _ => mount.set(&key, value, &field)?,
            }
        }
        mount.finish(given_access, given_sharing)
    }

    /// Checks the shape of a `--mount` whose variables have no value yet.
    pub(crate) fn check_shape(text: &str) -> Result<(), Fault> {
        for field in fields(text)? {
            let (key, _) = field.split_once('=').unwrap_or((&field, ""));
            check_key(&key.to_ascii_lowercase(), &field)?;
        }
        Ok(())
    }

    const fn new() -> Self {
        Self {
            kind: MountKind::Bind,
            from: None,
            source: None,
            target: None,
            read_only: true,
            size: None,
            copy_up: false,
            id: None,
            sharing: Sharing::Shared,
            required: false,
            env: None,
            mode: None,
            uid: None,
            gid: None,
        }
    }

    fn set(&mut self, key: &str, value: Option<String>, field: &str) -> Result<(), Fault> {
        let secret_like = matches!(self.kind, MountKind::Secret | MountKind::Ssh);
        // Buildah's words for labels of SELinux: a source is the builder's own copy, and a command has no label of its own.
        if key == "z" && value.is_none() && matches!(self.kind, MountKind::Bind | MountKind::Cache) {
            return Ok(());
        }
        if key == "tmpcopyup" && value.is_none() && self.kind == MountKind::Tmpfs {
            self.copy_up = true;
            return Ok(());
        }
        if key == "required" {
            if !secret_like {
                return Err(self.unexpected(key));
            }
            self.required = boolean(key, value.as_deref())?;
            return Ok(());
        }
        let Some(value) = value else {
            return Err(fault(format!("invalid field '{field}' must be a key=value pair")));
        };
        let number = |radix| {
            u32::from_str_radix(&value, radix).map_err(|_| fault(format!("invalid value {value} for {key}")))
        };
        match key {
            "type" => self.kind = kind(&value)?,
            "from" => self.from = Some(value).filter(|value| !value.is_empty()),
            "source" | "src" => self.source = Some(value),
            "target" | "dst" | "destination" => self.target = Some(value),
            "size" if self.kind == MountKind::Tmpfs => {
                let size: ByteSize = value
                    .parse()
                    .map_err(|error| fault(format!("invalid value for size: {error}")))?;
                self.size = Some(size.0);
            }
            "size" => return Err(self.unexpected(key)),
            "id" => self.id = Some(value).filter(|value| !value.is_empty()),
            "mode" => self.mode = Some(number(8)?),
            "uid" => self.uid = Some(number(10)?),
            "gid" => self.gid = Some(number(10)?),
            "env" => self.env = Some(value),
            other => return Err(self.unexpected(other)),
        }
        Ok(())
    }

    fn unexpected(&self, key: &str) -> Fault {
        fault(format!(
            "unexpected key '{key}' for mount type '{}'",
            self.kind.name()
        ))
    }

    /// Fills in what follows from the type, and refuses what does not fit it.
    fn finish(mut self, read_only: Option<bool>, sharing: Option<Sharing>) -> Result<Self, Fault> {
        use MountKind::{Bind, Cache, Secret, Ssh, Tmpfs};
        if matches!(self.kind, Bind | Tmpfs) {
            for (key, set) in [
                ("mode", self.mode.is_some()),
                ("uid", self.uid.is_some()),
                ("gid", self.gid.is_some()),
            ] {
                if set {
                    return Err(fault(format!(
                        "{key} not allowed for {:?} type mounts",
                        self.kind.name()
                    )));
                }
            }
        }
        self.read_only = read_only.unwrap_or(!matches!(self.kind, Cache | Tmpfs));
        if sharing.is_some() && self.kind != Cache {
            return Err(fault(format!(
                "invalid cache sharing set for {} mount",
                self.kind.name()
            )));
        }
        self.sharing = sharing.unwrap_or_default();
        if self.kind == Secret {
            if self.from.is_some() {
                return Err(fault("secret mount should not have a from"));
            }
            if self.source.is_none() && self.target.is_none() && self.id.is_none() {
                return Err(fault("invalid secret mount. one of source, target required"));
            }
            if self.source.is_some() && self.id.is_some() {
                return Err(fault("both source and id can't be set"));
            }
        }
        if !matches!(self.kind, Secret | Ssh) && self.target.as_deref().unwrap_or_default().is_empty() {
            return Err(fault(format!("a {} mount needs a target", self.kind.name())));
        }
        Ok(self)
    }
}

fn check_key(key: &str, field: &str) -> Result<(), Fault> {
    if KEYS.contains(&key) {
        return Ok(());
    }
    Err((
        format!("unexpected key '{key}' in '{field}'"),
        did_you_mean(key, KEYS, ""),
    ))
}

fn kind(value: &str) -> Result<MountKind, Fault> {
    let wanted = value.to_ascii_lowercase();
    let found = MountKind::NAMES.iter().find(|(name, _)| *name == wanted);
    found.map(|(_, kind)| *kind).ok_or_else(|| {
        let names = MountKind::NAMES.iter().map(|(name, _)| *name);
        (
            format!("unsupported mount type {value:?}"),
            did_you_mean(value, names, ""),
        )
    })
}

fn sharing(value: &str) -> Result<Sharing, Fault> {
    let wanted = value.to_ascii_lowercase();
    let found = Sharing::NAMES.iter().find(|(name, _)| *name == wanted);
    found.map(|(_, sharing)| *sharing).ok_or_else(|| {
        let names = Sharing::NAMES.iter().map(|(name, _)| *name);
        (
            format!("unsupported sharing value {value:?}"),
            did_you_mean(value, names, ""),
        )
    })
}

/// The words of Go's `strconv.ParseBool`; no value means yes.
fn boolean(key: &str, value: Option<&str>) -> Result<bool, Fault> {
    match value {
        None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(other) => Err(fault(format!("invalid value for {key}: {other}"))),
    }
}

/// Splits a CSV record (RFC 4180): a field may stand in double quotes, with `""` for a quote.
fn fields(text: &str) -> Result<Vec<String>, Fault> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        if fields.len() >= 64 {
            return Err(fault("a mount has more than 64 fields"));
        }
        let (field, after) = if let Some(quoted) = rest.strip_prefix('"') {
            quoted_field(quoted).ok_or_else(|| fault(format!("failed to parse csv mounts: {text:?}")))?
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            (rest[..end].to_owned(), &rest[end..])
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(after) => rest = after,
            None => return Ok(fields),
        }
    }
}

fn quoted_field(text: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"')?;
        field.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(after) => {
                field.push('"');
                rest = after;
            }
            None if rest.is_empty() || rest.starts_with(',') => return Some((field, rest)),
            None => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Mount, String> {
        Mount::parse(text, &mut |value| Ok(value.to_owned())).map_err(|(message, _)| message)
    }

    #[test]
    fn a_bind_is_read_only_and_a_cache_is_not_unless_said() {
        assert!(parse("target=/a").unwrap().read_only);
        assert!(!parse("target=/a,rw").unwrap().read_only);
        assert!(!parse("type=cache,target=/a").unwrap().read_only);
        assert!(parse("type=cache,target=/a,ro=1").unwrap().read_only);
    }

    #[test]
    fn a_mount_refuses_keys_of_another_type() {
        for (text, message) in [
            (
                "type=bind,target=/a,mode=0644",
                "mode not allowed for \"bind\" type mounts",
            ),
            (
                "type=cache,target=/a,size=1m",
                "unexpected key 'size' for mount type 'cache'",
            ),
            (
                "type=tmpfs,target=/a,sharing=locked",
                "invalid cache sharing set for tmpfs mount",
            ),
            ("type=secret,id=a,from=b", "secret mount should not have a from"),
            ("type=secret,id=a,source=b", "both source and id can't be set"),
            (
                "type=secret",
                "invalid secret mount. one of source, target required",
            ),
            ("type=bnid,target=/a", "unsupported mount type \"bnid\""),
            ("target=/a,uid=-1,type=cache", "invalid value -1 for uid"),
            ("\"target=/a", "failed to parse csv mounts: \"\\\"target=/a\""),
            ("type=cache", "a cache mount needs a target"),
        ] {
            assert_eq!(parse(text).unwrap_err(), message, "{text}");
        }
    }

    #[test]
    fn buildahs_words_are_known_where_they_have_a_meaning() {
        for text in ["target=/a,z", "type=bind,target=/a,Z", "type=cache,target=/a,z"] {
            assert!(parse(text).is_ok(), "{text}");
        }
        assert!(parse("type=tmpfs,target=/a,tmpcopyup").unwrap().copy_up);
        for text in [
            "type=tmpfs,target=/a,z",
            "target=/a,z=1",
            "type=secret,id=a,z",
            "target=/a,tmpcopyup",
            "type=tmpfs,target=/a,tmpcopyup=1",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn quoted_fields_may_hold_commas() {
        assert_eq!(parse("\"target=/a,b\",rw").unwrap().target.unwrap(), "/a,b");
    }
}
