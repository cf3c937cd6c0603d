//! Looks through a tree for files that say what is installed.

use std::fs::File;

use dhow_layer::{Extent, Limits, Survey};

use crate::delta::{Delta, Record};
use crate::files::{Files, Found, FoundKind, Lying};
use crate::kind::{self, Asked, Said};
use crate::passing::Passing;
use crate::{Context as _, Error, MAX_DATABASE, MAX_METADATA, MAX_PACKAGES, ReadAt};

/// Largest lock file.
const MAX_LOCK: u64 = 32 << 20;

/// Most problems that are kept: a hostile tree may have any number.
const MAX_PROBLEMS: usize = 200;

/// Most deletions and opaque directories that are kept, each.
const MAX_DELETED: usize = 1_000_000;

/// Makes the delta of one tree.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scanner;

/// What reads a file.
#[derive(Clone, Copy)]
pub(crate) enum Reader {
    /// All of it, up to that many bytes.
    Whole(Parse, u64),
    /// The same of one that also says which paths belong to whom.
    Owners(Owners, u64),
    /// Parts of it.
    Parts(fn(&str, &dyn ReadAt, u64) -> Result<Said, String>),
    /// The same of a program.
    Program,
}

impl Scanner {
    /// What the files of one tree say. Layers that a layer lies on are not looked at.
    ///
    /// # Errors
    /// When the tree cannot be listed. What a file does is in [`Delta::problems`].
    pub fn delta(self, files: &dyn Files) -> Result<Delta, Error> {
        pass(files, &|_| true, None, &mut opened(files, &is_evidence))
    }

    /// The same of a layer where it lies, in an archive: nothing is unpacked. Of a compressed one a program is in memory while it
    /// is looked at.
    ///
    /// # Errors
    /// When the layer is malformed or damaged.
    pub fn lying_delta(self, layer: &Extent) -> Result<Delta, Error> {
        let what = || "look at the layer";
        let limits = Limits::default();
        if Survey::is_packed(layer).context(what)? {
            let mut passing = Passing::default();
            let survey = passing.look(layer, &limits)?;
            let files = Lying {
                survey: &survey,
                layer,
            };
            return pass(&files, &|_| true, None, &mut |found, _, _| {
                passing.said(&survey, found.path)
            });
        }
        let survey = Survey::of(layer, &limits).context(what)?;
        self.delta(&Lying {
            survey: &survey,
            layer,
        })
    }

    /// The same of a tree of source: lock files say what would be installed. A tree that says which system it is of is none.
    ///
    /// # Errors
    /// As [`Scanner::delta`].
    pub fn source_delta(self, files: &dyn Files) -> Result<Delta, Error> {
        let locks = Some(kind::lock::reader as fn(&[u8]) -> Option<Parse>);
        let mut delta = pass(files, &|_| true, locks, &mut opened(files, &is_evidence))?;
        if delta.records.iter().any(|record| record.os.is_some()) {
            delta
                .records
                .retain(|record| kind::lock::reader(name_of(&record.path).as_bytes()).is_none());
        }
        Ok(delta)
    }

    /// The same, of the files alone that say which package a path belongs to, and only of that path: see [`owners_of`].
    ///
    /// [`owners_of`]: crate::owners_of
    ///
    /// # Errors
    /// As [`Scanner::delta`].
    pub fn claims(self, files: &dyn Files, path: &str) -> Result<Delta, Error> {
        let owners = |reader: &Reader| matches!(reader, Reader::Owners(..));
        let asked = |own: &str| is_same(own, path);
        pass(files, &owners, None, &mut opened(files, &asked))
    }
}

/// Whether two paths are one: `/lib` is `/usr/lib` where the two were merged, and lists have kept the old names.
fn is_same(a: &str, b: &str) -> bool {
    let merged = |path| str::strip_prefix(path, "usr/").unwrap_or(path);
    a == b
        || (merged(a) == merged(b)
            && ["bin/", "sbin/", "lib"]
                .iter()
                .any(|top| merged(a).starts_with(top)))
}

/// Who reads lock files, where they are read.
type Locks = Option<fn(&[u8]) -> Option<Parse>>;

/// The last part of a path.
fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// What a file says, by whoever reads it: its path as text is given, too.
type Say<'s> = dyn FnMut(&Found<'_>, &str, Reader) -> Result<Said, String> + 's;

