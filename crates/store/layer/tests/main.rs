//! The layer store as its callers see it, on real directories.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot go on fails, one that cannot run says so"
)]

mod backends;
mod capture;
mod crash;
mod hostile;
mod maker;
mod rebuild;
mod survey;
mod unpack;

/// The same corpus, without the right to make devices or to give files away: nothing is refused or kept differently.
#[test]
fn a_normal_user_passes_the_suite() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("indexes");
    std::fs::write(&path, hostile::indexes(&Place::new())).unwrap();
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir.path(), readable).unwrap();
    let variables = [(hostile::INDEXES, path.as_os_str())];
    let tests = [
        "hostile::",
        "unpack::",
        "rebuild::",
        "capture::",
        "backends::tangled",
    ];
    eprintln!("{}", dhow_testkit::as_nobody(&tests, true, &variables));
    // Without the namespace their own files of mode 0 are closed to them: the index is compared, not every content.
    let tests = ["hostile::unpack_refuses", "unpack::", "backends::tangled"];
    eprintln!("{}", dhow_testkit::as_nobody(&tests, false, &[]));
}

/// A store in a directory of its own, beside which nothing may appear.
struct Place {
    store: dhow_layer::LayerStore,
    /// Before what it is mounted over.
    overlay: Option<Overlay>,
    dir: tempfile::TempDir,
}

/// A mounted overlay, with the folders that it is made of.
struct Overlay {
    root: std::path::PathBuf,
    _parts: tempfile::TempDir,
}

impl Drop for Overlay {
    fn drop(&mut self) {
        dhow_sys::mount::detach(&self.root).unwrap();
    }
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("outside")).unwrap();
        std::fs::write(dir.path().join("outside/secret"), b"untouched").unwrap();
        let store = dhow_layer::LayerStore::open(&dir.path().join("store")).unwrap();
        let overlay = None;
        Self { store, overlay, dir }
    }

    /// The same on a file system that has no whiteouts (overlayfs), which only root has here; says so when not.
    fn on_an_overlay() -> Option<Self> {
        if !is_root("the store on an overlay") {
            return None;
        }
        let mut place = Self::new();
        let parts = tempfile::tempdir().unwrap();
        let root = place.store.root().to_owned();
        let [lower, upper, work] = ["lower", "upper", "work"].map(|part| parts.path().join(part));
        for part in [&lower, &upper, &work] {
            std::fs::create_dir(part).unwrap();
        }
        let mount = dhow_sys::mount::overlay(&[&lower], Some(&upper), Some(&work), &[]).unwrap();
        dhow_sys::mount::attach(&mount, &root).unwrap();
        place.overlay = Some(Overlay { root, _parts: parts });
        place.store = dhow_layer::LayerStore::open(place.store.root()).unwrap();
        Some(place)
    }

    /// The same with layers as erofs images, where this host can have them; says so when not.
    fn erofs() -> Option<Self> {
        let mut place = Self::new();
        if let Err(error) = place.store.probe_erofs() {
            eprintln!(
                "skipped the erofs back end: {error}: {:?}",
                std::error::Error::source(&error)
            );
            return None;
        }
        let root = place.store.root().to_owned();
        place.store = dhow_layer::LayerStore::open_with(&root, dhow_layer::Backend::Erofs).unwrap();
        Some(place)
    }

    /// One place for each back end, and one where a layer's deletions can be in its index only.
    fn each() -> Vec<Self> {
        std::iter::once(Self::new())
            .chain(Self::erofs())
            .chain(Self::on_an_overlay())
            .collect()
    }

    /// What it is called.
    fn back_end(&self) -> &'static str {
        match (self.store.backend(), &self.overlay) {
            (dhow_layer::Backend::Erofs, _) => "erofs",
            (dhow_layer::Backend::Directories, None) => "directories",
            (dhow_layer::Backend::Directories, Some(_)) => "directories without whiteouts",
        }
    }

    fn unpack(&self, tar: &[u8]) -> Result<dhow_layer::Layer, dhow_layer::Error> {
        let how = dhow_layer::Unpack::default();
        self.store.unpack(tar, &how).map(|unpacked| unpacked.layer)
    }

    /// Asserts that nothing is half-made, and that nothing was written outside the store.
    fn assert_clean(&self, what: &str) {
        let names = |path: &str| {
            let mut names: Vec<_> = std::fs::read_dir(self.dir.path().join(path))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        assert_eq!(
            names("store/tmp"),
            Vec::<String>::new(),
            "{what}: half-made things in tmp"
        );
        assert_eq!(
            names("store"),
            ["layers", "tmp", "trash"],
            "{what}: strangers in the store"
        );
        assert_eq!(
            names(""),
            ["outside", "store"],
            "{what}: something was made outside"
        );
        assert_eq!(names("outside"), ["secret"], "{what}: something was made outside");
        let secret = self.dir.path().join("outside/secret");
        assert_eq!(
            std::fs::read(&secret).unwrap(),
            b"untouched",
            "{what}: a file outside was changed"
        );
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&secret).unwrap().permissions());
        assert_eq!(mode & 0o7000, 0, "{what}: the mode of a file outside was changed");
    }
}

/// Whether this test may make devices and give files away; says so when not.
fn is_root(test: &str) -> bool {
    let root = dhow_layer::privileged();
    if !root {
        eprintln!("skipped {test}: it needs root");
    }
    root
}

/// The mode, with which this process can read its own file or directory again: root reads everything.
fn readable(mode: u32) -> u32 {
    if dhow_layer::privileged() {
        mode
    } else {
        mode | 0o700
    }
}
