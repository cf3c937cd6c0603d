//! `sign`, `verify` and `attest`, over our own registry.

use std::path::PathBuf;

use crate::served::Served;
use crate::world::{Ran, World, http};

/// A registry with an image in it, and a key.
struct Signing {
    world: World,
    served: Served,
    image: String,
    digest: String,
}

impl Signing {
    fn new() -> Option<Self> {
        let world = World::new()?;
        let served = Served::start(&world.path("registry"));
        let image = served.name("fleet/box:1");
        let signing = Self {
            digest: String::new(),
            image,
            served,
            world,
        };
        let digest = signing.push("1", "one");
        signing.generate("ada");
        Some(Self { digest, ..signing })
    }

    /// Pushes a small image under a tag; gives its digest.
    fn push(&self, tag: &str, content: &str) -> String {
        let name = self.served.name(&format!("fleet/box:{tag}"));
        let mut tar = tar_of(content);
        tar.extend([0; 1024]);
        self.world.feed(&["import", "-", &name], tar).ok();
        let said = self.world.dhow(&["push", &name]).all();
        let line = said
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{tag}: digest: ")));
        line.unwrap().split(' ').next().unwrap().to_owned()
    }

    fn file(&self, name: &str) -> String {
        self.world.path(name).display().to_string()
    }

    fn generate(&self, name: &str) {
        let (name, certificate) = (self.file(name), self.file(&format!("{name}.crt")));
        self.world
            .dhow(&[
                "sign",
                "--generate-key",
                &name,
                "--certificate",
                &certificate,
                "--subject",
                "CN=Ada,C=GB",
            ])
            .exits(0);
    }

    fn sign(&self, image: &str, more: &[&str]) -> Ran {
        let key = self.file("ada.key");
        let mut args = vec!["sign", "--key", &key];
        args.extend(more);
        args.push(image);
        self.world.dhow(&args)
    }

    fn verify(&self, image: &str, more: &[&str]) -> Ran {
        let key = self.file("ada.pub");
        let mut args = vec!["verify", "--key", &key];
        args.extend(more);
        args.push(image);
        self.world.dhow(&args)
    }

    fn tagged(&self, tag: &str) -> String {
        self.served.name(&format!("fleet/box:{tag}"))
    }

    /// Every blob of the registry, as files.
    fn blobs(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut waiting = vec![self.world.path("registry")];
        while let Some(folder) = waiting.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    waiting.push(path)
                } else {
                    found.push(path)
                }
            }
        }
        found
    }
}

fn tar_of(content: &str) -> Vec<u8> {
    let mut header = [0_u8; 512];
    header[..4].copy_from_slice(b"file");
    header[100..107].copy_from_slice(b"0000644");
    header[108..115].copy_from_slice(b"0000000");
    header[116..123].copy_from_slice(b"0000000");
    header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    header[136..147].copy_from_slice(b"00000000000");
    header[156] = b'0';
    header[257..263].copy_from_slice(b"ustar\0");
    header[263..265].copy_from_slice(b"00");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut body = content.as_bytes().to_vec();
    body.resize(512, 0);
    [header.to_vec(), body].concat()
}

#[test]
fn every_form_is_signed_and_verified_and_says_who() {
    let Some(s) = Signing::new() else { return };
    let certificate = s.file("ada.crt");
    s.verify(&s.image, &[]).one_error(1).says("has no signature");
    for form in ["bundle", "cosign", "cosign-referrer"] {
        let image = s.tagged(form);
        let digest = s.push(form, form);
        s.sign(&image, &["--format", form, "-a", "build=7"])
            .exits(0)
            .prints(&digest);
        let shown = s.verify(&image, &["-a", "build=7"]).exits(0).stdout;
        assert!(
            shown.starts_with(&digest) && shown.contains("key sha256:"),
            "{shown}"
        );
        s.verify(&image, &["-a", "build=8"])
            .one_error(1)
            .says("asked for");
    }
    s.sign(&s.image, &["--format", "notation", "--certificate", &certificate])
        .exits(0);
    let notation = s
        .world
        .dhow(&["verify", "--certificate-authority", &certificate, &s.image]);
    notation.exits(0).prints("CN=Ada,C=GB");
    let stranger = [
        "verify",
        "--certificate-authority",
        &certificate,
        "--certificate-identity",
        "CN=Bob,C=GB",
        &s.image,
    ];
    s.world.dhow(&stranger).exits(1).says("not asked for");
    let json = s
        .verify(&s.tagged("cosign"), &["--format", "json"])
        .exits(0)
        .stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["Signatures"][0]["Form"], "cosign");
    assert_eq!(json["Signatures"][0]["Reference"], s.tagged("cosign"));
}

