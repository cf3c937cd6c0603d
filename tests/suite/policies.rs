//! Policies: what a pull, a run, a build and a push are asked, and what is refused.

use std::path::Path;

use crate::served::Served;
use crate::world::{Ran, World};

/// A registry with images in it, some of them signed, and policy files of the test's own.
struct Guarded {
    world: World,
    served: Served,
}

impl Guarded {
    fn new() -> Option<Self> {
        let world = World::with_busybox()?;
        let served = Served::start(&world.path("registry"));
        let guarded = Self { world, served };
        for name in ["ada", "bob"] {
            let file = guarded.file(name);
            guarded.world.dhow(&["sign", "--generate-key", &file]).exits(0);
        }
        Some(guarded)
    }

    fn file(&self, name: &str) -> String {
        self.world.path(name).display().to_string()
    }

    fn image(&self, name: &str) -> String {
        self.served.name(name)
    }

    /// Pushes an image of busybox of its own under a name, signed by somebody or nobody, and forgets it here.
    fn publish(&self, name: &str, signer: Option<&str>, form: &str) -> String {
        let image = self.image(name);
        let label = format!("LABEL name={name}");
        let tar = crate::samples::busybox_tar();
        self.world.feed(&["import", "-c", &label, "-", &image], tar).ok();
        self.world.dhow(&["push", "-q", &image]).exits(0);
        if let Some(signer) = signer {
            let key = self.file(&format!("{signer}.key"));
            self.world
                .dhow(&["sign", "--key", &key, "--format", form, &image])
                .exits(0);
        }
        self.world.dhow(&["rmi", &image]).exits(0);
        image
    }

    /// [`under`] of this world.
    fn under(&self, containers: Option<&Path>, own: Option<&Path>, args: &[&str]) -> Ran {
        under(&self.world, containers, own, args)
    }

    /// The same under our policy with this text.
    fn ruled(&self, policy: &str, args: &[&str]) -> Ran {
        let signer = |name: &str| {
            format!(
                "[signer.{name}]\nkeys = [\"{}\"]\n",
                self.file(&format!("{name}.pub"))
            )
        };
        let text = format!("version = 1\n{}{}{policy}", signer("ada"), signer("bob"));
        let file = self.world.file("policy.toml", text);
        self.under(None, Some(&file), args)
    }
}

/// Runs a command under a policy of the containers tools, ours, or both.
fn under(world: &World, containers: Option<&Path>, own: Option<&Path>, args: &[&str]) -> Ran {
    let mut command = world.command(args);
    for (variable, file) in [("DHOW_CONTAINERS_POLICY", containers), ("DHOW_POLICY", own)] {
        command.env(
            variable,
            file.map_or_else(|| std::ffi::OsStr::new(""), Path::as_os_str),
        );
    }
    crate::world::finish(command, Vec::new())
}

const SIGNED: &str = "[[rule]]\nname = \"signed\"\naction = \"deny\"\nsigned-by = [\"ada\"]\n";

#[test]
fn an_image_that_the_wrong_one_or_nobody_signed_is_neither_pulled_nor_run() {
    let Some(g) = Guarded::new() else { return };
    let good = g.publish("a/good:1", Some("ada"), "bundle");
    let bad = g.publish("a/bad:1", Some("bob"), "bundle");
    let plain = g.publish("a/plain:1", None, "");
    g.ruled(SIGNED, &["pull", &good]).exits(0);
    for image in [&bad, &plain] {
        g.ruled(SIGNED, &["pull", image])
            .exits(1)
            .says("policy denies pull of")
            .says("not signed by ada");
        g.world.dhow(&["image", "inspect", image]).exits(1);
        let run = ["run", "--rm", "--network", "none", image, "/bin/true"];
        g.ruled(SIGNED, &run).exits(125).says("not signed by ada");
    }
    // What was pulled is judged again when it is used, by what was kept beside it.
    g.ruled(SIGNED, &["run", "--rm", "--network", "none", &good, "/bin/true"])
        .exits(0);
    let other = SIGNED.replace("ada", "bob");
    g.ruled(&other, &["run", "--rm", "--network", "none", &good, "/bin/true"])
        .exits(125)
        .says("not signed by bob");
    // One that came before there was a policy has to be pulled again.
    g.world.dhow(&["pull", &plain]).exits(0);
    let run = ["run", "--rm", "--network", "none", &plain, "/bin/true"];
    g.ruled(SIGNED, &run).exits(125).says("pull it again");
    g.world.dhow(&run).exits(0);
    // And one that was made here has no signature.
    g.ruled(
        SIGNED,
        &["run", "--rm", "--network", "none", "busybox", "/bin/true"],
    )
    .exits(125)
    .says("not signed");
}

