//! Hooks of containers, programs that run when one begins and ends: those that folders of the host ask for (`--hooks-dir`,
//! oci-hooks(5)), and those that come with devices.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};

use dhow_oci::runtime::{Hook, Hooks, Spec, State};
use dhow_runtime::Surroundings;
use dhow_types::{ContainerId, ErrorKind};
use regex_lite::Regex;
use serde::Deserialize;

use super::folder::{make_folder, write_json};
use super::record::Config;
use crate::{Context as _, Error};

/// Most files of a folder, and bytes of one.
const MOST_FILES: usize = 1000;
const LARGEST: usize = 1 << 20;

/// What hooks find programs by that have no environment of their own.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One file, version 1.0.0.
#[derive(Deserialize)]
struct Wanted {
    version: String,
    hook: Hook,
    #[serde(default)]
    when: When,
    #[serde(default)]
    stages: Vec<String>,
}

/// What a container must be for it: all that is said here.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct When {
    always: Option<bool>,
    has_bind_mounts: Option<bool>,
    /// Expressions for a key and its value.
    annotations: BTreeMap<String, String>,
    /// Expressions for the program, one of which is to match.
    commands: Vec<String>,
}

impl When {
    fn fits(&self, spec: &Spec, has_bind_mounts: bool) -> Result<bool, Error> {
        let mut said = 0;
        let mut all = true;
        for (asked, is) in [(self.always, true), (self.has_bind_mounts, has_bind_mounts)] {
            if let Some(asked) = asked {
                said += 1;
                all &= asked && is;
            }
        }
        for (key, value) in &self.annotations {
            let (key, value) = (expression(key)?, expression(value)?);
            let mut known = spec.annotations.iter();
            said += 1;
            all &= known.any(|(name, text)| key.is_match(name) && value.is_match(text));
        }
        if !self.commands.is_empty() {
            let program = spec.process.as_ref().and_then(|process| process.args.first());
            let mut one = false;
            for command in &self.commands {
                let command = expression(command)?;
                one |= program.is_some_and(|program| command.is_match(program));
            }
            said += 1;
            all &= one;
        }
        Ok(all && said > 0)
    }
}

fn expression(text: &str) -> Result<Regex, Error> {
    Regex::new(text)
        .map_err(|error| Error::because(ErrorKind::InvalidArgument, format!("expression {text:?}"), error))
}

/// Adds the hooks that the container's folders ask for: of each by the names of the files, of files of one name that of the last
/// folder.
pub(super) fn add(config: &Config, spec: &mut Spec) -> Result<(), Error> {
    if config.extras.hook_folders.is_empty() {
        return Ok(());
    }
    let mut files = BTreeMap::new();
    for folder in &config.extras.hook_folders {
        let what = || format!("read the hooks in {}", folder.display());
        for entry in std::fs::read_dir(folder).context(what)?.take(MOST_FILES) {
            let entry = entry.context(what)?;
            if Path::new(&entry.file_name())
                .extension()
                .is_some_and(|end| end == "json")
            {
                files.insert(entry.file_name(), entry.path());
            }
        }
    }
    let has_bind_mounts = config.mounts.iter().any(|mount| mount.kind == "bind");
    let mut hooks = spec.hooks.clone().unwrap_or_default();
    for path in files.values() {
        let text = dhow_sys::file::read_text(path, LARGEST).context(|| format!("read {}", path.display()))?;
        let added = serde_json::from_str::<Wanted>(&text)
            .map_err(|error| Error::because(ErrorKind::InvalidArgument, "it is no hook", error))
            .and_then(|wanted| take(&mut hooks, wanted, spec, has_bind_mounts));
        added.map_err(|error| {
            Error::because(
                ErrorKind::InvalidArgument,
                format!("hook {}", path.display()),
                error,
            )
        })?;
    }
    spec.hooks = Some(hooks).filter(|hooks| *hooks != Hooks::default());
    Ok(())
}

fn take(hooks: &mut Hooks, wanted: Wanted, spec: &Spec, has_bind_mounts: bool) -> Result<(), Error> {
    let refuse = |why: String| Err(Error::new(ErrorKind::InvalidArgument, why));
    if wanted.version != "1.0.0" {
        return refuse(format!(
            "version {:?} is not supported: use 1.0.0",
            wanted.version
        ));
    }
    if !wanted.hook.path.is_absolute() {
        return refuse("the path of its program is not absolute".to_owned());
    }
    if !wanted.when.fits(spec, has_bind_mounts)? {
        return Ok(());
    }
    for stage in &wanted.stages {
        let stage = match stage.as_str() {
            "prestart" => &mut hooks.prestart,
            "createRuntime" => &mut hooks.create_runtime,
            "createContainer" => &mut hooks.create_container,
            "startContainer" => &mut hooks.start_container,
            "poststart" => &mut hooks.poststart,
            "poststop" => &mut hooks.poststop,
            other => {
                return refuse(format!(
                    "there is no stage {other:?}: use prestart, createRuntime, createContainer, startContainer, poststart or poststop"
                ));
            }
        };
        stage.push(wanted.hook.clone());
    }
    Ok(())
}

