"""The dashboard: Grafana can read it, promtool parses it, and no panel hides another.

That each expression has data and each label exists is shown on a real Prometheus, in tests/fleet.
"""

import re
from pathlib import Path

import pytest
import yaml

from tests.contrib.test_prometheus import promtool
from tests.fleet import dashboard
from tests.fleet.dashboard import Dashboard, Source

PANELS = {"row", "stat", "timeseries", "state-timeline", "table"}
COLUMNS = 24

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def shipped() -> Dashboard:
    return dashboard.read()


def test_it_is_a_dashboard_of_grafana_10_or_later(shipped: Dashboard) -> None:
    assert 39 <= shipped.schema_version <= 42
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", shipped.uid)
    ids = [panel.id for panel in shipped.panels]
    assert len(set(ids)) == len(ids)
    assert {panel.type for panel in shipped.panels} == PANELS
    for panel in shipped.panels:
        references = [target.ref_id for target in panel.targets]
        assert len(set(references)) == len(references)
        assert panel.type == "row" or references, panel.title


def test_no_panel_hides_another(shipped: Dashboard) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in shipped.panels:
        at = panel.grid_pos
        cells = {(x, y) for x in range(at.x, at.x + at.w) for y in range(at.y, at.y + at.h)}
        assert not cells & taken, panel.title
        assert at.x + at.w <= COLUMNS, panel.title
        taken |= cells


def test_whoever_imports_it_chooses_the_data_source(shipped: Dashboard) -> None:
    first, *others = shipped.templating.list
    assert (first.name, first.type) == ("datasource", "datasource")
    for panel in shipped.panels:
        asked = [panel.datasource, *(one.datasource for one in panel.targets)]
        expected = Source("prometheus", "${datasource}")
        assert panel.type == "row" or asked == [expected] * len(asked), panel.title
    used = set(re.findall(r"\$(\w+)", "".join(shipped.expressions)))
    assert used == {one.name for one in others} | {"__rate_interval"}


def test_promtool_parses_each_expression(shipped: Dashboard, tmp_path: Path) -> None:
    asked = [dashboard.substituted(one, "5m") for one in shipped.expressions]
    asked += re.findall(r"label_values\((.+), \w+\)", "\n".join(
        dashboard.substituted(one.definition, "5m") for one in shipped.templating.list
    ))  # fmt: skip
    assert not any("$" in one for one in asked)
    rules = [{"record": f"asked:{n}", "expr": one} for n, one in enumerate(asked)]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "x", "rules": rules}]}))
    done = promtool("check", "rules", tmp_path / "rules.yml")
    assert done.returncode == 0, done.stderr
    assert f"{len(asked)} rules found" in done.stdout
