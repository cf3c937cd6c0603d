//! From a chosen repository to its packages: `InRelease` -> checked signature -> `Release` -> checked `Packages`.

use std::fs;
use std::io::BufReader;
use std::path::Path;

use dhow_types::{ErrorKind, Observer, Progress};

use crate::fetch::Downloads;
use crate::openpgp::{self, Keyring, Signer};
use crate::packages::Universe;
use crate::release::{Release, Staleness};
use crate::sources::{Repository, SignedBy, without_credentials};
use crate::{Context, Error, Request};

/// `InRelease` of Debian's largest suites is under 2 MB.
const MAX_RELEASE: u64 = 32 << 20;

/// A repository whose `Release` was checked.
#[derive(Debug)]
pub(crate) struct Suite {
    pub(crate) repository: Repository,
    pub(crate) release: Release,
    /// Who signed it; `None` when nobody was asked for a signature.
    pub(crate) signer: Option<Signer>,
}

/// The way to the archives of one request.
#[derive(Clone, Copy)]
pub(crate) struct Archive<'a> {
    pub(crate) request: &'a Request,
    pub(crate) downloads: &'a Downloads<'a>,
    pub(crate) observer: &'a dyn Observer,
}

impl Archive<'_> {
    /// Gets and checks the `Release` of a repository. `None` when it is a guess that turns out not to exist, or
    /// belongs to another distribution.
    pub(crate) fn suite(&self, repository: &Repository) -> Result<Option<Suite>, Error> {
        let base = format!("{}/dists/{}", repository.uri, repository.suite);
        let shown = without_credentials(&base);
        let (text, signer) = match self.signed_text(repository, &base) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound && repository.optional => {
                self.observer.observe(Progress::Warning(&format!(
                    "{shown} does not exist: going on without it"
                )));
                return Ok(None);
            }
            Err(error) => return Err(Error::wrap(error, format!("cannot trust {shown}"))),
        };
        let release = Release::parse(&text).context(|| format!("cannot read the release file of {shown}"))?;
        if !self.is_of_the_distribution(&release) {
            let message = format!("{shown} is by {}: leaving it out", release.origin);
            self.observer.observe(Progress::Message(&message));
            return Ok(None);
        }
        self.check_names(repository, &release, &shown)?;
        self.check_dates(&release, &shown)?;
        Ok(Some(Suite {
            repository: repository.clone(),
            release,
            signer,
        }))
    }

    /// Vendors offer their own packages under the same suite names; they are no part of a base system. A mirror that
    /// was named on purpose may carry any origin.
    fn is_of_the_distribution(&self, release: &Release) -> bool {
        self.request.mirror.is_some()
            || release
                .origin
                .eq_ignore_ascii_case(&self.request.target.distribution)
    }

    /// An archive that hands out another suite's release, though signed, would be a way back to old packages.
    fn check_names(&self, repository: &Repository, release: &Release, shown: &str) -> Result<(), Error> {
        if release.codename == repository.suite || release.suite == repository.suite {
            return Ok(());
        }
        let message = format!("{shown} has the release file of {:?}", release.codename);
        Err(Error::new(ErrorKind::DataLoss, message))
    }

    fn check_dates(&self, release: &Release, shown: &str) -> Result<(), Error> {
        match release.check_dates(self.request.now) {
            Ok(()) => Ok(()),
            Err(Staleness::Expired) if self.request.accept_expired => {
                let message = format!("{shown} is past its Valid-Until: fixes may be missing");
                self.observer.observe(Progress::Warning(&message));
                Ok(())
            }
            Err(Staleness::Expired) => Err(Error::new(
                ErrorKind::FailedPrecondition,
                format!("{shown} is past its Valid-Until"),
            )
            .with_hint("the mirror may be stale; accept it only for an archive of old releases")),
            Err(Staleness::NotYet) => Err(Error::new(
                ErrorKind::FailedPrecondition,
                format!("{shown} is dated in the future"),
            )
            .with_hint("set the clock of this host")),
        }
    }

    /// The text of `InRelease`, or of `Release` with `Release.gpg`, and who signed it.
    fn signed_text(&self, repository: &Repository, base: &str) -> Result<(String, Option<Signer>), Error> {
        let inline = match self.downloads.small(&format!("{base}/InRelease"), MAX_RELEASE) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let outcome = match &inline {
            Some(bytes) => self
                .keyring(repository)
                .and_then(|keyring| openpgp::verify_cleartext(bytes, &keyring, self.request.now)),
            None => self.detached(repository, base),
        };
        let error = match outcome {
            Ok((text, signer)) => return Ok((text, Some(signer))),
            Err(error) => error,
        };
        if !(self.request.insecure || repository.trusted) {
            return Err(error);
        }
        let who = if repository.trusted {
            "the source says Trusted: yes"
        } else {
            "insecure was asked for"
        };
        let message = format!(
            "NOT VERIFIED: anybody may have made {} ({error}; {who})",
            without_credentials(base)
        );
        self.observer.observe(Progress::Warning(&message));
        let text = match inline {
            Some(bytes) => openpgp::unverified_text(&bytes)?,
            None => utf8(self.downloads.small(&format!("{base}/Release"), MAX_RELEASE)?)?,
        };
        Ok((text, None))
    }

    fn detached(&self, repository: &Repository, base: &str) -> Result<(String, Signer), Error> {
        let document = self.downloads.small(&format!("{base}/Release"), MAX_RELEASE)?;
        let signature = self
            .downloads
            .small(&format!("{base}/Release.gpg"), MAX_RELEASE)?;
        let keyring = self.keyring(repository)?;
        let signer = openpgp::verify_detached(&document, &signature, &keyring, self.request.now)?;
        Ok((utf8(document)?, signer))
    }

    /// The keys that may sign a repository.
    fn keyring(&self, repository: &Repository) -> Result<Keyring, Error> {
        let mut keyring = Keyring::new();
        let signed_by = repository
            .signed_by
            .as_ref()
            .filter(|_| !self.request.only_keyrings);
        match signed_by {
            Some(SignedBy::Inline(armored)) => keyring.add(armored.as_bytes())?,
            Some(SignedBy::Files(files)) => files.iter().try_for_each(|file| add(&mut keyring, file))?,
            Some(SignedBy::Fingerprints(prints)) => {
                self.request
                    .keyrings
                    .iter()
                    .try_for_each(|file| add(&mut keyring, file))?;
                keyring.restrict(prints);
            }
            None => self
                .request
                .keyrings
                .iter()
                .try_for_each(|file| add(&mut keyring, file))?,
        }
        if keyring.primaries().next().is_none() {
            let message = "no key is known for this archive";
            return Err(Error::new(ErrorKind::FailedPrecondition, message)
                .with_hint("name its keyring, such as /usr/share/keyrings/debian-archive-keyring.gpg"));
        }
        Ok(keyring)
    }

    /// The packages of a suite.
    pub(crate) fn packages(&self, suite: &Suite) -> Result<Universe, Error> {
        let (repository, release) = (&suite.repository, &suite.release);
        let mut universe = Universe::pinned(&self.request.include);
        for component in &repository.components {
            if !release.components.is_empty() && !release.components.contains(component) {
                let shown = without_credentials(&repository.uri);
                let message = format!("{shown} {} has no component {component}", repository.suite);
                self.observer.observe(Progress::Warning(&message));
                continue;
            }
            let own = format!("{component}/binary-{}/Packages", self.request.architecture);
            let mut indices = vec![own];
            if !release.all_in_each && release.architectures.iter().any(|name| name == "all") {
                indices.push(format!("{component}/binary-all/Packages"));
            }
            for (number, index) in indices.iter().enumerate() {
                let needed = number == 0;
                self.index(suite, index, needed, &mut universe)?;
            }
        }
        Ok(universe)
    }

    fn index(&self, suite: &Suite, path: &str, needed: bool, universe: &mut Universe) -> Result<(), Error> {
        let (repository, release) = (&suite.repository, &suite.release);
        let packed = ["xz", "gz"].map(|ending| format!("{path}.{ending}"));
        let found = packed.iter().find_map(|path| Some((path, release.file(path)?)));
        let Some((packed, listed)) = found else {
            if !needed {
                return Ok(());
            }
            let message = format!(
                "{} has no packages for {}",
                repository.suite, self.request.architecture
            );
            return Err(Error::new(ErrorKind::NotFound, message));
        };
        let base = format!("{}/dists/{}", repository.uri, repository.suite);
        let mut urls = vec![format!("{base}/{packed}")];
        if release.by_hash {
            let directory = packed.rsplit_once('/').map_or("", |(directory, _)| directory);
            urls.insert(
                0,
                format!("{base}/{directory}/by-hash/SHA256/{}", listed.digest.hex()),
            );
        }
        let name = format!("{} {packed}", repository.suite);
        let file = self.downloads.file(&name, &urls, listed)?;
        let what = || format!("cannot read the index {packed} of {}", repository.suite);
        let (_, stream) = dhow_layer::decoder(file).context(what)?;
        let reader = BufReader::with_capacity(256 << 10, stream);
        universe
            .add(reader, &repository.uri, &self.request.architecture)
            .context(what)?;
        Ok(())
    }
}

fn add(keyring: &mut Keyring, path: &Path) -> Result<(), Error> {
    let bytes = fs::read(path).map_err(|error| {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::FailedPrecondition,
            _ => ErrorKind::PermissionDenied,
        };
        Error::because(kind, format!("cannot read the keyring {}", path.display()), error)
    })?;
    keyring
        .add(&bytes)
        .context(|| format!("cannot use the keyring {}", path.display()))
}

fn utf8(bytes: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(bytes)
        .map_err(|error| Error::because(ErrorKind::InvalidArgument, "a release file is not UTF-8", error))
}

#[cfg(test)]
mod tests;
