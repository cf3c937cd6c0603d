//! `build`: the builder with this host's ways to run commands and to get base images.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use dhow_build::{
    Answer, BuildObserver, Built, Checked, Download, Executor, Failed, Filter, GitAccess, GitSource, Images,
    MountName, MountSource, Network, Outline, Request, RunStep, Sandbox, Security, StepResult, Stream,
};
use dhow_bundle::{
    BindMount, Limits, MountRequest, Request as RunRequest, SeccompChoice, TmpfsMount, Ulimit,
};
use dhow_image::Image;
use dhow_oci::ImageConfig;
use dhow_policy::Point;
use dhow_reference::Reference;
use dhow_types::{Digest, Observer, Platform, Silent};

use crate::cache_artifact::{CachePlace, Imports};
use crate::difference::Difference;
use crate::git::Git;
use crate::worker::{Job, JobDevices, JobNetwork, Resolver, Worker};
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

/// What is around a build and no part of what it makes.
#[derive(Clone, Copy, Debug)]
pub struct BuildAround<'a> {
    /// Where what is not in the cache here may be.
    pub caches: &'a [CachePlace],
    /// What the program of each `RUN` may use.
    pub limits: &'a Limits,
}

impl Engine {
    /// Builds an image. The caller must be single-threaded; `pulls` sees the pulls of base images.
    ///
    /// # Errors
    /// See [`BuildFailure`].
    pub fn build(
        &self,
        request: &Request,
        around: BuildAround<'_>,
        observer: &dyn BuildObserver,
        pulls: &dyn Observer,
    ) -> Result<Built, BuildFailure> {
        let steps = self.steps(around.limits)?;
        self.build_with(&steps, request, around.caches, observer, pulls)
    }

    /// Builds an image, then once more without the cache, and compares; the image, and the first difference if there is
    /// one. Of the second build nothing stays. The caller must be single-threaded.
    ///
    /// # Errors
    /// See [`BuildFailure`].
    pub fn build_twice(
        &self,
        request: &Request,
        around: BuildAround<'_>,
        observer: &dyn BuildObserver,
        pulls: &dyn Observer,
    ) -> Result<(Built, Option<Difference>), BuildFailure> {
        let steps = self.steps(around.limits)?;
        let built = self.build_with(&steps, request, around.caches, observer, pulls)?;
        let second = Request {
            no_cache: true,
            aside: true,
            record: false,
            pull: false,
            tags: Vec::new(),
            ..request.clone()
        };
        let again = self.build_with(&steps, &second, &[], observer, pulls)?;
        let difference = self.first_difference(&built.image, &again.image)?;
        Ok((built, difference))
    }

    /// Builds several images one after the other, such as one for each of several machines. The caller must be
    /// single-threaded.
    ///
    /// # Errors
    /// See [`BuildFailure`]; of the first that failed.
    pub fn build_each(
        &self,
        requests: &[Request],
        around: BuildAround<'_>,
        observer: &dyn BuildObserver,
        pulls: &dyn Observer,
    ) -> Result<Vec<Built>, BuildFailure> {
        let steps = self.steps(around.limits)?;
        let requests = requests.iter();
        requests
            .map(|request| self.build_with(&steps, request, around.caches, observer, pulls))
            .collect()
    }

    fn steps(&self, limits: &Limits) -> Result<Steps, Error> {
        self.sweep_builds();
        let worker = Worker::fork(self.settings())?;
        let limits = limits.clone();
        Ok(Steps { worker, limits })
    }

    fn build_with(
        &self,
        steps: &Steps,
        request: &Request,
        caches: &[CachePlace],
        observer: &dyn BuildObserver,
        pulls: &dyn Observer,
    ) -> Result<Built, BuildFailure> {
        let bases = Bases {
            engine: self,
            pulls,
            imports: Imports::new(self, caches, pulls),
        };
        let built = dhow_build::build(self.store()?, &bases, steps, request, observer)
            .map_err(|failed| BuildFailure::Build(Box::new(failed)))?;
        if built.stats.cached < built.stats.steps && !request.aside {
            self.keep_cache_within(request.cache_budget)?;
        }
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
            imports: Imports::new(self, &[], &Silent),
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
            imports: Imports::new(self, &[], &Silent),
        };
        dhow_build::outline(self.store()?, &bases, request)
            .map_err(|failed| BuildFailure::Build(Box::new(failed)))
    }
}

