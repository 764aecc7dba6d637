"""Label selectors: what kubectl means by them, and nothing that is not known is ever selected."""

import pytest

from reconciler.cli.labels import parse
from reconciler.errors import UsageError
from reconciler.model.evidence import Answer, Labels
from reconciler.model.labels import Known

CRI = Labels(
    known=True,
    pod_namespace="shop",
    pod="web-0",
    container="nginx",
    sandbox="pod",
    annotations=(("team", "red"), ("empty", "")),
)
POD = Labels(known=True, pod_namespace="shop", pod="web-0", annotations=(("tier", "front"),))
OWN = Known(CRI, POD)
UNKNOWN = Known(Labels())


@pytest.mark.parametrize(
    ("selector", "answer"),
    [
        ("team=red", Answer.YES),
        ("team==red", Answer.YES),
        ("team=blue", Answer.NO),
        ("team!=blue", Answer.YES),
        ("team!=red", Answer.NO),
        ("team", Answer.YES),
        ("!team", Answer.NO),
        ("empty", Answer.YES),
        ("empty=", Answer.YES),
        ("tier=front", Answer.YES),
        ("nobody", Answer.NO),
        ("nobody=x", Answer.NO),
        ("nobody!=x", Answer.YES),
        ("!nobody", Answer.YES),
        ("team in (red, blue)", Answer.YES),
        ("team notin (red,blue)", Answer.NO),
        ("nobody notin (x)", Answer.YES),
        ("io.kubernetes.pod.namespace=shop", Answer.YES),
        ("io.kubernetes.pod.name=web-1", Answer.NO),
        ("io.kubernetes.container.name=nginx", Answer.YES),
        ("io.kubernetes.container.name!=nginx", Answer.NO),
    ],
)
def test_a_selector_means_what_kubectl_means_by_it(selector: str, answer: Answer) -> None:
    (requirement,) = parse(selector)
    assert requirement.fits(OWN) is answer


@pytest.mark.safety
@pytest.mark.parametrize("selector", ["a=b", "a!=b", "a", "!a", "a in (b)", "a notin (b)"])
@pytest.mark.parametrize("known", [UNKNOWN, Known(CRI), Known(Labels(), POD)])
def test_what_is_not_known_is_never_selected(selector: str, known: Known) -> None:
    (requirement,) = parse(selector)
    assert requirement.fits(known) is Answer.NONE


def test_commas_join_requirements_and_not_inside_of_brackets() -> None:
    found = list(parse("team=red,tier in (front,back),!gone"))
    assert [one.key for one in found] == ["team", "tier", "gone"]
    assert found[1].values == {"front", "back"}


@pytest.mark.parametrize("selector", ["", "a b", "=b", "a=b=c", "a in", "a in b", "a=b,,c", "(a)"])
def test_what_is_no_selector_is_refused(selector: str) -> None:
    with pytest.raises(UsageError):
        list(parse(selector))
