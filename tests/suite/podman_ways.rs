//! What podman's users find around a run: names in `/etc/hosts`, flags before the verb, mounts of every container, systemd.

use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;

use crate::world::{World, eventually, finish};

const RUN: &str = "run --rm --network none";

#[test]
fn a_file_and_a_directory_change_places_only_when_that_is_asked_for() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.podman("create --name con busybox true").ok();
    let file = world.file("f/x", "file");
    world.file("d/x/y", "in a directory");
    let folder = world.path("d/x");
    let (file, folder) = (file.display(), folder.display());
    world.podman(&format!("cp {file} con:/x")).ok();
    world
        .podman(&format!("cp {folder} con:/"))
        .exits(125)
        .says("error creating \"/x\": it is of another kind: file exists");
    world.podman(&format!("cp --overwrite {folder} con:/")).ok();
    world
        .podman(&format!("cp {file} con:/"))
        .exits(125)
        .says("error creating \"/x\"");
    world.podman(&format!("cp --overwrite {file} con:/")).ok();
    let back = world.path("back");
    world.podman(&format!("cp con:/x {}", back.display())).ok();
    assert_eq!(std::fs::read_to_string(back).unwrap(), "file");
}

#[test]
fn the_names_that_an_image_had_are_remembered() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.podman("tag busybox one").ok();
    world.podman("rmi one").ok();
    world.podman("tag busybox two").ok();
    world.podman("rmi two").ok();
    let history = "localhost/two:latest, localhost/one:latest";
    let own = world
        .podman_of(&["images", "--format", "{{.Names}}", "busybox"])
        .ok();
    let own = own.trim().trim_matches(['[', ']']).to_owned();
    let shown = world
        .podman_of(&["images", "--format", "{{.History}}", "busybox"])
        .ok();
    assert_eq!(shown.trim(), format!("{own}, {history}"));
    let shown = world
        .podman_of(&[
            "image",
            "inspect",
            "--format",
            "{{json .NamesHistory}}",
            "busybox",
        ])
        .ok();
    let shown: Vec<String> = serde_json::from_str(shown.trim()).unwrap();
    assert_eq!(
        shown,
        [own.as_str(), "localhost/two:latest", "localhost/one:latest"]
    );
    // A name that is had again is not a past one.
    world.podman("tag busybox one").ok();
    let shown = world
        .podman_of(&["images", "--format", "{{.History}}", "one"])
        .ok();
    assert!(shown.trim().ends_with(", localhost/two:latest"), "{shown}");
}

#[test]
fn a_copy_follows_a_link_that_leads_nowhere_yet_and_never_out_of_the_container() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let script = "ln -s /made /link; ln -s ../../../../made-too /up; ln -s /no/folder/x /lost";
    world
        .podman_of(&[
            "run",
            "--network",
            "none",
            "--name",
            "con",
            "busybox",
            "sh",
            "-c",
            script,
        ])
        .ok();
    let file = world.file("f", "copied");
    for link in ["link", "up"] {
        world.podman(&format!("cp {} con:/{link}", file.display())).ok();
    }
    world
        .podman(&format!("cp {} con:/lost", file.display()))
        .exits(125);
    for made in ["made", "made-too"] {
        let back = world.path(made);
        world.podman(&format!("cp con:/{made} {}", back.display())).ok();
        assert_eq!(std::fs::read_to_string(&back).unwrap(), "copied");
    }
    assert!(!std::path::Path::new("/made-too").exists());
}

#[test]
fn what_this_process_has_open_is_no_place_to_copy_to() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.podman("create --name con busybox true").ok();
    let link = world.path("link");
    std::os::unix::fs::symlink("/proc/self/fd/1", &link).unwrap();
    world
        .podman(&format!("cp con:/bin/busybox {}", link.display()))
        .exits(125)
        .says("must be a directory or a regular file");
    assert!(link.is_symlink());
    world
        .say(&format!("cp con:/bin/busybox {}", link.display()))
        .exits_any()
        .says("invalid output path");
}

#[test]
fn memory_begins_with_what_the_image_has_there() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let kept = world.podman(&format!("{RUN} --tmpfs /etc busybox ls /etc/passwd"));
    assert_eq!(kept.ok(), "/etc/passwd");
    world
        .podman(&format!(
            "{RUN} --mount type=tmpfs,dst=/etc,notmpcopyup busybox ls /etc/passwd"
        ))
        .exits(1);
    // Docker's is empty.
    world
        .say(&format!("{RUN} --tmpfs /etc busybox ls /etc/passwd"))
        .exits(1);
}

