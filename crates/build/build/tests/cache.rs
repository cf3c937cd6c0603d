use std::fs;
use std::time::{Duration, Instant, SystemTime};

use crate::bench::{Bench, bench};

const FILE: &str = "FROM base:1 AS build\nARG V\nWORKDIR /src\nCOPY dep.txt .\nRUN copy dep.txt /dep\nCOPY . .\nRUN copy main.txt /out\n\
     FROM base:1\nENV MODE=fast\nCOPY --from=build /out /app/out\nRUN write /final 1\nCMD [\"/app\"]\n";

fn prepared() -> Option<Bench> {
    let bench = bench()?;
    bench.file("dep.txt", "dep");
    bench.file("main.txt", "main");
    bench.file("sub/x", "x");
    Some(bench)
}

#[test]
fn a_second_build_takes_every_step_from_the_cache_and_gives_the_same_image() {
    let Some(bench) = prepared() else { return };
    let first = bench.build(FILE);
    assert_eq!((first.stats.steps, first.stats.cached), (7, 0));
    assert_eq!(bench.shell.runs(), 3);
    bench.log.take();
    let second = bench.build(FILE);
    assert_eq!((second.stats.steps, second.stats.cached), (7, 7));
    assert_eq!(bench.shell.runs(), 0);
    assert_eq!(first.image.id, second.image.id);
    let cached = bench
        .log
        .take()
        .iter()
        .filter(|line| line.ends_with("cached"))
        .count();
    assert_eq!(cached, 7);
    // What was built keeps its layers as long as it is held.
    drop((first, second));
    bench.assert_clean();
}

#[test]
fn a_cached_build_needs_neither_mounts_nor_much_time() {
    let Some(bench) = prepared() else { return };
    bench.build(FILE);
    let mut times: Vec<Duration> = (0..5)
        .map(|_| {
            let start = Instant::now();
            let built = bench.build(FILE);
            assert_eq!(built.stats.cached, 7);
            start.elapsed()
        })
        .collect();
    times.sort();
    println!("cached builds of 7 steps, unoptimised: {times:?}");
    assert!(times[0] < Duration::from_millis(250), "{times:?}");
}

#[test]
fn times_of_files_are_in_no_key() {
    let Some(bench) = prepared() else { return };
    bench.build(FILE);
    bench.shell.runs();
    for name in ["dep.txt", "main.txt", "sub", "sub/x"] {
        let file = fs::File::open(bench.context.path().join(name)).unwrap();
        file.set_modified(SystemTime::now() + Duration::from_secs(100))
            .unwrap();
    }
    assert_eq!(bench.build(FILE).stats.cached, 7);
    assert_eq!(bench.shell.runs(), 0);
}

#[test]
fn a_change_invalidates_from_its_step_on_and_not_before() {
    let Some(bench) = prepared() else { return };
    let cached = |edit: &dyn Fn()| {
        bench.build(FILE);
        edit();
        bench.build(FILE).stats.cached
    };
    // COPY . ., the RUN after it; its output differs, so the COPY --from and what follows as well.
    assert_eq!(cached(&|| drop(bench.file("main.txt", "new"))), 3);
    // A file that no output depends on: COPY . . and RUN again, but the same /out comes out of it.
    assert_eq!(cached(&|| drop(bench.file("sub/x", "other"))), 5);
    assert_eq!(cached(&|| drop(bench.file("dep.txt", "other"))), 3);
    let chmod = || {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(
            bench.context.path().join("sub/x"),
            fs::Permissions::from_mode(0o600),
        )
        .unwrap();
    };
    assert_eq!(cached(&chmod), 5);
    // A name counts too.
    assert_eq!(
        cached(&|| fs::rename(
            bench.context.path().join("sub/x"),
            bench.context.path().join("sub/y")
        )
        .unwrap()),
        5
    );
}

#[test]
fn an_arg_invalidates_the_runs_after_it_and_no_copy() {
    let Some(bench) = prepared() else { return };
    let with = |value: &str| {
        let mut request = bench.request(FILE);
        request.build_args.insert("V".into(), value.into());
        bench.built(&request).stats.cached
    };
    bench.build(FILE);
    // Two RUNs of the first stage see V; they give the same files, so all others hit.
    assert_eq!(with("1"), 5);
    assert_eq!(with("1"), 7);
    assert_eq!(with("2"), 5);
    let changed = FILE.replace("MODE=fast", "MODE=slow");
    // Only the RUN of the second stage sees it.
    assert_eq!(bench.build(&changed).stats.cached, 6);
    // A proxy is no part of any key.
    let mut request = bench.request(FILE);
    request.build_args.insert("http_proxy".into(), "http://p".into());
    assert_eq!(bench.built(&request).stats.cached, 7);
}

#[test]
fn a_rebuilt_stage_with_the_same_outcome_invalidates_nothing_behind_it() {
    let Some(bench) = prepared() else { return };
    let file = |comment: &str| {
        format!(
            "FROM base:1 AS a\nRUN write /x same; say {comment}\nFROM a\nRUN copy /x /y\nCOPY main.txt /m\nRUN copy /m /z\n"
        )
    };
    bench.build(&file("one"));
    bench.shell.runs();
    // The layer is made again at another time, so its diff id may differ; its content does not.
    std::thread::sleep(Duration::from_millis(1100));
    let built = bench.build(&file("two"));
    assert_eq!((built.stats.steps, built.stats.cached), (4, 3));
    assert_eq!(bench.shell.runs(), 1);
    assert_eq!(bench.tree(&built.image)["z"], "f 644 0:0 main");
}

#[test]
fn no_cache_runs_everything_and_refreshes_the_records() {
    let Some(bench) = prepared() else { return };
    bench.build(FILE);
    bench.shell.runs();
    let mut request = bench.request(FILE);
    request.no_cache = true;
    assert_eq!(bench.built(&request).stats.cached, 0);
    assert_eq!(bench.shell.runs(), 3);
    assert_eq!(bench.build(FILE).stats.cached, 7);
}

#[test]
fn a_hit_whose_layer_is_gone_is_no_hit() {
    let Some(bench) = prepared() else { return };
    let first = bench.build("FROM base:1\nRUN write /x 1\n");
    let layer = first.image.config.rootfs.diff_ids[1];
    bench.store.layers.remove(&layer).unwrap();
    let second = bench.build("FROM base:1\nRUN write /x 1\n");
    assert_eq!(second.stats.cached, 0);
    assert_eq!(bench.tree(&second.image)["x"], "f 644 0:0 1");
}

#[test]
fn a_file_changed_within_the_same_second_is_seen() {
    let Some(bench) = bench() else { return };
    for round in 0..10 {
        bench.file("f", &format!("content {round}"));
        let built = bench.build("FROM scratch\nCOPY f /f\n");
        assert_eq!(
            bench.tree(&built.image)["f"],
            format!("f 644 0:0 content {round}")
        );
    }
}

#[test]
fn a_context_that_changes_under_a_step_gives_no_record() {
    let Some(bench) = bench() else { return };
    bench.file("f", "before");
    // The command itself changes the file that is bound for it.
    let path = bench.context.path().join("f").display().to_string();
    let text = format!("FROM base:1\nRUN --mount=target=/m,source=f host {path} after; write /x 1\n");
    bench.build(&text);
    let warned = bench
        .log
        .take()
        .iter()
        .any(|line| line.contains("the build context changed"));
    assert!(warned);
    bench.file("f", "before");
    assert_eq!(bench.build(&text).stats.cached, 0);
}
