#!/usr/bin/env bash
# What is in an image, and what of it is known to be vulnerable, beside Trivy and Syft. As root; needs the package mirror of the host:
#   TRIVY=PROGRAM SYFT=PROGRAM benches/scan.sh [rounds]      # of the peers those that are named
#   DATA=FILE         advisory data that `dhow scan import` reads: then matching is measured, too
#   TRIVY_DATA=DIR    a cache folder of Trivy's with a database (db/trivy.db, db/metadata.json) of the same advisories: Trivy matches, too
#   PACKAGES=LIST     what is in the image beside Debian 12
# Rounds are paired: in each one every program has its turn. Cold is an image archive that nobody has seen: Trivy and Dhow begin with an empty
# cache and store, Syft keeps none. None of them checks the hashes of layers, but Dhow where it says so. Warm is the same image again. Time, processor time, and the most memory of one process.
set -euo pipefail
cd "$(dirname "$0")/.."
DHOW=$(realpath "${DHOW:-dist/dhow}")
rounds=${1:-7}
PACKAGES=${PACKAGES:-curl,ca-certificates,openssl,python3,perl}
work=$(mktemp -d /var/tmp/dhow-scan.XXXXXX)
trap '"$DHOW" --root "$work/store" system teardown >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
for tool in jq time; do [ -x "/usr/bin/$tool" ] || { apt-get update -q && apt-get install -y -q $tool; } >/dev/null; done
for peer in TRIVY SYFT; do [ -z "${!peer:-}" ] || command -v "${!peer}" >/dev/null || { echo "scan: there is no ${!peer}" >&2; exit 1; }; done
# Nobody asks the network: not for data, nor whether there is a newer version.
export TRIVY_SKIP_VERSION_CHECK=true TRIVY_SKIP_DB_UPDATE=true TRIVY_SKIP_JAVA_DB_UPDATE=true TRIVY_OFFLINE_SCAN=true TRIVY_DISABLE_TELEMETRY=true
export SYFT_CHECK_FOR_APP_UPDATE=false

"$DHOW" --root "$work/store" bootstrap -q -t bench:1 --include "$PACKAGES" debian:bookworm-slim >/dev/null
"$DHOW" --root "$work/store" save -o "$work/image.tar" bench:1
echo "image: $(du -sb "$work/image.tar" | cut -f1) bytes as an archive"

# Runs a command; notes milliseconds, those of the processor, and KiB under a name.
measured() {
    local name=$1; shift
    python3 - "$work/$name" "$@" <<'PY'
import resource, subprocess, sys, time
def used():
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (children.ru_utime + children.ru_stime) * 1000
name, before, begun = sys.argv[1], used(), time.monotonic()
with open(name + ".out", "wb") as out, open(name + ".err", "wb") as err:
    # A small program between them: what this one has in memory would count as the other's.
    command = ["time", "-o", name + ".kib", "-f", "%M"] + sys.argv[2:]
    code = subprocess.run(command, stdout=out, stderr=err, stdin=subprocess.DEVNULL).returncode
took = (time.monotonic() - begun) * 1000
if code:
    sys.exit(f"scan: {' '.join(sys.argv[2:])} ended with {code}:\n" + open(name + ".err").read()[-2000:])
with open(name + ".ms", "a") as file:
    print(f"{took:.1f} {used() - before:.1f} {open(name + '.kib').read().strip()}", file=file)
PY
}
median() { cut -d' ' -f"$2" "$work/$1.ms" | sort -n | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }
cat > "$work/loaded" <<EOF
"$DHOW" --root "\$1" load -q -i "$work/image.tar" >/dev/null && exec "$DHOW" --root "\$1" sbom --format cyclonedx bench:1
EOF
trivy() { measured "$1" "$TRIVY" image --quiet --cache-dir "$2" "${@:3}" --input "$work/image.tar"; }
if [ -n "${DATA:-}" ]; then "$DHOW" --root "$work/store" scan import "$DATA" >/dev/null; fi
matched=()
if [ -n "${TRIVY_DATA:-}" ]; then
    cp -r "$TRIVY_DATA" "$work/trivy-data"
    matched=(--format json --scanners vuln --pkg-types os)
    trivy trivy-first "$work/trivy-data" "${matched[@]}"
