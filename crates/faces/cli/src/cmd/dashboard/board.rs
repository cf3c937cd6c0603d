//! What the screen of `top` shows, and what keys mean: no terminal, no engine.

use dhow_types::{human_binary_size, human_size};

use crate::render::table::ellipsis;

/// Lines of a log that are kept.
const LOG_LINES: usize = 500;

/// One container.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Line {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) image: String,
    /// Docker's words: `Up 3 minutes (healthy)`.
    pub(super) status: String,
    pub(super) running: bool,
    pub(super) paused: bool,
    pub(super) unhealthy: bool,
    /// Percent of one CPU.
    pub(super) cpu: f64,
    /// Bytes, without the page cache that can go.
    pub(super) memory: u64,
    pub(super) limit: u64,
    /// Bytes a second, received and sent.
    pub(super) network: (u64, u64),
    /// Bytes a second, read and written.
    pub(super) block: (u64, u64),
    pub(super) processes: u64,
}

/// By what the containers are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Order {
    #[default]
    Name,
    Cpu,
    Memory,
}

/// What is done to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    Stop,
    Start,
    Restart,
    Kill,
    Pause,
    Unpause,
    Remove,
    Exec,
}

impl Deed {
    /// The words of the command that does it.
    pub(super) const fn words(self) -> &'static [&'static str] {
        match self {
            Self::Stop => &["stop"],
            Self::Start => &["start"],
            Self::Restart => &["restart"],
            Self::Kill => &["kill"],
            Self::Pause => &["pause"],
            Self::Unpause => &["unpause"],
            Self::Remove => &["rm", "-f"],
            Self::Exec => &["exec", "-it"],
        }
    }
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Only what is shown changed.
    Nothing,
    /// Another container's log.
    Another,
    Do(Deed),
    Leave,
}

/// The screen.
#[derive(Debug, Default)]
pub(super) struct Board {
    lines: Vec<Line>,
    /// Id of the container that keys are about.
    chosen: String,
    order: Order,
    pub(super) logs: bool,
    help: bool,
    /// A removal that waits for `y`.
    asked: bool,
    log: std::collections::VecDeque<String>,
    pub(super) message: String,
}

const HELP: &str = "
  up, down, j, k   another container         l       its log, or not
  g, G             the first, the last       o       sort by name, CPU or memory
  s                stop it, or start it      enter   a shell in it
  r                restart it                p       pause it, or go on
  K                kill it                   d       remove it, after y
  ?                this                      q       leave
";
const KEYS: &str =
    "s stop/start  r restart  p pause  K kill  d remove  enter shell  l log  o order  ? help  q leave";

impl Board {
    /// The containers as they are now; the chosen one stays it, wherever it is now.
    pub(super) fn update(&mut self, lines: Vec<Line>) {
        let at = self.at().unwrap_or(0);
        self.lines = lines;
        self.sort();
        if self.at().is_none() {
            let last = self.lines.len().saturating_sub(1);
            self.chosen = self
                .lines
                .get(at.min(last))
                .map(|line| line.id.clone())
                .unwrap_or_default();
        }
    }

    fn sort(&mut self) {
        match self.order {
            Order::Name => self.lines.sort_by(|a, b| a.name.cmp(&b.name)),
            Order::Cpu => self
                .lines
                .sort_by(|a, b| b.cpu.total_cmp(&a.cpu).then(a.name.cmp(&b.name))),
            Order::Memory => self
                .lines
                .sort_by(|a, b| b.memory.cmp(&a.memory).then(a.name.cmp(&b.name))),
        }
        // What runs comes first, whatever the order.
        self.lines.sort_by_key(|line| !line.running);
    }

    fn at(&self) -> Option<usize> {
        self.lines.iter().position(|line| line.id == self.chosen)
    }

    /// The container that keys are about.
    pub(super) fn chosen(&self) -> Option<&Line> {
        self.lines.iter().find(|line| line.id == self.chosen)
    }

    /// Empties the log pane: another container's comes.
    pub(super) fn forget_log(&mut self) {
        self.log.clear();
    }

    /// More of the chosen one's log.
    pub(super) fn add_log(&mut self, text: &str) {
        for line in text.lines() {
            self.log.push_back(line.to_owned());
        }
        let over = self.log.len().saturating_sub(LOG_LINES);
        self.log.drain(..over);
    }

