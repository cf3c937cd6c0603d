//! What a unit is told: limits as properties of systemd.resource-control(5), and the properties that annotations name.
//!
//! systemd writes the files of the controllers again when it likes (at `daemon-reload`, say), so it must know every
//! limit that it has a word for. All limits are written to the files as well: for those without a word, and since
//! systemd rounds some.

use std::collections::BTreeMap;

use dhow_oci::runtime::Resources;
use dhow_types::ErrorKind;

use super::wire::{Property, Value};
use crate::setting::{self, Access, DeviceKind};
use crate::{Error, v2};

/// No limit, in the words of systemd.
const INFINITY: u64 = u64::MAX;
/// Period when nobody says, in microseconds: the kernel's.
const PERIOD: u64 = 100_000;
/// Microseconds in 1 % of a second: systemd keeps quotas in whole percents.
const PERCENT: u64 = 10_000;
/// Highest number of a CPU or memory node that is believed.
const MOST_CPUS: u32 = 1 << 16;
/// What names of annotations that set properties begin with.
const ANNOTATION: &str = "org.systemd.property.";
/// The version of systemd that knows `CPUWeight=idle`.
const KNOWS_IDLE: u32 = 252;

/// Properties of the limits, for a systemd of this version.
///
/// # Errors
/// As those of the files: a limit that makes no sense.
pub(crate) fn limits(resources: &Resources, version: u32) -> Result<Vec<Property>, Error> {
    let mut out = devices(&setting::device_rules(resources)?);
    let mut set = |name: &str, value: u64| out.push((name.to_owned(), Value::U64(value)));
    if let Some(memory) = &resources.memory {
        let said = |value: Option<i64>| value.filter(|value| *value != 0);
        if let Some(limit) = said(memory.limit) {
            set("MemoryMax", or_infinity(limit));
        }
        if let Some(reservation) = said(memory.reservation) {
            set("MemoryLow", or_infinity(reservation));
        }
        if let Some(swap) = v2::swap_alone(memory)? {
            set("MemorySwapMax", or_infinity(swap));
        }
    }
    if let Some(cpu) = &resources.cpu {
        let idle = cpu.idle == Some(1) && version >= KNOWS_IDLE;
        if idle {
            set("CPUWeight", 0);
        } else if let Some(shares) = cpu.shares.filter(|shares| *shares != 0) {
            set("CPUWeight", v2::weight_of_shares(shares));
        }
        let (quota, period) = (cpu.quota.unwrap_or(0), cpu.period.unwrap_or(0));
        quota_properties(quota, period, &mut out);
        for (name, list) in [("AllowedCPUs", &cpu.cpus), ("AllowedMemoryNodes", &cpu.mems)] {
            if let Some(list) = list.as_deref().filter(|list| !list.is_empty()) {
                out.push((name.to_owned(), Value::Bytes(bits(list)?)));
            }
        }
    }
    if let Some(limit) = resources.pids.as_ref().and_then(|pids| pids.limit) {
        out.push(("TasksMax".to_owned(), Value::U64(tasks(limit))));
    }
    for (file, value) in v2::unified_files(resources) {
        unified(file, value.trim(), version, &mut out)?;
    }
    Ok(out)
}

fn or_infinity(limit: i64) -> u64 {
    u64::try_from(limit).unwrap_or(INFINITY)
}

/// systemd takes no 0, and the kernel lets a group with one process fork as little as one with none.
fn tasks(limit: i64) -> u64 {
    u64::try_from(limit).map_or(INFINITY, |limit| limit.max(1))
}

fn quota_properties(quota: i64, period: u64, out: &mut Vec<Property>) {
    if quota == 0 && period == 0 {
        return;
    }
    let mut set = |name: &str, value: u64| out.push((name.to_owned(), Value::U64(value)));
    if period != 0 {
        set("CPUQuotaPeriodUSec", period);
    }
    set(
        "CPUQuotaPerSecUSec",
        per_second(quota, period).unwrap_or(INFINITY),
    );
}

