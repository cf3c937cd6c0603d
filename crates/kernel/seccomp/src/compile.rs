mod block;

use dhow_oci::runtime::Seccomp;
use dhow_types::ErrorKind;

use crate::emit::{Emitter, Target, Test};
use crate::rules::{self, Abi, Rule};
use crate::{Error, multiplex, table};

/// Most instructions of a filter (`BPF_MAXINSNS`).
const MOST_INSTRUCTIONS: usize = 4096;
/// Bit 30 marks calls of the x32 interface (kernel `__X32_SYSCALL_BIT`).
const X32_BIT: u32 = 1 << 30;

// Offsets in `struct seccomp_data` (linux/seccomp.h).
pub(crate) const OFFSET_NUMBER: u32 = 0;
pub(crate) const OFFSET_ARCH: u32 = 4;
pub(crate) const OFFSET_ARGUMENTS: u32 = 16;

// linux/audit.h.
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const AUDIT_ARCH_I386: u32 = 0x4000_0003;
const AUDIT_ARCH_AARCH64: u32 = 0xc000_00b7;
const AUDIT_ARCH_ARM: u32 = 0x4000_0028;

/// Architecture of the kernel that a program is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arch {
    /// 64-bit Arm.
    Aarch64,
    /// 64-bit x86.
    X86_64,
}

impl Arch {
    /// The architecture that this program was built for.
    #[must_use]
    pub const fn host() -> Self {
        if cfg!(target_arch = "aarch64") {
            Self::Aarch64
        } else {
            Self::X86_64
        }
    }

    /// As the kernel names it to a filter.
    pub(crate) const fn audit(self) -> u32 {
        match self {
            Self::Aarch64 => AUDIT_ARCH_AARCH64,
            Self::X86_64 => AUDIT_ARCH_X86_64,
        }
    }
}

/// A compiled filter.
#[derive(Clone, Debug)]
pub struct Program {
    /// Instructions, at most 4096, as `seccomp(2)` takes them.
    pub filter: Vec<libc::sock_filter>,
    /// `SECCOMP_FILTER_FLAG_*` for `seccomp(2)`; the listener flag is set when [`notify`](Self::notify) is.
    pub flags: u32,
    /// Whether a rule asks an agent (`SCMP_ACT_NOTIFY`), so that loading the filter returns a listener.
    pub notify: bool,
}

/// The first system call that a profile names and no architecture has: [`compile`] leaves such names out.
#[must_use]
pub fn unknown_call(profile: &Seccomp) -> Option<&str> {
    let names = profile.syscalls.iter().flat_map(|rule| &rule.names);
    names
        .map(String::as_str)
        .find(|name| table::place(name, 0).is_none())
}

