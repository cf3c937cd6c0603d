//! Other places for the images of a registry: who is asked, in which order, with which secrets.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use dhow_oci::Descriptor;
use dhow_transport::{Client, RegistryFiles, Settings};
use dhow_types::{Digest, ErrorKind};

use crate::server::{Request, Server, answer, content, hasty, registry};

/// A registry that serves `body` as every manifest and blob.
fn serving(body: &'static [u8]) -> Server {
    registry(move |_, _, out| answer(out, "200 OK", "", body))
}

fn failing(status: &'static str) -> Server {
    registry(move |_, _, out| answer(out, status, "", b""))
}

struct World {
    folder: tempfile::TempDir,
    settings: Settings,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let registries = RegistryFiles {
            conf: vec![path("missing.conf"), path("registries.conf")],
            drop_ins: vec![path("registries.conf.d")],
            hosts: vec![path("certs.d")],
            daemon: vec![path("daemon.json")],
        };
        let settings = Settings {
            registries,
            auth: vec![path("auth.json")],
            ..hasty()
        };
        Self { folder, settings }
    }

    fn write(self, name: impl AsRef<Path>, text: &str) -> Self {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    fn client(&self) -> Client {
        Client::new(self.settings.clone()).unwrap()
    }
}

/// `registries.conf` with one registry and its mirrors.
fn conf(own: &Server, mirrors: &[(&Server, &str)]) -> String {
    let mut text = format!("[[registry]]\nlocation = \"{}\"\n", own.address);
    for (mirror, path) in mirrors {
        text.push_str(&format!(
            "[[registry.mirror]]\nlocation = \"{}{path}\"\n",
            mirror.address
        ));
    }
    text
}

