//! `RUN` and `WORKDIR`.

use std::path::{Path, PathBuf};

use dhow_dockerfile::{Form, Instruction, Mount, MountKind, Network, Run};
use dhow_layer::Layer;
use dhow_rootpath::Root;
use dhow_types::{DiffId, Digest, ErrorKind};

use crate::cache::Outcome;
use crate::failure::{Context as _, Error, Halt, Trouble, invalid};
use crate::history;
use crate::keys::KeyWriter;
use crate::layer_step::{LayerStep, Scratch};
use crate::mounts::{MountPlan, Prepared};
use crate::stage::Stage;
use crate::step::{Event, RunStep};
use crate::why::{self, Inputs};
use crate::write::{Destination, Writer};
use crate::{stubs, users};

/// Bytes of `/dev/shm` when nothing is said (docker's default).
const SHM_SIZE: u64 = 64 << 20;
/// Variables that every command gets when they are build arguments; they are in no key and no history.
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

/// Arguments for the scan for a bill of materials: no command sees them.
const SCANS: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// A script that is mounted: its path in the container, and its text.
type Script = (String, String);

/// A command ready to be run.
struct Ready<'r> {
    run: &'r Run,
    args: Vec<String>,
    /// Environment of the image and arguments.
    env: Vec<String>,
    /// A script to mount, and where: for a here-document that begins with `#!`.
    script: Option<Script>,
    network: Network,
    /// By the Container Device Interface.
    devices: Vec<String>,
    /// Where those mount something.
    device_mounts: Vec<PathBuf>,
    mounts: Vec<MountPlan>,
}

impl Stage<'_, '_> {
    /// `RUN`.
    pub(crate) fn run(&mut self, instruction: &Instruction, run: &Run) -> Result<(), Halt> {
        let (devices, device_mounts) = self.devices(instruction, run)?;
        self.check_entitled(instruction, run)?;
        let (args, script) = self.run_args(run)?;
        let mut shown = self.shown_without(instruction, &self.secret_variables(run));
        if let Some(heredoc) = run.command.heredocs.first() {
            let body = heredoc.content.trim();
            let (first, more) = match body.split_once('\n') {
                Some((first, _)) => (first, "..."),
                None => (body, ""),
            };
            shown = format!("{shown} ({}{more})", first.trim_end());
        }
        let title = self.title(&shown);
        self.counted(&title, instruction.at, |stage, number| {
            let ready = Ready {
                run,
                args,
                env: stage.run_env(),
                script,
                network: match run.network {
                    Network::Default => stage.build.request.network,
                    other => other,
                },
                devices,
                device_mounts,
                mounts: stage.plan_mounts(run)?,
            };
            let text = history::run(&stage.state.args_in_scope(), &ready.args);
            let outcome = stage.run_layer(number, &ready)?;
            Ok(stage.state.add_layer(outcome.layer, text, outcome.created)?)
        })
    }

    /// Variables of the command that hold secrets; a mount that is wrong is told about when it is planned.
    fn secret_variables(&self, run: &Run) -> Vec<String> {
        let mounts = run.mounts.iter().filter_map(|flag| {
            let mut expand = |word: &str| self.expand(word).map_err(|trouble| trouble.error.to_string());
            Mount::parse(&flag.text, &mut expand).ok()
        });
        let secrets = mounts.filter(|mount| mount.kind == MountKind::Secret);
        secrets
            .filter_map(|mount| mount.env.filter(|env| !env.is_empty()).or(mount.id))
            .collect()
    }

    /// `--device=vendor/class=name[,required]`: those of this host (Container Device Interface). One that is required and not
    /// there is an error, and others are left out, as docker does with those that it does not find.
    fn devices(&self, instruction: &Instruction, run: &Run) -> Result<(Vec<String>, Vec<PathBuf>), Halt> {
        let request = self.build.request;
        let (mut found, mut mounts) = (Vec::new(), Vec::new());
        for device in &run.devices {
            let at = instruction.flag_at("device");
            let text = self.expand(device)?;
            let (name, required) = device_flag(&text).map_err(|error| Trouble::from(error).at(at))?;
            let refused = |kind, message: String, hint: String| -> Halt {
                Trouble::from(Error::new(kind, message).with_hint(hint))
                    .at(at)
                    .into()
            };
            if let Some(targets) = self.build.executor.device(&name, &request.sandbox) {
                if !request.allow.every_device && !request.allow.devices.contains(&name) {
                    let message = format!("device {name:?} is requested by the build but not allowed");
                    let hint = format!("allow it with --allow device={name} if you trust the Dockerfile");
                    return Err(refused(ErrorKind::PermissionDenied, message, hint));
                }
                found.push(name);
                mounts.extend(targets);
                continue;
            }
            if required {
                let message = format!("required device {name:?} is not registered");
                let hint = "a file of its vendor in /etc/cdi or /var/run/cdi says what it is".to_owned();
                return Err(refused(ErrorKind::NotFound, message, hint));
            }
            self.build
                .warn(&format!("device {name:?} is not registered, and left out"), at);
        }
        Ok((found, mounts))
    }

