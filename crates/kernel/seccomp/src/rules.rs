//! A profile with every word checked, and what it says about one system call.

use dhow_oci::runtime::{Seccomp, SyscallArgument, SyscallRule};
use dhow_types::ErrorKind;

use crate::{Arch, Error};

/// How an argument is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    MaskedEqual,
    NotEqual,
}

/// One condition on an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    /// 0 to 5.
    pub(crate) index: u32,
    pub(crate) operator: Operator,
    /// Compared with this; for [`Operator::MaskedEqual`] the wanted bits.
    pub(crate) value: u64,
    /// For [`Operator::MaskedEqual`]: the bits that count.
    pub(crate) mask: u64,
}

impl Condition {
    /// Whether it holds for this argument.
    pub(crate) const fn holds(&self, argument: u64) -> bool {
        match self.operator {
            Operator::Equal => argument == self.value,
            Operator::Greater => argument > self.value,
            Operator::GreaterOrEqual => argument >= self.value,
            Operator::Less => argument < self.value,
            Operator::LessOrEqual => argument <= self.value,
            Operator::MaskedEqual => argument & self.mask == self.value,
            Operator::NotEqual => argument != self.value,
        }
    }

    /// Whether it holds for every argument: no bit of it counts.
    pub(crate) const fn always(&self, narrow: bool) -> bool {
        let mask = if narrow {
            self.mask & 0xffff_ffff
        } else {
            self.mask
        };
        matches!(self.operator, Operator::MaskedEqual) && mask == 0
    }

    /// The same condition where arguments have 32 bits (libseccomp compares the low halves there).
    pub(crate) const fn narrow(self) -> Self {
        Self {
            value: self.value & 0xffff_ffff,
            mask: self.mask & 0xffff_ffff,
            ..self
        }
    }
}

/// A rule: all conditions hold, then the verdict. Without conditions it always holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) conditions: Vec<Condition>,
    /// `SECCOMP_RET_*` with its data.
    pub(crate) verdict: u32,
}

impl Rule {
    /// The rule for a call that another one carries: the first argument of that one selects it, and takes the place of
    /// a condition on the first argument. What the carried call's own arguments are is in memory, where no filter
    /// can look (libseccomp does the same).
    pub(crate) fn behind(&self, selector: u32) -> Self {
        let mut conditions = vec![Condition {
            index: 0,
            operator: Operator::Equal,
            value: selector.into(),
            mask: u64::MAX,
        }];
        conditions.extend(self.conditions.iter().filter(|one| one.index != 0));
        Self {
            conditions,
            verdict: self.verdict,
        }
    }
}

/// Rules of one entry of the profile. runc reads conditions that name an argument twice as alternatives (its own
/// answer to libseccomp's limit), and profiles rely on it.
pub(crate) fn parse_rule(rule: &SyscallRule) -> Result<Vec<Rule>, Error> {
    let verdict = parse_action(&rule.action, rule.errno_ret)?;
    let conditions = rule
        .args
        .iter()
        .map(parse_condition)
        .collect::<Result<Vec<_>, _>>()?;
    let twice = conditions.iter().enumerate().any(|(at, condition)| {
        conditions[..at]
            .iter()
            .any(|other| other.index == condition.index)
    });
    Ok(if twice {
        conditions
            .into_iter()
            .map(|condition| Rule {
                conditions: vec![condition],
                verdict,
            })
            .collect()
    } else {
        vec![Rule { conditions, verdict }]
    })
}

