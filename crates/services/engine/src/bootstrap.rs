//! `bootstrap`: a base image straight from distribution packages.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use dhow_bootstrap::{Configure, Fetch, Request, SourceFile, Target};
use dhow_bundle::{MountRequest, Request as RunRequest, TmpfsMount};
use dhow_image::Image;
use dhow_layer::Capture;
use dhow_oci::{History, ImageConfig, RunConfig};
use dhow_reference::Reference;
use dhow_transport::Client;
use dhow_types::{ErrorKind, Observer, Platform};

use crate::container::make_folder;
use crate::worker::{Job, JobDevices, JobNetwork, Resolver, Worker};
use crate::{Context as _, Engine, Error};

/// What `bootstrap`'s flags say.
#[derive(Clone, Debug, Default)]
pub struct BootstrapRequest {
    /// `debian:bookworm-slim`.
    pub target: String,
    /// Names for the image; the target's own when empty.
    pub tags: Vec<String>,
    /// A mirror in place of the host's sources.
    pub mirror: Option<String>,
    /// Keyrings in place of the system's.
    pub keyrings: Vec<PathBuf>,
    /// Packages beside the base.
    pub include: Vec<String>,
    /// Nothing but `include` and what it needs: no base, no package manager, no shell.
    pub only: bool,
    /// Packages that are not taken, whatever depends on them; with `only`.
    pub leave_out: Vec<String>,
    /// Take unsigned indices.
    pub insecure: bool,
    /// Accept a `Release` past its date.
    pub accept_expired: bool,
}

/// Keyring of Debian's archive, where the package `debian-archive-keyring` puts it.
const ARCHIVE_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const UBUNTU_KEYRING: &str = "/usr/share/keyrings/ubuntu-archive-keyring.gpg";
/// How often the archive is asked for a file: the pauses between are half a minute in all. A hundred packages are a
/// hundred chances that a name server is away for a moment, and one failure undoes the whole work.
const ATTEMPTS: u32 = 8;

impl Engine {
    /// Makes a base image. The caller must be single-threaded.
    ///
    /// # Errors
    /// What the distribution's files, their signatures or the packages' own scripts said.
    pub fn bootstrap(&self, wanted: &BootstrapRequest, observer: &dyn Observer) -> Result<Image, Error> {
        let what = || format!("bootstrap {}", wanted.target);
        let target: Target = wanted.target.parse().context(what)?;
        let worker = Worker::fork(self.settings())?;
        let folder = bootstrap_folder(&self.settings().root);
        let scratch = Scratch(folder.clone());
        make_folder(&folder)?;
        let root = folder.join("root");
        make_root(&root)?;
        let request = self.bootstrap_request(wanted, &target, root.clone())?;
        let fetch = Web::new(self.settings().transport.clone())?;
        let configure = Inside { worker: &worker };
        let outcome = dhow_bootstrap::bootstrap(&request, &fetch, &configure, observer).context(what)?;
        let store = self.store()?;
        // The layer has no image yet that would keep it from the sweeper.
        let lease = dhow_meta::Lease::acquire(store.root()).context(|| "keep the new layer")?;
        lease.pin_everything().context(|| "keep the new layer")?;
        let capture = Capture {
            clamp: Some(outcome.created),
            ..Capture::default()
        };
        let layer = store
            .layers
            .capture_with(&root, &capture)
            .context(|| "store the new root file system")?;
        drop(scratch);
        let mut config = image_config(&outcome, layer.diff_id());
        if wanted.only {
            // There is no shell.
            config.config.cmd = None;
        }
        let tags = self.bootstrap_tags(wanted, &target)?;
        let id = store.commit(config, &tags).context(|| "store the new image")?;
        store.sync().context(|| "write the image to disk")?;
        store.image(&id).context(|| "look at the new image")
    }

