//! What the containers tools' policy says to a pull.

use dhow_policy::{Key, Requirement};
use dhow_reference::Reference;
use dhow_sign::{Certificate, Form, Identity, Pattern, Pki, PublicKey, Target, Trust, TrustedRoot};

use crate::signature::{Signatures, now};

/// Whether anything is asked for which signatures must be fetched.
pub(super) fn need_signatures(list: &[Requirement]) -> bool {
    list.iter().any(|requirement| {
        matches!(requirement, Requirement::SigstoreSigned { .. }) && requirement.unsupported().is_none()
    })
}

/// Whether all requirements hold; or why not.
pub(super) fn judge(
    list: &[Requirement],
    reference: &Reference,
    found: Option<Result<&Signatures, String>>,
) -> Result<(), String> {
    for requirement in list {
        if let Some(why) = requirement.unsupported() {
            return Err(why.to_owned());
        }
        match requirement {
            Requirement::InsecureAcceptAnything {} => {}
            Requirement::Reject {} => return Err("it is rejected".to_owned()),
            Requirement::SignedBy { .. } | Requirement::SigstoreSigned { .. } => match &found {
                Some(Ok(found)) => signed(requirement, reference, found)?,
                Some(Err(why)) => return Err(format!("its signatures cannot be had: {why}")),
                None => return Err("its signatures were not looked for".to_owned()),
            },
        }
    }
    Ok(())
}

/// Whether one simple signature is by somebody whom the requirement trusts, and of the name that counts. Bundles have no name in them, and the
/// tools whose policy this is do not read them: our own policy does.
fn signed(requirement: &Requirement, reference: &Reference, found: &Signatures) -> Result<(), String> {
    let trust = trust_of(requirement)?;
    let target = Target {
        digest: found.digest,
        bytes: &found.manifest,
    };
    let identity = requirement.identity();
    let mut whys = Vec::new();
    for one in found.found.iter().filter(|one| one.form == Form::Simple) {
        match trust.verify(one, &target) {
            Ok(verified) => {
                let signed = verified.reference.unwrap_or_default();
                if identity.fits(reference, &signed) {
                    return Ok(());
                }
                whys.push(format!("a signature is of the name {signed:.200?}"));
            }
            Err(error) => whys.push(crate::worker::chain(&error)),
        }
    }
    if whys.is_empty() {
        return Err("it has no signature (cosign's simple signing: dhow sign --format cosign)".to_owned());
    }
    whys.truncate(5);
    Err(whys.join("; "))
}

/// Whom a requirement trusts.
fn trust_of(requirement: &Requirement) -> Result<Trust, String> {
    let keys = |sources: Vec<Key>| {
        let all = sources.iter().map(|source| read(source, PublicKey::from_pem));
        all.collect::<Result<Vec<_>, String>>()
    };
    let certificates = |sources: Vec<Key>| {
        let all = sources
            .iter()
            .map(|source| read(source, Certificate::all_from_pem));
        all.collect::<Result<Vec<_>, String>>().map(|all| all.concat())
    };
    let logs = keys(requirement.log_keys()?)?;
    let mut trust = Trust {
        keys: keys(requirement.sigstore_keys()?)?,
        now: now(),
        ..Trust::default()
    };
    let Requirement::SigstoreSigned { fulcio, pki, .. } = requirement else {
        return Ok(trust);
    };
    if let Some(pki) = pki {
        trust.pki = Some(Pki {
            roots: certificates(pki.roots()?)?,
            between: certificates(pki.between()?)?,
            email: pki.subject_email.clone(),
            host: pki.subject_hostname.clone(),
        });
    }
    if let Some(fulcio) = fulcio {
        trust.root = Some(TrustedRoot::of(certificates(fulcio.authorities()?)?, logs));
        trust.identities.push(Identity {
            name: Pattern::Email(fulcio.subject_email.clone()),
            issuer: Some(Pattern::Exactly(fulcio.oidc_issuer.clone())),
        });
    } else if !logs.is_empty() {
        trust.root = Some(TrustedRoot::of(Vec::new(), logs));
    }
    Ok(trust)
}

fn read<T>(source: &Key, parse: impl Fn(&[u8]) -> Result<T, dhow_sign::Error>) -> Result<T, String> {
    let (what, pem) = match source {
        Key::File(path) => {
            let text = super::read(path).map_err(|error| crate::worker::chain(&error))?;
            (path.display().to_string(), text)
        }
        Key::Pem(pem) => ("key data".to_owned(), pem.clone()),
    };
    parse(&pem).map_err(|error| format!("{what}: {}", crate::worker::chain(&error)))
}
