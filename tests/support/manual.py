"""What a package installs below /usr/share: man pages and completions, from parser and schema.

    python -m tests.support.manual --write      writes contrib/share anew

The pages are man(7): text flows in, each line of it escaped. What a key is for stands beside it in
config/containerd-reconciler.toml; everything else is asked of the program itself.
"""

import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, cast

import click
import msgspec
from typing_extensions import override

from reconciler import __version__
from reconciler.cli.app import COMMANDS, app
from reconciler.cli.commands.clean import unattended
from reconciler.cli.commands.completion import PROGRAMS
from reconciler.cli.completing import HELP, SHELLS, script
from reconciler.cli.globals import UNATTENDED
from reconciler.cli.options import global_options
from reconciler.errors import ExitCode
from reconciler.settings.schema import Settings

TOP: Final = Path(__file__).resolve().parents[2]
PLACE: Final = TOP / "contrib" / "share"
PROGRAM: Final = PROGRAMS[0]
COMPLETIONS: Final = {
    "bash": "bash-completion/completions/{}",
    "fish": "fish/vendor_completions.d/{}.fish",
    "zsh": "zsh/site-functions/_{}",
}
"""Where each shell looks, below /usr/share."""

_CONFIG: Final = TOP / "config" / "containerd-reconciler.toml"
_ETC: Final = "/etc/containerd-reconciler"
_FILES: Final = {
    f"/usr/lib/{PROGRAM}/config.toml": "The distribution's configuration; read first.",
    f"{_ETC}/config.toml": "The administrator's configuration.",
    f"{_ETC}/conf.d/*.toml": "Parts of it, in the order of their names; later ones win.",
    f"{_ETC}/disabled": "Where it exists, the service is not started.",
    f"/run/{PROGRAM}/http.sock": "The daemon's private socket, for status, scan, explain, clean.",
}
_ENVIRONMENT: Final = {
    "CONTAINERD_ADDRESS": "containerd's socket, as --address.",
    "CONTAINERD_RECONCILER_SECTION_KEY": (
        f"A value of the configuration, as in CONTAINERD_RECONCILER_CLEANUP_GRACE=5m; see {PROGRAM}"
        ".toml(5)."
    ),
    "NO_COLOR": "Where it is set, nothing is coloured.",
}

_BEGIN: Final = "2026-11-30"
"""The day on the pages before the first release."""

_RULES: Final = {
    "rule.name": "Names the rule where it is spoken of.",
    "rule.protect": "Nothing that matches is ever removed.",
    "rule.match.annotation": "Globs by the annotation's key.",
    **{
        f"rule.match.{key}": f"Matches the {key.replace('_', ' ')}."
        for key in ("namespace", "id", "pod_namespace", "pod", "container")
    },
}

_TYPES: Final = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "a number",
    "object": "a table",
    "string": "text",
}

_Node = dict[str, object]


class Page:
    """One man page, written from the top.

    Args:
        title: Its name.
        section: Its section of the manual.
        line: What it is about, in a few words.
    """

    def __init__(self, title: str, section: int, line: str) -> None:
        self.name = f"{title}.{section}"
        heading = f'.TH {title.upper()} {section} "{_date()}" "{PROGRAM} {__version__}"'
        self._lines = [
            '.\\" Made by tests/support/manual.py from the parser and the schema.',
            heading,
            ".SH NAME",
            f"{_safe(title)} \\- {_safe(line)}",
        ]

    @override
    def __str__(self) -> str:
        """Give it whole."""
        return "\n".join(self._lines) + "\n"

    def section(self, name: str) -> None:
        """Begin a section."""
        self._lines.append(f".SH {name}")

    def part(self, name: str) -> None:
        """Begin a part of a section."""
        self._lines.append(f'.SS "{_safe(name)}"')

    def text(self, text: str) -> None:
        """Write paragraphs; an empty line is between two."""
        for number, paragraph in enumerate(re.split(r"\n\s*\n", text.strip())):
            follows = number or not self._lines[-1].startswith((".SH", ".SS"))
            self._lines += [".PP"] * bool(follows)
            self._lines += _lines(paragraph)

    def item(self, term: str, text: str) -> None:
        """Write what something means, indented below it."""
        self._lines += [".TP", f'.B "{_safe(term)}"', *_lines(text)]

    def usage(self, words: str) -> None:
        """Write how something is called."""
        is_first = self._lines[-1].startswith((".SH", ".SS"))
        self._lines += [] if is_first else [".br"]
        self._lines.append(_safe(words))


