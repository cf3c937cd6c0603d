use dhow_types::{Span, SyntaxError};

use crate::check::CheckDirective;
use crate::instruction::{KEYWORDS, Reading, unknown};
use crate::lines::{Line, Lines, Logical, join};
use crate::syntax::{self, Syntax};
use crate::tree::{Dockerfile, Flag, Heredoc, Instruction, Op, Stage, Warning};
use crate::words::{plain_words, split};
use crate::{MAX_ERRORS, MAX_INSTRUCTIONS, MAX_SIZE, heredoc};

/// Parses a Dockerfile.
///
/// # Errors
/// All errors of the text up to [`MAX_ERRORS`], in its order; never none.
pub fn parse(text: &str) -> Result<Dockerfile, Vec<SyntaxError>> {
    match parse_some(text) {
        (file, errors) if errors.is_empty() => Ok(file),
        (_, errors) => Err(errors),
    }
}

/// Parses what can be parsed of a Dockerfile: everything, when there are no errors.
#[must_use]
pub fn parse_some(text: &str) -> (Dockerfile, Vec<SyntaxError>) {
    if text.len() > MAX_SIZE {
        let message = format!(
            "the Dockerfile has {} bytes, more than the {MAX_SIZE} allowed",
            text.len()
        );
        let error = fault(Span::new(MAX_SIZE, MAX_SIZE), message);
        return (Parser::new("", 0).finish().0, vec![error]);
    }
    // A byte order mark is no part of the text; places stay those of the file.
    let start = if text.starts_with('\u{feff}') { 3 } else { 0 };
    let mut parser = Parser::new(text, start);
    parser.check_syntax(&text[start..], start);
    parser.read_check(&text[start..], start);
    parser.run();
    parser.finish()
}

/// Parses the text of an `ONBUILD` trigger, which must be one instruction.
///
/// # Errors
/// As [`parse`]; also when there is more or less than one instruction, or one that may not be a trigger.
pub fn parse_trigger(text: &str) -> Result<Instruction, Vec<SyntaxError>> {
    let whole = Span::new(0, text.len());
    if text.len() > MAX_SIZE {
        return Err(vec![fault(whole, "the trigger is too long")]);
    }
    let mut parser = Parser::new(text, 0);
    parser.placeholder_stage(whole);
    parser.run();
    let (file, errors) = parser.finish();
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut stages = file.stages;
    let mut found = stages.drain(..).flat_map(|stage| stage.instructions);
    match (found.next(), found.next()) {
        (Some(instruction), None) if !matches!(instruction.op, Op::Onbuild(_) | Op::Maintainer(_)) => {
            Ok(instruction)
        }
        (Some(_), None) => Err(vec![fault(whole, "the instruction isn't allowed as a trigger")]),
        _ => Err(vec![fault(whole, "a trigger should be a single instruction")]),
    }
}

fn fault(at: Span, message: impl Into<String>) -> SyntaxError {
    SyntaxError {
        at,
        message: message.into(),
        hint: None,
    }
}

