use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use dhow_oci::{Descriptor, Labels};
use dhow_types::{Digest, ErrorKind};
use serde_json::{Value, json};

use super::fixture::{MANIFEST, NOW, by_key, found, target};
use crate::notation::Envelope;
use crate::{
    Certificate, Form, Found, Identity, Pattern, PrivateKey, Signer, Statement, Target, Trust, bundle,
    notation, simple,
};

fn said() -> Labels {
    Labels::from([("build".to_owned(), "7".to_owned())])
}

fn simple(key: &PrivateKey) -> Found {
    let (content, annotations) =
        simple::sign(key, "registry.example/app:1", &target().digest, &said()).unwrap();
    Found {
        form: Form::Simple,
        content,
        annotations,
    }
}

fn statement(kind: &str) -> Statement {
    Statement::new("app", &target().digest, kind, json!({"a": 1}), said())
}

fn with_certificate(key: &PrivateKey) -> (Certificate, Found) {
    with_certificate_in(Envelope::Jws, key)
}

fn with_certificate_in(envelope: Envelope, key: &PrivateKey) -> (Certificate, Found) {
    let certificate = Certificate::self_made(key, "CN=Ada,C=GB", NOW - 10, NOW + 1000).unwrap();
    let how = notation::Request {
        chain: std::slice::from_ref(&certificate),
        envelope,
        now: NOW,
        expiry: Some(NOW + 500),
        annotations: &said(),
    };
    let (content, annotations) = notation::sign(key, &Descriptor::of("m", MANIFEST), &how).unwrap();
    assert!(annotations[notation::THUMBPRINTS].contains(&certificate.thumbprint().hex()));
    (certificate, found(Form::Notation, content))
}

fn trusting(certificate: &Certificate) -> Trust {
    Trust {
        authorities: vec![certificate.clone()],
        now: NOW,
        ..Trust::default()
    }
}

#[test]
fn every_form_is_verified_as_it_was_signed() {
    let key = PrivateKey::generate().unwrap();
    let trust = by_key(&key);
    let by = Signer::Key(key.public().fingerprint());
    let verified = trust.verify(&simple(&key), &target()).unwrap();
    assert_eq!(
        (&verified.signer, verified.reference.as_deref()),
        (&by, Some("registry.example/app:1"))
    );
    assert_eq!(verified.annotations, said());
    assert!(verified.is_signature());

    let signed = found(
        Form::Bundle,
        bundle::sign(&key, &statement(crate::SIGNED)).unwrap(),
    );
    let verified = trust.verify(&signed, &target()).unwrap();
    assert!(verified.signer == by && verified.is_signature());
    assert_eq!(verified.annotations, said());
    let stated = found(
        Form::Bundle,
        bundle::sign(&key, &statement("https://x/y")).unwrap(),
    );
    let verified = trust.verify(&stated, &target()).unwrap();
    assert!(!verified.is_signature());
    assert_eq!(verified.statement.unwrap().predicate, json!({"a": 1}));

    for envelope in [Envelope::Jws, Envelope::Cose] {
        let (certificate, signed) = with_certificate_in(envelope, &key);
        let verified = trusting(&certificate).verify(&signed, &target()).unwrap();
        assert_eq!(
            verified.signer,
            Signer::Certificate("CN=Ada,C=GB".to_owned(), certificate.thumbprint())
        );
        assert_eq!((verified.annotations, verified.signed_at), (said(), Some(NOW)));
    }
}

#[test]
fn an_envelope_alone_is_read_as_cosign_2_wrote_it() {
    let key = PrivateKey::generate().unwrap();
    let bundle: Value =
        serde_json::from_slice(&bundle::sign(&key, &statement("https://x/y")).unwrap()).unwrap();
    let alone = found(Form::Envelope, bundle["dsseEnvelope"].to_string().into_bytes());
    assert!(!by_key(&key).verify(&alone, &target()).unwrap().is_signature());
    let other = by_key(&PrivateKey::generate().unwrap());
    assert_eq!(
        other.verify(&alone, &target()).unwrap_err().kind(),
        ErrorKind::PermissionDenied
    );
}

