//! A unit file (systemd.syntax(7)) that is read, changed, and written again with its comments and its order.

use dhow_types::ErrorKind;

use crate::Error;
use crate::words::{self, Malformed};

/// Most lines of a file.
const MAX_LINES: usize = 100_000;

/// A file of groups with keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitFile {
    /// The name of the file.
    pub name: String,
    /// Where it is.
    pub path: String,
    groups: Vec<Group>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Group {
    name: String,
    /// Comments that stand before it.
    comments: Vec<String>,
    lines: Vec<Line>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Line {
    Comment(String),
    Key(String, String),
}

impl UnitFile {
    /// Reads a file's text.
    ///
    /// # Errors
    /// `InvalidArgument` for a line that is neither a group, nor a key with a value, nor a comment.
    pub fn parse(name: &str, path: &str, text: &str) -> Result<Self, Error> {
        let mut file = Self {
            name: name.to_owned(),
            path: path.to_owned(),
            groups: Vec::new(),
        };
        let mut lines: Vec<&str> = text.split('\n').collect();
        // After the last line's end there is no line.
        lines.pop_if(|last| last.is_empty());
        if lines.len() > MAX_LINES {
            return Err(bad(format!("it has more than {MAX_LINES} lines")));
        }
        let (mut here, mut comments, mut continued) = (None, Vec::new(), String::new());
        for (number, line) in lines.iter().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                // Among the lines of a value a comment is nothing.
                if continued.is_empty() {
                    comments.push(line.to_owned());
                }
                continue;
            }
            let line = match line.strip_suffix('\\') {
                Some(part) if number + 1 < lines.len() => {
                    continued.push_str(part);
                    continue;
                }
                Some(part) => {
                    continued.push_str(part);
                    break;
                }
                None => line,
            };
            let line = std::mem::take(&mut continued) + line;
            file.take(&line, number + 1, &mut here, &mut comments)?;
        }
        // A line that was to go on when the file ended.
        let rest = continued.trim_end_matches(|end: char| end == '\\' || end.is_whitespace());
        if !rest.is_empty() {
            file.take(rest, lines.len(), &mut here, &mut comments)?;
        }
        let last = here.unwrap_or_else(|| file.group_index(""));
        file.groups[last]
            .lines
            .extend(comments.into_iter().map(Line::Comment));
        Ok(file)
    }

    fn take(
        &mut self,
        line: &str,
        number: usize,
        here: &mut Option<usize>,
        comments: &mut Vec<String>,
    ) -> Result<(), Error> {
        if let Some(name) = group_name(line) {
            let index = self.group_index(name);
            *here = Some(index);
            // One empty line between groups is made when they are written.
            let skip = usize::from(comments.first().is_some_and(String::is_empty));
            self.groups[index].comments.extend(comments.drain(..).skip(skip));
            return Ok(());
        }
        let Some((key, value)) = line.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(bad(format!(
                "line {number}: {:?} is not a key-value pair, group, or comment",
                line.chars().take(80).collect::<String>()
            )));
        };
        let Some(index) = *here else {
            return Err(bad("key file does not start with a group".to_owned()));
        };
        let key = key.trim_end();
        if key.is_empty() || key.starts_with(' ') {
            return Err(bad(format!("invalid key name: {key:?}")));
        }
        let lines = &mut self.groups[index].lines;
        lines.extend(comments.drain(..).map(Line::Comment));
        lines.push(Line::Key(key.to_owned(), value.trim_start().to_owned()));
        Ok(())
    }

    /// Adds what a drop-in says.
    pub fn merge(&mut self, other: &Self) {
        for group in &other.groups {
            let index = self.group_index(&group.name);
            self.groups[index].comments.extend(group.comments.iter().cloned());
            self.groups[index].lines.extend(group.lines.iter().cloned());
        }
    }

    /// The name before an `@`, and what is after it (empty for a template).
    #[must_use]
    pub fn template(&self) -> Option<(&str, &str)> {
        self.stem().split_once('@')
    }

    /// Folders of drop-ins, those that count most first (systemd.unit(5)).
    #[must_use]
    pub fn drop_in_folders(&self) -> Vec<String> {
        let extension = self.name.rsplit_once('.').map_or("", |(_, extension)| extension);
        let (base, instance) = match self.template() {
            Some((base, instance)) => (base, Some(instance)),
            None => (self.stem(), None),
        };
        let mut folders = vec![format!("{extension}.d")];
        for (at, _) in base.match_indices('-') {
            let start = &base[..=at];
            folders.push(format!("{start}.{extension}.d"));
            if instance.is_some() {
                folders.push(format!("{start}@.{extension}.d"));
            }
        }
        if instance.is_some_and(|instance| !instance.is_empty()) {
            folders.push(format!("{base}@.{extension}.d"));
        }
        folders.push(format!("{}.d", self.name));
        folders.reverse();
        folders
    }

    /// The name without its end.
    pub(crate) fn stem(&self) -> &str {
        self.name
            .rsplit_once('.')
            .map_or(self.name.as_str(), |(stem, _)| stem)
    }

    fn group_index(&mut self, name: &str) -> usize {
        if let Some(index) = self.groups.iter().position(|group| group.name == name) {
            return index;
        }
        self.groups.push(Group {
            name: name.to_owned(),
            ..Group::default()
        });
        self.groups.len() - 1
    }

    fn values_of<'a>(&'a self, group: &str, key: &str) -> impl Iterator<Item = &'a str> {
        let groups = self.groups.iter().filter(move |one| one.name == group);
        groups
            .flat_map(|one| &one.lines)
            .filter_map(move |line| match line {
                Line::Key(name, value) if name == key => Some(value.as_str()),
                _ => None,
            })
    }

    /// The keys of a group, each once.
    pub(crate) fn keys(&self, group: &str) -> Vec<&str> {
        let mut keys = Vec::new();
        for line in self
            .groups
            .iter()
            .filter(|one| one.name == group)
            .flat_map(|one| &one.lines)
        {
            if let Line::Key(name, _) = line
                && !keys.contains(&name.as_str())
            {
                keys.push(name.as_str());
            }
        }
        keys
    }

    /// Whether a key is there at all.
    pub(crate) fn has(&self, group: &str, key: &str) -> bool {
        self.values_of(group, key).next().is_some()
    }

    /// The last value of a key, as it is written.
    pub(crate) fn last(&self, group: &str, key: &str) -> Option<&str> {
        self.values_of(group, key).last()
    }

    /// The same without quotes around the whole of it.
    pub(crate) fn text(&self, group: &str, key: &str) -> Option<&str> {
        let value = self.last(group, key)?.trim_end();
        let inner = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        Some(inner.unwrap_or(value))
    }

    /// The same, when it says something.
    pub(crate) fn some(&self, group: &str, key: &str) -> Option<&str> {
        self.text(group, key).filter(|text| !text.is_empty())
    }

    /// The last value as a switch.
    pub(crate) fn switch(&self, group: &str, key: &str) -> Option<bool> {
        let value = self.text(group, key)?.to_ascii_lowercase();
        Some(matches!(value.as_str(), "1" | "yes" | "true" | "on"))
    }

    /// All values; an empty one takes back those before it.
    pub(crate) fn all(&self, group: &str, key: &str) -> Vec<&str> {
        let mut values = Vec::new();
        for value in self.values_of(group, key) {
            if value.is_empty() {
                values.clear();
            } else {
                values.push(value);
            }
        }
        values
    }

    /// The words of all values, as names are listed.
    pub(crate) fn names(&self, group: &str, key: &str) -> Vec<String> {
        let values = self.all(group, key);
        values.into_iter().flat_map(words::plain).collect()
    }

    /// The words of all values, as arguments are; values that are no words are passed over.
    pub(crate) fn arguments(&self, group: &str, key: &str) -> Vec<String> {
        let values = self.all(group, key).into_iter();
        values
            .filter_map(|value| words::escaped(value).ok())
            .flatten()
            .collect()
    }

    /// The words of the last value.
    pub(crate) fn last_arguments(&self, group: &str, key: &str) -> Result<Option<Vec<String>>, Malformed> {
        self.last(group, key).map(words::escaped).transpose()
    }

    /// Sets the last line of a key, or adds one.
    pub(crate) fn set(&mut self, group: &str, key: &str, value: &str) {
        let index = self.group_index(group);
        let lines = &mut self.groups[index].lines;
        let last = lines.iter_mut().rev().find_map(|line| match line {
            Line::Key(name, value) if name == key => Some(value),
            _ => None,
        });
        match last {
            Some(last) => value.clone_into(last),
            None => lines.push(Line::Key(key.to_owned(), value.to_owned())),
        }
    }

    /// The same, unless the key is there.
    pub(crate) fn set_if_absent(&mut self, group: &str, key: &str, value: &str) {
        if !self.has(group, key) {
            self.set(group, key, value);
        }
    }

    /// Adds a line.
    pub(crate) fn add(&mut self, group: &str, key: &str, value: &str) {
        let index = self.group_index(group);
        let line = Line::Key(key.to_owned(), value.to_owned());
        self.groups[index].lines.push(line);
    }

    /// Adds a line before all others of its group.
    pub(crate) fn add_first(&mut self, group: &str, key: &str, value: &str) {
        let index = self.group_index(group);
        let line = Line::Key(key.to_owned(), value.to_owned());
        self.groups[index].lines.insert(0, line);
    }

    /// Takes a key's lines away.
    pub(crate) fn unset(&mut self, group: &str, key: &str) {
        for group in self.groups.iter_mut().filter(|one| one.name == group) {
            group
                .lines
                .retain(|line| !matches!(line, Line::Key(name, _) if name == key));
        }
    }

    /// Gives a group another name.
    pub(crate) fn rename_group(&mut self, from: &str, to: &str) {
        let Some(at) = self.groups.iter().position(|group| group.name == from) else {
            return;
        };
        if self.groups.iter().any(|group| group.name == to) {
            let moved = self.groups.remove(at);
            let index = self.group_index(to);
            self.groups[index].comments.extend(moved.comments);
            self.groups[index].lines.extend(moved.lines);
        } else {
            to.clone_into(&mut self.groups[at].name);
        }
    }

    /// Puts comments before everything.
    pub(crate) fn begin_with(&mut self, comments: &[&str]) {
        if let Some(first) = self.groups.first_mut() {
            let comments = comments.iter().map(|comment| format!("# {comment}"));
            first.comments.splice(0..0, comments);
        }
    }

    /// The text.
    #[must_use]
    pub fn text_of_all(&self) -> String {
        let mut out = String::new();
        for (index, group) in self.groups.iter().enumerate() {
            if index > 0 {
                out.push('\n');
            }
            for comment in &group.comments {
                out.push_str(&format!("{comment}\n"));
            }
            if !group.name.is_empty() {
                out.push_str(&format!("[{}]\n", group.name));
            }
            for line in &group.lines {
                out.push_str(&match line {
                    Line::Comment(text) => format!("{text}\n"),
                    Line::Key(key, value) => format!("{key}={value}\n"),
                });
            }
        }
        out
    }
}

