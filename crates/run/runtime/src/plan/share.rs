//! The share of the machine that a process asks for beside its control group: scheduling, CPUs, I/O priority, memory
//! nodes, and the machine it believes to be on.

use dhow_oci::runtime::{CpuAffinity, IoPriority, Linux, MemoryPolicy, Personality, Process, Scheduler};
use dhow_sys::sched::{Attributes, CPU_WORDS};
use dhow_types::ErrorKind;

use crate::Error;

/// What is asked for; nearly always nothing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) scheduler: Option<Attributes>,
    /// Class and level.
    pub(crate) io_priority: Option<(u8, u8)>,
    /// CPUs while the process enters its control group.
    pub(crate) first_cpus: Option<Vec<u64>>,
    /// CPUs from then on.
    pub(crate) cpus: Option<Vec<u64>>,
    /// Mode with flags, and nodes.
    pub(crate) memory: Option<(i32, Vec<u64>)>,
    pub(crate) personality: Option<u32>,
    /// Whether the control group is restricted to some CPUs, which the kernel does not have together with deadlines.
    pub(crate) some_cpus: bool,
}

impl Share {
    /// What a process asks for, and the container it belongs to. CPUs are for processes that exec starts.
    pub(crate) fn parse(process: &Process, linux: &Linux, exec: bool) -> Result<Option<Box<Self>>, Error> {
        let affinity = process.exec_cpu_affinity.as_ref().map(cpus).transpose()?;
        let (first_cpus, cpus) = affinity.filter(|_| exec).unwrap_or_default();
        let cpuset = linux.resources.as_ref().and_then(|all| all.cpu.as_ref());
        let share = Self {
            scheduler: process.scheduler.as_ref().map(scheduler).transpose()?,
            io_priority: process.io_priority.as_ref().map(io_priority).transpose()?,
            first_cpus,
            cpus,
            memory: linux.memory_policy.as_ref().map(memory).transpose()?,
            personality: linux.personality.as_ref().map(personality).transpose()?,
            some_cpus: false,
        };
        let some_cpus = cpuset.is_some_and(|cpu| cpu.cpus.as_ref().is_some_and(|cpus| !cpus.is_empty()));
        Ok((share != Self::default()).then(|| Box::new(Self { some_cpus, ..share })))
    }
}

fn invalid<T>(message: String) -> Result<T, Error> {
    Err(Error::new(ErrorKind::InvalidArgument, message))
}

const POLICIES: [(&str, u32); 7] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];
const OTHER: u32 = 0;
const FIFO: u32 = 1;
const RR: u32 = 2;
const BATCH: u32 = 3;
const DEADLINE: u32 = 6;

const SCHEDULER_FLAGS: [(&str, u64); 7] = [
    ("SCHED_FLAG_RESET_ON_FORK", 0x01),
    ("SCHED_FLAG_RECLAIM", 0x02),
    ("SCHED_FLAG_DL_OVERRUN", 0x04),
    ("SCHED_FLAG_KEEP_POLICY", 0x08),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];

fn named<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, value)| *value)
}

fn scheduler(wanted: &Scheduler) -> Result<Attributes, Error> {
    if wanted.policy.is_empty() {
        return invalid("scheduler policy is required".to_owned());
    }
    let Some(policy) = named(&POLICIES, &wanted.policy) else {
        return invalid(format!("invalid scheduler policy {:?}", wanted.policy));
    };
    let mut flags = 0;
    for name in &wanted.flags {
        match named(&SCHEDULER_FLAGS, name) {
            Some(flag) => flags |= flag,
            None => return invalid(format!("invalid scheduler flag {name:?}")),
        }
    }
    let nice = wanted.nice.unwrap_or(0);
    if matches!(policy, OTHER | BATCH) && !(-20..=19).contains(&nice) {
        return invalid(format!(
            "invalid scheduler.nice: {nice} when scheduler.policy is {}",
            wanted.policy
        ));
    }
    let Ok(priority) = u32::try_from(wanted.priority.unwrap_or(0)) else {
        return invalid("scheduler.priority is negative".to_owned());
    };
    if priority != 0 && !matches!(policy, FIFO | RR) {
        return invalid(
            "scheduler.priority can only be specified for SchedFIFO or SchedRR policy".to_owned(),
        );
    }
    let times = [wanted.runtime, wanted.deadline, wanted.period];
    if policy == DEADLINE {
        deadline(wanted)?;
    } else if times.iter().any(|time| time.is_some_and(|time| time != 0)) {
        let message = "scheduler runtime/deadline/period can only be specified for SchedDeadline policy";
        return invalid(message.to_owned());
    }
    let [runtime, deadline, period] = times.map(Option::unwrap_or_default);
    Ok(Attributes {
        policy,
        flags,
        // The kernel looks at it for these two alone.
        nice: if matches!(policy, OTHER | BATCH) { nice } else { 0 },
        priority,
        runtime,
        deadline,
        period,
    })
}

