//! Credentials that `login` left: in docker's `config.json`, in the `auth.json` of the containers tools, in the
//! helpers that these name.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use dhow_types::ErrorKind;
use serde::Deserialize;

use crate::helper::CredentialProgram;
use crate::{Context as _, Error};

/// Docker's key for its own hub.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// Larger credential files are not read.
const MAX_FILE: u64 = 1 << 20;
/// Docker pads; people who write the file by hand may not.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Who asks.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Login {
    Password {
        user: String,
        password: String,
    },
    /// A refresh token of the token server (OAuth2), from `identitytoken`.
    Identity(String),
}

/// Secrets stay out of logs.
impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Password { .. } => "Password",
            Self::Identity(_) => "Identity",
        })
    }
}

/// What the files say about one repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    Login(Login),
    Nothing,
}

/// The credential files, read once, and where helpers are.
#[derive(Debug, Default)]
pub(crate) struct Credentials {
    files: Vec<(PathBuf, File)>,
    /// Helpers that are asked after all files.
    more: Vec<String>,
    folders: Vec<PathBuf>,
    /// Before all of them.
    given: Option<Login>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct File {
    auths: HashMap<String, Entry>,
    cred_helpers: HashMap<String, String>,
    creds_store: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

/// Secrets stay out of logs.
impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entry")
    }
}

/// What one file says.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Login(Login),
    /// `docker-credential-<name>` has it, or else this entry.
    Helper(String, Option<Login>),
    Nothing,
}

impl Credentials {
    /// Reads docker's `config.json` and the `auth.json` of the containers tools; missing files are fine.
    ///
    /// # Errors
    /// `InvalidArgument` for a malformed file; what reading said.
    pub(crate) fn read(paths: &[PathBuf], more: Vec<String>, folders: &[PathBuf]) -> Result<Self, Error> {
        let mut files = Vec::new();
        for path in paths {
            let doing = || format!("read credentials from {}", path.display());
            let bytes = match crate::files::read(path, MAX_FILE) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                outcome => outcome.context(doing)?,
            };
            // podman makes an empty file before it has anything to keep.
            let file = if bytes.trim_ascii().is_empty() {
                File::default()
            } else {
                parse(&bytes, path)?
            };
            files.push((path.clone(), file));
        }
        Ok(Self {
            files,
            more,
            folders: folders.to_vec(),
            given: None,
        })
    }

    /// The same, and this login instead of all others.
    pub(crate) fn given(self, login: Option<&crate::GivenLogin>) -> Self {
        let given = login
            .cloned()
            .map(|crate::GivenLogin { user, password }| Login::Password { user, password });
        Self { given, ..self }
    }

    /// Looks `registry` (`docker.io`, `host:port`) and `repository` up; the first file that says something decides.
    /// May run a helper, which takes its time: call it from a thread that may wait.
    ///
    /// # Errors
    /// `InvalidArgument` for an entry that nobody would write; what a helper said.
    pub(crate) fn find(&self, registry: &str, repository: &str) -> Result<Stored, Error> {
        if let Some(login) = &self.given {
            return Ok(Stored::Login(login.clone()));
        }
        for (path, file) in &self.files {
            let bad = |why: &str| {
                let message = format!("credentials for {registry} in {}: {why}", path.display());
                Error::new(ErrorKind::InvalidArgument, message)
            };
            match file.look_up(registry, repository).map_err(bad)? {
                Said::Nothing => {}
                Said::Login(login) => return Ok(Stored::Login(login)),
                Said::Helper(name, otherwise) => match (self.ask(&name, registry), otherwise) {
                    (Ok(Some(login)), _) | (Ok(None) | Err(_), Some(login)) => {
                        return Ok(Stored::Login(login));
                    }
                    (Ok(None), None) => {}
                    (Err(error), None) => {
                        return Err(error).context(|| format!("get the credentials for {registry}"));
                    }
                },
            }
        }
        for name in &self.more {
            if let Some(login) = self
                .ask(name, registry)
                .context(|| format!("get the credentials for {registry}"))?
            {
                return Ok(Stored::Login(login));
            }
        }
        Ok(Stored::Nothing)
    }

    fn ask(&self, name: &str, registry: &str) -> Result<Option<Login>, Error> {
        let server = if registry == "docker.io" {
            HUB_KEY
        } else {
            registry
        };
        let kept = CredentialProgram::find(name, &self.folders)?.get(server)?;
        Ok(kept.map(|kept| {
            if kept.is_token() {
                Login::Identity(kept.secret)
            } else {
                Login::Password {
                    user: kept.user,
                    password: kept.secret,
                }
            }
        }))
    }
}