struct Parser<'a> {
    text: &'a str,
    lines: Lines<'a>,
    escape: char,
    syntax: Option<Syntax>,
    check: Option<CheckDirective>,
    /// Directives seen so far; `None` once something else was seen.
    directives: Option<Vec<String>>,
    comments: Vec<String>,
    args: Vec<Instruction>,
    stages: Vec<Stage>,
    count: usize,
    warnings: Vec<Warning>,
    errors: Vec<SyntaxError>,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str, start: usize) -> Self {
        Self {
            text,
            lines: Lines::new(text, start),
            escape: '\\',
            syntax: None,
            check: None,
            directives: Some(Vec::new()),
            comments: Vec::new(),
            args: Vec::new(),
            stages: Vec::new(),
            count: 0,
            warnings: Vec::new(),
            errors: Vec::new(),
        }
    }

    fn check_syntax(&mut self, text: &str, offset: usize) {
        let Some(mut found) = syntax::detect(text) else {
            return;
        };
        found.at = Span::new(found.at.start + offset, found.at.end + offset);
        if syntax::is_builtin_frontend(&found.frontend) {
            self.syntax = Some(found);
        } else {
            self.errors.push(syntax::unsupported(&found));
        }
    }

    fn read_check(&mut self, text: &str, offset: usize) {
        let Some((at, value)) = syntax::detect_check(text) else {
            return;
        };
        let at = Span::new(at.start + offset, at.end + offset);
        match CheckDirective::parse(value) {
            Ok(check) => self.check = Some(CheckDirective { at, ..check }),
            Err(message) => self.errors.push(SyntaxError {
                at,
                message,
                hint: Some("write check=skip=<rules>;error=true".to_owned()),
            }),
        }
    }

    /// A stage for instructions that have none, so that one error does not bring many.
    fn placeholder_stage(&mut self, at: Span) {
        self.stages.push(Stage {
            at,
            base: String::new(),
            name: None,
            platform: None,
            text: String::new(),
            comments: Vec::new(),
            instructions: Vec::new(),
        });
    }

    fn run(&mut self) {
        // A text in another language gives one error, not one for each line of it.
        if !self.errors.is_empty() {
            return;
        }
        while self.errors.len() < MAX_ERRORS {
            let Some(line) = self.lines.next() else { break };
            if let Err(error) = self.line(line) {
                self.errors.push(error);
            }
            if self.count > MAX_INSTRUCTIONS {
                self.errors.push(fault(
                    line.span(),
                    format!("there are more than {MAX_INSTRUCTIONS} instructions"),
                ));
                break;
            }
        }
    }

    fn line(&mut self, line: Line<'a>) -> Result<(), SyntaxError> {
        let trimmed = line.bare().trim_start();
        if self.directive(trimmed, line.span())? {
            return Ok(());
        }
        if let Some(comment) = trimmed.strip_prefix('#') {
            match comment.trim() {
                "" => self.comments.clear(),
                comment => self.comments.push(comment.to_owned()),
            }
            return Ok(());
        }
        if trimmed.is_empty() {
            return Ok(());
        }
        let logical = join(line, &mut self.lines, self.escape);
        if logical.empty_continuation.is_some() {
            // Docker points at the line where the instruction ends.
            self.warnings.push(Warning {
                at: Span::new(logical.end, logical.end),
                message: "empty continuation line".to_owned(),
            });
        }
        self.count += 1;
        let comments = std::mem::take(&mut self.comments);
        self.instruction(&logical, comments)
    }

    /// Takes a parser directive; whatever else comes first ends the directives.
    fn directive(&mut self, line: &str, at: Span) -> Result<bool, SyntaxError> {
        let Some(seen) = &mut self.directives else {
            return Ok(false);
        };
        let Some(directive) = syntax::directive(line, "#") else {
            self.directives = None;
            return Ok(false);
        };
        if seen.contains(&directive.name) {
            return Err(fault(
                at,
                format!("only one {} parser directive can be used", directive.name),
            ));
        }
        if directive.name == "escape" {
            self.escape = match directive.value {
                "\\" => '\\',
                "`" => '`',
                other => {
                    return Err(SyntaxError {
                        at,
                        message: format!("invalid escape token {other:?}"),
                        hint: Some("use ` or \\".to_owned()),
                    });
                }
            };
        }
        seen.push(directive.name);
        Ok(true)
    }

    fn instruction(&mut self, line: &Logical, comments: Vec<String>) -> Result<(), SyntaxError> {
        let parts = split(line, self.escape)?;
        let keyword = parts.keyword.to_ascii_uppercase();
        if !KEYWORDS.contains(&keyword.as_str()) {
            return Err(unknown(parts.keyword, line.span(0, parts.keyword.len().max(1))));
        }
        let heredocs = self.heredocs(line, &keyword, parts.arguments)?;
        let end = self.lines.offset().min(self.text.len());
        let at = Span::new(line.start, if heredocs.is_empty() { line.end } else { end });
        let mut reading = Reading {
            line,
            parts: &parts,
            keyword: &keyword,
            heredocs,
            escape: self.escape,
        };
        if keyword == "FROM" {
            return self.from(&reading, at, comments);
        }
        let op = if keyword == "ONBUILD" {
            Op::Onbuild(onbuild(&reading)?)
        } else {
            reading.op()?
        };
        let instruction = Instruction {
            at,
            text: line.text.trim().to_owned(),
            comments,
            flags: parts.flags,
            op,
        };
        match self.stages.last_mut() {
            Some(stage) => stage.instructions.push(instruction),
            None if matches!(instruction.op, Op::Arg(_)) => self.args.push(instruction),
            None => {
                self.placeholder_stage(at);
                return Err(SyntaxError {
                    at,
                    message: "no build stage in current context".to_owned(),
                    hint: Some("begin with FROM <image> or FROM scratch".to_owned()),
                });
            }
        }
        Ok(())
    }

    /// Reads the bodies of the here-documents that the line announces.
    fn heredocs(
        &mut self,
        line: &Logical,
        keyword: &str,
        arguments: &str,
    ) -> Result<Vec<Heredoc>, SyntaxError> {
        let (keyword, arguments) = if keyword == "ONBUILD" {
            let (keyword, rest) = arguments
                .split_once(crate::words::is_blank)
                .unwrap_or((arguments, ""));
            (keyword.to_ascii_uppercase(), rest.trim())
        } else {
            (keyword.to_owned(), arguments)
        };
        if !matches!(keyword.as_str(), "ADD" | "COPY" | "RUN")
            || crate::words::json_words(arguments).is_some()
        {
            return Ok(Vec::new());
        }
        let mut found = heredoc::announced(&line.text);
        for heredoc in &mut found {
            heredoc::read_body(heredoc, &mut self.lines, Span::new(line.start, line.end))?;
        }
        Ok(found)
    }

    fn from(&mut self, reading: &Reading<'_>, at: Span, comments: Vec<String>) -> Result<(), SyntaxError> {
        let words = plain_words(reading.parts.arguments);
        self.placeholder_stage(at);
        let name = match words.as_slice() {
            [_] => None,
            [_, keyword, name] if keyword.eq_ignore_ascii_case("as") => Some(stage_name(reading, name)?),
            _ => {
                return Err(SyntaxError {
                    hint: Some("write FROM <image> or FROM <image> AS <name>".to_owned()),
                    ..reading.error("FROM requires either one or three arguments")
                });
            }
        };
        reading.check_flags(&["platform"])?;
        let platform = reading.string_flag("platform")?;
        if let Some(stage) = self.stages.last_mut() {
            stage.base = words.into_iter().next().unwrap_or_default();
            stage.name = name;
            stage.platform = platform.filter(|platform| !platform.is_empty());
            reading.line.text.trim().clone_into(&mut stage.text);
            stage.comments = comments;
        }
        Ok(())
    }

    fn finish(mut self) -> (Dockerfile, Vec<SyntaxError>) {
        if self.errors.is_empty() && self.stages.is_empty() {
            let message = if self.count == 0 {
                "file with no instructions"
            } else {
                "dockerfile contains no stages to build"
            };
            let hint = Some("begin with FROM <image> or FROM scratch".to_owned());
            self.errors.push(SyntaxError {
                at: Span::new(0, self.text.len().min(1)),
                message: message.to_owned(),
                hint,
            });
        }
        let file = Dockerfile {
            syntax: self.syntax,
            escape: self.escape,
            check: self.check,
            args: self.args,
            stages: self.stages,
            warnings: self.warnings,
        };
        (file, self.errors)
    }
}

