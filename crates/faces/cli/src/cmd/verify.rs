//! `verify`: who signed an image, or stated something about it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, Args};
use dhow_engine::Verification;
use dhow_engine::signing::{
    Certificate, Identity, Pattern, Signer, Trust, TrustedRoot, Verified, keys, predicate_type,
};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::sign::read;
use crate::flags::labels;
use crate::render::{note, say, table};
use crate::{CliError, Context, Verb, dialect};

pub(crate) const VERB: Verb = Verb {
    name: "verify",
    about: "Verify that an image in a registry is signed by somebody you trust",
    flags: |command| VerifyFlags::augment_args(command),
    run,
};

#[derive(Args, Debug)]
struct VerifyFlags {
    /// A public key to trust, a PEM file (may be given several times)
    #[arg(short, long, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// A certificate authority to trust for notation's signatures, or a self-made certificate, a PEM file
    #[arg(long, value_name = "FILE")]
    certificate_authority: Vec<PathBuf>,
    /// Sigstore's trusted_root.json: signatures with short-lived certificates are judged by it; beside --key, a log of it must
    /// have the signature
    #[arg(long, value_name = "FILE")]
    trusted_root: Option<PathBuf>,
    /// Name in the certificate: an address or URI, or notation's subject
    #[arg(long, value_name = "NAME")]
    certificate_identity: Option<String>,
    /// The same as a regular expression, for the whole name
    #[arg(long, value_name = "EXPRESSION", conflicts_with = "certificate_identity")]
    certificate_identity_regexp: Option<String>,
    /// Who vouched for the name
    #[arg(long, value_name = "URL")]
    certificate_oidc_issuer: Option<String>,
    /// The same as a regular expression, for the whole URL
    #[arg(long, value_name = "EXPRESSION", conflicts_with = "certificate_oidc_issuer")]
    certificate_oidc_issuer_regexp: Option<String>,
    /// Ask for a signed statement of this kind instead of a signature: spdx, cyclonedx, slsaprovenance, vuln, openvex, ..., or a URI
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Ask that this is said beside the signature
    #[arg(short, long, value_name = "KEY=VALUE")]
    annotations: Vec<String>,
    /// Format output: table or json
    #[arg(long, default_value = "table", value_parser = ["table", "json"])]
    format: String,
    /// The image, in its registry
    #[arg(value_name = "IMAGE")]
    image: String,
}

/// Trust in the public keys of some files, now.
pub(super) fn trust_in(files: &[PathBuf]) -> Result<Trust, CliError> {
    let mut trust = Trust {
        now: Timestamp::now().as_second(),
        ..Trust::default()
    };
    for path in files {
        trust.keys.extend(keys(&read(path)?)?);
    }
    Ok(trust)
}

impl VerifyFlags {
    fn trust(&self) -> Result<Trust, CliError> {
        let mut trust = trust_in(&self.key)?;
        for path in &self.certificate_authority {
            trust.authorities.extend(Certificate::all_from_pem(&read(path)?)?);
        }
        if let Some(path) = &self.trusted_root {
            trust.root = Some(TrustedRoot::parse(&read(path)?)?);
        }
        let pattern = |exact: &Option<String>, like: &Option<String>| -> Result<Option<Pattern>, CliError> {
            Ok(match (exact, like) {
                (Some(exact), _) => Some(Pattern::Exactly(exact.clone())),
                (None, Some(like)) => Some(Pattern::like(like)?),
                (None, None) => None,
            })
        };
        let issuer = pattern(
            &self.certificate_oidc_issuer,
            &self.certificate_oidc_issuer_regexp,
        )?;
        match pattern(&self.certificate_identity, &self.certificate_identity_regexp)? {
            Some(name) => trust.identities.push(Identity { name, issuer }),
            None if issuer.is_some() => {
                return Err(
                    CliError::plain("an issuer alone vouches for everybody whom it knows")
                        .with_hint("name the signer with --certificate-identity"),
                );
            }
            None => {}
        }
        if trust.keys.is_empty() && trust.authorities.is_empty() && trust.root.is_none() {
            return Err(CliError::plain("nobody is named who is trusted to sign").with_hint(
                "--key FILE, --certificate-authority FILE, or --trusted-root FILE with --certificate-identity and \
                 --certificate-oidc-issuer",
            ));
        }
        Ok(trust)
    }
}