fn parse(bytes: &[u8], path: &Path) -> Result<File, Error> {
    // serde_json's message would quote the text, and the text is secret.
    serde_json::from_slice(bytes).map_err(|error| {
        let message = format!(
            "credentials in {}: no JSON that docker would write (line {}, column {})",
            path.display(),
            error.line(),
            error.column()
        );
        Error::new(ErrorKind::InvalidArgument, message)
    })
}

impl File {
    fn look_up(&self, registry: &str, repository: &str) -> Result<Said, &'static str> {
        let wanted = host_of(registry);
        let mut entries: Vec<(usize, bool, &Entry)> = self
            .auths
            .iter()
            .filter_map(|(key, entry)| Some((covers(key, wanted, repository)?, key == registry, entry)))
            .collect();
        // The most exact first: a repository before a folder of them before the host.
        entries.sort_by_key(|(length, exact, _)| (std::cmp::Reverse(*length), !exact));
        let mut login = None;
        for (_, _, entry) in entries {
            login = entry.login()?;
            if login.is_some() {
                break;
            }
        }
        let own = self.cred_helpers.iter().find(|(key, _)| host_of(key) == wanted);
        let helper = own
            .map(|(_, helper)| helper)
            .or(Some(&self.creds_store))
            .filter(|name| !name.is_empty());
        Ok(match (helper, login) {
            (Some(helper), login) => Said::Helper(helper.clone(), login),
            (None, Some(login)) => Said::Login(login),
            (None, None) => Said::Nothing,
        })
    }
}

impl Entry {
    fn login(&self) -> Result<Option<Login>, &'static str> {
        if !self.identitytoken.is_empty() {
            return Ok(Some(Login::Identity(self.identitytoken.clone())));
        }
        if !self.auth.is_empty() {
            let decoded = LENIENT
                .decode(self.auth.trim())
                .map_err(|_| "`auth` is not base64")?;
            let text = String::from_utf8(decoded).map_err(|_| "`auth` is not text")?;
            let (user, password) = text.split_once(':').ok_or("`auth` is not user:password")?;
            let password = password.trim_end_matches('\0').to_owned();
            return Ok(Some(Login::Password {
                user: user.to_owned(),
                password,
            }));
        }
        if !self.username.is_empty() {
            let (user, password) = (self.username.clone(), self.password.clone());
            return Ok(Some(Login::Password { user, password }));
        }
        Ok(None)
    }
}

/// How much of the repository's name a key of `auths` is about, when it is about it at all: nothing for the host.
/// The containers tools write `host/folder/repository` (containers-auth.json(5)).
fn covers(key: &str, wanted: &str, repository: &str) -> Option<usize> {
    if host_of(key) != wanted {
        return None;
    }
    let path = match key.split_once("://") {
        // Docker's keys are addresses, whose paths mean nothing.
        Some(_) => "",
        None => key
            .split_once('/')
            .map_or("", |(_, path)| path.trim_end_matches('/')),
    };
    if path.is_empty() || matches!(path, "v1" | "v2") {
        return Some(0);
    }
    let rest = repository.strip_prefix(path)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(path.len())
}