/// The kernel's conditions (sched(7), "SCHED_DEADLINE"), told one by one where it says EINVAL.
fn deadline(wanted: &Scheduler) -> Result<(), Error> {
    const NAME: &str = "sched_setattr: `SCHED_DEADLINE`";
    let (Some(runtime), deadline, period) = (wanted.runtime, wanted.deadline, wanted.period.unwrap_or(0))
    else {
        return invalid(format!("{NAME} requires `runtime`"));
    };
    let Some(deadline) = deadline else {
        return invalid(format!("{NAME} requires `deadline`"));
    };
    for (name, time) in [("runtime", runtime), ("deadline", deadline)] {
        if time == 0 {
            return invalid(format!("{NAME} {name} must be greater than 0"));
        }
    }
    if runtime > deadline {
        return invalid(format!(
            "{NAME} runtime ({runtime}) must be <= deadline ({deadline})"
        ));
    }
    if period != 0 && deadline > period {
        return invalid(format!(
            "{NAME} deadline ({deadline}) must be <= period ({period})"
        ));
    }
    let (least, bound) = (1024, 1 << 63);
    for (name, time) in [("runtime", runtime), ("deadline", deadline), ("period", period)] {
        let left_out = name == "period" && time == 0;
        if !left_out && !(least..bound).contains(&time) {
            return invalid(format!(
                "{NAME} {name} ({time}) must be between {least} and {bound}"
            ));
        }
    }
    Ok(())
}

fn io_priority(wanted: &IoPriority) -> Result<(u8, u8), Error> {
    let Some(level) = u8::try_from(wanted.priority).ok().filter(|level| *level < 8) else {
        return invalid(format!("invalid ioPriority.Priority: {}", wanted.priority));
    };
    let classes = [
        ("IOPRIO_CLASS_RT", 1),
        ("IOPRIO_CLASS_BE", 2),
        ("IOPRIO_CLASS_IDLE", 3),
    ];
    match named(&classes, &wanted.class) {
        Some(class) => Ok((class, level)),
        None => invalid(format!("invalid ioPriority.Class: {:?}", wanted.class)),
    }
}

/// CPUs first and then.
type Cpus = (Option<Vec<u64>>, Option<Vec<u64>>);

fn cpus(wanted: &CpuAffinity) -> Result<Cpus, Error> {
    let parse = |list: &Option<String>, what: &str| match list.as_deref().unwrap_or("") {
        "" => Ok(None),
        text => bits(text, CPU_WORDS, &format!("execCPUAffinity.{what}")).map(Some),
    };
    Ok((parse(&wanted.initial, "initial")?, parse(&wanted.last, "final")?))
}

fn memory(wanted: &MemoryPolicy) -> Result<(i32, Vec<u64>), Error> {
    let modes = [
        ("MPOL_DEFAULT", 0),
        ("MPOL_PREFERRED", 1),
        ("MPOL_BIND", 2),
        ("MPOL_INTERLEAVE", 3),
        ("MPOL_LOCAL", 4),
        ("MPOL_PREFERRED_MANY", 5),
        ("MPOL_WEIGHTED_INTERLEAVE", 6),
    ];
    let flags = [
        ("MPOL_F_STATIC_NODES", 1 << 15),
        ("MPOL_F_RELATIVE_NODES", 1 << 14),
        ("MPOL_F_NUMA_BALANCING", 1 << 13),
    ];
    if wanted.mode.is_empty() {
        return invalid("linux.memoryPolicy has no mode".to_owned());
    }
    let Some(mut mode) = named(&modes, &wanted.mode) else {
        return invalid(format!("unknown memoryPolicy mode {:?}", wanted.mode));
    };
    for name in &wanted.flags {
        match named(&flags, name) {
            Some(flag) => mode |= flag,
            None => return invalid(format!("unknown memoryPolicy flag {name:?}")),
        }
    }
    let nodes = match wanted.nodes.as_str() {
        "" => Vec::new(),
        // MAX_NUMNODES is at most 1024 (CONFIG_NODES_SHIFT).
        list => bits(list, 1024 / 64, "memoryPolicy.nodes")?,
    };
    Ok((mode, nodes))
}

