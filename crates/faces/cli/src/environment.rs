//! What the person's environment says.

use std::path::PathBuf;

use clap::ArgMatches;
use dhow_engine::{PolicyFiles, Proxies, RegistryFiles, Settings, TransportSettings};

use crate::CliError;
use crate::flags::registry::RegistryWords;

/// The environment, read once.
#[derive(Clone, Debug)]
pub struct Environment {
    root: PathBuf,
    run: PathBuf,
    home: Option<PathBuf>,
    /// Docker's folder that was named by `--config`.
    config: Option<PathBuf>,
    context: Option<String>,
    host: Option<String>,
    /// Where volumes are, if not below the root.
    volumes: Option<PathBuf>,
    /// What this call says of registries.
    registry: RegistryWords,
}

/// The folders that a variable names; none when it is empty or not set.
fn folders(variable: &str) -> Vec<PathBuf> {
    let named = std::env::var_os(variable).filter(|value| !value.is_empty());
    named.map_or_else(Vec::new, |value| std::env::split_paths(&value).collect())
}

impl Environment {
    /// Reads flags and variables.
    ///
    /// # Errors
    /// When no folder to keep things in can be found.
    pub(crate) fn read(matches: &ArgMatches) -> Result<Self, CliError> {
        let home = std::env::var_os("HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute());
        let privileged = rustix::process::geteuid().is_root();
        let flag = matches.get_one::<String>("root").map(PathBuf::from);
        let variable = std::env::var_os("DHOW_ROOT").map(PathBuf::from);
        // Only podman's users may name them.
        let only = |name: &str| matches.try_get_one::<String>(name).ok().flatten().cloned();
        let (runroot, volumes) = (only("runroot"), only("volumepath"));
        let (root, run) = match (flag.or(variable), privileged) {
            (Some(root), _) => {
                let root = std::path::absolute(&root)
                    .map_err(|error| CliError::plain(format!("--root {}: {error}", root.display())))?;
                let run = root.join("run");
                (root, run)
            }
            (None, true) => (PathBuf::from("/var/lib/dhow"), PathBuf::from("/run/dhow")),
            (None, false) => {
                let data = std::env::var_os("XDG_DATA_HOME")
                    .map(PathBuf::from)
                    .or_else(|| home.as_ref().map(|home| home.join(".local/share")))
                    .ok_or_else(|| {
                        CliError::plain("there is no HOME to keep things in: name a folder with --root")
                    })?;
                let root = data.join("dhow");
                let run =
                    std::env::var_os("XDG_RUNTIME_DIR").map(|folder| PathBuf::from(folder).join("dhow"));
                let run = run.unwrap_or_else(|| root.join("run"));
                (root, run)
            }
        };
        let run = match runroot {
            Some(text) => std::path::absolute(&text)
                .map_err(|error| CliError::plain(format!("--runroot {text}: {error}")))?,
            None => run,
        };
        let said = |name: &str| {
            matches
                .get_one::<String>(name)
                .filter(|said| !said.is_empty())
                .cloned()
        };
        Ok(Self {
            root,
            run,
            home,
            config: said("config").map(PathBuf::from),
            context: said("context"),
            host: said("host"),
            volumes: volumes
                .map(|folder| {
                    std::path::absolute(&folder)
                        .map_err(|error| CliError::plain(format!("--volumepath {folder}: {error}")))
                })
                .transpose()?,
            registry: RegistryWords::read(matches)?,
        })
    }

    /// Where things are kept.
    pub(crate) fn root(&self) -> &std::path::Path {
        &self.root
    }

    /// Where what ends with a boot is kept.
    pub(crate) fn run(&self) -> &std::path::Path {
        &self.run
    }

    /// Where volumes are, if not below the root.
    pub(crate) fn volumes(&self) -> Option<&std::path::Path> {
        self.volumes.as_deref()
    }

    /// What the engine needs to know.
    pub(crate) fn settings(&self) -> Settings {
        let mut transport = TransportSettings {
            auth: self.credential_files(),
            helpers: std::env::var_os("PATH")
                .map_or_else(Vec::new, |path| std::env::split_paths(&path).collect()),
            registries: self.registry_files(),
            ..TransportSettings::default()
        };
        let either = |name: &str| {
            std::env::var(name)
                .or_else(|_| std::env::var(name.to_ascii_uppercase()))
                .ok()
                .filter(|v| !v.is_empty())
        };
        transport.proxies = Proxies {
            http: either("http_proxy"),
            https: either("https_proxy"),
            no_proxy: either("no_proxy").unwrap_or_default(),
        };
        transport.insecure = std::env::var("DHOW_INSECURE_REGISTRIES")
            .unwrap_or_default()
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        if self.registry.unverified {
            transport.insecure.push("*".to_owned());
        }
        transport
            .ca_files
            .extend(self.registry.authorities.iter().cloned());
        if let Some(attempts) = self.registry.attempts {
            transport.attempts = attempts;
        }
        if let Some(pause) = self.registry.pause {
            (transport.timeouts.backoff, transport.timeouts.longest_pause) = (pause, pause);
        }
        transport.login.clone_from(&self.registry.login);
        Settings {
            root: self.root.clone(),
            run: self.run.clone(),
            volumes: self.volumes.clone(),
            transport,
            apt: PathBuf::from("/etc/apt"),
            policies: self.policy_files(),
            cni: dhow_engine::CniFolders {
                lists: folders("NETCONFPATH"),
                programs: folders("CNI_PATH"),
            },
        }
    }

    /// The file that `login` writes.
    pub(crate) fn docker_config(&self) -> Result<PathBuf, CliError> {
        let hint =
            || CliError::plain("there is no HOME to keep credentials in: name a folder with DOCKER_CONFIG");
        self.docker_configs().into_iter().next().ok_or_else(hint)
    }

    /// Where docker, then podman, keep credentials, in the order in which they count.
    fn credential_files(&self) -> Vec<PathBuf> {
        if let Some(file) = &self.registry.authfile {
            return vec![file.clone()];
        }
        let mut files = self.docker_configs();
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let places = [runtime, self.config_folder()].into_iter().flatten();
        files.extend(places.map(|folder| folder.join("containers/auth.json")));
        files
    }

    /// Where the files about registries are. The person's own count before the system's; one that is named by a
    /// variable counts alone, with its own drop-in folder beside it.
    fn registry_files(&self) -> RegistryFiles {
        let own = self.config_folder();
        let named = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let places = |below: &str| {
            let own = own.as_ref().map(|folder| folder.join(below));
            own.into_iter()
                .chain([PathBuf::from("/etc").join(below)])
                .collect::<Vec<_>>()
        };
        let (conf, drop_ins) = match named("CONTAINERS_REGISTRIES_CONF") {
            Some(file) => {
                let mut folder = file.clone().into_os_string();
                folder.push(".d");
                (vec![file], vec![PathBuf::from(folder)])
            }
            None => {
                let mut folders = places("containers/registries.conf.d");
                folders.reverse();
                (places("containers/registries.conf"), folders)
            }
        };
        let hosts = match named("DHOW_CERTS_D") {
            Some(folder) => vec![folder],
            None => [
                "dhow/certs.d",
                "containerd/certs.d",
                "docker/certs.d",
                "containers/certs.d",
            ]
            .into_iter()
            .flat_map(places)
            .collect(),
        };
        RegistryFiles {
            conf,
            drop_ins,
            hosts,
            daemon: self.daemon_files(),
        }
    }

    /// Where docker's `daemon.json` may be: the first that is there counts.
    pub(crate) fn daemon_files(&self) -> Vec<PathBuf> {
        if let Some(file) = std::env::var_os("DHOW_DOCKER_DAEMON_JSON").filter(|file| !file.is_empty()) {
            return vec![file.into()];
        }
        let folders = self.config_folder().into_iter().chain(["/etc".into()]);
        folders.map(|folder| folder.join("docker/daemon.json")).collect()
    }

    /// Where policies are: the person's own before the system's, and the first that is there counts alone. A variable names
    /// another file, or none when it is empty.
    fn policy_files(&self) -> PolicyFiles {
        let own = self.config_folder();
        let places = |variable: &str, below: &str| match std::env::var_os(variable) {
            Some(named) => Some(PathBuf::from(named))
                .filter(|path| !path.as_os_str().is_empty())
                .into_iter()
                .collect(),
            None => {
                let own = own.as_ref().map(|folder| folder.join(below));
                own.into_iter()
                    .chain([PathBuf::from("/etc").join(below)])
                    .collect()
            }
        };
        let named = |variable: &str| std::env::var_os(variable).is_some();
        PolicyFiles {
            containers: places("DHOW_CONTAINERS_POLICY", "containers/policy.json"),
            own: places("DHOW_POLICY", "dhow/policy.toml"),
            must_be_there: [named("DHOW_CONTAINERS_POLICY"), named("DHOW_POLICY")],
        }
    }

    fn config_folder(&self) -> Option<PathBuf> {
        let folder = std::env::var_os("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute());
        folder.or_else(|| self.home.as_ref().map(|home| home.join(".config")))
    }

    /// Docker's contexts.
    pub(crate) fn contexts(&self) -> crate::contexts::Contexts {
        crate::contexts::Contexts::new(self.docker_folder(), self.context.clone(), self.host.clone())
    }

    /// The variables of proxies that docker's `config.json` sets in containers and builds; none for podman's users, who have
    /// `--http-proxy`. A file that cannot be read is told, as docker tells it.
    pub(crate) fn proxies(&self) -> Vec<(String, String)> {
        let Some(folder) = self
            .docker_folder()
            .filter(|_| !crate::dialect::spoken().is_podman())
        else {
            return Vec::new();
        };
        match crate::docker_config::read(&folder.join("config.json")) {
            Ok(config) => crate::docker_config::proxies(&config, &self.contexts().engine()),
            Err(error) => {
                crate::render::note(&format!(
                    "WARNING: Error loading config file: {}",
                    error.message()
                ));
                Vec::new()
            }
        }
    }

    /// Where docker's client keeps its files.
    fn docker_folder(&self) -> Option<PathBuf> {
        crate::docker_config::folder(self.config.as_deref())
    }

    /// Where docker keeps credentials.
    fn docker_configs(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        files.extend(self.registry.authfile.clone());
        if let Some(file) = std::env::var_os("REGISTRY_AUTH_FILE") {
            files.push(PathBuf::from(file));
        }
        files.extend(self.docker_folder().map(|folder| folder.join("config.json")));
        files
    }
}
