//! Which files of an image's layers are not simply the image's own.

/// What is to be done with a file that an image and its base both have, when the base changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// Paragraphs with an empty line between them, told apart by these fields (`Package: x`).
    Paragraphs(&'static [&'static str]),
    /// Lines, told apart by what is before the first colon.
    Named,
    /// Lines that are there or not.
    Lines,
    /// A log, a lock, a copy of what was before, or a cache that its program makes again: the image's own does no harm.
    Own,
}

/// Files by path, without `/` at the beginning.
const FILES: &[(&str, Treatment)] = &[
    // dpkg(1); one package may be there for several architectures.
    (
        "var/lib/dpkg/status",
        Treatment::Paragraphs(&["Package", "Architecture"]),
    ),
    (
        "var/lib/dpkg/available",
        Treatment::Paragraphs(&["Package", "Architecture"]),
    ),
    // apt-mark(8): what was installed for the sake of others.
    (
        "var/lib/apt/extended_states",
        Treatment::Paragraphs(&["Package", "Architecture"]),
    ),
    // debconf(7).
    ("var/cache/debconf/config.dat", Treatment::Paragraphs(&["Name"])),
    (
        "var/cache/debconf/templates.dat",
        Treatment::Paragraphs(&["Name"]),
    ),
    (
        "var/cache/debconf/passwords.dat",
        Treatment::Paragraphs(&["Name"]),
    ),
    // deb-triggers(5).
    ("var/lib/dpkg/triggers/File", Treatment::Lines),
    ("var/lib/dpkg/triggers/Unincorp", Treatment::Lines),
    // apk-package(5), APK v2's database of what is installed.
    ("lib/apk/db/installed", Treatment::Paragraphs(&["P"])),
    ("usr/lib/apk/db/installed", Treatment::Paragraphs(&["P"])),
    ("lib/apk/db/triggers", Treatment::Lines),
    ("usr/lib/apk/db/triggers", Treatment::Lines),
    ("etc/apk/world", Treatment::Lines),
    // passwd(5), group(5), shadow(5), gshadow(5), subuid(5).
    ("etc/passwd", Treatment::Named),
    ("etc/group", Treatment::Named),
    ("etc/shadow", Treatment::Named),
    ("etc/gshadow", Treatment::Named),
    ("etc/subuid", Treatment::Named),
    ("etc/subgid", Treatment::Named),
    ("etc/shells", Treatment::Lines),
    ("var/lib/dpkg/status-old", Treatment::Own),
    ("var/lib/dpkg/available-old", Treatment::Own),
    ("var/lib/dpkg/diversions-old", Treatment::Own),
    ("var/lib/dpkg/statoverride-old", Treatment::Own),
    ("var/lib/dpkg/lock", Treatment::Own),
    ("var/lib/dpkg/lock-frontend", Treatment::Own),
    ("var/lib/dpkg/triggers/Lock", Treatment::Own),
    ("var/cache/debconf/config.dat-old", Treatment::Own),
    ("var/cache/debconf/templates.dat-old", Treatment::Own),
    ("var/cache/ldconfig/aux-cache", Treatment::Own),
    ("etc/passwd-", Treatment::Own),
    ("etc/group-", Treatment::Own),
    ("etc/shadow-", Treatment::Own),
    ("etc/gshadow-", Treatment::Own),
    ("etc/.pwd.lock", Treatment::Own),
];

/// All below these folders.
const FOLDERS: &[(&str, Treatment)] = &[
    ("var/log/", Treatment::Own),
    ("var/cache/apt/", Treatment::Own),
    ("var/cache/apk/", Treatment::Own),
    ("var/lib/apt/lists/", Treatment::Own),
    ("tmp/", Treatment::Own),
    ("run/", Treatment::Own),
];

impl Treatment {
    /// That of a path without `/` at its beginning; none for all others, of which an image's own says nothing of the base's.
    #[must_use]
    pub fn of(path: &str) -> Option<Self> {
        let file = FILES.iter().find(|(known, _)| *known == path);
        let folder = || FOLDERS.iter().find(|(known, _)| path.starts_with(known));
        file.or_else(folder).map(|(_, treatment)| *treatment)
    }

    /// Whether files of this kind are merged.
    #[must_use]
    pub fn merges(self) -> bool {
        self != Self::Own
    }
}
