use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dhow_types::{Digest, ErrorKind};
use serde_json::{Value, json};

use super::fixture::{ISSUER, Made, NOW, WHO, World, found, target};
use crate::{Error, Form, Identity, Pattern, Signer, Trust, TrustedRoot, Verified};

fn verify(trust: &Trust, bundle: &Value) -> Result<Verified, Error> {
    trust.verify(&found(Form::Bundle, bundle.to_string().into_bytes()), &target())
}

fn refused(trust: &Trust, bundle: &Value, kind: ErrorKind, why: &str) {
    let error = verify(trust, bundle).unwrap_err();
    assert!(
        error.kind() == kind && error.to_string().contains(why),
        "{:?} {error}",
        error.kind()
    );
}

const DENIED: ErrorKind = ErrorKind::PermissionDenied;
const MISSING: ErrorKind = ErrorKind::FailedPrecondition;

#[test]
fn a_short_lived_certificate_counts_long_after_its_end_by_the_word_of_the_log() {
    let world = World::new();
    let verified = verify(&world.trust(), &world.bundle(&Made::default())).unwrap();
    assert_eq!(
        verified.signer,
        Signer::Identity(WHO.to_owned(), ISSUER.to_owned())
    );
    assert_eq!((verified.signed_at, verified.logged), (Some(NOW - 3540), true));
}

#[test]
fn whoever_is_not_asked_for_is_refused_also_with_a_name_that_is_alike() {
    let world = World::new();
    for (who, issuer) in [
        ("bob@example.org", ISSUER),
        (WHO, "https://evil.example"),
        ("ada@example.org.evil.example", ISSUER),
        ("x+ada@example.org", ISSUER),
    ] {
        let bundle = world.bundle(&Made {
            who,
            issuer,
            ..Made::default()
        });
        refused(&world.trust(), &bundle, DENIED, "not asked for");
        let like = Trust {
            identities: vec![Identity {
                name: Pattern::like("ada@example.org").unwrap(),
                issuer: Some(Pattern::like("https://accounts.*").unwrap()),
            }],
            ..world.trust()
        };
        refused(&like, &bundle, DENIED, "not asked for");
        assert!(verify(&like, &world.bundle(&Made::default())).is_ok());
    }
    let nobody = Trust {
        identities: Vec::new(),
        ..world.trust()
    };
    refused(
        &nobody,
        &world.bundle(&Made::default()),
        MISSING,
        "nobody is named",
    );
    // A name without who vouched for it is nobody's.
    let any_issuer = Trust {
        identities: vec![Identity {
            name: Pattern::Exactly(WHO.to_owned()),
            issuer: None,
        }],
        ..world.trust()
    };
    refused(
        &any_issuer,
        &world.bundle(&Made::default()),
        DENIED,
        "not asked for",
    );
}

#[test]
fn a_signature_made_outside_the_life_of_its_certificate_is_refused() {
    let world = World::new();
    for after in [-1, 601] {
        let bundle = world.bundle(&Made {
            after,
            ..Made::default()
        });
        refused(
            &world.trust(),
            &bundle,
            DENIED,
            if after < 0 { "not valid before" } else { "expired" },
        );
    }
    let tls = world.bundle(&Made {
        purpose: &[0x2b, 6, 1, 5, 5, 7, 3, 1],
        ..Made::default()
    });
    refused(&world.trust(), &tls, DENIED, "not trusted");
}

#[test]
fn another_authority_or_another_log_is_not_believed() {
    let (world, evil) = (World::new(), World::new());
    refused(
        &world.trust(),
        &evil.bundle(&Made::default()),
        DENIED,
        "does not have this log",
    );
    // Its own log, but our certificate authority's name.
    let mut document = world.root_document();
    document["tlogs"] = evil.root_document()["tlogs"].clone();
    let mixed = Trust {
        root: Some(TrustedRoot::parse(document.to_string().as_bytes()).unwrap()),
        ..world.trust()
    };
    refused(&mixed, &evil.bundle(&Made::default()), DENIED, "not trusted");
    let mut document = world.root_document();
    document["certificateAuthorities"] = json!([]);
    let none = Trust {
        root: Some(TrustedRoot::parse(document.to_string().as_bytes()).unwrap()),
        ..world.trust()
    };
    refused(
        &none,
        &world.bundle(&Made::default()),
        MISSING,
        "no certificate authority",
    );
    let mut document = world.root_document();
    document["certificateAuthorities"][0]["validFor"]["end"] = "2026-01-01T00:00:00Z".into();
    let ended = Trust {
        root: Some(TrustedRoot::parse(document.to_string().as_bytes()).unwrap()),
        ..world.trust()
    };
    refused(&ended, &world.bundle(&Made::default()), DENIED, "in use on");
    let without = Trust {
        root: None,
        ..world.trust()
    };
    refused(
        &without,
        &world.bundle(&Made::default()),
        MISSING,
        "no trusted root",
    );
}

