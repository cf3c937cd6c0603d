//! What an index and its manifests say besides what they must (image-spec `annotations.md`), by the names that docker's
//! `build --annotation` has for the places.

use dhow_oci::Labels;
use dhow_types::Platform;

/// Whose an annotation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnnotationPlace {
    /// Each image's manifest.
    Manifest,
    /// The entry of each manifest in the index.
    ManifestDescriptor,
    /// The index of several images.
    Index,
    /// The entry of that index in an OCI layout.
    IndexDescriptor,
}

impl AnnotationPlace {
    /// The place that a word of `--annotation` stands for.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "manifest" => Some(Self::Manifest),
            "manifest-descriptor" => Some(Self::ManifestDescriptor),
            "index" => Some(Self::Index),
            "index-descriptor" => Some(Self::IndexDescriptor),
            _ => None,
        }
    }

    /// Whether there is such a place for each platform.
    #[must_use]
    pub fn has_platforms(self) -> bool {
        matches!(self, Self::Manifest | Self::ManifestDescriptor)
    }
}

/// Annotations with their places; of two for one place, the later counts.
#[derive(Clone, Debug, Default)]
pub struct Annotations(Vec<One>);

#[derive(Clone, Debug)]
struct One {
    place: AnnotationPlace,
    /// None: of all.
    platform: Option<Platform>,
    key: String,
    value: String,
}

impl Annotations {
    /// Adds one, of the images for this platform, or of all.
    pub fn add(&mut self, place: AnnotationPlace, platform: Option<Platform>, key: &str, value: &str) {
        self.0.push(One {
            place,
            platform: platform.map(Platform::normalized),
            key: key.to_owned(),
            value: value.to_owned(),
        });
    }

    /// Adds those of another.
    pub fn extend(&mut self, other: &Self) {
        self.0.extend(other.0.iter().cloned());
    }

    /// Those of this place, for an image of this platform.
    #[must_use]
    pub fn of(&self, place: AnnotationPlace, platform: &Platform) -> Labels {
        let platform = platform.clone().normalized();
        let fits = |one: &&One| one.platform.as_ref().is_none_or(|wanted| *wanted == platform);
        self.at(place).filter(fits).map(One::pair).collect()
    }

    /// Those of a place that is there once.
    #[must_use]
    pub fn of_all(&self, place: AnnotationPlace) -> Labels {
        self.at(place).map(One::pair).collect()
    }

    /// Whether one of them has a place only where there is an index.
    #[must_use]
    pub fn need_index(&self) -> bool {
        self.0.iter().any(|one| one.place != AnnotationPlace::Manifest)
    }

    fn at(&self, place: AnnotationPlace) -> impl Iterator<Item = &One> {
        self.0.iter().filter(move |one| one.place == place)
    }
}

impl One {
    fn pair(&self) -> (String, String) {
        (self.key.clone(), self.value.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_are_of_their_place_and_platform_and_the_last_counts() {
        let (amd, arm): (Platform, Platform) =
            ("linux/amd64".parse().unwrap(), "linux/arm64/v8".parse().unwrap());
        let mut all = Annotations::default();
        all.add(AnnotationPlace::Manifest, None, "a", "1");
        all.add(
            AnnotationPlace::Manifest,
            Some("linux/arm64".parse().unwrap()),
            "a",
            "2",
        );
        assert!(!all.need_index());
        all.add(AnnotationPlace::Index, None, "a", "3");
        let mut more = Annotations::default();
        more.add(AnnotationPlace::Index, None, "a", "4");
        all.extend(&more);
        assert_eq!(all.of(AnnotationPlace::Manifest, &amd)["a"], "1");
        assert_eq!(all.of(AnnotationPlace::Manifest, &arm)["a"], "2");
        assert_eq!(all.of_all(AnnotationPlace::Index)["a"], "4");
        assert!(all.of(AnnotationPlace::ManifestDescriptor, &amd).is_empty());
        assert!(all.need_index());
    }
}
