//! `create`: what a person asked for, joined with the image and resolved.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dhow_bundle::{Device, Init, Limits, NamespaceMode, Request, SeccompChoice, Ulimit};
use dhow_image::Image;
use dhow_meta::Lease;
use dhow_monitor::{OnUnhealthy, RestartPolicy};
use dhow_network::PortMapping;
use dhow_oci::{Healthcheck, Labels, RunConfig};
use dhow_types::{ContainerId, Digest, ErrorKind, Platform};

use super::defaults::{all_ports, entrypoint, health};
use super::extras::Extras;
use super::mounts::{MountSpec, Mounted, mount_requests};
use super::record::{Attachment, Config, DeviceRecord, LogConfig, ManifestRecord, MountRecord, NetworkMode};
use super::shared::IpcMode;
use super::users::UsersChoice;
use crate::event::Event;
use crate::{Context as _, Engine, Error, Relabel};

/// What `docker run`'s flags say, each in its own words.
#[derive(Clone, Debug, Default)]
pub struct CreateContainer {
    /// The image.
    pub image: String,
    /// The machine that the image is for, of those that the name has here; the one that has the name when absent.
    pub platform: Option<Platform>,
    /// The name; made up when absent.
    pub name: Option<String>,
    /// Arguments after the image.
    pub command: Vec<String>,
    /// `--entrypoint`.
    pub entrypoint: Option<Vec<String>>,
    /// `NAME=value`; a name alone has been resolved by the caller.
    pub env: Vec<String>,
    /// Labels.
    pub labels: Labels,
    /// `name|uid[:group|gid]`.
    pub user: Option<String>,
    /// `--group-add`.
    pub group_add: Vec<String>,
    /// Working directory.
    pub workdir: Option<PathBuf>,
    /// Host name.
    pub hostname: Option<String>,
    /// Domain name.
    pub domainname: Option<String>,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Size of the terminal in rows and columns.
    pub console_size: Option<(u16, u16)>,
    /// Whether its input is open.
    pub interactive: bool,
    /// Mounts.
    pub mounts: Vec<MountSpec>,
    /// `--volumes-from`: containers whose volumes and binds it gets, too, as `name[:ro|rw]`.
    pub volumes_from: Vec<String>,
    /// `--secret`.
    pub secrets: Vec<super::secrets::SecretSpec>,
    /// Published ports.
    pub ports: Vec<PortSpec>,
    /// `--expose`.
    pub expose: Vec<String>,
    /// Publish every exposed port.
    pub publish_all: bool,
    /// Networks: names, `host`, `none`, `bridge` or `container:<id>`.
    pub networks: Vec<Attachment>,
    /// `--dns`.
    pub dns: Vec<String>,
    /// `--dns-search`.
    pub dns_search: Vec<String>,
    /// `--dns-option`.
    pub dns_options: Vec<String>,
    /// `--add-host`.
    pub extra_hosts: Vec<String>,
    /// Limits.
    pub limits: Limits,
    /// Bytes of `/dev/shm`.
    pub shm_size: Option<u64>,
    /// `--ulimit`.
    pub ulimits: Vec<Ulimit>,
    /// `--cap-add`.
    pub cap_add: Vec<String>,
    /// `--cap-drop`.
    pub cap_drop: Vec<String>,
    /// `--privileged`.
    pub privileged: bool,
    /// `--read-only`.
    pub read_only: bool,
    /// `--security-opt`.
    pub security: Vec<SecurityOption>,
    /// `--device`, host path, container path, access.
    pub devices: Vec<(PathBuf, PathBuf, String)>,
    /// `--device-cgroup-rule`.
    pub device_rules: Vec<String>,
    /// `--sysctl`.
    pub sysctls: BTreeMap<String, String>,
    /// `--oom-score-adj`.
    pub oom_score_adj: Option<i32>,
    /// `--pid`, `--ipc`, `--uts`, `--cgroupns`.
    pub namespaces: Vec<NamespaceChoice>,
    /// `--cgroup-parent`.
    pub cgroup_parent: Option<String>,
    /// `--annotation`.
    pub annotations: Labels,
    /// `--restart`.
    pub restart: RestartPolicy,
    /// `--stop-signal`.
    pub stop_signal: Option<String>,
    /// `--stop-timeout`, seconds.
    pub stop_timeout: Option<u64>,
    /// `--health-*`; over the image's, field by field.
    pub health: Option<Healthcheck>,
    /// `--no-healthcheck`.
    pub no_healthcheck: bool,
    /// `--health-on-failure`.
    pub on_unhealthy: OnUnhealthy,
    /// `--rm`.
    pub auto_remove: bool,
    /// `--log-driver` and `--log-opt`.
    pub log: Option<LogConfig>,
    /// `--umask`.
    pub umask: Option<u32>,
    /// What becomes of the volumes of the image.
    pub image_volumes: ImageVolumes,
    /// Whether the image's variables are left out.
    pub bare_env: bool,
    /// Whether a read-only root has memory at the usual places.
    pub read_only_tmpfs: bool,
    /// Whether `/dev` and `/dev/shm` are read-only, too.
    pub read_only_dev: bool,
    /// Whether it gets what a systemd needs; by its command when absent.
    pub systemd: Option<bool>,
    /// `--init`.
    pub init: Option<Init>,
    /// Which user namespace it has.
    pub users: UsersChoice,
    /// What docker has no word for.
    pub extras: Extras,
}

