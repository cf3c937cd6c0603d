//! What the tests build with.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use dhow_build::{
    Answer, BuildObserver, Built, Download, Error, Event, Executor, Failed, GitAccess, GitSource, Images,
    MountSource, Request, RunStep, Stream, build,
};
use dhow_image::{Image, Store};
use dhow_layer::EntryKind;
use dhow_oci::ImageConfig;
use dhow_reference::Reference;
use dhow_types::{ErrorKind, Platform};
use tempfile::TempDir;

/// A store, a context, and something that runs commands.
pub(crate) struct Bench {
    pub(crate) store: Store,
    pub(crate) context: TempDir,
    pub(crate) shell: Words,
    pub(crate) log: Log,
    pub(crate) hub: Hub,
    root: TempDir,
}

/// A bench with the image `base:1`, or `None` without root.
pub(crate) fn bench() -> Option<Bench> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: mounting overlay needs root");
        return None;
    }
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(&root.path().join("store")).unwrap();
    let bench = Bench {
        store,
        context: tempfile::tempdir().unwrap(),
        shell: Words::default(),
        log: Log::default(),
        hub: Hub::default(),
        root,
    };
    bench.image(
        "base:1",
        &[
            (
                "etc/passwd",
                "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n",
            ),
            ("etc/group", "root:x:0:\nstaff:x:50:\n"),
            ("bin/sh", "shell"),
            ("srv/old", "old"),
        ],
        |config| {
            config.config.env = vec!["PATH=/bin".into(), "FROM_BASE=yes".into()];
            config.config.cmd = Some(vec!["base-cmd".into()]);
        },
    );
    Some(bench)
}

impl Bench {
    /// Makes an image of files and tags it.
    pub(crate) fn image(
        &self,
        tag: &str,
        files: &[(&str, &str)],
        edit: impl FnOnce(&mut ImageConfig),
    ) -> Image {
        let dir = self
            .store
            .root()
            .join("tmp")
            .join(format!("image-{}", tag.replace([':', '/'], "-")));
        for (path, content) in files {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
        }
        let layer = self.store.layers.capture(&dir).unwrap();
        let host = Platform::host();
        let mut config = ImageConfig {
            architecture: host.architecture,
            os: host.os,
            created: Some("2024-01-01T00:00:00Z".into()),
            ..ImageConfig::default()
        };
        config.rootfs.diff_ids.push(layer.diff_id());
        edit(&mut config);
        let id = self
            .store
            .commit(config, &[Reference::parse(tag).unwrap()])
            .unwrap();
        self.store.image(&id).unwrap()
    }

