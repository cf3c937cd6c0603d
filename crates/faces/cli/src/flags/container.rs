//! The flags of `run` and `create`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use dhow_engine::container::{
    Attachment, CreateContainer, Extras, IpcMode, LogConfig, NamespaceChoice, SecurityOption, Shared,
    SharedKind,
};
use dhow_engine::{Limits, NamespaceMode, OnUnhealthy, RestartPolicy, SeccompChoice, SeccompProfile, Ulimit};
use dhow_types::{ByteSize, parse_duration};

use super::podman::{self, PodmanFlags};
use super::{DeviceFlags, LimitFlags, env_pairs, key_value, labels, mount, network, port, restart_policy};
use crate::{CliError, dialect};

// The flags of `run` and `create`, in docker's words. No doc comment: clap would take it for that of the verb.
#[derive(Args, Debug)]
pub(crate) struct ContainerFlags {
    /// Assign a name to the container
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Set environment variables
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long, value_name = "FILE")]
    env_file: Vec<String>,
    /// Set metadata on the container
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// Read in a file of labels
    #[arg(long, value_name = "FILE")]
    label_file: Vec<String>,
    /// Overwrite the default ENTRYPOINT of the image
    #[arg(long)]
    entrypoint: Option<String>,
    /// Username or UID (format: name|uid[:group|gid])
    #[arg(short, long)]
    user: Option<String>,
    /// Add additional groups to join
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<PathBuf>,
    /// Container host name
    #[arg(long)]
    hostname: Option<String>,
    /// Container NIS domain name
    #[arg(long)]
    domainname: Option<String>,
    /// Allocate a pseudo-TTY
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Keep STDIN open even if not attached
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Attach to STDIN, STDOUT or STDERR
    #[arg(short, long, value_name = "STREAM", ignore_case = true, value_parser = ["stdin", "stdout", "stderr"])]
    pub(crate) attach: Vec<String>,
    /// The keys that leave the container running; none when empty
    #[arg(long, value_name = "KEYS", value_parser = crate::attach::Keys::parse, default_value = crate::attach::DETACH_KEYS, hide_default_value = true)]
    pub(crate) detach_keys: crate::attach::Keys,
    /// Bind mount a volume ([source:]target[:options])
    #[arg(short, long, value_name = "VOLUME")]
    volume: Vec<String>,
    /// Give the container a secret: NAME[,type=mount|env,target=TEXT,uid=N,gid=N,mode=OCTAL]
    #[arg(long, value_name = "SECRET")]
    secret: Vec<String>,
    /// Mount volumes from the specified container(s)
    #[arg(long, value_name = "CONTAINER[:ro]")]
    volumes_from: Vec<String>,
    /// Attach a file system mount to the container
    #[arg(long)]
    mount: Vec<String>,
    /// Mount a tmpfs directory
    #[arg(long)]
    tmpfs: Vec<String>,
    /// Publish a container's port(s) to the host
    #[arg(short, long, value_name = "PORT")]
    publish: Vec<String>,
    /// Publish all exposed ports to random ports
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// Expose a port or a range of ports
    #[arg(long)]
    expose: Vec<String>,
    /// Connect a container to a network
    #[arg(long, visible_alias = "net")]
    network: Vec<String>,
    /// Add network-scoped alias for the container
    #[arg(long, visible_alias = "net-alias")]
    network_alias: Vec<String>,
    /// IPv4 address (e.g., 172.30.100.104)
    #[arg(long)]
    ip: Option<std::net::Ipv4Addr>,
    /// IPv6 address (e.g., 2001:db8::33)
    #[arg(long)]
    ip6: Option<std::net::Ipv6Addr>,
    /// Container MAC address (e.g., 92:d0:c6:0a:29:33)
    #[arg(long)]
    mac_address: Option<String>,
    /// Set custom DNS servers
    #[arg(long)]
    dns: Vec<String>,
    /// Set custom DNS search domains
    #[arg(long)]
    dns_search: Vec<String>,
    /// Set DNS options
    #[arg(long, visible_alias = "dns-opt")]
    dns_option: Vec<String>,
    /// Add a custom host-to-IP mapping (host:ip)
    #[arg(long, value_name = "HOST:IP")]
    add_host: Vec<String>,
    #[command(flatten)]
    limits: LimitFlags,
    /// Tune container memory swappiness (0 to 100)
    #[arg(long)]
    memory_swappiness: Option<u64>,
    /// Kernels have no such limit any more
    #[arg(long, value_name = "BYTES", hide = true)]
    pub(crate) kernel_memory: Option<String>,
    /// Disable OOM Killer
    #[arg(long)]
    oom_kill_disable: bool,
    /// Size of /dev/shm
    #[arg(long, value_name = "BYTES")]
    shm_size: Option<ByteSize>,
    /// Ulimit options
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<String>,
    /// Add Linux capabilities
    #[arg(long, value_name = "CAP")]
    cap_add: Vec<String>,
    /// Drop Linux capabilities
    #[arg(long, value_name = "CAP")]
    cap_drop: Vec<String>,
    /// Give extended privileges to this container
    #[arg(long)]
    privileged: bool,
    /// Mount the container's root filesystem as read only
    #[arg(long)]
    read_only: bool,
    /// Security options
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    #[command(flatten)]
    devices: DeviceFlags,
    /// Sysctl options
    #[arg(long, value_name = "NAME=VALUE")]
    sysctl: Vec<String>,
    /// Tune host's OOM preferences (-1000 to 1000)
    #[arg(long, allow_hyphen_values = true)]
    oom_score_adj: Option<i32>,
    /// PID namespace to use (host, container:NAME)
    #[arg(long)]
    pid: Option<String>,
    /// IPC mode to use (private, shareable, none, host, container:NAME)
    #[arg(long)]
    ipc: Option<String>,
    #[command(flatten)]
    users: super::users::UsersFlags,
    /// UTS namespace to use (host, container:NAME)
    #[arg(long)]
    uts: Option<String>,
    /// Cgroup namespace to use (host, private, container:NAME)
    #[arg(long)]
    cgroupns: Option<String>,
    /// Parent cgroup for the container
    #[arg(long)]
    cgroup_parent: Option<String>,
    /// Restart policy to apply when a container exits
    #[arg(long, value_parser = restart_policy, default_value = "no", hide_default_value = true)]
    restart: RestartPolicy,
    /// Signal to stop the container
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Timeout (in seconds) to stop a container
    #[arg(long, value_name = "SECONDS", value_parser = crate::flags::seconds, allow_hyphen_values = true)]
    stop_timeout: Option<u64>,
    /// Command to run to check health
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// Time between running the check (ms|s|m|h), or disable: only when asked for
    #[arg(long, value_name = "DURATION")]
    health_interval: Option<String>,
    /// Maximum time to allow one check to run (ms|s|m|h)
    #[arg(long, value_name = "DURATION")]
    health_timeout: Option<String>,
    /// Start period for the container to initialize (ms|s|m|h)
    #[arg(long, value_name = "DURATION")]
    health_start_period: Option<String>,
    /// Time between running the check during the start period (ms|s|m|h)
    #[arg(long, value_name = "DURATION")]
    health_start_interval: Option<String>,
    /// Consecutive failures needed to report unhealthy
    #[arg(long, value_name = "N")]
    health_retries: Option<u64>,
    /// What to do with a container that turns unhealthy: none, kill, restart or stop
    #[arg(long, value_name = "ACTION", value_parser = on_unhealthy, default_value = "none", hide_default_value = true)]
    health_on_failure: OnUnhealthy,
    /// Disable any container-specified HEALTHCHECK
    #[arg(long)]
    no_healthcheck: bool,
    /// Run an init inside the container that forwards signals and reaps processes
    #[arg(long)]
    init: bool,
    /// Automatically remove the container when it exits
    #[arg(long)]
    pub(crate) rm: bool,
    /// Logging driver for the container (local, json-file, k8s-file, none, syslog, journald, fluentd, gelf)
    #[arg(long, value_name = "DRIVER")]
    log_driver: Option<String>,
    /// Log driver options
    #[arg(long, value_name = "NAME=VALUE")]
    log_opt: Vec<String>,
    /// Write the container ID to the file
    #[arg(long, value_name = "FILE")]
    pub(crate) cidfile: Option<PathBuf>,
    /// Pull image before running ("always", "missing", "never", "newer": if the registry can be reached)
    #[arg(long, default_value = "missing", value_parser = ["always", "missing", "never", "newer"])]
    pub(crate) pull: String,
    #[command(flatten)]
    pub(crate) platform: super::PlatformFlags,
    /// Suppress the pull output
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Add free strings to the runtime's configuration
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    #[command(flatten)]
    pub(crate) podman: PodmanFlags,
    /// The image, then the command and its arguments: whatever comes after the image is not for us
    #[arg(
        value_name = "IMAGE [COMMAND] [ARG...]",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    words: Vec<String>,
}

