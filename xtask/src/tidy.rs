//! Sizes, names and words of the source.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines of a file, tests and blank lines included, and of a function.
const MAX_FILE: usize = 800;
const MAX_FUNCTION: usize = 80;
/// Endings that say nothing about a type.
const EMPTY_WORDS: &[&str] = &["Manager", "Helper", "Util", "Utils", "Inner", "Handler", "Impl"];
/// Words that promise work instead of doing it.
const PROMISES: &[&str] = &["todo!(", "unimplemented!(", "FIXME", "XXX:", "HACK"];

pub(crate) fn check() -> Result<String, Vec<String>> {
    let files = sources()?;
    let mut problems = Vec::new();
    for file in &files {
        let path = crate::root().join(file);
        let Ok(text) = std::fs::read_to_string(&path) else {
            continue;
        };
        problems.extend(check_file(file, &text));
    }
    problems.extend(unlisted_rooms());
    problems.extend(missing_cases(&files));
    problems.extend(known(&[])?.iter().filter(|file| is_stray(file)).map(|file| {
        let file = file.display();
        format!("tidy: {file}: binary, and neither a test's data nor a corpus")
    }));
    if problems.is_empty() {
        Ok(format!("{} files", files.len()))
    } else {
        Err(problems)
    }
}

/// Rust files that git knows, or would.
fn sources() -> Result<Vec<PathBuf>, Vec<String>> {
    known(&["*.rs"])
}

/// Whether a file is one that a program left behind: what is no text belongs to tests.
fn is_stray(file: &Path) -> bool {
    let part_is = |name: &str| file.components().any(|part| part.as_os_str() == name);
    if file.starts_with("fuzz/corpus") || part_is("tests") && part_is("data") {
        return false;
    }
    let mut start = Vec::new();
    let read = std::fs::File::open(crate::root().join(file))
        .and_then(|file| file.take(8 << 10).read_to_end(&mut start));
    read.is_ok() && start.contains(&0)
}

/// Files that git knows, or would.
fn known(patterns: &[&str]) -> Result<Vec<PathBuf>, Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "--"])
        .args(patterns)
        .current_dir(crate::root())
        .output()
        .map_err(|error| vec![format!("tidy: run git: {error}")])?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(PathBuf::from)
        .collect())
}

fn check_file(file: &Path, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let at = |line: usize, what: String| format!("tidy: {}:{line}: {what}", file.display());
    let lines = text.lines().count();
    let generated = text.starts_with("// @generated");
    if lines > MAX_FILE && !generated {
        problems.push(at(1, format!("file of {lines} lines, more than {MAX_FILE}")));
    }
    if file.starts_with("xtask") {
        return problems;
    }
    let product = !file.components().any(|part| {
        matches!(
            part.as_os_str().to_str(),
            Some("tests" | "testkit" | "benches" | "examples")
        )
    });
    for (index, line) in text.lines().enumerate() {
        if let Some(word) = PROMISES.iter().find(|word| line.contains(**word)) {
            problems.push(at(
                index + 1,
                format!("{word} promises work: do it, or give a clear error"),
            ));
        }
        if let Some(name) = declared_type(line).filter(|_| product)
            && let Some(word) = EMPTY_WORDS
                .iter()
                .find(|word| name.len() > word.len() && name.ends_with(**word))
        {
            problems.push(at(
                index + 1,
                format!("{name}: {word} says nothing; use a noun of the field's"),
            ));
        }
    }
    // A test may be one long table.
    if product && !generated && !file.ends_with("tests.rs") {
        problems.extend(long_functions(text).into_iter().map(|(line, name, length)| {
            at(
                line,
                format!("fn {name} has {length} lines, more than {MAX_FUNCTION}"),
            )
        }));
    }
    problems
}

fn declared_type(line: &str) -> Option<&str> {
    let line = line
        .trim_start()
        .trim_start_matches("pub ")
        .trim_start_matches("pub(crate) ")
        .trim_start_matches("pub(super) ");
    let rest = line
        .strip_prefix("struct ")
        .or_else(|| line.strip_prefix("enum "))
        .or_else(|| line.strip_prefix("trait "))?;
    let end = rest
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(rest.len());
    Some(&rest[..end])
}

