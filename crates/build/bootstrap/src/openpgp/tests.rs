use proptest::prelude::*;

use super::*;

const DAY: i64 = 86_400;
/// 2020-01-02, when the test signatures were made.
const MADE: i64 = 1_577_923_200;

macro_rules! data {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/openpgp/", $name))
    };
}

const TEXT: &[u8] = data!("text");
const CASES: [(&[u8], &[u8], &[u8]); 3] = [
    (
        data!("ed25519.asc"),
        data!("ed25519.clear"),
        data!("ed25519.detached"),
    ),
    (data!("rsa.asc"), data!("rsa.clear"), data!("rsa.detached")),
    (data!("plain.asc"), data!("plain.clear"), data!("plain.detached")),
];

fn keyring(files: &[&[u8]]) -> Keyring {
    let mut keyring = Keyring::new();
    for file in files {
        keyring.add(file).unwrap();
    }
    keyring
}

fn message(file: &[u8], keyring: &Keyring, now: i64) -> String {
    verify_cleartext(file, keyring, now).unwrap_err().to_string()
}

#[test]
fn good_signatures_of_every_kind_of_key_are_good() {
    for (key, clear, detached) in CASES {
        let keyring = keyring(&[key]);
        let (text, signer) = verify_cleartext(clear, &keyring, MADE + DAY).unwrap();
        assert_eq!(
            text,
            "Origin: Example\n- a line with a dash\nFrom here\n\nDate: Thu, 02 Jan 2020 00:00:00 UTC\n"
        );
        assert_eq!(signer.created, MADE);
        assert!(signer.user.starts_with("Archive "));
        let detached = verify_detached(TEXT, detached, &keyring, MADE + DAY).unwrap();
        assert_eq!(detached.key, signer.key);
    }
}

#[test]
fn a_subkey_signs_for_its_primary_key() {
    let (_, signer) = verify_cleartext(CASES[0].1, &keyring(&[CASES[0].0]), MADE).unwrap();
    assert_ne!(signer.key, signer.primary);
    let (_, signer) = verify_cleartext(CASES[2].1, &keyring(&[CASES[2].0]), MADE).unwrap();
    assert_eq!(signer.key, signer.primary);
}

#[test]
fn one_good_signature_of_two_is_enough() {
    for key in [CASES[0].0, CASES[1].0] {
        assert!(verify_cleartext(data!("both.clear"), &keyring(&[key]), MADE).is_ok());
    }
}

