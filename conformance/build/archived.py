"""Images as archives that docker, buildah and we save: their configuration, history and tree, and how two of them differ."""

import collections
import difflib
import gzip
import hashlib
import io
import itertools
import json
import re
import tarfile

# What docker's configuration has of containers, not of images; `ArgsEscaped` is of Windows.
OF_CONTAINERS = set(
    "Hostname Domainname AttachStdin AttachStdout AttachStderr Tty OpenStdin StdinOnce Image NetworkDisabled MacAddress ArgsEscaped".split()
)
# buildah's name and version.
IDENTITY = "io.buildah.version"
MADE = "of the build"
KINDS = {tarfile.DIRTYPE: "folder", tarfile.SYMTYPE: "link", tarfile.CHRTYPE: "char device", tarfile.BLKTYPE: "block device",
         tarfile.FIFOTYPE: "pipe"}


class Image:
    def __init__(self, config, tree):
        self.document = config
        self.config = settings(config)
        self.history = [(entry.get("created_by", ""), bool(entry.get("empty_layer"))) for entry in config.get("history") or []]
        self.layers = len(config["rootfs"].get("diff_ids") or [])
        self.tree = tree


def settings(document):
    """What the image says of itself and of its containers; what is empty is as if it were not there."""
    found = {key: document.get(key) for key in ("architecture", "os", "variant", "author")}
    for key, value in (document.get("config") or {}).items():
        if key == "Labels" and value:
            value = {label: text for label, text in value.items() if label != IDENTITY}
        if key not in OF_CONTAINERS:
            found[f"config.{key}"] = value
    return {key: value for key, value in found.items() if value}


def read(path, start):
    """The image of an archive; a time since `start` is one that its build made."""
    with tarfile.open(path) as archive:
        manifest = json.load(archive.extractfile("manifest.json"))[0]
        config = json.load(archive.extractfile(manifest["Config"]))
        tree = {}
        for name in manifest["Layers"]:
            member = archive.getmember(name)
            if member.issym():
                member = archive.getmember(re.sub(r"^(\.\./)+", "", member.linkname))
            blob = archive.extractfile(member).read()
            apply(gzip.decompress(blob) if blob[:2] == b"\x1f\x8b" else blob, tree)
        for found in tree.values():
            # Names of one file have one entry.
            if found["time"] != MADE and found["time"] >= start:
                found["time"] = MADE
        return Image(config, tree)


def apply(blob, tree):
    """A layer on what is below it: path to entry; names of one file have one entry."""
    with tarfile.open(fileobj=io.BytesIO(blob)) as layer:
        for member in layer:
            path = re.sub(r"^(\./|/)+", "", member.name).strip("/")
            if path in ("", "."):
                continue
            folder, _, last = path.rpartition("/")
            if last == ".wh..wh..opq":
                remove(tree, folder + "/")
            elif last.startswith(".wh."):
                gone = f"{folder}/{last[4:]}".lstrip("/")
                tree.pop(gone, None)
                remove(tree, gone + "/")
            else:
                if not member.isdir():
                    remove(tree, path + "/")
                linked = re.sub(r"^(\./|/)+", "", member.linkname)
                tree[path] = tree[linked] if member.islnk() else entry(layer, member)


def remove(tree, prefix):
    for path in [path for path in tree if path.startswith(prefix)]:
        del tree[path]


def entry(layer, member):
    found = {"kind": KINDS.get(member.type, "file"), "mode": f"{member.mode & 0o7777:o}", "owner": f"{member.uid}:{member.gid}"}
    if member.isreg():
        found["size"] = member.size
        found["content"] = hashlib.sha256(layer.extractfile(member).read()).hexdigest()[:12]
    if member.issym():
        found["target"] = member.linkname
        # Linux has none of a link's own.
        del found["mode"]
    if member.ischr() or member.isblk():
        found["device"] = f"{member.devmajor}:{member.devminor}"
    for key, value in sorted(member.pax_headers.items()):
        if key.startswith("SCHILY.xattr."):
            found[key[13:]] = value
    found["time"] = int(member.mtime)
    return found


def names(tree):
    """Of each path: its other names."""
    groups = collections.defaultdict(list)
    for path, found in tree.items():
        groups[id(found)].append(path)
    return {path: sorted(group) for group in groups.values() if len(group) > 1 for path in group}


def keyword(words):
    """The instruction of an entry of history, as each builder writes it: `/bin/sh -c #(nop) COPY file:... in /` with any shell,
    `COPY a / # buildkit`, and for RUN the command alone, behind the build arguments (`|1 a=b /bin/sh -c ...`)."""
    words = re.sub(r"^.*?#\(nop\)\s*", "", words)
    first = words.split(" ", 1)[0]
    return first if re.fullmatch(r"[A-Z]+", first) else "RUN"


def differences(theirs, ours, case, exact):
    """Where two images of a case differ, a line each. `exact`: the words of the history are to be the same, too."""
    lines = []
    for key in sorted(theirs.config.keys() | ours.config.keys()):
        wanted, got = theirs.config.get(key), ours.config.get(key)
        if wanted != got:
            lines.append(f"{key}: theirs {json.dumps(wanted)}, ours {json.dumps(got)}")
    lines += histories(theirs.history, ours.history, (lambda words: words) if exact else keyword)
    # What the history tells is not told again.
    if theirs.layers != ours.layers and any(image.layers != sum(not empty for _, empty in image.history) for image in (theirs, ours)):
        lines.append(f"layers: theirs {theirs.layers}, ours {ours.layers}")
    return lines + list(trees(theirs.tree, ours.tree, case))


def histories(theirs, ours, shown):
    wanted, got = ([shown(words) for words, _ in history] for history in (theirs, ours))
    layer = lambda history, at: " (no layer)" if history[at][1] else ""
    for kind, start, end, our_start, our_end in difflib.SequenceMatcher(None, wanted, got, autojunk=False).get_opcodes():
        for at, our_at in itertools.zip_longest(range(start, end), range(our_start, our_end)):
            pair = ["nothing" if here is None else words[here] + layer(history, here)
                    for here, words, history in ((at, wanted, theirs), (our_at, got, ours))]
            if kind != "equal" or pair[0] != pair[1]:
                yield f"history: theirs {pair[0]}, ours {pair[1]}"


def trees(theirs, ours, case):
    their_names, our_names = names(theirs), names(ours)
    for path in sorted(theirs.keys() | ours.keys()):
        if path not in ours:
            yield f"/{path}: only theirs ({theirs[path]['kind']})"
        elif path not in theirs:
            yield f"/{path}: only ours ({ours[path]['kind']})"
        else:
            wanted, got = dict(theirs[path]), dict(ours[path])
            if not case.compares_time(path):
                del wanted["time"], got["time"]
            wanted["names"], got["names"] = their_names.get(path), our_names.get(path)
            for key in sorted(wanted.keys() | got.keys()):
                if wanted.get(key) != got.get(key):
                    yield f"/{path}: {key}: theirs {wanted.get(key)}, ours {got.get(key)}"