#[test]
fn the_hosts_names_and_the_host_itself_are_known() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let base = world.file("base", "192.0.2.7 one # comment\n192.0.2.8 two\n");
    let conf = world.file(
        "containers.conf",
        format!(
            "[containers]\nbase_hosts_file = \"{}\"\nhost_containers_internal_ip = \"192.0.2.1\"\n",
            base.display()
        ),
    );
    let hosts = |flags: &str| {
        let line = format!("run --rm {flags} busybox cat /etc/hosts");
        let mut command = world.command(&line.split_whitespace().collect::<Vec<_>>());
        command.arg0("podman").env("CONTAINERS_CONF_OVERRIDE", &conf);
        finish(command, Vec::new()).ok()
    };
    let text = hosts("--add-host three:192.0.2.9 --hostname me --name it");
    for line in [
        "192.0.2.9\tthree",
        "192.0.2.7\tone",
        "192.0.2.8\ttwo",
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost",
        "192.0.2.1\thost.containers.internal host.docker.internal",
    ] {
        assert!(text.lines().any(|one| one == line), "{line}: {text}");
    }
    assert!(text.contains("\tme it"), "{text}");
    assert_eq!(text.lines().count(), 7, "{text}");
    // A name that the base has is that of the base.
    assert_eq!(hosts("--hostname one --name one").lines().count(), 5);
    // Docker's container knows nothing of it.
    assert!(
        !world
            .say("run --rm busybox cat /etc/hosts")
            .ok()
            .contains("internal")
    );
}

#[test]
fn flags_before_the_verb_are_what_they_say_or_an_error() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    for (flag, code) in [
        ("--runtime=nothing", 125),
        ("--runtime=/bin/sh", 125),
        ("--runtime-flag x", 126),
    ] {
        world.podman(&format!("{flag} {RUN} busybox true")).exits(code);
    }
    world.podman(&format!("--runtime=dhow {RUN} busybox true")).ok();
    world
        .podman("--runtime-flag debug run busybox true")
        .says("the runtime has no flag --debug");
    world
        .podman("--log-level=loud version")
        .exits(1)
        .says("Log Level \"loud\" is not supported");
    world
        .podman("--log-level=debug version")
        .says("level=debug")
        .says("Shutting down engines");
    assert!(!world.podman("--log-level=warn version").all().contains("level="));
    world
        .podman("--storage-opt a=b images")
        .exits(125)
        .says("no such option");
    world
        .podman("--storage-driver=btrfs images")
        .exits(125)
        .says("use overlay or vfs");
    world.podman("--storage-driver=vfs images").ok();
    assert_eq!(world.say("system snapshots").ok(), "copy");
    let run = world.path("elsewhere");
    world
        .podman(&format!(
            "--runroot {} run -d --network none --name con busybox sleep 60",
            run.display()
        ))
        .ok();
    assert!(run.exists());
    world
        .podman(&format!("--runroot {} rm -f -t 0 con", run.display()))
        .ok();
}

#[test]
fn mounts_of_every_container_are_there_and_read_only() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world.file("secrets/word", "hush");
    let line = format!("{}:/run/secrets\n/no/such:/x\n", world.path("secrets").display());
    let file = world.file("mounts.conf", line);
    let with = format!("--default-mounts-file={} {RUN} busybox", file.display());
    assert_eq!(
        world.podman(&format!("{with} cat /run/secrets/word")).ok(),
        "hush"
    );
    world.podman(&format!("{with} touch /run/secrets/word")).exits(1);
    let absent = format!(
        "--default-mounts-file={} {RUN} busybox true",
        world.path("none").display()
    );
    world.podman(&absent).ok();
}

#[test]
fn an_archive_is_an_image_to_run() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let archive = world.path("a.tar");
    let archive = archive.display();
    world.podman("tag busybox tool").ok();
    world.podman(&format!("save -q -o {archive} tool")).ok();
    world.podman("rmi -f busybox").ok();
    let ran = world.podman(&format!("{RUN} docker-archive:{archive} echo from it"));
    assert_eq!(ran.says("Writing manifest to image destination").ok(), "from it");
    world.podman("image exists tool").exits(0);
    world
        .podman(&format!("{RUN} docker-archive:/no/such true"))
        .exits(125);
    world
        .podman(&format!("run --rm --rootfs {}", world.path(".").display()))
        .exits(127);
}

