use dhow_types::ErrorKind;

use super::fixture::NOW;
use crate::key::Scheme;
use crate::{Certificate, Error, PrivateKey, PublicKey};

fn none() -> Result<Vec<u8>, Error> {
    panic!("a plain key needs no pass phrase")
}

/// Made with openssl genpkey / ecparam; nobody's.
const ED25519: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEICVnizr8tc1BrWo4uqzQZRN2uBE9VnpLNvFC+CkoIequ
-----END PRIVATE KEY-----
";

#[test]
fn a_key_is_written_and_read_plain_and_under_a_pass_phrase() {
    let key = PrivateKey::generate().unwrap();
    let plain = key.to_pem(None).unwrap();
    assert!(plain.starts_with("-----BEGIN PRIVATE KEY-----\n"), "{plain}");
    let again = PrivateKey::from_pem(plain.as_bytes(), none).unwrap();
    assert_eq!(again.public(), key.public());

    let sealed = key.to_pem(Some(b"open sesame")).unwrap();
    assert!(
        sealed.starts_with("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n"),
        "{sealed}"
    );
    let open =
        |text: &'static [u8]| PrivateKey::from_pem(sealed.as_bytes(), || Ok::<_, Error>(text.to_vec()));
    assert_eq!(open(b"open sesame").unwrap().public(), key.public());
    assert_eq!(
        open(b"open, sesame").unwrap_err().kind(),
        ErrorKind::Unauthenticated
    );
    assert_eq!(open(b"").unwrap_err().kind(), ErrorKind::Unauthenticated);
    let public = PublicKey::from_pem(key.public().to_pem().as_bytes()).unwrap();
    assert_eq!(&public, key.public());
    assert!(!format!("{key:?}").contains("der"), "{key:?}");
}

#[test]
fn what_one_key_signs_no_other_verifies_and_nothing_else_is_signed() {
    let keys = [
        PrivateKey::generate().unwrap(),
        PrivateKey::generate().unwrap(),
        PrivateKey::from_pem(ED25519.as_bytes(), none).unwrap(),
    ];
    for (at, key) in keys.iter().enumerate() {
        for scheme in [Scheme::Plain, Scheme::Jose] {
            let signature = key.sign(scheme, b"message").unwrap();
            for (other, verifier) in keys.iter().enumerate() {
                assert_eq!(
                    verifier.public().verify(scheme, b"message", &signature),
                    at == other
                );
            }
            assert!(!key.public().verify(scheme, b"Message", &signature));
            assert!(!key.public().verify(scheme, b"message", &signature[1..]));
            assert!(!key.public().verify(scheme, b"message", b""));
        }
    }
}

#[test]
fn a_sealed_key_cannot_ask_for_more_memory_or_time_than_is_sensible() {
    for (n, r, p) in [
        (1_u64 << 40, 8, 1),
        (65536, 1 << 30, 1),
        (65537, 8, 1),
        (0, 8, 1),
        (65536, 8, 4096),
        (1, 8, 1),
    ] {
        let document = format!(
            r#"{{"kdf":{{"name":"scrypt","params":{{"N":{n},"r":{r},"p":{p}}},"salt":"AAAA"}},
                "cipher":{{"name":"nacl/secretbox","nonce":"{}"}},"ciphertext":"{}"}}"#,
            "A".repeat(32),
            "A".repeat(64)
        );
        let error = crate::sealed::open(document.as_bytes(), b"x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{n} {r} {p}: {error}");
    }
}

#[test]
fn a_file_with_the_wrong_key_or_none_is_told() {
    let key = PrivateKey::generate().unwrap();
    let private = key.to_pem(None).unwrap();
    let error = PublicKey::from_pem(private.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("private"), "{error}");
    assert!(PrivateKey::from_pem(key.public().to_pem().as_bytes(), none).is_err());
    assert!(PublicKey::from_pem(b"").is_err());
    let weak = crate::pem::encode("PUBLIC KEY", &weak_rsa());
    assert_eq!(
        PublicKey::from_pem(weak.as_bytes()).unwrap_err().kind(),
        ErrorKind::Unsupported
    );
}

/// An RSA key of 1024 bits.
fn weak_rsa() -> Vec<u8> {
    use crate::der::{NULL, OID, bits, element, integer, sequence};
    let oid = element(OID, &[&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1]]);
    let key = sequence(&[&integer(&[0xff; 128]), &integer(&[1, 0, 1])]);
    sequence(&[&sequence(&[&oid, &element(NULL, &[])]), &bits(&key)])
}

#[test]
fn a_self_made_certificate_is_for_signing_documents_and_says_whose_it_is() {
    let key = PrivateKey::generate().unwrap();
    let made = Certificate::self_made(&key, "CN=Ada, O=Engines,C=GB", NOW, NOW + 86_400).unwrap();
    assert_eq!(made.subject(), "CN=Ada,O=Engines,C=GB");
    assert_eq!(made.key(), key.public());
    assert!(made.is_self_issued());
    assert!(made.check_time(NOW).is_ok() && made.check_time(NOW + 86_401).is_err());
    let read = Certificate::all_from_pem(made.to_pem().as_bytes()).unwrap();
    assert_eq!(read, [made]);
    for bad in ["", "Ada", "CN=", "X=1", "C=GBR", "CN=a\nb"] {
        assert!(Certificate::self_made(&key, bad, NOW, NOW + 1).is_err(), "{bad}");
    }
    // Beyond 2049 the time is written with four digits.
    let late = Certificate::self_made(&key, "CN=late", NOW, 2_600_000_000).unwrap();
    assert!(late.check_time(2_599_999_999).is_ok() && late.check_time(2_600_000_001).is_err());
}
