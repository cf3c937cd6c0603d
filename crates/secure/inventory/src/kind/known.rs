//! Programs that no package manager brought, told by their name and by the version that is written in them. What a package of
//! the system owns is not listed by this: see [`Inventory::of`](crate::Inventory::of).

use memchr::memmem;

use crate::kind::plain;
use crate::{Kind, Package, ReadAt};

/// Most bytes of a program that are looked through.
const MOST: u64 = 512 << 20;
/// Bytes that are looked through at once, and of them those that are looked at again with the next ones.
const PIECE: usize = 1 << 20;
const OVERLAP: usize = 128;

/// A program.
struct Known {
    /// What files are called: the name, `name-*` and `name*` with a version.
    files: &'static [&'static str],
    /// What the program is called in a package URL.
    package: &'static str,
    /// What stands before the version.
    mark: &'static [u8],
}

const fn known(files: &'static [&'static str], package: &'static str, mark: &'static [u8]) -> Known {
    Known { files, package, mark }
}

const PROGRAMS: &[Known] = &[
    known(&["bash"], "bash", b"@(#)Bash version "),
    known(&["busybox"], "busybox", b"BusyBox v"),
    known(&["curl", "libcurl.so"], "curl", b"curl/"),
    known(&["httpd", "apache2"], "httpd", b"Apache/"),
    known(&["memcached"], "memcached", b"\0memcached "),
    known(&["nginx", "openresty"], "nginx", b"nginx version: nginx/"),
    known(&["node", "nodejs"], "node", b"node.js/v"),
    known(
        &["openssl", "libcrypto.so", "libssl.so"],
        "openssl",
        b"\0OpenSSL ",
    ),
    known(
        &["php", "php-cli", "php-fpm", "libphp.so"],
        "php",
        b"X-Powered-By: PHP/",
    ),
    known(&["postgres", "psql"], "postgresql", b"PostgreSQL) "),
    known(&["ruby", "libruby.so"], "ruby", b"\0ruby "),
];

/// Whether a file of this name may be one of them, so that it is looked at though it cannot be executed.
pub(crate) fn is_library(name: &[u8]) -> bool {
    name.starts_with(b"lib")
        && memmem::find(name, b".so").is_some()
        && std::str::from_utf8(name).is_ok_and(|name| fitting(name).is_some())
}

/// What a file is by its name: the package and what stands before its version.
fn fitting(name: &str) -> Option<(&'static str, Vec<u8>)> {
    if let Some(mark) = python(name) {
        return Some(("python", mark));
    }
    PROGRAMS
        .iter()
        .find(|known| known.files.iter().any(|file| is_called(name, file)))
        .map(|known| (known.package, known.mark.to_vec()))
}

/// Whether a file is called so, with a version behind or not: `php8.2`, `libssl.so.3`, `libruby-3.1.so.3.1`.
fn is_called(name: &str, file: &str) -> bool {
    let versioned = |rest: &str| {
        rest.chars()
            .all(|char| char.is_ascii_digit() || ".-".contains(char))
    };
    match file.strip_suffix(".so") {
        Some(stem) => name
            .strip_prefix(stem)
            .and_then(|rest| rest.split_once(".so"))
            .is_some_and(|(inner, rest)| versioned(inner) && versioned(rest)),
        None => name.strip_prefix(file).is_some_and(versioned),
    }
}

/// Python has its version between two zeros alone: the name says how it begins (`python3.11`, `libpython3.11.so.1.0`).
fn python(name: &str) -> Option<Vec<u8>> {
    let rest = name
        .strip_prefix("libpython")
        .or_else(|| name.strip_prefix("python"))?;
    let rest = rest.split_once(".so").map_or(rest, |(rest, _)| rest);
    let (major, minor) = rest.split_once('.')?;
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (number(major) && number(minor)).then(|| format!("\0{major}.{minor}.").into_bytes())
}

/// What a program is.
pub(crate) fn program(path: &str, file: &dyn ReadAt, size: u64) -> Option<Package> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let (package, mark) = fitting(name)?;
    let finder = memmem::Finder::new(&mark);
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    while at < size.min(MOST) {
        let count = file.some_at(at, &mut piece).ok().filter(|count| *count > 0)?;
        for place in finder.find_iter(&piece[..count]) {
            // One that is cut off here is whole in the next piece.
            let behind = place + mark.len();
            if let Some(version) = version(&piece[behind..count]) {
                // The beginning of Python's version is in the mark.
                let begin = std::str::from_utf8(&mark).ok().filter(|_| package == "python");
                let version = format!("{}{version}", begin.unwrap_or_default().trim_start_matches('\0'));
                return plain(&version).map(|version| Package::new(Kind::Generic, package, version));
            }
        }
        if count <= OVERLAP {
            break;
        }
        at += (count - OVERLAP) as u64;
    }
    None
}

