#!/usr/bin/env python3
"""Do the Dockerfiles of other builders' tests build?

  conformance/build/contexts.py [--dhow BIN] [--only REGEX] [--logs DIR] buildah|kaniko CHECKOUT

CHECKOUT is one of containers/buildah (its tests/bud) or of GoogleContainerTools/kaniko (its integration/dockerfiles);
it is not fetched. Nothing is pulled either: every base image that a Dockerfile asks for is a stand-in of that name, made
of the busybox of this machine, with the users and folders that distributions have. Run it as root. One line for each
Dockerfile: `built`; `refused` when it does not build and buildah's own tests want it so (tests/bud.bats); or `failed` with the
last error.
"""

import argparse
import functools
import http.server
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading

# What kaniko's own tests give (integration/images.go).
KANIKO_ARGUMENTS = {
    "Dockerfile_test_run": ["file=/file"],
    "Dockerfile_test_run_new": ["file=/file"],
    "Dockerfile_test_run_redo": ["file=/file"],
    "Dockerfile_test_workdir": ["workdir=/arg/workdir"],
    "Dockerfile_test_add": ["file=context/foo"],
    "Dockerfile_test_arg_secret": ["SSH_PRIVATE_KEY=a", "SSH_PUBLIC_KEY=b"],
    "Dockerfile_test_onbuild": ["file=/tmp/onbuild"],
    "Dockerfile_test_scratch": ["image=scratch", "hello=hello-value", "file=context/foo", "file3=context/b*"],
    "Dockerfile_test_multistage": ["file=/foo2"],
}
KANIKO_CONTEXTS = {"Dockerfile_relative_copy": "context", "Dockerfile_git_buildcontext": ".."}
KANIKO_TARGETS = {"Dockerfile_test_target": "second"}
# What buildah's tests give (tests/bud.bats), by folder and by folder and file.
BUILDAH_FLAGS = {
    "add-checksum": [],
    "base-with-arg/Containerfile2": ["--build-arg", "CUSTOM_TARGET=first"],
    "cache-chown": ["--build-arg", "HTTP_SERVER_PORT={port}"],
    "copy-chown/Containerfile.chown_user": ["--build-arg", "SAFEIMAGE=busybox"],
    "from-with-arg": ["--build-arg", "base=alpine", "--build-arg", "toolchainname=busybox", "--build-arg", "destinationpath=/tmp"],
    "inline-network": ["--allow", "network.host"],
    "multiarch": ["--build-arg", "SAFEIMAGE=alpine"],
    "secret-relative": ["--secret", "id=secret-foo,src={work}/secret", "--secret", "id=secret-bar,src={work}/secret"],
    "use-layers": ["--build-arg", "HTTP_SERVER_PORT={port}"],
    "run-mounts": ["--secret", "id=mysecret,src={work}/secret", "--ssh", "default={work}/agent"],
    "with-arg/Dockerfilefromarg": ["--build-arg", "app_type=x", "--build-arg", "another_app_type=m"],
}
# Files that buildah's tests make first.
BUILDAH_FILES = {
    "copy-archive": ["test.tar.xz"],
    "namespaces": ["somefile", "somedir/someotherfile"],
    "use-layers": ["blah", "hello_world.sh", "mount/file", "uuid/data", "date/data", "README.md"],
}
# Images that later Dockerfiles of the same folder begin with.
BUILDAH_IMAGES = {"buildkit-mount-from": [("Dockerfilebuildkitbase", "buildkitbase"), ("Dockerfilebuildkitbaserelative", "buildkitbaserelative")]}
# What the stand-in lacks of distributions' programs, as scripts. The managers of packages install nothing.
PROGRAMS = {
    **dict.fromkeys(["apk", "apt", "apt-get", "yum", "dnf"], ":"),
    "bash": 'exec sh "$@"',
    "adduser": '''id=1000 home= name=
while [ $# -gt 0 ]; do
    case $1 in -u|--uid) id=$2; shift 2 ;; -h|--home) home=$2; shift 2 ;; -g|--gecos|-G|-s) shift 2 ;; -*) shift ;; *) name=$1; shift ;; esac
done
while grep -q "^[^:]*:[^:]*:$id:" /etc/passwd; do id=$((id + 1)); done
home=${home:-/home/$name}
echo "$name:x:$id:$id::$home:/bin/sh" >>/etc/passwd
echo "$name:x:$id:" >>/etc/group
mkdir -p "$home" && chown "$id:$id" "$home"''',
    "useradd": """id=1000 home= make=
while [ $# -gt 1 ]; do
    case $1 in
    -u|--uid) id=$2; shift 2 ;; -d|--home-dir|--home) home=$2; shift 2 ;; -g|--gid|-G|-s|-c) shift 2 ;;
    -m|--create-home) make=1; shift ;; *) shift ;;
    esac
done
while grep -q "^[^:]*:[^:]*:$id:" /etc/passwd; do id=$((id + 1)); done
home=${home:-/home/$1}
echo "$1:x:$id:$id::$home:/bin/sh" >>/etc/passwd
echo "$1:x:$id:" >>/etc/group
[ -z "$make" ] || { mkdir -p "$home" && chown "$id:$id" "$home"; }""",
    "groupadd": 'exec addgroup "$@"',
    "usermod": ":",
    "addgroup": '''id=2000
while [ $# -gt 1 ]; do
    case $1 in -g|--gid) id=$2; shift 2 ;; -*) shift ;; *) break ;; esac
done
if [ $# = 2 ]; then
    sed -i "s/^$2:.*/&,$1/; s/:,/:/" /etc/group
    exit
fi
while grep -q ":$id:" /etc/group; do id=$((id + 1)); done
echo "$1:x:$id:" >>/etc/group''',
}
# How long one build may take.
PATIENCE = 120
# The time of all in a stand-in.
LAID = 1_700_000_000


