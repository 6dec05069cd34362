#!/usr/bin/env bash
# Pushes dist/humidor.oci.tar, byte for byte, and reads back what the registry then has:
#
#   docker/push.sh REGISTRY/NAME                 e.g. registry.example.org/plant/humidor
#
# Then attach.sh attaches what is known of the binaries. Tags: X.Y.Z, sha-COMMIT and X.Y.Z-ARCH, which never move; X.Y and
# latest, which do. A registry on loopback is spoken to over plain HTTP.
set -euo pipefail
# shellcheck source=docker/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

(($# == 1)) || die "name one place to push to" "docker/push.sh 127.0.0.1:5000/humidor"
repository=$1
archive=$ROOT/dist/humidor.oci.tar
need skopeo "docker/setup.sh engine installs it (Debian: skopeo)"
need jq "docker/setup.sh engine installs it (Debian: jq)"
[[ $repository == */* && $repository != *:*/*:* && $repository != *@* ]] || die "$repository is not REGISTRY/NAME, without a tag"
[[ -f $archive ]] || die "dist/humidor.oci.tar is not there" "docker/image.sh makes it"
know_source

digest=$(archive_digest "$archive")
revision=$(archive_revision "$archive")
[[ $revision != *-dirty && $revision =~ ^[0-9a-f]{40}$ ]] ||
    die "the image was made of files that no commit has ($revision); a version tag must name a source that others can get" \
        "commit, then docker/build.sh all and docker/image.sh prebuilt"
[[ $HUMIDOR_REVISION == "$revision" ]] ||
    die "the image is of $revision, this work tree is $HUMIDOR_REVISION" "docker/image.sh makes it anew"

# What a registry shows as the image's platforms.
entries=$(archive_blob "$archive" "$digest" | jq -r '.manifests[] | [.platform.os, .platform.architecture, .platform.variant // empty] | join("/")' | sort)
[[ $entries == "$(targets | cut -d' ' -f3 | sort)" ]] ||
    die "the index in dist/humidor.oci.tar lists $(tr '\n' ' ' <<<"$entries")and not exactly the platforms of docker/targets" \
        "docker/image.sh makes it anew; attestations and further platforms do not belong into it"

tls=()
case $repository in 127.* | localhost[:/]* | "[::1]"*) tls=(--tls-verify=false) ;; esac
# remote_digest TAG: nothing where there is no such tag; any other trouble ends the push.
remote_digest() {
    local answer
    if answer=$(skopeo inspect "${tls[@]}" --raw "docker://$repository:$1" 2>&1 | sha256sum; exit "${PIPESTATUS[0]}"); then
        printf 'sha256:%s\n' "${answer%% *}"
    else
        answer=$(skopeo inspect "${tls[@]}" --raw "docker://$repository:$1" 2>&1 || true)
        case $answer in
        *"manifest unknown"* | *"name unknown"* | *"not found"*) ;;
        *) die "cannot ask $repository for tag $1: $answer" "is the registry's name right? skopeo login ${repository%%/*} signs in" ;;
        esac
    fi
}

version=$(version)
declare -A fixed=(["$version"]=$digest ["sha-${revision:0:12}"]=$digest)
while read -r arch _ platform _; do
    fixed[$version-$arch]=$(archive_platform "$archive" "$platform")
done < <(targets)
# All looked at before the first is written, so that a refusal leaves the registry as it was.
for tag in "${!fixed[@]}"; do
    there=$(remote_digest "$tag") || exit
    [[ -z $there || $there == "${fixed[$tag]}" ]] ||
        die "$repository:$tag exists with another digest: $there there, ${fixed[$tag]} here" \
            "a published version never changes: raise version in Cargo.toml, or delete the tag at the registry"
done

# copy TAG [PLATFORM]: one platform's image, or the index with all.
copy() {
    local what=(--all) os arch variant
    if (($# > 1)); then
        IFS=/ read -r os arch variant <<<"$2"
        what=(--override-os "$os" --override-arch "$arch")
        [[ -z $variant ]] || what+=(--override-variant "$variant")
    fi
    skopeo copy --quiet "${what[@]}" "${tls[@]/--tls/--dest-tls}" --preserve-digests \
        "oci-archive:$archive" "docker://$repository:$1"
}
for tag in "$version" "sha-${revision:0:12}" "${version%.*}" latest; do
    say "$repository:$tag"
    copy "$tag"
    there=$(remote_digest "$tag")
    [[ $there == "$digest" ]] || die "$repository:$tag has $there after the push, not $digest"
done
while read -r arch _ platform _; do
    say "$repository:$version-$arch"
    copy "$version-$arch" "$platform"
    there=$(remote_digest "$version-$arch")
    [[ $there == "$(archive_platform "$archive" "$platform")" ]] || die "$repository:$version-$arch has $there after the push"
done < <(targets)
if [[ $(jq -r .revision "$ROOT/dist/build-info.json" 2>/dev/null) == "$revision" ]]; then
    "$ROOT/docker/attach.sh" "$repository"
else
    say "no lists of crates are attached: dist/ has no binaries of this commit, from which docker/build.sh all and docker/attach.sh $repository make them"
fi
say "$repository@$digest"
