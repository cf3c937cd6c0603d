//! What a public log says of a signature (sigstore/rekor): that it has it, and since when.
//!
//! Three things are checked where they are there: the log's promise (which has the time), the proof that the entry is in
//! the tree whose root the log signed (RFC 9162, section 2.1.3.2), and that the entry is of this very signature.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dhow_types::{Digest, ErrorKind};
use serde_json::Value;

use crate::bundle::{KindVersion, LogEntry, LogId, Number, Promise, Proof, bad, decoded};
use crate::key::Scheme;
use crate::root::{Log, TrustedRoot};
use crate::{Error, pem};

/// Longest proof: a tree of 2^63 leaves.
const MAX_HASHES: usize = 64;
/// Longest signed root, and most signatures under it.
const MAX_NOTE: usize = 16 << 10;
const MAX_SIGNATURES: usize = 16;

/// What an entry must be of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Evidence<'a> {
    pub(crate) signature: &'a [u8],
    /// The certificate, or the key when there is none, as DER.
    pub(crate) verifier: &'a [u8],
    /// Digest of what was signed: of the payload where it is in an envelope.
    pub(crate) content: Digest,
}

fn no(why: &str) -> Error {
    Error::new(
        ErrorKind::PermissionDenied,
        format!("the log's entry does not hold: {why}"),
    )
}

/// Checks an entry. Gives the time that the log promised, when it did.
pub(crate) fn check(
    entry: &LogEntry,
    root: &TrustedRoot,
    evidence: &Evidence<'_>,
) -> Result<Option<i64>, Error> {
    let id = decoded(&entry.log_id.key_id, "a log's id")?;
    let Some(log) = root.logs.iter().find(|log| log.id == id) else {
        return Err(no("the trusted root does not have this log"));
    };
    if entry.inclusion_promise.is_none() && entry.inclusion_proof.is_none() {
        return Err(no("it has neither the log's promise nor a proof"));
    }
    let body = decoded(&entry.canonicalized_body, "a log entry")?;
    check_body(&entry.kind_version, &body, evidence)?;
    if let Some(proof) = &entry.inclusion_proof {
        check_proof(proof, &body, log)?;
    }
    let Some(promise) = &entry.inclusion_promise else {
        return Ok(None);
    };
    let at = entry.integrated_time.0;
    check_promise(promise, entry, &id, log)?;
    if !log.valid.has(at) {
        return Err(no("the log's key was not in use at its time"));
    }
    Ok(Some(at))
}

/// The log's signature over its promise: JSON with sorted keys and no spaces (rekor, `SignedEntryTimestamp`).
fn check_promise(promise: &Promise, entry: &LogEntry, id: &[u8], log: &Log) -> Result<(), Error> {
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let signed = format!(
        r#"{{"body":"{}","integratedTime":{},"logID":"{hex}","logIndex":{}}}"#,
        entry.canonicalized_body, entry.integrated_time.0, entry.log_index.0
    );
    let signature = decoded(&promise.signed_entry_timestamp, "a log's promise")?;
    if log.key.verify(Scheme::Plain, signed.as_bytes(), &signature) {
        return Ok(());
    }
    Err(no("the log did not sign its promise"))
}

fn hash(parts: &[&[u8]]) -> Vec<u8> {
    digest(&SHA256, &parts.concat()).as_ref().to_vec()
}

fn check_proof(proof: &Proof, body: &[u8], log: &Log) -> Result<(), Error> {
    if proof.hashes.len() > MAX_HASHES {
        return Err(bad("a proof is too long"));
    }
    let hashes = proof.hashes.iter().map(|hash| decoded(hash, "a proof"));
    let hashes = hashes.collect::<Result<Vec<_>, Error>>()?;
    let root = decoded(&proof.root_hash, "a proof")?;
    let number = |number: Number| u64::try_from(number.0).map_err(|_| bad("a proof has a negative number"));
    let (index, size) = (number(proof.log_index)?, number(proof.tree_size)?);
    if root_of(index, size, &hash(&[&[0], body]), &hashes).as_deref() != Some(&root[..]) {
        return Err(no("it is not in the tree that the proof is of"));
    }
    check_root(&proof.checkpoint.envelope, size, &root, log)
}

