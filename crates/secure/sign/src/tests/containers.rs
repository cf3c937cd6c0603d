//! What `policy.json` of the containers tools trusts: keys with logs, one person of an authority, certificates of one's own.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dhow_oci::Labels;
use dhow_types::{Digest, ErrorKind};
use serde_json::json;

use super::fixture::{
    ISSUER, Made, NOW, WHO, Wish, World, authority, by_key, certificate, extension, found, name, target,
};
use crate::der::{self, element, sequence};
use crate::{
    Certificate, Error, Form, Found, Identity, Pattern, Pki, PrivateKey, Signer, Trust, TrustedRoot,
    Verified, simple,
};

const DENIED: ErrorKind = ErrorKind::PermissionDenied;
const NAME: &str = "registry.example/app:1";

/// A simple signature, as cosign keeps it.
fn signed(key: &PrivateKey) -> Found {
    let (payload, annotations) = simple::sign(key, NAME, &target().digest, &Labels::new()).unwrap();
    Found {
        annotations,
        ..found(Form::Simple, payload)
    }
}

/// The same with a log's promise, made this many seconds after the certificate began to live.
fn logged(world: &World, key: &PrivateKey, verifier: &str, after: i64) -> Found {
    let mut one = signed(key);
    let body = json!({"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": {
        "data": {"hash": {"algorithm": "sha256", "value": Digest::of(&one.content).hex()}},
        "signature": {"content": one.annotations[simple::SIGNATURE],
            "publicKey": {"content": STANDARD.encode(verifier)}}}});
    let entry = world.entry(&body, NOW - 3600 + after);
    let id = Digest::of(world.log.public().spki()).hex();
    let promise = json!({
        "SignedEntryTimestamp": entry["inclusionPromise"]["signedEntryTimestamp"],
        "Payload": {"body": entry["canonicalizedBody"], "integratedTime": NOW - 3600 + after, "logIndex": 1, "logID": id}});
    one.annotations
        .insert("dev.sigstore.cosign/bundle".to_owned(), promise.to_string());
    one
}

fn of_certificate(mut one: Found, leaf: &Certificate, between: &[&Certificate]) -> Found {
    let pem = |key: &str, text: String| (format!("dev.sigstore.cosign/{key}"), text);
    one.annotations.extend([pem("certificate", leaf.to_pem())]);
    if !between.is_empty() {
        let chain = between.iter().map(|one| one.to_pem()).collect();
        one.annotations.extend([pem("chain", chain)]);
    }
    one
}

fn verify(trust: &Trust, one: &Found) -> Result<Verified, Error> {
    trust.verify(one, &target())
}

fn refused(trust: &Trust, one: &Found, why: &str) {
    let error = verify(trust, one).unwrap_err();
    assert!(
        error.to_string().contains(why),
        "{:?} {error}, not {why}",
        error.kind()
    );
}

/// One person of an authority, as `fulcio` with a `rekorPublicKey` names them.
fn one_person(authorities: Vec<Certificate>, world: &World) -> Trust {
    Trust {
        root: Some(TrustedRoot::of(authorities, vec![world.log.public().clone()])),
        identities: vec![Identity {
            name: Pattern::Email(WHO.to_owned()),
            issuer: Some(Pattern::Exactly(ISSUER.to_owned())),
        }],
        now: NOW,
        ..Trust::default()
    }
}

