"""The page in a real browser: headless Chromium, from Debian's packages chromium and chromium-driver."""

import base64
import io
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from _helpers.command import process
from _helpers.waiting import wait_until
from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

import seedbed

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--window-size=1360,1000", "--force-device-scale-factor=1",
)  # fmt: skip
# Set where the tests must run, so that a missing browser fails them instead of skipping them.
IS_REQUIRED = os.environ.get("SEEDBED_TEST_BROWSER") == "1"

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(
        not IS_REQUIRED and (CHROMIUM is None or DRIVER is None), reason="needs Debian's chromium and chromium-driver"
    ),
]


class Page:
    """The page in a browser window."""

    def __init__(self, driver, url):
        self.driver = driver
        self.url = url

    def open(self, query=""):
        self.driver.get(self.url + query)
        self.settle()

    def settle(self):
        """Waits until the response to the last change is shown."""

        def is_shown():
            self.driver.execute_script("return new Promise((done) => setTimeout(done, 200))")  # longer than PAUSE
            return self("#results").get_attribute("aria-busy") == "false"

        assert wait_until(is_shown, 30)

    def __call__(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector):
        return self(selector).get_attribute("textContent")

    def type(self, field, text):
        # Typed, because clear() would be a separate edit.
        self(f"#{field}").send_keys(Keys.CONTROL, "a")
        self(f"#{field}").send_keys(text or Keys.DELETE)
        self.settle()

    def choose(self, field, choice):
        Select(self(f"#{field}")).select_by_visible_text(choice)
        self.settle()

    def errors(self):
        elements = self.driver.find_elements(By.CSS_SELECTOR, ".error:not([hidden])")
        return {element.get_attribute("id").removesuffix("-error"): element.text for element in elements}

    def facts(self):
        rows = self.driver.find_elements(By.CSS_SELECTOR, "#facts > div")
        return dict(row.text.split("\n") for row in rows)

    def moments(self):
        rows = self.driver.find_elements(By.CSS_SELECTOR, "#moments tbody tr")
        return [[float(cell.text.replace("−", "-")) for cell in row.find_elements(By.TAG_NAME, "td")] for row in rows]

    def bars(self):
        return self("#histogram .outline").get_attribute("d")

    def pixels(self):
        """The image in the canvas, one pixel per element."""
        text = self.driver.execute_script("return document.getElementById('matrix').toDataURL()")
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(text.partition(",")[2]))).convert("RGB")).astype(int)

    def console_errors(self):
        """The messages in the browser's console, except for the expected errors of invalid forms."""
        return [entry["message"] for entry in self.driver.get_log("browser") if "status of 422" not in entry["message"]]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    assert CHROMIUM, "chromium is missing: apt-get install chromium chromium-driver"
    assert DRIVER, "chromedriver is missing: apt-get install chromium chromium-driver"
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(DRIVER))
    command = process("explore", "--no-browser", "--listen", "127.0.0.1:0")
    yield Page(driver, re.search(r"http://\S+", command.stdout.readline())[0])
    driver.quit()
    command.terminate()
    assert command.wait(20) == 0


@pytest.fixture
def page(browser):
    browser.open()
    yield browser
    assert browser.console_errors() == []


def test_it_starts_with_an_example(page):
    assert page("#scheme").get_attribute("value") == "kaiming_normal"
    assert page.text("#law") == "normal(mean=0, std=0.0220971)"
    assert page.text("#status").startswith("the first 1,048,576 of 16,777,216 values, sampled in ")
    assert page.driver.current_url.endswith(
        "?scheme=kaiming_normal&shape=4096,4096&mode=fan_out&nonlinearity=relu&seed=7"
    )
    assert page.text("#picture-readout") == "the first 192 × 192 of 4,096 × 4,096"