#[test]
fn a_stop_that_waits_is_seen_and_a_kill_after_it_is_told() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let script = "trap 'echo no' TERM; echo ready; while :; do sleep 0.1; done";
    world
        .podman_of(&[
            "run",
            "-d",
            "--network",
            "none",
            "--name",
            "con",
            "busybox",
            "sh",
            "-c",
            script,
        ])
        .ok();
    eventually("it is ready", || world.podman("logs con").all().contains("ready"));
    let mut stop = world.command(&["stop", "-t", "30", "con"]);
    let mut stop = stop.arg0("podman").spawn().unwrap();
    let status = || world.podman("inspect --format {{.State.Status}} con").ok();
    eventually("it is being stopped", || status() == "stopping");
    assert_eq!(world.inspect("con", "{{.State.Status}}"), "running");
    world.podman("kill con").ok();
    stop.wait().unwrap();
    assert_eq!(status(), "exited");
    world.podman("start con").ok();
    assert_eq!(status(), "running");
    world
        .podman("restart -t 1 con")
        .says("StopSignal SIGTERM failed to stop container con in 1 seconds, resorting to SIGKILL")
        .ok();
    world.podman("rm -f -t 0 con").ok();
}

#[test]
fn systemd_hears_of_the_monitor_and_that_the_container_runs() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let socket = world.path("notify");
    let systemd = UnixDatagram::bind(&socket).unwrap();
    systemd
        .set_read_timeout(Some(std::time::Duration::from_secs(20)))
        .unwrap();
    let hear = || {
        let mut buffer = [0; 256];
        let count = systemd.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    };
    let run = |flags: &str| {
        let line = format!("run -d --rm --network none {flags}");
        let mut command = world.command(&line.split_whitespace().collect::<Vec<_>>());
        command.arg0("podman").env("NOTIFY_SOCKET", &socket);
        finish(command, Vec::new()).ok();
    };
    run("--cgroups=no-conmon --sdnotify=conmon --name one busybox sleep 60");
    let monitor = world.podman("inspect --format {{.State.ConmonPid}} one").ok();
    assert_eq!(hear(), format!("MAINPID={monitor}\nREADY=1\n"));
    run("--sdnotify=healthy --health-cmd true --health-interval 1s --name two busybox sleep 60");
    assert!(hear().ends_with("READY=1\n"));
    assert_eq!(
        world.podman("inspect --format {{.State.Health.Status}} two").ok(),
        "healthy"
    );
    // The container has the socket, and speaks itself.
    run("--name con busybox sleep 60");
    assert!(!hear().contains("READY"));
    let place = socket.display();
    world
        .podman("exec con env")
        .prints(&format!("NOTIFY_SOCKET={place}"))
        .ok();
    world.podman(&format!("exec con test -S {place}")).ok();
    world.podman("rm -f -t 0 one two con").ok();
}

#[test]
fn quadlet_files_are_services_of_systemd() {
    let world = World::anyone();
    world.file(
        "q/web.container",
        "[Container]\nImage=quay.io/a/b:1\nVolume=data.volume:/d\n[Install]\nWantedBy=default.target\n",
    );
    world.file("q/data.volume", "[Volume]\n");
    world.file("q/web.container.d/10.conf", "[Container]\nEnvironment=A=b\n");
    let out = world.path("out");
    let quadlet = |words: &[&str]| {
        let mut command = world.command(words);
        command
            .env("QUADLET_UNIT_DIRS", world.path("q"))
            .env("PODMAN", "/usr/bin/podman");
        finish(command, Vec::new())
    };
    quadlet(&["quadlet", "--no-kmsg-log", &out.display().to_string()]).ok();
    let service = std::fs::read_to_string(out.join("web.service")).unwrap();
    assert!(service.contains("Requires=data-volume.service\n"), "{service}");
    assert!(
        service.contains(" -v systemd-data:/d --env A=b quay.io/a/b:1\n"),
        "{service}"
    );
    assert_eq!(
        std::fs::read_link(out.join("default.target.wants/web.service")).unwrap(),
        std::path::Path::new("../web.service")
    );
    world.file("q/bad.container", "[Container]\nColour=red\n");
    let mut command = world.command(&["-dryrun"]);
    command
        .arg0("/usr/lib/systemd/system-generators/podman-system-generator")
        .env("QUADLET_UNIT_DIRS", world.path("q"));
    finish(command, Vec::new())
        .exits(1)
        .says("converting \"bad.container\": unsupported key 'Colour' in group 'Container' in ")
        .prints("---web.service---");
}

