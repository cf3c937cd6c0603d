//! Known holes of other runtimes, second part: attacks from inside, on what enters a container, and on the host's
//! state. Each test says what a naive runtime does.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use dhow_oci::runtime::{Device, IdMapping, Namespace, Spec};
use dhow_runtime::{Create, Exec, Plan, Rootfs, Settings, Stdio, create, exec, wait};
use dhow_types::ErrorKind;

use super::tests;
use crate::fixture::{Image, Sleeper, attack, chain, default_spec, host, linux, mount, process};

tests! {
    cve_2019_5736_a_preloaded_library_is_not_loaded_into_ours
    cve_2016_9962_what_enters_a_hostile_container_shows_it_nothing
    cve_2016_9962_not_even_with_the_right_to_trace
    cve_2024_21626_no_directory_is_made_through_a_descriptor
    cve_2024_21626_no_directory_is_made_through_a_descriptor_by_exec
    cve_2024_21626_links_of_the_image_lead_to_no_descriptor
    cve_2025_52565_a_linked_console_is_refused
    cve_2025_52565_exec_takes_its_terminal_from_devpts_alone
    cve_2025_52881_a_setting_is_written_to_the_kernel_alone
    cve_2023_28642_masks_follow_procfs_and_not_its_name
    cve_2023_25809_control_groups_are_read_only_without_a_namespace_of_their_own
    cve_2022_0492_no_release_agent_can_be_written
    cve_2022_24769_a_program_with_inheritable_file_capabilities_gains_nothing
    settings_of_the_host_cannot_be_written
    a_setting_of_a_joined_namespace_is_not_the_hosts
    a_device_below_a_linked_directory_stays_inside
    without_a_change_of_root_no_bare_procfs_is_to_be_had
}

/// With a library of the image in it, a dynamically linked helper would run foreign code before its main. The library
/// is a pipe: who opens it hangs, and the test with it.
fn cve_2019_5736_a_preloaded_library_is_not_loaded_into_ours() {
    let image = Image::new();
    let pipe = image.root().join("evil.so");
    host(&format!("mkfifo {}", pipe.display()));
    std::fs::write(image.root().join("etc/ld.so.preload"), "/evil.so\n").unwrap();
    std::fs::write(image.root().join("bin/script"), "#!/proc/self/exe\n").unwrap();
    host(&format!("chmod 755 {}/bin/script", image.root().display()));
    for program in ["/proc/self/exe", "/bin/script"] {
        let mut spec = default_spec(&[program, "--list"]);
        process(&mut spec).env.push("LD_PRELOAD=/evil.so".into());
        process(&mut spec).env.push("LD_LIBRARY_PATH=/".into());
        let outcome = image.run(&spec).unwrap();
        assert_eq!((outcome.code, outcome.out.as_str()), (255, ""), "{program}");
        let sleeper = image.sleeping(|_| ());
        let outcome = sleeper.exec(process(&mut spec)).unwrap();
        assert_eq!((outcome.code, outcome.out.as_str()), (255, ""), "{program}");
    }
}

/// A hostile container looks, as fast as it can, at everything in its procfs that is not its own while the host
/// enters it. A naive runtime is dumpable there: its root, memory, program and descriptors are the host's. What is
/// seen besides is written down; the loop must have met the entering processes to count.
fn cve_2016_9962_what_enters_a_hostile_container_shows_it_nothing() {
    look_at_what_enters(&[]);
}

/// The same with the capability that passes over dumpability: what enters must not be there to be seen.
fn cve_2016_9962_not_even_with_the_right_to_trace() {
    look_at_what_enters(&["CAP_SYS_PTRACE"]);
}