def test_a_change_updates_the_law_the_histogram_and_the_numbers(page):
    bars = page.bars()
    page.choose("nonlinearity", "tanh")
    page.type("shape", "256,1024")
    [mean, (law, sample)] = page.moments()
    assert law == pytest.approx(5 / 3 / 16, rel=1e-5)  # fan_out is 256
    assert sample == pytest.approx(law, rel=0.01)
    assert mean[0] == 0
    assert (page.facts()["fan in"], page.facts()["fan out"]) == ("1,024", "256")
    assert float(page.facts()["gain"]) == 5 / 3
    assert page.text("#law") == f"normal(mean=0, std={5 / 3 / 16:.6g})"
    assert page.bars() != bars
    before = page.pixels()
    page('[aria-label="next seed"]').click()
    page.settle()
    assert page("#seed").get_attribute("value") == "8"
    assert (page.pixels() != before).mean() > 0.9


def test_every_scheme_can_be_chosen(page):
    for scheme in seedbed.SCHEMES:
        page.choose("scheme", scheme)
        assert page.errors() == {}, scheme
        assert page("#banner").get_attribute("hidden"), scheme
        assert page.text("#law")
        assert page.driver.find_elements(By.CSS_SELECTOR, "#histogram .outline, #histogram .share"), scheme
        assert f"client.{scheme}(" in page.text("#python")
    page.choose("scheme", "variance_scaling")
    assert page("#in_axis").get_attribute("placeholder") == "-2"


def test_an_error_is_shown_at_its_field_and_disappears(page):
    page.choose("scheme", "uniform")
    page.type("a", "2")
    assert list(page.errors()) == ["a"]
    assert "swap" in page.errors()["a"]
    assert page("#a").get_attribute("aria-invalid") == "true"
    assert "a-error" in page("#a").get_attribute("aria-describedby")
    assert "stale" in page("#results").get_attribute("class")
    assert not page('[data-copies="python"]').is_enabled()  # it would copy the call of another tensor
    page.type("b", "3")
    assert page.errors() == {}
    assert page("#a").get_attribute("aria-invalid") == "false"
    assert page.text("#law") == "uniform(a=2, b=3)"
    assert page("#results").get_attribute("class") == ""
    assert page('[data-copies="python"]').is_enabled()


def test_a_url_with_an_error_shows_only_the_error(page):
    page.open("?scheme=dirac&shape=3,3")
    assert list(page.errors()) == ["shape"]
    assert page.text("#law") == "Nothing to show yet"
    assert not page("#histogram-panel").is_displayed()


def test_the_python_call_reproduces_the_image(page):
    page.open("?scheme=sparse&shape=60,80&sparsity=0.5&std=0.1&seed=3&name=fc&dtype=float16&region=10:50,:")
    names = {}
    exec(page.text("#python"), names)
    w = names["w"]
    assert w.shape == (40, 80)
    assert w.dtype == np.float16
    [_, (_, std)] = page.moments()
    assert std == pytest.approx(w.astype(np.float64).std(), rel=1e-5)
    red, _, blue = np.moveaxis(page.pixels(), 2, 0)
    # Zeros have the neutral colour, grey; higher values are blue, lower values orange.
    assert (blue[w > 0.05] > red[w > 0.05]).all()
    assert (blue[w < -0.05] < red[w < -0.05]).all()
    neutral = page.pixels()[w == 0]
    assert (neutral == neutral[0]).all()


def test_the_url_holds_the_form_and_back_restores_it(page):
    page.choose("scheme", "eye")
    page.type("shape", "30,20")
    address = page.driver.current_url
    assert address.endswith("?scheme=eye&shape=30,20&seed=7")
    assert (page.pixels()[np.arange(20), np.arange(20)] != page.pixels()[1, 0]).any(axis=1).all()
    page.choose("dtype", "bfloat16")
    assert page.facts()["dtype"] == "bfloat16"
    page.driver.back()
    page.settle()
    assert page.driver.current_url == address
    assert page.facts()["dtype"] == "float32"
    page.driver.back()
    page.settle()
    assert page("#shape").get_attribute("value") == "512,512"
    page.driver.back()
    page.settle()
    assert page("#scheme").get_attribute("value") == "kaiming_normal"
    page.driver.get(address)
    page.settle()
    assert page("#shape").get_attribute("value") == "30,20"


