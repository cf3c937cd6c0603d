//! A log in memory: where it is, and what the next boot and those who do not see it have of it.

use std::path::{Path, PathBuf};

use dhow_meta::{Error, Meta};
use dhow_types::{ErrorKind, Failure as _};
use proptest::prelude::*;

/// A folder for a database on a disk, and one in memory.
struct Host {
    disk: tempfile::TempDir,
    memory: tempfile::TempDir,
}

impl Host {
    /// None when both would be in one file system.
    fn new() -> Option<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let device = |path: &Path| std::fs::metadata(path).unwrap().dev();
        let memory = tempfile::tempdir_in("/dev/shm").ok()?;
        // Where the sources are: /tmp may be in memory, too.
        let disk = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        if device(memory.path()) == device(disk.path()) {
            eprintln!("skipped: there is no memory beside the disk");
            return None;
        }
        Some(Self { disk, memory })
    }

    fn file(&self, suffix: &str) -> PathBuf {
        self.disk.path().join(format!("meta.db{suffix}"))
    }

    fn run(&self, name: &str) -> PathBuf {
        self.memory.path().join(name)
    }

    fn meta(&self, run: &str) -> Meta {
        Meta::open(&self.file("")).unwrap().with_run(&self.run(run))
    }

    /// The folder of the log in memory, by the record.
    fn log(&self) -> Option<PathBuf> {
        let record = std::fs::read_to_string(self.file("-home")).unwrap();
        let line = record.lines().next().unwrap();
        line.splitn(4, ' ').nth(3).map(PathBuf::from)
    }

    /// The next boot: what is in memory is gone, and the record of another boot.
    fn reboot(&self) {
        let record = std::fs::read(self.file("-home")).unwrap();
        std::fs::write(self.file("-home"), [b"0000000x", &record[8..]].concat()).unwrap();
        for entry in std::fs::read_dir(self.memory.path()).unwrap() {
            std::fs::remove_dir_all(entry.unwrap().path()).unwrap();
        }
    }

    /// A copy of the disk as it is, in the boot after a power cut.
    fn cut(&self) -> Option<Self> {
        let other = Self::new()?;
        for suffix in ["", "-wal", "-home"] {
            std::fs::copy(self.file(suffix), other.file(suffix)).unwrap();
        }
        other.reboot();
        Some(other)
    }
}

fn set(meta: &Meta, value: i64) {
    // Several pages, so that the log gets long.
    meta.edit(|edit| {
        (0..12).try_for_each(|name| edit.set_fact(&format!("{name:0>600}"), value))?;
        edit.set_fact("x", value)
    })
    .unwrap();
}

fn get(meta: &Meta) -> Option<i64> {
    let value = meta.fact("x").unwrap();
    for name in 0..12 {
        assert_eq!(meta.fact(&format!("{name:0>600}")).unwrap(), value);
    }
    value
}

#[test]
fn a_log_in_memory_is_copied_and_the_next_boot_has_it() {
    let Some(host) = Host::new() else { return };
    for value in 1..400 {
        let meta = host.meta("a");
        assert_eq!(get(&meta), (value > 1).then(|| value - 1));
        set(&meta, value);
        let log = host.log().unwrap();
        assert!(log.starts_with(host.run("a")), "{}", log.display());
        assert!(!host.file("-shm").exists());
        if value % 23 == 0 {
            drop(meta);
            host.reboot();
        }
    }
    // And one that has no memory.
    host.reboot();
    let meta = Meta::open(&host.file("")).unwrap();
    assert_eq!(get(&meta), Some(399));
    assert_eq!(host.log(), None);
    set(&meta, 400);
    drop(meta);
    host.reboot();
    assert_eq!(get(&host.meta("b")), Some(400));
    assert!(host.log().is_some());
}

#[test]
fn after_a_power_cut_at_rest_nothing_is_missing() {
    let Some(host) = Host::new() else { return };
    let (one, other) = (host.meta("a"), host.meta("a"));
    for value in 1..200 {
        set(if value % 2 == 0 { &one } else { &other }, value);
        let after = host.cut().unwrap();
        let meta = after.meta("b");
        meta.verify().unwrap();
        assert_eq!(get(&meta), Some(value));
    }
    let folded = std::fs::metadata(host.file("")).unwrap().len();
    assert!(folded > 4096 * 3, "nothing was folded in: {folded}");
    let most = 3 * 128 * (4096 + 24);
    assert!(std::fs::metadata(host.file("-wal")).unwrap().len() < most);
}

