use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use dhow_dockerfile::Network;
use dhow_reference::Reference;
use dhow_types::Platform;

use crate::failure::{Context as _, Error, invalid, unsupported};
use crate::remote::Material;
use crate::step::StepMount;

/// What to build.
#[derive(Clone, Debug)]
pub struct Request {
    /// Directory that `COPY` and `ADD` read; `None` for no context at all.
    pub context: Option<PathBuf>,
    /// When the context was made, in seconds since 1970, when that is known: what `SOURCE_DATE_EPOCH=context` means.
    pub context_time: Option<i64>,
    /// What the context is when it comes from elsewhere.
    pub context_source: Option<Material>,
    /// Where the ignore patterns come from.
    pub ignore: Ignore,
    /// What names in the Dockerfile stand for instead (`--build-context`): a base, a stage, a `--from`. The names
    /// are as [`NamedContext::key`] gives them.
    pub contexts: BTreeMap<String, NamedContext>,
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
    /// Whether the store is to have the image. If not, only its layers are there as long as the cache wants them.
    pub record: bool,
    /// Variables that the image has unless its instructions say otherwise, as if `ENV` came after each `FROM`, but in no history.
    pub env: Vec<(String, String)>,
    /// What the image's manifest says of it.
    pub annotations: BTreeMap<String, String>,
    /// Take nothing from the cache.
    pub no_cache: bool,
    /// Put nothing into the cache either: the build is for comparison only.
    pub aside: bool,
    /// Bytes that the cache may have once the build is done; what is cheapest to make again goes. The engine chooses when
    /// `None`.
    pub cache_budget: Option<u64>,
    /// Tell what each step gave ([`Built::results`](crate::Built::results)), to be given to other builds.
    pub tell_results: bool,
    /// Write into the image what its steps were, so that other builds take its layers for theirs.
    pub inline_cache: bool,
    /// Ask the registries for base images even when they are here.
    pub pull: bool,
    /// Ask no registry at all: what is not here fails.
    pub never_pull: bool,
    /// Network of `RUN` steps that do not choose one.
    pub network: Network,
    /// Platform of the image; the host's when `None`.
    pub platform: Option<Platform>,
    /// Seconds since 1970 that no time in the image exceeds. The build argument `SOURCE_DATE_EPOCH` does the same.
    pub source_date_epoch: Option<i64>,
    /// Secrets for `RUN --mount=type=secret`, by id.
    pub secrets: BTreeMap<String, Secret>,
    /// Sockets of ssh agents for `RUN --mount=type=ssh` and for git over ssh, by id (`--ssh`); docker's id is `default`.
    pub ssh: BTreeMap<String, PathBuf>,
    /// Directory in memory where secrets lie as files while a step needs them (`/run/dhow`).
    pub run_dir: PathBuf,
    /// Lines for `/etc/hosts` of `RUN` steps: name and address.
    pub extra_hosts: Vec<(String, String)>,
    /// Bytes of `/dev/shm` in `RUN` steps; 64 MiB when `None`.
    pub shm_size: Option<u64>,
    /// Resource limits of `RUN` steps.
    pub ulimits: Vec<Limit>,
    /// Control group below which those of `RUN` steps are made, instead of the executor's own choice.
    pub cgroup_parent: Option<String>,
    /// How the sandbox of `RUN` steps differs from the usual one.
    pub sandbox: Sandbox,
    /// What `RUN` steps may ask for beyond the sandbox.
    pub allow: Entitlements,
    /// Stages, by name or number, that take nothing from the cache.
    pub uncached_stages: BTreeSet<String>,
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
    /// The same, but that `.containerignore` counts before `.dockerignore`, as with buildah.
    Containers,
    /// This text, in the format of `.dockerignore`.
    Text(String),
}

/// What a name of `--build-context` stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedContext {
    /// A directory, with the `.dockerignore` in it.
    Local(PathBuf),
    /// An image, by a name of the store or of a registry (`docker-image://`).
    Image(String),
    /// An image of an OCI layout (`oci-layout://PATH:TAG`, `oci-layout://PATH@sha256:...`).
    Layout {
        /// The directory with `oci-layout`.
        path: PathBuf,
        /// Tag or digest; without one the layout must have one image only.
        name: Option<String>,
    },
    /// A git repository, in the forms that `ADD` takes.
    Git(String),
    /// An archive at a URL, whose files are meant, or one file (`http://`, `https://`).
    Http(String),
}