fn basic(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn secrets(requests: &[Request]) -> Vec<&str> {
    requests
        .iter()
        .filter_map(|request| request.header("authorization"))
        .collect()
}

#[test]
fn a_mirror_is_asked_first_under_its_own_name_and_the_registry_not_at_all() {
    let (own, mirror) = (serving(b"{}"), serving(b"{}"));
    let world = World::new().write("registries.conf", &conf(&own, &[(&mirror, "/cache")]));
    world.client().manifest(&own.reference("a/b:1")).unwrap();
    assert_eq!(mirror.requests()[0].path, "/v2/cache/a/b/manifests/1");
    assert!(own.seen.lock().unwrap().is_empty());
}

#[test]
fn each_place_gets_its_own_credentials_and_no_others() {
    let guarded = || {
        registry(|_, request, out| match request.header("authorization") {
            Some(_) => answer(out, "404 Not Found", "", b""),
            None => answer(
                out,
                "401 Unauthorized",
                "WWW-Authenticate: Basic realm=\"r\"\r\n",
                b"",
            ),
        })
    };
    let (own, mirror, open) = (guarded(), guarded(), failing("404 Not Found"));
    let auths = format!(
        r#"{{"auths":{{"{}":{{"auth":"{}"}},"{}":{{"auth":"{}"}}}}}}"#,
        own.address,
        basic("own:1"),
        mirror.address,
        basic("mirror:2")
    );
    let text = conf(&own, &[(&mirror, ""), (&open, "")]);
    let world = World::new()
        .write("registries.conf", &text)
        .write("auth.json", &auths);
    world.client().manifest(&own.reference("a:1")).unwrap_err();
    assert_eq!(
        secrets(&mirror.requests()),
        [format!("Basic {}", basic("mirror:2"))]
    );
    assert_eq!(secrets(&own.requests()), [format!("Basic {}", basic("own:1"))]);
    assert!(secrets(&open.requests()).is_empty());
}

#[test]
fn the_next_place_is_asked_when_one_fails_or_lies() {
    let (own, liar, missing) = (serving(b"{}"), serving(b"{\"lie\":1}"), failing("404 Not Found"));
    let world = World::new().write("registries.conf", &conf(&own, &[(&missing, ""), (&liar, "")]));
    let digest = Digest::of(b"{}");
    let fetched = world
        .client()
        .manifest_at(&own.reference("a:1"), &digest)
        .unwrap();
    assert_eq!(fetched.bytes, b"{}");
    assert_eq!(
        (
            missing.requests().len(),
            liar.requests().len(),
            own.requests().len()
        ),
        (1, 1, 1)
    );
}

#[test]
fn a_blob_of_another_length_is_taken_from_the_next_place() {
    use std::io::Read as _;
    let bytes = content(5000);
    let good = bytes.clone();
    let own = registry(move |_, _, out| answer(out, "200 OK", "", &good));
    let short = serving(b"short");
    let world = World::new().write("registries.conf", &conf(&own, &[(&short, "")]));
    let descriptor = Descriptor::of("application/octet-stream", &bytes);
    let mut read = Vec::new();
    world
        .client()
        .blob(&own.reference("a:1"), &descriptor)
        .unwrap()
        .read_to_end(&mut read)
        .unwrap();
    assert_eq!(read, bytes);
}

#[test]
fn when_all_fail_the_error_is_the_registrys_and_names_the_mirrors() {
    let (own, mirror) = (failing("404 Not Found"), failing("403 Forbidden"));
    let world = World::new().write("registries.conf", &conf(&own, &[(&mirror, "")]));
    let error = world.client().manifest(&own.reference("a:1")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let said = error.to_string();
    assert!(
        said.contains(&format!("mirror {}", mirror.address)) && said.contains("403"),
        "{said}"
    );
}

#[test]
fn a_mirror_that_does_not_answer_is_left_alone_for_a_while() {
    let (own, mirror) = (serving(b"{}"), failing("503 Service Unavailable"));
    let world = World::new().write("registries.conf", &conf(&own, &[(&mirror, "")]));
    let client = world.client();
    for _ in 0..5 {
        client.manifest(&own.reference("a:1")).unwrap();
    }
    assert_eq!(
        mirror.requests().len(),
        2,
        "two tries, then four pulls without it"
    );
    assert_eq!(own.requests().len(), 5);
}

#[test]
fn a_blocked_registry_is_not_asked_and_a_rewritten_one_is_asked_elsewhere() {
    let (own, other) = (serving(b"{}"), serving(b"{}"));
    let text = format!(
        "[[registry]]\nprefix = \"{0}/bad\"\nblocked = true\n[[registry]]\nprefix = \"{0}/old\"\nlocation = \"{1}/new\"\n",
        own.address, other.address
    );
    let world = World::new().write("registries.conf.d/10-rules.conf", &text);
    let error = world.client().manifest(&own.reference("bad/x:1")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    world.client().manifest(&own.reference("old/x:1")).unwrap();
    assert!(own.seen.lock().unwrap().is_empty());
    assert_eq!(other.requests()[0].path, "/v2/new/x/manifests/1");
}

#[test]
fn a_place_of_hosts_toml_hears_whom_it_stands_for_and_gets_its_headers() {
    let (own, mirror) = (serving(b"{}"), serving(b"{}"));
    let hosts = format!(
        "[host.\"http://{}/v2/proxy\"]\noverride_path = true\ncapabilities = [\"pull\"]\n[host.\"http://{0}/v2/proxy\".header]\nx-who = \"me\"\n",
        mirror.address
    );
    let world = World::new().write(
        PathBuf::from("certs.d")
            .join(own.address.to_string())
            .join("hosts.toml"),
        &hosts,
    );
    let client = world.client();
    client.manifest(&own.reference("a:1")).unwrap();
    assert!(mirror.requests().is_empty(), "it may not say what a tag means");
    client
        .manifest_at(&own.reference("a:1"), &Digest::of(b"{}"))
        .unwrap();
    let asked = &mirror.requests()[0];
    assert_eq!(
        asked.path,
        format!("/v2/proxy/a/manifests/{}?ns={}", Digest::of(b"{}"), own.address)
    );
    assert_eq!(asked.header("x-who"), Some("me"));
    assert!(
        own.requests()
            .iter()
            .all(|request| request.header("x-who").is_none())
    );
}

#[test]
fn a_push_goes_to_the_registry_and_never_to_a_mirror() {
    let own = registry(|_, request, out| {
        assert_eq!(request.method, "PUT");
        answer(out, "201 Created", "", b"")
    });
    let mirror = serving(b"{}");
    let world = World::new().write("registries.conf", &conf(&own, &[(&mirror, "")]));
    world
        .client()
        .push_manifest(
            &own.reference("a:1"),
            "application/vnd.oci.image.manifest.v1+json",
            b"{}",
        )
        .unwrap();
    assert_eq!(own.requests().len(), 1);
    assert!(mirror.seen.lock().unwrap().is_empty());
}

#[test]
fn a_malformed_file_ends_the_request_with_its_name() {
    let own = serving(b"{}");
    let world = World::new().write("registries.conf", "[[registry]\n");
    let error = world.client().manifest(&own.reference("a:1")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("registries.conf"), "{error}");
    assert!(own.seen.lock().unwrap().is_empty());
}
