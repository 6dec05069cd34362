#!/usr/bin/env bash
# Builds the commit again, elsewhere, and compares with dist/. The exit code is the verdict.
#
#   docker/verify.sh [host|docker|cross]…        default: host, and docker where an engine answers
#
# host: docker/build.sh in a fresh clone with a target folder and crates of its own. docker: the whole Dockerfile there,
# without a cache; binaries and index digest. cross: cross build with docker/cross.Dockerfile.
# CROSS names another cross; HUMIDOR_ARCHS="arm64 armv7" leaves targets out of host and
# cross.
set -euo pipefail
# shellcheck source=docker/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

ways=("$@")
if ((!$#)); then
    ways=(host)
    if docker version >/dev/null 2>&1; then ways+=(docker); fi
fi
know_source
[[ $HUMIDOR_REVISION != *-dirty ]] || die "there are uncommitted changes, which a fresh clone would not have" "commit first"
read -ra wanted <<<"${HUMIDOR_ARCHS:-$(archs all | paste -sd' ')}"
for arch in "${wanted[@]}"; do
    [[ -f $ROOT/dist/$arch/humidor ]] || die "dist/$arch/humidor is not there to compare with" "docker/build.sh $arch makes it"
done

# Not in ours: a path of another length, so that a forgotten remap shows.
work=$(mktemp -d "${TMPDIR:-/tmp}/humidor-verify-elsewhere.XXXXXX")
trap 'rm -rf "$work"' EXIT
git clone --quiet "$ROOT" "$work/source"

# same NAME FILE OTHER: or the verdict, with the first place where they differ.
same() {
    if cmp --silent "$2" "$3"; then
        say "$1: same, sha256 $(sha256sum "$2" | cut -d' ' -f1)"
        return
    fi
    printf 'DIFFERENT: %s\n  %s\n  %s bytes differ up to the shorter one'"'"'s end\n' "$1" "$(cmp "$2" "$3" 2>&1)" \
        "$(cmp -l "$2" "$3" 2>/dev/null | wc -l)" >&2
    # The strings that only one has tell most about the reason: a path, a version.
    diff <(strings -n 8 "$2" | sort) <(strings -n 8 "$3" | sort) | grep '^[<>]' | head -n 10 >&2 || true
    exit 1
}

for way in "${ways[@]}"; do
    say "building again: $way"
    case $way in
    host)
        (cd "$work/source" && CARGO_TARGET_DIR=$work/host-target CARGO_HOME=$work/crates docker/build.sh "${wanted[@]}")
        for arch in "${wanted[@]}"; do same "host, $arch" "$ROOT/dist/$arch/humidor" "$work/source/dist/$arch/humidor"; done
        ;;
    docker)
        [[ -f $ROOT/dist/humidor.oci.tar ]] || die "dist/humidor.oci.tar is not there to compare with" "docker/image.sh prebuilt makes it"
        "$work/source/docker/image.sh" --no-cache
        for archive in "$ROOT" "$work/source"; do
            archive=$archive/dist/humidor.oci.tar
            index=$(archive_digest "$archive")
            out=$(mktemp -d "$work/image.XXXXXX")
            while read -r platform digest; do
                mkdir -p "$out/${platform//\//-}"
                layer=$(archive_blob "$archive" "$digest" | jq -r '.layers[0].digest')
                archive_blob "$archive" "$layer" | tar -xz -C "$out/${platform//\//-}"
            done < <(archive_blob "$archive" "$index" | jq -r '.manifests[] | "\([.platform.os, .platform.architecture, .platform.variant // empty] | join("/")) \(.digest)"')
            outs+=("$out") indexes+=("$index")
        done
        while read -r arch _ platform _; do
            same "Dockerfile, $arch" "${outs[0]}/${platform//\//-}/humidor" "${outs[1]}/${platform//\//-}/humidor"
        done < <(targets)
        [[ ${indexes[0]} == "${indexes[1]}" ]] ||
            { printf 'DIFFERENT: the binaries are the same, the images around them are not: %s here, %s rebuilt\n' "${indexes[@]}" >&2; exit 1; }
        say "Dockerfile: same, index ${indexes[0]}"
        ;;
    cross)
        need "${CROSS:-cross}" "cargo install --locked cross@0.2.5"
        for arch in "${wanted[@]}"; do
            read -r _ triple _ < <(target "$arch")
            (cd "$work/source" && "${CROSS:-cross}" build --locked --release --target "$triple" --target-dir "$work/cross-target")
            same "cross, $arch" "$ROOT/dist/$arch/humidor" "$work/cross-target/$triple/release/humidor"
        done
        ;;
    *) die "there is no way $way" "the ways are host, docker and cross" ;;
    esac
done
say "verified: $HUMIDOR_REVISION by ${ways[*]}"
