//! `--annotation [PLACE[PLATFORM],...:]KEY=VALUE`, and `annotation-PLACE[PLATFORM].KEY=VALUE` of an output.

use dhow_engine::{AnnotationPlace, Annotations};
use dhow_types::Platform;

use crate::CliError;

/// What `--annotation` says, all of it.
pub(crate) fn parse(flags: &[String]) -> Result<Annotations, CliError> {
    let mut all = Annotations::default();
    for text in flags {
        let bad = |why: &str| CliError::plain(format!("invalid --annotation {text:?}: {why}"));
        let (name, value) = text.split_once('=').ok_or_else(|| bad("write KEY=VALUE"))?;
        let places = name.split_once(':').and_then(|(places, key)| {
            let places: Option<Vec<_>> = places.split(',').map(place).collect();
            Some((places?, key))
        });
        // A key may have a colon itself.
        let (places, key) = places.unwrap_or_else(|| (vec![(AnnotationPlace::Manifest, None)], name));
        if key.is_empty() {
            return Err(bad("it has no name"));
        }
        for (place, platform) in places {
            let platform = platform
                .map(|platform| {
                    platform
                        .parse::<Platform>()
                        .map_err(|error| bad(&error.to_string()))
                })
                .transpose()?;
            if platform.is_some() && !place.has_platforms() {
                return Err(bad("the index is that of all platforms"));
            }
            all.add(place, platform, key, value);
        }
    }
    Ok(all)
}

/// Refuses what has no place where there is one image and no index of several.
pub(crate) fn check_of_one(all: &Annotations) -> Result<(), CliError> {
    if !all.need_index() {
        return Ok(());
    }
    let message = "annotations of an index, or of what it lists, have no place: one image has no index";
    Err(CliError::plain(message).with_hint("name several platforms, or annotate the manifest alone"))
}

/// The field `annotation...` of an output, of which `name` is the rest.
pub(super) fn add_field(all: &mut Annotations, name: &str, value: &str) -> Result<(), String> {
    let bad = || format!("annotation{name}: write annotation[-PLACE].KEY=VALUE");
    let (word, key) = name.split_once('.').ok_or_else(bad)?;
    // A platform's name has no dot.
    let (place, platform) = match word.strip_prefix('-') {
        None if word.is_empty() => (AnnotationPlace::Manifest, None),
        word => word.and_then(place).ok_or_else(bad)?,
    };
    if key.is_empty() || (platform.is_some() && !place.has_platforms()) {
        return Err(bad());
    }
    let platform = platform
        .map(|platform| {
            platform
                .parse::<Platform>()
                .map_err(|error| format!("annotation{name}: {error}"))
        })
        .transpose()?;
    all.add(place, platform, key, value);
    Ok(())
}

/// `manifest`, or `manifest[linux/arm64]`.
fn place(word: &str) -> Option<(AnnotationPlace, Option<&str>)> {
    match word.strip_suffix(']').and_then(|word| word.split_once('[')) {
        Some((word, platform)) => Some((AnnotationPlace::parse(word)?, Some(platform))),
        None => Some((AnnotationPlace::parse(word)?, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_platforms_are_read_as_buildx_reads_them() {
        let texts = [
            "a=1",
            "index,manifest[linux/arm64]:b:c=2=3",
            "org:x=4",
            "manifest-descriptor:d=5",
        ];
        let all = parse(&texts.map(str::to_owned)).unwrap();
        let manifest = |platform: &str| all.of(AnnotationPlace::Manifest, &platform.parse().unwrap());
        assert_eq!(
            manifest("linux/amd64").into_iter().collect::<Vec<_>>(),
            [
                ("a".to_owned(), "1".to_owned()),
                ("org:x".to_owned(), "4".to_owned())
            ]
        );
        assert_eq!(manifest("linux/arm64")["b:c"], "2=3");
        assert_eq!(all.of_all(AnnotationPlace::Index)["b:c"], "2=3");
        for bad in [
            "a",
            "=1",
            "index:=1",
            "index[linux/arm64]:a=1",
            "manifest[no such]:a=1",
        ] {
            let error = parse(&[bad.to_owned()]).unwrap_err();
            assert!(error.message().contains(bad), "{bad}: {error:?}");
        }
    }

    #[test]
    fn fields_of_outputs_name_the_same_places() {
        let mut all = Annotations::default();
        for (name, value) in [
            (".k.l", "1"),
            ("-index.k", "2"),
            ("-manifest[linux/arm64].k", "3"),
        ] {
            add_field(&mut all, name, value).unwrap();
        }
        let arm = "linux/arm64".parse().unwrap();
        assert_eq!(all.of(AnnotationPlace::Manifest, &arm).len(), 2);
        assert_eq!(all.of_all(AnnotationPlace::Index)["k"], "2");
        for bad in [
            "",
            ".",
            "k",
            "-nothing.k",
            "-index[linux/arm64].k",
            "-manifest[?].k",
        ] {
            let error = add_field(&mut all, bad, "v").unwrap_err();
            assert!(error.contains(&format!("annotation{bad}")), "{bad}: {error}");
        }
    }
}
