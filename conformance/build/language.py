#!/usr/bin/env python3
"""Does our parser read a Dockerfile as BuildKit's does, and do our ignore patterns match as docker's do?

  conformance/build/language.py BUILDKIT [PATTERNMATCHER]

BUILDKIT is a checkout of moby/buildkit, PATTERNMATCHER one of moby/patternmatcher; neither is fetched. Their test data,
and the tables in their Go tests, go through two examples, which cargo builds: `read` of dhow-dockerfile and `ignore` of
dhow-build (READ and IGNORE name built ones). When DHOW_BIN names a program, the Dockerfiles of BuildKit's tests of its lint rules go through
`build --check`, too, as root, on bases that are empty. One line per difference; exits non-zero when there is one.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile

from literals import Literal, literals

HERE = pathlib.Path(__file__).resolve().parent.parent.parent
# Of each group: how many passed, how many failed.
counts = {}


def check(group, what, ours, theirs):
    count = counts.setdefault(group, [0, 0])
    count[ours != theirs] += 1
    if ours == theirs:
        return
    print(f"FAILED {group}: {what}\n   theirs {theirs!r}\n   ours   {ours!r}")


def example(package, name, variable):
    given = os.environ.get(variable)
    if given:
        return given
    command = ["cargo", "build", "--quiet", "--locked", "-p", package, "--example", name]
    subprocess.run(command, cwd=HERE, check=True)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", HERE / "target"))
    return str(target / "debug" / "examples" / name)


def ask(program, questions):
    lines = "".join(json.dumps(question) + "\n" for question in questions)
    arguments = [program, "expand"] if program.endswith("read") else [program]
    ran = subprocess.run(arguments, input=lines, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in ran.stdout.splitlines()]


def trees(read, parser):
    for folder in sorted((parser / "testfiles").iterdir()):
        ran = subprocess.run([read, "tree", folder / "Dockerfile"], capture_output=True, text=True)
        check("tree", folder.name, ran.stdout + ran.stderr, (folder / "result").read_text())
    for folder in sorted((parser / "testfiles-negative").iterdir()):
        ran = subprocess.run([read, "tree", folder / "Dockerfile"], capture_output=True, text=True)
        check("refused", folder.name, ran.returncode, 1)
    source = (parser / "parser_test.go").read_text()
    ran = subprocess.run([read, "lines", parser / "testfile-line/Dockerfile"], capture_output=True, text=True)
    wanted = literals(source[source.index("TestParseIncludesLineNumbers") :], "expected := [][]int{")[0]
    check("lines", "testfile-line", [list(map(int, line.split())) for line in ran.stdout.splitlines()], wanted)


def heredocs(read, parser):
    source = (parser / "parser_heredoc_test.go").read_text()
    source = source[source.index("func TestParseExtractsHeredoc") :]
    text = re.search(r"NewBufferString\(`(.*?)`\)", source, re.S).group(1)
    with tempfile.NamedTemporaryFile("w", suffix=".Dockerfile") as file:
        file.write(text)
        file.flush()
        ran = subprocess.run([read, "heredocs", file.name], capture_output=True, text=True, check=True)
    ours = [json.loads(line) for line in ran.stdout.splitlines()][1:]
    wanted = literals(source, "tests := [][]Heredoc{")[0]
    default = {"Content": "", "Expand": False, "Chomp": False, "FileDescriptor": 0}
    for index, bodies in enumerate(wanted):
        check("heredocs", index, ours[index], [default | body for body in bodies or []])


def expansion(read, shell):
    env = {"PWD": "/home", "SHELL": "bash", "KOREAN": "한국어", "NULL": ""}
    rows = []
    for line in (shell / "envVarTest").read_text().splitlines():
        fields = [field.strip() for field in line.split("|")]
        if not line.startswith("#") and len(fields) == 3 and fields[0] in "AU":
            rows.append((fields[1], fields[2]))
    answers = ask(read, [{"word": word, "env": env, "mode": "word"} for word, _ in rows])
    for (word, wanted), answer in zip(rows, answers, strict=True):
        check("envVarTest", word, answer.get("result", "error"), wanted)

    rows, env = [], {}
    for line in (shell / "wordsTest").read_text().splitlines():
        if line.startswith("ENV "):
            name, _, value = line[3:].lstrip(" ").partition("=")
            env = env | {name: value}
        elif line and not line.startswith("#"):
            word, wanted = line.split("|")
            rows.append((word.strip(), wanted.lstrip(" ").split(","), env))
    answers = ask(read, [{"word": word, "env": env, "mode": "words"} for word, _, env in rows])
    for (word, wanted, _), answer in zip(rows, answers, strict=True):
        check("wordsTest", word, answer.get("result", ["error"]), wanted)

    source = (shell / "lex_test.go").read_text()
    table = source[source.index("func TestProcessWithMatches(") :]
    rows = literals(table[table.index("}{") :], "}{")[0]
    answers = ask(read, [{"word": row["input"], "env": row.get("envs") or {}, "mode": "word"} for row in rows])
    for row, answer in zip(rows, answers, strict=True):
        if row.get("expectedErr"):
            check("matches", row["input"], "result" in answer, False)
            continue
        theirs = (row["expected"], sorted(row.get("matches") or {}), sorted(row.get("unmatched") or {}))
        ours = (answer.get("result"), sorted(set(answer.get("set", []))), sorted(set(answer.get("unset", []))))
        check("matches", row["input"], ours, theirs)


def patterns(ignore, checkout):
    source = (checkout / "patternmatcher_test.go").read_text()
    rows = []
    for table in literals(source, "[]matchesTestCase{"):
        rows += [([pattern], text, wanted) for pattern, text, wanted in table]
    for table in literals(source, "[]multiPatternTestCase{"):
        rows += [tuple(row) for row in table]
    for table in literals(source, "var matchTests = []matchTest{"):
        rows += [([pattern], text, wanted if error is None else "error") for pattern, text, wanted, error in table]
    answers = ask(ignore, [{"patterns": p, "path": os.path.normpath(text)} for p, text, _ in rows])
    for (listed, text, wanted), answer in zip(rows, answers, strict=True):
        check("patterns", f"{listed} {text}", answer.get("result", "error"), wanted)
    # One function each: a list of patterns, a path, and what the comment above says of it.
    singles = re.findall(
        r'match(?:es)?, (?:_|err) := Matches\(("(?:[^"\\]|\\.)*"), \[\]string(\{.*?\})\)\n\tif (!?)match', source
    )
    for path, listed, wanted in singles:
        answer = ask(ignore, [{"patterns": Literal(listed).value(), "path": json.loads(path)}])[0]
        check("patterns", f"{listed} {path}", answer.get("result", "error"), wanted == "!")
    source = (checkout / "ignorefile/ignorefile_test.go").read_text()
    text = re.search(r"const content = `(.*?)`", source, re.S).group(1)
    wanted = literals(source, "expected := []string{")[0]
    check("ignore file", "TestReadAll", ask(ignore, [{"text": text}])[0].get("result"), wanted)


def lint(dhow, frontend):
    """Go tests that give a Dockerfile, and the warnings that they expect."""
    source = (frontend / "dockerfile_check_test.go").read_text()
    steps = re.compile(
        r"\n\s*(?P<name>\w+) :?= (?P<value>(?=\[\]byte|fmt\.|integration\.Unix|[`\"]))"
        r"|checkLinterWarnings\(t, sb, &lintTestParams\{"
    )
    work = pathlib.Path(tempfile.mkdtemp(prefix="language."))
    try:
        with tarfile.open(work / "empty.tar", "w"):
            pass
        root = [dhow, "--root", str(work / "store")]
        for name in ("alpine", "busybox", "debian", "golang", "node", "python", "a"):
            subprocess.run([*root, "import", work / "empty.tar", name], check=True, capture_output=True)
        names = {}
        for step in steps.finditer(source):
            literal = Literal(source[step.end() :], names)
            if step["name"]:
                names[step["name"]] = literal.value()
            else:
                one_lint(root, work, literal.braces())
    finally:
        shutil.rmtree(work)


def one_lint(root, work, case):
    text = case["Dockerfile"]
    wanted = case.get("UnmarshalWarnings") or case.get("Warnings") or []
    if not all(isinstance(warning, dict) for warning in wanted) or "runtime." in json.dumps(case):
        # Made by a function of the test, or with a registry.
        return
    context = work / "context"
    shutil.rmtree(context, ignore_errors=True)
    context.mkdir()
    (context / "Dockerfile").write_text(text)
    ignored = case.get("DockerIgnore")
    if isinstance(ignored, str) and ignored:
        (context / ".dockerignore").write_text(ignored)
    flags = []
    attributes = case.get("FrontendAttrs")
    for name, value in attributes.items() if isinstance(attributes, dict) else ():
        if name.startswith("build-arg:"):
            flags += ["--build-arg", f"{name[10:]}={value}"]
        elif name in ("target", "platform"):
            flags += [f"--{name}", value]
    ran = subprocess.run([*root, "build", "--call", "check,format=json", *flags, context], capture_output=True, text=True)
    try:
        found = json.loads(ran.stdout)
    except ValueError:
        found = {"warnings": [{"ruleName": ran.stderr, "detail": "", "location": {"ranges": []}}]}
    ours = sorted(
        (w["ruleName"], w["detail"], (w["location"]["ranges"] or [{"start": {"line": 0}}])[0]["start"]["line"])
        for w in found["warnings"] or []
    )
    theirs = sorted((w["RuleName"], w["Detail"], w.get("Line", 0)) for w in wanted)
    if case.get("UnmarshalWarnings"):
        # Their lines are compared by nobody.
        ours, theirs = ([pair[:2] for pair in pairs] for pairs in (ours, theirs))
    check("lint", text, ours, theirs)


def main():
    arguments = sys.argv[1:]
    if not 1 <= len(arguments) <= 2 or arguments[0].startswith("-"):
        sys.exit(__doc__)
    frontend = pathlib.Path(arguments[0]) / "frontend/dockerfile"
    if not frontend.is_dir():
        sys.exit(f"language: {arguments[0]} is no checkout of moby/buildkit")
    read = example("dhow-dockerfile", "read", "READ")
    trees(read, frontend / "parser")
    heredocs(read, frontend / "parser")
    expansion(read, frontend / "shell")
    if os.environ.get("DHOW_BIN"):
        lint(os.path.abspath(os.environ["DHOW_BIN"]), frontend)
    if len(arguments) == 2:
        patterns(example("dhow-build", "ignore", "IGNORE"), pathlib.Path(arguments[1]))
    for group, (passed, failed) in counts.items():
        print(f"{group}: {passed} passed, {failed} failed")
    passed, failed = map(sum, zip(*counts.values()))
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed != 0)


main()
