#!/usr/bin/env python3
"""podman's Quadlet fixtures (test/e2e/quadlet/*) through our generator.

The caller has the checkout. What is to come of each file stands in its comments (`## assert-...`), and which files go together
stands in the tables of test/e2e/quadlet_test.go: both are read, nothing of them is copied.

usage: conformance/engine/quadlet.py [--dhow BIN] [--only REGEX] SUITE
"""

import argparse
import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

SUFFIXES = {"volume", "network", "image", "build", "artifact", "pod"}


class Case:
    def __init__(self, file, code=0, error="", beside=(), service=None):
        self.file, self.code, self.error, self.beside = file, code, error, list(beside)
        stem, extension = file.rsplit(".", 1)
        if service is None:
            service = f"{stem}-{extension}" if extension in SUFFIXES else stem
        self.service = service + ".service"


def strings(text):
    return [word.replace('\\"', '"').replace("\\\\", "\\") for word in re.findall(r'"((?:[^"\\]|\\.)*)"', text)]


def entries(body):
    """The arguments of each Entry(...) of a table."""
    at = 0
    while (at := body.find("Entry(", at)) >= 0:
        depth, quoted, begin = 1, False, at + len("Entry(")
        at = begin
        while depth:
            if body[at] == "\\" and quoted:
                at += 1
            elif body[at] == '"':
                quoted = not quoted
            elif not quoted:
                depth += {"(": 1, ")": -1}.get(body[at], 0)
            at += 1
        yield body[begin : at - 1]


def cases(source):
    tables = re.split(r"DescribeTable\(", source)[1:]
    for table in tables:
        title = strings(table)[0]
        for entry in entries(table):
            words = strings(entry)
            if "dependencies" in title:
                yield Case(words[1], beside=words[2:])
            elif "ServiceName" in title:
                yield Case(words[1], service=words[2])
            elif "warning" in title:
                yield Case(words[1], error=words[2])
            elif "error" in title:
                yield Case(words[1], code=1, error=words[2])
            elif "success" in title:
                yield Case(words[1])


def unit(path):
    """The keys of a service: (group, key) -> values; an empty one takes back. And (group, key, "last") -> the last as it is."""
    values, group = {}, ""
    with open(path, encoding="utf-8") as file:
        for line in file:
            line = line.strip()
            if not line or line[0] in "#;":
                continue
            if line[0] == "[":
                group = line[1 : line.index("]")]
                continue
            key, value = line.split("=", 1)
            found = values.setdefault((group, key.rstrip()), [])
            values[group, key.rstrip(), "last"] = value.strip()
            if value.strip():
                found.append(value.strip())
            else:
                found.clear()
    return values


ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "s": " ", "\\": "\\", '"': '"', "'": "'"}


def split(line):
    """Words as systemd splits them."""
    words, at = [], 0
    while at < len(line):
        if line[at] in " \t\n\r":
            at += 1
            continue
        word, quote = "", None
        while at < len(line) and (quote or line[at] not in " \t\n\r"):
            c = line[at]
            if c == quote:
                quote = None
            elif quote is None and c in "'\"":
                quote = c
            elif c == "\\" and at + 1 < len(line):
                at += 1
                wide = {"x": 2, "u": 4, "U": 8}.get(line[at])
                if wide:
                    word += chr(int(line[at + 1 : at + 1 + wide], 16))
                    at += wide
                elif line[at] in "01234567":
                    word += chr(int(line[at : at + 3], 8))
                    at += 2
                else:
                    word += ESCAPES[line[at]]
            else:
                word += c
            at += 1
        words.append(word)
    return words


def pairs(text, separator):
    fields = next(csv.reader([text], delimiter=separator))
    return dict((field.split("=", 1) + [""])[:2] for field in fields)


KEYS = {"": "ExecStart", "pre": "ExecStartPre", "stop": "ExecStop", "stop-post": "ExecStopPost", "reload": "ExecReload"}


def same(one, other, regex):
    return re.search(one, other) is not None if regex else one == other


def sublist(full, part, regex):
    fits = lambda at: all(same(word, full[at + index], regex) for index, word in enumerate(part))
    return bool(part) and any(fits(at) for at in range(len(full) - len(part) + 1))


