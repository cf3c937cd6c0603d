//! Cache and memory bandwidth of a container: its class of service in the resctrl file system
//! (config-linux.md, "IntelRdt"; kernel `filesystems/resctrl.rst`).
//!
//! A class is a directory, which the kernel fills when it is made; a process is in it when its id is in `tasks`. What was
//! made is written into the container's folder before it is made, so that a kill leaves nothing that `delete` does not know.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use dhow_oci::runtime::IntelRdt;
use dhow_types::{ErrorKind, Failures};
use serde::{Deserialize, Serialize};

use super::folder::Folder;
use crate::{Context as _, Error};

/// The file of a container's folder that says what it has of resctrl.
const FILE: &str = "resctrl.json";

/// What a spec asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Class {
    /// The class by name; the container's id without.
    name: Option<String>,
    /// Lines that a class which is there must have already.
    compared: Vec<String>,
    /// Lines that are written in any case.
    written: Vec<String>,
    monitored: bool,
}

impl Class {
    /// The class of a spec, if it is one.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that is no directory's, and for lines with line breaks.
    pub(crate) fn parse(wanted: &IntelRdt) -> Result<Self, Error> {
        let wrong = |what: String| {
            Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("linux.intelRdt: {what}"),
            ))
        };
        let name = wanted.clos_id.clone().filter(|name| !name.is_empty());
        if let Some(name) = name.as_deref().filter(|name| *name != "/") {
            let reserved = ["info", "mon_data", "mon_groups"].contains(&name);
            if matches!(name, "." | "..") || reserved || name.contains(['/', '\n', '\0']) {
                return wrong(format!("closID {name:?} is not the name of a class"));
            }
        }
        if let Some(line) = schema(&wanted.mem_bw_schema).filter(|line| !line.starts_with("MB:")) {
            return wrong(format!("memBwSchema {line:?} does not start with \"MB:\""));
        }
        let compared: Vec<String> = [&wanted.l3_cache_schema, &wanted.mem_bw_schema]
            .into_iter()
            .filter_map(|line| schema(line).map(str::to_owned))
            .collect();
        if let Some(line) = compared
            .iter()
            .chain(&wanted.schemata)
            .find(|line| line.contains('\n'))
        {
            return wrong(format!("schema {line:?} has a line break"));
        }
        Ok(Self {
            name,
            compared,
            written: wanted.schemata.clone(),
            // Before version 1.3 of the spec the two parts of monitoring had fields of their own.
            monitored: wanted.enable_monitoring
                || ["enableCMT", "enableMBM"].iter().any(|field| {
                    wanted
                        .extra
                        .get(*field)
                        .is_some_and(|value| value.as_bool() == Some(true))
                }),
        })
    }

    fn limits(&self) -> bool {
        !(self.compared.is_empty() && self.written.is_empty())
    }
}

/// A schema of the spec; an empty one is none.
fn schema(line: &Option<String>) -> Option<&str> {
    line.as_deref().filter(|line| !line.is_empty())
}

/// What a container has of resctrl.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Membership {
    /// The class's directory.
    class: PathBuf,
    /// Whether it goes with the container.
    made: bool,
    /// The container's monitoring group.
    monitor: Option<PathBuf>,
}

/// A resctrl file system.
#[derive(Debug)]
pub(super) struct Resctrl {
    root: PathBuf,
    /// How a directory comes and goes. The kernel fills one that is made, and empties it.
    make: fn(&Path) -> io::Result<()>,
    remove: fn(&Path) -> io::Result<()>,
}

impl Resctrl {
    /// The one that is mounted here.
    ///
    /// # Errors
    /// `Unsupported` when there is none.
    fn mounted() -> Result<Self, Error> {
        let table = fs::read_to_string("/proc/self/mountinfo").context(|| "read /proc/self/mountinfo")?;
        match mount_point(&table) {
            Some(root) => Ok(Self {
                root,
                make: |path| fs::create_dir(path),
                remove: |path| fs::remove_dir(path),
            }),
            None => {
                let message = "linux.intelRdt is asked for, and no resctrl file system is mounted";
                Err(Error::new(ErrorKind::Unsupported, message).with_hint(
                    "mount -t resctrl resctrl /sys/fs/resctrl, on a processor that has it, or leave linux.intelRdt out",
                ))
            }
        }
    }

