"""The page of a run in a browser: what readers click, see and slide does what it says."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from PIL import Image
from runs_to_report import IMAGES, ROWS, SOLVERS, rich_store

from diffsplit.report import page as page_module
from diffsplit.report.gallery import gallery
from diffsplit.report.page import page
from diffsplit.report.summary import Summary

webdriver = pytest.importorskip(
    "selenium.webdriver", reason="selenium is not installed: pip install 'diffsplit[browser]'"
)
CHROMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
DESKTOP, PHONE = 1280, 400
"""Widths in pixels."""


class Browser:
    """Chromium without a window, showing one page."""

    def __init__(self, driver: Any, url: str) -> None:
        self.driver, self.url = driver, url

    def show(self, width: int = DESKTOP, scheme: str = "light", script: bool = True) -> None:
        """Load the page again, as a reader with these preferences has it."""
        self.command("Emulation.setScriptExecutionDisabled", value=not script)
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        self.command("Emulation.setDeviceMetricsOverride", **size)
        features = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
        media = [{"name": name, "value": value} for name, value in features.items()]
        self.command("Emulation.setEmulatedMedia", features=media)
        self.driver.get(self.url)

    def command(self, name: str, **parameters: Any) -> Any:
        return self.driver.execute_cdp_cmd(name, parameters)

    def all(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", selector))

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def methods(self) -> list[list[str]]:
        """The names of the methods that the table shows, in their order, by task."""
        bodies = [body for body in self.all("#results-table tbody") if body.is_displayed()]
        found = [body.find_elements("css selector", "tr:not(.task) th") for body in bodies]
        return [[head.text for head in heads if head.is_displayed()] for heads in found]

    def choose(self, selector: str, value: str, event: str) -> None:
        """Set a control as a reader would, and tell the page."""
        script = "const [e, v, name] = arguments; e.value = v; e.dispatchEvent(new Event(name));"
        self.run(script, self.one(selector), value, event)

    def stage(self) -> torch.Tensor:
        """What the viewer shows, as bytes ``(3, H, W)``."""
        picture = Image.open(io.BytesIO(self.one(".stage").screenshot_as_png)).convert("RGB")
        values = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
        return values.view(picture.height, picture.width, 3).permute(2, 0, 1)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    chrome = next(filter(None, map(shutil.which, CHROMES)), None)
    driver = shutil.which("chromedriver")
    if chrome is None or driver is None:
        pytest.skip("Chromium and chromedriver are not on PATH: apt install chromium-driver")
    store = rich_store()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_module, "drawings", lambda summary: [])
        text = page(store, Summary(store))
    file = tmp_path_factory.mktemp("page") / "index.html"
    file.write_text(text, "utf-8")
    options = webdriver.ChromeOptions()
    options.binary_location = chrome
    for option in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{option}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    with webdriver.Chrome(options=options, service=service) as running:
        yield Browser(running, file.as_uri())


@pytest.fixture
def browser(started: Browser) -> Iterator[Browser]:
    """The page freshly loaded; a test in which the browser complains fails."""
    started.show()
    yield started
    started.run("try { localStorage.clear(); } catch { }")
    assert started.driver.get_log("browser") == []


def test_a_click_on_a_head_sorts_within_each_task_and_further_clicks_turn_and_restore(
    browser: Browser,
) -> None:
    before = browser.methods()
    assert before[0] == ["DCDP, V2", "DiffEP", "Bicubic", "DDRMa", "DPS"]
    head = browser.all("#results-table thead button")[1]
    head.click()
    assert head.find_element("xpath", "..").get_attribute("aria-sort") == "descending"
    assert [names[:3] for names in browser.methods()] == [
        ["Bicubic", "DiffEP", "DCDP, V2"],
        ["Bicubicb", "DiffEP", "DCDP, V2"],
    ]
    head.click()
    assert browser.methods()[0] == ["DCDP, V2", "DiffEP", "Bicubic", "DDRMa", "DPS"]
    browser.all("#results-table thead button")[0].click()
    assert browser.methods()[0] == ["Bicubic", "DCDP, V2", "DDRMa", "DiffEP", "DPS"]
    for _ in range(2):
        browser.all("#results-table thead button")[0].click()
    assert browser.methods() == before


def test_filters_leave_the_methods_and_the_task_that_are_asked_for(browser: Browser) -> None:
    browser.one("#filter-words").send_keys("diffep dcdp")
    assert browser.methods() == [["DCDP, V2", "DiffEP"]] * 2
    assert browser.one("#filter-count").text == "4 of 9 lines"
    browser.choose("#filter-task", "2", "change")
    assert browser.methods() == [["DCDP, V2", "DiffEP"]]
    shown = [part.is_displayed() for part in browser.all("section[data-of-task]")]
    assert shown == [False, True]
    browser.one("#filter-words").clear()
    browser.choose("#filter-task", "", "change")
    assert [len(names) for names in browser.methods()] == [5, 4]


def test_a_click_enlarges_a_picture_and_the_next_and_escape_do_what_they_say(
    browser: Browser,
) -> None:
    assert not browser.one("#viewer").is_displayed()
    small = browser.all(".strip button img")[2]
    small.find_element("xpath", "..").click()
    assert browser.one("#viewer").is_displayed()
    assert browser.one("#viewer-title").text == f"{IMAGES[0]}, {SOLVERS[0]}"
    assert browser.one(".stage").size["width"] > 3 * small.size["width"]
    browser.one("#viewer-next").click()
    assert browser.one("#viewer-title").text == f"{IMAGES[0]}, {SOLVERS[1]}"
    browser.one("#viewer-previous").click()
    assert browser.one("#viewer-title").text == f"{IMAGES[0]}, {SOLVERS[0]}"
    browser.one("#viewer-close").send_keys("\ue00c")
    assert not browser.one("#viewer").is_displayed()


def test_the_slider_shows_the_truth_on_its_left_and_the_result_on_its_right(
    browser: Browser,
) -> None:
    store = rich_store()
    first = gallery(store, Summary(store), 1)[0]
    browser.all(".strip button")[2].click()
    assert first.truth is not None
    pictures = {"truth": first.truth, "result": first.answers[0].picture}

    def differs(columns: slice, name: str) -> int:
        """The most gray levels between the middle of each enlarged pixel and a picture's."""
        scale = browser.stage().shape[-1] // 8
        seen = browser.stage()[:, scale // 2 :: scale, scale // 2 :: scale][:, :8, :8].int()
        return int((seen - pictures[name])[:, :, columns].abs().max())

    left, right, full = slice(0, 4), slice(4, 8), slice(0, 8)
    assert differs(left, "truth") <= 1 < differs(left, "result")
    assert differs(right, "result") <= 1 < differs(right, "truth")
    browser.choose("#slide", "100", "input")
    assert differs(full, "truth") <= 1
    browser.one("#slide").send_keys("\ue011")  # the key Home
    assert differs(full, "result") <= 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_as_dark_as_the_reader_prefers_and_the_button_turns_it(
    browser: Browser, scheme: str
) -> None:
    def is_dark() -> bool:
        color = "return getComputedStyle(document.body).backgroundColor"
        return "rgb(22, 22, 21)" in browser.run(color)

    browser.show(scheme=scheme)
    assert is_dark() == (scheme == "dark")
    assert browser.one("#theme").text == ("Light" if is_dark() else "Dark")
    browser.one("#theme").click()
    assert is_dark() == (scheme == "light")


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_no_width_makes_readers_scroll_sideways_but_within_tables(
    browser: Browser, width: int
) -> None:
    browser.show(width)
    for details in browser.all("details > summary"):
        details.click()
    assert browser.run("return document.documentElement.scrollWidth") <= width
    browser.all(".strip button")[2].click()
    inside = "const e = document.querySelector('#viewer'); return e.scrollWidth <= e.clientWidth"
    assert browser.run(inside)


def test_the_page_is_read_without_its_script(browser: Browser) -> None:
    browser.show(script=False)
    tree = browser.command("Accessibility.getFullAXTree")["nodes"]
    names = {node["name"]["value"] for node in tree if node.get("name", {}).get("value")}
    for text in (ROWS[0], "24.00", "DCDP, V2", "Pictures", f"{IMAGES[0]}, truth", "The run"):
        assert text in names, text
    assert "all tasks" not in names, "controls that need the script are hidden"
    picture = base64.b64decode(browser.command("Page.captureScreenshot")["data"])
    assert len(Image.open(io.BytesIO(picture)).convert("RGB").getcolors(2**24) or ()) > 10