/// The flags with a word too many: what the shell was about to take for an image begins with a dash.
fn unknown_flag(word: &str) -> clap::Error {
    let strict = ContainerFlags::augment_args(clap::Command::new("run").bin_name("dhow run"))
        .override_usage("dhow run [OPTIONS] IMAGE [COMMAND] [ARG...]")
        .mut_arg("words", |words| words.allow_hyphen_values(false));
    match strict.try_get_matches_from(["run", word, "image"]) {
        Err(error) => error,
        // It is a flag after all, only not in this place.
        Ok(_) => clap::Error::new(clap::error::ErrorKind::UnknownArgument),
    }
}

impl ContainerFlags {
    /// What comes first after the flags.
    pub(crate) fn first_word(&self) -> Option<&str> {
        self.words.first().map(String::as_str)
    }

    /// What the flags mean for the waiting container of a pod, which has neither image nor command.
    pub(crate) fn pod_request(&self) -> Result<CreateContainer, CliError> {
        let mut request = self.request()?;
        request.image = String::new();
        request.extras.containerenv = false;
        Ok(request)
    }

    /// The image.
    pub(crate) fn image(&self) -> &str {
        // Clap has seen to it that there is one.
        self.words.first().map_or("", String::as_str)
    }

    /// Refuses an unknown flag, which the command's freedom to have dashes would take for an image.
    pub(crate) fn check(&self) -> Result<(), CliError> {
        match self.words.first() {
            Some(word) if word.starts_with('-') => Err(crate::usage_failure(&unknown_flag(word))),
            _ => Ok(()),
        }
    }

