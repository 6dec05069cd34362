#!/usr/bin/env bash
# Detached signatures by a plain key, for a plant without the internet; what is signed stays as it is, and so its digest:
#
#   docker/sign.sh [FILE…]           FILE.minisig of each; default: bundle, digests and build-info.json in dist/
#   docker/sign.sh check FILE…       by the public key docker/humidor.pub
#
# HUMIDOR_SIGNING_KEY: the secret key, which never is in the repository (default: ~/.minisign/humidor.key).
# HUMIDOR_PUBLIC_KEY: another public key. Whoever has only the file, its signature and the key line of the README:
#   minisign -V -P KEY -m FILE
set -euo pipefail
# shellcheck source=docker/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

secret=${HUMIDOR_SIGNING_KEY:-$HOME/.minisign/humidor.key}
public=${HUMIDOR_PUBLIC_KEY:-$ROOT/docker/humidor.pub}
need minisign "docker/setup.sh sign installs it"
[[ -f $public ]] || die "there is no public key $public" \
    "its owner makes the pair once: minisign -G -p docker/humidor.pub -s $secret" "and commits the .pub, never the .key"

if [[ ${1:-} == check ]]; then
    shift
    (($#)) || die "name what is to be checked"
    for file in "$@"; do
        [[ -f $file.minisig ]] || die "$file has no signature beside it" "$(basename "$file").minisig comes with it"
        # -Q prints the trusted comment alone, which is signed too.
        comment=$(minisign -V -Q -p "$public" -m "$file" 2>&1) || die "$file is not what was signed: $comment" "take it again from where it came; do not install it"
        say "$(basename "$file"): signed, $comment"
    done
    exit
fi

[[ -f $secret ]] || die "there is no secret key $secret" "HUMIDOR_SIGNING_KEY names another place"
git -C "$ROOT" ls-files --error-unmatch "$secret" >/dev/null 2>&1 && die "$secret is in the repository" "a key that others have signs nothing: make another"
know_source
[[ $HUMIDOR_REVISION != *-dirty ]] || die "there are uncommitted changes: nobody could tell what was signed" "commit first"
files=("$@")
(($#)) || files=("$ROOT/dist/humidor-$(version)-bundle.tar" "$ROOT/dist/digests.txt" "$ROOT/dist/build-info.json")
for file in "${files[@]}"; do
    [[ -f $file ]] || die "$file is not there" "just build, just bundle and just verify make them"
    minisign -S -s "$secret" -m "$file" -x "$file.minisig.part" -t "humidor $(version) $HUMIDOR_REVISION $(basename "$file")" >/dev/null
    mv "$file.minisig.part" "$file.minisig"
    # The wrong pair would sign in vain.
    "${BASH_SOURCE[0]}" check "$file"
done
