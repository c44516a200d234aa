"""What run.py does before it runs anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import run


def test_pip_has_the_hosts_settings_and_not_its_folders(tmp_path: Path) -> None:
    settings = tmp_path / "settings"
    (tmp_path / "ca.pem").write_text("certificates")
    settings.mkdir()
    listed = f"""
:env:.timeout='180'
download.dest='/x'
global.cert='{tmp_path}/ca.pem'
global.extra-index-url='file:///wheels https://a/simple\\nhttps://b/simple'
global.find-links='/wheels'
global.index-url='https://one/simple?a=b'
global.timeout='9'
install.index-url='https://two/simple?a=b'
"""
    assert run.pip_settings(listed, settings) == {
        "PIP_CERT": "/settings/ca.pem",
        "PIP_EXTRA_INDEX_URL": "https://a/simple https://b/simple",
        "PIP_INDEX_URL": "https://two/simple?a=b",
        "PIP_TIMEOUT": "180",
    }
    assert (settings / "ca.pem").read_text() == "certificates"


@pytest.fixture
def there_is(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The ways that there are."""
    ways: set[str] = set()
    monkeypatch.setattr(run, "problem_of_engine", lambda engine: "" if engine in ways else "is not installed")
    monkeypatch.setattr(run, "problem_of_chroot", lambda: "" if "chroot" in ways else "needs Linux, and root")
    return ways


def test_the_first_way_that_there_is_is_taken(there_is: set[str]) -> None:
    there_is |= {"chroot"}
    assert run.choose(None) == "chroot"
    there_is |= {"podman"}
    assert run.choose(None) == "podman"
    assert run.choose("chroot") == "chroot"


@pytest.mark.parametrize(("requested", "tried"), [(None, ["docker", "podman", "chroot"]), ("docker", ["docker"])])
def test_where_there_is_no_way_it_says_why_and_what_to_install(
    requested: str | None, tried: list[str], there_is: set[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run.choose(requested)
    message = str(ended.value)
    assert message.endswith(run.ADVICE)
    reasons = message.removesuffix(run.ADVICE).splitlines()[1:]
    assert [reason.split()[0] for reason in reasons] == tried


def test_a_container_gets_variables_by_name_alone() -> None:
    command = run.container("podman", ["PIP_INDEX_URL"], ["tests/engine", "-k", "a or b"])
    assert command[command.index("--env") + 1] == "PIP_INDEX_URL"
    assert command[-3:] == ["tests/engine", "-k", "a or b"]