def podman_words(form, words, values):
    """assert-podman-[pre|stop|stop-post|reload-][global-|final-]args[-key-val][-regex]"""
    match = re.fullmatch(r"(?:(pre|stop-post|stop|reload)-)?(global-|final-)?args(-key-val)?(-regex)?", form)
    if not match:
        raise ValueError(f"unknown assertion assert-podman-{form}")
    command, part, mapped, regex = match.groups()
    full = split((values.get(("Service", KEYS[command or ""])) or [""])[-1])
    if part == "final-":
        return len(full) >= len(words) and sublist(full[len(full) - len(words) :], words, regex)
    if part == "global-":
        if words[0] not in full:
            return False
        full, words = full[: full.index(words[0])], words[1:]
    if not mapped:
        return sublist(full, words, regex)
    wanted = pairs(words[2], words[1])
    for at, word in enumerate(full[:-1]):
        if word == words[0]:
            found = pairs(full[at + 1], words[1])
            if found.keys() == wanted.keys() and all(same(wanted[key], found[key], regex) for key in wanted):
                return True
    return False


def holds(op, words, values, errors, folder):
    if op == "assert-failed":
        return True
    if op == "assert-stderr-contains":
        return words[0] in errors
    if op == "assert-symlink":
        place = os.path.join(folder, words[0])
        return os.path.islink(place) and os.readlink(place) == words[1]
    if op.startswith("assert-podman-"):
        return podman_words(op[len("assert-podman-") :], words, values)
    found = values.get((words[0], words[1]), [])
    last = values.get((words[0], words[1], "last"))
    if op == "assert-key-is":
        return found == words[2:]
    if op == "assert-key-is-empty":
        return not found
    if op == "assert-has-key":
        return words[2] in found
    if op == "assert-key-is-regex":
        return len(found) == len(words[2:]) and all(re.search(*both) for both in zip(words[2:], found))
    if op == "assert-last-key-contains":
        return last is not None and words[2] in last
    if op == "assert-last-key-not-contains":
        return last is None or words[2] not in last
    if op == "assert-last-key-is-regex":
        return last is not None and re.search(words[2], last) is not None
    raise ValueError(f"unknown assertion {op}")


def run(case, fixtures, program):
    """What is wrong, a line each."""
    with tempfile.TemporaryDirectory() as work:
        # The names that some of the assertions look for.
        work = os.path.join(work, "podman-e2e-0", "subtest-0")
        source, output = os.path.join(work, "quadlet"), os.path.join(work, "generated")
        os.makedirs(source)
        os.mkdir(output)
        template = re.sub(r"@[^.]+(\.[a-z]+)$", r"@\1", case.file)
        for name in {case.file, *case.beside}:
            shutil.copy(os.path.join(fixtures, name), source)
        for folder in {case.file + ".d", template + ".d"}:
            if os.path.isdir(os.path.join(fixtures, folder)):
                shutil.copytree(os.path.join(fixtures, folder), os.path.join(source, folder))
        environment = {**os.environ, "QUADLET_UNIT_DIRS": source, "PODMAN": "/usr/bin/podman"}
        done = subprocess.run(
            [program, "quadlet", "--no-kmsg-log", output], env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        wrong = []
        if done.returncode != case.code:
            wrong.append(f"exit code {done.returncode}: {done.stderr.strip()}")
        if case.error not in done.stderr:
            wrong.append(f"it does not say {case.error!r}: {done.stderr.strip()}")
        with open(os.path.join(fixtures, case.file), encoding="utf-8") as file:
            checks = [shlex.split(line[2:]) for line in file.read().split("\n") if line.startswith("##")]
        failing = any(check[0] == "assert-failed" for check in checks if check)
        path = os.path.join(output, case.service)
        if os.path.exists(path) == failing:
            return wrong + [f"there is {'a' if failing else 'no'} {case.service}"]
        values = {} if failing else unit(path)
        for op, *words in filter(None, checks):
            words = [word.replace("\\n", "\n").replace("\\t", "\t") for word in words]
            if holds(op.lstrip("!"), words, values, done.stderr, output) == op.startswith("!"):
                wrong.append(f"{op} {words}")
        return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dhow", default=os.path.join(os.path.dirname(__file__), "../../dist/dhow"))
    parser.add_argument("--only", default="")
    parser.add_argument("suite", help="a checkout of podman, or its folder test/e2e")
    options = parser.parse_args()
    suite = os.path.join(options.suite, "test/e2e")
    suite = suite if os.path.isdir(suite) else options.suite
    with open(os.path.join(suite, "quadlet_test.go"), encoding="utf-8") as file:
        found = [case for case in cases(file.read()) if re.search(options.only, case.file)]
    if not found:
        sys.exit(f"no case in {suite}")
    failed = 0
    for case in found:
        wrong = run(case, os.path.join(suite, "quadlet"), os.path.abspath(options.dhow))
        failed += bool(wrong)
        for line in wrong:
            print(f"FAIL {case.file}: {line}")
    print(f"{len(found) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
