#!/usr/bin/env bash
# Do cosign and notation understand what dhow signs, and dhow what they sign? Over dhow's own registry: both directions, keys
# of either in the hands of the other, attestations; and what is tampered with, signed for another image or by somebody else
# is refused by all.
#   conformance/secure/sign.sh [--cosign BIN] [--cosign2 BIN] [--notation BIN] [--skopeo BIN] [--dhow BIN]
# The programs are built by their names, for instance:
#   go install github.com/sigstore/cosign/v3/cmd/cosign@v3.1.3
#   go install github.com/notaryproject/notation/cmd/notation@v1.3.2
set -euo pipefail
cd "$(dirname "$0")/../.."

DHOW=${DHOW_BIN:-$PWD/dist/dhow} COSIGN= COSIGN2= NOTATION= SKOPEO=
while [ $# -gt 0 ]; do
    case $1 in
        --cosign) COSIGN=$2 ;;
        --cosign2) COSIGN2=$2 ;;
        --notation) NOTATION=$2 ;;
        --skopeo) SKOPEO=$2 ;;
        --dhow) DHOW=$2 ;;
        *) echo "sign: unknown word $1" >&2; exit 2 ;;
    esac
    shift 2
done
[ -x "$DHOW" ] || { echo "sign: no binary $DHOW: run cargo xtask dist" >&2; exit 1; }
[ -n "$COSIGN$COSIGN2$NOTATION$SKOPEO" ] || { echo "sign: name one of --cosign, --cosign2, --notation, --skopeo" >&2; exit 2; }
for tool in curl jq tar; do
    command -v "$tool" >/dev/null || { echo "sign: it needs $tool" >&2; exit 1; }
done

. conformance/beside.bash
export COSIGN_PASSWORD="open sesame" HOME=$work/home XDG_CONFIG_HOME=$work/home/.config COSIGN_EXPERIMENTAL=
mkdir -p "$XDG_CONFIG_HOME"

refuses() { # sentence, words that it must say, command...
    local sentence=$1 words=$2; shift 2
    if "$@" >"$work/log" 2>&1; then
        failed=$((failed + 1)); echo "FAILED  $sentence: it was taken"
    elif ! grep -q -i -E "$words" "$work/log"; then
        failed=$((failed + 1)); echo "FAILED  $sentence: not for the reason $words"; sed 's/^/        /' "$work/log" | tail -n 15
    else
        passed=$((passed + 1)); echo "ok      $sentence"
    fi
}

serve

# A new image under a name; the digest goes to $digest, the name to $image.
number=0
push() {
    number=$((number + 1))
    mkdir -p "$work/fs"; echo "$1 $number" >"$work/fs/file"
    image=$registry/fleet/$1:1
    tar -C "$work/fs" -c . | dhow import - "$image" >/dev/null
    digest=$(dhow push "$image" 2>&1 | sed -n 's/^1: digest: \([^ ]*\) .*/\1/p')
    image=$registry/fleet/$1@$digest
}

