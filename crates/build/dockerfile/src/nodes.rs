//! Instructions before anything in them is understood, for comparing the parser with others.

use dhow_types::{Span, SyntaxError};

use crate::heredoc;
use crate::lines::{Line, Lines, Logical, join};
use crate::syntax;
use crate::tree::{Flag, Heredoc};
use crate::words::{json_words, pairs, plain_words, shell_words, split};

/// An instruction as its words; also one that does not exist or lacks arguments.
#[doc(hidden)]
#[derive(Debug)]
pub struct Node {
    /// Where, here-documents included.
    pub at: Span,
    /// In lower case.
    pub keyword: String,
    /// Flags.
    pub flags: Vec<Flag>,
    /// Words; of a pair of `ENV` and `LABEL`: key, value, and `=` or nothing.
    pub words: Vec<String>,
    /// What an `ONBUILD` defers.
    pub trigger: Option<Box<Self>>,
    /// Here-documents.
    pub heredocs: Vec<Heredoc>,
    /// Whether the words were a JSON array.
    json: bool,
}

/// Splits a text into instructions, with the pieces that [`crate::parse`] is made of.
///
/// # Errors
/// The first error of the text.
#[doc(hidden)]
pub fn nodes(text: &str) -> Result<Vec<Node>, SyntaxError> {
    let start = if text.starts_with('\u{feff}') { 3 } else { 0 };
    let mut lines = Lines::new(text, start);
    let (mut escape, mut directives) = ('\\', true);
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let trimmed = line.bare().trim_start();
        let directive = syntax::directive(trimmed, "#").filter(|_| directives);
        match directive {
            Some(directive) if directive.name == "escape" => {
                escape = directive.value.chars().next().unwrap_or('\\');
            }
            Some(_) => {}
            None => directives = false,
        }
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        found.push(node(line, &mut lines, escape)?);
    }
    if found.is_empty() {
        let (at, message) = (Span::new(0, 0), "file with no instructions".to_owned());
        return Err(SyntaxError {
            at,
            message,
            hint: None,
        });
    }
    Ok(found)
}

fn node<'a>(line: Line<'a>, lines: &mut Lines<'a>, escape: char) -> Result<Node, SyntaxError> {
    let logical = join(line, lines, escape);
    let mut node = understand(&logical, escape)?;
    let holder = node.trigger.as_deref().unwrap_or(&node);
    if matches!(holder.keyword.as_str(), "add" | "copy" | "run") && !holder.json {
        let at = Span::new(logical.start, logical.end);
        let mut heredocs = heredoc::announced(&logical.text);
        for heredoc in &mut heredocs {
            heredoc::read_body(heredoc, lines, at)?;
            node.at.end = lines.offset();
        }
        node.heredocs = heredocs;
    }
    Ok(node)
}

fn understand(logical: &Logical, escape: char) -> Result<Node, SyntaxError> {
    let parts = split(logical, escape)?;
    let keyword = parts.keyword.to_ascii_lowercase();
    let at = Span::new(logical.start, logical.end);
    let wrong = |message| SyntaxError {
        at,
        message,
        hint: None,
    };
    let list = |words: Option<Result<Vec<String>, String>>| words.transpose().map_err(wrong);
    let text = parts.arguments;
    let one = |text: &str| Vec::from_iter(Some(text.to_owned()).filter(|text| !text.is_empty()));
    let mut trigger = None;
    let words = match keyword.as_str() {
        "add" | "copy" | "volume" => list(json_words(text))?.unwrap_or_else(|| plain_words(text)),
        "expose" | "from" => plain_words(text),
        "arg" => shell_words(text, escape),
        "cmd" | "entrypoint" | "run" | "shell" => list(json_words(text))?.unwrap_or_else(|| one(text)),
        "env" | "label" => {
            let pairs = pairs(text, &keyword, escape).map_err(wrong)?.into_iter();
            pairs
                .flat_map(|pair| {
                    [
                        pair.key,
                        pair.value,
                        if pair.legacy { "" } else { "=" }.to_owned(),
                    ]
                })
                .collect()
        }
        "healthcheck" => {
            let (kind, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
            let rest = rest.trim_start();
            let mut words = one(kind);
            words.extend(list(json_words(rest))?.unwrap_or_else(|| one(rest)));
            words
        }
        "maintainer" | "stopsignal" | "user" | "workdir" => one(text),
        "onbuild" if !text.is_empty() => {
            let mut lines = Lines::new(text, 0);
            if let Some(line) = lines.next() {
                trigger = Some(Box::new(understand(&join(line, &mut lines, escape), escape)?));
            }
            Vec::new()
        }
        _ => Vec::new(),
    };
    Ok(Node {
        at,
        keyword,
        flags: parts.flags,
        words,
        trigger,
        heredocs: Vec::new(),
        json: json_words(text).is_some(),
    })
}
