//! Device rules as an eBPF program: what cgroup v2 has in place of `devices.allow`.
//!
//! The rules are read from the last to the first, and each takes the accesses it speaks of out of those asked for:
//! what an allow rule takes is granted, the first asked-for access that a deny rule speaks of refuses the whole.
//! That is exactly "the last rule that speaks of an access decides". No rule means no.

use std::os::fd::BorrowedFd;

use dhow_sys::bpf;
use dhow_types::ErrorKind;

use crate::setting::{Access, DeviceKind};
use crate::{Context as _, Error};

/// Instructions that an unprivileged loader may have; ours are far fewer.
const MOST_INSTRUCTIONS: usize = 4096;

// linux/bpf.h: `struct bpf_cgroup_dev_ctx { __u32 access_type; __u32 major; __u32 minor; }`, where access_type is
// (access << 16) | type.
const BLOCK: i32 = 1;
const CHAR: i32 = 2;
const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;

// Registers.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ASKED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

// Operation codes (RFC 9669).
const LOAD_WORD: u8 = 0x61;
const MOVE_IMMEDIATE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const AND_IMMEDIATE: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_EQUAL: u8 = 0x15;
const JUMP_NOT_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

fn instruction(code: u8, target: u8, source: u8, offset: i16, immediate: i32) -> u64 {
    u64::from(code)
        | u64::from(target) << 8
        | u64::from(source) << 12
        | u64::from(offset.cast_unsigned()) << 16
        | u64::from(immediate.cast_unsigned()) << 32
}

/// The program for these rules, 8 bytes an instruction.
///
/// # Errors
/// `ResourceExhausted` for more rules than a program can hold.
pub(crate) fn encode(rules: &[Access]) -> Result<Vec<u64>, Error> {
    let mut program = vec![
        instruction(LOAD_WORD, KIND, CONTEXT, 0, 0),
        instruction(MOVE_REGISTER, ASKED, KIND, 0, 0),
        instruction(AND_IMMEDIATE, KIND, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, ASKED, 0, 0, 16),
        instruction(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        instruction(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    let mut verdict = 0;
    for rule in rules.iter().rev() {
        // A rule about everything ends the program: old verifiers refuse instructions that cannot be reached.
        if rule.is_everything() {
            verdict = i32::from(rule.allow);
            break;
        }
        program.extend(encode_rule(rule).unwrap_or_default());
    }
    program.push(instruction(MOVE_IMMEDIATE, RESULT, 0, 0, verdict));
    program.push(instruction(EXIT, 0, 0, 0, 0));
    if program.len() > MOST_INSTRUCTIONS {
        let message = format!("{} device rules do not fit in one program", rules.len());
        return Err(Error::new(ErrorKind::ResourceExhausted, message).with_hint("merge rules with wildcards"));
    }
    Ok(program)
}

/// `None` for numbers that no device can have (the kernel's device numbers have 12 and 20 bits).
fn encode_rule(rule: &Access) -> Option<Vec<u64>> {
    let mut tests = Vec::with_capacity(3);
    if let Some(kind) = rule.kind {
        let kind = match kind {
            DeviceKind::Block => BLOCK,
            DeviceKind::Char => CHAR,
        };
        tests.push((KIND, kind));
    }
    for (register, number) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
        if let Some(number) = number {
            tests.push((register, i32::try_from(number).ok()?));
        }
    }
    let mask = i32::from(rule.mknod) * MKNOD + i32::from(rule.read) * READ + i32::from(rule.write) * WRITE;
    let body = if rule.allow {
        vec![
            instruction(AND_IMMEDIATE, ASKED, 0, 0, !mask),
            instruction(JUMP_NOT_EQUAL, ASKED, 0, 2, 0),
            instruction(MOVE_IMMEDIATE, RESULT, 0, 0, 1),
            instruction(EXIT, 0, 0, 0, 0),
        ]
    } else {
        vec![
            instruction(MOVE_REGISTER, SCRATCH, ASKED, 0, 0),
            instruction(AND_IMMEDIATE, SCRATCH, 0, 0, mask),
            instruction(JUMP_EQUAL, SCRATCH, 0, 2, 0),
            instruction(MOVE_IMMEDIATE, RESULT, 0, 0, 0),
            instruction(EXIT, 0, 0, 0, 0),
        ]
    };
    let length = tests.len() + body.len();
    let mut out = Vec::with_capacity(length);
    for (index, (register, value)) in tests.into_iter().enumerate() {
        let over = i16::try_from(length - index - 1).ok()?;
        out.push(instruction(JUMP_NOT_EQUAL, register, 0, over, value));
    }
    out.extend(body);
    Some(out)
}

/// Puts the filter on a v2 group in place of the filters that are there.
///
/// # Errors
/// `PermissionDenied` without `CAP_BPF` in the host's user namespace.
pub(crate) fn apply(group: BorrowedFd<'_>, rules: &[Access]) -> Result<(), Error> {
    let program = encode(rules)?;
    let old = bpf::device_filters(group).context(|| "ask for the device filters of the control group")?;
    let program = bpf::load_device_filter(&program).context(|| "load the device filter")?;
    // The new one first: at no time is the group without a filter.
    bpf::attach_device_filter(group, std::os::fd::AsFd::as_fd(&program))
        .context(|| "attach the device filter to the control group")?;
    for stale in &old {
        bpf::detach_device_filter(group, std::os::fd::AsFd::as_fd(stale))
            .context(|| "take the old device filter off the control group")?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "device/tests.rs"]
mod tests;
