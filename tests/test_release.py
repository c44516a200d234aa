"""What a release is made of, without building it: `make release-check` does that."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from release import contents, notes, stamp

import seedbed

ROOT = Path(__file__).resolve().parent.parent
CLIENT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SERVER = tomllib.loads((ROOT / "server" / "pyproject.toml").read_text(encoding="utf-8"))
REPOSITORY = CLIENT["project"]["urls"]["Repository"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))

SCHEMAS = {
    ".github/workflows/*.yml": "vendor.github-workflows",
    ".github/dependabot.yml": "vendor.dependabot",
    ".github/ISSUE_TEMPLATE/[!c]*.yml": "vendor.github-issue-forms",
    ".github/ISSUE_TEMPLATE/config.yml": "vendor.github-issue-config",
    "CITATION.cff": "vendor.citation-file-format",
    "docker-compose.yml": "vendor.compose-spec",
}


def texts(*patterns: str) -> dict[str, str]:
    """The text of files, by their path."""
    paths = {path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()}
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in sorted(paths)}


# The version.


def test_the_version_is_that_of_the_tree():
    assert seedbed.__version__ == stamp.version()
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", seedbed.__version__)


@pytest.mark.parametrize("path", stamp.COPIES)
def test_copies_of_the_version_are_current(path: str):
    text = (ROOT / path).read_text(encoding="utf-8")
    assert stamp.stamped(path, text) == text, "run: make stamp"


def test_a_file_without_its_copy_is_an_error():
    with pytest.raises(ValueError, match=r"CITATION\.cff: no version found"):
        stamp.stamped("CITATION.cff", "title: Seedbed\n")


def test_the_changelog_has_a_section_for_the_version():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "### Added" in notes.notes(changelog, stamp.version())
    assert (
        notes.notes("# C\n\n## [1.1.0] - 2027-01-01\n\nb\n\n## [1.0.0] - 2026-11-27\n\na\n\n[x]: y\n", "1.0.0") == "a"
    )
    assert notes.notes(changelog, "0.0.1") == ""


# The distributions.


def test_the_distributions_say_the_same_of_themselves():
    for field in ("classifiers", "keywords", "license", "license-files", "requires-python"):
        assert CLIENT["project"][field] == SERVER["project"][field], field
    assert SERVER["project"]["urls"]["Repository"] == REPOSITORY
    assert (ROOT / "server" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_every_extra_of_the_server_is_one_of_the_client():
    extras = CLIENT["project"]["optional-dependencies"]
    assert extras["server"] == ["seedbed-server"]
    for extra in SERVER["project"]["optional-dependencies"]:
        assert extras[extra] == [f"seedbed-server[{extra}]"]


def test_what_does_not_belong_is_refused(tmp_path: Path):
    members = contents.expected(contents.SERVER, tmp_path / "x.whl", "1.0.0")
    assert {"seedbed_server/py.typed", "seedbed_server/engine/backends/cuda_kernels.cu"} <= members
    assert "seedbed_server-1.0.0.dist-info/licenses/LICENSE" in members
    found = members - {"seedbed_server/py.typed"} | {"tests/test_cli.py", "seedbed_server/__pycache__/a.pyc"}
    assert contents.complaints(found, members) == [
        "does not belong: seedbed_server/__pycache__/a.pyc",
        "does not belong: tests/test_cli.py",
        "is missing: seedbed_server/py.typed",
    ]


def test_links_that_lead_nowhere_from_pypi_are_refused():
    page = f"[a](docs/index.md) [b](#c) ![d]({REPOSITORY}/blob/v1.0.0/no.png) [e]({REPOSITORY}/blob/v1.0.0/LICENSE#f)"
    assert contents.broken_links(page, REPOSITORY, "1.0.0") == [
        "not absolute: docs/index.md",
        f"no such file: {REPOSITORY}/blob/v1.0.0/no.png",
    ]


def test_the_readme_s_links_become_absolute():
    """As the build does it: see [tool.hatch.metadata.hooks.fancy-pypi-readme]."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert contents.broken_links(readme, REPOSITORY, "1.0.0")
    for substitution in CLIENT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        replacement = substitution["replacement"].replace("$HFPR_VERSION", "1.0.0")
        readme = re.sub(substitution["pattern"], replacement, readme)
    assert contents.broken_links(readme, REPOSITORY, "1.0.0") == []
    assert "](https://raw.githubusercontent.com/seedbed-dev/seedbed/v1.0.0/docs/_static/explorer.png)" in readme


def test_the_picture_is_small():
    assert (ROOT / "docs" / "_static" / "explorer.png").stat().st_size < 200_000