/// CPU time of a second in microseconds, as systemd keeps it: rounded up to whole percents. None without a limit.
fn per_second(quota: i64, period: u64) -> Option<u64> {
    let quota = u64::try_from(quota).ok().filter(|quota| *quota != 0)?;
    let period = if period == 0 { PERIOD } else { period };
    let exact = u128::from(quota) * 1_000_000 / u128::from(period);
    let exact = u64::try_from(exact)
        .ok()
        .filter(|exact| *exact < INFINITY - PERCENT);
    Some(exact.map_or(INFINITY - INFINITY % PERCENT, |exact| {
        exact.next_multiple_of(PERCENT)
    }))
}

/// The limits with the quota of CPU time as systemd will keep it, for a group whose `cpu.max` is `now`: of quota and period
/// the one that is not given is the old one, since systemd is told how much of a second that is together; and what systemd
/// rounds is rounded in the file as well, where systemd would write it at its next reload.
pub(crate) fn settled(resources: &Resources, now: &str) -> Resources {
    let mut out = resources.clone();
    let Some(cpu) = &mut out.cpu else { return out };
    let quota = cpu.quota.filter(|quota| *quota != 0);
    let period = cpu.period.filter(|period| *period != 0);
    if quota.is_none() && period.is_none() {
        return out;
    }
    let mut words = now.split_ascii_whitespace().map(str::parse::<u64>);
    let old_quota = words
        .next()
        .and_then(Result::ok)
        .and_then(|quota| i64::try_from(quota).ok());
    let old_period = words.next().and_then(Result::ok).filter(|period| *period != 0);
    let period = period.or(old_period).unwrap_or(PERIOD);
    let kept = per_second(quota.or(old_quota).unwrap_or(-1), period).map_or(-1, |a_second| {
        let quota = u128::from(a_second) * u128::from(period) / 1_000_000;
        i64::try_from(quota).unwrap_or(i64::MAX)
    });
    (cpu.quota, cpu.period) = (Some(kept), Some(period));
    out
}

/// `1,3-5` as systemd's bit mask, first byte first.
pub(crate) fn bits(list: &str) -> Result<Vec<u8>, Error> {
    let bad = || {
        Error::new(
            ErrorKind::InvalidArgument,
            format!(
                "{:?} is no list of numbers",
                list.chars().take(64).collect::<String>()
            ),
        )
        .with_hint("such as 0-2,7")
    };
    let number = |text: &str| {
        text.trim()
            .parse::<u32>()
            .ok()
            .filter(|number| *number < MOST_CPUS)
            .ok_or_else(bad)
    };
    let mut out = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(bad());
        }
        for one in first..=last {
            let at = one as usize / 8;
            if out.len() <= at {
                out.resize(at + 1, 0_u8);
            }
            out[at] |= 1 << (one % 8);
        }
    }
    if out.is_empty() { Err(bad()) } else { Ok(out) }
}

/// Device rules. systemd knows lists of what is allowed only; a filter of ours with all rules is put beside its own,
/// and a device must pass both.
fn devices(rules: &[Access]) -> Vec<Property> {
    let none = || ("DeviceAllow".to_owned(), Value::Pairs(Vec::new()));
    let policy = |policy: &str| ("DevicePolicy".to_owned(), Value::Text(policy.to_owned()));
    let last_of_all = rules.iter().rposition(Access::is_everything);
    let rest = last_of_all.map_or(rules, |at| &rules[at + 1..]);
    let allows_all = last_of_all.is_some_and(|at| rules[at].allow);
    if rules.is_empty() || allows_all {
        return vec![none(), policy("auto")];
    }
    let mut allowed: Vec<(String, String)> = Vec::new();
    for rule in rest.iter().filter(|rule| rule.allow) {
        let kinds = match rule.kind {
            Some(kind) => vec![kind],
            None => vec![DeviceKind::Block, DeviceKind::Char],
        };
        for kind in kinds {
            allowed.push((device_path(kind, rule), rule.access_letters()));
        }
    }
    // An empty list first: it clears the one that an older state of the unit may have.
    let mut out = vec![none(), policy("strict")];
    if !allowed.is_empty() {
        out.push(("DeviceAllow".to_owned(), Value::Pairs(allowed)));
    }
    out
}

