#![expect(clippy::cast_sign_loss, reason = "numbers of errors and flags are positive")]

use std::time::Instant;

use dhow_oci::runtime::{SyscallArgument, SyscallRule};
use proptest::prelude::*;

use super::*;
use crate::default_profile;
use crate::verdict::{Call, verdict};

#[path = "tests/libseccomp.rs"]
mod libseccomp;
#[path = "tests/shape.rs"]
mod shape;

/// Runs a filter as the kernel would: its verdict. Anything that the kernel's checker refuses fails the test.
fn run(filter: &[libc::sock_filter], call: &Call) -> u32 {
    verdict(filter, call).expect("the kernel would refuse the filter")
}

fn column_of(name: &str, column: usize) -> Option<u32> {
    let (_, numbers) = table::CALLS[table::place(name, usize::MAX)?];
    Some(numbers[column]).filter(|number| *number != u32::MAX)
}

/// What the profile says, read naively.
fn naive(profile: &Seccomp, arch: Arch, call: &Call) -> u32 {
    let default = rules::parse_action(&profile.default_action, profile.default_errno_ret).unwrap();
    let named = |name: &str| profile.architectures.iter().any(|other| other == name);
    let kill = libc::SECCOMP_RET_KILL_PROCESS;
    let (column, number, narrow) = match (arch, call.arch, call.number) {
        (Arch::X86_64, AUDIT_ARCH_X86_64, u32::MAX) if !named("SCMP_ARCH_X32") => (0, u32::MAX - 1, false),
        (Arch::X86_64, AUDIT_ARCH_X86_64, X32_BIT..) if !named("SCMP_ARCH_X32") => return kill,
        (Arch::X86_64, AUDIT_ARCH_X86_64, X32_BIT..) => (2, call.number - X32_BIT, true),
        (Arch::X86_64, AUDIT_ARCH_X86_64, number) => (0, number, false),
        (Arch::X86_64, AUDIT_ARCH_I386, number) if named("SCMP_ARCH_X86") => (1, number, true),
        (Arch::Aarch64, AUDIT_ARCH_AARCH64, number) => (3, number, false),
        (Arch::Aarch64, AUDIT_ARCH_ARM, number) if named("SCMP_ARCH_ARM") => (4, number, true),
        _ => return kill,
    };
    let known = |name: &String| column_of(name, column);
    let newest = profile
        .syscalls
        .iter()
        .flat_map(|rule| &rule.names)
        .filter_map(known)
        .max();
    // The carriers of 32-bit x86 count as named with what they carry.
    let carried = |name: &String| (column == 1).then(|| multiplex::x86(name)).flatten();
    let carrier = profile
        .syscalls
        .iter()
        .filter(|rule| rules::parse_action(&rule.action, rule.errno_ret).unwrap() != default)
        .flat_map(|rule| &rule.names)
        .filter_map(carried)
        .map(|(carrier, _)| carrier)
        .max();
    let skipped = column == 0 && number == u32::MAX - 1;
    if newest.max(carrier).is_some_and(|newest| number > newest) || skipped {
        let permissive = ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"];
        let allowed = permissive.contains(&profile.default_action.as_str());
        return if allowed {
            default
        } else {
            libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32
        };
    }
    let (plain, conditional) = matching(profile, call, (column, number, narrow));
    plain.or(conditional.first().copied()).unwrap_or(default)
}