put() { # repository, file: digest of the blob
    local sum; sum=sha256:$(sha256sum <"$2" | cut -d ' ' -f 1)
    local at; at=$(curl -fsS -X POST -D - -o /dev/null "http://$registry/v2/fleet/$1/blobs/uploads/" | tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
    case $at in /*) at=http://$registry$at ;; esac
    case $at in *\?*) at="$at&digest=$sum" ;; *) at="$at?digest=$sum" ;; esac
    curl -fsS -X PUT -H 'Content-Type: application/octet-stream' --data-binary @"$2" "$at" >/dev/null && echo "$sum"
}
manifest() { curl -fsS -H 'Accept: application/vnd.oci.image.manifest.v1+json' "http://$registry/v2/fleet/$1/manifests/$2"; }
# What refers to one image, made to refer to another one: as somebody who may write there would.
transplant() { # repository and digest, repository and digest
    local referrer size
    referrer=$(manifest "$1" "$(curl -fsS "http://$registry/v2/fleet/$1/referrers/$2" | jq -r '.manifests[0].digest')")
    for blob in $(jq -r '.config.digest, .layers[].digest' <<<"$referrer"); do
        curl -fsS "http://$registry/v2/fleet/$1/blobs/$blob" >"$work/blob"; put "$3" "$work/blob" >/dev/null
    done
    size=$(manifest "$3" "$4" | wc -c)
    jq -c --arg digest "$4" --argjson size "$size" '.subject.digest = $digest | .subject.size = $size' <<<"$referrer" | tr -d '\n' >"$work/manifest"
    curl -fsS -X PUT -H 'Content-Type: application/vnd.oci.image.manifest.v1+json' --data-binary @"$work/manifest" \
        "http://$registry/v2/fleet/$3/manifests/sha256:$(sha256sum <"$work/manifest" | cut -d ' ' -f 1)" >/dev/null
}

(cd "$work" && dhow sign --generate-key "$work/ours" --certificate "$work/ours.crt" --subject "CN=Ada,O=Engines,ST=London,C=GB" >/dev/null)
"$DHOW" --root "$work/dhow" sign --generate-key "$work/stranger" >/dev/null
echo '{"spdxVersion":"SPDX-2.3","name":"x"}' >"$work/sbom.json"

# Verifies with the cosign whose turn it is.
cv() { "$bin" verify $verify --allow-http-registry --insecure-ignore-tlog=true "$@"; }
cosign_suite() { # name, binary, verify flags, sign flags, forms
    name=$1 bin=$2 verify=$3 sign=$4
    "$bin" version 2>/dev/null | sed -n 's/^GitVersion: */cosign:  /p'
    (cd "$work" && "$bin" generate-key-pair --output-key-prefix "$name" >/dev/null 2>&1)
    local form
    for form in $5; do
        push "$name-$form"
        check "dhow signs ($form)" dhow sign --key "$work/ours.key" --format "$form" -a by=dhow "$image"
        check "$name verifies it" cv --key "$work/ours.pub" "$image"
        check "$name finds what is said beside it" cv --key "$work/ours.pub" -a by=dhow "$image"
        refuses "$name refuses it by another key" "signature|verif|match" cv --key "$work/stranger.pub" "$image"
        check "dhow verifies it" dhow verify --key "$work/ours.pub" "$image"
    done
    push "$name-theirs"
    check "$name signs" "$bin" sign $sign --allow-http-registry --yes --key "$work/$name.key" "$image"
    check "$name verifies its own" cv --key "$work/$name.pub" "$image"
    check "dhow verifies what $name signed" dhow verify --key "$work/$name.pub" "$image"
    refuses "dhow refuses it by another key" "no key that is trusted" dhow verify --key "$work/ours.pub" "$image"
    push "$name-key"
    check "dhow signs with $name's encrypted key" dhow sign --key "$work/$name.key" --format "${5%% *}" "$image"
    check "$name verifies that" cv --key "$work/$name.pub" "$image"
    push "$name-ourkey"
    check "$name signs with dhow's encrypted key" "$bin" sign $sign --allow-http-registry --yes --key "$work/ours.key" "$image"
    check "dhow verifies that" dhow verify --key "$work/ours.pub" "$image"
}

if [ -n "$COSIGN" ]; then
    cosign_suite cosign3 "$COSIGN" "--private-infrastructure=true" "--use-signing-config=false --tlog-upload=false" "bundle"
    ca() { "$COSIGN" verify-attestation --private-infrastructure=true --allow-http-registry --insecure-ignore-tlog=true "$@"; }
    push statement
    check "dhow attests" dhow attest --key "$work/ours.key" --type spdx --predicate "$work/sbom.json" "$image"
    check "cosign3 verifies the attestation" ca --type spdxjson --key "$work/ours.pub" "$image"
    refuses "cosign3 refuses it by another key" "signature|verif|match" ca --type spdxjson --key "$work/stranger.pub" "$image"
    push statement2
    check "cosign3 attests" "$COSIGN" attest --use-signing-config=false --tlog-upload=false --allow-http-registry --yes --key "$work/cosign3.key" --type spdxjson --predicate "$work/sbom.json" "$image"
    check "dhow verifies the attestation" dhow verify --key "$work/cosign3.pub" --type spdx "$image"
    refuses "dhow takes it for no signature" "asked for" dhow verify --key "$work/cosign3.pub" "$image"
    push retired
    lifecycle=https://github.com/dhow-project/dhow/blob/main/docs/signatures.md#lifecycle/v1
    check "dhow says of an image that it is not to be used any more" dhow retire --push --key "$work/ours.key" --reason gone "$registry/fleet/retired:1"
    check "cosign3 verifies that" ca --type "$lifecycle" --key "$work/ours.pub" "$image"
    refuses "cosign3 refuses it by another key" "signature|verif|match" ca --type "$lifecycle" --key "$work/stranger.pub" "$image"
    # A certificate of one's own, which `pki` of policy.json asks for.
    certified() ( # name, address
        cd "$work"
        openssl ecparam -name prime256v1 -genkey -noout -out "$1.pem"
        openssl req -new -key "$1.pem" -subj "/CN=$1" -out "$1.csr"
        printf 'keyUsage=critical,digitalSignature\nextendedKeyUsage=codeSigning\nsubjectAltName=email:%s\n' "$2" >"$1.ext"
        openssl x509 -req -in "$1.csr" -CA pki-root.crt -CAkey pki-root.key -CAcreateserial -days 1 -extfile "$1.ext" -out "$1.crt"
        "$COSIGN" import-key-pair --key "$1.pem" --output-key-prefix "$1" --yes
    ) >/dev/null 2>&1
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=pki-root -days 2 -keyout "$work/pki-root.key" -out "$work/pki-root.crt" 2>/dev/null
    certified builder builder@example.org
    push pki
    check "cosign3 signs with a certificate of one's own" "$COSIGN" sign --use-signing-config=false --tlog-upload=false --new-bundle-format=false --allow-http-registry --yes \
        --key "$work/builder.key" --certificate "$work/builder.crt" --certificate-chain "$work/pki-root.crt" "$image"
    by_pki() { # root, address: pulls the image under a policy of them
        echo "{\"default\":[{\"type\":\"sigstoreSigned\",\"pki\":{\"caRootsPath\":\"$1\",\"subjectEmail\":\"$2\"}}]}" >"$work/pki.json"
        dhow rmi "$image" >/dev/null 2>&1 || true
        DHOW_CONTAINERS_POLICY=$work/pki.json "$DHOW" --root "$work/dhow" pull "$image"
    }
    check "dhow pulls it under a policy that asks for that" by_pki "$work/pki-root.crt" builder@example.org
    refuses "and not under one that asks for somebody else" "not asked for" by_pki "$work/pki-root.crt" other@example.org
    refuses "nor for another root" "not trusted" by_pki "$work/ours.crt" builder@example.org
    push tampered
    dhow sign --key "$work/ours.key" "$image" >/dev/null
    bundle=$(curl -fsS "http://$registry/v2/fleet/tampered/referrers/$digest" | jq -r '.manifests[0].digest')
    layer=$(curl -fsS -H 'Accept: application/vnd.oci.image.manifest.v1+json' "http://$registry/v2/fleet/tampered/manifests/$bundle" | jq -r '.layers[0].digest')
    payload=$(curl -fsS "http://$registry/v2/fleet/tampered/blobs/$layer")
    # The same statement about another digest, under the old signature, as a new bundle of the other image.
    push tampered-other
    forged=$(jq -c --arg old "${digest#sha256:}" '.dsseEnvelope.payload |= (@base64d | sub("\"sha256\":\"[0-9a-f]+\""; "\"sha256\":\"\($old)\"") | @base64)' <<<"$payload")
    printf %s "$forged" >"$work/forged"
    sum=$(put tampered-other "$work/forged"); printf '{}' >"$work/empty"; empty=$(put tampered-other "$work/empty")
    jq -cn --arg sum "$sum" --arg empty "$empty" --arg subject "$digest" --argjson size "$(stat -c %s "$work/forged")" \
        --argjson about "$(curl -fsS -H 'Accept: application/vnd.oci.image.manifest.v1+json' "http://$registry/v2/fleet/tampered-other/manifests/$digest" | wc -c)" \
        '{schemaVersion:2,mediaType:"application/vnd.oci.image.manifest.v1+json",artifactType:"application/vnd.dev.sigstore.bundle.v0.3+json",
          config:{mediaType:"application/vnd.oci.empty.v1+json",digest:$empty,size:2},
          layers:[{mediaType:"application/vnd.dev.sigstore.bundle.v0.3+json",digest:$sum,size:$size}],
          subject:{mediaType:"application/vnd.oci.image.manifest.v1+json",digest:$subject,size:$about}}' | tr -d '\n' >"$work/forged.manifest"
    curl -fsS -X PUT -H 'Content-Type: application/vnd.oci.image.manifest.v1+json' --data-binary @"$work/forged.manifest" \
        "http://$registry/v2/fleet/tampered-other/manifests/sha256:$(sha256sum <"$work/forged.manifest" | cut -d ' ' -f 1)" >/dev/null
    refuses "cosign3 refuses a statement that was changed" "signature|verif|match" cv --key "$work/ours.pub" "$image"
    refuses "dhow refuses a statement that was changed" "no key that is trusted, or what was signed has changed" dhow verify --key "$work/ours.pub" "$image"
    push replayed; from=$digest
    dhow sign --key "$work/ours.key" "$image" >/dev/null
    push replayed-other
    transplant replayed "$from" replayed-other "$digest"
    refuses "cosign3 refuses a signature of another image" "signature|verif|match|digest" cv --key "$work/ours.pub" "$image"
    refuses "dhow refuses a signature of another image" "about ${from#sha256:}" dhow verify --key "$work/ours.pub" "$image"
