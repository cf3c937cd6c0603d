//! Networks when many want the same at once, and when somebody is killed.

use std::process::Stdio;
use std::time::Duration;

use crate::kills::{ROUNDS, killed, timed};
use crate::network::table;
use crate::unprivileged::Nobody;
use crate::world::{Ran, World, eventually, free_port, http, names};

const MANY: usize = 32;

/// So many commands at once; what became of each.
fn at_once(run: impl Fn(usize) -> Ran + Sync) -> Vec<Ran> {
    let start = std::sync::Barrier::new(MANY);
    let one = |number| {
        start.wait();
        run(number)
    };
    std::thread::scope(|scope| {
        let one = &one;
        let threads: Vec<_> = (0..MANY).map(|number| scope.spawn(move || one(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// It may have ended by itself meanwhile.
fn kill_if_there(pid: i32) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap_or(());
    }
}

/// One has it, and every other hears why not, and ends with the code.
#[track_caller]
fn one_wins(ran: &[Ran], code: i32, word: &str) {
    let won = ran.iter().filter(|ran| ran.code == 0).count();
    for lost in ran.iter().filter(|ran| ran.code != 0) {
        assert!(lost.code == code && lost.stderr.contains(word), "{lost:?}");
    }
    assert_eq!(won, 1, "{ran:?}");
}

/// Seconds for which no other process sleeps.
fn of_this_test(port: u16) -> String {
    format!("1{port}{}", std::process::id())
}

fn sleeps(seconds: &str) -> bool {
    let line = format!("sleep\0{seconds}\0");
    names(std::path::Path::new("/proc"))
        .into_iter()
        .any(|pid| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|read| read == line.as_bytes()))
}

fn remove_all(world: &World) {
    let ids = world.say("ps -aq").ok();
    for id in ids.lines() {
        world.say(&format!("rm -f {id}")).exits_any();
    }
    assert_eq!(world.say("ps -aq").ok(), "");
}

/// Nothing of the root's networks is held by anybody: addresses, places, links, rules, the port. An address and a link go
/// after the end of their container is told, when the kernel lets the link go.
#[track_caller]
fn nothing_held(world: &World, port: u16) {
    for network in names(&world.root().join("networks")) {
        if network.starts_with('.') {
            continue;
        }
        let folder = world.root().join("networks").join(&network);
        let endpoints = names(&folder.join("endpoints"));
        assert_eq!(endpoints, Vec::<String>::new(), "endpoints of {network}");
        eventually("addresses come back", || names(&folder.join("leases")).is_empty());
        let record: serde_json::Value =
            serde_json::from_slice(&std::fs::read(folder.join("network.json")).unwrap()).unwrap();
        let device = record["device"].as_str().unwrap();
        let ports = std::path::Path::new("/sys/class/net").join(device).join("brif");
        eventually("links go", || names(&ports).is_empty());
    }
    assert_eq!(table(port), None, "rules for the port");
    eventually("the port is free", || {
        std::net::TcpListener::bind(("0.0.0.0", port)).is_ok()
    });
}

#[test]
fn a_record_that_was_never_whole_goes_with_its_container() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.say("run --rm busybox true").ok();
    let folder = world.root().join("networks/bridge/endpoints");
    std::fs::write(folder.join(format!(".{}.json", "a".repeat(64))), "{").unwrap();
    world.say("network prune -f").ok();
    assert_eq!(names(&folder), Vec::<String>::new());
}

#[test]
fn of_many_that_want_a_port_one_has_it() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let port = free_port();
    let publish = format!("{port}:80");
    let ran = at_once(|_| world.dhow(&["run", "-d", "-p", &publish, "busybox", "sleep", "1000"]));
    one_wins(&ran, 125, "port is already allocated");
    assert!(ran.iter().any(|ran| ran.stderr.contains(&port.to_string())));
    remove_all(&world);
    world.say("network prune -f").ok();
    nothing_held(&world, port);
    world.clean();
}

#[test]
fn of_many_that_want_a_name_one_has_it() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let ran = at_once(|_| world.say("run -d --name only busybox sleep 1000"));
    one_wins(&ran, 125, "already in use");
    assert_eq!(world.say("ps -aq").ok().lines().count(), 1);
    remove_all(&world);
    let made = at_once(|_| world.say("network create only"));
    assert_eq!(made.iter().filter(|ran| ran.code == 0).count(), 1, "{made:?}");
    for lost in made.iter().filter(|ran| ran.code != 0) {
        assert!(lost.stderr.contains("already exists"), "{lost:?}");
    }
    let joined = at_once(|number| {
        world.say(&format!(
            "run -d --name c{number} --network only busybox sleep 1000"
        ))
    });
    assert!(joined.iter().all(|ran| ran.code == 0), "{joined:?}");
    let inspect = "{{range .Containers}}{{.IPv4Address}}\n{{end}}";
    let addresses = world.dhow(&["network", "inspect", "-f", inspect, "only"]).ok();
    let different: std::collections::BTreeSet<_> =
        addresses.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(different.len(), MANY, "{addresses}");
    remove_all(&world);
    world.say("network rm only").ok();
    world.clean();
}

