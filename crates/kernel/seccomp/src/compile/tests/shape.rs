//! Whatever a profile says, what comes out is an error or a program that the kernel takes.

use super::*;

/// What the kernel's checker demands (`bpf_check_classic`, `seccomp_check_filter`), and that every path ends.
fn assert_well_formed(filter: &[libc::sock_filter]) {
    assert!(
        (1..=MOST_INSTRUCTIONS).contains(&filter.len()),
        "{}",
        filter.len()
    );
    for (at, instruction) in filter.iter().enumerate() {
        let leads_to: &[usize] = match instruction.code {
            0x06 => &[],
            0x05 => &[instruction.k as usize],
            0x15 | 0x25 | 0x35 => &[usize::from(instruction.jt), usize::from(instruction.jf)],
            0x20 | 0x54 => &[0],
            other => panic!("instruction {other:#x}"),
        };
        // All jumps go forward, so what never leaves the program ends in a return.
        assert!(leads_to.iter().all(|ahead| at + 1 + ahead < filter.len()), "{at}");
    }
}

/// Words of profiles, right and wrong.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "SCMP_ACT_ALLOW",
            "SCMP_ACT_ERRNO",
            "SCMP_ACT_NOTIFY",
            "SCMP_ARCH_X86",
            "SCMP_ARCH_ARM",
            "SCMP_CMP_EQ",
            "SCMP_CMP_MASKED_EQ",
            "SECCOMP_FILTER_FLAG_LOG",
            "SECCOMP_FILTER_FLAG_TSYNC",
            "read",
            "write",
            "socket",
        ])
        .prop_map(str::to_owned),
        ".{0,12}",
    ]
}

prop_compose! {
    fn nonsense()(
        default_action in word(),
        default_errno_ret in prop::option::of(any::<u32>()),
        architectures in prop::collection::vec(word(), 0..4),
        flags in prop::option::of(prop::collection::vec(word(), 0..3)),
        syscalls in prop::collection::vec(
            (
                prop::collection::vec(word(), 0..4),
                word(),
                prop::option::of(any::<u32>()),
                prop::collection::vec((0_u32..8, value(), value(), word()), 0..3),
            ),
            0..6,
        ),
    ) -> Seccomp {
        let rule = |(names, action, errno_ret, args): (_, _, _, Vec<(u32, u64, u64, String)>)| SyscallRule {
            names,
            action,
            errno_ret,
            args: args
                .into_iter()
                .map(|(index, value, value_two, op)| SyscallArgument { index, value, value_two, op })
                .collect(),
        };
        Seccomp {
            default_action,
            default_errno_ret,
            architectures,
            flags,
            syscalls: syscalls.into_iter().map(rule).collect(),
            ..Seccomp::default()
        }
    }
}

proptest! {
    #[test]
    fn a_profile_of_any_words_is_a_program_or_an_error(profile in nonsense()) {
        for arch in [Arch::X86_64, Arch::Aarch64] {
            if let Ok(program) = compile(&profile, arch) {
                assert_well_formed(&program.filter);
            }
        }
    }

    #[test]
    fn every_path_of_a_program_ends_in_a_verdict(profile in profile()) {
        for arch in [Arch::X86_64, Arch::Aarch64] {
            assert_well_formed(&compile(&profile, arch).unwrap().filter);
        }
    }
}
