//! The readers, each with what their formats are made of.

mod inflate;

use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Read as _;

use self::inflate::inflate;

/// What an outcome looks like: inputs that give a new one are worth more changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shape(u64);

/// A reader of foreign bytes.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// Feeds it; panics when a property does not hold.
    pub(crate) run: fn(&[u8]) -> Shape,
    pub(crate) words: &'static [&'static str],
    /// Inputs for the quick test.
    #[cfg_attr(not(test), allow(dead_code, reason = "the test's"))]
    pub(crate) share: usize,
}

impl Shape {
    /// The names of types and variants in a value's debug text, and its rough length: numbers and texts of the input,
    /// which are always new, do not count.
    fn of(value: &impl Debug) -> Self {
        Self::text(&format!("{value:?}"))
    }

    fn text(text: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        text.len().checked_ilog2().hash(&mut hasher);
        let mut words: Vec<&str> = text
            .split('"')
            .step_by(2)
            .flat_map(|part| part.split(|c: char| !c.is_alphabetic() && c != '_'))
            .filter(|word| word.len() > 2 && word.chars().next().is_some_and(char::is_uppercase))
            .take(2000)
            .collect();
        words.sort_unstable();
        words.dedup();
        words.hash(&mut hasher);
        Self(hasher.finish())
    }

    /// A failure by its words, without those of the input.
    fn error(error: &dyn std::error::Error) -> Self {
        let mut hasher = DefaultHasher::new();
        let mut cause = Some(error);
        while let Some(error) = cause {
            let text = error.to_string();
            let own = text.split(['"', '`', '\'']).step_by(2).take(4);
            for part in own {
                part.chars()
                    .filter(|c| c.is_alphabetic())
                    .take(60)
                    .collect::<String>()
                    .hash(&mut hasher);
            }
            cause = error.source();
        }
        Self(hasher.finish())
    }

    /// Every different value is a new outcome.
    fn exactly(value: impl std::hash::Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        Self(hasher.finish())
    }

    fn both(self, other: Self) -> Self {
        Self(self.0.rotate_left(7) ^ other.0)
    }

    fn result<T: Debug, E: std::error::Error>(result: &Result<T, E>) -> Self {
        match result {
            Ok(value) => Self::of(value),
            Err(error) => Self::error(error),
        }
    }
}

const JSON: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "null",
    "true",
    "\"\"",
    "\\u0000",
    "\\ud800",
    "1e999",
    "-0",
    "..",
    "/proc/self/fd/3",
    "\"ociVersion\":",
    "\"mounts\":[",
    "\"options\":[",
    "\"linux\":{",
    "\"namespaces\":[",
    "\"path\":",
    "\"type\":",
    "rbind,ro",
    "\"sysctl\":{",
    "net.",
    "\"devices\":[",
    "\"capabilities\":{",
    "\"rlimits\":[",
    "\"seccomp\":{",
    "\"uidMappings\":[",
    "\"hooks\":{",
    "\"user\":{",
    "\"args\":[",
    "\"env\":[",
    "\"resources\":{",
    "\"memory\":{",
    "\"blockIO\":{",
    "\"unified\":{",
    "\"syscalls\":[",
    "\"names\":[",
    "\"action\":",
    "SCMP_ACT_ERRNO",
    "SCMP_CMP_MASKED_EQ",
    "\"architectures\":[",
    "SCMP_ARCH_X86",
    "\"layers\":[",
    "\"manifests\":[",
    "\"config\":{",
    "\"mediaType\":",
    "\"digest\":\"sha256:",
    "\"size\":",
    "\"rootfs\":{",
    "\"history\":[",
    "\"platform\":{",
    "\"schemaVersion\":2",
    "\"annotations\":{",
    "\"Healthcheck\":{",
    "\"ExposedPorts\":{",
];
const TEXT: &[&str] = &[
    "\n", "\\\n", "\r\n", " ", "\t", "#", "=", ":", "::", ",", "/", "..", "\\", "\"", "'", "$", "\u{feff}",
    "é", "\0",
];
const DOCKERFILE: &[&str] = &[
    "FROM ",
    "RUN ",
    "COPY ",
    "ADD ",
    "ARG ",
    "ENV ",
    "ONBUILD ",
    "HEALTHCHECK ",
    "--mount=type=bind,",
    "--from=",
    "<<EOF\n",
    "EOF\n",
    "<<-'A' <<B\n",
    "${",
    "}",
    "${a:-",
    "${a#",
    "${a//",
    "$a",
    "# syntax=",
    "# escape=`\n",
    "\\\n",
    "[\"",
    "\"]",
    " AS ",
    "--chmod=",
];
const REFERENCE: &[&str] = &[
    "docker.io/",
    "localhost:5000/",
    "@sha256:",
    ":",
    "/",
    "..",
    "[::1]:",
    "library/",
    "_",
    "__",
    "A",
    "-",
    "%2f",
];
const TABLE: &[&str] = &[
    " - cgroup cgroup rw,",
    " - cgroup2 cgroup2 rw",
    "/sys/fs/cgroup/",
    "\\040",
    "\\134",
    "0::/",
    "..",
    "memory",
    "cpu,cpuacct",
    "\n",
    ":",
    " ",
    "8:0 rbytes=",
    "anon ",
    "max",
    "-1",
];
const ACCOUNTS: &[&str] = &[
    "root:x:0:0::/:/bin/sh\n",
    ":",
    "\n",
    "::::::",
    "+",
    "-",
    "\0",
    "4294967295",
    "4294967296",
    " ",
];
const BINARY: &[&str] = &[
    "\0\0\0\0",
    "ustar\0",
    "ustar  \0",
    "28 path=a\n",
    "\x1f",
    "BZh9",
    "././@LongLink",
    ".wh..wh..opq",
    "GNU.sparse.map=",
    "../",
];

