"""A release is what its tag says, and its workflow is one that GitHub accepts."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from reconciler import __version__

TOP = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((TOP / ".github" / "workflows").glob("*.yml"))
RELEASE = TOP / ".github" / "workflows" / "release.yml"
READ = ("reconciler/__init__.py", "contrib/kubernetes/chart/Chart.yaml", ".ci/release")
SECTION = "\n### Safety\n\n- Nothing is lost.\n\n"


def valid(*workflows: Path) -> subprocess.CompletedProcess[str]:
    """Ask the schema that GitHub's editors use."""
    program = Path(sys.prefix, "bin", "check-jsonschema")
    return subprocess.run(
        [program, "--builtin-schema", "vendor.github-workflows", *workflows],
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_workflow_is_one() -> None:
    done = valid(*WORKFLOWS)
    assert done.returncode == 0, done.stdout


def test_a_broken_workflow_would_be_noticed(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yml"
    broken.write_text(RELEASE.read_text().replace("runs-on:", "run-on:", 1))
    assert valid(broken).returncode == 1


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_what_a_workflow_runs_is_there(workflow: Path) -> None:
    jobs = yaml.safe_load(workflow.read_text())["jobs"].values()
    lines = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
    makefile = (TOP / "Makefile").read_text()
    for line in lines:
        subprocess.run(["bash", "-n", "-c", line], check=True)
        for words in re.findall(r"(?:^|&& )make ([^&]+)", line):
            for target in re.findall(r"(?<!\S)[a-z]+(?!\S)", words):
                assert re.search(rf"(?m)^{target}:", makefile), line
        for script in re.findall(r"(?<!\S)\.ci/\w+", line):
            assert (TOP / script).stat().st_mode & 0o111, line


def test_only_who_publishes_may_write_and_nobody_else_builds() -> None:
    read = yaml.safe_load(RELEASE.read_text())
    assert read["permissions"] == {"contents": "read"}
    writing = {name for name, job in read["jobs"].items() if "permissions" in job}
    assert writing == {"image", "publish"}
    assert set(read["jobs"]["publish"]["needs"]) == set(read["jobs"]) - {"publish"}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """As much of a checkout as is asked, with a changelog that has a section of this version."""
    for name in READ:
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(TOP / name, target)
    (tmp_path / "CHANGELOG.md").write_text(
        f"# Changelog\n\n## [Unreleased]\n\n- Later.\n\n## [{__version__}] - 2026-12-01\n{SECTION}"
        f"## [0.0.{__version__}] - 2026-11-01\n\n- Earlier.\n"
    )
    return tmp_path


def release(top: Path, *words: str | Path) -> tuple[int, str, str]:
    done = subprocess.run(
        [top / ".ci/release", *words], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_the_notes_are_the_section_of_the_version(checkout: Path) -> None:
    assert release(checkout, "notes", f"v{__version__}") == (0, SECTION, "")


def test_a_tag_is_refused_that_is_not_what_the_commit_says(checkout: Path) -> None:
    assert release(checkout, "check", f"v{__version__}") == (0, "", "")
    assert release(checkout, "check", "v9.9.9")[0] == 1
    chart = checkout / READ[1]
    chart.write_text(chart.read_text().replace(f"appVersion: {__version__}", "appVersion: 9.9.9"))
    code, _, err = release(checkout, "check", f"v{__version__}")
    assert (code, "chart's app 9.9.9" in err) == (1, True)


def test_a_tag_is_refused_that_the_changelog_does_not_know(checkout: Path) -> None:
    changelog = checkout / "CHANGELOG.md"
    changelog.write_text(changelog.read_text().replace(f"## [{__version__}] - ", "## [x] - "))
    code, _, err = release(checkout, "check", f"v{__version__}")
    assert (code, "has no section" in err) == (1, True)


def test_the_sums_are_of_everything(checkout: Path, tmp_path: Path) -> None:
    there = tmp_path / "dist"
    (there / "wheelhouse").mkdir(parents=True)
    for name in ("a.pyz", "b+debian12.deb", "wheelhouse/c.whl"):
        (there / name).write_text(name)
    for _ in range(2):  # the file has no sum of its own
        assert release(checkout, "sums", there) == (0, "", "")
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=there, check=True)
    assert len((there / "SHA256SUMS").read_text().splitlines()) == 3
