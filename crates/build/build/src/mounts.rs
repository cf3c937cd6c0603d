//! `RUN --mount`: what a mount adds to the keys of its step, and getting it ready.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use dhow_dockerfile::{Mount, MountKind, Run, Sharing, Span};
use dhow_snapshot::MountGuard;
use dhow_types::ErrorKind;
use rustix::fs::FlockOperation;

use crate::agent::Forward;
use crate::cache::lock;
use crate::cache_mounts::{self, MountName};
use crate::context::Context;
use crate::failure::{Context as _, Error, Halt, Trouble, invalid};
use crate::keys::KeyWriter;
use crate::layer_step::Scratch;
use crate::origin::{Origin, pick_inputs, pick_key, with_source};
use crate::schedule::Build;
use crate::source::{Pick, pick, resolve};
use crate::stage::Stage;
use crate::step::{MountSource, StepMount};
use crate::tree::StackSource;
use crate::why::Inputs;
use crate::write::{Destination, Writer};

/// Most copies of one private cache at once.
const MAX_PRIVATE: u32 = 256;

/// A mount with its variables expanded and its source known.
#[derive(Debug)]
pub(crate) struct MountPlan {
    at: Span,
    mount: Mount,
    /// Absolute.
    target: String,
    /// Where a bind comes from.
    origin: Option<Origin>,
}

impl MountPlan {
    /// Adds the mount to a key. Of a secret neither value nor presence counts, of a cache neither content nor id.
    pub(crate) fn write_key(
        &self,
        stage: &Stage<'_, '_>,
        key: &mut KeyWriter,
        by_content: bool,
    ) -> Result<(), Halt> {
        let mount = &self.mount;
        key.text(mount.kind.name()).text(&self.target);
        key.number(u64::from(mount.read_only));
        key.option(mount.source.as_deref()).option(mount.env.as_deref());
        for number in [mount.mode, mount.uid, mount.gid] {
            key.number(number.map_or(u64::MAX, u64::from));
        }
        key.number(mount.size.unwrap_or(0));
        // Only then, so that older keys stay.
        if mount.copy_up {
            key.text("tmpcopyup");
        }
        // What a cache began with is part of its content.
        if let Some(origin) = self.origin.as_ref().filter(|_| mount.kind != MountKind::Cache) {
            let source = mount.source.as_deref().unwrap_or_default();
            let part = pick_key(stage, origin, &[source.to_owned()], &Pick::default(), by_content);
            key.digest(&part.map_err(|halt| halt.at(self.at))?);
        }
        Ok(())
    }
}

impl MountPlan {
    /// What the mount adds to what the step is made of, for people.
    pub(crate) fn inputs(&self, stage: &Stage<'_, '_>, inputs: &mut Inputs) -> Result<(), Halt> {
        let mut key = KeyWriter::new("mount");
        // What a cache began with is part of its content.
        let origin = self.origin.as_ref();
        if let Some(origin) = origin.filter(|_| self.mount.kind != MountKind::Cache) {
            let source = self.mount.source.clone().unwrap_or_default();
            pick_inputs(stage, origin, &[source], &Pick::default(), inputs)?;
        }
        self.write_key(stage, &mut key, false)?;
        inputs.hashed("mount", &self.target, &key.finish());
        Ok(())
    }
}

impl Stage<'_, '_> {
    /// Expands and checks the mounts of a command.
    pub(crate) fn plan_mounts(&self, run: &Run) -> Result<Vec<MountPlan>, Halt> {
        let mut agents = 0;
        run.mounts
            .iter()
            .map(|flag| {
                let mut expand = |word: &str| self.expand(word).map_err(|trouble| trouble.error.to_string());
                let mount = Mount::parse(&flag.text, &mut expand).map_err(|(message, hint)| {
                    let error = invalid(message);
                    Trouble::from(match hint {
                        Some(hint) => error.with_hint(hint),
                        None => error,
                    })
                    .at(flag.at)
                })?;
                let before = agents;
                agents += usize::from(mount.kind == MountKind::Ssh);
                self.plan_mount(mount, flag.at, before)
                    .map_err(|halt| halt.at(flag.at))
            })
            .collect()
    }

