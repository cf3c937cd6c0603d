#!/usr/bin/env python3
"""Does a scan find what Grype's matchers find, by the records beside their tests?

  conformance/secure/grype.py CHECKOUT [--dhow BIN]

CHECKOUT is a checkout of anchore/grype, which is not fetched. Its tests are Go: of each test function that says in plain words which
records it uses, which package it makes and what must be found, the records become OSV, the package a bill of materials, and the findings are
compared by name. A test that is not so, or is about something that dhow does on purpose otherwise, is named with the reason. One line per
difference; exits 1 when there is one.
"""

import argparse
import collections
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

from osv import constraints

# The type of a package in Grype: that of a package URL, and the ecosystem of its language.
TYPES = {
    "DebPkg": ("deb", None), "ApkPkg": ("apk", None), "RpmPkg": ("rpm", None), "PythonPkg": ("pypi", "PyPI"), "NpmPkg": ("npm", "npm"),
    "GemPkg": ("gem", "RubyGems"), "JavaPkg": ("maven", "Maven"), "GoModulePkg": ("golang", "Go"), "BitnamiPkg": ("bitnami", "Bitnami"),
}
# Systems: id and version, the ecosystem of OSV.
SYSTEMS = {
    "Debian": ("debian", "Debian:{}"), "Ubuntu": ("ubuntu", "Ubuntu:{}"), "Alpine": ("alpine", "Alpine:v{}"), "RHEL": ("rhel", "Red Hat:enterprise_linux:{}"),
    "AlmaLinux": ("almalinux", "AlmaLinux:{}"), "Wolfi": ("wolfi", "Wolfi"), "Chainguard": ("chainguard", "Chainguard"),
}
# Names of records' namespaces: the ecosystem.
NAMESPACES = (
    (r"debian:(\d+)", "Debian:{}"), (r"ubuntu:([\d.]+)", "Ubuntu:{}"), (r"alpine:([\d.]+)", "Alpine:v{}"), (r"rhel:(\d+)", "Red Hat:enterprise_linux:{}"),
    (r"alma:(\d+)", "AlmaLinux:{}"), (r"wolfi:rolling", "Wolfi"), (r"chainguard:rolling", "Chainguard"), (r"github:python", "PyPI"), (r"github:npm", "npm"),
    (r"github:gem", "RubyGems"), (r"github:java", "Maven"), (r"github:go", "Go"),
)
# Words of a test: why it is left out.
REASONS = (
    (r"CPE|cpe:", "by CPE: dhow has no names that are guessed from those of packages"),
    (r"rootio|RootIO", "packages that a vendor mends under other versions, by its own records"),
    (r"VEX|vex|chainguard-libraries", "a vendor's statements about its own builds of libraries"),
    (r"ModularityLabel|odular", "modules of rpm: OSV's records name packages, whose versions have the module in them"),
    (r"EUS|eus|EusChannel", "extended support of Red Hat: a channel that no image says it is of"),
    (r"ESM|esm|WithChannels", "extended support of Ubuntu: the same"),
    (r"WithArchitecture[\s\S]*IsEmpty", "a record for one architecture, which neither secdb nor OSV has"),
    (r"Symbols", "which functions of a module a program has"),
    (r"Hummingbird|hummingbird", "a distribution without a place in OSV"),
    (r"SLES|sles", "SUSE's records there name releases otherwise than OSV does"),
    (r"oracle|Oracle", "no public source of OSV has Oracle's advisories"),
)
# Tests by their names, the same.
TESTS = {
    "TestMatcherRpm_IndirectMatchBySource": "its records of Red Hat name source packages; those of OSV name what is installed",
    "TestAlmaLinuxMatching_WontFixPassesThrough": "Grype looks AlmaLinux up in Red Hat's data beside its own",
}


def functions(text):
    """Test functions of a Go file: name and body."""
    starts = list(re.finditer(r"^func (Test\w+)\(t \*testing\.T\) \{", text, re.M))
    for at, start in enumerate(starts):
        end = text.find("\n}\n", start.end())
        body = "\n".join(line.split("//")[0] if not re.search(r'"[^"]*//', line) else line for line in text[start.end():end].splitlines())
        yield start.group(1), body


def records(folder, only):
    """The records of one test as OSV."""
    found = []
    for path in sorted(folder.rglob("results/**/*.json")):
        document = json.loads(path.read_text())
        name = document.get("identifier", "").lower()
        stem = path.stem.lower()
        if only and not any(one.lower() in name or one.lower().split("/")[-1] == stem for one in only):
            continue
        item = document.get("item", document)
        if "Vulnerability" in item:
            found.append(system_record(item["Vulnerability"]))
        elif "Advisory" in item:
            found.append(language_record(item["Advisory"]))
        elif "affected" in item:
            found.append(item)
    # One vulnerability has a record for each release, and one name.
    merged = {}
    for record in filter(None, found):
        merged.setdefault(record["id"], {**record, "affected": []})["affected"].extend(record["affected"])
    return list(merged.values())


def ecosystem(namespace):
    for pattern, form in NAMESPACES:
        match = re.fullmatch(pattern, namespace)
        if match:
            return form.format(*match.groups())
    return None


def system_record(said):
    affected = []
    for fix in said.get("FixedIn") or []:
        of = ecosystem(fix["NamespaceName"])
        # "0" says that no version has it, nothing and "None" that none mends it.
        if of and fix["Version"] != "0":
            events = [{"introduced": "0"}] + ([{"fixed": fix["Version"]}] if fix["Version"] not in ("", "None", None) else [])
            if fix.get("VulnerableRange"):
                events = constraints(fix["VulnerableRange"])
            affected.append({"package": {"ecosystem": of, "name": fix["Name"]}, "ranges": [{"type": "ECOSYSTEM", "events": events}]})
    return {"id": said["Name"], "modified": "", "affected": affected} if affected else None