/// A name is taken and looked at in one step, also one that a killed command left, which leads to nothing.
#[test]
fn of_many_that_want_the_name_of_a_pod_or_a_secret_one_has_it() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let content = world.path("content");
    std::fs::write(&content, "x").unwrap();
    let secret = ["secret", "create", "only", &content.display().to_string()].map(str::to_owned);
    let ran = at_once(|_| world.dhow(&secret.each_ref().map(String::as_str)));
    one_wins(&ran, 1, "secret name in use");
    let folder = world.root().join("secrets");
    assert_eq!(names(&folder).len(), 2, "no content is left of who lost");
    at_once(|number| match number % 2 {
        0 => world.say("secret rm only"),
        _ => world.dhow(&secret.each_ref().map(String::as_str)),
    });
    let left = names(&folder);
    let ending = |end: &str| left.iter().filter(|name| name.ends_with(end)).count();
    assert_eq!(
        ending(".json"),
        ending(".data"),
        "a record has its content: {left:?}"
    );
    for left in ["", "leads to nothing"] {
        let folder = world.root().join("pod-names");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("only"), left).unwrap();
        let ran = at_once(|_| world.say("pod create --infra=false --name only"));
        one_wins(&ran, 1, "pod already exists");
        assert_eq!(world.say("pod ps -q").ok().lines().count(), 1);
        world.say("pod rm only").ok();
        assert_eq!(names(&folder), Vec::<String>::new());
    }
    world.clean();
}

#[test]
fn of_many_that_make_one_volume_one_does_and_all_have_it() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    for round in 0..8 {
        let name = format!("only{round}");
        let ran = at_once(|number| world.say(&format!("volume create --label by={number} {name}")));
        for ran in &ran {
            assert_eq!((ran.code, ran.stdout.trim()), (0, &*name), "{ran:?}");
        }
        let asked = format!("events --since 1h --until 0s --filter event=create --filter volume={name}");
        let created = world.say(&asked).ok();
        assert_eq!(created.lines().count(), 1, "{created}");
        let folder = world.root().join("volumes").join(&name);
        assert_eq!(names(&folder), ["_data", "volume.json"]);
        world.say(&format!("volume rm {name}")).ok();
    }
    world.clean();
}

#[test]
fn of_many_that_want_an_address_one_has_it() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.say("network create --subnet 10.211.40.0/24 sea").ok();
    let ran = at_once(|_| world.say("run -d --network sea --ip 10.211.40.7 busybox sleep 1000"));
    one_wins(&ran, 125, "10.211.40.7 is already in use");
    remove_all(&world);
    world.say("network rm sea").ok();
    world.clean();
}

/// The command alone, its group, or all that work for the root at that moment.
#[test]
fn a_kill_during_the_start_leaves_nothing_in_the_network() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    if !crate::world::program("nft") {
        return;
    }
    world.say("network create sea").ok();
    let port = free_port();
    let publish = format!("{port}:80");
    let args = [
        "run",
        "-d",
        "--network",
        "sea",
        "--network",
        "bridge",
        "-p",
        publish.as_str(),
        "busybox",
        "sleep",
        "1000",
    ];
    let whole = timed(|| drop(world.dhow(&args).ok()));
    remove_all(&world);
    for round in 0..ROUNDS {
        let child = world.spawn(&args);
        killed(child, round, whole);
        if round % 3 == 0 {
            let pids = world
                .processes()
                .into_iter()
                .filter_map(|line| line.split(' ').next()?.parse().ok());
            pids.for_each(kill_if_there);
        }
        let starting = || world.say("ps -aq --filter status=created").ok();
        eventually("who was not killed is done", || {
            let before = starting();
            std::thread::sleep(Duration::from_millis(200));
            before == starting()
        });
        remove_all(&world);
        world.say("network prune -f").ok();
        // A prune takes networks that nobody wants.
        world.say("network create --ignore sea").ok();
        nothing_held(&world, port);
    }
    world.dhow(&args).ok();
    remove_all(&world);
    world.clean_or_healed();
}

