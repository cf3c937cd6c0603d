//! Classic BPF, written from the end to the start: every jump goes forward to something that is already there, so
//! its distance is known when it is written. Conditional jumps reach 255 instructions; farther targets get a step
//! in between.

use libc::sock_filter;

// linux/filter.h, linux/bpf_common.h.
const LOAD_WORD: u16 = 0x20;
const JUMP: u16 = 0x05;
const RETURN: u16 = 0x06;
const AND: u16 = 0x54;

/// Kinds of conditional jump against a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Test {
    Equal = 0x15,
    Greater = 0x25,
    GreaterOrEqual = 0x35,
}

/// Where to go on: the end of the program with a verdict, or an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    At(Label),
    Return(u32),
}

/// An instruction, counted from the end of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Label(usize);

/// A program under construction, last instruction first.
#[derive(Debug, Default)]
pub(crate) struct Emitter {
    reversed: Vec<sock_filter>,
    returns: Vec<(u32, Label)>,
}

/// Farthest target of a conditional jump, less the instructions that may come in between while both of its targets
/// are brought near.
const NEAR: usize = 250;

impl Emitter {
    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        self.reversed.push(sock_filter { code, jt, jf, k });
        Label(self.reversed.len() - 1)
    }

    /// Instructions between the next one to be written and `label`.
    fn distance(&self, label: Label) -> usize {
        self.reversed.len() - 1 - label.0
    }

    /// A place within reach that leads to `target`.
    fn near(&mut self, target: Target) -> Label {
        match target {
            Target::At(label) if self.distance(label) <= NEAR => label,
            Target::At(label) => {
                let far = u32::try_from(self.distance(label)).unwrap_or(u32::MAX);
                self.push(JUMP, 0, 0, far)
            }
            Target::Return(value) => {
                let known = self.returns.iter_mut().find(|(other, _)| *other == value);
                match known {
                    Some((_, label)) if self.reversed.len() - 1 - label.0 <= NEAR => *label,
                    Some(_) | None => self.write_return(value),
                }
            }
        }
    }

    fn write_return(&mut self, value: u32) -> Label {
        let label = self.push(RETURN, 0, 0, value);
        match self.returns.iter_mut().find(|(other, _)| *other == value) {
            Some(entry) => entry.1 = label,
            None => self.returns.push((value, label)),
        }
        label
    }

    /// `if accumulator <test> k goto yes else goto no`.
    pub(crate) fn branch(&mut self, test: Test, k: u32, yes: Target, no: Target) -> Label {
        let yes = self.near(yes);
        let no = self.near(no);
        let reach = |emitter: &Self, label| u8::try_from(emitter.distance(label)).unwrap_or(u8::MAX);
        let (jt, jf) = (reach(self, yes), reach(self, no));
        self.push(test as u16, jt, jf, k)
    }

    /// Loads a word of `struct seccomp_data`, then goes on at `then`.
    pub(crate) fn load(&mut self, offset: u32, then: Target) -> Label {
        self.fall_into(then);
        self.push(LOAD_WORD, 0, 0, offset)
    }

    /// Masks the accumulator, then goes on at `then`.
    pub(crate) fn and(&mut self, mask: u32, then: Target) -> Label {
        self.fall_into(then);
        self.push(AND, 0, 0, mask)
    }

    /// Makes `target` the instruction that the next one to be written falls into.
    fn fall_into(&mut self, target: Target) {
        match target {
            Target::At(label) if label.0 + 1 == self.reversed.len() => {}
            Target::At(label) => {
                let far = u32::try_from(self.distance(label)).unwrap_or(u32::MAX);
                self.push(JUMP, 0, 0, far);
            }
            Target::Return(value) => {
                self.write_return(value);
            }
        }
    }

    /// Binary search over ranges of the accumulator: each range starts at its number and ends before the next; the
    /// first starts at 0.
    pub(crate) fn search(&mut self, ranges: &[(u32, Target)]) -> Target {
        match ranges {
            [] => Target::Return(libc::SECCOMP_RET_KILL_PROCESS),
            [(_, target)] => *target,
            _ => {
                let (low, high) = ranges.split_at(ranges.len() / 2);
                let start = high[0].0;
                let high = self.search(high);
                let low = self.search(low);
                Target::At(self.branch(Test::GreaterOrEqual, start, high, low))
            }
        }
    }

    /// How long the program is so far.
    pub(crate) fn len(&self) -> usize {
        self.reversed.len()
    }

    /// The program, first instruction first.
    pub(crate) fn finish(mut self) -> Vec<sock_filter> {
        self.reversed.reverse();
        self.reversed
    }
}