    /// What the flags mean.
    pub(crate) fn request(&self) -> Result<CreateContainer, CliError> {
        let bad = |message: String| CliError::plain(message).with_code(125);
        let mut mounts = Vec::new();
        for text in &self.volume {
            mounts.push(mount::volume(text).map_err(bad)?);
        }
        for text in &self.mount {
            mounts.push(mount::mount(text).map_err(bad)?);
        }
        for text in &self.tmpfs {
            mounts.push(mount::tmpfs(text).map_err(bad)?);
        }
        let mut ports = Vec::new();
        for text in &self.publish {
            ports.extend(port::parse(text).map_err(bad)?);
        }
        let secrets = self.secret.iter().map(|text| super::secret::parse(text));
        let secrets = secrets.collect::<Result<_, _>>();
        Ok(CreateContainer {
            image: self.image().to_owned(),
            platform: self.platform.platform()?,
            name: self.name.clone(),
            command: self.words.iter().skip(1).cloned().collect(),
            entrypoint: self.entrypoint.as_deref().map(entrypoint),
            env: env_pairs(&self.env, &self.env_file)?,
            labels: self.labels()?,
            user: self.user.clone(),
            group_add: groups(&self.group_add),
            workdir: self.workdir.clone(),
            hostname: self.hostname.clone(),
            domainname: self.domainname.clone(),
            tty: self.tty,
            console_size: self.tty.then(crate::terminal::size).flatten(),
            interactive: self.interactive,
            mounts,
            volumes_from: self.volumes_from.clone(),
            secrets: secrets?,
            ports,
            expose: self.expose.iter().map(|port| with_protocol(port)).collect(),
            publish_all: self.publish_all,
            networks: self.networks().map_err(bad)?,
            dns: self.dns.clone(),
            dns_search: self.dns_search.clone(),
            dns_options: self.dns_option.clone(),
            extra_hosts: self.add_host.clone(),
            limits: self.limits().map_err(bad)?,
            shm_size: self.shm_size.map(|size| size.0),
            ulimits: each(&self.ulimit, ulimit).map_err(bad)?,
            cap_add: self.cap_add.clone(),
            cap_drop: self.cap_drop.clone(),
            privileged: self.privileged,
            read_only: self.read_only,
            security: self
                .security_opt
                .iter()
                .map(|text| security(text))
                .collect::<Result<_, _>>()?,
            devices: self.devices.of_the_host().map_err(bad)?,
            device_rules: self.devices.rules().map_err(bad)?,
            sysctls: self.sysctl.iter().map(|text| key_value(text)).collect(),
            oom_score_adj: self.oom_score_adj,
            namespaces: self.namespaces().map_err(bad)?,
            users: self.users.choice().map_err(bad)?,
            annotations: self.annotation.iter().map(|text| key_value(text)).collect(),
            cgroup_parent: self.cgroup_parent.clone(),
            restart: self.restart_with_rm().map_err(bad)?,
            stop_signal: self.stop_signal.clone(),
            stop_timeout: self.stop_timeout,
            health: self.health().map_err(bad)?,
            no_healthcheck: self.has_no_healthcheck().map_err(bad)?,
            on_unhealthy: self.health_on_failure,
            auto_remove: self.rm || self.podman.rmi,
            log: self.log(),
            init: self.init.then(podman::init),
            extras: self.extras().map_err(bad)?,
            ..CreateContainer::default()
        })
    }