#[test]
fn a_signature_of_another_image_is_refused_in_every_form() {
    let key = PrivateKey::generate().unwrap();
    let (certificate, signed) = with_certificate(&key);
    let (other, cose) = with_certificate_in(Envelope::Cose, &key);
    let trust = Trust {
        keys: vec![key.public().clone()],
        authorities: vec![certificate, other],
        now: NOW,
        ..Trust::default()
    };
    let other = Target {
        digest: Digest::of(b"other"),
        bytes: b"other",
    };
    let bundle = found(
        Form::Bundle,
        bundle::sign(&key, &statement(crate::SIGNED)).unwrap(),
    );
    for replayed in [simple(&key), bundle, signed, cose] {
        assert!(trust.verify(&replayed, &target()).is_ok());
        let error = trust.verify(&replayed, &other).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    }
}

#[test]
fn any_byte_that_changes_makes_it_no_signature() {
    let key = PrivateKey::generate().unwrap();
    let (certificate, signed) = with_certificate(&key);
    let (other, cose) = with_certificate_in(Envelope::Cose, &key);
    let trust = Trust {
        keys: vec![key.public().clone()],
        authorities: vec![certificate, other],
        now: NOW,
        ..Trust::default()
    };
    let base = trust.verify(&signed, &target()).unwrap();
    let bundle = found(
        Form::Bundle,
        bundle::sign(&key, &statement(crate::SIGNED)).unwrap(),
    );
    for whole in [simple(&key), bundle, signed, cose] {
        for at in 0..whole.content.len() {
            let mut changed = whole.clone();
            changed.content[at] ^= 1;
            // What is not signed may change (a hint, who made it); what is said must not.
            if let Ok(verified) = trust.verify(&changed, &target()) {
                assert!(
                    whole.form != Form::Simple,
                    "{}",
                    String::from_utf8_lossy(&changed.content)
                );
                assert_eq!(verified.annotations, base.annotations);
                assert_eq!(
                    verified.statement.map(|stated| stated.predicate),
                    (whole.form == Form::Bundle).then(|| json!({"a": 1}))
                );
            }
        }
    }
}

fn edited(signed: &Found, edit: impl FnOnce(&mut Value)) -> Found {
    let mut envelope: Value = serde_json::from_slice(&signed.content).unwrap();
    let protected = URL_SAFE_NO_PAD
        .decode(envelope["protected"].as_str().unwrap())
        .unwrap();
    let mut protected: Value = serde_json::from_slice(&protected).unwrap();
    edit(&mut protected);
    envelope["protected"] = URL_SAFE_NO_PAD.encode(protected.to_string()).into();
    found(Form::Notation, envelope.to_string().into_bytes())
}

#[test]
fn a_header_that_asks_for_no_algorithm_or_another_is_refused() {
    let key = PrivateKey::generate().unwrap();
    let (certificate, signed) = with_certificate(&key);
    let trust = trusting(&certificate);
    for alg in ["none", "None", "HS256", "ES384", "PS256", "RS256", ""] {
        let error = trust
            .verify(&edited(&signed, |header| header["alg"] = alg.into()), &target())
            .unwrap_err();
        assert!(error.to_string().contains("algorithm"), "{alg}: {error}");
        // Also when nothing is signed at all.
        let mut bare: Value =
            serde_json::from_slice(&edited(&signed, |header| header["alg"] = alg.into()).content).unwrap();
        bare["signature"] = "".into();
        let bare = found(Form::Notation, bare.to_string().into_bytes());
        assert!(trust.verify(&bare, &target()).is_err(), "{alg}");
    }
    let unknown = edited(&signed, |header| {
        header["crit"] = json!(["io.cncf.notary.signingScheme", "io.cncf.notary.expiry", "x"])
    });
    assert_eq!(
        trust.verify(&unknown, &target()).unwrap_err().kind(),
        ErrorKind::Unsupported
    );
    let silent = edited(&signed, |header| header["crit"] = json!([]));
    assert!(trust.verify(&silent, &target()).is_err());
    let scheme = edited(&signed, |header| {
        header["io.cncf.notary.signingScheme"] = "notary.x509.signingAuthority".into()
    });
    assert_eq!(
        trust.verify(&scheme, &target()).unwrap_err().kind(),
        ErrorKind::Unsupported
    );
}

