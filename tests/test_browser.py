"""The page in a real browser: offline, without errors, readable on a phone and on a screen."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from spinscape import report, reproduce
from synthetic_run import synthetic_run
from tiny_study import FEW

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
from selenium.common.exceptions import WebDriverException  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OWN_SCHEMES = ("file:", "data:", "blob:", "about:", "chrome:", "chrome-extension:")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    binary = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver_path = shutil.which("chromedriver")
    if binary is None or driver_path is None:
        pytest.skip(f"no browser to open the page in: looked for {BROWSERS} and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for option in OPTIONS:
        options.add_argument(option)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    try:
        driver = webdriver.Chrome(options=options, service=Service(driver_path))
    except WebDriverException as reason:
        pytest.skip(f"the browser {binary} does not start: {reason.msg}")
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    @cache
    def made(study: str) -> Path:
        folder = tmp_path_factory.mktemp(study)
        if study == "explore":
            return report.write(synthetic_run(folder, replicas=64))
        return report.write(reproduce(study, seed=0, out=folder / "run", **FEW))

    return made


@pytest.fixture(
    scope="module",
    params=[
        ("explore", 400),
        ("explore", 1200),
        pytest.param(("liao2024", 400), marks=pytest.mark.slow),
        pytest.param(("liao2024", 1100), marks=pytest.mark.slow),
    ],
    ids=lambda param: f"{param[0]}-{param[1]}",
)
def opened(browser: Any, page_of: Callable[[str], Path], request: pytest.FixtureRequest) -> Any:
    study, width = request.param
    page = page_of(study)
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(page.as_uri())
    drawn = "return document.documentElement.dataset.drawn === 'yes'"
    WebDriverWait(browser, 60).until(lambda driver: driver.execute_script(drawn))
    browser.console = browser.get_log("browser")
    browser.requests = [
        event["params"]["request"]["url"]
        for entry in browser.get_log("performance")
        if (event := json.loads(entry["message"])["message"])["method"]
        == "Network.requestWillBeSent"
    ]
    browser.page = page
    return browser


def test_the_console_stays_silent(opened: Any) -> None:
    assert opened.console == []


def test_nothing_but_the_file_is_asked_for(opened: Any) -> None:
    assert [url for url in opened.requests if url.startswith("file:")] == [opened.page.as_uri()]
    assert [url for url in opened.requests if not url.startswith(OWN_SCHEMES)] == []


def test_every_figure_is_drawn_and_told_in_words(opened: Any) -> None:
    plots = opened.execute_script(
        "return Array.from(document.querySelectorAll('.plot'), plot => ({"
        " id: plot.id, svg: plot.querySelectorAll('svg.main-svg').length,"
        " marks: plot.querySelectorAll('.trace, .hm, .boxes').length,"
        " label: plot.getAttribute('aria-label'),"
        " numbers: plot.closest('figure').querySelectorAll('details tbody tr').length }))"
    )
    assert len(plots) >= 14
    for plot in plots:
        assert plot["svg"] > 0, plot["id"]
        assert plot["marks"] > 0, plot["id"]
        assert plot["label"].strip(), plot["id"]
        assert plot["numbers"] > 0, plot["id"]


def test_nothing_sticks_out_sideways(opened: Any) -> None:
    opened.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true })")
    width, inner = opened.execute_script(
        "return [document.documentElement.scrollWidth, window.innerWidth]"
    )
    assert width <= inner
    wide = opened.execute_script(
        "return Array.from(document.querySelectorAll('body *')).filter(e => !e.closest('pre')"
        " && !e.closest('.skip') && e.getBoundingClientRect().right > innerWidth + 1)"
        ".map(e => e.outerHTML.slice(0, 80))"
    )
    assert wide == []


def test_axis_titles_stay_inside_their_figures(opened: Any) -> None:
    cut = opened.execute_script(
        "return Array.from(document.querySelectorAll('.plot')).flatMap(plot => {"
        " const box = plot.getBoundingClientRect();"
        " return Array.from(plot.querySelectorAll('.xtitle, .ytitle, .y2title')).filter(t => {"
        "  const r = t.getBoundingClientRect();"
        "  return r.left < box.left - 1 || r.right > box.right + 1"
        "   || r.top < box.top - 1 || r.bottom > box.bottom + 1; }"
        " ).map(t => plot.id + ': ' + t.textContent) })"
    )
    assert cut == []


def test_labels_of_an_axis_do_not_overlap(opened: Any) -> None:
    touching = opened.execute_script(
        "return Array.from(document.querySelectorAll('.plot')).flatMap(plot =>"
        " ['.xtick', '.ytick', '.y2tick'].flatMap(kind => {"
        "  const labels = Array.from(plot.querySelectorAll(kind + ' text'))"
        "   .filter(t => t.textContent && getComputedStyle(t).opacity > 0)"
        "   .map(t => [t.textContent, t.getBoundingClientRect()])"
        "   .filter(([, r]) => r.width > 0);"
        "  const cross = (r, s) => r.left < s.right - 1 && s.left < r.right - 1"
        "   && r.top < s.bottom - 1 && s.top < r.bottom - 1;"
        "  return labels.flatMap(([a, r], i) => labels.slice(i + 1)"
        "   .filter(([, s]) => cross(r, s)).map(([b]) => plot.id + ': ' + a + ' | ' + b)); }))"
    )
    assert touching == []


def test_a_legend_key_hides_its_traces(opened: Any) -> None:
    shown = (
        "const plot = document.getElementById('panel-walks-free');"
        "const key = plot.parentElement.querySelector('.key');"
        "key.click();"
        "const hidden = plot.data.filter(t => t.visible === false);"
        "return [key.getAttribute('aria-pressed'), hidden.length]"
    )
    assert opened.execute_script(shown) == ["false", 1]
    assert opened.execute_script(shown) == ["true", 0]


def test_text_is_large_enough_to_read(opened: Any) -> None:
    small = opened.execute_script(
        "return Array.from(document.querySelectorAll('p, li, td, th, dd, dt, figcaption, button'))"
        ".filter(e => parseFloat(getComputedStyle(e).fontSize) < 12).map(e => e.outerHTML)"
    )
    assert small == []


def test_the_page_prints_without_cutting_figures(opened: Any, tmp_path: Path) -> None:
    printed = opened.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    assert len(printed["data"]) > 10_000