def test_another_scheme_keeps_the_shared_fields(page):
    page.type("seed", "99")
    page.type("name", "fc")
    page.choose("scheme", "dirac")
    assert page("#seed").get_attribute("value") == "99"
    assert page("#name").get_attribute("value") == "fc"
    assert page("#shape").get_attribute("value") == "64,64,3,3"  # its own example, not the other scheme's 4096,4096
    page("#reset").click()
    page.settle()
    assert page("#seed").get_attribute("value") == "7"


def test_a_call_can_be_copied(page):
    page('[data-copies="python"]').click()
    assert wait_until(lambda: page.text("#copied") in ("Copied", "Selected"))
    if page.text("#copied") == "Selected":  # where the browser denies access to the clipboard
        assert page.driver.execute_script("return String(getSelection())").strip() == page.text("#python").strip()


def test_a_text_is_not_interpreted_as_html(page):
    name = "<img src=x onerror=alert(1)>"
    page.type("name", name)
    assert name in page.text("#python")
    with pytest.raises(NoSuchElementException):
        page("main img")


def test_it_can_be_used_with_the_keyboard(page):
    page("#scheme").send_keys(Keys.TAB, "1")
    assert page.driver.switch_to.active_element.get_attribute("name") == "shape"
    assert "The global shape" in page.text("#help")
    page("#histogram").send_keys(Keys.ARROW_RIGHT)
    assert re.fullmatch(r"\S+ to \S+: [\d,]+ values?, the law expects [\d,]+", page.text("#histogram-readout"))
    page("#matrix").send_keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_RIGHT)
    assert page.text("#picture-readout").startswith("row 1, column 1: ")


def test_the_counts_are_close_to_the_law_s_expectation(page):
    page("#histogram").send_keys(Keys.ARROW_RIGHT)
    for _ in range(5):
        page("#histogram").send_keys(Keys.ARROW_LEFT)
        counted, expected = re.search(
            r": ([\d,]+) values, the law expects ([\d,]+)", page.text("#histogram-readout")
        ).groups()
        counted, expected = int(counted.replace(",", "")), int(expected.replace(",", ""))
        assert expected > 10_000
        assert abs(counted - expected) < 6 * expected**0.5


@pytest.mark.parametrize("width", [360, 768, 1360])
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_it_fits_the_screen(page, tmp_path, width, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    page.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 2, "mobile": width < 400},
    )
    try:
        page.open("?scheme=variance_scaling&shape=768,3072&scale=1&mode=fan_in&distribution=truncated_normal&in_axis=9")
        assert list(page.errors()) == ["in_axis"]
        page.type("in_axis", "0")
        root = "document.documentElement"
        assert page.driver.execute_script(f"return {root}.scrollWidth <= {root}.clientWidth")
        capture = page.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
        screenshot = tmp_path / "page.png"
        screenshot.write_bytes(base64.b64decode(capture["data"]))
        corner = Image.open(screenshot).convert("RGB").getpixel((4, 4))
        assert (max(corner) < 40) if scheme == "dark" else (min(corner) > 230)
        if folder := os.environ.get("SEEDBED_TEST_SCREENSHOTS"):  # for people to inspect
            Path(folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(screenshot, Path(folder) / f"{width}-{scheme}.png")
    finally:
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_stopped_server_is_reported(browser):
    command = process("explore", "--no-browser", "--listen", "127.0.0.1:0")
    other = Page(browser.driver, re.search(r"http://\S+", command.stdout.readline())[0])
    other.open()
    command.terminate()
    assert command.wait(20) == 0
    other.type("seed", "8")
    assert other.text("#banner") == "The page's server is not responding; run `seedbed explore` again."
    assert other("#banner").is_displayed()
    browser.console_errors()  # drops the expected error of the connection
