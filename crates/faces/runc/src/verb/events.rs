//! `events`: what a container uses, and when it runs out of memory.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use dhow_runtime::container::{Container, Status};
use serde_json::{Value, json};

use super::life::open;
use crate::args::{Given, Until, on, value};
use crate::{Context, Failure, Verb, print};

pub(crate) const EVENTS: Verb = Verb {
    name: "events",
    about: "print statistics and out-of-memory events of a container",
    words: "<container-id>",
    flags: &[
        value("interval", None, "time between statistics [default: 5s]"),
        on("stats", None, "print the statistics once"),
    ],
    until: Until::End,
    count: (1, 1),
    run: events,
};

/// How often it is looked whether the container ran out of memory, or stopped.
const LOOK: Duration = Duration::from_millis(100);

fn events(context: &Context, given: &Given) -> Result<ExitCode, Failure> {
    let container = open(context, given)?;
    let text = given.value("interval").unwrap_or("5s");
    let interval = duration(text).ok_or_else(|| {
        Failure::new(format!(
            "invalid value \"{text}\" for flag -interval: parse error"
        ))
    })?;
    if interval.is_zero() {
        return Err(Failure::new("duration interval must be greater than 0"));
    }
    if container.status()? == Status::Stopped {
        let message = format!("container with id {} is not running", container.id());
        return Err(Failure::new(message));
    }
    if given.is_on("stats") {
        return print(&line(&container, "stats", Some(counters(&container)?)));
    }
    follow(&container, interval)
}

fn follow(container: &Container, interval: Duration) -> Result<ExitCode, Failure> {
    let mut next = Instant::now() + interval;
    let mut known = ooms(container).unwrap_or(0);
    loop {
        std::thread::sleep(LOOK.min(interval));
        let now = ooms(container);
        for _ in known..now.unwrap_or(known) {
            print(&line(container, "oom", None))?;
        }
        known = now.unwrap_or(known);
        if container.status()? == Status::Stopped {
            return Ok(ExitCode::SUCCESS);
        }
        if Instant::now() >= next {
            next += interval;
            // It may have stopped since: the next turn sees it.
            if let Ok(counters) = counters(container) {
                print(&line(container, "stats", Some(counters)))?;
            }
        }
    }
}

fn ooms(container: &Container) -> Option<u64> {
    container.group().ok()??.oom_count().ok()
}

fn line(container: &Container, kind: &str, data: Option<Value>) -> String {
    let mut event = json!({ "type": kind, "id": container.id() });
    if let (Some(event), Some(data)) = (event.as_object_mut(), data) {
        event.insert("data".to_owned(), data);
    }
    format!("{event}\n")
}

/// All counters in runc's form, or that the container has stopped.
fn counters(container: &Container) -> Result<Value, Failure> {
    let Some(group) = container.group()? else {
        return Err(Failure::new("container has no control group of its own"));
    };
    let usage = group.usage().map_err(|error| Failure::new(error.to_string()))?;
    let document = serde_json::to_value(&usage).map_err(|error| Failure::new(error.to_string()))?;
    Ok(with_the_rest(document))
}

/// What runc prints besides: nothing that is counted here.
fn with_the_rest(mut document: Value) -> Value {
    if let Some(document) = document.as_object_mut() {
        document.insert("intel_rdt".to_owned(), json!({}));
        document.insert("network_interfaces".to_owned(), Value::Null);
    }
    document
}

/// A time as Go writes it: numbers with units, one after the other (`1m30s`, `100ms`).
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let unit_end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let number: f64 = number.parse().ok()?;
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = after;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_as_go_writes_them() {
        assert_eq!(duration("5s"), Some(Duration::from_secs(5)));
        assert_eq!(duration("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(duration("100ms"), Some(Duration::from_millis(100)));
        assert_eq!(duration("1.5h"), Some(Duration::from_secs(5400)));
        for wrong in ["", "5", "s", "-1s", "5x", "1e99h", "9999999999999999999h"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_time_is_taken_or_refused(text in "[0-9a-zµ.]{0,16}") {
            let once = duration(&text);
            prop_assert_eq!(once, duration(&text));
        }
    }
}
