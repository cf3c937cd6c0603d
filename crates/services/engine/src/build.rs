//! `build`: the builder with this host's ways to run commands and to get base images.

use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use dhow_build::{
    BuildObserver, Built, Checked, Executor, Failed, Images, MountSource, Network, Outline, Request, RunStep,
    Security, Stream,
};
use dhow_bundle::{BindMount, MountRequest, Request as RunRequest, TmpfsMount};
use dhow_image::Image;
use dhow_oci::ImageConfig;
use dhow_reference::Reference;
use dhow_types::{ErrorKind, Observer, Platform, Silent};

use crate::worker::{Job, JobNetwork, Worker};
use crate::{Context as _, Engine, Error};

/// What of a build can fail: what is around it, or the build itself with its place in the Dockerfile.
#[derive(Debug)]
pub enum BuildFailure {
    /// Something around it.
    Around(Error),
    /// The build.
    Build(Box<Failed>),
}

impl From<Error> for BuildFailure {
    fn from(error: Error) -> Self {
        Self::Around(error)
    }
}

impl Engine {
    /// Builds an image. The caller must be single-threaded; `pulls` sees the pulls of base images.
    ///
    /// # Errors
    /// See [`BuildFailure`].
    pub fn build(
        &self,
        request: &Request,
        observer: &dyn BuildObserver,
        pulls: &dyn Observer,
    ) -> Result<Built, BuildFailure> {
        self.sweep_builds();
        let worker = Worker::fork(self.settings())?;
        let steps = Steps { worker };
        let bases = Bases { engine: self, pulls };
        let built = dhow_build::build(self.store()?, &bases, &steps, request, observer)
            .map_err(|failed| BuildFailure::Build(Box::new(failed)))?;
        Ok(built)
    }

    /// Checks a Dockerfile without building it.
    ///
    /// # Errors
    /// What is around it; what is wrong with the Dockerfile is in the answer.
    pub fn check_build(&self, request: &Request) -> Result<Checked, BuildFailure> {
        let bases = Bases {
            engine: self,
            pulls: &Silent,
        };
        dhow_build::check(self.store()?, &bases, request)
            .map_err(|failed| BuildFailure::Build(Box::new(failed)))
    }

    /// What a Dockerfile can be built with.
    ///
    /// # Errors
    /// See [`BuildFailure`].
    pub fn outline_build(&self, request: &Request) -> Result<Outline, BuildFailure> {
        let bases = Bases {
            engine: self,
            pulls: &Silent,
        };
        dhow_build::outline(self.store()?, &bases, request)
            .map_err(|failed| BuildFailure::Build(Box::new(failed)))
    }

    /// Every record of the build cache, oldest use first.
    ///
    /// # Errors
    /// What the index said.
    pub fn cache(&self) -> Result<Vec<dhow_meta::CacheRecord>, Error> {
        let mut records = self.store()?.meta.caches().context(|| "list the build cache")?;
        records.sort_by_key(|record| record.used);
        Ok(records)
    }

    /// Removes build cache records, all or those not used since `before` (seconds since 1970); bytes they stood for.
    ///
    /// # Errors
    /// What the index said.
    pub fn prune_cache(&self, before: Option<i64>) -> Result<u64, Error> {
        let store = self.store()?;
        let mut bytes = 0;
        for record in store.meta.caches().context(|| "list the build cache")? {
            if before.is_none_or(|before| record.used < before) {
                store
                    .meta
                    .remove_cache(&record.key)
                    .context(|| "remove a build cache record")?;
                bytes += record.bytes;
            }
        }
        store
            .sweep(&self.uses()?)
            .context(|| "remove what the cache held")?;
        Ok(bytes)
    }
}

struct Bases<'a> {
    engine: &'a Engine,
    pulls: &'a dyn Observer,
}

impl Images for Bases<'_> {
    fn pull(&self, reference: &Reference, platform: &Platform) -> Result<Image, dhow_build::Error> {
        let pull = || -> Result<Image, Error> {
            let name = reference.canonical();
            let pulled = self.engine.pull(&name, Some(platform.clone()), self.pulls)?;
            self.engine
                .store()?
                .image(&pulled.image)
                .context(|| "look at the base image")
        };
        pull().map_err(|error| dhow_build::Error::wrap(error, format!("pull {}", reference.familiar())))
    }

    fn config(&self, reference: &Reference, platform: &Platform) -> Result<ImageConfig, dhow_build::Error> {
        let client = self.engine.client();
        client
            .and_then(|client| crate::remote::config(client, reference, platform))
            .map_err(|error| dhow_build::Error::wrap(error, format!("look at {}", reference.familiar())))
    }
}

struct Steps {
    worker: Worker,
}

impl Executor for Steps {
    fn run(
        &self,
        step: &RunStep<'_>,
        output: &mut dyn FnMut(Stream, &[u8]),
    ) -> Result<i32, dhow_build::Error> {
        self.step(step, output).map_err(|error| {
            let message = format!("run {}", step.args.join(" "));
            dhow_build::Error::wrap(error, message)
        })
    }
}

impl Steps {
    fn step(&self, step: &RunStep<'_>, output: &mut dyn FnMut(Stream, &[u8])) -> Result<i32, Error> {
        let mount = step
            .snapshot
            .clone()
            .volatile()
            .mount_detached()
            .context(|| "mount the step's root file system")?;
        let job = job(step);
        let (mut reader, writer) = std::io::pipe().context(|| "make a pipe")?;
        let mut buffer = vec![0; 32 << 10];
        std::thread::scope(|scope| {
            let worker = &self.worker;
            let (job, mount) = (&job, &mount);
            let code = scope.spawn(move || {
                let code = worker.run(job, Some(mount.as_fd()), writer.as_fd(), Some(step.cancel));
                drop(writer);
                code
            });
            loop {
                match reader.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => output(Stream::Stdout, &buffer[..count]),
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(Error::wrap(error, "read the step's output")),
                }
            }
            code.join()
                .unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, "the step's thread ended")))
        })
    }
}

fn job(step: &RunStep<'_>) -> Job {
    let mounts = step.mounts.iter().map(|mount| match &mount.source {
        MountSource::Bind(source) => MountRequest::Bind(BindMount {
            source: source.clone(),
            destination: mount.target.clone(),
            read_only: mount.read_only,
            ..BindMount::default()
        }),
        MountSource::Tmpfs(size) => MountRequest::Tmpfs(TmpfsMount {
            destination: mount.target.clone(),
            options: size.map(|size| format!("size={size}")).into_iter().collect(),
        }),
    });
    Job {
        request: RunRequest {
            args: step.args.to_vec(),
            env: step.env.to_vec(),
            cwd: PathBuf::from(step.cwd),
            hostname: step.hostname.to_owned(),
            mounts: mounts.collect(),
            shm_size: step.shm_size,
            privileged: step.security == Security::Insecure,
            ..RunRequest::default()
        },
        user: step.user.to_owned(),
        network: match step.network {
            Network::Default => JobNetwork::Bridge,
            Network::Host => JobNetwork::Host,
            Network::None => JobNetwork::None,
        },
        folder: None,
        extra_hosts: step
            .extra_hosts
            .iter()
            .map(|(name, address)| format!("{name}={address}"))
            .collect(),
    }
}
