//! The platform of an image to pull: docker's flag for it, and podman's three.

use clap::Args;
use dhow_types::Platform;

use crate::{CliError, dialect};

const USUAL: &str = "DOCKER_DEFAULT_PLATFORM";

#[derive(Args, Debug, Default)]
pub(crate) struct PlatformFlags {
    /// Set platform if the image has several
    #[arg(long)]
    platform: Option<Platform>,
    /// Set the processor's part of the platform: amd64, arm64
    #[arg(long, value_name = "ARCH", conflicts_with = "platform")]
    arch: Option<String>,
    /// Set the system's part of the platform: linux
    #[arg(long, value_name = "OS", conflicts_with = "platform")]
    os: Option<String>,
    /// Set the variant of the processor: v7
    #[arg(long, value_name = "VARIANT", conflicts_with = "platform")]
    variant: Option<String>,
}

impl PlatformFlags {
    /// What they say together; when they say nothing, the usual one.
    pub(crate) fn platform(&self) -> Result<Option<Platform>, CliError> {
        if self.platform.is_some() {
            return Ok(self.platform.clone());
        }
        if self.arch.is_none() && self.os.is_none() && self.variant.is_none() {
            return usual_platform();
        }
        let host = Platform::host();
        let (os, arch) = (
            self.os.as_deref().unwrap_or(&host.os),
            self.arch.as_deref().unwrap_or(&host.architecture),
        );
        let variant = self
            .variant
            .as_ref()
            .map_or_else(String::new, |variant| format!("/{variant}"));
        let text = format!("{os}/{arch}{variant}");
        let platform = text
            .parse()
            .map_err(|error: dhow_types::ParsePlatformError| CliError::plain(error.to_string()))?;
        Ok(Some(platform))
    }
}

/// The platform that docker's command takes where none is named: `DOCKER_DEFAULT_PLATFORM` of the environment. Podman reads
/// no such thing.
///
/// # Errors
/// When it is no platform.
pub(crate) fn usual_platform() -> Result<Option<Platform>, CliError> {
    let said = std::env::var(USUAL).unwrap_or_default();
    if said.is_empty() || dialect::spoken().is_podman() {
        return Ok(None);
    }
    let platform = said.parse();
    let bad = |error: dhow_types::ParsePlatformError| CliError::plain(format!("{USUAL}: {error}"));
    platform.map(Some).map_err(bad)
}