def stand_in(folder):
    """A tar with the root file system of a stand-in."""
    root = folder / "root"
    for name in "bin dev etc home opt proc root run sbin srv sys tmp usr/bin usr/sbin usr/local/bin var/lib var/log var/tmp".split():
        (root / name).mkdir(parents=True)
    for name in ("tmp", "var/tmp"):
        (root / name).chmod(0o1777)
    busybox = shutil.which("busybox") or sys.exit("contexts: there is no busybox")
    shutil.copy(busybox, root / "bin/busybox")
    for applet in subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split():
        (root / "bin" / applet).exists() or (root / "bin" / applet).symlink_to("busybox")
    for program, script in PROGRAMS.items():
        (root / "bin" / program).unlink(missing_ok=True)
        (root / "bin" / program).write_text(f"#!/bin/sh\n{script}\n")
        (root / "bin" / program).chmod(0o755)
    (root / "home/podman").mkdir()
    (root / "home/podman/testimage-id").write_text("stand-in\n")
    (root / "etc/hostname").write_text("localhost\n")
    for name in ("env", "script"):
        (root / "usr/bin" / name).symlink_to(f"/bin/{name}")
    users = ["root:x:0:0:root:/root:/bin/sh", "bin:x:1:1:bin:/bin:/sbin/nologin", "daemon:x:2:2:daemon:/sbin:/sbin/nologin"]
    users += ["adm:x:3:4:adm:/var/adm:/sbin/nologin", "lp:x:4:7:lp:/var/spool/lpd:/sbin/nologin"]
    users += ["mail:x:8:12:mail:/var/mail:/sbin/nologin"]
    users += ["games:x:35:35:games:/usr/games:/sbin/nologin", "www-data:x:33:33:www:/var/www:/sbin/nologin"]
    users += ["guest:x:405:100:guest:/dev/null:/sbin/nologin", "nobody:x:65534:65534:nobody:/:/sbin/nologin"]
    groups = ["root:x:0:root", "bin:x:1:", "daemon:x:2:", "sys:x:3:", "adm:x:4:", "tty:x:5:", "lp:x:7:", "mail:x:12:", "www-data:x:33:"]
    groups += ["games:x:35:", "users:x:100:", "nogroup:x:65533:", "nobody:x:65534:"]
    (root / "etc/passwd").write_text("\n".join(users) + "\n")
    (root / "etc/group").write_text("\n".join(groups) + "\n")
    (root / "etc/nsswitch.conf").write_text("hosts: files dns\n")
    (root / "etc/shadow").write_text("root:*::0:::::\n")
    (root / "etc/hosts").write_text("127.0.0.1\tlocalhost\n")
    (root / "etc/os-release").write_text('ID=alpine\nVERSION_ID=3.20\nPRETTY_NAME="stand-in"\n')
    archive = folder / "stand-in.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(root, "", filter=lambda entry: entry.replace(uid=0, gid=0, uname="", gname="", mtime=LAID, deep=False))
    return archive


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class Builder:
    def __init__(self, program, work):
        self.program, self.work, self.known = program, work, set()
        self.run(["import", stand_in(work), "stand.in/base:1"], check=True)
        (work / "secret").write_text("SOMESECRETDATA\n")
        self.agent = socket.socket(socket.AF_UNIX)
        self.agent.bind(str(work / "agent"))
        self.agent.listen()
        (work / "www").mkdir()
        (work / "www/README.md").write_text("stand-in\n")
        handler = functools.partial(Quiet, directory=work / "www")
        self.web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.web.serve_forever, daemon=True).start()

    def run(self, arguments, check=False):
        command = [self.program, "--root", self.work / "store", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=PATIENCE, check=check)

    def give(self, name):
        """A stand-in of this name; whether there was none."""
        if name in self.known or not re.fullmatch(r"[a-z0-9][a-z0-9._/:-]*", name):
            return False
        self.known.add(name)
        return self.run(["tag", "stand.in/base:1", name]).returncode == 0

    def build(self, file, context, flags):
        text = file.read_text(errors="surrogateescape")
        copy = self.work / "Dockerfile"
        # A stand-in has the digest of no image.
        copy.write_text(re.sub(r"@sha256:[0-9a-f]{64}", "", text), errors="surrogateescape")
        own = file.with_name(file.name + ".dockerignore")
        ignore = own if own.exists() else context / ".dockerignore"
        beside = copy.with_name("Dockerfile.dockerignore")
        beside.unlink(missing_ok=True)
        if ignore.exists():
            shutil.copy(ignore, beside)
        for name in re.findall(r"^\s*FROM\s+(?:--platform=\S+\s+)?([^\s$@]+)", text, re.I | re.M):
            self.give(name)
        for name in re.findall(r"from=([^\s,$@]+)", text):
            self.give(name) if re.search(r"[/:]|^(alpine|busybox|ubuntu|debian)$", name) else None
        for _ in range(8):
            try:
                ran = self.run(["build", "--progress", "plain", "-f", copy, *flags, context])
            except subprocess.TimeoutExpired:
                return False, f"no end within {PATIENCE} s", ""
            said = ran.stdout + ran.stderr
            if ran.returncode == 0:
                return True, "", said
            missing = re.search(r"pull ([^\s:]+(?::[^\s:]+)?):", said)
            if not missing or not self.give(missing.group(1)):
                break
        errors = re.findall(r"^ERROR: (.*)$", said, re.M) or said.strip().splitlines()[-1:]
        return False, (errors or ["no output"])[-1], said


