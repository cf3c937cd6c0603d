//! Go's functions and docker's (docker/cli `templates/templates.go`).

use std::cmp::Ordering;
use std::fmt::Write as _;

use serde_json::Value;

/// Longest text that a function makes.
const MAX_TEXT: usize = 1 << 20;

const NAMES: [&str; 25] = [
    "and", "eq", "ge", "gt", "html", "index", "join", "json", "le", "len", "lower", "lt", "ne", "not", "or",
    "pad", "print", "printf", "println", "slice", "split", "title", "truncate", "upper", "urlquery",
];

pub(super) fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Whether a value is true: not false, not zero, not empty.
pub(super) fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// What people print whole and is no map in Go: its fields in their order.
const STRUCTURES: [&[&str]; 2] = [&["Name", "Soft", "Hard"], &["Start", "End", "ExitCode", "Output"]];

/// The fields of a structure in their order.
fn structure(fields: &serde_json::Map<String, Value>) -> Option<&'static [&'static str]> {
    let is =
        |names: &&&[&str]| names.len() == fields.len() && names.iter().all(|name| fields.contains_key(*name));
    STRUCTURES.iter().find(is).copied()
}

/// Writes a value as Go's `%v` does.
pub(super) fn show(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("<no value>"),
        Value::String(text) => out.push_str(text),
        // Writing to a String cannot fail.
        Value::Bool(_) | Value::Number(_) => drop(write!(out, "{value}")),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                inside(item, out);
            }
            out.push(']');
        }
        Value::Object(fields) if structure(fields).is_some() => {
            out.push('{');
            for (index, name) in structure(fields).into_iter().flatten().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                inside(&fields[*name], out);
            }
            out.push('}');
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by(|a, b| a.0.cmp(b.0));
            out.push_str("map[");
            for (index, (name, value)) in fields.into_iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                out.push_str(name);
                out.push(':');
                inside(value, out);
            }
            out.push(']');
        }
    }
}

fn inside(value: &Value, out: &mut String) {
    if value.is_null() {
        out.push_str("<nil>")
    } else {
        show(value, out)
    }
}

pub(super) fn text(value: &Value) -> String {
    let mut out = String::new();
    show(value, &mut out);
    out
}

/// Calls a function; the error says why it cannot.
pub(super) fn call(name: &str, arguments: &[Value]) -> Result<Value, String> {
    match (name, arguments) {
        ("and" | "or", [.., last]) => Ok(last.clone()),
        ("not", [value]) => Ok((!truth(value)).into()),
        ("eq", [first, rest @ ..]) if !rest.is_empty() => equal(first, rest).map(Value::Bool),
        ("ne", [a, b]) => equal(a, std::slice::from_ref(b)).map(|same| (!same).into()),
        ("lt", [a, b]) => order(a, b).map(|order| order.is_lt().into()),
        ("le", [a, b]) => order(a, b).map(|order| order.is_le().into()),
        ("gt", [a, b]) => order(a, b).map(|order| order.is_gt().into()),
        ("ge", [a, b]) => order(a, b).map(|order| order.is_ge().into()),
        ("json", [value]) => serde_json::to_string(value)
            .map(Value::String)
            .map_err(|error| error.to_string()),
        ("len", [value]) => length(value),
        ("index", [value, keys @ ..]) => keys
            .iter()
            .try_fold(value.clone(), |value, key| index(&value, key)),
        ("slice", [value, bounds @ ..]) if bounds.len() <= 2 => slice(value, bounds),
        ("print", values) => Ok(print(values).into()),
        ("println", values) => {
            let words: Vec<_> = values.iter().map(text).collect();
            Ok(format!("{}\n", words.join(" ")).into())
        }
        ("printf", [Value::String(format), values @ ..]) => printf(format, values).map(Value::String),
        ("lower", [Value::String(text)]) => Ok(text.to_lowercase().into()),
        ("upper", [Value::String(text)]) => Ok(text.to_uppercase().into()),
        ("title", [Value::String(text)]) => Ok(title(text).into()),
        ("split", [Value::String(text), Value::String(separator)]) => Ok(split(text, separator)),
        ("join", [items, Value::String(separator)]) => join(items, separator),
        ("pad", [Value::String(text), before, after]) => pad(text, before, after),
        ("truncate", [Value::String(text), limit]) => {
            let limit = count(limit)?;
            Ok(text.chars().take(limit).collect::<String>().into())
        }
        ("html", [value]) => Ok(escape_html(&text(value)).into()),
        ("urlquery", [value]) => Ok(escape_query(&text(value)).into()),
        (_, arguments) => Err(format!(
            "wrong number or kind of arguments ({} given)",
            arguments.len()
        )),
    }
}