fi

if [ -n "$COSIGN2" ]; then
    cosign_suite cosign2 "$COSIGN2" "" "--tlog-upload=false" "cosign"
    push cosign2-attest
    check "cosign2 attests" "$COSIGN2" attest --tlog-upload=false --allow-http-registry --yes --key "$work/cosign2.key" --type spdxjson --predicate "$work/sbom.json" "$image"
    check "dhow verifies the attestation" dhow verify --key "$work/cosign2.pub" --type spdx "$image"
    push cosign2-many
    check "dhow signs" dhow sign --key "$work/ours.key" --format cosign "$image"
    check "cosign2 signs beside it" "$COSIGN2" sign --tlog-upload=false --allow-http-registry --yes --key "$work/cosign2.key" "$image"
    check "dhow finds its own" dhow verify --key "$work/ours.pub" "$image"
    check "and cosign2's" dhow verify --key "$work/cosign2.pub" "$image"
    check "cosign2 finds its own" cv --key "$work/cosign2.pub" "$image"
    check "and dhow's" cv --key "$work/ours.pub" "$image"
    first=$digest
    push cosign2-other
    check "a signature is put beside another image" dhow copy -q "docker://$registry/fleet/cosign2-many:${first/:/-}.sig" "docker://$registry/fleet/cosign2-other:${digest/:/-}.sig"
    refuses "cosign2 refuses it there" "signature|digest|match" cv --key "$work/ours.pub" "$image"
    refuses "dhow refuses it there" "not of $digest" dhow verify --key "$work/ours.pub" "$image"