    /// Words to run, and the script to mount.
    fn run_args(&self, run: &Run) -> Result<(Vec<String>, Option<Script>), Error> {
        let command = &run.command;
        let text = match &command.form {
            Form::Exec(words) if !words.is_empty() => return Ok((words.clone(), None)),
            Form::Shell(text) if !text.is_empty() => text,
            Form::Exec(_) | Form::Shell(_) => {
                return Err(invalid("RUN requires at least one argument"));
            }
        };
        let mut script = None;
        let text = if let Some(heredoc) = command.lone_heredoc() {
            let body = heredoc.body();
            if body.starts_with("#!") {
                if heredoc.name.contains('/') {
                    return Err(invalid("the delimiter of a script must be a plain file name"));
                }
                let path = format!("/dev/pipes/{}", heredoc.name);
                script = Some((path.clone(), body));
                path
            } else {
                body
            }
        } else {
            let mut whole = text.clone();
            for heredoc in &command.heredocs {
                whole.push('\n');
                whole.push_str(&heredoc.content);
                whole.push_str(&heredoc.name);
            }
            whole
        };
        let mut words = self.state.shell();
        words.push(text);
        Ok((words, script))
    }

    /// The image's environment, then the arguments that it does not hide.
    fn run_env(&self) -> Vec<String> {
        let mut env = self.state.image.config.env.clone();
        for (name, value) in self.state.args_in_scope() {
            if let Some(value) = value
                && self.state.env(&name).is_none()
                && !SCANS.contains(&name.as_str())
            {
                env.push(format!("{name}={value}"));
            }
        }
        env
    }

    fn hostname(&self) -> &str {
        let arguments = &self.build.request.build_args;
        arguments
            .get("BUILDKIT_SANDBOX_HOSTNAME")
            .map_or("buildkitsandbox", String::as_str)
    }

    /// What both keys have in common.
    fn run_key(&self, ready: &Ready<'_>) -> KeyWriter {
        let build = self.build;
        let mut key = KeyWriter::new("run");
        key.texts(&ready.args).texts(&ready.env);
        key.text(self.state.cwd()).text(&self.state.image.config.user);
        key.number(ready.network as u64).number(ready.run.security as u64);
        key.text(&build.plan.stages[self.index].platform.to_string());
        key.option(ready.script.as_ref().map(|(_, body)| body.as_str()));
        key.option(build.plan.epoch.map(|epoch| epoch.to_string()).as_deref());
        key.text(self.hostname());
        // Which hosts there are counts, their addresses do not.
        let hosts = build.request.extra_hosts.iter().map(|(name, _)| name.as_str());
        key.texts(&hosts.collect::<Vec<_>>());
        let rights = build.request.sandbox.rights();
        if !rights.is_empty() {
            key.text("rights").texts(&rights);
        }
        if !ready.devices.is_empty() {
            key.text("devices").texts(&ready.devices);
        }
        key
    }

    fn run_layer(&self, number: u32, ready: &Ready<'_>) -> Result<Outcome, Halt> {
        let stack = self.state.stack();
        let definition = || -> Result<Digest, Halt> {
            let mut key = self.run_key(ready);
            key.text("stack").stack(stack);
            for mount in &ready.mounts {
                mount.write_key(self, &mut key, false)?;
            }
            Ok(key.finish())
        };
        let content = || -> Result<Digest, Halt> {
            let mut key = self.run_key(ready);
            key.text("tree").digest(&self.build.trees.tree(stack)?.merkle());
            for mount in &ready.mounts {
                mount.write_key(self, &mut key, true)?;
            }
            Ok(key.finish())
        };
        let step = LayerStep {
            definition: definition()?,
            content: &content,
            again: &definition,
            inputs: &|inputs| self.run_inputs(ready, inputs),
        };
        self.layer(number, &step, || self.execute(number, stack, ready))
    }