/// The root of the tree that a proof leads to (RFC 9162, section 2.1.3.2); none for a proof that is none.
fn root_of(index: u64, size: u64, leaf: &[u8], hashes: &[Vec<u8>]) -> Option<Vec<u8>> {
    if index >= size {
        return None;
    }
    let (mut node, mut last, mut found) = (index, size - 1, leaf.to_vec());
    for sibling in hashes {
        if last == 0 {
            return None;
        }
        if node & 1 == 1 || node == last {
            found = hash(&[&[1], sibling, &found]);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            found = hash(&[&[1], &found, sibling]);
        }
        node >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(found)
}

/// The signed root: a note of origin, size and hash, an empty line, signatures (C2SP, `tlog-checkpoint`, `signed-note`).
fn check_root(note: &str, size: u64, root: &[u8], log: &Log) -> Result<(), Error> {
    let damaged = || bad("a log's signed root is none");
    if note.len() > MAX_NOTE {
        return Err(damaged());
    }
    let (text, signatures) = note.split_once("\n\n").ok_or_else(damaged)?;
    let text = format!("{text}\n");
    let mut lines = text.lines().skip(1);
    let said: u64 = lines
        .next()
        .and_then(|line| line.parse().ok())
        .ok_or_else(damaged)?;
    let said_root = decoded(lines.next().ok_or_else(damaged)?, "a log's signed root")?;
    if said != size || said_root != root {
        return Err(no("the proof is of another tree than the log signed"));
    }
    for line in signatures.lines().take(MAX_SIGNATURES) {
        let Some((_, signature)) = line
            .strip_prefix("\u{2014} ")
            .and_then(|rest| rest.split_once(' '))
        else {
            continue;
        };
        // Four bytes first say whose it is.
        if let Ok(signature) = STANDARD.decode(signature)
            && signature.len() > 4
            && log.key.verify(Scheme::Plain, text.as_bytes(), &signature[4..])
        {
            return Ok(());
        }
    }
    Err(no("the log did not sign the root of its tree"))
}

/// One signature in an entry's body.
struct Recorded {
    signature: Vec<u8>,
    verifier: Vec<u8>,
}

/// Whether an entry is of this signature, by this key, of this content: else it proves that something else was logged.
fn check_body(kind: &KindVersion, body: &[u8], evidence: &Evidence<'_>) -> Result<(), Error> {
    let body: Value = serde_json::from_slice(body)
        .map_err(|error| Error::because(ErrorKind::InvalidArgument, "read the log's entry", error))?;
    if body["kind"] != kind.kind.as_str() || body["apiVersion"] != kind.version.as_str() {
        return Err(no("it is of another kind than it says"));
    }
    let (recorded, content) = match (kind.kind.as_str(), kind.version.as_str()) {
        ("hashedrekord", "0.0.1") => {
            let signature = &body["spec"]["signature"];
            let recorded = recorded(&signature["content"], &signature["publicKey"]["content"])?;
            (recorded, in_hex(&body["spec"]["data"]["hash"])?)
        }
        ("dsse", "0.0.1") => {
            let first = only(&body["spec"]["signatures"])?;
            (
                recorded(&first["signature"], &first["verifier"])?,
                in_hex(&body["spec"]["payloadHash"])?,
            )
        }
        ("intoto", "0.0.2") => {
            let content = &body["spec"]["content"];
            let first = only(&content["envelope"]["signatures"])?;
            let mut recorded = recorded(&first["sig"], &first["publicKey"])?;
            // It is written in base64 twice.
            recorded.signature = STANDARD
                .decode(&recorded.signature)
                .map_err(|_| no("its signature is no base64"))?;
            (recorded, in_hex(&content["payloadHash"])?)
        }
        ("hashedrekord", "0.0.2") => {
            let spec = &body["spec"]["hashedRekordV002"];
            (recorded_raw(&spec["signature"])?, in_base64(&spec["data"])?)
        }
        ("dsse", "0.0.2") => {
            let spec = &body["spec"]["dsseV002"];
            (
                recorded_raw(only(&spec["signatures"])?)?,
                in_base64(&spec["payloadHash"])?,
            )
        }
        (kind, version) => {
            let message = format!("the log's entry is a {kind:.40} {version:.10}, which is not known");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
    };
    if recorded.signature != evidence.signature {
        return Err(no("it is of another signature"));
    }
    if recorded.verifier != evidence.verifier {
        return Err(no("it is of another key or certificate"));
    }
    if content != *evidence.content.as_bytes() {
        return Err(no("it is of other content"));
    }
    Ok(())
}

fn only(list: &Value) -> Result<&Value, Error> {
    match list.as_array().map(Vec::as_slice) {
        Some([first]) => Ok(first),
        _ => Err(no("it has not exactly one signature")),
    }
}

fn bytes(value: &Value) -> Result<Vec<u8>, Error> {
    let text = value.as_str().ok_or_else(|| no("a field is missing"))?;
    decoded(text, "a log entry")
}

/// A signature beside a PEM file.
fn recorded(signature: &Value, verifier: &Value) -> Result<Recorded, Error> {
    let mut blocks = pem::blocks(&bytes(verifier)?)?;
    if blocks.len() != 1 {
        return Err(no("it has not exactly one key or certificate"));
    }
    Ok(Recorded {
        signature: bytes(signature)?,
        verifier: blocks.swap_remove(0).1,
    })
}

/// A signature beside DER.
fn recorded_raw(signature: &Value) -> Result<Recorded, Error> {
    let verifier = &signature["verifier"];
    let raw = match &verifier["x509Certificate"]["rawBytes"] {
        Value::Null => &verifier["publicKey"]["rawBytes"],
        raw => raw,
    };
    Ok(Recorded {
        signature: bytes(&signature["content"])?,
        verifier: bytes(raw)?,
    })
}

fn in_hex(hash: &Value) -> Result<[u8; 32], Error> {
    let value = hash["value"].as_str().filter(|_| hash["algorithm"] == "sha256");
    let digest = value.and_then(|hex| Digest::from_hex(hex).ok());
    digest
        .map(|digest| *digest.as_bytes())
        .ok_or_else(|| no("its content has no sha256"))
}

fn in_base64(hash: &Value) -> Result<[u8; 32], Error> {
    if hash["algorithm"] != "SHA2_256" {
        return Err(no("its content has no sha256"));
    }
    bytes(&hash["digest"])?
        .try_into()
        .map_err(|_| no("its content has no sha256"))
}

/// What cosign puts beside a simple signature since 2021: the log's promise, with the entry.
pub(crate) fn from_annotation(text: &str) -> Result<LogEntry, Error> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Annotation {
        signed_entry_timestamp: String,
        payload: Payload,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Payload {
        body: String,
        integrated_time: i64,
        log_index: i64,
        #[serde(rename = "logID")]
        log_id: String,
    }
    let read: Annotation = serde_json::from_str(text)
        .map_err(|error| Error::because(ErrorKind::InvalidArgument, "read the log's promise", error))?;
    let id = Digest::from_hex(&read.payload.log_id).map_err(|_| bad("a log's id is none"))?;
    let body: Value = serde_json::from_slice(&decoded(&read.payload.body, "a log entry")?)
        .map_err(|error| Error::because(ErrorKind::InvalidArgument, "read the log's entry", error))?;
    let word = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
    Ok(LogEntry {
        log_index: Number(read.payload.log_index),
        log_id: LogId {
            key_id: STANDARD.encode(id.as_bytes()),
        },
        kind_version: KindVersion {
            kind: word("kind"),
            version: word("apiVersion"),
        },
        integrated_time: Number(read.payload.integrated_time),
        inclusion_promise: Some(Promise {
            signed_entry_timestamp: read.signed_entry_timestamp,
        }),
        inclusion_proof: None,
        canonicalized_body: read.payload.body,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(leaves: &[Vec<u8>]) -> Vec<u8> {
        match leaves {
            [one] => one.clone(),
            many => {
                let half = many.len().next_power_of_two() / 2;
                hash(&[&[1], &tree(&many[..half]), &tree(&many[half..])])
            }
        }
    }

    fn path(at: usize, leaves: &[Vec<u8>]) -> Vec<Vec<u8>> {
        if leaves.len() == 1 {
            return Vec::new();
        }
        let half = leaves.len().next_power_of_two() / 2;
        let (left, right) = leaves.split_at(half);
        let (mut below, other) = if at < half {
            (path(at, left), tree(right))
        } else {
            (path(at - half, right), tree(left))
        };
        below.push(other);
        below
    }

    #[test]
    fn every_leaf_of_trees_of_every_size_leads_to_the_root_and_a_wrong_place_does_not() {
        for size in 1..40_usize {
            let leaves: Vec<Vec<u8>> = (0..size).map(|n| hash(&[&[0], &n.to_be_bytes()])).collect();
            let root = tree(&leaves);
            for at in 0..size {
                let proof = path(at, &leaves);
                let found = |at: usize, size: usize, proof: &[Vec<u8>]| {
                    root_of(at as u64, size as u64, &leaves[at.min(leaves.len() - 1)], proof)
                };
                assert_eq!(found(at, size, &proof).as_ref(), Some(&root), "{at} of {size}");
                assert_ne!(
                    found((at + 1) % size, size, &proof).as_ref().filter(|_| size > 1),
                    Some(&root)
                );
                let mut longer = proof.clone();
                longer.push(root.clone());
                assert_ne!(found(at, size, &longer).as_ref(), Some(&root));
                assert_eq!(root_of(size as u64, size as u64, &leaves[at], &proof), None);
            }
        }
    }
}