fi
for round in $(seq "$rounds"); do
    measured dhow-cold "$DHOW" --root "$work/new$round" sbom --format cyclonedx "$work/image.tar"
    measured dhow-checked "$DHOW" --root "$work/new$round" sbom --verify --format cyclonedx "$work/image.tar"
    measured dhow-loaded sh "$work/loaded" "$work/new$round"
    rm -rf "$work/store/cache"
    measured dhow-layer "$DHOW" --root "$work/store" sbom --format cyclonedx bench:1
    measured dhow-warm "$DHOW" --root "$work/store" sbom --format cyclonedx bench:1
    if [ -n "${TRIVY:-}" ]; then
        trivy trivy-cold "$work/trivy$round" --format cyclonedx
        trivy trivy-warm "$work/trivy$round" --format cyclonedx
    fi
    if [ -n "${SYFT:-}" ]; then measured syft-cold "$SYFT" -q -o cyclonedx-json "docker-archive:$work/image.tar"; fi
    if [ -n "${DATA:-}" ]; then measured dhow-match "$DHOW" --root "$work/store" scan --format json bench:1; fi
    if [ -n "${TRIVY_DATA:-}" ]; then trivy trivy-match "$work/trivy-data" "${matched[@]}"; fi
    rm -rf "$work/new$round" "$work/trivy$round"
done

packages() { jq '[.components[]? | select(.purl // "" | startswith("pkg:deb/"))] | length' "$work/$1.out"; }
findings() { jq '[.. | objects | .Vulnerabilities? // empty | .[] | .VulnerabilityID // .ID] | unique | length' "$work/$1.out"; }
ratio() { awk "BEGIN {printf \"%.1f\", $1 / $2}"; }
# A line: what it is called, its measurements, what was found, and whose it is compared with.
row() {
    printf '%-50s %8.1f ms, processor %8.1f ms, %6.1f MiB, %s' "$1" "$(median "$2" 1)" "$(median "$2" 2)" "$(ratio "$(median "$2" 3)" 1024)" "$3"
    [ -z "${4:-}" ] || printf '   (x dhow: time %s, processor %s, memory %s)' "$(ratio "$(median "$2" 1)" "$(median "$4" 1)")" \
        "$(ratio "$(median "$2" 2)" "$(median "$4" 2)")" "$(ratio "$(median "$2" 3)" "$(median "$4" 3)")"
    echo
}
echo "medians of $rounds:"
row "dhow sbom of the archive, new store" dhow-cold "$(packages dhow-cold) packages of Debian"
row "the same, every layer's hash checked" dhow-checked "$(packages dhow-checked)"
row "dhow load + sbom, new store" dhow-loaded "$(packages dhow-loaded)"
row "dhow sbom, unpacked layer looked through first" dhow-layer "$(packages dhow-layer)"
[ -z "${TRIVY:-}" ] || row "trivy image --input, new cache" trivy-cold "$(packages trivy-cold)" dhow-cold
[ -z "${SYFT:-}" ] || row "syft docker-archive:" syft-cold "$(packages syft-cold)" dhow-cold
row "dhow sbom again" dhow-warm "$(packages dhow-warm)"
[ -z "${TRIVY:-}" ] || row "trivy image --input again" trivy-warm "$(packages trivy-warm)" dhow-warm
[ -z "${DATA:-}" ] || row "dhow scan again" dhow-match "$(findings dhow-match) vulnerabilities"
[ -z "${TRIVY_DATA:-}" ] || row "trivy image --scanners vuln again" trivy-match "$(findings trivy-match) vulnerabilities" dhow-match
