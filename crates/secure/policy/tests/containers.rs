use dhow_policy::{Containers, IdentityMatch, Key, Requirement};
use dhow_reference::Reference;
use proptest::prelude::*;

fn reference(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

const POLICY: &str = r#"{
  "default": [{"type": "reject"}],
  "transports": {
    "docker": {
      "registry.example": [{"type": "insecureAcceptAnything"}],
      "registry.example/team": [{"type": "sigstoreSigned", "keyPath": "/k/team.pub"}],
      "registry.example/team/app": [{"type": "sigstoreSigned", "keyPaths": ["/k/a.pub", "/k/b.pub"]}],
      "registry.example/team/app:1": [{"type": "sigstoreSigned", "keyData": "QUJD", "signedIdentity": {"type": "matchRepository"}}],
      "*.corp.example": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k/gpg"}],
      "docker.io/library": [{"type": "insecureAcceptAnything"}]
    },
    "docker-daemon": {"": [{"type": "insecureAcceptAnything"}]}
  }
}"#;

#[test]
fn the_longest_scope_that_has_an_image_counts() {
    let policy = Containers::parse(POLICY).unwrap();
    for (name, scope) in [
        ("registry.example/x:1", "docker \"registry.example\""),
        (
            "registry.example/team/other:1",
            "docker \"registry.example/team\"",
        ),
        ("registry.example/teams/other:1", "docker \"registry.example\""),
        (
            "registry.example/team/app:2",
            "docker \"registry.example/team/app\"",
        ),
        (
            "registry.example/team/app:1",
            "docker \"registry.example/team/app:1\"",
        ),
        (
            "registry.example/team/app/sub:1",
            "docker \"registry.example/team/app\"",
        ),
        ("a.b.corp.example/x:1", "docker \"*.corp.example\""),
        ("corp.example/x:1", "default"),
        ("debian:12", "docker \"docker.io/library\""),
        ("user/app:1", "default"),
        ("registry.example:5000/x:1", "default"),
    ] {
        assert_eq!(policy.requirements(&reference(name)).0, scope, "{name}");
    }
    let (_, list) = policy.requirements(&reference("registry.example/team/app:2"));
    let keys = list[0].sigstore_keys().unwrap();
    assert_eq!(keys, [Key::File("/k/a.pub".into()), Key::File("/k/b.pub".into())]);
    let (_, list) = policy.requirements(&reference("registry.example/team/app:1"));
    assert_eq!(list[0].sigstore_keys().unwrap(), [Key::Pem(b"ABC".to_vec())]);
    assert_eq!(list[0].identity(), IdentityMatch::MatchRepository {});
    let (_, list) = policy.requirements(&reference("a.corp.example/x"));
    assert!(list[0].unsupported().is_some_and(|why| why.contains("GPG")));
    assert_eq!(
        policy.requirements(&reference("user/app")).1,
        [Requirement::Reject {}]
    );
}

