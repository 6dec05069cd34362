# zig, cargo-zigbuild and cargo-auditable where docker/build.sh looks for them. The wheels and the lock file are those of
# docker/setup.sh: the bytes of the binary depend on all three.
{ pkgs, toolchain }:
let
  inherit (pkgs) lib stdenv;

  # Pins of docker/zig-requirements.txt: NAME==VERSION with the hash for x86-64 builders, then for aarch64 builders.
  pins = lib.listToAttrs (
    map
      (
        found:
        let
          part = lib.elemAt found;
        in
        lib.nameValuePair (part 0) {
          version = part 1;
          x86_64-linux = part 2;
          aarch64-linux = part 3;
        }
      )
      (
        lib.filter builtins.isList (
          builtins.split "([a-z-]+)==([0-9.]+) [\\]\n *--hash=sha256:([0-9a-f]+) [\\]\n *--hash=sha256:([0-9a-f]+)" (
            builtins.readFile ../docker/zig-requirements.txt
          )
        )
      )
  );
  # The platforms in the wheels' names, which the requirements leave to pip.
  platforms = {
    ziglang = {
      x86_64-linux = "manylinux_2_12_x86_64.manylinux2010_x86_64.musllinux_1_1_x86_64";
      aarch64-linux = "manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64";
    };
    cargo-zigbuild = {
      x86_64-linux = "manylinux_2_5_x86_64.manylinux1_x86_64";
      aarch64-linux = "manylinux_2_17_aarch64.manylinux2014_aarch64";
    };
  };
  wheel =
    name:
    pkgs.fetchPypi {
      pname = lib.replaceStrings [ "-" ] [ "_" ] name;
      inherit (pins.${name}) version;
      format = "wheel";
      dist = "py3";
      python = "py3";
      platform = platforms.${name}.${stdenv.hostPlatform.system};
      sha256 = pins.${name}.${stdenv.hostPlatform.system};
    };

  # cargo-auditable's own lock file with its own checksum, so that this is all that names it.
  lockFile = ../docker/auditable.lock;
  auditable =
    lib.findFirst (package: package.name == "cargo-auditable")
      (throw "docker/auditable.lock has no cargo-auditable")
      (builtins.fromTOML (builtins.readFile lockFile)).package;
  crates = pkgs.rustPlatform.importCargoLock { inherit lockFile; };
in
stdenv.mkDerivation {
  name = "humidor-tools";
  nativeBuildInputs = [
    toolchain
    pkgs.unzip
  ];
  dontUnpack = true;
  buildPhase = ''
    runHook preBuild
    export CARGO_HOME=$PWD/cargo
    mkdir cargo
    printf '[source.crates-io]\nreplace-with = "nix"\n[source.nix]\ndirectory = "%s"\n' ${crates} >cargo/config.toml
    cp -rL ${crates}/cargo-auditable-${auditable.version} auditable
    chmod -R u+w auditable
    cargo install --quiet --offline --locked --no-track --path auditable --root "$out"
    runHook postBuild
  '';
  # zig finds its library beside itself; both programs of the wheels are static.
  installPhase = ''
    runHook preInstall
    unzip -q ${wheel "ziglang"} 'ziglang/*' -d "$out/lib"
    unzip -q ${wheel "cargo-zigbuild"} -d zigbuild
    install -m 755 zigbuild/*.data/scripts/cargo-zigbuild "$out/bin/"
    chmod 755 "$out/lib/ziglang/zig"
    ln -s ../lib/ziglang/zig "$out/bin/zig"
    runHook postInstall
  '';
  dontFixup = true;
}
