//! `info`, `system df`, `system prune`, `system check`.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use dhow_bundle::Host;
use dhow_image::{Check, DiskUsage, Finding};
use dhow_layer::Backend;
use dhow_snapshot::Form as SnapshotForm;
use dhow_transport::Registries;
use dhow_types::{ContainerId, ErrorKind};

use crate::container::{Container, Status};
use crate::{Context as _, Engine, Error, Support, Volume};

/// What `info` shows.
#[derive(Clone, Debug)]
pub struct Info {
    /// Containers by how they stand: running, paused, and all others.
    pub containers: (usize, usize, usize),
    /// Number of images.
    pub images: usize,
    /// Root folder.
    pub root: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Name of the operating system.
    pub system: String,
    /// CPU architecture in the kernel's words.
    pub architecture: String,
    /// Number of CPUs.
    pub cpus: usize,
    /// Bytes of memory.
    pub memory: u64,
    /// Host name.
    pub name: String,
    /// 1 or 2.
    pub cgroup_version: u8,
    /// Storage back end.
    pub storage: String,
    /// Security mechanisms in force.
    pub security: Vec<String>,
    /// What the files say about registries; the text says why they cannot be read.
    pub registries: Result<Registries, String>,
    /// Registries that the environment names as insecure.
    pub insecure: Vec<String>,
    /// What its kernel can do for containers.
    pub support: Support,
}

impl Default for Info {
    fn default() -> Self {
        Self {
            containers: (0, 0, 0),
            images: 0,
            root: String::new(),
            kernel: String::new(),
            system: String::new(),
            architecture: String::new(),
            cpus: 0,
            memory: 0,
            name: String::new(),
            cgroup_version: 0,
            storage: String::new(),
            security: Vec::new(),
            registries: Ok(Registries::default()),
            insecure: Vec::new(),
            support: Support::default(),
        }
    }
}

/// What `system df` shows.
#[derive(Clone, Debug, Default)]
pub struct SystemUsage {
    /// Images and layers.
    pub images: DiskUsage,
    /// Containers with the bytes of their own changes.
    pub containers: Vec<(Container, u64)>,
    /// Volumes with their bytes and the number of containers that have them.
    pub volumes: Vec<(Volume, u64, usize)>,
    /// Number of records and bytes of the build cache.
    pub cache: (usize, u64),
}

/// What `system check` found.
#[derive(Clone, Debug, Default)]
pub struct SystemCheck {
    /// All that was found; empty means clean.
    pub findings: Vec<Finding>,
    /// Images, layers, blobs and containers that were looked at.
    pub looked_at: [usize; 4],
}

impl SystemCheck {
    /// Whether nothing is wrong, or all that was wrong is healed.
    #[must_use]
    pub fn clean(&self) -> bool {
        self.findings.iter().all(|finding| finding.healed.is_some())
    }
}

impl Engine {
    /// What this host is and how much there is of everything.
    ///
    /// # Errors
    /// What reading the store said.
    pub fn info(&self) -> Result<Info, Error> {
        let mut info = Info {
            images: self.images()?.iter().filter(|image| !image.is_beside()).count(),
            ..Info::default()
        };
        for container in self.containers().list()? {
            match container.state.status {
                Status::Running => info.containers.0 += 1,
                Status::Paused => info.containers.1 += 1,
                _ => info.containers.2 += 1,
            }
        }
        let uname = rustix::system::uname();
        let memory = rustix::system::sysinfo();
        info.root = self.settings().root.display().to_string();
        info.kernel = uname.release().to_string_lossy().into_owned();
        info.architecture = uname.machine().to_string_lossy().into_owned();
        info.name = uname.nodename().to_string_lossy().into_owned();
        info.system = system_name();
        info.cpus = std::thread::available_parallelism().map_or(1, usize::from);
        info.memory = memory.totalram.saturating_mul(u64::from(memory.mem_unit));
        info.cgroup_version = if bundle_host().cgroup_v2 { 2 } else { 1 };
        let layers = match self.store()?.layers.backend() {
            Backend::Directories => "",
            Backend::Erofs => " over erofs",
        };
        info.storage = format!("{}{layers}", self.snapshots_form()?);
        info.security = security();
        info.support = Support::of_this_host();
        let transport = &self.settings().transport;
        info.registries = Registries::read(&transport.registries).map_err(|error| error.to_string());
        info.insecure.clone_from(&transport.insecure);
        Ok(info)
    }