struct Bases<'a> {
    engine: &'a Engine,
    pulls: &'a dyn Observer,
    imports: Imports<'a>,
}

impl Images for Bases<'_> {
    fn pull(&self, reference: &Reference, platform: &Platform) -> Result<Image, dhow_build::Error> {
        let pull = || -> Result<Image, Error> {
            let name = reference.canonical();
            let pulled = self.engine.pull(&name, Some(platform.clone()), self.pulls)?;
            // By its name, which may be another's of the same index, so that it is known by what its repository calls it.
            let named = self.engine.image_for(&name, Some(platform));
            match named.ok().filter(|image| image.id == pulled.image) {
                Some(image) => Ok(image),
                None => self
                    .engine
                    .store()?
                    .image(&pulled.image)
                    .context(|| "look at the base image"),
            }
        };
        pull().map_err(|error| dhow_build::Error::wrap(error, format!("pull {}", reference.familiar())))
    }

    fn admit(&self, name: &str, image: &Image) -> Result<(), dhow_build::Error> {
        let may = || -> Result<(), Error> {
            self.engine.may_be_used(image, name)?;
            for warning in self.engine.admit(Point::Build, image, name)? {
                self.pulls.observe(dhow_types::Progress::Warning(&warning));
            }
            Ok(())
        };
        may().map_err(|error| dhow_build::Error::wrap(error, format!("use {name}")))
    }

    fn layout(
        &self,
        path: &Path,
        name: Option<&str>,
        platform: &Platform,
    ) -> Result<Image, dhow_build::Error> {
        crate::remote::layout(self.engine, path, name, platform)
            .map_err(|error| dhow_build::Error::wrap(error, "use an OCI layout"))
    }

    fn download(&self, download: &Download<'_>, to: &mut File) -> Result<Answer, dhow_build::Error> {
        let client = self.engine.client();
        client
            .and_then(|client| crate::remote::download(client, download, to))
            .map_err(|error| dhow_build::Error::wrap(error, "fetch"))
    }

    fn commit(&self, source: &GitSource, access: &GitAccess<'_>) -> Result<String, dhow_build::Error> {
        self.with_git(source, access, |git| git.commit(source))
    }

    fn commit_time(
        &self,
        source: &GitSource,
        commit: &str,
        access: &GitAccess<'_>,
    ) -> Result<i64, dhow_build::Error> {
        let alone = GitSource {
            submodules: false,
            ..source.clone()
        };
        self.with_git(&alone, access, |git| {
            let folder = self.engine.context_folder()?;
            git.checkout(&alone, commit, &folder.path())?;
            git.time(&folder.path())
        })
    }

    fn checkout(
        &self,
        source: &GitSource,
        commit: &str,
        access: &GitAccess<'_>,
        into: &Path,
    ) -> Result<(), dhow_build::Error> {
        self.with_git(source, access, |git| git.checkout(source, commit, into))
    }

    fn config(&self, reference: &Reference, platform: &Platform) -> Result<ImageConfig, dhow_build::Error> {
        let client = self.engine.client();
        client
            .and_then(|client| crate::remote::config(client, reference, platform))
            .map_err(|error| dhow_build::Error::wrap(error, format!("look at {}", reference.familiar())))
    }

    fn made_elsewhere(&self, keys: &[Digest]) -> Result<Option<StepResult>, dhow_build::Error> {
        Ok(self.imports.find(keys))
    }

    fn fill_mount(&self, name: &MountName, folder: &Path) -> Result<(), dhow_build::Error> {
        self.imports.fill(name, folder);
        Ok(())
    }
}

