//! Time stamps (RFC 3161): an authority's word that a signature was there at a time.

use dhow_types::ErrorKind;

use crate::bundle::{Timestamp, decoded};
use crate::der::{self, Reader};
use crate::key::Scheme;
use crate::root::{Authority, TrustedRoot};
use crate::x509::Purpose;
use crate::{Certificate, Error};

const OID_SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
const OID_TST_INFO: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x10, 0x01, 0x04];
const OID_CONTENT_TYPE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x03];
const OID_MESSAGE_DIGEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x04];
const OID_SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
const OID_SHA384: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02];
const OID_SHA512: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03];
/// Most certificates and attributes of a stamp.
const MAX_PARTS: usize = 16;

fn bad(why: &str) -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        format!("the time stamp is damaged: {why}"),
    )
}

fn no(why: &str) -> Error {
    Error::new(
        ErrorKind::PermissionDenied,
        format!("the time stamp does not hold: {why}"),
    )
}

/// Checks every stamp; gives the earliest time.
pub(crate) fn check(
    stamps: &[Timestamp],
    root: &TrustedRoot,
    signature: &[u8],
) -> Result<Option<i64>, Error> {
    let mut earliest: Option<i64> = None;
    for stamp in stamps {
        let at = check_one(
            &decoded(&stamp.signed_timestamp, "a time stamp")?,
            root,
            signature,
        )?;
        earliest = Some(earliest.map_or(at, |before| before.min(at)));
    }
    Ok(earliest)
}

/// What a stamp has, as it stands there.
struct Token<'a> {
    info: &'a [u8],
    certificates: Vec<Certificate>,
    digest_algorithm: &'a [u8],
    /// The signed attributes, written as a set.
    attributes: Vec<u8>,
    /// The digest that they have.
    said: Vec<u8>,
    signature: &'a [u8],
}

fn check_one(stamp: &[u8], root: &TrustedRoot, signature: &[u8]) -> Result<i64, Error> {
    let token = token(stamp)?;
    if hashed(token.digest_algorithm, token.info)? != token.said {
        return Err(no("it was signed for another time or another signature"));
    }
    let at = time_of(token.info, signature)?;
    let holds = |authority: &Authority| {
        let mut leaves = authority.between.iter().chain(&token.certificates);
        let anchors = std::slice::from_ref(&authority.root);
        leaves.any(|leaf| {
            leaf.key()
                .verify(Scheme::Plain, &token.attributes, token.signature)
                && leaf
                    .check_chain(&authority.between, anchors, Purpose::Clock, at)
                    .is_ok()
        })
    };
    if root
        .clocks
        .iter()
        .filter(|authority| authority.valid.has(at))
        .any(holds)
    {
        return Ok(at);
    }
    Err(no("it is by no authority of the trusted root"))
}

/// A `TimeStampResp`, or the token in it (RFC 3161, section 2.4.2): a CMS `SignedData` (RFC 5652, section 5.1).
fn token(stamp: &[u8]) -> Result<Token<'_>, Error> {
    let mut outer = Reader::only(stamp, der::SEQUENCE)?;
    let mut first = outer.any()?;
    if first.tag == der::SEQUENCE {
        let mut status = Reader::new(first.content);
        if !matches!(status.expect(der::INTEGER)?, [0 | 1]) {
            return Err(no("the authority refused it"));
        }
        outer = outer.inside(der::SEQUENCE)?;
        first = outer.any()?;
    }
    if first.tag != der::OID || first.content != OID_SIGNED_DATA {
        return Err(bad("it is no signed data"));
    }
    let mut data = Reader::only(outer.expect(der::context(0))?, der::SEQUENCE)?;
    data.expect(der::INTEGER)?;
    data.expect(der::SET)?;
    let mut content = data.inside(der::SEQUENCE)?;
    if content.expect(der::OID)? != OID_TST_INFO {
        return Err(bad("it has no time stamp in it"));
    }
    let mut octets = content.inside(der::context(0))?;
    let info = octets.expect(der::OCTETS)?;
    let mut certificates = Vec::new();
    if let Some(list) = data.optional(der::context(0))? {
        let mut list = Reader::new(list);
        while !list.is_empty() {
            // Others than those that sign are of kinds that are not known here.
            certificates.extend(Certificate::parse(list.any()?.whole).ok());
            if certificates.len() > MAX_PARTS {
                return Err(bad("it has too many certificates"));
            }
        }
    }
    data.optional(der::context(1))?;
    let mut signers = data.inside(der::SET)?;
    let mut signer = signers.inside(der::SEQUENCE)?;
    signers.end().map_err(|_| bad("it has several signers"))?;
    signer.expect(der::INTEGER)?;
    signer.any()?;
    let mut algorithm = signer.inside(der::SEQUENCE)?;
    let digest_algorithm = algorithm.expect(der::OID)?;
    let attributes = signer.expect(der::context(0))?;
    signer.expect(der::SEQUENCE)?;
    let signature = signer.expect(der::OCTETS)?;
    Ok(Token {
        info,
        certificates,
        digest_algorithm,
        said: said_digest(attributes)?,
        // What is signed is the set itself, not the field (RFC 5652, section 5.4).
        attributes: der::element(der::SET, &[attributes]),
        signature,
    })
}

fn said_digest(attributes: &[u8]) -> Result<Vec<u8>, Error> {
    let (mut said, mut kind, mut count) = (None, None, 0);
    let mut all = Reader::new(attributes);
    while !all.is_empty() {
        count += 1;
        let mut attribute = all.inside(der::SEQUENCE)?;
        let oid = attribute.expect(der::OID)?;
        let mut values = attribute.inside(der::SET)?;
        let slot = match oid {
            OID_MESSAGE_DIGEST => &mut said,
            OID_CONTENT_TYPE => &mut kind,
            _ => continue,
        };
        if slot.replace(values.any()?.content).is_some() || count > MAX_PARTS {
            return Err(bad("it has an attribute twice, or too many"));
        }
    }
    match (said, kind) {
        (Some(said), Some(OID_TST_INFO)) => Ok(said.to_vec()),
        _ => Err(bad("its signature is of something else")),
    }
}

fn hashed(algorithm: &[u8], bytes: &[u8]) -> Result<Vec<u8>, Error> {
    use aws_lc_rs::digest::{SHA256, SHA384, SHA512, digest};
    let algorithm = match algorithm {
        OID_SHA256 => &SHA256,
        OID_SHA384 => &SHA384,
        OID_SHA512 => &SHA512,
        _ => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the time stamp has a hash that is not known",
            ));
        }
    };
    Ok(digest(algorithm, bytes).as_ref().to_vec())
}

/// The time that a `TSTInfo` has for a signature (RFC 3161, section 2.4.2).
fn time_of(info: &[u8], signature: &[u8]) -> Result<i64, Error> {
    let mut info = Reader::only(info, der::SEQUENCE)?;
    info.expect(der::INTEGER)?;
    info.expect(der::OID)?;
    let mut imprint = info.inside(der::SEQUENCE)?;
    let mut algorithm = imprint.inside(der::SEQUENCE)?;
    let found = hashed(algorithm.expect(der::OID)?, signature)?;
    if imprint.expect(der::OCTETS)? != found {
        return Err(no("it is of another signature"));
    }
    info.expect(der::INTEGER)?;
    crate::x509::time_with_fraction(&mut info)
}