    /// How new layers are kept: `directories` or `erofs`.
    ///
    /// # Errors
    /// What opening the store said.
    pub fn layers_form(&self) -> Result<&'static str, Error> {
        Ok(match self.store()?.layers.backend() {
            Backend::Directories => "directories",
            Backend::Erofs => "erofs",
        })
    }

    /// Keeps layers that come from now on as `backend` says.
    ///
    /// # Errors
    /// `Unsupported` when this host cannot have them so.
    pub fn keep_layers_as(&self, backend: Backend) -> Result<(), Error> {
        let what = "choose how layers are kept";
        self.store()?.keep_layers_as(backend).context(|| what)
    }

    /// How new snapshots are made: `overlay` or `copy`.
    ///
    /// # Errors
    /// What opening the store said.
    pub fn snapshots_form(&self) -> Result<&'static str, Error> {
        Ok(match self.store()?.snapshots.form() {
            SnapshotForm::Overlay => "overlay",
            SnapshotForm::Copy => "copy",
        })
    }

    /// Makes snapshots (of containers, of steps of builds) so from now on.
    ///
    /// # Errors
    /// `Unsupported` when this host cannot have them so.
    pub fn make_snapshots_as(&self, form: SnapshotForm) -> Result<(), Error> {
        let what = "choose how snapshots are made";
        self.store()?.make_snapshots_as(form).context(|| what)
    }

    /// What takes how much disk.
    ///
    /// # Errors
    /// What reading the store said.
    pub fn disk_usage(&self) -> Result<SystemUsage, Error> {
        let store = self.store()?;
        let images = store.disk_usage(&self.uses()?).context(|| "measure the images")?;
        let containers: Vec<_> = self
            .containers()
            .list()?
            .into_iter()
            .map(|container| {
                let size = self.container_size(&container.config.id);
                (container, size)
            })
            .collect();
        let mut volumes = Vec::new();
        for volume in self.volumes()? {
            let users = containers
                .iter()
                .filter(|(container, _)| {
                    container
                        .config
                        .mounts
                        .iter()
                        .any(|mount| mount.name.as_deref() == Some(&volume.name))
                })
                .count();
            let size = tree_size(&volume.data);
            volumes.push((volume, size, users));
        }
        let caches = self.cache()?;
        let cache = (caches.len(), caches.iter().map(|entry| entry.bytes).sum());
        Ok(SystemUsage {
            images,
            containers,
            volumes,
            cache,
        })
    }

    /// Checks everything; with `repair`, heals what can be healed.
    ///
    /// # Errors
    /// When it cannot even be looked at.
    pub fn check(&self, how: Check) -> Result<SystemCheck, Error> {
        let mut found = SystemCheck::default();
        let report = self.store()?.check(how).context(|| "check the store")?;
        found.findings = report.findings;
        found.looked_at = [report.images, report.layers, report.blobs, 0];
        self.check_containers(how.repair, &mut found)?;
        self.check_leftovers(how.repair, &mut found)?;
        self.check_snapshots(how.repair, &mut found)?;
        self.check_rules(how.repair, &mut found);
        Ok(found)
    }

    fn check_rules(&self, repair: bool, found: &mut SystemCheck) {
        // A normal user's containers have no rules on the host, and cannot ask for them.
        if !crate::rootless::is_rootful() {
            return;
        }
        let looked = self.networks().and_then(|networks| {
            let damaged = networks.is_damaged().context(|| "look at the packet filter")?;
            Ok((networks, damaged))
        });
        match looked {
            Ok((_, false)) => {}
            Ok((networks, true)) => {
                let healed = repair && networks.repair().is_ok();
                found.findings.push(Finding {
                    what: "the packet filter lacks rules of networks that containers are on".to_owned(),
                    healed: healed.then(|| "written again".to_owned()),
                });
            }
            Err(error) => found.findings.push(Finding {
                what: format!("networks: {}", crate::worker::chain(&error)),
                healed: None,
            }),
        }
    }

    fn check_containers(&self, repair: bool, found: &mut SystemCheck) -> Result<(), Error> {
        let ids = self.containers().ids()?;
        found.looked_at[3] = ids.len();
        for id in &ids {
            let problem = match self.containers().load(id) {
                Err(error) => Some(format!(
                    "container {}: {}",
                    id.short(),
                    crate::worker::chain(&error)
                )),
                Ok(container) => {
                    let plugins = self.check_cni(&container).into_iter();
                    // Only its next start makes it anew.
                    found
                        .findings
                        .extend(plugins.map(|what| Finding { what, healed: None }));
                    self.half_dead(&container)?
                }
            };
            let Some(what) = problem else { continue };
            let healed = if repair { self.heal_container(id)? } else { None };
            found.findings.push(Finding { what, healed });
        }
        for folder in self.containers().unfinished() {
            let what = format!("a container was not finished: {}", folder.display());
            let healed = (repair && fs::remove_dir_all(&folder).is_ok()).then(|| "removed".to_owned());
            found.findings.push(Finding { what, healed });
        }
        // What was healed may be gone.
        self.check_names(repair, found)
    }

    /// A name leads to its container, and a container has its name: a kill between the two steps leaves one of them.
    fn check_names(&self, repair: bool, found: &mut SystemCheck) -> Result<(), Error> {
        for container in self.containers().list()? {
            if self.containers().has_name(&container) {
                continue;
            }
            let (id, name) = (&container.config.id, &container.config.name);
            let what = format!("container {} does not have its name {name:?}", id.short());
            let named =
                |name: &str, outcome: Result<(), Error>| outcome.ok().map(|()| format!("named {name}"));
            let healed = if repair {
                named(name, self.containers().reserve(name, id))
                    .or_else(|| named(id.short(), self.containers().rename(&container, id.short())))
            } else {
                None
            };
            found.findings.push(Finding { what, healed });
        }
        let names = self.containers().names();
        for name in names.all() {
            let gone = |owner: Option<&ContainerId>| {
                !owner.is_some_and(|owner| {
                    self.containers().folder(owner).exists()
                        || self.containers().owner(owner) != crate::names::Owner::Gone
                })
            };
            if !gone(names.owner(&name).as_ref()) {
                continue;
            }
            let what = format!("name {name} is reserved for a container that is not there");
            let healed = match repair.then(|| names.forget(&name, gone)) {
                // It went by itself, or somebody has it now.
                Some(Ok(false)) => continue,
                Some(Ok(true)) => Some("released".to_owned()),
                Some(Err(_)) | None => None,
            };
            found.findings.push(Finding { what, healed });
        }
        Ok(())
    }

    /// A container whose monitor died: its record holds what nobody will release.
    fn half_dead(&self, container: &Container) -> Result<Option<String>, Error> {
        let id = &container.config.id;
        let running = matches!(
            container.state.status,
            Status::Running | Status::Paused | Status::Restarting
        ) || container.state.newborn.is_some();
        if self.containers().try_lock(id)?.is_none() {
            return Ok(None);
        }
        let what = if self.containers().lost_state(id) {
            Some(format!("container {} lost its state in a power cut", id.short()))
        } else if running {
            Some(format!("container {} runs without its monitor", id.short()))
        } else if !container.state.endpoints.is_empty() {
            Some(format!(
                "container {} ended but holds its places in networks",
                id.short()
            ))
        } else if self.group(&container.config).is_ok() {
            Some(format!("container {} ended but has a control group", id.short()))
        } else {
            None
        };
        Ok(what)
    }

    fn heal_container(&self, id: &ContainerId) -> Result<Option<String>, Error> {
        match self.containers().load(id) {
            Ok(container) if container.state.pid != 0 => {
                self.stop(id.as_str(), None, None)?;
                self.settle_record(id)?;
                Ok(Some("stopped".to_owned()))
            }
            Ok(_) => {
                self.settle_record(id)?;
                Ok(Some("released".to_owned()))
            }
            // Made in the moments before a power cut, and nobody can say any more what it is.
            Err(error) if error.kind() == ErrorKind::DataLoss => {
                self.containers().discard(id, None)?;
                Ok(Some("removed: its config is lost".to_owned()))
            }
            Err(_) => Ok(None),
        }
    }

    /// A power cut may leave a snapshot's list of layers without content; its container's config has the same list.
    fn check_stacks(&self, repair: bool, found: &mut SystemCheck) -> Result<(), Error> {
        let snapshots = &self.store()?.snapshots;
        for container in self.containers().list()? {
            let (id, layers) = (&container.config.id, &container.config.layers);
            let lost = snapshots.stack(id.as_str());
            if !lost.is_err_and(|error| error.kind() == ErrorKind::DataLoss) {
                continue;
            }
            let healed = repair && snapshots.restack(id.as_str(), layers).is_ok();
            found.findings.push(Finding {
                what: format!(
                    "container {} lost the list of its layers in a power cut",
                    id.short()
                ),
                healed: healed.then(|| "written again".to_owned()),
            });
        }
        Ok(())
    }

    fn check_snapshots(&self, repair: bool, found: &mut SystemCheck) -> Result<(), Error> {
        let store = self.store()?;
        let owners: HashSet<String> = self.containers().ids()?.iter().map(ToString::to_string).collect();
        self.check_stacks(repair, found)?;
        for key in store.snapshots.list().context(|| "list snapshots")? {
            let dead = if key.starts_with("build-") {
                crate::leftover::dead_build(&key)
            } else if crate::mounted::is_mount_key(&key) {
                self.is_dead_mount(&key)
            } else {
                // The images that a container mounts have its id before a dot.
                !owners.contains(key.split('.').next().unwrap_or(&key))
            };
            if !dead {
                continue;
            }
            let healed = repair && store.snapshots.remove(&key).is_ok();
            found.findings.push(Finding {
                what: format!("snapshot {key} belongs to nobody"),
                healed: healed.then(|| "removed".to_owned()),
            });
        }
        Ok(())
    }
}

