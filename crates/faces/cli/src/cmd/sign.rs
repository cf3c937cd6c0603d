//! `sign` and `attest`: signatures and signed statements beside images; keys for them.

use std::fs::{self, OpenOptions};
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgMatches, Args, ValueEnum};
use dhow_engine::signing::{Certificate, Envelope, PrivateKey, SignAs, SignRequest, predicate_type};
use dhow_types::parse_duration;
use jiff::Timestamp;

use crate::flags::labels;
use crate::render::{note, say_line};
use crate::{CliError, Context, Verb};

pub(crate) const SIGN: Verb = Verb {
    name: "sign",
    about: "Sign an image in a registry, or make a key to sign with",
    flags: |command| SignFlags::augment_args(command),
    run: sign,
};

pub(crate) const ATTEST: Verb = Verb {
    name: "attest",
    about: "Put a signed statement beside an image in a registry: a bill of materials, provenance, VEX",
    flags: |command| AttestFlags::augment_args(command),
    run: attest,
};

/// Variables with a pass phrase: ours, and cosign's.
const PASS_PHRASES: [&str; 2] = ["DHOW_KEY_PASSWORD", "COSIGN_PASSWORD"];
/// Largest file that is read: a bill of materials.
const MOST: u64 = 16 << 20;
/// Seconds for which a statement about a tag counts.
const TAG_TIME: i64 = 30 * DAY;
/// Seconds of a day.
const DAY: i64 = 86_400;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Sigstore's bundle, as cosign 3 makes it
    Bundle,
    /// cosign's simple signing, under the tag sha256-....sig, as cosign 2 makes it
    Cosign,
    /// The same, referring to the image
    CosignReferrer,
    /// The Notary Project's signature, as notation makes it: in a JWS envelope
    Notation,
    /// The same in a COSE envelope
    NotationCose,
}

#[derive(Args, Debug)]
struct SignFlags {
    /// Make a key: NAME.key and NAME.pub (encrypted as cosign does it, if DHOW_KEY_PASSWORD or COSIGN_PASSWORD has a pass
    /// phrase, or one is typed)
    #[arg(long, value_name = "NAME", conflicts_with_all = ["key", "images", "recursive", "expiry", "annotations", "tag_statement"])]
    generate_key: Option<PathBuf>,
    /// The private key, a PEM file
    #[arg(short, long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Form of the signature
    #[arg(long, value_enum, default_value = "bundle")]
    format: Format,
    /// The certificate of the key for --format notation, and what stands above it, a PEM file; with --generate-key it is made
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// Whom the certificate that --generate-key makes is for
    #[arg(
        long,
        default_value = "CN=dhow,O=dhow,ST=none,C=XX",
        requires = "generate_key"
    )]
    subject: String,
    /// Days for which that certificate is good
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u16).range(1..), requires = "generate_key")]
    days: u16,
    /// Say something beside the signature (with --format notation too)
    #[arg(short, long, value_name = "KEY=VALUE")]
    annotations: Vec<String>,
    /// End of the time of the signature, from now (24h); --format notation and --tag-statement have one
    #[arg(long, value_name = "DURATION")]
    expiry: Option<String>,
    /// State that the tag points to this image, until --expiry (default: 720h), instead of signing the image
    #[arg(long, conflicts_with_all = ["format", "certificate", "annotations", "recursive"])]
    tag_statement: bool,
    /// Sign every manifest of an index, too
    #[arg(short, long)]
    recursive: bool,
    /// The images, in their registries
    #[arg(value_name = "IMAGE", required_unless_present = "generate_key")]
    images: Vec<String>,
}

#[derive(Args, Debug)]
struct AttestFlags {
    /// The private key, a PEM file
    #[arg(short, long, value_name = "FILE")]
    key: PathBuf,
    /// What is stated, a JSON file, or - for standard input
    #[arg(long, value_name = "FILE")]
    predicate: PathBuf,
    /// What kind of thing it is: spdx, cyclonedx, slsaprovenance, slsaprovenance1, vuln, openvex, link, custom, or a URI
    #[arg(long = "type", value_name = "TYPE")]
    kind: String,
    /// The image, in its registry
    #[arg(value_name = "IMAGE")]
    image: String,
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    let wrong = |error: std::io::Error| CliError::plain(format!("read {}: {error}", path.display()));
    let mut bytes = Vec::new();
    let mut limited: Box<dyn std::io::Read> = if path == Path::new("-") {
        Box::new(std::io::stdin().take(MOST + 1))
    } else {
        Box::new(fs::File::open(path).map_err(wrong)?.take(MOST + 1))
    };
    limited.read_to_end(&mut bytes).map_err(wrong)?;
    if bytes.len() as u64 > MOST {
        return Err(CliError::plain(format!(
            "{} has more than {MOST} bytes",
            path.display()
        )));
    }
    Ok(bytes)
}

/// The pass phrase that the environment has.
fn pass_phrase() -> Option<Vec<u8>> {
    let set = PASS_PHRASES.iter().find_map(std::env::var_os);
    set.map(|text| text.as_encoded_bytes().to_vec())
}

fn typed(question: &str) -> Result<Vec<u8>, CliError> {
    let hidden = crate::terminal::Hidden::enter();
    let answer = super::login::asked(question);
    drop(hidden);
    note("");
    Ok(answer?.into_bytes())
}