/// The verdicts of the rules that hold for a call: of the first without conditions, and of those with, in the
/// profile's order.
fn matching(
    profile: &Seccomp,
    call: &Call,
    (column, number, narrow): (usize, u32, bool),
) -> (Option<u32>, Vec<u32>) {
    let default = rules::parse_action(&profile.default_action, profile.default_errno_ret).unwrap();
    let cut = |value: u64| if narrow { value & 0xffff_ffff } else { value };
    let holds = |argument: &SyscallArgument| {
        let (value, two) = (cut(argument.value), cut(argument.value_two));
        let given = cut(call.arguments[argument.index as usize]);
        match argument.op.as_str() {
            "SCMP_CMP_EQ" => given == value,
            "SCMP_CMP_NE" => given != value,
            "SCMP_CMP_LT" => given < value,
            "SCMP_CMP_LE" => given <= value,
            "SCMP_CMP_GT" => given > value,
            "SCMP_CMP_GE" => given >= value,
            _ => given & value == two & value,
        }
    };
    let (mut plain, mut conditional) = (None, Vec::new());
    for entry in &profile.syscalls {
        let verdict = rules::parse_action(&entry.action, entry.errno_ret).unwrap();
        if verdict == default {
            continue;
        }
        for name in &entry.names {
            let direct = column_of(name, column) == Some(number);
            let selector = multiplex::x86(name)
                .filter(|(carrier, _)| column == 1 && *carrier == number)
                .map(|(_, selector)| u64::from(selector));
            if !direct && selector.is_none() {
                continue;
            }
            let mut indexes: Vec<u32> = entry.args.iter().map(|argument| argument.index).collect();
            indexes.sort_unstable();
            indexes.dedup();
            // An argument that is named twice makes one rule of each condition.
            let groups: Vec<&[SyscallArgument]> = if indexes.len() < entry.args.len() {
                entry.args.chunks(1).collect()
            } else {
                vec![&entry.args]
            };
            for group in groups {
                let counts = |one: &&SyscallArgument| {
                    (one.op != "SCMP_CMP_MASKED_EQ" || cut(one.value) != 0)
                        && !(selector.is_some() && one.index == 0)
                };
                let conditions: Vec<_> = group.iter().filter(counts).collect();
                if conditions.is_empty() && selector.is_none() {
                    plain = plain.or(Some(verdict));
                } else if conditions.iter().all(|one| holds(one))
                    && selector.is_none_or(|selector| cut(call.arguments[0]) == selector)
                {
                    conditional.push(verdict);
                }
            }
        }
    }
    (plain, conditional)
}

/// Numbers near the edges at which comparisons of halves go wrong.
fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        0_u64..4,
        Just(5),
        Just(21),
        Just(0xffff_fffe),
        Just(0xffff_ffff),
        Just(1 << 32),
        Just((1 << 32) + 1),
        Just(5 << 32),
        Just((5 << 32) + 1),
        Just(u64::MAX),
        any::<u64>(),
    ]
}

fn action() -> impl Strategy<Value = (String, Option<u32>)> {
    prop_oneof![
        Just(("SCMP_ACT_ALLOW".to_owned(), None)),
        Just(("SCMP_ACT_KILL_PROCESS".to_owned(), None)),
        Just(("SCMP_ACT_KILL".to_owned(), None)),
        Just(("SCMP_ACT_LOG".to_owned(), None)),
        Just(("SCMP_ACT_TRAP".to_owned(), None)),
        prop::option::of(0_u32..200).prop_map(|errno| ("SCMP_ACT_ERRNO".to_owned(), errno)),
        prop::option::of(0_u32..200).prop_map(|errno| ("SCMP_ACT_TRACE".to_owned(), errno)),
    ]
}

fn names() -> impl Strategy<Value = Vec<String>> {
    let name = prop::sample::select(vec![
        "read",
        "write",
        "socket",
        "clone",
        "openat2",
        "accept",
        "shmat",
        "socketcall",
        "ioctl",
        "readv",
        "mmap2",
        "personality",
        "no_such_call",
        "_llseek",
        "set_tls",
        "setxattrat",
    ]);
    prop::collection::vec(name.prop_map(str::to_owned), 1..5)
}

fn argument() -> impl Strategy<Value = SyscallArgument> {
    let op = prop::sample::select(vec!["EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ"]);
    (0_u32..6, value(), value(), op).prop_map(|(index, value, value_two, op)| SyscallArgument {
        index,
        value,
        value_two,
        op: format!("SCMP_CMP_{op}"),
    })
}