    /// `agents` is how many agents are mounted before this one.
    fn plan_mount(&self, mut mount: Mount, at: Span, agents: usize) -> Result<MountPlan, Halt> {
        match mount.kind {
            MountKind::Ssh => {
                if mount.target.is_none() {
                    mount.target = Some(format!("/run/buildkit/ssh_agent.{agents}"));
                }
                mount.id.get_or_insert_with(|| "default".to_owned());
            }
            MountKind::Secret => {
                let id = mount.id.take().or_else(|| mount.source.take());
                let from_target = mount
                    .target
                    .as_deref()
                    .and_then(|target| target.rsplit('/').next());
                let id = id.or_else(|| from_target.map(str::to_owned)).unwrap_or_default();
                if mount.target.is_none() && mount.env.is_none() {
                    let name = id.rsplit('/').next().unwrap_or_default();
                    mount.target = Some(format!("/run/secrets/{name}"));
                }
                mount.id = Some(id);
            }
            _ => {}
        }
        let target = match mount.target.as_deref().unwrap_or_default() {
            "" => String::new(),
            target if target.starts_with('/') => crate::ignore::clean(target),
            target => crate::ignore::clean(&format!("{}/{target}", self.state.cwd())),
        };
        if target == "/" {
            return Err(invalid("invalid mount target \"/\"").into());
        }
        let origin = match (mount.kind, &mount.from) {
            (MountKind::Bind, None) => Some(Origin::Context),
            (MountKind::Bind | MountKind::Cache, Some(from)) => Some(self.origin_of(from)?),
            // Without a stage to seed it from, a cache begins empty wherever its source is said to be.
            _ => None,
        };
        Ok(MountPlan {
            at,
            mount,
            target,
            origin,
        })
    }
}

/// Mounts that are ready, and what has to be undone after the command.
#[derive(Debug, Default)]
pub(crate) struct Prepared<'a> {
    pub(crate) mounts: Vec<StepMount>,
    /// Variables that hold secrets.
    pub(crate) env: Vec<String>,
    guards: Vec<MountGuard>,
    dirs: Vec<RemovedDir>,
    scratches: Vec<Scratch<'a>>,
    agents: Vec<Forward>,
    locks: Vec<File>,
}

/// A directory of this process, removed with all that is in it when dropped. Its lock tells the sweeper of `tmp/`
/// that its maker lives.
#[derive(Debug)]
pub(crate) struct RemovedDir {
    path: PathBuf,
    _lock: File,
}

impl Drop for RemovedDir {
    fn drop(&mut self) {
        // What stays carries the pid of this process and is swept later.
        drop(std::fs::remove_dir_all(&self.path));
    }
}

impl RemovedDir {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it.
    pub(crate) fn make(path: PathBuf) -> Result<Self, Error> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .context(|| format!("create {}", path.display()))?;
        let locked = File::open(&path).and_then(|dir| {
            rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive)?;
            Ok(dir)
        });
        let _lock = locked.context(|| format!("lock {}", path.display()))?;
        Ok(Self { path, _lock })
    }
}

impl<'a> Prepared<'a> {
    /// Gets everything ready, in the order of the flags.
    pub(crate) fn new(
        stage: &Stage<'a, '_>,
        plans: &[MountPlan],
        script: Option<&(String, String)>,
    ) -> Result<Self, Halt> {
        let mut prepared = Self::default();
        for plan in plans {
            let done = match plan.mount.kind {
                MountKind::Bind => prepared.bind(stage, plan),
                MountKind::Cache => prepared.cache(stage, plan),
                MountKind::Secret => prepared.secret(stage.build, plan),
                MountKind::Tmpfs => {
                    let source = MountSource::Tmpfs {
                        size: plan.mount.size,
                        copy_up: plan.mount.copy_up,
                    };
                    prepared.add(&plan.target, source, plan.mount.read_only);
                    Ok(())
                }
                MountKind::Ssh => prepared.agent(stage.build, plan),
            };
            done.map_err(|halt| halt.at(plan.at))?;
        }
        if let Some((path, body)) = script {
            let dir = RemovedDir::make(stage.build.store.root().join("tmp").join(stage.build.key()))?;
            let file = dir.path.join("script");
            write_new(&file, body.as_bytes(), 0o755, (0, 0))?;
            prepared.dirs.push(dir);
            prepared.add(path, MountSource::Bind(file), true);
        }
        Ok(prepared)
    }

