//! What lists show of many containers, kept in one file, so that the next list need not open two records of each.
//!
//! It is never the truth. Each entry is compared with the records that it was made of, by one stat of each: what changed
//! since, or is not there, is read as if there were no such file, and the file may be thrown away at any time. It counts for
//! the boot and for the program that wrote it alone, so neither a power cut nor another form of records matters.
//!
//! ```text
//! dhow-listed <boot id> <device> <inode> <change time of the program>
//! <container id> <inode, size and change time of config.json> <those of state.json> <length>
//! [<what lists show of the config>,<state>]      of that length; so on for each, sorted by id
//! ```
//! Who writes it has the lock of the file that is renamed to it. One who was killed leaves that file to the next.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dhow_types::ContainerId;
use rustix::fs::{AtFlags, FlockOperation, OFlags};

use super::brief::{Brief, Listed};
use super::record::State;

/// Below the folder of run state.
const NAME: &str = "listed";
/// What becomes [`NAME`].
const NEXT: &str = ".listed.next";
/// Largest file that is read: some 50,000 containers.
const MOST: u64 = 64 << 20;
/// From this size on a thread costs less than reading it: some 200 containers.
const LONG: u64 = 256 << 10;
/// A kernel before 6.13 gives changes within one tick of its clock, of at most 10 ms, the same time: a record that is not
/// older than this may change and look the same.
const TICK: Duration = Duration::from_millis(20);

/// What tells one content of a file from another: neither a rename into its place nor a write leaves all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: i64,
    seconds: i64,
    nanoseconds: i64,
}

/// Those of both records of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamps {
    config: Stamp,
    state: Stamp,
}

impl Stamps {
    /// As they are now; taken before the records are read. None when one is not there.
    pub(super) fn of(containers: BorrowedFd<'_>, id: &ContainerId, name: &mut String) -> Option<Self> {
        let mut stamp = |file: &str| {
            name.clear();
            name.extend([id.as_str(), "/", file]);
            let found = rustix::fs::statat(containers, name.as_str(), AtFlags::SYMLINK_NOFOLLOW).ok()?;
            Some(Stamp {
                inode: found.st_ino,
                size: found.st_size,
                seconds: found.st_ctime,
                nanoseconds: i64::try_from(found.st_ctime_nsec).ok()?,
            })
        };
        Some(Self {
            config: stamp("config.json")?,
            state: stamp("state.json")?,
        })
    }

    /// Whether a change from `now` on gives other stamps.
    fn are_final(&self, now: SystemTime) -> bool {
        let Some(now) = now
            .checked_sub(TICK)
            .and_then(|now| now.duration_since(UNIX_EPOCH).ok())
        else {
            return false;
        };
        let now = (
            i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
            i64::from(now.subsec_nanos()),
        );
        [self.config, self.state]
            .iter()
            .all(|stamp| (stamp.seconds, stamp.nanoseconds) < now)
    }

    fn parse(words: &mut std::str::SplitAsciiWhitespace<'_>) -> Option<Self> {
        let mut stamp = || {
            Some(Stamp {
                inode: words.next()?.parse().ok()?,
                size: words.next()?.parse().ok()?,
                seconds: words.next()?.parse().ok()?,
                nanoseconds: words.next()?.parse().ok()?,
            })
        };
        Some(Self {
            config: stamp()?,
            state: stamp()?,
        })
    }
}

/// The file as it was found; empty when there is none that counts.
#[derive(Debug, Default)]
pub(super) struct Summary {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    /// Where its container's id begins and ends in the bytes.
    id: (usize, usize),
    stamps: Stamps,
    /// Where it begins and ends in the bytes.
    place: (usize, usize),
}

impl Summary {
    /// Whether there is enough that a thread of its own may read it meanwhile.
    pub(super) fn is_long(run: &Path) -> bool {
        fs::symlink_metadata(run.join(NAME)).is_ok_and(|found| found.len() > LONG)
    }