    /// Takes away what [`Engine::bootstrap`] has made so far in this process, when it cannot go on: the process is about
    /// to end.
    pub fn abandon_bootstrap(&self) {
        let folder = bootstrap_folder(&self.settings().root);
        // First another name, so that nothing more is put in; whatever fails is swept as the folder of a dead process.
        let grave = folder.with_extension("gone");
        if fs::rename(&folder, &grave).is_ok() {
            drop(fs::remove_dir_all(&grave));
        }
    }

    fn bootstrap_request(
        &self,
        wanted: &BootstrapRequest,
        target: &Target,
        root: PathBuf,
    ) -> Result<Request, Error> {
        let platform = Platform::host();
        let architecture = Request::architecture_of(&platform.architecture).ok_or_else(|| {
            let message = format!("no distribution has packages for {}", platform.architecture);
            Error::new(ErrorKind::Unsupported, message)
        })?;
        let keyrings = if wanted.keyrings.is_empty() {
            let usual = if target.distribution == "ubuntu" {
                UBUNTU_KEYRING
            } else {
                ARCHIVE_KEYRING
            };
            vec![PathBuf::from(usual)]
        } else {
            wanted.keyrings.clone()
        };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Ok(Request {
            target: target.clone(),
            architecture: architecture.to_owned(),
            sources: if wanted.mirror.is_some() {
                Vec::new()
            } else {
                apt_sources(&self.settings().apt)?
            },
            mirror: wanted.mirror.clone(),
            keyrings,
            only_keyrings: !wanted.keyrings.is_empty(),
            include: wanted.include.clone(),
            only: wanted.only,
            leave_out: wanted.leave_out.clone(),
            root,
            cache: self.settings().root.join("cache").join("packages"),
            now: now.map_or(0, |since| since.as_secs().cast_signed()),
            insecure: wanted.insecure,
            accept_expired: wanted.accept_expired,
        })
    }

    fn bootstrap_tags(&self, wanted: &BootstrapRequest, target: &Target) -> Result<Vec<Reference>, Error> {
        let names: Vec<String> = if wanted.tags.is_empty() {
            target
                .tags
                .iter()
                .map(|tag| format!("{}:{tag}", target.distribution))
                .collect()
        } else {
            wanted.tags.clone()
        };
        names
            .iter()
            .map(|name| Ok(crate::image::parse(name)?.or_latest()))
            .collect()
    }
}

/// Where this process puts a root file system together.
fn bootstrap_folder(root: &Path) -> PathBuf {
    root.join("tmp").join(format!("bootstrap-{}", std::process::id()))
}

/// A folder that goes away with its owner.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays after a failure here is swept as the folder of a dead process.
        drop(fs::remove_dir_all(&self.0));
    }
}

fn make_root(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    let what = || format!("make the folder {}", path.display());
    fs::DirBuilder::new().mode(0o755).create(path).context(what)?;
    // Independent of the person's umask: this becomes `/` of every container.
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).context(what)
}

