//! `SOURCE_DATE_EPOCH`: the time of an image, said by a number, or by where its sources come from.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use serde_json::Value;

use crate::recipe::Recipe;
use crate::web::{Page, Web};

/// What an OCI layout has: the config, and the times of the files of each layer.
struct Seen {
    config: Value,
    layers: Vec<Vec<(String, u64, String)>>,
}

fn seen(layout: &Path) -> Seen {
    let json = |path: &Path| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let place = |digest: &Value| {
        let hex = digest.as_str().unwrap().trim_start_matches("sha256:").to_owned();
        layout.join("blobs/sha256").join(hex)
    };
    let index = json(&layout.join("index.json"));
    let manifest = json(&place(&index["manifests"][0]["digest"]));
    let layers = manifest["layers"].as_array().unwrap().iter().map(|layer| {
        let mut archive = tar::Archive::new(fs::File::open(place(&layer["digest"])).unwrap());
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            drop(entry.read_to_string(&mut text));
            let name = entry.path().unwrap().display().to_string();
            (name, entry.header().mtime().unwrap(), text)
        });
        entries.collect()
    });
    Seen {
        config: json(&place(&manifest["config"]["digest"])),
        layers: layers.collect(),
    }
}

/// Builds into a layout and looks at it.
#[track_caller]
fn built(recipe: &Recipe, flags: &[&str], context: Option<&str>, text: &str) -> Seen {
    let layout = recipe.world.path("layout");
    drop(fs::remove_dir_all(&layout));
    let output = format!("type=oci,dest={},tar=false", layout.display());
    let flags = [&["-t", "e:1", "-o", &output], flags].concat();
    let ran = match context {
        Some(context) => recipe.call(&flags, context),
        None => recipe.build(&flags, text),
    };
    ran.exits(0);
    seen(&layout)
}

impl Seen {
    /// Fails unless the image and all that the build added are of this time.
    #[track_caller]
    fn is_of(&self, seconds: u64) -> &Self {
        let time = |value: &Value| -> u64 {
            let text = value.as_str().unwrap_or_else(|| panic!("{}", self.config));
            let tm = std::process::Command::new("date")
                .args(["-u", "-d", text, "+%s"])
                .output()
                .unwrap();
            String::from_utf8(tm.stdout).unwrap().trim().parse().unwrap()
        };
        assert_eq!(time(&self.config["created"]), seconds);
        let last = self.config["history"].as_array().unwrap().last().unwrap();
        assert_eq!(time(&last["created"]), seconds);
        for (name, mtime, _) in self.layers.last().unwrap() {
            assert!(*mtime <= seconds, "{name} is of {mtime}");
        }
        self
    }

    /// The text of a file of the last layer.
    #[track_caller]
    fn text(&self, name: &str) -> &str {
        let files = self.layers.last().unwrap();
        let found = files.iter().find(|(path, ..)| path == name);
        &found.unwrap_or_else(|| panic!("{files:?}")).2
    }
}

