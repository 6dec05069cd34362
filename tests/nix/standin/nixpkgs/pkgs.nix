# Stand-in for nixpkgs' packages: plain derivations, whose tools are those of the host (the sandbox shows it /usr).
system:
let
  lib = import ./lib.nix;

  # A derivation whose script runs in the host's bash. `exit 0`: without it Nix 2.8 takes some builds for killed.
  plain =
    attributes: script:
    derivation (
      {
        inherit system;
        builder = "/bin/bash";
        args = [
          "-c"
          ''
            set -euo pipefail
            PATH=/usr/bin:/bin
            for input in ''${nativeBuildInputs:-}; do PATH=$input/bin:$PATH; done
            export PATH
            # The sandbox has /lib as a folder of its own; rustc found through it would take / for its sysroot.
            export LD_LIBRARY_PATH=/usr/lib/$(uname -m)-linux-gnu
            ${script}
            exit 0
          ''
        ];
      }
      // attributes
    );

  # A program of the host.
  onHost =
    name: plain { inherit name; } ''mkdir -p "$out/bin"; ln -s /usr/bin/${name} "$out/bin/${name}"'';

  # What a fetch would bring lies in the store under its name and hash already, or the build ends here.
  fetched =
    name: sha256:
    plain {
      inherit name;
      outputHashAlgo = "sha256";
      outputHashMode = "flat";
      outputHash = sha256;
    } ''echo "stand-in: ${name} with sha256 ${sha256} was not put into the store" >&2; exit 1'';
in
lib.genAttrs [
  "cargo-deny"
  "diffoscopeMinimal"
  "git"
  "hadolint"
  "jq"
  "just"
  "minisign"
  "nixfmt"
  "mosquitto"
  "nixfmt-tree"
  "python3"
  "qemu-user"
  "shellcheck"
  "skopeo"
  "sqlite"
  "unzip"
] onHost
// {
  inherit lib;

  runCommand =
    name: attributes: script:
    plain (removeAttrs attributes [ "meta" ] // { inherit name; }) script;

  mkShell =
    { packages, ... }@attributes:
    plain (
      removeAttrs attributes [ "packages" ]
      // {
        name = "shell";
        nativeBuildInputs = packages;
      }
    ) ''touch "$out"'';

  stdenv = {
    hostPlatform = { inherit system; };
    mkDerivation =
      attributes:
      plain
        (
          removeAttrs attributes [ "meta" ]
          // {
            name = attributes.name or "${attributes.pname}-${attributes.version}";
          }
        )
        ''
          runHook() { :; }
          if [[ -z ''${dontUnpack:-} ]]; then
            cp -r "$src" source
            chmod -R u+w source
            cd source
          fi
          eval "$buildPhase"
          if [[ -n ''${doCheck:-} ]]; then eval "$checkPhase"; fi
          eval "$installPhase"
        '';
  };

  fetchPypi =
    {
      pname,
      version,
      format,
      dist,
      python,
      platform,
      sha256,
    }:
    assert format == "wheel" && dist == python;
    fetched "${pname}-${version}-${python}-none-${platform}.whl" sha256;

  # One folder of links, as nixpkgs makes it.
  rustPlatform.importCargoLock =
    { lockFile }:
    let
      locked =
        file: lib.filter (package: package ? source) (builtins.fromTOML (builtins.readFile file)).package;
      key = package: "${package.name}-${package.version}";
      packages = lib.attrValues (
        lib.listToAttrs (map (package: lib.nameValuePair (key package) package) (locked lockFile))
      );
      crates = map (
        {
          name,
          version,
          checksum,
          ...
        }:
        "${name}-${version} ${checksum} ${fetched "crate-${name}-${version}.tar.gz" checksum}"
      ) packages;
      unpacked =
        plain
          {
            name = "crates";
            crates = lib.concatStringsSep "\n" crates;
          }
          ''
            while read -r crate checksum archive; do
              mkdir -p "$out/$crate"
              tar -xf "$archive" -C "$out/$crate" --strip-components=1
              printf '{"files":{},"package":"%s"}' "$checksum" >"$out/$crate/.cargo-checksum.json"
            done <<<"$crates"
          '';
    in
    plain { name = "cargo-vendor-dir"; } ''mkdir "$out"; ln -s ${unpacked}/* "$out/"'';
}