/// What becomes of the volumes that an image names and the person does not (`--image-volume`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImageVolumes {
    /// They are new volumes that go with the container.
    #[default]
    Anonymous,
    /// They are memory.
    Tmpfs,
    /// There are none.
    Ignore,
}

/// One published port as a person says it, ranges expanded.
pub type PortSpec = PortMapping;

/// One `--security-opt`.
#[derive(Clone, Debug, PartialEq)]
pub enum SecurityOption {
    /// `no-new-privileges`, `no-new-privileges=false`.
    NoNewPrivileges(bool),
    /// `seccomp=`.
    Seccomp(SeccompChoice),
    /// `apparmor=`.
    AppArmor(String),
    /// `label=`.
    Label(String),
    /// `systempaths=unconfined`.
    SystemPathsUnconfined,
}

/// One namespace that is not the container's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamespaceChoice {
    /// `--pid`.
    Pid(NamespaceMode),
    /// `--ipc`.
    Ipc(NamespaceMode),
    /// `--uts`.
    Uts(NamespaceMode),
    /// `--cgroupns`.
    Cgroup(NamespaceMode),
}

/// A container that was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// Its id.
    pub id: ContainerId,
    /// What the person should know.
    pub warnings: Vec<String>,
    /// What the host lacks for a systemd in it.
    pub lacks: Option<String>,
    /// The machine that its image is for, when it is another than this one and nobody asked for that.
    pub foreign: Option<Platform>,
}

impl Engine {
    /// Creates a container of a local image; nothing of it runs yet.
    ///
    /// # Errors
    /// `NotFound` for an image that is not here, `AlreadyExists` for a name in use, `InvalidArgument`.
    pub fn create(&self, wanted: &CreateContainer) -> Result<Created, Error> {
        // The lease ends when the container's folder is there, which keeps the layers from then on.
        let (image, _lease) = match &wanted.extras.root {
            Some(root) => (root.image(), None),
            None => self
                .image_to_run(&wanted.image, wanted.platform.as_ref())
                .map(|(image, lease)| (image, Some(lease)))?,
        };
        let mounted = self.images_to_mount(&wanted.mounts)?;
        let id = ContainerId::from_random(super::name::random_bytes()?);
        let mut warnings = Vec::new();
        if wanted.extras.root.is_none() {
            warnings.extend(self.may_be_used(&image, &wanted.image)?);
            warnings.extend(self.admit(dhow_policy::Point::Run, &image, &wanted.image)?);
        }
        let _ids = self.lock_ids(wanted)?;
        let mut config = self.config(wanted, &image, &mounted, &id)?;
        let lacks = match config.extras.systemd {
            true => super::implied::old_groups(crate::system::bundle_host().cgroup_v2),
            false => None,
        };
        let make = |config: &Config| {
            let fill = |folder: &Path| self.copy_secrets(config, folder);
            self.containers().create(config, &fill)
        };
        match make(&config) {
            // Another command took the name that was drawn a moment ago.
            Err(error) if error.kind() == ErrorKind::AlreadyExists && wanted.name.is_none() => {
                config.name = format!("{}_{}", config.name, &id.as_str()[2..10]);
                make(&config)?;
            }
            created => created?,
        }
        self.tell(&Event::of(&config, "create"));
        Ok(Created {
            id,
            warnings,
            lacks,
            foreign: config.platform.filter(|_| wanted.platform.is_none()),
        })
    }

