//! Small values: `NAME=value`, files of them, restart policies.

use std::collections::BTreeMap;
use std::path::Path;

use dhow_engine::RestartPolicy;

use crate::{CliError, dialect};

/// Largest env or label file.
const MAX_FILE: u64 = 1 << 20;

/// `key=value`, or `key` with an empty value.
pub(crate) fn key_value(text: &str) -> (String, String) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    (key.to_owned(), value.to_owned())
}

/// `--label` and `--label-file`.
pub(crate) fn labels(flags: &[String], files: &[String]) -> Result<BTreeMap<String, String>, CliError> {
    let mut all = BTreeMap::new();
    for file in files {
        all.extend(lines(Path::new(file))?.iter().map(|line| key_value(line)));
    }
    all.extend(flags.iter().map(|flag| key_value(flag)));
    if all.contains_key("") {
        return Err(CliError::plain("invalid label: it has no name").with_code(125));
    }
    Ok(all)
}

/// `--env-file` and `--env`; a name alone takes the value of this command's own environment, if it has one.
pub(crate) fn env_pairs(flags: &[String], files: &[String]) -> Result<Vec<String>, CliError> {
    let mut all = Vec::new();
    for file in files {
        for line in lines(Path::new(file))? {
            all.extend(env_pair(&line)?);
        }
    }
    for flag in flags {
        all.extend(env_pair(flag)?);
    }
    Ok(all)
}

fn env_pair(text: &str) -> Result<Vec<String>, CliError> {
    if text.is_empty() || text.starts_with('=') {
        return Err(CliError::plain(format!("invalid environment variable: {text:?}")));
    }
    if text.contains('=') {
        return Ok(vec![text.to_owned()]);
    }
    if let Some(beginning) = text.strip_suffix('*').filter(|_| dialect::spoken().is_podman()) {
        return Ok(beginning_with(beginning));
    }
    let value = std::env::var(text).ok();
    Ok(value.map(|value| format!("{text}={value}")).into_iter().collect())
}

/// The variables of this command's own environment whose names begin so, by name (podman-run(1), `--env`).
fn beginning_with(beginning: &str) -> Vec<String> {
    let all = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let mut found: Vec<String> = all
        .filter(|(name, _)| name.starts_with(beginning))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    found.sort();
    found
}

/// Lines that say something; `#` starts a comment at the beginning of a line only, as in docker.
fn lines(path: &Path) -> Result<Vec<String>, CliError> {
    use std::io::Read as _;
    let what = |error: std::io::Error| CliError::plain(format!("read {}: {error}", path.display()));
    let mut text = String::new();
    std::fs::File::open(path)
        .map_err(what)?
        .take(MAX_FILE)
        .read_to_string(&mut text)
        .map_err(what)?;
    let text = text.trim_start_matches('\u{feff}');
    let wanted = text
        .lines()
        .map(str::trim_start)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(wanted.map(str::to_owned).collect())
}

/// Longer than anybody waits, in seconds, and short enough to be added to any time.
const FOR_EVER: u64 = 100 * 365 * 24 * 3600;

/// Seconds to wait; a negative number means without end.
pub(crate) fn seconds(text: &str) -> Result<u64, String> {
    match text.parse::<i64>() {
        Ok(number) => Ok(u64::try_from(number).unwrap_or(FOR_EVER).min(FOR_EVER)),
        Err(_) => Err("it is a number of seconds, or -1 to wait without end".to_owned()),
    }
}

/// `no`, `always`, `unless-stopped`, `on-failure[:N]`.
pub(crate) fn restart_policy(text: &str) -> Result<RestartPolicy, String> {
    match text.split_once(':') {
        None => match text {
            "" | "no" => Ok(RestartPolicy::No),
            "always" => Ok(RestartPolicy::Always),
            "unless-stopped" => Ok(RestartPolicy::UnlessStopped),
            "on-failure" => Ok(RestartPolicy::OnFailure(0)),
            _ => Err(format!(
                "invalid restart policy {text:?}: use no, always, unless-stopped or on-failure[:N]"
            )),
        },
        Some(("on-failure", count)) => count
            .parse()
            .map(RestartPolicy::OnFailure)
            .map_err(|_| format!("invalid maximum retry count {count:?}")),
        Some((name, _)) => Err(format!(
            "maximum retry count cannot be used with restart policy {name:?}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restart_policies_read_as_dockers() {
        assert_eq!(restart_policy("on-failure:3"), Ok(RestartPolicy::OnFailure(3)));
        assert_eq!(restart_policy("unless-stopped"), Ok(RestartPolicy::UnlessStopped));
        for bad in ["sometimes", "always:3", "on-failure:x", "on-failure:-1"] {
            assert!(restart_policy(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_variable_without_a_name_is_refused() {
        assert!(env_pairs(&["=x".to_owned()], &[]).is_err());
        assert_eq!(env_pairs(&["A=b=c".to_owned()], &[]).unwrap(), ["A=b=c"]);
    }

    #[test]
    fn files_may_have_comments_and_blank_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("env");
        std::fs::write(&path, "\u{feff}# no\n\nA=1\n  B=2 # kept\n").unwrap();
        let file = path.display().to_string();
        assert_eq!(env_pairs(&[], &[file]).unwrap(), ["A=1", "B=2 # kept"]);
    }
}