/// What `bundle` needs to know of this host.
pub(crate) fn bundle_host() -> Host {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|word| word.parse().unwrap_or(0));
    let kernel = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    Host {
        // The unified hierarchy alone, without the tmpfs of version 1 above it, has this file at its top.
        cgroup_v2: Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
        rootless: !crate::rootless::is_rootful(),
        kernel,
    }
}

/// Names the AppArmor profile, and makes sure that the kernel has it.
fn confine(spec: &mut dhow_oci::runtime::Spec, request: &dhow_bundle::Request) -> Result<(), Error> {
    let profile = crate::confine::profile_of(request);
    if profile == Some(crate::confine::DEFAULT_PROFILE) {
        crate::confine::load_default()?;
    }
    if let Some(process) = &mut spec.process {
        process.apparmor_profile = profile.map(str::to_owned);
    }
    Ok(())
}

/// The runtime spec of a request on this host. Capabilities that this process does not have itself cannot be given, not
/// even to a privileged container: they are left out, as dockerd does.
pub(crate) fn runtime_spec(request: &dhow_bundle::Request) -> Result<dhow_oci::runtime::Spec, Error> {
    let mut spec = dhow_bundle::spec(request, &bundle_host()).context(|| "write the runtime spec")?;
    let own = rustix::thread::capabilities(None)
        .map_err(std::io::Error::from)
        .context(|| "read own capabilities")?;
    let held = |name: &String| {
        let set = rustix::thread::CapabilitySet::from_name(name.strip_prefix("CAP_").unwrap_or(name));
        set.is_none_or(|set| own.permitted.contains(set))
    };
    if let Some(capabilities) = spec
        .process
        .as_mut()
        .and_then(|process| process.capabilities.as_mut())
    {
        let sets = [
            &mut capabilities.bounding,
            &mut capabilities.effective,
            &mut capabilities.permitted,
            &mut capabilities.inheritable,
            &mut capabilities.ambient,
        ];
        for set in sets {
            set.retain(held);
        }
    }
    confine(&mut spec, request)?;
    Ok(spec)
}

/// Bytes that a tree takes on disk, each inode once; symbolic links are not followed.
pub(crate) fn tree_size(path: &Path) -> u64 {
    let mut seen = HashSet::new();
    let mut pending = vec![path.to_owned()];
    let mut total = 0_u64;
    while let Some(path) = pending.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        if metadata.nlink() < 2 || metadata.is_dir() || seen.insert((metadata.dev(), metadata.ino())) {
            total += metadata.blocks() * 512;
        }
        if metadata.is_dir() {
            pending.extend(
                fs::read_dir(&path)
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|entry| entry.path()),
            );
        }
    }
    total
}

fn system_name() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

fn security() -> Vec<String> {
    let mut found = vec!["seccomp".to_owned()];
    let modules = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    for name in ["apparmor", "selinux"] {
        if modules.split(',').any(|module| module.trim() == name) {
            found.push(name.to_owned());
        }
    }
    if bundle_host().cgroup_v2 {
        found.push("cgroupns".to_owned());
    }
    found
}
