"""The repository holds what it is known to hold, and its chores agree with the code."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from sources import ROOT

from backend.images.starter.tools import PACKAGE_OF_TOOL

ALLOWED = {
    "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE", "Makefile", "README.md", "pyproject.toml", "requirements.lock",
    "backend", "kc_tui", "screenshots", "tests", "themes",
    ".ci", ".gitignore", ".gitattributes", ".editorconfig",
}  # fmt: skip


def make(*arguments: str) -> str:
    return subprocess.run(
        ["make", "-C", ROOT, *arguments], capture_output=True, text=True, check=True, timeout=30
    ).stdout


def tracked() -> list[str]:
    done = subprocess.run(["git", "-C", ROOT, "ls-files"], capture_output=True, text=True, check=True, timeout=30)
    return done.stdout.splitlines()


def test_the_top_level_holds_the_allowed_names_alone() -> None:
    assert {name.partition("/")[0] for name in tracked()} - ALLOWED == set()


def test_nothing_made_by_a_tool_is_tracked() -> None:
    made = re.compile(r"(^|/)(__pycache__|\.venv|build|dist|\.[a-z_]+_cache)/|\.pyc$|\.egg-info/")
    assert [name for name in tracked() if made.search(name)] == []


def test_every_dependency_is_locked_with_a_hash_and_without_a_host() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["libvirt"],
        *project["dependency-groups"]["dev"],
    ]
    names = {re.match(r"[\w.-]+", line)[0].lower().replace("_", "-").replace(".", "-") for line in wanted}
    lock = (ROOT / "requirements.lock").read_text()
    locked = {
        name.lower().replace(".", "-")
        for name in re.findall(r"^([\w.-]+)==\S+.*\\\n    --hash=sha256:", lock, re.MULTILINE)
    }
    assert names - locked == set()
    assert "://" not in lock


@pytest.mark.parametrize(
    "target",
    ["run", "test", "test-fast", "check", "bench", "screenshots", "lock", "system", "venv", "services", "clean"],
)
def test_make_help_tells_of_each_chore(target: str) -> None:
    assert re.search(rf"^  make {target} +\S", make("help"), re.MULTILINE)
    assert make() == make("help")


def test_what_builds_the_starter_image_is_installed_with_the_rest() -> None:
    (command,) = [line for line in make("--dry-run", "system").splitlines() if ".ci/packages" in line]
    assert {package for package in PACKAGE_OF_TOOL.values() if package not in ("apt", "dpkg")} <= set(command.split())


def test_what_the_tests_drive_is_installed_for_them_alone() -> None:
    assert "openssh-client" in make("--dry-run", "test")
    assert "openssh-client" not in make("--dry-run", "run")


@pytest.mark.parametrize(
    "script", sorted(path for path in (ROOT / ".ci").iterdir() if path.suffix == ""), ids=lambda p: p.name
)
def test_a_script_is_sound_and_can_be_run(script: Path) -> None:
    assert script.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", script], check=True, timeout=10)
    assert "\nset -eu" in script.read_text()


def test_continuous_integration_runs_all_tests() -> None:
    assert re.search(r"^exec make test$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert "pytest" in make("--dry-run", "test")