/// What a copy says that no process has brought up: that of the killed one is missing, and nothing else.
#[test]
fn who_was_killed_before_the_copy_is_made_good_by_the_next() {
    let Some(host) = Host::new() else { return };
    set(&host.meta("a"), 1);
    let (copy, log) = (host.file("-wal"), host.log().unwrap());
    let (mark, before) = (log.join("index-copied"), std::fs::read(&copy).unwrap());
    let marked = std::fs::read(&mark).unwrap();
    set(&host.meta("a"), 2);
    assert!(std::fs::read(&copy).unwrap() != before);
    std::fs::write(&copy, &before).unwrap();
    std::fs::write(&mark, &marked).unwrap();
    let after = host.cut().unwrap();
    assert_eq!(get(&after.meta("b")), Some(1));
    // One that only reads.
    assert_eq!(get(&host.meta("a")), Some(2));
    let after = host.cut().unwrap();
    assert_eq!(get(&after.meta("b")), Some(2));
    // A log whose predecessor was not retired.
    let mut other = marked.clone();
    other[0] ^= 1;
    std::fs::write(&mark, &other).unwrap();
    set(&host.meta("a"), 3);
    let after = host.cut().unwrap();
    assert_eq!(get(&after.meta("b")), Some(3));
    // One that had overwritten the head of the copy and not yet said so, and a log that goes on.
    let mut headless = std::fs::read(&copy).unwrap();
    headless[..32].fill(0);
    std::fs::write(&copy, &headless).unwrap();
    set(&host.meta("a"), 4);
    let after = host.cut().unwrap();
    assert_eq!(get(&after.meta("b")), Some(4));
    // And a mark that is lost: the copy is never none meanwhile.
    std::fs::remove_file(&mark).unwrap();
    set(&host.meta("a"), 5);
    let after = host.cut().unwrap();
    assert_eq!(get(&after.meta("b")), Some(5));
}

#[test]
fn who_cannot_see_the_log_takes_the_copy_and_all_go_on_with_that() {
    let Some(host) = Host::new() else { return };
    set(&host.meta("a"), 1);
    // Another run folder, but the log can be reached: it is used.
    set(&host.meta("b"), 2);
    assert!(host.log().unwrap().starts_with(host.run("a")));
    // Another /run in this place.
    std::fs::rename(host.run("a"), host.run("hidden")).unwrap();
    std::fs::create_dir_all(host.log().unwrap()).unwrap();
    set(&host.meta("a"), 3);
    assert_eq!(host.log(), None);
    std::fs::remove_dir_all(host.run("a")).unwrap();
    std::fs::rename(host.run("hidden"), host.run("a")).unwrap();
    let meta = host.meta("a");
    assert_eq!(get(&meta), Some(3));
    set(&meta, 4);
    drop(meta);
    host.reboot();
    assert_eq!(get(&host.meta("a")), Some(4));
}

#[test]
fn a_folder_that_a_log_out_took_is_made_again() {
    let Some(host) = Host::new() else { return };
    set(&host.meta("a"), 1);
    std::fs::remove_dir_all(host.run("a")).unwrap();
    let meta = host.meta("a");
    assert_eq!(get(&meta), Some(1));
    assert!(host.log().unwrap().is_dir());
    set(&meta, 2);
    assert_eq!(get(&host.meta("a")), Some(2));
}

#[test]
fn a_log_that_is_in_use_elsewhere_is_waited_for_and_then_an_error() {
    let Some(host) = Host::new() else { return };
    let meta = host.meta("a");
    set(&meta, 1);
    std::fs::rename(host.run("a"), host.run("hidden")).unwrap();
    let error = host.meta("b").fact("x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(
        error.hint().is_some_and(|hint| hint.contains("XDG_RUNTIME_DIR")),
        "{error:?}"
    );
    std::thread::scope(|scope| {
        let late = scope.spawn(|| get(&host.meta("b")));
        std::thread::sleep(std::time::Duration::from_millis(300));
        drop(meta);
        assert_eq!(late.join().unwrap(), Some(1));
    });
}