fn equal(first: &Value, others: &[Value]) -> Result<bool, String> {
    for other in others {
        let same = match (first, other) {
            (Value::Null, other) => other.is_null(),
            (_, Value::Null) => false,
            (Value::Array(_) | Value::Object(_), _) | (_, Value::Array(_) | Value::Object(_)) => {
                return Err("non-comparable type".to_owned());
            }
            (a, b) if std::mem::discriminant(a) != std::mem::discriminant(b) => {
                return Err("incompatible types for comparison".to_owned());
            }
            (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
            (a, b) => a == b,
        };
        if same {
            return Ok(true);
        }
    }
    Ok(false)
}

fn order(a: &Value, b: &Value) -> Result<Ordering, String> {
    match (a, b) {
        (Value::String(a), Value::String(b)) => Ok(a.cmp(b)),
        (Value::Number(x), Value::Number(y)) => match (x.as_i64(), y.as_i64()) {
            (Some(x), Some(y)) => Ok(x.cmp(&y)),
            _ => x
                .as_f64()
                .partial_cmp(&y.as_f64())
                .ok_or_else(|| "not a number".to_owned()),
        },
        _ => Err("incompatible types for comparison".to_owned()),
    }
}

fn length(value: &Value) -> Result<Value, String> {
    match value {
        Value::String(text) => Ok(text.len().into()),
        Value::Array(items) => Ok(items.len().into()),
        Value::Object(fields) => Ok(fields.len().into()),
        Value::Null => Ok(0.into()),
        other => Err(format!("len of {}", text(other))),
    }
}

fn count(value: &Value) -> Result<usize, String> {
    let number = value
        .as_u64()
        .and_then(|n| usize::try_from(n).ok())
        .filter(|n| *n <= MAX_TEXT);
    number.ok_or_else(|| format!("{} is no number that fits here", text(value)))
}

fn index(value: &Value, key: &Value) -> Result<Value, String> {
    match (value, key) {
        (Value::Array(items), Value::Number(number)) => {
            let at = number.as_u64().and_then(|n| usize::try_from(n).ok());
            at.and_then(|at| items.get(at))
                .cloned()
                .ok_or_else(|| format!("index out of range: {number}"))
        }
        (Value::Object(fields), Value::String(key)) => Ok(fields.get(key).cloned().unwrap_or(Value::Null)),
        (Value::String(text), Value::Number(number)) => {
            let at = number.as_u64().and_then(|n| usize::try_from(n).ok());
            let byte = at.and_then(|at| text.as_bytes().get(at));
            byte.map(|byte| (*byte).into())
                .ok_or_else(|| format!("index out of range: {number}"))
        }
        (Value::Null, _) => Err("index of untyped nil".to_owned()),
        (value, key) => Err(format!("can't index {} with {}", text(value), text(key))),
    }
}

fn slice(value: &Value, bounds: &[Value]) -> Result<Value, String> {
    let total = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.len(),
        other => return Err(format!("can't slice {}", text(other))),
    };
    let start = bounds.first().map_or(Ok(0), count)?;
    let end = bounds.get(1).map_or(Ok(total), count)?;
    if start > end || end > total {
        return Err(format!("index out of range: {start}:{end}"));
    }
    match value {
        Value::String(text) => Ok(String::from_utf8_lossy(&text.as_bytes()[start..end])
            .into_owned()
            .into()),
        Value::Array(items) => Ok(items[start..end].to_vec().into()),
        _ => Ok(Value::Null),
    }
}

/// Spaces between operands when neither is a string (Go `fmt.Sprint`).
fn print(values: &[Value]) -> String {
    let mut out = String::new();
    for (index, value) in values.iter().enumerate() {
        if index > 0 && !value.is_string() && !values[index - 1].is_string() {
            out.push(' ');
        }
        show(value, &mut out);
    }
    out
}

