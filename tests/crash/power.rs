//! Power cuts: verbs at work on a file system over a disk that forgets, cut at any write.
//!
//! Beside them a neighbour writes and syncs a file of its own, as a database would: by that the journal's commits come at
//! any time, while the content of files is still in memory. Such a commit is what leaves files without content behind.
//!
//! After each cut the file system is mounted (its journal is replayed), the boot has another id, and the run folder is
//! empty, as after a real one. Then half of the time names are run as they are: they run with their content, or dhow
//! says why not. Always `system check` is clean or heals; every name that a verb reported (all but
//! that one is gone) is there, and every name that is there runs with the content that it had before the cut.
//!
//! `DHOW_POWER_CUTS` says how many cuts there are on each file system; the sample is a few.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dhow_testkit::{FakeRegistry, Layer, Tar, TinyImage};
use rustix::mount::{UnmountFlags, unmount};

use super::keeper::Keeper;
use super::volatile::{Cuts, Disk, Lost, Random, said};
use super::{change, how_many, tar_of};
use crate::samples::{docker_archive, noise};
use crate::world::{Ran, World, eventually, finish, program, root};

/// What a verb did to a name, from one place of the record to another.
struct Deed {
    begun: usize,
    done: usize,
    name: String,
    /// Content of the image's file `/id`; none when the name was taken away.
    id: Option<String>,
    /// Whether the verb says that the disk has it.
    durable: bool,
}

impl Deed {
    fn shown(&self) -> String {
        let id = self.id.as_deref().unwrap_or("gone");
        let how = if self.durable { ", synced" } else { "" };
        format!("{} {id} ({} to {}{how})", self.name, self.begun, self.done)
    }
}

/// What names may be after a cut.
#[derive(Default)]
struct Expected(BTreeMap<String, BTreeSet<Option<String>>>);

impl Expected {
    /// A verb that syncs does so for all that was written before it, too. What came later may be there or not.
    fn at(deeds: &[Deed], cut: usize) -> Self {
        let safe = deeds.iter().rposition(|deed| deed.durable && deed.done <= cut);
        let mut names = BTreeMap::<String, BTreeSet<Option<String>>>::new();
        for (at, deed) in deeds.iter().enumerate().filter(|(_, deed)| deed.begun <= cut) {
            let possible = names
                .entry(deed.name.clone())
                .or_insert_with(|| BTreeSet::from([None]));
            if safe.is_some_and(|safe| at <= safe) {
                possible.clear();
            }
            possible.insert(deed.id.clone());
        }
        Self(names)
    }

    fn may_be(&self, name: &str, id: &str) -> bool {
        self.0
            .get(name)
            .is_some_and(|possible| possible.contains(&Some(id.to_owned())))
    }

    fn must_be(&self) -> impl Iterator<Item = &str> {
        let sure = self.0.iter().filter(|(_, possible)| !possible.contains(&None));
        sure.map(|(name, _)| name.as_str())
    }
}

/// A file system for the root folder of a world, mounted in it.
struct Host {
    keeper: Keeper,
    outer: World,
    world: World,
    kind: &'static str,
}

impl Host {
    fn new(kind: &'static str) -> Option<Self> {
        if !root() || !program(&format!("mkfs.{kind}")) || !Path::new("/dev/fuse").exists() {
            return None;
        }
        let outer = World::new()?;
        let keeper = Keeper::start(&outer.path(""));
        let (memory, mounted) = (outer.path("memory"), outer.path("m"));
        fs::create_dir_all(&memory).unwrap();
        fs::create_dir_all(&mounted).unwrap();
        said(
            "mount",
            &[
                "-t",
                "tmpfs",
                "-o",
                "size=3g",
                "dhow-test",
                memory.to_str().unwrap(),
            ],
        );
        let first = memory.join("first");
        fs::File::create(&first).unwrap().set_len(320 << 20).unwrap();
        let options: &[&str] = match kind {
            "ext4" => &["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"],
            _ => &["-q", "-f"],
        };
        said(
            &format!("mkfs.{kind}"),
            &[options, &[first.to_str().unwrap()]].concat(),
        );
        let world = World::at(mounted.join("r"));
        Some(Self {
            keeper,
            outer,
            world,
            kind,
        })
    }

    fn memory(&self, name: &str) -> PathBuf {
        self.outer.path("memory").join(name)
    }

    fn mounted(&self) -> PathBuf {
        self.outer.path("m")
    }

    fn mount(&self, options: &str, device: &str) {
        let place = self.mounted();
        said(
            "mount",
            &["-t", self.kind, "-o", options, device, place.to_str().unwrap()],
        );
    }

