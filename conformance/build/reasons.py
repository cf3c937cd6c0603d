"""Why a result of ours is not that of a reference, where it is not. Nothing here hides a difference: each is printed with its reason."""

import re

# Cases that cannot be compared.
LEFT = {
    "add": "it asks for files of the internet",
    "header-builtin": "it reads the C libraries of images of two machines, which no stand-in has",
    "mount": "volumes of the host for RUN are a flag of buildah's build alone",
    "transient-mount": "volumes of the host for RUN are a flag of buildah's build alone",
    "quoted and inherited arg": "it wants `printf %q` of bash, and the shell of the stand-ins is busybox",
}

TEXTS = {
    "no layer": "classic makes no layer of a step that changes nothing, buildah none of WORKDIR; BuildKit and we make an empty one",
    "scratch": "FROM scratch begins in `/` with BuildKit and us; classic says no working folder",
    "as written": "WORKDIR keeps a slash at its end with BuildKit and us; classic and buildah take it away",
    "language": "classic does not know here-documents, RUN --mount and --parents, and takes --exclude without a word",
    "arguments": "classic has no TARGETPLATFORM and the other arguments of platforms",
    "exceptions": "a folder that .dockerignore leaves out is searched for what its exceptions bring back; classic and buildah look only for "
                  "exceptions that begin with its name",
    "left-out folder": "a folder that is only there for what an exception brings back has its own mode and time; with classic and buildah "
                       "those of a new folder",
    "owner": "WORKDIR belongs to the user of the stage; with classic to root",
    "volume": "classic throws away what a later step changes in a VOLUME, as buildah does when it is asked to",
    "triggers": "ONBUILD is no line of the history with BuildKit and us",
    "no match": "a wildcard that matches nothing is nothing to copy, not an error",
    "one place": "several files and a destination that is no folder: the last one stays (we warn); classic refuses",
    "stars": "`**` in a source of COPY is `*`, as in Go's path.Match; buildah goes down folders",
    "exclude": "buildah 1.43.2 does not apply --exclude below a folder (its issue 6726, which the cases are of)",
    "parents": "buildah makes the folder before `/./` as well",
    "all parents": "`COPY --parents ./` copies all, as buildah does and the case wants it of docker; BuildKit's newest frontend makes an empty pattern "
                   "of it and copies nothing",
    "over another kind": "COPY of a folder over a link or file, or the other way, is refused, as with BuildKit; classic and buildah replace it",
    "set-id": "classic and buildah take set-user-id and set-group-id from files of the context; BuildKit and we keep them",
    "global header": "buildah makes the folder of the name of a tar's global header, which is no file",
    "attributes": "docker writes no `user.*` attributes into layers; buildah and we do",
    "link up": "a link of an archive leads out of the destination: docker 28.5.2 refuses the archive, buildah and we stay inside",
    "mount points": "/dev, /proc and /sys that only RUN needed stay in the layer with BuildKit and buildah; with classic and us not",
}

# References, case, difference (patterns that match its beginning), and the reason.
RULES = [
    ("classic", ".*", r"history: theirs (\w+) \(no layer\), ours \1$", "no layer"),
    ("buildah", ".*", r"history: theirs WORKDIR \(no layer\), ours WORKDIR$", "no layer"),
    ("classic", ".*", r'config.WorkingDir: theirs null, ours "/"$', "scratch"),
    ("classic buildah", ".*", r'config.WorkingDir: theirs "(.+)", ours "\1/"$', "as written"),
    ("classic", ".*", r"refused: theirs (the --mount option requires|.*unknown flag: --parents|COPY failed: no source files)", "language"),
    ("classic", "(add|copy)--.*exclude-.*", r"/.*: only theirs", "language"),
    ("classic", "heredoc-.*", r"/test2?/(humans|robots)\.txt: only ours|/test2?: only ours", "language"),
    ("classic", "buildin-args|multistage-builtin-args|builtins", r"/.*", "arguments"),
    ("classic buildah", "dockerignore-.*|copy-integration1", r"/.*: only ours|refused: theirs", "exceptions"),
    ("classic buildah", "dockerignore-.*", r"/.*: mode: theirs 755|/.*: time: theirs of the build", "left-out folder"),
    ("classic", "workdir-owner", r"/created.*: owner: theirs 0:0", "owner"),
    ("classic", "volume.*|chown-volume", r"/(var|volume).*", "volume"),
    ("classic buildah", "edgecases", r"history: theirs ONBUILD \(no layer\), ours nothing$", "triggers"),
    ("classic buildah", "copy-multiple-missing-file-with-nomatch-on-glob", r"refused: theirs", "no match"),
    ("classic", "copy-escape-glob", r"refused: theirs When using COPY with more than one source file", "one place"),
    ("buildah", "copyglob-.*", r"/.*: only theirs", "stars"),
    ("buildah", "copy--.*under-source", r"/app/storage/views.*: only theirs", "exclude"),
    ("buildah", "copy--parents-limit-parent-directories-1", r"/parents/x: only theirs", "parents"),
    ("BuildKit", "copy--parents-(all-directories|directory-limit.*)", r"/parents/.*: only ours", "all parents"),
    ("classic buildah", "replace-.*", r"refused: ours", "over another kind"),
    ("buildah", "tar-g", r"/tmp: only theirs \(folder\)$", "global header"),
    ("classic buildah", "setuid-file-in-context", r"/.*: mode: theirs 755, ours [24]755$", "set-id"),
    ("BuildKit classic", "xattrs-.*", r"/.*: user\.a: theirs None, ours test$", "attributes"),
    ("BuildKit classic", "add-parent-symlink", r"refused: theirs .*path escapes from parent", "link up"),
    ("BuildKit buildah", "mount-targets-.*", r"/(dev|proc|sys): only theirs \(folder\)$", "mount points"),
]


def reason(reference, case, line):
    for references, name, pattern, key in RULES:
        if reference in references.split() and re.fullmatch(name, case) and re.match(pattern, line):
            return key
    return None
