//! Policies of this host: read when first asked for, and asked at pull, run, build and push.
//!
//! Without a policy file nothing is asked, and what that costs is a look for the files. What is decided is decided by
//! `dhow_policy`, which is given facts; here they are gathered, and only those that a rule looks at.
//!
//! ```text
//! ROOT/signatures/<digest>-<repository>    what stood beside a manifest in a repository when it was pulled: hex of its
//!                                          digest, and the beginning of that of the repository's name
//! ```

mod containers;
mod facts;
mod kept;
mod tags;

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use dhow_image::Image;
use dhow_policy::{Containers, Facts, Known, Point, Policy, SignerDocument, Verdict, evaluate};
use dhow_reference::Reference;
use dhow_sign::{Certificate, Identity, Pattern, Trust, TrustedRoot};
use dhow_transport::Fetched;
use dhow_types::{ErrorKind, Observer, Progress};

use crate::image::parse;
use crate::signature::{Signatures, now, signatures_of};
use crate::{Context as _, Engine, Error};

/// Where policies may be.
#[derive(Clone, Debug, Default)]
pub struct PolicyFiles {
    /// `policy.json` of the containers tools: the first that is there counts.
    pub containers: Vec<PathBuf>,
    /// Ours: the first that is there counts.
    pub own: Vec<PathBuf>,
    /// Whether one of each must be there, since a person named it.
    pub must_be_there: [bool; 2],
}

/// A policy, and its file.
#[derive(Clone, Debug)]
pub struct InForce<T> {
    /// The file.
    pub path: PathBuf,
    /// What it says.
    pub policy: T,
}

/// The policies in force, each read when first asked for: what only pulls are asked costs a start nothing.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    containers: OnceLock<Option<InForce<Containers>>>,
    own: OnceLock<Option<InForce<Policy>>>,
}

/// What the policies in force say to an image.
#[derive(Clone, Debug)]
pub struct PolicyTest {
    /// What was found out about it.
    pub facts: Facts,
    /// What ours says; none without one.
    pub verdict: Option<Verdict>,
    /// What the containers tools' says to a pull: the scope, and why it refuses. None without one, or for another point.
    pub containers: Option<(String, Result<(), String>)>,
}

fn once<T>(
    slot: &OnceLock<Option<T>>,
    read: impl FnOnce() -> Result<Option<T>, Error>,
) -> Result<Option<&T>, Error> {
    if let Some(known) = slot.get() {
        return Ok(known.as_ref());
    }
    let found = read()?;
    Ok(slot.get_or_init(|| found).as_ref())
}

fn in_force<T>(
    files: &[PathBuf],
    must: bool,
    parse: impl FnOnce(&str) -> Result<T, dhow_policy::Error>,
) -> Result<Option<InForce<T>>, Error> {
    let Some((path, text)) = first(files, must)? else {
        return Ok(None);
    };
    let policy = parse(&text).context(|| format!("read {}", path.display()))?;
    Ok(Some(InForce { path, policy }))
}

/// The first of these files that is there, and its text.
fn first(files: &[PathBuf], must: bool) -> Result<Option<(PathBuf, String)>, Error> {
    for path in files {
        match std::fs::File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must => {}
            opened => {
                let what = || format!("read the policy {}", path.display());
                let mut text = String::new();
                let limited = opened.context(what)?.take(dhow_policy::MAX_FILE + 1);
                std::io::BufReader::new(limited)
                    .read_to_string(&mut text)
                    .context(what)?;
                return Ok(Some((path.clone(), text)));
            }
        }
    }
    Ok(None)
}

impl Engine {
    /// The containers tools' policy that is in force.
    ///
    /// # Errors
    /// What reading it said.
    pub fn containers_policy(&self) -> Result<Option<&InForce<Containers>>, Error> {
        let files = &self.settings().policies;
        let read = || in_force(&files.containers, files.must_be_there[0], Containers::parse);
        once(&self.policies.containers, read)
    }

