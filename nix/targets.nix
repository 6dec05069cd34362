# docker/targets, the only table of platforms, by arch: { armv7 = { triple, os, architecture, variant, maxBinary, … }; … }
{ lib }:
let
  words =
    line: lib.filter (word: builtins.isString word && word != "") (builtins.split "[ \t]+" line);
  lines = lib.filter (line: line != "" && !lib.hasPrefix "#" line) (
    lib.splitString "\n" (builtins.readFile ../docker/targets)
  );
  target =
    line:
    let
      column = lib.elemAt (words line);
      platform = lib.splitString "/" (column 2);
    in
    {
      arch = column 0;
      triple = column 1;
      os = lib.elemAt platform 0;
      architecture = lib.elemAt platform 1;
      # As OCI has it: amd64 and arm64 have none.
      variant = if lib.length platform > 2 then lib.elemAt platform 2 else null;
      # Bytes.
      maxBinary = column 5;
    };
in
lib.listToAttrs (map (line: lib.nameValuePair (target line).arch (target line)) lines)