/// Go's verbs `%s %v %d %q %x %t %f %%` with flags `-`, `0`, `+`, width and precision.
fn printf(format: &str, values: &[Value]) -> Result<String, String> {
    let mut out = String::new();
    let mut values = values.iter();
    let mut characters = format.chars().peekable();
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        let (mut left, mut zero, mut plus) = (false, false, false);
        while let Some(flag) = characters.next_if(|c| matches!(c, '-' | '0' | '+' | ' ' | '#')) {
            match flag {
                '-' => left = true,
                '0' => zero = true,
                '+' => plus = true,
                _ => {}
            }
        }
        let mut number = || {
            let mut digits = String::new();
            while let Some(digit) = characters.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            digits.parse::<usize>().ok().map(|n| n.min(4096))
        };
        let width = number().unwrap_or(0);
        let precision = characters.next_if_eq(&'.').map(|_| {
            let mut digits = String::new();
            while let Some(digit) = characters.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            digits.parse::<usize>().unwrap_or(0).min(4096)
        });
        let verb = characters.next().unwrap_or('!');
        if verb == '%' {
            out.push('%');
            continue;
        }
        let Some(value) = values.next() else {
            out.push_str(&format!("%!{verb}(MISSING)"));
            continue;
        };
        let shown = verb_text(verb, value, precision, plus);
        let missing = width.saturating_sub(shown.chars().count());
        let blank = if zero && !left { "0" } else { " " };
        if !left {
            out.push_str(&blank.repeat(missing));
        }
        out.push_str(&shown);
        if left {
            out.push_str(&blank.repeat(missing));
        }
        if out.len() > MAX_TEXT {
            return Err("the text is too long".to_owned());
        }
    }
    let extra: Vec<_> = values.map(text).collect();
    if !extra.is_empty() {
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    Ok(out)
}

fn verb_text(verb: char, value: &Value, precision: Option<usize>, plus: bool) -> String {
    let wrong = || format!("%!{verb}({})", text(value));
    match verb {
        'v' | 's' => match (value, precision) {
            (Value::String(text), Some(limit)) => text.chars().take(limit).collect(),
            (Value::Number(_) | Value::Bool(_), _) if verb == 's' => wrong(),
            _ => text(value),
        },
        'd' => match value.as_i64() {
            Some(number) if plus && number >= 0 => format!("+{number}"),
            Some(number) => number.to_string(),
            None => value.as_u64().map_or_else(wrong, |number| number.to_string()),
        },
        'q' => match value {
            Value::String(_) => value.to_string(),
            other => wrong_or_quoted(other, wrong),
        },
        'x' => match value {
            Value::String(text) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
            other => other.as_i64().map_or_else(wrong, |number| format!("{number:x}")),
        },
        't' => value.as_bool().map_or_else(wrong, |value| value.to_string()),
        'f' => value
            .as_f64()
            .map_or_else(wrong, |number| format!("{number:.*}", precision.unwrap_or(6))),
        _ => wrong(),
    }
}

fn wrong_or_quoted(value: &Value, wrong: impl Fn() -> String) -> String {
    match value {
        Value::Array(items) => {
            let words: Vec<_> = items
                .iter()
                .map(|item| verb_text('q', item, None, false))
                .collect();
            format!("[{}]", words.join(" "))
        }
        _ => wrong(),
    }
}

/// The first letter of each word in upper case.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for character in text.chars() {
        if inside {
            out.push(character)
        } else {
            out.extend(character.to_uppercase())
        }
        inside = character.is_alphanumeric() || matches!(character, '_' | '\'');
    }
    out
}

fn split(text: &str, separator: &str) -> Value {
    let parts: Vec<Value> = if separator.is_empty() {
        text.chars()
            .map(|character| character.to_string().into())
            .collect()
    } else {
        text.split(separator).map(Into::into).collect()
    };
    parts.into()
}

fn join(items: &Value, separator: &str) -> Result<Value, String> {
    match items {
        Value::Array(items) => {
            let words: Vec<_> = items.iter().map(text).collect();
            Ok(words.join(separator).into())
        }
        Value::Null => Ok(String::new().into()),
        other => Err(format!("can't join {}", text(other))),
    }
}

fn pad(text: &str, before: &Value, after: &Value) -> Result<Value, String> {
    if text.is_empty() {
        return Ok(text.into());
    }
    let (before, after) = (count(before)?, count(after)?);
    Ok(format!("{}{text}{}", " ".repeat(before), " ".repeat(after)).into())
}

fn escape_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            other => out.push(other),
        }
    }
    out
}

fn escape_query(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => out.push('+'),
            byte if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') => {
                out.push(char::from(byte));
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
