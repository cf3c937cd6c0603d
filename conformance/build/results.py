#!/usr/bin/env python3
"""Is what we build what docker and buildah build? The cases of buildah's conformance test, compared.

  conformance/build/results.py [--dhow BIN] [--docker COMMAND] [--frontend BIN] [--buildah COMMAND] [--theirs DIR] [--only REGEX] CHECKOUT

CHECKOUT is one of containers/buildah; it is not fetched. Each case of tests/conformance is built with ours and with each reference that
is named: with docker's BuildKit, with its classic builder, and with buildah. COMMAND is a client with its options (`docker -H
unix:///run/docker.sock`; its buildx is needed for BuildKit). Nothing is pulled: every base image is a stand-in made of busybox
(contexts.py), the same bytes for all. Frontends are not pulled either: a `# syntax=` line is dropped. With --frontend, a program of
BuildKit's cmd/dockerfile-frontend, docker's BuildKit reads all Dockerfiles by that one instead of its own. With --theirs, what the
references made is kept in that folder and not made again the next time. Run it as root, on a file system that overlay works on (TMPDIR).

Compared: the configuration, without what is of containers; history: the words as BuildKit writes them, or with the others, whose words
are their own, the instruction and whether it made a layer; the number of layers; and the tree, entry by entry: kind, mode, owner, size,
content, target, device, attributes, names of one file, and times in whole seconds, where the test compares them. Two times of the build
itself are the same.

One line for each case and reference: `same`; `refused` when neither builds it; `differs`, with each difference and its reason
(reasons.py); or `left`, when it is not comparable. A table follows. It exits non-zero when a difference has no reason.
"""

import argparse
import collections
import hashlib
import io
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time

import archived
import cases
import reasons
from contexts import PATIENCE, stand_in

HERE = f"results.example/case:{os.getpid()}"
FRONTEND = "results.example/frontend:1"
PATHS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Failure(Exception):
    pass


def run(command, **more):
    try:
        ran = subprocess.run([*map(str, command)], capture_output=True, text=True, errors="replace", timeout=PATIENCE, **more)
    except subprocess.TimeoutExpired:
        raise Failure(f"no end within {PATIENCE} s") from None
    if ran.returncode:
        said = (ran.stdout + ran.stderr).strip().splitlines()
        errors = [line for line in said if re.match(r"(ERROR|Error|error)\b", line)]
        raise Failure((errors or said or ["no output"])[-1])
    return ran.stdout + ran.stderr


