# A stand-in for rust-overlay: its toolchain is the host's Debian one, with the std of the targets in its sysroot as
# upstream's has it. That std is what docker/std.sh has compiled; standin-nix writes into the file `std` where it is.
# Where a folder `prebuilt` lies beside this file, cargo compiles nothing and hands out what is in it: for the tests of
# the packaging around the compiler.
{
  outputs = _: {
    lib.mkRustBin =
      { }:
      pkgs:
      let
        toolchain =
          { targets, ... }:
          pkgs.runCommand "rust-minimal-standin"
            (
              {
                inherit targets;
                std = pkgs.lib.fileContents ./std;
              }
              // pkgs.lib.optionalAttrs (builtins.pathExists ./prebuilt) {
                prebuilt = ./prebuilt;
                cargo = ./prebuilt-cargo;
                rustc = ./prebuilt-rustc;
              }
            )
            ''
              mkdir -p "$out/bin" "$out/lib/rustlib"
              if [[ -z ''${prebuilt:-} ]]; then
                ln -s /usr/bin/cargo "$out/bin/"
                printf '#!/bin/bash\nexec /usr/bin/rustc --sysroot %s "$@"\n' "$out" >"$out/bin/rustc"
                chmod +x "$out/bin/rustc"
                ln -s /usr/lib/rustlib/* "$out/lib/rustlib/"
                for target in $targets; do ln -s "$std/lib/rustlib/$target" "$out/lib/rustlib/"; done
              else
                for target in $targets; do mkdir -p "$out/lib/rustlib/$target/lib"; done
                for program in rustc cargo; do
                  sed -e "s|@prebuilt@|$prebuilt|" -e "s|@sysroot@|$out|" "''${!program}" >"$out/bin/$program"
                  chmod +x "$out/bin/$program"
                done
              fi
            '';
        overridable =
          attributes: toolchain attributes // { override = more: overridable (attributes // more); };
      in
      {
        fromRustupToolchainFile =
          file:
          let
            wanted = (builtins.fromTOML (builtins.readFile file)).toolchain;
          in
          assert
            builtins.match "[0-9]+\\.[0-9]+\\.[0-9]+" wanted.channel != null && wanted.profile == "minimal";
          overridable { targets = [ ]; };
      };
  };
}