    /// Makes what the class needs, tells `note` of it before, and opens the files that a process enters by.
    fn enter(
        &self,
        class: &Class,
        id: &str,
        note: impl FnOnce(&Membership) -> Result<(), Error>,
    ) -> Result<Vec<OwnedFd>, Error> {
        let path = match class.name.as_deref() {
            Some("/") => self.root.clone(),
            name => self.root.join(name.unwrap_or(id)),
        };
        let there = path.is_dir();
        if !there && class.name.is_some() && !class.limits() {
            let message = format!("class of service {} is not there", path.display());
            return Err(Error::new(ErrorKind::FailedPrecondition, message)
                .with_hint("make it first, or give it schemata in linux.intelRdt"));
        }
        let membership = Membership {
            made: !there && class.name.is_none(),
            monitor: class.monitored.then(|| path.join("mon_groups").join(id)),
            class: path,
        };
        note(&membership)?;
        self.make(&membership, there)?;
        let schemata = membership.class.join("schemata");
        if there {
            let text = fs::read_to_string(&schemata);
            differing(
                &class.compared,
                &text.context(|| format!("read {}", schemata.display()))?,
            )?;
        }
        let fresh = class.compared.iter().filter(|_| !there);
        let lines: Vec<&str> = fresh.chain(&class.written).map(String::as_str).collect();
        self.write(&schemata, &lines)?;
        membership.entrances()
    }

    fn make(&self, membership: &Membership, there: bool) -> Result<(), Error> {
        let class = Some(&membership.class).filter(|_| !there);
        for path in class.into_iter().chain(&membership.monitor) {
            match (self.make)(path) {
                // A monitoring group of this id is of a container that was not taken away whole.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made.context(|| format!("make {}{}", path.display(), self.status()))?,
            }
        }
        Ok(())
    }

    fn write(&self, schemata: &Path, lines: &[&str]) -> Result<(), Error> {
        if lines.is_empty() {
            return Ok(());
        }
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let written = File::options()
            .write(true)
            .open(schemata)
            .and_then(|mut file| file.write_all(text.as_bytes()));
        let shown = text.trim_end();
        written.context(|| format!("write {shown:?} to {}{}", schemata.display(), self.status()))
    }

    /// The kernel's own words for the last failure.
    fn status(&self) -> String {
        match fs::read_to_string(self.root.join("info/last_cmd_status")) {
            Ok(status) if !matches!(status.trim(), "" | "ok") => format!(" ({})", status.trim()),
            _ => String::new(),
        }
    }

    fn allocation(&self, membership: &Membership) -> Result<Allocation, Error> {
        let lines = |dir: &Path| -> Result<Vec<String>, Error> {
            let file = dir.join("schemata");
            let text = fs::read_to_string(&file).context(|| format!("read {}", file.display()))?;
            Ok(text.lines().map(|line| line.trim().to_owned()).collect())
        };
        let data = membership
            .monitor
            .as_ref()
            .unwrap_or(&membership.class)
            .join("mon_data");
        let mut domains: Vec<PathBuf> = match fs::read_dir(&data) {
            // A processor that counts nothing.
            Err(_) => Vec::new(),
            Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
        };
        domains.sort_unstable();
        Ok(Allocation {
            root: lines(&self.root)?,
            own: lines(&membership.class)?,
            monitors: domains.iter().map(|domain| counters(domain)).collect(),
        })
    }

    /// Removes what goes with the container; what is gone counts as removed.
    fn leave(&self, membership: &Membership) -> Result<(), Error> {
        let class = Some(&membership.class).filter(|_| membership.made);
        let mut failures = Failures::new();
        for path in membership.monitor.iter().chain(class) {
            match (self.remove)(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                done => failures.record(
                    "remove a group of resctrl",
                    done.context(|| format!("remove {}", path.display())),
                ),
            }
        }
        failures
            .into_result()
            .map_err(|failed| Error::wrap(failed, "leave the class of service"))
    }
}

impl Membership {
    /// The files that a process enters by; first the class, since a monitoring group takes only members of its class.
    fn entrances(&self) -> Result<Vec<OwnedFd>, Error> {
        let open = |dir: &PathBuf| {
            let tasks = dir.join("tasks");
            let file = File::options().write(true).open(&tasks);
            file.map(OwnedFd::from)
                .context(|| format!("open {}", tasks.display()))
        };
        std::iter::once(&self.class)
            .chain(&self.monitor)
            .map(open)
            .collect()
    }
}

/// The counters of one domain. A reading of "Unavailable" or "Error" is none.
fn counters(domain: &Path) -> BTreeMap<String, u64> {
    let names = ["llc_occupancy", "mbm_total_bytes", "mbm_local_bytes"];
    let read = |name: &&str| fs::read_to_string(domain.join(name)).ok()?.trim().parse().ok();
    names
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), read(name)?)))
        .collect()
}