const PEM: &[&str] = &[
    "-----BEGIN ",
    "-----END ",
    "-----\n",
    "PUBLIC KEY",
    "PRIVATE KEY",
    "EC PRIVATE KEY",
    "ENCRYPTED SIGSTORE PRIVATE KEY",
    "CERTIFICATE",
    "MFkwEwYHKoZIzj0CAQ",
    "=",
    "\n",
];
const POLICY: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\n",
    "version = 1",
    "[[rule]]",
    "[[exception]]",
    "[signer.",
    "name = \"",
    "action = \"deny\"",
    "images = [\"",
    "**",
    "severity = \"high\"",
    "max-age-days = ",
    "until = \"",
    "\"default\":[",
    "\"transports\":{",
    "\"docker\":{",
    "\"type\":\"reject\"",
    "\"type\":\"sigstoreSigned\"",
    "\"signedIdentity\":{",
    "\"keyData\":\"",
];
const SIGNED: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "null",
    "\"\"",
    "\"mediaType\":",
    "\"verificationMaterial\":{",
    "\"certificate\":{\"rawBytes\":\"",
    "\"publicKey\":{",
    "\"tlogEntries\":[",
    "\"inclusionProof\":{",
    "\"dsseEnvelope\":{",
    "\"messageSignature\":{",
    "\"payloadType\":",
    "\"signatures\":[",
    "\"alg\":\"none\"",
    "\"crit\":[",
    "\"x5c\":[",
    "eyJhbGciOiJub25lIn0",
    "MII",
    "\\u0000",
];

macro_rules! target {
    ($name:literal, $run:ident, $words:ident, $share:literal) => {
        Target {
            name: $name,
            run: $run,
            words: $words,
            share: $share,
        }
    };
}

/// All of them.
pub(crate) const ALL: &[Target] = &[
    target!("spec", spec, JSON, 300),
    target!("seccomp", seccomp, JSON, 100),
    target!("mountinfo", mountinfo, TABLE, 500),
    target!("statistics", statistics, TABLE, 500),
    target!("bus", bus, BINARY, 500),
    target!("netlink", netlink, BINARY, 1000),
    target!("dns", dns, BINARY, 1000),
    target!("manifest", manifest, JSON, 500),
    target!("config", config, JSON, 500),
    target!("tar", tar, BINARY, 200),
    target!("inflate", inflate, BINARY, 1000),
    target!("stream", stream, BINARY, 50),
    target!("index", index, BINARY, 500),
    target!("dockerfile", dockerfile, DOCKERFILE, 300),
    target!("reference", reference, REFERENCE, 1000),
    target!("accounts", accounts, ACCOUNTS, 500),
    target!("resolver", resolver, TEXT, 500),
    target!("frames", frames, BINARY, 500),
    target!("log", log, JSON, 300),
    target!("words", words, TEXT, 500),
    target!("certificate", certificate, BINARY, 500),
    target!("key", key, PEM, 300),
    target!("trustedroot", trusted_root, JSON, 100),
    target!("signature", signature, SIGNED, 100),
    target!("policy", policy, POLICY, 300),
    target!("packages", packages, PACKAGES, 200),
    target!("advisories", advisories, ADVISORIES, 300),
];