def language_record(said):
    if said.get("Withdrawn"):
        return None
    affected = []
    for fix in said.get("FixedIn") or []:
        of = ecosystem(fix["namespace"])
        if of:
            ranges = [{"type": "ECOSYSTEM", "events": constraints(part)} for part in fix["range"].split("||")]
            affected.append({"package": {"ecosystem": of, "name": fix["name"]}, "ranges": ranges})
    return {"id": said["ghsaId"], "modified": "", "aliases": said.get("CVE") or [], "affected": affected}


def literal(pattern, body):
    return re.findall(pattern, body)


def case(body):
    """(folder or shared, records, package, system, names that must be found); or why there is no case."""
    for pattern, reason in REASONS:
        if re.search(pattern, body):
            return None, reason
    made = literal(r'dbtest\.NewPackage\("([^"]+)", "([^"]+)", syftPkg\.(\w+)\)', body)
    sets = literal(r'dbtest\.(DBs|SharedDBs)\(t, "([^"]+)"\)', body)
    if len(made) != 1 or len(sets) != 1:
        return None, "a table of cases, or none with one package and one set of records"
    name, version, kind = made[0]
    if kind not in TYPES:
        return None, f"packages of {kind} are not looked up"
    only = literal(r'"([^"]+)"', (literal(r"SelectOnly\(([^)]*)\)", body) or [""])[0])
    system = literal(r"dbtest\.([A-Z][A-Za-z]+?)(\d*|Rolling)\)", " ".join(literal(r"WithDistro\([^)]*\)", body)))
    if TYPES[kind][1] is None and (not system or system[0][0] not in SYSTEMS):
        return None, "a system that it makes itself, or that OSV does not have"
    upstream = (literal(r'WithUpstream\("([^"]+)", "([^"]*)"\)', body) or [None])[0]
    found = [name for part in literal(r"(?:SelectMatch|SelectMatches|ContainsVulnerabilities|OnlyHasVulnerabilities)\(([^)]*)\)", body) for name in literal(r'"([^"]+)"', part)]
    if not found and not re.search(r"IsEmpty\(\)|Ignores\(\)|DoesNotHave", body):
        return None, "it does not say what must be found"
    return (sets[0], only, (name, version, kind), system[0] if system else None, upstream, sorted(set(found))), None


def bom(package, system, upstream):
    name, version, kind = package
    purl_kind = TYPES[kind][0]
    components = []
    namespace = ""
    if system and TYPES[kind][1] is None:
        word, number = system
        id_ = SYSTEMS[word][0]
        if word in ("Ubuntu",):
            number = f"{number[:2]}.{number[2:]}"
        if word == "Alpine":
            number = f"{number[0]}.{number[1:]}.0"
        components.append({"type": "operating-system", "name": id_, "version": "" if number == "Rolling" else number})
        namespace = f"{id_}/"
    path = name.replace("@", "%40").replace(":", "/") if purl_kind in ("npm", "maven") else name
    component = {"type": "library", "purl": f"pkg:{purl_kind}/{namespace}{path}@{version.replace('+', '%2B')}", "properties": []}
    if upstream:
        component["properties"] = [{"name": "syft:metadata:source", "value": upstream[0]}]
        if upstream[1]:
            component["properties"].append({"name": "syft:metadata:sourceVersion", "value": upstream[1]})
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [*components, component]}


def scan(dhow, folder, osv, document):
    (folder / "osv.json").write_text(json.dumps(osv))
    (folder / "bom.json").write_text(json.dumps(document))
    base = [dhow, "--root", folder / "root"]
    subprocess.run([*base, "scan", "import", "--replace", folder / "osv.json"], check=True, stdout=subprocess.DEVNULL)
    ran = subprocess.run([*base, "scan", "--format", "json", folder / "bom.json"], check=True, capture_output=True, text=True)
    return json.loads(ran.stdout)[0]["Vulnerabilities"]


def main():
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("checkout", type=pathlib.Path)
    words.add_argument("--dhow", default=os.environ.get("DHOW_BIN", "dist/dhow"))
    given = words.parse_args()
    passed, wrong, left = 0, 0, collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for path in sorted((given.checkout / "grype/matcher").glob("*/*_test.go")):
            text = path.read_text()
            if "dbtest." not in text:
                continue
            for name, body in functions(text):
                if "dbtest." not in body:
                    continue
                found, reason = case(body)
                reason = TESTS.get(name, reason)
                if reason:
                    left[reason] += 1
                    continue
                (shared, set_), only, package, system, upstream, wanted = found
                where = given.checkout / "internal/dbtest/testdata/shared" if shared == "SharedDBs" else path.parent / "testdata"
                osv = records(where / set_, only)
                if not osv:
                    left["its records are of none of the kinds that are read here"] += 1
                    continue
                ours = scan(given.dhow, folder, osv, bom(package, system, upstream))
                names = {one["ID"] for one in ours} | {one["Advisory"] for one in ours} | {alias for one in ours for alias in one["Aliases"]}
                good = all(one in names for one in wanted) and (bool(wanted) or not ours) and len(ours) <= max(len(wanted), 0)
                passed, wrong = passed + good, wrong + (not good)
                if not good:
                    print(f"{path.name} {name}: {package} finds {sorted(one['ID'] for one in ours)}, theirs {wanted}")
    for reason, count in left.most_common():
        print(f"left out {count}: {reason}")
    print(f"{passed} tests agree, {wrong} do not, {sum(left.values())} left out")
    return 1 if wrong or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