    fn run_inputs(&self, ready: &Ready<'_>, inputs: &mut Inputs) -> Result<(), Halt> {
        inputs.instruction(&format!("RUN {}", ready.args.join(" ")));
        let arguments = self.state.args_in_scope();
        for line in &ready.env {
            let (name, value) = line.split_once('=').unwrap_or((line, ""));
            let is_argument = arguments.iter().any(|(known, _)| known == name);
            let what = if is_argument { why::ARGUMENT } else { why::VARIABLE };
            inputs.add(what, name, value);
        }
        let (build, config) = (self.build, &self.state.image.config);
        let epoch = build.plan.epoch.map(|epoch| epoch.to_string());
        let hosts = build.request.extra_hosts.iter().map(|(name, _)| name.as_str());
        inputs
            .add("working directory", "", self.state.cwd())
            .add("user", "", &config.user)
            .add("network", "", &format!("{:?}", ready.network))
            .add("security", "", &format!("{:?}", ready.run.security))
            .add("SOURCE_DATE_EPOCH", "", &epoch.unwrap_or_default())
            .add("host name", "", self.hostname())
            .add("list of hosts", "", &hosts.collect::<Vec<_>>().join(" "))
            .add("rights", "", &build.request.sandbox.rights().join(" "))
            .add("devices", "", &ready.devices.join(" "));
        let body = ready.script.as_ref().map_or("", |(_, body)| body);
        inputs.add("script", "", body);
        for mount in &ready.mounts {
            mount.inputs(self, inputs)?;
        }
        self.below(self.state.stack(), inputs);
        Ok(())
    }

    /// Runs the command in a snapshot and makes the layer of what it changed.
    fn execute(&self, number: u32, stack: &[DiffId], ready: &Ready<'_>) -> Result<Layer, Halt> {
        let build = self.build;
        let scratch = Scratch::prepare(build, stack)?;
        let prepared = Prepared::new(self, &ready.mounts, ready.script.as_ref())?;
        let mut env = ready.env.clone();
        env.extend(self.proxies());
        env.extend(prepared.env.iter().cloned());
        let own = build.request.sandbox.mounts.iter().cloned();
        let mounts: Vec<_> = own.chain(prepared.mounts.iter().cloned()).collect();
        let step = RunStep {
            snapshot: scratch.active()?,
            args: &ready.args,
            env: &env,
            cwd: self.state.cwd(),
            user: &self.state.image.config.user,
            network: ready.network,
            security: ready.run.security,
            devices: &ready.devices,
            mounts: &mounts,
            hostname: self.hostname(),
            shm_size: build.request.shm_size.unwrap_or(SHM_SIZE),
            ulimits: &build.request.ulimits,
            cgroup_parent: build.request.cgroup_parent.as_deref(),
            extra_hosts: &build.request.extra_hosts,
            sandbox: &build.request.sandbox,
            cancel: &build.request.cancel,
        };
        let observer = build.observer;
        let code = build.executor.run(&step, &mut |stream, bytes| {
            observer.observe(Event::Output {
                step: number,
                stream,
                bytes,
            });
        })?;
        // A command that was killed because of the cancel ends with some code of its own.
        build.check()?;
        if code != 0 {
            let message = format!(
                "process {:?} did not complete successfully: exit code: {code}",
                ready.args.join(" ")
            );
            return Err(Error::new(ErrorKind::FailedPrecondition, message).into());
        }
        let mut points = step.mount_points();
        let below = |path: &PathBuf| path.strip_prefix("/").ok().map(Path::to_owned);
        points.extend(ready.device_mounts.iter().filter_map(below));
        prepared.release()?;
        let active = scratch.active()?;
        if let Some(written) = active.written() {
            let whole = active.copy().is_some();
            stubs::remove(written, whole, &build.trees.tree(stack)?, &points)?;
        }
        Ok(scratch.capture()?)
    }

    /// Each under both of its names: programs do not agree which one they read.
    fn proxies(&self) -> Vec<String> {
        let arguments = &self.build.request.build_args;
        let value = |name: &str| {
            let own = arguments.get(name);
            own.or_else(|| arguments.get(&name.to_ascii_lowercase()))
        };
        let both = |name: &str, value: &str| {
            [name.to_owned(), name.to_ascii_lowercase()].map(|name| format!("{name}={value}"))
        };
        PROXIES
            .iter()
            .filter_map(|name| Some(both(name, value(name)?)))
            .flatten()
            .collect()
    }

