//! From a configured tree to one that is fit for an image: nothing of the making is left, and nothing depends on when
//! or where it was made.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use dhow_rootpath::{FileKind, Root};
use dhow_types::ErrorKind;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};

use crate::archive::Suite;
use crate::filter::Filter;
use crate::sources::without_credentials;
use crate::unpack::stamps;
use crate::{Error, Target};

/// Files that configuration leaves behind and that nobody needs.
const LEFT_OVERS: &[&str] = &[
    "etc/.pwd.lock",
    "etc/group-",
    "etc/gshadow-",
    "etc/hostname",
    "etc/passwd-",
    "etc/resolv.conf",
    "etc/shadow-",
    "etc/subgid-",
    "etc/subuid-",
    "root/.bash_history",
    "var/cache/apt/pkgcache.bin",
    "var/cache/apt/srcpkgcache.bin",
    // Holds inode numbers and change times of this tree.
    "var/cache/ldconfig/aux-cache",
    "var/cache/debconf/config.dat-old",
    "var/cache/debconf/passwords.dat-old",
    "var/cache/debconf/templates.dat-old",
    "var/lib/dbus/machine-id",
    "var/lib/dpkg/available-old",
    "var/lib/dpkg/diversions-old",
    "var/lib/dpkg/lock",
    "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/statoverride-old",
    "var/lib/dpkg/status-old",
    "var/lib/dpkg/triggers/Lock",
    "var/lib/systemd/random-seed",
    "var/log/alternatives.log",
    "var/log/bootstrap.log",
    "var/log/dpkg.log",
];

/// Directories that are emptied.
const EMPTIED: &[&str] = &[
    "dev",
    "proc",
    "run/mount",
    "sys",
    "tmp",
    "var/cache/apt/archives/partial",
    "var/lib/apt/lists/partial",
    "var/tmp",
];

/// Files that keep their place and lose their content.
const TRUNCATED: &[&str] = &[
    "etc/machine-id",
    "var/log/btmp",
    "var/log/faillog",
    "var/log/lastlog",
    "var/log/wtmp",
];

/// A container's packages come and go in one step: no cache is of use to a later one. The file has the name under
/// which people remove this setting when they do keep a cache ("rm -f /etc/apt/apt.conf.d/docker-clean").
const APT_CLEAN: &str = r#"// Packages are installed while an image is built, once: downloaded packages and
// apt's own caches would only make the image larger. Remove this file to keep
// them, for example when the cache directory is a mount that outlives the build.
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"; };
APT::Update::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"; };
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
"#;

const APT: &str = r#"// Lists of packages stay compressed on disk: they are often left in a layer.
Acquire::GzipIndexes "true";
// Translated descriptions are not read by anybody in a container.
Acquire::Languages "none";
// "apt-get autoremove" also removes what is merely suggested by something else.
APT::AutoRemove::SuggestsImportant "false";
"#;

const DPKG: &str = "# A build that is interrupted starts again from the layer below:\n\
    # there is nothing to be gained by waiting for the disk.\nforce-unsafe-io\n";

/// Puts everything in its final state.
pub(crate) fn finish(
    root: &Root,
    target: &Target,
    filter: &Filter,
    suites: &[Suite],
    (date, clock): (i64, i64),
    has_apt: bool,
) -> Result<(), Error> {
    if has_apt {
        configuration(root, target, filter, suites)?;
    }
    for path in LEFT_OVERS {
        remove(root, Path::new(path))?;
    }
    for directory in EMPTIED {
        empty(root, Path::new(directory))?;
    }
    let lists = Path::new("var/lib/apt/lists");
    for entry in list(root, lists)?
        .iter()
        .filter(|entry| entry.kind == FileKind::File)
    {
        remove(root, &lists.join(&entry.name))?;
    }
    // Whatever apt's and other logs are called; the directories stay.
    logs(root, Path::new("var/log"))?;
    for path in TRUNCATED {
        truncate(root, Path::new(path))?;
    }
    password_dates(root, date)?;
    clamp(root, date, clock)
}

fn configuration(root: &Root, target: &Target, filter: &Filter, suites: &[Suite]) -> Result<(), Error> {
    let write = |path: &str, text: &str| -> Result<(), Error> {
        let path = Path::new(path);
        if let Some(parent) = path.parent() {
            root.create_dir_all(parent, 0o755, None)?;
        }
        Ok(root.write(path, text.as_bytes(), 0o644, None)?)
    };
    let keyring = format!("usr/share/keyrings/{}-archive-keyring.gpg", target.distribution);
    let keyring = if root.exists(Path::new(&keyring))? {
        Some(format!("/{keyring}"))
    } else {
        None
    };
    write(
        &format!("etc/apt/sources.list.d/{}.sources", target.distribution),
        &sources_text(suites, keyring.as_deref()),
    )?;
    remove(root, Path::new("etc/apt/sources.list"))?;
    write("etc/apt/apt.conf.d/docker-clean", APT_CLEAN)?;
    write("etc/apt/apt.conf.d/dhow", APT)?;
    write("etc/dpkg/dpkg.cfg.d/dhow", DPKG)?;
    if !root.exists(Path::new("etc/fstab"))? {
        write("etc/fstab", "# UNCONFIGURED FSTAB FOR BASE SYSTEM\n")?;
    }
    if filter.excluded.is_empty() {
        Ok(())
    } else {
        write("etc/dpkg/dpkg.cfg.d/dhow-slim", &slim_text(filter))
    }
}

