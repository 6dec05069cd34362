#!/usr/bin/env bash
# The static binaries, the same way on a host, in the Dockerfile and in CI:
#
#   docker/build.sh [amd64|arm64|armv7|all]…    → dist/ARCH/humidor
#                                               and dist/build-info.json: by what, and on what
#   docker/build.sh fetch                       the crates only, for builds without a network
#   docker/build.sh compiler                    which compiler it would take
#
# What it needs, docker/setup.sh build installs. The same source and toolchain give the same bytes in any directory on
# any day: everything that a compiler could learn of this machine is set here and in sealed.sh, and nowhere else.
#
# HUMIDOR_CRATES names a folder of crates, as cargo vendor fills it, in place of the registry's.
set -euo pipefail
# shellcheck source=docker/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source=docker/sealed.sh
. "$ROOT/docker/sealed.sh"

cd "$ROOT"
[[ $ROOT != *[[:space:]]* ]] || die "the path of this work tree has a space in it" "RUSTFLAGS cannot carry that: move the work tree"
[[ -x $TOOLS/bin/cargo-zigbuild && -x $TOOLS/bin/cargo-auditable ]] || die "zig, cargo-zigbuild or cargo-auditable is not there" "docker/setup.sh build installs them"
# Downloads and toolchains are setup.sh's business; a build never starts one.
export RUSTUP_AUTO_INSTALL=0
export PATH=$TOOLS/bin:$PATH

targets_dir=$(realpath -m "${CARGO_TARGET_DIR:-$ROOT/target}")
crates=${HUMIDOR_CRATES:-$targets_dir/crates-$(sha256sum Cargo.lock | cut -c-12)}

# choose_toolchain TRIPLE: sets sysroot, cargo, rustc and std, the sysroot that has the target's std: the compiler's own
# (rustup, Nix), else the one that docker/std.sh has compiled for it.
choose_toolchain() {
    local named
    for named in "${RUSTC:-rustc}" /usr/bin/rustc; do
        sysroot=$("$named" --print sysroot 2>/dev/null) || continue
        # The programs themselves: rustup's go-between would ask the folder that cargo runs in which toolchain is meant.
        rustc=$sysroot/bin/rustc cargo=$sysroot/bin/cargo
        for std in "$sysroot" "$(std_folder "$rustc")"; do
            [[ -d $std/lib/rustlib/$1/lib ]] || continue
            [[ $std == "$sysroot" || $(cat "$std/compiler") == "$("$rustc" -vV)" ]] ||
                die "$std was compiled by another compiler than $("$rustc" --version)" "rm -r $std" "docker/setup.sh build compiles it anew"
            return
        done
    done
    die "no Rust toolchain here has the std of $1" "with rustup: rustup target add $1" \
        "on Debian without rustup: HUMIDOR_RUST=debian docker/setup.sh build"
}

fetch() {
    read -r _ triple _ < <(target "$1")
    choose_toolchain "$triple"
    fetch_crates "$cargo" "$ROOT/Cargo.toml" "$ROOT/Cargo.lock" "$crates"
}

if [[ ${1:-} == compiler ]]; then
    read -r _ triple _ < <(target "$(archs all | head -n 1)")
    choose_toolchain "$triple"
    "$rustc" --version
    exit
elif [[ ${1:-} == fetch ]]; then
    fetch "$(archs all | head -n 1)"
    exit
fi

# Optimising the whole program takes this much memory, and one processor only.
GIGABYTES_PER_BUILD=3

