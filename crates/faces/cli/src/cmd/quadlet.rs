//! `quadlet`: what systemd calls a generator (systemd.generator(7)): Quadlet files to services.
//!
//! It runs early at boot, as root or in a user's session, and must leave nothing undone because of one bad file: that is told,
//! and the others are converted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_quadlet::{Kind, MAX_FILE, Service, Target, UnitFile, convert};

use crate::render::{note, say};
use crate::{CliError, Context, Verb};

pub(crate) const VERB: Verb = Verb {
    name: "quadlet",
    about: "Make systemd services of Quadlet files (.container, .volume, .network, .pod, .image, .build)",
    flags: |command| QuadletFlags::augment_args(command),
    run,
};

/// Deepest folder of files.
const MAX_DEPTH: usize = 32;

#[derive(Args, Debug)]
struct QuadletFlags {
    /// Print the services instead of writing them
    #[arg(long, visible_alias = "dry-run")]
    dryrun: bool,
    /// Make the services of this user, not those of the machine
    #[arg(long)]
    user: bool,
    /// Tell what is done
    #[arg(short, long)]
    verbose: bool,
    /// Tell it on standard error, not in the kernel's log
    #[arg(long)]
    no_kmsg_log: bool,
    /// The folder that gets the services; systemd gives two more, which are not used
    #[arg(value_name = "FOLDER", required_unless_present = "dryrun", num_args = 0..=3)]
    folders: Vec<PathBuf>,
}

/// Names under which systemd calls generators.
const NAMES: [(&str, bool); 4] = [
    ("quadlet", false),
    ("podman-system-generator", false),
    ("podman-user-generator", true),
    ("dhow-system-generator", false),
];

/// The words of a call under the name of a generator, as those of the verb: its flags have one dash, as Go has them.
pub(crate) fn called(words: &[std::ffi::OsString]) -> Option<Vec<std::ffi::OsString>> {
    let name = Path::new(words.first()?).file_name()?.to_str()?;
    let (_, user) = NAMES.into_iter().find(|(known, _)| *known == name)?;
    let mut all: Vec<std::ffi::OsString> = vec!["dhow".into(), "quadlet".into()];
    all.extend(user.then(|| "--user".into()));
    for word in &words[1..] {
        all.push(match word.to_str() {
            Some("-version" | "--version") => return Some(vec!["dhow".into(), "--version".into()]),
            Some("-v") => "--verbose".into(),
            Some(text) if text.starts_with('-') && !text.starts_with("--") => format!("-{text}").into(),
            _ => word.clone(),
        });
    }
    Some(all)
}

