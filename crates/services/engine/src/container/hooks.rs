//! Hooks that folders of the host ask for (`--hooks-dir`, oci-hooks(5)): programs that run when a container begins and ends.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::path::Path;

use dhow_oci::runtime::{Hook, Hooks, Spec, State};
use dhow_runtime::{Create, Running, Surroundings};
use dhow_types::ErrorKind;
use regex_lite::Regex;
use serde::Deserialize;

use super::record::Config;
use crate::{Context as _, Error};

/// Most files of a folder, and bytes of one.
const MOST_FILES: usize = 1000;
const LARGEST: usize = 1 << 20;

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

/// The hooks for a container: of each folder by the names of the files, of files of one name that of the last folder.
fn find(config: &Config, spec: &Spec) -> Result<Hooks, Error> {
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
    let mut hooks = Hooks::default();
    for path in files.values() {
        let text = dhow_sys::file::read_text(path, LARGEST).context(|| format!("read {}", path.display()))?;
        let added = serde_json::from_str::<Wanted>(&text)
            .map_err(|error| Error::because(ErrorKind::InvalidArgument, "it is no hook", error))
            .and_then(|wanted| add(&mut hooks, wanted, spec, has_bind_mounts));
        added.map_err(|error| {
            Error::because(
                ErrorKind::InvalidArgument,
                format!("hook {}", path.display()),
                error,
            )
        })?;
    }
    Ok(hooks)
}

fn add(hooks: &mut Hooks, wanted: Wanted, spec: &Spec, has_bind_mounts: bool) -> Result<(), Error> {
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
            "poststart" => &mut hooks.poststart,
            "poststop" => &mut hooks.poststop,
            other => {
                return refuse(format!(
                    "stage {other:?} is not supported: use prestart, createRuntime, poststart or poststop"
                ));
            }
        };
        stage.push(wanted.hook.clone());
    }
    Ok(())
}

/// A container's hooks, and what they are told.
#[derive(Debug)]
pub(super) struct Hooked {
    hooks: Hooks,
    state: State,
}

impl Hooked {
    /// Finds the hooks for a start.
    pub(super) fn find(config: &Config, spec: &Spec, folder: &Path) -> Result<Self, Error> {
        let state = State {
            oci_version: spec.oci_version.clone(),
            id: config.id.to_string(),
            bundle: folder.to_owned(),
            annotations: config.request.annotations.clone(),
            ..State::default()
        };
        Ok(Self {
            hooks: find(config, spec)?,
            state,
        })
    }

    /// Starts the container: with the hooks before its program, which may refuse it, and those after.
    pub(super) fn run(&mut self, create: Create<'_>) -> Result<Running, Error> {
        let around = Surroundings::default();
        let created = dhow_runtime::create(create).context(|| "create the container")?;
        let pidfd = created
            .pidfd
            .try_clone()
            .context(|| "duplicate the process handle")?;
        self.state.pid = created.pid;
        let failed = |error: dhow_runtime::Error| {
            drop(dhow_runtime::kill(pidfd.as_fd(), 9));
            drop(dhow_runtime::wait(pidfd.as_fd()));
            Err(error).context(|| "run the hooks")
        };
        if let Err(error) = dhow_runtime::run_hooks_before(&self.hooks, &self.state, &around) {
            return failed(error);
        }
        let running = created.start().context(|| "start the container")?;
        match dhow_runtime::run_hooks_after(&self.hooks, &self.state, &around) {
            Ok(()) => Ok(running),
            Err(error) => failed(error),
        }
    }

    /// Runs those for the end. One that fails has nobody to tell: the container has ended.
    pub(super) fn end(mut self) {
        self.state.pid = 0;
        drop(dhow_runtime::run_hooks_at_end(
            &self.hooks,
            &self.state,
            &Surroundings::default(),
        ));
    }
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
            add(&mut hooks, serde_json::from_str(text).unwrap(), &spec(), false).map(|()| hooks)
        };
        let hook = |version: &str, path: &str, stage: &str| {
            read(&format!(
                r#"{{"version": "{version}", "hook": {{"path": "{path}"}}, "when": {{"always": true}}, "stages": ["{stage}"]}}"#
            ))
        };
        assert_eq!(hook("1.0.0", "/h", "prestart").unwrap().prestart.len(), 1);
        assert!(hook("0.1.0", "/h", "prestart").is_err());
        assert!(hook("1.0.0", "h", "prestart").is_err());
        assert!(hook("1.0.0", "/h", "startContainer").is_err());
        assert!(
            read(r#"{"version": "1.0.0", "hook": {"path": "/h"}, "when": {"commands": ["("]}}"#).is_err()
        );
    }
}