#[test]
fn a_rule_may_only_warn_be_about_some_images_and_have_exceptions_with_an_end() {
    let Some(g) = Guarded::new() else { return };
    let plain = g.publish("a/plain:1", None, "");
    let warn = SIGNED.replace("deny", "warn");
    g.ruled(&warn, &["pull", &plain])
        .exits(0)
        .says("policy warns of pull of");
    let run = ["run", "--rm", "--network", "none", &plain, "/bin/true"];
    g.ruled(&warn, &run).exits(0).says("policy warns of run of");
    let elsewhere = format!("{SIGNED}images = [\"registry.example/**\"]\n");
    g.ruled(&elsewhere, &run).exits(0).silent();
    let at_push = format!("{SIGNED}at = [\"push\"]\n");
    g.ruled(&at_push, &run).exits(0);
    g.ruled(&at_push, &["push", &plain])
        .exits(1)
        .says("policy denies push of");
    let exception = |until: &str| {
        format!("{SIGNED}[[exception]]\nrule = \"signed\"\nreason = \"trial\"\nuntil = \"{until}\"\n")
    };
    g.ruled(&exception("2999-01-01"), &run).exits(0);
    g.ruled(&exception("2020-01-01"), &run).exits(125);
}

#[test]
fn a_build_on_an_image_that_is_refused_fails_at_its_from() {
    let Some(g) = Guarded::new() else { return };
    let plain = g.publish("a/plain:1", None, "");
    let good = g.publish("a/good:1", Some("ada"), "bundle");
    for (base, code) in [(&plain, 1), (&good, 0)] {
        let dockerfile = g
            .world
            .file("context/Dockerfile", format!("FROM {base}\nLABEL a=b\n"));
        let context = dockerfile.parent().unwrap().display().to_string();
        let ran = g.ruled(SIGNED, &["build", "-q", &context]).exits(code);
        if code == 1 {
            ran.says("not signed by ada");
        }
    }
}