    /// What a key asks for. `key` is a character, or an escape sequence of an arrow.
    pub(super) fn press(&mut self, key: &[u8]) -> Wish {
        self.message.clear();
        if std::mem::take(&mut self.asked) && key == b"y" {
            return Wish::Do(Deed::Remove);
        }
        let running = self.chosen().is_some_and(|line| line.running);
        let paused = self.chosen().is_some_and(|line| line.paused);
        match key {
            b"q" | b"\x03" => return Wish::Leave,
            b"\x1b[A" | b"\x1bOA" | b"k" => return self.step(-1),
            b"\x1b[B" | b"\x1bOB" | b"j" => return self.step(1),
            b"g" => return self.step(isize::MIN),
            b"G" => return self.step(isize::MAX),
            b"l" => {
                self.logs = !self.logs;
                return Wish::Another;
            }
            b"o" => {
                self.order = match self.order {
                    Order::Name => Order::Cpu,
                    Order::Cpu => Order::Memory,
                    Order::Memory => Order::Name,
                };
                self.sort();
            }
            b"?" => self.help = !self.help,
            _ if self.chosen().is_none() => {}
            b"s" if running => return Wish::Do(Deed::Stop),
            b"s" => return Wish::Do(Deed::Start),
            b"r" => return Wish::Do(Deed::Restart),
            b"K" if running => return Wish::Do(Deed::Kill),
            b"p" if paused => return Wish::Do(Deed::Unpause),
            b"p" if running => return Wish::Do(Deed::Pause),
            b"\r" | b"\n" if running => return Wish::Do(Deed::Exec),
            b"d" => {
                let name = self.chosen().map_or("", |line| line.name.as_str());
                self.message = format!("remove {name}? y or n");
                self.asked = true;
            }
            _ => {}
        }
        Wish::Nothing
    }

    fn step(&mut self, by: isize) -> Wish {
        let last = self.lines.len().saturating_sub(1);
        let at = self.at().unwrap_or(0).saturating_add_signed(by).min(last);
        let before = std::mem::take(&mut self.chosen);
        self.chosen = self.lines.get(at).map(|line| line.id.clone()).unwrap_or_default();
        if self.chosen == before {
            Wish::Nothing
        } else {
            Wish::Another
        }
    }

    /// The whole screen, a line for each row and none longer than it is wide.
    pub(super) fn draw(&self, (rows, columns): (u16, u16), colour: bool) -> String {
        let (rows, columns) = (usize::from(rows.max(4)), usize::from(columns.max(20)));
        let mut lines = vec![self.title()];
        if self.help {
            lines.extend(HELP.lines().map(str::to_owned));
        } else {
            self.body(rows - 2, columns, colour, &mut lines);
        }
        lines.resize(rows - 1, String::new());
        let last = if self.message.is_empty() {
            KEYS
        } else {
            &self.message
        };
        lines.push(last.to_owned());
        let mut out = String::from("\x1b[H");
        for (index, line) in lines.iter().enumerate() {
            if index > 0 {
                out.push_str("\r\n");
            }
            out.push_str(&cut(line, columns));
            out.push_str("\x1b[K");
        }
        out
    }

    fn title(&self) -> String {
        let running = self.lines.iter().filter(|line| line.running).count();
        let cpu: f64 = self.lines.iter().map(|line| line.cpu).sum();
        let memory: u64 = self.lines.iter().map(|line| line.memory).sum();
        let order = match self.order {
            Order::Name => "name",
            Order::Cpu => "CPU",
            Order::Memory => "memory",
        };
        format!(
            "{running} of {} containers run   CPU {cpu:.1}%   memory {}   by {order}",
            self.lines.len(),
            human_binary_size(memory)
        )
    }

    fn body(&self, room: usize, columns: usize, colour: bool, lines: &mut Vec<String>) {
        let pane = if self.logs { room / 2 } else { 0 };
        let list = room.saturating_sub(pane + 1).max(1);
        lines.push(format!(
            "  {:<20} {:>7} {:>21} {:>17} {:>17} {:>5}  {:<20} {}",
            "NAME", "CPU %", "MEMORY / LIMIT", "NET IN/OUT", "DISK IN/OUT", "PIDS", "STATUS", "IMAGE"
        ));
        let at = self.at().unwrap_or(0);
        let first = (at + 1).saturating_sub(list);
        for line in self.lines.iter().skip(first).take(list) {
            lines.push(self.row(line, columns, colour));
        }
        if pane > 0 {
            lines.resize(room + 1 - pane, String::new());
            let name = self.chosen().map_or("", |line| line.name.as_str());
            lines.push(format!("--- log of {name} "));
            let shown = self.log.len().saturating_sub(pane - 1);
            lines.extend(self.log.iter().skip(shown).cloned());
        }
    }