/// What hooks of a running container are told, and where they look for its root.
#[derive(Debug)]
pub(crate) struct Bundle {
    folder: PathBuf,
    hooks: Hooks,
    pub(crate) state: State,
}

impl Bundle {
    /// Makes the folder for a container with hooks; none for one without.
    pub(crate) fn make(folder: PathBuf, id: &ContainerId, spec: &Spec) -> Result<Option<Self>, Error> {
        let Some(hooks) = spec.hooks.clone() else {
            return Ok(None);
        };
        make_folder(&folder.join("rootfs"))?;
        write_json(&folder.join("config.json"), spec)?;
        Ok(Some(Self {
            state: State {
                oci_version: spec.oci_version.clone(),
                id: id.to_string(),
                bundle: folder.clone(),
                annotations: spec.annotations.clone(),
                ..State::default()
            },
            folder,
            hooks,
        }))
    }

    /// Where hooks find the root, in the container's mount namespace.
    pub(crate) fn place(&self) -> PathBuf {
        self.folder.join("rootfs")
    }

    /// Runs the hooks that come after the end. Of those that fail nobody is left to hear.
    pub(crate) fn finish(self) {
        drop(dhow_runtime::run_last_hooks(
            &self.hooks,
            &self.state,
            &surroundings(),
        ));
        remove(&self.folder);
    }
}

/// What a container's hooks run with.
pub(crate) fn surroundings() -> Surroundings {
    Surroundings {
        env: CString::new(PATH).into_iter().collect(),
        ..Surroundings::default()
    }
}

/// Not with all that is below: the root is empty, or it is not what was made.
fn remove(folder: &Path) {
    drop(fs::remove_file(folder.join("config.json")));
    drop(fs::remove_dir(folder.join("rootfs")));
    drop(fs::remove_dir(folder));
}

#[cfg(test)]
mod tests {
    use super::*;
    use dhow_oci::runtime::Process;

    fn spec() -> Spec {
        Spec {
            process: Some(Process {
                args: vec!["/bin/sh".to_owned()],
                ..Process::default()
            }),
            annotations: [("key".to_owned(), "value".to_owned())].into(),
            ..Spec::default()
        }
    }

    fn fits(when: &str, binds: bool) -> bool {
        let when: When = serde_json::from_str(when).unwrap();
        when.fits(&spec(), binds).unwrap()
    }

    #[test]
    fn all_that_is_said_must_be_so_and_something_must_be_said() {
        assert!(!fits("{}", true));
        assert!(fits(r#"{"always": true}"#, false));
        assert!(!fits(r#"{"always": false}"#, false));
        assert!(fits(r#"{"hasBindMounts": true}"#, true));
        assert!(!fits(r#"{"always": true, "hasBindMounts": true}"#, false));
        assert!(fits(r#"{"commands": ["^/usr", "sh$"]}"#, false));
        assert!(!fits(r#"{"commands": ["^/usr"]}"#, false));
        assert!(fits(r#"{"annotations": {"^key$": "^v"}}"#, false));
        assert!(!fits(r#"{"annotations": {"^key$": "x"}, "always": true}"#, false));
    }

    #[test]
    fn what_is_no_hook_is_refused() {
        let read = |text: &str| -> Result<Hooks, Error> {
            let mut hooks = Hooks::default();
            take(&mut hooks, serde_json::from_str(text).unwrap(), &spec(), false).map(|()| hooks)
        };
        let hook = |version: &str, path: &str, stage: &str| {
            read(&format!(
                r#"{{"version": "{version}", "hook": {{"path": "{path}"}}, "when": {{"always": true}}, "stages": ["{stage}"]}}"#
            ))
        };
        assert_eq!(hook("1.0.0", "/h", "prestart").unwrap().prestart.len(), 1);
        assert!(hook("0.1.0", "/h", "prestart").is_err());
        assert!(hook("1.0.0", "h", "prestart").is_err());
        assert_eq!(
            hook("1.0.0", "/h", "startContainer")
                .unwrap()
                .start_container
                .len(),
            1
        );
        assert!(hook("1.0.0", "/h", "afterwards").is_err());
        assert!(
            read(r#"{"version": "1.0.0", "hook": {"path": "/h"}, "when": {"commands": ["("]}}"#).is_err()
        );
    }
}