    /// Writes a file of the context.
    pub(crate) fn file(&self, path: &str, content: &str) -> PathBuf {
        let path = self.context.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Writes an archive of entries into the context: name, kind, and content or target.
    pub(crate) fn archive(&self, name: &str, entries: &[(&str, EntryKind, &str)]) {
        let mut tar = dhow_layer::tar::Writer::new(Vec::new());
        for (path, kind, text) in entries {
            let mut entry = dhow_layer::Entry::new(*path, *kind, 0o755);
            let file = *kind == EntryKind::File;
            entry.mtime = 1_000;
            entry.size = if file { text.len() as u64 } else { 0 };
            entry.link = if file {
                Vec::new()
            } else {
                text.as_bytes().to_vec()
            };
            let body = if file { *text } else { "" };
            tar.append(&entry, body.as_bytes()).unwrap();
        }
        fs::write(self.context.path().join(name), tar.finish().unwrap()).unwrap();
    }

    /// A request for a Dockerfile on the bench's context.
    pub(crate) fn request(&self, dockerfile: &str) -> Request {
        let mut request = Request::new(dockerfile);
        request.context = Some(self.context.path().to_owned());
        request.run_dir = self.root.path().join("run");
        request
    }

    pub(crate) fn try_build(&self, request: &Request) -> Result<Built, Box<Failed>> {
        build(&self.store, &self.hub, &self.shell, request, &self.log).map_err(Box::new)
    }

    pub(crate) fn built(&self, request: &Request) -> Built {
        self.try_build(request)
            .unwrap_or_else(|failed| panic!("{}", chain(&failed)))
    }

    /// Builds a Dockerfile that is good.
    pub(crate) fn build(&self, dockerfile: &str) -> Built {
        self.built(&self.request(dockerfile))
    }

    /// The failure of a Dockerfile.
    pub(crate) fn fails(&self, dockerfile: &str) -> Box<Failed> {
        self.try_build(&self.request(dockerfile)).expect_err(dockerfile)
    }

    /// All files of an image: path to `kind mode uid:gid content`.
    pub(crate) fn tree(&self, image: &Image) -> BTreeMap<String, String> {
        let view = self
            .store
            .snapshots
            .view("view", &image.config.rootfs.diff_ids)
            .unwrap();
        let at = tempfile::tempdir().unwrap();
        let mount = view.mount(at.path()).unwrap();
        let mut found = BTreeMap::new();
        collect(at.path(), at.path(), &mut found);
        mount.unmount().unwrap();
        self.store.snapshots.remove("view").unwrap();
        found
    }

    /// Files of the top layer alone, as their paths.
    pub(crate) fn top_layer(&self, image: &Image) -> Vec<String> {
        let top = image.config.rootfs.diff_ids.last().unwrap();
        let index = self.store.layers.layer(top).unwrap().index().unwrap();
        index
            .entries()
            .map(|entry| String::from_utf8_lossy(&entry.path).into_owned())
            .filter(|path| !path.is_empty())
            .collect()
    }

    /// Nothing temporary is left.
    pub(crate) fn assert_clean(&self) {
        assert_eq!(self.store.snapshots.list().unwrap(), Vec::<String>::new());
        let left: Vec<_> = fs::read_dir(self.store.root().join("tmp"))
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        assert!(left.is_empty(), "{left:?}");
        let leases = fs::read_dir(self.store.root().join("leases")).unwrap().count();
        assert_eq!(leases, 0);
    }
}

/// An error with its causes and hint.
pub(crate) fn chain(failed: &Failed) -> String {
    use dhow_types::Failure as _;
    let mut text = failed.to_string();
    let mut cause = std::error::Error::source(failed);
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    if let Some(hint) = failed.hint() {
        text.push_str(" | ");
        text.push_str(hint);
    }
    text
}

fn collect(root: &Path, dir: &Path, out: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        let kind = meta.file_type();
        let (letter, content) = if kind.is_dir() {
            ('d', String::new())
        } else if kind.is_symlink() {
            ('l', fs::read_link(&path).unwrap().to_string_lossy().into_owned())
        } else if kind.is_file() {
            (
                'f',
                String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned(),
            )
        } else if kind.is_fifo() {
            ('p', String::new())
        } else {
            ('?', String::new())
        };
        let text = format!(
            "{letter} {:o} {}:{} {content}",
            meta.mode() & 0o7777,
            meta.uid(),
            meta.gid()
        );
        out.insert(
            path.strip_prefix(root).unwrap().to_string_lossy().into_owned(),
            text,
        );
        if kind.is_dir() {
            collect(root, &path, out);
        }
    }
}

/// Runs the last argument as commands between `;`: `write PATH TEXT`, `rm PATH`, `mkdir PATH`, `chmod MODE PATH`,
/// `env NAME PATH`, `copy PATH PATH`, `say TEXT`, `stub PATH`, `sleep MILLISECONDS`, `meet N`, `exit CODE`.
/// `mount:PATH` reads below a mount of the step.
#[derive(Default)]
pub(crate) struct Words {
    pub(crate) runs: AtomicU32,
    pub(crate) seen: Mutex<Vec<Seen>>,
    met: AtomicU32,
}

/// What a step was given.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) cwd: String,
    pub(crate) user: String,
    pub(crate) network: dhow_build::Network,
    pub(crate) targets: Vec<(PathBuf, bool)>,
}

