#!/usr/bin/env bash
# The distribution specification's own conformance suite against `dhow registry serve`.
#   conformance/distribution.sh PROGRAM [VERSION...]
# PROGRAM is the suite as its own build makes it (in its folder conformance/: go build -o PROGRAM .); VERSIONs are 1.0, 1.1
# and dev, all three when none is given. DHOW_BIN names another binary than dist/dhow; OUT keeps the suite's reports.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)

[ $# -ge 1 ] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2; }
program=$(realpath "$1"); shift
[ -x "$program" ] || { echo "distribution: no program $program" >&2; exit 1; }
DHOW=${DHOW_BIN:-$here/dist/dhow}
[ -x "$DHOW" ] || { echo "distribution: no binary $DHOW: run cargo xtask dist" >&2; exit 1; }
DHOW=$(realpath "$DHOW")
[ $# -gt 0 ] || set -- 1.0 1.1 dev

work=$(mktemp -d)
server=
stop() {
    if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; server=; fi
}
finish() { stop; rm -rf "$work"; }
trap finish EXIT

echo "dhow: $("$DHOW" --version)"
failed=0
for version in "$@"; do
    port=$(shuf -i 20000-30000 -n 1)
    registry=127.0.0.1:$port
    # A registry of its own for each version: what one run leaves must not help the next.
    "$DHOW" registry serve --root "$work/registry-$version" --listen "$registry" >"$work/registry-$version.log" 2>&1 &
    server=$!
    up=
    for _ in $(seq 100); do if curl -fsS "http://$registry/v2/" >/dev/null 2>&1; then up=1; break; fi; sleep 0.1; done
    [ -n "$up" ] || { echo "$version: FAILED: the registry does not answer"; tail -n 5 "$work/registry-$version.log"; failed=1; stop; continue; }
    mkdir "$work/$version"
    status=0
    (cd "$work/$version" && env -i PATH="$PATH" HOME="$work" OCI_VERSION="$version" OCI_TLS=disabled \
        OCI_REGISTRY="$registry" OCI_RESULTS_DIR="$work/$version/results" "$program") >"$work/$version.log" 2>&1 || status=$?
    stop
    # A number that is nought is left out.
    count() { local found; found=$(grep -o "$1=\"[0-9]*\"" "$work/$version/results/junit.xml" | head -n 1 | tr -dc 0-9 || true); echo "${found:-0}"; }
    if [ ! -s "$work/$version/results/junit.xml" ]; then
        echo "$version: FAILED without a report, exit $status"; tail -n 20 "$work/$version.log"; failed=1; continue
    fi
    echo "$version: $(count tests) tests, $(count failures) failures, $(count errors) errors, $(count skipped) skipped, exit $status"
    [ "$status" = 0 ] || { failed=1; grep -iE 'fail|error' "$work/$version.log" | cut -c 1-300 | head -n 20 || true; }
    if [ -n "${OUT:-}" ]; then mkdir -p "$OUT/$version"; cp -r "$work/$version/results/." "$OUT/$version/"; cp "$work/$version.log" "$OUT/$version/log"; fi
done
exit $failed
