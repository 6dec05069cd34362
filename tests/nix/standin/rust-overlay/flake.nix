# A stand-in for rust-overlay: its toolchain is the host's Debian one, which has no std for the targets and compiles it.
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
              }
              // pkgs.lib.optionalAttrs (builtins.pathExists ./prebuilt) {
                prebuilt = ./prebuilt;
                cargo = ./prebuilt-cargo;
                rustc = ./prebuilt-rustc;
              }
            )
            ''
              mkdir -p "$out/bin"
              if [[ -z ''${prebuilt:-} ]]; then
                ln -s /usr/bin/rustc /usr/bin/cargo "$out/bin/"
              else
                for target in $targets; do mkdir -p "$out/sysroot/lib/rustlib/$target/lib"; done
                for program in rustc cargo; do
                  sed -e "s|@prebuilt@|$prebuilt|" -e "s|@sysroot@|$out/sysroot|" "''${!program}" >"$out/bin/$program"
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
