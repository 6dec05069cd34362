#!/usr/bin/env bash
# Builds the source again, elsewhere, by every way that this machine has, and compares. The exit code is the verdict: 0 the
# same, 1 different, 2 not comparable (built by another compiler or on another kind of machine, as build-info.json says).
#
#   docker/verify.sh [VERSION] [host|docker|cross|nix]…
#
# Without VERSION: this commit, and what is in dist/ of it. With VERSION: tag vVERSION, and its digests in
# docker/digests.txt. Without ways: those for which this machine has what they need; the others are named.
#
# host: docker/build.sh in a fresh clone with a target folder and crates of its own. docker: the whole Dockerfile there,
# without a cache. cross: docker/cross.Dockerfile. nix: the flake. Binaries must be the same by all ways; images by
# the two that make some, Docker and Nix, each the same as before: they pack differently.
# HUMIDOR_ARCHS="arm64 armv7" leaves targets out of host, cross and nix. CROSS and NIX name another cross and nix.
#
# How the compared was built is in docker/build-info/VERSION.json and dist/build-info.json. All digests are left in
# dist/digests.txt, in the form of docker/digests.txt.
set -euo pipefail
# shellcheck source=docker/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

ALL_WAYS=(host docker cross nix)
# A digest in the table is cut to so many hex digits; dist/digests.txt has them whole.
SHOWN_DIGITS=12

# lacks WAY: what the way needs and this machine has not, or nothing.
lacks() {
    case $1 in
    host) [[ -x $TOOLS/bin/cargo-zigbuild ]] || echo "zig is not there: docker/setup.sh build installs it" ;;
    docker) docker buildx version >/dev/null 2>&1 && docker version >/dev/null 2>&1 || echo "no Docker engine with buildx answers" ;;
    cross)
        if ! command -v "${CROSS:-cross}" >/dev/null; then
            echo "cross is not there: cargo install --locked cross@0.2.5"
        elif ! docker version >/dev/null 2>&1; then
            echo "cross needs a Docker engine, and none answers"
        fi
        ;;
    nix)
        local oldest found
        oldest=$(sed -n 's/^"\(.*\)"$/\1/p' "$ROOT/nix/oldest.nix")
        if ! command -v "${NIX:-nix}" >/dev/null; then
            echo "nix is not there"
        elif found=$("${NIX:-nix}" --version 2>/dev/null | grep -oE '[0-9]+(\.[0-9]+)+' | head -n 1) && [[ -n $found ]] &&
            [[ $(printf '%s\n' "$oldest" "$found" | sort -V | head -n 1) != "$oldest" ]]; then
            echo "this Nix is $found, and the flake needs $oldest or later: take it from nixos.org or Debian 13"
        fi
        ;;
    *) die "there is no way $1" "the ways are ${ALL_WAYS[*]}" ;;
    esac
}

wanted_version=''
if [[ ${1:-} =~ ^v?([0-9]+\.[0-9]+\.[0-9]+)$ ]]; then
    wanted_version=${BASH_REMATCH[1]}
    shift
    grep -q "^$wanted_version " "$ROOT/docker/digests.txt" ||
        die "docker/digests.txt has no digests of $wanted_version" "git pull brings those of later releases"
