//! The orders, held to lines `a < b`: the ones here, and all files of a folder that `DHOW_VERSION_ORDER` names, such as the
//! test data of google/osv-scalibr (`semantic/testdata`), whose files are called `<ecosystem>-versions*.txt`.

use std::cmp::Ordering;
use std::path::Path;

use dhow_vuln::{Ecosystem, MAX_VERSION};
use proptest::prelude::*;

const ALL: [Ecosystem; 12] = [
    Ecosystem::Apk,
    Ecosystem::Cran,
    Ecosystem::Dpkg,
    Ecosystem::Hackage,
    Ecosystem::Maven,
    Ecosystem::NuGet,
    Ecosystem::Packagist,
    Ecosystem::Pub,
    Ecosystem::PyPi,
    Ecosystem::Rpm,
    Ecosystem::RubyGems,
    Ecosystem::Semver,
];

/// What each ecosystem's own documents and tools say of these.
const LINES: &[(&str, &str)] = &[
    ("Debian", "1.0~rc1 < 1.0"),
    ("Debian", "1.0 < 1.0+deb12u1"),
    ("Debian", "3.0.17-1~deb12u2 < 3.0.17-1"),
    ("Debian", "1:0.1 > 2.0"),
    ("Debian", "1.0 = 0:1.0-0"),
    ("Debian", "1.0-9 < 1.0-10"),
    ("Debian", "1.0a < 1.0+"),
    ("Alpine", "1.2.3-r0 < 1.2.3-r10"),
    ("Alpine", "1.2_rc1 < 1.2"),
    ("Alpine", "1.2 < 1.2_p1"),
    ("Alpine", "1.2 < 1.2a"),
    ("Alpine", "1.02 < 1.1"),
    ("Alpine", "1.2_alpha_pre1 < 1.2_alpha"),
    ("Red Hat", "1.0~rc1 < 1.0"),
    ("Red Hat", "1.0 < 1.0^git1"),
    ("Red Hat", "1.0^git1 < 1.0.1"),
    ("Red Hat", "1.0a < 1.0.1"),
    ("Red Hat", "0:1.0-1 = 1.0-1"),
    ("Red Hat", "1.0-1.el9 < 1.0-1.el10"),
    ("PyPI", "1.0.dev1 < 1.0a1"),
    ("PyPI", "1.0a1.dev1 < 1.0a1"),
    ("PyPI", "1.0rc1 < 1.0"),
    ("PyPI", "1.0 < 1.0.post1.dev1"),
    ("PyPI", "1.0.post1.dev1 < 1.0.post1"),
    ("PyPI", "1.0 < 1.0+local.1"),
    ("PyPI", "1.0+abc < 1.0+1"),
    ("PyPI", "1.0 = 1.0.0"),
    ("PyPI", "1.0-1 = 1.0.post1"),
    ("PyPI", "1.0c1 = 1.0-RC.1"),
    ("PyPI", "1!0.1 > 2.0"),
    ("PyPI", "not-a-version < 0.1"),
    ("npm", "1.0.0-alpha < 1.0.0-alpha.1"),
    ("npm", "1.0.0-2 < 1.0.0-10"),
    ("npm", "1.0.0-9 < 1.0.0-a"),
    ("npm", "1.0.0-rc.1 < 1.0.0"),
    ("npm", "1.0.0+a = 1.0.0+b"),
    ("Go", "v1.2.3 = 1.2.3"),
    ("NuGet", "1.0.0 < 1.0.0.1"),
    ("NuGet", "1.0-BETA = 1.0.0-beta"),
    ("Pub", "1.0.0 < 1.0.0+1"),
    ("Pub", "1.0.0+2 < 1.0.0+10"),
    ("Maven", "1-alpha < 1-beta"),
    ("Maven", "1-snapshot < 1"),
    ("Maven", "1 < 1-sp"),
    ("Maven", "1 < 1.1"),
    ("Maven", "1.0 = 1-ga"),
    ("Maven", "1a1 = 1-alpha-1"),
    ("RubyGems", "1.0.a < 1.0"),
    ("RubyGems", "1.0 = 1"),
    ("RubyGems", "1.0-1 < 1.0"),
    ("Packagist", "1.0dev < 1.0alpha"),
    ("Packagist", "1.0RC1 < 1.0"),
    ("Packagist", "1.0 < 1.0pl1"),
    ("Packagist", "1.0foo < 1.0dev"),
    ("Packagist", "v1.0 = 1.0"),
    ("CRAN", "1.0-1 = 1.0.1"),
    ("CRAN", "0.1.0 < 0.1.0.0"),
    ("Hackage", "1.0 < 1.0.0"),
];

