//! What a compiled filter says, without a kernel to ask.

use crate::compile::{OFFSET_ARCH, OFFSET_ARGUMENTS, OFFSET_NUMBER};
use crate::{Arch, Program};

// The instructions that the compiler writes (linux/bpf_common.h, linux/filter.h).
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const EQUAL: u16 = 0x15;
const GREATER: u16 = 0x25;
const AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

/// One system call as the kernel shows it to a filter (`struct seccomp_data`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) arch: u32,
    pub(crate) number: u32,
    pub(crate) arguments: [u64; 6],
}

impl Call {
    /// The word at this offset.
    fn word(&self, offset: u32) -> Option<u32> {
        match offset {
            OFFSET_NUMBER => Some(self.number),
            OFFSET_ARCH => Some(self.arch),
            _ => {
                let place = offset.checked_sub(OFFSET_ARGUMENTS)?;
                let argument = self.arguments.get(usize::try_from(place / 8).ok()?)?;
                let bytes = argument.to_le_bytes();
                let half = match place % 8 {
                    0 => bytes.first_chunk(),
                    4 => bytes.last_chunk(),
                    _ => None,
                };
                half.copied().map(u32::from_le_bytes)
            }
        }
    }
}

impl Program {
    /// Whether these calls of the machine's own interface go through, by number and with arguments of zero: nobody is asked about
    /// them, and they do not fail.
    #[must_use]
    pub fn lets(&self, arch: Arch, calls: &[u32]) -> bool {
        calls.iter().all(|number| {
            let call = Call {
                arch: arch.audit(),
                number: *number,
                arguments: [0; 6],
            };
            let action = verdict(&self.filter, &call).map(|verdict| verdict & libc::SECCOMP_RET_ACTION_FULL);
            matches!(action, Some(libc::SECCOMP_RET_ALLOW | libc::SECCOMP_RET_LOG))
        })
    }
}

/// Runs a filter as the kernel would; none for what the kernel's checker refuses. It ends: jumps lead forward only.
pub(crate) fn verdict(filter: &[libc::sock_filter], call: &Call) -> Option<u32> {
    let mut accumulator = 0_u32;
    let mut at = 0_usize;
    loop {
        let instruction = filter.get(at)?;
        let k = instruction.k;
        at += 1;
        let holds = match instruction.code {
            EQUAL => accumulator == k,
            GREATER => accumulator > k,
            AT_LEAST => accumulator >= k,
            LOAD => {
                accumulator = call.word(k)?;
                continue;
            }
            AND => {
                accumulator &= k;
                continue;
            }
            JUMP => {
                at = at.checked_add(usize::try_from(k).ok()?)?;
                continue;
            }
            RETURN => return Some(k),
            _ => return None,
        };
        at += usize::from(if holds { instruction.jt } else { instruction.jf });
    }
}