impl NamedContext {
    /// A name as the builder looks it up: image names in their short form, `alpine:latest` as `alpine`, stage names
    /// in lower case.
    #[must_use]
    pub fn key(name: &str) -> String {
        let Ok(reference) = Reference::parse(name) else {
            return name.to_lowercase();
        };
        let familiar = reference.familiar();
        familiar.strip_suffix(":latest").unwrap_or(&familiar).to_owned()
    }

    /// The key of a context that is meant for one platform (`--build-context NAME::PLATFORM=...`).
    #[must_use]
    pub fn key_for(key: &str, platform: &Platform) -> String {
        format!("{key}::{platform}")
    }

    /// For messages: the name of an image, a path, a repository without user and password.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Local(path) => path.display().to_string(),
            Self::Image(name) => name.clone(),
            Self::Http(url) => url.split(['?', '#']).next().unwrap_or(url).to_owned(),
            Self::Layout { path, .. } => format!("oci-layout://{}", path.display()),
            Self::Git(text) => {
                crate::remote::GitSource::parse(text).map_or_else(|_| text.clone(), |source| source.shown())
            }
        }
    }

    /// Reads the value of `--build-context NAME=VALUE`: `docker-image://`, `oci-layout://`, a git URL, or else a
    /// path.
    ///
    /// # Errors
    /// `InvalidArgument` for an empty value, and `Unsupported` for a URL of another kind.
    pub fn parse(value: &str) -> Result<Self, Error> {
        if let Some(image) = value.strip_prefix("docker-image://") {
            Reference::parse(image).context(|| format!("invalid build context {value:?}"))?;
            return Ok(Self::Image(image.to_owned()));
        }
        if let Some(layout) = value.strip_prefix("oci-layout://") {
            let (path, name) = split_layout(layout);
            if path.is_empty() {
                return Err(invalid(format!(
                    "invalid build context {value:?}: it has no path"
                )));
            }
            return Ok(Self::Layout {
                path: PathBuf::from(path),
                name: name.map(str::to_owned),
            });
        }
        if crate::remote::is_git(value) {
            return Ok(Self::Git(value.to_owned()));
        }
        if crate::remote::is_http(value) {
            return Ok(Self::Http(value.to_owned()));
        }
        if value.contains("://") {
            let error = unsupported(format!("the build context {value:?} is not supported"));
            return Err(error.with_hint(
                "give a folder, docker-image://, oci-layout://, a git repository or the URL of a tar",
            ));
        }
        if value.is_empty() {
            return Err(invalid("a build context needs a path or a URL"));
        }
        Ok(Self::Local(PathBuf::from(value)))
    }
}

/// `path`, `path:tag`, `path@digest`: a colon belongs to the path when a `/` follows it.
fn split_layout(text: &str) -> (&str, Option<&str>) {
    if let Some((path, digest)) = text.rsplit_once('@') {
        return (path, Some(digest));
    }
    match text.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (text, None),
    }
}

/// A resource limit (setrlimit(2)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// `nofile`, `nproc` and so on.
    pub name: String,
    /// In force; -1 means no limit.
    pub soft: i64,
    /// Ceiling; -1 means no limit.
    pub hard: i64,
}

/// How the sandbox of `RUN` steps differs from the usual one. What it may do is part of a step's cache key, which name servers
/// it asks is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// Name servers instead of the host's.
    pub dns: Vec<IpAddr>,
    /// Search domains instead of the host's.
    pub dns_search: Vec<String>,
    /// Options of the resolver instead of the host's.
    pub dns_options: Vec<String>,
    /// System call filter.
    pub filter: Filter,
    /// Capabilities to add: `ALL`, names with or without `CAP_`.
    pub cap_add: Vec<String>,
    /// Capabilities to drop, in the same form.
    pub cap_drop: Vec<String>,
    /// Groups of the image, by name or number, that the steps' commands are in besides those of their user.
    pub groups: Vec<String>,
    /// Where files about devices are looked for (Container Device Interface); the usual folders when empty.
    pub device_folders: Vec<PathBuf>,
    /// Folders and files of the host that every step has; what is in them is no part of a step's key.
    pub mounts: Vec<StepMount>,
}