fn look_at_what_enters(rights: &[&str]) {
    let image = Image::new();
    let outside = image.beside("outside");
    std::fs::write(outside.join("host-only"), "").unwrap();
    let program = format!(
        r#"
        use Fcntl; my $met = 0; $| = 1; print "ready\n";
        until (-e "/tmp/stop") {{
            opendir(my $proc, "/proc"); 
            for my $pid (grep {{ /^\d+$/ && $_ > 1 }} readdir $proc) {{
                $met++;
                my $root = readlink "/proc/$pid/root"; my $exe = readlink "/proc/$pid/exe";
                print "root\n" if -e "/proc/$pid/root{marker}" || -e "/proc/$pid/cwd/host-only";
                print "exe $exe\n" if defined $exe && $exe !~ m{{^/bin/busybox|memfd:}};
                print "exe open\n" if defined $exe && $exe =~ /memfd:/ && sysopen(my $f, "/proc/$pid/exe", O_RDWR);
                my $fd = readlink "/proc/$pid/fd/3"; print "fd $fd\n" if defined $fd && $exe !~ m{{busybox|memfd:}};
            }}
        }}
        print "met\n" if $met;
        "#,
        marker = outside.join("host-only").display()
    );
    let Some(mut spec) = attack(&["/usr/bin/perl", "-e", &program]) else {
        return;
    };
    let capabilities = process(&mut spec).capabilities.as_mut().unwrap();
    for set in [
        &mut capabilities.bounding,
        &mut capabilities.effective,
        &mut capabilities.permitted,
    ] {
        set.extend(rights.iter().map(|right| (*right).to_owned()));
    }
    let plan = Plan::prepare(&spec, &Settings::default()).unwrap();
    let (stdio, mut output) = crate::fixture::piped();
    let attacker = Sleeper(
        dhow_runtime::run(Create {
            plan: &plan,
            rootfs: Rootfs::Path(image.root()),
            stdio,
            group: None,
            namespaces: Vec::new(),
            state: None,
        })
        .unwrap(),
    );
    let mut first = [0; 6];
    output.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"ready\n");
    std::env::set_current_dir(&outside).unwrap();
    for _ in 0..60 {
        attacker.exec(process(&mut default_spec(&["/bin/true"]))).unwrap();
    }
    std::fs::write(image.root().join("tmp/stop"), "").unwrap();
    let mut seen = String::new();
    output.read_to_string(&mut seen).unwrap();
    assert_eq!(seen, "met\n");
}

/// A directory of the host, open in this process without and with the close-on-exec flag.
fn leaked(path: &Path) -> [File; 2] {
    let leaks = [File::open(path).unwrap(), File::open(path).unwrap()];
    rustix::io::fcntl_setfd(&leaks[0], rustix::io::FdFlags::empty()).unwrap();
    leaks
}

/// Working directories that lead through descriptors of the setup process.
fn through_descriptors() -> impl Iterator<Item = String> {
    (0..40).flat_map(|fd| ["self", "thread-self", "1"].map(|who| format!("/proc/{who}/fd/{fd}/made/deep")))
}

/// A naive runtime makes the missing working directory with `mkdir -p` in the container, and only then looks where it
/// is: an empty directory of the image's choice appears on the host, for example in the control group tree.
fn cve_2024_21626_no_directory_is_made_through_a_descriptor() {
    let image = Image::new();
    let outside = image.beside("outside");
    let _leaks = leaked(&outside);
    for cwd in through_descriptors() {
        let spec = Image::shell("pwd", |spec| process(spec).cwd = cwd.clone().into());
        let (_, message) = image.refused(&spec);
        assert!(message.contains("working directory"), "{cwd}: {message}");
    }
    assert_eq!(std::fs::read_dir(outside).unwrap().count(), 0);
}

fn cve_2024_21626_no_directory_is_made_through_a_descriptor_by_exec() {
    let image = Image::new();
    let outside = image.beside("outside");
    let sleeper = image.sleeping(|_| ());
    let _leaks = leaked(&outside);
    for cwd in through_descriptors() {
        let mut spec = Image::shell("pwd", |spec| process(spec).cwd = cwd.clone().into());
        let error = sleeper.exec(process(&mut spec)).unwrap_err();
        assert!(chain(&error).contains("working directory"), "{}", chain(&error));
    }
    assert_eq!(std::fs::read_dir(outside).unwrap().count(), 0);
}