    fn unmount(&self) {
        eventually("nobody works on the root", || self.world.processes().is_empty());
        for point in crate::world::mounts(&self.world.root().to_string_lossy()) {
            unmount(point.as_str(), UnmountFlags::DETACH).unwrap_or(());
        }
        let mut outcome = Ok(());
        eventually("the file system is unmounted", || {
            outcome = unmount(self.mounted(), UnmountFlags::empty());
            outcome != Err(rustix::io::Errno::BUSY)
        });
        outcome.unwrap();
    }

    /// `dhow <words>` in the boot of this number.
    fn in_boot(&self, boot: usize, words: &[&str]) -> Ran {
        let id = self
            .outer
            .file("boot", format!("00000000-0000-4000-8000-{boot:012}\n"));
        let plain = self.world.command(words);
        let mut command = Command::new("unshare");
        let script = "mount --bind \"$1\" /proc/sys/kernel/random/boot_id; shift; exec \"$@\"";
        command.args(["-m", "sh", "-c", script, "sh"]).arg(id);
        command.arg(plain.get_program()).args(plain.get_args());
        for (key, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        finish(command, Vec::new())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.world.say("system teardown"));
        unmount(self.mounted(), UnmountFlags::DETACH).unwrap_or(());
        unmount(self.outer.path("memory"), UnmountFlags::DETACH).unwrap_or(());
    }
}

/// Verbs at work, with the record of what they did.
struct Work<'a> {
    host: &'a Host,
    disk: &'a Disk,
    deeds: Vec<Deed>,
}

impl Work<'_> {
    fn deed(&mut self, name: &str, id: Option<String>, durable: bool, verb: impl FnOnce(&World)) {
        let begun = self.disk.place();
        verb(&self.host.world);
        let name = name.to_owned();
        self.deeds.push(Deed {
            begun,
            done: self.disk.place(),
            name,
            id,
            durable,
        });
    }

    /// Every verb that writes to the store, once.
    fn round(&mut self, registry: &FakeRegistry, round: usize) {
        let outer = &self.host.outer;
        let archive = outer.file(
            "archive",
            docker_archive("loaded:1", &tar_of(&format!("loaded {round}"))),
        );
        let pulled = registry.name("box:1");
        put(registry, round);
        let built = format!("built {round}");
        outer.file("ctx/id", &built);
        outer.file(
            "ctx/Dockerfile",
            format!("FROM {pulled}\nRUN --network=none echo {round} > /r\nCOPY id /id\n"),
        );
        let (folder, archive) = (
            outer.path("ctx").display().to_string(),
            archive.display().to_string(),
        );
        self.deed(&pulled, Some(format!("pulled {round}")), true, |world| {
            drop(world.dhow(&["pull", &pulled]).ok())
        });
        self.deed("built:1", Some(built), true, |world| {
            drop(world.dhow(&["build", "-t", "built:1", &folder]).exits(0));
        });
        let imported = format!("imported {round}");
        self.deed("imported:1", Some(imported.clone()), true, |world| {
            drop(world.feed(&["import", "-", "imported:1"], tar_of(&imported)).ok());
        });
        self.deed("loaded:1", Some(format!("loaded {round}")), true, |world| {
            drop(world.dhow(&["load", "-i", &archive]).ok());
        });
        let alias = format!("loaded {round}");
        self.deed("alias:1", Some(alias), true, |world| {
            drop(world.say("tag loaded:1 alias:1").ok())
        });
        let script = format!("printf 'committed {round}' > /id");
        change(&self.host.world, &pulled, &script);
        self.deed("committed:1", Some(format!("committed {round}")), true, |world| {
            drop(world.say("commit changed committed:1").ok());
        });
        if round % 2 == 1 {
            self.deed("alias:1", None, false, |world| {
                drop(world.say("rmi alias:1").ok())
            });
        }
        self.host.world.say("system prune -f").ok();
    }
}

fn put(registry: &FakeRegistry, round: usize) {
    let more = Tar::new().directory("d", 0o755);
    let more = (0..40).fold(more, |tar, at| {
        tar.file(&format!("d/{at}"), 0o644, &noise(3000, at))
    });
    let more = more.file("round", 0o644, &noise(100_000, round as u64 + 7));
    let layers = vec![
        Layer::gzip(tar_of(&format!("pulled {round}"))),
        Layer::gzip(more.finish()),
    ];
    registry.put_image("box", "1", &TinyImage::oci(layers));
}

/// Someone else on the same file system who syncs a file of their own again and again.
fn neighbour(folder: &Path, stop: &AtomicBool) {
    let mut file = fs::File::create(folder.join("neighbour")).unwrap();
    while !stop.load(Ordering::Relaxed) {
        file.write_all(b"a row of a table\n").unwrap();
        file.sync_all().unwrap();
        std::thread::sleep(Duration::from_millis(15));
    }
}