impl Words {
    pub(crate) fn runs(&self) -> u32 {
        self.runs.swap(0, Ordering::SeqCst)
    }

    pub(crate) fn last(&self) -> Seen {
        self.seen.lock().unwrap().last().cloned().unwrap()
    }

    fn word(
        &self,
        step: &RunStep<'_>,
        root: &Path,
        line: &str,
        output: &mut dyn FnMut(Stream, &[u8]),
    ) -> i32 {
        let parts: Vec<&str> = line.trim().splitn(3, ' ').collect();
        let place = |path: &str| -> PathBuf {
            for mount in step.mounts {
                let target = mount.target.to_str().unwrap();
                if let (Some(rest), MountSource::Bind(host)) = (path.strip_prefix(target), &mount.source) {
                    return if rest.is_empty() {
                        host.clone()
                    } else {
                        host.join(rest.trim_start_matches('/'))
                    };
                }
            }
            let inside = Path::new(step.cwd).join(path);
            root.join(inside.strip_prefix("/").unwrap())
        };
        match parts.as_slice() {
            [""] | ["EOF"] => {}
            // A script by its path: what would have run is kept.
            [path] if path.starts_with('/') => drop(fs::copy(place(path), root.join("ran")).unwrap()),
            ["write", path, text] => {
                let path = place(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            ["rm", path] => {
                let path = place(path);
                if path.is_dir() {
                    fs::remove_dir_all(path).unwrap()
                } else {
                    fs::remove_file(path).unwrap()
                }
            }
            ["mkdir", path] => fs::create_dir_all(place(path)).unwrap(),
            ["link", target, path] => std::os::unix::fs::symlink(target, place(path)).unwrap(),
            ["chmod", mode, path] => {
                let mode = u32::from_str_radix(mode, 8).unwrap();
                fs::set_permissions(place(path), fs::Permissions::from_mode(mode)).unwrap();
            }
            ["env", name, path] => {
                let value = step
                    .env
                    .iter()
                    .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
                fs::write(place(path), value.unwrap_or("unset")).unwrap();
            }
            ["copy", from, to] => {
                fs::copy(place(from), place(to)).unwrap();
            }
            ["stub", path] => {
                let path = place(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                if !path.exists() {
                    fs::write(path, "").unwrap();
                }
            }
            ["connect", socket, path] => {
                let mut stream = std::os::unix::net::UnixStream::connect(place(socket)).unwrap();
                stream.write_all(b"ping").unwrap();
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                fs::write(place(path), answer).unwrap();
            }
            ["say", ..] => output(Stream::Stdout, &line.trim().as_bytes()[4..]),
            ["sleep", time] => std::thread::sleep(Duration::from_millis(time.parse().unwrap())),
            // Waits until so many steps are here at once.
            ["meet", number] => {
                self.met.fetch_add(1, Ordering::SeqCst);
                for _ in 0..500 {
                    if self.met.load(Ordering::SeqCst) >= number.parse().unwrap() {
                        return 0;
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
                return 99;
            }
            ["host", path, text] => fs::write(path, text).unwrap(),
            ["exit", code] => return code.parse().unwrap(),
            other => panic!("unknown words {other:?}"),
        }
        0
    }
}

impl Executor for Words {
    fn run(&self, step: &RunStep<'_>, output: &mut dyn FnMut(Stream, &[u8])) -> Result<i32, Error> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        self.seen.lock().unwrap().push(Seen {
            args: step.args.to_vec(),
            env: step.env.to_vec(),
            cwd: step.cwd.to_owned(),
            user: step.user.to_owned(),
            network: step.network,
            targets: step
                .mounts
                .iter()
                .map(|mount| (mount.target.clone(), mount.read_only))
                .collect(),
        });
        let at = tempfile::tempdir().unwrap();
        let mount = step
            .snapshot
            .mount(at.path())
            .map_err(|error| Error::wrap(error, "mount"))?;
        let mut code = 0;
        for line in step.args.last().unwrap().split([';', '\n']) {
            code = self.word(step, at.path(), line, output);
            if code != 0 {
                break;
            }
        }
        mount.unmount().map_err(|error| Error::wrap(error, "unmount"))?;
        Ok(code)
    }
}

/// The bytes of a file, and when it was changed last.
pub(crate) type Online = (Vec<u8>, Option<u64>);

/// A registry that has one image under all names, or nothing.
#[derive(Default)]
pub(crate) struct Hub {
    pub(crate) asked: Mutex<Vec<String>>,
    pub(crate) has: Mutex<Option<Image>>,
    /// What URLs lead to, and when it was changed last.
    pub(crate) files: Mutex<BTreeMap<String, Online>>,
    /// The commit that each repository is at; its only file `file` holds it.
    pub(crate) commits: Mutex<BTreeMap<String, String>>,
}

impl Hub {
    /// Puts a file at a URL.
    pub(crate) fn serve(&self, url: &str, bytes: &[u8], modified: Option<u64>) {
        let file = (bytes.to_vec(), modified);
        self.files
            .lock()
            .expect("no test panicked with it")
            .insert(url.to_owned(), file);
    }

    /// What was asked since the last call.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().expect("no test panicked with it"))
    }
}

impl Images for Hub {
    fn pull(&self, reference: &Reference, _: &Platform) -> Result<Image, Error> {
        self.asked.lock().unwrap().push(reference.canonical());
        let found = self.has.lock().unwrap().clone();
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, "not found in the registry"))
    }