def pages() -> Iterator[Page]:
    """Make every page."""
    yield _program()
    yield _unattended()
    yield _configuration()


def texts() -> dict[str, str]:
    """Make every file, by its path below /usr/share."""
    made = {f"man/man{page.name[-1]}/{page.name}": str(page) for page in pages()}
    for program in PROGRAMS:
        for shell in SHELLS:
            made[COMPLETIONS[shell].format(program)] = script(shell, program)
    return made


def _program() -> Page:
    page = Page(PROGRAM, 8, "finds and removes what containerd leaves behind")
    page.section("SYNOPSIS")
    page.usage(f"{PROGRAM} [OPTIONS] COMMAND [ARGUMENTS]...")
    page.section("DESCRIPTION")
    page.text(f"{app.help}\n\n{app.epilog}")
    page.section("OPTIONS")
    _options(page, global_options())
    page.section("COMMANDS")
    context = click.Context(app, info_name=PROGRAM, help_option_names=HELP)
    for name in COMMANDS:
        _command(page, context, app.get_command(context, name))
    _ending(page)
    page.section("FILES")
    for path, text in _FILES.items():
        page.item(path, text)
    page.section("SEE ALSO")
    page.text(f"{UNATTENDED}(8), {PROGRAM}.toml(5), containerd(8), runc(8), ctr(8)")
    return page


def _unattended() -> Page:
    command = unattended()
    page = Page(UNATTENDED, 8, "removes what containerd left behind, once")
    page.section("SYNOPSIS")
    context = click.Context(command, info_name=UNATTENDED, help_option_names=HELP)
    page.usage(" ".join([UNATTENDED, *command.collect_usage_pieces(context)]))
    page.section("DESCRIPTION")
    page.text(command.help or "")
    page.section("OPTIONS")
    _options(page, command.params)
    _options(page, global_options())
    _ending(page)
    page.section("SEE ALSO")
    page.text(f"{PROGRAM}(8), {PROGRAM}.toml(5)")
    return page


def _command(page: Page, parent: click.Context, command: click.Command | None) -> None:
    assert command is not None
    context = click.Context(command, info_name=command.name, parent=parent)
    path = context.command_path.removeprefix(f"{PROGRAM} ")
    page.part(" ".join([path, *command.collect_usage_pieces(context)]))
    page.text(command.help or "")
    shared = {option.name for option in global_options()}
    _options(page, [one for one in command.params if one.name not in shared])
    if isinstance(command, click.Group):
        for one in command.commands.values():
            _command(page, context, one)


def _options(page: Page, params: Sequence[click.Parameter]) -> None:
    for param in params:
        context = click.Context(click.Command(PROGRAM))
        record = param.get_help_record(context) if isinstance(param, click.Option) else None
        if record is not None:  # those that are hidden have none
            page.item(*record)


def _ending(page: Page) -> None:
    page.section("EXIT STATUS")
    for code in ExitCode:
        page.item(str(code.value), code.meaning)
    page.section("ENVIRONMENT")
    for name, text in _ENVIRONMENT.items():
        page.item(name, text)


def _configuration() -> Page:
    page = Page(f"{PROGRAM}.toml", 5, f"configuration of {PROGRAM}(8)")
    page.section("DESCRIPTION")
    comment = _CONFIG.read_text().partition("\n\n")[0]
    page.text(re.sub(r"(?m)^# ", "", comment.split("#\n")[-1]))
    (_, definitions) = msgspec.json.schema_components([Settings])
    known = cast("dict[str, _Node]", definitions)
    told = _told(_CONFIG.read_text())
    page.section("KEYS")
    _keys(page, known, "Settings", "", told)
    page.section("RULES")
    page.text(_rules(_CONFIG.read_text()))
    _keys(page, known, "Rule", "rule", told)
    page.section("FILES")
    for path, text in list(_FILES.items())[:3]:
        page.item(path, text)
    page.section("SEE ALSO")
    page.text(f"{PROGRAM}(8)")
    return page


