//! The language as a person writes it, its errors with their places, and hostile texts.

mod errors;
mod expansion;
mod hostile;
mod language;
mod nodes;

use dhow_dockerfile::{Dockerfile, Instruction, Op, SyntaxError, parse};

/// Parses a good text.
fn good(text: &str) -> Dockerfile {
    parse(text).unwrap_or_else(|errors| panic!("{text:?}: {errors:?}"))
}

/// The only instruction of a stage `FROM scratch` followed by `text`.
fn one(text: &str) -> Instruction {
    let mut file = good(&format!("FROM scratch\n{text}\n"));
    assert_eq!(file.stages.len(), 1);
    assert_eq!(file.stages[0].instructions.len(), 1, "{text}");
    file.stages[0].instructions.remove(0)
}

fn op(text: &str) -> Op {
    one(text).op
}

/// The first error of a text.
fn bad(text: &str) -> SyntaxError {
    let errors = parse(text).expect_err(text);
    errors.into_iter().next().expect("an error list is never empty")
}