    fn add(&mut self, target: &str, source: MountSource, read_only: bool) {
        self.mounts.push(StepMount {
            target: PathBuf::from(target),
            source,
            read_only,
        });
    }

    /// Undoes everything.
    pub(crate) fn release(self) -> Result<(), Error> {
        for guard in self.guards {
            guard.unmount().context(|| "unmount a source of RUN --mount")?;
        }
        Ok(())
    }

    fn bind(&mut self, stage: &Stage<'a, '_>, plan: &MountPlan) -> Result<(), Halt> {
        let source = plan.mount.source.as_deref().unwrap_or_default();
        let host = match &plan.origin {
            Some(Origin::Stack(stack)) => self.bind_stack(stage.build, stack, source)?,
            Some(Origin::Outside(tree)) => {
                let path = format!("{}/{source}", tree.subdir);
                self.bind_files(stage.build, &tree.context, &path)?
            }
            Some(Origin::Context) | None => {
                let context = stage.build.context.as_ref().ok_or_else(|| not_found(source))?;
                self.bind_files(stage.build, context, source)?
            }
        };
        self.add(&plan.target, MountSource::Bind(host), plan.mount.read_only);
        Ok(())
    }

    /// Writes to it go into a snapshot that is thrown away.
    fn bind_stack(
        &mut self,
        build: &'a Build<'_>,
        stack: &[dhow_types::DiffId],
        source: &str,
    ) -> Result<PathBuf, Halt> {
        let view = StackSource {
            tree: build.trees.tree(stack)?,
            layers: &build.store.layers,
        };
        let Some(found) = resolve(&view, source.as_bytes())? else {
            return Err(not_found(source).into());
        };
        let scratch = Scratch::prepare(build, stack)?;
        let dir = RemovedDir::make(build.store.root().join("tmp").join(build.key()))?;
        // Not on the directory itself, whose lock could not be seen then.
        let point = dir.path.join(dhow_layer::MOUNT_POINT);
        std::fs::create_dir(&point).context(|| format!("create {}", point.display()))?;
        let guard = scratch
            .active()?
            .mount(&point)
            .context(|| "mount a source of RUN --mount")?;
        let path = PathBuf::from(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(
            &found.path,
        ));
        let host = guard.path().join(path);
        self.guards.push(guard);
        self.dirs.push(dir);
        self.scratches.push(scratch);
        Ok(host)
    }

    /// A copy of the matched part of the context, owned by root: what is ignored is not there, and what the command
    /// writes does not reach the person's files.
    fn bind_files(&mut self, build: &Build<'_>, context: &Context, source: &str) -> Result<PathBuf, Halt> {
        let dir = RemovedDir::make(build.store.root().join("tmp").join(build.key()))?;
        let root = dhow_rootpath::Root::open(&dir.path).context(|| "open a copy of the build context")?;
        let mut writer = Writer::new(root, build);
        let picked = pick(context, source, &Pick::default())?;
        let [top] = picked.as_slice() else {
            return Err(invalid("the source of a bind mount must be one file or directory").into());
        };
        let destination = Destination::new("/context", false);
        writer.copy(context, top, &destination)?;
        writer.finish()?;
        let host = dir.path.join("context");
        self.dirs.push(dir);
        Ok(host)
    }