#[test]
fn a_policy_with_a_word_that_is_not_known_or_nothing_to_ask_is_none() {
    for bad in [
        "",
        "{}",
        "[]",
        r#"{"default": []}"#,
        r#"{"default": [{"type": "accept"}]}"#,
        r#"{"default": [{"type": "reject", "unless": 1}]}"#,
        r#"{"default": [{"type": "reject"}], "transport": {}}"#,
        r#"{"default": [{"type": "reject"}], "default": [{"type": "insecureAcceptAnything"}]}"#,
        r#"{"default": [{"type": "sigstoreSigned"}]}"#,
        r#"{"default": [{"type": "sigstoreSigned", "keyPath": "/a", "keyData": "QQ=="}]}"#,
        r#"{"default": [{"type": "sigstoreSigned", "keyPaths": []}]}"#,
        r#"{"default": [{"type": "sigstoreSigned", "keyData": "!"}]}"#,
        r#"{"default": [{"type": "sigstoreSigned", "keyPath": "/a", "signedIdentity": {"type": "matchAny"}}]}"#,
        r#"{"default": [{"type": "sigstoreSigned", "keyPath": "/a", "signedIdentity": {"type": "exactReference", "dockerReference": "x/y"}}]}"#,
        r#"{"default": [{"type": "signedBy", "keyType": "GPGKeys"}]}"#,
        r#"{"default": [{"type": "sigstoreSigned", "keyPath": "/a", "rekorPublicKeyPath": "/r", "rekorPublicKeyData": "QQ=="}]}"#,
        r#"{"default": [{"type": "sigstoreSigned", "keyPath": "/a", "rekorPublicKeyPaths": []}]}"#,
        r#"{"default": [{"type": "sigstoreSigned", "keyPath": "/a", "rekorPublicKeyData": "!"}]}"#,
        r#"{"default": [{"type": "reject"}], "transports": {"docker": {"x": []}}}"#,
    ] {
        assert!(Containers::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn the_signed_name_counts_as_containers_policy_says() {
    let digest = format!("sha256:{}", "a".repeat(64));
    let pinned = format!("r.example/a/b@{digest}");
    let json = |text: &str| serde_json::from_str::<IdentityMatch>(text).unwrap();
    let exact = json(r#"{"type": "matchExact"}"#);
    let usual = json(r#"{"type": "matchRepoDigestOrExact"}"#);
    let repository = json(r#"{"type": "matchRepository"}"#);
    let one = json(r#"{"type": "exactReference", "dockerReference": "r.example/a/b:1"}"#);
    let all = json(r#"{"type": "exactRepository", "dockerRepository": "r.example/a/b"}"#);
    let remap =
        json(r#"{"type": "remapIdentity", "prefix": "mirror.example/copy", "signedPrefix": "r.example"}"#);
    let (tagged, other) = ("r.example/a/b:1", "r.example/a/b:2");
    for (rule, wanted, signed, fits) in [
        (&exact, tagged, tagged, true),
        (&exact, tagged, other, false),
        (&exact, &*pinned, &*pinned, true),
        (&exact, &*pinned, tagged, false),
        (&exact, "r.example/a/b", "r.example/a/b", false),
        (&usual, tagged, tagged, true),
        (&usual, tagged, other, false),
        (&usual, tagged, "r.example/a/b", false),
        (&usual, &*pinned, other, true),
        (&usual, &*pinned, "r.example/a/c:1", false),
        (&repository, tagged, other, true),
        (&repository, tagged, "r.example/a/bb:1", false),
        (&one, "r.example/x:7", tagged, true),
        (&one, "r.example/x:7", other, false),
        (&all, "r.example/x:7", other, true),
        (&remap, "mirror.example/copy/a/b:1", tagged, true),
        (&remap, "mirror.example/copy/a/b:1", other, false),
        (&remap, "mirror.example/copying/a/b:1", tagged, false),
        (&remap, tagged, tagged, true),
        (&usual, tagged, "", false),
        (&usual, tagged, "UPPER/x", false),
    ] {
        assert_eq!(
            rule.fits(&reference(wanted), signed),
            fits,
            "{rule:?} {wanted} {signed}"
        );
    }
}

/// A policy of one `sigstoreSigned` with these words.
fn sigstore(words: &str) -> Result<Requirement, String> {
    let text = format!(r#"{{"default": [{{"type": "sigstoreSigned", {words}}}]}}"#);
    let policy = Containers::parse(&text).map_err(|error| error.to_string())?;
    let (_, list) = policy.requirements(&reference("debian"));
    Ok(list[0].clone())
}

#[test]
fn fulcio_needs_one_authority_a_person_and_a_log() {
    let fulcio = r#""fulcio": {"caPath": "/ca", "oidcIssuer": "https://i", "subjectEmail": "a@b"}"#;
    let read = sigstore(&format!(r#"{fulcio}, "rekorPublicKeyDatas": ["QUJD", "REVG"]"#)).unwrap();
    assert_eq!(read.unsupported(), None);
    let logs = [b"ABC".to_vec(), b"DEF".to_vec()].map(Key::Pem);
    assert_eq!(read.log_keys().unwrap(), logs);
    let Requirement::SigstoreSigned {
        fulcio: Some(person), ..
    } = &read
    else {
        panic!("{read:?}");
    };
    assert_eq!(person.authorities().unwrap(), [Key::File("/ca".into())]);
    assert_eq!(
        (&*person.oidc_issuer, &*person.subject_email),
        ("https://i", "a@b")
    );
    let log = r#""rekorPublicKeyPath": "/r""#;
    for bad in [
        fulcio.to_owned(),
        format!(r#"{fulcio}, {log}, "keyPath": "/k""#),
        format!(r#""fulcio": {{"oidcIssuer": "i", "subjectEmail": "a@b"}}, {log}"#),
        format!(
            r#""fulcio": {{"caPath": "/c", "caData": "QQ==", "oidcIssuer": "i", "subjectEmail": "a@b"}}, {log}"#
        ),
        format!(r#""fulcio": {{"caData": "!", "oidcIssuer": "i", "subjectEmail": "a@b"}}, {log}"#),
        format!(r#""fulcio": {{"caPath": "/c", "oidcIssuer": "", "subjectEmail": "a@b"}}, {log}"#),
        format!(r#""fulcio": {{"caPath": "/c", "oidcIssuer": "i"}}, {log}"#),
        format!(r#""fulcio": {{"caPath": "/c", "oidcIssuer": "i", "subjectEmail": "a@b", "any": 1}}, {log}"#),
    ] {
        assert!(sigstore(&bad).is_err(), "{bad}");
    }
}

#[test]
fn pki_needs_one_root_somebody_and_no_log() {
    let read = sigstore(
        r#""pki": {"caRootsData": "QUJD", "caIntermediatesPath": "/between", "subjectHostname": "h.example"}"#,
    );
    let read = read.unwrap();
    assert_eq!(read.unsupported(), None);
    let Requirement::SigstoreSigned { pki: Some(pki), .. } = &read else {
        panic!("{read:?}");
    };
    assert_eq!(pki.roots().unwrap(), [Key::Pem(b"ABC".to_vec())]);
    assert_eq!(pki.between().unwrap(), [Key::File("/between".into())]);
    assert_eq!(
        (pki.subject_email.as_deref(), pki.subject_hostname.as_deref()),
        (None, Some("h.example"))
    );
    for bad in [
        r#""pki": {"caRootsPath": "/r"}"#,
        r#""pki": {"subjectEmail": "a@b"}"#,
        r#""pki": {"caRootsPath": "/r", "caRootsData": "QQ==", "subjectEmail": "a@b"}"#,
        r#""pki": {"caRootsPath": "/r", "subjectEmail": ""}"#,
        r#""pki": {"caRootsPath": "/r", "subjectEmail": "a@b", "caIntermediatesPath": "/i", "caIntermediatesData": "QQ=="}"#,
        r#""pki": {"caRootsPath": "/r", "subjectEmail": "a@b"}, "rekorPublicKeyPath": "/k""#,
        r#""pki": {"caRootsPath": "/r", "subjectEmail": "a@b"}, "keyPath": "/k""#,
    ] {
        assert!(sigstore(bad).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_without_panic(text in "[ -~]{0,120}", name in "([a-z]{1,4}[./:]){0,6}[a-z]{1,4}") {
        drop(Containers::parse(&text));
        if let Ok(name) = Reference::parse(&name) {
            prop_assert!(!Containers::parse(POLICY).unwrap().requirements(&name).1.is_empty());
        }
    }
}