/// The same by a link in the image, by `..` behind a descriptor, and by the root and working directory of the setup
/// process, at create and at exec.
fn cve_2024_21626_links_of_the_image_lead_to_no_descriptor() {
    let image = Image::new();
    let outside = image.beside("outside");
    std::fs::write(outside.join("host-only"), "").unwrap();
    let _leaks = leaked(&outside);
    std::env::set_current_dir(&outside).unwrap();
    let mut ways = vec!["/proc/self/cwd".to_owned(), "/proc/self/root".to_owned()];
    for fd in 3..16 {
        symlink(
            format!("/proc/self/fd/{fd}"),
            image.root().join(format!("to{fd}")),
        )
        .unwrap();
        ways.push(format!("/to{fd}"));
        ways.push(format!("/proc/self/fd/{fd}/../outside"));
        ways.push(format!("/to{fd}/../../../../../.."));
    }
    let sleeper = image.sleeping(|_| ());
    let mut refused = 0;
    for cwd in ways {
        let script = "test ! -e host-only && test ! -e /proc/self/cwd/host-only && ls -a . .. && pwd";
        let mut spec = Image::shell(script, |spec| process(spec).cwd = cwd.clone().into());
        for outcome in [image.run(&spec), sleeper.exec(process(&mut spec))] {
            match outcome {
                Ok(outcome) => {
                    assert_eq!(outcome.code, 0, "{cwd}: {}", outcome.out);
                    assert!(!outcome.out.contains("outside"), "{cwd}: {}", outcome.out);
                }
                Err(error) => {
                    refused += usize::from(chain(&error).contains("outside of the container"));
                }
            }
        }
    }
    assert!(refused > 0, "no descriptor of the host was tried");
}

/// Without a tmpfs on /dev the image chooses what /dev/console is. A naive runtime binds the terminal to what the link
/// names, or opens it as the console.
fn cve_2025_52565_a_linked_console_is_refused() {
    for target in ["/proc/sys/kernel/core_pattern", "/etc/bait", "/proc/self/fd/4"] {
        let image = Image::new();
        std::fs::write(image.root().join("etc/bait"), "bait").unwrap();
        symlink(target, image.root().join("dev/console")).unwrap();
        let spec = Image::shell("echo x > /dev/console; cat /etc/bait /proc/mounts", |spec| {
            spec.mounts.retain(|mount| mount.destination != Path::new("/dev"));
            process(spec).terminal = true;
        });
        let plan = Plan::prepare(&spec, &Settings::default()).unwrap();
        let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
        let error = create(Create {
            plan: &plan,
            rootfs: Rootfs::Path(image.root()),
            stdio: Stdio::Terminal,
            group: None,
            namespaces: Vec::new(),
            state: None,
        })
        .unwrap_err();
        assert!(chain(&error).contains("console"), "{}", chain(&error));
        let now = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
        assert_eq!(now, pattern);
        assert_eq!(std::fs::read(image.root().join("etc/bait")).unwrap(), b"bait");
    }
}

/// Runs a process with a terminal in a container; what it prints.
pub(super) fn exec_with_terminal(sleeper: &Sleeper, script: &str) -> Result<String, dhow_runtime::Error> {
    let mut spec = Image::shell(script, |spec| process(spec).terminal = true);
    let running = exec(Exec {
        init: sleeper.0.pidfd.as_fd(),
        process: process(&mut spec),
        seccomp: None,
        linux: None,
        annotations: None,
        group: None,
        stdio: Stdio::Terminal,
        settings: &Settings::default(),
        state: None,
    })?;
    let mut master = File::from(running.terminal.unwrap());
    let (mut out, mut chunk) = (String::new(), [0; 256]);
    while let Ok(length) = master.read(&mut chunk) {
        out.push_str(std::str::from_utf8(&chunk[..length]).unwrap());
    }
    wait(running.pidfd.as_fd()).unwrap();
    Ok(out)
}

