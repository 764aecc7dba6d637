"""A plugin of pytest that prints how many cases are marked with each fault, as JSON.

python -m pytest --collect-only -p no:terminal -p tests.safety.collecting
"""

import json
import sys
from collections import Counter

import pytest


def pytest_collection_finish(session: pytest.Session) -> None:
    """Count the marks."""
    marked: Counter[str] = Counter()
    for item in session.items:
        marked.update({name for mark in item.iter_markers("fault") for name in mark.args})
    sys.stdout.write(json.dumps(marked))
