use proptest::prelude::*;

use super::*;
use dhow_layer::Entry;

/// An archive of plain files.
fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = dhow_layer::tar::Writer::new(Vec::new());
    for (name, text) in files {
        let mut entry = Entry::new(*name, EntryKind::File, 0o644);
        entry.size = text.len() as u64;
        writer.append(&entry, text.as_bytes()).unwrap();
    }
    writer.finish().unwrap()
}

fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for (name, body) in members {
        bytes.extend(format!("{name:<16}0           0     0     100644  {:<10}`\n", body.len()).bytes());
        bytes.extend_from_slice(body);
        if body.len() % 2 == 1 {
            bytes.push(b'\n');
        }
    }
    bytes
}

fn good() -> Vec<u8> {
    let control = tar(&[("control", "Package: aa\n"), ("postinst", "#!/bin/sh\n")]);
    ar(&[
        ("debian-binary", b"2.0\n"),
        ("control.tar", &control),
        ("data.tar", &tar(&[("usr", "x")])),
    ])
}

#[test]
fn control_files_and_data_are_read() {
    let bytes = good();
    let deb = Deb::open(bytes.as_slice()).unwrap();
    assert_eq!(deb.control.keys().collect::<Vec<_>>(), ["control", "postinst"]);
    let (control, mut data) = deb.data().unwrap();
    assert_eq!(control["control"].bytes, b"Package: aa\n");
    assert_eq!(data.next_entry().unwrap().unwrap().path, b"usr");
    let mut text = String::new();
    data.read_to_string(&mut text).unwrap();
    assert_eq!(text, "x");
    assert!(data.next_entry().unwrap().is_none());
}

#[test]
fn archives_that_are_no_packages_are_refused() {
    let control = tar(&[("control", "Package: aa\n")]);
    let evil = tar(&[("../../etc/cron.d/evil", "x"), ("control", "x")]);
    let nested = tar(&[("sub/control", "x"), ("control", "x")]);
    let data = tar(&[]);
    for (name, bytes) in [
        ("empty", Vec::new()),
        ("no members", MAGIC.to_vec()),
        (
            "wrong order",
            ar(&[
                ("control.tar", &control),
                ("debian-binary", b"2.0\n"),
                ("data.tar", &data),
            ]),
        ),
        (
            "version 3",
            ar(&[
                ("debian-binary", b"3.0\n"),
                ("control.tar", &control),
                ("data.tar", &data),
            ]),
        ),
        (
            "data first",
            ar(&[
                ("debian-binary", b"2.0\n"),
                ("data.tar", &data),
                ("control.tar", &control),
            ]),
        ),
        (
            "no data",
            ar(&[("debian-binary", b"2.0\n"), ("control.tar", &control)]),
        ),
        (
            "strange member",
            ar(&[
                ("debian-binary", b"2.0\n"),
                ("evil", b"x"),
                ("control.tar", &control),
            ]),
        ),
        (
            "no control file",
            ar(&[
                ("debian-binary", b"2.0\n"),
                ("control.tar", &data),
                ("data.tar", &data),
            ]),
        ),
        (
            "path in control",
            ar(&[
                ("debian-binary", b"2.0\n"),
                ("control.tar", &evil),
                ("data.tar", &data),
            ]),
        ),
        (
            "directory in control",
            ar(&[
                ("debian-binary", b"2.0\n"),
                ("control.tar", &nested),
                ("data.tar", &data),
            ]),
        ),
    ] {
        assert!(Deb::open(bytes.as_slice()).is_err(), "{name}");
    }
}

#[test]
fn a_member_with_an_underscore_is_passed_over() {
    let control = tar(&[("control", "Package: aa\n")]);
    let deb = ar(&[
        ("debian-binary", b"2.0\n"),
        ("_gpgorigin", b"odd"),
        ("control.tar", &control),
        ("data.tar", &tar(&[])),
    ]);
    assert!(Deb::open(deb.as_slice()).is_ok());
}

#[test]
fn a_huge_member_is_refused_before_it_is_read() {
    let mut deb = ar(&[("debian-binary", b"2.0\n")]);
    deb.extend(
        format!(
            "{:<16}0           0     0     100644  9999999999`\n",
            "control.tar"
        )
        .bytes(),
    );
    let error = Deb::open(deb.as_slice()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted);
}

proptest! {
    #[test]
    fn a_broken_package_is_an_error_and_never_a_panic(
        at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()
    ) {
        let mut bytes = good();
        let place = at.index(bytes.len());
        bytes[place] = byte;
        let whole = bytes.len();
        bytes.truncate(cut.index(whole) + 1);
        let Ok(deb) = Deb::open(bytes.as_slice()) else { return Ok(()) };
        let Ok((_, mut data)) = deb.data() else { return Ok(()) };
        let mut entries = 0;
        while let Ok(Some(_)) = data.next_entry() {
            entries += 1;
            prop_assert!(entries < 10);
        }
    }
}
