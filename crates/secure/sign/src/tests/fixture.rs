//! A small world of signers: an authority, a log and a clock of our own, made here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dhow_oci::Labels;
use dhow_types::Digest;
use serde_json::{Value, json};

use crate::der::{self, bits, element, integer, sequence};
use crate::key::Scheme;
use crate::{Certificate, Form, Found, Identity, Pattern, PrivateKey, Target, Trust, TrustedRoot};

/// 2026-11-29, 12:00.
pub(super) const NOW: i64 = 1_795_953_600;
pub(super) const MANIFEST: &[u8] = br#"{"schemaVersion":2}"#;
pub(super) const WHO: &str = "ada@example.org";
pub(super) const ISSUER: &str = "https://accounts.example.org";

pub(super) fn target() -> Target<'static> {
    Target {
        digest: Digest::of(MANIFEST),
        bytes: MANIFEST,
    }
}

pub(super) fn found(form: Form, content: Vec<u8>) -> Found {
    Found {
        form,
        content,
        annotations: Labels::new(),
    }
}

pub(super) fn by_key(key: &PrivateKey) -> Trust {
    Trust {
        keys: vec![key.public().clone()],
        now: NOW,
        ..Trust::default()
    }
}

fn oid(bytes: &[u8]) -> Vec<u8> {
    element(der::OID, &[bytes])
}

pub(super) fn name(common: &str) -> Vec<u8> {
    let attribute = sequence(&[&oid(&[0x55, 4, 3]), &element(der::UTF8, &[common.as_bytes()])]);
    sequence(&[&element(der::SET, &[&attribute])])
}

pub(super) fn extension(id: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let flag: &[u8] = if critical { &[1, 1, 0xff] } else { &[] };
    sequence(&[&oid(id), flag, &element(der::OCTETS, &[value])])
}

fn time(at: i64) -> Vec<u8> {
    let text = jiff::Timestamp::from_second(at)
        .unwrap()
        .strftime("%Y%m%d%H%M%SZ")
        .to_string();
    element(der::GENERALIZED_TIME, &[text.as_bytes()])
}

/// What a certificate is to be.
pub(super) struct Wish<'a> {
    pub(super) key: &'a PrivateKey,
    pub(super) subject: &'a [u8],
    pub(super) issuer: (&'a PrivateKey, &'a [u8]),
    pub(super) validity: (i64, i64),
    pub(super) extensions: Vec<Vec<u8>>,
}

pub(super) fn certificate(wish: &Wish<'_>) -> Certificate {
    let algorithm = sequence(&[&oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2])]);
    let extensions: Vec<&[u8]> = wish.extensions.iter().map(Vec::as_slice).collect();
    let body = sequence(&[
        &element(0xa0, &[&integer(&[2])]),
        &integer(&[7]),
        &algorithm,
        wish.issuer.1,
        &sequence(&[&time(wish.validity.0), &time(wish.validity.1)]),
        wish.subject,
        wish.key.public().spki(),
        &element(0xa3, &[&sequence(&extensions)]),
    ]);
    let signature = wish.issuer.0.sign(Scheme::Plain, &body).unwrap();
    Certificate::parse(&sequence(&[&body, &algorithm, &bits(&signature)])).unwrap()
}

pub(super) fn authority(key: &PrivateKey, common: &str, validity: (i64, i64)) -> Certificate {
    let subject = name(common);
    let basic = sequence(&[&[1, 1, 0xff]]);
    certificate(&Wish {
        key,
        subject: &subject,
        issuer: (key, &subject),
        validity,
        extensions: vec![extension(&[0x55, 0x1d, 0x13], true, &basic)],
    })
}

/// Everything that signing without a key of one's own needs.
pub(super) struct World {
    pub(super) certificate_log: PrivateKey,
    pub(super) ca: PrivateKey,
    pub(super) log: PrivateKey,
    pub(super) clock: PrivateKey,
    pub(super) root: Certificate,
    clock_root: Certificate,
}

/// A signature to make there.
pub(super) struct Made<'a> {
    pub(super) who: &'a str,
    pub(super) issuer: &'a str,
    /// Seconds after the certificate began to live.
    pub(super) after: i64,
    pub(super) purpose: &'a [u8],
    /// Whether the log of certificates has it.
    pub(super) in_log: bool,
}

impl Default for Made<'_> {
    fn default() -> Self {
        Self {
            who: WHO,
            issuer: ISSUER,
            after: 60,
            // `id-kp-codeSigning`
            purpose: &[0x2b, 6, 1, 5, 5, 7, 3, 3],
            in_log: true,
        }
    }
}