fn profile() -> impl Strategy<Value = Seccomp> {
    let rule = (names(), action(), prop::collection::vec(argument(), 0..4)).prop_map(
        |(names, (action, errno_ret), args)| SyscallRule {
            names,
            action,
            errno_ret,
            args,
        },
    );
    let architectures = prop::sample::subsequence(
        vec![
            "SCMP_ARCH_X86_64",
            "SCMP_ARCH_X86",
            "SCMP_ARCH_X32",
            "SCMP_ARCH_ARM",
            "SCMP_ARCH_S390X",
        ],
        0..5,
    );
    (action(), prop::collection::vec(rule, 0..20), architectures).prop_map(
        |((default_action, default_errno_ret), syscalls, architectures)| Seccomp {
            default_action,
            default_errno_ret,
            syscalls,
            architectures: architectures.into_iter().map(str::to_owned).collect(),
            ..Seccomp::default()
        },
    )
}

fn call() -> impl Strategy<Value = Call> {
    let arch = prop::sample::select(vec![
        AUDIT_ARCH_X86_64,
        AUDIT_ARCH_I386,
        AUDIT_ARCH_AARCH64,
        AUDIT_ARCH_ARM,
        7,
    ]);
    let number = prop_oneof![
        0_u32..470,
        (0_u32..560).prop_map(|number| number + X32_BIT),
        prop::sample::select(vec![
            41,
            56,
            0,
            1,
            21,
            102,
            117,
            198,
            359,
            140,
            0xf0005,
            u32::MAX,
            u32::MAX - 1,
            X32_BIT - 1
        ]),
    ];
    (arch, number, prop::array::uniform6(value())).prop_map(|(arch, number, arguments)| Call {
        arch,
        number,
        arguments,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn the_program_decides_as_the_profile_says(profile in profile(), calls in prop::collection::vec(call(), 64)) {
        for arch in [Arch::X86_64, Arch::Aarch64] {
            let program = compile(&profile, arch).unwrap();
            for call in &calls {
                prop_assert_eq!(run(&program.filter, call), naive(&profile, arch, call), "{:?} {:?}", arch, call);
            }
        }
    }

    #[test]
    fn the_value_search_agrees_with_single_tests(
        values in prop::collection::vec((0_u64..40, prop::sample::select(vec!["EQ", "LT", "GT", "NE"])), 2..30),
        given in prop_oneof![0_u64..45, Just(1_u64 << 32), Just((1_u64 << 32) + 5)],
    ) {
        let rule = |(value, op): &(u64, &str)| SyscallRule {
            names: vec!["socket".to_owned()],
            action: "SCMP_ACT_ALLOW".to_owned(),
            args: vec![SyscallArgument { index: 0, value: *value, value_two: 0, op: format!("SCMP_CMP_{op}") }],
            ..SyscallRule::default()
        };
        let profile = Seccomp {
            default_action: "SCMP_ACT_ERRNO".to_owned(),
            syscalls: values.iter().map(rule).collect(),
            ..Seccomp::default()
        };
        let call = Call { arch: AUDIT_ARCH_X86_64, number: 41, arguments: [given, 0, 0, 0, 0, 0] };
        let program = compile(&profile, Arch::X86_64).unwrap();
        prop_assert_eq!(run(&program.filter, &call), naive(&profile, Arch::X86_64, &call));
    }
}

/// The kernel asks a filter once for each number whether it allows the call without looking at anything but number and
/// architecture, and then answers itself (`seccomp_cache_prepare`, Linux 5.11): so allowed calls cost nothing.
#[test]
fn the_kernel_can_know_what_dockers_profile_always_allows() {
    let capabilities = ["CAP_CHOWN".to_owned()];
    let filter = compile(
        &default_profile(Arch::X86_64, &capabilities, (6, 1)),
        Arch::X86_64,
    )
    .unwrap()
    .filter;
    for name in [
        "read",
        "write",
        "openat",
        "close",
        "futex",
        "mmap",
        "epoll_wait",
        "clock_nanosleep",
    ] {
        let (mut at, mut accumulator) = (0, 0);
        let number = column_of(name, 0).unwrap();
        let verdict = loop {
            let instruction = filter[at];
            let k = instruction.k;
            at += 1;
            let jump = |holds: bool| usize::from(if holds { instruction.jt } else { instruction.jf });
            match instruction.code {
                0x20 if k == 0 => accumulator = number,
                0x20 if k == 4 => accumulator = AUDIT_ARCH_X86_64,
                0x05 => at += k as usize,
                0x06 => break k,
                0x15 => at += jump(accumulator == k),
                0x25 => at += jump(accumulator > k),
                0x35 => at += jump(accumulator >= k),
                other => panic!("{name} takes instruction {other:#x} with {k}: the kernel gives up"),
            }
        };
        assert_eq!(verdict, libc::SECCOMP_RET_ALLOW, "{name}");
    }
}

#[test]
fn a_rule_without_conditions_beats_those_with_and_an_empty_list_of_flags_is_none() {
    let rule = |action: &str, args| SyscallRule {
        names: vec!["ioctl".to_owned()],
        action: action.to_owned(),
        args,
        ..SyscallRule::default()
    };
    let first = SyscallArgument {
        op: "SCMP_CMP_EQ".to_owned(),
        ..SyscallArgument::default()
    };
    let profile = Seccomp {
        default_action: "SCMP_ACT_ERRNO".to_owned(),
        flags: Some(Vec::new()),
        syscalls: vec![
            rule("SCMP_ACT_KILL", vec![first]),
            rule("SCMP_ACT_LOG", vec![]),
            rule("SCMP_ACT_ALLOW", vec![]),
        ],
        ..Seccomp::default()
    };
    let program = compile(&profile, Arch::X86_64).unwrap();
    let call = Call {
        arch: AUDIT_ARCH_X86_64,
        number: 16,
        arguments: [0; 6],
    };
    assert_eq!(run(&program.filter, &call), libc::SECCOMP_RET_LOG);
    assert_eq!(program.flags, 0);
    let silent = Seccomp {
        flags: None,
        ..profile
    };
    assert_eq!(compile(&silent, Arch::X86_64).unwrap().flags, 4);
}

#[test]
fn a_refused_socket_is_refused_through_socketcall_too() {
    let rule = SyscallRule {
        names: vec!["socket".to_owned()],
        action: "SCMP_ACT_ERRNO".to_owned(),
        ..SyscallRule::default()
    };
    let profile = Seccomp {
        default_action: "SCMP_ACT_ALLOW".to_owned(),
        architectures: vec!["SCMP_ARCH_X86".to_owned()],
        syscalls: vec![rule],
        ..Seccomp::default()
    };
    let filter = compile(&profile, Arch::X86_64).unwrap().filter;
    let verdict = |number, selector| {
        let arguments = [selector, 0, 0, 0, 0, 0];
        run(
            &filter,
            &Call {
                arch: AUDIT_ARCH_I386,
                number,
                arguments,
            },
        )
    };
    let refused = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    assert_eq!((verdict(359, 2), verdict(102, 1)), (refused, refused));
    assert_eq!(
        (verdict(102, 2), verdict(117, 1)),
        (libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_ALLOW)
    );
}

fn words(program: &Program) -> usize {
    program.filter.len()
}

#[test]
fn dockers_profile_decides_every_number_as_it_reads() {
    for (arch, audits) in [
        (Arch::X86_64, [AUDIT_ARCH_X86_64, AUDIT_ARCH_I386]),
        (Arch::Aarch64, [AUDIT_ARCH_AARCH64, AUDIT_ARCH_ARM]),
    ] {
        for capabilities in [
            vec![],
            vec!["CAP_SYS_ADMIN".to_owned(), "CAP_SYS_PTRACE".to_owned()],
        ] {
            let profile = default_profile(arch, &capabilities, (6, 1));
            let program = compile(&profile, arch).unwrap();
            assert!(words(&program) < 1500, "{arch:?}: {}", words(&program));
            for audit in audits {
                for number in (0..480).chain(X32_BIT..X32_BIT + 560).chain([0xf0005, u32::MAX]) {
                    for first in firsts(number) {
                        let call = Call {
                            arch: audit,
                            number,
                            arguments: [*first, 0, 0, 0, 0, 0],
                        };
                        assert_eq!(
                            run(&program.filter, &call),
                            naive(&profile, arch, &call),
                            "{call:?}"
                        );
                    }
                }
            }
        }
    }
}

/// First arguments worth trying with a call: some for those that docker's profile looks into, one for the others.
fn firsts(number: u32) -> &'static [u64] {
    match number & !X32_BIT {
        41 | 56 | 102 | 117 | 120 | 135 | 136 | 198 | 220 | 281 | 359 => &ARGUMENTS,
        _ => &[0],
    }
}

const ARGUMENTS: [u64; 10] = [
    0,
    1,
    2,
    16,
    38,
    40,
    0x0200_0000,
    0x7e02_0000,
    0xffff_ffff,
    1 << 40,
];

#[test]
fn dockers_profile_blocks_kernel_crypto_and_vm_sockets_and_new_namespaces() {
    let profile = default_profile(Arch::X86_64, &["CAP_CHOWN".to_owned()], (6, 1));
    let program = compile(&profile, Arch::X86_64).unwrap();
    let verdict = |number, first| {
        run(
            &program.filter,
            &Call {
                arch: AUDIT_ARCH_X86_64,
                number,
                arguments: [first, 0, 0, 0, 0, 0],
            },
        )
    };
    let refused = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let (socket, clone, clone3, mount, personality) = (41, 56, 435, 165, 135);
    for (domain, want) in [
        (libc::AF_INET, libc::SECCOMP_RET_ALLOW),
        (libc::AF_UNIX, libc::SECCOMP_RET_ALLOW),
        (libc::AF_NETLINK, libc::SECCOMP_RET_ALLOW),
        (libc::AF_ALG, refused),
        (libc::AF_VSOCK, refused),
    ] {
        assert_eq!(verdict(socket, domain as u64), want, "{domain}");
    }
    assert_eq!(verdict(socket, 1 << 32 | 2), refused);
    assert_eq!(verdict(clone, libc::CLONE_VM as u64), libc::SECCOMP_RET_ALLOW);
    assert_eq!(verdict(clone, libc::CLONE_NEWUSER as u64), refused);
    assert_eq!(verdict(clone3, 0), libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);
    assert_eq!(verdict(mount, 0), refused);
    assert_eq!(verdict(personality, 0xffff_ffff), libc::SECCOMP_RET_ALLOW);
    assert_eq!(verdict(personality, 0x40_0000), refused);
    assert_eq!(verdict(999, 0), libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);
}

fn refused(profile: &Seccomp, word: &str) {
    let error = compile(profile, Arch::X86_64).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains(word), "{error}");
}