/// A version at the beginning of some bytes: numbers with dots between them, then perhaps letters and another number (`1.1.1w`,
/// `3.12.0rc1`, `3.2.0-beta1`). It must end before the bytes do.
fn version(bytes: &[u8]) -> Option<String> {
    let mut end = 0;
    while bytes
        .get(end)
        .is_some_and(|byte| byte.is_ascii_digit() || *byte == b'.')
    {
        end += 1;
    }
    if end == 0 || !bytes[0].is_ascii_digit() || bytes[end - 1] == b'.' {
        return None;
    }
    let mut suffix = end + usize::from(bytes.get(end) == Some(&b'-'));
    // What is not mended yet, and Ruby's patch level.
    let words: [&[u8]; 7] = [b"alpha", b"beta", b"rc", b"pre", b"preview", b"dev", b"p"];
    let letters = bytes[suffix.min(bytes.len())..]
        .iter()
        .take_while(|byte| byte.is_ascii_lowercase())
        .count();
    let word = &bytes[suffix.min(bytes.len())..][..letters];
    let counts = words.contains(&word) || (suffix == end && letters == 1);
    if counts {
        suffix += letters;
        while bytes.get(suffix).is_some_and(u8::is_ascii_digit) {
            suffix += 1;
        }
        end = suffix;
    }
    // What goes on otherwise is another text.
    let next = *bytes.get(end)?;
    (!next.is_ascii_alphanumeric() && end < 32).then(|| String::from_utf8_lossy(&bytes[..end]).into_owned())
}

/// `release` of a Java runtime: `JAVA_VERSION="17.0.8"`.
pub(crate) fn java(_: &str, bytes: &[u8]) -> Result<super::Said, String> {
    let text = super::utf8(bytes);
    let value = |key: &str| {
        text.lines().find_map(|line| {
            let value = line.trim().strip_prefix(key)?.strip_prefix('=')?;
            plain(value.trim_matches('"'))
        })
    };
    Ok(match value("JAVA_VERSION") {
        Some(version) => super::Said::packages(vec![Package::new(Kind::Generic, "openjdk", version)]),
        None => super::Said::default(),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::{PIECE, is_library, java, program, version};

    fn found(path: &str, bytes: &[u8]) -> Option<(String, String)> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let package = program(path, &file, bytes.len() as u64)?;
        Some((package.name, package.version))
    }

    #[test]
    fn programs_say_their_versions() {
        for (path, text, package, wanted) in [
            ("bin/busybox", "x\0BusyBox v1.36.1 (2024)\0", "busybox", "1.36.1"),
            ("usr/local/bin/node", "node.js/v20.11.1\0", "node", "20.11.1"),
            (
                "usr/bin/openssl",
                "\0OpenSSL 1.1.1w  11 Sep 2023\0",
                "openssl",
                "1.1.1w",
            ),
            (
                "usr/lib/libcrypto.so.3",
                "\0OpenSSL 3.2.0-beta1 26 Oct\0",
                "openssl",
                "3.2.0-beta1",
            ),
            (
                "usr/sbin/nginx",
                "nginx version: nginx/1.25.3\0",
                "nginx",
                "1.25.3",
            ),
            ("opt/python3.12", "\x003.12.0rc1\0", "python", "3.12.0rc1"),
            ("usr/lib/libpython3.11.so.1.0", "\x003.11.4\0", "python", "3.11.4"),
            ("usr/bin/php8.2", "X-Powered-By: PHP/8.2.7\0", "php", "8.2.7"),
            ("usr/lib/libcurl.so.4.8.0", "libcurl/8.5.0\0", "curl", "8.5.0"),
            (
                "usr/lib/libruby-3.1.so.3.1",
                "\0ruby 3.1.2p20 (2022)\0",
                "ruby",
                "3.1.2p20",
            ),
        ] {
            let wanted = Some((package.to_owned(), wanted.to_owned()));
            assert_eq!(found(path, text.as_bytes()), wanted, "{path}");
        }
        for (path, text) in [
            ("bin/other", "BusyBox v1.36.1 "),
            ("bin/busybox", "BusyBox v%s "),
            ("bin/busybox", "BusyBox v1.36.1"),
            ("bin/node-gyp", "node.js/v20.11.1\0"),
            ("bin/python3", "\x003.12.0\0"),
            ("bin/bash", "@(#)Bash version sh\0"),
        ] {
            assert_eq!(found(path, text.as_bytes()), None, "{path} {text}");
        }
        assert!(is_library(b"libssl.so.1.1") && !is_library(b"libz.so.1") && !is_library(b"openssl"));
    }

    #[test]
    fn a_version_between_two_pieces_is_found() {
        for before in PIECE - 140..PIECE + 10 {
            let mut bytes = vec![b'x'; before];
            bytes.extend(b"BusyBox v1.36.1 ");
            assert!(found("busybox", &bytes).is_some(), "{before}");
        }
    }

    #[test]
    fn a_java_runtime_says_its_release() {
        let said = java("release", b"IMPLEMENTOR=\"x\"\nJAVA_VERSION=\"17.0.8\"\n").unwrap();
        assert_eq!(said.packages[0].version, "17.0.8");
        assert!(java("release", b"CODENAME=bookworm\n").unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn no_bytes_stop_it(bytes in proptest::collection::vec(any::<u8>(), 0..40), text in "[0-9.a-z -]{0,20}") {
            drop(version(&bytes));
            drop(version(text.as_bytes()));
            drop(java("release", &bytes));
            drop(found("busybox", &[&b"BusyBox v"[..], &bytes].concat()));
        }
    }
}
