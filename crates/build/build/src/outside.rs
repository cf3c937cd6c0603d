//! Trees that are neither the context nor layers: what `ADD` downloads or checks out, and named contexts.
//!
//! Each is a directory that is read as a context is. What was fetched lies in `tmp/` of the store and goes with the
//! build; a folder of the person's keeps its hashes for the next build.

use std::sync::{Arc, Mutex, PoisonError};

use dhow_types::ErrorKind;

use crate::archive;
use crate::context::Context;
use crate::download::Downloaded;
use crate::failure::{Context as _, Error, Halt, invalid};
use crate::ignore::Patterns;
use crate::mounts::RemovedDir;
use crate::remote::{GitSource, Material};
use crate::request::NamedContext;
use crate::schedule::Build;
use crate::source::Source as _;
use crate::step::GitAccess;
use crate::write::{Destination, Writer};

/// Most bytes of a header with credentials.
const MAX_HEADER: usize = 8 << 10;

/// A directory to copy from.
#[derive(Debug)]
pub(crate) struct Outside {
    pub(crate) context: Context,
    /// Directory in it that is meant, without leading `/`; empty for all of it.
    pub(crate) subdir: String,
    /// Removed with what was fetched into it.
    fetched: Option<RemovedDir>,
}

impl Outside {
    /// Keeps the hashes of a folder of the person's; what was fetched goes.
    pub(crate) fn save(&self) -> Result<(), Error> {
        if self.fetched.is_some() {
            return Ok(());
        }
        self.context.save()
    }
}

/// Something that is fetched once, by whoever needs it first.
#[derive(Debug)]
pub(crate) struct Once<T>(Mutex<Option<Arc<T>>>);

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T> Once<T> {
    pub(crate) fn get(&self, make: impl FnOnce() -> Result<T, Halt>) -> Result<Arc<T>, Halt> {
        self.share(|| make().map(Arc::new))
    }

    /// The same with what others have, too.
    pub(crate) fn share(&self, make: impl FnOnce() -> Result<Arc<T>, Halt>) -> Result<Arc<T>, Halt> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = slot.as_ref() {
            return Ok(Arc::clone(found));
        }
        let made = make()?;
        *slot = Some(Arc::clone(&made));
        Ok(made)
    }

    /// Does something with it when it is there.
    pub(crate) fn look(&self, work: impl FnOnce(&T) -> Result<(), Error>) -> Result<(), Error> {
        let slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slot.as_deref().map_or(Ok(()), work)
    }
}

/// Opens a named context that is a tree of files; `None` when it is an image.
pub(crate) fn named(build: &Build<'_>, context: &NamedContext) -> Result<Option<Arc<Outside>>, Halt> {
    match context {
        NamedContext::Image(_) | NamedContext::Layout { .. } => Ok(None),
        NamedContext::Local(path) => {
            let once = build.outside(&format!("local {}", path.display()));
            let open = || {
                let cache = build.store.root().join("cache/ctx");
                Ok(Outside {
                    context: Context::named(path, &cache)?,
                    subdir: String::new(),
                    fetched: None,
                })
            };
            once.get(open).map(Some)
        }
        NamedContext::Http(url) => {
            let once = build.outside(&format!("http {url}"));
            once.share(|| of_url(build, url)).map(Some)
        }
        NamedContext::Git(text) => {
            let source = GitSource::parse(text)?;
            let once = build.outside(&format!("git {text}"));
            let fetch = || {
                let commit = commit(build, &source)?;
                build.made_of(source.material(&commit));
                checkout(build, &source, &commit, source.keep_git_dir.unwrap_or(false))
            };
            once.get(fetch).map(Some)
        }
    }
}

/// The files of an archive at a URL, or the one file that is there.
fn of_url(build: &Build<'_>, url: &str) -> Result<Arc<Outside>, Halt> {
    let name = crate::remote::file_name(url);
    let downloaded = Downloaded::fetch(build, url, &name, None)?;
    build.made_of(Material::file(url, &downloaded.digest));
    let tree = downloaded.tree(build)?;
    let context = &tree.context;
    let Some(top) = context.stat(name.as_bytes())? else {
        return Err(invalid(format!("the download {name} is gone")).into());
    };
    let dir = temporary(build)?;
    let root = dhow_rootpath::Root::open(&dir.path().join("files")).context(|| "open a named context")?;
    let mut writer = Writer::new(root, build);
    if !archive::unpack(context, &top, &mut writer, &Destination::new("/", true))? {
        return Ok(tree);
    }
    writer.finish()?;
    fetched(build, dir, String::new(), Patterns::default()).map(Arc::new)
}