#[test]
fn a_signature_by_another_key_or_for_another_digest_is_no_signature() {
    let Some(s) = Signing::new() else { return };
    s.generate("bob");
    s.sign(&s.image, &[]).exits(0);
    let bob = s.file("bob.pub");
    s.world
        .dhow(&["verify", "--key", &bob, &s.image])
        .exits(1)
        .says("by no key that is trusted");
    // The tag moves to an image that nobody signed.
    let other = s.push("1", "two");
    assert_ne!(other, s.digest);
    s.verify(&s.image, &[]).one_error(1).says("has no signature");
    // What was signed still is, by its digest.
    s.verify(&s.served.name(&format!("fleet/box@{}", s.digest)), &[])
        .exits(0);
    // cosign's tag of the signed image, put where that of the other one is looked for.
    s.sign(
        &s.served.name(&format!("fleet/box@{}", s.digest)),
        &["--format", "cosign"],
    )
    .exits(0);
    let tag = |digest: &str| s.tagged(&format!("{}.sig", digest.replace(':', "-")));
    let (from, to) = (
        format!("docker://{}", tag(&s.digest)),
        format!("docker://{}", tag(&other)),
    );
    s.world.dhow(&["copy", &from, &to]).exits(0);
    s.verify(&s.image, &[])
        .exits(1)
        .says("not of sha256:")
        .says("holds");
}

#[test]
fn a_signature_that_was_changed_in_the_registry_is_refused() {
    let Some(s) = Signing::new() else { return };
    s.sign(&s.image, &[]).exits(0);
    s.verify(&s.image, &[]).exits(0);
    let signed = s.blobs().into_iter().find(|path| {
        std::fs::read(path)
            .is_ok_and(|bytes| bytes.starts_with(b"{\"mediaType\":\"application/vnd.dev.sigstore"))
    });
    let signed = signed.expect("the bundle is a blob of the registry");
    let text = std::fs::read_to_string(&signed).unwrap();
    let at = text.find("\"sig\":\"").unwrap() + 20;
    let mut changed = text.into_bytes();
    changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
    std::fs::write(&signed, changed).unwrap();
    s.verify(&s.image, &[]).exits(1).says("refused:");
}

#[test]
fn a_statement_is_no_signature_and_is_asked_for_by_its_kind() {
    let Some(s) = Signing::new() else { return };
    let (key, predicate) = (
        s.file("ada.key"),
        s.world.file("sbom.json", r#"{"spdxVersion":"SPDX-2.3"}"#),
    );
    let predicate = predicate.display().to_string();
    s.world
        .dhow(&[
            "attest",
            "--key",
            &key,
            "--type",
            "spdx",
            "--predicate",
            &predicate,
            &s.image,
        ])
        .exits(0)
        .prints(&s.digest);
    s.verify(&s.image, &[]).one_error(1).says("asked for");
    s.verify(&s.image, &["--type", "openvex"])
        .one_error(1)
        .says("https://openvex.dev/ns");
    let json = s
        .verify(&s.image, &["--type", "spdx", "--format", "json"])
        .exits(0)
        .stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["Signatures"][0]["Predicate"]["spdxVersion"], "SPDX-2.3");
    for (kind, file) in [("no type", &*predicate), ("spdx", "/dev/null")] {
        let args = [
            "attest",
            "--key",
            &key,
            "--type",
            kind,
            "--predicate",
            file,
            &s.image,
        ];
        s.world.dhow(&args).exits(1);
    }
    let listed = http(s.served.host(), &format!("/v2/fleet/box/referrers/{}", s.digest)).unwrap();
    assert!(
        listed.contains("\"dev.sigstore.bundle.predicateType\":\"https://spdx.dev/Document\""),
        "{listed}"
    );
}