#[test]
fn unprivileged_a_kill_during_the_start_leaves_no_process() {
    let Some(nobody) = Nobody::with_network() else {
        return;
    };
    let folder = nobody.world.path("home").parent().unwrap().display().to_string();
    let ours = || {
        let all = names(std::path::Path::new("/proc"))
            .into_iter()
            .filter_map(|pid| {
                let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                line.contains(&folder).then_some(pid.parse::<i32>().ok()?)
            });
        all.collect::<Vec<i32>>()
    };
    let port = free_port();
    let publish = format!("{port}:80");
    let seconds = of_this_test(port);
    let args = ["run", "-d", "-p", publish.as_str(), "box", "sleep", &seconds];
    let remove = || {
        for id in nobody.say("ps -aq").ok().lines() {
            nobody.say(&format!("rm -f {id}")).exits_any();
        }
        assert_eq!(nobody.say("ps -aq").ok(), "");
    };
    let whole = timed(|| drop(nobody.dhow(&args).ok()));
    remove();
    for round in 0..ROUNDS {
        use std::os::unix::process::CommandExt as _;
        let mut command = nobody.command(&args);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        killed(command.spawn().unwrap(), round, whole);
        if round % 3 == 0 {
            ours().into_iter().for_each(kill_if_there);
        }
        std::thread::sleep(Duration::from_millis(300));
        remove();
        nobody.say("network prune -f").ok();
        assert!(!sleeps(&seconds), "round {round}");
        eventually("the port is free", || {
            std::net::TcpListener::bind(("0.0.0.0", port)).is_ok()
        });
    }
    // It works, and then there is nothing.
    nobody
        .dhow(&[
            "run",
            "-d",
            "--name",
            "web",
            "-p",
            &publish,
            "box",
            "sh",
            "-c",
            "exec httpd -f -p 80 -h /",
        ])
        .ok();
    eventually("it answers", || {
        http(&format!("127.0.0.1:{port}"), "/none").is_some()
    });
    nobody.say("rm -f web").ok();
    eventually("no process stays", || ours().is_empty());
    for network in ["bridge"] {
        let folder = nobody.world.path("home/.local/share/dhow/networks").join(network);
        for part in ["leases", "endpoints"] {
            assert_eq!(names(&folder.join(part)), Vec::<String>::new(), "{part}");
        }
    }
}

/// Nobody has written down yet that it runs, and a normal user may have no control group by which it is found.
#[test]
fn unprivileged_a_program_whose_monitor_is_killed_before_it_is_told_is_found() {
    let Some(nobody) = Nobody::with_network() else {
        return;
    };
    if !crate::world::program("strace") || !rustix::process::geteuid().is_root() {
        return;
    }
    let port = free_port();
    let publish = format!("{port}:80");
    let seconds = of_this_test(port);
    // Holds the network, whose own processes are not to be killed.
    nobody.say("run -d --name first box sleep 1000").ok();
    let says = || nobody.say("inspect --format {{.State.Status}} second").stdout;
    for deed in ["rm -f second", "start second", "system check --repair"] {
        let args = [
            "run", "-d", "--name", "second", "-p", &publish, "box", "sleep", &seconds,
        ];
        let plain = nobody.command(&args);
        let mut strace = std::process::Command::new("strace");
        strace
            .args(["-f", "-qq", "-I", "2", "-o", "/dev/null"])
            // What the monitor does for the ports when the program is there.
            .args(["-e", "trace=epoll_create1"])
            .args(["-e", "inject=epoll_create1:signal=KILL"])
            .arg(plain.get_program())
            .args(plain.get_args())
            .env("HOME", nobody.world.path("home"))
            .env_remove("XDG_RUNTIME_DIR")
            .current_dir(plain.get_current_dir().unwrap())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut strace = strace.spawn().unwrap();
        let said = std::io::BufReader::new(strace.stderr.take().unwrap());
        let lost = std::io::BufRead::lines(said).map_while(Result::ok).next();
        assert!(
            lost.as_ref().is_some_and(|line| line.contains("monitor ended")),
            "{lost:?}"
        );
        // It goes on with the program.
        let pid = rustix::process::Pid::from_child(&strace);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        crate::world::wait(&mut strace, crate::world::PATIENCE).expect("strace lets go");
        assert_eq!(says().trim(), "created", "{deed}");
        assert!(sleeps(&seconds), "{deed}: it ended by itself");
        // It is no container: it may be in no namespace of one.
        nobody.say("exec second true").one_error(1).says("is not running");
        nobody.say(deed).ok();
        if deed.starts_with("start") {
            assert_eq!(says().trim(), "running");
            nobody.say("rm -f second").ok();
        }
        assert!(!sleeps(&seconds), "{deed}");
        nobody.say("rm -f second").exits_any();
        eventually("the port is free", || {
            std::net::TcpListener::bind(("0.0.0.0", port)).is_ok()
        });
    }
    nobody.say("rm -f first").ok();
}

#[test]
fn an_address_that_a_killed_start_leased_is_given_again() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.say("network create --subnet 10.212.9.0/29 pond").ok();
    let leases = world.root().join("networks/pond/leases");
    // Containers that were removed since, or never there.
    let lease = |address: &str| std::os::unix::fs::symlink("7".repeat(64), leases.join(address)).unwrap();
    lease("10.212.9.4");
    world
        .say("run --rm --network pond --ip 10.212.9.4 busybox true")
        .exits(0);
    // An address is given back a moment after its container's end is told.
    let all_back = || crate::world::names(&leases).is_empty();
    eventually("the address is back", all_back);
    // All that the network has.
    (2..7).for_each(|last| lease(&format!("10.212.9.{last}")));
    world.say("run --rm --network pond busybox true").exits(0);
    eventually("all addresses are back", all_back);
    world.say("network rm pond").ok();
}
