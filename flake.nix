{
  description = "DHT11/DHT22 readings from small ARM boards, by MQTT, into a log that keeps what it acknowledged";

  inputs = {
    # Not older than 2026-05-27: before it, importCargoLock asks the crate registry in a way that is answered 403.
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";
    rust-overlay = {
      url = "github:oxalica/rust-overlay";
      inputs.nixpkgs.follows = "nixpkgs";
    };
  };

  # Wiring only; each file in nix/ holds one function.
  outputs =
    {
      self,
      nixpkgs,
      rust-overlay,
    }:
    assert
      # As nixpkgs' own. Older ones would end somewhere inside it, in words that name neither.
      builtins.compareVersions builtins.nixVersion (import ./nix/oldest.nix) >= 0
      || throw "humidor needs Nix ${import ./nix/oldest.nix} or later, and this is ${builtins.nixVersion}: take a newer one from nixos.org, Debian 13 or your distribution; docker/build.sh and docker/image.sh need none";
    let
      inherit (nixpkgs) lib;

      # Machines that build. Those that it is built for are the lines of docker/targets.
      builders = {
        x86_64-linux = "amd64";
        aarch64-linux = "arm64";
      };
      supported = lib.concatStringsSep " and " (lib.attrNames builders);
      unsupported =
        system:
        throw "humidor is built on ${supported}, not on ${system}; ${
          if lib.hasSuffix "darwin" system then
            "on macOS docker/image.sh makes the image with Docker, and cargo run -- demo runs"
          else
            "for a 32-bit board take bin-armv7 or image-armv7 of one of these"
        }";

      packageFor = import ./nix/package.nix { inherit (self) packages; };

      targets = import ./nix/targets.nix { inherit lib; };
      release = {
        inherit ((builtins.fromTOML (builtins.readFile ./Cargo.toml)).package)
          name
          version
          description
          license
          ;
        # push.sh refuses what names no commit.
        revision = self.rev or self.dirtyRev or "dirty";
        # Unix seconds of the commit.
        created = self.lastModified;
      };

      forBuilders =
        outputs:
        lib.mapAttrs (
          system: native:
          let
            pkgs = nixpkgs.legacyPackages.${system};
            toolchain = import ./nix/toolchain.nix {
              inherit lib targets;
              rust-bin = rust-overlay.lib.mkRustBin { } pkgs;
            };
            crates = pkgs.rustPlatform.importCargoLock { lockFile = ./Cargo.lock; };
            tools = import ./nix/tools.nix { inherit pkgs toolchain; };
            binaries = lib.mapAttrs (
              _: target:
              import ./nix/binary.nix {
                inherit
                  pkgs
                  toolchain
                  tools
                  crates
                  target
                  release
                  ;
              }
            ) targets;
            images = lib.mapAttrs (
              arch: target:
              import ./nix/image.nix {
                inherit pkgs target release;
                binary = binaries.${arch};
              }
            ) targets;
          in
          outputs {
            inherit
              pkgs
              toolchain
              tools
              crates
              ;
            packages =
              lib.mapAttrs' (arch: lib.nameValuePair "bin-${arch}") binaries
              // lib.mapAttrs' (arch: lib.nameValuePair "image-${arch}") images
              // {
                default = binaries.${native};
                humidor = binaries.${native};
                oci = import ./nix/index.nix {
                  inherit
                    pkgs
                    targets
                    images
                    release
                    ;
                };
              };
          }
        ) builders;
    in
    {
      packages = forBuilders ({ packages, ... }: packages);

      # What `nix build .#…` looks into where packages has no such system: there the error can tell what to do.
      legacyPackages = lib.genAttrs [
        "aarch64-darwin"
        "armv6l-linux"
        "armv7l-linux"
        "i686-linux"
        "riscv64-linux"
        "x86_64-darwin"
      ] unsupported;

      checks = forBuilders (import ./nix/checks.nix { inherit self release targets; });

      devShells = forBuilders (
        {
          pkgs,
          toolchain,
          tools,
          ...
        }:
        {
          default = import ./nix/shell.nix { inherit pkgs toolchain tools; };
        }
      );

      formatter = forBuilders ({ pkgs, ... }: pkgs.nixfmt-tree);

      overlays.default = final: _: { humidor = (packageFor final).package; };

      nixosModules.default =
        { lib, pkgs, ... }:
        {
          imports = [ ./nix/module.nix ];
          services.humidor.package = lib.mkDefault (packageFor pkgs).package;
          services.humidor.checkedBy = lib.mkDefault (packageFor pkgs).builders;
        };
    };
}
