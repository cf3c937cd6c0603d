#!/usr/bin/env bash
# A public suite inside the lab (tests/vm), where control groups v2, systemd and a security module are: for what this machine
# lacks. The suite's folder is the caller's, and is copied into the guest.
#   conformance/runtime/lab.sh [--profile NAME] [--limit SECONDS] [--runtime BIN] [--compare BIN]... [--only REGEX]
#       [--add PATH]... [--env NAME=VALUE]... [--rootless FEATURES] ADAPTER SUITE
# ADAPTER is contest, crun, bats or runtime-tools. --runtime stands for DHOW_BIN, whose default is dist/dhow. --add is for what
# a runtime needs beside it, as /lab/add/NAME: a dynamic one whose loader and libraries are asked for there runs on the guest's
# older system. --env is for what a suite reads, such as RUNC_USE_SYSTEMD=yes of bats; DHOW_SUITE_PATIENCE is what limits of
# time are multiplied by (6). --rootless is for bats alone, whose adapter says what FEATURES are.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
lab=$here/../../tests/vm/run
usage() { sed -n '4,11s/^# \{0,1\}//p' "$0" >&2; exit 2; }

profile=apparmor limit=3600 only='' rootless='' others=() words=() variables=() besides=()
while [ $# -gt 0 ]; do
    case $1 in
        --profile) profile=${2:?}; shift 2 ;;
        --limit) limit=${2:?}; shift 2 ;;
        --runtime) export DHOW_BIN=${2:?}; shift 2 ;;
        --compare) others+=("$(realpath "${2:?}")"); shift 2 ;;
        --only) only=${2:?}; shift 2 ;;
        --add) besides+=(--add "$(realpath "${2:?}")"); shift 2 ;;
        --rootless) rootless=${2:?}; shift 2 ;;
        --env) [[ ${2:-} == [A-Za-z_]*=* ]] || usage; variables+=("$2"); shift 2 ;;
        -*) usage ;;
        *) words+=("$1"); shift ;;
    esac
done
[ ${#words[@]} = 2 ] && [ -e "$here/${words[0]}.sh" ] || usage
suite=$(realpath "${words[1]}")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
script=$work/script
adds=(--add "$here" --add "$suite" "${besides[@]}") arguments=()
[ -z "$rootless" ] || arguments+=(--rootless "$rootless")
arguments+=(--runtime /lab/bin/dhow)
[ -z "$only" ] || arguments+=(--only "$only")
# In a folder of their own: one may have the name of the suite.
mkdir "$work/others"
for other in "${others[@]}"; do
    cp "$other" "$work/others/"
    arguments+=(--compare "/lab/add/others/$(basename "$other")")
done
adds+=(--add "$work/others")
{
    echo '#!/bin/bash'
    echo 'export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root'
    [ ${#variables[@]} = 0 ] || printf 'export %q\n' "${variables[@]}"
    [ -z "$rootless" ] || echo 'useradd --create-home rootless'
    # The disk of the lab is read-only, and suites write beside themselves.
    printf 'cp -a /lab/add/%q /srv/suite && cd /root\n' "$(basename "$suite")"
    # Emulation is several times slower than the machine.
    # shellcheck disable=SC2016 # expanded in the guest
    printf 'DHOW_SUITE_PATIENCE=${DHOW_SUITE_PATIENCE:-6} DHOW_SUITE_LIVE=1 exec /lab/add/runtime/%s.sh' "${words[0]}"
    printf ' %q' "${arguments[@]}" /srv/suite
    echo
} >"$script"
"$lab" --profile "$profile" --limit "$limit" "${adds[@]}" --script "$script"