const PACKAGES: &[&str] = &[
    "\n\n",
    "Package: ",
    "Version: ",
    "Source: a (1)",
    "Status: install ok installed",
    "P:",
    "V:",
    "F:usr/bin",
    "R:x",
    "%NAME%\n",
    "%VERSION%\n",
    "SQLite format 3\0",
    "RpmP",
    "Slot",
    "BlbS",
    "\x61\x15\x06\0",
    "PK\x03\x04",
    "PK\x01\x02",
    "PK\x05\x06",
    "\x7fELF",
    "OpenSSL 3.0.1",
    "\0\0\0\x03",
    "\"version\":",
    "\"dependencies\":{",
    "META-INF/maven/a/b/pom.properties",
    "JAVA_VERSION=\"1\"",
    "0",
    "-1",
    "4294967295",
];
const ADVISORIES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"id\":",
    "\"modified\":\"\"",
    "\"affected\":[",
    "\"package\":{",
    "\"ecosystem\":\"Debian:12\"",
    "\"ranges\":[",
    "\"events\":[",
    "{\"introduced\":\"0\"}",
    "{\"fixed\":\"1\"}",
    "\"related\":[\"CVE-1\"]",
    "\"releases\":{",
    "\"secfixes\":{",
    "cve,epss,percentile\n",
    "CVE-1,0.1,0.2\n",
    "cveID,dateAdded\n",
    "\"catalogVersion\":",
    "\"@context\":\"https://openvex.dev/ns\"",
    "\"statements\":[",
    "\"products\":[",
    "pkg:deb/debian/a@1",
    "pkg:oci/a",
    "\"bomFormat\":\"CycloneDX\"",
    "\"vulnerabilities\":[",
    "\"analysis\":{\"state\":\"resolved\"}",
    "\"components\":[",
    "\"purl\":",
    "\"spdxVersion\":\"\"",
    "\"@graph\":[",
    "until:2027-01-31",
    "package:*",
    " # ",
    "vulnerabilities:\n- id: CVE-1\n",
    "ignore:\n- package: {name: a}\n",
    "&a [*a,*a]",
    "\n",
];

/// A file of packages: its path stands in the first line.
fn packages(input: &[u8]) -> Shape {
    use std::io::Write as _;
    let end = input
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(input.len());
    let path = String::from_utf8_lossy(&input[..end]);
    let memory =
        rustix::fs::memfd_create("packages", rustix::fs::MemfdFlags::CLOEXEC).map(std::fs::File::from);
    let Ok(mut file) = memory else { return Shape(0) };
    if file.write_all(input.get(end + 1..).unwrap_or_default()).is_err() {
        return Shape(0);
    }
    Shape::result(&dhow_inventory::read_file(&path, &file))
}

/// What a scanner is told: advisories, lists about attacks, VEX, ignore files, bills of materials.
fn advisories(input: &[u8]) -> Shape {
    let text = String::from_utf8_lossy(input);
    Shape::result(&dhow_vuln::read_feed(input))
        .both(Shape::result(&dhow_vuln::read_exploits(input)))
        .both(Shape::result(&dhow_vuln::vex::read(input)))
        .both(Shape::result(&dhow_vuln::ignore::read(&text)))
        .both(Shape::result(&dhow_vuln::ignore::read_yaml(&text)))
        .both(Shape::result(&dhow_inventory::read_sbom(input)))
}

