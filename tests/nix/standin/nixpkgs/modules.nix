# Stand-in for nixpkgs' module system: options with defaults, imports, mkIf, mkMerge, mkDefault, merged as its manual says.
# It checks no types, and a value that no definition gives is null.
{ lib }:
let
  inherit (builtins) concatMap filter isAttrs;
  kind = value: if isAttrs value then value._kind or null else null;

  # A value as a list of definitions: when it counts, how much, and what it is. What is inside of an if is looked at
  # without its condition, as nixpkgs does: the names of the settings must not depend on the settings.
  definitions =
    value:
    {
      merge = concatMap definitions value.contents;
      when = map (one: one // { holds = value.condition && one.holds; }) (definitions value.content);
      # A default is not looked at where something else is said.
      fallback = [
        {
          value = value.content;
          holds = true;
          priority = 1500;
        }
      ];
      override = map (one: one // { inherit (value) priority; }) (definitions value.content);
    }
    .${toString (kind value)} or [
      {
        inherit value;
        holds = true;
        priority = 100;
      }
    ];

  isSet = value: isAttrs value && (value.type or null) != "derivation";

  merged =
    all:
    let
      within =
        name:
        concatMap (
          one:
          if one.value ? ${name} then
            map (
              inner:
              inner
              // {
                holds = one.holds && inner.holds;
                priority = if inner.priority == 100 then one.priority else inner.priority;
              }
            ) (definitions one.value.${name})
          else
            [ ]
        ) all;
      names = lib.attrNames (builtins.foldl' (names: one: names // one.value) { } all);
      active = filter (one: one.holds) all;
      foremost =
        several:
        builtins.foldl' (
          best: one: if one.priority < best.priority then one else best
        ) (builtins.head several) several;
      first = foremost active;
      strongest = filter (one: one.priority == first.priority) active;
    in
    if isSet (foremost all).value then
      lib.genAttrs names (name: merged (within name))
    else if active == [ ] then
      null
    else if builtins.isList first.value then
      concatMap (one: one.value) strongest
    else
      first.value;

  defaults =
    options:
    if kind options == "option" then
      {
        _kind = "fallback";
        content = options.default;
      }
    else
      lib.mapAttrs (_: defaults) options;
in
modules: arguments:
let
  load =
    module:
    let
      read = if isAttrs module || builtins.isFunction module then module else import module;
      loaded = if builtins.isFunction read then read (arguments // { inherit lib config; }) else read;
    in
    concatMap load (loaded.imports or [ ])
    ++ [
      (
        if loaded ? config || loaded ? options then
          loaded
        else
          { config = removeAttrs loaded [ "imports" ]; }
      )
    ];
  loaded = concatMap load modules;
  config = merged (
    concatMap (
      module:
      definitions (module.config or { })
      ++ lib.optionals (module ? options) (definitions (defaults module.options))
    ) loaded
  );
in
config
