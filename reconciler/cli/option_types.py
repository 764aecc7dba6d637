"""Values of options: durations as Go writes them, names as they are shown. Words to values."""

from typing import Final

import click

from reconciler.model.debris import DebrisKind, PlaceKey
from reconciler.model.ids import BundleKey, escape, unescape


def duration(_ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Check a duration like ``10s``, ``1h30m`` or ``7d``; an option's callback."""
    from reconciler.settings.units import parse_duration

    if value is not None:
        try:
            parse_duration(value)
        except ValueError as error:
            raise click.BadParameter(str(error), param=param) from None
    return value


def size(_ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Turn ``64MiB`` or ``10GB`` into bytes; an option's callback."""
    from reconciler.settings.units import parse_size

    if value is None:
        return None
    try:
        return parse_size(value)
    except ValueError as error:
        raise click.BadParameter(str(error), param=param) from None


def name(text: str) -> str:
    """Turn a name as it was typed into the one that is shown."""
    return escape(unescape(text))


def bundle_key(text: str, namespaces: tuple[str, ...]) -> BundleKey:
    """Turn ``NS/ID``, or ``ID`` where one namespace was named, into a key.

    Raises:
        click.BadParameter: It is neither.
    """
    alone = "/" not in text and len(namespaces) == 1
    key = BundleKey.parse(f"{namespaces[0]}/{text}" if alone else text)
    if key is None:
        raise click.BadParameter(f"{text!r} is not NAMESPACE/ID", param_hint="bundle")
    return key


EVERYTHING: Final = "all"
"""What `--debris` without a kind means."""


def debris_kinds(
    _ctx: click.Context, param: click.Parameter, value: str | None
) -> frozenset[DebrisKind]:
    """Turn ``cgroup,mount`` into kinds of debris, none if nothing is said; an option's callback.

    A shim among them is ended only where the policy says so: the kind alone never does.
    """
    kinds = {kind.value: kind for kind in DebrisKind}
    if value is None:
        return frozenset()
    said = kinds if value == EVERYTHING else value.split(",")
    for name in said:
        if name not in kinds:
            known = ", ".join(kinds)
            why = f"{name!r} is no kind of debris; there are {known}"
            raise click.BadParameter(why, param=param)
    return frozenset(kinds[name] for name in said)


def parse_place(text: str) -> PlaceKey | None:
    """Read ``KIND:PATH``; None if it is the name of a bundle, which has no colon."""
    kind, colon, path = text.partition(":")
    known = {one.value: one for one in DebrisKind}
    return PlaceKey(known[kind], path) if colon and kind in known else None
