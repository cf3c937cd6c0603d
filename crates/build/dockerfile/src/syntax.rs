use dhow_types::{Span, SyntaxError};

/// The front end that a text asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syntax {
    /// Where.
    pub at: Span,
    /// Name of the front end's image.
    pub frontend: String,
}

/// Whether the built-in parser speaks for this front end: `docker/dockerfile` and its upstream twin in every
/// tag, channel and digest. Asking a registry for such an image would gain nothing.
#[must_use]
pub fn is_builtin_frontend(image: &str) -> bool {
    let image = image.split('@').next().unwrap_or(image);
    let name = image
        .strip_prefix("docker.io/")
        .or_else(|| image.strip_prefix("index.docker.io/"))
        .unwrap_or(image);
    let name = name.split(':').next().unwrap_or(name);
    matches!(
        name,
        "docker/dockerfile" | "docker/dockerfile-upstream" | "dockerfile.v0"
    )
}

/// Finds the front end of a text in the three forms that docker knows: `# syntax=`, `// syntax=` (both also
/// after a `#!` line) and a JSON object with the member `syntax`.
pub(crate) fn detect(text: &str) -> Option<Syntax> {
    let found = ["#", "//"]
        .into_iter()
        .find_map(|comment| detect_in_comments(text, comment, "syntax"));
    match found {
        Some((at, value)) => Some(Syntax {
            at,
            frontend: value.split(' ').next().unwrap_or_default().to_owned(),
        }),
        None => detect_in_json(text),
    }
}

/// Finds the `# check=` directive, also after a `#!` line: its place and value.
pub(crate) fn detect_check(text: &str) -> Option<(Span, &str)> {
    detect_in_comments(text, "#", "check")
}

/// Finds a directive at the start of a text.
fn detect_in_comments<'a>(text: &'a str, comment: &str, wanted: &str) -> Option<(Span, &'a str)> {
    let mut offset = if text.starts_with("#!") {
        text.find('\n').map_or(text.len(), |newline| newline + 1)
    } else {
        0
    };
    for line in text[offset..].split_inclusive('\n') {
        let directive = directive(line, comment)?;
        if directive.name == wanted {
            return Some((Span::new(offset, offset + line.trim_end().len()), directive.value));
        }
        offset += line.len();
    }
    None
}

fn detect_in_json(text: &str) -> Option<Syntax> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
    let frontend = object.get("syntax")?.as_str()?.to_owned();
    Some(Syntax {
        at: Span::new(0, text.find('\n').unwrap_or(text.len())),
        frontend,
    })
}

/// One parser directive.
pub(crate) struct Directive<'a> {
    pub(crate) name: String,
    pub(crate) value: &'a str,
}

/// Reads `# name = value` when the name is one of a directive.
pub(crate) fn directive<'a>(line: &'a str, comment: &str) -> Option<Directive<'a>> {
    let line = line.strip_prefix(comment)?.trim();
    let (name, value) = line.split_once('=')?;
    let name = name.trim_end().to_ascii_lowercase();
    let value = value.trim_start();
    (!value.is_empty() && matches!(name.as_str(), "syntax" | "escape" | "check"))
        .then_some(Directive { name, value })
}

/// The error for a front end that is not ours.
pub(crate) fn unsupported(syntax: &Syntax) -> SyntaxError {
    SyntaxError {
        at: syntax.at,
        message: format!(
            "the front end {:?} is not supported",
            syntax.frontend.chars().take(128).collect::<String>()
        ),
        hint: Some(
            "remove the syntax line, or use docker/dockerfile:1, which is built in and never pulled"
                .to_owned(),
        ),
    }
}
