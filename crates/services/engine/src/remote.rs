//! What builds take from elsewhere: configs of images in registries.

use std::io::Read as _;

use dhow_oci::{Document, ImageConfig, MAX_DOCUMENT, Manifest};
use dhow_reference::Reference;
use dhow_transport::{Client, Fetched};
use dhow_types::{ErrorKind, Platform};

use crate::{Context as _, Error};

/// The config that a registry has for a name and a platform.
pub(crate) fn config(
    client: &Client,
    reference: &Reference,
    platform: &Platform,
) -> Result<ImageConfig, Error> {
    let what = || format!("look at {}", reference.familiar());
    let top = client.manifest(reference).context(what)?;
    let manifest = match parse(&top).context(what)? {
        Document::Manifest(manifest) => manifest,
        Document::Index(index) => {
            let Some(chosen) = index.choose(platform) else {
                let message = format!("no matching manifest for {platform} in {}", reference.familiar());
                return Err(Error::new(ErrorKind::NotFound, message));
            };
            let fetched = client.manifest_at(reference, &chosen.digest).context(what)?;
            match parse(&fetched).context(what)? {
                Document::Manifest(manifest) => manifest,
                Document::Index(_) => {
                    let message = format!("{} is a list of lists", reference.familiar());
                    return Err(Error::new(ErrorKind::InvalidArgument, message));
                }
            }
        }
    };
    read(client, reference, &manifest)
}

fn parse(fetched: &Fetched) -> Result<Document, dhow_oci::Error> {
    let kind = fetched.descriptor.media_type.as_str();
    Document::parse(&fetched.bytes, Some(kind).filter(|kind| !kind.is_empty()))
}

fn read(client: &Client, reference: &Reference, manifest: &Manifest) -> Result<ImageConfig, Error> {
    let what = || format!("fetch the config of {}", reference.familiar());
    if manifest.config.size > MAX_DOCUMENT {
        let message = format!("{}: it has more than {MAX_DOCUMENT} bytes", what());
        return Err(Error::new(ErrorKind::ResourceExhausted, message));
    }
    let mut bytes = Vec::new();
    let blob = client.blob(reference, &manifest.config).context(what)?;
    blob.take(MAX_DOCUMENT).read_to_end(&mut bytes).context(what)?;
    ImageConfig::parse(&bytes).context(what)
}
