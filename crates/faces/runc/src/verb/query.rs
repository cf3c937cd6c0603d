//! `state`, `list`, `ps`.

use std::process::ExitCode;

use dhow_runtime::container::{self, Container, Status};
use serde_json::{Value, json};

use super::life::open;
use crate::args::{Flag, Given, Until, on, value};
use crate::{Context, Failure, Verb, is_missing, print};

const FORMAT: Flag = value("format", Some('f'), "table (default) or json");

pub(crate) const STATE: Verb = Verb {
    name: "state",
    about: "print the state of a container",
    words: "<container-id>",
    flags: &[],
    until: Until::End,
    count: (1, 1),
    run: |context, given| {
        let id = given.words.first().map_or("", String::as_str);
        let document = document(&Container::open_made(&context.root, id)?)?;
        print(&pretty(&document))
    },
};

pub(crate) const LIST: Verb = Verb {
    name: "list",
    about: "list the containers of the root",
    words: "",
    flags: &[FORMAT, on("quiet", Some('q'), "print the ids only")],
    until: Until::End,
    count: (0, 0),
    run: list,
};

pub(crate) const PS: Verb = Verb {
    name: "ps",
    about: "show the processes of a container",
    words: "<container-id> [ps options]",
    flags: &[FORMAT],
    until: Until::Words(1),
    count: (1, usize::MAX),
    run: ps,
};

/// A document as Go's indented encoder prints it, with two blanks.
pub(crate) fn pretty(document: &Value) -> String {
    // A document of plain values always has a text.
    serde_json::to_string_pretty(document).unwrap_or_default()
}

/// The state as runc shows it: the standard's document, and more.
fn document(container: &Container) -> Result<Value, Failure> {
    let state = container.state()?;
    let mut document = json!({
        "ociVersion": state.oci_version,
        "id": state.id,
        "pid": state.pid,
        "status": state.status,
        "bundle": state.bundle,
    });
    let record = container.record();
    if let Some(fields) = document.as_object_mut() {
        if let Some(record) = record {
            fields.insert("rootfs".to_owned(), json!(record.rootfs));
            fields.insert("created".to_owned(), json!(record.created));
        }
        if !state.annotations.is_empty() {
            fields.insert("annotations".to_owned(), json!(state.annotations));
        }
        fields.insert("owner".to_owned(), json!(owner(container.owner()?)));
    }
    Ok(document)
}

/// The name of a user, or `#id`. The file is read here: a static program has no name service.
pub(crate) fn owner(uid: u32) -> String {
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let number = uid.to_string();
    text.lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&number.as_str()))
        .and_then(|fields| fields.first().map(|name| (*name).to_owned()))
        .unwrap_or_else(|| format!("#{uid}"))
}

fn list(context: &Context, given: &Given) -> Result<ExitCode, Failure> {
    let ids = match container::list(&context.root) {
        // No container was created yet.
        Err(error) if is_missing(error.kind()) && !context.chosen_root => Vec::new(),
        listed => listed?,
    };
    let mut documents = Vec::with_capacity(ids.len());
    for id in &ids {
        match Container::open(&context.root, id)
            .map_err(Failure::from)
            .and_then(|container| document(&container))
        {
            Ok(document) => documents.push(document),
            // Deleted meanwhile, or damaged: the others are listed.
            Err(failure) => context
                .log
                .warn(&format!("load container {id}: {}", failure.message)),
        }
    }
    let field = |document: &Value, name: &str| match &document[name] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    if given.is_on("quiet") {
        let lines: Vec<String> = documents.iter().map(|one| field(one, "id") + "\n").collect();
        return print(&lines.concat());
    }
    match given.value("format").unwrap_or("table") {
        "table" => {
            let columns = ["id", "pid", "status", "bundle", "created", "owner"];
            let head = columns.map(str::to_uppercase);
            let rows = documents.iter().map(|one| columns.map(|name| field(one, name)));
            print(&table(std::iter::once(head).chain(rows)))
        }
        // Go's encoder calls an empty list null.
        "json" if documents.is_empty() => print("null\n"),
        "json" => print(&format!("{}\n", Value::Array(documents))),
        _ => Err(Failure::new("invalid format option")),
    }
}

/// Columns of at least twelve letters, three blanks apart.
fn table<const N: usize>(rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = rows.collect();
    let mut text = String::new();
    for row in &rows {
        for (at, cell) in row.iter().enumerate() {
            let widest = rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
            let width = if at + 1 == N { 0 } else { (widest + 3).max(12) };
            text.push_str(&format!("{cell:<width$}"));
        }
        text.push('\n');
    }
    text
}

fn ps(context: &Context, given: &Given) -> Result<ExitCode, Failure> {
    let container = open(context, given)?;
    let pids = match container.status()? {
        Status::Stopped => Vec::new(),
        _ => container.processes()?,
    };
    match given.value("format").unwrap_or("table") {
        "table" => {}
        "json" => return print(&format!("{}\n", json!(pids))),
        _ => return Err(Failure::new("invalid format option")),
    }
    let options = given.words.get(1..).unwrap_or_default();
    let mut command = std::process::Command::new("ps");
    if options.is_empty() {
        command.arg("-ef");
    }
    let output = command
        .args(options)
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(|error| Failure::from(error).during("run ps"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Failure::new(format!("{}: {said}", output.status)));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let title = lines.next().unwrap_or_default();
    let Some(column) = title.split_whitespace().position(|name| name == "PID") else {
        return Err(Failure::new("couldn't find PID field in ps output"));
    };
    let is_own = |line: &&str| {
        let pid = line.split_whitespace().nth(column);
        pid.and_then(|pid| pid.parse().ok())
            .is_some_and(|pid: i32| pids.contains(&pid))
    };
    let own: Vec<&str> = std::iter::once(title).chain(lines.filter(is_own)).collect();
    print(&(own.join("\n") + "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_columns_of_at_least_twelve_letters() {
        let row = |a: &str, b: &str| [a.to_owned(), b.to_owned()];
        let text = table([row("ID", "OWNER"), row("0123456789", "root")].into_iter());
        assert_eq!(text, "ID           OWNER\n0123456789   root\n");
    }

    #[test]
    fn an_owner_without_a_name_is_a_number() {
        assert_eq!(owner(0), "root");
        assert_eq!(owner(4_000_000_000), "#4000000000");
    }
}
