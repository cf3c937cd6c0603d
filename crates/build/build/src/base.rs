//! Base images and the sources of `--from`: the store first, the registry when it is not there.

use std::path::Path;
use std::sync::PoisonError;

use dhow_image::Image;
use dhow_reference::Reference;
use dhow_types::{ErrorKind, Platform};

use crate::failure::{Context as _, Error};
use crate::remote::Material;
use crate::schedule::{Build, lock};

/// The image that `name` means. What is in the store is used without asking anyone, unless `--pull` was given or it
/// is for another platform.
pub(crate) fn image(build: &Build<'_>, name: &str, platform: &Platform) -> Result<Image, Error> {
    let found = find(build, name, platform)?;
    let mut bases = lock(&build.bases);
    // A name may have one for each platform that stages are for.
    let is_known = |(known, image): &(String, Image)| known == name && image.id == found.id;
    if !bases.iter().any(is_known) {
        build.images.admit(name, &found)?;
        bases.push((name.to_owned(), found.clone()));
    }
    Ok(found)
}

/// The image of an OCI layout.
pub(crate) fn layout(
    build: &Build<'_>,
    path: &Path,
    name: Option<&str>,
    platform: &Platform,
) -> Result<Image, Error> {
    let found = build.images.layout(path, name, platform)?;
    let folder = path.file_name().unwrap_or_default().to_string_lossy();
    let digest = found.record.manifest.unwrap_or(found.id.0);
    let platform = found.config.platform().to_string().replace('/', "%2F");
    build.made_of(Material {
        uri: format!(
            "pkg:oci/{folder}?digest=sha256%3A{}&platform={platform}",
            digest.hex()
        ),
        algorithm: "sha256".to_owned(),
        digest: digest.hex(),
    });
    Ok(found)
}

fn find(build: &Build<'_>, name: &str, platform: &Platform) -> Result<Image, Error> {
    let local = match build.store.resolve(name) {
        Ok(image) => Some(image),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(Error::wrap(error, format!("failed to parse stage name {name:?}"))),
    };
    let fits = |image: &Image| {
        let found = image.config.platform();
        // Images that were imported may not say what they are for.
        found.architecture.is_empty() || platform.accepts(&found)
    };
    let reference = Reference::parse(name);
    if let Some(image) = local {
        let is_id = reference.is_err() || image.id.hex().starts_with(name);
        if is_id || (fits(&image) && !build.request.pull) {
            return Ok(image);
        }
        // The name may have another for the platform, by the index that it was pulled by.
        if !build.request.pull
            && let Ok(image) = build.store.resolve_for(name, Some(platform))
        {
            return Ok(image);
        }
    }
    let reference = reference
        .context(|| format!("failed to parse stage name {name:?}"))?
        .or_latest();
    if build.request.never_pull {
        let message = format!("{name}: there is no such image here for {platform}, and none is to be pulled");
        return Err(Error::new(ErrorKind::NotFound, message));
    }
    // Stages that begin with the same image wait for one pull.
    let pulled = build.pulled(&format!("{} {platform}", reference.canonical()));
    let mut pulled = pulled.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(image) = pulled.as_ref() {
        return Ok(image.clone());
    }
    let image = build
        .images
        .pull(&reference, platform)
        .context(|| format!("{name}: failed to resolve source metadata"))?;
    *pulled = Some(image.clone());
    Ok(image)
}

/// A name in full, for the names of steps: `docker.io/library/debian:12`.
pub(crate) fn full_name(name: &str) -> String {
    Reference::parse(name).map_or_else(|_| name.to_owned(), |reference| reference.or_latest().canonical())
}