    /// What podman does without being asked, and what is asked for by flags that both have.
    /// `--no-healthcheck` beside a flag of a check contradicts itself (docker/cli `opts.go`).
    /// The labels, with the systemd unit that the program was started by: `auto-update` restarts it.
    fn labels(&self) -> Result<BTreeMap<String, String>, CliError> {
        let mut all = labels(&self.label, &self.label_file)?;
        let name = crate::cmd::auto_update::UNIT;
        if let Some(unit) = std::env::var(name).ok().filter(|unit| !unit.is_empty()) {
            all.entry(name.to_owned()).or_insert(unit);
        }
        Ok(all)
    }

    fn has_no_healthcheck(&self) -> Result<bool, String> {
        let checked = self
            .health_cmd
            .as_deref()
            .is_some_and(|command| !command.is_empty())
            || self.health_retries.is_some()
            || self.health_interval.is_some()
            || self.health_timeout.is_some();
        if self.no_healthcheck && checked {
            return Err("conflicting options: --no-healthcheck conflicts with --health-* options".to_owned());
        }
        Ok(self.no_healthcheck || self.health_cmd.as_deref() == Some("none"))
    }

    fn extras(&self) -> Result<Extras, String> {
        let podman = dialect::spoken().is_podman();
        Ok(Extras {
            cdi: self.devices.by_interface()?,
            cdi_folders: self.devices.folders()?,
            containerenv: podman,
            mtab: podman,
            command_line: command_line(std::env::args_os()),
            // Docker makes it.
            needs_workdir: podman && self.workdir.is_some(),
            shared: self.shared(),
            ipc: match self.ipc.as_deref() {
                Some("none") => IpcMode::None,
                Some("shareable") => IpcMode::Shareable,
                None if podman => IpcMode::Shareable,
                _ => IpcMode::Private,
            },
            ..Extras::default()
        })
    }

    /// The namespaces of other containers.
    fn shared(&self) -> Vec<Shared> {
        let flags = [
            (SharedKind::Pid, &self.pid),
            (SharedKind::Ipc, &self.ipc),
            (SharedKind::Uts, &self.uts),
            (SharedKind::Cgroup, &self.cgroupns),
        ];
        let of = |(kind, text): (SharedKind, &Option<String>)| {
            let container = text.as_deref()?.strip_prefix("container:")?.to_owned();
            Some(Shared { kind, container })
        };
        flags.into_iter().filter_map(of).collect()
    }

    /// The flags without a network are wishes for the first.
    fn networks(&self) -> Result<Vec<Attachment>, String> {
        let asked = self.network.iter().map(|text| network::attachment(text));
        let mut networks = asked.collect::<Result<Vec<_>, _>>()?;
        let wishes = self.ip.is_some()
            || self.ip6.is_some()
            || self.mac_address.is_some()
            || !self.network_alias.is_empty();
        if networks.is_empty() && wishes {
            networks.push(Attachment {
                network: "bridge".to_owned(),
                ..Attachment::default()
            });
        }
        if let Some(first) = networks.first_mut() {
            let both = |flag: &str| {
                Err(format!(
                    "conflicting options: cannot specify both --{flag} and the same of --network"
                ))
            };
            if let Some(ip) = self.ip
                && first.ip.replace(ip).is_some()
            {
                return both("ip");
            }
            if let Some(ip6) = self.ip6
                && first.ip6.replace(ip6).is_some()
            {
                return both("ip6");
            }
            if let Some(mac) = &self.mac_address
                && first.mac.replace(mac.clone()).is_some()
            {
                return both("mac-address");
            }
        }
        for network in &mut networks {
            network.aliases.extend(self.network_alias.iter().cloned());
        }
        Ok(networks)
    }

    fn limits(&self) -> Result<Limits, String> {
        Ok(Limits {
            memory_swappiness: self.memory_swappiness,
            oom_kill_disable: self.oom_kill_disable.then_some(true),
            ..self.limits.limits()?
        })
    }

