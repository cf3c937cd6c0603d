//! Certificates (RFC 5280): what is read of them, how a chain is judged, and one that is made for one's own key.
//!
//! Chains are built and judged by webpki, the library that judges TLS's; here is what it does not tell: names, Fulcio's
//! fields, validity.

use dhow_types::{Digest, ErrorKind};
use jiff::tz::TimeZone;
use pki_types::{CertificateDer, ServerName, UnixTime};

use crate::der::{self, Reader};
use crate::key::{Kind, Scheme};
use crate::{Error, PrivateKey, PublicKey, pem};

/// Largest certificate, and longest chain.
const MAX_BYTES: usize = 64 << 10;
pub(crate) const MAX_CHAIN: usize = 8;
/// Most names in one certificate.
const MAX_NAMES: usize = 64;

const OID_SAN: &[u8] = &[0x55, 0x1d, 0x11];
const OID_BASIC: &[u8] = &[0x55, 0x1d, 0x13];
const OID_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
const OID_EXTENDED: &[u8] = &[0x55, 0x1d, 0x25];
/// `id-kp-codeSigning`.
const OID_CODE_SIGNING: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x03];
/// `id-kp-timeStamping`.
const OID_TIME_STAMPING: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x08];
/// Fulcio's own: 1.3.6.1.4.1.57264.1, of which .1 is the issuer as plain text, .8 the same as DER, .7 a user name.
const OID_FULCIO: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xbf, 0x30, 0x01];
const ISSUER: u8 = 8;
const OLD_ISSUER: u8 = 1;
const USER: u8 = 7;
const OID_ECDSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];

/// What a certificate must be good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Code signing is said of it, and of whoever stands between (Fulcio).
    Code,
    /// Code signing is said of it; of who stands between that, or nothing (containers-policy.json, `pki`).
    OwnCode,
    /// Code signing is said of it, or nothing (Notary Project).
    CodeOrAny,
    /// Time stamping is said of it (RFC 3161, section 2.3).
    Clock,
}

/// A certificate.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    key: PublicKey,
    subject: Vec<u8>,
    issuer: Vec<u8>,
    /// From and until when it is good, in seconds since 1970.
    validity: (i64, i64),
    names: Vec<String>,
    /// Those of the names that are addresses of mail.
    emails: Vec<String>,
    oidc_issuer: Option<String>,
    is_authority: bool,
    signs_documents: bool,
    /// Whether code signing is said of it.
    signs_code: bool,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Certificate({})", self.subject())
    }
}

fn bad(why: &str) -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        format!("the certificate is damaged: {why}"),
    )
}

impl Certificate {
    /// Reads one.
    ///
    /// # Errors
    /// `InvalidArgument` for what is none; `Unsupported` for one whose key is of no use here.
    pub fn parse(der: &[u8]) -> Result<Self, Error> {
        if der.len() > MAX_BYTES {
            return Err(bad("it is too large"));
        }
        let mut outer = Reader::only(der, der::SEQUENCE)?;
        let mut body = outer.inside(der::SEQUENCE)?;
        if body.optional(der::context(0))? != Some(&[2, 1, 2]) {
            return Err(bad("it is not of version 3"));
        }
        body.expect(der::INTEGER)?;
        body.expect(der::SEQUENCE)?;
        let issuer = body.any()?.whole.to_vec();
        let mut validity = body.inside(der::SEQUENCE)?;
        let validity = (time(&mut validity)?, time(&mut validity)?);
        let subject = body.any()?.whole.to_vec();
        let key = PublicKey::from_spki(body.any()?.whole)?;
        let mut made = Self {
            der: der.to_vec(),
            key,
            subject,
            issuer,
            validity,
            names: Vec::new(),
            emails: Vec::new(),
            oidc_issuer: None,
            is_authority: false,
            // What says nothing of its use may be used for all (RFC 5280, section 4.2.1.3).
            signs_documents: true,
            signs_code: false,
        };
        // Unique identifiers, which nobody has.
        body.optional(0x81)?;
        body.optional(0x82)?;
        if let Some(extensions) = body.optional(der::context(3))? {
            made.read_extensions(Reader::only(extensions, der::SEQUENCE)?)?;
        }
        body.end()?;
        Ok(made)
    }

