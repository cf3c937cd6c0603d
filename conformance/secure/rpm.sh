#!/usr/bin/env bash
# A patch of an image of rpm packages: Debian's own dnf and rpm in an image, two versions of a package in a repository of its own. As root:
#   DHOW=PROGRAM conformance/secure/rpm.sh          needs the package mirror of the host
set -euo pipefail
cd "$(dirname "$0")/../.."
DHOW=$(realpath "${DHOW:-dist/dhow}")
work=$(mktemp -d /tmp/dhow-rpm-XXXXXX)
trap 'dhow system teardown >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
dhow() { "$DHOW" --root "$work/root" "$@"; }
fail() { echo "rpm: $*" >&2; exit 1; }

dhow bootstrap -q -t base:1 --include dnf,rpm,createrepo-c debian:bookworm-slim
mkdir "$work/context"
cat > "$work/context/packages" <<'EOF'
set -e
mkdir -p /srv/repo
for version in 1.0 1.1; do
    printf '%s\n' 'Name: libfoo' "Version: $version" 'Release: 1.el9' 'Summary: foo' 'License: MIT' 'BuildArch: noarch' '%description' foo \
        '%install' 'mkdir -p %{buildroot}/usr/share/foo' "echo foo $version >%{buildroot}/usr/share/foo/foo" '%files' /usr/share/foo/foo >/tmp/libfoo.spec
    rpmbuild --quiet --define '_rpmdir /srv/repo' -bb /tmp/libfoo.spec
done
createrepo_c -q /srv/repo
EOF
cat > "$work/context/Dockerfile" <<'EOF'
FROM base:1 AS packages
COPY packages /tmp/packages
RUN sh /tmp/packages
FROM base:1
COPY --from=packages /srv/repo /srv/repo
RUN rm /etc/os-release && printf 'ID=rocky\nVERSION_ID="9.4"\nPLATFORM_ID="platform:el9"\n' >/etc/os-release && \
    mkdir -p /etc/yum.repos.d /etc/rpm && printf '[local]\nname=local\nbaseurl=file:///srv/repo\ngpgcheck=0\n' >/etc/yum.repos.d/local.repo && \
    echo '%_dbpath /var/lib/rpm' >/etc/rpm/macros.db
RUN dnf -q -y install libfoo-1.0 && rm /var/lib/dpkg/status
EOF
dhow build -q --network none -t parent:1 "$work/context"
printf 'FROM parent:1\nRUN echo hello >/srv/hello\n' | dhow build -q --network none -t child:1 -
cat > "$work/osv.json" <<'EOF'
{"id": "RLSA-2026:1", "modified": "2026-01-01T00:00:00Z", "upstream": ["CVE-2026-77"], "affected": [{
  "package": {"ecosystem": "Rocky Linux:9", "name": "libfoo"},
  "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "0:1.1-1.el9"}]}]}]}
EOF
dhow scan import "$work/osv.json" >/dev/null
grep -q CVE-2026-77 <<<"$(dhow scan child:1 2>/dev/null)" || fail "the old package is not found"
dhow patch --cascade --smoke 'rpm -V libfoo' CVE-2026-77 | tee "$work/told"
grep -q '^parent:1 .* upgraded .*libfoo 1.0-1.el9 -> 1.1-1.el9' "$work/told" || fail "the parent was not upgraded"
grep -q '^child:1 .* followed ' "$work/told" || fail "the child did not follow"
[ "$(dhow run --rm --network none child:1 cat /usr/share/foo/foo /srv/hello)" = "$(printf 'foo 1.1\nhello')" ] || fail "the child has not the new file"
! grep CVE-2026-77 <<<"$(dhow scan parent:1 child:1 2>/dev/null)" || fail "it is found still"
echo "rpm: patched, verified by rpm, inherited"
