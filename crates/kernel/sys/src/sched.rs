//! What the kernel grants a process of the machine: CPUs, their time, block I/O, memory nodes, execution domain.

use std::io;
use std::ptr;

/// Words of the longest CPU mask here; 8192 is the most that kernels are built for (`NR_CPUS`).
pub const CPU_WORDS: usize = 8192 / 64;

/// Scheduling as `struct sched_attr` has it (sched_setattr(2)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// Of `SCHED_OTHER` and `SCHED_BATCH`.
    pub nice: i32,
    /// Of `SCHED_FIFO` and `SCHED_RR`.
    pub priority: u32,
    /// Nanoseconds of `SCHED_DEADLINE`.
    pub runtime: u64,
    /// Nanoseconds of `SCHED_DEADLINE`.
    pub deadline: u64,
    /// Nanoseconds of `SCHED_DEADLINE`; zero is the deadline.
    pub period: u64,
}

/// `struct sched_attr` of the first version, which every kernel since Linux 3.14 takes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Raw {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Bytes of it (`SCHED_ATTR_SIZE_VER0`).
const RAW: u32 = 48;

/// Sets the scheduling of the caller.
///
/// # Errors
/// What the kernel says: `PermissionDenied` also for a realtime policy in a control group without realtime, and for a
/// deadline in one that may not use all CPUs.
pub fn set_scheduler(attributes: &Attributes) -> io::Result<()> {
    set_raw(&Raw {
        size: RAW,
        policy: attributes.policy,
        flags: attributes.flags,
        nice: attributes.nice,
        priority: attributes.priority,
        runtime: attributes.runtime,
        deadline: attributes.deadline,
        period: attributes.period,
    })
}

fn set_raw(raw: &Raw) -> io::Result<()> {
    // SAFETY: `raw` is a sched_attr of the size it says, which the kernel reads; it writes nothing unless that size is wrong
    // (E2BIG), and no kernel says so of the first version.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(raw), 0) };
    crate::check(result).map(drop)
}

fn own_raw() -> io::Result<Raw> {
    let mut raw = Raw::default();
    // SAFETY: `raw` is as long as the size given, which is as much as the kernel writes; thread 0 is the caller.
    let result = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut raw, RAW, 0) };
    crate::check(result).map(|_| raw)
}

/// While it lives, the thread that made it runs before all that are not urgent: for what others wait for, and what takes
/// microseconds. Only who may (`CAP_SYS_NICE`, `RLIMIT_RTPRIO`); for others, and for who is urgent anyway, it does nothing.
/// A child that is forked while it lives is so, too, until it says [`end`](Self::end).
#[derive(Debug)]
pub struct Urgent {
    /// How the thread was scheduled before; none when nothing was changed.
    before: Option<Raw>,
    /// It is about the thread that made it.
    _thread: std::marker::PhantomData<*const ()>,
}

impl Urgent {
    /// From now on.
    #[must_use]
    pub fn begin() -> Self {
        let ordinary = |raw: &Raw| {
            let policies = [libc::SCHED_OTHER, libc::SCHED_BATCH, libc::SCHED_IDLE];
            policies
                .iter()
                .any(|policy| i64::from(*policy) == i64::from(raw.policy))
        };
        let first = Raw {
            size: RAW,
            policy: libc::SCHED_FIFO.unsigned_abs(),
            priority: 1,
            ..Raw::default()
        };
        let before = own_raw().ok().filter(ordinary);
        Self {
            before: before.filter(|_| set_raw(&first).is_ok()),
            _thread: std::marker::PhantomData,
        }
    }
}

impl Drop for Urgent {
    fn drop(&mut self) {
        self.end();
    }
}

impl Urgent {
    /// What its end does; for the child of a fork, whose copy nobody drops.
    pub fn end(&self) {
        let Some(before) = self.before else { return };
        if set_raw(&Raw { size: RAW, ..before }).is_err() {
            // What every thread may be, if it may not be what it was.
            drop(set_raw(&Raw {
                size: RAW,
                ..Raw::default()
            }));
        }
    }
}

/// Sets the block I/O priority of the caller: class 1 (realtime), 2 (best effort) or 3 (idle), and a level of 0 to 7.
///
/// # Errors
/// What the kernel says: `PermissionDenied` for realtime without a capability.
pub fn set_io_priority(class: u8, level: u8) -> io::Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    let value = libc::c_int::from(class) << 13 | libc::c_int::from(level);
    // SAFETY: integers only; process 0 is the caller.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) };
    crate::check(result).map(drop)
}