#[test]
fn a_certificate_must_be_in_a_log_of_certificates_where_the_root_has_one() {
    let (world, other) = (World::new(), World::new());
    let hidden = world.bundle(&Made {
        in_log: false,
        ..Made::default()
    });
    refused(&world.trust(), &hidden, DENIED, "no timestamp of one");
    let mut document = world.root_document();
    document["ctlogs"][0]["publicKey"]["rawBytes"] =
        other.root_document()["ctlogs"][0]["publicKey"]["rawBytes"].clone();
    let rooted = |document: &Value| Trust {
        root: Some(TrustedRoot::parse(document.to_string().as_bytes()).unwrap()),
        ..world.trust()
    };
    // Its name, another key.
    refused(
        &rooted(&document),
        &world.bundle(&Made::default()),
        DENIED,
        "no timestamp of it holds",
    );
    document["ctlogs"] = other.root_document()["ctlogs"].clone();
    refused(
        &rooted(&document),
        &world.bundle(&Made::default()),
        DENIED,
        "no timestamp of it holds",
    );
    document["ctlogs"] = json!([]);
    assert!(verify(&rooted(&document), &hidden).is_ok());
}

#[test]
fn what_the_log_says_must_be_whole_and_of_this_signature() {
    let world = World::new();
    let trust = world.trust();
    let good = world.bundle(&Made::default());
    let edited = |edit: &dyn Fn(&mut Value)| {
        let mut bundle = good.clone();
        edit(&mut bundle["verificationMaterial"]["tlogEntries"]);
        bundle
    };
    refused(
        &trust,
        &edited(&|entries| *entries = json!([])),
        MISSING,
        "in no log",
    );
    let neither = |entries: &mut Value| {
        for part in ["inclusionPromise", "inclusionProof"] {
            entries[0].as_object_mut().unwrap().remove(part);
        }
    };
    refused(&trust, &edited(&neither), DENIED, "neither");
    let no_promise =
        |entries: &mut Value| drop(entries[0].as_object_mut().unwrap().remove("inclusionPromise"));
    refused(&trust, &edited(&no_promise), MISSING, "says when");
    // The time is part of the promise.
    refused(
        &trust,
        &edited(&|entries| entries[0]["integratedTime"] = (NOW - 3500).to_string().into()),
        DENIED,
        "sign its promise",
    );
    refused(
        &trust,
        &edited(&|entries| entries[0]["inclusionProof"]["hashes"] = json!([])),
        DENIED,
        "not in the tree",
    );
    refused(
        &trust,
        &edited(&|entries| entries[0]["inclusionProof"]["logIndex"] = "0".into()),
        DENIED,
        "not in the tree",
    );
    refused(
        &trust,
        &edited(&|entries| entries[0]["inclusionProof"]["treeSize"] = "3".into()),
        DENIED,
        "",
    );
    let other_root = |entries: &mut Value| {
        let note = entries[0]["inclusionProof"]["checkpoint"]["envelope"]
            .as_str()
            .unwrap()
            .replace("\n2\n", "\n4\n");
        entries[0]["inclusionProof"]["checkpoint"]["envelope"] = note.into();
    };
    refused(&trust, &edited(&other_root), DENIED, "another tree");
    let unsigned = |entries: &mut Value| {
        let note = entries[0]["inclusionProof"]["checkpoint"]["envelope"]
            .as_str()
            .unwrap();
        let note = note.replace("log.example - 1\n", "log.example - 2\n");
        entries[0]["inclusionProof"]["checkpoint"]["envelope"] = note.into();
    };
    refused(&trust, &edited(&unsigned), DENIED, "did not sign the root");
    // An entry of another signature of the same signer, whole in itself.
    let other = world.bundle(&Made::default());
    let stolen = |entries: &mut Value| *entries = other["verificationMaterial"]["tlogEntries"].clone();
    refused(&trust, &edited(&stolen), DENIED, "another");
    let both = |entries: &mut Value| {
        let more = other["verificationMaterial"]["tlogEntries"][0].clone();
        entries.as_array_mut().unwrap().push(more);
    };
    refused(&trust, &edited(&both), DENIED, "another");
    let many = |entries: &mut Value| {
        let one = entries[0].clone();
        *entries = Value::Array(vec![one; 9]);
    };
    refused(&trust, &edited(&many), ErrorKind::InvalidArgument, "too many");
}

