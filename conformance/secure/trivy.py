#!/usr/bin/env python3
"""Does a scan find what Trivy finds, by its own advisories, in the packages of its golden files?

  conformance/secure/trivy.py CHECKOUT [--dhow BIN]

CHECKOUT is a checkout of aquasecurity/trivy, which is not fetched; its advisories are YAML, so PyYAML must be there. The images of
the golden files are in no checkout, so their packages, as far as the golden files name them, are written as a bill of materials. The source
package of a binary is not named there either: it is the one that the advisories have the finding of. Source trees are in the checkout: they
are scanned as they are, lock files and all. Compared are vulnerability, package, installed version, fixed
version, and whether there is a fix. One line per difference; a golden file that cannot be compared is named with the reason. Exits 1 for a
difference that has no reason here.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import yaml

from osv import constraints

# Trivy's buckets of languages: the ecosystem, the type of a package URL.
LANGUAGES = {
    "npm": ("npm", "npm"), "pip": ("PyPI", "pypi"), "rubygems": ("RubyGems", "gem"), "go": ("Go", "golang"),
    "maven": ("Maven", "maven"), "composer": ("Packagist", "composer"), "cargo": ("crates.io", "cargo"), "nuget": ("NuGet", "nuget"),
}
# Systems by their buckets: the ecosystem of a release, the type and namespace of a package URL.
SYSTEMS = (
    (r"debian (\d+)", "Debian:{0}", "deb", "debian"),
    (r"ubuntu ([\d.]+)", "Ubuntu:{0}", "deb", "ubuntu"),
    (r"alpine ([\d.]+)", "Alpine:v{0}", "apk", "alpine"),
    (r"alma (\d+)", "AlmaLinux:{0}", "rpm", "almalinux"),
    (r"rocky (\d+)", "Rocky Linux:{0}", "rpm", "rocky"),
    (r"Photon OS ([\d.]+)", "Photon OS:{0}", "rpm", "photon"),
    (r"openSUSE Leap ([\d.]+)", "openSUSE:Leap {0}", "rpm", "opensuse-leap"),
)
FAMILIES = {"alma": "almalinux", "opensuse.leap": "opensuse-leap", "opensuse-leap": "opensuse-leap"}
# Golden files whose findings do not come from packages and advisories that dhow has an idea of.
REASONS = {
    "amazon": "no public source of OSV or secdb has Amazon's advisories, so there is no ecosystem to put them into",
    "oracle": "the same of Oracle's",
    "centos": "Trivy reads Red Hat's OVAL by repository and CPE; OSV names releases, and CentOS 7 has ended",
    "redhat": "Trivy reads Red Hat's OVAL by repository and CPE (content sets), which OSV does not have",
    "cbl-mariner": "an old name of Azure Linux, without a source",
    "opensuse-tumbleweed": "rolling: OSV has it under no release",
    "slem": "SUSE Linux Enterprise Micro: the ecosystem has the name of the product, which os-release does not give",
    "suse linux enterprise server": "the same of the server",
}
# Golden files by their names, the same.
FILES = {
    "alpine-distroless.json.golden": "Trivy takes the release, edge, from etc/apk/repositories, which no golden file shows",
}
# Golden files of source trees: what of them is not read.
UNREAD = {
    "composer-vendor": "its installed.json does not lie in vendor/composer, where composer puts it",
    "pom": "pom.xml is what a build starts from, not what came of it; what it delivers, archives, are read",
    "cocoapods": "packages of cocoapods are not looked up", "conan": "packages of conan are not looked up", "hex": "packages of hex are not looked up",
    "mixlock": "packages of hex are not looked up", "pubspec": "packages of pub are not looked up", "swift": "packages of swift are not looked up",
}
# What these were made with takes findings away, which dhow is not asked to do here: only what they have is compared.
PARTIAL = ("-ignore-", "-medium", "-high-critical", "-vex", "-skip")
TYPES = {"bun", "npm", "yarn", "pnpm", "node-pkg", "pip", "pipenv", "poetry", "uv", "pylock", "python-pkg", "gemspec", "bundler", "gomod", "gobinary",
         "jar", "pom", "gradle", "sbt", "composer", "composer-vendor", "cargo", "rustbinary", "nuget", "dotnet-core", "packages-props"}


def buckets(checkout):
    """{bucket: {package: {vulnerability: advisory}}}"""
    found = {}
    for path in sorted((checkout / "integration/testdata/fixtures/db").glob("*.yaml")):
        for bucket in yaml.safe_load(path.read_text()) or []:
            for package in (one for one in bucket.get("pairs", ()) if "bucket" in one):
                into = found.setdefault(bucket["bucket"], {}).setdefault(package["bucket"], {})
                into.update({pair["key"]: pair.get("value") or {} for pair in package.get("pairs", ()) if "key" in pair})
    return found


def language_ranges(advisory):
    wanted = advisory.get("VulnerableVersions")
    if wanted is None:
        # RustSec says what is right; what is below the least of that, or between, is wrong.
        patched = sorted((constraints(str(one)) for one in advisory.get("PatchedVersions", ())), key=lambda events: len(events))
        fixed = [events[0]["introduced"] for events in patched]
        return [[{"introduced": "0"}, *({"fixed": version} for version in fixed[:1])]] if fixed else []
    texts = [part for one in wanted for part in str(one).split("||")]
    return [constraints(text) for text in texts]


def records(found):
    """Everything as OSV, and where each finding of a system's package comes from."""
    all_, sources = {}, {}
    for bucket, packages in found.items():
        system = next(((form, re.fullmatch(pattern, bucket)) for pattern, form, *_ in SYSTEMS if re.fullmatch(pattern, bucket)), None)
        language = LANGUAGES.get(bucket.split("::")[0])
        if not system and not language:
            continue
        ecosystem = system[0].format(*system[1].groups()) if system else language[0]
        for package, advisories in packages.items():
            for name, advisory in advisories.items():
                if system:
                    sources.setdefault((ecosystem, name), set()).add(package)
                    fixed = advisory.get("FixedVersion")
                    ranges = [[{"introduced": "0"}] + ([{"fixed": str(fixed)}] if fixed else [])]
                else:
                    ranges = language_ranges(advisory)
                entry = {"package": {"ecosystem": ecosystem, "name": package},
                         "ranges": [{"type": "ECOSYSTEM", "events": events} for events in ranges]}
                record = all_.setdefault(name, {"id": name, "modified": "2026-01-01T00:00:00Z", "affected": []})
                record["affected"].append(entry)
    return list(all_.values()), sources


