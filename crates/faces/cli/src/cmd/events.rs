//! `events`.

use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::{EVENT_FILTERS, Event, EventFilter, EventKind, EventRequest};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::flags::Filters;
use crate::render::{say_line, template::Template, time};
use crate::{CliError, Context, Verb};

pub(crate) const VERB: Verb = Verb {
    name: "events",
    about: "Get events from containers, images, networks and volumes as they happen",
    flags: |command| EventsFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct EventsFlags {
    /// Filter output based on conditions provided
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Format output using a custom template: 'json' or TEMPLATE
    #[arg(long)]
    format: Option<String>,
    /// Show all events created since timestamp
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Stream events until this timestamp
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Wait for more: false ends with what has happened already
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    stream: bool,
    /// Do not truncate output
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    no_trunc: bool,
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: EventsFlags = crate::flags::read(matches)?;
    let podman = crate::dialect::spoken().is_podman();
    let now = Timestamp::now();
    let moment = |flag: &str, text: &Option<String>| -> Result<Option<i64>, CliError> {
        let Some(text) = text else { return Ok(None) };
        let found = time::moment(text, now).and_then(|time| i64::try_from(time.as_nanosecond()).ok());
        let wrong = || CliError::plain(format!("invalid value for \"{flag}\": {text:?} is no time"));
        found.map(Some).ok_or_else(wrong)
    };
    let request = EventRequest {
        since: moment("since", &flags.since)?,
        until: moment("until", &flags.until)?,
        filter: filter(&flags.filter, podman)?,
        past_only: !flags.stream,
    };
    let request = EventRequest {
        // What has happened already is from the beginning, when nothing is waited for.
        since: request.since.or(request.past_only.then_some(0)),
        ..request
    };
    let look = Look::new(flags.format.as_deref(), podman, flags.no_trunc)?;
    let mut failure = None;
    context.engine()?.events(&request, &mut |event| {
        let shown = look.show(event).and_then(|line| say_line(&line));
        failure = shown.err();
        failure.is_none()
    })?;
    match failure {
        Some(error) => Err(error),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn filter(flags: &[String], podman: bool) -> Result<EventFilter, CliError> {
    let filters = Filters::parse(flags, EVENT_FILTERS)?;
    let mut pairs = Vec::new();
    for &name in EVENT_FILTERS {
        for value in filters.values(name) {
            if podman && matches!(name, "event" | "status") {
                let words = dockers_words(value).into_iter();
                pairs.extend(words.map(|word| ("event".to_owned(), word.to_owned())));
            } else {
                pairs.push((name.to_owned(), value.to_owned()));
            }
        }
    }
    Ok(EventFilter::new(pairs))
}

/// How one event is written.
struct Look {
    template: Option<Template>,
    json: bool,
    podman: bool,
    whole: bool,
}

impl Look {
    fn new(format: Option<&str>, podman: bool, whole: bool) -> Result<Self, CliError> {
        let json = matches!(format, Some("json"));
        let template = match format {
            None | Some("" | "json") => None,
            Some(text) => {
                let bad = |error: crate::render::template::TemplateError| {
                    CliError::plain(error.to_string()).with_code(64)
                };
                Some(Template::parse(text).map_err(bad)?)
            }
        };
        Ok(Self {
            template,
            json,
            podman,
            whole,
        })
    }

    fn show(&self, event: &Event) -> Result<String, CliError> {
        let object = || {
            if self.podman {
                podman_object(event)
            } else {
                docker_object(event)
            }
        };
        if let Some(template) = &self.template {
            let filled = template.fill(&object(), None);
            return filled.map_err(|error| CliError::plain(error.to_string()).with_code(64));
        }
        if self.json {
            return Ok(object().to_string());
        }
        Ok(self.line(event))
    }

    /// `2024-01-31T12:00:00.000000000Z container start ID (image=busybox, name=web)` (docker/cli `prettyPrintEvent`).
    fn line(&self, event: &Event) -> String {
        let at = Timestamp::from_nanosecond(event.nanoseconds.into()).unwrap_or_default();
        let id = if self.whole {
            event.id.as_str()
        } else {
            event.id.get(..12).unwrap_or(&event.id)
        };
        let (at, action) = if self.podman {
            (
                at.strftime("%Y-%m-%d %H:%M:%S.%9f +0000 UTC").to_string(),
                podmans_word(event),
            )
        } else {
            (time::log_form(at), event.action.as_str())
        };
        let attributes: Vec<String> = event
            .attributes
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let mut line = format!("{at} {} {action} {id}", event.kind.as_str());
        if !attributes.is_empty() {
            line.push_str(&format!(" ({})", attributes.join(", ")));
        }
        line
    }
}

/// As docker's API has it, with the fields that its clients before 29 read.
fn docker_object(event: &Event) -> Value {
    let mut object = Map::new();
    if matches!(event.kind, EventKind::Container | EventKind::Image) {
        object.insert("status".to_owned(), json!(event.action));
        object.insert("id".to_owned(), json!(event.id));
        if let Some(image) = event.attributes.get("image") {
            object.insert("from".to_owned(), json!(image));
        }
    }
    let rest = json!({
        "Type": event.kind.as_str(),
        "Action": event.action,
        "Actor": {"ID": event.id, "Attributes": event.attributes},
        "scope": "local",
        "time": event.nanoseconds / 1_000_000_000,
        "timeNano": event.nanoseconds,
    });
    if let Value::Object(rest) = rest {
        object.extend(rest);
    }
    Value::Object(object)
}

/// As podman has it (libpod `events/events.go`).
fn podman_object(event: &Event) -> Value {
    let attribute = |name: &str| event.attributes.get(name).cloned().unwrap_or_default();
    let mut object = json!({
        "Attributes": event.attributes,
        "ID": event.id,
        "Image": attribute("image"),
        "Name": attribute("name"),
        "Network": "",
        "Status": podmans_word(event),
        "Time": event.nanoseconds / 1_000_000_000,
        "TimeNano": event.nanoseconds,
        "Type": event.kind.as_str(),
    });
    if let (Some((_, verdict)), Some(object)) =
        (event.action.split_once("health_status: "), object.as_object_mut())
    {
        object.insert("HealthStatus".to_owned(), json!(verdict));
    }
    if let Some(code) = event
        .attributes
        .get("exitCode")
        .and_then(|code| code.parse::<i32>().ok())
        && let Some(object) = object.as_object_mut()
    {
        object.insert("ContainerExitCode".to_owned(), json!(code));
    }
    object
}

/// Docker's words and podman's for the same.
const WORDS: [(&str, &str); 5] = [
    ("die", "died"),
    ("destroy", "remove"),
    ("delete", "remove"),
    ("exec_die", "exec_died"),
    ("load", "loadfromarchive"),
];

fn podmans_word(event: &Event) -> &str {
    let first = event.action.split(':').next().unwrap_or_default();
    match first {
        // Without what was executed, and without the verdict, which is an attribute there.
        "exec_start" => "exec",
        "exec_create" | "health_status" => first,
        _ => WORDS
            .iter()
            .find(|(docker, _)| *docker == event.action)
            .map_or(event.action.as_str(), |(_, podman)| podman),
    }
}

/// Docker's words, by which events are kept; `remove` is two of them.
fn dockers_words(podman: &str) -> Vec<&str> {
    let docker = WORDS
        .iter()
        .filter(|(_, word)| *word == podman)
        .map(|(docker, _)| *docker);
    match (podman, docker.collect::<Vec<_>>()) {
        ("exec", _) => vec!["exec_start"],
        (_, words) if words.is_empty() => vec![podman],
        (_, words) => words,
    }
}