/// A private key from its file.
pub(super) fn private_key(path: &Path) -> Result<PrivateKey, CliError> {
    let ask = || match pass_phrase() {
        Some(pass_phrase) => Ok(pass_phrase),
        None if std::io::stdin().is_terminal() => typed("Pass phrase of the private key: "),
        None => Err(
            CliError::plain(format!("the key {} is encrypted", path.display()))
                .with_hint(format!("put its pass phrase into {}", PASS_PHRASES.join(" or "))),
        ),
    };
    PrivateKey::from_pem(&read(path)?, ask)
}

fn sign(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: SignFlags = crate::flags::read(matches)?;
    if let Some(name) = &flags.generate_key {
        generate(name, &flags)?;
        return Ok(ExitCode::SUCCESS);
    }
    let form = match flags.format {
        Format::Bundle => SignAs::Bundle,
        Format::Cosign => SignAs::Cosign,
        Format::CosignReferrer => SignAs::CosignReferrer,
        Format::Notation => SignAs::Notation(Envelope::Jws),
        Format::NotationCose => SignAs::Notation(Envelope::Cose),
    };
    let notation = matches!(form, SignAs::Notation(_));
    for (name, given) in [
        ("expiry", flags.expiry.is_some() && !flags.tag_statement),
        ("certificate", flags.certificate.is_some()),
    ] {
        if given && !notation {
            return Err(CliError::plain(format!("--{name} is for --format notation only")));
        }
    }
    let Some(path) = &flags.key else {
        return Err(CliError::plain("a key is needed to sign with")
            .with_hint("--key FILE names one, dhow sign --generate-key NAME makes one"));
    };
    let chain = match &flags.certificate {
        Some(file) => Certificate::all_from_pem(&read(file)?)?,
        None if notation => {
            return Err(
                CliError::plain("--format notation needs the certificate of the key")
                    .with_hint("--certificate FILE names it; with --generate-key it is made"),
            );
        }
        None => Vec::new(),
    };
    let seconds = flags.expiry.as_deref().map(seconds).transpose()?;
    if flags.tag_statement {
        let key = private_key(path)?;
        return super::each(&flags.images, |image| {
            let digest = context
                .engine()?
                .state_tag(image, &key, seconds.unwrap_or(TAG_TIME))?;
            say_line(&format!("Stated that {image} is {digest}"))
        });
    }
    let expiry = seconds.map(|seconds| Timestamp::now().as_second().saturating_add(seconds));
    let (key, annotations) = (private_key(path)?, labels(&flags.annotations, &[])?);
    let request = SignRequest {
        key: &key,
        form,
        chain: &chain,
        expiry,
        annotations: &annotations,
        recursive: flags.recursive,
    };
    super::each(&flags.images, |image| {
        for digest in context.engine()?.sign(image, &request)? {
            say_line(&format!("Signed {digest}"))?;
        }
        Ok(())
    })
}

/// A duration of a second or more.
fn seconds(text: &str) -> Result<i64, CliError> {
    let wrong = |error| CliError::plain(format!("--expiry {text:?}: {error}"));
    let seconds = parse_duration(text).map_err(wrong)?.as_secs();
    let seconds = i64::try_from(seconds).ok().filter(|seconds| *seconds > 0);
    seconds.ok_or_else(|| CliError::plain("--expiry must be a second or more"))
}

fn attest(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: AttestFlags = crate::flags::read(matches)?;
    let kind = predicate_type(&flags.kind)?;
    let predicate = serde_json::from_slice(&read(&flags.predicate)?)
        .map_err(|error| CliError::plain(format!("{} is no JSON: {error}", flags.predicate.display())))?;
    let key = private_key(&flags.key)?;
    let digest = context.engine()?.attest(&flags.image, &key, &kind, predicate)?;
    say_line(&format!("Stated {kind} of {digest}"))?;
    Ok(ExitCode::SUCCESS)
}

/// Makes a key, and with `--certificate` a certificate for it.
fn generate(name: &Path, flags: &SignFlags) -> Result<(), CliError> {
    let beside = |end: &str| {
        let mut path = name.as_os_str().to_owned();
        path.push(end);
        PathBuf::from(path)
    };
    let (private, public) = (beside(".key"), beside(".pub"));
    let mut made = vec![&private, &public];
    made.extend(&flags.certificate);
    // A key that is lost cannot be made again: nothing is written over.
    if let Some(there) = made.iter().find(|path| path.symlink_metadata().is_ok()) {
        return Err(CliError::plain(format!("{} is there already", there.display())));
    }
    let pass_phrase = match pass_phrase() {
        Some(text) => text,
        None if std::io::stdin().is_terminal() => {
            let first = typed("Pass phrase for the private key (none: leave it empty): ")?;
            if !first.is_empty() && typed("The same again: ")? != first {
                return Err(CliError::plain("the two pass phrases are not the same"));
            }
            first
        }
        None => Vec::new(),
    };
    let key = PrivateKey::generate()?;
    let sealed = Some(pass_phrase.as_slice()).filter(|text| !text.is_empty());
    write(&private, &key.to_pem(sealed)?, 0o600)?;
    write(&public, &key.public().to_pem(), 0o644)?;
    if let Some(path) = &flags.certificate {
        let now = Timestamp::now().as_second();
        let until = now + i64::from(flags.days) * DAY;
        let certificate = Certificate::self_made(&key, &flags.subject, now, until)?;
        write(path, &certificate.to_pem(), 0o644)?;
    }
    if sealed.is_none() {
        note("the private key is not encrypted: whoever reads its file can sign");
    }
    for path in made {
        say_line(&path.display().to_string())?;
    }
    Ok(())
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), CliError> {
    let opened = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path);
    opened
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .map_err(|error| CliError::plain(format!("write {}: {error}", path.display())))
}
