#!/usr/bin/env python3
"""Images with everything that unpacking can get wrong, as OCI layouts; and a tree as a list of lines.

    images.py make FOLDER     one archive (OCI layout in a tar) per image, NAME.tar; prints the names
    images.py same THEIRS OURS    whether two such lists are the same but for times of folders that THEIRS has not from the image
    images.py tree FOLDER     each entry: path, kind, mode, owner, size, time, content, link, other names, attributes, device

Each image is one thing that the image specification or its readers have got wrong before (image-spec layer.md; the unpack
tests of containerd and umoci have the same themes).
"""
import gzip, hashlib, io, json, os, stat, struct, sys, tarfile

NOON = 1_700_000_000


class Layer:
    def __init__(self, packed=True):
        self.bytes = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.bytes, mode="w", format=tarfile.PAX_FORMAT)
        self.packed = packed

    def put(self, name, kind, mode, content=b"", link="", owner=(0, 0), time=NOON, xattrs=None, device=(0, 0)):
        entry = tarfile.TarInfo(name)
        entry.type, entry.mode, entry.linkname, entry.mtime = kind, mode, link, time
        entry.uid, entry.gid = owner
        entry.size = len(content)
        entry.devmajor, entry.devminor = device
        for key, value in (xattrs or {}).items():
            entry.pax_headers["SCHILY.xattr." + key] = value
        self.tar.addfile(entry, io.BytesIO(content))
        return self

    def dir(self, name, mode=0o755, **more):
        return self.put(name, tarfile.DIRTYPE, mode, **more)

    def file(self, name, content="text", mode=0o644, **more):
        return self.put(name, tarfile.REGTYPE, mode, content.encode(), **more)

    def link(self, name, target, **more):
        return self.put(name, tarfile.SYMTYPE, 0o777, link=target, **more)

    def same(self, name, target, **more):
        return self.put(name, tarfile.LNKTYPE, 0o644, link=target, **more)

    def gone(self, name):
        folder, _, last = name.rpartition("/")
        return self.file((folder + "/" if folder else "") + ".wh." + last, "")

    def opaque(self, folder):
        return self.file(folder + "/.wh..wh..opq", "")

    def finish(self):
        self.tar.close()
        return self.bytes.getvalue()


def capability():
    """cap_net_bind_service=ep as security.capability has it (version 2 of linux/capability.h); NULs are one byte in UTF-8."""
    return struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0).decode("latin-1")


def images():
    base = lambda: Layer().dir("a").file("a/one").file("a/two").dir("a/b").file("a/b/deep").dir("c").file("c/x")
    yield "modes", [Layer().dir("d", 0o1777).file("d/setuid", mode=0o4755).file("d/setgid", mode=0o2755).file("d/none", mode=0)
                    .dir("closed", 0o700, owner=(7, 8)).file("closed/f", mode=0o600, owner=(7, 8)).dir("g", 0o2775, owner=(0, 50))
                    .file("g/inherits", owner=(1, 2))]
    yield "owners", [Layer().file("big", owner=(65536, 100000)).file("nobody", owner=(65534, 65534))
                     .link("l", "big", owner=(12, 13)).dir("d", owner=(1000, 1000))]
    yield "times", [Layer().dir("old", time=1).file("old/f", time=2).link("old/l", "f", time=3), Layer().file("old/g", time=NOON + 5)
                    .dir("old", time=NOON + 6)]
    yield "whiteouts", [base().link("l", "a"), Layer().gone("a/one").gone("c").gone("l")]
    yield "whiteout-of-nothing", [base(), Layer().gone("nowhere").gone("a/b/nothing").file("kept")]
    yield "whiteout-and-again", [base(), Layer().gone("c"), Layer().dir("c").file("c/new")]
    yield "opaque", [base(), Layer().dir("a").opaque("a").file("a/new").dir("a/b").file("a/b/other")]
    yield "opaque-last", [base(), Layer().dir("a").file("a/new").opaque("a")]
    yield "opaque-twice", [base(), Layer().dir("a").opaque("a").file("a/x"), Layer().dir("a").opaque("a").file("a/y")]
    yield "opaque-then-more", [base(), Layer().dir("a/b").opaque("a/b"), Layer().file("a/b/late")]
    yield "hardlinks", [Layer().file("f", "same").same("g", "f").dir("d").same("d/h", "f")]
    yield "hardlink-to-lower", [base(), Layer().dir("n").same("n/one", "a/one")]
    yield "hardlink-to-symlink", [Layer().link("l", "nowhere").same("m", "l")]
    yield "hardlink-replaced", [Layer().file("f", "old").same("g", "f"), Layer().file("f", "new")]
    yield "file-to-folder", [base(), Layer().dir("a/one").file("a/one/in")]
    yield "folder-to-file", [base(), Layer().file("a", "now a file")]
    yield "folder-to-link", [base(), Layer().link("a", "c")]
    yield "link-to-folder", [base().link("l", "c"), Layer().dir("l").file("l/own")]
    yield "link-to-file", [Layer().file("f").link("l", "f"), Layer().file("l", "own")]
    yield "through-a-link", [Layer().dir("usr").dir("usr/bin").link("bin", "usr/bin"), Layer().file("bin/tool", mode=0o755)]
    yield "through-an-absolute-link", [Layer().dir("usr").dir("usr/lib").link("lib", "/usr/lib"), Layer().file("lib/thing")]
    yield "implied-parents", [base(), Layer().file("a/b/late")]
    yield "duplicates", [Layer().file("f", "first").file("f", "second").dir("d", 0o700).dir("d", 0o755)]
    yield "links", [Layer().link("dangling", "nowhere").link("loop", "loop").link("up", "../../../etc").link("abs", "/a").file("a")]
    yield "special", [Layer().put("null", tarfile.CHRTYPE, 0o666, device=(1, 3)).put("disk", tarfile.BLKTYPE, 0o660, device=(7, 0), owner=(0, 6))
                      .put("pipe", tarfile.FIFOTYPE, 0o640)]
    yield "xattrs", [Layer().file("f", xattrs={"user.one": "1", "user.two": "zwei"}).dir("d", xattrs={"user.dir": "yes"})
                     .file("ping", mode=0o755, xattrs={"security.capability": capability()})]
    yield "xattrs-lower", [Layer().file("f", xattrs={"user.old": "1"}), Layer().file("f", "new", xattrs={"user.new": "2"})]
    yield "names", [Layer().dir("d").file("d/" + "n" * 255).file("d/with space").file("d/über").file("d/new\nline").file("d/back\\slash")
                    .file("/".join(["p" * 60] * 6)).file(".hidden").file("-dash").file("d/.whale")]
    yield "dots", [Layer().dir("./").dir("./d").file("./d/f").file("d//g").file("/h")]
    yield "empty", [Layer(), Layer().file("f"), Layer()]
    yield "plain-layer", [Layer(packed=False).file("f", "not compressed")]
    yield "many", [Layer().dir(f"d{i}").file(f"d{i}/f{i}", str(i)) for i in range(12)]
    yield "large", [Layer().file("large", "0123456789abcdef" * (1 << 16)).file("empty", "")]


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def write_image(path, name, layers):
    blobs, descriptors, diffs = {}, [], []
    for layer in layers:
        tar = layer.finish()
        diffs.append(digest(tar))
        data = gzip.compress(tar, 6, mtime=0) if layer.packed else tar
        kind = "application/vnd.oci.image.layer.v1.tar" + ("+gzip" if layer.packed else "")
        blobs[digest(data)] = data
        descriptors.append({"mediaType": kind, "digest": digest(data), "size": len(data)})
    config = json.dumps({"architecture": "amd64", "os": "linux", "created": "2023-11-14T22:13:20Z", "config": {"Cmd": ["/none"]},
                         "rootfs": {"type": "layers", "diff_ids": diffs},
                         "history": [{"created": "2023-11-14T22:13:20Z", "created_by": name} for _ in diffs]}).encode()
    blobs[digest(config)] = config
    manifest = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                           "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(config), "size": len(config)},
                           "layers": descriptors}).encode()
    blobs[digest(manifest)] = manifest
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
             "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(manifest), "size": len(manifest),
                            "annotations": {"org.opencontainers.image.ref.name": "1",
                                            "io.containerd.image.name": f"example.test/{name}:1"}}]}
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index).encode()}
    files.update({"blobs/sha256/" + name[7:]: data for name, data in blobs.items()})
    with tarfile.open(path, "w") as tar:
        for inner, data in files.items():
            entry = tarfile.TarInfo(inner)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