    fn config(
        &self,
        wanted: &CreateContainer,
        image: &Image,
        mounted: &[Mounted],
        id: &ContainerId,
    ) -> Result<Config, Error> {
        let defaults = &image.config.config;
        let args = dhow_bundle::command(defaults, wanted.entrypoint.as_deref(), &wanted.command);
        if args.first().is_none_or(String::is_empty) {
            let message = "no command specified: the image has neither ENTRYPOINT nor CMD";
            return Err(Error::new(ErrorKind::InvalidArgument, message)
                .with_hint("give a command after the image, or --entrypoint"));
        }
        let signal = wanted.stop_signal.as_deref();
        signal.map(super::stop::parse_signal).transpose()?;
        super::conflicts::check(wanted)?;
        wanted.extras.check()?;
        super::cdi::check(&wanted.extras)?;
        let wanted = &self.take_volumes(super::implied::complete(wanted, image, id, &args))?;
        let (network, networks) = self.connection(wanted)?;
        let mounts = self.mounts(wanted, image, mounted)?;
        let users = self.resolve_users(wanted, image)?;
        super::mounts::check_mapped(&mounts, users.as_ref())?;
        let request = self.request(wanted, image, id, args.clone(), &mounts, &network)?;
        let exposed = super::defaults::exposed(wanted, defaults);
        let (health, idle_health) = health(wanted, defaults.healthcheck.as_ref())?;
        let mut labels = defaults.labels.clone();
        labels.extend(wanted.labels.clone());
        Ok(Config {
            id: id.clone(),
            name: self.name_of(wanted, id)?,
            created: dhow_monitor::format_time(std::time::SystemTime::now()),
            image_name: wanted.image.clone(),
            image: image.id,
            platform: foreign(image),
            manifest: ManifestRecord::of(image),
            layers: image.config.rootfs.diff_ids.clone(),
            user: user_of(wanted, defaults)?,
            group_add: wanted.group_add.clone(),
            request,
            entrypoint: entrypoint(wanted, defaults),
            command: args,
            mounts,
            network,
            networks,
            ports: all_ports(wanted, &exposed)?,
            exposed,
            dns: wanted.dns.clone(),
            dns_search: wanted.dns_search.clone(),
            dns_options: wanted.dns_options.clone(),
            extra_hosts: wanted.extra_hosts.clone(),
            labels,
            restart: wanted.restart,
            stop_signal: wanted
                .stop_signal
                .clone()
                .or_else(|| defaults.stop_signal.clone())
                .unwrap_or_else(|| "SIGTERM".to_owned()),
            stop_timeout: wanted.stop_timeout.or(defaults.stop_timeout).unwrap_or(10),
            health,
            idle_health,
            on_unhealthy: wanted.on_unhealthy,
            open_stdin: wanted.interactive,
            auto_remove: wanted.auto_remove,
            log: log_config(wanted)?,
            devices: wanted.devices.iter().map(device_record).collect(),
            secrets: self.resolve_secrets(&wanted.secrets)?,
            extras: Extras {
                shared: self.resolve_shared(&wanted.extras.shared)?,
                users,
                account: super::account::Account::of_caller(&wanted.users)?,
                ..wanted.extras.clone()
            },
        })
    }

    fn name_of(&self, wanted: &CreateContainer, id: &ContainerId) -> Result<String, Error> {
        match &wanted.name {
            // Docker's names begin with a slash, and may be given so.
            Some(name) => Ok(name.strip_prefix('/').unwrap_or(name).to_owned()),
            None => self.fresh_name(id),
        }
    }