    fn read_extensions(&mut self, mut extensions: Reader<'_>) -> Result<(), Error> {
        let mut seen: Vec<&[u8]> = Vec::new();
        while !extensions.is_empty() {
            let mut extension = extensions.inside(der::SEQUENCE)?;
            let oid = extension.expect(der::OID)?;
            if seen.contains(&oid) {
                return Err(bad("it has an extension twice"));
            }
            seen.push(oid);
            extension.optional(der::BOOLEAN)?;
            let value = extension.expect(der::OCTETS)?;
            extension.end()?;
            match oid {
                OID_SAN => (self.names, self.emails) = names(value)?,
                OID_BASIC => {
                    let mut basic = Reader::only(value, der::SEQUENCE)?;
                    self.is_authority = basic.optional(der::BOOLEAN)?.is_some_and(|flag| flag != [0]);
                }
                OID_EXTENDED => {
                    let mut purposes = Reader::only(value, der::SEQUENCE)?;
                    while !purposes.is_empty() {
                        self.signs_code |= purposes.expect(der::OID)? == OID_CODE_SIGNING;
                    }
                }
                OID_USAGE => {
                    // Bit 0 is `digitalSignature`, the first from the left.
                    self.signs_documents = matches!(value, [der::BITS, _, _, first, ..] if first & 0x80 != 0);
                }
                _ => match oid.strip_prefix(OID_FULCIO) {
                    Some([ISSUER]) => {
                        let mut issuer = Reader::new(value);
                        self.oidc_issuer = Some(text(issuer.expect(der::UTF8)?)?);
                    }
                    Some([OLD_ISSUER]) if self.oidc_issuer.is_none() => {
                        self.oidc_issuer = Some(text(value)?);
                    }
                    _ => {}
                },
            }
        }
        Ok(())
    }

