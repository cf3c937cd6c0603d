use dhow_oci::runtime::Seccomp;
use dhow_types::ErrorKind;

use crate::Error;
use crate::emit::{Emitter, Target, Test};
use crate::rules::{self, Abi, Condition, Operator, Rule};
use crate::table;

/// Most instructions of a filter (`BPF_MAXINSNS`).
const MOST_INSTRUCTIONS: usize = 4096;
/// Bit 30 marks calls of the x32 interface (kernel `__X32_SYSCALL_BIT`).
const X32_BIT: u32 = 1 << 30;

// Offsets in `struct seccomp_data` (linux/seccomp.h).
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGUMENTS: u32 = 16;

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

/// Compiles a profile for `arch`.
///
/// For each call, rules with conditions are tried in the profile's order, then the first rule without conditions
/// counts, then the default. Names that this table does not know are left out, as runc does with names that its
/// libseccomp does not know. Calls newer than all that the profile names answer `ENOSYS` when the default is a
/// refusal (also as runc), so that a C library newer than the profile falls back instead of failing. Calls through
/// an interface that the profile does not name kill the process.
///
/// # Errors
/// `InvalidArgument` for actions, operators, architectures or flags that do not exist, `ResourceExhausted` for a
/// profile that does not fit in 4096 instructions.
pub fn compile(profile: &Seccomp, arch: Arch) -> Result<Program, Error> {
    let default = rules::parse_action(&profile.default_action, profile.default_errno_ret)?;
    let abis = rules::parse_architectures(profile, arch)?;
    let mut flags = rules::parse_flags(profile)?;
    let checked = Checked::new(profile, default)?;
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

/// The profile's rules, flat, with the calls that each is about.
struct Checked {
    default: u32,
    rules: Vec<Rule>,
    /// Call and index of its rule, in the profile's order.
    uses: Vec<(&'static table::Numbers, usize)>,
}

impl Checked {
    fn new(profile: &Seccomp, default: u32) -> Result<Self, Error> {
        let refused = |message: &str| Err(Error::new(ErrorKind::InvalidArgument, message));
        if default == libc::SECCOMP_RET_USER_NOTIF {
            return refused("SCMP_ACT_NOTIFY cannot be the default action: the agent itself could not start");
        }
        let mut rules = Vec::with_capacity(profile.syscalls.len());
        let mut uses = Vec::with_capacity(profile.syscalls.iter().map(|rule| rule.names.len()).sum());
        let mut hint = 0;
        for entry in &profile.syscalls {
            let parsed = rules::parse_rule(entry)?;
            let first = rules.len();
            for name in &entry.names {
                if parsed[0].verdict == libc::SECCOMP_RET_USER_NOTIF && name == "write" {
                    return refused(
                        "SCMP_ACT_NOTIFY cannot be used for write, which reports the listener to the agent",
                    );
                }
                if let Some(place) = table::place(name, hint) {
                    hint = place + 1;
                    let numbers = &table::CALLS[place].1;
                    uses.extend((first..first + parsed.len()).map(|rule| (numbers, rule)));
                }
            }
            rules.extend(parsed);
        }
        Ok(Self { default, rules, uses })
    }

    /// Number and rule of every call of these interfaces, by number, then in the profile's order.
    fn calls(&self, abis: &[Abi]) -> Vec<(u32, usize)> {
        let mut out = Vec::with_capacity(self.uses.len() * abis.len());
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
    let mut blocks: Vec<(Vec<usize>, Target)> = Vec::new();
    let newer = Target::Return(checked.newer());
    let default = Target::Return(checked.default);
    let last_below = |limit: u32| {
        calls
            .iter()
            .rev()
            .map(|(number, _)| *number)
            .find(|number| *number < limit)
    };
    let native_end = last_below(X32_BIT).map_or(0, |last| last + 1);
    ranges.start(0, if native_end > 0 { default } else { newer });
    for group in calls.chunk_by(|left, right| left.0 == right.0) {
        let number = group[0].0;
        // The first call of x32 follows the gap above the machine's own.
        if number >= X32_BIT && ranges.end < X32_BIT {
            ranges.start(native_end, newer);
            ranges.start(X32_BIT, default);
        }
        let target = call_target(emitter, checked, section, group, &mut blocks);
        ranges.start(number, target);
        ranges.start(number + 1, default);
    }
    if section.bar_x32 {
        ranges.start(native_end, newer);
        ranges.start(X32_BIT, Target::Return(libc::SECCOMP_RET_KILL_PROCESS));
        // Number -1 is what a tracer writes to skip a call; it is no call of x32.
        ranges.start(u32::MAX, newer);
    } else {
        let end = calls.last().map_or(0, |(number, _)| number + 1);
        ranges.start(end, newer);
    }
    let tree = emitter.search(&ranges.list);
    Target::At(emitter.load(OFFSET_NUMBER, tree))
}

/// What happens to one call: a verdict, or a block of instructions that looks at the arguments. Calls with the same
/// rules share a block.
fn call_target(
    emitter: &mut Emitter,
    checked: &Checked,
    section: &Section,
    group: &[(u32, usize)],
    blocks: &mut Vec<(Vec<usize>, Target)>,
) -> Target {
    let rule = |index: usize| &checked.rules[index];
    let plain = group
        .iter()
        .map(|(_, index)| rule(*index))
        .find(|rule| rule.conditions.is_empty());
    let otherwise = plain.map_or(checked.default, |rule| rule.verdict);
    let conditional: Vec<usize> = group
        .iter()
        .map(|(_, index)| *index)
        .filter(|index| !rule(*index).conditions.is_empty())
        .collect();
    if conditional.is_empty() {
        return Target::Return(otherwise);
    }
    let mut key = conditional.clone();
    key.push(usize::try_from(otherwise).unwrap_or(usize::MAX));
    if let Some((_, target)) = blocks.iter().find(|(other, _)| *other == key) {
        return *target;
    }
    let rules: Vec<Rule> = conditional
        .iter()
        .map(|index| {
            let mut rule = rule(*index).clone();
            if section.narrow {
                rule.conditions
                    .iter_mut()
                    .for_each(|condition| *condition = condition.narrow());
            }
            rule
        })
        .collect();
    let target = write_block(emitter, &rules, otherwise, section.narrow);
    blocks.push((key, target));
    target
}

fn write_block(emitter: &mut Emitter, rules: &[Rule], otherwise: u32, narrow: bool) -> Target {
    if let Some(index) = one_small_argument(rules) {
        return write_value_search(emitter, rules, index, otherwise, narrow);
    }
    let mut next = Target::Return(otherwise);
    for rule in rules.iter().rev() {
        let mut target = Target::Return(rule.verdict);
        for condition in rule.conditions.iter().rev() {
            target = write_condition(emitter, condition, target, next, narrow);
        }
        next = target;
    }
    next
}

/// The argument that all rules are about, when each compares just it with a number of 32 bits.
fn one_small_argument(rules: &[Rule]) -> Option<u32> {
    let index = rules.first()?.conditions.first()?.index;
    let fits = |rule: &Rule| match rule.conditions.as_slice() {
        [one] => {
            one.index == index && one.operator != Operator::MaskedEqual && u32::try_from(one.value).is_ok()
        }
        _ => false,
    };
    // More would not fit in a program either way; finding that out must not take quadratic time.
    ((2..=512).contains(&rules.len()) && rules.iter().all(fits)).then_some(index)
}

/// Many comparisons of one argument (docker's list of socket domains) become a binary search over its values.
fn write_value_search(
    emitter: &mut Emitter,
    rules: &[Rule],
    index: u32,
    otherwise: u32,
    narrow: bool,
) -> Target {
    let verdict = |value: u64| {
        let rule = rules
            .iter()
            .find(|rule| rule.conditions.iter().all(|condition| condition.holds(value)));
        Target::Return(rule.map_or(otherwise, |rule| rule.verdict))
    };
    let mut edges: Vec<u32> = vec![0];
    for value in rules
        .iter()
        .filter_map(|rule| u32::try_from(rule.conditions[0].value).ok())
    {
        edges.push(value);
        edges.extend(value.checked_add(1));
    }
    edges.sort_unstable();
    edges.dedup();
    let mut ranges = Ranges::default();
    for edge in edges {
        ranges.start(edge, verdict(edge.into()));
    }
    let tree = emitter.search(&ranges.list);
    let low = Target::At(emitter.load(argument(index, false), tree));
    if narrow {
        return low;
    }
    // Every value over 32 bits compares alike with numbers of 32 bits.
    let high = emitter.branch(Test::Equal, 0, low, verdict(u64::MAX));
    Target::At(emitter.load(argument(index, true), Target::At(high)))
}

/// Offset of a half of an argument; both architectures are little-endian.
const fn argument(index: u32, high: bool) -> u32 {
    OFFSET_ARGUMENTS + 8 * index + if high { 4 } else { 0 }
}

/// One condition on a 64-bit argument as tests of its halves.
fn write_condition(
    emitter: &mut Emitter,
    condition: &Condition,
    yes: Target,
    no: Target,
    narrow: bool,
) -> Target {
    let (low, high) = halves(condition.value);
    let (mask_low, mask_high) = halves(condition.mask);
    let (test, yes, no) = match condition.operator {
        Operator::Equal | Operator::MaskedEqual => (Test::Equal, yes, no),
        Operator::NotEqual => (Test::Equal, no, yes),
        Operator::Greater => (Test::Greater, yes, no),
        Operator::GreaterOrEqual => (Test::GreaterOrEqual, yes, no),
        Operator::Less => (Test::GreaterOrEqual, no, yes),
        Operator::LessOrEqual => (Test::Greater, no, yes),
    };
    let masked = condition.operator == Operator::MaskedEqual;
    let mut first = emitter.branch(test, low, yes, no);
    if masked && mask_low != u32::MAX {
        first = emitter.and(mask_low, Target::At(first));
    }
    first = emitter.load(argument(condition.index, false), Target::At(first));
    if narrow || (masked && mask_high == 0) {
        return Target::At(first);
    }
    // Where the upper halves differ, the larger one decides.
    let differ = match test {
        Test::Equal => no,
        Test::Greater | Test::GreaterOrEqual => Target::At(emitter.branch(Test::Greater, high, yes, no)),
    };
    let mut upper = emitter.branch(Test::Equal, high, Target::At(first), differ);
    if masked && mask_high != u32::MAX {
        upper = emitter.and(mask_high, Target::At(upper));
    }
    Target::At(emitter.load(argument(condition.index, true), Target::At(upper)))
}

#[expect(clippy::cast_possible_truncation, reason = "the halves are what is wanted")]
const fn halves(value: u64) -> (u32, u32) {
    (value as u32, (value >> 32) as u32)
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