fi
ways=() left_out=()
for way in "${@:-${ALL_WAYS[@]}}"; do
    lack=$(lacks "$way")
    if [[ -z $lack ]]; then
        ways+=("$way")
    elif (($#)); then
        die "$way: $lack"
    else
        left_out+=("$way: $lack")
    fi
done
((${#ways[@]})) || die "this machine has none of the ways to build" "${left_out[@]}"
read -ra wanted <<<"${HUMIDOR_ARCHS:-$(archs all | paste -sd' ')}"

# Not in ours: a path of another length, so that a forgotten remap shows.
work=$(mktemp -d "${TMPDIR:-/tmp}/humidor-verify-elsewhere.XXXXXX")
trap 'rm -rf "$work"' EXIT
git clone --quiet "$ROOT" "$work/source"
if [[ -n $wanted_version ]]; then
    git -C "$work/source" -c advice.detachedHead=false checkout --quiet "v$wanted_version" ||
        die "there is no tag v$wanted_version" "git fetch --tags"
    if git -C "$work/source" cat-file tag "v$wanted_version" 2>/dev/null | grep -q '^-----BEGIN .*SIGNATURE-----'; then
        git -C "$work/source" verify-tag "v$wanted_version" ||
            die "the signature of tag v$wanted_version is not good here" "import the key of its maker (gpg --import, or gpg.ssh.allowedSignersFile)"
        say "tag v$wanted_version: its signature is good"
    else
        say "tag v$wanted_version has no signature"
    fi
    HUMIDOR_REVISION=$(git -C "$work/source" rev-parse HEAD) SOURCE_DATE_EPOCH=$(git -C "$work/source" log -1 --format=%ct)
fi
know_source
[[ $HUMIDOR_REVISION != *-dirty ]] || die "there are uncommitted changes, which a fresh clone would not have" "commit first"

# --- the digests, by way: of the binary, and of what an image consists of

columns=() # in the order of the table
declare -A digest_of=() file_of=()

# note WAY WHAT ARCH DIGEST [FILE]
note() {
    digest_of[$1 $2 $3]=$4
    [[ -z ${5:-} ]] || file_of[$1 $2 $3]=$5
}
note_binary() {
    note "$1" binary "$2" "sha256:$(sha256sum <"$3" | cut -d' ' -f1)" "$3"
    # rustc and the linker leave their versions in the binary.
    note "$1" compiler "$2" "rustc-$(grep -aoE -m 1 'rustc version [^ ]+' "$3" | head -n 1 | cut -d' ' -f3)"
}

# The kind of machine that a column was built on.
declare -A builder_of=()
# info FILE KEY: of a build-info.json.
info() { sed -n "s/^ *\"$2\": \"\(.*\)\",*\$/\1/p" "$1"; }

# incomparable WAY OTHER ARCH: why their bytes need not be the same, or nothing.
incomparable() {
    local of=$3 one other
    [[ $of != all ]] || of=${wanted[0]}
    one=${digest_of[$1 compiler $of]:-} other=${digest_of[$2 compiler $of]:-}
    if [[ -n $one && -n $other && $one != "$other" ]]; then
        echo "compiled by $one, and by $other"
    elif [[ -n ${builder_of[$1]:-} && -n ${builder_of[$2]:-} && ${builder_of[$1]} != "${builder_of[$2]}" ]]; then
        echo "built on ${builder_of[$1]}, this is ${builder_of[$2]}"
    fi
}

# note_images WAY PREFIX ARCHIVE: index, manifests, configurations, layers; what cannot be the same by Docker and Nix has
# Nix's prefix. The binary is in the first layer.
note_images() {
    local way=$1 prefix=$2 archive=$3 arch platform manifest layer folder
    note "$way" "${prefix}index" all "$(archive_digest "$archive")" "$archive"
    while read -r arch _ platform _; do
        manifest=$(archive_platform "$archive" "$platform")
        layer=$(archive_blob "$archive" "$manifest" | jq -r '.layers[0].digest')
        note "$way" "${prefix}manifest" "$arch" "$manifest"
        note "$way" "${prefix}config" "$arch" "$(archive_blob "$archive" "$manifest" | jq -r .config.digest)"
        folder=$work/$way-image/$arch
        mkdir -p "$folder"
        archive_blob "$archive" "$layer" >"$folder/layer.tar.gz"
        note "$way" "${prefix}layer" "$arch" "$layer" "$folder/layer.tar.gz"
        tar -xzf "$folder/layer.tar.gz" -C "$folder" humidor
        note_binary "$way" "$arch" "$folder/humidor"
    done < <(targets)
}

if [[ -n $wanted_version ]]; then
    columns+=(published)
    while read -r _ what arch digest; do note published "$what" "$arch" "$digest"; done < <(grep "^$wanted_version " "$ROOT/docker/digests.txt")
    described=$ROOT/docker/build-info/$wanted_version.json
    [[ ! -f $described ]] || builder_of[published]=$(info "$described" builder)
else
    # What is there of another commit is not what this one makes.
    for arch in "${wanted[@]}"; do
        grep -qsF "$HUMIDOR_REVISION" "$ROOT/dist/$arch/humidor" || continue
        note_binary dist "$arch" "$ROOT/dist/$arch/humidor"
        columns=(dist)
    done
    described=$ROOT/dist/build-info.json
    [[ -f $described && $(info "$described" revision) == "$HUMIDOR_REVISION" ]] || described=''
    [[ -z $described ]] || builder_of[dist]=$(info "$described" builder) builder_of[image]=$(info "$described" builder)
    if [[ -f $ROOT/dist/humidor.oci.tar && $(archive_revision "$ROOT/dist/humidor.oci.tar") == "$HUMIDOR_REVISION" ]]; then
        note_images image '' "$ROOT/dist/humidor.oci.tar"
        columns+=(image)
    fi
fi

# Known before anything is compiled: a compiler of another version gives other bytes.
if [[ ${ways[*]} == host && -n $described && -f $described ]]; then
    there=$(info "$described" rustc) here=$("$ROOT/docker/build.sh" compiler)
    if [[ $here != "$there" ]]; then
        say "not comparable: built by $there, here is $here"
        exit 2
    fi
fi

for way in "${ways[@]}"; do
    say "building $HUMIDOR_REVISION again: $way"
    columns+=("$way")
    builder_of[$way]=$(uname -m)
    case $way in
    host)
        (cd "$work/source" && CARGO_TARGET_DIR=$work/host-target CARGO_HOME=$work/crates docker/build.sh "${wanted[@]}")
        for arch in "${wanted[@]}"; do note_binary host "$arch" "$work/source/dist/$arch/humidor"; done
        ;;
    docker)
        "$work/source/docker/image.sh" --no-cache
        note_images docker '' "$work/source/dist/humidor.oci.tar"
        ;;
    cross)
        for arch in "${wanted[@]}"; do
            read -r _ triple _ < <(target "$arch")
            (cd "$work/source" && "${CROSS:-cross}" build --locked --release --target "$triple" --target-dir "$work/cross-target")
            note_binary cross "$arch" "$work/cross-target/$triple/release/humidor"
        done
        ;;
    nix)
        built=("${wanted[@]/#/bin-}")
        [[ ${wanted[*]} != "$(archs all | paste -sd' ')" ]] || built=(oci)
        results=$("${NIX:-nix}" --extra-experimental-features 'nix-command flakes' build --no-link --print-out-paths "${built[@]/#/$work/source#}")
        mapfile -t results <<<"$results"
        if [[ ${built[*]} == oci ]]; then
            note_images nix nix- "${results[0]}"
        else
            for at in "${!wanted[@]}"; do note_binary nix "${wanted[at]}" "${results[at]}/bin/humidor"; done
        fi
        ;;
    esac
done

# --- the verdict

# tell_difference WHAT ARCH WAY OTHER: the first place where they differ.
tell_difference() {
    local one=${file_of[$3 $1 $2]:-} other=${file_of[$4 $1 $2]:-}
    printf 'DIFFERENT: %s %s, by %s and by %s\n  %s\n  %s\n' "$1" "$2" "$3" "$4" "${digest_of[$3 $1 $2]}" "${digest_of[$4 $1 $2]}"
    [[ $1 != binary ]] || printf '  compiled by %s and by %s\n' "${digest_of[$3 compiler $2]:-unknown}" "${digest_of[$4 compiler $2]:-unknown}"
    # Of the published there is no file.
    [[ -n $one && -n $other ]] || return 0
    if command -v diffoscope >/dev/null; then
        diffoscope --max-report-size 20000 --text - "$one" "$other" | head -n 60 || true
    elif [[ $1 == *layer ]]; then
        printf '  first difference in the list of files, then in bytes:\n'
        diff <(tar --numeric-owner --full-time -tvzf "$one") <(tar --numeric-owner --full-time -tvzf "$other") | grep '^[<>]' | head -n 4 || true
        cmp "$one" "$other" 2>&1 || true
    elif [[ $1 == binary ]]; then
        printf '  %s; %s bytes differ\n' "$(cmp "$one" "$other" 2>&1)" "$(cmp -l "$one" "$other" 2>/dev/null | wc -l)"
        # The strings that only one has tell most about the reason: a path, a version.
        diff <(strings -n 8 "$one" | sort) <(strings -n 8 "$other" | sort) | grep '^[<>]' | head -n 10 | cut -c 1-600 || true
    fi
}

different=0 alike=0 unlike=0
# row WHAT ARCH: one line of the table, and what differs in it.
row() {
    local way first='' digest mark=same compared=0 why
    printf '%-13s %-6s' "$1" "$2"
    for way in "${columns[@]}"; do
        digest=${digest_of[$way $1 $2]:-}
        printf ' %-*s' $((SHOWN_DIGITS + 1)) "$(cut -c "8-$((7 + SHOWN_DIGITS))" <<<"${digest:--------  -}")"
        [[ -n $digest ]] || continue
        compared=$((compared + 1))
        if [[ -z $first ]]; then
            first=$way
        elif [[ $digest != "${digest_of[$first $1 $2]}" ]]; then
            why=$(incomparable "$first" "$way" "$2")
            if [[ -n $why ]]; then
                [[ $mark == DIFFERENT ]] || mark='not comparable'
                unlike=$((unlike + 1))
                printf 'not comparable: %s\n' "$why" >>"$work/reasons"
                continue
            fi
            mark=DIFFERENT
            different=$((different + 1))
            tell_difference "$1" "$2" "$first" "$way" >>"$work/differences"
        fi
    done
    if ((compared < 2)); then mark=alone; elif [[ $mark == same ]]; then alike=$((alike + 1)); fi
    printf ' %s\n' "$mark"
}

: >"$work/differences"
: >"$work/reasons"
printf '%-20s' "$(version)"
for way in "${columns[@]}"; do printf " %-$((SHOWN_DIGITS + 1))s" "$way"; done
printf '\n'
for arch in "${wanted[@]}"; do row binary "$arch"; done
mapfile -t rows < <(printf '%s\n' "${!digest_of[@]}" | cut -d' ' -f2,3 | grep -v '^binary ' | sort -u)
for line in "${rows[@]}"; do
    read -r what arch <<<"$line"
    [[ $what == revision || $what == compiler || -z $what ]] || row "$what" "$arch"
done
cat "$work/differences"
sort -u "$work/reasons"

if [[ -z $wanted_version ]]; then
    mkdir -p "$ROOT/dist"
    {
        printf '%s revision all %s\n' "$(version)" "$HUMIDOR_REVISION"
        for key in "${!digest_of[@]}"; do
            read -r way what arch <<<"$key"
            [[ " ${ways[*]} " != *" $way "* ]] || printf '%s %s %s %s\n' "$(version)" "$what" "$arch" "${digest_of[$key]}"
        done
    } | sort -u >"$ROOT/dist/digests.txt"
fi
for line in "${left_out[@]}"; do say "left out: $line"; done
# Signatures of what lies beside, by the plain key.
for signature in "$ROOT"/dist/*.minisig "$ROOT"/docker/*.minisig; do
    [[ ! -f $signature ]] || "$ROOT/docker/sign.sh" check "${signature%.minisig}" || different=$((different + 1))
done
((!different)) || die "NOT THE SAME: $HUMIDOR_REVISION, $different differences" "docs/VERIFY.md tells what a difference can mean"
if ((unlike)); then
    say "not comparable: $unlike of the digests are of other builders; nothing else differs. docs/VERIFY.md tells what would be"
    exit 2
fi
((alike)) || die "nothing was compared: one way alone says nothing" "docker/build.sh all, or another way"
say "verified: $HUMIDOR_REVISION by ${ways[*]}"
