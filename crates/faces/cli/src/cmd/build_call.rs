//! `build --check` and `build --call`: questions about a Dockerfile, answered without a build.

use std::process::ExitCode;

use dhow_engine::{BuildFailure, BuildRequest, build_targets};

use crate::render::build::{Written, call, failure};
use crate::render::{note, say};
use crate::{CliError, Context};

/// A question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Check,
    Outline,
    Targets,
}

/// What `--call` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    question: Question,
    json: bool,
    /// Exit with 0 whatever the answer is.
    ignore_status: bool,
}

impl Call {
    /// Reads `NAME[,format=text|json][,ignorestatus=true]`; `None` for an ordinary build.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, CliError> {
        let bad = |why: String| CliError::plain(format!("invalid --call {text:?}: {why}"));
        let mut fields = text.split(',');
        let question = match fields.next().unwrap_or_default() {
            "" | "build" => None,
            "check" | "lint" => Some(Question::Check),
            "outline" => Some(Question::Outline),
            "targets" => Some(Question::Targets),
            other => {
                return Err(bad(format!("there is no method {other:?}"))
                    .with_hint("write build, check, outline or targets"));
            }
        };
        let (mut json, mut ignore_status) = (false, false);
        for field in fields {
            match field {
                "format=json" => json = true,
                "format=text" => json = false,
                "ignorestatus" | "ignorestatus=true" | "ignorestatus=1" => ignore_status = true,
                "ignorestatus=false" | "ignorestatus=0" => ignore_status = false,
                other => return Err(bad(format!("unexpected field {other:?}"))),
            }
        }
        Ok(question.map(|question| Self {
            question,
            json,
            ignore_status,
        }))
    }

    /// Answers.
    pub(crate) fn answer(self, context: &Context, request: &BuildRequest) -> Result<ExitCode, CliError> {
        let source = Written {
            name: &request.dockerfile_name,
            text: &request.dockerfile,
        };
        match self.question {
            Question::Check => self.check(context, request, source),
            Question::Outline => {
                let outline = context.opened()?.outline_build(request);
                let outline = outline.map_err(|failure| told(failure, source))?;
                say(&if self.json {
                    call::outline_json(outline, source)
                } else {
                    call::outline_text(&outline)
                })?;
                Ok(ExitCode::SUCCESS)
            }
            Question::Targets => {
                let targets = build_targets(request);
                let targets =
                    targets.map_err(|failed| told(BuildFailure::Build(Box::new(failed)), source))?;
                say(&if self.json {
                    call::targets_json(targets, source)
                } else {
                    call::targets_text(&targets)
                })?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }

    fn check(
        self,
        context: &Context,
        request: &BuildRequest,
        source: Written<'_>,
    ) -> Result<ExitCode, CliError> {
        let checked = context
            .opened()?
            .check_build(request)
            .map_err(|failure| told(failure, source))?;
        if self.json {
            say(&call::check_json(&checked, source))?;
        } else {
            say(&call::check_text(&checked, source))?;
            if let Some(failed) = &checked.error {
                note(failure(failed, source.text, &[]).trim_end());
            }
        }
        let good = checked.warnings.is_empty() && checked.error.is_none();
        Ok(if good || self.ignore_status {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

fn told(failed: BuildFailure, source: Written<'_>) -> CliError {
    match failed {
        BuildFailure::Around(error) => error.into(),
        BuildFailure::Build(failed) => {
            note(failure(&failed, source.text, &[]).trim_end());
            CliError::exit(1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_a_method_and_how_to_answer() {
        let call = |question, json, ignore_status| Call {
            question,
            json,
            ignore_status,
        };
        for (text, wanted) in [
            ("build", None),
            ("check", Some(call(Question::Check, false, false))),
            ("lint,format=json", Some(call(Question::Check, true, false))),
            ("outline,format=text", Some(call(Question::Outline, false, false))),
            (
                "targets,ignorestatus=true",
                Some(call(Question::Targets, false, true)),
            ),
        ] {
            assert_eq!(Call::parse(text).unwrap(), wanted, "{text}");
        }
        for bad in ["chek", "check,format=yaml", "check,colour"] {
            assert!(Call::parse(bad).is_err(), "{bad}");
        }
    }
}