    /// Looks the image up in a database that is closed again: the container's monitor would else carry its memory along.
    /// The lease keeps it from whoever removes it at the same time.
    pub(super) fn image_to_run(
        &self,
        name: &str,
        platform: Option<&Platform>,
    ) -> Result<(Image, Lease), Error> {
        let root = &self.settings().root;
        let store = dhow_image::Store::open_with_run(root, Some(&self.settings().run))
            .context(|| format!("open the store in {}", root.display()))?;
        let keep = || "keep the image's layers";
        let lease = Lease::acquire(root).context(keep)?;
        loop {
            let image = store.resolve_for(name, platform).context(|| "create container")?;
            let layers: Vec<Digest> = image.config.rootfs.diff_ids.iter().map(|diff| diff.0).collect();
            lease.pin_many(&layers).context(keep)?;
            // Pinned first, looked at second: if it is gone, or the name is another image's, that is the answer.
            if store.meta.image(&image.id).context(keep)?.is_some() {
                return Ok((image, lease));
            }
        }
    }

    fn connection(&self, wanted: &CreateContainer) -> Result<(NetworkMode, Vec<Attachment>), Error> {
        let default = [Attachment {
            network: "bridge".to_owned(),
            ..Attachment::default()
        }];
        let asked = if wanted.networks.is_empty() {
            &default[..]
        } else {
            &wanted.networks
        };
        let alone = |what: &str| {
            if asked.len() == 1 {
                return Ok(());
            }
            let message = format!("network {what} cannot be joined together with other networks");
            Err(Error::new(ErrorKind::InvalidArgument, message))
        };
        for attachment in asked {
            let mode = match attachment.network.as_str() {
                "host" => NetworkMode::Host,
                "none" => NetworkMode::None,
                name => match (name.strip_prefix("container:"), name.strip_prefix("ns:")) {
                    (Some(other), _) => NetworkMode::Container(self.containers().find(other)?.config.id),
                    (_, Some(path)) if path.starts_with('/') => NetworkMode::Namespace(path.into()),
                    _ => {
                        self.check_attachment(name, attachment)?;
                        continue;
                    }
                },
            };
            alone(&attachment.network)?;
            if !wanted.ports.is_empty() && mode != NetworkMode::Host {
                let message = "conflicting options: port publishing and the network mode";
                return Err(Error::new(ErrorKind::InvalidArgument, message));
            }
            return Ok((mode, Vec::new()));
        }
        let mut networks = asked.to_vec();
        for at in 0..networks.len() {
            // It may have been called by its id, and `default` is docker's other word for the default bridge.
            networks[at].network = match networks[at].network.as_str() {
                "bridge" | "default" => "bridge".to_owned(),
                name => self.any_network(name).context(|| "create container")?.name,
            };
            if networks[..at]
                .iter()
                .any(|other| other.network == networks[at].network)
            {
                let message = format!("network {:?} is specified multiple times", networks[at].network);
                return Err(Error::new(ErrorKind::InvalidArgument, message));
            }
        }
        Ok((NetworkMode::Networks, networks))
    }

    /// What can be known before the start of a network that is to be joined.
    fn check_attachment(&self, name: &str, attachment: &Attachment) -> Result<(), Error> {
        super::life::hardware_address(attachment.mac.as_deref())?;
        if matches!(name, "bridge" | "default") {
            return Ok(());
        }
        let network = self.any_network(name).context(|| "create container")?;
        if network.driver == dhow_network::Driver::Cni {
            // Its plugins know, at the start.
            return Ok(());
        }
        let wanted = [
            (attachment.ip.map(std::net::IpAddr::V4), network.v4()),
            (attachment.ip6.map(std::net::IpAddr::V6), network.v6()),
        ];
        for (ip, subnet) in wanted {
            if let Some(ip) = ip
                && !subnet.is_some_and(|subnet| subnet.subnet.contains(&ip))
            {
                let message =
                    format!("invalid endpoint settings: no configured subnet contains IP address {ip}");
                return Err(Error::new(ErrorKind::InvalidArgument, message));
            }
        }
        Ok(())
    }

