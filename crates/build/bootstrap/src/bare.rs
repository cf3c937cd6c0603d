//! A tree of packages whose scripts are not run: what they would have made, as far as programs need it.

use std::path::{Path, PathBuf};

use dhow_rootpath::{FileKind, Root};

use crate::Error;

/// Packages that others depend on for their scripts alone.
pub(crate) const FOR_SCRIPTS: [&str; 12] = [
    "adduser",
    "debconf",
    "debconf-2.0",
    "debianutils",
    "dpkg",
    "init-system-helpers",
    "install-info",
    "perl-base",
    "passwd",
    "sensible-utils",
    "ucf",
    "usr-is-merged",
];

/// Users that programs expect; `nonroot` as in the images of Google's distroless.
const PASSWD: &str = "root:x:0:0:root:/root:/sbin/nologin\n\
    nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n\
    nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\nnonroot:x:65532:\ntty:x:5:\nstaff:x:50:\n";

/// Where `ca-certificates` ships certificates, and where programs look for them.
const CERTIFICATES: &str = "usr/share/ca-certificates";
const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";
/// Largest certificate, most of them, and directories in directories.
const MAX_CERTIFICATE: u64 = 1 << 20;
const MAX_CERTIFICATES: usize = 10_000;
const MAX_DEPTH: usize = 8;

/// Writes users and certificates.
pub(crate) fn finish(root: &Root) -> Result<(), Error> {
    for (name, text) in [("passwd", PASSWD), ("group", GROUP)] {
        let path = Path::new("etc").join(name);
        if !root.exists(&path)? {
            root.create_dir_all(Path::new("etc"), 0o755, None)?;
            root.write(&path, text.as_bytes(), 0o644, None)?;
        }
    }
    root.create_dir_all(Path::new("home/nonroot"), 0o700, Some((65532, 65532)))?;
    for (name, mode) in [("tmp", 0o1777), ("root", 0o700)] {
        root.create_dir_all(Path::new(name), mode, None)?;
    }
    certificates(root)
}

/// One file of all certificates, as `update-ca-certificates` makes it.
fn certificates(root: &Root) -> Result<(), Error> {
    let top = Path::new(CERTIFICATES);
    if !root.exists(top)? {
        return Ok(());
    }
    let mut found = Vec::new();
    let mut todo = vec![(top.to_owned(), 0)];
    while let Some((folder, depth)) = todo.pop() {
        for entry in root.read_dir(&folder)? {
            let path: PathBuf = folder.join(&entry.name);
            match entry.kind {
                FileKind::Directory if depth < MAX_DEPTH => todo.push((path, depth + 1)),
                FileKind::File if path.extension().is_some_and(|ending| ending == "crt") => found.push(path),
                _ => {}
            }
        }
    }
    found.sort();
    found.truncate(MAX_CERTIFICATES);
    let mut bundle = Vec::new();
    for path in found {
        bundle.extend(root.read(&path, MAX_CERTIFICATE)?);
        if !bundle.ends_with(b"\n") {
            bundle.push(b'\n');
        }
    }
    root.create_dir_all(Path::new("etc/ssl/certs"), 0o755, None)?;
    Ok(root.write(Path::new(BUNDLE), &bundle, 0o644, None)?)
}
