#!/usr/bin/env bash
# Attaches to the image index in a registry what is in it and what built it, as OCI referrers, and reads them back:
#
#   docker/attach.sh REGISTRY/NAME       docker/push.sh calls it
#
# Two manifests have the index as their subject: the lists of crates (CycloneDX, one a platform) and dist/build-info.json.
# The index itself stays as it is. A registry of the distribution specification 1.1 answers them at /referrers/; for all
# others the tag sha256-DIGEST lists them, as that specification says.
set -euo pipefail
# shellcheck source=docker/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

(($# == 1)) || die "name one place" "docker/attach.sh 127.0.0.1:5000/humidor"
repository=$1
archive=$ROOT/dist/humidor.oci.tar
need skopeo "docker/setup.sh engine installs it (Debian: skopeo)"
need jq "docker/setup.sh engine installs it (Debian: jq)"
know_source

digest=$(archive_digest "$archive")
revision=$(archive_revision "$archive")
info=$ROOT/dist/build-info.json
[[ -f $info && $(jq -r .revision "$info") == "$revision" ]] ||
    die "dist/build-info.json is not of the image's commit $revision" "docker/build.sh all writes it, beside the binaries that docker/image.sh prebuilt packs"
tls=()
case $repository in 127.* | localhost[:/]* | "[::1]"*) tls=(--tls-verify=false) ;; esac

layout=$(mktemp -d)
trap 'rm -rf "$layout"' EXIT
mkdir -p "$layout/blobs/sha256"
printf '{"imageLayoutVersion":"1.0.0"}' >"$layout/oci-layout"

# blob FILE: puts it into the layout; prints what a descriptor says of it.
blob() {
    local sum
    sum=$(sha256sum <"$1" | cut -d' ' -f1)
    cp "$1" "$layout/blobs/sha256/$sum"
    jq -nc --arg digest "sha256:$sum" --argjson size "$(stat -c %s "$1")" '{digest: $digest, size: $size}'
}
# referrer TYPE TITLE=FILE…: a manifest whose layers are the files; prints its descriptor.
referrer() {
    local type=$1 file layers=()
    shift
    for file in "$@"; do
        layers+=("$(blob "${file#*=}" | jq -c --arg type "$type" --arg title "${file%%=*}" '{mediaType: $type} + . + {annotations: {"org.opencontainers.image.title": $title}}')")
    done
    printf '{}' >"$layout/config"
    jq -nc --arg type "$type" --arg digest "$digest" --argjson size "$(archive_blob "$archive" "$digest" | wc -c)" \
        --arg created "$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)" --argjson config "$(blob "$layout/config")" '{
            schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json", artifactType: $type,
            config: ({mediaType: "application/vnd.oci.empty.v1+json"} + $config), layers: $ARGS.positional | map(fromjson),
            subject: {mediaType: "application/vnd.oci.image.index.v1+json", digest: $digest, size: $size},
            annotations: {"org.opencontainers.image.created": $created}
        }' --args "${layers[@]}" | tr -d '\n' >"$layout/manifest"
    blob "$layout/manifest" | jq -c --arg type "$type" '{mediaType: "application/vnd.oci.image.manifest.v1+json"} + . + {artifactType: $type}'
}

"$ROOT/docker/sbom.sh" all
lists=()
for arch in $(archs all); do lists+=("humidor-$arch.cdx.json=$ROOT/dist/$arch/humidor.cdx.json"); done
attached=$(
    referrer application/vnd.cyclonedx+json "${lists[@]}"
    referrer application/vnd.humidor.build-info+json "build-info.json=$info"
)

tag=${digest/:/-}
# What others have attached stays.
others='[]'
if skopeo inspect "${tls[@]}" --raw "docker://$repository:$tag" >"$layout/there" 2>/dev/null; then
    skopeo copy --quiet --all --preserve-digests "${tls[@]/--tls/--src-tls}" "docker://$repository:$tag" "oci:$layout:there"
    others=$(jq -c .manifests "$layout/there")
fi
# put FILTER: writes the list, through the filter, and copies it with all that it names.
put() {
    jq -nc --argjson others "$others" --slurpfile attached <(printf '%s\n' "$attached") '{schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json", manifests: ($attached + $others | unique_by(.digest))} | '"$1" |
        tr -d '\n' >"$layout/list"
    jq -nc --argjson list "$(blob "$layout/list")" '{schemaVersion: 2, manifests: [{mediaType: "application/vnd.oci.image.index.v1+json"} + $list + {annotations: {"org.opencontainers.image.ref.name": "list"}}]}' >"$layout/index.json"
    skopeo copy --quiet --all --preserve-digests "${tls[@]/--tls/--dest-tls}" "oci:$layout:list" "docker://$repository:$tag"
}
# Skopeo of Debian 12 refuses a list whose entries have a type. The manifests themselves have it.
put . 2>"$layout/refusal" || put 'del(.manifests[].artifactType)' ||
    die "what belongs to the image cannot be attached to $repository: $(cat "$layout/refusal")" "the image itself is pushed; docker/attach.sh $repository tries this again"
skopeo inspect "${tls[@]}" --raw "docker://$repository:$tag" | cmp - "$layout/list" ||
    die "$repository:$tag has not what was attached" "the registry changes manifests, or another push was quicker: say this again"
say "$repository:$tag lists what is attached to $digest"
