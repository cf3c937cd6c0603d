//! `update`.

use std::path::Path;
use std::process::ExitCode;

use dhow_oci::runtime::{PidsLimit, Resources};

use super::life::open;
use crate::args::{Given, Until, value};
use crate::streams;
use crate::{Context, Failure, Verb};

pub(crate) const UPDATE: Verb = Verb {
    name: "update",
    about: "change the limits of a container",
    words: "<container-id>",
    flags: &[
        value(
            "resources",
            Some('r'),
            "file with limits as in the spec, or - for standard input; others are ignored then",
        ),
        value("blkio-weight", None, "relative weight of block I/O, 10 to 1000"),
        value("cpu-period", None, "period of the CPU quota in microseconds"),
        value("cpu-quota", None, "CPU time of a period in microseconds"),
        value(
            "cpu-burst",
            None,
            "CPU time that may be saved up, in microseconds",
        ),
        value("cpu-share", None, "relative weight of CPU time"),
        value(
            "cpu-rt-period",
            None,
            "period of the realtime quota in microseconds",
        ),
        value(
            "cpu-rt-runtime",
            None,
            "realtime CPU time of a period in microseconds",
        ),
        value("cpuset-cpus", None, "CPUs to use"),
        value("cpuset-mems", None, "memory nodes to use"),
        value("cpu-idle", None, "1 for SCHED_IDLE, 0 for the default"),
        value("kernel-memory", None, "obsolete, without effect"),
        value("kernel-memory-tcp", None, "obsolete, without effect"),
        value("memory", None, "limit of memory in bytes, -1 for none"),
        value("memory-reservation", None, "memory that is kept in bytes"),
        value(
            "memory-swap",
            None,
            "limit of memory and swap in bytes, -1 for none",
        ),
        value("pids-limit", None, "most processes and threads"),
        value("l3-cache-schema", None, "Intel RDT schema of the L3 cache"),
        value("mem-bw-schema", None, "Intel RDT schema of memory bandwidth"),
    ],
    until: Until::End,
    count: (1, 1),
    run: update,
};

