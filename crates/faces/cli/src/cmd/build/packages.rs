//! `--from-packages`: an image of packages alone, without a Dockerfile.

use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;

use dhow_engine::BootstrapRequest;

use super::BuildFlags;
use crate::{CliError, Context};

/// Largest list.
const MAX_LIST: u64 = 1 << 20;

pub(super) fn build(context: &Context, flags: &BuildFlags, list: &Path) -> Result<ExitCode, CliError> {
    let what = |error: std::io::Error| CliError::plain(format!("read {}: {error}", list.display()));
    let mut text = String::new();
    if list == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(MAX_LIST)
            .read_to_string(&mut text)
            .map_err(what)?;
    } else {
        let file = std::fs::File::open(list).map_err(what)?;
        file.take(MAX_LIST).read_to_string(&mut text).map_err(what)?;
    }
    if flags.tag.is_empty() {
        return Err(CliError::plain("an image of packages needs a name").with_hint("give it with --tag"));
    }
    let mut request = read(&text)?;
    request.tags = flags
        .tag
        .iter()
        .map(|tag| crate::dialect::spoken().new_name(tag))
        .collect();
    let id = crate::cmd::bootstrap::make(context, &request, flags.quiet)?;
    if let Some(path) = &flags.iidfile {
        let failed = |error| CliError::plain(format!("write the image ID to {}: {error}", path.display()));
        std::fs::write(path, id.to_string()).map_err(failed)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The distribution first, then packages; `#` begins a comment.
fn read(text: &str) -> Result<BootstrapRequest, CliError> {
    let mut request = BootstrapRequest {
        only: true,
        ..BootstrapRequest::default()
    };
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        for word in line.split_whitespace() {
            if request.target.is_empty() {
                word.clone_into(&mut request.target);
            } else if let Some(name) = word.strip_prefix('-') {
                request.leave_out.push(name.to_owned());
            } else {
                request.include.push(word.to_owned());
            }
        }
    }
    if request.include.is_empty() {
        return Err(CliError::plain("the list names no package")
            .with_hint("write a distribution such as debian:bookworm, then packages, a word a line"));
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_a_distribution_and_packages() {
        let found = read("# base\ndebian:bookworm\n\nca-certificates # tls\n tzdata -openssl\n").unwrap();
        assert!(found.only);
        assert_eq!(found.target, "debian:bookworm");
        assert_eq!(found.include, ["ca-certificates", "tzdata"]);
        assert_eq!(found.leave_out, ["openssl"]);
        assert!(read("").is_err() && read("debian:bookworm\n").is_err());
    }
}