/// Which system calls `RUN` steps may make.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Filter {
    /// Those of the usual profile.
    #[default]
    Usual,
    /// All.
    Nothing,
    /// Those of this profile, the text of a file as docker has it.
    Profile(String),
}

impl Sandbox {
    /// What of it is part of a step's key; nothing for the usual one, so that older keys stay.
    pub(crate) fn rights(&self) -> Vec<String> {
        let filter = match &self.filter {
            Filter::Usual => None,
            Filter::Nothing => Some("seccomp=unconfined".to_owned()),
            Filter::Profile(text) => Some(format!("seccomp={text}")),
        };
        let add = self.cap_add.iter().map(|name| format!("+{name}"));
        let drop = self.cap_drop.iter().map(|name| format!("-{name}"));
        let groups = self.groups.iter().map(|name| format!("group={name}"));
        filter.into_iter().chain(add).chain(drop).chain(groups).collect()
    }
}

/// What a build may give to `RUN` steps that ask for it (BuildKit's entitlements).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entitlements {
    /// `RUN --network=host`. A build whose own network is the host's has it.
    pub network_host: bool,
    /// `RUN --security=insecure`.
    pub security_insecure: bool,
    /// `RUN --device` of any device.
    pub every_device: bool,
    /// `RUN --device` of these.
    pub devices: Vec<String>,
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
            context_time: None,
            context_source: None,
            ignore: Ignore::InContext,
            contexts: BTreeMap::new(),
            dockerfile_name: "Dockerfile".to_owned(),
            dockerfile: dockerfile.into(),
            target: None,
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            env: Vec::new(),
            tags: Vec::new(),
            record: true,
            annotations: BTreeMap::new(),
            no_cache: false,
            aside: false,
            cache_budget: None,
            tell_results: false,
            inline_cache: false,
            pull: false,
            never_pull: false,
            network: Network::Default,
            platform: None,
            source_date_epoch: None,
            secrets: BTreeMap::new(),
            ssh: BTreeMap::new(),
            run_dir: PathBuf::from("/run/dhow"),
            extra_hosts: Vec::new(),
            shm_size: None,
            ulimits: Vec::new(),
            cgroup_parent: None,
            sandbox: Sandbox::default(),
            allow: Entitlements::default(),
            uncached_stages: BTreeSet::new(),
            parallel: None,
            cancel: Arc::new(AtomicBool::new(false)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_contexts_are_told_apart_by_their_scheme() {
        let layout = |path: &str, name: Option<&str>| NamedContext::Layout {
            path: PathBuf::from(path),
            name: name.map(str::to_owned),
        };
        for (text, wanted) in [
            ("../lib", NamedContext::Local("../lib".into())),
            (
                "docker-image://alpine:3",
                NamedContext::Image("alpine:3".to_owned()),
            ),
            ("oci-layout://a/b:c", layout("a/b", Some("c"))),
            ("oci-layout:///a:b/c", layout("/a:b/c", None)),
            ("oci-layout://a@sha256:00", layout("a", Some("sha256:00"))),
            (
                "https://example.test/x.git#v1:lib",
                NamedContext::Git("https://example.test/x.git#v1:lib".to_owned()),
            ),
            (
                "http://example.test/a.tar",
                NamedContext::Http("http://example.test/a.tar".to_owned()),
            ),
        ] {
            assert_eq!(NamedContext::parse(text).unwrap(), wanted, "{text}");
        }
        for bad in ["", "docker-image://", "oci-layout://", "target://x", "ftp://a/b"] {
            assert!(NamedContext::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_is_the_same_in_all_its_spellings() {
        for name in ["alpine", "alpine:latest", "docker.io/library/alpine"] {
            assert_eq!(NamedContext::key(name), "alpine", "{name}");
        }
        assert_eq!(NamedContext::key("Builder"), "builder");
        assert_eq!(NamedContext::key("example.test/a:1"), "example.test/a:1");
    }
}
