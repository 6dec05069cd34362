# What `nix flake check` builds besides the packages: the source is formatted, the files of the delivery agree, every
# binary is small enough. That each is static and of its machine, binary.nix asks of every build.
{
  self,
  release,
  targets,
}:
{
  pkgs,
  toolchain,
  crates,
  packages,
  ...
}:
let
  inherit (pkgs) lib;
in
{
  formatting =
    pkgs.runCommand "${release.name}-formatting"
      {
        nativeBuildInputs = [
          toolchain
          pkgs.nixfmt
        ];
      }
      ''
        cargo fmt --check --manifest-path ${self}/Cargo.toml
        find ${self} -name '*.nix' -exec nixfmt --check {} +
        touch "$out"
      '';

  agreement = pkgs.stdenv.mkDerivation {
    name = "${release.name}-agreement";
    src = self;
    nativeBuildInputs = [ toolchain ];
    buildPhase = ''
      runHook preBuild
      export CARGO_HOME=$TMPDIR/cargo
      mkdir "$CARGO_HOME"
      printf '[source.crates-io]\nreplace-with = "nix"\n[source.nix]\ndirectory = "%s"\n' ${crates} >"$CARGO_HOME/config.toml"
      cargo test --offline --locked --test delivery
      runHook postBuild
    '';
    installPhase = ''touch "$out"'';
    dontFixup = true;
  };

  # tests/delivery/chain asks the same of the other paths' binaries.
  size = pkgs.runCommand "${release.name}-size" { } (
    lib.concatStringsSep "\n" (
      lib.mapAttrsToList (arch: target: ''
        bytes=$(stat -c %s ${packages."bin-${arch}"}/bin/humidor)
        echo "${arch}: $bytes bytes of at most ${target.maxBinary}"
        [ "$bytes" -le ${target.maxBinary} ]
      '') targets
    )
    + ''touch "$out"''
  );

  inherit (packages) oci;
}