#[test]
fn wrong_words_are_named() {
    let base = || Seccomp {
        default_action: "SCMP_ACT_ALLOW".to_owned(),
        ..Seccomp::default()
    };
    let rule = |action: &str, args| SyscallRule {
        names: vec!["read".to_owned()],
        action: action.to_owned(),
        args,
        ..SyscallRule::default()
    };
    let argument = |index, op: &str| SyscallArgument {
        index,
        op: op.to_owned(),
        ..SyscallArgument::default()
    };
    let bad = [
        (
            Seccomp {
                default_action: "ALLOW".to_owned(),
                ..base()
            },
            "ALLOW",
        ),
        (
            Seccomp {
                default_action: "SCMP_ACT_NOTIFY".to_owned(),
                ..base()
            },
            "NOTIFY",
        ),
        (
            Seccomp {
                architectures: vec!["SCMP_ARCH_VAX".to_owned()],
                ..base()
            },
            "VAX",
        ),
        (
            Seccomp {
                flags: Some(vec!["FAST".to_owned()]),
                ..base()
            },
            "FAST",
        ),
        (
            Seccomp {
                default_errno_ret: Some(1),
                ..base()
            },
            "errno",
        ),
        (
            Seccomp {
                syscalls: vec![rule("SCMP_ACT_ALLOW", vec![argument(6, "SCMP_CMP_EQ")])],
                ..base()
            },
            "6",
        ),
        (
            Seccomp {
                syscalls: vec![rule("SCMP_ACT_ALLOW", vec![argument(0, "EQ")])],
                ..base()
            },
            "EQ",
        ),
        (
            Seccomp {
                syscalls: vec![SyscallRule {
                    errno_ret: Some(5000),
                    ..rule("SCMP_ACT_ERRNO", vec![])
                }],
                ..base()
            },
            "5000",
        ),
    ];
    for (profile, word) in bad {
        refused(&profile, word);
    }
}

