//! What each kind of file says, and that nothing that may stand in it stops a scan.

use std::io::Write as _;

use proptest::prelude::*;

use super::{Said, apk, dotnet, dpkg, java, node, os, pacman, php, program, python, ruby};
use crate::scan::is_evidence;
use crate::{Kind, Package, Source};

fn names(said: &Said) -> Vec<(String, String)> {
    said.packages
        .iter()
        .map(|package| (package.name.clone(), package.version.clone()))
        .collect()
}

fn pair(name: &str, version: &str) -> (String, String) {
    (name.to_owned(), version.to_owned())
}

const STATUS: &str = "\
Package: libssl3
Status: install ok installed
Architecture: amd64
Source: openssl
Version: 3.0.17-1~deb12u2
Description: library
 with a second line
 .
 Version: 9 is not its version

Package: login
Status: install ok half-configured
Version: 1:4.13+dfsg1-1+b1
Source: shadow (1:4.13+dfsg1-1)

Package: old
Status: deinstall ok config-files
Version: 1

Package: never
Status: purge ok not-installed
";

#[test]
fn dpkg_says_what_a_signed_package_was_built_from() {
    let paragraph = |built_using: &str| {
        let text = format!(
            "Package: linux-image-6.1.0-37-amd64\nSource: linux-signed-amd64 (6.1.140+1)\nVersion: 6.1.140-1\n{built_using}"
        );
        let said = dpkg::status("s", text.as_bytes()).unwrap();
        let (name, version) = said.packages[0].source();
        (name.to_owned(), version.to_owned())
    };
    assert_eq!(
        paragraph("Built-Using: gcc-12 (= 12.2.0-14), linux (= 6.1.140-1)\n"),
        ("linux".to_owned(), "6.1.140-1".to_owned())
    );
    assert_eq!(
        paragraph(""),
        ("linux-signed-amd64".to_owned(), "6.1.140+1".to_owned())
    );
    let other = paragraph("Built-Using: linux (>= 1), zlib (= 1)\n");
    assert_eq!(other.0, "linux-signed-amd64");
}

#[test]
fn dpkg_says_source_and_state() {
    let said = dpkg::status("var/lib/dpkg/status", STATUS.as_bytes()).unwrap();
    assert_eq!(
        names(&said),
        [
            pair("libssl3", "3.0.17-1~deb12u2"),
            pair("login", "1:4.13+dfsg1-1+b1")
        ]
    );
    assert_eq!(said.packages[0].source(), ("openssl", "3.0.17-1~deb12u2"));
    assert_eq!(said.packages[0].arch.as_deref(), Some("amd64"));
    assert_eq!(said.packages[1].source(), ("shadow", "1:4.13+dfsg1-1"));
}

#[test]
fn a_distroless_file_has_no_state_and_its_sums_say_what_it_owns() {
    let said = dpkg::status(
        "var/lib/dpkg/status.d/tzdata",
        b"Package: tzdata\nVersion: 2024a-0\n",
    )
    .unwrap();
    assert_eq!(names(&said), [pair("tzdata", "2024a-0")]);
    let sums = b"0123  usr/share/doc/x\n4567  ./usr/lib/python3/dist-packages/a.dist-info/METADATA\n";
    let said = dpkg::sums("var/lib/dpkg/status.d/python3-a.md5sums", sums, &is_evidence).unwrap();
    assert_eq!(
        said.owns,
        [pair(
            "usr/lib/python3/dist-packages/a.dist-info/METADATA",
            "python3-a"
        )]
    );
}

#[test]
fn a_list_of_a_multi_arch_package_is_of_the_package() {
    let list = b"/.\n/usr\n/usr/bin\n/usr/bin/tool\n/usr/share/doc/tool/copyright\n";
    let said = dpkg::list("var/lib/dpkg/info/tool:amd64.list", list, &is_evidence).unwrap();
    assert_eq!(said.owns, [pair("usr/bin/tool", "tool")]);
}

#[test]
fn text_that_is_no_database_is_said_and_not_believed() {
    assert!(dpkg::status("s", b"\x7fELF garbage").is_err());
    assert_eq!(dpkg::status("s", b"").unwrap(), Said::default());
    assert!(apk::installed("s", b"nothing of it\n", &is_evidence).is_err());
    assert!(node::package("package.json", b"{").is_err());
    assert!(php::installed("i", b"{}").is_err());
    assert!(dotnet::deps("d", b"{}").is_err());
    assert!(python::metadata("m", b"Name: only\n").is_err());
    assert!(ruby::gemspec("g", b"Gem::Specification.new\n").is_err());
}

