//! A layer that is looked at where it lies is what unpacking makes of it.

use std::collections::HashMap;
use std::io::Write as _;

use dhow_layer::{ContentHasher, Entry, Error, Extent, Limits, Survey};
use dhow_types::{Digest, ErrorKind};

use crate::Place;
use crate::backends::{Noise, random_tar};
use crate::hostile;
use crate::maker::Maker;

/// The bytes, somewhere in a file.
fn extent(bytes: &[u8]) -> Extent {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"what lies before").unwrap();
    file.write_all(bytes).unwrap();
    file.write_all(&[7; 5000]).unwrap();
    Extent::new(file, 16, bytes.len() as u64)
}

fn without_contents(survey: &Survey) -> Vec<Entry> {
    survey
        .entries
        .iter()
        .map(|surveyed| surveyed.entry.clone())
        .collect()
}

/// What a survey says of every file's content, by the number.
fn with_contents(survey: &Survey, contents: impl Fn(u32) -> Digest) -> Vec<Entry> {
    let content = |surveyed: &dhow_layer::Surveyed| Entry {
        content: surveyed.number.map(&contents),
        ..surveyed.entry.clone()
    };
    survey.entries.iter().map(content).collect()
}

fn read_through(survey: &Survey, layer: &Extent, number: u32) -> Digest {
    let (mut hasher, mut at) = (ContentHasher::new(), 0);
    let mut piece = [0; 700];
    loop {
        let count = survey.read_at(layer, number, at, &mut piece).unwrap();
        if count == 0 {
            return hasher.finish();
        }
        hasher.update(&piece[..count]);
        at += count as u64;
    }
}

/// The entries with the hashes of contents, looked at in one pass.
fn passed(layer: &Extent) -> Result<Vec<Entry>, Error> {
    let mut hashes = HashMap::new();
    let survey = Survey::passing(layer, &Limits::default(), &mut |number, _, body| {
        let mut bytes = Vec::new();
        body.read_to_end(&mut bytes).map_err(|error| {
            let other = |error| Error::because(ErrorKind::Internal, "read", error);
            error.downcast().unwrap_or_else(other)
        })?;
        hashes.insert(number, ContentHasher::of(&bytes));
        Ok(())
    })?;
    Ok(with_contents(&survey, |number| hashes[&number]))
}

/// The same, gone over, and read afterwards.
fn gone_over(layer: &Extent) -> Result<Vec<Entry>, Error> {
    let survey = Survey::of(layer, &Limits::default())?;
    Ok(with_contents(&survey, |number| {
        read_through(&survey, layer, number)
    }))
}

fn assert_alike(place: &Place, stream: &[u8], name: &str) {
    let layer = extent(stream);
    let passed = passed(&layer);
    match place.unpack(stream) {
        Ok(unpacked) => {
            let entries: Vec<Entry> = unpacked.index().unwrap().entries().collect();
            assert_eq!(passed.unwrap(), entries, "{name}");
            if !Survey::is_packed(&layer).unwrap() {
                assert_eq!(gone_over(&layer).unwrap(), entries, "{name}");
            }
        }
        Err(error) => assert_eq!(passed.unwrap_err().kind(), error.kind(), "{name}: {error}"),
    }
}

#[test]
fn a_survey_is_what_unpacking_makes_of_tangled_and_odd_layers() {
    let place = Place::new();
    let mut noise = Noise(0x9876_5432_10fe_dcb1);
    for number in 0..200 {
        assert_alike(&place, &random_tar(&mut noise), &format!("tar {number}"));
    }
    for (name, stream, _) in hostile::odd() {
        assert_alike(&place, &stream, name);
    }
}

#[test]
fn a_survey_refuses_what_unpacking_refuses() {
    for (name, stream, kind) in hostile::refused() {
        let layer = extent(&stream);
        let error = passed(&layer).expect_err(name);
        // What a damaged stream has in it may be seen before its checksum.
        let sooner = Survey::is_packed(&layer).unwrap() && kind == ErrorKind::DataLoss;
        let said = hostile::chain(&error);
        assert!(
            error.kind() == kind || sooner && error.kind() == ErrorKind::InvalidArgument,
            "{name}: {said}"
        );
    }
}

#[test]
fn a_body_that_is_not_there_is_not_gone_over() {
    let whole = Maker::new().file("a", &[b'x'; 40_000]).file("b", b"").end();
    for length in [512, 600, 9_000, 30_000, 40_000] {
        let error = gone_over(&extent(&whole[..length])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DataLoss, "{length}");
    }
}

#[test]
fn files_that_are_not_asked_for_are_not_read() {
    let whole = Maker::new().file("a", &[b'x'; 40_000]).file("b", b"there").end();
    let survey = Survey::passing(&extent(&whole), &Limits::default(), &mut |_, _, _| Ok(())).unwrap();
    assert_eq!(without_contents(&survey).len(), 2);
    assert_eq!(survey.find(b"b").unwrap().entry.size, 5);
    assert!(survey.find(b"c").is_none());
}