#[test]
fn one_person_of_an_authority_signs_with_the_word_of_a_log() {
    let world = World::new();
    let trust = one_person(vec![world.root.clone()], &world);
    let by = |made: &Made<'_>| {
        let key = PrivateKey::generate().unwrap();
        let leaf = world.leaf(&key, made);
        of_certificate(logged(&world, &key, &leaf.to_pem(), made.after), &leaf, &[])
    };
    let good = by(&Made::default());
    let verified = verify(&trust, &good).unwrap();
    assert_eq!(
        (verified.signer, verified.reference.as_deref(), verified.logged),
        (
            Signer::Identity(WHO.to_owned(), ISSUER.to_owned()),
            Some(NAME),
            true
        )
    );
    for (made, why) in [
        (
            Made {
                who: "bob@example.org",
                ..Made::default()
            },
            "not asked for",
        ),
        (
            Made {
                issuer: "https://evil.example",
                ..Made::default()
            },
            "not asked for",
        ),
        (
            Made {
                after: 700,
                ..Made::default()
            },
            "expired",
        ),
        (
            Made {
                purpose: &[0x2b, 6, 1, 5, 5, 7, 3, 1],
                ..Made::default()
            },
            "not trusted",
        ),
    ] {
        refused(&trust, &by(&made), why);
    }
    // Without the log's word, with another log's, and with that of another signature.
    let without = |key: &str| {
        let mut one = good.clone();
        one.annotations.remove(&format!("dev.sigstore.cosign/{key}"));
        one
    };
    refused(&trust, &without("bundle"), "in no log");
    refused(&trust, &without("certificate"), "no key is trusted");
    let other = World::new();
    refused(
        &one_person(vec![world.root.clone()], &other),
        &good,
        "does not have this log",
    );
    refused(
        &one_person(vec![other.root.clone()], &world),
        &good,
        "not trusted",
    );
    let mut swapped = by(&Made::default());
    swapped.annotations.insert(
        "dev.sigstore.cosign/bundle".to_owned(),
        good.annotations["dev.sigstore.cosign/bundle"].clone(),
    );
    refused(&trust, &swapped, "of another signature");
}

#[test]
fn an_address_of_mail_is_no_other_kind_of_name() {
    let world = World::new();
    let key = PrivateKey::generate().unwrap();
    let fulcio = [&[0x2b, 6, 1, 4, 1, 0x83, 0xbf, 0x30, 1][..], &[8]].concat();
    let code = element(der::OID, &[&[0x2b, 6, 1, 5, 5, 7, 3, 3]]);
    // The name of a person, as an URI.
    let san = sequence(&[&element(0x86, &[WHO.as_bytes()])]);
    let leaf = certificate(&Wish {
        key: &key,
        subject: &sequence(&[]),
        issuer: (&world.ca, &name("root")),
        validity: (NOW - 3600, NOW - 3000),
        extensions: vec![
            extension(&[0x55, 0x1d, 0x25], false, &sequence(&[&code])),
            extension(&[0x55, 0x1d, 0x11], true, &san),
            extension(&fulcio, false, &element(der::UTF8, &[ISSUER.as_bytes()])),
        ],
    });
    let one = of_certificate(logged(&world, &key, &leaf.to_pem(), 60), &leaf, &[]);
    let mut trust = one_person(vec![world.root.clone()], &world);
    refused(&trust, &one, "not asked for");
    trust.identities[0].name = Pattern::Exactly(WHO.to_owned());
    verify(&trust, &one).unwrap();
}

#[test]
fn a_key_counts_with_the_word_of_a_log_where_one_is_asked_for() {
    let world = World::new();
    let key = PrivateKey::generate().unwrap();
    let mut trust = by_key(&key);
    // What a certificate says that comes along is nothing to who trusts the key.
    let leaf = world.leaf(&key, &Made::default());
    verify(&trust, &of_certificate(signed(&key), &leaf, &[])).unwrap();
    trust.root = Some(TrustedRoot::of(Vec::new(), vec![world.log.public().clone()]));
    let one = logged(&world, &key, &key.public().to_pem(), 60);
    assert!(verify(&trust, &one).unwrap().logged);
    refused(&trust, &signed(&key), "in no log");
    refused(
        &trust,
        &logged(&World::new(), &key, &key.public().to_pem(), 60),
        "does not have this log",
    );
    let stranger = PrivateKey::generate().unwrap();
    refused(
        &trust,
        &logged(&world, &stranger, &stranger.public().to_pem(), 60),
        "by no key",
    );
}

/// A root, an authority under it, and who that vouches for.
struct Own {
    root: Certificate,
    between: Certificate,
    authority: PrivateKey,
    key: PrivateKey,
}

impl Own {
    fn new() -> Self {
        let (root_key, authority_key) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        let validity = (NOW - 86_400, NOW + 86_400);
        let basic = extension(&[0x55, 0x1d, 0x13], true, &sequence(&[&[1, 1, 0xff]]));
        Self {
            root: authority(&root_key, "own root", validity),
            between: certificate(&Wish {
                key: &authority_key,
                subject: &name("own between"),
                issuer: (&root_key, &name("own root")),
                validity,
                extensions: vec![basic],
            }),
            authority: authority_key,
            key: PrivateKey::generate().unwrap(),
        }
    }