#[test]
fn an_agent_asks_for_a_listener() {
    let rule = SyscallRule {
        names: vec!["mkdir".to_owned()],
        action: "SCMP_ACT_NOTIFY".to_owned(),
        ..SyscallRule::default()
    };
    let profile = Seccomp {
        default_action: "SCMP_ACT_ALLOW".to_owned(),
        syscalls: vec![rule],
        ..Seccomp::default()
    };
    let program = compile(&profile, Arch::X86_64).unwrap();
    assert!(program.notify);
    assert_eq!(program.flags & 8, 8);
    let call = Call {
        arch: AUDIT_ARCH_X86_64,
        number: 83,
        arguments: [0; 6],
    };
    assert_eq!(run(&program.filter, &call), libc::SECCOMP_RET_USER_NOTIF);
    // Read and poll go through, a call that is asked about does not.
    assert!(program.lets(Arch::X86_64, &[0, 7]));
    assert!(!program.lets(Arch::X86_64, &[0, 83]));
    assert!(
        !program.lets(Arch::Aarch64, &[0]),
        "an interface that it does not know"
    );
}

#[test]
fn a_profile_that_does_not_fit_is_refused_in_time() {
    let args = |value| {
        vec![SyscallArgument {
            index: 0,
            value,
            value_two: 0,
            op: "SCMP_CMP_NE".to_owned(),
        }]
    };
    let rule = |value| SyscallRule {
        names: vec!["read".to_owned()],
        action: "SCMP_ACT_ALLOW".to_owned(),
        args: args(value),
        ..SyscallRule::default()
    };
    let profile = Seccomp {
        default_action: "SCMP_ACT_ERRNO".to_owned(),
        syscalls: (0..20_000).map(rule).collect(),
        ..Seccomp::default()
    };
    let start = Instant::now();
    assert_eq!(
        compile(&profile, Arch::X86_64).unwrap_err().kind(),
        ErrorKind::ResourceExhausted
    );
    assert!(start.elapsed().as_secs() < 10);
}