    /// Reads what there is, as far as it is whole.
    pub(super) fn read(run: &Path) -> Self {
        let found = || {
            let bytes = own_file(&run.join(NAME))?;
            let entries = entries(&bytes, &writer()?)?;
            Some(Self { bytes, entries })
        };
        found().unwrap_or_default()
    }

    /// How many containers are in it.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What it has of a container whose records have these stamps.
    pub(super) fn recall(&self, id: &ContainerId, stamps: &Stamps) -> Option<(Brief, State)> {
        let named = |entry: &Entry| self.bytes.get(entry.id.0..entry.id.1).unwrap_or_default();
        let at = self
            .entries
            .binary_search_by(|entry| named(entry).cmp(id.as_str().as_bytes()))
            .ok()?;
        let entry = &self.entries[at];
        if entry.stamps != *stamps {
            return None;
        }
        let (brief, state): (Brief, State) =
            serde_json::from_slice(self.bytes.get(entry.place.0..entry.place.1)?).ok()?;
        (brief.id == *id).then_some((brief, state))
    }

    /// Writes another, of those whose stamps are certain; `now` is from before the first was taken. What fails leaves the old
    /// one or none.
    pub(super) fn write(run: &Path, now: SystemTime, listed: &[(&Listed, Stamps)]) -> std::io::Result<()> {
        let Some(writer) = writer() else { return Ok(()) };
        let mut sorted: Vec<_> = listed
            .iter()
            .filter(|(_, stamps)| stamps.are_final(now))
            .collect();
        sorted.sort_by_key(|(one, _)| one.config.id.as_str());
        let mut bytes = Vec::with_capacity(sorted.len() * 2048);
        writeln!(bytes, "{writer}")?;
        for (one, stamps) in sorted {
            let json = serde_json::to_vec(&(&one.config, &one.state))?;
            write!(bytes, "{}", one.config.id)?;
            for stamp in [stamps.config, stamps.state] {
                let Stamp {
                    inode,
                    size,
                    seconds,
                    nanoseconds,
                } = stamp;
                write!(bytes, " {inode} {size} {seconds} {nanoseconds}")?;
            }
            writeln!(bytes, " {}", json.len())?;
            bytes.extend(json);
            bytes.push(b'\n');
        }
        replace(run, &bytes)
    }
}

/// The first line: for whom the file counts. None where that cannot be said.
fn writer() -> Option<String> {
    let boot = dhow_layer::boot_id().ok()?;
    let program = fs::metadata("/proc/self/exe").ok()?;
    Some(format!(
        "dhow-listed {boot} {} {} {}.{}",
        program.dev(),
        program.ino(),
        program.ctime(),
        program.ctime_nsec()
    ))
}