/// The files by which a container's first process enters its class, which is made for it.
///
/// # Errors
/// `Unsupported` without resctrl; the class that is not there, or is another than the spec says.
pub(super) fn enter(folder: &Folder, class: Option<&Class>) -> Result<Vec<OwnedFd>, Error> {
    let Some(class) = class else { return Ok(Vec::new()) };
    Resctrl::mounted()?.enter(class, folder.id(), |membership| note(folder, membership))
}

fn note(folder: &Folder, membership: &Membership) -> Result<(), Error> {
    let bytes = serde_json::to_vec(membership)
        .map_err(|error| Error::because(ErrorKind::Internal, "write down the class of service", error))?;
    folder.draft(FILE, &bytes)?;
    folder.publish(FILE)
}

fn membership(folder: &Folder) -> Result<Option<Membership>, Error> {
    let Some(bytes) = folder.read(FILE)? else {
        return Ok(None);
    };
    let read = serde_json::from_slice(&bytes);
    read.map(Some).map_err(|error| {
        Error::because(
            ErrorKind::DataLoss,
            format!("{FILE} of the container is damaged"),
            error,
        )
    })
}

/// The files by which one more process enters the class of its container.
///
/// # Errors
/// When they cannot be opened.
pub(super) fn entrances(folder: &Folder) -> Result<Vec<OwnedFd>, Error> {
    membership(folder)?.map_or(Ok(Vec::new()), |membership| membership.entrances())
}

/// Takes away what a container has of resctrl.
///
/// # Errors
/// What could not be removed.
pub(super) fn leave(folder: &Folder) -> Result<(), Error> {
    let Some(membership) = membership(folder)? else {
        return Ok(());
    };
    match Resctrl::mounted() {
        // With the file system all of its groups went.
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(()),
        resctrl => resctrl?.leave(&membership),
    }
}

/// Writes other schemata for the class of a container.
///
/// # Errors
/// `FailedPrecondition` for a container without a class; what the kernel refuses.
pub(super) fn update(folder: &Folder, lines: &[&str]) -> Result<(), Error> {
    let Some(membership) = membership(folder)? else {
        let message = "container has no class of service of Intel RDT";
        return Err(Error::new(ErrorKind::FailedPrecondition, message));
    };
    Resctrl::mounted()?.write(&membership.class.join("schemata"), lines)
}

/// What resctrl says of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocation {
    /// The lines of the default class's `schemata`.
    pub root: Vec<String>,
    /// Those of the container's.
    pub own: Vec<String>,
    /// The counters of each domain, of the container alone if it has a monitoring group: bytes by name
    /// (`llc_occupancy`, `mbm_total_bytes`, `mbm_local_bytes`).
    pub monitors: Vec<BTreeMap<String, u64>>,
}

/// What resctrl says of a container; none of one without a class.
///
/// # Errors
/// What cannot be read.
pub(super) fn allocation(folder: &Folder) -> Result<Option<Allocation>, Error> {
    match membership(folder)? {
        Some(membership) => Resctrl::mounted()?.allocation(&membership).map(Some),
        None => Ok(None),
    }
}

/// Where the table (proc(5), `mountinfo`) has a resctrl. The kernel writes blanks of paths as octal numbers.
fn mount_point(table: &str) -> Option<PathBuf> {
    let line = table.lines().find(|line| {
        line.split(" - ")
            .nth(1)
            .is_some_and(|rest| rest.starts_with("resctrl "))
    })?;
    let path = line.split(' ').nth(4)?;
    Some(PathBuf::from(path.replace("\\040", " ").replace("\\134", "\\")))
}

/// Whether a class that is there has the lines: every domain that they name. The kernel writes other blanks and zeros
/// than it reads.
fn differing(wanted: &[String], text: &str) -> Result<(), Error> {
    let domains = |line: &str| -> Option<(String, Vec<(String, String)>)> {
        let (resource, rest) = line.trim().split_once(':')?;
        let number = |text: &str| text.trim().trim_start_matches('0').to_ascii_lowercase();
        let pairs = rest.split(';').filter_map(|pair| pair.split_once('='));
        let pairs = pairs.map(|(domain, value)| (number(domain), number(value)));
        Some((resource.trim().to_owned(), pairs.collect()))
    };
    let there: Vec<_> = text.lines().filter_map(domains).collect();
    for line in wanted {
        let has = domains(line).is_some_and(|(resource, pairs)| {
            let found = there.iter().find(|(name, _)| *name == resource);
            !pairs.is_empty() && found.is_some_and(|(_, found)| pairs.iter().all(|pair| found.contains(pair)))
        });
        if !has {
            let message = format!("the class of service is there with other schemata than {line:?}");
            return Err(Error::new(ErrorKind::FailedPrecondition, message)
                .with_hint("choose another closID, or give the schemata that it has"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