    /// `WORKDIR`: makes the directory, owned by the user of the stage, unless it is `/`.
    pub(crate) fn workdir(&mut self, instruction: &Instruction, path: &str) -> Result<(), Halt> {
        let path = self.expand(path)?;
        if path.is_empty() {
            return Err(invalid("WORKDIR expands to an empty path").into());
        }
        // Docker keeps an absolute path as it is written, with a slash at its end, too.
        let dir = if path.starts_with('/') {
            path
        } else {
            crate::ignore::clean(&format!("{}/{path}", self.state.cwd()))
        };
        self.state.image.config.working_dir.clone_from(&dir);
        let shown = self.shown(instruction);
        let title = self.title(&shown);
        if dir == "/" {
            return Ok(self.state.record(format!("WORKDIR {dir}"))?);
        }
        self.counted(&title, instruction.at, |stage, number| {
            let outcome = stage.workdir_layer(number, &dir)?;
            let text = format!("WORKDIR {dir}");
            Ok(stage.state.add_layer(outcome.layer, text, outcome.created)?)
        })
    }

    fn workdir_layer(&self, number: u32, dir: &str) -> Result<Outcome, Halt> {
        let stack = self.state.stack();
        let user = &self.state.image.config.user;
        let key = || {
            let mut key = KeyWriter::new("workdir");
            key.text(dir).text(user);
            key.option(self.build.plan.epoch.map(|epoch| epoch.to_string()).as_deref());
            key
        };
        let content = || -> Result<Digest, Halt> {
            let tree = self.build.trees.tree(stack)?;
            Ok(key().text("tree").digest(&tree.merkle()).finish())
        };
        let definition = || -> Result<Digest, Halt> { Ok(key().text("stack").stack(stack).finish()) };
        let step = LayerStep {
            definition: definition()?,
            content: &content,
            again: &definition,
            inputs: &|inputs| {
                inputs
                    .instruction(&format!("WORKDIR {dir}"))
                    .add("user", "", user);
                self.below(stack, inputs);
                Ok(())
            },
        };
        self.layer(number, &step, || {
            let scratch = Scratch::prepare(self.build, stack)?;
            let mount = scratch
                .active()?
                .mount_detached()
                .context(|| "mount a step's snapshot")?;
            let root = Root::from_fd(mount);
            let owner = workdir_owner(&root, user)?;
            // A link on the way may lead to what is still to be made.
            let writer = Writer::new(root, self.build);
            let real = writer.real_destination(&Destination::new(dir, true))?;
            writer
                .root()
                .create_dir_all(&real, 0o755, Some(owner))
                .context(|| format!("make the working directory {dir}"))?;
            drop(writer);
            Ok(scratch.capture()?)
        })
    }
}

/// Name of a device, and whether the command cannot do without.
fn device_flag(text: &str) -> Result<(String, bool), Error> {
    let (mut name, mut required) = (None, false);
    for field in text.split(',') {
        match field.split_once('=') {
            None if field == "required" => required = true,
            Some(("required", "true" | "1")) => required = true,
            Some(("required", "false" | "0")) => required = false,
            Some(("name", value)) => name = Some(value),
            _ if name.is_none() && !field.is_empty() => name = Some(field),
            _ => return Err(invalid(format!("unexpected key in device {text:?}: {field:?}"))),
        }
    }
    let name = name.ok_or_else(|| invalid(format!("the device {text:?} has no name")))?;
    Ok((name.to_owned(), required))
}

/// Who owns a working directory: the user of the stage, or root when the image does not know that name, which only a
/// command is refused for (BuildKit's `readUser`).
fn workdir_owner(root: &Root, user: &str) -> Result<(u32, u32), Error> {
    match owner_in(root, user) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok((0, 0)),
        other => other,
    }
}

/// The owner that a user text means in a mounted root file system; nobody said is root.
pub(crate) fn owner_in(root: &Root, user: &str) -> Result<(u32, u32), Error> {
    if users::is_numeric(user) {
        return users::owner(user, b"", b"");
    }
    let read = |path: &str| match root.read(Path::new(path), users::MAX_FILE) {
        Ok(bytes) => Ok(bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::wrap(error, format!("look up the user {user}"))),
    };
    users::owner(user, &read("/etc/passwd")?, &read("/etc/group")?)
}