#[test]
fn the_containers_tools_policy_counts_for_pulls() {
    let Some(g) = Guarded::new() else { return };
    let good = g.publish("a/good:1", Some("ada"), "cosign");
    let bundle = g.publish("a/bundle:1", Some("ada"), "bundle");
    let other = g.publish("b/other:1", None, "");
    let (host, key) = (g.served.host(), g.file("ada.pub"));
    let file = |requirement: &str| {
        let text = format!(
            r#"{{"default": [{{"type": "reject"}}], "transports": {{"docker": {{"{host}/a": [{requirement}]}}}}}}"#
        );
        g.world.file("policy.json", text)
    };
    let by_key = format!(r#"{{"type": "sigstoreSigned", "keyPath": "{key}"}}"#);
    let pull = |policy: &Path, image: &str| g.under(Some(policy), None, &["pull", image]);
    let signed = file(&by_key);
    pull(&signed, &good).exits(0);
    pull(&signed, &bundle).exits(1).says("it has no signature");
    pull(&signed, &other)
        .exits(1)
        .says("it is rejected")
        .says("policy.json");
    let renamed = format!(
        r#"{{"type": "sigstoreSigned", "keyPath": "{key}", "signedIdentity": {{"type": "exactRepository", "dockerRepository": "{host}/c/d"}}}}"#
    );
    pull(&file(&renamed), &good).exits(1).says("of the name");
    let gpg = r#"{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"}"#;
    pull(&file(gpg), &good).exits(1).says("GPG");
    pull(&file(r#"{"type": "insecureAcceptAnything"}"#), &bundle).exits(0);
    pull(&file(r#"{"type": "accept"}"#), &good)
        .exits(1)
        .says("policy.json");
    // A file that is named and not there is no policy that lets everything through.
    pull(&g.world.path("absent.json"), &good)
        .exits(1)
        .says("absent.json");
}

/// What a signer makes with certificates is verified in the unit tests of the crate `sign`, and by cosign in conformance/secure/sign.sh: here, that the
/// policy's words reach it.
#[test]
fn the_containers_tools_policy_asks_for_logs_persons_and_certificates() {
    let Some(g) = Guarded::new() else { return };
    let good = g.publish("a/good:1", Some("ada"), "cosign");
    let (key, certificate, none) = (g.file("ada.pub"), g.file("ca.crt"), g.file("none"));
    let ca = g.file("ca");
    g.world
        .dhow(&[
            "sign",
            "--generate-key",
            &ca,
            "--certificate",
            &certificate,
            "--subject",
            "CN=ca",
        ])
        .exits(0);
    let asked = |words: &str, says: &str| {
        let text = format!(r#"{{"default": [{{"type": "sigstoreSigned", {words}}}]}}"#);
        let policy = g.world.file("policy.json", text);
        g.under(Some(&policy), None, &["pull", &good]).exits(1).says(says);
    };
    let log = format!(r#""rekorPublicKeyPath": "{key}""#);
    asked(
        &format!(r#""keyPath": "{key}", {log}"#),
        "the signature is in no log",
    );
    let person = r#""oidcIssuer": "https://i", "subjectEmail": "a@b""#;
    let by_nobody = "the signature is by a key, and no key is trusted";
    asked(
        &format!(r#""fulcio": {{"caPath": "{certificate}", {person}}}, {log}"#),
        by_nobody,
    );
    asked(
        &format!(r#""fulcio": {{"caPath": "{none}", {person}}}, {log}"#),
        "none",
    );
    asked(
        &format!(r#""fulcio": {{"caPath": "{key}", {person}}}, {log}"#),
        "has no certificate",
    );
    asked(
        &format!(r#""fulcio": {{"caPath": "{certificate}", {person}}}"#),
        "without a rekorPublicKey",
    );
    asked(
        &format!(r#""pki": {{"caRootsPath": "{certificate}", "subjectEmail": "a@b"}}"#),
        by_nobody,
    );
    asked(
        &format!(
            r#""pki": {{"caRootsPath": "{certificate}", "caIntermediatesPath": "{none}", "subjectEmail": "a@b"}}"#
        ),
        "none",
    );
}

#[test]
fn a_policy_is_tested_and_shown() {
    let Some(g) = Guarded::new() else { return };
    let good = g.publish("a/good:1", Some("ada"), "bundle");
    let plain = g.publish("a/plain:1", None, "");
    g.ruled(SIGNED, &["policy", "test", &good])
        .exits(0)
        .prints("allow");
    g.ruled(SIGNED, &["policy", "test", &plain])
        .exits(1)
        .prints("not signed by ada");
    let json = g
        .ruled(SIGNED, &["policy", "test", "--format", "json", &plain])
        .exits(1)
        .stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json[0]["At"], &json[0]["Denied"]),
        (&"pull".into(), &true.into())
    );
    let scanned = format!("{SIGNED}[[rule]]\nname = \"holes\"\naction = \"warn\"\nseverity = \"high\"\n");
    let shown = g
        .ruled(
            &scanned,
            &["policy", "test", "--at", "run", "--at", "push", "busybox"],
        )
        .exits(1)
        .stdout;
    // There is no advisory data: that is not taken for good.
    assert!(
        shown.contains("holes") && shown.contains("not known") && shown.contains("push"),
        "{shown}"
    );
    g.ruled(&scanned, &["policy", "show"])
        .exits(0)
        .prints("no vulnerability of high or worse");
    g.world
        .dhow(&["policy", "show"])
        .exits(0)
        .prints("no policy is in force");
    g.ruled(
        "[[rule]]\nname = \"x\"\naction = \"deny\"\nsevrity = \"high\"\n",
        &["policy", "show"],
    )
    .exits(1)
    .says("sevrity");
}

#[test]
fn an_image_at_the_end_of_its_life_is_refused_where_a_rule_says_so() {
    let Some(g) = Guarded::new() else { return };
    g.world
        .dhow(&[
            "retire",
            "--date",
            "2020-01-01",
            "--successor",
            "busybox:2",
            "busybox",
        ])
        .exits(0);
    let ended = "[[rule]]\nname = \"ended\"\naction = \"deny\"\nlifecycle = \"end-of-life\"\n";
    let run = ["run", "--rm", "--network", "none", "busybox", "/bin/true"];
    g.ruled(ended, &run)
        .exits(125)
        .says("its life ended on 2020-01-01")
        .says("busybox:2");
    g.world.dhow(&run).exits(0);
    g.world.dhow(&["retire", "--undo", "busybox"]).exits(0);
    g.ruled(ended, &run).exits(0);
}

#[test]
fn an_image_that_somebody_who_may_has_called_back_is_refused_wherever_it_is_pulled() {
    let Some(g) = Guarded::new() else { return };
    let image = g.publish("a/app:1", None, "bundle");
    let other = g.publish("b/app:1", None, "bundle");
    for name in [&image, &other] {
        g.world.dhow(&["pull", "-q", name]).exits(0);
    }
    let (ada, bob) = (g.file("ada.key"), g.file("bob.key"));
    let retire = |key: &str, more: &[&str], name: &str| {
        let mut args = vec!["retire", "--push", "--key", key];
        args.extend(more);
        args.push(name);
        g.world.dhow(&args).exits(0).says("attached to");
    };
    let harm: &[&str] = &["--revoke", "--date", "2020-01-01", "--reason", "it steals"];
    let Some(theirs) = World::new() else { return };
    let policy = format!(
        "version = 1\n[signer.ada]\nkeys = [\"{}\"]\n[[lifecycle]]\nimages = [\"{}/a/**\"]\nsigned-by = [\"ada\"]\n",
        g.file("ada.pub"),
        image.split('/').next().unwrap(),
    );
    let policy = theirs.file("policy.toml", policy);
    let call = |args: &[&str]| under(&theirs, None, Some(&policy), args);
    let run = |name: &str| {
        call(&["pull", name]).exits(0);
        call(&["run", "--rm", "--network", "none", name, "/bin/true"])
    };
    // Who may not say so warns, and so does who may, of an image that is not among those.
    retire(&bob, harm, &image);
    run(&image)
        .exits(0)
        .says("it has been revoked since 2020-01-01: it steals");
    retire(&ada, harm, &other);
    run(&other).exits(0).says("it has been revoked");
    retire(&ada, harm, &image);
    run(&image)
        .exits(125)
        .says("it has been revoked since 2020-01-01: it steals (signed by ada)");
    // Whoever has the registry takes the statement away: it was seen.
    let bare = format!("docker://{image}");
    g.world
        .dhow(&["copy", &bare, &format!("docker://{}", g.image("a/copy:1"))])
        .exits(0);
    let copy = g.image("a/copy:1");
    run(&copy).exits(125).says("signed by ada");
    // Who knows better here is not told the same again.
    theirs.dhow(&["retire", "--undo", &image]).exits(0);
    run(&image).exits(0);
    // It is taken back where it was said, and the old statement does not count any more.
    retire(&ada, harm, &image);
    run(&image).exits(125);
    g.world
        .dhow(&["retire", "--undo", "--push", &image])
        .exits(1)
        .says("needs --key");
    retire(&ada, &["--undo"], &image);
    let ran = run(&image).exits(0);
    assert!(!ran.stderr.contains("signed by"), "{ran:?}");
    theirs.clean();
}

#[test]
fn a_statement_of_the_future_keeps_no_later_one_from_counting() {
    let Some(g) = Guarded::new() else { return };
    let image = g.publish("a/app:1", None, "bundle");
    let key = g.file("ada.key");
    let kind = "https://github.com/dhow-project/dhow/blob/main/docs/signatures.md#lifecycle/v1";
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let predicate = format!(r#"{{"issued": {}, "annotations": {{}}}}"#, now + 2 * 86_400);
    let predicate = g.world.file("predicate.json", predicate).display().to_string();
    g.world
        .dhow(&[
            "attest",
            "--key",
            &key,
            "--type",
            kind,
            "--predicate",
            &predicate,
            &image,
        ])
        .exits(0);
    let policy = format!(
        "[[lifecycle]]\nimages = [\"{}/a/**\"]\nsigned-by = [\"ada\"]\n",
        g.served.host()
    );
    g.ruled(&policy, &["pull", &image])
        .exits(1)
        .says("what ada signed of the end of the image is of the future");
    // What is said today counts.
    g.world.dhow(&["pull", "-q", &image]).exits(0);
    let harm = ["--revoke", "--date", "2020-01-01", "--reason", "it steals"];
    let retire = [&["retire", "--push", "--key", &key][..], &harm, &[&image]].concat();
    g.world.dhow(&retire).exits(0);
    g.world.dhow(&["retire", "--undo", &image]).exits(0);
    g.world.dhow(&["rmi", &image]).exits(0);
    let Some(theirs) = World::new() else { return };
    let policy = g.world.path("policy.toml");
    let call = |args: &[&str]| under(&theirs, None, Some(&policy), args);
    call(&["pull", &image]).exits(0);
    call(&["run", "--rm", "--network", "none", &image, "/bin/true"])
        .exits(125)
        .says("it steals (signed by ada)");
    theirs.clean();
}

#[test]
fn a_tag_that_is_moved_back_or_not_stated_any_more_is_not_pulled() {
    let Some(g) = Guarded::new() else { return };
    let rule = format!("{SIGNED}tag-stated = true\n");
    let image = g.publish("a/app:1", Some("ada"), "bundle");
    let (key, bob) = (g.file("ada.key"), g.file("bob.key"));
    let pull = || {
        g.world.dhow(&["rmi", &image]);
        g.ruled(&rule, &["pull", &image])
    };
    let state = |key: &str, more: &[&str], name: &str| {
        let mut args = vec!["sign", "--key", key, "--tag-statement"];
        args.extend(more);
        args.push(name);
        g.world.dhow(&args).exits(0);
    };
    pull().exits(1).says("did not state");
    // Neither somebody else nor a statement about another tag helps.
    state(&bob, &[], &image);
    pull().exits(1).says("did not state");
    let other = g.publish("a/app:2", Some("ada"), "bundle");
    state(&key, &[], &other);
    pull().exits(1).says("did not state");
    state(&key, &[], &image);
    pull().exits(0);
    let old = format!("docker://{}", g.image("a/app:old"));
    let tag = format!("docker://{image}");
    g.world.dhow(&["copy", "--referrers", &tag, &old]).exits(0);
    // A newer image under the tag, a second later.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    g.world
        .dhow(&["copy", &format!("docker://{other}"), &tag])
        .exits(0);
    pull().exits(1).says("did not state");
    state(&key, &["--expiry", "2s"], &image);
    pull().exits(0);
    // Whoever has the registry moves the tag back to what was signed and stated before.
    g.world.dhow(&["copy", "--referrers", &old, &tag]).exits(0);
    pull().exits(1).says("moved back");
    // Or holds it for longer than was stated.
    g.world
        .dhow(&["copy", &format!("docker://{other}"), &tag])
        .exits(0);
    std::thread::sleep(std::time::Duration::from_millis(2100));
    pull().exits(1).says("expired");
    // By digest there is no tag.
    g.world
        .dhow(&[
            "sign",
            "--key",
            &key,
            "--tag-statement",
            &format!("{}@sha256:{}", g.image("a/app"), "0".repeat(64)),
        ])
        .exits(1);
}

#[test]
fn the_image_of_each_platform_is_judged_by_the_name_and_the_signature_of_its_index() {
    let Some(g) = Guarded::new() else { return };
    let name = g.image("a/many:1");
    let platforms = ["linux/amd64", "linux/arm64"];
    let build = [
        "build",
        "--platform",
        "linux/amd64,linux/arm64",
        "-t",
        &name,
        "--push",
        "-",
    ];
    let recipe = "FROM scratch\nARG TARGETARCH\nLABEL machine=$TARGETARCH\nCMD [\"/none\"]\n";
    g.world.feed(&build, recipe).exits(0);
    let key = g.file("ada.key");
    g.world
        .dhow(&["sign", "--key", &key, "--format", "bundle", &name])
        .exits(0);
    for platform in platforms {
        g.ruled(SIGNED, &["pull", "--platform", platform, &name]).exits(0);
    }
    let here = format!("images = [\"{}/a/**\"]\n", g.served.host());
    let bob = SIGNED.replace("ada", "bob");
    for platform in platforms {
        let create = ["create", "--pull", "never", "--platform", platform, &name];
        for good in [SIGNED.to_owned(), format!("{SIGNED}{here}")] {
            g.ruled(&good, &create).exits(0);
        }
        for bad in [bob.clone(), format!("{bob}{here}")] {
            g.ruled(&bad, &create)
                .exits(125)
                .says(&format!("policy denies run of {name}"))
                .says("not signed by bob");
        }
        g.world
            .file("context/Dockerfile", format!("FROM {name}\nLABEL more=1\n"));
        let context = g.file("context");
        let build = ["build", "-q", "--platform", platform, &context];
        g.ruled(&bob, &build).exits(1).says("not signed by bob");
        g.ruled(SIGNED, &build).exits(0);
    }
}