#[test]
fn apk_says_origin_licence_and_files() {
    let text = "C:Q1x=\nP:libcrypto3\nV:3.3.2-r0\nA:x86_64\no:openssl\nL:Apache-2.0\nF:usr\nF:usr/bin\nR:tool\nR:x\n\
                F:usr/share\nR:data\n\nP:musl\nV:1.2.5-r0\no:musl\n";
    let said = apk::installed("lib/apk/db/installed", text.as_bytes(), &is_evidence).unwrap();
    assert_eq!(
        names(&said),
        [pair("libcrypto3", "3.3.2-r0"), pair("musl", "1.2.5-r0")]
    );
    let openssl = Source {
        name: "openssl".to_owned(),
        version: "3.3.2-r0".to_owned(),
    };
    assert_eq!(said.packages[0].source, Some(openssl));
    assert_eq!(said.packages[0].licence.as_deref(), Some("Apache-2.0"));
    assert_eq!(said.packages[1].source, None);
    assert_eq!(
        said.owns,
        [
            pair("usr/bin/tool", "libcrypto3"),
            pair("usr/bin/x", "libcrypto3")
        ]
    );
}

#[test]
fn os_release_is_read_as_a_shell_would() {
    let text =
        "# ID=no\nID=\"Debian\"\nVERSION_ID='12'\nPRETTY_NAME=\"a \\\"b\\\" c\"\nID_LIKE=\"rhel fedora\"\n";
    let os = os::release("etc/os-release", text.as_bytes())
        .unwrap()
        .os
        .unwrap();
    assert_eq!((os.id.as_str(), os.version.as_str()), ("debian", "12"));
    assert_eq!(os.pretty, "a \"b\" c");
    assert_eq!(os.like, ["rhel", "fedora"]);
    assert_eq!(os::release("x", b"").unwrap().os.unwrap().id, "linux");
}

#[test]
fn pacman_says_base_and_files() {
    let desc = "%NAME%\nlibxyz\n\n%VERSION%\n1:2.0-3\n\n%BASE%\nxyz\n\n%ARCH%\nx86_64\n\n%LICENSE%\nMIT\nBSD-3-Clause\n";
    let said = pacman::desc("var/lib/pacman/local/libxyz-1:2.0-3/desc", desc.as_bytes()).unwrap();
    assert_eq!(said.packages[0].source(), ("xyz", "1:2.0-3"));
    assert_eq!(said.packages[0].licence.as_deref(), Some("MIT AND BSD-3-Clause"));
    let files = "%FILES%\nusr/\nusr/bin/\nusr/bin/xyz\n\n%BACKUP%\netc/x\n";
    let said = pacman::files(
        "var/lib/pacman/local/lib-xyz-1:2.0-3/files",
        files.as_bytes(),
        &is_evidence,
    )
    .unwrap();
    assert_eq!(said.owns, [pair("usr/bin/xyz", "lib-xyz")]);
}

#[test]
fn python_reads_headers_and_no_description() {
    let text = "Metadata-Version: 2.1\nName: PyYAML\nVersion: 6.0.1\nLicense: MIT\n\nVersion: 9\n";
    let said = python::metadata("a.dist-info/METADATA", text.as_bytes()).unwrap();
    assert_eq!(names(&said), [pair("PyYAML", "6.0.1")]);
    assert_eq!(said.packages[0].purl(None), "pkg:pypi/pyyaml@6.0.1");
}

#[test]
fn node_packages_are_those_that_are_installed() {
    for (dir, is) in [
        ("usr/lib/node_modules/npm", true),
        ("app/node_modules/@babel/core", true),
        ("app", false),
        ("app/node_modules/a/test/fixture", false),
        ("app/node_modules/@babel/core/lib", false),
        ("app/node_modules/a/node_modules/b", true),
    ] {
        assert_eq!(node::is_package(dir.as_bytes()), is, "{dir}");
    }
    let json = br#"{"name":"@babel/core","version":"7.1.0","license":{"type":"MIT"}}"#;
    let said = node::package("package.json", json).unwrap();
    assert_eq!(said.packages[0].purl(None), "pkg:npm/%40babel/core@7.1.0");
    assert_eq!(said.packages[0].licence.as_deref(), Some("MIT"));
}