/// The device in systemd's words (since version 240). It has none for "this minor number of any major": all of the
/// kind are allowed there, and the filter beside it is exact.
fn device_path(kind: DeviceKind, rule: &Access) -> String {
    let word = match kind {
        DeviceKind::Block => "block",
        DeviceKind::Char => "char",
    };
    match (rule.major, rule.minor) {
        (None, _) => format!("{word}-*"),
        (Some(major), None) => format!("{word}-{major}"),
        (Some(major), Some(minor)) => format!("/dev/{word}/{major}:{minor}"),
    }
}

/// A file of the unified map, where systemd has a word for it; others are written to the file alone.
fn unified(file: &str, value: &str, version: u32, out: &mut Vec<Property>) -> Result<(), Error> {
    let bad = || {
        let message = format!("unified resource {file:?} cannot be {value:?}");
        Error::new(ErrorKind::InvalidArgument, message)
    };
    let number = |text: &str| match text {
        "max" => Ok(INFINITY),
        text => text.parse::<u64>().map_err(|_| bad()),
    };
    let name = match file {
        "memory.high" => "MemoryHigh",
        "memory.low" => "MemoryLow",
        "memory.min" => "MemoryMin",
        "memory.max" => "MemoryMax",
        "memory.swap.max" => "MemorySwapMax",
        "cpu.weight" => "CPUWeight",
        "pids.max" => {
            out.push(("TasksMax".to_owned(), Value::U64(number(value)?.max(1))));
            return Ok(());
        }
        "cpu.idle" if value == "1" && version >= KNOWS_IDLE => {
            out.push(("CPUWeight".to_owned(), Value::U64(0)));
            return Ok(());
        }
        "cpuset.cpus" | "cpuset.mems" => {
            let name = if file == "cpuset.cpus" {
                "AllowedCPUs"
            } else {
                "AllowedMemoryNodes"
            };
            out.push((name.to_owned(), Value::Bytes(bits(value)?)));
            return Ok(());
        }
        "cpu.max" => {
            let mut words = value.split_ascii_whitespace();
            let quota = match words.next().ok_or_else(bad)? {
                "max" => -1,
                text => text.parse().map_err(|_| bad())?,
            };
            let period = words
                .next()
                .map_or(Ok(PERIOD), |text| text.parse().map_err(|_| bad()))?;
            quota_properties(quota, period, out);
            return Ok(());
        }
        // `memory.oom.group` is said at the start of the unit; see `oom_policy`.
        _ => return Ok(()),
    };
    out.push((name.to_owned(), Value::U64(number(value)?)));
    Ok(())
}

/// `OOMPolicy`, which systemd (253 and later) takes at the start of a unit only.
pub(crate) fn oom_policy(resources: &Resources, version: u32) -> Option<Property> {
    let policy = match resources.unified.get("memory.oom.group")?.trim() {
        "0" => "continue",
        "1" => "kill",
        _ => return None,
    };
    (version >= 253).then(|| ("OOMPolicy".to_owned(), Value::Text(policy.to_owned())))
}

/// Properties that annotations `org.systemd.property.<Name>` name, with values in the text form of `GVariant`:
/// `uint64 5`, `true`, `'text'`, `['a', 'b']`. A name that ends in `Sec` takes seconds, as in unit files.
///
/// # Errors
/// `InvalidArgument` with the annotation's name.
pub fn from_annotations(annotations: &BTreeMap<String, String>) -> Result<Vec<Property>, Error> {
    let mut out = Vec::new();
    for (key, text) in annotations {
        let Some(name) = key.strip_prefix(ANNOTATION) else {
            continue;
        };
        let bad = |why: &str| {
            let shown: String = key.chars().take(128).collect();
            Error::new(ErrorKind::InvalidArgument, format!("annotation {shown:?}: {why}"))
        };
        if name.len() < 3 || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return Err(bad("it names no property of systemd"));
        }
        let value = parse_value(text).ok_or_else(|| bad("its value cannot be understood"))?;
        match name.strip_suffix("Sec").filter(|stem| !stem.ends_with('U')) {
            Some(stem) => {
                let value = microseconds(&value).ok_or_else(|| bad("its value is no number of seconds"))?;
                out.push((format!("{stem}USec"), Value::U64(value)));
            }
            None => out.push((name.to_owned(), value)),
        }
    }
    Ok(out)
}

