//! The sources of `ADD` that are elsewhere: URLs of files, and git repositories.
//!
//! A file is downloaded to learn its digest, which is what the step is known by, unless `--checksum` says it before;
//! of a repository the commit is asked for, and its files are only fetched when the step is not cached.

use std::collections::BTreeMap;

use dhow_dockerfile::Copy;
use dhow_types::Digest;

use crate::archive;
use crate::download::Downloaded;
use crate::failure::{Error, Halt, invalid};
use crate::keys::KeyWriter;
use crate::outside::{self, Once, Outside};
use crate::remote::{self, GitSource, Material};
use crate::schedule::Build;
use crate::source::{Pick, Picked, Source as _, pick};
use crate::write::{Destination, Writer};

/// A source that is elsewhere.
#[derive(Debug)]
pub(crate) enum Remote {
    File {
        url: String,
        /// Name in a destination directory.
        name: String,
        checksum: Option<Digest>,
        unpack: bool,
        got: Once<Downloaded>,
    },
    Repository {
        source: GitSource,
        keep_git_dir: bool,
        commit: Once<String>,
        got: Once<Outside>,
    },
}

/// The sources of an `ADD` that are elsewhere, by their index.
pub(crate) fn remotes(
    paths: &[String],
    copy: &Copy,
    checksum: Option<&str>,
) -> Result<BTreeMap<usize, Remote>, Error> {
    let checksum = checksum.filter(|checksum| !checksum.is_empty());
    let mut found = BTreeMap::new();
    for (index, path) in paths.iter().enumerate() {
        let remote = if remote::is_git(path) {
            repository(path, copy.keep_git_dir, checksum)?
        } else if remote::is_http(path) {
            file(path, copy.unpack.unwrap_or(false), checksum)?
        } else {
            continue;
        };
        found.insert(index, remote);
    }
    if checksum.is_some() {
        if paths.len() + copy.files.len() > 1 {
            return Err(invalid("checksum can't be specified for multiple sources"));
        }
        if found.is_empty() {
            return Err(invalid("checksum requires HTTP(S) or Git sources"));
        }
    }
    Ok(found)
}

fn file(url: &str, unpack: bool, checksum: Option<&str>) -> Result<Remote, Error> {
    let checksum = match checksum {
        Some(text) => Some(text.parse::<Digest>().map_err(|error| {
            Error::because(
                dhow_types::ErrorKind::InvalidArgument,
                format!("invalid --checksum {text:?}"),
                error,
            )
            .with_hint("write sha256: and 64 hexadecimal digits")
        })?),
        None => None,
    };
    Ok(Remote::File {
        url: url.to_owned(),
        name: remote::file_name(url),
        checksum,
        unpack,
        got: Once::default(),
    })
}

fn repository(text: &str, keep: Option<bool>, checksum: Option<&str>) -> Result<Remote, Error> {
    let mut source = GitSource::parse(text)?;
    if let Some(checksum) = checksum {
        remote::check_commit(checksum).map_err(|why| invalid(format!("invalid --checksum: {why}")))?;
        if source.commit.as_deref().is_some_and(|known| known != checksum) {
            return Err(invalid(format!(
                "checksum conflicts with that of {}",
                source.shown()
            )));
        }
        source.commit = Some(checksum.to_owned());
    }
    let in_url = source.keep_git_dir;
    if let (Some(flag), Some(in_url)) = (keep, in_url)
        && flag != in_url
    {
        return Err(invalid(format!(
            "keep-git-dir conflicts with that of {}",
            source.shown()
        )));
    }
    Ok(Remote::Repository {
        keep_git_dir: keep.or(in_url).unwrap_or(false),
        source,
        commit: Once::default(),
        got: Once::default(),
    })
}

impl Remote {
    /// Adds what it is now to a key; for that it may have to be fetched.
    pub(crate) fn write_key(&self, build: &Build<'_>, key: &mut KeyWriter) -> Result<(), Halt> {
        match self {
            Self::File {
                url,
                name,
                checksum,
                unpack,
                ..
            } => {
                let digest = match checksum {
                    Some(digest) => *digest,
                    None => self.file(build)?.digest,
                };
                build.made_of(Material::file(url, &digest));
                key.text("file")
                    .text(name)
                    .number(u64::from(*unpack))
                    .digest(&digest);
            }
            Self::Repository {
                source, keep_git_dir, ..
            } => {
                let commit = self.commit(build)?;
                build.made_of(source.material(&commit));
                key.text("repository").text(&commit).text(&source.subdir);
                key.number(u64::from(*keep_git_dir))
                    .number(u64::from(source.submodules));
                // With `.git` the address of the repository is part of the files.
                key.option(Some(source.remote.as_str()).filter(|_| *keep_git_dir));
            }
        }
        Ok(())
    }

    /// Copies it.
    pub(crate) fn copy(
        &self,
        build: &Build<'_>,
        how: &Pick,
        writer: &mut Writer<'_>,
        destination: &Destination,
    ) -> Result<(), Halt> {
        let Self::File { name, unpack, .. } = self else {
            let tree = self.checkout(build)?;
            for picked in pick(&tree.context, &tree.subdir, how)? {
                writer.copy(&tree.context, &picked, destination)?;
            }
            return Ok(());
        };
        let downloaded = self.file(build)?;
        let tree = downloaded.tree(build)?;
        let context = &tree.context;
        let Some(top) = context.stat(name.as_bytes())? else {
            return Err(invalid(format!("the download {name} is gone")).into());
        };
        if *unpack && archive::unpack(context, &top, writer, destination)? {
            return Ok(());
        }
        let picked = Picked {
            name: name.as_bytes().to_vec(),
            top,
            below: Vec::new(),
        };
        writer.copy(context, &picked, destination)
    }

    fn file(&self, build: &Build<'_>) -> Result<std::sync::Arc<Downloaded>, Halt> {
        let Self::File {
            url,
            name,
            checksum,
            got,
            ..
        } = self
        else {
            return Err(invalid("a repository is no file").into());
        };
        got.get(|| Downloaded::fetch(build, url, name, checksum.as_ref()))
    }

    fn commit(&self, build: &Build<'_>) -> Result<std::sync::Arc<String>, Halt> {
        let Self::Repository { source, commit, .. } = self else {
            return Err(invalid("a file has no commit").into());
        };
        commit.get(|| outside::commit(build, source))
    }

    fn checkout(&self, build: &Build<'_>) -> Result<std::sync::Arc<Outside>, Halt> {
        let Self::Repository {
            source,
            keep_git_dir,
            got,
            ..
        } = self
        else {
            return Err(invalid("a file has no commit").into());
        };
        let commit = self.commit(build)?;
        got.get(|| outside::checkout(build, source, &commit, *keep_git_dir))
    }
}
