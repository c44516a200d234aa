"""The site builds without a warning, from files alone, and covers all that there is."""

import html
import inspect
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from pages import DOCS, ROOT, blocks

import seedbed

BUILD = "-m sphinx -b html -q -n -W --keep-going"  # as the Makefile's
COLUMNS = 90  # characters of code that there is room for, in a window of any usual width


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for package in ("sphinx", "myst_parser", "furo", "sphinx_click", "sphinx_copybutton", "matplotlib", "torch", "jax"):
        pytest.importorskip(package, reason="make .venv/dev.stamp")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, *BUILD.split(), "-d", folder / "cache" / "doctrees", DOCS, folder / "html"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder / "html"


class Resources(HTMLParser):
    """What a browser fetches by itself to show a page."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag in ("script", "img", "iframe", "source", "video"):
            self.found.append(values.get("src") or "")
        if tag == "link" and values.get("rel") not in ("index", "search", "next", "prev", "genindex"):
            self.found.append(values.get("href") or "")


def test_the_makefile_builds_it_so():
    assert f"$(BIN)/python {BUILD} -d" in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_the_code_of_the_front_page_fits_its_column():
    readme, index = blocks(ROOT / "README.md"), blocks(DOCS / "index.md")
    code = [next(block for block in readme if block.language == "python"), *index]
    typed = [
        line for block in code for line in block.text.splitlines() if block.language == "python" or line[0] in "$>"
    ]
    assert len(typed) > 8
    for line in typed:
        assert len(line) <= COLUMNS, line


@pytest.mark.nightly
@pytest.mark.parametrize("width", [1024, 1360, 1920])
def test_the_front_page_needs_no_scroll_bar(site, width):
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver) and os.environ.get("SEEDBED_TEST_BROWSER") != "1":
        pytest.skip("needs Debian's chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--window-size={width},1000"):
        options.add_argument(flag)
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)) as browser:
        browser.get((site / "index.html").as_uri())
        boxes = browser.execute_script(
            "return [...document.querySelectorAll('pre, article table, html')]"
            ".map((box) => [box.textContent, box.scrollWidth, box.clientWidth])"
        )
    assert len(boxes) > 3
    for text, needed, there in boxes:
        assert needed <= there, text


@pytest.mark.nightly
def test_pages_fetch_nothing_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        for resource in Resources(page.read_text(encoding="utf-8")).found:
            assert not re.match(r"(https?:)?//", resource), f"{page.name}: {resource}"
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", style.read_text(encoding="utf-8")), style


@pytest.mark.nightly
def test_the_python_reference_has_all_that_is_public(site):
    import seedbed.aio
    import seedbed.jax
    import seedbed.torch

    pages = "".join((site / f"reference/{page}.html").read_text(encoding="utf-8") for page in ("python", "errors"))
    for name in set(seedbed.__all__) - {"__version__", "aio", "dtypes"}:
        assert f'id="seedbed.{name}"' in pages, name
    for scheme in seedbed.SCHEMES:
        assert f'id="seedbed.Schemes.{scheme}"' in pages
    for module in (seedbed.aio, seedbed.torch, seedbed.jax):
        page = (site / f"reference/{module.__name__.rpartition('.')[2]}.html").read_text(encoding="utf-8")
        for name in module.__all__:
            assert f'id="{module.__name__}.{name}"' in page, name
    for name, _ in inspect.getmembers(seedbed.Client, inspect.isfunction):
        if not name.startswith("_") and name not in seedbed.SCHEMES:
            assert f'id="seedbed.Client.{name}"' in pages, name


@pytest.mark.nightly
def test_the_command_line_s_reference_has_all_commands(site):
    from seedbed.cli._app import seedbed_command

    page = (site / "reference/cli.html").read_text(encoding="utf-8")
    for name, command in seedbed_command.commands.items():
        assert f'id="seedbed-{name}"' in page, name
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.opts[-1] in page, f"{name} {parameter.opts}"


@pytest.mark.nightly
def test_the_contract_is_there_to_the_last_field(site):
    from seedbed.v1 import init_pb2

    page = (site / "reference/contract.html").read_text(encoding="utf-8")
    text = re.sub(r"<[^>]+>", "", page)
    for name, message in init_pb2.DESCRIPTOR.message_types_by_name.items():
        assert f'id="{name.lower()}"' in page, name
        for field in message.fields:
            assert f">{field.name}</span>" in page, f"{name}.{field.name}"
    for name, enum in init_pb2.DESCRIPTOR.enum_types_by_name.items():
        assert f'id="{name.lower()}"' in page, name
        for value in enum.values:
            assert value.name in text
    assert "Streams one tensor, or a region of it." in text


@pytest.mark.nightly
def test_there_is_a_picture_of_every_scheme(site):
    page = (site / "gallery.html").read_text(encoding="utf-8")
    for scheme in seedbed.SCHEMES:
        [section] = re.findall(rf'<section id="{scheme.replace("_", "-")}">.*?</section>', page, re.DOTALL)
        [picture] = re.findall(r'<img[^>]* src="([^"]+\.svg)"', section)
        assert b"<path" in (site / picture).read_bytes()
        code = html.unescape(re.sub(r"<[^>]+>", "", section))
        assert f'"{scheme}", ' in code or f"client.{scheme}(" in code