#[test]
fn what_the_engine_puts_into_a_container_is_no_change_of_it() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .podman("run --name it --network none busybox touch /new")
        .ok();
    let told = world.podman("diff it").ok();
    let told: Vec<&str> = told.lines().filter(|line| *line != "C /etc").collect();
    assert_eq!(told, ["A /new"]);
    world.podman("rm it").ok();
}

#[test]
fn every_verdict_of_a_health_check_is_told_and_one_that_ends_it_is_seen() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let flags = "--health-interval 1s --health-retries 2 --health-on-failure=stop --stop-timeout=3";
    world
        .podman(&format!(
            "run -d --name sick --network none {flags} --health-cmd false busybox sleep 300"
        ))
        .ok();
    let status = || world.podman("inspect --format {{.State.Status}} sick").ok();
    eventually("it is asked to end", || status() == "stopping");
    eventually("it has ended", || status() == "exited");
    let told = "events --stream=false --filter event=health_status --format {{.HealthStatus}}";
    let told = world.podman(told).ok();
    assert!(told.ends_with("unhealthy") && told.lines().count() >= 2, "{told}");
    world.podman("rm sick").ok();
}

#[test]
fn a_stop_without_a_monitor_tells_that_the_exit_code_is_lost() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    world
        .podman("run -d --name lost --network none busybox sleep 300")
        .ok();
    let monitor = world.podman("inspect --format {{.State.ConmonPid}} lost").ok();
    let pid = rustix::process::Pid::from_raw(monitor.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    eventually("the monitor is gone", || {
        !std::path::Path::new(&format!("/proc/{monitor}")).exists()
    });
    world
        .podman("stop -t 0 lost")
        .exits(125)
        .says("container lost conmon exited prematurely, exit code could not be retrieved");
    assert_eq!(
        world.podman("inspect --format {{.State.Status}} lost").ok(),
        "exited"
    );
    world.podman("rm lost").ok();
}

#[test]
fn a_pull_asks_no_more_than_its_policy_says() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let served = crate::served::Served::start(&world.path("registry"));
    let name = served.name("it:1");
    world.dhow(&["tag", "busybox", &name]).ok();
    world.dhow(&["push", &name]).ok();
    let id = world.inspect(&name, "{{.Id}}").replace("sha256:", "");
    for policy in ["missing", "never", "newer"] {
        let ran = world.podman(&format!("pull --policy {policy} {name}")).exits(0);
        assert_eq!(
            (ran.stdout.trim(), ran.stderr.as_str()),
            (id.as_str(), ""),
            "{policy}"
        );
    }
    let arch = if cfg!(target_arch = "x86_64") {
        "amd64"
    } else {
        "arm64"
    };
    world
        .podman(&format!("pull -q --os linux --arch {arch} {name}"))
        .ok();
    world
        .podman(&format!("pull --arch {arch} --platform linux/{arch} {name}"))
        .exits(125);
    world.podman(&format!("rmi {name}")).ok();
    world
        .podman(&format!("pull --policy never {name}"))
        .exits(125)
        .says("image not known");
    world.podman(&format!("pull -q --policy missing {name}")).ok();
    world.podman(&format!("image exists {name}")).ok();
}

#[test]
fn the_user_namespace_of_the_host_can_be_said_and_so_can_another() {
    let Some(world) = World::with_busybox() else {
        return;
    };
    let run = |mode: &str| {
        let line = format!("run --rm --network none --userns={mode} busybox readlink /proc/self/ns/user");
        world.podman(&line)
    };
    let own = std::fs::read_link("/proc/self/ns/user").unwrap();
    assert_eq!(run("host").ok(), own.display().to_string());
    let another = run("keep-id").ok();
    assert!(
        another.starts_with("user:[") && another != own.display().to_string(),
        "{another}"
    );
    run("keepid").exits(125).says("keepid");
}