#[test]
fn gems_are_read_from_what_rubygems_wrote() {
    let text = "# stub: rack 2.2.4 ruby lib\nGem::Specification.new do |s|\n  s.name = \"rack\".freeze\n  \
                s.version = \"2.2.4\"\n  s.licenses = [\"MIT\".freeze, 'Ruby'.freeze]\n  s.name = 'other'\nend\n";
    let said = ruby::gemspec("rack-2.2.4.gemspec", text.as_bytes()).unwrap();
    assert_eq!(names(&said), [pair("rack", "2.2.4")]);
    assert_eq!(said.packages[0].licence.as_deref(), Some("MIT OR Ruby"));
}

#[test]
fn composer_and_dotnet_name_what_was_installed() {
    let json = br#"{"packages":[{"name":"Symfony/Http","version":"v6.1.0","license":["MIT"]},{"name":"x"}]}"#;
    let said = php::installed("vendor/composer/installed.json", json).unwrap();
    assert_eq!(names(&said), [pair("symfony/http", "6.1.0")]);
    let json = br#"{"libraries":{"app/1.0":{"type":"project"},"Newtonsoft.Json/13.0.1":{"type":"package"}}}"#;
    let said = dotnet::deps("app.deps.json", json).unwrap();
    assert_eq!(names(&said), [pair("Newtonsoft.Json", "13.0.1")]);
}

