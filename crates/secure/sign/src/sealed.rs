//! Private keys under a pass phrase, in cosign's form (`secure-systems-lab/go-securesystemslib`, `encrypted`): scrypt makes
//! a key of the pass phrase, NaCl's secretbox (XSalsa20 and Poly1305) seals with it, JSON says with which parameters.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dhow_types::ErrorKind;
use poly1305::Poly1305;
use poly1305::universal_hash::KeyInit as _;
use salsa20::XSalsa20;
use salsa20::cipher::{KeyIvInit as _, StreamCipher as _};
use serde::{Deserialize, Serialize};

use crate::Error;

/// What cosign calls such a key, and what it did before 2022.
pub(crate) const LABEL: &str = "ENCRYPTED SIGSTORE PRIVATE KEY";
pub(crate) const OLD_LABEL: &str = "ENCRYPTED COSIGN PRIVATE KEY";

/// cosign's cost: 64 MiB, about a tenth of a second.
const COST: u64 = 1 << 16;
const BLOCK: u32 = 8;
/// Most memory that a file may ask for, in bytes: 128 r N (RFC 7914, section 2).
const MOST_MEMORY: u64 = 1 << 28;
const KDF: &str = "scrypt";
const CIPHER: &str = "nacl/secretbox";
const TAG: usize = 16;

#[derive(Serialize, Deserialize)]
struct Document {
    kdf: Kdf,
    cipher: Cipher,
    ciphertext: String,
}

#[derive(Serialize, Deserialize)]
struct Kdf {
    name: String,
    params: Params,
    salt: String,
}

#[derive(Serialize, Deserialize)]
struct Params {
    #[serde(rename = "N")]
    cost: u64,
    r: u32,
    p: u32,
}

#[derive(Serialize, Deserialize)]
struct Cipher {
    name: String,
    nonce: String,
}

fn damaged(why: &str) -> Error {
    Error::new(
        ErrorKind::InvalidArgument,
        format!("the encrypted key is damaged: {why}"),
    )
}

fn decoded(text: &str) -> Result<Vec<u8>, Error> {
    STANDARD.decode(text).map_err(|_| damaged("a field is no base64"))
}

fn derive(pass_phrase: &[u8], salt: &[u8], params: &Params) -> Result<[u8; 32], Error> {
    let wrong = || damaged("its scrypt parameters are out of bounds");
    let memory = u64::from(params.r)
        .checked_mul(128)
        .and_then(|block| block.checked_mul(params.cost));
    if !params.cost.is_power_of_two()
        || params.cost == 1
        || params.p != 1
        || memory.is_none_or(|memory| memory > MOST_MEMORY)
    {
        return Err(wrong());
    }
    let log = u8::try_from(params.cost.ilog2()).map_err(|_| wrong())?;
    let params = scrypt::Params::new(log, params.r, params.p).map_err(|_| wrong())?;
    let mut key = [0; 32];
    scrypt::scrypt(pass_phrase, salt, &params, &mut key).map_err(|_| wrong())?;
    Ok(key)
}

/// The first 32 bytes of the key stream are Poly1305's key, what follows covers the message (NaCl, `crypto_secretbox`).
fn stream(key: &[u8; 32], nonce: &[u8; 24], message: &mut [u8]) -> Poly1305 {
    let mut cipher = XSalsa20::new(key.into(), nonce.into());
    let mut mac = [0; 32];
    cipher.apply_keystream(&mut mac);
    cipher.apply_keystream(message);
    Poly1305::new(&mac.into())
}

/// Encrypts a key.
pub(crate) fn seal(key: &[u8], pass_phrase: &[u8]) -> Result<Vec<u8>, Error> {
    let (mut salt, mut nonce) = ([0; 32], [0; 24]);
    for random in [&mut salt[..], &mut nonce[..]] {
        aws_lc_rs::rand::fill(random).map_err(|_| {
            Error::new(
                ErrorKind::Internal,
                "encrypt a key: the host gave no random numbers",
            )
        })?;
    }
    let params = Params {
        cost: COST,
        r: BLOCK,
        p: 1,
    };
    let derived = derive(pass_phrase, &salt, &params)?;
    let mut message = key.to_vec();
    let tag = stream(&derived, &nonce, &mut message).compute_unpadded(&message);
    let document = Document {
        kdf: Kdf {
            name: KDF.to_owned(),
            params,
            salt: STANDARD.encode(salt),
        },
        cipher: Cipher {
            name: CIPHER.to_owned(),
            nonce: STANDARD.encode(nonce),
        },
        ciphertext: STANDARD.encode([&tag[..], &message].concat()),
    };
    serde_json::to_vec(&document).map_err(|error| Error::because(ErrorKind::Internal, "write a key", error))
}

/// Decrypts a key.
///
/// # Errors
/// `Unauthenticated` for a wrong pass phrase.
pub(crate) fn open(document: &[u8], pass_phrase: &[u8]) -> Result<Vec<u8>, Error> {
    let document: Document = serde_json::from_slice(document)
        .map_err(|error| Error::because(ErrorKind::InvalidArgument, "read the encrypted key", error))?;
    if document.kdf.name != KDF || document.cipher.name != CIPHER {
        return Err(damaged(&format!("it is not {KDF} and {CIPHER}")));
    }
    let nonce: [u8; 24] = decoded(&document.cipher.nonce)?
        .try_into()
        .map_err(|_| damaged("its nonce has not 24 bytes"))?;
    let key = derive(pass_phrase, &decoded(&document.kdf.salt)?, &document.kdf.params)?;
    let sealed = decoded(&document.ciphertext)?;
    let Some((tag, message)) = sealed.split_at_checked(TAG) else {
        return Err(damaged("it is too short"));
    };
    // The tag is of what is still covered.
    let mut plain = message.to_vec();
    let found = stream(&key, &nonce, &mut plain).compute_unpadded(message);
    if aws_lc_rs::constant_time::verify_slices_are_equal(&found, tag).is_err() {
        let message = "the key does not open: the pass phrase is wrong";
        return Err(Error::new(ErrorKind::Unauthenticated, message));
    }
    Ok(plain)
}