/// A naive runtime opens /dev/ptmx by its name in the container, or the other end by /dev/pts/N.
fn cve_2025_52565_exec_takes_its_terminal_from_devpts_alone() {
    let image = Image::new();
    std::fs::write(image.root().join("etc/bait"), "bait").unwrap();
    let sleeper = image.sleeping(|_| ());
    sleeper.sh(
        "rm -f /dev/ptmx /dev/console /dev/tty; for name in ptmx console tty; do ln -s /etc/bait /dev/$name; done",
        |_| (),
    );
    let out = exec_with_terminal(&sleeper, "tty; stat -c %t /proc/self/fd/0 -L").unwrap();
    assert_eq!(out, "/dev/pts/0\r\n88\r\n");
    assert_eq!(std::fs::read(image.root().join("etc/bait")).unwrap(), b"bait");
}

/// A directory of fakes over /proc: a naive runtime writes settings, labels and scores into them, and by their links
/// into any file of the container's mounts.
fn cve_2025_52881_a_setting_is_written_to_the_kernel_alone() {
    let image = Image::new();
    let evil = image.beside("evil");
    let bait = image.beside("volume").join("bait");
    std::fs::write(&bait, "bait").unwrap();
    for directory in [
        "sys/net/ipv4",
        "sys/kernel",
        "self/attr",
        "thread-self/attr",
        "1/attr",
    ] {
        std::fs::create_dir_all(evil.join(directory)).unwrap();
    }
    for name in [
        "sys/net/ipv4/ip_default_ttl",
        "sys/kernel/shmmni",
        "self/oom_score_adj",
        "self/attr/exec",
    ] {
        symlink("/volume/bait", evil.join(name)).unwrap();
    }
    symlink("/proc", image.root().join("linked")).unwrap();
    for destination in ["/proc", "/linked"] {
        let (volume, evil) = (bait.parent().unwrap().to_owned(), evil.clone());
        let spec = Image::shell("cat /volume/bait", |spec| {
            spec.mounts
                .insert(1, mount("/volume", "bind", volume.to_str().unwrap(), &["bind"]));
            spec.mounts
                .insert(2, mount(destination, "bind", evil.to_str().unwrap(), &["bind"]));
            linux(spec)
                .sysctl
                .insert("net.ipv4.ip_default_ttl".into(), "77".into());
            linux(spec).sysctl.insert("kernel.shmmni".into(), "1234".into());
            process(spec).oom_score_adj = Some(500);
        });
        let outcome = image.run(&spec);
        assert_eq!(
            std::fs::read(&bait).unwrap(),
            b"bait",
            "{destination}: {outcome:?}"
        );
        // Nothing but a procfs is mounted over /proc, whatever name leads there.
        let message = chain(&outcome.unwrap_err());
        assert!(message.contains(&format!("at {destination}")), "{message}");
    }
}

/// The name /proc leads elsewhere when the masks are made: here to a file system that an image's link put there, in the race
/// tests to a directory that another process swapped in. A naive runtime resolves `/proc/keys` once more by its name,
/// and the real procfs stays unmasked.
fn cve_2023_28642_masks_follow_procfs_and_not_its_name() {
    let image = Image::new();
    symlink("/proc", image.root().join("linked")).unwrap();
    // The cover is taken away again by the container, which may mount: what is below must be masked.
    let spec = Image::shell(
        "umount -l /proc && stat -c %t:%T /proc/keys && echo 1 > /proc/sys/vm/swappiness",
        |spec| {
            spec.mounts.push(mount("/linked", "tmpfs", "tmpfs", &[]));
            linux(spec).seccomp = None;
            let capabilities = process(spec).capabilities.as_mut().unwrap();
            for set in [
                &mut capabilities.bounding,
                &mut capabilities.effective,
                &mut capabilities.permitted,
            ] {
                set.push("CAP_SYS_ADMIN".into());
            }
        },
    );
    let swappiness = std::fs::read_to_string("/proc/sys/vm/swappiness").unwrap();
    let outcome = image.run(&spec).unwrap();
    let now = std::fs::read_to_string("/proc/sys/vm/swappiness").unwrap();
    if now != swappiness {
        std::fs::write("/proc/sys/vm/swappiness", &swappiness).unwrap();
    }
    assert_eq!(now, swappiness);
    assert!(
        outcome.out.starts_with("1:3\n") && outcome.code != 0,
        "{outcome:?}"
    );
}