    /// The certificates of a PEM file.
    ///
    /// # Errors
    /// As [`Certificate::parse`]; `InvalidArgument` for a file without one.
    pub fn all_from_pem(text: &[u8]) -> Result<Vec<Self>, Error> {
        let blocks = pem::blocks(text)?;
        let all = blocks.iter().filter(|(label, _)| label == "CERTIFICATE");
        let all = all
            .map(|(_, der)| Self::parse(der))
            .collect::<Result<Vec<_>, Error>>()?;
        if all.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "the file has no certificate",
            ));
        }
        Ok(all)
    }

    /// The certificate as a PEM file.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem::encode("CERTIFICATE", &self.der)
    }

    /// Its bytes.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Its key.
    #[must_use]
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The digest of its bytes.
    #[must_use]
    pub fn thumbprint(&self) -> Digest {
        Digest::of(&self.der)
    }

    /// Whom it is for, as `CN=a,O=b`.
    #[must_use]
    pub fn subject(&self) -> String {
        distinguished(&self.subject).unwrap_or_else(|_| "?".to_owned())
    }

    /// Alternative names: addresses, URIs, user names.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Those of the names that are addresses of mail.
    #[must_use]
    pub fn emails(&self) -> &[String] {
        &self.emails
    }

    /// Whether it is for a host, by its name or address (RFC 9525): names of subjects do not count.
    pub(crate) fn is_for_host(&self, host: &str) -> bool {
        let der = CertificateDer::from(self.der.as_slice());
        let (leaf, name) = (webpki::EndEntityCert::try_from(&der), ServerName::try_from(host));
        matches!((leaf, name), (Ok(leaf), Ok(name)) if leaf.verify_is_valid_for_subject_name(&name).is_ok())
    }

    /// Who vouched for the name to Fulcio.
    #[must_use]
    pub fn oidc_issuer(&self) -> Option<&str> {
        self.oidc_issuer.as_deref()
    }

    pub(crate) fn is_issued_by(&self, other: &Self) -> bool {
        self.issuer == other.subject
    }

    pub(crate) fn is_self_issued(&self) -> bool {
        self.subject == self.issuer
    }

    pub(crate) fn check_time(&self, at: i64) -> Result<(), Error> {
        let (from, until) = self.validity;
        if (from..=until).contains(&at) {
            return Ok(());
        }
        let (word, when) = if at < from {
            ("is not valid before", from)
        } else {
            ("expired on", until)
        };
        let message = format!("the certificate of {} {word} {}", self.named(), shown(when));
        Err(Error::new(ErrorKind::PermissionDenied, message))
    }

    /// Its name for people.
    #[must_use]
    pub fn named(&self) -> String {
        match (self.names.first(), self.subject()) {
            (Some(name), subject) if subject.is_empty() => name.clone(),
            (_, subject) => subject,
        }
    }

    /// Judges this certificate at a time: a chain to one of the anchors, signed all along, none of it out of its time, for
    /// this purpose.
    pub(crate) fn check_chain(
        &self,
        between: &[Self],
        anchors: &[Self],
        purpose: Purpose,
        at: i64,
    ) -> Result<(), Error> {
        let no = |why: String| {
            let message = format!("the certificate of {} is not trusted: {why}", self.named());
            Err(Error::new(ErrorKind::PermissionDenied, message))
        };
        self.check_time(at)?;
        if self.is_authority {
            return no("it is an authority's, which signs certificates only".to_owned());
        }
        if !self.signs_documents {
            return no("its key usage does not have digitalSignature".to_owned());
        }
        if purpose == Purpose::OwnCode && !self.signs_code {
            return no("code signing is not said of it".to_owned());
        }
        let leaf = CertificateDer::from(self.der.as_slice());
        let leaf = webpki::EndEntityCert::try_from(&leaf).map_err(|error| bad(&error.to_string()))?;
        // webpki takes anchors as they are: what is out of its time is none.
        let in_time = anchors.iter().filter(|anchor| anchor.check_time(at).is_ok());
        let ders: Vec<CertificateDer<'_>> = in_time
            .map(|anchor| CertificateDer::from(anchor.der.as_slice()))
            .collect();
        let mut trusted = Vec::new();
        for der in &ders {
            trusted.push(webpki::anchor_from_trusted_cert(der).map_err(|error| bad(&error.to_string()))?);
        }
        if trusted.is_empty() {
            return no(format!("no certificate authority is trusted at {}", shown(at)));
        }
        let between: Vec<CertificateDer<'_>> = between
            .iter()
            .map(|other| CertificateDer::from(other.der.as_slice()))
            .collect();
        let seconds = u64::try_from(at).unwrap_or_default();
        let usage = match purpose {
            Purpose::Code => webpki::KeyUsage::required(OID_CODE_SIGNING),
            Purpose::CodeOrAny | Purpose::OwnCode => webpki::KeyUsage::required_if_present(OID_CODE_SIGNING),
            Purpose::Clock => webpki::KeyUsage::required(OID_TIME_STAMPING),
        };
        let judged = leaf.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &trusted,
            &between,
            UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds)),
            usage,
            None,
            None,
        );
        match judged {
            Ok(_) => Ok(()),
            Err(webpki::Error::UnknownIssuer) => no("it does not lead to a trusted authority".to_owned()),
            Err(error) => no(error.to_string()),
        }
    }

    /// A certificate for one's own key, signed by it: for code signing, not for signing others.
    ///
    /// `subject` is as `CN=name,O=organisation,C=DE`.
    ///
    /// # Errors
    /// `InvalidArgument` for a subject that is none; `Unsupported` for a key that is not on P-256.
    pub fn self_made(key: &PrivateKey, subject: &str, from: i64, until: i64) -> Result<Self, Error> {
        if key.public().kind() != Kind::P256 {
            let message = "a certificate is made for a key on P-256 only";
            return Err(Error::new(ErrorKind::Unsupported, message)
                .with_hint("make one with openssl req -x509, or generate a key"));
        }
        let oid = |oid: &[u8]| der::element(der::OID, &[oid]);
        let mut serial = [0; 16];
        aws_lc_rs::rand::fill(&mut serial).map_err(|_| {
            Error::new(
                ErrorKind::Internal,
                "make a certificate: the host gave no random numbers",
            )
        })?;
        serial[0] = serial[0] & 0x7f | 0x40;
        let algorithm = der::sequence(&[&oid(OID_ECDSA_SHA256)]);
        let name = written_name(subject)?;
        let validity = der::sequence(&[&written_time(from)?, &written_time(until)?]);
        let extension = |id: &[u8], critical: bool, value: &[u8]| {
            let flag: &[u8] = if critical { &[der::BOOLEAN, 1, 0xff] } else { &[] };
            der::sequence(&[&oid(id), flag, &der::element(der::OCTETS, &[value])])
        };
        let extensions = der::sequence(&[
            &extension(OID_BASIC, true, &der::sequence(&[])),
            &extension(OID_USAGE, true, &[der::BITS, 2, 7, 0x80]),
            &extension(OID_EXTENDED, false, &der::sequence(&[&oid(OID_CODE_SIGNING)])),
        ]);
        let body = der::sequence(&[
            &der::element(der::context(0), &[&der::integer(&[2])]),
            &der::integer(&serial),
            &algorithm,
            &name,
            &validity,
            &name,
            key.public().spki(),
            &der::element(der::context(3), &[&extensions]),
        ]);
        let signature = key.sign(Scheme::Plain, &body)?;
        Self::parse(&der::sequence(&[&body, &algorithm, &der::bits(&signature)]))
    }
}