    fn leaf(&self, validity: (i64, i64), purpose: u8) -> Certificate {
        let purpose = element(der::OID, &[&[0x2b, 6, 1, 5, 5, 7, 3, purpose]]);
        let san = sequence(&[
            &element(0x81, &[WHO.as_bytes()]),
            &element(0x82, &[b"*.build.example"]),
        ]);
        certificate(&Wish {
            key: &self.key,
            subject: &name("builder"),
            issuer: (&self.authority, &name("own between")),
            validity,
            extensions: vec![
                extension(&[0x55, 0x1d, 0x0f], true, &[3, 2, 7, 0x80]),
                extension(&[0x55, 0x1d, 0x25], false, &sequence(&[&purpose])),
                extension(&[0x55, 0x1d, 0x11], false, &san),
            ],
        })
    }

    fn trust(&self, email: Option<&str>, host: Option<&str>) -> Trust {
        Trust {
            pki: Some(Pki {
                roots: vec![self.root.clone()],
                between: Vec::new(),
                email: email.map(str::to_owned),
                host: host.map(str::to_owned),
            }),
            now: NOW,
            ..Trust::default()
        }
    }
}

#[test]
fn certificates_of_ones_own_count_while_they_are_good_and_for_whom_they_are() {
    let own = Own::new();
    let leaf = own.leaf((NOW - 100, NOW + 100), 3);
    let whole = of_certificate(signed(&own.key), &leaf, &[&own.between, &own.root]);
    for (email, host) in [
        (Some(WHO), None),
        (None, Some("one.build.example")),
        (Some(WHO), Some("two.build.example")),
    ] {
        let verified = verify(&own.trust(email, host), &whole).unwrap();
        assert!(
            matches!(verified.signer, Signer::Certificate(..)),
            "{email:?} {host:?}"
        );
    }
    for (email, host) in [
        (Some("bob@example.org"), None),
        (Some(WHO), Some("build.example")),
        (None, Some("a.b.build.example")),
        (Some("*.build.example"), None),
        (None, Some("not a host")),
        (None, None),
    ] {
        refused(&own.trust(email, host), &whole, "not asked for");
    }
    let trust = own.trust(Some(WHO), None);
    // Who stands between may be named, too, when it does not come along.
    let alone = of_certificate(signed(&own.key), &leaf, &[]);
    refused(&trust, &alone, "does not lead to a trusted authority");
    let mut named = own.trust(Some(WHO), None);
    named.pki.as_mut().unwrap().between.push(own.between.clone());
    verify(&named, &alone).unwrap();
    // It is over, not yet, for another purpose, or of another root, which it brings along.
    for (validity, purpose, why) in [
        ((NOW - 100, NOW - 1), 3, "expired"),
        ((NOW + 1, NOW + 100), 3, "not valid before"),
        ((NOW - 100, NOW + 100), 1, "not trusted"),
    ] {
        let leaf = own.leaf(validity, purpose);
        refused(
            &trust,
            &of_certificate(signed(&own.key), &leaf, &[&own.between]),
            why,
        );
    }
    let other = Own::new();
    let leaf = other.leaf((NOW - 100, NOW + 100), 3);
    let foreign = of_certificate(signed(&other.key), &leaf, &[&other.between, &other.root]);
    refused(&trust, &foreign, "not trusted");
    // The certificate is right, and the signature somebody else's.
    let stolen = of_certificate(
        signed(&other.key),
        &own.leaf((NOW - 100, NOW + 100), 3),
        &[&own.between],
    );
    assert_eq!(verify(&trust, &stolen).unwrap_err().kind(), DENIED);
    refused(&trust, &stolen, "not that of its certificate's key");
    // Without a certificate it is by a key, and none is trusted.
    refused(&trust, &signed(&own.key), "no key is trusted");
    let long: Vec<&Certificate> = vec![&own.between; 9];
    refused(
        &trust,
        &of_certificate(signed(&own.key), &leaf, &long),
        "too long",
    );
}