/// A zip archive of stored and deflated files.
pub(crate) fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (at, (name, content)) in files.iter().enumerate() {
        let packed = if at % 2 == 0 {
            content.to_vec()
        } else {
            let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap()
        };
        let method: u16 = if at % 2 == 0 { 0 } else { 8 };
        let header = u32::try_from(out.len()).unwrap();
        let mut fields = Vec::new();
        fields.extend(20_u16.to_le_bytes());
        fields.extend(0_u16.to_le_bytes());
        fields.extend(method.to_le_bytes());
        fields.extend([0; 8]);
        fields.extend(u32::try_from(packed.len()).unwrap().to_le_bytes());
        fields.extend(u32::try_from(content.len()).unwrap().to_le_bytes());
        fields.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
        fields.extend(0_u16.to_le_bytes());
        out.extend(b"PK\x03\x04");
        out.extend(&fields);
        out.extend(name.as_bytes());
        out.extend(&packed);
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&fields);
        directory.extend([0; 10]);
        directory.extend(header.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let start = u32::try_from(out.len()).unwrap();
    out.extend(&directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    let count = u16::try_from(files.len()).unwrap().to_le_bytes();
    out.extend(count);
    out.extend(count);
    out.extend(u32::try_from(directory.len()).unwrap().to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend([0, 0]);
    out
}

fn jar(name: &str, bytes: &[u8]) -> Result<Said, String> {
    let file = tempfile::tempfile().unwrap();
    (&file).write_all(bytes).unwrap();
    java::archive(name, &file, bytes.len() as u64)
}

/// The same with records of 64 bits, as writers make them for more than 65,535 files.
fn zip64(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = zip(files);
    let end = bytes.split_off(bytes.len() - 22);
    let field = |at: usize| u64::from(u32::from_le_bytes(end[at..at + 4].try_into().unwrap()));
    let place = bytes.len() as u64;
    let mut wide = vec![0; 56];
    wide[..4].copy_from_slice(b"PK\x06\x06");
    wide[40..48].copy_from_slice(&field(12).to_le_bytes());
    wide[48..56].copy_from_slice(&field(16).to_le_bytes());
    bytes.extend(wide);
    bytes.extend(b"PK\x06\x07\0\0\0\0");
    bytes.extend(place.to_le_bytes());
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    bytes.extend([0xff; 12]);
    bytes.extend([0, 0]);
    bytes
}

#[test]
fn archives_with_records_of_64_bits_are_read() {
    let bytes = zip64(&[("a.json", b"one"), ("b/c.json", b"two")]);
    let file = tempfile::tempfile().unwrap();
    (&file).write_all(&bytes).unwrap();
    let mut seen = Vec::new();
    crate::each_of_zip(&file, 100, &mut |name, bytes| {
        seen.push((name.to_owned(), bytes));
        Ok(())
    })
    .unwrap();
    assert_eq!(
        seen,
        [
            ("a.json".to_owned(), b"one".to_vec()),
            ("b/c.json".to_owned(), b"two".to_vec())
        ]
    );
    assert!(crate::each_of_zip(&file, 2, &mut |_, _| Ok(())).is_err());
}

#[test]
fn jars_say_their_maven_names_also_within_each_other() {
    let pom = |artifact: &str| format!("version=1.2\ngroupId=org.example\nartifactId={artifact}\n");
    let inner = zip(&[
        ("x.class", b"1"),
        (
            "META-INF/maven/org.example/inner/pom.properties",
            pom("inner").as_bytes(),
        ),
    ]);
    let manifest = b"Manifest-Version: 1.0\r\nImplementation-Title: lo\r\n ng\r\nImplementation-Version: 3.0\r\n\r\nName: x\r\n";
    let by_manifest = zip(&[("META-INF/MANIFEST.MF", manifest)]);
    let bytes = zip(&[
        ("BOOT-INF/lib/inner-1.2.jar", &inner),
        ("BOOT-INF/lib/other-9.jar", &by_manifest),
        ("BOOT-INF/lib/broken-1.jar", b"no archive"),
        (
            "META-INF/maven/org.example/app/pom.properties",
            pom("app").as_bytes(),
        ),
    ]);
    let said = jar("opt/app.jar", &bytes).unwrap();
    assert_eq!(
        names(&said),
        [
            pair("org.example:app", "1.2"),
            pair("org.example:inner", "1.2"),
            pair("other", "3.0")
        ]
    );
    assert_eq!(said.packages[0].purl(None), "pkg:maven/org.example/app@1.2");
    // What was put before an archive moves it.
    let mut script = b"#!/bin/sh\nexec java -jar $0\n".to_vec();
    script.extend(&bytes);
    assert_eq!(jar("opt/app.jar", &script).unwrap(), said);
    assert_eq!(
        names(&jar("lib/commons-io-2.11.0.jar", &zip(&[("a", b"1")])).unwrap()),
        [pair("commons-io", "2.11.0")]
    );
}

#[test]
fn archives_without_end_are_an_error_and_not_a_loop() {
    let mut bytes = zip(&[("x", b"1")]);
    for _ in 0..6 {
        bytes = zip(&[("x.jar", &bytes)]);
    }
    let error = jar("deep.jar", &bytes).unwrap_err();
    assert!(error.contains("deep in each other"), "{error}");
    // A bomb: 300 MB of zeros.
    let bomb = zip(&[("a", b""), ("b.jar", &vec![0; 300 << 20])]);
    assert!(bomb.len() < 8 << 20);
    let error = jar("bomb.jar", &bomb).unwrap_err();
    assert!(error.contains("larger than"), "{error}");
}

/// A 64-bit little-endian ELF file with these sections.
pub(crate) fn elf(sections: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = vec![0; 64];
    out[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    let mut names = vec![0];
    let mut table = vec![0_u8; 64];
    let mut row = |name: &str, at: usize, content: &[u8], names: &mut Vec<u8>| {
        let mut row = vec![0; 64];
        row[..4].copy_from_slice(&u32::try_from(names.len()).unwrap().to_le_bytes());
        row[24..32].copy_from_slice(&(at as u64).to_le_bytes());
        row[32..40].copy_from_slice(&(content.len() as u64).to_le_bytes());
        names.extend(name.as_bytes());
        names.push(0);
        table.extend(row);
    };
    for (name, content) in sections {
        row(name, out.len(), content, &mut names);
        out.extend(*content);
    }
    let at = out.len();
    names.extend(b".shstrtab\0");
    let content = names.clone();
    row(".shstrtab", at, &content, &mut names);
    out.extend(&content);
    let table_at = out.len() as u64;
    out[40..48].copy_from_slice(&table_at.to_le_bytes());
    out[58..60].copy_from_slice(&64_u16.to_le_bytes());
    let count = u16::try_from(sections.len() + 2).unwrap();
    out[60..62].copy_from_slice(&count.to_le_bytes());
    out[62..64].copy_from_slice(&(count - 1).to_le_bytes());
    out.extend(&table);
    out
}

fn program_says(bytes: &[u8]) -> Result<Said, String> {
    let file = tempfile::tempfile().unwrap();
    (&file).write_all(bytes).unwrap();
    program::program("bin/x", &file, bytes.len() as u64)
}

pub(crate) fn go_info(version: &str, modules: &str) -> Vec<u8> {
    let mut info = b"\xff Go buildinf:\x08\x02".to_vec();
    info.resize(32, 0);
    for text in [version.to_owned(), format!("{0}{modules}{0}", "0123456789abcdef")] {
        let mut length = text.len();
        while length >= 128 {
            info.push(u8::try_from(length & 127).unwrap() | 128);
            length >>= 7;
        }
        info.push(u8::try_from(length).unwrap());
        info.extend(text.as_bytes());
    }
    info
}

#[test]
fn go_programs_say_their_modules() {
    let modules = "path\tcmd\nmod\texample.org/app\t(devel)\t\ndep\tgolang.org/x/net\tv0.1.0\th1:x=\n\
                   dep\told.org/a\tv1.0.0\n=>\tnew.org/a\tv1.0.1\th1:y=\nbuild\t-compiler=gc\n";
    let said = program_says(&elf(&[(
        ".go.buildinfo",
        &go_info("go1.22.3 X:loopvar", modules),
    )]))
    .unwrap();
    assert_eq!(
        names(&said),
        [
            pair("golang.org/x/net", "v0.1.0"),
            pair("new.org/a", "v1.0.1"),
            pair("stdlib", "1.22.3")
        ]
    );
    assert!(said.packages.iter().all(|package| package.kind == Kind::Golang));
    assert!(program_says(&elf(&[(".go.buildinfo", b"\xff Go")])).is_err());
    assert_eq!(program_says(b"#!/bin/sh\n").unwrap(), Said::default());
}

#[test]
fn rust_programs_say_their_crates_but_not_what_built_them() {
    let json =
        br#"{"packages":[{"name":"app","version":"0.1.0","root":true},{"name":"serde","version":"1.0.1"},
        {"name":"cc","version":"1.0.2","kind":"build"}]}"#;
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(json).unwrap();
    let said = program_says(&elf(&[(".dep-v0", &encoder.finish().unwrap())])).unwrap();
    assert_eq!(names(&said), [pair("app", "0.1.0"), pair("serde", "1.0.1")]);
    let error = program_says(&elf(&[(".dep-v0", b"no zlib")])).unwrap_err();
    assert!(error.contains("damaged"), "{error}");
}

#[test]
fn a_package_url_says_the_distribution() {
    let mut package = Package::new(Kind::Deb, "libstdc++6", "1:12.2.0-14+deb12u1");
    package.arch = Some("amd64".to_owned());
    let os = crate::Os {
        id: "debian".to_owned(),
        version: "12".to_owned(),
        ..crate::Os::default()
    };
    assert_eq!(
        package.purl(Some(&os)),
        "pkg:deb/debian/libstdc%2B%2B6@1:12.2.0-14%2Bdeb12u1?arch=amd64&distro=debian-12"
    );
}

proptest! {
    #[test]
    fn no_bytes_stop_a_parser(bytes in proptest::collection::vec(any::<u8>(), 0..600), cut in 0_usize..4000) {
        let parsers: [crate::scan::Parse; 8] = [
            dpkg::status, os::release, pacman::desc, python::metadata, node::package, php::installed, dotnet::deps, ruby::gemspec,
        ];
        let owners: [crate::scan::Owners; 7] = [
            super::rpm::sqlite, super::rpm::ndb, super::rpm::berkeley, dpkg::list, dpkg::sums, apk::installed, pacman::files,
        ];
        for parse in owners {
            drop(parse("a/b-1-2/files", &bytes, &|_| true));
        }
        for parse in parsers {
            drop(parse("a/b-1-2/package.json", &bytes));
        }
        drop(jar("x.jar", &bytes));
        drop(program_says(&bytes));
        // Damaged ones of the right form.
        let mut good = elf(&[(".go.buildinfo", &go_info("go1.2", "dep\ta\tv1\n")), (".dep-v0", &bytes)]);
        for (at, byte) in bytes.iter().enumerate() {
            let length = good.len();
            good[(at * 7 + cut) % length] ^= byte;
        }
        drop(program_says(&good));
        let mut archive = zip(&[("META-INF/maven/a/b/pom.properties", b"groupId=a\n"), ("x", &bytes)]);
        archive.truncate(cut);
        drop(jar("x.jar", &archive));
    }
}
