//! What lives on the background thread: connections, and what is known of registries.

use std::collections::HashMap;
use std::hash::RandomState;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use dhow_reference::Reference;
use hyper::Uri;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::connect::{Connector, is_insecure};
use crate::credentials::Credentials;
use crate::host::Host;
use crate::outgoing::Outgoing;
use crate::proxy::Route;
use crate::registries::{Endpoint, HostFiles, Registries, Wire};
use crate::{Error, Settings, place};

/// What lives on the background thread: the pool of connections and what is known of each registry.
pub(crate) struct Core {
    pub(crate) settings: Arc<Settings>,
    pub(crate) route: Arc<Route>,
    registries: Arc<Registries>,
    credentials: OnceLock<Arc<Credentials>>,
    http: Http,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
    /// Folders of hosts, as read.
    files: Mutex<HashMap<String, HostFiles>>,
    /// For URLs that are no registry's, by host and port.
    pools: Mutex<HashMap<String, Http>>,
    /// Ranges that may be in memory at once.
    pub(crate) spare: Arc<tokio::sync::Semaphore>,
    pub(crate) jitter: RandomState,
}

/// A pool of connections that are made alike.
pub(crate) type Http = Client<Connector, Outgoing>;

/// More hosts than this are forgotten: nothing here grows for ever.
const MAX_HOSTS: usize = 1024;

impl Core {
    /// Reads what the files say about registries.
    pub(crate) fn new(settings: Arc<Settings>, route: Arc<Route>) -> Result<Self, Error> {
        let registries = Arc::new(Registries::read(&settings.registries)?);
        let wire = Wire::default();
        let connector = Connector::new(
            Arc::clone(&settings),
            Arc::clone(&route),
            Arc::clone(&registries),
            wire,
        );
        Ok(Self {
            settings,
            route,
            registries,
            credentials: OnceLock::new(),
            http: pool(connector),
            hosts: Mutex::default(),
            files: Mutex::default(),
            pools: Mutex::default(),
            spare: Arc::new(tokio::sync::Semaphore::new(crate::ranges::MOST)),
            jitter: RandomState::new(),
        })
    }

    /// A pool of connections made in a way of their own.
    pub(crate) fn pool(&self, wire: &Wire) -> Http {
        pool(Connector::new(
            Arc::clone(&self.settings),
            Arc::clone(&self.route),
            Arc::clone(&self.registries),
            wire.clone(),
        ))
    }

    pub(crate) const fn http(&self) -> &Http {
        &self.http
    }

    pub(crate) fn is_insecure(&self, url: &Uri) -> bool {
        is_insecure(&self.settings, &self.registries, url)
    }

    pub(crate) fn credentials(&self) -> Result<Arc<Credentials>, Error> {
        if let Some(credentials) = self.credentials.get() {
            return Ok(Arc::clone(credentials));
        }
        let more = self.registries.helpers().map(str::to_owned).collect();
        let read = Credentials::read(&self.settings.auth, more, &self.settings.helpers)?;
        let read = Arc::new(read.given(self.settings.login.as_ref()));
        Ok(Arc::clone(self.credentials.get_or_init(|| read)))
    }

    /// What is known of a place; the same object for all requests to it.
    pub(crate) fn host(&self, endpoint: &Endpoint) -> Arc<Host> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let way = (
            &endpoint.wire,
            &endpoint.headers,
            endpoint.https,
            endpoint.insecure,
            &endpoint.root,
        );
        let key = format!("{} {way:?}", endpoint.host);
        bounded_table(&mut hosts);
        let host = hosts.entry(key).or_insert_with(|| Arc::new(Host::new(endpoint)));
        Arc::clone(host)
    }

    /// The places of a repository, best first.
    pub(crate) fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>, Error> {
        self.registries
            .endpoints(reference, &mut |host| self.host_files(host))
    }

    fn host_files(&self, host: &str) -> Result<HostFiles, Error> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = files.get(host) {
            return Ok(found.clone());
        }
        let read = HostFiles::read(&self.settings.registries.hosts, host)?;
        bounded_table(&mut files);
        files.insert(host.to_owned(), read.clone());
        Ok(read)
    }

    /// The connections to a URL that is no registry's: a token server, a store behind a redirect. Its own folder of
    /// certificates counts for it.
    pub(crate) fn http_for(&self, url: &Uri) -> Result<Http, Error> {
        let authority = place::host_and_port(url).to_ascii_lowercase();
        let known = self
            .pools
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&authority)
            .cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let files = self.host_files(&authority)?;
        let wire = Wire {
            any_certificate: false,
            ca: files.ca,
            client: files.client,
        };
        let http = if wire.is_default() {
            self.http.clone()
        } else {
            self.pool(&wire)
        };
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        bounded_table(&mut pools);
        pools.insert(authority, http.clone());
        Ok(http)
    }
}

fn pool(connector: Connector) -> Http {
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(60))
        .pool_max_idle_per_host(16)
        .http1_max_buf_size(512 << 10)
        .http2_initial_stream_window_size(4 << 20)
        .http2_initial_connection_window_size(16 << 20)
        .http2_max_header_list_size(64 << 10)
        .build(connector)
}

/// Empties a table that has become too large.
fn bounded_table<K, V>(table: &mut HashMap<K, V>) {
    if table.len() >= MAX_HOSTS {
        table.clear();
    }
}
