//! Where the classic builder's lines are wanted: called `docker`, with `DOCKER_BUILDKIT=0`.

use dhow_engine::BuildRequest;

use super::BuildFlags;
use crate::dialect;
use crate::render::build::Classic;

/// What says the steps, if they are wanted so. That builder did one at a time.
pub(super) fn begin(flags: &BuildFlags, request: &mut BuildRequest) -> Option<Classic> {
    let wanted = std::env::var("DOCKER_BUILDKIT").is_ok_and(|value| matches!(value.as_str(), "0" | "false"));
    let shown = !flags.quiet && flags.progress == "auto" && flags.podman.logfile.is_none();
    (wanted && shown && dialect::is_docker()).then(|| {
        request.parallel = Some(1);
        Classic::begin()
    })
}