def system_of(golden):
    os_ = golden.get("Metadata", {}).get("OS") or {}
    family, version = os_.get("Family", ""), str(os_.get("Name", ""))
    return FAMILIES.get(family, family), version


def ecosystem_of(family, version):
    major, minor = version.split(".")[0], ".".join(version.split(".")[:2])
    forms = {"debian": f"Debian:{major}", "ubuntu": f"Ubuntu:{version}", "alpine": f"Alpine:v{minor}", "almalinux": f"AlmaLinux:{major}",
             "rocky": f"Rocky Linux:{major}", "photon": f"Photon OS:{version}", "opensuse-leap": f"openSUSE:Leap {version}"}
    return forms.get(family)


def component(found, source):
    purl = found.get("PkgIdentifier", {}).get("PURL") or found.get("Identifier", {}).get("PURL")
    properties = []
    if source:
        properties = [{"name": "aquasecurity:trivy:SrcName", "value": source}]
    return {"type": "library", "purl": purl, "properties": properties} if purl else None


def compare(golden, sources, scan):
    """Differences, and how many findings were compared; or why it cannot be compared."""
    family, version = system_of(golden)
    results = [result for result in golden.get("Results") or [] if result.get("Vulnerabilities")]
    if not results:
        return None, None
    ecosystem = ecosystem_of(family, version)
    wanted, components = set(), {}
    skipped = set()
    for result in results:
        if result.get("Class") == "os-pkgs" and not ecosystem:
            reason = REASONS.get(family) or REASONS.get(family.split(".")[0]) or f"no release {family} {version}"
            skipped.add(reason)
            continue
        if result.get("Class") != "os-pkgs" and result.get("Type") not in TYPES:
            skipped.add(f"packages of {result.get('Type')} are not looked up")
            continue
        for one in result.get("Packages", []) + result["Vulnerabilities"]:
            of = None
            if result.get("Class") == "os-pkgs" and "VulnerabilityID" in one:
                names = sources.get((ecosystem, one["VulnerabilityID"]), set())
                of = one["PkgName"] if one["PkgName"] in names else next(iter(sorted(names)), None)
            made = component(one, of)
            if made:
                known = components.get(made["purl"])
                components[made["purl"]] = made if not known or made["properties"] else known
        for one in result["Vulnerabilities"]:
            # Python's names have no case in a package URL.
            purl = one.get("PkgIdentifier", {}).get("PURL") or ""
            package = one["PkgName"].lower().replace("_", "-") if purl.startswith("pkg:pypi/") else one["PkgName"]
            wanted.add((one["VulnerabilityID"], package, one["InstalledVersion"], one.get("FixedVersion") or ""))
    if not wanted:
        return None, "; ".join(sorted(skipped))
    bom = {"bomFormat": "CycloneDX", "specVersion": "1.6", "components": list(components.values())}
    if ecosystem:
        bom["components"].insert(0, {"type": "operating-system", "name": family, "version": version})
    return (wanted, found_in(scan(bom))), None