    fn download(&self, asked: &Download<'_>, to: &mut fs::File) -> Result<Answer, Error> {
        let authorization = asked.authorization.unwrap_or("nobody");
        self.asked
            .lock()
            .unwrap()
            .push(format!("{} by {authorization}", asked.url));
        let files = self.files.lock().unwrap();
        let (bytes, modified) = files
            .get(asked.url)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, "404"))?;
        to.write_all(bytes).map_err(|error| Error::wrap(error, "write"))?;
        Ok(Answer {
            modified: *modified,
            ..Answer::default()
        })
    }

    fn commit(&self, source: &GitSource, access: &GitAccess<'_>) -> Result<String, Error> {
        let token = access.token.unwrap_or("nobody");
        self.asked.lock().unwrap().push(format!("commit by {token}"));
        let commits = self.commits.lock().unwrap();
        let found = commits.get(&source.remote).cloned();
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, "no such repository"))
    }

    fn checkout(&self, _: &GitSource, commit: &str, _: &GitAccess<'_>, into: &Path) -> Result<(), Error> {
        self.asked.lock().unwrap().push("checkout".to_owned());
        fs::create_dir_all(into.join(".git")).unwrap();
        fs::create_dir_all(into.join("sub/deep")).unwrap();
        fs::write(into.join(".git/config"), "").unwrap();
        // As a submodule has it.
        fs::write(into.join("sub/.git"), "gitdir: ../.git/modules/sub\n").unwrap();
        fs::write(into.join("file"), commit).unwrap();
        fs::write(into.join("sub/deep/file"), "deep").unwrap();
        Ok(())
    }
}

/// Keeps the events as lines.
#[derive(Default)]
pub(crate) struct Log(Mutex<Vec<String>>);

impl Log {
    /// The lines since the last call.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl BuildObserver for Log {
    fn observe(&self, event: Event<'_>) {
        let line = match event {
            Event::Started { step, name } => format!("{step} start {name}"),
            Event::Cached { step } => format!("{step} cached"),
            Event::Missed { step, why } => format!("{step} missed {why}"),
            Event::Output { step, bytes, .. } => format!("{step} says {}", String::from_utf8_lossy(bytes)),
            Event::Finished { step, error, .. } => format!("{step} end {}", error.unwrap_or("ok")),
            Event::Warning { message, .. } => format!("warning {message}"),
            _ => "?".to_owned(),
        };
        self.0.lock().unwrap().push(line);
    }
}
