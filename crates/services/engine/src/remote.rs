//! What builds take from elsewhere: configs of images in registries, images of OCI layouts, files.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::atomic::Ordering;

use dhow_build::{Answer, Download};
use dhow_image::{Copy, Image, Location, copy};
use dhow_oci::{Document, ImageConfig, MAX_DOCUMENT, Manifest};
use dhow_reference::Reference;
use dhow_transport::{Client, Fetched};
use dhow_types::{ErrorKind, ImageId, Platform, Silent};

use crate::{Context as _, Engine, Error};

/// The config that a registry has for a name and a platform.
pub(crate) fn config(
    client: &Client,
    reference: &Reference,
    platform: &Platform,
) -> Result<ImageConfig, Error> {
    config_and_id(client, reference, platform).map(|(config, _)| config)
}

/// The same, and the id of the image.
pub(crate) fn config_and_id(
    client: &Client,
    reference: &Reference,
    platform: &Platform,
) -> Result<(ImageConfig, ImageId), Error> {
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
    let config = read(client, reference, &manifest)?;
    Ok((config, ImageId(manifest.config.digest)))
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

/// Downloads a file for `ADD`, unless it is the one that is known.
pub(crate) fn download(client: &Client, asked: &Download<'_>, to: &mut File) -> Result<Answer, Error> {
    let what = || "read the answer";
    let found = match asked.known {
        Some(tag) => client.get_unless(asked.url, tag),
        None => client.get_as(asked.url, asked.authorization).map(Some),
    };
    let Some(found) = found.context(|| "ask the server")? else {
        return Ok(Answer {
            same: true,
            ..Answer::default()
        });
    };
    let too_long = |length: u64| {
        let message = format!("it has {length} bytes or more, and {} are allowed", asked.most);
        Error::new(ErrorKind::ResourceExhausted, message)
    };
    if let Some(length) = found.length.filter(|length| *length > asked.most) {
        return Err(too_long(length));
    }
    let (mut body, mut written) = (found.body, 0_u64);
    let mut buffer = vec![0; 256 << 10];
    loop {
        if asked.cancel.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Cancelled, "the build was cancelled"));
        }
        let count = body.read(&mut buffer).context(what)?;
        if count == 0 {
            return Ok(Answer {
                modified: found.modified,
                tag: found.tag,
                same: false,
            });
        }
        written += count as u64;
        if written > asked.most {
            return Err(too_long(written));
        }
        to.write_all(&buffer[..count]).context(|| "write the file")?;
    }
}

/// Takes an image of an OCI layout into the store, by way of an archive.
pub(crate) fn layout(
    engine: &Engine,
    path: &Path,
    name: Option<&str>,
    platform: &Platform,
) -> Result<Image, Error> {
    let what = || format!("read the OCI layout {}", path.display());
    let folder = engine.context_folder()?;
    let archive = folder.path().join("image.tar");
    let (name, digest) = match name {
        Some(digest) if digest.starts_with("sha256:") => (None, Some(digest)),
        name => (name, None),
    };
    let from = Location::Layout(path.to_owned(), name.map(str::to_owned));
    let how = Copy {
        platform: Some(platform.clone()),
        ..Copy::default()
    };
    let to = Location::LayoutArchive(archive.clone(), None);
    let copied = copy(engine.client()?, &from, &to, &how, &Silent).context(what)?;
    if let Some(digest) = digest.filter(|digest| *digest != copied.digest.to_string()) {
        let message = format!("the layout has {} and not {digest}", copied.digest);
        return Err(Error::new(ErrorKind::NotFound, message));
    }
    let file = File::open(&archive).context(what)?;
    let loaded = engine.store()?.load(file, &Silent).context(what)?;
    let [image] = loaded.as_slice() else {
        let message = format!("{}: it has {} images for {platform}", what(), loaded.len());
        return Err(Error::new(ErrorKind::NotFound, message));
    };
    engine.store()?.image(&image.image).context(what)
}
