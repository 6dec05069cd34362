#!/usr/bin/env bash
# Newer pins, written into the files that have them (needs the internet; docs/RELEASE.md says what comes after):
#
#   docker/renew.sh                    the newest wheels in docker/zig-requirements.txt; with Nix here, flake.lock too
#   docker/renew.sh ziglang==0.15.2    that version of a wheel, the newest of the other
set -euo pipefail
# shellcheck source=docker/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

need jq "docker/setup.sh engine installs it (Debian: jq)"
python=$TOOLS/bin/python3
"$python" -m pip --version >/dev/null 2>&1 || die "there is no pip in $TOOLS" "docker/setup.sh build installs it"
requirements=$ROOT/docker/zig-requirements.txt

# pin REQUIREMENT: its lines, with the hashes of the wheels for both kinds of builders.
pin() {
    local machine found version='' hashes=()
    for machine in x86_64 aarch64; do
        found=$("$python" -m pip install --quiet --disable-pip-version-check --dry-run --ignore-installed --no-deps --only-binary :all: \
            --platform "manylinux2014_$machine" --platform "manylinux_2_17_$machine" --target /nonexistent --report - "$1" |
            jq -r '.install[0] | .metadata.version + " " + .download_info.archive_info.hashes.sha256')
        [[ -z $version || $version == "${found% *}" ]] || die "$1 is $version for one kind of builder and ${found% *} for the other" "name a version that both have"
        version=${found% *}
        hashes+=("--hash=sha256:${found#* }")
    done
    printf '%s==%s \\\n    %s \\\n    %s\n' "${1%%==*}" "$version" "${hashes[@]}"
}

wheels=$(sed -n 's/^\([a-z-]*\)==.*/\1/p' "$requirements")
for wanted in "$@"; do
    grep -qx "${wanted%%==*}" <<<"$wheels" || die "docker/zig-requirements.txt has no ${wanted%%==*}" "it has $(paste -sd' ' <<<"$wheels")"
done
part=$(mktemp)
trap 'rm -f "$part"' EXIT
sed '/^#/!d' "$requirements" >"$part"
for name in $wheels; do
    wanted=$name
    for each in "$@"; do [[ ${each%%==*} != "$name" ]] || wanted=$each; done
    pin "$wanted" >>"$part"
done
cat "$part" >"$requirements"
say "docker/zig-requirements.txt: $(sed -n 's/^\([a-z-]*==[^ ]*\).*/\1/p' "$requirements" | paste -sd' ')"
if command -v nix >/dev/null; then
    (cd "$ROOT" && nix --extra-experimental-features 'nix-command flakes' flake update)
else
    say "flake.lock stays: there is no Nix here"
fi