wanted=$(archs "$@")
mapfile -t wanted <<<"$wanted"
know_source
# Before several builds ask for it at a time.
fetch "${wanted[0]}"
if ((${#wanted[@]} > 1)); then
    # Several at a time: while one is optimised, the crates of another are compiled.
    at_once=$(awk -v each=$GIGABYTES_PER_BUILD '/^MemAvailable:/ { print int($2 / 1048576 / each) }' /proc/meminfo)
    # shellcheck disable=SC2016 # for the inner shell
    printf '%s\n' "${wanted[@]}" | xargs -n 1 -P "$((at_once > 1 ? at_once : 1))" \
        bash -o pipefail -c '"$0" "$1" 2>&1 | sed -u "s/^/$1: /" >&2' "$ROOT/docker/build.sh" ||
        die "not all of ${wanted[*]} were built" "the reason is above, behind the name of the target"
    exit
fi

arch=${wanted[0]}
# One folder a target: cargo lets no two builds into one at a time.
target_dir=$targets_dir/$arch
read -r _ triple _ < <(target "$arch")
say "$arch: $triple, $("$rustc" --version), $HUMIDOR_REVISION"
commit=$("$rustc" -vV | sed -n 's/^commit-hash: //p')
mkdir -p "$target_dir"
# Nobody walks the stack (see below): what std, which is compiled for unwinding, brings of such tables is left out.
write "$target_dir/no-tables.ld" 'SECTIONS { /DISCARD/ : { *(.eh_frame .eh_frame_hdr .gcc_except_table .gcc_except_table.* .ARM.exidx* .ARM.extab*) } } INSERT AFTER .text;'
rust_flags=(
    -C target-feature=+crt-static
    # The program is linked to fixed addresses in every case: code that could lie anywhere takes more space and time.
    -C relocation-model=static
    # The C runtime is zig's in every case, not the copy in upstream's std, which Debian's has not.
    -C link-self-contained=no
    -C 'link-arg=-Wl,--build-id=none'
    # A panic ends the process and nobody walks its stack: the tables for that are an eighth of the file.
    -C force-unwind-tables=no
    -C "link-arg=-Wl,-T,$target_dir/no-tables.ld"
    --remap-path-prefix="$ROOT=/humidor"
    --remap-path-prefix="$target_dir=/target"
    --remap-path-prefix="$crates=/crates"
)
# A compiler that has its sources beside it names std's files by where they lie here, through a link if they are behind one.
std_sources=$sysroot/lib/rustlib/src/rust
for folder in "$std_sources" "$(readlink "$std_sources" || true)" "$(realpath -m "$std_sources")"; do
    [[ $folder != /* ]] || rust_flags+=(--remap-path-prefix="$folder=/rustc/$commit")
done
[[ $std == "$sysroot" ]] || rust_flags+=("--sysroot=$std")
# SQLite and ring, the only C: no debug information, no paths of this machine in __FILE__.
c_flags=(-g0 -fno-unwind-tables -fno-asynchronous-unwind-tables "-ffile-prefix-map=$crates=/crates" "-ffile-prefix-map=$target_dir=/target")
seal "$target_dir/home" "$rustc" "$crates" "$ROOT/.cargo/config.toml"
variables=(
    RUSTFLAGS="${rust_flags[*]}"
    CFLAGS="${c_flags[*]}"
    HUMIDOR_REVISION="$HUMIDOR_REVISION"
    SOURCE_DATE_EPOCH="$SOURCE_DATE_EPOCH"
    # A crate of rumqttd's configuration (const-random) would take a number from the compiler's machine.
    CONST_RANDOM_SEED=humidor
    ZIG_GLOBAL_CACHE_DIR="$target_dir/zig"
    ZIG_LOCAL_CACHE_DIR="$target_dir/zig"
    # What `cargo auditable` sets, but for the wrapper's path: cargo takes that into the names of our symbols, and it lies
    # in the home of whoever builds. The bare name is the same everywhere.
    RUSTC_WORKSPACE_WRAPPER=cargo-auditable
    # It asks cargo about the crates, in the work tree: above it may be the configuration of whoever builds, before which ours
    # is named.
    CARGO_AUDITABLE_ORIG_ARGS="{\"offline\":true,\"locked\":true,\"frozen\":false,\"config\":[\"$sealed_home/cargo/config.toml\"]}"
    RUSTC_WRAPPER=
)
sealed "$cargo" "${variables[@]}" -- \
    zigbuild --offline --locked --release --manifest-path "$ROOT/Cargo.toml" --target "$triple" --target-dir "$target_dir"
mkdir -p "dist/$arch"
install -m 755 "$target_dir/$triple/release/humidor" "dist/$arch/humidor.part"
touch -d "@$SOURCE_DATE_EPOCH" "dist/$arch/humidor.part"
mv "dist/$arch/humidor.part" "dist/$arch/humidor"
# The same for every target, so that whichever ends last writes what is there.
pinned() { sed -n "s/^$1==\([^ ]*\).*/\1/p" docker/zig-requirements.txt; }
info=(
    "version: $(version)"
    "revision: $HUMIDOR_REVISION"
    "builder: $(uname -m)"
    "rustc: $("$rustc" --version)"
    "rustc-commit: $commit"
    "std: $([[ $std == "$sysroot" ]] && echo "the compiler's own" || echo "compiled by docker/std.sh")"
    "zig: $(pinned ziglang)"
    "cargo-zigbuild: $(pinned cargo-zigbuild)"
    "cargo-auditable: $(auditable_version)"
)
{
    printf '{\n'
    printf '%s\n' "${info[@]}" | sed -e 's/^\([^:]*\): \(.*\)$/  "\1": "\2"/' -e '$!s/$/,/'
    printf '}\n'
} >"dist/build-info.$arch"
touch -d "@$SOURCE_DATE_EPOCH" "dist/build-info.$arch"
mv "dist/build-info.$arch" dist/build-info.json
say "dist/$arch/humidor: $(stat -c %s "dist/$arch/humidor") bytes, sha256 $(sha256sum "dist/$arch/humidor" | cut -d' ' -f1)"