/// A plain file of this user's that no other user may write.
fn own_file(path: &Path) -> Option<Vec<u8>> {
    // Whatever else has its place is neither followed nor waited for.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::options()
        .read(true)
        .custom_flags(i32::try_from(flags.bits()).ok()?)
        .open(path)
        .ok()?;
    let found = file.metadata().ok()?;
    let own = found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o022 == 0;
    if !found.is_file() || !own || found.len() > MOST {
        return None;
    }
    let mut bytes = Vec::with_capacity(usize::try_from(found.len()).ok()? + 1);
    file.take(MOST).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The entries of a file by this writer; none of one that is not whole.
fn entries(bytes: &[u8], writer: &str) -> Option<Vec<Entry>> {
    let mut at = 0;
    let line = |at: &mut usize| {
        let (start, rest) = (*at, bytes.get(*at..)?);
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        *at += end + 1;
        Some((start, std::str::from_utf8(&rest[..end]).ok()?))
    };
    if line(&mut at)?.1 != writer {
        return None;
    }
    let mut entries: Vec<Entry> = Vec::new();
    let mut last = "";
    while at < bytes.len() {
        let (start, text) = line(&mut at)?;
        let mut words = text.split_ascii_whitespace();
        // A line begins with its id: it has no blank before it.
        let id = words.next().filter(|id| text.starts_with(id))?;
        let stamps = Stamps::parse(&mut words)?;
        let length: usize = words.next()?.parse().ok()?;
        let place = (at, at.checked_add(length)?);
        if bytes.get(place.1) != Some(&b'\n') || last >= id {
            return None;
        }
        last = id;
        at = place.1 + 1;
        let id = (start, start + id.len());
        entries.push(Entry { id, stamps, place });
    }
    Some(entries)
}

/// Puts bytes in the file's place. Nothing is done while another does it.
fn replace(run: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let next = run.join(NEXT);
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
        .open(&next)?;
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(());
    }
    // Whoever had the lock may have renamed the file: then it is in use.
    let (own, named) = (file.metadata()?, fs::symlink_metadata(&next)?);
    if (own.dev(), own.ino()) != (named.dev(), named.ino()) || !own.is_file() {
        return Ok(());
    }
    let written = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(bytes))
        .and_then(|()| fs::rename(&next, run.join(NAME)));
    if written.is_err() {
        drop(fs::remove_file(&next));
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::super::brief::tests::{config, containers};
    use super::super::folder::{Containers, write_json};
    use super::super::record::Status;
    use super::*;

    const COUNT: usize = 100;

    /// Containers whose records do not change any more, and the folder of run state with a summary of them.
    fn summed_up() -> (tempfile::TempDir, Containers) {
        let root = tempfile::tempdir().unwrap();
        let containers = containers(root.path(), COUNT);
        fs::create_dir(root.path().join("run")).unwrap();
        std::thread::sleep(2 * TICK);
        containers.brief().unwrap();
        assert_eq!(Summary::read(&root.path().join("run")).len(), COUNT);
        (root, containers)
    }

    fn truth(containers: &Containers) -> Vec<Listed> {
        containers.list().unwrap().iter().map(Listed::from).collect()
    }

    /// Puts something else at the same length into the summary, so that it shows who reads it.
    fn lie(run: &Path) {
        let mut text = fs::read_to_string(run.join(NAME)).unwrap();
        text = text.replace("shop:1", "lies:2");
        fs::write(run.join(NAME), text).unwrap();
    }

    fn lies(containers: &Containers) -> usize {
        let all = containers.brief().unwrap();
        all.iter().filter(|one| one.config.image_name == "lies:2").count()
    }

    #[test]
    fn a_list_takes_from_the_summary_what_did_not_change() {
        let (root, containers) = summed_up();
        assert_eq!(containers.brief().unwrap(), truth(&containers));
        lie(&root.path().join("run"));
        assert_eq!(lies(&containers), COUNT);
    }

    #[test]
    fn what_changed_since_is_read_however_it_changed() {
        let (root, containers) = summed_up();
        let run = root.path().join("run");
        lie(&run);
        let folder = |number: usize| root.path().join(format!("containers/{number:064x}"));
        // Replaced, as everybody here does it; written in place at the same length; touched back; gone; new.
        let exited = State {
            status: Status::Exited,
            ..State::default()
        };
        containers.write_state(&config(0).id, &exited).unwrap();
        let path = folder(1).join("config.json");
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        let text = fs::read_to_string(&path).unwrap().replace("\"c1\"", "\"d1\"");
        fs::write(&path, text).unwrap();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(before)
            .unwrap();
        fs::remove_dir_all(folder(2)).unwrap();
        fs::remove_file(folder(3).join("config.json")).unwrap();
        containers.create(&config(COUNT), &|_| Ok(())).unwrap();
        let all = containers.brief().unwrap();
        assert_eq!(all.len(), COUNT - 1);
        let named = |name: &str| all.iter().find(|one| one.config.name == name);
        assert_eq!(named("c0").unwrap().state.status, Status::Exited);
        assert_eq!(named("c0").unwrap().config.image_name, "shop:1");
        assert!(named("c1").is_none() && named("d1").is_some());
        assert!(named("c2").is_none() && named("c3").is_none());
        assert_eq!(named(&format!("c{COUNT}")).unwrap().config.image_name, "shop:1");
        // The others are still taken from it: so few changes are not worth another.
        assert_eq!(lies(&containers), COUNT - 4);
        // Now one in four would be of those that are gone.
        for number in 4..COUNT / 3 {
            fs::remove_dir_all(folder(number)).unwrap();
        }
        containers.brief().unwrap();
        assert!(Summary::read(&run).len() < COUNT * 3 / 4);
        assert_eq!(containers.brief().unwrap().len(), truth(&containers).len());
    }

    #[test]
    fn a_record_that_may_change_within_one_tick_of_the_clock_is_not_in_it() {
        let (root, containers) = summed_up();
        let run = root.path().join("run");
        let late = SystemTime::now() + Duration::from_secs(1);
        // On a busy machine the tick may be over before the list begins.
        let left_out = (0..100).any(|_| {
            fs::remove_file(run.join(NAME)).unwrap();
            containers.write_state(&config(0).id, &State::default()).unwrap();
            containers.brief().unwrap();
            Summary::read(&run).len() == COUNT - 1
        });
        assert!(left_out);
        // A clock that was set back: what comes may have any time.
        let top = File::open(root.path().join("containers")).unwrap();
        let stamps = |number: usize| {
            let mut name = String::new();
            Stamps::of(std::os::fd::AsFd::as_fd(&top), &config(number).id, &mut name).unwrap()
        };
        assert!(stamps(0).are_final(late));
        assert!(!stamps(0).are_final(late - Duration::from_secs(3600)));
        assert!(!stamps(0).are_final(UNIX_EPOCH));
    }

    #[test]
    fn a_program_whose_process_is_gone_has_ended_also_in_a_list_from_the_summary() {
        let (root, containers) = summed_up();
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let state = State {
            status: Status::Running,
            pid,
            pid_start: super::super::process_start(pid).unwrap(),
            ..State::default()
        };
        containers.write_state(&config(7).id, &state).unwrap();
        fs::remove_file(root.path().join("run").join(NAME)).unwrap();
        std::thread::sleep(2 * TICK);
        let status = || {
            let all = containers.brief().unwrap();
            all.iter()
                .find(|one| one.config.name == "c7")
                .unwrap()
                .state
                .status
        };
        assert_eq!([status(), status()], [Status::Running; 2]);
        lie(&root.path().join("run"));
        assert_eq!(lies(&containers), COUNT);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!([status(), status()], [Status::Exited; 2]);
    }

    #[test]
    fn a_torn_foreign_or_hostile_summary_is_as_good_as_none() {
        let (root, containers) = summed_up();
        let run = root.path().join("run");
        let (path, expected) = (run.join(NAME), truth(&containers));
        lie(&run);
        let whole = fs::read(&path).unwrap();
        let text = String::from_utf8(whole.clone()).unwrap();
        let (head, body) = text.split_once('\n').unwrap();
        let mut bad: Vec<Vec<u8>> = (0..whole.len())
            .step_by(whole.len() / 50)
            .chain([whole.len() - 1])
            .map(|length| whole[..length].to_vec())
            // Cut behind an entry it is whole, and of fewer containers.
            .filter(|cut| !cut.ends_with(b"]\n"))
            .collect();
        bad.push(format!("{} 1\n{body}", head).into_bytes());
        bad.push(format!("dhow-listed another-boot 1 2 3.4\n{body}").into_bytes());
        bad.push(format!("{head}\n{}", body.replacen(' ', " 99999999999999999999999 ", 1)).into_bytes());
        let (first, rest) = body.split_once('\n').unwrap();
        let (stamps, _) = first.rsplit_once(' ').unwrap();
        for length in ["18446744073709551615", "-1", "9", ""] {
            bad.push(format!("{head}\n{stamps} {length}\n{rest}").into_bytes());
        }
        // Twice the same container.
        bad.push(format!("{head}\n{body}{body}").into_bytes());
        bad.push(vec![0xff; 4096]);
        for (number, bytes) in bad.into_iter().enumerate() {
            fs::write(&path, bytes).unwrap();
            assert_eq!(containers.brief().unwrap(), expected, "{number}");
        }
        // An entry that says it is of another is not that one's.
        let other = text.replace(
            &format!("\"id\":\"{:064x}\"", 5),
            &format!("\"id\":\"{:064x}\"", 6),
        );
        fs::write(&path, other).unwrap();
        let all = containers.brief().unwrap();
        assert_eq!(
            all.iter()
                .find(|one| one.config.name == "c5")
                .unwrap()
                .config
                .image_name,
            "shop:1"
        );
        // Of another user, or of one whom others may change.
        fs::write(&path, &whole).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o622)).unwrap();
        assert_eq!(containers.brief().unwrap(), expected);
    }

    #[test]
    fn whatever_has_the_place_of_the_summary_is_not_touched_and_not_waited_for() {
        let (root, containers) = summed_up();
        let (run, expected) = (root.path().join("run"), truth(&containers));
        let victim = root.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        for name in [NAME, NEXT] {
            let place = run.join(name);
            drop(fs::remove_file(&place));
            symlink(&victim, &place).unwrap();
            assert_eq!(containers.brief().unwrap(), expected);
            fs::remove_file(&place).unwrap();
            rustix::fs::mkfifoat(rustix::fs::CWD, &place, rustix::fs::Mode::from(0o600)).unwrap();
            assert_eq!(containers.brief().unwrap(), expected);
            drop(fs::remove_file(&place));
            fs::create_dir(&place).unwrap();
            assert_eq!(containers.brief().unwrap(), expected);
            fs::remove_dir(&place).unwrap();
        }
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    }

    #[test]
    fn a_killed_writer_is_in_nobodys_way_and_one_at_work_is_not_disturbed() {
        let (root, containers) = summed_up();
        let run = root.path().join("run");
        fs::remove_file(run.join(NAME)).unwrap();
        fs::write(run.join(NEXT), "x".repeat(1 << 20)).unwrap();
        let busy = File::open(run.join(NEXT)).unwrap();
        rustix::fs::flock(&busy, FlockOperation::LockExclusive).unwrap();
        containers.brief().unwrap();
        assert_eq!(fs::metadata(run.join(NEXT)).unwrap().len(), 1 << 20);
        assert!(!run.join(NAME).exists());
        drop(busy);
        containers.brief().unwrap();
        assert_eq!(Summary::read(&run).len(), COUNT);
        assert!(!run.join(NEXT).exists());
    }

    #[test]
    fn lists_beside_each_other_and_beside_changes_are_right() {
        let (root, containers) = summed_up();
        let path = root.path().join(format!("containers/{:064x}/state.json", 1));
        std::thread::scope(|scope| {
            let listing = || {
                let mut last = 0;
                for _ in 0..20 {
                    // Each finds something to write.
                    drop(fs::remove_file(root.path().join("run").join(NAME)));
                    let all = containers.brief().unwrap();
                    assert_eq!(all.len(), COUNT);
                    let now = all.iter().find(|one| one.config.name == "c1").unwrap();
                    assert!(now.state.restart_count >= last);
                    last = now.state.restart_count;
                }
            };
            let lists: Vec<_> = (0..4).map(|_| scope.spawn(listing)).collect();
            for restart_count in 1..200 {
                let state = State {
                    restart_count,
                    ..State::default()
                };
                write_json(&path, &state).unwrap();
            }
            for list in lists {
                list.join().unwrap();
            }
        });
        assert_eq!(containers.brief().unwrap(), truth(&containers));
        let count = |all: &[Listed]| all.iter().map(|one| one.state.restart_count).max();
        assert_eq!(count(&containers.brief().unwrap()), Some(199));
    }
}