/// Restricts the caller to the CPUs whose bits are set. Bits of CPUs that are not there are ignored.
///
/// # Errors
/// `InvalidInput` when none of them may be used.
pub fn set_affinity(cpus: &[u64]) -> io::Result<()> {
    // SAFETY: the kernel reads as many bytes as are told from the slice; process 0 is the caller.
    let result = unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(cpus), cpus.as_ptr()) };
    crate::check(result).map(drop)
}

/// The CPUs that the caller may use.
///
/// # Errors
/// Never in practice.
pub fn affinity() -> io::Result<Vec<u64>> {
    let mut cpus = vec![0_u64; CPU_WORDS];
    let size = size_of_val(&cpus[..]);
    // SAFETY: the kernel writes at most `size` bytes to the vector, which has them.
    let result = unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, size, cpus.as_mut_ptr()) };
    let bytes = usize::try_from(crate::check(result)?).map_err(|_| io::ErrorKind::InvalidData)?;
    cpus.truncate(bytes.div_ceil(8));
    Ok(cpus)
}

/// Sets the caller's memory policy: `MPOL_*` with `MPOL_F_*` bits, and the nodes whose bits are set.
///
/// # Errors
/// What the kernel says: `InvalidInput` for nodes that are not there, `Unsupported` without NUMA.
pub fn set_memory_policy(mode: i32, nodes: &[u64]) -> io::Result<()> {
    // The kernel takes one bit less than it is told (get_nodes() in mm/mempolicy.c).
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    let mask = if nodes.is_empty() {
        ptr::null()
    } else {
        nodes.as_ptr()
    };
    // SAFETY: the kernel reads `bits - 1` bits from the slice, or nothing from a null mask.
    let result = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) };
    crate::check(result).map(drop)
}

/// Sets the execution domain of the caller (personality(2)).
///
/// # Errors
/// What the kernel says.
pub fn set_personality(domain: u32) -> io::Result<()> {
    // SAFETY: an integer; the value that would only ask (0xffffffff) does no harm either.
    let result = unsafe { libc::syscall(libc::SYS_personality, libc::c_ulong::from(domain)) };
    crate::check(result).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpus_of_a_thread_are_told_and_set() {
        std::thread::spawn(|| {
            let all = affinity().unwrap();
            let word = all.iter().position(|word| *word != 0).unwrap();
            let mut one = vec![0; all.len()];
            one[word] = 1 << all[word].trailing_zeros();
            set_affinity(&one).unwrap();
            assert_eq!(affinity().unwrap(), one);
            set_affinity(&[u64::MAX; CPU_WORDS]).unwrap();
            assert_ne!(
                affinity()
                    .unwrap()
                    .iter()
                    .map(|word| word.count_ones())
                    .sum::<u32>(),
                0
            );
            assert!(set_affinity(&[0]).is_err());
        })
        .join()
        .unwrap();
    }

    #[test]
    fn who_is_urgent_is_as_before_when_it_is_over() {
        std::thread::spawn(|| {
            let mine = Attributes {
                policy: libc::SCHED_BATCH.unsigned_abs(),
                nice: 3,
                ..Attributes::default()
            };
            set_scheduler(&mine).unwrap();
            let before = own_raw().unwrap();
            let urgent = Urgent::begin();
            let within = own_raw().unwrap();
            if within.policy == before.policy {
                eprintln!("skipped: this process may not be urgent");
                return;
            }
            assert_eq!(within.policy, libc::SCHED_FIFO.unsigned_abs());
            // One in another changes nothing.
            drop(Urgent::begin());
            assert_eq!(own_raw().unwrap().policy, within.policy);
            drop(urgent);
            let after = own_raw().unwrap();
            assert_eq!((after.policy, after.nice), (before.policy, before.nice));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn wrong_values_are_errors() {
        assert!(set_io_priority(7, 0).is_err());
        assert!(set_memory_policy(99, &[]).is_err());
        let wrong = Attributes {
            policy: 99,
            ..Attributes::default()
        };
        assert!(set_scheduler(&wrong).is_err());
    }
}
