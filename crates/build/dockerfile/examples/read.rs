//! Shows what the parser and the expansion make of a text, for comparing them with others.
//!
//! ```text
//! read tree FILE       the instructions as S-expressions
//! read lines FILE      first and last line of each instruction
//! read heredocs FILE   the here-documents of each instruction, as JSON
//! read expand          a JSON object {"word", "env", "mode": "word"|"words"} a line on standard input, one answer each
//! ```
//! The exit status is 1 for a text with an error.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{BufRead as _, Write as _};
use std::process::ExitCode;

use dhow_dockerfile::{Expand, Node, SyntaxError, nodes};
use serde_json::{Value, json};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["expand"] => expand_lines(),
        [what, path] => read(what, path),
        _ => Err("usage: read tree|lines|heredocs FILE, or read expand".to_owned()),
    };
    match done {
        Ok(text) => {
            // A closed pipe is the reader's own doing.
            drop(std::io::stdout().write_all(text.as_bytes()));
            ExitCode::SUCCESS
        }
        Err(message) => {
            drop(writeln!(std::io::stderr(), "{message}"));
            ExitCode::FAILURE
        }
    }
}

fn read(what: &str, path: &str) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("read {path}: {error}"))?;
    let nodes = nodes(&text).map_err(|error: SyntaxError| {
        let (line, column) = error.at.line_column(&text);
        format!("{path}:{line}:{column}: {error}")
    })?;
    let shown = nodes.iter().map(|node| match what {
        "tree" => format!("{}\n", tree(node)),
        "lines" => {
            let last = dhow_dockerfile::Span::new(node.at.end.saturating_sub(1), node.at.end);
            format!("{} {}\n", node.at.line_column(&text).0, last.line_column(&text).0)
        }
        _ => {
            let bodies = node.heredocs.iter().map(|body| {
                json!({
                    "Name": body.name, "Content": body.content, "Expand": body.expand,
                    "Chomp": body.chomp, "FileDescriptor": body.descriptor,
                })
            });
            format!("{}\n", Value::from_iter(bodies))
        }
    });
    Ok(shown.collect())
}

fn tree(node: &Node) -> String {
    let mut out = format!("({}", node.keyword);
    if !node.flags.is_empty() {
        let flags = node.flags.iter().map(|flag| {
            let value = flag
                .value
                .as_ref()
                .map_or_else(String::new, |value| format!("={value}"));
            quote(&format!("--{}{value}", flag.name))
        });
        out.push_str(&format!(" [{}]", flags.collect::<Vec<_>>().join(" ")));
    }
    if let Some(trigger) = &node.trigger {
        out.push_str(&format!(" {}", tree(trigger)));
    }
    for word in &node.words {
        out.push(' ');
        out.push_str(&quote(word));
    }
    out.push(')');
    out
}

/// As Go's `strconv.Quote`.
fn quote(word: &str) -> String {
    let mut out = "\"".to_owned();
    for c in word.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            c if u32::from(c) < 0x20 || c == '\x7f' => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn expand_lines() -> Result<String, String> {
    let mut out = String::new();
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|error| format!("read standard input: {error}"))?;
        let question: Value = serde_json::from_str(&line).map_err(|error| format!("{line}: {error}"))?;
        out.push_str(&format!("{}\n", expand(&question)));
    }
    Ok(out)
}

fn expand(question: &Value) -> Value {
    let env: BTreeMap<&str, &str> = question["env"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
        .collect();
    let asked = RefCell::new((Vec::new(), Vec::new()));
    let lookup = |name: &str| {
        let value = env.get(name).map(|value| (*value).to_owned());
        let mut asked = asked.borrow_mut();
        if value.is_some() {
            asked.0.push(name.to_owned());
        } else {
            asked.1.push(name.to_owned());
        }
        value
    };
    let word = question["word"].as_str().unwrap_or_default();
    let settings = Expand::default();
    let result = if question["mode"] == "words" {
        settings.words(word, &lookup).map(Value::from)
    } else {
        settings.word(word, &lookup).map(Value::from)
    };
    let (set, unset) = asked.into_inner();
    match result {
        Ok(value) => json!({"result": value, "set": set, "unset": unset}),
        Err(error) => json!({"error": error.message}),
    }
}