/// The files that apt reads its sources from (sources.list(5)), in apt's order.
fn apt_sources(folder: &Path) -> Result<Vec<SourceFile>, Error> {
    let mut paths = vec![folder.join("sources.list")];
    if let Ok(entries) = fs::read_dir(folder.join("sources.list.d")) {
        let mut more: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        more.retain(|path| {
            path.extension()
                .is_some_and(|extension| extension == "list" || extension == "sources")
        });
        more.sort();
        paths.extend(more);
    }
    let mut files = Vec::new();
    for path in paths {
        match fs::read_to_string(&path) {
            Ok(text) => files.push(SourceFile {
                name: path.display().to_string(),
                text,
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::wrap(error, format!("read {}", path.display()))),
        }
    }
    if files.is_empty() {
        let message = format!("no package sources in {}", folder.display());
        return Err(Error::new(ErrorKind::NotFound, message)
            .with_hint("this host is not Debian's kind: name a mirror with --mirror URL and a keyring with --keyring FILE"));
    }
    Ok(files)
}

/// The image's config. Its time is that of the signed `Release`, so the same packages give the same image.
fn image_config(outcome: &dhow_bootstrap::Outcome, layer: dhow_types::DiffId) -> ImageConfig {
    let platform = Platform::host();
    let created = dhow_monitor::format_time(
        std::time::UNIX_EPOCH + std::time::Duration::from_secs(outcome.created.max(0).cast_unsigned()),
    );
    ImageConfig {
        created: Some(created.clone()),
        architecture: platform.architecture,
        os: platform.os,
        config: RunConfig {
            env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()],
            cmd: Some(vec!["bash".to_owned()]),
            labels: outcome.labels.clone(),
            ..RunConfig::default()
        },
        rootfs: dhow_oci::RootFs {
            diff_ids: vec![layer],
            ..dhow_oci::RootFs::default()
        },
        history: vec![History {
            created: Some(created),
            created_by: Some(outcome.history.clone()),
            ..History::default()
        }],
        ..ImageConfig::default()
    }
}

/// Fetches with the registry client's connections.
struct Web {
    client: Client,
}

impl Web {
    fn new(mut settings: dhow_transport::Settings) -> Result<Self, Error> {
        settings.attempts = settings.attempts.max(ATTEMPTS);
        let client = Client::new(settings).context(|| "set up the client of the archive")?;
        Ok(Self { client })
    }
}

impl Fetch for Web {
    fn get(&self, url: &str) -> Result<Box<dyn Read + Send>, dhow_bootstrap::Error> {
        let download = self
            .client
            .get(url)
            .map_err(|error| dhow_bootstrap::Error::wrap(error, format!("fetch {url}")))?;
        Ok(Box::new(download.body))
    }
}

/// Runs the packages' scripts in a container of the new root.
struct Inside<'a> {
    worker: &'a Worker,
}

impl Configure for Inside<'_> {
    fn run(
        &self,
        root: &Path,
        argv: &[&str],
        env: &[(&str, &str)],
        output: &mut dyn Write,
    ) -> Result<i32, dhow_bootstrap::Error> {
        let job = Job {
            request: RunRequest {
                args: argv.iter().map(|&word| word.to_owned()).collect(),
                env: env
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect(),
                hostname: "bootstrap".to_owned(),
                // dpkg writes each change of a status here first and waits for the disk, some 700 times; the whole root
                // is written to disk at the end instead.
                mounts: vec![MountRequest::Tmpfs(TmpfsMount {
                    destination: PathBuf::from("/var/lib/dpkg/updates"),
                    options: vec!["size=64m".to_owned(), "mode=0755".to_owned()],
                })],
                ..RunRequest::default()
            },
            user: "0:0".to_owned(),
            network: JobNetwork::None,
            groups: Vec::new(),
            devices: JobDevices::default(),
            resolver: Resolver::default(),
            folder: Some(root.to_owned()),
            cgroup_parent: None,
            extra_hosts: Vec::new(),
        };
        let mut pass = |bytes: &[u8]| output.write_all(bytes);
        let run = self.worker.run(&job, None, None, &mut pass);
        run.map_err(|error| dhow_bootstrap::Error::wrap(error, format!("run {}", argv.join(" "))))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::net::TcpListener;
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_archive_that_is_away_for_a_while_is_asked_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/pool/a.deb", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            for number in 1..=ATTEMPTS {
                let (mut stream, _) = listener.accept().unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
                let status = if number < ATTEMPTS { "503 Away" } else { "200 OK" };
                write!(
                    stream,
                    "HTTP/1.1 {status}\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
                )
                .unwrap();
            }
        });
        let mut settings = dhow_transport::Settings::default();
        settings.timeouts.backoff = Duration::from_millis(1);
        let mut text = String::new();
        let mut body = Web::new(settings).unwrap().get(&url).unwrap();
        body.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        server.join().unwrap();
    }
}