/// The registry that a key of `auths` is for: docker writes `https://index.docker.io/v1/` for `docker.io`, others
/// write `host`, `host:port` or an URL.
fn host_of(key: &str) -> &str {
    let key = key.split_once("://").map_or(key, |(_, rest)| rest);
    match key.split('/').next().unwrap_or("") {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(json: &str, registry: &str) -> Said {
        found_for(json, registry, "a/b")
    }

    fn found_for(json: &str, registry: &str, repository: &str) -> Said {
        parse(json.as_bytes(), Path::new("config.json"))
            .unwrap()
            .look_up(registry, repository)
            .unwrap()
    }

    fn password(user: &str, password: &str) -> Said {
        Said::Login(Login::Password {
            user: user.to_owned(),
            password: password.to_owned(),
        })
    }

    #[test]
    fn entries_are_found_under_every_key_that_docker_writes() {
        let json = r#"{"auths":{
            "https://index.docker.io/v1/":{"auth":"dXNlcjpwYTpzcw=="},
            "ghcr.io":{"username":"u","password":"p"},
            "https://r.example:5000/v2/":{"auth":"dXNlcjpw"},
            "id.example":{"identitytoken":"T","auth":"PHRva2VuPjo="}}}"#;
        assert_eq!(found(json, "docker.io"), password("user", "pa:ss"));
        assert_eq!(found(json, "ghcr.io"), password("u", "p"));
        assert_eq!(found(json, "r.example:5000"), password("user", "p"));
        assert_eq!(
            found(json, "id.example"),
            Said::Login(Login::Identity("T".to_owned()))
        );
    }

    #[test]
    fn the_most_exact_key_of_a_repository_counts_and_no_other_repositorys() {
        let json = r#"{"auths":{
            "quay.io":{"username":"host","password":"p"},
            "quay.io/team":{"username":"team","password":"p"},
            "quay.io/team/app":{"username":"app","password":"p"}}}"#;
        for (repository, user) in [
            ("team/app", "app"),
            ("team/app/sub", "app"),
            ("team/application", "team"),
            ("team", "team"),
            ("teams/app", "host"),
            ("other", "host"),
        ] {
            assert_eq!(
                found_for(json, "quay.io", repository),
                password(user, "p"),
                "{repository}"
            );
        }
        let json = r#"{"auths":{"quay.io/team":{"username":"team","password":"p"}}}"#;
        assert_eq!(found_for(json, "quay.io", "other/app"), Said::Nothing);
    }

    #[test]
    fn credentials_of_one_host_are_not_those_of_another() {
        let json = r#"{"auths":{"r.example:5000":{"auth":"dXNlcjpw"}}}"#;
        for other in [
            "r.example",
            "r.example:5001",
            "xr.example:5000",
            "r.example:50000",
            "docker.io",
        ] {
            assert_eq!(found(json, other), Said::Nothing, "{other}");
        }
    }

    #[test]
    fn a_registrys_own_helper_comes_before_the_general_one() {
        let json = r#"{"credsStore":"desktop","credHelpers":{"gcr.io":"gcloud"},"auths":{"ghcr.io":{}}}"#;
        assert_eq!(found(json, "gcr.io"), Said::Helper("gcloud".to_owned(), None));
        for general in ["ghcr.io", "quay.io"] {
            assert_eq!(found(json, general), Said::Helper("desktop".to_owned(), None));
        }
        let json = r#"{"credHelpers":{"gcr.io":"gcloud"}}"#;
        assert_eq!(found(json, "quay.io"), Said::Nothing);
    }

    #[test]
    fn a_helper_that_is_not_there_leaves_what_the_file_has_or_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(
            &path,
            r#"{"credsStore":"gone","auths":{"a":{"username":"u","password":"p"}}}"#,
        )
        .unwrap();
        let credentials = Credentials::read(&[path], Vec::new(), &[]).unwrap();
        assert!(matches!(credentials.find("a", "x"), Ok(Stored::Login(_))));
        let error = credentials.find("b", "x").unwrap_err();
        assert!(
            dhow_types::Failure::hint(&error).unwrap().contains("credsStore"),
            "{error}"
        );
    }

    proptest::proptest! {
        #[test]
        fn any_file_is_read_without_panic(text in "\\PC{0,200}", key in "[a-z./:]{0,30}", auth in "[ -~]{0,40}") {
            drop(parse(text.as_bytes(), Path::new("c")));
            let json = serde_json::json!({"auths": {key: {"auth": auth}}}).to_string();
            let file = parse(json.as_bytes(), Path::new("c")).unwrap();
            drop(file.look_up("r.example", "a/b"));
        }
    }

    #[test]
    fn broken_files_are_errors_that_do_not_quote_the_secret() {
        for json in [
            r#"{"auths":{"a":{"auth":"!!secret!!"}}}"#,
            r#"{"auths":"secret"}"#,
            "secret",
            "",
        ] {
            let said = match parse(json.as_bytes(), Path::new("c")) {
                Ok(file) => file.look_up("a", "b").unwrap_err().to_owned(),
                Err(error) => error.to_string(),
            };
            assert!(!said.contains("secret"), "{said}");
        }
    }
}