# What other files repeat.


def test_the_repository_has_one_address():
    owner = REPOSITORY.removeprefix("https://github.com/")
    files = texts(
        "*.md", "*.cff", "*.toml", "server/*", "docs/**/*.md", ".github/**/*", "release/*.py", "deploy/**/*.yaml"
    )
    for path, text in files.items():
        for found in re.findall(r"(?:github\.com|githubusercontent\.com|ghcr\.io)/([\w.-]+/seedbed)\b", text):
            assert found == owner, path
        for found in re.findall(r"--repo\s+(\S+/\w+)", text):
            assert found == owner, path


def test_all_name_the_same_install_command():
    extras = CLIENT["project"]["optional-dependencies"]
    files = texts("README.md", "server/README.md", "docs/**/*.md", "client/**/*.py", "server/**/*.py", "examples/*.py")
    commands = [
        (path, found)
        for path, text in files.items()
        for found in re.findall(r"pip install (?:--\w+ )*(.*seedbed.*)", text)
    ]
    assert len(commands) > 15
    for path, command in commands:
        match = re.match(r"'seedbed\[([a-z0-9,-]+)\]'|seedbed(?![\w\[.-])", command)
        assert match, f"{path}: pip install {command}"
        assert set((match[1] or "server").split(",")) <= extras.keys(), f"{path}: pip install {command}"


def test_the_readme_names_every_extra_that_users_have():
    install = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Install")[2].partition("\n## ")[0]
    named = set(re.findall(r"seedbed\[([a-z0-9-]+)\]", install))
    for_developers = {"bench", "dev", "docs", "evidence", "peers", "tests", "trainers"}
    assert named == CLIENT["project"]["optional-dependencies"].keys() - for_developers


# The workflows.


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("pattern", SCHEMAS)
def test_files_follow_their_schemas(pattern: str):
    pytest.importorskip("check_jsonschema", reason="pip install check-jsonschema")
    paths = [str(path) for path in sorted(ROOT.glob(pattern))]
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", SCHEMAS[pattern], *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (paths, done.returncode) != ([], 0), done.stdout + done.stderr
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "path", ["CONTRIBUTING.md", "README.md", "docs/versions.md", ".github/pull_request_template.md"]
)
def test_pages_name_targets_that_exist(path: str):
    named = re.findall(r"(?:`|^)make ([a-z-]+)", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)
    assert named
    assert set(named) <= TARGETS


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_call_targets_that_exist(path: Path):
    for step in steps(yaml.safe_load(path.read_text(encoding="utf-8"))):
        called = re.findall(r"\bmake ((?:[a-z-]+ ?)+)", step.get("run", ""))
        assert {target for targets in called for target in targets.split()} <= TARGETS, step


def test_what_a_change_must_pass_is_in_the_workflows():
    runs = " ".join(str(step.get("run", "")) for path in WORKFLOWS for step in steps(yaml.safe_load(path.read_text())))
    for target in ("test", "test-zoo", "test-containers", "lint", "breaking", "docs", "demo", "release-check"):
        assert re.search(rf"make {target}\b(?!-)", runs), target
    assert ".ci/run" in runs


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_and_jobs_are_bounded(path: Path):
    text = path.read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    for used in re.findall(r"uses: (.*)", text):
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", used), used
    assert workflow["permissions"] == {"contents": "read"}
    assert all("timeout-minutes" in job for job in workflow["jobs"].values())


def test_the_tested_pythons_are_those_that_the_package_names():
    prefix = "Programming Language :: Python :: "
    named = [text.removeprefix(prefix) for text in CLIENT["project"]["classifiers"] if text.startswith(f"{prefix}3.")]
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))["jobs"]
    matrix = jobs["test"]["strategy"]["matrix"]
    assert matrix["python"] == named
    assert CLIENT["project"]["requires-python"] == f">={named[0]}"
    assert {entry["os"] for entry in matrix["include"]} == {"ubuntu-24.04-arm"}
    assert jobs["wheels"]["steps"][1]["with"]["python-version"].split() == [named[0], named[-1]]


def test_publishing_is_trusted_and_images_are_attested():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8"))["jobs"]
    assert jobs["pypi"]["permissions"] == {"id-token": "write", "attestations": "write"}
    assert not any("password" in step.get("with", {}) for step in jobs["pypi"]["steps"])
    [push] = [step["with"] for step in jobs["images"]["steps"] if "build-push-action" in step.get("uses", "")]
    assert (push["sbom"], push["provenance"], push["push"]) == (True, "mode=max", True)
