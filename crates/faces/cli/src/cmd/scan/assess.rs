//! What `scan` is told about findings: VEX, ignore files; and what makes it fail.

use std::path::{Path, PathBuf};

use clap::Args;
use dhow_engine::vuln::{Exploit, Level, VexStatus};
use dhow_engine::{Assessment, Engine, Image, Vulnerable, today};

use crate::cmd::sign::read;
use crate::cmd::verify::trust_in;
use crate::render::note;
use crate::{CliError, dialect};

/// The ignore file that is read without being named, where it is there.
const IGNORE_FILE: &str = ".dhowignore";

#[derive(Args, Debug)]
pub(super) struct AssessFlags {
    /// What others say of findings: a VEX document (OpenVEX or CycloneDX), "attested" for what is attested of each image in its
    /// registry, signed by --key, or "embedded" for what each image says of itself, which nobody vouches for: files *.vex.json in
    /// it, attestations beside it (may be given several times)
    #[arg(long, value_name = "FILE|attested|embedded")]
    vex: Vec<String>,
    /// A public key of those who may attest VEX, a PEM file (may be given several times)
    #[arg(long, value_name = "FILE", requires = "vex")]
    key: Vec<PathBuf>,
    /// What does not matter here: lines of a vulnerability, "until:DAY", "package:NAME" and "# REASON", or the YAML of Trivy or Grype
    /// (default: .dhowignore, where it is)
    #[arg(long, value_name = "FILE")]
    ignorefile: Option<PathBuf>,
    /// Show what VEX and ignore files take away, too
    #[arg(long)]
    pub(super) show_suppressed: bool,
}

/// What makes a scan fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// A severity, or worse.
    Severity(Level),
    /// That attackers use it (KEV).
    Exploited,
    /// That they may, with this probability or more (EPSS).
    Likely(u32),
    /// That something in it gets no fixes any more.
    Ended,
    /// That something in it could not be read, or that the advisory data has nothing on: whoever hides what is in an image passes otherwise.
    Incomplete,
}

impl Condition {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if let Some(level) = Level::parse(text) {
            return Ok(Self::Severity(level));
        }
        if matches!(text, "kev" | "exploited") {
            return Ok(Self::Exploited);
        }
        match text {
            "eol" => return Ok(Self::Ended),
            "incomplete" => return Ok(Self::Incomplete),
            _ => {}
        }
        let share = text.strip_prefix("epss=").map(Exploit::parse_share);
        match share {
            Some(Some(share)) => Ok(Self::Likely(share)),
            Some(None) => Err("epss is a number from 0 to 1".to_owned()),
            None => Err(format!(
                "it is one of {}, kev, epss=NUMBER, eol, incomplete",
                super::levels()
            )),
        }
    }

    pub(super) fn holds(&self, vulnerable: &Vulnerable) -> bool {
        let finding = &vulnerable.finding;
        match self {
            Self::Severity(limit) => finding.severity.level >= *limit,
            Self::Exploited => finding.exploit.known.is_some(),
            // It is about the whole.
            Self::Ended | Self::Incomplete => false,
            Self::Likely(limit) => finding.exploit.epss.is_some_and(|epss| epss >= *limit),
        }
    }
}

impl AssessFlags {
    /// A source of VEX that is asked about images of the store only.
    pub(super) fn asks_the_store(&self) -> Option<&str> {
        let asked = self.vex.iter().map(String::as_str);
        asked
            .into_iter()
            .find(|file| matches!(*file, "attested" | "embedded"))
    }

    /// What is told of the findings in these images.
    pub(super) fn assessment<'i>(
        &self,
        engine: &Engine,
        images: impl Iterator<Item = &'i Image> + Clone,
    ) -> Result<Assessment, CliError> {
        let mut assessment = Assessment::default();
        // What is said by somebody else counts more than what an image says of itself.
        if self.vex.iter().any(|file| file == "embedded") {
            for image in images.clone() {
                for why in engine.add_embedded_vex(&mut assessment, image)? {
                    note(&dialect::warning(&format!(
                        "what the image says of itself does not count: {why}"
                    )));
                }
            }
        }
        let files = self
            .vex
            .iter()
            .filter(|file| !matches!(file.as_str(), "attested" | "embedded"));
        for file in files {
            let bytes = read(Path::new(file))?;
            assessment.add_vex(file, &bytes)?;
        }
        if self.vex.iter().any(|file| file == "attested") {
            self.attested(engine, &mut assessment, images)?;
        }
        let named = self.ignorefile.as_deref();
        let by_itself = named.is_none().then(|| Path::new(IGNORE_FILE));
        if let Some(path) = named.or(by_itself.filter(|path| path.is_file())) {
            self.ignore(&mut assessment, path)?;
        }
        Ok(assessment)
    }

    fn ignore(&self, assessment: &mut Assessment, path: &Path) -> Result<(), CliError> {
        let bytes = read(path)?;
        let text = String::from_utf8_lossy(&bytes);
        let name = path.display().to_string();
        for rule in assessment.add_ignore(&name, &text, &today().to_string())? {
            let until = rule.until.unwrap_or_default();
            note(&dialect::warning(&format!(
                "{name}: what is said of {} counted until {until} and does no more",
                rule.id
            )));
        }
        Ok(())
    }

    fn attested<'i>(
        &self,
        engine: &Engine,
        assessment: &mut Assessment,
        images: impl Iterator<Item = &'i Image>,
    ) -> Result<(), CliError> {
        let trust = trust_in(&self.key)?;
        if trust.keys.is_empty() {
            return Err(CliError::plain("nobody is named who is trusted to attest").with_hint("--key FILE"));
        }
        for image in images {
            for why in engine.add_attested_vex(assessment, image, &trust)? {
                note(&dialect::warning(&format!(
                    "an attestation does not count: {why}"
                )));
            }
        }
        Ok(())
    }
}

/// CycloneDX's word for what a VEX document says.
pub(super) fn cyclonedx_state(status: VexStatus) -> &'static str {
    match status {
        VexStatus::NotAffected => "not_affected",
        VexStatus::Affected => "exploitable",
        VexStatus::Fixed => "resolved",
        VexStatus::UnderInvestigation => "in_triage",
    }
}