fn run(_: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: QuadletFlags = crate::flags::read(matches)?;
    let log = Log {
        kernel: !flags.no_kmsg_log && !flags.dryrun,
        verbose: flags.verbose || flags.dryrun,
    };
    let folders = folders(flags.user);
    let mut failed = false;
    let mut complain = |why: String| {
        log.say(&why);
        failed = true;
    };
    let files = read_all(&folders, &log, &mut complain);
    if files.is_empty() {
        let shown: Vec<String> = folders
            .iter()
            .map(|folder| folder.display().to_string())
            .collect();
        log.detail(&format!("No files parsed from [{}]", shown.join(" ")));
    }
    let program = program();
    let outcome = convert(
        &files,
        Target {
            program: &program,
            user: flags.user,
            exists: &|path| path.exists(),
        },
    );
    for warning in &outcome.warnings {
        log.say(warning);
    }
    outcome.failures.into_iter().for_each(&mut complain);
    let output = flags.folders.first().cloned().unwrap_or_default();
    for service in &outcome.services {
        if flags.dryrun {
            say(&format!("---{}---\n{}\n", service.name, service.text))?;
            continue;
        }
        write(&output, service)
            .unwrap_or_else(|error| complain(format!("generating service file {}: {error}", service.name)));
    }
    if failed {
        log.say("processing encountered some errors");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// The program that services call.
/// What the units call: podman, where it is, or this program.
pub(super) fn program() -> String {
    let usual = Path::new("/usr/bin/podman");
    let own = || std::env::current_exe().unwrap_or_else(|_| usual.to_owned());
    match std::env::var("PODMAN") {
        Ok(named) if !named.is_empty() => named,
        _ if usual.exists() => usual.display().to_string(),
        _ => own().display().to_string(),
    }
}

/// Where files are, those that count most first (podman-systemd.unit(5)).
fn folders(user: bool) -> Vec<PathBuf> {
    if let Some(named) = std::env::var_os("QUADLET_UNIT_DIRS").filter(|named| !named.is_empty()) {
        return std::env::split_paths(&named)
            .filter(|folder| folder.is_absolute())
            .collect();
    }
    let admin = PathBuf::from("/etc/containers/systemd");
    if !user {
        return vec![
            PathBuf::from("/run/containers/systemd"),
            admin,
            PathBuf::from("/usr/share/containers/systemd"),
        ];
    }
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let home = || variable("HOME").map(|home| home.join(".config"));
    let own = variable("XDG_RUNTIME_DIR")
        .into_iter()
        .chain(variable("XDG_CONFIG_HOME").or_else(home))
        .map(|folder| folder.join("containers/systemd"));
    let uid = rustix::process::getuid().as_raw().to_string();
    let shared = admin.join("users");
    own.chain([shared.join(uid), shared]).collect()
}

/// All files of all folders, each name once, with their drop-ins.
fn read_all(folders: &[PathBuf], log: &Log, complain: &mut impl FnMut(String)) -> Vec<UnitFile> {
    let mut every = Vec::new();
    for folder in folders {
        below(folder, 0, &mut every);
    }
    let (mut files, mut seen) = (Vec::new(), BTreeSet::new());
    for folder in &every {
        for path in listed(folder) {
            let name = file_name(&path);
            if Kind::of(&name).is_none() || path.is_dir() || seen.contains(&name) {
                continue;
            }
            log.detail(&format!("Loading source unit file {}", path.display()));
            match read(&path) {
                Ok(file) => {
                    seen.insert(name);
                    files.push(file);
                }
                Err(error) => complain(format!("error loading {:?}, {error}", path.display().to_string())),
            }
        }
    }
    for file in &mut files {
        let drop_ins = drop_ins(file, &every);
        for path in drop_ins.values() {
            log.detail(&format!("Loading source drop-in file {}", path.display()));
            match read(path) {
                Ok(more) => file.merge(&more),
                Err(error) => complain(format!("error loading {:?}, {error}", path.display().to_string())),
            }
        }
    }
    files
}

/// The drop-ins of a file by their names: of one name the nearest counts.
fn drop_ins(file: &UnitFile, folders: &[PathBuf]) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for below in file.drop_in_folders() {
        for path in folders.iter().flat_map(|folder| listed(&folder.join(&below))) {
            if path.extension().is_some_and(|extension| extension == "conf") {
                found.entry(file_name(&path)).or_insert(path);
            }
        }
    }
    found
}

/// A folder and those below it. What a user's folder leads to by a link is looked into once.
fn below(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    let Ok(real) = fs::canonicalize(folder) else {
        return;
    };
    let known = found
        .iter()
        .any(|one| fs::canonicalize(one).is_ok_and(|one| one == real));
    if known || depth > MAX_DEPTH || !real.is_dir() {
        return;
    }
    found.push(folder.to_owned());
    for path in listed(folder) {
        // Those of users are not the machine's, and drop-ins are no folders of files.
        let others = path == Path::new("/etc/containers/systemd/users");
        let drop_in = path.extension().is_some_and(|extension| extension == "d");
        if path.is_dir() && !others && !drop_in {
            below(&path, depth + 1, found);
        }
    }
}

fn listed(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn read(path: &Path) -> Result<UnitFile, String> {
    use std::io::Read as _;
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE).read_to_string(&mut text))
        .map_err(|error| error.to_string())?;
    UnitFile::parse(&file_name(path), &path.display().to_string(), &text).map_err(|error| error.to_string())
}

fn write(folder: &Path, service: &Service) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join(&service.name), &service.text)?;
    for (place, target) in &service.links {
        let place = folder.join(place);
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent)?;
        }
        match fs::remove_file(&place) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => std::os::unix::fs::symlink(target, &place)?,
        }
    }
    Ok(())
}

/// Where a generator tells things: there may be nothing yet but the kernel's log.
struct Log {
    kernel: bool,
    verbose: bool,
}

impl Log {
    fn say(&self, what: &str) {
        let line = format!("quadlet-generator[{}]: {what}", std::process::id());
        let told = self.kernel
            && fs::OpenOptions::new()
                .write(true)
                .open("/dev/kmsg")
                .and_then(|mut kernel| kernel.write_all(line.as_bytes()))
                .is_ok();
        if !told {
            note(&line);
        }
    }

    fn detail(&self, what: &str) {
        if self.verbose {
            self.say(what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generators_own_name_is_the_verb_with_its_flags() {
        let words = |text: &str| {
            text.split(' ')
                .map(Into::into)
                .collect::<Vec<std::ffi::OsString>>()
        };
        assert_eq!(
            called(&words(
                "/usr/lib/systemd/system-generators/podman-system-generator -dryrun /a"
            ))
            .unwrap(),
            words("dhow quadlet --dryrun /a")
        );
        assert_eq!(
            called(&words("podman-user-generator -v --no-kmsg-log /a")).unwrap(),
            words("dhow quadlet --user --verbose --no-kmsg-log /a")
        );
        assert!(called(&words("podman run x")).is_none());
    }
}