/// config.json to what the runtime would do.
fn spec(input: &[u8]) -> Shape {
    match dhow_oci::runtime::Spec::parse(input) {
        Err(error) => Shape::error(&error),
        Ok(spec) => {
            let limits = spec.linux.as_ref().and_then(|linux| linux.resources.as_ref());
            let limits = limits.map(dhow_cgroup::fuzz::limits).unwrap_or_default();
            let plan = dhow_runtime::Plan::prepare(&spec, &dhow_runtime::Settings::default());
            Shape::text(&limits).both(Shape::result(&plan))
        }
    }
}

/// A profile to a program, which the kernel's bounds hold for.
fn seccomp(input: &[u8]) -> Shape {
    match serde_json::from_slice::<dhow_oci::runtime::Seccomp>(input) {
        Err(error) => Shape::error(&error),
        Ok(profile) => {
            let program = dhow_seccomp::compile(&profile, dhow_seccomp::Arch::host());
            if let Ok(program) = &program {
                assert!(program.filter.len() <= 4096, "longer than the kernel takes");
            }
            match program {
                Ok(program) => Shape::exactly(program.filter.len() / 8),
                Err(error) => Shape::error(&error),
            }
        }
    }
}

fn mountinfo(input: &[u8]) -> Shape {
    let text = String::from_utf8_lossy(input);
    let (table, membership) = text.split_once('\0').unwrap_or((&text, "0::/a\n3:memory:/b\n"));
    Shape::text(&dhow_cgroup::fuzz::mount_table(table, membership))
}

/// A message of D-Bus.
fn bus(input: &[u8]) -> Shape {
    Shape::text(&dhow_cgroup::fuzz::bus_message(input))
}

fn statistics(input: &[u8]) -> Shape {
    let found = dhow_cgroup::fuzz::statistics(&String::from_utf8_lossy(input));
    // How many digits each number has.
    let digits = found
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.len().min(4));
    Shape::exactly(digits.collect::<Vec<_>>())
}

fn netlink(input: &[u8]) -> Shape {
    Shape::exactly(dhow_network::fuzz::netlink(input) & 0xffff)
}

fn dns(input: &[u8]) -> Shape {
    Shape::text(&dhow_network::fuzz::dns(input))
}

fn manifest(input: &[u8]) -> Shape {
    let list = Some("application/vnd.oci.image.index.v1+json");
    let document = dhow_oci::Document::parse(input, None);
    if let Ok(dhow_oci::Document::Index(index)) = &document {
        let chosen = index.choose(&dhow_types::Platform::host());
        assert!(
            chosen.is_none_or(|chosen| index.manifests.contains(chosen)),
            "chose what is not there"
        );
    }
    Shape::result(&document).both(Shape::result(&dhow_oci::Document::parse(input, list)))
}

/// A config that is read, written and read again is the same.
fn config(input: &[u8]) -> Shape {
    let config = dhow_oci::ImageConfig::parse(input);
    if let Ok(config) = &config {
        let again = config
            .to_bytes()
            .and_then(|bytes| dhow_oci::ImageConfig::parse(&bytes));
        assert!(
            again.is_ok_and(|again| again == *config),
            "not the same when written"
        );
    }
    Shape::result(&config)
}

fn tar(input: &[u8]) -> Shape {
    let mut reader = dhow_layer::tar::Reader::new(input);
    let mut shape = Shape(0);
    for _ in 0..2000 {
        match reader.next_entry() {
            Ok(None) => break,
            Ok(Some(entry)) => {
                assert!(
                    !entry.path.split(|byte| *byte == b'/').any(|part| part == b".."),
                    "a path with .."
                );
                let body = reader.body(1 << 20).map(|body| body.len().checked_ilog2());
                shape = shape.both(Shape::of(&entry.kind)).both(Shape::result(&body));
            }
            Err(error) => return shape.both(Shape::error(&error)),
        }
    }
    shape
}

/// Compressed bytes; what comes out is bounded by whoever reads.
fn stream(input: &[u8]) -> Shape {
    match dhow_layer::decoder(input) {
        Err(error) => Shape::error(&error),
        Ok((compression, stream)) => {
            let copied = std::io::copy(&mut stream.take(1 << 20), &mut std::io::sink());
            let copied = copied.map(|length| length.checked_ilog2());
            Shape::of(&compression).both(Shape::result(&copied))
        }
    }
}