fn stage_name(reading: &Reading<'_>, written: &str) -> Result<String, SyntaxError> {
    let name = written.to_lowercase();
    let mut bytes = name.bytes();
    let good = bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.'));
    if good {
        return Ok(name);
    }
    Err(reading.error(format!(
        "invalid name for build stage: {written:?}, name can't start with a number or contain symbols"
    )))
}

/// The trigger's text: the rest of the line, its here-documents put back.
fn onbuild(reading: &Reading<'_>) -> Result<String, SyntaxError> {
    let keyword = reading
        .parts
        .arguments
        .split(crate::words::is_blank)
        .next()
        .unwrap_or_default()
        .to_ascii_uppercase();
    reject_flags(reading, &reading.parts.flags)?;
    match keyword.as_str() {
        "" => return Err(reading.error("ONBUILD requires at least one argument")),
        "ONBUILD" => {
            return Err(reading.error("chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"));
        }
        "FROM" | "MAINTAINER" => {
            return Err(reading.error(format!("{keyword} isn't allowed as an ONBUILD trigger")));
        }
        known if KEYWORDS.contains(&known) => {}
        other => return Err(unknown(other, reading.arguments_at())),
    }
    let mut text = reading.parts.arguments.to_owned();
    for heredoc in &reading.heredocs {
        text.push('\n');
        text.push_str(&heredoc.content);
        text.push_str(&heredoc.name);
    }
    Ok(text)
}

fn reject_flags(reading: &Reading<'_>, flags: &[Flag]) -> Result<(), SyntaxError> {
    if flags.is_empty() {
        return Ok(());
    }
    reading.check_flags(&[])
}