fn run(context: &Context, matches: &ArgMatches) -> Result<ExitCode, CliError> {
    let flags: VerifyFlags = crate::flags::read(matches)?;
    let trust = flags.trust()?;
    let wanted = flags.kind.as_deref().map(predicate_type).transpose()?;
    let annotations = labels(&flags.annotations, &[])?;
    let verification = context.engine()?.verify(&flags.image, &trust)?;
    let fits = |verified: &&Verified| {
        let kind = match (&wanted, &verified.statement) {
            (Some(wanted), Some(statement)) => statement.predicate_type == *wanted,
            (Some(_), None) => false,
            (None, _) => verified.is_signature(),
        };
        kind && annotations
            .iter()
            .all(|(key, value)| verified.annotations.get(key) == Some(value))
    };
    let good: Vec<&Verified> = verification.verified.iter().filter(fits).collect();
    for why in &verification.refused {
        note(&dialect::warning(&format!("refused: {why}")));
    }
    if good.is_empty() {
        return Err(nothing(&flags, &verification, wanted.as_deref()));
    }
    say(&match flags.format.as_str() {
        "json" => super::sbom::pretty(&json!({
            "Digest": verification.digest.to_string(),
            "Signatures": good.iter().map(|verified| document(verified)).collect::<Vec<_>>(),
        })),
        _ => listed(&verification, &good),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn nothing(flags: &VerifyFlags, verification: &Verification, wanted: Option<&str>) -> CliError {
    let (image, digest) = (&flags.image, verification.digest);
    let what = wanted.map_or_else(
        || "signature".to_owned(),
        |kind| format!("signed statement {kind}"),
    );
    let (refused, others) = (verification.refused.len(), verification.verified.len());
    let message = match (refused, others) {
        (0, 0) => format!("{image} ({digest}) has no {what}"),
        (0, _) => format!("{image} ({digest}) has no {what} that is asked for"),
        (refused, _) => format!("{image} ({digest}) has no {what} that holds; {refused} were refused"),
    };
    CliError::plain(message)
}

fn listed(verification: &Verification, good: &[&Verified]) -> String {
    let mut text = format!("{}\n", verification.digest);
    let mut rows = "FORM\tSIGNER\tSIGNED\tLOGGED\tSTATES\n".to_owned();
    for verified in good {
        let statement = verified.statement.as_ref().filter(|_| !verified.is_signature());
        rows.push_str(&format!(
            "{}\t{}\t{}\t{}\t{}\n",
            verified.form.as_str(),
            verified.signer,
            when(verified).unwrap_or_default(),
            if verified.logged { "yes" } else { "no" },
            statement.map_or("", |statement| &statement.predicate_type),
        ));
    }
    text.push_str(&table::align(&rows));
    text
}

fn when(verified: &Verified) -> Option<String> {
    let at = Timestamp::from_second(verified.signed_at?).ok()?;
    Some(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

fn document(verified: &Verified) -> Value {
    let signer = match &verified.signer {
        Signer::Key(digest) => json!({"Key": digest.to_string()}),
        Signer::Certificate(subject, digest) => {
            json!({"Subject": subject, "Certificate": digest.to_string()})
        }
        Signer::Identity(name, issuer) => json!({"Identity": name, "Issuer": issuer}),
    };
    let statement = verified.statement.as_ref().filter(|_| !verified.is_signature());
    json!({
        "Form": verified.form.as_str(),
        "Signer": signer,
        "Signed": when(verified),
        "Logged": verified.logged,
        "Reference": verified.reference,
        "Annotations": verified.annotations,
        "PredicateType": statement.map(|statement| &statement.predicate_type),
        "Predicate": statement.map(|statement| &statement.predicate),
    })
}
