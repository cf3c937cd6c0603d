use std::path::PathBuf;
use std::time::Duration;

use crate::RegistryFiles;

/// How a [`Client`](crate::Client) behaves. The caller reads the environment and the configuration; this crate does not.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `User-Agent` of every request.
    pub user_agent: String,
    /// Docker's `config.json` and the containers tools' `auth.json`; the first that has an entry for a repository
    /// decides. Missing files are skipped.
    pub auth: Vec<PathBuf>,
    /// Who asks every registry, whatever the files say.
    pub login: Option<GivenLogin>,
    /// Folders with credential helpers, in the order in which they are searched; relative ones are skipped.
    pub helpers: Vec<PathBuf>,
    /// Files about registries: mirrors, rewriting, blocks, trust.
    pub registries: RegistryFiles,
    /// Registries, as `host` or `host:port`, that may use plain HTTP or a certificate that does not verify; `*` for all.
    pub insecure: Vec<String>,
    /// PEM files with certificate authorities to trust besides the system's.
    pub ca_files: Vec<PathBuf>,
    /// HTTP proxies.
    pub proxies: Proxies,
    /// How long to wait for what.
    pub timeouts: Timeouts,
    /// How often a request is tried in all, at least once.
    pub attempts: u32,
    /// When a large blob is fetched over several connections.
    pub ranges: Ranges,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            user_agent: concat!("dhow/", env!("CARGO_PKG_VERSION")).to_owned(),
            auth: Vec::new(),
            login: None,
            helpers: Vec::new(),
            registries: RegistryFiles::default(),
            insecure: Vec::new(),
            ca_files: Vec::new(),
            proxies: Proxies::default(),
            timeouts: Timeouts::default(),
            attempts: 5,
            ranges: Ranges::default(),
        }
    }
}

/// A name and its password, given with a call.
#[derive(Clone, PartialEq, Eq)]
pub struct GivenLogin {
    /// The name.
    pub user: String,
    /// Its password.
    pub password: String,
}

/// Secrets stay out of logs.
impl std::fmt::Debug for GivenLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GivenLogin")
    }
}

/// HTTP proxies, in the form that `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` have.
#[derive(Clone, Default)]
pub struct Proxies {
    /// For `http` URLs: `http://[user:password@]host:port`.
    pub http: Option<String>,
    /// For `https` URLs, through `CONNECT`.
    pub https: Option<String>,
    /// Hosts to reach directly: comma-separated names (with their subdomains), addresses, CIDR blocks, `host:port`,
    /// or `*`. Loopback is always direct.
    pub no_proxy: String,
}

/// Proxy URLs may hold a password.
impl std::fmt::Debug for Proxies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxies")
            .field("http", &self.http.is_some())
            .field("https", &self.https.is_some())
            .field("no_proxy", &self.no_proxy)
            .finish()
    }
}

/// When a large blob is fetched in ranges over several connections: where one connection is what holds it up, as with
/// registries that limit each, or far away. It is given up where it does not gain.
#[derive(Clone, Copy, Debug)]
pub struct Ranges {
    /// Connections for one blob; 1 means never.
    pub connections: usize,
    /// Bytes of a range. All blobs together hold at most twelve of them in memory.
    pub piece: u64,
    /// Bytes that must be left for it to be worth while.
    pub least: u64,
    /// How long one connection is watched first.
    pub after: Duration,
    /// A connection that gives so many bytes in a second is not what holds a blob up.
    pub enough: u64,
}

impl Default for Ranges {
    fn default() -> Self {
        Self {
            connections: 4,
            piece: 2 << 20,
            least: 16 << 20,
            after: Duration::from_millis(700),
            enough: 100 << 20,
        }
    }
}

/// How long to wait for what.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For a connection, all addresses and the TLS handshake together.
    pub connect: Duration,
    /// For the head of an answer after the request is sent.
    pub answer: Duration,
    /// For the next bytes of a body.
    pub stall: Duration,
    /// First pause before trying again; it doubles each time.
    pub backoff: Duration,
    /// Longest pause, also for `Retry-After`: a registry that asks for more gets an error to the person instead.
    pub longest_pause: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            answer: Duration::from_secs(60),
            stall: Duration::from_secs(60),
            backoff: Duration::from_millis(250),
            longest_pause: Duration::from_secs(60),
        }
    }
}
