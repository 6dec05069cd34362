#!/usr/bin/env bash
# What a release needs, in order, and whether it is so: docker/release.sh X.Y.Z. docs/RELEASE.md says why.
# Changes nothing. Exit code 0 when all is done.
set -euo pipefail
# shellcheck source=docker/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[[ ${1:-} =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]] || die "which version? X.Y.Z" "docker/release.sh $(version)"
wanted=$1
cd "$ROOT"
know_source
tagged=$(git rev-parse --quiet --verify "v$wanted^{commit}" || true)
archive=dist/humidor.oci.tar bundle=dist/humidor-$wanted-bundle.tar

open=0
# item WHAT HOW COMMAND…: one line; how to do it only where it is not done.
item() {
    local what=$1 how=$2
    shift 2
    if ("$@") >/dev/null 2>&1; then
        printf '[x] %s\n' "$what"
    else
        printf '[ ] %s\n      %s\n' "$what" "$how"
        open=$((open + 1))
    fi
}

version_is_set() { [[ $(version) == "$wanted" ]] && grep -qx "ARG HUMIDOR_VERSION=$wanted" docker/Dockerfile && cargo metadata --locked --no-deps --format-version 1; }
# The date of a heading is the day of the release.
changes_are_told() { grep -qE "^## $wanted( |$)" CHANGELOG.md; }
clean() { [[ $HUMIDOR_REVISION != *-dirty ]]; }
tag_is_here() { [[ -n $tagged && $tagged == "$HUMIDOR_REVISION" ]]; }
binaries_are_of_it() {
    [[ -n $tagged ]] || return
    for arch in $(archs all); do grep -qF "$tagged" "dist/$arch/humidor" || return; done
}
image_is_of_it() { [[ -n $tagged && $(archive_revision "$archive") == "$tagged" ]]; }
digests_are_of_it() { grep -qx "$wanted revision all $tagged" dist/digests.txt && grep -q "^$wanted index all $(archive_digest "$archive")$" dist/digests.txt; }
bundle_is_of_it() { [[ -f $archive && $(tar -xOf "$bundle" "humidor-$wanted/DIGEST") == "$(archive_digest "$archive")" ]]; }
signed() { docker/sign.sh check "$bundle" dist/digests.txt dist/build-info.json; }
digests_are_published() { cmp dist/build-info.json "docker/build-info/$wanted.json" && grep -q "^$wanted " dist/digests.txt && diff <(grep "^$wanted " dist/digests.txt) <(grep "^$wanted " docker/digests.txt); }

item "version $wanted in Cargo.toml, Cargo.lock and docker/Dockerfile" "write it, then cargo check" version_is_set
item "CHANGELOG.md has a heading $wanted" "rename Unreleased, with the date" changes_are_told
if [[ -n $tagged && $tagged != "$HUMIDOR_REVISION" ]]; then
    # After the tag: only the digests are still to be published.
    printf '[x] tag v%s is %s\n' "$wanted" "${tagged:0:12}"
else
    item "nothing uncommitted" "commit; CI must be green on that commit" clean
    item "tag v$wanted on this commit" "git tag -s v$wanted, when CI was green" tag_is_here
fi
item "binaries of it in dist/" "with the tag checked out: just build" binaries_are_of_it
item "the image of it in dist/" "just image prebuilt" image_is_of_it
item "built again by every way, the same" "just verify" digests_are_of_it
item "the bundle for a plant without the internet" "just bundle" bundle_is_of_it
item "signatures of bundle, digests and build-info.json" "just sign" signed
item "its digests in docker/digests.txt and its builder in docker/build-info/, on main" \
    "git switch main; grep '^$wanted ' dist/digests.txt >> docker/digests.txt; cp dist/build-info.json docker/build-info/$wanted.json; commit" digests_are_published
printf '%s\n' "By hand, last: git push --tags; just push REGISTRY/NAME (refuses to change a published version); just verify $wanted on" \
    "another machine; attach bundle, packages, digests.txt, build-info.json and every .minisig to the release."
((!open)) || die "$open of the list are open"