    fn request(
        &self,
        wanted: &CreateContainer,
        image: &Image,
        id: &ContainerId,
        args: Vec<String>,
        mounts: &[MountRecord],
        network: &NetworkMode,
    ) -> Result<Request, Error> {
        let defaults = &image.config.config;
        let uts = NamespaceChoice::Uts(NamespaceMode::Host);
        let hostname = wanted.hostname.clone().unwrap_or_else(|| match network {
            _ if wanted.namespaces.contains(&uts) => {
                rustix::system::uname().nodename().to_string_lossy().into_owned()
            }
            NetworkMode::Host => rustix::system::uname().nodename().to_string_lossy().into_owned(),
            _ => id.short().to_owned(),
        });
        let hostname = self.shared_hostname(wanted)?.unwrap_or(hostname);
        let mut request = Request {
            args,
            env: dhow_bundle::merge_env(if wanted.bare_env { &[] } else { &defaults.env }, &wanted.env),
            bare_env: wanted.bare_env,
            read_only_dev: wanted.read_only_dev,
            cwd: wanted
                .workdir
                .clone()
                .unwrap_or_else(|| PathBuf::from(&defaults.working_dir)),
            hostname,
            domainname: wanted.domainname.clone().unwrap_or_default(),
            tty: wanted.tty,
            console_size: wanted.console_size,
            mounts: mount_requests(wanted, mounts),
            limits: wanted.limits.clone(),
            ulimits: wanted.ulimits.clone(),
            cap_add: wanted.cap_add.clone(),
            cap_drop: wanted.cap_drop.clone(),
            privileged: wanted.privileged,
            read_only: wanted.read_only,
            device_rules: wanted.device_rules.clone(),
            annotations: wanted.annotations.clone(),
            sysctls: wanted.sysctls.clone(),
            oom_score_adj: wanted.oom_score_adj,
            umask: wanted.umask,
            no_shm: wanted.extras.ipc == IpcMode::None,
            own_cgroups: wanted.extras.systemd,
            init: wanted.init.clone(),
            cgroup_path: match wanted.cgroup_parent.as_deref() {
                Some(parent) => format!("{}/{id}", parent.trim_matches('/')),
                None => format!("{}/{id}", self.cgroup_parent()),
            },
            ..Request::default()
        };
        if let Some(size) = wanted.shm_size {
            request.shm_size = size;
        }
        for (host, container, access) in &wanted.devices {
            request.devices.push(device(host, container, access)?);
        }
        for option in &wanted.security {
            match option.clone() {
                SecurityOption::NoNewPrivileges(set) => request.no_new_privileges = set,
                SecurityOption::Seccomp(choice) => request.seccomp = choice,
                SecurityOption::AppArmor(profile) => request.apparmor = Some(profile),
                // Labels need all of the request: see `label`.
                SecurityOption::Label(_) => {}
                SecurityOption::SystemPathsUnconfined => {
                    request.masked_paths = Some(Vec::new());
                    request.readonly_paths = Some(Vec::new());
                }
            }
        }
        Self::namespace_choices(wanted, &mut request);
        self.label(wanted, id, mounts, &mut request)?;
        Ok(request)
    }

    /// SELinux labels of the container, of the binds that ask for one, and of volumes.
    fn label(
        &self,
        wanted: &CreateContainer,
        id: &ContainerId,
        mounts: &[MountRecord],
        request: &mut Request,
    ) -> Result<(), Error> {
        let asked = wanted.security.iter().filter_map(|option| match option {
            SecurityOption::Label(label) => Some(label.clone()),
            _ => None,
        });
        let asked: Vec<String> = asked.collect();
        request.selinux = crate::selinux::labels(&self.settings().root, id, &asked, request)?;
        let Some(labels) = &request.selinux else {
            return Ok(());
        };
        for (index, record) in mounts.iter().enumerate() {
            let relabel = match wanted.mounts.get(index) {
                Some(MountSpec::Bind { relabel, .. }) => *relabel,
                _ if record.kind == "volume" => Relabel::Shared,
                _ => Relabel::No,
            };
            let source = Path::new(&record.source);
            match relabel {
                Relabel::No => {}
                Relabel::Shared => crate::selinux::relabel(source, &crate::selinux::shared(&labels.mount))?,
                Relabel::Private => crate::selinux::relabel(source, &labels.mount)?,
            }
        }
        Ok(())
    }