fn index(input: &[u8]) -> Shape {
    let index = dhow_layer::Index::decode(input.to_vec());
    if let Ok(index) = &index {
        for entry in index.entries().take(1000) {
            assert!(index.find(&entry.path).is_some(), "an entry is found by its path");
        }
    }
    Shape::result(&index.map(|index| index.len().checked_ilog2()))
}

fn dockerfile(input: &[u8]) -> Shape {
    let text = String::from_utf8_lossy(input);
    let lookup = |name: &str| (name.len() == 1).then(|| "value/of name".to_owned());
    let expand = dhow_dockerfile::Expand::default();
    let words = text
        .lines()
        .take(50)
        .map(|line| expand.words(line, &lookup).is_ok())
        .fold(0, |sum, ok| sum + u64::from(ok));
    let shape = match dhow_dockerfile::parse(&text) {
        Ok(tree) => Shape::of(&tree),
        Err(errors) => {
            // Each error can be shown in its place.
            for error in errors.iter().take(20) {
                let (line, column) = error.at.line_column(&text);
                assert!(line > 0 && column > 0, "a place before the text");
            }
            errors.first().map_or(Shape(0), |error| Shape::error(error))
        }
    };
    shape.both(Shape(words))
}

/// The canonical form of a name is one, and means the same.
fn reference(input: &[u8]) -> Shape {
    let text = String::from_utf8_lossy(input);
    let reference = dhow_reference::Reference::parse(&text);
    if let Ok(reference) = &reference {
        let again = dhow_reference::Reference::parse(&reference.canonical());
        assert!(
            again.is_ok_and(|again| again == *reference),
            "the canonical form means something else"
        );
        let familiar = dhow_reference::Reference::parse(&reference.familiar());
        assert!(
            familiar.is_ok_and(|again| again == *reference),
            "the familiar form means something else"
        );
    }
    Shape::result(&reference)
}

/// A user's name, passwd and group, separated by null bytes.
fn accounts(input: &[u8]) -> Shape {
    let mut parts = input.splitn(3, |byte| *byte == 0);
    let mut next = || parts.next().unwrap_or_default();
    let (user, passwd, group) = (String::from_utf8_lossy(next()), next(), next());
    let found = dhow_bundle::passwd::resolve(&user, passwd, group);
    let one = dhow_bundle::passwd::group_id(&user, "root", group);
    Shape::result(&found).both(Shape::result(&one))
}

fn resolver(input: &[u8]) -> Shape {
    let text = String::from_utf8_lossy(input);
    let found = dhow_network::host_resolvers(&text);
    let made = dhow_network::resolv_conf(&text, &dhow_network::ResolvOptions::default());
    if let Ok(made) = &made {
        assert!(
            !made.contains('\0') || text.contains('\0'),
            "bytes out of nowhere"
        );
    }
    Shape::exactly(found.len().min(8)).both(Shape::result(&made.map(|made| made.len().checked_ilog2())))
}

/// Frames are the same however the bytes are cut.
fn frames(input: &[u8]) -> Shape {
    let cut = |size: usize| {
        let mut frames = dhow_monitor::frame::Frames::new();
        let mut seen = Vec::new();
        let outcome = input.chunks(size).try_for_each(|piece| {
            frames.push(piece, |kind, body| {
                seen.push((kind, body.len()));
                Ok(())
            })
        });
        (seen, outcome.map_err(|error| error.to_string()))
    };
    let (whole, parts) = (cut(input.len().max(1)), cut(7));
    assert_eq!(whole, parts, "the cut changes the frames");
    Shape::exactly((
        whole.0.len().min(9),
        whole.0.first().map(|first| first.1.checked_ilog2()),
        whole.1.is_err(),
    ))
}

fn log(input: &[u8]) -> Shape {
    let mut reader = dhow_monitor::LogReader::new(input);
    let mut shape = Shape(0);
    for _ in 0..5000 {
        match reader.record() {
            Ok(None) => break,
            Ok(Some(record)) => shape = Shape::of(&record),
            Err(error) => return shape.both(Shape::error(&error)),
        }
    }
    shape
}