fi

if [ -n "$NOTATION" ]; then
    "$NOTATION" version | sed -n 's/^Version: */notation: /p'
    config=$XDG_CONFIG_HOME/notation
    mkdir -p "$config"
    cat >"$config/trustpolicy.json" <<POLICY
{"version": "1.0", "trustPolicies": [{"name": "all", "registryScopes": ["*"], "signatureVerification": {"level": "strict"},
  "trustStores": ["ca:all", "ca:theirs"], "trustedIdentities": ["*"]}]}
POLICY
    # A store without a certificate is an error to notation: its own is made first.
    check "notation makes a certificate" "$NOTATION" cert generate-test --default theirs
    theirs=$(find "$config" -name 'theirs.crt' | head -n 1)
    check "notation trusts dhow's certificate" "$NOTATION" cert add --type ca --store all "$work/ours.crt"
    push notation-ours
    check "dhow signs" dhow sign --key "$work/ours.key" --format notation --certificate "$work/ours.crt" --expiry 1h -a by=dhow "$image"
    check "notation verifies it" "$NOTATION" verify --insecure-registry "$image"
    check "notation finds what is said beside it" "$NOTATION" verify --insecure-registry --user-metadata by=dhow "$image"
    check "dhow verifies it" dhow verify --certificate-authority "$work/ours.crt" "$image"
    push notation-theirs
    check "notation signs" "$NOTATION" sign --insecure-registry --key theirs "$image"
    check "notation verifies its own" "$NOTATION" verify --insecure-registry "$image"
    check "dhow verifies what notation signed" dhow verify --certificate-authority "$theirs" "$image"
    refuses "dhow refuses it under another certificate" "not trusted" dhow verify --certificate-authority "$work/ours.crt" "$image"
    push notation-replayed; from=$digest
    dhow sign --key "$work/ours.key" --format notation --certificate "$work/ours.crt" "$image" >/dev/null
    push notation-other
    transplant notation-replayed "$from" notation-other "$digest"
    refuses "notation refuses a signature of another image" "digest|signature|mismatch|fail" "$NOTATION" verify --insecure-registry "$image"
    refuses "dhow refuses a signature of another image" "is of $from" dhow verify --certificate-authority "$work/ours.crt" "$image"
    push notation-cose
    check "notation signs with COSE" "$NOTATION" sign --insecure-registry --signature-format cose --key theirs "$image"
    check "dhow verifies it" dhow verify --certificate-authority "$theirs" "$image"
    refuses "and refuses it under another certificate" "not trusted" dhow verify --certificate-authority "$work/ours.crt" "$image"
    push notation-cose-ours; from=$digest
    check "dhow signs with COSE" dhow sign --key "$work/ours.key" --format notation-cose --certificate "$work/ours.crt" --expiry 1h -a by=dhow "$image"
    check "notation verifies it" "$NOTATION" verify --insecure-registry --user-metadata by=dhow "$image"
    check "dhow verifies it, too" dhow verify --certificate-authority "$work/ours.crt" "$image"
    push notation-cose-other
    transplant notation-cose-ours "$from" notation-cose-other "$digest"
    refuses "notation refuses a COSE signature of another image" "digest|signature|mismatch|fail" "$NOTATION" verify --insecure-registry "$image"
    refuses "so does dhow" "is of $from" dhow verify --certificate-authority "$work/ours.crt" "$image"
    push notation-cose-expired
    check "dhow signs with COSE for a second" dhow sign --key "$work/ours.key" --format notation-cose --certificate "$work/ours.crt" --expiry 1s "$image"
    sleep 2
    refuses "notation refuses the expired COSE signature" "expired" "$NOTATION" verify --insecure-registry "$image"
    refuses "so does dhow" "expired" dhow verify --certificate-authority "$work/ours.crt" "$image"
    push notation-expired
    check "dhow signs for a second" dhow sign --key "$work/ours.key" --format notation --certificate "$work/ours.crt" --expiry 1s "$image"
    sleep 2
    refuses "notation refuses the expired signature" "expired" "$NOTATION" verify --insecure-registry "$image"
    refuses "dhow refuses the expired signature" "expired" dhow verify --certificate-authority "$work/ours.crt" "$image"
