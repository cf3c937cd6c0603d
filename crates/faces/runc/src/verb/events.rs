//! `events`: what a container uses, and when it runs out of memory.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use dhow_runtime::container::{Allocation, Container, Status};
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
    let allocation = container.allocation()?;
    Ok(with_the_rest(document, allocation.as_ref()))
}

/// What runc prints besides: what Intel RDT says, and devices of the network, which are not counted here.
fn with_the_rest(mut document: Value, allocation: Option<&Allocation>) -> Value {
    if let Some(document) = document.as_object_mut() {
        let intel_rdt = allocation.map_or_else(|| json!({}), intel_rdt);
        document.insert("intel_rdt".to_owned(), intel_rdt);
        document.insert("network_interfaces".to_owned(), Value::Null);
    }
    document
}

/// Schemata and counters in runc's form.
fn intel_rdt(allocation: &Allocation) -> Value {
    let mut told = json!({ "schemata": allocation.own });
    let counted = |names: &[&str]| -> Vec<Value> {
        let domains = allocation.monitors.iter();
        let of = |counters: &BTreeMap<String, u64>| {
            let known = names
                .iter()
                .filter_map(|name| Some(((*name).to_owned(), json!(counters.get(*name)?))));
            Value::Object(known.collect())
        };
        domains.map(of).filter(|value| *value != json!({})).collect()
    };
    let line = |lines: &[String], word: &str| lines.iter().find(|line| line.starts_with(word)).cloned();
    for (name, value) in [
        (
            "l3_cache_schema_root",
            line(&allocation.root, "L3").map(Value::from),
        ),
        ("l3_cache_schema", line(&allocation.own, "L3").map(Value::from)),
        (
            "mem_bw_schema_root",
            line(&allocation.root, "MB").map(Value::from),
        ),
        ("mem_bw_schema", line(&allocation.own, "MB").map(Value::from)),
        (
            "mbm_stats",
            Some(json!(counted(&["mbm_total_bytes", "mbm_local_bytes"]))),
        ),
        ("cmt_stats", Some(json!(counted(&["llc_occupancy"])))),
    ] {
        if let Some(value) = value.filter(|value| *value != json!([])) {
            told[name] = value;
        }
    }
    told
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

    #[test]
    fn what_intel_rdt_says_has_runcs_names() {
        let counters = |bytes: u64| BTreeMap::from([("mbm_total_bytes".to_owned(), bytes)]);
        let allocation = Allocation {
            root: vec!["L3:0=ff".to_owned(), "MB:0=100".to_owned()],
            own: vec!["L3:0=f".to_owned()],
            monitors: vec![counters(1), counters(2)],
        };
        let wanted = json!({
            "schemata": ["L3:0=f"], "l3_cache_schema": "L3:0=f", "l3_cache_schema_root": "L3:0=ff",
            "mem_bw_schema_root": "MB:0=100",
            "mbm_stats": [{ "mbm_total_bytes": 1 }, { "mbm_total_bytes": 2 }],
        });
        assert_eq!(intel_rdt(&allocation), wanted);
    }

    proptest! {
        #[test]
        fn any_time_is_taken_or_refused(text in "[0-9a-zµ.]{0,16}") {
            let once = duration(&text);
            prop_assert_eq!(once, duration(&text));
        }
    }
}