    fn cache(&mut self, stage: &Stage<'a, '_>, plan: &MountPlan) -> Result<(), Halt> {
        let build = stage.build;
        let mount = &plan.mount;
        let id = mount.id.as_deref().unwrap_or(&plan.target);
        let mount_name = MountName {
            id: id.to_owned(),
            space: build.request.build_args.get("BUILDKIT_CACHE_MOUNT_NS").cloned(),
            seed: plan
                .origin
                .is_some()
                .then(|| (mount.from.clone(), mount.source.clone())),
            dress: [mount.mode, mount.uid, mount.gid]
                .iter()
                .any(Option::is_some)
                .then(|| cache_dress(mount)),
        };
        let base = mount_name.folder(build.store.root());
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&base)
            .context(|| format!("create {}", base.display()))?;
        mount_name.write_down(&base)?;
        {
            // Without the cache a cache mount begins anew, too (moby/buildkit#5305), once: the steps of a build share it.
            let mut used = crate::schedule::lock(&build.mounts);
            let first = used.insert(mount_name.clone());
            if first && stage.is_uncached() && !build.request.aside {
                cache_mounts::renew(build.store.root(), &base)?;
            }
        }
        let cancel = &build.request.cancel;
        let name = match mount.sharing {
            Sharing::Shared => {
                let file = open_lock(&base, "data")?;
                lock(&file, FlockOperation::NonBlockingLockShared, cancel)?;
                self.locks.push(file);
                "data".to_owned()
            }
            Sharing::Locked => {
                let file = open_lock(&base, "data")?;
                lock(&file, FlockOperation::NonBlockingLockExclusive, cancel)?;
                self.locks.push(file);
                "data".to_owned()
            }
            Sharing::Private => self.private(&base)?,
        };
        let dir = base.join(&name);
        if let Some(origin) = plan.origin.as_ref().filter(|_| !dir.exists()) {
            let seed = open_lock(&base, &format!("{name}.seed"))?;
            lock(&seed, FlockOperation::NonBlockingLockExclusive, cancel)?;
            if !dir.exists() {
                seed_cache(stage, origin, mount.source.as_deref().unwrap_or_default(), &dir)?;
            }
        }
        if make_cache_dir(&dir, mount)? {
            build.images.fill_mount(&mount_name, &dir)?;
        }
        self.add(&plan.target, MountSource::Bind(dir), mount.read_only);
        Ok(())
    }

    /// The first directory that nobody else has.
    fn private(&mut self, base: &Path) -> Result<String, Error> {
        for number in 0..MAX_PRIVATE {
            let name = if number == 0 {
                "data".to_owned()
            } else {
                format!("data-{number}")
            };
            let file = open_lock(base, &name)?;
            if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                self.locks.push(file);
                return Ok(name);
            }
        }
        Err(Error::new(
            ErrorKind::ResourceExhausted,
            format!("more than {MAX_PRIVATE} steps use one private cache"),
        ))
    }

    /// A socket that leads to an agent; the first one is where ssh looks for it.
    fn agent(&mut self, build: &Build<'_>, plan: &MountPlan) -> Result<(), Halt> {
        let mount = &plan.mount;
        let id = mount.id.as_deref().unwrap_or_default();
        let Some(agent) = build.request.ssh.get(id) else {
            if mount.required {
                let error = Error::new(ErrorKind::NotFound, format!("unset ssh forward key {id}"));
                return Err(error
                    .with_hint(format!("give an agent with --ssh {id}=<socket>"))
                    .into());
            }
            return Ok(());
        };
        let dir = RemovedDir::make(build.request.run_dir.join(build.key()))?;
        let socket = dir.path.join("agent");
        self.agents.push(Forward::new(&socket, agent)?);
        let owner = (mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
        dress(&socket, mount.mode.unwrap_or(0o600), owner)?;
        self.dirs.push(dir);
        if self.agents.len() == 1 {
            self.env.push(format!("SSH_AUTH_SOCK={}", plan.target));
        }
        self.add(&plan.target, MountSource::Bind(socket), mount.read_only);
        Ok(())
    }

    fn secret(&mut self, build: &Build<'_>, plan: &MountPlan) -> Result<(), Halt> {
        let mount = &plan.mount;
        let id = mount.id.as_deref().unwrap_or_default();
        let Some(secret) = build.request.secrets.get(id) else {
            if mount.required {
                let error = Error::new(ErrorKind::NotFound, format!("secret {id}: not found"));
                return Err(error
                    .with_hint(format!("give it with --secret id={id},src=<file>"))
                    .into());
            }
            return Ok(());
        };
        if let Some(name) = &mount.env {
            let name = if name.is_empty() { id } else { name };
            let value = std::str::from_utf8(&secret.0)
                .ok()
                .filter(|value| !value.contains('\0'))
                .ok_or_else(|| invalid(format!("secret {id} cannot be an environment variable")))?;
            self.env.push(format!("{name}={value}"));
        }
        if !plan.target.is_empty() {
            let dir = RemovedDir::make(build.request.run_dir.join(build.key()))?;
            let file = dir.path.join("secret");
            let owner = (mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
            write_new(&file, &secret.0, mount.mode.unwrap_or(0o400), owner)?;
            self.dirs.push(dir);
            self.add(&plan.target, MountSource::Bind(file), mount.read_only);
        }
        Ok(())
    }
}

fn not_found(source: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("\"/{source}\": not found"))
}

