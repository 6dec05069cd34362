# One platform's image, as one archive that docker load, podman load and skopeo (docker-archive: and oci-archive:) take.
#
# Not dockerTools: it writes no variant, without which an ARMv7 board's engine finds no image in an index, and its
# layers carry store paths. This is a layer of one file and one folder, and its three descriptions.
{
  pkgs,
  target,
  release,
  binary,
}:
let
  inherit (pkgs) lib;
  # Whose the folder is, and who runs.
  user = 65532;
  platform = {
    inherit (target) os architecture;
  }
  // lib.optionalAttrs (target.variant != null) { inherit (target) variant; };
  config = platform // {
    config = {
      User = "${toString user}:${toString user}";
      ExposedPorts."1883/tcp" = { };
      ExposedPorts."8080/tcp" = { };
      Env = [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        "HUMIDOR_DATA=/data"
      ];
      Entrypoint = [ "/humidor" ];
      Cmd = [ "--help" ];
      Volumes."/data" = { };
      StopSignal = "SIGTERM";
      # Nanoseconds.
      Healthcheck = {
        Test = [
          "CMD"
          "/humidor"
          "health"
          "--alive"
        ];
        Interval = 30000000000;
        Timeout = 5000000000;
        StartPeriod = 30000000000;
        StartInterval = 1000000000;
        Retries = 3;
      };
      Labels = {
        "org.opencontainers.image.title" = release.name;
        "org.opencontainers.image.description" = release.description;
        "org.opencontainers.image.licenses" = release.license;
        "org.opencontainers.image.version" = release.version;
        "org.opencontainers.image.revision" = release.revision;
      };
    };
  };
in
pkgs.runCommand "${release.name}-${target.arch}.tar"
  {
    nativeBuildInputs = [ pkgs.jq ];
    config = builtins.toJSON config;
    platform = builtins.toJSON platform;
    tag = "${release.name}:${release.version}";
    inherit (release) version;
    epoch = toString release.created;
    meta = {
      inherit (release) description;
      # That build it; where it runs is its name.
      platforms = [
        "x86_64-linux"
        "aarch64-linux"
      ];
    };
  }
  ''
    created=$(date -u -d "@$epoch" +%Y-%m-%dT%H:%M:%SZ)
    # archive FILE OWNER MODE FOLDER NAME…: adds to it, the same bytes from the same files.
    archive() {
      tar --format=ustar --sort=name --numeric-owner --mtime="@$epoch" --owner="$2" --group="$2" --mode="$3" -rf "$1" -C "$4" "''${@:5}"
    }
    # blob FILE: moves it to its name, and describes it.
    blob() {
      local digest size
      digest=$(sha256sum "$1" | cut -d' ' -f1) size=$(stat -c %s "$1")
      mv "$1" "layout/blobs/sha256/$digest"
      jq -nc --arg digest "sha256:$digest" --argjson size "$size" '{$digest, $size}'
    }
    mkdir -p root/data layout/blobs/sha256
    cp ${binary}/bin/humidor root/humidor
    archive layer.tar 0 755 root humidor
    archive layer.tar ${toString user} 755 root data

    unpacked=$(sha256sum layer.tar | cut -d' ' -f1)
    gzip -n -9 layer.tar
    layer=$(blob layer.tar.gz)
    jq -Sc --arg created "$created" --arg id "sha256:$unpacked" <<<"$config" >config.json \
      '.created = $created | .config.Labels["org.opencontainers.image.created"] = $created
        | .rootfs = {type: "layers", diff_ids: [$id]} | .history = [{$created, created_by: "nix"}]'
    image=$(blob config.json)
    jq -Snc --argjson config "$image" --argjson layer "$layer" >manifest.json '{
      schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json",
      config: ({mediaType: "application/vnd.oci.image.config.v1+json"} + $config),
      layers: [{mediaType: "application/vnd.oci.image.layer.v1.tar+gzip"} + $layer]}'
    manifest=$(blob manifest.json)

    # Names for the OCI half of the archive, then for docker's.
    jq -Snc --argjson manifest "$manifest" --arg tag "$tag" --arg version "$version" --argjson platform "$platform" >layout/index.json '{
      schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json",
      manifests: [{mediaType: "application/vnd.oci.image.manifest.v1+json", $platform, annotations: {
        "io.containerd.image.name": "docker.io/library/\($tag)", "org.opencontainers.image.ref.name": $version}} + $manifest]}'
    printf '{"imageLayoutVersion":"1.0.0"}' >layout/oci-layout
    jq -Snc --argjson config "$image" --argjson layer "$layer" --arg tag "$tag" >layout/manifest.json '
      def path: "blobs/" + (.digest | sub(":"; "/"));
      [{Config: ($config | path), RepoTags: [$tag], Layers: [$layer | path]}]'
    archive "$out" 0 u=rwX,go=rX layout blobs index.json manifest.json oci-layout
  ''
