//! COSE envelopes as others would write them, and as an attacker would. All are signed as they are, so that only who reads them can refuse them.

use dhow_types::ErrorKind;
use serde_json::json;

use super::fixture::{NOW, found, target};
use crate::cbor::{bytes, list, map, number, tag, text};
use crate::key::Scheme;
use crate::{Certificate, Error, Form, PrivateKey, Trust, Verified};

const SCHEME: &str = "io.cncf.notary.signingScheme";
const TIME: &str = "io.cncf.notary.signingTime";
const EXPIRY: &str = "io.cncf.notary.expiry";

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn good() -> Pairs {
    vec![
        (number(1), number(-7)),
        (number(2), list(&[text(SCHEME)])),
        (number(3), text("application/vnd.cncf.notary.payload.v1+json")),
        (text(SCHEME), text("notary.x509")),
        (text(TIME), tag(1, number(NOW))),
    ]
}

/// A header in the place of the one of this name.
fn with(key: Vec<u8>, value: Option<Vec<u8>>) -> Pairs {
    let mut headers = good();
    headers.retain(|(known, _)| *known != key);
    headers.extend(value.map(|value| (key, value)));
    headers
}

struct Maker {
    key: PrivateKey,
    certificate: Certificate,
}

impl Maker {
    fn new() -> Self {
        let key = PrivateKey::generate().unwrap();
        let certificate = Certificate::self_made(&key, "CN=Ada", NOW - 10, NOW + 1000).unwrap();
        Self { key, certificate }
    }

    /// The envelope with these headers, these certificates, this tag and this much behind it.
    fn envelope(&self, headers: &[u8], chain: Vec<u8>, outer: u64) -> Vec<u8> {
        let payload =
            json!({"targetArtifact": {"mediaType": "m", "digest": target().digest.to_string(), "size": 1}});
        let payload = payload.to_string();
        let message = list(&[
            text("Signature1"),
            bytes(headers),
            bytes(&[]),
            bytes(payload.as_bytes()),
        ]);
        let signature = self.key.sign(Scheme::Jose, &message).unwrap();
        let beside = map(vec![(number(33), chain)]);
        let parts = [
            bytes(headers),
            beside,
            bytes(payload.as_bytes()),
            bytes(&signature),
        ];
        tag(outer, list(&parts))
    }

    fn verify(&self, envelope: Vec<u8>) -> Result<Verified, Error> {
        let trust = Trust {
            authorities: vec![self.certificate.clone()],
            now: NOW,
            ..Trust::default()
        };
        trust.verify(&found(Form::Notation, envelope), &target())
    }

    fn judged(&self, headers: Pairs) -> Result<Verified, Error> {
        let chain = list(&[bytes(self.certificate.der())]);
        self.verify(self.envelope(&map(headers), chain, 18))
    }
}

#[test]
fn headers_count_as_the_notary_project_has_them() {
    let maker = Maker::new();
    assert_eq!(maker.judged(good()).unwrap().signed_at, Some(NOW));
    // A certificate alone need not be in a list (RFC 9360, section 2); an algorithm may be critical.
    let alone = maker.envelope(&map(good()), bytes(maker.certificate.der()), 18);
    maker.verify(alone).unwrap();
    let crit = list(&[number(1), number(3), text(SCHEME)]);
    maker.judged(with(number(2), Some(crit))).unwrap();
    let mut expiring = with(number(2), Some(list(&[text(SCHEME), text(EXPIRY)])));
    expiring.push((text(EXPIRY), tag(1, number(NOW + 1))));
    maker.judged(expiring.clone()).unwrap();
    expiring.last_mut().unwrap().1 = tag(1, number(NOW));
    assert!(
        maker
            .judged(expiring)
            .unwrap_err()
            .to_string()
            .contains("expired")
    );
}

#[test]
fn headers_that_are_wrong_are_refused_though_they_are_signed() {
    let maker = Maker::new();
    for (headers, why) in [
        (with(number(1), Some(number(-35))), "algorithm"),
        (with(number(1), Some(number(5))), "algorithm"),
        (with(number(1), Some(text("ES256"))), "no algorithm"),
        (with(number(1), None), "no algorithm"),
        (with(number(2), None), "critical"),
        (with(number(2), Some(list(&[]))), "critical"),
        (with(number(2), Some(text(SCHEME))), "critical"),
        (
            with(number(2), Some(list(&[text(SCHEME), text("x")]))),
            "it has not",
        ),
        (
            with(number(2), Some(list(&[text(SCHEME), text(TIME)]))),
            "must be understood",
        ),
        (with(number(3), Some(text("text/plain"))), "another type"),
        (with(number(3), None), "another type"),
        (
            with(text(SCHEME), Some(text("notary.x509.signingAuthority"))),
            "not known",
        ),
        (with(text(TIME), Some(number(NOW))), "a time"),
        (with(text(TIME), Some(tag(1, number(i64::MAX)))), "a time"),
        (
            with(text(TIME), Some(tag(0, text("2026-01-01T00:00:00Z")))),
            "a time",
        ),
    ] {
        let error = maker.judged(headers).unwrap_err();
        assert!(error.to_string().contains(why), "{error}, not {why}");
    }
    // Another one's expiry that is not critical, and one header twice.
    let mut quiet = good();
    quiet.push((text(EXPIRY), tag(1, number(NOW + 1))));
    assert!(maker.judged(quiet).is_err());
    let mut twice = good();
    twice.push((number(1), number(-7)));
    assert!(maker.judged(twice).is_err());
}

#[test]
fn envelopes_of_another_shape_are_refused() {
    let maker = Maker::new();
    let one = || list(&[bytes(maker.certificate.der())]);
    let refused = |envelope: Vec<u8>, kind: ErrorKind| {
        let error = maker.verify(envelope).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    };
    let invalid = ErrorKind::InvalidArgument;
    // COSE_Sign and COSE_Mac0, and what follows the end.
    refused(maker.envelope(&map(good()), one(), 98), invalid);
    refused(maker.envelope(&map(good()), one(), 17), invalid);
    refused(
        [maker.envelope(&map(good()), one(), 18), vec![0]].concat(),
        invalid,
    );
    for chain in [
        list(&[]),
        text("x"),
        list(&[text("x")]),
        list(&vec![bytes(maker.certificate.der()); 9]),
    ] {
        refused(maker.envelope(&map(good()), chain, 18), invalid);
    }
    refused(maker.envelope(&[], one(), 18), invalid);
    refused(maker.envelope(&list(&[]), one(), 18), invalid);
    // Signed by another key than the certificate's.
    let stranger = Maker::new();
    refused(
        stranger.envelope(&map(good()), one(), 18),
        ErrorKind::PermissionDenied,
    );
}