/// Runs the verbs, and gives what they did with the record of the disk.
fn recorded(host: &mut Host, registry: &FakeRegistry, rounds: usize) -> (Vec<Deed>, Cuts) {
    let first = host.memory("first");
    let memory = host.memory("");
    let disk = Disk::attach(&mut host.keeper, &memory, &first);
    let host = &*host;
    host.mount("noatime", disk.device());
    host.world.keep_run_in_memory();
    let stop = AtomicBool::new(false);
    let deeds = std::thread::scope(|scope| {
        let beside = scope.spawn(|| neighbour(&host.mounted(), &stop));
        let mut work = Work {
            host,
            disk: &disk,
            deeds: Vec::new(),
        };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            (0..rounds).for_each(|round| work.round(registry, round));
        }));
        stop.store(true, Ordering::Relaxed);
        beside.join().unwrap();
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
        work.deeds
    });
    host.unmount();
    (deeds, Cuts::of(disk.detach(), &first))
}

/// Every name with what it runs as.
#[track_caller]
fn run_all(host: &Host, boot: usize, expected: &Expected, what: &str, trust: bool) {
    let listed = host.in_boot(boot, &["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    if trust && listed.code != 0 {
        listed.one_error(1);
        return;
    }
    let listed = listed.ok();
    let listed: BTreeSet<&str> = listed.lines().filter(|name| !name.contains("<none>")).collect();
    for name in &listed {
        let ran = host.in_boot(boot, &["run", "--rm", "--network", "none", name, "cat", "/id"]);
        if trust && ran.code == 125 {
            ran.one_error(125);
            continue;
        }
        assert_eq!(ran.code, 0, "{what}: {name}: {ran:?}");
        assert!(
            expected.may_be(name, ran.stdout.trim()),
            "{what}: {name} is {:?}",
            ran.stdout
        );
    }
    if !trust {
        for name in expected.must_be() {
            assert!(
                listed.contains(name),
                "{what}: {name} is lost; there are {listed:?}"
            );
        }
    }
}

/// Boots after a cut; whether something had to be healed.
fn boot(host: &Host, boot: usize, expected: &Expected, what: &str) -> bool {
    let options = match host.kind {
        // The last cut may still be mounted for a moment, by a monitor that is about to end.
        "xfs" => "loop,noatime,nouuid",
        _ => "loop,noatime",
    };
    host.mount(options, host.memory("cut").to_str().unwrap());
    // /run is in memory.
    drop(fs::remove_dir_all(host.world.root().join("run")));
    if !boot.is_multiple_of(3) {
        host.world.keep_run_in_memory();
    }
    if boot % 2 == 1 {
        run_all(host, boot, expected, &format!("{what}, unchecked"), true);
    }
    let found = host.in_boot(boot, &["system", "check"]);
    let healed = found.code != 0;
    let what = &format!("{what}; check said {}", found.stdout);
    if healed {
        host.in_boot(boot, &["system", "check", "--repair"]).ok();
        host.in_boot(boot, &["system", "check"]).ok();
    }
    run_all(host, boot, expected, what, false);
    host.in_boot(boot, &["system", "check", "--deep"]).ok();
    healed
}

fn cut_power(kind: &'static str) {
    let Some(mut host) = Host::new(kind) else { return };
    let registry = FakeRegistry::start();
    let count = how_many("DHOW_POWER_CUTS", 8);
    let rounds = (count / 20).clamp(2, 8);
    let (deeds, mut cuts) = recorded(&mut host, &registry, rounds);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let last = deeds.last().unwrap().done;
    let (mut healed, mut wrong) = (0, Vec::new());
    let mut places: Vec<usize> = (0..count)
        .map(|number| {
            // Evenly, but for a part that is random; every fifth at the moment at which a verb ended.
            let place = (last * number + usize::try_from(random.below(last as u64)).unwrap()) / count;
            let end = deeds.iter().map(|deed| deed.done).find(|done| *done >= place);
            end.filter(|_| number % 5 == 4).unwrap_or(place)
        })
        .collect();
    places.sort_unstable();
    for (number, place) in places.into_iter().enumerate() {
        let lost = [Lost::Some, Lost::All, Lost::Tail][number % 3];
        let what = format!("{kind}, cut {number} at {place} of {last}, lost {lost:?}");
        cuts.cut(place, lost, &mut random, &host.memory("cut"));
        let expected = Expected::at(&deeds, place);
        let outcome = std::panic::catch_unwind(|| boot(&host, number + 1, &expected, &what));
        match outcome {
            Ok(mended) => healed += usize::from(mended),
            Err(_) => {
                let last = deeds.iter().rev().filter(|deed| deed.begun < place).take(9);
                eprintln!(
                    "before it, last first: {:#?}",
                    last.map(Deed::shown).collect::<Vec<_>>()
                );
                wrong.push(what);
            }
        }
        host.unmount();
    }
    eprintln!(
        "{kind}: {count} cuts in {last} events with {} flushes; {healed} were healed.",
        cuts.flushes()
    );
    // What was wrong of each was said when it happened.
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn what_was_reported_survives_a_power_cut_on_ext4() {
    cut_power("ext4");
}

#[test]
fn what_was_reported_survives_a_power_cut_on_xfs() {
    cut_power("xfs");
}

/// Killed while its disk is at work, at some moments: all processes of the test end, and nothing of it stays mounted.
#[test]
fn a_killed_power_test_leaves_nothing_that_hangs() {
    if !root() || !program("mkfs.ext4") || !Path::new("/dev/fuse").exists() {
        return;
    }
    let nameless = || -> Vec<String> {
        let all = said(
            "losetup",
            &["--list", "--noheadings", "--output", "NAME,BACK-FILE"],
        );
        let gone = all.lines().filter(|line| line.trim_end().ends_with(" /"));
        gone.map(str::to_owned).collect()
    };
    for moment in [0, 700, 2500] {
        let before = nameless();
        // Short: see `World::anyone`.
        let place = tempfile::Builder::new().prefix("k").tempdir().unwrap();
        let place = place.path();
        let mut test = Command::new(std::env::current_exe().unwrap());
        test.args([
            "--exact",
            "crash::power::what_was_reported_survives_a_power_cut_on_ext4",
        ]);
        // So many cuts that no machine is through with them before it is killed.
        test.env("TMPDIR", place)
            .env("DHOW_POWER_CUTS", "200")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut test = test.spawn().unwrap();
        let text = place.to_string_lossy().into_owned();
        let mounted = |kind: &str| {
            let all = fs::read_to_string("/proc/self/mountinfo").unwrap();
            all.lines()
                .any(|line| line.contains(&text) && line.contains(kind))
        };
        eventually("its disk is at work", || {
            mounted(" - fuse ") && mounted(" - ext4 ")
        });
        std::thread::sleep(Duration::from_millis(moment));
        test.kill().unwrap();
        assert_eq!(test.wait().unwrap().signal(), Some(9));
        eventually("nothing of it is mounted", || {
            crate::world::mounts(&text).is_empty()
        });
        eventually("no device has its disk", || {
            // The name of a file that is unmounted is lost.
            let now = nameless();
            now.iter().all(|device| before.contains(device)) && !said("losetup", &["--list"]).contains(&text)
        });
        eventually("its keeper and its commands end", || {
            processes_with(&text).is_empty()
        });
    }
}

/// Processes with a text in their arguments or their environment.
fn processes_with(text: &str) -> Vec<String> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let has = |folder: &Path| {
        ["cmdline", "environ"].iter().any(|name| {
            let bytes = fs::read(folder.join(name)).unwrap_or_default();
            bytes.windows(text.len()).any(|window| window == text.as_bytes())
        })
    };
    let ours = all.filter(|entry| has(&entry.path()));
    ours.map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

#[test]
fn containers_whose_records_a_power_cut_emptied_are_healed() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let create = |name: &str| {
        let args = [
            "create",
            "--name",
            name,
            "--network",
            "none",
            "busybox",
            "echo",
            "ran",
        ];
        world.dhow(&args).ok()
    };
    let (stateless, unknown) = (create("stateless"), create("unknown"));
    // Its snapshot is made when it is started.
    let flat = create("flat");
    assert_eq!(world.say("start -a flat").ok(), "ran");
    let stack = world.root().join("snapshots").join(&flat).join("stack");
    assert!(stack.exists());
    fs::write(stack, "").unwrap();
    world.say("start -a flat").one_error(1);
    let record = |id: &str, name: &str| world.root().join("containers").join(id).join(name);
    fs::write(record(&stateless, "state.json"), "").unwrap();
    fs::write(record(&unknown, "config.json"), "\0\0\0\0").unwrap();
    assert_eq!(world.say("ps -a --format {{.Names}}").ok(), "flat\nstateless");
    assert_eq!(
        world.inspect("stateless", "{{.State.Status}} {{.State.ExitCode}}"),
        "exited 255"
    );
    world.say("images").ok();
    let found = world.say("system check").exits(1);
    let found = found.prints(&stateless[..12]).prints(&unknown[..12]);
    found.prints(&format!("{} lost the list of its layers", &flat[..12]));
    world.say("system check --repair").ok();
    world.clean();
    assert_eq!(world.say("start -a stateless").ok(), "ran");
    assert_eq!(world.say("start -a flat").ok(), "ran");
    create("unknown");
    world.nothing_left(&unknown);
}