fi

# One policy.json, asked by skopeo and by dhow: both must say the same.
if [ -n "$SKOPEO" ]; then
    "$SKOPEO" --version
    mkdir -p "$work/registries.d"
    printf 'docker:\n  %s:\n    use-sigstore-attachments: true\n' "$registry" >"$work/registries.d/all.yaml"
    printf %s "$COSIGN_PASSWORD" >"$work/pass"
    policy() { # requirement
        echo "{\"default\":[{\"type\":\"reject\"}],\"transports\":{\"dir\":{\"\":[{\"type\":\"insecureAcceptAnything\"}]},\"docker\":{\"$registry/fleet\":[$1]}}}" >"$work/policy.json"
    }
    by() { echo "{\"type\":\"sigstoreSigned\",\"keyPath\":\"$work/$1.pub\"${2:+,\"signedIdentity\":$2}}"; }
    sk() { rm -rf "$work/dir"; "$SKOPEO" --policy "$work/policy.json" --registries.d "$work/registries.d" --tmpdir "$work" copy -q --src-tls-verify=false "docker://$1" "dir:$work/dir"; }
    dh() { dhow rmi "$1" >/dev/null 2>&1 || true; DHOW_CONTAINERS_POLICY=$work/policy.json "$DHOW" --root "$work/dhow" pull "$1"; }
    push skopeo-ours
    name=$registry/fleet/skopeo-ours:1
    dhow sign --key "$work/ours.key" --format cosign "$name" >/dev/null
    for requirement in "$(by ours)" "$(by ours '{"type":"matchExact"}')" "$(by ours '{"type":"matchRepository"}')" \
        "$(by ours "{\"type\":\"exactRepository\",\"dockerRepository\":\"$registry/fleet/skopeo-ours\"}")" '{"type":"insecureAcceptAnything"}'; do
        policy "$requirement"
        check "skopeo takes what dhow signed: ${requirement//$work\/}" sk "$name"
        check "so does dhow" dh "$name"
    done
    for requirement in "$(by stranger)" "$(by ours '{"type":"exactReference","dockerReference":"r.example/x:1"}')" \
        "$(by ours "{\"type\":\"remapIdentity\",\"prefix\":\"$registry/fleet\",\"signedPrefix\":\"r.example/fleet\"}")" '{"type":"reject"}'; do
        policy "$requirement"
        refuses "skopeo refuses it: ${requirement//$work\/}" "signature|reject|policy|identity|match" sk "$name"
        refuses "so does dhow" "policy.json" dh "$name"
    done
    push skopeo-plain
    policy "$(by ours)"
    refuses "skopeo refuses what nobody signed" "signature" sk "$registry/fleet/skopeo-plain:1"
    refuses "so does dhow" "no signature" dh "$registry/fleet/skopeo-plain:1"
    policy '{"type":"insecureAcceptAnything"}'
    check "skopeo signs with dhow's key" "$SKOPEO" --policy "$work/policy.json" --registries.d "$work/registries.d" --tmpdir "$work" copy -q \
        --src-tls-verify=false --dest-tls-verify=false --sign-by-sigstore-private-key "$work/ours.key" --sign-passphrase-file "$work/pass" \
        "docker://$registry/fleet/skopeo-plain:1" "docker://$registry/fleet/skopeo-theirs:1"
    check "dhow verifies that" dhow verify --key "$work/ours.pub" "$registry/fleet/skopeo-theirs:1"
    policy "$(by ours)"
    check "and takes it by the policy" dh "$registry/fleet/skopeo-theirs:1"
    check "so does skopeo" sk "$registry/fleet/skopeo-theirs:1"
fi

echo
result
