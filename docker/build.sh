#!/usr/bin/env bash
# The static binaries, the same way on a host, in the Dockerfile and in CI:
#
#   docker/build.sh [amd64|arm64|armv7|all]…    → dist/ARCH/humidor
#   docker/build.sh fetch                       the crates only, for builds without a network
#
# What it needs, docker/setup.sh build installs. The same source and toolchain give the same bytes in any directory on
# any day: everything that a compiler could learn of this machine is set here and nowhere else.
set -euo pipefail
# shellcheck source=docker/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

cd "$ROOT"
[[ $ROOT != *[[:space:]]* ]] || die "the path of this work tree has a space in it" "RUSTFLAGS cannot carry that: move the work tree"
[[ -x $TOOLS/bin/cargo-zigbuild && -x $TOOLS/bin/cargo-auditable ]] || die "zig, cargo-zigbuild or cargo-auditable is not there" "docker/setup.sh build installs them"
# Downloads and toolchains are setup.sh's business; a build never starts one.
export RUSTUP_AUTO_INSTALL=0
export PATH=$TOOLS/bin:$PATH

targets_dir=${CARGO_TARGET_DIR:-$ROOT/target}
cargo_home=${CARGO_HOME:-$HOME/.cargo}
# A crate of rumqttd's configuration (const-random) would take a number from the compiler's machine.
export CONST_RANDOM_SEED=humidor

# choose_toolchain TRIPLE: sets cargo, rustc, sysroot, build_std. The toolchain of rust-toolchain.toml where it has the
# target's std; else Debian's, whose package rust-web-src lets us compile std.
choose_toolchain() {
    build_std=()
    for rustc in "${RUSTC:-rustc}" /usr/bin/rustc; do
        sysroot=$("$rustc" --print sysroot 2>/dev/null) || continue
        cargo=$(dirname "$(command -v "$rustc")")/cargo
        if [[ -d $sysroot/lib/rustlib/$1/lib ]]; then
            return
        elif [[ $rustc == /usr/bin/rustc && -f $sysroot/lib/rustlib/src/rust/library/Cargo.lock ]]; then
            # -Z on a stable compiler; no crate of ours uses an unstable feature.
            export RUSTC_BOOTSTRAP=1
            # Without the reader of debug information that prints stacks: there are no tables to walk (see below).
            build_std=('-Zbuild-std=std,panic_abort' '-Zbuild-std-features=optimize_for_size')
            return
        fi
    done
    die "no Rust toolchain here has the std of $1" "with rustup: rustup target add $1" \
        "on Debian without rustup: HUMIDOR_RUST=debian docker/setup.sh build"
}

# fetch: the crates, and what std is made of where it will be compiled. Those of other systems too: cargo-zigbuild and
# cargo-auditable ask cargo about the whole lock file. Asks no network when all are there.
fetch() {
    "$cargo" fetch --quiet --locked
    ((!${#build_std[@]})) || "$cargo" fetch --quiet --locked --manifest-path "$sysroot/lib/rustlib/src/rust/library/Cargo.toml"
}

if [[ ${1:-} == fetch ]]; then
    for arch in $(archs all); do
        read -r _ triple _ < <(target "$arch")
        choose_toolchain "$triple"
        fetch
    done
    exit
fi

# Optimising the whole program takes this much memory, and one processor only.
GIGABYTES_PER_BUILD=3

wanted=$(archs "$@")
mapfile -t wanted <<<"$wanted"
know_source
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
export ZIG_GLOBAL_CACHE_DIR=$target_dir/zig ZIG_LOCAL_CACHE_DIR=$target_dir/zig
read -r _ triple _ < <(target "$arch")
choose_toolchain "$triple"
say "$arch: $triple, $("$rustc" --version)${build_std:+, compiling std}, $HUMIDOR_REVISION"
fetch
rust_flags=(
    -C target-feature=+crt-static
    # The C runtime is zig's in every case, not the copy in rustup's std, which Debian's toolchain has not.
    -C link-self-contained=no
    -C 'link-arg=-Wl,--build-id=none'
    # A panic ends the process and nobody walks its stack: the tables for that are an eighth of the file.
    -C force-unwind-tables=no
    --remap-path-prefix="$ROOT=/humidor"
    --remap-path-prefix="$cargo_home=/cargo"
    --remap-path-prefix="$target_dir=/target"
    --remap-path-prefix="$sysroot/lib/rustlib/src/rust=/rust"
)
# Of several prefixes the last counts: cargo's folder for a registry is named after the registry's address, which a
# mirror or Nix has another of.
for crates in "$cargo_home"/registry/src/*; do
    rust_flags+=(--remap-path-prefix="$crates=/crates")
done
# SQLite, the only C: no debug information, no paths of this machine in __FILE__.
c_flags=(-g0 -fno-unwind-tables -fno-asynchronous-unwind-tables "-ffile-prefix-map=$cargo_home=/cargo" "-ffile-prefix-map=$target_dir=/target")
# What `cargo auditable` sets, but for the wrapper's path: cargo takes that into the names of our symbols, and it lies
# in the home of whoever builds. The bare name is the same everywhere.
export RUSTC_WORKSPACE_WRAPPER=cargo-auditable
export CARGO_AUDITABLE_ORIG_ARGS='{"offline":false,"locked":true,"frozen":false,"config":[]}'
RUSTC=$rustc RUSTFLAGS="${rust_flags[*]}" CFLAGS="${c_flags[*]}" \
    "$cargo" zigbuild --locked --release "${build_std[@]}" --target "$triple" --target-dir "$target_dir"
mkdir -p "dist/$arch"
install -m 755 "$target_dir/$triple/release/humidor" "dist/$arch/humidor.part"
touch -d "@$SOURCE_DATE_EPOCH" "dist/$arch/humidor.part"
mv "dist/$arch/humidor.part" "dist/$arch/humidor"
say "dist/$arch/humidor: $(stat -c %s "dist/$arch/humidor") bytes, sha256 $(sha256sum "dist/$arch/humidor" | cut -d' ' -f1)"
