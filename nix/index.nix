# All platforms in one archive, as docker/image.sh leaves it in dist/humidor.oci.tar: push.sh and bundle.sh take it.
{
  pkgs,
  targets,
  images,
  release,
}:
let
  inherit (pkgs) lib;
in
pkgs.runCommand "${release.name}.oci.tar"
  {
    nativeBuildInputs = [ pkgs.jq ];
    # In the order of the table's names, which is the order of the platforms' too.
    images = map (arch: images.${arch}) (lib.attrNames targets);
    epoch = toString release.created;
    inherit (release) version;
    meta = {
      inherit (release) description;
      # That build it; it runs on the platforms of docker/targets.
      platforms = [
        "x86_64-linux"
        "aarch64-linux"
      ];
    };
  }
  ''
    mkdir layout
    for image in $images; do
      tar -xf "$image" -C layout --wildcards 'blobs/*'
      tar -xOf "$image" index.json >>single.json
    done
    jq -Scs '{schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json",
      manifests: [.[].manifests[0] | del(.annotations)]}' single.json >index
    digest=$(sha256sum index | cut -d' ' -f1) size=$(stat -c %s index)
    mv index "layout/blobs/sha256/$digest"
    jq -Snc --arg digest "sha256:$digest" --argjson size "$size" --arg version "$version" >layout/index.json '{
      schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json",
      manifests: [{mediaType: "application/vnd.oci.image.index.v1+json", $digest, $size,
        annotations: {"org.opencontainers.image.ref.name": $version}}]}'
    printf '{"imageLayoutVersion":"1.0.0"}' >layout/oci-layout
    tar --format=ustar --sort=name --numeric-owner --mtime="@$epoch" --owner=0 --group=0 --mode=u=rwX,go=rX \
      -cf "$out" -C layout blobs index.json oci-layout
  ''