fn parse_condition(argument: &SyscallArgument) -> Result<Condition, Error> {
    let operator = match argument.op.as_str() {
        "SCMP_CMP_EQ" => Operator::Equal,
        "SCMP_CMP_GE" => Operator::GreaterOrEqual,
        "SCMP_CMP_GT" => Operator::Greater,
        "SCMP_CMP_LE" => Operator::LessOrEqual,
        "SCMP_CMP_LT" => Operator::Less,
        "SCMP_CMP_MASKED_EQ" => Operator::MaskedEqual,
        "SCMP_CMP_NE" => Operator::NotEqual,
        other => return Err(unknown("comparison", other)),
    };
    if argument.index > 5 {
        let message = format!("system calls have arguments 0 to 5, not {}", argument.index);
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    let (value, mask) = match operator {
        // `value` is the mask and `valueTwo` the wanted bits; bits outside the mask never count (libseccomp).
        Operator::MaskedEqual => (argument.value_two & argument.value, argument.value),
        _ => (argument.value, u64::MAX),
    };
    Ok(Condition {
        index: argument.index,
        operator,
        value,
        mask,
    })
}

/// The kernel's word for an action (`SECCOMP_RET_*`).
pub(crate) fn parse_action(action: &str, errno: Option<u32>) -> Result<u32, Error> {
    const MAX_ERRNO: u32 = 4095;
    let takes_errno = matches!(action, "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE");
    if errno.is_some() && !takes_errno {
        let message = format!("{action} has no errno to return");
        return Err(Error::new(ErrorKind::InvalidArgument, message)
            .with_hint("only SCMP_ACT_ERRNO and SCMP_ACT_TRACE take errnoRet"));
    }
    let most = if action == "SCMP_ACT_TRACE" {
        u32::from(u16::MAX)
    } else {
        MAX_ERRNO
    };
    let data = errno.unwrap_or(libc::EPERM.cast_unsigned());
    if data > most {
        let message = format!("{data} is no errno: it is at most {most}");
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    Ok(match action {
        "SCMP_ACT_ALLOW" => libc::SECCOMP_RET_ALLOW,
        "SCMP_ACT_ERRNO" => libc::SECCOMP_RET_ERRNO | data,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => libc::SECCOMP_RET_KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => libc::SECCOMP_RET_KILL_PROCESS,
        "SCMP_ACT_LOG" => libc::SECCOMP_RET_LOG,
        "SCMP_ACT_NOTIFY" => libc::SECCOMP_RET_USER_NOTIF,
        "SCMP_ACT_TRACE" => libc::SECCOMP_RET_TRACE | data,
        "SCMP_ACT_TRAP" => libc::SECCOMP_RET_TRAP,
        other => return Err(unknown("action", other)),
    })
}

/// An application binary interface: one column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Abi {
    X86_64 = 0,
    X86 = 1,
    X32 = 2,
    Aarch64 = 3,
    Arm = 4,
}

/// Which of the kernel's interfaces the profile is for: the machine's own always, the older ones when named.
pub(crate) fn parse_architectures(profile: &Seccomp, arch: Arch) -> Result<Vec<Abi>, Error> {
    const OTHERS: [&str; 15] = [
        "SCMP_ARCH_LOONGARCH64",
        "SCMP_ARCH_M68K",
        "SCMP_ARCH_MIPS",
        "SCMP_ARCH_MIPS64",
        "SCMP_ARCH_MIPS64N32",
        "SCMP_ARCH_MIPSEL",
        "SCMP_ARCH_MIPSEL64",
        "SCMP_ARCH_MIPSEL64N32",
        "SCMP_ARCH_PARISC",
        "SCMP_ARCH_PARISC64",
        "SCMP_ARCH_PPC",
        "SCMP_ARCH_PPC64",
        "SCMP_ARCH_PPC64LE",
        "SCMP_ARCH_RISCV64",
        "SCMP_ARCH_SHEB",
    ];
    let own = match arch {
        Arch::Aarch64 => Abi::Aarch64,
        Arch::X86_64 => Abi::X86_64,
    };
    let mut out = vec![own];
    for name in &profile.architectures {
        let abi = match name.as_str() {
            "SCMP_ARCH_AARCH64" => Abi::Aarch64,
            "SCMP_ARCH_ARM" => Abi::Arm,
            "SCMP_ARCH_X32" => Abi::X32,
            "SCMP_ARCH_X86" => Abi::X86,
            "SCMP_ARCH_X86_64" => Abi::X86_64,
            "SCMP_ARCH_S390" | "SCMP_ARCH_S390X" | "SCMP_ARCH_SH" => continue,
            other if OTHERS.contains(&other) => continue,
            other => return Err(unknown("architecture", other)),
        };
        let runs_here = match arch {
            Arch::Aarch64 => matches!(abi, Abi::Aarch64 | Abi::Arm),
            Arch::X86_64 => matches!(abi, Abi::X86_64 | Abi::X86 | Abi::X32),
        };
        if runs_here && !out.contains(&abi) {
            out.push(abi);
        }
    }
    Ok(out)
}

/// `SECCOMP_FILTER_FLAG_*` of the profile. Without a list of flags it is `SPEC_ALLOW`, as in runc: the mitigation that
/// the kernel would switch on costs every process and is not its default any more since Linux 5.16. An empty list is none.
pub(crate) fn parse_flags(profile: &Seccomp) -> Result<u32, Error> {
    let Some(names) = &profile.flags else {
        return Ok(flag(libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW));
    };
    names.iter().try_fold(0, |flags, name| {
        Ok(flags
            | match name.as_str() {
                "SECCOMP_FILTER_FLAG_LOG" => flag(libc::SECCOMP_FILTER_FLAG_LOG),
                "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => flag(libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW),
                // The one thread that loads the filter is all there is.
                "SECCOMP_FILTER_FLAG_TSYNC" => 0,
                "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => {
                    flag(libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
                }
                other => return Err(unknown("flag", other)),
            })
    })
}

/// The flags are small numbers that libc types as long.
pub(crate) fn flag(value: libc::c_ulong) -> u32 {
    u32::try_from(value).unwrap_or(0)
}

fn unknown(what: &str, word: &str) -> Error {
    let word: String = word.chars().take(64).collect();
    Error::new(
        ErrorKind::InvalidArgument,
        format!("seccomp profile: {word:?} is no {what}"),
    )
    .with_hint("the names are those of the OCI runtime spec, config-linux.md, Seccomp")
}