    fn namespaces(&self) -> Result<Vec<NamespaceChoice>, String> {
        let mode = |flag: &str, text: &str| match text {
            "host" => Ok(NamespaceMode::Host),
            "private" | "" => Ok(NamespaceMode::Private),
            // Named by `extras`.
            "shareable" | "none" if flag == "ipc" => Ok(NamespaceMode::Private),
            other if other.starts_with("container:") => Ok(NamespaceMode::Private),
            other => Err(format!(
                "--{flag} {other} is not supported: use host, private or container:NAME"
            )),
        };
        let mut choices = Vec::new();
        if let Some(text) = &self.pid {
            choices.push(NamespaceChoice::Pid(mode("pid", text)?));
        }
        if let Some(text) = &self.ipc {
            choices.push(NamespaceChoice::Ipc(mode("ipc", text)?));
        }
        if let Some(text) = &self.uts {
            choices.push(NamespaceChoice::Uts(mode("uts", text)?));
        }
        if let Some(text) = &self.cgroupns {
            choices.push(NamespaceChoice::Cgroup(mode("cgroupns", text)?));
        }
        Ok(choices)
    }

    fn restart_with_rm(&self) -> Result<RestartPolicy, String> {
        if self.rm && self.restart != RestartPolicy::No {
            return Err("conflicting options: cannot specify both --restart and --rm".to_owned());
        }
        Ok(self.restart)
    }

    fn health(&self) -> Result<Option<dhow_engine::Healthcheck>, String> {
        let health = dhow_engine::Healthcheck {
            test: match &self.health_cmd {
                Some(command) if !command.is_empty() => health_test(command),
                // An empty one is as none at all.
                _ => Vec::new(),
            },
            interval: if self.health_interval.as_deref() == Some("disable") {
                dhow_engine::NEVER
            } else {
                nanoseconds(self.health_interval.as_deref())?
            },
            timeout: nanoseconds(self.health_timeout.as_deref())?,
            start_period: nanoseconds(self.health_start_period.as_deref())?,
            start_interval: nanoseconds(self.health_start_interval.as_deref())?,
            retries: self.health_retries.unwrap_or(0),
        };
        Ok((health != dhow_engine::Healthcheck::default()).then_some(health))
    }

    fn log(&self) -> Option<LogConfig> {
        if self.log_driver.is_none() && self.log_opt.is_empty() {
            return None;
        }
        Some(LogConfig {
            driver: match self.log_driver.as_deref() {
                None => "local".to_owned(),
                Some(driver) => driver.to_owned(),
            },
            options: self
                .log_opt
                .iter()
                .map(|text| key_value(text))
                .map(|(name, value)| {
                    if name == "max-size" {
                        (name, log_size(value))
                    } else {
                        (name, value)
                    }
                })
                .collect::<BTreeMap<_, _>>(),
        })
    }
}

/// A log's size in bytes: podman counts by thousands where docker counts by 1024.
fn log_size(text: String) -> String {
    if !dialect::spoken().is_podman() {
        return text;
    }
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        _ => return text,
    };
    digits
        .parse::<f64>()
        .map_or(text, |number| format!("{:.0}", number * unit))
}

/// Every text of a flag, read.
fn each<T>(texts: &[String], read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    texts.iter().map(|text| read(text)).collect()
}

/// The words of a call that are kept with what it made: all but a password.
fn command_line(words: impl Iterator<Item = std::ffi::OsString>) -> Vec<String> {
    let mut kept = Vec::new();
    let mut words = words.map(|word| word.to_string_lossy().into_owned());
    while let Some(word) = words.next() {
        if word == "--creds" {
            words.next();
        } else if !word.starts_with("--creds=") {
            kept.push(word);
        }
    }
    kept
}

/// A duration in nanoseconds; 0 when it is not given. A number alone is seconds, as podman has it.
pub(super) fn nanoseconds(text: Option<&str>) -> Result<u64, String> {
    let Some(text) = text else { return Ok(0) };
    let duration = match text.parse() {
        Ok(seconds) => std::time::Duration::from_secs(seconds),
        Err(_) => parse_duration(text).map_err(|error| error.to_string())?,
    };
    u64::try_from(duration.as_nanos()).map_err(|_| format!("{text} is too long"))
}

/// Groups; podman takes several in one flag, and no name of a group has a comma.
fn groups(flags: &[String]) -> Vec<String> {
    let all = flags.iter().flat_map(|flag| flag.split(','));
    all.map(str::to_owned).collect()
}

/// A program, or the words of a JSON list, as podman takes them.
fn entrypoint(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_else(|_| vec![text.to_owned()])
}

