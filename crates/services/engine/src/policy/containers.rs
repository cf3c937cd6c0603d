//! What the containers tools' policy says to a pull.

use dhow_policy::{Key, Requirement};
use dhow_reference::Reference;
use dhow_sign::{Form, PublicKey, Target, Trust};

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

/// Whether one simple signature is by one of the keys and of the name that counts. Bundles have no name in them, and the
/// tools whose policy this is do not read them: our own policy does.
fn signed(requirement: &Requirement, reference: &Reference, found: &Signatures) -> Result<(), String> {
    let mut trust = Trust {
        now: now(),
        ..Trust::default()
    };
    for key in requirement.sigstore_keys()? {
        let (what, pem) = match &key {
            Key::File(path) => {
                let text = super::read(path).map_err(|error| crate::worker::chain(&error))?;
                (path.display().to_string(), text)
            }
            Key::Pem(pem) => ("key data".to_owned(), pem.clone()),
        };
        let read =
            PublicKey::from_pem(&pem).map_err(|error| format!("{what}: {}", crate::worker::chain(&error)))?;
        trust.keys.push(read);
    }
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