#[test]
fn a_key_that_the_keyring_lacks_is_said_to_be_missing() {
    let keyring = keyring(&[CASES[1].0]);
    let error = verify_cleartext(CASES[0].1, &keyring, MADE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    assert!(error.to_string().contains("does not have the key"), "{error}");
}

#[test]
fn sha1_is_refused() {
    let text = message(data!("sha1.clear"), &keyring(&[CASES[1].0]), MADE);
    assert!(text.contains("weak"), "{text}");
}

#[test]
fn expired_and_revoked_keys_do_not_count() {
    let eleven_years = 11 * 366 * DAY;
    for (key, clear, _) in CASES {
        assert!(message(clear, &keyring(&[key]), MADE + eleven_years).contains("has expired"));
    }
    let text = message(CASES[2].1, &keyring(&[data!("revoked.asc")]), MADE);
    assert!(text.contains("revoked"), "{text}");
}

#[test]
fn a_revocation_that_cannot_be_checked_counts() {
    let mut packets = armor::decode_one(data!("revoked.asc"), "PGP PUBLIC KEY BLOCK").unwrap();
    // The hash algorithm of the first signature after the key packet becomes SHA-1.
    let at = 53 + 2 + 3;
    assert_eq!(packets[at], 8);
    packets[at] = 2;
    let text = message(CASES[2].1, &keyring(&[&packets]), MADE);
    assert!(text.contains("revoked"), "{text}");
}

#[test]
fn signatures_from_the_future_do_not_count() {
    let text = message(CASES[0].1, &keyring(&[CASES[0].0]), MADE - 3 * DAY);
    assert!(text.contains("future") || text.contains("binding"), "{text}");
}

#[test]
fn every_flipped_bit_of_the_signed_text_is_noticed() {
    for (key, clear, _) in CASES {
        let keyring = keyring(&[key]);
        let (good, _) = verify_cleartext(clear, &keyring, MADE).unwrap();
        let start = find(clear, "\n\n") + 2;
        let end = find(clear, "\n-----BEGIN PGP SIGNATURE");
        for at in start..end {
            for bit in 0..8 {
                let mut file = clear.to_vec();
                file[at] ^= 1 << bit;
                // Blanks at the end of a line are not signed, nor given out.
                if let Ok((text, _)) = verify_cleartext(&file, &keyring, MADE) {
                    assert_eq!(text, good, "byte {at} bit {bit}");
                }
            }
        }
    }
}

#[test]
fn every_flipped_bit_of_the_signed_part_of_a_signature_is_noticed() {
    for (key, _, detached) in CASES {
        let keyring = keyring(&[key]);
        let packets = armor::decode_one(detached, "PGP SIGNATURE").unwrap();
        let hashed_end = {
            let header = if packets[0] & 3 == 1 { 3 } else { 2 };
            header + 6 + usize::from(u16::from_be_bytes([packets[header + 4], packets[header + 5]]))
        };
        let unhashed = usize::from(u16::from_be_bytes([packets[hashed_end], packets[hashed_end + 1]]));
        let numbers = hashed_end + 2 + unhashed;
        for at in (0..hashed_end).chain(numbers..packets.len()) {
            for bit in 0..8 {
                let mut signature = packets.clone();
                signature[at] ^= 1 << bit;
                // How many bits an integer has is not signed: only the bytes of its value count.
                let good = verify_detached(TEXT, &signature, &keyring, MADE).is_ok();
                assert!(
                    !good || is_bit_count(&packets, numbers, at),
                    "byte {at} bit {bit}"
                );
            }
        }
    }
}

/// Whether `at` is one of the two bytes that count the bits of an integer.
fn is_bit_count(packets: &[u8], numbers: usize, at: usize) -> bool {
    let mut start = numbers + 2;
    while start < packets.len() {
        if at == start || at == start + 1 {
            return true;
        }
        start += 2 + usize::from(u16::from_be_bytes([packets[start], packets[start + 1]])).div_ceil(8);
    }
    false
}

fn find(file: &[u8], text: &str) -> usize {
    file.windows(text.len())
        .position(|window| window == text.as_bytes())
        .unwrap()
}

#[test]
fn text_around_inside_or_twice_around_the_frame_is_refused() {
    let (key, clear, _) = CASES[0];
    let keyring = keyring(&[key]);
    let clear = std::str::from_utf8(clear).unwrap();
    let evil = "Origin: Evil\n";
    let header = "Hash: SHA512\n";
    assert!(clear.contains(header));
    let attacks = [
        ("before", format!("{evil}{clear}")),
        ("empty line before", format!("\n{clear}")),
        ("after", format!("{clear}{evil}")),
        ("twice", format!("{clear}{clear}")),
        ("as a header", clear.replace(header, &format!("{header}{evil}"))),
        (
            "as a comment header",
            clear.replace(header, &format!("{header}Comment: x\n")),
        ),
        (
            "not dash escaped",
            clear.replace(header, &format!("{header}NotDashEscaped: yes\n")),
        ),
        (
            "between text and signature",
            clear.replace(
                "-----BEGIN PGP SIGNATURE",
                &format!("{evil}-----BEGIN PGP SIGNATURE"),
            ),
        ),
        (
            "an inner frame",
            clear.replace(
                "Origin: Example",
                "-----BEGIN PGP SIGNED MESSAGE-----\n\nOrigin: Evil",
            ),
        ),
        ("an unescaped dash", clear.replace("- - a line", "- a line\n-b")),
        (
            "a carriage return",
            clear.replace("Origin: Example", "Origin: Evil\rOrigin: Example"),
        ),
        (
            "a zero byte",
            clear.replace("Origin: Example", "Origin: \0Example"),
        ),
        ("no end", clear.replace("-----END PGP SIGNATURE-----", "")),
        (
            "no signature",
            clear[..find(clear.as_bytes(), "-----BEGIN PGP SIGNATURE")].to_owned(),
        ),
        ("empty signature", {
            let start = find(clear.as_bytes(), "-----BEGIN PGP SIGNATURE");
            format!(
                "{}-----BEGIN PGP SIGNATURE-----\n\n-----END PGP SIGNATURE-----\n",
                &clear[..start]
            )
        }),
        (
            "a detached signature's words",
            clear.replace("PGP SIGNED MESSAGE", "PGP MESSAGE"),
        ),
    ];
    for (name, attack) in attacks {
        assert_ne!(attack, clear, "{name}");
        assert!(
            verify_cleartext(attack.as_bytes(), &keyring, MADE).is_err(),
            "{name}"
        );
    }
}

#[test]
fn line_ends_of_dos_mean_the_same_text() {
    let (key, clear, _) = CASES[0];
    let dos = std::str::from_utf8(clear).unwrap().replace('\n', "\r\n");
    let (text, _) = verify_cleartext(dos.as_bytes(), &keyring(&[key]), MADE).unwrap();
    assert!(!text.contains('\r'));
}

#[test]
fn a_signature_over_text_is_none_over_a_document_and_the_reverse() {
    let (key, clear, detached) = CASES[2];
    let keyring = keyring(&[key]);
    let clear = std::str::from_utf8(clear).unwrap();
    let start = find(clear.as_bytes(), "-----BEGIN PGP SIGNATURE");
    let error = verify_detached(TEXT, &clear.as_bytes()[start..], &keyring, MADE).unwrap_err();
    assert!(error.to_string().contains("not a signature over"), "{error}");
    let swapped = format!("{}{}", &clear[..start], std::str::from_utf8(detached).unwrap());
    assert!(verify_cleartext(swapped.as_bytes(), &keyring, MADE).is_err());
}

#[test]
fn a_subkey_without_its_back_signature_does_not_count() {
    let (key, clear, _) = CASES[0];
    let packets = armor::decode_one(key, "PGP PUBLIC KEY BLOCK").unwrap();
    let mut found = 0;
    // Wherever an embedded signature (subpacket 32, version 4, kind 0x19) begins, its kind becomes another.
    for at in 0..packets.len() - 3 {
        if packets[at..at + 3] == [32, 4, signature::PRIMARY_BINDING] {
            found += 1;
            let mut changed = packets.clone();
            changed[at + 2] = 0x18;
            assert!(message(clear, &keyring(&[&changed]), MADE).contains("binding"));
        }
    }
    assert_eq!(found, 1);
}

#[test]
fn a_user_id_that_is_not_signed_takes_the_key_out() {
    let (key, clear, _) = CASES[2];
    let mut packets = armor::decode_one(key, "PGP PUBLIC KEY BLOCK").unwrap();
    let at = find(&packets, "Archive plain");
    packets[at] ^= 0x20;
    assert!(message(clear, &keyring(&[&packets]), MADE).contains("binding"));
}

#[test]
fn a_keyring_may_be_armored_or_binary_joined_and_restricted() {
    let joined = [CASES[0].0, CASES[1].0].concat();
    let mut all = keyring(&[&joined]);
    assert_eq!(all.primaries().count(), 2);
    let binary = armor::decode_all(&joined, "PGP PUBLIC KEY BLOCK").unwrap();
    assert!(verify_cleartext(CASES[1].1, &keyring(&[&binary]), MADE).is_ok());
    let only = all.primaries().next().unwrap().to_string();
    all.restrict(&[only]);
    assert!(verify_cleartext(CASES[0].1, &all, MADE).is_ok());
    assert!(verify_cleartext(CASES[1].1, &all, MADE).is_err());
    let mut none = Keyring::new();
    assert!(none.add(b"").is_err());
    assert!(
        none.add(b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n-----END PGP PUBLIC KEY BLOCK-----\n")
            .is_err()
    );
}

#[test]
fn an_index_of_this_host_verifies_with_the_keyring_of_this_host() {
    let keys = std::fs::read("/usr/share/keyrings/debian-archive-keyring.gpg");
    let lists = std::fs::read_dir("/var/lib/apt/lists");
    let (Ok(keys), Ok(lists)) = (keys, lists) else {
        eprintln!("skipped: this host is not a Debian with lists");
        return;
    };
    let keyring = keyring(&[&keys]);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let now = i64::try_from(now.as_secs()).unwrap();
    let mut seen = 0;
    for entry in lists
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().ends_with("_InRelease"))
    {
        let file = std::fs::read(entry.path()).unwrap();
        if find_opt(&file, "Origin: Debian\n").is_none() {
            continue;
        }
        let (text, _) = verify_cleartext(&file, &keyring, now).unwrap();
        crate::release::Release::parse(&text).unwrap();
        for at in (0..file.len()).step_by(file.len() / 150 + 1) {
            let mut flipped = file.clone();
            flipped[at] ^= 1 << (at % 8);
            // A flip in one of several signatures leaves the others good; the text is the same then.
            if let Ok((other, _)) = verify_cleartext(&flipped, &keyring, now) {
                assert_eq!(other, text, "{:?} byte {at}", entry.path());
            }
        }
        seen += 1;
    }
    if seen == 0 {
        eprintln!("skipped: no list of Debian on this host");
    }
}

fn find_opt(file: &[u8], text: &str) -> Option<usize> {
    file.windows(text.len())
        .position(|window| window == text.as_bytes())
}

proptest! {
    #[test]
    fn a_broken_keyring_or_signature_never_panics(
        case in 0..3_usize, at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()
    ) {
        let (key, clear, detached) = CASES[case];
        let mut key = armor::decode_one(key, "PGP PUBLIC KEY BLOCK").unwrap();
        let mut signature = armor::decode_one(detached, "PGP SIGNATURE").unwrap();
        let good = keyring(&[&key]);
        let place = at.index(signature.len());
        signature[place] = byte;
        signature.truncate(cut.index(signature.len()) + 1);
        verify_detached(b"another text", &signature, &good, MADE).unwrap_err();
        let place = at.index(key.len());
        key[place] = byte;
        key.truncate(cut.index(key.len()) + 1);
        let mut broken = Keyring::new();
        if broken.add(&key).is_ok()
            && let Ok((text, _)) = verify_cleartext(clear, &broken, MADE)
        {
            prop_assert!(text.starts_with("Origin: Example"));
        }
    }

    #[test]
    fn no_bytes_make_the_parsers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let empty = Keyring::new();
        prop_assert!(verify_cleartext(&bytes, &empty, MADE).is_err());
        prop_assert!(verify_detached(TEXT, &bytes, &empty, MADE).is_err());
        prop_assert!(packet::Packets::new(&bytes).count() <= bytes.len());
        if let Ok(signature) = Signature::parse(&bytes) {
            prop_assert!(signature.embedded().count() <= bytes.len());
        }
    }
}
