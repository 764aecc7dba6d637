"""The dashboard of contrib/prometheus, as Grafana would read it: panels, queries, variables."""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from tests.daemon.running import REPOSITORY

PATH: Final = REPOSITORY / "contrib/prometheus/dashboard.json"

_SELECTOR: Final = re.compile(r"([a-zA-Z_]\w*)\{([^}]*)\}")
_MATCHER: Final = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"")
_LEGEND: Final = re.compile(r"\{\{(\w+)\}\}")
_COMPARED: Final = re.compile(r" (?:>|==) \d+$")


class Place(msgspec.Struct):
    """Where a panel stands, in 24 columns."""

    x: int
    y: int
    w: int
    h: int


class Source(msgspec.Struct):
    """Who is asked."""

    type: str
    uid: str


class Target(msgspec.Struct, rename="camel"):
    """A query of a panel."""

    expr: str
    legend_format: str
    ref_id: str
    datasource: Source
    instant: bool = False

    @property
    def labels(self) -> set[str]:
        """The labels that its legend shows."""
        return set(_LEGEND.findall(self.legend_format))

    def legend(self, labels: dict[str, str]) -> str:
        """Write the legend of a series."""
        return _LEGEND.sub(lambda found: labels[found[1]], self.legend_format)


class Defaults(msgspec.Struct):
    """How values are shown."""

    unit: str = "short"
    mappings: list[dict[str, object]] = []
    custom: dict[str, object] = {}


class FieldConfig(msgspec.Struct):
    """How fields are shown."""

    defaults: Defaults


class Panel(msgspec.Struct, rename="camel"):
    """A panel, or the heading of a row."""

    id: int
    type: str
    title: str
    grid_pos: Place
    datasource: Source | None = None
    targets: list[Target] = []
    field_config: FieldConfig = msgspec.field(default_factory=lambda: FieldConfig(Defaults()))


class Variable(msgspec.Struct):
    """A variable."""

    name: str
    type: str
    definition: str = ""


class Annotation(msgspec.Struct):
    """Marks in all panels."""

    name: str
    expr: str = ""


class Templating(msgspec.Struct):
    """All variables."""

    list: list[Variable]


class Annotations(msgspec.Struct):
    """All annotations."""

    list: list[Annotation]


class Dashboard(msgspec.Struct, rename="camel"):
    """The file."""

    uid: str
    title: str
    schema_version: int
    panels: list[Panel]
    templating: Templating
    annotations: Annotations

    @property
    def targets(self) -> list[Target]:
        """Every query of every panel."""
        return [target for panel in self.panels for target in panel.targets]

    @property
    def expressions(self) -> list[str]:
        """Every expression, as the file has it."""
        marks = [one.expr for one in self.annotations.list if one.expr]
        return [*(target.expr for target in self.targets), *marks]


class Selector(NamedTuple):
    """What an expression selects: a metric, and the labels that it is matched by."""

    metric: str
    labels: frozenset[str]


def read() -> Dashboard:
    """Read it."""
    return msgspec.json.decode(PATH.read_bytes(), type=Dashboard)


def substituted(expression: str, window: str) -> str:
    """Put in what Grafana would for its variables, when everything is chosen."""
    said = expression.replace("$__rate_interval", window)
    return re.sub(r"\$(?:job|instance|namespace)\b", ".*", said)


def uncompared(expression: str) -> str:
    """Take away the comparison that leaves out what is well."""
    return _COMPARED.sub("", expression)


def selectors(expression: str) -> Iterator[Selector]:
    """Give everything that an expression selects."""
    for metric, matchers in _SELECTOR.findall(expression):
        yield Selector(metric, frozenset(_MATCHER.findall(matchers)))