/// Sizes, durations, platforms, digests, names.
fn words(input: &[u8]) -> Shape {
    let text = String::from_utf8_lossy(input);
    let digest = text.parse::<dhow_types::Digest>();
    if let Ok(digest) = &digest {
        assert_eq!(digest.to_string(), text, "a digest has one form");
    }
    Shape::result(&digest)
        .both(Shape::result(&text.parse::<dhow_types::ByteSize>()))
        .both(Shape::result(&text.parse::<dhow_types::Platform>()))
        .both(Shape::result(&dhow_types::parse_duration(&text)))
        .both(Shape::result(&dhow_types::validate_name(&text)))
}

/// A certificate says the same of itself when it is written and read again.
fn certificate(input: &[u8]) -> Shape {
    let read = dhow_sign::Certificate::parse(input);
    if let Ok(read) = &read {
        let again = dhow_sign::Certificate::all_from_pem(read.to_pem().as_bytes());
        assert!(
            again.is_ok_and(|again| again == [read.clone()]),
            "another certificate"
        );
    }
    Shape::result(&read)
}

/// Files with keys, public and private.
fn key(input: &[u8]) -> Shape {
    let private = dhow_sign::PrivateKey::from_pem(input, || Ok::<_, dhow_sign::Error>(Vec::new()));
    Shape::result(&dhow_sign::keys(input)).both(Shape::result(&private))
}

fn trusted_root(input: &[u8]) -> Shape {
    Shape::result(&dhow_sign::TrustedRoot::parse(input))
}

/// What the samples are signatures of.
const SIGNED_MANIFEST: &[u8] = br#"{"schemaVersion":2}"#;

/// The samples are whole, by somebody who is not trusted here: so is nothing that is made of them.
fn signature(input: &[u8]) -> Shape {
    use dhow_sign::{Form, Found, Identity, Pattern, Target, Trust, TrustedRoot};
    let root = TrustedRoot::parse(include_bytes!("../corpus/trustedroot/root")).ok();
    let trust = Trust {
        root,
        pki: None,
        identities: vec![Identity {
            name: Pattern::Exactly("nobody@example.org".to_owned()),
            issuer: Some(Pattern::Exactly("https://nobody.example.org".to_owned())),
        }],
        keys: dhow_sign::keys(include_bytes!("../corpus/key/nobody")).unwrap_or_default(),
        authorities: dhow_sign::Certificate::all_from_pem(include_bytes!("../corpus/key/certificate"))
            .unwrap_or_default(),
        now: 1_795_953_600,
    };
    let target = Target {
        digest: dhow_types::Digest::of(SIGNED_MANIFEST),
        bytes: SIGNED_MANIFEST,
    };
    let mut shape = Shape(0);
    for form in [Form::Simple, Form::Bundle, Form::Envelope, Form::Notation] {
        let found = Found {
            form,
            content: input.to_vec(),
            annotations: [("dev.cosignproject.cosign/signature".to_owned(), "AAAA".to_owned())].into(),
        };
        match trust.verify(&found, &target) {
            Ok(verified) => panic!("believed {verified:?}"),
            Err(error) => shape = shape.both(Shape::error(&error)),
        }
    }
    shape
}

/// Policies: what is read judges any name without trouble, and what asks for something is not fulfilled by nothing.
fn policy(input: &[u8]) -> Shape {
    use dhow_policy::{Containers, Facts, Point, Policy, evaluate};
    let text = String::from_utf8_lossy(input);
    let name = dhow_reference::Reference::parse("registry.example/a/b:1").ok();
    let containers = Containers::parse(&text);
    if let (Ok(containers), Some(name)) = (&containers, &name) {
        assert!(!containers.requirements(name).1.is_empty(), "nothing is required");
    }
    let own = Policy::parse(&text);
    if let Ok(own) = &own {
        for point in Point::ALL {
            let facts = Facts::new(point, name.clone(), "b", 1_795_953_600);
            let verdict = evaluate(own, &facts);
            let needs = own.needs(point, name.as_ref());
            assert_eq!(
                needs != dhow_policy::Needs::default(),
                !verdict.decisions.is_empty(),
                "what is not known is taken for good"
            );
        }
    }
    Shape::result(&containers).both(Shape::result(&own))
}
