//! Whom to ask for something of a repository: the places that the files name, one after the other.

use std::sync::Arc;

use dhow_reference::Reference;
use dhow_types::ErrorKind;
use hyper::Method;

use crate::core::Core;
use crate::exchange::{Call, Identity};
use crate::registries::{Endpoint, Only, Want};
use crate::{Error, place};

/// How often a mirror is tried, when others can be asked instead.
const MIRROR_ATTEMPTS: u32 = 2;

/// Something of a repository.
#[derive(Clone)]
pub(crate) struct Place {
    reference: Reference,
    /// What is below the repository: `manifests/latest`.
    rest: String,
    want: Want,
    /// Scopes for other repositories that are needed too.
    more: String,
}

impl Place {
    pub(crate) fn new(reference: &Reference, want: Want, rest: &str) -> Self {
        Self {
            reference: reference.clone(),
            rest: rest.to_owned(),
            want,
            more: String::new(),
        }
    }

    /// The same with the right to read another repository.
    pub(crate) fn reading(mut self, repository: &str) -> Self {
        self.more = format!(" repository:{repository}:pull");
        self
    }

    /// The request for it in one place.
    async fn call(&self, core: &Core, endpoint: &Endpoint, method: Method) -> Result<Call, Error> {
        let host = core.host(endpoint);
        let repository = &endpoint.repository;
        let path = format!("{}/{repository}/{}", endpoint.root, self.rest);
        let mut url = place::join(host.base(core).await?, &path)?;
        if let Some(namespace) = &endpoint.namespace {
            url = place::with_query(&url, &format!("ns={namespace}"))?;
        }
        let actions = if self.want == Want::Push {
            "pull,push"
        } else {
            "pull"
        };
        let mut call = Call::new(method, url, &core.settings);
        call.identity = Some(Identity {
            host,
            scope: format!("repository:{repository}:{actions}{}", self.more),
            repository: repository.clone(),
        });
        Ok(call)
    }

    /// The places that may be asked, best first; never none.
    fn endpoints(&self, core: &Core) -> Result<Vec<Endpoint>, Error> {
        let mut places = core.endpoints(&self.reference)?;
        let by_digest = self.reference.digest().is_some();
        places.retain(|place| {
            let only = match place.only {
                Only::All => true,
                Only::Digests => by_digest,
                Only::Tags => !by_digest,
            };
            only && match self.want {
                Want::Resolve => place.can.resolve,
                Want::Pull => place.can.pull,
                Want::List => !place.mirror,
                Want::Push => place.can.push,
            }
        });
        if places.is_empty() {
            let message = format!("no place may be asked for {}", self.reference.familiar());
            return Err(Error::new(ErrorKind::FailedPrecondition, message)
                .with_hint("the capabilities in its hosts.toml leave none"));
        }
        Ok(places)
    }
}

impl Core {
    /// The request to the first place that may be asked.
    pub(crate) async fn call(&self, place: &Place, method: Method) -> Result<Call, Error> {
        let endpoints = place.endpoints(self)?;
        place.call(self, &endpoints[0], method).await
    }

    /// Asks one place after the other until one answers as it should. The error is the last place's, with what the
    /// others said before it. A mirror that does not answer is left alone for a while.
    pub(crate) async fn first<T, F>(
        self: &Arc<Self>,
        place: &Place,
        ask: impl Fn(Arc<Self>, Call) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut endpoints = place.endpoints(self)?;
        let last = endpoints.pop();
        let mut failures = Vec::new();
        for endpoint in &endpoints {
            let host = self.host(endpoint);
            if host.is_down() {
                failures.push(format!("mirror {}: did not answer a short time ago", host.name()));
                continue;
            }
            let outcome = match place.call(self, endpoint, Method::GET).await {
                Ok(mut call) => {
                    call.attempts = call.attempts.min(MIRROR_ATTEMPTS);
                    ask(Arc::clone(self), call).await
                }
                Err(error) => Err(error),
            };
            match outcome {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    if error.kind() == ErrorKind::Unavailable {
                        host.mark_down();
                    }
                    failures.push(format!(
                        "mirror {}: {}",
                        host.name(),
                        crate::failure::chain(&error)
                    ));
                }
            }
        }
        let Some(endpoint) = last else {
            return Err(Error::new(ErrorKind::Internal, "there is nobody to ask"));
        };
        let call = place.call(self, &endpoint, Method::GET).await;
        let outcome = match call {
            Ok(call) => ask(Arc::clone(self), call).await,
            Err(error) => Err(error),
        };
        outcome.map_err(|error| match failures.is_empty() {
            true => error,
            false => Error::wrap(
                error,
                format!("{}; then the registry itself", failures.join("; ")),
            ),
        })
    }
}