/// Functions that are too long: the source is formatted, so a function ends where its indentation comes back.
fn long_functions(text: &str) -> Vec<(usize, String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = &line[..line.len() - line.trim_start().len()];
        let close = format!("{indent}}}");
        let has_body = lines[start..].iter().find_map(|line| match line.trim_end() {
            line if line.ends_with('{') || line.ends_with('}') => Some(true),
            line if line.ends_with(';') => Some(false),
            _ => None,
        });
        let end = lines[start..]
            .iter()
            .position(|line| *line == close)
            .filter(|_| has_body == Some(true));
        if let Some(length) = end.map(|end| end + 1).filter(|length| *length > MAX_FUNCTION) {
            found.push((start + 1, name.to_owned(), length));
        }
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    for word in [
        "pub(crate) ",
        "pub(super) ",
        "pub ",
        "const ",
        "async ",
        "unsafe ",
        "extern \"C\" ",
    ] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    let rest = rest.strip_prefix("fn ")?;
    Some(&rest[..rest.find(['(', '<'])?])
}

/// Every crate stands in ARCHITECTURE.md, so that a stranger finds it.
fn unlisted_rooms() -> Vec<String> {
    let architecture = std::fs::read_to_string(crate::root().join("ARCHITECTURE.md")).unwrap_or_default();
    let mut problems = Vec::new();
    for group in std::fs::read_dir(crate::root().join("crates"))
        .into_iter()
        .flatten()
        .flatten()
    {
        for room in std::fs::read_dir(group.path()).into_iter().flatten().flatten() {
            if room.path().join("Cargo.toml").exists() {
                let name = room.file_name().to_string_lossy().into_owned();
                if !architecture.contains(&format!("`{name}`")) {
                    problems.push(format!("tidy: ARCHITECTURE.md does not name the crate `{name}`"));
                }
            }
        }
    }
    problems
}

/// A case that the table of another program's tests names, `module::function`, is there.
fn missing_cases(files: &[PathBuf]) -> Vec<String> {
    let table = "conformance/build/BUILDKIT.md";
    let text = std::fs::read_to_string(crate::root().join(table)).unwrap_or_default();
    let cases = text
        .split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|word| word.split_once("::"));
    let is_there = |module: &str, function: &str| {
        let named = |path: &Path| path.file_stem().is_some_and(|stem| stem == module);
        let of = files
            .iter()
            .filter(|file| named(file) || file.ends_with("tests.rs") && file.parent().is_some_and(named));
        of.filter_map(|file| std::fs::read_to_string(crate::root().join(file)).ok())
            .any(|source| source.contains(&format!("fn {function}(")))
    };
    cases
        .filter(|(module, function)| !is_there(module, function))
        .map(|(module, function)| format!("tidy: {table}: there is no {module}::{function}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_as_long_as_its_lines() {
        let body = "    let x = 1;\n".repeat(90);
        let text = format!("fn short() {{\n}}\n\nimpl A {{\n    pub fn long(&self) {{\n{body}    }}\n}}\n");
        assert_eq!(long_functions(&text), [(5, "long".to_owned(), 92)]);
    }

    #[test]
    fn what_is_no_text_belongs_to_tests() {
        assert!(!is_stray(Path::new("xtask/src/tidy.rs")));
        assert!(!is_stray(Path::new("fuzz/corpus/packages/jar")));
        let stray = std::env::temp_dir().join(format!("tidy-stray-{}", std::process::id()));
        std::fs::write(&stray, b"a\0b").unwrap();
        assert!(is_stray(&stray));
        std::fs::remove_file(&stray).unwrap();
    }

    #[test]
    fn empty_words_and_promises_are_found() {
        let problems = check_file(
            Path::new("crates/a/src/b.rs"),
            "pub struct ImageManager;\n// FIXME later\n",
        );
        assert_eq!(problems.len(), 2, "{problems:?}");
    }
}