/// `[Name]`.
fn group_name(line: &str) -> Option<&str> {
    let (name, rest) = line.strip_prefix('[')?.split_once(']')?;
    let good = !name.is_empty() && !name.contains('[') && !name.chars().any(char::is_control);
    (good && rest.trim().is_empty()).then_some(name)
}

fn bad(why: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> UnitFile {
        UnitFile::parse("web.container", "/etc/containers/systemd/web.container", text).unwrap()
    }

    #[test]
    fn values_may_have_several_lines_and_an_empty_one_takes_back() {
        let file = parse("# top\n\n[A]\nx = 1\nx=2\\\n # nothing\n 3\nx=\nx=4 \n\n; end\n[B]\ny=\"q r\"\n");
        assert_eq!(file.all("A", "x"), ["4"]);
        assert_eq!(file.text("B", "y"), Some("q r"));
        assert_eq!(file.keys("A"), ["x"]);
        let again = parse(&file.text_of_all());
        assert_eq!(again, file);
    }

    #[test]
    fn a_line_that_is_to_go_on_when_the_file_ends_counts() {
        for end in ["\\", "\\\n", "\\\n\n", " \\\n# comment\n", "\\\\\n\n"] {
            let file = parse(&format!("[A]\nx=1{end}"));
            assert_eq!(file.text("A", "x"), Some("1"), "{end:?}");
            assert_eq!(parse(&file.text_of_all()), file, "{end:?}");
        }
        for nothing in ["", "\\", "\n"] {
            let file = parse(nothing);
            assert_eq!(parse(&file.text_of_all()), file, "{nothing:?}");
        }
    }

    #[test]
    fn what_is_no_line_of_a_unit_is_named() {
        let error = UnitFile::parse("a", "a", "[A]\nnonsense\n").unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
        assert!(UnitFile::parse("a", "a", "x=1\n").is_err());
    }

    #[test]
    fn drop_ins_are_looked_for_from_the_nearest_on() {
        let mut file = parse("[A]\n");
        file.name = "a-b@c.container".to_owned();
        assert_eq!(
            file.drop_in_folders(),
            [
                "a-b@c.container.d",
                "a-b@.container.d",
                "a-@.container.d",
                "a-.container.d",
                "container.d"
            ]
        );
    }
}
