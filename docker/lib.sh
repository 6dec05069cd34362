# shellcheck shell=bash
# What the delivery scripts share: messages, the table of targets, where the tools are, which source this is.
# Sourced, never run.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '==> %s\n' "$*" >&2; }

# die WHAT [WHAT TO DO]
die() {
    printf '%s: %s\n' "$(basename "$0")" "$1" >&2
    (($# < 2)) || printf '  -> %s\n' "${@:2}" >&2
    exit 1
}

# The table without its comments, single spaces between its columns: arch triple platform zig qemu.
targets() { sed -e '/^#/d' -e '/^$/d' -e 's/[[:space:]]\{1,\}/ /g' "$ROOT/docker/targets"; }

# target ARCH|PLATFORM|TRIPLE: its line of the table.
target() {
    local line
    while read -r line; do
        case " $line " in *" $1 "*) printf '%s\n' "$line" && return ;; esac
    done < <(targets)
    die "there is no target $1" "the targets are: $(targets | cut -d' ' -f1 | tr '\n' ' ')and all (docker/targets)"
}

# archs [NAME…]: the archs that are meant; none or `all` means all.
archs() {
    local name line
    (($#)) && [[ $* != all ]] || set -- $(targets | cut -d' ' -f1)
    for name in "$@"; do
        line=$(target "$name") || exit
        printf '%s\n' "${line%% *}"
    done
}

# need COMMAND HOW-TO-GET-IT
need() { command -v "$1" >/dev/null || die "$1 is not there" "$2"; }

# Of this requirements file only: another version gets another folder, and work trees share one.
TOOLS=${HUMIDOR_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/humidor/zig-$(sha256sum "$ROOT/docker/zig-requirements.txt" | cut -c-12)}

# Where there is no git (inside the Dockerfile), both are handed in.
source_revision() {
    local dirty=
    [[ -z $(git -C "$ROOT" status --porcelain) ]] || dirty=-dirty
    printf '%s%s\n' "$(git -C "$ROOT" rev-parse HEAD)" "$dirty"
}
source_date() { git -C "$ROOT" log -1 --format=%ct; }

if [[ -z ${HUMIDOR_REVISION:-} || -z ${SOURCE_DATE_EPOCH:-} ]]; then
    git -C "$ROOT" rev-parse HEAD >/dev/null 2>&1 ||
        die "$ROOT is no git work tree" "set HUMIDOR_REVISION and SOURCE_DATE_EPOCH (Unix seconds of the commit)"
fi
export HUMIDOR_REVISION=${HUMIDOR_REVISION:-$(source_revision)}
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(source_date)}