def found_in(findings):
    lower = lambda one: one["Package"].lower().replace("_", "-") if one["PURL"].startswith("pkg:pypi/") else one["Package"]
    return {(one["ID"], lower(one), one["Installed"], one["FixedIn"] or "") for one in findings}


def tree_of(checkout, golden):
    """The source tree of a golden file, and its name."""
    name = golden.get("ArtifactName", "").rstrip("/").split("/")[-1]
    tree = checkout / "integration/testdata/fixtures/repo" / name
    return (tree, name) if name and tree.is_dir() else (None, None)


def same(wanted, ours):
    """Trivy lists every fix of every branch, or none; ours is the one for the version that is there. Where its advisory names the last version
    that has it (`<=`), a record has no fix, and neither have we. RustSec's fixes are written as conditions."""
    keys = {found[:3]: found[3] for found in ours}
    differences = []
    for vulnerability, package, version, fixed in sorted(wanted):
        own = keys.pop((vulnerability, package, version), None)
        if own is None:
            differences.append(f"missed {vulnerability} in {package} {version}")
        elif own and fixed and own not in re.findall(r"[^\s,<>=]+", fixed):
            differences.append(f"{vulnerability} in {package} {version}: fixed in {own}, theirs {fixed}")
        elif own and not fixed:
            differences.append(f"{vulnerability} in {package} {version}: fixed in {own}, theirs in nothing")
    return differences, [f"more {key[0]} in {key[1]} {key[2]}" for key in sorted(keys)]


def main():
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("checkout", type=pathlib.Path)
    words.add_argument("--dhow", default=os.environ.get("DHOW_BIN", "dist/dhow"))
    given = words.parse_args()
    all_, sources = records(buckets(given.checkout))
    files = findings = trees = 0
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        base = [given.dhow, "--root", folder / "root"]
        (folder / "osv.json").write_text(json.dumps(all_))
        subprocess.run([*base, "scan", "import", folder / "osv.json"], check=True, stdout=subprocess.DEVNULL)

        def look(target):
            ran = subprocess.run([*base, "scan", "--format", "json", target], check=True, capture_output=True, text=True)
            return json.loads(ran.stdout)[0]["Vulnerabilities"]

        def scan(bom):
            path = folder / "bom.json"
            path.write_text(json.dumps(bom))
            return look(path)

        for path in sorted((given.checkout / "integration/testdata").glob("*.json.golden")):
            golden = json.loads(path.read_text())
            if not isinstance(golden, dict):
                continue
            both, why = compare(golden, sources, scan)
            why = FILES.get(path.name, why)
            if why:
                print(f"left out {path.name}: {why}")
            if not both or path.name in FILES:
                continue
            tree, name = tree_of(given.checkout, golden)
            if tree and name not in UNREAD:
                both, trees = (both[0], found_in(look(f"{tree.resolve()}/"))), trees + 1
            elif tree:
                print(f"as a list only {path.name}: {UNREAD[name]}")
            differences, more = same(*both)
            more = [] if any(word in path.name for word in PARTIAL) else more
            files, findings = files + 1, findings + len(both[0])
            for difference in differences + more:
                wrong.append(difference)
                print(f"{path.name}: {difference}")
    print(f"{files} golden files, {trees} of them with their source trees, {findings} findings, {len(wrong)} differences")
    return 1 if wrong or not files else 0


if __name__ == "__main__":
    sys.exit(main())