/// The commit that a repository means now.
pub(crate) fn commit(build: &Build<'_>, source: &GitSource) -> Result<String, Halt> {
    let what = || format!("look at the repository {}", source.shown());
    let commit = with_access(build, source, |access| build.images.commit(source, access)).context(what)?;
    if let Some(wanted) = &source.commit
        && !commit.starts_with(wanted.as_str())
    {
        let message = format!(
            "{} is at commit {commit}, and the checksum wants {wanted}",
            source.shown()
        );
        return Err(Error::new(ErrorKind::DataLoss, message).into());
    }
    Ok(commit)
}

/// When a commit was made.
pub(crate) fn commit_time(build: &Build<'_>, source: &GitSource, commit: &str) -> Result<i64, Error> {
    with_access(build, source, |access| {
        build.images.commit_time(source, commit, access)
    })
    .context(|| format!("look at the repository {}", source.shown()))
}

/// The files of a commit.
pub(crate) fn checkout(
    build: &Build<'_>,
    source: &GitSource,
    commit: &str,
    keep: bool,
) -> Result<Outside, Halt> {
    let dir = temporary(build)?;
    let into = dir.path().join("files");
    let what = || format!("check out {}", source.shown());
    with_access(build, source, |access| {
        build.images.checkout(source, commit, access, &into)
    })
    .context(what)?;
    // Submodules have one of their own, which is a file.
    let without: &[&str] = if keep { &[] } else { &["**/.git"] };
    fetched(build, dir, source.subdir.clone(), Patterns::compile(without)?)
}

pub(crate) fn temporary(build: &Build<'_>) -> Result<RemovedDir, Error> {
    let dir = RemovedDir::make(build.store.root().join("tmp").join(build.key()))?;
    let files = dir.path().join("files");
    std::fs::create_dir(&files).context(|| format!("create {}", files.display()))?;
    Ok(dir)
}

pub(crate) fn fetched(
    build: &Build<'_>,
    dir: RemovedDir,
    subdir: String,
    without: Patterns,
) -> Result<Outside, Halt> {
    let cache = build.store.root().join("cache/ctx");
    Ok(Outside {
        context: Context::without(&dir.path().join("files"), without, &cache)?,
        subdir,
        fetched: Some(dir),
    })
}

/// `HTTP_AUTH_HEADER_<host>` is a whole header, `HTTP_AUTH_TOKEN_<host>` a token (frontend 1.26, `llb.HTTP`).
pub(crate) fn http_authorization(build: &Build<'_>, url: &str) -> Result<Option<String>, Error> {
    let host = host(url);
    let header = secret(build, &format!("HTTP_AUTH_HEADER_{host}"))?;
    if header.is_some() {
        return Ok(header);
    }
    let token = secret(build, &format!("HTTP_AUTH_TOKEN_{host}"))?;
    Ok(token.map(|token| format!("Bearer {token}")))
}

/// A secret as the text of a header.
fn secret(build: &Build<'_>, id: &str) -> Result<Option<String>, Error> {
    let Some(secret) = build.request.secrets.get(id) else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&secret.0)
        .map(str::trim_end)
        .unwrap_or_default();
    if text.is_empty() || text.len() > MAX_HEADER || text.chars().any(char::is_control) {
        return Err(invalid(format!("the secret {id} is no header")));
    }
    Ok(Some(text.to_owned()))
}

/// The host of a URL without user and port.
fn host(url: &str) -> &str {
    let authority = match url.split_once("://") {
        Some((_, rest)) => rest.split(['/', '?', '#']).next().unwrap_or(rest),
        None => url.split(':').next().unwrap_or(url),
    };
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Runs `work` with what git may use: `GIT_AUTH_TOKEN` or `GIT_AUTH_HEADER`, of the host or of any, and the agent.
fn with_access<T>(
    build: &Build<'_>,
    source: &GitSource,
    work: impl FnOnce(&GitAccess<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let host = host(&source.remote);
    let find = |name: &str| -> Result<Option<String>, Error> {
        match secret(build, &format!("{name}.{host}"))? {
            Some(found) => Ok(Some(found)),
            None => secret(build, name),
        }
    };
    let header = find("GIT_AUTH_HEADER")?;
    let token = find("GIT_AUTH_TOKEN")?;
    work(&GitAccess {
        header: header.as_deref(),
        token: token.as_deref(),
        agent: build.request.ssh.get("default").map(std::path::PathBuf::as_path),
        cancel: &build.request.cancel,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_neither_user_nor_port() {
        for (url, wanted) in [
            ("https://example.test/a@b:1", "example.test"),
            ("https://u:p@example.test:8443/x", "example.test"),
            ("https://[::1]:80/x", "[::1]"),
            ("git@example.test:a/b", "example.test"),
            ("https://example.test?x=/@y", "example.test"),
        ] {
            assert_eq!(host(url), wanted, "{url}");
        }
    }
}
