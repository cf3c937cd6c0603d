//! Pushing: uploads in one piece or as a stream, mounts, manifests.

use std::io::Read;
use std::sync::{Arc, mpsc as blocking};

use bytes::Bytes;
use dhow_oci::Descriptor;
use dhow_reference::Reference;
use dhow_types::{Digest, ErrorKind};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use hyper::{Method, StatusCode, Uri};
use tokio::sync::mpsc;

use crate::ask::Place;
use crate::client::CONTENT_DIGEST;
use crate::core::Core;
use crate::exchange::{Answer, Call, Identity};
use crate::outgoing::{Outgoing, Pieces};
use crate::registries::Want;
use crate::{Client, Context as _, Error, place};
use dhow_hash::Hasher;

/// What a registry with a referrers API answers to a manifest with a subject.
const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
/// Bytes of one piece of an upload, and pieces in flight.
const PIECE: usize = 256 << 10;
const DEPTH: usize = 8;

/// An upload that the registry has opened.
struct Upload {
    url: Uri,
    identity: Option<Identity>,
}

/// The caller's end of a body that is being sent.
struct Feed {
    pieces: mpsc::Sender<Option<Bytes>>,
    outcome: blocking::Receiver<Result<Answer, Error>>,
}

impl Client {
    /// Asks the registry to link a blob of its repository `from` into the repository of `reference`. `false` when
    /// it does not: the blob must then be pushed.
    ///
    /// # Errors
    /// As [`has_blob`](Self::has_blob); `InvalidArgument` when `from` is no repository.
    pub fn mount_blob(&self, reference: &Reference, digest: &Digest, from: &str) -> Result<bool, Error> {
        if !dhow_reference::valid_repository(from) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("{from:?} is no repository to mount from"),
            ));
        }
        let reference = reference.clone();
        let source = Reference::parse(&format!("{}/{from}", reference.registry()));
        let source = source.context(|| format!("mount from {from:?}"))?;
        let digest = *digest;
        self.0.run(|core| async move {
            // Both names may be others there, and may even be in two registries there.
            let to = core
                .endpoints(&reference)?
                .into_iter()
                .find(|place| place.can.push);
            let from = core.endpoints(&source)?.into_iter().find(|place| place.can.push);
            let (Some(to), Some(from)) = (to, from) else {
                return Ok(false);
            };
            if to.host != from.host {
                return Ok(false);
            }
            let from = &from.repository;
            let place = Place::new(
                &reference,
                Want::Push,
                &format!("blobs/uploads/?mount={digest}&from={from}"),
            );
            let call = core.call(&place.reading(from), Method::POST).await?;
            let identity = call.identity.clone();
            // A registry that may not show `from` to us may say so instead of opening an upload.
            let good = [StatusCode::CREATED, StatusCode::ACCEPTED, StatusCode::NOT_FOUND];
            let answer = core.send(call).await?.expect(&good).await?;
            if answer.status() == StatusCode::ACCEPTED {
                Upload::opened(&answer, identity)?.cancel(&core).await;
            }
            Ok(answer.status() == StatusCode::CREATED)
        })
    }

    /// Pushes a blob of known digest and size. `content` is read once: a break in the middle is an error.
    ///
    /// # Errors
    /// As [`has_blob`](Self::has_blob); `DataLoss` when `content` is not what `descriptor` says.
    pub fn push_blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        content: &mut dyn Read,
    ) -> Result<(), Error> {
        let (digest, size) = (descriptor.digest, descriptor.size);
        let upload = self.open_upload(reference)?;
        let last = upload.with_digest(&digest)?;
        let feed = self.feed(last, Method::PUT, Some(size))?;
        let mut source = Source::new(content);
        let mut wrong = None;
        // The last piece is held back until the whole is known to be right: nothing wrong is ever complete.
        while let Some(piece) = source.next()? {
            if source.seen > size
                || (source.ended && source.digest() != digest)
                || (source.ended && source.seen < size)
            {
                wrong = Some(source.seen);
                break;
            }
            if feed.pieces.blocking_send(Some(piece)).is_err() {
                break;
            }
        }
        let nothing = source.seen == 0 && (size != 0 || source.digest() != digest);
        if let Some(seen) = wrong.or(nothing.then_some(0)) {
            drop(feed);
            self.cancel(upload)?;
            let message =
                format!("push blob {digest}: {seen} bytes were read that are not it ({size} bytes)");
            return Err(Error::new(ErrorKind::DataLoss, message));
        }
        let answer = feed.finish()?;
        self.0
            .run(|_| answer.expect(&[StatusCode::CREATED, StatusCode::NO_CONTENT]))
            .map(drop)
    }

    /// Pushes a blob of unknown size, hashing on the way; gives its digest and size.
    ///
    /// # Errors
    /// As [`push_blob`](Self::push_blob).
    pub fn push_stream(&self, reference: &Reference, content: &mut dyn Read) -> Result<(Digest, u64), Error> {
        let upload = self.open_upload(reference)?;
        let identity = upload.identity.clone();
        let feed = self.feed(upload, Method::PATCH, None)?;
        let mut source = Source::new(content);
        while let Some(piece) = source.next()? {
            if feed.pieces.blocking_send(Some(piece)).is_err() {
                break;
            }
        }
        let answer = feed.finish()?;
        let (digest, size) = (source.digest(), source.seen);
        self.0.run(|core| async move {
            let answer = answer
                .expect(&[StatusCode::ACCEPTED, StatusCode::NO_CONTENT])
                .await?;
            let upload = Upload::opened(&answer, identity)?.with_digest(&digest)?;
            let call = upload.call(&core, Method::PUT);
            core.send(call)
                .await?
                .expect(&[StatusCode::CREATED, StatusCode::NO_CONTENT])
                .await
                .map(drop)
        })?;
        Ok((digest, size))
    }

    /// Pushes a manifest or index under the digest or the tag of `reference` (or `latest`); gives its digest.
    ///
    /// # Errors
    /// As [`has_blob`](Self::has_blob); `InvalidArgument` when the reference has a digest that is not the bytes'.
    pub fn push_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, Error> {
        self.put_manifest(reference, media_type, bytes)
            .map(|(digest, _)| digest)
    }

    /// The same; says too whether the registry has noted what the manifest refers to, as one with a referrers API does
    /// (distribution-spec, "Pushing Manifests with Subject").
    pub(crate) fn put_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(Digest, bool), Error> {
        let digest = Digest::of(bytes);
        if let Some(wanted) = reference.digest().filter(|wanted| **wanted != digest) {
            let message = format!("push manifest {wanted}: the bytes have the digest {digest}");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let content_type = HeaderValue::try_from(media_type).map_err(|error| {
            let message = format!("push manifest: {media_type:?} is no media type");
            Error::because(ErrorKind::InvalidArgument, message, error)
        })?;
        let named = match reference.tag() {
            Some(tag) => tag.to_owned(),
            None if reference.digest().is_some() => digest.to_string(),
            None => "latest".to_owned(),
        };
        let place = Place::new(reference, Want::Push, &format!("manifests/{named}"));
        let body = Bytes::copy_from_slice(bytes);
        self.0.run(|core| async move {
            let mut call = core.call(&place, Method::PUT).await?;
            call.headers.push((CONTENT_TYPE, content_type));
            call.body = Outgoing::Bytes(body);
            let good = [
                StatusCode::CREATED,
                StatusCode::OK,
                StatusCode::ACCEPTED,
                StatusCode::NO_CONTENT,
            ];
            let answer = core.send(call).await?.expect(&good).await?;
            let noted = answer.header(&OCI_SUBJECT).is_some();
            match answer
                .header(&CONTENT_DIGEST)
                .filter(|text| text.starts_with("sha256:"))
            {
                Some(stored) if stored != digest.to_string() => {
                    let message = format!("{}: stored as {stored:.80} instead of {digest}", answer.asked);
                    Err(Error::new(ErrorKind::DataLoss, message))
                }
                _ => Ok((digest, noted)),
            }
        })
    }

    fn open_upload(&self, reference: &Reference) -> Result<Upload, Error> {
        let place = Place::new(reference, Want::Push, "blobs/uploads/");
        self.0.run(|core| async move {
            let call = core.call(&place, Method::POST).await?;
            let identity = call.identity.clone();
            let answer = core.send(call).await?.expect(&[StatusCode::ACCEPTED]).await?;
            Upload::opened(&answer, identity)
        })
    }

    /// Starts a request whose body the caller feeds.
    fn feed(&self, upload: Upload, method: Method, length: Option<u64>) -> Result<Feed, Error> {
        let (pieces, feed) = mpsc::channel(DEPTH);
        let (sender, outcome) = blocking::sync_channel(1);
        self.0.run(|core| async move {
            let mut call = upload.call(&core, method);
            call.headers
                .push((CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")));
            call.body = Outgoing::Pieces(Pieces {
                feed,
                length,
                pace: Arc::default(),
                ended: false,
            });
            call.attempts = 1;
            tokio::spawn(async move {
                // Nobody waits any more when this fails.
                sender.send(core.send(call).await).unwrap_or_default();
            });
            Ok(())
        })?;
        Ok(Feed { pieces, outcome })
    }

    fn cancel(&self, upload: Upload) -> Result<(), Error> {
        self.0.run(|core| async move {
            upload.cancel(&core).await;
            Ok(())
        })
    }
}

impl Feed {
    fn finish(self) -> Result<Answer, Error> {
        // When the request is over already, its outcome says why.
        self.pieces.blocking_send(None).unwrap_or_default();
        drop(self.pieces);
        self.outcome.recv().unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Cancelled,
                "the network thread ended before the upload did",
            ))
        })
    }
}