fn personality(wanted: &Personality) -> Result<u32, Error> {
    if let Some(flag) = wanted.flags.first() {
        let message = format!("personality flag {flag:?} is not supported: the runtime spec has none");
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    match wanted.domain.as_str() {
        "LINUX" => Ok(0),
        "LINUX32" => Ok(8),
        other => invalid(format!("invalid personality domain {other}")),
    }
}

/// A list like `0-3,7` as bits, in at most so many words.
fn bits(list: &str, words: usize, what: &str) -> Result<Vec<u64>, Error> {
    let mut bits = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let number = text.parse::<usize>().ok().filter(|_| digits);
            number.filter(|number| *number < words * 64)
        };
        let (Some(first), Some(last)) = (number(first), number(last)) else {
            return invalid(format!(
                "{what}: {part:?} is no range of numbers below {}",
                words * 64
            ));
        };
        if first > last {
            return invalid(format!("{what}: range {part:?} is upside down"));
        }
        bits.resize(bits.len().max(last / 64 + 1), 0);
        for number in first..=last {
            if let Some(word) = bits.get_mut(number / 64) {
                *word |= 1_u64 << (number % 64);
            }
        }
    }
    if bits.is_empty() {
        return invalid(format!("{what}: the list {list:?} is empty"));
    }
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_numbers_become_bits_and_wrong_ones_are_refused() {
        assert_eq!(bits("0-3,7", 2, "x").unwrap(), [0x8f]);
        assert_eq!(bits("64, 1", 2, "x").unwrap(), [2, 1]);
        for wrong in [
            "",
            ",",
            "a",
            "1-",
            "-1",
            "3-1",
            "128",
            "+1",
            "0-99999999999999999999",
        ] {
            assert!(bits(wrong, 2, "x").is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_deadline_is_held_to_the_conditions_of_the_kernel() {
        let with = |runtime, deadline, period| {
            scheduler(&Scheduler {
                policy: "SCHED_DEADLINE".into(),
                runtime,
                deadline,
                period,
                ..Scheduler::default()
            })
        };
        let said = |outcome: Result<Attributes, Error>| outcome.unwrap_err().to_string();
        with(Some(42_000), Some(100_000), Some(1_000_000)).unwrap();
        with(Some(42_000), Some(100_000), None).unwrap();
        assert!(said(with(None, Some(1), None)).contains("requires `runtime`"));
        assert!(said(with(Some(1), None, None)).contains("requires `deadline`"));
        assert!(said(with(Some(0), Some(5), None)).contains("runtime must be greater than 0"));
        assert!(said(with(Some(6), Some(5), None)).contains("must be <= deadline"));
        assert!(said(with(Some(5000), Some(5000), Some(4000))).contains("must be <= period"));
        assert!(said(with(Some(1023), Some(5000), None)).contains("must be between 1024"));
        assert!(said(with(Some(1 << 63), Some(u64::MAX), None)).contains("must be between"));
    }

    #[test]
    fn what_does_not_fit_the_policy_is_refused() {
        let one = |change: &dyn Fn(&mut Scheduler)| {
            let mut wanted = Scheduler {
                policy: "SCHED_BATCH".into(),
                nice: Some(19),
                ..Scheduler::default()
            };
            change(&mut wanted);
            scheduler(&wanted).map_err(|error| error.to_string())
        };
        assert_eq!(one(&|_| ()).unwrap().nice, 19);
        assert!(
            one(&|s| s.nice = Some(20))
                .unwrap_err()
                .contains("scheduler.nice")
        );
        assert!(one(&|s| s.priority = Some(1)).unwrap_err().contains("priority"));
        assert!(
            one(&|s| s.period = Some(1))
                .unwrap_err()
                .contains("SchedDeadline")
        );
        assert!(
            one(&|s| s.policy = "SCHED_X".into())
                .unwrap_err()
                .contains("SCHED_X")
        );
        assert!(one(&|s| s.flags = vec!["X".into()]).unwrap_err().contains("flag"));
        assert!(one(&|s| s.policy.clear()).unwrap_err().contains("required"));
    }

    #[test]
    fn priorities_policies_and_domains_have_their_numbers() {
        let io = |class: &str, priority| {
            io_priority(&IoPriority {
                class: class.into(),
                priority,
            })
        };
        assert_eq!(io("IOPRIO_CLASS_BE", 4).unwrap(), (2, 4));
        assert!(io("IOPRIO_CLASS_BE", 8).is_err() && io("IOPRIO_CLASS_BE", -1).is_err());
        assert!(io("", 0).is_err());
        let numa = |mode: &str, nodes: &str, flag: &str| {
            memory(&MemoryPolicy {
                mode: mode.into(),
                nodes: nodes.into(),
                flags: vec![flag.into()],
            })
        };
        assert_eq!(
            numa("MPOL_BIND", "0,2", "MPOL_F_STATIC_NODES").unwrap(),
            (0x8002, vec![5])
        );
        assert!(numa("MPOL_BAD", "0", "MPOL_F_STATIC_NODES").is_err());
        assert!(numa("MPOL_BIND", "0", "MPOL_F_BAD").is_err());
        assert!(numa("", "0", "MPOL_F_STATIC_NODES").is_err());
        assert!(numa("MPOL_BIND", "1024", "MPOL_F_STATIC_NODES").is_err());
        let domain = |domain: &str, flags: &[&str]| {
            personality(&Personality {
                domain: domain.into(),
                flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            })
        };
        assert_eq!(domain("LINUX32", &[]).unwrap(), 8);
        assert!(domain("SOLARIS", &[]).is_err());
        assert_eq!(
            domain("LINUX", &["X"]).unwrap_err().kind(),
            ErrorKind::Unsupported
        );
    }
}
