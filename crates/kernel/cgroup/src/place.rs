//! Where a group is to be: `cgroupsPath` of the runtime-spec, as runc reads it.

use std::path::{Component, Path, PathBuf};

use dhow_types::ErrorKind;

use crate::Error;
use crate::hierarchy::Hierarchy;

/// Longest path of a group: the kernel's limit for paths.
const MOST_PATH: usize = 4096;

/// Where a group is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub(crate) path: PathBuf,
    pub(crate) start: Start,
    /// Whether somebody asked for this place, rather than for any.
    pub(crate) said: bool,
}

/// Where a path starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// Below the mounted root, or wherever this process may create: what an engine does with its own names.
    Anywhere,
    /// Below the mounted root of each hierarchy.
    Root,
    /// Below this process's group; in a v2 tree beside it, since a group with processes cannot have controllers below.
    Own,
}

impl Place {
    /// The place that `cgroupsPath` names for the container `id` (runtime-spec `config-linux.md`, "Cgroups Path"). An
    /// absolute path starts at the root of every hierarchy, a relative one at this process's group; without a path
    /// the container has a group of the name of its id there. `..` leads nowhere out: paths are cleaned before.
    ///
    /// # Errors
    /// `InvalidArgument` for a path that is no path.
    pub fn parse(cgroups_path: Option<&str>, id: &str) -> Result<Self, Error> {
        let text = cgroups_path.filter(|path| !path.is_empty());
        let path = clean(Path::new(text.unwrap_or(id)))?;
        let start = match text {
            Some(text) if text.starts_with('/') => Start::Root,
            _ => Start::Own,
        };
        Ok(Self {
            path,
            start,
            said: text.is_some(),
        })
    }

    /// A path below the mounted root of every hierarchy.
    ///
    /// # Errors
    /// `InvalidArgument` for a path that is no path.
    pub fn absolute(path: &Path) -> Result<Self, Error> {
        Ok(Self {
            path: clean(path)?,
            start: Start::Root,
            said: true,
        })
    }

    /// An engine's own name, of plain parts only.
    pub(crate) fn anywhere(path: &Path) -> Result<Self, Error> {
        Ok(Self {
            path: relative(path)?,
            start: Start::Anywhere,
            said: true,
        })
    }

    /// The path below [`bases`](Self::bases).
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Directories of a hierarchy below which the group may be, the first one that permits it.
    pub(crate) fn bases(&self, hierarchy: &Hierarchy) -> Vec<PathBuf> {
        let beside = || hierarchy.own.parent().filter(|_| hierarchy.own != hierarchy.root);
        match self.start {
            Start::Root => vec![hierarchy.root.clone()],
            Start::Own if hierarchy.unified => vec![beside().unwrap_or(&hierarchy.root).to_owned()],
            Start::Own => vec![hierarchy.own.clone()],
            Start::Anywhere => {
                let mut out = vec![hierarchy.root.clone()];
                if hierarchy.own != hierarchy.root {
                    let parent = beside().filter(|parent| hierarchy.unified && *parent != hierarchy.root);
                    out.extend(parent.map(Path::to_owned));
                    out.push(hierarchy.own.clone());
                }
                out
            }
        }
    }
}

fn bad(path: &Path) -> Error {
    let message = format!("{:?} is no path of a control group", path.display().to_string());
    Error::new(ErrorKind::InvalidArgument, message).with_hint("write plain names, such as dhow/<id>")
}

/// A group's path relative to a base: plain names only, so that no path leads out of the tree.
///
/// # Errors
/// `InvalidArgument`.
pub(crate) fn relative(path: &Path) -> Result<PathBuf, Error> {
    let dots = |part: &Component<'_>| matches!(part, Component::ParentDir | Component::CurDir);
    if path.components().any(|part| dots(&part)) {
        return Err(bad(path));
    }
    clean(path)
}

/// The same, with `..` taken as what it says, and as nothing at the top.
pub(crate) fn clean(path: &Path) -> Result<PathBuf, Error> {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            Component::Normal(name) if !name.as_encoded_bytes().contains(&b'\n') => out.push(name),
            _ => return Err(bad(path)),
        }
    }
    if out.as_os_str().is_empty() || out.as_os_str().len() > MOST_PATH {
        return Err(bad(path));
    }
    Ok(out)
}

/// Groups below that of a container, for one more process in it (`exec --cgroup`): one path for every hierarchy, or
/// one for each of some v1 controllers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubGroups {
    pub(crate) everywhere: PathBuf,
    pub(crate) by_controller: Vec<(String, PathBuf)>,
}