/// What files say that can be opened.
fn opened<'s>(
    files: &'s dyn Files,
    asked: Asked<'s>,
) -> impl FnMut(&Found<'_>, &str, Reader) -> Result<Said, String> + 's {
    move |found, path, reader| {
        let content = files.open(found.path).map_err(|error| chain(&error))?;
        parsed(content.bytes.as_ref(), path, content.size, reader, asked)
    }
}

fn pass(
    files: &dyn Files,
    wanted: &dyn Fn(&Reader) -> bool,
    locks: Locks,
    say: &mut Say<'_>,
) -> Result<Delta, Error> {
    let mut delta = Delta {
        form: Delta::FORM,
        ..Delta::default()
    };
    let mut packages = 0;
    files.visit(&mut |found| {
        match found.kind {
            FoundKind::Whiteout => keep(&mut delta.deleted, found.path),
            FoundKind::Opaque => keep(&mut delta.opaque, found.path),
            // Another directory may have been here.
            FoundKind::Symlink if may_hide(found.path) => keep(&mut delta.deleted, found.path),
            FoundKind::Symlink if reader(&found).is_some() => delta.records.push(Record {
                path: text(found.path),
                ..Record::default()
            }),
            FoundKind::File => {
                let name = found
                    .path
                    .rsplit(|byte| *byte == b'/')
                    .next()
                    .unwrap_or(found.path);
                let lock = || Some(Reader::Whole(locks?(name)?, MAX_LOCK));
                if let Some(reader) = reader(&found).filter(wanted).or_else(lock) {
                    look(&found, reader, say, &mut packages, &mut delta);
                }
            }
            _ => {}
        }
        Ok(())
    })?;
    delta.records.sort_by(|a, b| a.path.cmp(&b.path));
    delta.deleted.sort();
    delta.opaque.sort();
    Ok(delta)
}

/// What one file says, read by whoever reads files of this name: none when nobody does.
///
/// # Errors
/// `InvalidArgument` for a file that is damaged, or not what its name says.
pub fn read_file(path: &str, file: &File) -> Result<Vec<crate::Package>, Error> {
    let size = file.metadata().context(|| format!("look at {path}"))?.len();
    let found = Found {
        path: path.as_bytes(),
        kind: FoundKind::File,
        size,
        mode: 0o755,
    };
    let lock = || kind::lock::reader(name_of(path).as_bytes()).map(|parse| Reader::Whole(parse, MAX_LOCK));
    let Some(reader) = reader(&found).or_else(lock) else {
        return Ok(Vec::new());
    };
    let said = parsed(file, path, size, reader, &is_evidence);
    let said =
        said.map_err(|why| Error::new(dhow_types::ErrorKind::InvalidArgument, format!("{path}: {why}")))?;
    Ok(said.packages)
}

fn keep(paths: &mut Vec<String>, path: &[u8]) {
    if paths.len() < MAX_DELETED {
        paths.push(text(path));
    }
}

/// Whether a symbolic link may stand where a lower layer has a directory with files that say something. Most links are
/// names of libraries, documents and commands.
fn may_hide(path: &[u8]) -> bool {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    let dull: [&[u8]; 5] = [
        b"etc/alternatives/",
        b"usr/share/",
        b"etc/rc",
        b"usr/bin/",
        b"usr/sbin/",
    ];
    !name.contains(&b'.') && !dull.iter().any(|dull| path.starts_with(dull))
}

fn look(found: &Found<'_>, reader: Reader, say: &mut Say<'_>, packages: &mut usize, delta: &mut Delta) {
    let path = text(found.path);
    let said = match say(found, &path, reader) {
        Ok(said) => said,
        Err(why) => {
            if delta.problems.len() < MAX_PROBLEMS {
                delta.problems.push(format!("{path}: {why}"));
            }
            Said::default()
        }
    };
    // A program that says nothing is none of those that are looked for, nor is another file of a Java runtime's name.
    let parts = matches!(reader, Reader::Parts(_) | Reader::Program);
    if (parts || path.ends_with("/release")) && said.is_empty() {
        return;
    }
    *packages += said.packages.len();
    if *packages > MAX_PACKAGES {
        let what = format!("{path}: left out: the layer has more than {MAX_PACKAGES} packages");
        if delta.problems.len() <= MAX_PROBLEMS && delta.problems.last() != Some(&what) {
            delta.problems.push(what);
        }
        *packages -= said.packages.len();
        return;
    }
    delta.records.push(Record {
        path,
        packages: said.packages,
        owns: said.owns,
        os: said.os,
    });
}

pub(crate) fn parsed(
    file: &dyn ReadAt,
    path: &str,
    size: u64,
    reader: Reader,
    asked: Asked<'_>,
) -> Result<Said, String> {
    let all = |most| whole(file, size, most).map_err(|error| chain(&error));
    match reader {
        Reader::Whole(parse, most) => parse(path, &all(most)?),
        Reader::Owners(parse, most) => parse(path, &all(most)?, asked),
        Reader::Parts(parse) => parse(path, file, size),
        Reader::Program => kind::program::program(path, file, size),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

fn whole(file: &dyn ReadAt, size: u64, most: u64) -> Result<Vec<u8>, Error> {
    if size > most {
        return Err(too_large(most));
    }
    let mut bytes = vec![0; usize::try_from(size).map_err(|_| too_large(most))?];
    file.read_at(0, &mut bytes).context(|| "read it")?;
    Ok(bytes)
}

fn too_large(most: u64) -> Error {
    let message = format!("it is larger than {most} bytes");
    Error::new(dhow_types::ErrorKind::ResourceExhausted, message)
}

/// Who reads this file, if anybody does.
pub(crate) fn reader(found: &Found<'_>) -> Option<Reader> {
    let path = found.path;
    let (dir, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&b""[..], path),
    };
    let database = |parse| Some(Reader::Whole(parse, MAX_DATABASE));
    let owners = |parse| Some(Reader::Owners(parse, MAX_DATABASE));
    let metadata = |parse| Some(Reader::Whole(parse, MAX_METADATA));
    match path {
        b"etc/os-release" | b"usr/lib/os-release" => return metadata(kind::os::release),
        b"var/lib/dpkg/status" => return database(kind::dpkg::status),
        b"lib/apk/db/installed" | b"usr/lib/apk/db/installed" => return owners(kind::apk::installed),
        _ => {}
    }
    if [&b"var/lib/rpm"[..], b"usr/lib/sysimage/rpm", b"usr/share/rpm"].contains(&dir) {
        return match name {
            b"rpmdb.sqlite" => owners(kind::rpm::sqlite),
            b"Packages.db" => owners(kind::rpm::ndb),
            b"Packages" => owners(kind::rpm::berkeley),
            _ => None,
        };
    }
    if dir == b"var/lib/dpkg/status.d" {
        return match name {
            name if name.ends_with(b".md5sums") => owners(kind::dpkg::sums),
            _ => metadata(kind::dpkg::status),
        };
    }
    if dir == b"var/lib/dpkg/info" && name.ends_with(b".list") {
        return owners(kind::dpkg::list);
    }
    if dir.starts_with(b"var/lib/pacman/local/") {
        return match name {
            b"desc" => metadata(kind::pacman::desc),
            b"files" => owners(kind::pacman::files),
            _ => None,
        };
    }
    if let Some(parse) = language(dir, name) {
        return metadata(parse);
    }
    if [&b".jar"[..], b".war", b".ear", b".hpi", b".jpi"]
        .iter()
        .any(|end| name.ends_with(end))
    {
        return Some(Reader::Parts(kind::java::archive));
    }
    let executable = found.mode & 0o111 != 0 || kind::known::is_library(name);
    (found.kind == FoundKind::File && executable && found.size >= kind::program::LEAST)
        .then_some(Reader::Program)
}

pub(crate) type Parse = fn(&str, &[u8]) -> Result<Said, String>;
pub(crate) type Owners = fn(&str, &[u8], Asked<'_>) -> Result<Said, String>;

fn language(dir: &[u8], name: &[u8]) -> Option<Parse> {
    let parse: Parse = match name {
        b"METADATA" if dir.ends_with(b".dist-info") => kind::python::metadata,
        b"PKG-INFO" if dir.ends_with(b".egg-info") || dir.ends_with(b"EGG-INFO") => kind::python::metadata,
        b"package.json" if kind::node::is_package(dir) => kind::node::package,
        b"installed.json" if dir.ends_with(b"vendor/composer") => kind::php::installed,
        name if name.ends_with(b".egg-info") => kind::python::metadata,
        name if name.ends_with(b".gemspec")
            && (dir.ends_with(b"/specifications") || dir.ends_with(b"/specifications/default")) =>
        {
            kind::ruby::gemspec
        }
        name if name.ends_with(b".deps.json") => kind::dotnet::deps,
        b"release" => kind::known::java,
        _ => return None,
    };
    Some(parse)
}

/// Whether a scanner may look at a file at this path by itself: only of such it matters which package owns them.
pub(crate) fn is_evidence(path: &str) -> bool {
    if path.ends_with('/') {
        return false;
    }
    let found = Found {
        path: path.as_bytes(),
        kind: FoundKind::File,
        size: 0,
        mode: 0,
    };
    // A list does not say the mode: what is in a folder of programs may be one, and so may what is beside libraries and has
    // no ending.
    let programs = ["bin/", "sbin/", "libexec/"];
    let name = path.rsplit('/').next().unwrap_or(path);
    let beside = ["usr/lib/", "lib/", "opt/"]
        .iter()
        .any(|dir| path.starts_with(dir));
    reader(&found).is_some()
        || (beside && !name.contains('.'))
        || programs
            .iter()
            .any(|dir| path.starts_with(dir) || path.contains(&format!("/{dir}")))
}

/// A path as text that names it and nothing else.
pub(crate) fn text(path: &[u8]) -> String {
    if let Ok(text) = std::str::from_utf8(path) {
        return text.to_owned();
    }
    let mut out = String::new();
    for chunk in path.utf8_chunks() {
        out.push_str(chunk.valid());
        for byte in chunk.invalid() {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
