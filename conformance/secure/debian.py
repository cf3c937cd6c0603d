#!/usr/bin/env python3
"""Does a scan find what Debian's packages were mended of, and nothing else? The changelogs of the packages are the truth.

  conformance/secure/debian.py FIXES [OSV...] [--dhow BIN]

FIXES is JSON: [{"source", "cve", "uploads": [{"version", "suite"}]}], the CVEs that uploads of source packages name in their
changelogs. An upload that names a CVE mends it, and the first one of Debian's that does is the fix: versions before it have it.

OSV are files of OSV records. With them, each pair of package and CVE that both know, and that the records say a fix of, is asked for at every version
of that package in FIXES. Without any, records are made of FIXES (once as OSV, once as Debian's tracker has them), and every pair is asked for.
Each version is installed as a package named otherwise than its source, the source written in one of the ways that dpkg has; `dpkg --compare-versions`
says what comes first. Of a source with more than 24 versions as many are installed, the first and the last among them.
Exits 1 when recall or precision is below 99.5 %.
"""

import argparse
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile

RELEASE, CODENAME = "12", "bookworm"
# Uploads to these are Debian's; a changelog also has those of others from which a package came.
SUITES = ("unstable", "sid", "experimental", CODENAME, f"{CODENAME}-security", "testing")
WANTED = 0.995
MOST = 24


@functools.lru_cache(maxsize=None)
def before(a, b):
    return subprocess.run(["dpkg", "--compare-versions", a, "lt", b]).returncode == 0


def order(a, b):
    return -1 if before(a, b) else int(before(b, a))


def truth(fixes):
    """{source: {cve: fixed version}}, {source: versions}"""
    mended, versions = {}, {}
    for fact in fixes:
        uploads = [upload["version"] for upload in fact["uploads"] if upload["suite"].split()[0] in SUITES]
        if uploads:
            mended.setdefault(fact["source"], {})[fact["cve"]] = min(uploads, key=functools.cmp_to_key(order))
            versions.setdefault(fact["source"], set()).update(uploads)
    return mended, versions


def osv_of(mended):
    return [
        {
            "id": f"DEBIAN-{cve}", "modified": "2026-01-01T00:00:00Z", "upstream": [cve],
            "affected": [
                {
                    "package": {"ecosystem": f"Debian:{RELEASE}", "name": source},
                    "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": cves[cve]}]}],
                }
                for source, cves in mended.items()
                if cve in cves
            ],
        }
        for cve in sorted({cve for cves in mended.values() for cve in cves})
    ]


def tracker_of(mended):
    def issue(fixed):
        return {"releases": {CODENAME: {"status": "resolved", "fixed_version": fixed, "urgency": "not yet assigned"}}}

    return {source: {cve: issue(fixed) for cve, fixed in cves.items()} for source, cves in mended.items()}


def known(documents):
    """{source: CVEs that the records say a fix of}, and those of which they say none."""
    fixed, open_ = {}, {}
    for record in (record for document in documents for record in (document if isinstance(document, list) else [document])):
        if record.get("withdrawn"):
            continue
        names = {record["id"], *record.get("upstream", ()), *record.get("aliases", ())}
        for affected in record.get("affected", ()):
            if affected.get("package", {}).get("ecosystem") != f"Debian:{RELEASE}":
                continue
            events = [event for one in affected.get("ranges", ()) for event in one["events"]]
            into = fixed if any("fixed" in event for event in events) else open_
            into.setdefault(affected["package"]["name"], set()).update(name for name in names if name.startswith("CVE-"))
    for source, cves in open_.items():
        cves -= fixed.get(source, set())
    return fixed, open_


def some(versions):
    step = max(1, (len(versions) - 1) / (MOST - 1))
    return [versions[round(at * step)] for at in range(min(MOST, len(versions)))]


def status(versions):
    """The versions of each source as packages; {package: (source, version)}"""
    text, packages = [], {}
    for source, all_ in versions.items():
        for number, version in enumerate(some(sorted(all_, key=functools.cmp_to_key(order)))):
            # The binary has the source's version, one of its own, or that of a rebuild.
            ways = ((source, version), (f"{source} ({version})", f"9:{number}"), (f"{source} ({version})", f"{version}+b1"))
            field, own = ways[number % len(ways)]
            name = f"x{len(packages)}"
            packages[name] = (source, version)
            text.append(
                f"Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nSource: {field}\nVersion: {own}\n"
            )
    return "\n".join(text), packages


def findings(dhow, folder, documents, tree):
    files = []
    for number, document in enumerate(documents):
        files.append(folder / f"{number}.json")
        files[-1].write_text(json.dumps(document))
    base = [dhow, "--root", folder / "root"]
    subprocess.run([*base, "scan", "import", "--replace", *files], check=True, stdout=subprocess.DEVNULL)
    ran = subprocess.run([*base, "scan", "--format", "json", tree], check=True, stdout=subprocess.PIPE)
    return {(found["Package"], found["ID"]) for found in json.loads(ran.stdout)[0]["Vulnerabilities"]}


def measure(what, dhow, folder, documents, fixes):
    mended, versions = truth(fixes)
    fixed, open_ = known(documents) if isinstance(documents[0], list) else (mended, {})
    versions = {source: all_ for source, all_ in versions.items() if source in fixed or source in open_}
    text, packages = status(versions)
    tree = folder / "tree"
    (tree / "var/lib/dpkg").mkdir(parents=True, exist_ok=True)
    (tree / "etc").mkdir(exist_ok=True)
    (tree / "var/lib/dpkg/status").write_text(text)
    (tree / "etc/os-release").write_text(f'ID=debian\nVERSION_ID="{RELEASE}"\nVERSION_CODENAME={CODENAME}\n')
    found = findings(dhow, folder, documents, f"{tree}/")
    pairs, right, missed, wrong = 0, 0, [], []
    for source in versions:
        pairs += len(set(mended[source]) & set(fixed.get(source, ())))
    for package, (source, version) in packages.items():
        for cve in set(mended[source]) & set(fixed.get(source, ())):
            has, told = before(version, mended[source][cve]), (package, cve) in found
            right += has and told
            if has != told:
                (missed if has else wrong).append(f"{source} {version}: {cve}, mended in {mended[source][cve]}")
    for line in sorted({f"missed {one}" for one in missed} | {f"wrong {one}" for one in wrong}):
        print(line)
    older = sum(len(set(mended.get(source, ())) & cves) for source, cves in open_.items())
    recall, precision = (right / max(1, right + len(other)) for other in (missed, wrong))
    print(
        f"{what}: {pairs} fixes of {len(versions)} source packages, {len(packages)} installed packages: "
        f"recall {recall:.2%} ({right} found, {len(missed)} missed), precision {precision:.2%} ({len(wrong)} wrong)"
        + (f"; {older} fixes that the records do not know yet" if older else "")
    )
    return pairs > 0 and recall >= WANTED and precision >= WANTED


def main():
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("fixes", type=pathlib.Path)
    words.add_argument("osv", type=pathlib.Path, nargs="*")
    words.add_argument("--dhow", default=os.environ.get("DHOW_BIN", "dist/dhow"))
    given = words.parse_args()
    fixes = json.loads(given.fixes.read_text())
    good = True
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        if given.osv:
            records = [json.loads(path.read_text()) for path in given.osv]
            return 0 if measure("given records", given.dhow, folder, records, fixes) else 1
        mended, _ = truth(fixes)
        for what, document in (("as OSV", osv_of(mended)), ("as Debian's tracker", tracker_of(mended))):
            good &= measure(what, given.dhow, folder, [document], fixes)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