/// A shell's line, or the words of a JSON list, as podman takes them.
pub(super) fn health_test(command: &str) -> Vec<String> {
    match serde_json::from_str::<Vec<String>>(command) {
        Ok(words)
            if words
                .first()
                .is_some_and(|first| matches!(first.as_str(), "CMD" | "CMD-SHELL")) =>
        {
            words
        }
        Ok(words) => std::iter::once("CMD".to_owned()).chain(words).collect(),
        Err(_) => vec!["CMD-SHELL".to_owned(), command.to_owned()],
    }
}

fn on_unhealthy(text: &str) -> Result<OnUnhealthy, String> {
    match text {
        "none" => Ok(OnUnhealthy::None),
        "kill" => Ok(OnUnhealthy::Kill),
        "restart" => Ok(OnUnhealthy::Restart),
        "stop" => Ok(OnUnhealthy::Stop),
        _ => Err("it is none, kill, restart or stop".to_owned()),
    }
}

fn with_protocol(port: &str) -> String {
    if port.contains('/') {
        port.to_owned()
    } else {
        format!("{port}/tcp")
    }
}

pub(crate) fn ulimit(text: &str) -> Result<Ulimit, String> {
    let bad = || format!("invalid ulimit {text:?}: write name=soft[:hard]");
    let (name, values) = text.split_once('=').ok_or_else(bad)?;
    let number = |text: &str| {
        if text == "unlimited" {
            Ok(-1)
        } else {
            text.parse::<i64>().map_err(|_| bad())
        }
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let (soft, hard) = (number(soft)?, number(hard)?);
    if hard != -1 && (soft == -1 || soft > hard) {
        let shown = if soft == -1 {
            "-1 (unlimited)".to_owned()
        } else {
            soft.to_string()
        };
        return Err(format!(
            "ulimit option {text:?} requires name=SOFT:HARD, failed to be parsed: ulimit soft limit must be less than or \
             equal to hard limit: soft: {shown}, hard: {hard}"
        ));
    }
    Ok(Ulimit {
        name: name.to_owned(),
        soft,
        hard,
    })
}

/// Both `name=value` and docker's older `name:value`.
fn security(text: &str) -> Result<SecurityOption, CliError> {
    let (name, value) = text
        .split_once('=')
        .or_else(|| text.split_once(':'))
        .unwrap_or((text, ""));
    match (name, value) {
        ("no-new-privileges", "" | "true") => Ok(SecurityOption::NoNewPrivileges(true)),
        ("no-new-privileges", "false") => Ok(SecurityOption::NoNewPrivileges(false)),
        ("seccomp", "unconfined") => Ok(SecurityOption::Seccomp(SeccompChoice::Unconfined)),
        ("seccomp", "builtin") => Ok(SecurityOption::Seccomp(SeccompChoice::Default)),
        ("seccomp", file) if !file.is_empty() => seccomp_file(file).map(SecurityOption::Seccomp),
        ("apparmor", profile) if !profile.is_empty() => Ok(SecurityOption::AppArmor(profile.to_owned())),
        ("label", label) => Ok(SecurityOption::Label(label.to_owned())),
        ("systempaths", "unconfined") => Ok(SecurityOption::SystemPathsUnconfined),
        _ => {
            let message = format!("security option {text:?} is not supported");
            Err(CliError::plain(message).with_code(125).with_hint(
                "use no-new-privileges, seccomp=FILE, seccomp=unconfined, apparmor=PROFILE, label=... or \
                 systempaths=unconfined",
            ))
        }
    }
}

/// The profile in a file of the person.
fn seccomp_file(path: &str) -> Result<SeccompChoice, CliError> {
    use std::io::Read as _;
    let opening = |error: &dyn std::fmt::Display| {
        CliError::plain(format!("opening seccomp profile ({path}) failed: {error}")).with_code(125)
    };
    let mut text = String::new();
    std::fs::File::open(path)
        // One byte more than a profile may have, for the reader of profiles to say so.
        .and_then(|file| file.take((1 << 20) + 1).read_to_string(&mut text))
        .map_err(|error| opening(&error))?;
    let profile = SeccompProfile::parse(&text).map_err(|error| {
        let cause = std::error::Error::source(&error).map_or(String::new(), |cause| format!(": {cause}"));
        CliError::plain(format!("seccomp profile {path}: {error}{cause}")).with_code(125)
    })?;
    Ok(SeccompChoice::Conditional(Box::new(profile)))
}