    /// Our policy that is in force.
    ///
    /// # Errors
    /// As [`Engine::containers_policy`].
    pub fn own_policy(&self) -> Result<Option<&InForce<Policy>>, Error> {
        let files = &self.settings().policies;
        once(&self.policies.own, || {
            in_force(&files.own, files.must_be_there[1], Policy::parse)
        })
    }

    /// Whether a pull is judged at all.
    pub(crate) fn judges_pulls(&self) -> Result<bool, Error> {
        Ok(self.containers_policy()?.is_some() || self.own_policy()?.is_some())
    }

    /// Whether what a name points to may be pulled. What stands beside it is kept, for when it is used.
    pub(crate) fn admit_pull(
        &self,
        reference: &Reference,
        top: &Fetched,
        observer: &dyn Observer,
    ) -> Result<(), Error> {
        let (test, found) = self.judge_pull(reference, top)?;
        if let Some((scope, Err(why))) = &test.containers {
            let path = self
                .containers_policy()?
                .map(|policy| policy.path.display().to_string());
            let path = path.unwrap_or_default();
            let message = format!(
                "policy {path} (scope {scope}) refuses {}: {why}",
                reference.familiar()
            );
            return Err(Error::new(ErrorKind::PermissionDenied, message));
        }
        if let Some(verdict) = &test.verdict {
            warned(verdict, &test.facts, observer);
            verdict.check(&test.facts).map_err(refused)?;
        }
        if let Some(found) = found {
            self.keep_signatures(&reference.name(), &found)?;
        }
        if let Known::Is(Some(tag)) = &test.facts.tag
            && let Some(counter) = tag.stated.iter().map(|one| one.counter).max()
        {
            self.note_tag(reference, counter)?;
        }
        Ok(())
    }

    /// What the policies say to a pull, and what was found beside the image, where a rule asks for that at any point.
    fn judge_pull(
        &self,
        reference: &Reference,
        top: &Fetched,
    ) -> Result<(PolicyTest, Option<Signatures>), Error> {
        let own = self.own_policy()?;
        let requirements = self
            .containers_policy()?
            .map(|policy| policy.policy.requirements(reference));
        let needs = own.map(|own| {
            let at = |point| own.policy.needs(point, Some(reference));
            (
                at(Point::Pull),
                Point::ALL.into_iter().any(|point| at(point).signers),
            )
        });
        let (own_now, own_ever) = needs.unwrap_or_default();
        let wanted = own_ever
            || requirements
                .as_ref()
                .is_some_and(|(_, list)| containers::need_signatures(list));
        let found = if wanted {
            Some(signatures_of(self.client()?, reference, top))
        } else {
            None
        };
        let containers = requirements.map(|(scope, list)| {
            let found = found
                .as_ref()
                .map(|found| found.as_ref().map_err(ToString::to_string));
            (scope, containers::judge(list, reference, found))
        });
        let mut facts = Facts::new(Point::Pull, Some(reference.clone()), reference.familiar(), now());
        if let Some(own) = own {
            match &found {
                Some(Ok(found)) if own_now.tag => facts.tag = self.tag_facts(&own.policy, reference, found),
                Some(Err(error)) if own_now.tag => facts.tag = Known::Unknown(crate::worker::chain(error)),
                _ => {}
            }
            match &found {
                Some(Ok(found)) if own_now.signers => facts.signers = signers(&own.policy, found),
                Some(Err(error)) if own_now.signers => {
                    facts.signers = Known::Unknown(crate::worker::chain(error))
                }
                _ => {}
            }
        }
        let verdict = own.map(|own| evaluate(&own.policy, &facts));
        let test = PolicyTest {
            facts,
            verdict,
            containers,
        };
        Ok((test, found.and_then(Result::ok).filter(|_| own_ever)))
    }

