//! What a person writes for a place of images: `docker://debian:12`, `oci:folder:tag`, `docker-archive:file`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use dhow_reference::Reference;
use dhow_types::ErrorKind;

use crate::{Context as _, Error};

/// Longest path that is taken.
const MAX_PATH: usize = 4096;

/// A place where an image is or goes to, in skopeo's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// `docker://NAME[:TAG|@DIGEST]`: a registry.
    Registry(Reference),
    /// `oci:FOLDER[:NAME]`: an OCI image layout.
    Layout(PathBuf, Option<String>),
    /// `oci-archive:FILE[:NAME]`: the same as a tar.
    LayoutArchive(PathBuf, Option<String>),
    /// `docker-archive:FILE[:NAME:TAG]`: what `docker load` reads.
    DockerArchive(PathBuf, Option<Reference>),
}

impl FromStr for Location {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |why: &str| {
            let shown: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
            Error::new(ErrorKind::InvalidArgument, format!("{shown:?} is no place of an image: {why}"))
                .with_hint("write docker://NAME, oci:FOLDER[:NAME], oci-archive:FILE[:NAME] or docker-archive:FILE[:NAME]")
        };
        let Some((kind, rest)) = text.split_once(':') else {
            return Err(bad("it does not say what it is"));
        };
        if kind == "docker" {
            let name = rest
                .strip_prefix("//")
                .ok_or_else(|| bad("a registry is written docker://"))?;
            let name = Reference::parse(name).context(|| format!("read the place {text:?}"))?;
            return Ok(Self::Registry(name.or_latest()));
        }
        let (path, name) = match rest.split_once(':') {
            Some((path, name)) => (path, Some(name).filter(|name| !name.is_empty())),
            None => (rest, None),
        };
        if path.is_empty() || path.len() > MAX_PATH || path.contains('\0') {
            return Err(bad("it names no file or folder"));
        }
        if name.is_some_and(|name| name.len() > MAX_PATH || name.chars().any(char::is_control)) {
            return Err(bad("the name in it is none"));
        }
        let (path, owned) = (PathBuf::from(path), name.map(str::to_owned));
        match kind {
            "oci" => Ok(Self::Layout(path, owned)),
            "oci-archive" => Ok(Self::LayoutArchive(path, owned)),
            "docker-archive" => {
                let name = name.map(Reference::parse).transpose();
                let name = name.context(|| format!("read the place {text:?}"))?;
                Ok(Self::DockerArchive(path, name.map(Reference::or_latest)))
            }
            _ => Err(bad("its kind is not known")),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, path, name) = match self {
            Self::Registry(name) => return write!(f, "docker://{}", name.familiar()),
            Self::Layout(path, name) => ("oci", path, name.clone()),
            Self::LayoutArchive(path, name) => ("oci-archive", path, name.clone()),
            Self::DockerArchive(path, name) => {
                ("docker-archive", path, name.as_ref().map(Reference::familiar))
            }
        };
        write!(f, "{kind}:{}", path.display())?;
        name.map_or(Ok(()), |name| write!(f, ":{name}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn places_are_written_as_skopeos() {
        for text in [
            "docker://debian:12",
            "docker://localhost:5000/x:1",
            "oci:/tmp/a b",
            "oci:dir:v1",
            "oci:dir:a/b:c",
            "oci-archive:x.tar:latest",
            "docker-archive:x.tar",
            "docker-archive:x.tar:debian:12",
        ] {
            assert_eq!(text.parse::<Location>().unwrap().to_string(), text);
        }
        assert_eq!(
            "docker://debian".parse::<Location>().unwrap().to_string(),
            "docker://debian:latest"
        );
        for bad in [
            "",
            "debian",
            "docker:debian",
            "oci:",
            "oci::x",
            "dir:x",
            "docker-archive:x:UPPER",
            "containers-storage:x",
        ] {
            assert!(bad.parse::<Location>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic_and_prints_what_reads_the_same(text in "(docker://|oci:|oci-archive:|docker-archive:)?[ -~]{0,40}") {
            if let Ok(location) = text.parse::<Location>() {
                prop_assert_eq!(location.to_string().parse::<Location>().unwrap(), location);
            }
        }
    }
}
