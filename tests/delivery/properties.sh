#!/usr/bin/env bash
# What a binary is, in lines that can be compared: tests/delivery/properties.sh FILE
#
# The files properties/ARCH beside this one are what each platform's binary must be. After a change that is meant,
# tests/delivery/chain shows the difference and this script writes the new file.
set -euo pipefail

file=$1
headers=$(readelf --wide --file-header --program-headers "$file")
# field NAME: of the ELF header.
field() { sed -n "s/^ *$1: *//p" <<<"$headers"; }
# segment TYPE COLUMN
segment() { awk -v type="$1" -v column="$2" '$1 == type { if (column < 0) print $(NF + 1 + column); else print $column }' <<<"$headers"; }

printf 'class: %s\n' "$(field Class)"
printf 'machine: %s\n' "$(field Machine)"
# Of an ARM binary: EABI version and float ABI.
printf 'flags: %s\n' "$(field Flags)"
printf 'type: %s\n' "$(field Type)"
printf 'interpreter: %s\n' "$(segment INTERP 1 | grep . || echo none)"
printf 'dynamic section: %s\n' "$(segment DYNAMIC 1 | grep . || echo none)"
printf 'executable stack: %s\n' "$(segment GNU_STACK 7 | grep -q E && echo yes || echo no)"
printf 'writable and executable segments: %s\n' "$(awk '$1 == "LOAD" { f = ""; for (i = 7; i < NF; i++) f = f $i; if (f ~ /W/ && f ~ /E/) n++ } END { print n + 0 }' <<<"$headers")"
printf 'read-only after relocation: %s\n' "$(segment GNU_RELRO 1 | grep -q . && echo yes || echo no)"
# A Raspberry Pi 5 has pages of 16 KiB: a binary of smaller alignment is killed there.
printf 'alignment of segments: %s\n' "$(segment LOAD -1 | sort -u | paste -sd' ')"
printf 'symbol table: %s\n' "$(readelf --wide --section-headers "$file" | grep -q ' SYMTAB ' && echo yes || echo no)"
printf 'build id: %s\n' "$(readelf --wide --notes "$file" | grep -q 'Build ID' && echo yes || echo no)"
printf 'list of crates: %s\n' "$(readelf --wide --section-headers "$file" | grep -q ' \.dep-v0 ' && echo yes || echo no)"
# The boards' floating point: VFPv3 with 16 registers is in every ARMv7 Linux; NEON is not.
readelf --arch-specific "$file" | sed -n -E 's/^ *(Tag_(CPU_arch|FP_arch|Advanced_SIMD_arch|ABI_VFP_args|THUMB_ISA_use)): /\1: /p' | sort
# Paths of the machine that built it.
printf 'paths of the builder: %s\n' "$(strings -n 6 "$file" | grep -oE '(^|[^A-Za-z0-9._/-])/(root|home|tmp|work|build)/[A-Za-z0-9._-]+' | sort -u | paste -sd' ' | grep . || echo none)"