    fn namespace_choices(wanted: &CreateContainer, request: &mut Request) {
        for choice in wanted.namespaces.iter().cloned() {
            match choice {
                NamespaceChoice::Pid(mode) => request.namespaces.pid = mode,
                NamespaceChoice::Ipc(mode) => request.namespaces.ipc = mode,
                NamespaceChoice::Uts(mode) => request.namespaces.uts = mode,
                NamespaceChoice::Cgroup(mode) => request.namespaces.cgroup = Some(mode),
            }
        }
    }
}

/// Who the program runs as: the caller, where the caller is to be who they are (podman-run(1), `--userns=keep-id`).
fn user_of(wanted: &CreateContainer, image: &RunConfig) -> Result<String, Error> {
    match (&wanted.user, &wanted.users) {
        (Some(user), _) => Ok(user.clone()),
        (None, UsersChoice::KeepId(kept)) => super::own_ids::kept_user(kept),
        (None, _) => Ok(image.user.clone()),
    }
}

/// The machine of an image that is for another than this one. An image that names none runs anywhere.
pub(super) fn foreign(image: &Image) -> Option<Platform> {
    let platform = image.config.platform();
    let known = !image.config.architecture.is_empty();
    (known && !Platform::host().accepts(&platform)).then_some(platform)
}

fn log_config(wanted: &CreateContainer) -> Result<LogConfig, Error> {
    let config = wanted.log.clone().unwrap_or_else(|| LogConfig {
        driver: "local".to_owned(),
        options: BTreeMap::new(),
    });
    if !matches!(
        config.driver.as_str(),
        "local" | "json-file" | "k8s-file" | "none"
    ) {
        dhow_logdriver::check(&config.driver, &config.options).context(|| "set up the log")?;
        return Ok(config);
    }
    for (name, value) in &config.options {
        if config.driver == "k8s-file" && !matches!(name.as_str(), "max-size" | "max-file" | "mode") {
            let message =
                format!("log option {name}={value} is not for k8s-file: its lines have no room for it");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let good = match name.as_str() {
            "max-size" => value.parse::<dhow_types::ByteSize>().is_ok(),
            "max-file" => value.parse::<u32>().is_ok_and(|count| count > 0),
            // A file takes every line at once: nobody waits, and nothing is lost.
            "mode" => matches!(value.as_str(), "blocking" | "non-blocking"),
            "env" | "env-regex" | "labels" | "labels-regex" | "tag" => true,
            _ => false,
        };
        if !good {
            let message = format!("log option {name}={value} is not supported");
            return Err(Error::new(ErrorKind::InvalidArgument, message)
                .with_hint("use max-size, max-file, mode, env, env-regex, labels, labels-regex or tag"));
        }
    }
    dhow_logdriver::attributes(&config.options, &dhow_logdriver::Facts::default())
        .context(|| "set up the log")?;
    Ok(config)
}

fn device_record((host, container, access): &(PathBuf, PathBuf, String)) -> DeviceRecord {
    DeviceRecord {
        host: host.clone(),
        container: container.clone(),
        access: access.clone(),
    }
}

pub(super) fn device(host: &Path, container: &Path, access: &str) -> Result<Device, Error> {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
    let metadata = std::fs::metadata(host)
        .context(|| format!("error gathering device information for {}", host.display()))?;
    let kind = match metadata.file_type() {
        kind if kind.is_char_device() => "c",
        kind if kind.is_block_device() => "b",
        _ => {
            let message = format!("{} is not a device", host.display());
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
    };
    Ok(Device {
        path: container.to_owned(),
        kind: kind.to_owned(),
        major: rustix::fs::major(metadata.rdev()),
        minor: rustix::fs::minor(metadata.rdev()),
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        access: access.to_owned(),
    })
}
