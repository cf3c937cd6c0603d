//! Bytes that nobody meant.

use dhow_types::ErrorKind;
use proptest::prelude::*;

use super::fixture::{Made, World, authority, by_key, found, target};
use crate::{Certificate, Form, PrivateKey, PublicKey, TrustedRoot};

#[test]
fn a_document_beyond_all_measure_is_not_even_read() {
    let key = PrivateKey::generate().unwrap();
    let mut trust = by_key(&key);
    trust.authorities.push(authority(&key, "a", (0, 1)));
    for (form, size) in [
        (Form::Bundle, 33 << 20),
        (Form::Envelope, 33 << 20),
        (Form::Simple, 2 << 20),
        (Form::Notation, 2 << 20),
    ] {
        let error = trust
            .verify(&found(form, vec![b'['; size]), &target())
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error}");
        // Deep is no trouble, either.
        let deep = vec![b'['; 100_000];
        assert_eq!(
            trust.verify(&found(form, deep), &target()).unwrap_err().kind(),
            ErrorKind::InvalidArgument
        );
    }
    assert_eq!(
        TrustedRoot::parse(&vec![b' '; 5 << 20]).unwrap_err().kind(),
        ErrorKind::ResourceExhausted
    );
    assert!(Certificate::parse(&vec![0x30; 100_000]).is_err());
}

/// A document with some bytes of it changed.
fn damaged(whole: &[u8]) -> impl Strategy<Value = Vec<u8>> + use<> {
    let whole = whole.to_vec();
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..6);
    edits.prop_map(move |edits| {
        let mut bytes = whole.clone();
        for (at, byte, how) in edits {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 => drop(bytes.remove(at)),
                _ => bytes.truncate(at),
            }
        }
        bytes
    })
}

#[test]
fn damaged_certificates_keys_and_roots_are_errors_and_no_panics() {
    let world = World::new();
    let key = PrivateKey::generate().unwrap();
    let leaf = world.leaf(&key, &Made::default());
    let root = world.root_document().to_string().into_bytes();
    let bundle = world.bundle(&Made::default()).to_string().into_bytes();
    let pem = key.to_pem(None).unwrap().into_bytes();
    let trust = world.trust();
    let mut runner = proptest::test_runner::TestRunner::new(proptest::test_runner::Config::with_cases(400));
    let inputs = (
        damaged(leaf.der()),
        damaged(key.public().spki()),
        damaged(&root),
        damaged(&bundle),
        damaged(&pem),
    );
    let run = runner.run(&inputs, |(leaf, spki, root, bundle, pem)| {
        if let Ok(read) = Certificate::parse(&leaf) {
            drop((
                read.named(),
                read.check_chain(&[], std::slice::from_ref(&read), crate::x509::Purpose::Code, 0),
            ));
        }
        drop(PublicKey::from_spki(&spki));
        drop(TrustedRoot::parse(&root));
        drop(trust.verify(&found(Form::Bundle, bundle), &target()));
        drop(PrivateKey::from_pem(&pem, || Ok::<_, crate::Error>(Vec::new())));
        Ok(())
    });
    run.unwrap();
}

proptest! {
    #[test]
    fn any_bytes_are_no_signature(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "[{}\\[\\]\":,a-z0-9]{0,80}") {
        let trust = World::new().trust();
        for form in [Form::Simple, Form::Bundle, Form::Envelope, Form::Notation] {
            prop_assert!(trust.verify(&found(form, bytes.clone()), &target()).is_err());
            let as_cose = [&[0xd2, 0x84][..], &bytes].concat();
            prop_assert!(trust.verify(&found(form, as_cose), &target()).is_err());
            prop_assert!(trust.verify(&found(form, text.clone().into_bytes()), &target()).is_err());
        }
    }
}
