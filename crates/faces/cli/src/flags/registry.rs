//! Flags about registries that podman has at every verb that asks one. They are read once, with the environment, since that is
//! where the person's other words about registries come from.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Arg, ArgMatches, Command};
use dhow_engine::GivenLogin;

use crate::CliError;

/// Adds the flags to a verb.
pub(crate) fn augment(command: Command) -> Command {
    let valued = |name: &'static str, value: &'static str| Arg::new(name).long(name).value_name(value);
    // Who logs in or out names its user in another way.
    let asks = !matches!(command.get_name(), "login" | "logout");
    command
        .args(asks.then(|| {
            valued("creds", "USER:PASSWORD").help("The user to ask registries as, whatever is stored")
        }))
        .arg(
            valued("retry-delay", "DURATION").help(
                "How long to wait before a request is tried again, as 2s (longer each time without this)",
            ),
        )
        .arg(valued("authfile", "FILE").help("The file with the credentials, which alone counts"))
        .arg(
            valued("tls-verify", "BOOL")
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .value_parser(["true", "false"])
                .help("With false: plain HTTP and certificates that do not verify will do, too"),
        )
        .arg(
            valued("cert-dir", "DIR")
                .help("A folder of certificate authorities (*.crt) to trust besides the system's"),
        )
        .arg(
            valued("retry", "N")
                .value_parser(clap::value_parser!(u32).range(0..=100))
                .help("How often a request that failed is tried again"),
        )
}

/// What the flags say of one call.
#[derive(Clone, Debug, Default)]
pub(crate) struct RegistryWords {
    /// The file with the credentials.
    pub(crate) authfile: Option<PathBuf>,
    /// Whether any registry may be one that cannot be verified.
    pub(crate) unverified: bool,
    /// Files with certificate authorities.
    pub(crate) authorities: Vec<PathBuf>,
    /// How often a request is tried in all.
    pub(crate) attempts: Option<u32>,
    /// How long it waits in between.
    pub(crate) pause: Option<Duration>,
    /// Who asks.
    pub(crate) login: Option<GivenLogin>,
}

impl RegistryWords {
    /// Reads the flags of the verb that is called.
    pub(crate) fn read(matches: &ArgMatches) -> Result<Self, CliError> {
        let (mut inner, mut verb) = (matches, "");
        while let Some((name, below)) = inner.subcommand() {
            (inner, verb) = (below, name);
        }
        let text = |name: &str| inner.try_get_one::<String>(name).ok().flatten();
        let authfile = text("authfile").map(PathBuf::from);
        // Who logs in makes the file.
        if let Some(file) = authfile
            .as_deref()
            .filter(|file| verb != "login" && !file.exists())
        {
            return Err(CliError::plain(format!(
                "credential file is not accessible: faccessat {}: no such file or directory",
                file.display()
            ))
            .with_code(125));
        }
        let folder = text("cert-dir").map(PathBuf::from);
        Ok(Self {
            authfile,
            unverified: text("tls-verify").is_some_and(|word| word == "false"),
            authorities: folder
                .as_deref()
                .map(authorities)
                .transpose()?
                .unwrap_or_default(),
            attempts: inner
                .try_get_one::<u32>("retry")
                .ok()
                .flatten()
                .map(|times| times + 1),
            pause: text("retry-delay").map(|text| delay(text)).transpose()?,
            login: text("creds").map(|text| login(text)).transpose()?,
        })
    }
}

fn delay(text: &str) -> Result<Duration, CliError> {
    dhow_types::parse_duration(text)
        .map_err(|_| CliError::plain(format!("invalid --retry-delay {text:?}: write 2s")).with_code(125))
}

fn login(text: &str) -> Result<GivenLogin, CliError> {
    match text.split_once(':') {
        Some((user, password)) if !user.is_empty() => Ok(GivenLogin {
            user: user.to_owned(),
            password: password.to_owned(),
        }),
        // Not what was written: it may be the password.
        _ => Err(CliError::plain("invalid --creds: write USER:PASSWORD").with_code(125)),
    }
}

fn authorities(folder: &Path) -> Result<Vec<PathBuf>, CliError> {
    let listed = std::fs::read_dir(folder).map_err(|error| {
        CliError::plain(format!("--cert-dir {}: {error}", folder.display())).with_code(125)
    })?;
    let mut files: Vec<PathBuf> = listed.flatten().map(|entry| entry.path()).collect();
    let has = |path: &PathBuf, end: &str| path.extension().is_some_and(|extension| extension == end);
    if files.iter().any(|file| has(file, "cert")) {
        return Err(CliError::plain(format!(
            "--cert-dir {}: certificates of clients (*.cert) are not supported",
            folder.display()
        ))
        .with_code(125));
    }
    files.retain(|file| has(file, "crt"));
    files.sort();
    Ok(files)
}
