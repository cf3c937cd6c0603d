#!/bin/sh
# Made these files, once: gpg 2.2, with the clock set back so that the dates are fixed. The tests read them only.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
home=$(mktemp -d)
trap 'gpgconf --homedir "$home" --kill all; rm -rf "$home"' EXIT
g() { gpg --homedir "$home" --batch --quiet --yes --no-tty --pinentry-mode loopback --passphrase '' "$@"; }
at() { stamp=$1; shift; g --faked-system-time "$stamp" "$@"; }
make() { # name, primary algorithm, subkey algorithm
    at 20200101T000000! --quick-gen-key "Archive $1 <archive@example.org>" "$2" cert,sign 10y
    print=$(g --list-keys --with-colons "archive $1" | awk -F: '/^fpr/{print $10; exit}')
    [ -z "${3:-}" ] || at 20200101T000100! --quick-add-key "$print" "$3" sign 10y
    g --armor --export "$print" > "$here/$1.asc"
}
make ed25519 ed25519 ed25519
make rsa rsa3072 rsa2048
make plain ed25519
printf 'Origin: Example\n- a line with a dash\nFrom here  \t\n\nDate: Thu, 02 Jan 2020 00:00:00 UTC\n' > "$here/text"
for name in ed25519 rsa plain; do
    at 20200102T000000! --local-user "archive $name" --digest-algo SHA512 --clearsign --output "$here/$name.clear" "$here/text"
    at 20200102T000000! --local-user "archive $name" --digest-algo SHA256 --armor --detach-sign --output "$here/$name.detached" "$here/text"
done
at 20200102T000000! --local-user "archive rsa" --digest-algo SHA1 --clearsign --output "$here/sha1.clear" "$here/text"
at 20200102T000000! --local-user "archive ed25519" --local-user "archive rsa" --clearsign --output "$here/both.clear" "$here/text"
print=$(g --list-keys --with-colons "archive plain" | awk -F: '/^fpr/{print $10; exit}')
sed 's/^:-----/-----/' "$home/openpgp-revocs.d/$print.rev" > "$home/plain.rev"
g --import "$home/plain.rev"
g --armor --export "$print" > "$here/revoked.asc"
# A small archive: what it offers is never installed, only found.
printf 'Package: aa\nVersion: 1.0\nArchitecture: amd64\nEssential: yes\nFilename: pool/aa.deb\nSize: 3\nSHA256: %s\n' \
    "$(printf deb | sha256sum | cut -d' ' -f1)" | gzip -9n > "$here/Packages.gz"
{
    printf 'Origin: Debian\nLabel: Debian\nSuite: stable\nVersion: 12.0\nCodename: bookworm\n'
    printf 'Date: Thu, 02 Jan 2020 00:00:00 UTC\nValid-Until: Thu, 09 Jan 2020 00:00:00 UTC\nAcquire-By-Hash: yes\n'
    printf 'Architectures: amd64\nComponents: main\nSHA256:\n %s %s main/binary-amd64/Packages.gz\n' \
        "$(sha256sum < "$here/Packages.gz" | cut -d' ' -f1)" "$(wc -c < "$here/Packages.gz")"
} > "$here/Release"
at 20200102T000000! --local-user "archive ed25519" --clearsign --output "$here/InRelease" "$here/Release"
at 20200102T000000! --local-user "archive ed25519" --armor --detach-sign --output "$here/Release.gpg" "$here/Release"