/// What keeps later installations as slim as this one.
fn slim_text(filter: &Filter) -> String {
    format!(
        "# The slim variant leaves out documentation, manual pages and translations.\n{}",
        filter.dpkg_lines()
    )
}

/// deb822 paragraphs of the repositories that were used: one for each archive.
fn sources_text(suites: &[Suite], keyring: Option<&str>) -> String {
    let mut paragraphs: Vec<(String, Vec<&str>, Vec<String>)> = Vec::new();
    for suite in suites {
        let repository = &suite.repository;
        let uri = without_credentials(&repository.uri);
        match paragraphs
            .iter_mut()
            .find(|(known, _, components)| *known == uri && *components == repository.components)
        {
            Some((_, names, _)) => names.push(&repository.suite),
            None => paragraphs.push((uri, vec![&repository.suite], repository.components.clone())),
        }
    }
    let signed = keyring
        .map(|path| format!("Signed-By: {path}\n"))
        .unwrap_or_default();
    let texts = paragraphs.into_iter().map(|(uri, suites, components)| {
        format!(
            "Types: deb\nURIs: {uri}\nSuites: {}\nComponents: {}\n{signed}",
            suites.join(" "),
            components.join(" ")
        )
    });
    texts.collect::<Vec<_>>().join("\n")
}

fn remove(root: &Root, path: &Path) -> Result<(), Error> {
    match root.symlink_metadata(path) {
        Ok(_) => Ok(root.remove_all(path)?),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn list(root: &Root, directory: &Path) -> Result<Vec<dhow_rootpath::DirEntry>, Error> {
    match root.read_dir(directory) {
        Ok(list) => Ok(list),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

fn empty(root: &Root, directory: &Path) -> Result<(), Error> {
    list(root, directory)?
        .iter()
        .try_for_each(|entry| remove(root, &directory.join(&entry.name)))
}

/// Removes `*.log` and rotated logs below a directory.
fn logs(root: &Root, directory: &Path) -> Result<(), Error> {
    for entry in list(root, directory)? {
        let path = directory.join(&entry.name);
        let name = entry.name.as_bytes();
        match entry.kind {
            FileKind::Directory => logs(root, &path)?,
            _ if name.ends_with(b".log") || name.ends_with(b".gz") || name.ends_with(b".xz") => {
                remove(root, &path)?
            }
            _ => (),
        }
    }
    Ok(())
}

fn truncate(root: &Root, path: &Path) -> Result<(), Error> {
    let Ok(stat) = root.symlink_metadata(path) else {
        return Ok(());
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_size == 0 {
        return Ok(());
    }
    Ok(root.write(path, b"", stat.st_mode & 0o7777, Some((stat.st_uid, stat.st_gid)))?)
}

/// Sets the date of the last change of every password to the tree's date (shadow(5), third field, in days).
fn password_dates(root: &Root, date: i64) -> Result<(), Error> {
    let path = Path::new("etc/shadow");
    if !root.exists(path)? {
        return Ok(());
    }
    let stat = root.symlink_metadata(path)?;
    let text = root.read(path, 16 << 20)?;
    let days = (date / 86_400).to_string();
    let lines: Vec<Vec<u8>> = text
        .split(|byte| *byte == b'\n')
        .map(|line| {
            let mut fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
            if let Some(field) = fields.get_mut(2).filter(|field| !field.is_empty()) {
                *field = days.as_bytes();
            }
            fields.join(&b':')
        })
        .collect();
    Ok(root.write(
        path,
        &lines.join(&b'\n'),
        stat.st_mode & 0o7777,
        Some((stat.st_uid, stat.st_gid)),
    )?)
}

/// Sets every time that is later than the tree's date to it. What the making touched has a time between the start of
/// the making and now; when the clock is behind the date (within tolerance) its times count as touched as well.
fn clamp(root: &Root, date: i64, clock: i64) -> Result<(), Error> {
    let limit = date.min(clock.saturating_sub(1));
    let top = root.resolve(Path::new("."))?;
    let walk = || -> rustix::io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top = rustix::fs::openat(&top, ".", flags, Mode::empty())?;
        clamp_directory(top, date, limit, 0)
    };
    walk().map_err(|error| {
        let error = std::io::Error::from(error);
        Error::because(ErrorKind::Internal, "cannot set the times of the new root", error)
    })
}

/// Paths of packages are short of this; a tree that is deeper is not one.
const MAX_DEPTH: usize = 256;

fn clamp_directory(directory: OwnedFd, date: i64, limit: i64, depth: usize) -> rustix::io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(rustix::io::Errno::NAMETOOLONG);
    }
    let mut entries = Dir::read_from(&directory)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let below = rustix::fs::openat(&directory, name, flags, Mode::empty())?;
            clamp_directory(below, date, limit, depth + 1)?;
            continue;
        }
        if stat.st_mtime > limit {
            rustix::fs::utimensat(&directory, name, &stamps(date), AtFlags::SYMLINK_NOFOLLOW)?;
        }
    }
    let stat = rustix::fs::fstat(&directory)?;
    if stat.st_mtime > limit {
        rustix::fs::futimens(&directory, &stamps(date))?;
    }
    Ok(())
}