#[test]
fn a_certificate_out_of_its_time_or_an_expired_signature_does_not_count() {
    let key = PrivateKey::generate().unwrap();
    let envelopes = [Envelope::Jws, Envelope::Cose].map(|envelope| with_certificate_in(envelope, &key));
    let times = [
        (NOW + 501, "expired"),
        (NOW + 1001, "expired"),
        (NOW - 11, "not valid before"),
    ];
    for ((certificate, signed), (now, why)) in envelopes
        .iter()
        .flat_map(|envelope| times.map(|time| (envelope, time)))
    {
        let trust = Trust {
            now,
            ..trusting(certificate)
        };
        let error = trust.verify(signed, &target()).unwrap_err();
        assert!(
            error.kind() == ErrorKind::PermissionDenied && error.to_string().contains(why),
            "{error}"
        );
    }
}

#[test]
fn a_certificate_of_another_authority_or_name_does_not_count() {
    let key = PrivateKey::generate().unwrap();
    let (certificate, signed) = with_certificate(&key);
    let stranger = PrivateKey::generate().unwrap();
    // The same name, another key.
    let (twin, _) = with_certificate(&stranger);
    let error = trusting(&twin).verify(&signed, &target()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    let error = by_key(&key).verify(&signed, &target()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
    for (name, good) in [("CN=Ada,C=GB", true), ("CN=Ada", false), ("CN=Bob,C=GB", false)] {
        let trust = Trust {
            identities: vec![Identity {
                name: Pattern::Exactly(name.to_owned()),
                issuer: None,
            }],
            ..trusting(&certificate)
        };
        assert_eq!(trust.verify(&signed, &target()).is_ok(), good, "{name}");
    }
}

#[test]
fn a_document_with_a_field_twice_or_two_signatures_is_refused() {
    let key = PrivateKey::generate().unwrap();
    let trust = by_key(&key);
    let good = simple(&key);
    let text = String::from_utf8(good.content.clone()).unwrap();
    let other = format!(
        r#""image":{{"docker-manifest-digest":"{}"}},"#,
        Digest::of(b"other")
    );
    let twice = text.replace(r#""image":"#, &format!("{other}\"image\":"));
    // Signed as it is, so that only the reader can refuse it.
    let signature = key.sign(crate::key::Scheme::Plain, twice.as_bytes()).unwrap();
    let twice = Found {
        content: twice.into_bytes(),
        annotations: Labels::from([(simple::SIGNATURE.to_owned(), STANDARD.encode(signature))]),
        ..good
    };
    let error = trust.verify(&twice, &target()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");

    let signed = bundle::sign(&key, &statement(crate::SIGNED)).unwrap();
    let mut two: Value = serde_json::from_slice(&signed).unwrap();
    let first = two["dsseEnvelope"]["signatures"][0].clone();
    for list in [json!([]), json!([first, first])] {
        two["dsseEnvelope"]["signatures"] = list;
        let two = found(Form::Bundle, two.to_string().into_bytes());
        assert_eq!(
            trust.verify(&two, &target()).unwrap_err().kind(),
            ErrorKind::InvalidArgument
        );
    }
    let text = String::from_utf8(signed).unwrap();
    let twice = text.replacen(r#""dsseEnvelope""#, r#""dsseEnvelope":null,"dsseEnvelope""#, 1);
    assert!(
        trust
            .verify(&found(Form::Bundle, twice.into_bytes()), &target())
            .is_err()
    );
}