def image(path, layer, config, names):
    """A docker archive of one layer."""
    document = {"architecture": machine(), "os": "linux", "created": "2023-11-14T22:13:20Z", "config": config,
                "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
                "history": [{"created": "2023-11-14T22:13:20Z", "created_by": "stand-in"}]}
    manifest = [{"Config": "config.json", "RepoTags": names, "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as archive:
        files = {"config.json": json.dumps(document).encode(), "layer.tar": layer, "manifest.json": json.dumps(manifest).encode()}
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def machine():
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


class Ours:
    name = "ours"

    def __init__(self, program, work):
        self.command = [os.path.abspath(program), "--root", work / "ours"]

    def load(self, path, _names):
        run([*self.command, "load", "-q", "-i", path])

    def build(self, file, context, arguments, path):
        run([*self.command, "build", "--no-cache", "--network", "none", "--progress", "plain", "-f", file, "-t", HERE, *arguments, context])
        run([*self.command, "save", "-o", path, HERE])


class Docker:
    def __init__(self, name, command, frontend=False):
        self.name, self.command = name, command
        self.environment = {**os.environ, "DOCKER_BUILDKIT": "01"[name == "BuildKit"]}
        self.more = ["--build-arg", f"BUILDKIT_SYNTAX={FRONTEND}"] if frontend else []

    def load(self, path, _names):
        run([*self.command, "load", "-q", "-i", path])

    def build(self, file, context, arguments, path):
        words = ["build", "--no-cache", "--network", "none", "-f", file, "-t", HERE, *arguments, *self.more, context]
        try:
            run([*self.command, *words], env=self.environment)
            run([*self.command, "save", "-o", path, HERE])
            run([*self.command, "rmi", "-f", HERE])
        finally:
            if "type=cache" in file.read_text():
                run([*self.command, "builder", "prune", "-af"])


class Buildah:
    name = "buildah"

    def __init__(self, command, work):
        self.command = [*command, "--root", work / "buildah", "--runroot", work / "buildah-run"]

    def load(self, path, names):
        run([*self.command, "pull", "-q", f"docker-archive:{path}"])
        for name in names[1:]:
            run([*self.command, "tag", names[0], name])

    def build(self, file, context, arguments, path):
        words = ["build", "--pull=never", "--isolation", "chroot", "--layers", "--no-cache", "--format", "docker", "-f", file, "-t", HERE]
        run([*self.command, *words, *arguments, context])
        path.unlink(missing_ok=True)
        run([*self.command, "push", "-q", HERE, f"docker-archive:{path}:{HERE}"])
        run([*self.command, "rmi", "-f", HERE])


def rewrite(text):
    """A Dockerfile for stand-ins: one has the digest of no image, and a frontend is not pulled."""
    text = re.sub(r"@sha256:[0-9a-f]{64}", "", text)
    return re.sub(r"^# *syntax=.*$", "#", text, flags=re.M)


class Suite:
    def __init__(self, given, work):
        self.work, self.kept, self.frontend = work, given.theirs, given.frontend
        self.cases = list(cases.read(given.checkout.resolve()))
        self.ours = Ours(given.dhow, work)
        self.references = []
        if given.docker:
            command = shlex.split(given.docker)
            self.references += [Docker("BuildKit", command, bool(given.frontend)), Docker("classic", command)]
        if given.buildah:
            self.references.append(Buildah(shlex.split(given.buildah), work))
        self.counts = {reference.name: collections.Counter() for reference in self.references}
        self.used = collections.defaultdict(set)
        self.unexplained = 0

    def prepare(self):
        texts = "\n".join([case.text() for case in self.cases] + [" ".join(case.arguments) for case in self.cases])
        found = set(re.findall(r"\b((?:mirror\.gcr\.io|quay\.io)/[\w./-]+(?::[\w.-]+)?)", texts))
        names = sorted({name if ":" in name else f"{name}:latest" for name in found})
        base = image(self.work / "base.tar", stand_in(self.work).read_bytes(), {"Env": [f"PATH={PATHS}"], "Cmd": ["sh"]}, names)
        for builder in [self.ours, *self.references]:
            # Both builders of docker have one store.
            builder.name == "classic" or builder.load(base, names)
        for reference in self.references:
            if self.frontend and reference.name == "BuildKit":
                layer = io.BytesIO()
                with tarfile.open(fileobj=layer, mode="w") as tar:
                    tar.add(self.frontend, "frontend")
                front = image(self.work / "frontend.tar", layer.getvalue(), {"Entrypoint": ["/frontend"]}, [FRONTEND])
                reference.load(front, [FRONTEND])

    def build(self, builder, case, place):
        """Builds a case into `place`: the archive, or why there is none, and when it was begun."""
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        # BuildKit has files of an earlier context of the same name in place of those with the same size and time.
        context = place / re.sub(r"\W", "-", case.name)
        file = case.lay(context, rewrite)
        start, refusal = int(time.time()), ""
        try:
            builder.build(file, context, case.arguments, place / "image.tar")
        except Failure as why:
            refusal = str(why)
        shutil.rmtree(context)
        (place / "outcome").write_text(f"{start}\n{refusal}")

    def image(self, builder, case):
        """The image, or why there is none."""
        place = self.work / "case" / builder.name
        if self.kept and builder is not self.ours:
            place = pathlib.Path(self.kept) / builder.name / case.name.replace("/", ".")
        if builder is self.ours or not (place / "outcome").exists():
            self.build(builder, case, place)
        start, refusal = (place / "outcome").read_text().split("\n", 1)
        return (None, refusal) if refusal else (archived.read(place / "image.tar", int(start)), None)

    def compare(self, case):
        if case.name in reasons.LEFT:
            print(f"left     {case.name}: {reasons.LEFT[case.name]}", flush=True)
            for counts in self.counts.values():
                counts["left"] += 1
            return
        ours, our_refusal = self.image(self.ours, case)
        for reference in self.references:
            theirs, refusal = self.image(reference, case)
            if ours and theirs:
                lines = archived.differences(theirs, ours, case, exact=reference.name == "BuildKit")
            elif ours or theirs:
                lines = [f"refused: theirs {refusal}" if ours else f"refused: ours {our_refusal}"]
            else:
                self.counts[reference.name]["refused"] += 1
                note = "" if case.refused else ", though the test has it built"
                print(f"refused  {case.name} ({reference.name}){note}: theirs {refusal}; ours {our_refusal}", flush=True)
                continue
            self.tell(case, reference, lines)

    def tell(self, case, reference, lines):
        told = [(line, reasons.reason(reference.name, case.name, line)) for line in lines]
        outcome = "same" if not told else "differs"
        unexplained = sum(1 for _, why in told if why is None)
        self.unexplained += unexplained
        self.counts[reference.name]["unexplained" if unexplained else outcome] += 1
        print(f"{outcome:8} {case.name} ({reference.name})", flush=True)
        for line, why in told:
            self.used[why, reference.name].add(case.name)
            print(f"             {line} [{why or 'NO REASON'}]", flush=True)

    def table(self):
        print("\n| reference | same | refused alike | differ, for the reasons below | differ without a reason | not comparable |")
        print("|---|---|---|---|---|---|")
        for name, counts in self.counts.items():
            print(f"| {name} | " + " | ".join(str(counts[key]) for key in ("same", "refused", "differs", "unexplained", "left")) + " |")
        print("\n| reason | " + " | ".join(self.counts) + " | |\n|---|" + "---|" * (len(self.counts) + 1))
        for key, text in reasons.TEXTS.items():
            cells = [str(len(self.used[key, name]) or "") for name in self.counts]
            print(f"| {key} | " + " | ".join(cells) + f" | {text} |")


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--dhow", default="dist/dhow")
    parser.add_argument("--docker")
    parser.add_argument("--frontend")
    parser.add_argument("--buildah")
    parser.add_argument("--only", default="")
    parser.add_argument("--theirs")
    parser.add_argument("checkout", type=pathlib.Path)
    given = parser.parse_args()
    if not given.docker and not given.buildah:
        parser.error("there is nothing to compare with: name --docker or --buildah")
    work = pathlib.Path(tempfile.mkdtemp(prefix="results.", dir=os.environ.get("TMPDIR", "/var/tmp")))
    try:
        suite = Suite(given, work)
        suite.prepare()
        for case in suite.cases:
            if re.search(given.only, case.name):
                suite.compare(case)
        suite.table()
    finally:
        shutil.rmtree(work, ignore_errors=True)
    sys.exit(suite.unexplained != 0)


if __name__ == "__main__":
    main()