/// Maps the container's root to an ordinary id of the host.
fn with_users(image: &Image, spec: &mut Spec) {
    host(&format!(
        "chown -R 100000:100000 {0} && chmod 755 {0}/..",
        image.root().display()
    ));
    let mapping = vec![IdMapping {
        container_id: 0,
        host_id: 100_000,
        size: 65536,
    }];
    let linux = linux(spec);
    linux.namespaces.push(Namespace {
        kind: "user".into(),
        path: None,
    });
    (linux.uid_mappings, linux.gid_mappings) = (mapping.clone(), mapping);
}

/// A control group for one test, removed with all that is in it.
struct Group(Option<dhow_cgroup::Group>);

impl Group {
    fn new(name: &str) -> Self {
        let path = format!("/dhow-test-{name}-{}", rustix::process::getpid().as_raw_pid());
        let resources = dhow_oci::runtime::Resources::default();
        Self(Some(
            dhow_cgroup::Group::create(Path::new(&path), &resources).unwrap(),
        ))
    }

    fn get(&self) -> &dhow_cgroup::Group {
        self.0.as_ref().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0.take() {
            drop(group.kill_all());
            drop(group.delete());
        }
    }
}

/// Tries everything in /sys/fs/cgroup that a container could want to write.
const WRITE_GROUPS: &str = "cd /sys/fs/cgroup; \
    for d in . * */*; do \
        test -e $d/cgroup.procs || continue; \
        mkdir $d/x 2>/dev/null && echo made $d; \
        for f in cgroup.procs tasks release_agent notify_on_release memory.limit_in_bytes memory.max pids.max devices.allow; do \
            test -e $d/$f && echo 1 2>/dev/null > $d/$f && echo wrote $d/$f; \
        done; \
    done 2>/dev/null; \
    mount -o remount,bind,rw /sys/fs/cgroup 2>/dev/null && echo remounted; true";

/// With a mount that says `rw` and no cgroup namespace, a naive runtime gives the container's root the host's groups.
fn cve_2023_25809_control_groups_are_read_only_without_a_namespace_of_their_own() {
    for namespace in [true, false] {
        let image = Image::new();
        let group = Group::new("rootless");
        let spec = Image::shell(WRITE_GROUPS, |spec| {
            with_users(&image, spec);
            if !namespace {
                linux(spec).namespaces.retain(|one| one.kind != "cgroup");
            }
            let cgroups = spec
                .mounts
                .iter_mut()
                .find(|mount| mount.kind.as_deref() == Some("cgroup"));
            cgroups.unwrap().options = vec!["rw".into(), "nosuid".into(), "noexec".into(), "nodev".into()];
        });
        let plan = Plan::prepare(&spec, &Settings::default()).unwrap();
        let (stdio, mut output) = crate::fixture::piped();
        let running = dhow_runtime::run(Create {
            plan: &plan,
            rootfs: Rootfs::Path(image.root()),
            stdio,
            group: Some(group.get()),
            namespaces: Vec::new(),
            state: None,
        })
        .unwrap_or_else(|error| panic!("{}", chain(&error)));
        let mut out = String::new();
        output.read_to_string(&mut out).unwrap();
        wait(running.pidfd.as_fd()).unwrap();
        assert_eq!(out, "", "namespace: {namespace}");
    }
}