#[test]
fn a_time_stamp_stands_for_the_logs_promise_when_it_is_of_this_signature_by_a_trusted_clock() {
    let world = World::new();
    let trust = world.trust();
    let mut bundle = world.bundle(&Made::default());
    drop(
        bundle["verificationMaterial"]["tlogEntries"][0]
            .as_object_mut()
            .unwrap()
            .remove("inclusionPromise"),
    );
    let signature = STANDARD
        .decode(bundle["dsseEnvelope"]["signatures"][0]["sig"].as_str().unwrap())
        .unwrap();
    let mut stamped = |stamp: String| {
        bundle["verificationMaterial"]["timestampVerificationData"] =
            json!({"rfc3161Timestamps": [{"signedTimestamp": stamp}]});
        bundle.clone()
    };
    let good = stamped(world.stamp(&signature, NOW - 3300));
    assert_eq!(verify(&trust, &good).unwrap().signed_at, Some(NOW - 3300));
    refused(
        &trust,
        &stamped(world.stamp(&signature, NOW - 100)),
        DENIED,
        "expired",
    );
    refused(
        &trust,
        &stamped(world.stamp(b"another", NOW - 3300)),
        DENIED,
        "another signature",
    );
    refused(
        &trust,
        &stamped(World::new().stamp(&signature, NOW - 3300)),
        DENIED,
        "no authority",
    );
    let stamp = STANDARD.decode(world.stamp(&signature, NOW - 3300)).unwrap();
    for at in 0..stamp.len() {
        let mut changed = stamp.clone();
        changed[at] ^= 1;
        if let Ok(verified) = verify(&trust, &stamped(STANDARD.encode(changed))) {
            assert_eq!(verified.signed_at, Some(NOW - 3300), "byte {at}");
        }
    }
}

#[test]
fn cosigns_older_form_is_judged_alike() {
    use crate::{PrivateKey, simple};
    let world = World::new();
    let key = PrivateKey::generate().unwrap();
    let leaf = world.leaf(&key, &Made::default());
    let (content, mut annotations) =
        simple::sign(&key, "r/a", &target().digest, &dhow_oci::Labels::new()).unwrap();
    let body = json!({"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": {
        "data": {"hash": {"algorithm": "sha256", "value": Digest::of(&content).hex()}},
        "signature": {"content": annotations[simple::SIGNATURE], "publicKey": {"content": STANDARD.encode(leaf.to_pem())}}}});
    let entry = world.entry(&body, NOW - 3500);
    let id = STANDARD
        .decode(entry["logId"]["keyId"].as_str().unwrap())
        .unwrap();
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let promise = json!({"SignedEntryTimestamp": entry["inclusionPromise"]["signedEntryTimestamp"],
        "Payload": {"body": entry["canonicalizedBody"], "integratedTime": NOW - 3500, "logIndex": 1, "logID": id}});
    annotations.insert("dev.sigstore.cosign/certificate".to_owned(), leaf.to_pem());
    annotations.insert("dev.sigstore.cosign/bundle".to_owned(), promise.to_string());
    let mut signed = found(Form::Simple, content);
    signed.annotations = annotations;
    let verified = world.trust().verify(&signed, &target()).unwrap();
    assert_eq!(
        verified.signer,
        Signer::Identity(WHO.to_owned(), ISSUER.to_owned())
    );
    signed.annotations.remove("dev.sigstore.cosign/bundle");
    let error = world.trust().verify(&signed, &target()).unwrap_err();
    assert_eq!(error.kind(), MISSING, "{error}");
}

#[test]
fn a_key_and_a_trusted_root_ask_for_a_log_entry_by_that_key() {
    use crate::{PrivateKey, Statement, bundle};
    let world = World::new();
    let key = PrivateKey::generate().unwrap();
    let statement = Statement::new(
        "",
        &target().digest,
        crate::SIGNED,
        json!({}),
        dhow_oci::Labels::new(),
    );
    let mut signed: Value = serde_json::from_slice(&bundle::sign(&key, &statement).unwrap()).unwrap();
    let trust = Trust {
        keys: vec![key.public().clone()],
        ..world.trust()
    };
    refused(&trust, &signed, MISSING, "in no log");
    let payload = STANDARD
        .decode(signed["dsseEnvelope"]["payload"].as_str().unwrap())
        .unwrap();
    let body = json!({"apiVersion": "0.0.2", "kind": "dsse", "spec": {"dsseV002": {
        "payloadHash": {"algorithm": "SHA2_256", "digest": STANDARD.encode(Digest::of(&payload).as_bytes())},
        "signatures": [{"content": signed["dsseEnvelope"]["signatures"][0]["sig"],
            "verifier": {"publicKey": {"rawBytes": STANDARD.encode(key.public().spki())}}}]}}});
    signed["verificationMaterial"]["tlogEntries"] = json!([world.entry(&body, NOW)]);
    assert!(verify(&trust, &signed).unwrap().logged);
}
