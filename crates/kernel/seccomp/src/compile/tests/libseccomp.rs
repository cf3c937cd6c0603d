//! The same profiles compiled by libseccomp, where it is installed: both programs are interpreted over many calls.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::*;

/// A running `conformance/libseccomp.py`.
struct Reference {
    child: std::process::Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Reference {
    /// None, said on standard error, where Python or libseccomp is missing.
    fn start() -> Option<Self> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../conformance/libseccomp.py");
        let mut command = Command::new("python3");
        command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
        let Ok(mut child) = command.spawn() else {
            eprintln!("skipped: comparing with libseccomp needs python3");
            return None;
        };
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        let mut version = String::new();
        answers.read_line(&mut version).unwrap();
        if version.is_empty() {
            child.wait().unwrap();
            eprintln!("skipped: comparing with libseccomp needs libseccomp.so.2 (package libseccomp2)");
            return None;
        }
        eprintln!("comparing with libseccomp {}", version.trim());
        Some(Self { child, answers })
    }

    /// What libseccomp makes of a profile; none when it refuses.
    fn compile(&mut self, profile: &Seccomp, arch: Arch) -> Option<Vec<libc::sock_filter>> {
        let native = match arch {
            Arch::Aarch64 => "aarch64",
            Arch::X86_64 => "x86_64",
        };
        let case = serde_json::json!({ "native": native, "profile": profile });
        writeln!(self.child.stdin.as_mut().unwrap(), "{case}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        assert!(!answer.is_empty(), "the reference ended");
        if answer.starts_with("error") {
            return None;
        }
        let bytes: Vec<u8> = (answer.trim().as_bytes().chunks(2))
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        let instruction = |raw: &[u8]| libc::sock_filter {
            code: u16::from_le_bytes([raw[0], raw[1]]),
            jt: raw[2],
            jf: raw[3],
            k: u32::from_le_bytes([raw[4], raw[5], raw[6], raw[7]]),
        };
        Some(bytes.chunks(8).map(instruction).collect())
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        drop(self.child.wait());
    }
}

/// Whether libseccomp has one answer to a call, whatever its version: not where rules with different actions hold at
/// once, and not where we know more than it (runc's ENOSYS, number -1).
fn comparable(profile: &Seccomp, arch: Arch, call: &Call) -> bool {
    let (column, number, narrow) = match (call.arch, call.number) {
        (_, u32::MAX) => return false,
        // Libseccomp filters for kernels that this machine cannot run, too.
        (AUDIT_ARCH_ARM | AUDIT_ARCH_AARCH64, _) if arch == Arch::X86_64 => return false,
        (AUDIT_ARCH_I386 | AUDIT_ARCH_X86_64, _) if arch == Arch::Aarch64 => return false,
        (AUDIT_ARCH_X86_64, X32_BIT..) => (2, call.number - X32_BIT, true),
        (AUDIT_ARCH_X86_64, number) => (0, number, false),
        (AUDIT_ARCH_I386, number) => (1, number, true),
        (AUDIT_ARCH_AARCH64, number) => (3, number, false),
        (AUDIT_ARCH_ARM, number) => (4, number, true),
        _ => return true,
    };
    let (plain, mut conditional) = matching(profile, call, (column, number, narrow));
    conditional.dedup();
    let newer = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    let added = naive(profile, arch, call) == newer && plain.is_none() && conditional.is_empty();
    !added && (plain.is_some() || conditional.len() <= 1 && !merged_wrongly(profile, column, number))
}

/// Libseccomp before 2.6.1 merges orders of the same argument in several rules of a call to something that holds too
/// often (GHSA-4q85-33p6-j5g6).
fn merged_wrongly(profile: &Seccomp, column: usize, number: u32) -> bool {
    let mut all: Vec<(usize, u32, bool)> = Vec::new();
    for (at, rule) in profile.syscalls.iter().enumerate() {
        let names = |name: &String| {
            let carrier = multiplex::x86(name)
                .filter(|_| column == 1)
                .map(|(carrier, _)| carrier);
            column_of(name, column) == Some(number) || carrier == Some(number)
        };
        if !rule.names.iter().any(names) {
            continue;
        }
        for (place, argument) in rule.args.iter().enumerate() {
            let ordered = !argument.op.ends_with("EQ") && !argument.op.ends_with("NE");
            let ordered = ordered || argument.op.ends_with("GE") || argument.op.ends_with("LE");
            // The same argument twice in a rule makes two of it.
            let twice = rule
                .args
                .iter()
                .filter(|other| other.index == argument.index)
                .count()
                > 1;
            let rule = if twice { at * 8 + place } else { at * 8 };
            all.push((rule, argument.index, ordered));
        }
    }
    all.iter()
        .any(|one| one.2 && all.iter().any(|other| other.0 != one.0 && other.1 == one.1))
}

/// Whether the two programs decide a call differently.
fn differ(reference: &mut Reference, profile: &Seccomp, arch: Arch, call: &Call) -> Option<(u32, u32)> {
    let theirs = run(&reference.compile(profile, arch)?, call);
    let ours = run(&compile(profile, arch).ok()?.filter, call);
    (comparable(profile, arch, call) && ours != theirs).then_some((ours, theirs))
}

/// The profile without whatever the difference does not need.
fn shrink(reference: &mut Reference, mut profile: Seccomp, arch: Arch, call: &Call) -> String {
    loop {
        let mut smaller = Vec::new();
        for at in 0..profile.syscalls.len() {
            let mut one = profile.clone();
            one.syscalls.remove(at);
            smaller.push(one);
            for argument in 0..profile.syscalls[at].args.len() {
                let mut one = profile.clone();
                one.syscalls[at].args.remove(argument);
                smaller.push(one);
            }
            for name in 0..profile.syscalls[at].names.len() {
                let mut one = profile.clone();
                one.syscalls[at].names.remove(name);
                smaller.push(one);
            }
        }
        match smaller
            .into_iter()
            .find(|one| differ(reference, one, arch, call).is_some())
        {
            Some(one) => profile = one,
            None => break,
        }
    }
    let verdicts = differ(reference, &profile, arch, call);
    format!(
        "{}\n{arch:?} {call:x?}: ours and theirs {verdicts:x?}",
        serde_json::to_string(&profile).unwrap()
    )
}

#[test]
fn libseccomp_decides_alike() {
    let Some(mut reference) = Reference::start() else {
        return;
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let (mut compared, mut refused) = (0_u32, 0_u32);
    for _ in 0..150 {
        let mut profile = profile().new_tree(&mut runner).unwrap().current();
        // The first is newer than the libseccomp of many distributions. For calls that an architecture does not have, 2.5
        // forgets to load the number of the call that follows.
        for rule in &mut profile.syscalls {
            let left_out = ["setxattrat", "_llseek", "mmap2", "set_tls"];
            rule.names.retain(|name| !left_out.contains(&name.as_str()));
        }
        let calls = prop::collection::vec(call(), 200)
            .new_tree(&mut runner)
            .unwrap()
            .current();
        for arch in [Arch::X86_64, Arch::Aarch64] {
            let Some(theirs) = reference.compile(&profile, arch) else {
                refused += 1;
                continue;
            };
            let ours = compile(&profile, arch).unwrap();
            for call in calls.iter().filter(|call| comparable(&profile, arch, call)) {
                compared += 1;
                if run(&ours.filter, call) != run(&theirs, call) {
                    panic!("{}", shrink(&mut reference, profile, arch, call));
                }
            }
        }
    }
    eprintln!("{compared} decisions compared, {refused} profiles refused by libseccomp");
    assert!(compared > 10_000, "too few to mean anything");
}

#[test]
fn libseccomp_decides_alike_on_dockers_profile() {
    let Some(mut reference) = Reference::start() else {
        return;
    };
    for (arch, audits) in [
        (Arch::X86_64, [AUDIT_ARCH_X86_64, AUDIT_ARCH_I386]),
        (Arch::Aarch64, [AUDIT_ARCH_AARCH64, AUDIT_ARCH_ARM]),
    ] {
        for capabilities in [vec![], vec!["CAP_SYS_ADMIN".to_owned()]] {
            let profile = default_profile(arch, &capabilities, (6, 1));
            let theirs = reference.compile(&profile, arch).expect("libseccomp takes it");
            let ours = compile(&profile, arch).unwrap().filter;
            // Libseccomp 2.5.4 knows the calls up to 446 everywhere, but not what came later in a gap (335, 336).
            let numbers = (0..335).chain(337..447);
            let all = numbers.clone().chain(numbers.map(|number| number + X32_BIT));
            for (audit, number) in audits
                .iter()
                .flat_map(|audit| all.clone().map(|number| (*audit, number)))
            {
                for first in firsts(number) {
                    let call = Call {
                        arch: audit,
                        number,
                        arguments: [*first, 0, 0, 0, 0, 0],
                    };
                    if comparable(&profile, arch, &call) {
                        assert_eq!(run(&ours, &call), run(&theirs, &call), "{call:x?}");
                    }
                }
            }
        }
    }
}