/// The attributes of names that people write, with their identifiers (RFC 4514, section 3).
const ATTRIBUTES: &[(&str, &[u8])] = &[
    ("CN", &[0x55, 4, 3]),
    ("C", &[0x55, 4, 6]),
    ("L", &[0x55, 4, 7]),
    ("ST", &[0x55, 4, 8]),
    ("O", &[0x55, 4, 10]),
    ("OU", &[0x55, 4, 11]),
];

fn written_name(subject: &str) -> Result<Vec<u8>, Error> {
    let wrong = || {
        let message = format!("{subject:?} is no subject of a certificate");
        Error::new(ErrorKind::InvalidArgument, message)
            .with_hint("write CN=name,O=organisation,C=DE; also OU, L, ST")
    };
    let mut parts = Vec::new();
    for part in subject.split(',') {
        let (key, value) = part.split_once('=').ok_or_else(wrong)?;
        let (key, value) = (key.trim().to_ascii_uppercase(), value.trim());
        let (_, oid) = ATTRIBUTES
            .iter()
            .find(|(known, _)| *known == key)
            .ok_or_else(wrong)?;
        let long = if key == "C" {
            value.len() != 2
        } else {
            value.len() > 64
        };
        if value.is_empty() || long || value.chars().any(char::is_control) {
            return Err(wrong());
        }
        // A country is a PrintableString of two letters (RFC 5280, appendix A.1).
        let tag = if key == "C" { 0x13 } else { der::UTF8 };
        let attribute = der::sequence(&[
            &der::element(der::OID, &[oid]),
            &der::element(tag, &[value.as_bytes()]),
        ]);
        parts.push(der::element(der::SET, &[&attribute]));
    }
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    Ok(der::sequence(&parts))
}

fn distinguished(name: &[u8]) -> Result<String, Error> {
    let mut sets = Reader::only(name, der::SEQUENCE)?;
    let mut parts = Vec::new();
    while !sets.is_empty() {
        let mut set = sets.inside(der::SET)?;
        while !set.is_empty() {
            let mut attribute = set.inside(der::SEQUENCE)?;
            let oid = attribute.expect(der::OID)?;
            let value = text(attribute.any()?.content)?;
            let known = ATTRIBUTES.iter().find(|(_, known)| *known == oid);
            let key = known.map_or("?", |(key, _)| key);
            // A comma in a value is no end of it (RFC 4514, section 2.4).
            let value = value
                .replace('\\', "\\\\")
                .replace(',', "\\,")
                .replace('=', "\\=");
            parts.push(format!("{key}={value}"));
        }
    }
    Ok(parts.join(","))
}

