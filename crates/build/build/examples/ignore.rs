//! Answers questions about patterns of `.dockerignore`, for comparing them with others: a JSON object a line on
//! standard input, one answer each.
//!
//! ```text
//! {"patterns": [".."], "path": ".."}   whether the list leaves the path out
//! {"pattern": "..", "path": ".."}      whether the pattern matches the path itself
//! {"text": ".."}                       the patterns of a file
//! ```

use std::io::{BufRead as _, Write as _};
use std::process::ExitCode;

use dhow_build::compare::{leaves_out, lines, matches};
use serde_json::{Value, json};

fn main() -> ExitCode {
    for line in std::io::stdin().lock().lines() {
        let answer = line
            .map_err(|error| error.to_string())
            .and_then(|line| serde_json::from_str(&line).map_err(|error| error.to_string()))
            .and_then(|question| answer(&question));
        let answer = answer.map_or_else(
            |error| json!({"error": error}),
            |result| json!({"result": result}),
        );
        if writeln!(std::io::stdout(), "{answer}").is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn answer(question: &Value) -> Result<Value, String> {
    let path = question["path"].as_str().unwrap_or_default();
    let result = if let Some(patterns) = question["patterns"].as_array() {
        let patterns: Vec<String> = patterns
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        leaves_out(&patterns, path).map(Value::from)
    } else if let Some(pattern) = question["pattern"].as_str() {
        matches(pattern, path).map(Value::from)
    } else {
        Ok(Value::from(lines(question["text"].as_str().unwrap_or_default())))
    };
    result.map_err(|error| error.to_string())
}