impl World {
    pub(super) fn new() -> Self {
        let key = || PrivateKey::generate().unwrap();
        let (ca, log, clock) = (key(), key(), key());
        let validity = (NOW - 1000 * 86_400, NOW + 1000 * 86_400);
        Self {
            certificate_log: key(),
            root: authority(&ca, "root", validity),
            clock_root: authority(&clock, "clock", validity),
            ca,
            log,
            clock,
        }
    }

    pub(super) fn root_document(&self) -> Value {
        let raw = |bytes: &[u8]| json!({"rawBytes": STANDARD.encode(bytes)});
        let chain = |one: &Certificate| {
            json!({"certChain": {"certificates": [raw(one.der())]},
            "validFor": {"start": "2020-01-01T00:00:00Z"}})
        };
        let spki = self.log.public().spki();
        json!({"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [{"baseUrl": "https://log", "hashAlgorithm": "SHA2_256",
                "publicKey": {"rawBytes": STANDARD.encode(spki), "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                    "validFor": {"start": "2020-01-01T00:00:00Z"}},
                "logId": {"keyId": STANDARD.encode(Digest::of(spki).as_bytes())}}],
            "ctlogs": [{"baseUrl": "https://ct", "hashAlgorithm": "SHA2_256",
                "publicKey": {"rawBytes": STANDARD.encode(self.certificate_log.public().spki()),
                    "validFor": {"start": "2020-01-01T00:00:00Z"}},
                "logId": {"keyId": STANDARD.encode(self.certificate_log.public().fingerprint().as_bytes())}}],
            "certificateAuthorities": [chain(&self.root)],
            "timestampAuthorities": [chain(&self.clock_root)]})
    }

    pub(super) fn trust(&self) -> Trust {
        Trust {
            root: Some(TrustedRoot::parse(self.root_document().to_string().as_bytes()).unwrap()),
            identities: vec![Identity {
                name: Pattern::Exactly(WHO.to_owned()),
                issuer: Some(Pattern::Exactly(ISSUER.to_owned())),
            }],
            now: NOW,
            ..Trust::default()
        }
    }

    pub(super) fn leaf(&self, key: &PrivateKey, made: &Made<'_>) -> Certificate {
        let fulcio = [&[0x2b, 6, 1, 4, 1, 0x83, 0xbf, 0x30, 1][..], &[8]].concat();
        let san = sequence(&[&element(0x81, &[made.who.as_bytes()])]);
        // An hour ago, for ten minutes.
        let from = NOW - 3600;
        let (nothing, issuer) = (sequence(&[]), name("root"));
        let mut wish = Wish {
            key,
            subject: &nothing,
            issuer: (&self.ca, &issuer),
            validity: (from, from + 600),
            extensions: vec![
                extension(&[0x55, 0x1d, 0x0f], true, &[3, 2, 7, 0x80]),
                extension(&[0x55, 0x1d, 0x25], false, &sequence(&[&oid(made.purpose)])),
                extension(&[0x55, 0x1d, 0x11], true, &san),
                extension(&fulcio, false, &element(der::UTF8, &[made.issuer.as_bytes()])),
            ],
        };
        if made.in_log {
            let before = certificate(&wish);
            wish.extensions.push(self.timestamps(before.der(), from));
        }
        certificate(&wish)
    }

    /// The log's word on a certificate that is to be (RFC 6962).
    fn timestamps(&self, before: &[u8], at: i64) -> Vec<u8> {
        let mut outer = der::Reader::only(before, der::SEQUENCE).unwrap();
        let body = outer.any().unwrap().whole;
        let time = u64::try_from(at * 1000).unwrap().to_be_bytes();
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        let issuer = self.ca.public().fingerprint();
        let signed = [
            &[0, 0][..],
            &time,
            &[0, 1],
            issuer.as_bytes(),
            &length[1..],
            body,
            &[0, 0],
        ]
        .concat();
        let signature = self.certificate_log.sign(Scheme::Plain, &signed).unwrap();
        let block = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
        let log = self.certificate_log.public().fingerprint();
        let stamp = [&[0][..], log.as_bytes(), &time, &[0, 0, 4, 3], &block(&signature)].concat();
        let list = element(der::OCTETS, &[&block(&block(&stamp))]);
        extension(&[0x2b, 6, 1, 4, 1, 0xd6, 0x79, 2, 4, 2], false, &list)
    }

    /// A bundle as cosign makes it with an identity.
    pub(super) fn bundle(&self, made: &Made<'_>) -> Value {
        let key = PrivateKey::generate().unwrap();
        let leaf = self.leaf(&key, made);
        let statement = crate::Statement::new("", &target().digest, crate::SIGNED, json!({}), Labels::new());
        let mut bundle: Value =
            serde_json::from_slice(&crate::bundle::sign(&key, &statement).unwrap()).unwrap();
        let payload = STANDARD
            .decode(bundle["dsseEnvelope"]["payload"].as_str().unwrap())
            .unwrap();
        let pem = STANDARD.encode(leaf.to_pem());
        let body = json!({"apiVersion": "0.0.1", "kind": "dsse", "spec": {
            "payloadHash": {"algorithm": "sha256", "value": Digest::of(&payload).hex()},
            "signatures": [{"signature": bundle["dsseEnvelope"]["signatures"][0]["sig"], "verifier": pem}]}});
        bundle["verificationMaterial"] = json!({
            "certificate": {"rawBytes": STANDARD.encode(leaf.der())},
            "tlogEntries": [self.entry(&body, NOW - 3600 + made.after)]});
        bundle
    }

    /// An entry of a log of two, with promise and proof.
    pub(super) fn entry(&self, body: &Value, at: i64) -> Value {
        let (text, id) = (body.to_string(), Digest::of(self.log.public().spki()));
        let base64 = STANDARD.encode(&text);
        let promise = format!(
            r#"{{"body":"{base64}","integratedTime":{at},"logID":"{}","logIndex":1}}"#,
            id.hex()
        );
        let promise = self.log.sign(Scheme::Plain, promise.as_bytes()).unwrap();
        let leaf = Digest::of(&[&[0], text.as_bytes()].concat());
        let sibling = Digest::of(b"another");
        let root = Digest::of(&[&[1], &sibling.as_bytes()[..], leaf.as_bytes()].concat());
        let root = STANDARD.encode(root.as_bytes());
        let note = format!("log.example - 1\n2\n{root}\n");
        let signature = [
            &[0; 4][..],
            &self.log.sign(Scheme::Plain, note.as_bytes()).unwrap(),
        ]
        .concat();
        json!({"logIndex": "1", "logId": {"keyId": STANDARD.encode(id.as_bytes())},
            "kindVersion": {"kind": body["kind"], "version": body["apiVersion"]},
            "integratedTime": at.to_string(),
            "inclusionPromise": {"signedEntryTimestamp": STANDARD.encode(promise)},
            "inclusionProof": {"logIndex": "1", "rootHash": root, "treeSize": "2",
                "hashes": [STANDARD.encode(sibling.as_bytes())],
                "checkpoint": {"envelope": format!("{note}\n\u{2014} log.example {}\n", STANDARD.encode(signature))}},
            "canonicalizedBody": base64})
    }

    /// A time stamp of a signature (RFC 3161).
    pub(super) fn stamp(&self, signature: &[u8], at: i64) -> String {
        let sha256 = [0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];
        let algorithm = sequence(&[&oid(&sha256)]);
        let digest = |bytes: &[u8]| element(der::OCTETS, &[Digest::of(bytes).as_bytes()]);
        let tst = oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 0x10, 1, 4]);
        let info = sequence(&[
            &integer(&[1]),
            &oid(&[0x2a, 3]),
            &sequence(&[&algorithm, &digest(signature)]),
            &integer(&[9]),
            &time(at),
        ]);
        let attribute = |id: &[u8], value: &[u8]| sequence(&[&oid(id), &element(der::SET, &[value])]);
        let pkcs9 = |last: u8| [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, last];
        let attributes = [attribute(&pkcs9(3), &tst), attribute(&pkcs9(4), &digest(&info))].concat();
        let key = PrivateKey::generate().unwrap();
        let leaf = certificate(&Wish {
            key: &key,
            subject: &name("ticks"),
            issuer: (&self.clock, &name("clock")),
            validity: (NOW - 86_400, NOW + 86_400),
            extensions: vec![extension(
                &[0x55, 0x1d, 0x25],
                true,
                &sequence(&[&oid(&[0x2b, 6, 1, 5, 5, 7, 3, 8])]),
            )],
        });
        let signed = key
            .sign(Scheme::Plain, &element(der::SET, &[&attributes]))
            .unwrap();
        let signer = sequence(&[
            &integer(&[1]),
            &sequence(&[&name("clock"), &integer(&[7])]),
            &algorithm,
            &element(0xa0, &[&attributes]),
            &sequence(&[&oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2])]),
            &element(der::OCTETS, &[&signed]),
        ]);
        let data = sequence(&[
            &integer(&[3]),
            &element(der::SET, &[&algorithm]),
            &sequence(&[&tst, &element(0xa0, &[&element(der::OCTETS, &[&info])])]),
            &element(0xa0, &[leaf.der()]),
            &element(der::SET, &[&signer]),
        ]);
        let token = sequence(&[
            &oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2]),
            &element(0xa0, &[&data]),
        ]);
        STANDARD.encode(sequence(&[&sequence(&[&integer(&[0])]), &token]))
    }
}
