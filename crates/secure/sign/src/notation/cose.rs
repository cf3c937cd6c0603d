//! The COSE envelope: `COSE_Sign1` (RFC 9052, section 4.2) with the certificates beside it (RFC 9360).

use jiff::Timestamp;

use super::{AGENT, EXPIRY, OURS, Opened, Protected, SIGNING_SCHEME, SIGNING_TIME, bad, chain_of};
use crate::cbor::{self, Value};
use crate::key::Scheme;
use crate::{Certificate, Error, PrivateKey};

/// Tag of a `COSE_Sign1`, and the byte that such a document begins with.
const SIGN1: u64 = 18;
const BEGIN: u8 = 0xc0 | 18;
/// Labels of headers (IANA, "COSE Header Parameters").
const ALG: i64 = 1;
const CRIT: i64 = 2;
const CONTENT_TYPE: i64 = 3;
const X5CHAIN: i64 = 33;
/// Tag of a time, in seconds since 1970 (RFC 8949, section 3.4.2).
const TIME: u64 = 1;
/// Algorithms (IANA, "COSE Algorithms"), by JOSE's names.
const ALGORITHMS: &[(i64, &str)] = &[
    (-7, "ES256"),
    (-35, "ES384"),
    (-36, "ES512"),
    (-37, "PS256"),
    (-38, "PS384"),
    (-39, "PS512"),
];

/// Whether a document is such an envelope, and no JSON.
pub(super) fn is_one(envelope: &[u8]) -> bool {
    envelope.first() == Some(&BEGIN)
}

pub(super) fn sign(
    key: &PrivateKey,
    protected: &Protected,
    payload: &[u8],
    chain: &[Certificate],
) -> Result<Vec<u8>, Error> {
    let algorithm = ALGORITHMS.iter().find(|(_, name)| *name == protected.alg);
    let (algorithm, _) = algorithm.ok_or_else(|| bad("has no name for the key's algorithm"))?;
    let time = |at: Timestamp| cbor::tag(TIME, cbor::number(at.as_second()));
    let crit: Vec<Vec<u8>> = protected.crit.iter().map(|name| cbor::text(name)).collect();
    let mut headers = vec![
        (cbor::number(ALG), cbor::number(*algorithm)),
        (cbor::number(CRIT), cbor::list(&crit)),
        (cbor::number(CONTENT_TYPE), cbor::text(&protected.cty)),
        (cbor::text(SIGNING_SCHEME), cbor::text(&protected.scheme)),
    ];
    for (name, at) in [(SIGNING_TIME, protected.signed), (EXPIRY, protected.expiry)] {
        headers.extend(at.map(|at| (cbor::text(name), time(at))));
    }
    let headers = cbor::map(headers);
    let certificates: Vec<Vec<u8>> = chain.iter().map(|one| cbor::bytes(one.der())).collect();
    let beside = cbor::map(vec![
        (cbor::number(X5CHAIN), cbor::list(&certificates)),
        (cbor::text(AGENT), cbor::text(OURS)),
    ]);
    let signature = key.sign(Scheme::Jose, &message(&headers, payload))?;
    let parts = [
        cbor::bytes(&headers),
        beside,
        cbor::bytes(payload),
        cbor::bytes(&signature),
    ];
    Ok(cbor::tag(SIGN1, cbor::list(&parts)))
}

/// What is signed (RFC 9052, section 4.4).
fn message(protected: &[u8], payload: &[u8]) -> Vec<u8> {
    cbor::list(&[
        cbor::text("Signature1"),
        cbor::bytes(protected),
        cbor::bytes(&[]),
        cbor::bytes(payload),
    ])
}

pub(super) fn open(envelope: &[u8]) -> Result<Opened, Error> {
    let none = || bad("is no COSE_Sign1");
    let Value::Tag(SIGN1, inside) = Value::read(envelope)? else {
        return Err(none());
    };
    let Some([protected, beside, payload, signature]) = inside.list() else {
        return Err(none());
    };
    let (Some(protected), Some(payload), Some(signature)) =
        (protected.bytes(), payload.bytes(), signature.bytes())
    else {
        return Err(none());
    };
    let chain = match beside.get(&Value::Number(X5CHAIN)) {
        Some(Value::Bytes(one)) => chain_of(&[one])?,
        Some(Value::List(list)) => {
            let ders = list.iter().map(Value::bytes).collect::<Option<Vec<_>>>();
            chain_of(&ders.ok_or_else(|| bad("has certificates that are none"))?)?
        }
        _ => return Err(bad("has no certificates")),
    };
    Ok(Opened {
        protected: headers(&Value::read(protected)?)?,
        chain,
        message: message(protected, payload),
        signature: signature.to_vec(),
        payload: payload.to_vec(),
    })
}

/// The headers that are signed, in JOSE's words.
fn headers(map: &Value<'_>) -> Result<Protected, Error> {
    let text = |value: Option<&Value<'_>>| value.and_then(Value::text).unwrap_or_default().to_owned();
    let time = |name| match map.get(&Value::Text(name)) {
        None => Ok(None),
        Some(Value::Tag(TIME, at)) => match **at {
            Value::Number(at) => Timestamp::from_second(at)
                .map(Some)
                .map_err(|_| bad("has a time that is none")),
            _ => Err(bad("has a time that is none")),
        },
        Some(_) => Err(bad("has a time that is none")),
    };
    let algorithm = match map.get(&Value::Number(ALG)) {
        Some(Value::Number(number)) => {
            let known = ALGORITHMS.iter().find(|(known, _)| known == number);
            known.map_or_else(|| format!("COSE {number}"), |(_, name)| (*name).to_owned())
        }
        _ => return Err(bad("has no algorithm")),
    };
    let mut crit = Vec::new();
    let listed = map.get(&Value::Number(CRIT));
    let listed = listed.map(|listed| {
        listed
            .list()
            .ok_or_else(|| bad("has no list of what is critical in it"))
    });
    for label in listed.transpose()?.unwrap_or_default() {
        if map.get(label).is_none() {
            return Err(bad("names something as critical that it has not"));
        }
        match label {
            // Both are looked at whether they are critical or not.
            Value::Number(ALG | CONTENT_TYPE) => {}
            Value::Number(number) => crit.push(format!("label {number}")),
            Value::Text(name) => crit.push((*name).to_owned()),
            _ => return Err(bad("has a label that is none")),
        }
    }
    Ok(Protected {
        alg: algorithm,
        crit,
        cty: text(map.get(&Value::Number(CONTENT_TYPE))),
        scheme: text(map.get(&Value::Text(SIGNING_SCHEME))),
        signed: time(SIGNING_TIME)?,
        expiry: time(EXPIRY)?,
    })
}
