use crate::failure::{Error, invalid};

/// A `--chmod`: an octal mode, or symbolic changes (`u=rwX,go=rX`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Chmod {
    Octal(u32),
    Symbolic(Vec<Change>),
}

/// One `who op permissions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// Bits that the change may touch, as a mode of `rwx` bits: 0o700, 0o070, 0o007.
    who: u32,
    operator: char,
    /// Of `rwx`, as 0..=7.
    bits: u32,
    /// `X`: execute only for directories and what is executable already.
    if_executable: bool,
    /// `s`.
    set_id: bool,
    /// `t`.
    sticky: bool,
    /// `u`, `g`, `o` on the right side: the bits of that class.
    copied: Option<u32>,
}

impl Chmod {
    /// Parses the value of the flag.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return u32::from_str_radix(text, 8)
                .ok()
                .filter(|mode| *mode <= 0o7777)
                .map(Self::Octal)
                .ok_or_else(|| {
                    invalid(format!(
                        "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
                    ))
                });
        }
        let bad = || invalid(format!("invalid chmod parameter: '{text}'"));
        let mut changes = Vec::new();
        for clause in text.split(',') {
            parse_clause(clause, &mut changes).ok_or_else(bad)?;
        }
        if changes.len() > 64 {
            return Err(bad());
        }
        Ok(Self::Symbolic(changes))
    }

    /// The mode of something that had `mode`.
    pub(crate) fn apply(&self, mode: u32, directory: bool) -> u32 {
        let changes = match self {
            Self::Octal(mode) => return *mode,
            Self::Symbolic(changes) => changes,
        };
        changes
            .iter()
            .fold(mode, |mode, change| change.apply(mode, directory))
    }
}

fn parse_clause(clause: &str, changes: &mut Vec<Change>) -> Option<()> {
    let operator_at = clause.find(['+', '-', '='])?;
    let mut who = 0;
    for c in clause[..operator_at].chars() {
        who |= match c {
            'u' => 0o700,
            'g' => 0o070,
            'o' => 0o007,
            'a' => 0o777,
            _ => return None,
        };
    }
    if who == 0 {
        who = 0o777;
    }
    let mut rest = clause[operator_at..].chars().peekable();
    while let Some(operator) = rest.next() {
        if !matches!(operator, '+' | '-' | '=') {
            return None;
        }
        let mut change = Change {
            who,
            operator,
            bits: 0,
            if_executable: false,
            set_id: false,
            sticky: false,
            copied: None,
        };
        while let Some(c) = rest.next_if(|c| !matches!(c, '+' | '-' | '=')) {
            match c {
                'r' => change.bits |= 4,
                'w' => change.bits |= 2,
                'x' => change.bits |= 1,
                'X' => change.if_executable = true,
                's' => change.set_id = true,
                't' => change.sticky = true,
                'u' => change.copied = Some(6),
                'g' => change.copied = Some(3),
                'o' => change.copied = Some(0),
                _ => return None,
            }
        }
        changes.push(change);
    }
    Some(())
}

impl Change {
    fn apply(&self, mode: u32, directory: bool) -> u32 {
        let mut bits = self.bits;
        if self.if_executable && (directory || mode & 0o111 != 0) {
            bits |= 1;
        }
        if let Some(shift) = self.copied {
            bits |= (mode >> shift) & 7;
        }
        let mut value = (bits * 0o111) & self.who;
        let mut scope = self.who;
        for (class, bit) in [(0o700, 0o4000), (0o070, 0o2000)] {
            if self.who & class != 0 {
                // A directory keeps its set-id bits with `=`, as with GNU chmod.
                if !directory || self.set_id {
                    scope |= bit;
                }
                if self.set_id {
                    value |= bit;
                }
            }
        }
        if self.who == 0o777 {
            scope |= 0o1000;
            if self.sticky {
                value |= 0o1000;
            }
        }
        match self.operator {
            '+' => mode | value,
            '-' => mode & !value,
            _ => (mode & !scope) | value,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_and_symbolic_modes() {
        for (text, before, directory, after) in [
            ("755", 0o600, false, 0o755),
            ("04755", 0o600, false, 0o4755),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("+x", 0o644, false, 0o755),
            ("go-rwx", 0o755, false, 0o700),
            ("g=u", 0o640, false, 0o660),
            ("a=r,u+w", 0o777, false, 0o644),
            ("u+s,+t", 0o755, false, 0o5755),
            ("=", 0o755, false, 0),
        ] {
            let found = Chmod::parse(text).unwrap().apply(before, directory);
            assert_eq!(found, after, "{text} on {before:o}");
        }
        for bad in [
            "8",
            "10000",
            "u",
            "z+x",
            "u+q",
            "rwx",
            "u=rw,",
            "99999999999999999999",
        ] {
            assert!(Chmod::parse(bad).is_err(), "{bad}");
        }
    }
}
