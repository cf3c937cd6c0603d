//! Credentials that `docker login` left in `config.json`.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use dhow_types::ErrorKind;
use serde::Deserialize;

use crate::{Context as _, Error};

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

/// What the files say about one registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    Login(Login),
    /// The program `docker-credential-<name>` has them.
    ElsewhereIn(String),
    Nothing,
}

#[derive(Default, Deserialize)]
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

/// Looks `registry` (`docker.io`, `host:port`) up in the files; the first file that says something decides.
pub(crate) fn find(files: &[PathBuf], registry: &str) -> Result<Stored, Error> {
    for path in files {
        let doing = || format!("read credentials from {}", path.display());
        let bytes = match crate::files::read(path, MAX_FILE) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            outcome => outcome.context(doing)?,
        };
        match look_up(&bytes, registry, path)? {
            Stored::Nothing => {}
            found => return Ok(found),
        }
    }
    Ok(Stored::Nothing)
}

fn look_up(bytes: &[u8], registry: &str, path: &Path) -> Result<Stored, Error> {
    let bad = |why: &str| {
        let message = format!("credentials for {registry} in {}: {why}", path.display());
        Error::new(ErrorKind::InvalidArgument, message)
    };
    // serde_json's message would quote the text, and the text is secret.
    let file: File = serde_json::from_slice(bytes).map_err(|error| {
        bad(&format!(
            "no JSON that docker would write (line {}, column {})",
            error.line(),
            error.column()
        ))
    })?;
    let wanted = host_of(registry);
    let helper = file.cred_helpers.iter().find(|(key, _)| host_of(key) == wanted);
    if let Some((_, helper)) = helper {
        return Ok(Stored::ElsewhereIn(helper.clone()));
    }
    let mut entries: Vec<_> = file
        .auths
        .iter()
        .filter(|(key, _)| host_of(key) == wanted)
        .collect();
    entries.sort_by_key(|(key, _)| key.as_str() != registry);
    for (_, entry) in entries {
        if let Some(login) = entry.login().map_err(bad)? {
            return Ok(Stored::Login(login));
        }
        if !file.creds_store.is_empty() {
            return Ok(Stored::ElsewhereIn(file.creds_store.clone()));
        }
    }
    Ok(Stored::Nothing)
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

    fn found(json: &str, registry: &str) -> Stored {
        look_up(json.as_bytes(), registry, Path::new("config.json")).unwrap()
    }

    fn password(user: &str, password: &str) -> Stored {
        Stored::Login(Login::Password {
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
            Stored::Login(Login::Identity("T".to_owned()))
        );
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
            assert_eq!(found(json, other), Stored::Nothing, "{other}");
        }
    }

    #[test]
    fn helpers_are_named_only_for_registries_that_they_hold() {
        let json = r#"{"credsStore":"desktop","credHelpers":{"gcr.io":"gcloud"},"auths":{"ghcr.io":{}}}"#;
        assert_eq!(found(json, "gcr.io"), Stored::ElsewhereIn("gcloud".to_owned()));
        assert_eq!(found(json, "ghcr.io"), Stored::ElsewhereIn("desktop".to_owned()));
        assert_eq!(found(json, "quay.io"), Stored::Nothing);
    }

    #[test]
    fn broken_files_are_errors_that_do_not_quote_the_secret() {
        for json in [
            r#"{"auths":{"a":{"auth":"!!secret!!"}}}"#,
            r#"{"auths":"secret"}"#,
            "secret",
            "",
        ] {
            let error = look_up(json.as_bytes(), "a", Path::new("c")).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
