//! Sockets, connections and limits; from a request to the module that answers it.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::fault::Fault;
use crate::registry::{Registry, State};
use crate::reply::{self, Reply};
use crate::route::Route;
use crate::{Context as _, Error, blobs, discovery, manifests, uploads};

/// Threads that serve connections.
const THREADS: usize = 2;
/// Buffer of a connection, for reading and for writing.
const BUFFER: usize = 256 << 10;
/// Headers of a request: number, and bytes in all.
const MAX_HEADERS: usize = 100;
const MAX_HEADER_BYTES: usize = 32 << 10;
/// How long requests that are under way may take after the shutdown began.
const LAST_CALL: Duration = Duration::from_secs(10);
/// How often forgotten uploads are looked for.
const SWEEP: Duration = Duration::from_secs(3600);
/// How long sent bytes may go unacknowledged before the connection counts as dead.
const DEAD: Duration = Duration::from_secs(60);

/// A registry that listens; see [`serve`].
pub struct Server {
    registry: Registry,
    listener: TcpListener,
    address: SocketAddr,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Listens on `listen`; nobody is served before [`run`](Self::run).
    ///
    /// # Errors
    /// When the address cannot be bound: `AlreadyExists`, `PermissionDenied`.
    pub fn bind(registry: Registry, listen: SocketAddr) -> Result<Self, Error> {
        let doing = || format!("listen on {listen}");
        let listener = TcpListener::bind(listen).context(doing)?;
        listener.set_nonblocking(true).context(doing)?;
        let address = listener.local_addr().context(doing)?;
        Ok(Self {
            registry,
            listener,
            address,
        })
    }

    /// The address that is bound, with the port that the system chose if it was 0.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` completes, then lets requests finish for some seconds; blocks.
    ///
    /// # Errors
    /// When the runtime or the listener fails.
    pub fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("registry")
            .enable_all()
            .build()
            .context(|| "start the registry's runtime")?;
        let outcome = runtime.block_on(accept(&self.registry.0, self.listener, shutdown));
        runtime.shutdown_timeout(LAST_CALL);
        outcome
    }
}

/// Serves `registry` on `listen` until `shutdown` completes; blocks.
///
/// # Errors
/// When the address cannot be bound.
pub fn serve(
    registry: Registry,
    listen: SocketAddr,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    Server::bind(registry, listen)?.run(shutdown)
}

async fn accept(
    state: &Arc<State>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let listener = tokio::net::TcpListener::from_std(listener).context(|| "listen")?;
    let connections = Arc::new(Semaphore::new(
        state.options.max_connections.min(Semaphore::MAX_PERMITS),
    ));
    let graceful = GracefulShutdown::new();
    let builder = http();
    let mut shutdown = std::pin::pin!(shutdown);
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        let permit = tokio::select! {
            () = &mut shutdown => break,
            _ = sweep.tick() => {
                let state = Arc::clone(state);
                tokio::task::spawn_blocking(move || {
                    if let Err(error) = state.files.sweep() {
                        state.report("clean up", &error);
                    }
                });
                continue;
            }
            permit = Arc::clone(&connections).acquire_owned() => permit,
        };
        let stream = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => {
                    // Out of descriptors, or a client that left at once: neither is a reason to stop serving.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            },
        };
        prepare(&stream);
        let (state, serving) = (Arc::clone(state), builder.clone());
        let connection = serving.serve_connection(
            TokioIo::new(stream),
            service_fn(move |request| {
                let state = Arc::clone(&state);
                async move { Ok::<_, Infallible>(answer(&state, request).await) }
            }),
        );
        let connection = graceful.watch(connection.into_owned());
        tokio::spawn(async move {
            let _permit = permit;
            // A client that breaks the protocol or goes away is its own affair.
            connection.await.unwrap_or_default();
        });
    }
    tokio::time::timeout(LAST_CALL, graceful.shutdown())
        .await
        .unwrap_or_default();
    Ok(())
}

fn http() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(60))
        .max_buf_size(BUFFER)
        .max_headers(MAX_HEADERS)
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .max_concurrent_streams(256)
        .max_header_list_size(32 << 10);
    builder
}

/// A socket that refuses an option only serves less well.
fn prepare(stream: &TcpStream) {
    stream.set_nodelay(true).unwrap_or_default();
    let dead = u32::try_from(DEAD.as_millis()).unwrap_or(u32::MAX);
    rustix::net::sockopt::set_tcp_user_timeout(stream, dead).unwrap_or_default();
}

/// Answers one request, whatever it is.
async fn answer(state: &Arc<State>, request: Request<Incoming>) -> Reply {
    let head = request.method() == Method::HEAD;
    match dispatch(state, request).await {
        Ok(reply) => reply,
        Err(mut fault) => {
            if let Some(cause) = fault.cause.take() {
                state.report("serve a request", &cause);
            }
            let mut reply = Reply::from(fault);
            if head {
                *reply.body_mut() = reply::Outgoing::Bytes(bytes::Bytes::new());
            }
            reply
        }
    }
}

async fn dispatch(state: &Arc<State>, request: Request<Incoming>) -> Result<Reply, Fault> {
    let headers = request
        .headers()
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum::<usize>();
    if headers > MAX_HEADER_BYTES {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(Fault::new(status, "SIZE_INVALID", "the headers are too large"));
    }
    let route = Route::parse(request.uri().path())?;
    let reading = matches!(*request.method(), Method::GET | Method::HEAD);
    let query = request.uri().query();
    match route {
        Route::Manifest(name, target) => manifests::serve(state, name, target, request).await,
        Route::Blob(name, digest) => blobs::serve(state, name, digest, request).await,
        Route::Upload(name, id) => uploads::go_on(state, name, id, request).await,
        Route::Uploads(name) if request.method() == Method::POST => {
            uploads::start(state, name, request).await
        }
        Route::Base if reading => Ok(reply::json(StatusCode::OK, &serde_json::json!({}))),
        Route::Tags(name) if reading => discovery::tags(state, name, query).await,
        Route::Catalog if reading => discovery::catalog(state, query).await,
        Route::Referrers(name, digest) if reading => discovery::referrers(state, name, digest, query).await,
        _ => Err(Fault::method()),
    }
}
