#!/usr/bin/env bash
# The runtime for arm64: built on this machine for the other, and tried under qemu's emulation of single programs.
#   tests/vm/arm64.sh [--profile NAME]      NAME is cargo's profile, default quick
# A container is not run: emulation of single programs has no new namespaces, and threads of its own. README.md says more.
set -uo pipefail
workspace=$(cd "$(dirname "$0")/../.." && pwd)
target=aarch64-unknown-linux-gnu
linker=aarch64-linux-gnu-gcc
profile=quick
case ${1:-} in
    '') ;;
    --profile) profile=${2:?} ;;
    *) sed -n '2,4s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac

leave_out() { echo "arm64: left out: $*" >&2; exit 0; }
command -v "$linker" >/dev/null || leave_out "no $linker: apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
emulator=$(command -v qemu-aarch64-static || command -v qemu-aarch64) || leave_out "no qemu-aarch64: apt-get install qemu-user-static"
library=$(cd "$workspace" && rustc --print target-libdir --target "$target" 2>/dev/null)
[ -n "$library" ] && ls "$library"/libstd-*.rlib >/dev/null 2>&1 || leave_out "no standard library: rustup target add $target"

build() {
    # As `cargo xtask dist` does it; build scripts are programs of this machine and keep its own compiler.
    (cd "$workspace" \
        && export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=$linker CC_aarch64_unknown_linux_gnu=$linker \
            CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static -C relocation-model=static" \
        && nice cargo build --locked --package dhow-runc --example runc --profile "$profile" --target "$target")
}
build || { echo "arm64: the build failed" >&2; exit 1; }
folder=$profile
[ "$profile" != dev ] || folder=debug
program=${CARGO_TARGET_DIR:-$workspace/target}/$target/$folder/examples/runc

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/bundle/rootfs" "$work/root"
failures=0
runtime() { "$emulator" "$program" --root "$work/root" "$@"; }

# check NAME FUNCTION
check() {
    local text
    if text=$( (set -e; "$2") 2>&1); then echo "test $1 ... ok"; return; fi
    failures=$((failures + 1))
    echo "test $1 ... FAILED"
    printf '%s\n' "$text" | sed 's/^/    | /'
}
has() { case $1 in *"$2"*) ;; *) echo "\"$2\" is not in: $1"; return 1 ;; esac; }

it_is_static_arm64() {
    # ELF, 64 bit, and the machine 183 (elf.h, EM_AARCH64).
    [ "$(od -An -tx1 -N5 "$program" | tr -d ' ')" = 7f454c4602 ]
    [ "$(od -An -tu2 -j18 -N2 "$program" | tr -d ' ')" = 183 ]
    ! aarch64-linux-gnu-readelf --program-headers "$program" | grep INTERP
}
it_tells_its_version() { has "$(runtime --version)" "runc version"; }
its_features_are_those_of_arm64() {
    local out; out=$(runtime features)
    has "$out" '"SCMP_ARCH_AARCH64"'
    has "$out" '"ociVersionMax"'
}
it_writes_a_spec() {
    (cd "$work/bundle" && runtime spec)
    has "$(cat "$work/bundle/config.json")" '"ociVersion": "1.3'
}
it_lists_none() { [ "$(runtime list -q)" = "" ]; }
what_is_not_there_is_said() {
    local out
    if out=$(runtime state nobody 2>&1); then return 1; fi
    has "$out" "does not exist"
}
a_container_is_not_half_made() {
    # As far as emulation goes: it refuses, and what was begun is gone.
    local out
    (cd "$work/bundle" && rm -f config.json && runtime spec && sed -i 's/"terminal": true/"terminal": false/' config.json)
    if out=$(runtime create --bundle "$work/bundle" one 2>&1); then echo "it was made: is this an arm64 machine?"; return 1; fi
    has "$out" "clone the container's process"
    [ -z "$(ls -A "$work/root")" ]
}
a_bad_spec_is_refused() {
    local out
    echo '{"ociVersion":' >"$work/bundle/config.json"
    if out=$(runtime create --bundle "$work/bundle" bad 2>&1); then return 1; fi
    has "$out" config.json
    [ -z "$(ls -A "$work/root")" ]
}

for case in it_is_static_arm64 it_tells_its_version its_features_are_those_of_arm64 it_writes_a_spec it_lists_none \
    what_is_not_there_is_said a_container_is_not_half_made a_bad_spec_is_refused; do check "$case" "$case"; done
[ "$failures" = 0 ]
