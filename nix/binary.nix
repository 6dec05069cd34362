# One target's static binary: docker/build.sh in a sandbox. What goes to the compiler is said there and nowhere else.
{
  pkgs,
  toolchain,
  tools,
  crates,
  target,
  release,
}:
let
  inherit (pkgs) lib stdenv;
in
stdenv.mkDerivation {
  pname = "${release.name}-${target.arch}";
  inherit (release) version;

  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../Cargo.toml
      ../Cargo.lock
      ../.cargo
      ../build.rs
      ../src
      # Cargo.toml names them; they are not compiled.
      ../benches
      ../docker/build.sh
      ../docker/lib.sh
      ../docker/sealed.sh
      ../docker/std.sh
      ../docker/targets
      ../docker/zig-requirements.txt
      ../docker/auditable.lock
      ../tests/delivery/properties
      ../tests/delivery/properties.sh
    ];
  };

  nativeBuildInputs = [ toolchain ];

  buildPhase = ''
    runHook preBuild
    HOME=$TMPDIR HUMIDOR_TOOLS=${tools} HUMIDOR_CRATES=${crates} HUMIDOR_REVISION=${release.revision} SOURCE_DATE_EPOCH=${toString release.created} \
      bash docker/build.sh ${target.arch}
    runHook postBuild
  '';

  # Static, the right machine and float ABI, aligned for 16 KiB pages: what tests/delivery asks of every path's binary.
  doCheck = true;
  checkPhase = ''
    runHook preCheck
    diff -u tests/delivery/properties/${target.arch} <(bash tests/delivery/properties.sh dist/${target.arch}/humidor) ||
      { echo 'the binary is not as tests/delivery/properties/${target.arch} says' >&2; exit 1; }
    runHook postCheck
  '';

  installPhase = ''
    runHook preInstall
    install -D -m 755 -t "$out/bin" dist/${target.arch}/humidor
    runHook postInstall
  '';

  # As build.sh left it.
  dontFixup = true;
  # A path of the store in it would take half of that store into the image.
  allowedReferences = [ ];

  meta = {
    inherit (release) description;
    license = with lib.licenses; [
      mit
      asl20
    ];
    mainProgram = "humidor";
  };
}