fn update(context: &Context, given: &Given) -> Result<ExitCode, Failure> {
    let container = open(context, given)?;
    let mut resources = match given.text("resources") {
        Some("-") => parse(&streams::read_document(
            std::io::stdin().lock(),
            "standard input",
        )?)?,
        Some(path) => parse(&streams::read_document(streams::open(Path::new(path))?, path)?)?,
        None => resources(given)?,
    };
    if given.text("kernel-memory").is_some() || given.text("kernel-memory-tcp").is_some() {
        context
            .log
            .warn("Kernel memory settings are ignored and will be removed");
    }
    // A device rule of an update would replace what an agent has added since.
    resources.devices.clear();
    // First the cache, then the bandwidth, as at create.
    let schemata = [given.text("l3-cache-schema"), given.text("mem-bw-schema")];
    let lines: Vec<&str> = schemata.into_iter().flatten().collect();
    if !lines.is_empty() {
        container.update_schemata(&lines)?;
    }
    if lines.is_empty() || resources != Resources::default() {
        container.update(&resources)?;
    }
    if weight_of_idle(&resources) {
        let message =
            "unable to apply both a weight and cpu.idle: an idle group has the least weight there is";
        context.log.warn(message);
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether a weight is given that has no effect, since the group becomes idle at once (kernel, `sched_group_set_idle`).
fn weight_of_idle(resources: &Resources) -> bool {
    let cpu = resources.cpu.as_ref();
    let unified = |file: &str| resources.unified.get(file).map(|value| value.trim());
    let idle = cpu.and_then(|cpu| cpu.idle) == Some(1) || unified("cpu.idle") == Some("1");
    let weight = cpu.and_then(|cpu| cpu.shares).is_some_and(|shares| shares != 0);
    idle && (weight || unified("cpu.weight").is_some())
}

fn parse(bytes: &[u8]) -> Result<Resources, Failure> {
    serde_json::from_slice(bytes).map_err(|error| Failure::new(format!("parse resources: {error}")))
}

/// What the options say; what none of them names stays.
fn resources(given: &Given) -> Result<Resources, Failure> {
    let mut resources = Resources::default();
    let cpu = resources.cpu.get_or_insert_default();
    cpu.period = number(given, "cpu-period")?;
    cpu.quota = number(given, "cpu-quota")?;
    cpu.burst = number(given, "cpu-burst")?;
    cpu.shares = number(given, "cpu-share")?;
    cpu.realtime_period = number(given, "cpu-rt-period")?;
    cpu.realtime_runtime = number(given, "cpu-rt-runtime")?;
    cpu.idle = number(given, "cpu-idle")?;
    cpu.cpus = given.text("cpuset-cpus").map(str::to_owned);
    cpu.mems = given.text("cpuset-mems").map(str::to_owned);
    let memory = resources.memory.get_or_insert_default();
    memory.limit = bytes(given, "memory")?;
    memory.reservation = bytes(given, "memory-reservation")?;
    memory.swap = bytes(given, "memory-swap")?;
    if let Some(weight) = number::<u16>(given, "blkio-weight")?.filter(|weight| *weight != 0) {
        resources.block_io.get_or_insert_default().weight = Some(weight);
    }
    resources.pids = number(given, "pids-limit")?.map(|limit| PidsLimit { limit: Some(limit) });
    if resources.cpu == Some(Default::default()) {
        resources.cpu = None;
    }
    if resources.memory == Some(Default::default()) {
        resources.memory = None;
    }
    Ok(resources)
}

fn number<T: std::str::FromStr>(given: &Given, long: &str) -> Result<Option<T>, Failure> {
    let wrong = |text: &str| Failure::new(format!("invalid value for {long}: {text:?}"));
    given
        .text(long)
        .map(|text| text.parse().map_err(|_| wrong(text)))
        .transpose()
}

/// An amount of memory with a binary unit; -1 means no limit.
fn bytes(given: &Given, long: &str) -> Result<Option<i64>, Failure> {
    let wrong = |text: &str| Failure::new(format!("invalid value for {long}: invalid size: '{text}'"));
    given
        .text(long)
        .map(|text| size(text).ok_or_else(|| wrong(text)))
        .transpose()
}

fn size(text: &str) -> Option<i64> {
    if text == "-1" {
        return Some(-1);
    }
    let lower = text.to_ascii_lowercase();
    let end = lower
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(lower.len());
    let (digits, unit) = lower.split_at(end);
    let unit = unit.trim_start();
    let power = match unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(unit) {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let factor = 1024_i64.pow(power);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole = whole.parse::<i64>().ok()?.checked_mul(factor)?;
    if fraction.is_empty() {
        return Some(whole);
    }
    let fraction = fraction.get(..fraction.len().min(9))?;
    let (part, scale) = (
        fraction.parse::<i128>().ok()?,
        10_i128.pow(u32::try_from(fraction.len()).ok()?),
    );
    whole.checked_add(i64::try_from(part * i128::from(factor) / scale).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::parse as arguments;
    use proptest::prelude::*;

    #[test]
    fn only_what_is_named_is_changed() {
        let given = |line: &str| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            arguments(UPDATE.flags, UPDATE.until, &words).unwrap()
        };
        let none = resources(&given("id")).unwrap();
        assert_eq!(none, Resources::default());
        let idle = |line: &str| weight_of_idle(&resources(&given(line)).unwrap());
        assert!(idle("id --cpu-share 200 --cpu-idle 1"));
        assert!(!idle("id --cpu-share 200 --cpu-idle 0") && !idle("id --cpu-idle 1"));
        assert!(weight_of_idle(
            &parse(br#"{"unified": {"cpu.idle": "1", "cpu.weight": "8"}}"#).unwrap()
        ));
        let some = resources(&given("id --memory 32M --pids-limit=-1 --cpu-quota -1")).unwrap();
        assert_eq!(some.memory.unwrap().limit, Some(32 << 20));
        assert_eq!(some.pids.unwrap().limit, Some(-1));
        assert_eq!(some.cpu.unwrap().quota, Some(-1));
        assert!(resources(&given("id --cpu-share many")).is_err());
    }

    #[test]
    fn sizes_have_binary_units() {
        for (text, wanted) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("1024", Some(1024)),
            ("1k", Some(1024)),
            ("1.5KiB", Some(1536)),
            ("32 MB", Some(32 << 20)),
            ("2g", Some(2 << 30)),
            ("", None),
            ("-2", None),
            ("1x", None),
            ("k", None),
            ("1..2", None),
            ("99999999999999999999", None),
            ("9000000p", None),
        ] {
            assert_eq!(size(text), wanted, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_size_is_taken_or_refused(text in "\\PC{0,24}") {
            prop_assert!(size(&text).is_none_or(|bytes| bytes >= -1));
        }
    }
}
