#!/usr/bin/env python3
"""Does `dhow scan compare` order versions as their ecosystems do?

  conformance/secure/versions.py FOLDER [--dhow BIN]

FOLDER has files <ecosystem>-versions*.txt of lines `a < b`, `a = b`, `a > b`, as google/osv-scalibr's semantic/testdata. Every
line is asked of the program. One line per difference; exits 1 when there is one. (The mirror of every line is asked for by
`DHOW_VERSION_ORDER=FOLDER cargo test -p dhow-vuln lines_hold`, in one process.)
"""

import argparse
import concurrent.futures
import os
import pathlib
import subprocess
import sys


def ask(dhow, ecosystem, a, b):
    ran = subprocess.run([dhow, "scan", "compare", ecosystem, "--", a, b], capture_output=True, text=True)
    return ran.stdout.strip() or ran.stderr.strip()


def lines(folder):
    for path in sorted(folder.glob("*-versions*.txt")):
        ecosystem = path.name.split("-versions")[0]
        for line in path.read_text().splitlines():
            line = line.strip()
            if line and not line.startswith(("#", "//")):
                a, sign, b = line.split()
                yield ecosystem, a, sign, b


def main():
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("folder", type=pathlib.Path)
    words.add_argument("--dhow", default=os.environ.get("DHOW_BIN", "dist/dhow"))
    given = words.parse_args()

    def differs(line):
        ecosystem, a, sign, b = line
        said = ask(given.dhow, ecosystem, a, b)
        return None if said == sign else f"{ecosystem}: {a} {sign} {b}: says {said}"

    asked = list(lines(given.folder))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        wrong = [what for what in pool.map(differs, asked) if what]
    for what in wrong:
        print(what)
    print(f"{len(asked)} lines, {len(wrong)} wrong")
    return 1 if wrong or not asked else 0


if __name__ == "__main__":
    sys.exit(main())