impl Upload {
    fn opened(answer: &Answer, identity: Option<Identity>) -> Result<Self, Error> {
        let location = answer.header(&LOCATION).ok_or_else(|| {
            let message = format!("{}: opened an upload without saying where", answer.asked);
            Error::new(ErrorKind::Unavailable, message)
        })?;
        Ok(Self {
            url: place::join(&answer.url, location)?,
            identity,
        })
    }

    /// Where the upload is closed with this digest.
    fn with_digest(&self, digest: &Digest) -> Result<Self, Error> {
        let url = place::with_query(&self.url, &format!("digest={digest}"))?;
        Ok(Self {
            url,
            identity: self.identity.clone(),
        })
    }

    fn call(self, core: &Core, method: Method) -> Call {
        let mut call = Call::new(method, self.url, &core.settings);
        call.identity = self.identity;
        call
    }

    /// Tells the registry to forget the upload; if that fails, it will by itself.
    async fn cancel(self, core: &Core) {
        let mut call = self.call(core, Method::DELETE);
        call.attempts = 1;
        core.send(call).await.map(drop).unwrap_or_default();
    }
}

/// Reads and hashes content piece by piece, one ahead, so that the last is known as such.
struct Source<'a> {
    content: &'a mut dyn Read,
    hasher: Hasher,
    ahead: Option<Bytes>,
    seen: u64,
    started: bool,
    ended: bool,
}

impl<'a> Source<'a> {
    fn new(content: &'a mut dyn Read) -> Self {
        Self {
            content,
            hasher: Hasher::new(),
            ahead: None,
            seen: 0,
            started: false,
            ended: false,
        }
    }

    fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if !self.started {
            self.started = true;
            self.ahead = self.read()?;
        }
        let piece = self.ahead.take();
        if piece.is_some() {
            self.ahead = self.read()?;
        }
        self.ended = self.ahead.is_none();
        Ok(piece)
    }

    fn read(&mut self) -> Result<Option<Bytes>, Error> {
        let mut piece = Vec::with_capacity(PIECE);
        let max = PIECE as u64;
        (&mut *self.content)
            .take(max)
            .read_to_end(&mut piece)
            .context(|| "read what is pushed")?;
        if piece.is_empty() {
            return Ok(None);
        }
        self.hasher.update(&piece);
        self.seen += piece.len() as u64;
        Ok(Some(piece.into()))
    }

    /// Digest of what was read so far; the whole, once `ended`.
    fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }
}
