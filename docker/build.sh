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

# choose_toolchain TRIPLE…: sets sysroot, cargo, rustc and std, the sysroot that has the targets' std: the compiler's own
# (rustup, Nix), else the one that docker/std.sh has compiled for it.
choose_toolchain() {
    local named triple
    for named in "${RUSTC:-rustc}" /usr/bin/rustc; do
        sysroot=$("$named" --print sysroot 2>/dev/null) || continue
        # The programs themselves: rustup's go-between would ask the folder that cargo runs in which toolchain is meant.
        rustc=$sysroot/bin/rustc cargo=$sysroot/bin/cargo
        for std in "$sysroot" "$(std_folder "$rustc")"; do
            for triple in "$@"; do [[ -d $std/lib/rustlib/$triple/lib ]] || continue 2; done
            [[ $std == "$sysroot" || $(cat "$std/compiler") == "$("$rustc" -vV)" ]] ||
                die "$std was compiled by another compiler than $("$rustc" --version)" "rm -r $std" "docker/setup.sh build compiles it anew"
            return
        done
    done
    die "no Rust toolchain here has the std of $*" "with rustup: rustup target add $*" \
        "on Debian without rustup: HUMIDOR_RUST=debian docker/setup.sh build"
}

fetch() { fetch_crates "$cargo" "$ROOT/Cargo.toml" "$ROOT/Cargo.lock" "$crates"; }

if [[ ${1:-} == compiler || ${1:-} == fetch ]]; then
    read -r _ triple _ < <(target "$(archs all | head -n 1)")
    choose_toolchain "$triple"
    if [[ $1 == fetch ]]; then fetch; else "$rustc" --version; fi
    exit
fi

# Optimising the whole program takes this much memory, and one processor only.
GIGABYTES_PER_BUILD=3

wanted=$(archs "$@")
mapfile -t wanted <<<"$wanted"
triples=()
for arch in "${wanted[@]}"; do
    read -r _ triple _ < <(target "$arch")
    triples+=("$triple")
done
choose_toolchain "${triples[@]}"
know_source
fetch
# One folder for all targets: what runs on the builder (procedural macros, build scripts) is compiled once.
target_dir=$targets_dir/static
say "${wanted[*]}: $("$rustc" --version), $HUMIDOR_REVISION"
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
    # For what runs on the builder.
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
for triple in "${triples[@]}"; do
    rust=("${rust_flags[@]}") c=("${c_flags[@]}")
    # Thumb-2, which every ARMv7 has, takes less space than the older code.
    if [[ $triple == armv7-* ]]; then rust+=(-C target-feature=+thumb-mode) c+=(-Xclang -target-feature -Xclang +thumb-mode); fi
    name=${triple//-/_}
    variables+=("CARGO_TARGET_${name^^}_RUSTFLAGS=${rust[*]}" "CFLAGS_$name=${c[*]}")
done
# As many at a time as there is memory for: while one is optimised, the crates of another are compiled.
at_once=$(awk -v each=$GIGABYTES_PER_BUILD '/^MemAvailable:/ { print int($2 / 1048576 / each) }' /proc/meminfo)
at_once=$((at_once > 1 ? at_once : 1))
for ((at = 0; at < ${#triples[@]}; at += at_once)); do
    mapfile -t options < <(printf -- '--target\n%s\n' "${triples[@]:at:at_once}")
    sealed "$cargo" "${variables[@]}" -- \
        zigbuild --offline --locked --release --manifest-path "$ROOT/Cargo.toml" "${options[@]}" --target-dir "$target_dir"
done
for at in "${!wanted[@]}"; do
    arch=${wanted[at]}
    mkdir -p "dist/$arch"
    install -m 755 "$target_dir/${triples[at]}/release/humidor" "dist/$arch/humidor.part"
    touch -d "@$SOURCE_DATE_EPOCH" "dist/$arch/humidor.part"
    mv "dist/$arch/humidor.part" "dist/$arch/humidor"
done
# The same for every target, so that whichever build ends last writes what is there.
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
} >"dist/build-info.part"
touch -d "@$SOURCE_DATE_EPOCH" "dist/build-info.part"
mv "dist/build-info.part" dist/build-info.json
for arch in "${wanted[@]}"; do
    say "dist/$arch/humidor: $(stat -c %s "dist/$arch/humidor") bytes, sha256 $(sha256sum "dist/$arch/humidor" | cut -d' ' -f1)"
done