def make(folder):
    for name, layers in images():
        write_image(os.path.join(folder, name + ".tar"), name, layers)
        print(name)


def tree(top):
    os.chdir(top)
    inodes, lines = {}, []
    for folder, dirs, files in os.walk(".", followlinks=False):
        dirs.sort()
        for name in sorted(dirs + files):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            inodes.setdefault((status.st_dev, status.st_ino), []).append(path[2:])
    for paths in inodes.values():
        for path in paths:
            status = os.lstat(path)
            kind = stat.S_IFMT(status.st_mode)
            line = [path, stat.filemode(status.st_mode), f"{status.st_uid}:{status.st_gid}"]
            if kind == stat.S_IFREG:
                with open(path, "rb") as file:
                    line += [str(status.st_size), hashlib.sha256(file.read()).hexdigest()[:16]]
                line.append("names=" + ",".join(sorted(paths)) if len(paths) > 1 else "")
            if kind == stat.S_IFLNK:
                line.append("-> " + os.readlink(path))
            if kind in (stat.S_IFCHR, stat.S_IFBLK):
                line.append(f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}")
            # A folder that no layer names has the time at which it was made.
            if kind != stat.S_IFDIR or status.st_mtime < NOON + 1_000_000:
                line.append(f"time={int(status.st_mtime)}")
            for key in sorted(os.listxattr(path, follow_symlinks=False)):
                if key.startswith("user.") or key == "security.capability":
                    line.append(key + "=" + os.getxattr(path, key, follow_symlinks=False).hex())
            lines.append("\t".join(line).encode("utf-8", "surrogateescape").replace(b"\n", b"\\n"))
    sys.stdout.buffer.write(b"".join(line + b"\n" for line in sorted(lines)))


def same(theirs, ours):
    """A folder that a layer changes without naming it, or that none names, has with others the time of the unpacking."""
    read = lambda path: {line.split("\t")[0]: line.split("\t") for line in open(path, encoding="utf-8", errors="surrogateescape").read().splitlines()}
    theirs, ours = read(theirs), read(ours)
    differ = False
    for path in sorted(theirs.keys() | ours.keys()):
        wanted, got = theirs.get(path, []), ours.get(path, [])
        if wanted and got and wanted[1].startswith("d") and not any(word.startswith("time=") for word in wanted):
            got = [word for word in got if not word.startswith("time=")]
        if wanted != got:
            differ = True
            print("theirs", *wanted, sep="\t")
            print("ours  ", *got, sep="\t")
    sys.exit(differ)


if __name__ == "__main__":
    {"make": make, "tree": tree, "same": same}[sys.argv[1]](*sys.argv[2:])