impl Bases<'_> {
    /// Runs `work` with an empty home for git.
    fn with_git<T>(
        &self,
        source: &GitSource,
        access: &GitAccess<'_>,
        work: impl FnOnce(&Git<'_>) -> Result<T, Error>,
    ) -> Result<T, dhow_build::Error> {
        let run = || -> Result<T, Error> {
            let folder = self.engine.context_folder()?;
            work(&Git::new(source, access, &folder.path()))
        };
        run().map_err(|error| dhow_build::Error::wrap(error, "fetch"))
    }
}

struct Steps {
    worker: Worker,
    /// What each may use.
    limits: Limits,
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

    fn device(&self, name: &str, sandbox: &Sandbox) -> Option<Vec<PathBuf>> {
        let mut spec = dhow_oci::runtime::Spec::default();
        let names = [name.to_owned()];
        crate::container::add_devices(&names, &sandbox.device_folders, &mut spec).ok()?;
        Some(spec.mounts.into_iter().map(|mount| mount.destination).collect())
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
        let job = job(step, &self.limits)?;
        let mut pass = |bytes: &[u8]| {
            output(Stream::Stdout, bytes);
            Ok(())
        };
        self.worker
            .run(&job, Some(mount.as_fd()), Some(step.cancel), &mut pass)
    }
}

fn ulimit(limit: &dhow_build::Limit) -> Ulimit {
    Ulimit {
        name: limit.name.clone(),
        soft: limit.soft,
        hard: limit.hard,
    }
}

fn filter(filter: &Filter) -> Result<SeccompChoice, Error> {
    Ok(match filter {
        Filter::Usual => SeccompChoice::Default,
        Filter::Nothing => SeccompChoice::Unconfined,
        Filter::Profile(text) => {
            let profile = dhow_seccomp::Profile::parse(text).context(|| "read the seccomp profile")?;
            SeccompChoice::Conditional(Box::new(profile))
        }
    })
}

fn job(step: &RunStep<'_>, limits: &Limits) -> Result<Job, Error> {
    let mounts = step.mounts.iter().map(|mount| match &mount.source {
        MountSource::Bind(source) => MountRequest::Bind(BindMount {
            source: source.clone(),
            destination: mount.target.clone(),
            read_only: mount.read_only,
            ..BindMount::default()
        }),
        MountSource::Tmpfs { size, copy_up } => {
            let size = size.map(|size| format!("size={size}"));
            let copy_up = copy_up.then(|| "tmpcopyup".to_owned());
            MountRequest::Tmpfs(TmpfsMount {
                destination: mount.target.clone(),
                options: size.into_iter().chain(copy_up).collect(),
            })
        }
    });
    let sandbox = step.sandbox;
    Ok(Job {
        request: RunRequest {
            args: step.args.to_vec(),
            env: step.env.to_vec(),
            cwd: PathBuf::from(step.cwd),
            hostname: step.hostname.to_owned(),
            mounts: mounts.collect(),
            shm_size: step.shm_size,
            limits: limits.clone(),
            ulimits: step.ulimits.iter().map(ulimit).collect(),
            privileged: step.security == Security::Insecure,
            seccomp: filter(&sandbox.filter)?,
            cap_add: sandbox.cap_add.clone(),
            cap_drop: sandbox.cap_drop.clone(),
            ..RunRequest::default()
        },
        user: step.user.to_owned(),
        network: match step.network {
            Network::Default => JobNetwork::Bridge,
            Network::Host => JobNetwork::Host,
            Network::None => JobNetwork::None,
        },
        folder: None,
        groups: sandbox.groups.clone(),
        devices: JobDevices {
            names: step.devices.to_vec(),
            folders: sandbox.device_folders.clone(),
        },
        resolver: Resolver {
            servers: sandbox.dns.clone(),
            search: sandbox.dns_search.clone(),
            options: sandbox.dns_options.clone(),
        },
        cgroup_parent: step.cgroup_parent.map(str::to_owned),
        extra_hosts: step
            .extra_hosts
            .iter()
            .map(|(name, address)| format!("{name}={address}"))
            .collect(),
    })
}