/// A container that may mount nothing finds no group to write, and so no `release_agent` for the host's kernel to run;
/// nor can it make a namespace in which it could mount one.
fn cve_2022_0492_no_release_agent_can_be_written() {
    let image = Image::new();
    let group = Group::new("agent");
    let script = format!(
        "{WRITE_GROUPS}; mkdir /tmp/m; mount -t cgroup -o memory cgroup /tmp/m 2>/dev/null && echo mounted; \
         mount -t cgroup2 cgroup /tmp/m 2>/dev/null && echo mounted2; \
         unshare -C -m true 2>/dev/null && echo unshared; unshare -U -r true 2>/dev/null && echo users; true"
    );
    let spec = Image::shell(&script, |_| ());
    let plan = Plan::prepare(&spec, &Settings::default()).unwrap();
    let (stdio, mut output) = crate::fixture::piped();
    let running = dhow_runtime::run(Create {
        plan: &plan,
        rootfs: Rootfs::Path(image.root()),
        stdio,
        group: Some(group.get()),
        namespaces: Vec::new(),
        state: None,
    })
    .unwrap();
    let mut out = String::new();
    output.read_to_string(&mut out).unwrap();
    wait(running.pidfd.as_fd()).unwrap();
    assert_eq!(out, "");
}

/// A file with inheritable capabilities gives them to whoever runs it with the same ones inheritable: a naive runtime
/// makes its whole bounding set inheritable, so that any user of the container gets them back.
fn cve_2022_24769_a_program_with_inheritable_file_capabilities_gains_nothing() {
    let image = Image::new();
    std::fs::create_dir(image.root().join("gift")).unwrap();
    let file = image.root().join("gift/busybox");
    std::fs::copy("/bin/busybox", &file).unwrap();
    // Version 2, CAP_NET_RAW (13) inheritable, effective flag (capabilities(7), vfs_cap_data).
    let mut value = Vec::new();
    for word in [0x0200_0001_u32, 0, 1 << 13, 0, 0] {
        value.extend_from_slice(&word.to_le_bytes());
    }
    rustix::fs::setxattr(
        &file,
        "security.capability",
        &value,
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    let check = "/gift/busybox grep -E 'Cap(Inh|Prm|Eff)' /proc/self/status";
    let nothing = "CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n";
    let ordinary = |process: &mut dhow_oci::runtime::Process| {
        process.user.uid = 1000;
        let capabilities = process.capabilities.as_mut().unwrap();
        capabilities.inheritable = capabilities.bounding.clone();
    };
    assert_eq!(image.sh(check, |spec| ordinary(process(spec))), nothing);
    let sleeper = image.sleeping(|_| ());
    assert_eq!(sleeper.sh(check, ordinary), nothing);
}

/// The settings by which the kernel starts programs of the host, or is brought down, by every way a root user without
/// CAP_SYS_ADMIN has; core_pattern is the one that all masked-path holes end with.
fn settings_of_the_host_cannot_be_written() {
    let image = Image::new();
    let files = "/proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sys/kernel/hotplug /proc/sysrq-trigger \
                 /proc/sys/fs/binfmt_misc/register /proc/sys/vm/panic_on_oom /sys/kernel/uevent_helper \
                 /sys/kernel/mm/transparent_hugepage/enabled /proc/kcore /proc/1/root/proc/sys/kernel/core_pattern \
                 /proc/self/root/proc/sysrq-trigger /proc/thread-self/root/proc/sys/kernel/core_pattern";
    let script = format!(
        "for f in {files}; do test -e $f && test ! -c $f && ( : >> $f ) 2>/dev/null && echo opened $f; done 2>/dev/null; \
         mount -o remount,rw /proc/sys 2>/dev/null && echo remounted; umount /proc/sys 2>/dev/null && echo uncovered; \
         umount /proc/keys 2>/dev/null && echo unmasked; mkdir /tmp/p; mount -t proc proc /tmp/p 2>/dev/null && echo proc; true"
    );
    assert_eq!(image.sh(&script, |_| ()), "");
}

/// `net.*` in a network namespace that is joined by path is fine, unless it is the host's own: a naive runtime asks only
/// whether the spec names a network namespace.
fn a_setting_of_a_joined_namespace_is_not_the_hosts() {
    let image = Image::new();
    let file = "/proc/sys/net/ipv4/ip_default_ttl";
    let before = std::fs::read_to_string(file).unwrap();
    let spec = |path: String| {
        Image::shell("true", |spec| {
            for namespace in &mut linux(spec).namespaces {
                if namespace.kind == "network" {
                    namespace.path = Some(path.clone().into());
                }
            }
            linux(spec)
                .sysctl
                .insert("net.ipv4.ip_default_ttl".into(), "77".into());
        })
    };
    let (kind, message) = image.refused(&spec("/proc/self/ns/net".into()));
    let now = std::fs::read_to_string(file).unwrap();
    if now != before {
        std::fs::write(file, &before).unwrap();
    }
    assert_eq!(now, before);
    assert_eq!(kind, ErrorKind::InvalidArgument, "{message}");
    let other = image.sleeping(|_| ());
    image.run(&spec(format!("/proc/{}/ns/net", other.0.pid))).unwrap();
    assert_eq!(other.sh(&format!("cat {file}"), |_| ()), "77\n");
}

/// A naive runtime calls mknod with the path of the spec below the root: through the image's link the node is made on
/// the host.
fn a_device_below_a_linked_directory_stays_inside() {
    let image = Image::new();
    let outside = image.beside("outside");
    let climb = format!("{}{}", "../".repeat(20), outside.display());
    symlink(climb, image.root().join("climb")).unwrap();
    symlink(&outside, image.root().join("absolute")).unwrap();
    symlink("/proc/self/cwd", image.root().join("magic")).unwrap();
    std::env::set_current_dir(&outside).unwrap();
    for directory in ["/climb", "/absolute", "/magic", "/climb/deeper", "/dev/../climb"] {
        let spec = Image::shell("true", |spec| {
            linux(spec).devices = vec![Device {
                path: format!("{directory}/node").into(),
                kind: "c".into(),
                major: 1,
                minor: 3,
                ..Device::default()
            }];
        });
        match image.run(&spec) {
            Ok(outcome) => assert_eq!(outcome.code, 0, "{directory}: {outcome:?}"),
            Err(error) => assert!(!chain(&error).is_empty()),
        }
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "{directory}");
    }
}