    fn row(&self, line: &Line, columns: usize, colour: bool) -> String {
        let chosen = line.id == self.chosen;
        let mut text = format!(
            "{} {:<20} ",
            if chosen { '>' } else { ' ' },
            ellipsis(&line.name, 20)
        );
        let rate = |(first, second): (u64, u64)| format!("{}/{}", human_size(first), human_size(second));
        text.push_str(&if line.running {
            format!(
                "{:>7.1} {:>21} {:>17} {:>17} {:>5}",
                line.cpu,
                format!(
                    "{} / {}",
                    human_binary_size(line.memory),
                    human_binary_size(line.limit)
                ),
                rate(line.network),
                rate(line.block),
                line.processes
            )
        } else {
            " ".repeat(71)
        });
        text.push_str(&format!("  {:<20} {}", ellipsis(&line.status, 20), line.image));
        let text = cut(&text, columns);
        match (colour, chosen, line.running, line.unhealthy) {
            (false, ..) => text,
            (_, true, ..) => format!("\x1b[7m{text}\x1b[0m"),
            (_, _, _, true) => format!("\x1b[31m{text}\x1b[0m"),
            (_, _, false, _) => format!("\x1b[2m{text}\x1b[0m"),
            _ => text,
        }
    }
}

/// As much as fits. What a container wrote moves no cursor and changes no colour of ours.
fn cut(line: &str, columns: usize) -> String {
    if line.starts_with("\x1b[") && line.ends_with("\x1b[0m") {
        // A row of ours, cut before it was coloured.
        return line.to_owned();
    }
    let shown = |c: char| if c == '\t' { ' ' } else { c };
    let plain = line.chars().map(shown).filter(|c| !c.is_control());
    plain.take(columns).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, running: bool, cpu: f64, memory: u64) -> Line {
        Line {
            id: format!("id-{name}"),
            name: name.to_owned(),
            image: "busybox".to_owned(),
            status: if running {
                "Up 2 minutes"
            } else {
                "Exited (0) 1 hour ago"
            }
            .to_owned(),
            running,
            cpu,
            memory,
            limit: 1 << 30,
            ..Line::default()
        }
    }

    fn board() -> Board {
        let mut board = Board::default();
        board.update(vec![
            line("web", true, 1.5, 20 << 20),
            line("db", true, 90.0, 10 << 20),
            line("old", false, 0.0, 0),
        ]);
        board
    }

    fn shown(board: &Board) -> Vec<String> {
        let text = board
            .draw((8, 90), false)
            .replace("\x1b[H", "")
            .replace("\x1b[K", "");
        text.split("\r\n").map(str::to_owned).collect()
    }

    #[test]
    fn what_runs_comes_first_and_the_chosen_one_is_marked() {
        let mut board = board();
        let lines = shown(&board);
        assert_eq!(lines.len(), 8);
        assert_eq!(
            lines[0],
            "2 of 3 containers run   CPU 91.5%   memory 30MiB   by name"
        );
        assert!(
            lines[2].starts_with("> db ") && lines[3].starts_with("  web ") && lines[4].starts_with("  old ")
        );
        assert_eq!(board.press(b"o"), Wish::Nothing);
        board.press(b"o");
        assert!(
            shown(&board)[2].starts_with("  web "),
            "by memory, and db is still chosen"
        );
        assert!(shown(&board).iter().all(|line| line.chars().count() <= 90));
    }

    #[test]
    fn keys_ask_for_what_can_be_done() {
        let mut board = board();
        assert_eq!(board.press(b"s"), Wish::Do(Deed::Stop));
        assert_eq!(board.press(b"\x1b[B"), Wish::Another);
        assert_eq!(board.press(b"G"), Wish::Another);
        assert_eq!(board.chosen().unwrap().name, "old");
        assert_eq!(board.press(b"j"), Wish::Nothing);
        assert_eq!(board.press(b"s"), Wish::Do(Deed::Start));
        assert_eq!(
            board.press(b"\r"),
            Wish::Nothing,
            "nobody enters what does not run"
        );
        assert_eq!(board.press(b"d"), Wish::Nothing);
        assert!(board.message.contains("remove old?"));
        assert_eq!(board.press(b"n"), Wish::Nothing);
        assert_eq!(board.press(b"y"), Wish::Nothing, "y alone removes nothing");
        board.press(b"d");
        assert_eq!(board.press(b"y"), Wish::Do(Deed::Remove));
        assert_eq!(board.press(b"q"), Wish::Leave);
        let mut empty = Board::default();
        for key in [&b"s"[..], b"j", b"G", b"d", b"\r"] {
            assert_eq!(empty.press(key), Wish::Nothing);
        }
        assert_eq!(empty.draw((1, 1), true).matches("\r\n").count(), 3);
    }

    #[test]
    fn a_log_moves_no_cursor() {
        let mut board = board();
        board.press(b"l");
        board.add_log("one\n\x1b[2Jtwo\x07\n");
        let lines = shown(&board);
        assert!(lines.contains(&"--- log of db ".to_owned()), "{lines:?}");
        assert!(lines.contains(&"[2Jtwo".to_owned()), "{lines:?}");
    }
}
