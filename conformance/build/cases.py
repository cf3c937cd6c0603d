"""The cases of buildah's conformance test: its table, and the build contexts of its entries.

The table is read from the checkout. What a case does to its context before the build is a Go function there; those that write a
.dockerignore are read, the few others are told here again.
"""

import io
import os
import re
import shutil
import tarfile

from literals import Literal, literals

MODES = {"syscall.S_ISUID": 0o4000, "syscall.S_ISGID": 0o2000, "syscall.S_ISVTX": 0o1000}
# The time that the test gives to what it writes.
DATE = 1_485_449_953


class Case:
    def __init__(self, name, entry, testdata):
        self.name, self.entry, self.testdata = name, entry, testdata
        self.dockerfile = entry.get("dockerfile") or "Dockerfile"
        self.arguments = [word for key, value in entry.get("buildArgs", {}).items() for word in ("--build-arg", f"{key}={value}")]
        self.refused = bool(entry.get("shouldFailAt"))
        self.skips = [skip.replace("(dir):", "").split(":") for skip in entry.get("fsSkip", [])]

    def text(self):
        text = self.entry.get("dockerfileContents")
        if text is not None:
            return text
        return (self.testdata / self.entry.get("contextDir", "") / self.dockerfile).read_text()

    def compares_time(self, path):
        """Whether the test compares the time of this path."""
        parts = path.split("/")
        if parts in (["dev"], ["proc"], ["sys"], ["etc"]):
            return False
        for skip in self.skips:
            # All of a tree is skipped, or the time of one entry.
            if parts + ["mtime"] == skip or (skip[-1] != "mtime" and parts[: len(skip)] == skip):
                return False
        return True

    def lay(self, context, rewrite):
        """The build context, with the Dockerfile as `rewrite` has it; the path of that."""
        folder = self.entry.get("contextDir")
        if folder:
            shutil.copytree(self.testdata / folder, context, symlinks=True)
        else:
            context.mkdir()
        tweak = self.entry.get("tweakContextDir")
        if tweak and "dockerignore" in tweak:
            ignore(context, tweak)
        elif tweak:
            TWEAKS[self.name](context)
        if folder == "mount-targets":
            # A program that is linked statically; busybox looks at its name.
            shutil.copy(shutil.which("busybox"), context / "true")
        file = context / self.dockerfile
        file.write_text(rewrite(self.text()))
        file.chmod(0o644)
        for path in (file, context):
            os.utime(path, (DATE, DATE))
        return file


def read(checkout):
    source = (checkout / "tests/conformance/conformance_test.go").read_text()
    table = literals(source, "var internalTestCases = []testCase{", MODES)[0]
    seen = {}
    for entry in table:
        name = entry["name"]
        seen[name] = seen.get(name, 0) + 1
        yield Case(f"{name} ({seen[name]})" if seen[name] > 1 else name, entry, checkout / "tests/conformance/testdata")


def ignore(context, tweak):
    """The .dockerignore that a function writes, and its mode."""
    start = tweak.index("dockerignore")
    # After `:=`, which is two tokens.
    text = Literal(" ".join(tweak[start + 3 :])).value()
    mode = int(re.search(r"dockerignore , (0o\d+)", " ".join(tweak[start + 3 :])).group(1), 0)
    write(context / ".dockerignore", text, mode & ~0o022)


def write(path, text, mode, owner=0):
    path.write_text(text)
    os.chown(path, owner, owner)
    path.chmod(mode)
    os.utime(path, (DATE, DATE))


def globs(context):
    for folder, text in (("jkl?", "another"), ("n?pe", "and also"), ("st*uv", "and yet")):
        (context / "app" / folder).mkdir(mode=0o700)
        write(context / "app" / folder / "file.txt", text, 0o600)


def owners(folder, names):
    def lay(context):
        (context / folder).mkdir(mode=0o755)
        for name, owner in zip(names, (0, 99)):
            write(context / folder / name, "test content", 0o640, owner)
    return lay


def permissions(context):
    owners("archive", ["should-be-owned-by-root", "should-be-owned-by-99"])(context)
    entries = [("archive/should-be-owned-by-root", 0o640, 0), ("archive/should-be-owned-by-99", 0o640, 99)]
    archive(context, [(name, mode, owner, "test content", {}) for name, mode, owner in entries])


def archive(context, entries):
    with tarfile.open(context / "archive.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name, mode, owner, text, attributes in entries:
            entry = tarfile.TarInfo(name)
            entry.mode, entry.uid, entry.gid, entry.mtime, entry.pax_headers = mode, owner, owner, DATE, attributes
            entry.type = tarfile.REGTYPE if text else tarfile.DIRTYPE
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))


def special(context):
    for name, mode in (("should-be-setuid-file", 0o4755), ("should-be-setgid-file", 0o2755), ("should-be-sticky-file", 0o1755),
                       ("should-not-be-setuid-setgid-sticky-file", 0o640)):
        write(context / name, "test content", mode)


def special_in_archive(context):
    kinds = (("setuid", 0o4755), ("setgid", 0o2755), ("sticky", 0o1755))
    archive(context, [(f"{name}-file", mode, 0, "whatever", {}) for name, mode in kinds]
            + [(f"{name}-dir", mode, 0, "", {}) for name, mode in kinds])


def attributes(context):
    write(context / "xattrs-file", "test content", 0o640)
    os.setxattr(context / "xattrs-file", "user.a", b"test")


TWEAKS = {
    "copy-escape-glob": globs,
    "add-permissions": permissions,
    "copy-permissions": owners("subdir", ["would-be-owned-by-root", "would-be-owned-by-99"]),
    "copy-permissions-implicit": owners("subdir", ["would-be-owned-by-root", "would-be-owned-by-99"]),
    "setuid-file-in-context": special,
    "setuid-file-in-archive": special_in_archive,
    "xattrs-file-in-context": attributes,
    "xattrs-file-in-other-stage": attributes,
    "xattrs-file-in-archive": lambda context: archive(context, [("xattr-file", 0o640, 0, "whatever", {"SCHILY.xattr.user.a": "test"})]),
}
