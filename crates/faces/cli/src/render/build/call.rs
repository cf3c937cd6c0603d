//! What `build --check` and `--call` print, in docker's words (moby/buildkit `frontend/subrequests`, docker/buildx
//! `commands/build.go`).

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dhow_engine::{BuildChecked, BuildOutline, BuildTarget, BuildWarning};
use dhow_types::Span;
use serde::Serialize;

use super::excerpt::excerpt;

/// A Dockerfile: its name and its text.
#[derive(Clone, Copy)]
pub(crate) struct Written<'a> {
    pub(crate) name: &'a str,
    pub(crate) text: &'a str,
}

#[derive(Serialize)]
struct Position {
    line: usize,
}

#[derive(Serialize)]
struct Range {
    start: Position,
    end: Position,
}

#[derive(Serialize)]
struct Location {
    ranges: Vec<Range>,
}

impl Written<'_> {
    /// Docker has a range for every line.
    fn location(self, at: Span) -> Location {
        let (first, last) = self.lines(at);
        let range = |line| Range {
            start: Position { line },
            end: Position { line },
        };
        Location {
            ranges: (first..=last).map(range).collect(),
        }
    }

    fn lines(self, at: Span) -> (usize, usize) {
        let end = at.end.saturating_sub(1).max(at.start);
        let first = at.line_column(self.text).0;
        (first, Span::new(end, end).line_column(self.text).0.max(first))
    }

    fn bytes(self) -> String {
        STANDARD.encode(self.text)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WarningDocument {
    rule_name: &'static str,
    description: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    detail: String,
    location: Location,
}

#[derive(Serialize)]
struct SourceDocument {
    filename: String,
    language: &'static str,
    data: String,
}

#[derive(Serialize)]
struct ErrorDocument {
    message: String,
    location: Location,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CheckDocument {
    warnings: Option<Vec<WarningDocument>>,
    sources: Vec<SourceDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    build_error: Option<ErrorDocument>,
}

fn pretty(document: &impl Serialize) -> String {
    // These documents have nothing that JSON could not hold.
    let text = serde_json::to_string_pretty(document).unwrap_or_default();
    format!("{text}\n")
}

/// `--call check,format=json`.
pub(crate) fn check_json(checked: &BuildChecked, source: Written<'_>) -> String {
    let warnings = checked.warnings.iter().map(|warning| WarningDocument {
        rule_name: warning.rule.name(),
        description: warning.rule.description(),
        url: warning.rule.url(),
        detail: warning.detail.clone(),
        location: source.location(warning.at),
    });
    let warnings: Vec<WarningDocument> = warnings.collect();
    pretty(&CheckDocument {
        // Go writes a list of nothing as null.
        warnings: Some(warnings).filter(|warnings| !warnings.is_empty()),
        sources: vec![SourceDocument {
            filename: source.name.to_owned(),
            language: "Dockerfile",
            data: source.bytes(),
        }],
        build_error: checked.error.as_ref().map(|failed| ErrorDocument {
            message: crate::error::chain(&failed.error),
            location: failed.place.as_ref().map_or_else(
                || Location { ranges: Vec::new() },
                |place| source.location(place.span),
            ),
        }),
    })
}

/// What `--check` prints on standard output; the error of the file is shown apart.
pub(crate) fn check_text(checked: &BuildChecked, source: Written<'_>) -> String {
    let mut out = match checked.warnings.len() {
        0 if checked.error.is_some() => String::new(),
        0 => "Check complete, no warnings found.\n".to_owned(),
        1 => "Check complete, 1 warning has been found!\n".to_owned(),
        count => format!("Check complete, {count} warnings have been found!\n"),
    };
    let mut warnings: Vec<&BuildWarning> = checked.warnings.iter().collect();
    warnings.sort_by_key(|warning| source.lines(warning.at).0);
    for warning in warnings {
        let url = warning
            .rule
            .url()
            .map_or_else(String::new, |url| format!(" - {url}"));
        out.push_str(&format!(
            "\nWARNING: {}{url}\n{}\n",
            warning.rule.name(),
            warning.detail
        ));
        excerpt(&mut out, source.name, source.text, warning.at);
    }
    out
}

/// What a build says of its Dockerfile at its end; empty when there is nothing to say.
pub(crate) fn warnings(warnings: &[BuildWarning], source: Written<'_>) -> String {
    let count = match warnings.len() {
        0 => return String::new(),
        1 => "1 warning".to_owned(),
        count => format!("{count} warnings"),
    };
    let mut out = format!("\n {count} found (use dhow build --check to see the lines):\n");
    for warning in warnings {
        let line = source.lines(warning.at).0;
        // Writing to a string cannot fail.
        writeln!(
            out,
            " - {}: {} (line {line})",
            warning.rule.name(),
            warning.detail
        )
        .unwrap_or_default();
    }
    out
}

#[derive(Serialize)]
struct ArgumentDocument {
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    value: String,
    location: Location,
}

#[derive(Serialize)]
struct WantedDocument {
    name: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    required: bool,
    location: Location,
}

#[derive(Serialize)]
struct OutlineDocument {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<ArgumentDocument>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<WantedDocument>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ssh: Vec<WantedDocument>,
    sources: Vec<String>,
}

/// `--call outline,format=json`.
pub(crate) fn outline_json(outline: BuildOutline, source: Written<'_>) -> String {
    let wanted = |wanted: Vec<dhow_engine::BuildWanted>| {
        let document = |wanted: dhow_engine::BuildWanted| WantedDocument {
            name: wanted.name,
            required: wanted.required,
            location: source.location(wanted.at),
        };
        wanted.into_iter().map(document).collect()
    };
    let args = outline.args.into_iter().map(|parameter| ArgumentDocument {
        name: parameter.name,
        description: parameter.description,
        value: parameter.value,
        location: source.location(parameter.at),
    });
    pretty(&OutlineDocument {
        name: outline.name,
        description: outline.description,
        args: args.collect(),
        secrets: wanted(outline.secrets),
        ssh: wanted(outline.ssh),
        sources: vec![source.bytes()],
    })
}

/// `--call outline`.
pub(crate) fn outline_text(outline: &BuildOutline) -> String {
    let mut out = String::new();
    if outline.name.is_some() || !outline.description.is_empty() {
        let mut table = format!("TARGET:\t{}\n", outline.name.as_deref().unwrap_or("(default)"));
        if !outline.description.is_empty() {
            table.push_str(&format!("DESCRIPTION:\t{}\n", outline.description));
        }
        out.push_str(&crate::render::table::columns(&table, 1));
        out.push('\n');
    }
    if !outline.args.is_empty() {
        let mut table = "BUILD ARG\tVALUE\tDESCRIPTION\n".to_owned();
        for parameter in &outline.args {
            let row = [&parameter.name, &parameter.value, &parameter.description];
            table.push_str(&format!(
                "{}\n",
                row.map(|cell| cell.replace(['\t', '\n'], " ")).join("\t")
            ));
        }
        out.push_str(&crate::render::table::columns(&table, 3));
        out.push('\n');
    }
    for (title, list) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        if list.is_empty() {
            continue;
        }
        let mut table = format!("{title}\tREQUIRED\n");
        for wanted in list {
            table.push_str(&format!(
                "{}\t{}\n",
                wanted.name,
                if wanted.required { "true" } else { "" }
            ));
        }
        out.push_str(&crate::render::table::columns(&table, 3));
        out.push('\n');
    }
    out
}

#[derive(Serialize)]
struct TargetDocument {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    default: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    description: String,
    base: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<String>,
    location: Location,
}

#[derive(Serialize)]
struct TargetsDocument {
    targets: Vec<TargetDocument>,
    sources: Vec<String>,
}

/// `--call targets,format=json`.
pub(crate) fn targets_json(targets: Vec<BuildTarget>, source: Written<'_>) -> String {
    let targets = targets.into_iter().map(|target| TargetDocument {
        name: target.name,
        default: target.default,
        description: target.description,
        base: target.base,
        platform: target.platform,
        location: source.location(target.at),
    });
    pretty(&TargetsDocument {
        targets: targets.collect(),
        sources: vec![source.bytes()],
    })
}

/// `--call targets`.
pub(crate) fn targets_text(targets: &[BuildTarget]) -> String {
    let mut table = "TARGET\tDESCRIPTION\n".to_owned();
    for target in targets {
        let name = match (&target.name, target.default) {
            (None, true) => "(default)".to_owned(),
            (Some(name), true) => format!("{name} (default)"),
            (name, false) => name.clone().unwrap_or_default(),
        };
        table.push_str(&format!("{name}\t{}\n", target.description));
    }
    crate::render::table::columns(&table, 1)
}
