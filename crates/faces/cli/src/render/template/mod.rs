//! Go templates over JSON: as much of `text/template` as docker's `--format` is used with.
//!
//! Values are [`serde_json::Value`]s. Actions: `{{.A.B}}`, pipelines, variables, `if`/`else if`/`else`, `range` with
//! `else`, `with` with `else`, `break`, `continue`, comments, trim markers. Functions: Go's own and docker's (see
//! `functions`). What a template may do is bounded: its length, its depth, its steps and its output.

mod eval;
mod functions;
mod lex;
mod parse;
#[cfg(test)]
mod tests;

use std::fmt;

use serde_json::{Map, Value};

/// Longest template that is taken.
const MAX_LENGTH: usize = 64 << 10;

/// A template that is ready to be filled in.
#[derive(Debug)]
pub(crate) struct Template {
    nodes: Vec<parse::Node>,
    text: String,
}

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TemplateError {
    line: usize,
    column: usize,
    message: String,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "template parsing error: template: :{}:{}: {}",
            self.line, self.column, self.message
        )
    }
}

impl std::error::Error for TemplateError {}

/// A message and the byte that it is about.
#[derive(Debug)]
struct Fault {
    at: usize,
    message: String,
}

impl Fault {
    fn new(at: usize, message: impl Into<String>) -> Self {
        Self {
            at,
            message: message.into(),
        }
    }

    fn place(self, text: &str) -> TemplateError {
        let (line, column) = dhow_types::Span::new(self.at, self.at).line_column(text);
        TemplateError {
            line,
            column,
            message: self.message,
        }
    }
}

impl Template {
    /// Reads a template.
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.len() > MAX_LENGTH {
            return Err(Fault::new(0, "the template is too long").place(text));
        }
        let nodes = lex::lex(text)
            .and_then(parse::parse)
            .map_err(|fault| fault.place(text))?;
        Ok(Self {
            nodes,
            text: text.to_owned(),
        })
    }

    /// Fills it in. `labels` answers `{{.Label "name"}}`.
    pub(crate) fn fill(
        &self,
        data: &Value,
        labels: Option<&Map<String, Value>>,
    ) -> Result<String, TemplateError> {
        eval::fill(&self.nodes, data, labels).map_err(|fault| fault.place(&self.text))
    }
}