fn parse(line: &str) -> (&str, Ordering, &str) {
    let mut words = line.split_whitespace();
    let (Some(a), sign, Some(b)) = (words.next(), words.next(), words.next()) else {
        panic!("{line:?} is not two versions and a sign");
    };
    let order = match sign {
        Some("<") => Ordering::Less,
        Some("=") => Ordering::Equal,
        Some(">") => Ordering::Greater,
        other => panic!("{other:?} is no order, in {line:?}"),
    };
    (a, order, b)
}

/// The line and its mirror.
fn holds(ecosystem: Ecosystem, line: &str) -> Result<(), String> {
    let (a, wanted, b) = parse(line);
    for (a, b, wanted) in [(a, b, wanted), (b, a, wanted.reverse())] {
        let order = ecosystem
            .compare(a, b)
            .map_err(|error| format!("{line}: {error}"))?;
        if order != wanted {
            return Err(format!("{a} and {b}: {order:?}, want {wanted:?}"));
        }
    }
    Ok(())
}

#[test]
fn versions_have_the_order_of_their_ecosystem() {
    for (name, line) in LINES {
        let ecosystem = Ecosystem::parse(name).unwrap();
        if let Err(wrong) = holds(ecosystem, line) {
            panic!("{name}: {wrong}");
        }
    }
}

#[test]
fn files_of_lines_hold_where_there_are_some() {
    let Some(folder) = std::env::var_os("DHOW_VERSION_ORDER") else {
        println!("skipped: DHOW_VERSION_ORDER names no folder with files <ecosystem>-versions*.txt");
        return;
    };
    let mut read = 0;
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(Path::new(&folder)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let Some((ecosystem, _)) = name.split_once("-versions") else {
            continue;
        };
        let ecosystem = Ecosystem::parse(ecosystem).unwrap();
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') || line.starts_with("//") {
                continue;
            }
            read += 1;
            if let Err(what) = holds(ecosystem, line) {
                wrong.push(format!("{name}: {what}"));
            }
        }
    }
    assert!(read > 0, "no line in {}", folder.display());
    println!("{read} lines, {} wrong", wrong.len());
    assert!(
        wrong.is_empty(),
        "{} of {read} lines are wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn a_version_without_end_and_an_unknown_ecosystem_are_errors_that_say_so() {
    let long = "1".repeat(MAX_VERSION + 1);
    for ecosystem in ALL {
        assert!(
            ecosystem
                .compare(&long, "1")
                .unwrap_err()
                .to_string()
                .contains("longer than")
        );
    }
    assert!(
        Ecosystem::parse("Ultrix")
            .unwrap_err()
            .to_string()
            .contains("Ultrix")
    );
    assert!(Ecosystem::Cran.compare("1.x", "1").is_err());
    assert!(Ecosystem::Dpkg.compare("a:1", "1").is_err());
    assert_eq!(Ecosystem::parse("Debian:12").unwrap(), Ecosystem::Dpkg);
    assert_eq!(Ecosystem::parse("rocky linux:9").unwrap(), Ecosystem::Rpm);
}

proptest! {
    #[test]
    fn any_text_has_an_order_that_is_the_mirror_of_its_mirror(
        a in "[0-9a-cprv.~^+_!:-]{0,24}|\\PC{0,12}",
        b in "[0-9a-cprv.~^+_!:-]{0,24}|\\PC{0,12}",
    ) {
        for ecosystem in ALL {
            if let (Ok(forth), Ok(back)) = (ecosystem.compare(&a, &b), ecosystem.compare(&b, &a)) {
                prop_assert_eq!(forth, back.reverse(), "{:?}: {:?} and {:?}", ecosystem, a, b);
            }
            if let Ok(same) = ecosystem.compare(&a, &a) {
                prop_assert_eq!(same, Ordering::Equal, "{:?}: {:?}", ecosystem, a);
            }
        }
    }
}