impl SubGroups {
    /// Reads the values of `--cgroup`: `path`, or `controller[,controller...]:path` any number of times.
    ///
    /// # Errors
    /// `InvalidArgument` in runc's words.
    pub fn parse<S: AsRef<str>>(arguments: &[S]) -> Result<Self, Error> {
        let wrong = |text: &str, why: &str| {
            let shown: String = text.chars().take(256).collect();
            let message = format!("invalid --cgroup argument: {shown} ({why})");
            Err(Error::new(ErrorKind::InvalidArgument, message))
        };
        let mut out = Self::default();
        for argument in arguments.iter().map(AsRef::as_ref) {
            let Some((controllers, path)) = argument.split_once(':') else {
                if arguments.len() != 1 {
                    return wrong(argument, "missing <controller>: prefix");
                }
                out.everywhere = below(argument)?;
                continue;
            };
            let path = below(path)?;
            for controller in controllers.split(',') {
                if controller.is_empty() {
                    return wrong(argument, "empty <controller> prefix");
                }
                if out.by_controller.iter().any(|(other, _)| other == controller) {
                    let message = format!(
                        "invalid --cgroup argument(s): controller {controller} specified multiple times"
                    );
                    return Err(Error::new(ErrorKind::InvalidArgument, message));
                }
                out.by_controller.push((controller.to_owned(), path.clone()));
            }
        }
        Ok(out)
    }
}

/// A path below a container's group; `/` is the group itself.
fn below(text: &str) -> Result<PathBuf, Error> {
    if text.is_empty() || text.bytes().all(|byte| byte == b'/') {
        return Ok(PathBuf::new());
    }
    relative(Path::new(text)).map_err(|_| {
        let shown: String = text.chars().take(256).collect();
        Error::new(
            ErrorKind::InvalidArgument,
            format!("{shown} is not a sub cgroup path"),
        )
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hierarchy::Controllers;

    fn hierarchy(unified: bool, own: &str) -> Hierarchy {
        Hierarchy {
            controllers: Controllers::NONE,
            label: String::new(),
            unified,
            root: PathBuf::from("/c"),
            inside: PathBuf::from("/"),
            own: PathBuf::from(own),
        }
    }

    #[test]
    fn an_absolute_path_starts_at_the_root_and_a_relative_one_at_the_own_group() {
        let bases = |path: Option<&str>, unified| {
            let place = Place::parse(path, "id").unwrap();
            let bases = place.bases(&hierarchy(unified, "/c/user/me"));
            (place.path().to_owned(), bases)
        };
        let is = |path: &str, base: &str| (PathBuf::from(path), vec![PathBuf::from(base)]);
        assert_eq!(bases(Some("/a/b"), false), is("a/b", "/c"));
        assert_eq!(bases(Some("/a/b"), true), is("a/b", "/c"));
        assert_eq!(bases(Some("a/b"), false), is("a/b", "/c/user/me"));
        assert_eq!(bases(Some("a/b"), true), is("a/b", "/c/user"));
        assert_eq!(bases(None, false), is("id", "/c/user/me"));
        assert_eq!(bases(Some(""), true), is("id", "/c/user"));
        assert_eq!(bases(Some("../../../x"), false), is("x", "/c/user/me"));
        let top = Place::parse(None, "id").unwrap().bases(&hierarchy(true, "/c"));
        assert_eq!(top, [PathBuf::from("/c")]);
    }

    #[test]
    fn sub_groups_are_read_as_runc_reads_them() {
        let parse = |arguments: &[&str]| SubGroups::parse(arguments);
        assert_eq!(parse(&[]).unwrap(), SubGroups::default());
        assert_eq!(parse(&["/"]).unwrap(), SubGroups::default());
        assert_eq!(parse(&["a/b"]).unwrap().everywhere, Path::new("a/b"));
        let two = parse(&["cpu,memory:/x", "pids:y"]).unwrap();
        assert_eq!(two.by_controller.len(), 3);
        for (bad, why) in [
            (&["a", "b"][..], "missing <controller>"),
            (&[":a"], "empty <controller>"),
            (&["cpu:a", "cpu:b"], "multiple times"),
            (&["../a"], "is not a sub cgroup path"),
            (&["cpu:a/../.."], "is not a sub cgroup path"),
        ] {
            let error = parse(bad).unwrap_err().to_string();
            assert!(error.contains(why), "{bad:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_path_leads_out_of_a_base(text in ".{0,64}", id in "[a-z.]{1,8}") {
            if let Ok(place) = Place::parse(Some(&text), &id) {
                prop_assert!(place.path().components().all(|part| matches!(part, Component::Normal(_))));
                prop_assert!(!place.path().as_os_str().is_empty());
            }
            if let Ok(sub) = SubGroups::parse(&[text]) {
                let plain = |path: &Path| path.components().all(|part| matches!(part, Component::Normal(_)));
                prop_assert!(plain(&sub.everywhere));
                prop_assert!(sub.by_controller.iter().all(|(_, path)| plain(path)));
            }
        }
    }
}
