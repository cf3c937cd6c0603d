use dhow_oci::RunConfig;

/// The program and its arguments: docker's rules for joining image and person. An entrypoint of the person clears
/// the image's `CMD`; an entrypoint that is one empty string clears the image's entrypoint.
#[must_use]
pub fn command(image: &RunConfig, entrypoint: Option<&[String]>, cmd: &[String]) -> Vec<String> {
    let _ = (image, entrypoint, cmd);
    Vec::new()
}

/// The environment: the image's, with the person's over it by name, in docker's order. Entries of an image without
/// `=` are dropped (CVE-2026-57231).
#[must_use]
pub fn merge_env(image: &[String], person: &[String]) -> Vec<String> {
    let _ = (image, person);
    Vec::new()
}