/// With the host's procfs still in the mount namespace, beneath the root, the kernel lets a user namespace mount one that
/// nothing masks: /proc/sysrq-trigger and the like could be written.
fn without_a_change_of_root_no_bare_procfs_is_to_be_had() {
    let image = Image::new();
    let script = "unshare -mrpf true && echo unshared; \
                  unshare -mrpf mount -t proc none /proc && echo mounted; \
                  unshare -mrnf mount -t sysfs none /sys && echo mounted; \
                  cat /proc/self/mountinfo";
    let spec = Image::shell(script, |spec| linux(spec).seccomp = None);
    let settings = Settings {
        no_pivot: true,
        ..Settings::default()
    };
    let plan = Plan::prepare(&spec, &settings).unwrap();
    let (stdio, output) = crate::fixture::piped();
    let running = dhow_runtime::run(Create {
        plan: &plan,
        rootfs: Rootfs::Path(image.root()),
        stdio,
        group: None,
        namespaces: Vec::new(),
        state: None,
    })
    .unwrap_or_else(|error| panic!("{}", chain(&error)));
    let out = crate::fixture::finish(&running, output).out;
    assert!(out.contains("unshared") && !out.contains("mounted"), "{out}");
    assert_eq!(
        out.to_lowercase().matches("permission denied").count(),
        2,
        "{out}"
    );
    // What is left of the host is what the root lies on, out of reach.
    let of_proc = out.lines().filter(|line| line.contains(" - proc ")).count();
    let masked = out.lines().filter(|line| line.contains(" /proc/")).count();
    assert!(of_proc <= masked + 1, "{out}");
}