def buildah(checkout):
    bud = checkout / "tests/bud"
    # What reads a cache comes behind what writes it.
    order = lambda path: ("read" in path.name, path.name)
    for folder in sorted(path for path in bud.iterdir() if path.is_dir()):
        files = [path for path in sorted(folder.iterdir(), key=order) if path.is_file()]
        for file in files:
            if re.match(r"(Docker|Container)file", file.name) and not file.name.endswith((".in", ".dockerignore")):
                flags = BUILDAH_FLAGS.get(f"{folder.name}/{file.name}", BUILDAH_FLAGS.get(folder.name, []))
                yield folder.name, file, folder, flags


def wanted_to_fail(checkout):
    """Folder and file of every Dockerfile that buildah's tests only ever build in vain."""
    outcomes = {}
    text = (checkout / "tests/bud.bats").read_text().replace("\\\n", " ")
    for code, words in re.findall(r"run_buildah (\d+ )?(?:build|bud) ([^\n]*)", text):
        folder = re.findall(r"\$BUDFILES/([\w-]+)", words)
        file = re.findall(r"(?:-f|--file)[ =]\S*?([\w.-]+)(?= |$)", words)
        for name in folder[:1]:
            for chosen in file or ["Dockerfile", "Containerfile"]:
                outcomes.setdefault((name, chosen), set()).add(bool(code and int(code)))
    return {case for case, found in outcomes.items() if found == {True}}