#[test]
fn a_store_without_a_record_keeps_its_log_beside_it_for_this_boot() {
    let Some(host) = Host::new() else { return };
    let old = Meta::open(&host.file("")).unwrap();
    set(&old, 1);
    // As an earlier version left it, or has it open.
    std::fs::remove_file(host.file("-home")).unwrap();
    set(&host.meta("a"), 2);
    assert_eq!(host.log(), None);
    assert_eq!(get(&old), Some(2));
    drop(old);
    host.reboot();
    assert_eq!(get(&host.meta("a")), Some(2));
    assert!(host.log().is_some());
}

#[test]
fn a_reset_forgets_the_log_in_memory_as_well() {
    let Some(host) = Host::new() else { return };
    let meta = host.meta("a");
    set(&meta, 1);
    meta.reset().unwrap();
    assert_eq!(meta.fact("x").unwrap(), None);
    set(&meta, 2);
    assert!(host.log().is_some());
    assert_eq!(get(&host.cut().unwrap().meta("b")), Some(2));
}

#[test]
fn many_that_open_and_change_a_store_at_once_lose_nothing() {
    let Some(host) = Host::new() else { return };
    std::thread::scope(|scope| {
        for number in 0..8 {
            let host = &host;
            scope.spawn(move || {
                for round in 0..40 {
                    let edit = host.meta("a").edit(|edit| {
                        let now = edit.fact("sum")?.unwrap_or(0);
                        edit.set_fact("sum", now + 1)?;
                        edit.set_fact(&format!("{number}-{round:0>900}"), round)
                    });
                    edit.unwrap();
                }
            });
        }
    });
    let cut = host.cut().unwrap();
    let after = cut.meta("b");
    after.verify().unwrap();
    assert_eq!(after.fact("sum").unwrap(), Some(320));
    assert_eq!(host.meta("a").fact("sum").unwrap(), Some(320));
}

/// Of others, or open to others: nobody's log.
#[test]
fn a_folder_that_others_may_change_is_not_trusted() {
    use std::os::unix::fs::PermissionsExt as _;
    let Some(host) = Host::new() else { return };
    set(&host.meta("a"), 1);
    let log = host.log().unwrap();
    std::fs::set_permissions(&log, std::fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(get(&host.meta("a")), Some(1));
    assert_eq!(host.log(), None);
}

/// The run folder is full, or may not be written to: as without one.
#[test]
fn a_run_folder_that_takes_nothing_is_done_without() {
    let Some(host) = Host::new() else { return };
    // A file is in the way: that stops root, too.
    std::fs::create_dir(host.run("a")).unwrap();
    std::fs::write(host.run("a").join("index"), "").unwrap();
    set(&host.meta("a"), 1);
    assert_eq!(host.log(), None);
    assert_eq!(get(&host.meta("a")), Some(1));
}

/// What is in the place of the log's folder is not ours: nothing is removed there.
#[test]
fn a_folder_of_somebody_else_in_the_place_of_the_log_is_left_alone() {
    use std::os::unix::fs::MetadataExt as _;
    let Some(host) = Host::new() else { return };
    let victim = host.run("victim");
    std::fs::create_dir(&victim).unwrap();
    std::fs::write(victim.join("file"), "x").unwrap();
    let record = std::fs::File::create(host.file("-home")).unwrap();
    let place = record.metadata().unwrap();
    let index = host.run("a").join("index");
    std::fs::create_dir_all(&index).unwrap();
    let name = format!("{:x}-{:x}", place.dev(), place.ino());
    std::os::unix::fs::symlink(&victim, index.join(name)).unwrap();
    set(&host.meta("a"), 1);
    assert_eq!(host.log(), None);
    assert_eq!(std::fs::read(victim.join("file")).unwrap(), b"x");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_record_leaves_a_database_that_can_be_used(bytes in prop::collection::vec(any::<u8>(), 0..60), text in "[0-9a-f]{0,8} (disk|[0-9]{0,3} [0-9]{0,3} /[a-z/]{0,9})?\n?") {
        let Some(host) = Host::new() else { return Ok(()) };
        set(&host.meta("a"), 1);
        for record in [bytes, text.into_bytes()] {
            std::fs::write(host.file("-home"), record).unwrap();
            let meta = host.meta("a");
            prop_assert_eq!(get(&meta), Some(1));
            let changed: Result<(), Error> = meta.edit(|edit| edit.set_fact("x", 1));
            prop_assert!(changed.is_ok());
        }
    }
}
