//! The store of images, against a registry that misbehaves and archives that lie.

#![allow(clippy::unwrap_used, reason = "tests")]

mod archives;
mod attestations;
mod copies;
mod due;
mod fuzz;
mod hostile;
mod imports;
mod kills;
mod liars;
mod lying;
mod manifest_lists;
mod names;
mod power;
mod pulls;
mod pushes;
mod races;
mod repairs;
mod siblings;

use std::path::Path;
use std::time::Duration;

use dhow_image::{Check, Pull, Pulled, Report, Store};
use dhow_reference::Reference;
use dhow_testkit::{FakeRegistry, Layer, Recorder, Tar, TinyImage};
use dhow_transport::{Client, Settings, Timeouts};
use dhow_types::Silent;

/// A store, a client and a registry.
struct World {
    _dir: tempfile::TempDir,
    store: Store,
    client: Client,
    registry: FakeRegistry,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            store: Store::open(&dir.path().join("store")).unwrap(),
            client: client(),
            registry: FakeRegistry::start(),
            _dir: dir,
        }
    }

    fn root(&self) -> &Path {
        self.store.root()
    }

    fn reference(&self, name: &str) -> Reference {
        Reference::parse(&self.registry.name(name)).unwrap()
    }

    fn pull(&self, name: &str) -> Result<Pulled, dhow_image::Error> {
        self.store
            .pull(&self.client, &self.reference(name), &Pull::default(), &Silent)
    }

    fn pull_seen(&self, name: &str) -> (Pulled, Recorder) {
        let recorder = Recorder::new();
        let how = Pull::default();
        (
            self.store
                .pull(&self.client, &self.reference(name), &how, &recorder)
                .unwrap(),
            recorder,
        )
    }

    fn check(&self) -> Report {
        self.store
            .check(Check {
                repair: false,
                deep: true,
            })
            .unwrap()
    }

    /// Nothing half-made, nothing wrong.
    fn assert_clean(&self) {
        assert_eq!(self.check().findings, vec![]);
        for directory in ["tmp", "leases"] {
            let left: Vec<_> = std::fs::read_dir(self.root().join(directory)).unwrap().collect();
            assert!(left.is_empty(), "{directory}: {left:?}");
        }
    }
}

/// A client that does not wait long for a registry that fails.
fn client() -> Client {
    Client::new(Settings {
        attempts: 3,
        timeouts: Timeouts {
            backoff: Duration::from_millis(1),
            longest_pause: Duration::from_secs(2),
            stall: Duration::from_secs(5),
            ..Timeouts::default()
        },
        ..Settings::default()
    })
    .unwrap()
}

/// The base layer that every test image has.
fn base() -> Layer {
    let passwd = b"root:x:0:0::/root:/bin/sh\n";
    Layer::gzip(
        Tar::new()
            .directory("etc", 0o755)
            .file("etc/passwd", 0o644, passwd)
            .finish(),
    )
}

/// A layer with one file of its own.
fn layer(name: &str, content: &[u8]) -> Layer {
    Layer::gzip(
        Tar::new()
            .directory("srv", 0o755)
            .file(&format!("srv/{name}"), 0o644, content)
            .finish(),
    )
}

/// An image of two layers.
fn image(name: &str) -> TinyImage {
    TinyImage::oci(vec![base(), layer(name, name.as_bytes())])
}

/// The whole chain of an error, as a person reads it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text += &format!(": {inner}");
        cause = inner.source();
    }
    text
}