fn microseconds(value: &Value) -> Option<u64> {
    const A_SECOND: u64 = 1_000_000;
    match value {
        Value::I32(value) => u64::try_from(*value).ok()?.checked_mul(A_SECOND),
        Value::I64(value) => u64::try_from(*value).ok()?.checked_mul(A_SECOND),
        Value::U32(value) => u64::from(*value).checked_mul(A_SECOND),
        Value::U64(value) => value.checked_mul(A_SECOND),
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "of a number between 0 and 10^15"
        )]
        Value::Double(value) if (0.0..1e9).contains(value) => Some((value * 1e6) as u64),
        _ => None,
    }
}

/// A value in the text form of `GVariant`, of the types that [`Value`] has.
fn parse_value(text: &str) -> Option<Value> {
    const MOST: usize = 4096;
    let text = text.trim();
    if text.len() > MOST {
        return None;
    }
    if let Some(rest) = text.strip_prefix('@') {
        let (kind, rest) = rest.split_once(' ')?;
        return typed(kind, rest.trim());
    }
    for (word, kind) in [
        ("boolean ", "b"),
        ("int32 ", "i"),
        ("uint32 ", "u"),
        ("int64 ", "x"),
        ("uint64 ", "t"),
        ("double ", "d"),
        ("string ", "s"),
    ] {
        if let Some(rest) = text.strip_prefix(word) {
            return typed(kind, rest.trim());
        }
    }
    match text.as_bytes().first()? {
        b'\'' | b'"' => typed("s", text),
        b'[' => typed("as", text).or_else(|| typed("au", text)),
        b't' | b'f' => typed("b", text),
        _ => typed("i", text).or_else(|| typed("d", text)),
    }
}

fn typed(kind: &str, text: &str) -> Option<Value> {
    Some(match kind {
        "b" => Value::Bool(text.parse().ok()?),
        "i" => Value::I32(text.parse().ok()?),
        "u" => Value::U32(text.parse().ok()?),
        "x" => Value::I64(text.parse().ok()?),
        "t" => Value::U64(text.parse().ok()?),
        "d" => Value::Double(text.parse().ok().filter(|number: &f64| number.is_finite())?),
        "s" => match quoted(text)? {
            (inside, "") => Value::Text(inside),
            _ => return None,
        },
        "as" => Value::Texts(elements(text, quoted)?),
        "au" => Value::Numbers(elements(text, number)?),
        "ay" => Value::Bytes(
            elements(text, number)?
                .into_iter()
                .map(u8::try_from)
                .collect::<Result<_, _>>()
                .ok()?,
        ),
        _ => return None,
    })
}

fn number(text: &str) -> Option<(u32, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_alphanumeric())
        .unwrap_or(text.len());
    let digits = &text[..end];
    let value = match digits.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => digits.parse(),
    };
    Some((value.ok()?, &text[end..]))
}

/// A text in quotation marks, with backslashes before marks and backslashes; and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mark = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == mark => return Some((out, &text[at + 1..])),
            '\\' => out.push(match chars.next()?.1 {
                'n' => '\n',
                't' => '\t',
                c @ ('\\' | '\'' | '"') => c,
                _ => return None,
            }),
            '\0' => return None,
            c => out.push(c),
        }
    }
    None
}

fn elements<T>(text: &str, one: impl Fn(&str) -> Option<(T, &str)>) -> Option<Vec<T>> {
    let mut rest = text.strip_prefix('[')?.trim_start();
    let mut out = Vec::new();
    while !rest.starts_with(']') {
        let (value, after) = one(rest)?;
        out.push(value);
        rest = after.trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after.trim_start(),
            None if rest.starts_with(']') => {}
            None => return None,
        }
    }
    (rest == "]").then_some(out)
}