    /// Whether an image that is here may be used. Gives what a person is to know.
    ///
    /// # Errors
    /// `PermissionDenied` with the rules that refuse it.
    pub(crate) fn admit(&self, point: Point, image: &Image, name: &str) -> Result<Vec<String>, Error> {
        let Some(own) = self.own_policy()? else {
            return Ok(Vec::new());
        };
        let facts = self.facts(&own.policy, point, image, name);
        let verdict = evaluate(&own.policy, &facts);
        verdict.check(&facts).map_err(refused)?;
        Ok(verdict.warnings().map(|warning| told(&facts, warning)).collect())
    }

    /// What the policies say to an image: at a pull to what its registry has, elsewhere to what is here. The caller must be
    /// single-threaded.
    ///
    /// # Errors
    /// `NotFound`; what reading the policies said.
    pub fn test_policy(&self, name: &str, point: Point) -> Result<PolicyTest, Error> {
        if point == Point::Pull {
            let reference = parse(name)?.or_latest();
            let top = self.client()?.manifest(&reference);
            let top = top.context(|| format!("look for {} in its registry", reference.familiar()))?;
            return self.judge_pull(&reference, &top).map(|(test, _)| test);
        }
        let image = self.image(name)?;
        let own = self.own_policy()?;
        let facts = match own {
            Some(own) => self.facts(&own.policy, point, &image, name),
            None => Facts::new(point, None, name, now()),
        };
        Ok(PolicyTest {
            verdict: own.map(|own| evaluate(&own.policy, &facts)),
            facts,
            containers: None,
        })
    }
}

/// A refusal as ours: it says all by itself.
fn refused(error: dhow_policy::Error) -> Error {
    let hint = dhow_types::Failure::hint(&error).unwrap_or_default().to_owned();
    Error::new(error.kind(), error.to_string()).with_hint(hint)
}

fn told(facts: &Facts, decision: &dhow_policy::Decision) -> String {
    format!("policy warns of {} of {}: {decision}", facts.point, facts.shown)
}

fn warned(verdict: &Verdict, facts: &Facts, observer: &dyn Observer) {
    for warning in verdict.warnings() {
        observer.observe(Progress::Warning(&told(facts, warning)));
    }
}

/// Who of a policy's signers signed something.
fn signers(policy: &Policy, found: &Signatures) -> Known<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for (name, document) in &policy.signers {
        let trust = match trust(document) {
            Ok(trust) => trust,
            Err(error) => return Known::Unknown(format!("signer {name}: {}", crate::worker::chain(&error))),
        };
        let verified = found.judge(&trust).verified;
        if verified.iter().any(dhow_sign::Verified::is_signature) {
            names.insert(name.clone());
        }
    }
    Known::Is(names)
}

/// Whom a policy's signer is.
pub(crate) fn trust(document: &SignerDocument) -> Result<Trust, Error> {
    let mut trust = Trust {
        now: now(),
        ..Trust::default()
    };
    for path in &document.keys {
        let keys = dhow_sign::keys(&read(path)?).context(|| format!("read the key {}", path.display()))?;
        trust.keys.extend(keys);
    }
    for path in &document.authorities {
        let all = Certificate::all_from_pem(&read(path)?);
        trust
            .authorities
            .extend(all.context(|| format!("read the certificate {}", path.display()))?);
    }
    if let Some(path) = &document.trusted_root {
        let root = TrustedRoot::parse(&read(path)?).context(|| format!("read {}", path.display()))?;
        trust.root = Some(root);
    }
    if let Some(name) = &document.identity {
        trust.identities.push(Identity {
            name: Pattern::Exactly(name.clone()),
            issuer: document.issuer.clone().map(Pattern::Exactly),
        });
    }
    Ok(trust)
}

/// A file that a policy names.
fn read(path: &Path) -> Result<Vec<u8>, Error> {
    /// Largest of them: a trusted root.
    const MOST: u64 = 4 << 20;
    let what = || format!("read {}", path.display());
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .context(what)?
        .take(MOST)
        .read_to_end(&mut bytes)
        .context(what)?;
    Ok(bytes)
}
