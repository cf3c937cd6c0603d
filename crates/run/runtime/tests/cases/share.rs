//! The share of the machine: scheduling, CPUs, I/O priority, memory nodes, personality.

use dhow_oci::runtime::{CpuAffinity, IoPriority, Linux, MemoryPolicy, Personality, Scheduler};
use dhow_types::ErrorKind;

use super::tests;
use crate::fixture::{Image, linux, process};

tests! {
    the_scheduler_is_what_the_spec_says
    a_deadline_is_in_force
    an_io_priority_is_in_force
    a_personality_holds_for_the_container_and_what_exec_adds
    a_memory_policy_is_in_force_and_a_node_that_is_not_there_an_error
    exec_begins_and_stays_on_the_cpus_it_is_given
    a_restricted_caller_does_not_restrict_the_container
}

/// Field of `/proc/<pid>/stat` by its number in proc(5).
fn field(stat: &str, number: usize) -> &str {
    let rest = stat.rsplit(')').next().unwrap();
    rest.split_whitespace().nth(number - 3).unwrap()
}

fn the_scheduler_is_what_the_spec_says() {
    let image = Image::new();
    let out = image.sh("cat /proc/self/stat", |spec| {
        process(spec).scheduler = Some(Scheduler {
            policy: "SCHED_BATCH".into(),
            nice: Some(5),
            ..Scheduler::default()
        });
    });
    assert_eq!((field(&out, 19), field(&out, 41)), ("5", "3"));
    let (kind, message) = image.refused(&Image::shell("true", |spec| {
        process(spec).scheduler = Some(Scheduler {
            policy: "SCHED_ISO".into(),
            ..Scheduler::default()
        });
    }));
    assert!(message.contains("set scheduler"), "{kind:?} {message}");
}

fn a_deadline_is_in_force() {
    let image = Image::new();
    let mut spec = crate::fixture::default_spec(&["/bin/cat", "/proc/self/stat"]);
    process(&mut spec).scheduler = Some(Scheduler {
        policy: "SCHED_DEADLINE".into(),
        runtime: Some(1_000_000),
        deadline: Some(10_000_000),
        period: Some(10_000_000),
        ..Scheduler::default()
    });
    match image.run(&spec) {
        Ok(outcome) => assert_eq!(
            (field(&outcome.out, 18), field(&outcome.out, 41)),
            ("-101", "6"),
            "{outcome:?}"
        ),
        // All of the machine's time is promised already, or this test may not use every CPU.
        Err(error) => {
            let message = crate::fixture::chain(&error);
            assert!(message.contains("set scheduler"), "{message}");
            println!("skipped: {message}");
        }
    }
}

fn an_io_priority_is_in_force() {
    let image = Image::new();
    let sleeper = image.sleeping(|spec| {
        process(spec).io_priority = Some(IoPriority {
            class: "IOPRIO_CLASS_IDLE".into(),
            priority: 3,
        });
    });
    let out = std::process::Command::new("ionice")
        .args(["-p", &sleeper.0.pid.to_string()])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(out.stdout).unwrap(), "idle\n");
    let wrong = Image::shell("true", |spec| {
        process(spec).io_priority = Some(IoPriority {
            class: "IOPRIO_CLASS_BE".into(),
            priority: 8,
        });
    });
    assert_eq!(image.refused(&wrong).0, ErrorKind::InvalidArgument);
}

fn a_personality_holds_for_the_container_and_what_exec_adds() {
    let image = Image::new();
    let change = |linux: &mut Linux| {
        linux.personality = Some(Personality {
            domain: "LINUX32".into(),
            flags: Vec::new(),
        });
    };
    let script = "cat /proc/self/personality";
    assert_eq!(image.sh(script, |spec| change(linux(spec))), "00000008\n");
    let sleeper = image.sleeping(|_| ());
    assert_eq!(sleeper.sh(script, |_| ()), "00000000\n");
    let mut wanted = Linux::default();
    change(&mut wanted);
    let outcome = sleeper.exec_as(&Image::shell(script, |_| ()).process.unwrap(), Some(&wanted));
    assert_eq!(outcome.unwrap().out, "00000008\n");
    let wrong = Image::shell("true", |spec| {
        linux(spec).personality = Some(Personality {
            domain: "BSD".into(),
            flags: Vec::new(),
        });
    });
    assert_eq!(image.refused(&wrong).0, ErrorKind::InvalidArgument);
}

fn a_memory_policy_is_in_force_and_a_node_that_is_not_there_an_error() {
    if !std::path::Path::new("/proc/self/numa_maps").exists() {
        println!("skipped: this kernel has no NUMA");
        return;
    }
    let image = Image::new();
    let policy = |nodes: &str| MemoryPolicy {
        mode: "MPOL_BIND".into(),
        nodes: nodes.into(),
        flags: vec!["MPOL_F_STATIC_NODES".into()],
    };
    let out = image.sh("head -n 1 /proc/self/numa_maps", |spec| {
        linux(spec).memory_policy = Some(policy("0"))
    });
    assert!(out.contains(" bind=static:0 "), "{out}");
    let (_, message) = image.refused(&Image::shell("true", |spec| {
        linux(spec).memory_policy = Some(policy("1000"))
    }));
    assert!(message.contains("set memory policy"), "{message}");
}

const CPUS: &str = "grep Cpus_allowed_list /proc/self/status";

fn exec_begins_and_stays_on_the_cpus_it_is_given() {
    let image = Image::new();
    let sleeper = image.sleeping(|_| ());
    let own = dhow_sys::sched::affinity().unwrap();
    let affinity = |initial: Option<&str>, last: Option<&str>| CpuAffinity {
        initial: initial.map(str::to_owned),
        last: last.map(str::to_owned),
    };
    let on = |wanted| sleeper.sh(CPUS, |process| process.exec_cpu_affinity = Some(wanted));
    assert_eq!(on(affinity(Some("0"), None)), "Cpus_allowed_list:\t0\n");
    assert_eq!(on(affinity(None, Some("0"))), "Cpus_allowed_list:\t0\n");
    assert_eq!(dhow_sys::sched::affinity().unwrap(), own);
    let mut spec = Image::shell("true", |_| ());
    let process = process(&mut spec);
    process.exec_cpu_affinity = Some(affinity(Some("0-"), None));
    assert_eq!(
        sleeper.exec(process).unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
    process.exec_cpu_affinity = Some(affinity(None, Some("8191")));
    assert!(sleeper.exec(process).is_err());
    // The container's first process is none that exec starts.
    let all = image.sh(CPUS, |_| ());
    let out = image.sh(CPUS, |spec| {
        crate::fixture::process(spec).exec_cpu_affinity = Some(affinity(Some("0"), Some("0")))
    });
    assert_eq!(out, all);
}

fn a_restricted_caller_does_not_restrict_the_container() {
    let image = Image::new();
    let all = image.sh(CPUS, |_| ());
    dhow_sys::sched::set_affinity(&[1]).unwrap();
    assert_eq!(image.sh(CPUS, |_| ()), all);
    let sleeper = image.sleeping(|_| ());
    assert_eq!(sleeper.sh(CPUS, |_| ()), all);
}
