#!/usr/bin/env python3
"""Writes a CycloneDX list of what is in a binary, read from the binary itself: sbom.py BINARY REVISION

cargo-auditable put the crates into section .dep-v0 at link time, so this is what was linked, not what a lock file
allows. SQLite's C sources come inside the crate libsqlite3-sys and are named too, because advisories name them so.
"""

import hashlib
import json
import pathlib
import re
import struct
import sys
import zlib


def section(elf: bytes, name: bytes) -> bytes:
    """A section of a little-endian ELF file, by name."""
    if elf[:4] != b"\x7fELF":
        raise SystemExit("sbom.py: this is no ELF file")
    wide = elf[4] == 2
    table, size, count, names = (
        struct.unpack_from("<Q", elf, 40) + struct.unpack_from("<HHH", elf, 58)
        if wide
        else struct.unpack_from("<I", elf, 32) + struct.unpack_from("<HHH", elf, 46)
    )

    def header(index: int) -> tuple[int, int, int]:
        at = table + index * size
        (label,) = struct.unpack_from("<I", elf, at)
        return label, *(struct.unpack_from("<QQ", elf, at + 24) if wide else struct.unpack_from("<II", elf, at + 16))

    _, strings, _ = header(names)
    for index in range(count):
        label, offset, length = header(index)
        start = strings + label
        if elf[start : elf.index(b"\0", start)] == name:
            return elf[offset : offset + length]
    raise SystemExit("sbom.py: the binary has no list of crates; docker/build.sh makes one that has")


def sqlite_version(elf: bytes) -> str | None:
    """SQLite's version: the number that stands alone before the id of its sources in every build of it."""
    found = re.search(rb"\x00(3\.\d+\.\d+)\x00", elf)
    return found[1].decode() if found else None


def main() -> None:
    path, revision = pathlib.Path(sys.argv[1]), sys.argv[2]
    elf = path.read_bytes()
    packages = json.loads(zlib.decompress(section(elf, b".dep-v0")))["packages"]
    reference = [f"pkg:cargo/{package['name']}@{package['version']}" for package in packages]
    root = next(index for index, package in enumerate(packages) if package.get("root"))
    components = [
        {"type": "library", "bom-ref": ref, "purl": ref, "name": package["name"], "version": package["version"]}
        for index, (ref, package) in enumerate(zip(reference, packages))
        if index != root and package.get("kind", "runtime") == "runtime"
    ]
    kept = {component["bom-ref"] for component in components}
    depends = [
        {"ref": ref, "dependsOn": sorted({reference[at] for at in package.get("dependencies", []) if reference[at] in kept})}
        for index, (ref, package) in enumerate(zip(reference, packages))
        if index == root or ref in kept
    ]
    sqlite = sqlite_version(elf)
    if sqlite:
        ref = f"pkg:generic/sqlite@{sqlite}"
        components.append(
            {"type": "library", "bom-ref": ref, "purl": ref, "cpe": f"cpe:2.3:a:sqlite:sqlite:{sqlite}:*:*:*:*:*:*:*", "name": "sqlite", "version": sqlite}
        )
        for entry in depends:
            if entry["ref"].startswith("pkg:cargo/libsqlite3-sys@"):
                entry["dependsOn"].append(ref)
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": reference[root],
                "purl": reference[root],
                "name": packages[root]["name"],
                "version": packages[root]["version"],
                "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(elf).hexdigest()}],
                "properties": [{"name": "humidor:revision", "value": revision}],
            }
        },
        "components": sorted(components, key=lambda component: component["bom-ref"]),
        "dependencies": sorted(depends, key=lambda entry: entry["ref"]),
    }
    json.dump(bom, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