#[test]
fn the_table_is_in_order_and_names_no_number_twice() {
    assert!(table::CALLS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    for column in 0..5 {
        let mut numbers: Vec<u32> = table::CALLS
            .iter()
            .map(|(_, numbers)| numbers[column])
            .filter(|number| *number != u32::MAX)
            .collect();
        let count = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        // Arm has two names for number 341.
        assert_eq!(count - numbers.len(), usize::from(column == 4), "column {column}");
    }
    #[cfg(target_arch = "x86_64")]
    for (name, number) in [
        ("openat", libc::SYS_openat),
        ("clone3", libc::SYS_clone3),
        ("statx", libc::SYS_statx),
    ] {
        assert_eq!(i64::from(column_of(name, 0).unwrap()), number);
    }
}

/// Not a check but a figure: `cargo test --release -p dhow-seccomp -- --ignored --nocapture speed`.
#[test]
#[ignore = "prints a measurement"]
fn speed_of_the_default_profile() {
    let capabilities: Vec<String> = ["CAP_CHOWN", "CAP_SYS_CHROOT"].map(str::to_owned).into();
    let mut times: Vec<_> = (0..200)
        .map(|_| {
            let start = Instant::now();
            let profile = default_profile(Arch::host(), &capabilities, (6, 1));
            let built = start.elapsed();
            let program = compile(&profile, Arch::host()).unwrap();
            (start.elapsed(), built, words(&program))
        })
        .collect();
    times.sort();
    println!(
        "median total, building the profile alone, instructions: {:?}; first {:?}",
        times[100], times[0]
    );
}