/// A tar of files with their times.
fn archive(files: &[(&str, &str, u64)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, text, mtime) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(*mtime);
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

#[test]
fn an_epoch_is_a_number_of_the_flag_or_of_the_file() {
    let Some(recipe) = Recipe::new() else { return };
    let plain = "FROM scratch\nENTRYPOINT foo bar\nCOPY Dockerfile .\n";
    let flag = ["--build-arg", "SOURCE_DATE_EPOCH=1700000001"];
    built(&recipe, &flag, None, plain).is_of(1_700_000_001);
    let text = "ARG SOURCE_DATE_EPOCH=1445412480\nFROM scratch\nCOPY Dockerfile .\n";
    built(&recipe, &[], None, text).is_of(1_445_412_480);
    built(&recipe, &flag, None, text).is_of(1_700_000_001);
    let text = "ARG SOURCE_DATE_EPOCH=not-a-timestamp\nFROM scratch\nCOPY Dockerfile .\n";
    recipe.bad(&[], text, "invalid SOURCE_DATE_EPOCH: not-a-timestamp");
    // The same to the byte, later and without the cache.
    let text = "FROM busybox\nWORKDIR /mydir\nRUN touch -d '2010-01-01 12:34:56' /old && touch -d '2040-01-01 12:34:56' /new && \
                touch /gone\nRUN rm /gone\nCOPY --link Dockerfile linked\n";
    let index = || fs::read(recipe.world.path("layout/index.json")).unwrap();
    built(&recipe, &flag, None, text).is_of(1_700_000_001);
    let first = index();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    built(&recipe, &["--no-cache", flag[0], flag[1]], None, text);
    assert_eq!(index(), first);
}

#[test]
fn an_epoch_is_that_of_the_context() {
    let Some(recipe) = Recipe::new() else { return };
    let web = Web::start();
    let epoch = ["--build-arg", "SOURCE_DATE_EPOCH=context"];
    let files = archive(&[
        (
            "Dockerfile",
            "FROM busybox\nARG SOURCE_DATE_EPOCH\nRUN echo \"<$SOURCE_DATE_EPOCH>\" > /epoch\n",
            1_700_000_000,
        ),
        ("foo", "bar", 1_700_000_202),
    ]);
    let url = web.put("/a.tar", Page::new(files.clone()).modified(1_700_000_201));
    let seen = built(&recipe, &epoch, Some(&url), "");
    assert_eq!(seen.is_of(1_700_000_201).text("epoch"), "<1700000201>\n");
    // A server that does not say how old it is: as old as the newest file.
    let url = web.put("/b.tar", Page::new(files));
    let seen = built(&recipe, &epoch, Some(&url), "");
    assert_eq!(seen.is_of(1_700_000_202).text("epoch"), "<1700000202>\n");
    // A folder says nothing.
    let before = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let text = "FROM busybox\nARG SOURCE_DATE_EPOCH\nRUN echo \"<$SOURCE_DATE_EPOCH>\" > /epoch\n";
    let seen = built(&recipe, &epoch, None, text);
    assert_eq!(seen.text("epoch"), "<>\n");
    let file = seen
        .layers
        .last()
        .unwrap()
        .iter()
        .find(|file| file.0 == "epoch")
        .unwrap();
    assert!(file.1 >= before.as_secs(), "{file:?}");
    let Some(repository) = crate::build_remote::on_web(&recipe, &web) else {
        return;
    };
    built(&recipe, &epoch, Some(&repository.url), "").is_of(crate::build_remote::COMMITTED);
}

#[test]
fn an_epoch_is_that_of_a_stage_with_one_source_or_of_a_named_context() {
    let Some(recipe) = Recipe::new() else { return };
    let web = Web::start();
    let files = archive(&[("foo", "bar", 1_700_000_402)]);
    let url = web.put("/src.tar", Page::new(files.clone()));
    let dated = web.put("/dated.tar", Page::new(files).modified(1_700_000_601));
    let wants = "ARG SOURCE_DATE_EPOCH=mysource\n";
    let source = format!("{wants}FROM scratch AS mysource\nADD {url} /\n");
    let tells = "FROM busybox\nARG SOURCE_DATE_EPOCH\nRUN echo \"<$SOURCE_DATE_EPOCH>\" > /epoch\n";
    let seen = built(&recipe, &[], None, &format!("{source}{tells}"));
    assert_eq!(seen.is_of(1_700_000_402).text("epoch"), "<1700000402>\n");
    let flag = ["--build-arg", "SOURCE_DATE_EPOCH=1700000502"];
    built(
        &recipe,
        &flag,
        None,
        &format!("{source}FROM scratch\nCOPY Dockerfile .\n"),
    )
    .is_of(1_700_000_502);
    let words = "SOURCE_DATE_EPOCH stage does not meet source-only requirements";
    for bad in [
        "FROM scratch AS mysource\nCOPY Dockerfile /\n".to_owned(),
        format!("FROM busybox AS mysource\nADD {url} /\n"),
        format!("FROM scratch AS mysource\nADD {url} /\nADD {dated} /\n"),
    ] {
        recipe.bad(&[], &format!("{wants}{bad}FROM scratch\n"), words);
    }
    for (context, time) in [(&dated, 1_700_000_601), (&url, 1_700_000_402)] {
        let flag = ["--build-context", &format!("mysource={context}")];
        let seen = built(&recipe, &flag, None, &format!("{wants}{tells}"));
        assert_eq!(seen.is_of(time).text("epoch"), format!("<{time}>\n"));
    }
}