#[test]
fn an_image_that_is_only_here_is_to_be_pushed_first() {
    let Some(s) = Signing::new() else { return };
    let name = s.tagged("local");
    s.world.dhow(&["tag", &s.image, &name]).ok();
    s.sign(&name, &[]).exits(1).says(&format!("dhow push {name}"));
}

#[test]
fn every_manifest_of_an_index_is_signed_when_that_is_asked() {
    let Some(s) = Signing::new() else { return };
    let (other, list) = (s.tagged("2"), s.tagged("all"));
    let second = s.push("2", "two");
    s.world
        .dhow(&["manifest", "create", &list, &s.image, &other])
        .ok();
    s.world.dhow(&["manifest", "push", &list]).ok();
    s.sign(&list, &[]).exits(0);
    s.verify(&list, &[]).exits(0);
    s.verify(&s.image, &[]).exits(1);
    let signed = s.sign(&list, &["--recursive"]).exits(0).stdout;
    assert!(
        signed.contains(&s.digest) && signed.contains(&second) && signed.lines().count() == 3,
        "{signed}"
    );
    s.verify(&s.image, &[]).exits(0);
    s.verify(&other, &[]).exits(0);
}

#[test]
fn keys_are_made_once_private_and_under_a_pass_phrase_when_there_is_one() {
    use std::os::unix::fs::PermissionsExt as _;
    let Some(s) = Signing::new() else { return };
    let mode = std::fs::metadata(s.file("ada.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let name = s.file("ada");
    s.world
        .dhow(&["sign", "--generate-key", &name])
        .one_error(1)
        .says("is there already");
    let (sealed, key) = (s.file("sealed"), s.file("sealed.key"));
    let with = |args: &[&str], pass_phrase: &str| {
        let mut command = s.world.command(args);
        command.env("COSIGN_PASSWORD", pass_phrase);
        crate::world::finish(command, Vec::new())
    };
    with(&["sign", "--generate-key", &sealed], "open sesame").exits(0);
    assert!(
        std::fs::read_to_string(&key)
            .unwrap()
            .contains("ENCRYPTED SIGSTORE PRIVATE KEY")
    );
    s.world
        .dhow(&["sign", "--key", &key, &s.image])
        .exits(1)
        .says("COSIGN_PASSWORD");
    with(&["sign", "--key", &key, &s.image], "sesame")
        .exits(1)
        .says("pass phrase is wrong");
    with(&["sign", "--key", &key, &s.image], "open sesame").exits(0);
    let public = s.file("sealed.pub");
    s.world.dhow(&["verify", "--key", &public, &s.image]).exits(0);
}

#[test]
fn who_is_trusted_must_be_said() {
    let Some(s) = Signing::new() else { return };
    s.world
        .dhow(&["verify", &s.image])
        .exits(1)
        .says("nobody is named");
    s.verify(&s.image, &["--certificate-oidc-issuer", "https://x"])
        .exits(1)
        .says("everybody");
    let wrong = s.file("ada.key");
    s.world
        .dhow(&["verify", "--key", &wrong, &s.image])
        .exits(1)
        .says("private key");
    s.verify(&s.image, &["--certificate-identity-regexp", "("])
        .exits(1)
        .says("regular expression");
    s.sign(&s.image, &["--format", "notation"])
        .exits(1)
        .says("--certificate");
    s.sign(&s.image, &["--expiry", "1h"])
        .exits(1)
        .says("notation only");
}
