#!/usr/bin/env bash
# Every shell script and the Dockerfiles, by shellcheck and hadolint.
set -euo pipefail
# shellcheck source=docker/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

cd "$ROOT"
linters=$(tools_folder lint)/bin
[[ -x $linters/hadolint ]] || die "shellcheck and hadolint are not there" "docker/setup.sh lint installs them"
mapfile -t scripts < <(git grep -lE '^#!.*bash|^# shellcheck shell=bash' -- . ':!*.md')
"$linters/shellcheck" --external-sources "${scripts[@]}"
# DL3008, DL3013: Debian's packages are of the base image's release; the wheels are pinned by hash.
"$linters/hadolint" --ignore DL3008 --ignore DL3013 docker/*Dockerfile
say "${#scripts[@]} scripts and $(git ls-files 'docker/*Dockerfile' | wc -l) Dockerfiles are clean"