def _keys(page: Page, known: dict[str, _Node], of: str, path: str, told: dict[str, str]) -> None:
    """Write the keys of a table, then those of the tables in it."""
    properties = cast("dict[str, _Node]", known[of]["properties"])
    inner: list[tuple[str, str]] = []
    if path:
        page.part(f"[{path}]")
        page.text(str(known[of]["description"]).replace("``", ""))
    for name, node in properties.items():
        key = f"{path}.{name}" if path else name
        table = _table(node, known)
        if table and name != "rule":
            inner.append((table, key))
        elif not table:
            said = told.get(key) or _RULES.get(key, "As elsewhere, for what matches.")
            page.item(name, f"{said} {_kind(node, known)}")
    for table, key in inner:
        _keys(page, known, table, key, told)


def _table(node: _Node, known: dict[str, _Node]) -> str:
    """Name the definition of a table, or of each of several; empty if the value is none."""
    one = cast("_Node", node.get("items", node))
    name = str(one.get("$ref", "")).rpartition("/")[2]
    return name if "properties" in known.get(name, {}) else ""


def _kind(node: _Node, known: dict[str, _Node]) -> str:
    """Say what a value may be, and what it is where it is left out."""
    choices = cast("list[_Node]", node.get("anyOf", [node]))
    whole = next(one for one in choices if one.get("type") != "null")
    name = str(whole.get("$ref", "")).rpartition("/")[2]
    found = {**known.get(name, {}), **whole}
    if "enum" in found:
        said = " or ".join(f'"{one}"' for one in cast("list[str]", found["enum"]))
    elif name or "description" not in found:
        said = _TYPES[str(found["type"])]
    else:
        said = str(found["description"])
    if "minimum" in found:
        said += f", {found['minimum']} to {found['maximum']}"
    default = node.get("default")
    if default is None or default in ({}, []):
        return f"({said})"
    return f"({said}; default: {msgspec.json.encode(default).decode()})"


def _told(text: str) -> dict[str, str]:
    """Give what the example says of each key, in the comment beside it."""
    told: dict[str, str] = {}
    table = ""
    for line in text.splitlines():
        if heading := re.match(r"\[([\w.]+)\]", line):
            table = f"{heading[1]}."
        elif key := re.match(r"([\w-]+) = .*?  # (.+)", line):
            words = key[2][:1].upper() + key[2][1:]
            told[table + key[1]] = f"{words}."
    return told


def _rules(text: str) -> str:
    """Give what the example says of rules, without the rule it shows."""
    lines = text[text.index("# Rules:") :].splitlines()
    told = " ".join(line.removeprefix("# ") for line in lines[: lines.index("#")])
    told = told.removeprefix("Rules: ")
    return told[:1].upper() + told[1:]


def _date() -> str:
    """Give the day of the last release."""
    found = re.search(r"(?m)^## \[\d.*\] - (\S+)$", (TOP / "CHANGELOG.md").read_text())
    return found[1] if found else _BEGIN


def _lines(text: str) -> list[str]:
    """Write a paragraph, in lines that are no longer than roff's style wants them."""
    escaped = re.sub(r"`([^`]+)`", r"\\fB\1\\fR", _safe(" ".join(text.split())))
    lines = textwrap.wrap(escaped, 78, break_long_words=False, break_on_hyphens=False)
    return [rf"\&{line}" if line.startswith((".", "'")) else line for line in lines]


def _safe(text: str) -> str:
    """Write text so that roff takes none of it for an order of its own."""
    return text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python -m tests.support.manual --write")
    for place, content in texts().items():
        target = PLACE / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
