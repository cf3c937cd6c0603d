//! Signed certificate timestamps (RFC 6962): the word of a log that it has a certificate, so that one that an authority gave
//! to the wrong person can be found by the right one.

use aws_lc_rs::digest::{SHA256, digest};
use dhow_types::ErrorKind;

use crate::der::{self, Reader};
use crate::key::Scheme;
use crate::root::{Authority, TrustedRoot};
use crate::{Certificate, Error};

/// The extension that has them (RFC 6962, section 3.3).
const OID: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xd6, 0x79, 0x02, 0x04, 0x02];
/// Most of one certificate.
const MOST: usize = 16;

fn bad(why: &str) -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        format!("the certificate's timestamps are damaged: {why}"),
    )
}

/// Bytes with lengths before them (RFC 8446, section 3).
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or_else(|| bad("they end too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    /// What stands behind a length of two bytes.
    fn block(&mut self) -> Result<&'a [u8], Error> {
        let length = self.take(2)?;
        self.take(usize::from(length[0]) << 8 | usize::from(length[1]))
    }
}

/// Checks that one of the trusted logs has a certificate of this authority. Where the trusted root names none, nothing is
/// asked.
pub(crate) fn check(
    certificate: &Certificate,
    authority: &Authority,
    root: &TrustedRoot,
) -> Result<(), Error> {
    if root.certificate_logs.is_empty() {
        return Ok(());
    }
    let no = |why: &str| {
        let message = format!(
            "the certificate of {} is in no trusted log: {why}",
            certificate.named()
        );
        Err(Error::new(ErrorKind::PermissionDenied, message))
    };
    let (body, list) = without_timestamps(certificate.der())?;
    let Some(list) = list else {
        return no("it has no timestamp of one");
    };
    let issuer = authority.issuer_of(certificate);
    let issuer_key = digest(&SHA256, issuer.key().spki());
    let mut list = Bytes(Bytes(list).block()?);
    for _ in 0..MOST {
        if list.0.is_empty() {
            break;
        }
        let mut stamp = Bytes(list.block()?);
        let (version, log) = (stamp.take(1)?, stamp.take(32)?);
        let (time, extensions) = (stamp.take(8)?, stamp.block()?);
        // The algorithm is the key's.
        stamp.take(2)?;
        let signature = stamp.block()?;
        let at = time.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte)) / 1000;
        let at = i64::try_from(at).unwrap_or(i64::MAX);
        let known = root
            .certificate_logs
            .iter()
            .find(|known| known.id == log && known.valid.has(at));
        let Some(known) = known.filter(|_| version == [0]) else {
            continue;
        };
        // Section 3.2: version, kind of signature, time, kind of entry, whose certificate, what it says.
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
        let after = u16::try_from(extensions.len()).unwrap_or(u16::MAX).to_be_bytes();
        let parts = [
            &[0, 0][..],
            time,
            &[0, 1],
            issuer_key.as_ref(),
            &length[1..],
            &body,
            &after,
            extensions,
        ];
        if known.key.verify(Scheme::Plain, &parts.concat(), signature) {
            return Ok(());
        }
    }
    no("no timestamp of it holds")
}

/// What was shown to the log: the certificate's body without the extension, and what that has.
fn without_timestamps(certificate: &[u8]) -> Result<(Vec<u8>, Option<&[u8]>), Error> {
    let mut outer = Reader::only(certificate, der::SEQUENCE)?;
    let mut body = outer.inside(der::SEQUENCE)?;
    let (mut kept, mut list) = (Vec::new(), None);
    while !body.is_empty() {
        let part = body.any()?;
        if part.tag != der::context(3) {
            kept.extend_from_slice(part.whole);
            continue;
        }
        let mut extensions = Reader::only(part.content, der::SEQUENCE)?;
        let mut others = Vec::new();
        while !extensions.is_empty() {
            let whole = extensions.any()?.whole;
            let mut extension = Reader::only(whole, der::SEQUENCE)?;
            if extension.expect(der::OID)? == OID {
                extension.optional(der::BOOLEAN)?;
                let mut value = Reader::new(extension.expect(der::OCTETS)?);
                list = Some(value.expect(der::OCTETS)?);
            } else {
                others.extend_from_slice(whole);
            }
        }
        kept.extend(der::element(der::context(3), &[&der::sequence(&[&others])]));
    }
    Ok((der::sequence(&[&kept]), list))
}
