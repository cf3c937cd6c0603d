//! Damage: small changes of known inputs, the same for the same seed.

/// Longest input.
const MAX: usize = 64 << 10;
/// Numbers at which lengths and ids go over.
const NUMBERS: [&str; 14] = [
    "0",
    "-1",
    "1",
    "127",
    "255",
    "256",
    "65535",
    "65536",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "18446744073709551616",
];

/// The inputs of a run.
pub(crate) struct Pool {
    inputs: Vec<Vec<u8>>,
    words: &'static [&'static str],
    state: u64,
}

impl Pool {
    /// Begins with these; `words` are what the format is made of.
    pub(crate) fn new(inputs: Vec<Vec<u8>>, words: &'static [&'static str], seed: u64) -> Self {
        let inputs = if inputs.is_empty() {
            vec![Vec::new()]
        } else {
            inputs
        };
        Self {
            inputs,
            words,
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        }
    }

    /// What it knows.
    pub(crate) fn inputs(&self) -> &[Vec<u8>] {
        &self.inputs
    }

    /// Remembers an input that did something new.
    pub(crate) fn keep(&mut self, input: Vec<u8>) {
        if self.inputs.len() < 4096 {
            self.inputs.push(input);
        } else {
            let at = self.below(self.inputs.len());
            if let Some(old) = self.inputs.get_mut(at) {
                *old = input;
            }
        }
    }

    /// A changed copy of one of them.
    pub(crate) fn next(&mut self) -> Vec<u8> {
        // The newer half is taken as often as all together: what was new lately leads on.
        let count = self.inputs.len();
        let at = match self.below(2) {
            0 => self.below(count),
            _ => count / 2 + self.below(count - count / 2),
        };
        let mut input = self.inputs.get(at).cloned().unwrap_or_default();
        for _ in 0..=self.below(6) {
            self.change(&mut input);
        }
        input.truncate(MAX);
        input
    }

    /// xorshift64* (Vigna 2016).
    fn random(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).unwrap_or(1).max(1);
        usize::try_from((self.random() >> 11) % limit).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        let [byte, ..] = self.random().to_le_bytes();
        byte
    }

    /// A part of `length` bytes, short ones more often.
    fn part(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        let most = if self.below(4) == 0 {
            length - start
        } else {
            (length - start).min(16)
        };
        start..start + self.below(most + 1)
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len());
        match self.below(11) {
            0 => {
                let bit = 1 << self.below(8);
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= bit;
                }
            }
            1 => {
                let new = [0, 0xff, 0x7f, 0x80, b'\n', b'"', b'/', self.byte()];
                let new = new.get(self.below(new.len())).copied().unwrap_or_default();
                if let Some(byte) = input.get_mut(at) {
                    *byte = new;
                }
            }
            2 => drop(input.drain(self.part(input.len()))),
            3 => {
                let copied = input.get(self.part(input.len())).unwrap_or_default().to_vec();
                insert(input, at, &copied);
            }
            // One part very often: what is quadratic, or nests, shows.
            4 => {
                let part = self.part(input.len());
                let copied = input.get(part).unwrap_or_default();
                let room = MAX.saturating_sub(input.len()) / copied.len().max(1);
                let times = 1 << self.below(14);
                let many = copied.repeat(room.min(times));
                insert(input, at, &many);
            }
            5 => {
                let other = self.below(self.inputs.len());
                let length = self.inputs.get(other).map_or(0, Vec::len);
                let part = self.part(length);
                let taken = self.inputs.get(other).and_then(|other| other.get(part));
                let taken = taken.unwrap_or_default().to_vec();
                insert(input, at, &taken);
            }
            6 | 7 => {
                let word = self
                    .words
                    .get(self.below(self.words.len()))
                    .copied()
                    .unwrap_or_default();
                insert(input, at, word.as_bytes());
            }
            8 => self.number(input),
            9 => {
                let bytes = self.random().to_le_bytes();
                let width = 1 << self.below(4);
                let new = match self.below(3) {
                    0 => [0; 8],
                    1 => [0xff; 8],
                    _ => bytes,
                };
                for (byte, new) in input.iter_mut().skip(at).zip(new).take(width) {
                    *byte = new;
                }
            }
            _ => input.truncate(at),
        }
    }

    /// Puts another number in the place of one that is written in digits.
    fn number(&mut self, input: &mut Vec<u8>) {
        let starts: Vec<usize> = (0..input.len())
            .filter(|at| {
                let digit = |at: usize| input.get(at).is_some_and(u8::is_ascii_digit);
                digit(*at) && !(*at > 0 && digit(*at - 1))
            })
            .take(1000)
            .collect();
        let Some(start) = starts.get(self.below(starts.len())).copied() else {
            return;
        };
        let length = input
            .iter()
            .skip(start)
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let new = NUMBERS
            .get(self.below(NUMBERS.len()))
            .copied()
            .unwrap_or_default();
        drop(input.splice(start..start + length, new.bytes()));
    }
}

fn insert(input: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let at = at.min(input.len());
    drop(input.splice(at..at, bytes.iter().copied()));
}
