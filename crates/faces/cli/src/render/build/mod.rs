//! How a build looks: lines in a pipe, a tree on a terminal, an excerpt when it fails.

pub(crate) mod call;
mod classic;
mod excerpt;
mod live;
mod plain;
mod rawjson;
mod stepwise;
mod why;

use std::collections::HashMap;
use std::collections::VecDeque;
use std::time::Instant;

pub(crate) use call::Written;
pub(crate) use classic::Classic;
pub(crate) use excerpt::failure;
pub(crate) use live::Live;
pub(crate) use plain::Plain;
pub(crate) use rawjson::RawJson;
pub(crate) use stepwise::{Stepwise, instruction};
pub(crate) use why::Why;

/// Lines of a step's output that are kept to be shown when it fails.
const KEPT: usize = 40;
/// Longest line that is kept.
const LONGEST: usize = 4096;

/// A step that runs or ran.
#[derive(Debug)]
struct Step {
    /// Its number for people, in the order of beginnings.
    number: usize,
    name: String,
    begun: Instant,
    /// The last whole lines, each with the seconds at which it came.
    lines: VecDeque<(f64, String)>,
    /// Whether its end has been told.
    over: bool,
    /// The line that has no end yet.
    open: Vec<u8>,
}

impl Step {
    fn new(number: usize, name: &str) -> Self {
        Self {
            number,
            name: name.to_owned(),
            begun: Instant::now(),
            lines: VecDeque::new(),
            over: false,
            open: Vec::new(),
        }
    }

    /// Takes output; `each` gets every line that is whole now.
    fn take(&mut self, bytes: &[u8], mut each: impl FnMut(f64, &str)) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.open.extend_from_slice(&rest[..end]);
            rest = &rest[end + 1..];
            self.close(&mut each);
        }
        self.open.extend_from_slice(rest);
        if self.open.len() > LONGEST {
            self.close(&mut each);
        }
    }

    fn close(&mut self, each: &mut impl FnMut(f64, &str)) {
        let line = String::from_utf8_lossy(&self.open).into_owned();
        self.open.clear();
        // A progress bar writes over its own line: the last state is what counts.
        let line = line
            .trim_end_matches('\r')
            .rsplit('\r')
            .next()
            .unwrap_or("")
            .to_owned();
        let at = self.begun.elapsed().as_secs_f64();
        each(at, &line);
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back((at, line));
    }

    fn end(&mut self, mut each: impl FnMut(f64, &str)) {
        if !self.open.is_empty() {
            self.close(&mut each);
        }
    }
}

/// The steps of a build, by the builder's numbers.
#[derive(Debug, Default)]
struct Steps {
    known: HashMap<u32, Step>,
    count: usize,
}

impl Steps {
    fn begin(&mut self, id: u32, name: &str) -> &mut Step {
        self.count += 1;
        let number = self.count;
        self.known.entry(id).or_insert_with(|| Step::new(number, name))
    }

    /// Output of the step of this name that failed.
    fn tail(&self, name: &str) -> Vec<(f64, String)> {
        let step = self
            .known
            .values()
            .filter(|step| step.name == name)
            .max_by_key(|step| step.number);
        step.map(|step| step.lines.iter().cloned().collect())
            .unwrap_or_default()
    }
}

/// A text that may have come from a container, without what would steer the terminal.
pub(crate) fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            // CSI: parameters, then one letter.
            '\u{1b}' => {
                if characters.next() == Some('[') {
                    while characters
                        .next()
                        .is_some_and(|c| !('\u{40}'..='\u{7e}').contains(&c))
                    {}
                }
            }
            '\t' => out.push_str("    "),
            control if control.is_control() => {}
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_cut_into_lines_and_a_bar_leaves_its_last_state() {
        let mut step = Step::new(1, "x");
        let mut lines = Vec::new();
        step.take(b"one\ntw", |_, line| lines.push(line.to_owned()));
        step.take(b"o\r\n10%\r100%\nrest", |_, line| lines.push(line.to_owned()));
        step.end(|_, line| lines.push(line.to_owned()));
        assert_eq!(lines, ["one", "two", "100%", "rest"]);
    }

    #[test]
    fn what_steers_a_terminal_is_left_out() {
        assert_eq!(harmless("a\u{1b}[31mred\u{1b}[0m\u{7}b\tc"), "aredb    c");
    }
}