def kaniko(checkout):
    integration = checkout / "integration"
    for file in sorted((integration / "dockerfiles").iterdir()):
        if not file.is_file() or not file.name.startswith("Dockerfile") or file.name.endswith(".dockerignore"):
            continue
        flags = [word for value in KANIKO_ARGUMENTS.get(file.name, []) for word in ("--build-arg", value)]
        if file.name in KANIKO_TARGETS:
            flags += ["--target", KANIKO_TARGETS[file.name]]
        yield file.name, file, integration / KANIKO_CONTEXTS.get(file.name, ""), flags


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--dhow", default="dist/dhow")
    parser.add_argument("--only", default="")
    parser.add_argument("--logs")
    parser.add_argument("suite", choices=["buildah", "kaniko"])
    parser.add_argument("checkout", type=pathlib.Path)
    given = parser.parse_args()
    cases = list({"buildah": buildah, "kaniko": kaniko}[given.suite](given.checkout.resolve()))
    vain = wanted_to_fail(given.checkout) if given.suite == "buildah" else set()
    work = pathlib.Path(tempfile.mkdtemp(prefix="contexts.", dir="/var/tmp"))
    built, refused, groups = 0, 0, {}
    try:
        builder = Builder(os.path.abspath(given.dhow), work)
        cases = [case for case in cases if re.search(given.only, f"{case[0]}/{case[1].name}")]
        for group, file, context, flags in cases:
            for first, image in BUILDAH_IMAGES.get(group, []):
                if image not in builder.known:
                    builder.known.add(image)
                    builder.build(context / first, context, ["-t", image])
            if given.suite == "buildah" and group in BUILDAH_FILES:
                # The checkout stays as it is.
                copy = work / "contexts" / group
                if not copy.exists():
                    shutil.copytree(context, copy, symlinks=True)
                for name in BUILDAH_FILES[group]:
                    (copy / name).parent.mkdir(parents=True, exist_ok=True)
                    (copy / name).exists() or (copy / name).write_text("#!/bin/sh\n")
                context = copy
            port = builder.web.server_port
            good, why, said = builder.build(file, context, [flag.format(work=work, port=port) for flag in flags])
            in_vain = not good and (group, file.name) in vain
            built, refused = built + good, refused + in_vain
            groups[group] = groups.get(group, True) and (good or in_vain)
            name = group if group == file.name else f"{group}/{file.name}"
            print(f"built   {name}" if good else f"{'refused' if in_vain else 'failed '} {name}: {why}", flush=True)
            if given.logs:
                log = pathlib.Path(given.logs) / name.replace("/", ".")
                log.parent.mkdir(parents=True, exist_ok=True)
                log.write_text(said, errors="surrogateescape")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(f"{built} of {len(cases)} Dockerfiles built, {refused} refused as they should be; {sum(groups.values())} of {len(groups)} folders wholly")


if __name__ == "__main__":
    main()
