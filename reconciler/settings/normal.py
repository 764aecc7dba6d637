"""Normal: the few spellings that are accepted beside the one of the schema, rewritten to it.

A file's table flows in, the same in the schema's spelling flows out, with what was rewritten in
words. It refuses nothing: what it does not understand stays as it is, for the check to find.
"""

from typing import Final

from reconciler.settings.check import Table

CGROUPS_PLUGIN: Final = "io.containerd.monitor.v1.cgroups"
"""The plugin of containerd's own configuration under which some look for the budgets."""

_BUDGETS: Final = ("max_runtime_dir_age", "max_runtime_dir_size")


def normalised(table: Table) -> tuple[Table, list[str]]:
    """Rewrite a file's table.

    Returns:
        The table, and a hint for each spelling that belongs to another program.
    """
    table, hints = _budgets(table)
    debris = table.get("debris")
    if isinstance(debris, dict):
        table["debris"] = {
            kind: {"action": said} if isinstance(said, str) else said
            for kind, said in debris.items()
        }
    rules = table.get("rule")
    if isinstance(rules, list):
        table["rule"] = [_rule(rule) for rule in rules]
    return table, hints


def _budgets(table: Table) -> tuple[Table, list[str]]:
    """Move the budgets from containerd's plugin table to ``[cleanup]``; what is there wins."""
    table = dict(table)
    plugins, cleanup = table.get("plugins"), table.get("cleanup", {})
    if not (isinstance(plugins, dict) and isinstance(cleanup, dict)):
        return table, []
    plugin = plugins.get(CGROUPS_PLUGIN)
    if plugins.keys() != {CGROUPS_PLUGIN} or not isinstance(plugin, dict):
        return table, []
    if not plugin.keys() <= set(_BUDGETS):
        return table, []
    del table["plugins"]
    table["cleanup"] = {**plugin, **cleanup}
    place = f'[plugins."{CGROUPS_PLUGIN}"]'
    return table, [
        f"{name} in {place} is ignored, because cleanup.{name} is there too"
        if name in cleanup
        else f"{name} in {place} is taken as cleanup.{name}; write it there"
        for name in plugin
    ]


def _rule(rule: object) -> object:
    if not isinstance(rule, dict) or not isinstance(rule.get("match"), dict):
        return rule
    match = rule["match"]
    plain: Table = {}
    annotations: Table = {}
    for name, value in match.items():
        prefix, dot, key = name.partition(".")
        if name == "annotation" and isinstance(value, dict):
            annotations |= _flat(value)
        elif prefix == "annotation" and dot:
            annotations[key] = value
        else:
            plain[name] = value
    if annotations:
        plain["annotation"] = annotations
    return {**rule, "match": plain}


def _flat(table: Table, prefix: str = "") -> Table:
    """Undo TOML's nesting of dots: an annotation's key is one name, however many dots it has."""
    flat: Table = {}
    for name, value in table.items():
        key = f"{prefix}.{name}" if prefix else name
        if isinstance(value, dict):
            flat |= _flat(value, key)
        else:
            flat[key] = value
    return flat
