use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use dhow_dockerfile::Network;
use dhow_reference::Reference;
use dhow_types::Platform;

/// What to build.
#[derive(Clone, Debug)]
pub struct Request {
    /// Directory that `COPY` and `ADD` read; `None` for no context at all.
    pub context: Option<PathBuf>,
    /// Where the ignore patterns come from.
    pub ignore: Ignore,
    /// Name of the Dockerfile for messages, and its path in the context when it is in there.
    pub dockerfile_name: String,
    /// Its text.
    pub dockerfile: String,
    /// Stage to build, by name or number; the last one when `None`.
    pub target: Option<String>,
    /// `--build-arg`.
    pub build_args: BTreeMap<String, String>,
    /// Labels that the image gets besides those of the Dockerfile.
    pub labels: BTreeMap<String, String>,
    /// Names that the image gets.
    pub tags: Vec<Reference>,
    /// Take nothing from the cache.
    pub no_cache: bool,
    /// Ask the registries for base images even when they are here.
    pub pull: bool,
    /// Network of `RUN` steps that do not choose one.
    pub network: Network,
    /// Platform of the image; the host's when `None`.
    pub platform: Option<Platform>,
    /// Seconds since 1970 that no time in the image exceeds. The build argument `SOURCE_DATE_EPOCH` does the same.
    pub source_date_epoch: Option<i64>,
    /// Secrets for `RUN --mount=type=secret`, by id.
    pub secrets: BTreeMap<String, Secret>,
    /// Directory in memory where secrets lie as files while a step needs them (`/run/dhow`).
    pub run_dir: PathBuf,
    /// Lines for `/etc/hosts` of `RUN` steps: name and address.
    pub extra_hosts: Vec<(String, String)>,
    /// Bytes of `/dev/shm` in `RUN` steps; 64 MiB when `None`.
    pub shm_size: Option<u64>,
    /// Most steps at once; the number of cores when `None`.
    pub parallel: Option<usize>,
    /// Set to stop the build at the next step; the executor sees it too.
    pub cancel: Arc<AtomicBool>,
}

/// Where the patterns of files that are no part of the context come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ignore {
    /// `<Dockerfile>.dockerignore` in the context, else `.dockerignore` there.
    #[default]
    InContext,
    /// This text, in the format of `.dockerignore`.
    Text(String),
}

/// A secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Request {
    /// A build of `dockerfile` with everything else left out.
    #[must_use]
    pub fn new(dockerfile: impl Into<String>) -> Self {
        Self {
            context: None,
            ignore: Ignore::InContext,
            dockerfile_name: "Dockerfile".to_owned(),
            dockerfile: dockerfile.into(),
            target: None,
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            tags: Vec::new(),
            no_cache: false,
            pull: false,
            network: Network::Default,
            platform: None,
            source_date_epoch: None,
            secrets: BTreeMap::new(),
            run_dir: PathBuf::from("/run/dhow"),
            extra_hosts: Vec::new(),
            shm_size: None,
            parallel: None,
            cancel: Arc::new(AtomicBool::new(false)),
        }
    }
}