fn open_lock(base: &Path, name: &str) -> Result<File, Error> {
    let path = base.join(format!("{name}.lock"));
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        // Tells when it was last used.
        .and_then(|file| file.set_modified(std::time::SystemTime::now()).map(|()| file))
        .context(|| format!("open {}", path.display()))
}

/// Fills a new cache with the files of another tree; all or nothing, whatever happens on the way.
fn seed_cache(stage: &Stage<'_, '_>, origin: &Origin, source: &str, dir: &Path) -> Result<(), Halt> {
    let fresh = dir.with_extension("fresh");
    // Left by somebody who was killed; this process has the lock.
    match std::fs::remove_dir_all(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::wrap(error, format!("remove {}", fresh.display())).into());
        }
        _ => {}
    }
    DirBuilder::new()
        .mode(0o755)
        .create(&fresh)
        .context(|| format!("create {}", fresh.display()))?;
    let root = dhow_rootpath::Root::open(&fresh).context(|| "open a new cache")?;
    let mut writer = Writer::new(root, stage.build);
    with_source(stage, origin, |files| {
        for picked in pick(files, source, &Pick::default())? {
            writer.copy(files, &picked, &Destination::new("/", true))?;
        }
        Ok(())
    })?;
    writer.finish()?;
    std::fs::rename(&fresh, dir).context(|| format!("create {}", dir.display()))?;
    Ok(())
}

/// Whether it is new.
fn make_cache_dir(dir: &Path, mount: &Mount) -> Result<bool, Error> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(Error::wrap(error, format!("create {}", dir.display()))),
    }
    let (mode, uid, gid) = cache_dress(mount);
    dress(dir, mode, (uid, gid))?;
    Ok(true)
}

/// Mode and owner of a new cache.
fn cache_dress(mount: &Mount) -> (u32, u32, u32) {
    let owner = (mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
    (mount.mode.unwrap_or(0o755), owner.0, owner.1)
}

fn write_new(path: &Path, bytes: &[u8], mode: u32, owner: (u32, u32)) -> Result<(), Error> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .context(|| format!("create {}", path.display()))?;
    file.write_all(bytes)
        .context(|| format!("write {}", path.display()))?;
    dress(path, mode, owner)
}

/// Owner first, then mode: changing the owner clears the set-id bits.
fn dress(path: &Path, mode: u32, owner: (u32, u32)) -> Result<(), Error> {
    std::os::unix::fs::chown(path, Some(owner.0), Some(owner.1))
        .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)))
        .context(|| format!("set the owner of {}", path.display()))
}
