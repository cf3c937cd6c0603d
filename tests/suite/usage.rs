//! What `system df` says is what the disk says, without walking a tree.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt as _;
use std::process::Command;

use dhow_testkit::Tar;

use crate::samples::noise;
use crate::world::{World, program};

/// What trees are counted wrong by: many small files, one long directory, hard links, holes, symbolic links of both
/// lengths, empty files, attributes.
fn base() -> Vec<u8> {
    let mut tar = Tar::new().directory("small", 0o755).directory("long", 0o755);
    for number in 0..600 {
        tar = tar.file(
            &format!("small/{number}"),
            0o644,
            &noise(number * 7 + 1, number as u64),
        );
    }
    for number in 0..1500 {
        let name = format!("long/a-name-of-a-length-that-fills-directories-{number:08}");
        tar = match number % 3 {
            0 => tar.file(&name, 0o644, b""),
            1 => tar.symlink(&name, "../small/1"),
            _ => tar.symlink(&name, &"../small/".repeat(11)),
        };
    }
    for number in 0..100 {
        tar = tar.hardlink(&format!("linked-{number}"), "small/599");
    }
    tar.finish()
}

/// A file that is nearly all holes, as GNU tar writes it.
fn sparse(world: &World) -> Vec<u8> {
    let file = std::fs::File::create(world.file("holes/hole", b"")).unwrap();
    file.write_all_at(&noise(5000, 5), 8 << 20).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--sparse", "-cf", "-", "-C"])
        .arg(world.path("holes"))
        .arg(".");
    tar.output().unwrap().stdout
}

fn own(number: u64) -> Vec<u8> {
    let tar = Tar::new().file("big", 0o644, &noise(3_000_001, number));
    tar.file("again", 0o600, &noise(77_777, number + 9)).finish()
}

/// Bytes of a cell such as `12.3MB`.
fn bytes(cell: &str) -> f64 {
    let digits = cell.find(|c: char| c.is_ascii_alphabetic()).unwrap();
    let power = ["B", "kB", "MB", "GB"]
        .iter()
        .position(|unit| *unit == &cell[digits..]);
    cell[..digits].parse::<f64>().unwrap() * 1000_f64.powi(i32::try_from(power.unwrap()).unwrap())
}

/// Columns SHARED SIZE and UNIQUE SIZE of the images by name.
fn images(verbose: &str) -> BTreeMap<String, (f64, f64)> {
    let lines = verbose
        .lines()
        .skip_while(|line| !line.starts_with("REPOSITORY"))
        .skip(1);
    let rows = lines.take_while(|line| !line.is_empty()).map(|line| {
        let cells: Vec<&str> = line.split_whitespace().collect();
        let [.., shared, unique, _containers] = cells[..] else {
            panic!("{line}");
        };
        (cells[0].to_owned(), (bytes(shared), bytes(unique)))
    });
    rows.collect()
}

#[track_caller]
fn alike(said: f64, found: f64, what: &str) {
    let off = (said - found).abs() / found;
    assert!(
        off < 0.01,
        "{what}: {said} is said, {found} is on the disk: {:.2} %",
        off * 100.0
    );
}

#[test]
fn df_is_right_within_a_hundredth_of_du() {
    for world in World::of_each_back_end() {
        world.feed(&["import", "-", "base"], base()).ok();
        for number in 0..3 {
            let context = world.path(&format!("c{number}"));
            std::fs::create_dir(&context).unwrap();
            world.file(&format!("c{number}/own.tar"), own(number));
            world.file(&format!("c{number}/Dockerfile"), "FROM base\nADD own.tar /own/\n");
            let context = context.display().to_string();
            world
                .dhow(&["build", "-q", "-t", &format!("own{number}"), &context])
                .ok();
        }
        world.feed(&["import", "-", "hole"], sparse(&world)).ok();
        let layers = world.root().join("layers");
        let du = Command::new("du")
            .args(["-s", "-B1"])
            .arg(&layers)
            .output()
            .unwrap();
        let du = String::from_utf8(du.stdout).unwrap();
        let found: f64 = du.split_whitespace().next().unwrap().parse().unwrap();
        let total = world.say("system df --format {{.Type}}={{.Size}}").ok();
        let total = total
            .lines()
            .find_map(|line| line.strip_prefix("Images="))
            .map(bytes);
        alike(total.unwrap(), found, "all layers");
        let images = images(&world.say("system df -v").ok());
        let (shared, _) = images["base"];
        let unique: f64 = images.values().map(|(_, unique)| unique).sum();
        alike(shared + unique, found, "the images, what they share once");
        assert!(images["own0"].0 > 0.99 * shared, "{images:?}");
    }
}

#[test]
fn df_walks_no_tree() {
    if !program("strace") {
        return;
    }
    for world in World::of_each_back_end() {
        world.feed(&["import", "-", "base"], base()).ok();
        let plain = world.command(&["system", "df", "-v"]);
        let calls = world.path("calls");
        let mut traced = Command::new("strace");
        traced
            .args(["-f", "-qq", "-o"])
            .arg(&calls)
            .arg(plain.get_program());
        traced.args(plain.get_args());
        crate::world::finish(traced, Vec::new()).ok();
        let calls = std::fs::read_to_string(calls).unwrap().lines().count();
        // The image has 2,200 files.
        assert!(calls < 1500, "{calls} system calls");
    }
}