/// Compiles a profile for `arch`.
///
/// The decisions are libseccomp's, as runc and crun call it, since profiles are written and tried with them:
///
/// - A rule that says what the default says is left out.
/// - The first rule for a call without conditions decides, whatever rules with conditions there are. Otherwise the
///   first one counts, in the profile's order, whose conditions hold; then the default. (Where conditions of rules with
///   different actions hold at once, libseccomp's answer depends on its version; the profile's order is ours.)
/// - Names that the table does not know are left out.
/// - On 32-bit x86 a rule for a call that is also reached through `socketcall` or `ipc` holds there too.
/// - Calls newer than all that the profile names for an interface answer `ENOSYS` when the default is a refusal
///   (runc's addition), so that a C library newer than the profile falls back instead of failing.
/// - Calls through an interface that the profile does not name kill the process.
///
/// # Errors
/// `InvalidArgument` for actions, operators, architectures or flags that do not exist, `ResourceExhausted` for a
/// profile that does not fit in 4096 instructions.
pub fn compile(profile: &Seccomp, arch: Arch) -> Result<Program, Error> {
    let default = rules::parse_action(&profile.default_action, profile.default_errno_ret)?;
    let abis = rules::parse_architectures(profile, arch)?;
    let mut flags = rules::parse_flags(profile)?;
    let checked = Checked::new(profile, default, abis.contains(&Abi::X86))?;
    let notify = checked
        .rules
        .iter()
        .any(|rule| rule.verdict == libc::SECCOMP_RET_USER_NOTIF);
    if notify {
        flags |= rules::flag(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
    }

    let mut emitter = Emitter::default();
    let mut dispatch = Vec::new();
    for section in sections(&abis) {
        let calls = checked.calls(section.abis);
        let start = write_section(&mut emitter, &checked, &section, &calls);
        dispatch.push((section.audit, start));
        // A hostile profile must not make us write for ever.
        if emitter.len() > MOST_INSTRUCTIONS {
            break;
        }
    }
    let mut next = Target::Return(libc::SECCOMP_RET_KILL_PROCESS);
    for (audit, start) in dispatch {
        next = Target::At(emitter.branch(Test::Equal, audit, start, next));
    }
    emitter.load(OFFSET_ARCH, next);
    let filter = emitter.finish();
    if filter.len() > MOST_INSTRUCTIONS {
        let message = format!("the seccomp profile does not fit in {MOST_INSTRUCTIONS} instructions");
        return Err(Error::new(ErrorKind::ResourceExhausted, message)
            .with_hint("name fewer architectures, or merge rules that differ in one argument only"));
    }
    Ok(Program {
        filter,
        flags,
        notify,
    })
}

/// Interfaces that the kernel reports under one architecture.
struct Section {
    audit: u32,
    abis: &'static [Abi],
    /// Whether arguments have 32 bits.
    narrow: bool,
    /// Whether the numbers of x32 must be kept out.
    bar_x32: bool,
}

/// The interfaces in the order of writing: the machine's own last, so that it is tried first.
fn sections(abis: &[Abi]) -> Vec<Section> {
    let has = |abi| abis.contains(&abi);
    let mut out = Vec::new();
    if has(Abi::X86) {
        out.push(Section {
            audit: AUDIT_ARCH_I386,
            abis: &[Abi::X86],
            narrow: true,
            bar_x32: false,
        });
    }
    if has(Abi::Arm) {
        out.push(Section {
            audit: AUDIT_ARCH_ARM,
            abis: &[Abi::Arm],
            narrow: true,
            bar_x32: false,
        });
    }
    if has(Abi::X86_64) {
        let x32 = has(Abi::X32);
        let abis: &[Abi] = if x32 {
            &[Abi::X86_64, Abi::X32]
        } else {
            &[Abi::X86_64]
        };
        out.push(Section {
            audit: AUDIT_ARCH_X86_64,
            abis,
            narrow: false,
            bar_x32: !x32,
        });
    }
    if has(Abi::Aarch64) {
        out.push(Section {
            audit: AUDIT_ARCH_AARCH64,
            abis: &[Abi::Aarch64],
            narrow: false,
            bar_x32: false,
        });
    }
    out
}

/// A call of the profile without a rule of its own: it counts for what is newer than the profile.
const NO_RULE: usize = usize::MAX;

/// The profile's rules, flat, with the calls that each is about.
struct Checked {
    default: u32,
    rules: Vec<Rule>,
    /// Call and index of its rule, in the profile's order.
    uses: Vec<(&'static table::Numbers, usize)>,
    /// Calls of 32-bit x86 that carry others, with the rules for those.
    carried: Vec<(u32, usize)>,
}

impl Checked {
    fn new(profile: &Seccomp, default: u32, x86: bool) -> Result<Self, Error> {
        let refused = |message: &str| Err(Error::new(ErrorKind::InvalidArgument, message));
        if default == libc::SECCOMP_RET_USER_NOTIF {
            return refused("SCMP_ACT_NOTIFY cannot be used as default action");
        }
        let mut checked = Self {
            default,
            rules: Vec::with_capacity(profile.syscalls.len()),
            uses: Vec::with_capacity(profile.syscalls.iter().map(|rule| rule.names.len()).sum()),
            carried: Vec::new(),
        };
        let mut hint = 0;
        for entry in &profile.syscalls {
            let parsed = rules::parse_rule(entry)?;
            let verdict = parsed[0].verdict;
            // The process that loads the filter tells its parent by a write where the listener is.
            if verdict == libc::SECCOMP_RET_USER_NOTIF && entry.names.iter().any(|name| name == "write") {
                return refused("SCMP_ACT_NOTIFY cannot be used for the write syscall");
            }
            let redundant = verdict == default;
            let first = checked.rules.len();
            if !redundant {
                checked.rules.extend(parsed);
            }
            let range = first..checked.rules.len();
            for name in &entry.names {
                let Some(place) = table::place(name, hint) else {
                    continue;
                };
                hint = place + 1;
                let numbers = &table::CALLS[place].1;
                if redundant {
                    checked.uses.push((numbers, NO_RULE));
                } else {
                    checked.uses.extend(range.clone().map(|rule| (numbers, rule)));
                }
            }
            if x86 && !redundant {
                checked.carry(&entry.names, range);
            }
        }
        Ok(checked)
    }

    /// Adds the rules for these calls where another call carries them: its first argument selects.
    fn carry(&mut self, names: &[String], range: std::ops::Range<usize>) {
        for name in names {
            let Some((carrier, selector)) = multiplex::x86(name) else {
                continue;
            };
            for index in range.clone() {
                let rule = self.rules[index].behind(selector);
                self.carried.push((carrier, self.rules.len()));
                self.rules.push(rule);
            }
        }
    }

    /// Number and rule of every call of these interfaces, by number, then in the profile's order.
    fn calls(&self, abis: &[Abi]) -> Vec<(u32, usize)> {
        let mut out = Vec::with_capacity(self.uses.len() * abis.len() + self.carried.len());
        for abi in abis {
            let bit = if *abi == Abi::X32 { X32_BIT } else { 0 };
            let numbers = self
                .uses
                .iter()
                .map(|(numbers, rule)| (numbers[*abi as usize], *rule));
            out.extend(
                numbers
                    .filter(|(number, _)| *number != u32::MAX)
                    .map(|(number, rule)| (number | bit, rule)),
            );
            if *abi == Abi::X86 {
                out.extend(&self.carried);
            }
        }
        out.sort_unstable();
        out
    }

    /// What calls get that are newer than everything the profile names.
    fn newer(&self) -> u32 {
        let permissive = [
            libc::SECCOMP_RET_ALLOW,
            libc::SECCOMP_RET_LOG,
            libc::SECCOMP_RET_TRACE,
        ];
        if permissive.contains(&(self.default & libc::SECCOMP_RET_ACTION_FULL)) {
            self.default
        } else {
            libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned()
        }
    }
}

fn write_section(
    emitter: &mut Emitter,
    checked: &Checked,
    section: &Section,
    calls: &[(u32, usize)],
) -> Target {
    let mut ranges = Ranges::default();
    let mut blocks = block::Blocks::default();
    let default = Target::Return(checked.default);
    let newer = Target::Return(checked.newer());
    // Of an interface for which the profile names nothing, nothing is newer than it.
    let after = |end: u32, start: u32| if end > start { newer } else { default };
    let native_end = (calls.iter().rev())
        .find(|(number, _)| *number < X32_BIT)
        .map_or(0, |(last, _)| last + 1);
    let end = calls.last().map_or(0, |(last, _)| last + 1);
    ranges.start(0, default);
    for group in calls.chunk_by(|left, right| left.0 == right.0) {
        let number = group[0].0;
        // The first call of x32 follows the gap above the machine's own.
        if number >= X32_BIT && ranges.end < X32_BIT {
            ranges.start(native_end, after(native_end, 0));
            ranges.start(X32_BIT, default);
        }
        let narrow = section.narrow || number >= X32_BIT;
        let target = blocks.target(emitter, checked, group, narrow);
        ranges.start(number, target);
        ranges.start(number + 1, default);
    }
    if section.bar_x32 {
        ranges.start(native_end, after(native_end, 0));
        ranges.start(X32_BIT, Target::Return(libc::SECCOMP_RET_KILL_PROCESS));
        // Number -1 is what a tracer writes to skip a call; it is no call of x32.
        ranges.start(u32::MAX, newer);
    } else if end > X32_BIT {
        ranges.start(end, newer);
    } else {
        ranges.start(native_end, after(native_end, 0));
        if section.abis.contains(&Abi::X32) {
            ranges.start(X32_BIT, default);
        }
    }
    let tree = emitter.search(&ranges.list);
    Target::At(emitter.load(OFFSET_NUMBER, tree))
}

/// Ranges of numbers with their targets, made in rising order; equal neighbours become one.
#[derive(Default)]
struct Ranges {
    list: Vec<(u32, Target)>,
    /// Start of the newest range.
    end: u32,
}

impl Ranges {
    /// From `number` on it is `target`.
    fn start(&mut self, number: u32, target: Target) {
        // An empty range gives way to its successor.
        if self.list.last().is_some_and(|(start, _)| *start == number) {
            self.list.pop();
        }
        self.end = number;
        if self.list.last().is_none_or(|(_, last)| *last != target) {
            self.list.push((number, target));
        }
    }
}

#[cfg(test)]
#[path = "compile/tests.rs"]
mod tests;