fn text(bytes: &[u8]) -> Result<String, Error> {
    let text = std::str::from_utf8(bytes).map_err(|_| bad("a name is no text"))?;
    if text.len() > 4096 || text.chars().any(char::is_control) {
        return Err(bad("a name is too long, or has control characters"));
    }
    Ok(text.to_owned())
}

/// Addresses, URIs and Fulcio's user names (RFC 5280, section 4.2.1.6); and the addresses alone.
fn names(value: &[u8]) -> Result<(Vec<String>, Vec<String>), Error> {
    let mut all = Reader::only(value, der::SEQUENCE)?;
    let (mut names, mut emails) = (Vec::new(), Vec::new());
    while !all.is_empty() {
        let name = all.any()?;
        match name.tag {
            0x81 => {
                names.push(text(name.content)?);
                emails.push(text(name.content)?);
            }
            0x86 => names.push(text(name.content)?),
            0xa0 => {
                let mut other = Reader::new(name.content);
                let oid = other.expect(der::OID)?;
                if oid.strip_prefix(OID_FULCIO) == Some(&[USER]) {
                    let mut value = other.inside(der::context(0))?;
                    names.push(text(value.expect(der::UTF8)?)?);
                }
            }
            _ => {}
        }
        if names.len() > MAX_NAMES {
            return Err(bad("it has too many names"));
        }
    }
    Ok((names, emails))
}

fn time(reader: &mut Reader<'_>) -> Result<i64, Error> {
    let wrong = || bad("a time in it is none");
    let found = reader.any()?;
    let digits = std::str::from_utf8(found.content).map_err(|_| wrong())?;
    let digits = digits.strip_suffix('Z').ok_or_else(wrong)?;
    let digits = match found.tag {
        // Two digits of a year: 1950 to 2049 (RFC 5280, section 4.1.2.5.1).
        der::UTC_TIME if digits.len() == 12 && digits.as_bytes()[0] >= b'5' => format!("19{digits}"),
        der::UTC_TIME if digits.len() == 12 => format!("20{digits}"),
        der::GENERALIZED_TIME if digits.len() == 14 => digits.to_owned(),
        _ => return Err(wrong()),
    };
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(wrong());
    }
    let number = |from: usize, to: usize| digits[from..to].parse::<i8>().map_err(|_| wrong());
    let year = digits[..4].parse::<i16>().map_err(|_| wrong())?;
    let civil = jiff::civil::DateTime::new(
        year,
        number(4, 6)?,
        number(6, 8)?,
        number(8, 10)?,
        number(10, 12)?,
        number(12, 14)?,
        0,
    );
    let zoned = civil
        .and_then(|civil| civil.to_zoned(TimeZone::UTC))
        .map_err(|_| wrong())?;
    Ok(zoned.timestamp().as_second())
}

/// A time that may have a fraction of a second, which does not count (RFC 3161, section 2.4.2).
pub(crate) fn time_with_fraction(reader: &mut Reader<'_>) -> Result<i64, Error> {
    let found = reader.expect(der::GENERALIZED_TIME)?;
    let whole: Vec<u8> = match found.iter().position(|byte| *byte == b'.') {
        Some(dot) => [&found[..dot], b"Z"].concat(),
        None => found.to_vec(),
    };
    time(&mut Reader::new(&der::element(der::GENERALIZED_TIME, &[&whole])))
}

fn stamp(at: i64) -> Result<jiff::Timestamp, Error> {
    jiff::Timestamp::from_second(at)
        .map_err(|error| Error::because(ErrorKind::InvalidArgument, format!("{at} is no time"), error))
}

fn written_time(at: i64) -> Result<Vec<u8>, Error> {
    let stamp = stamp(at)?;
    let text = stamp.strftime("%Y%m%d%H%M%SZ").to_string();
    Ok(match text.strip_prefix("20") {
        Some(short) if &text[..4] < "2050" => der::element(der::UTC_TIME, &[short.as_bytes()]),
        _ => der::element(der::GENERALIZED_TIME, &[text.as_bytes()]),
    })
}

/// A time for people.
pub(crate) fn shown(at: i64) -> String {
    stamp(at).map_or_else(
        |_| at.to_string(),
        |stamp| stamp.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    )
}
