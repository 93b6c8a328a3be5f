"""The page in a browser: chosen, searched, sorted, downloaded, light and dark, wide and narrow."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import celldit as cd

selenium = pytest.importorskip("selenium")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="needs Chromium and chromedriver"
)
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--window-size=1300,1600",
)  # fmt: skip


@pytest.fixture(scope="module")
def effects(_tiny_screen: ad.AnnData, tiny_model: Any) -> pd.DataFrame:
    return cd.tl.effects(_tiny_screen.copy(), tiny_model)


@pytest.fixture(scope="module")
def page(tmp_path_factory: Any, _tiny_screen: ad.AnnData, tiny_model: Any) -> Path:
    path = tmp_path_factory.mktemp("browser") / "explore.html"
    return cd.report.explore(_tiny_screen, tiny_model, path, contexts=["d1", "d2"])


@pytest.fixture(scope="module")
def browser(tmp_path_factory: Any) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(option)
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser: Any, page: Path, tmp_path: Path) -> Any:
    behaviour = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
    browser.get("about:blank")
    browser.get(page.as_uri())
    until(lambda: browser.execute_script("return document.body.dataset.ready") == "yes")
    return browser


def until(done: Callable[[], Any], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def text(browser: Any, selector: str) -> str:
    return browser.execute_script(
        "return document.querySelector(arguments[0]).textContent", selector
    )


def choose(browser: Any, perturbation: str, context: str) -> None:
    browser.execute_script(
        """const set = (id, value) => { const one = document.getElementById(id); one.value = value;
        one.dispatchEvent(new Event("change")); };
        const option = [...document.getElementById("context").options]
            .find((o) => o.textContent === arguments[1]);
        set("context", option.value); set("perturbation", arguments[0]);""",
        perturbation,
        context,
    )


def first_genes(browser: Any, n: int = 5) -> list[str]:
    return browser.execute_script(
        "return [...document.querySelectorAll('#genes tbody tr')].slice(0, arguments[0])"
        ".map((row) => row.cells[0].textContent)",
        n,
    )


def click(browser: Any, selector: str) -> None:
    browser.execute_script("document.querySelector(arguments[0]).click()", selector)


def test_choosing_shows_the_effects_of_the_table(opened: Any, effects: pd.DataFrame) -> None:
    for label, where in (("A", "d1"), ("A+B", "d2")):
        choose(opened, label, where)
        own = effects[(effects["perturbation"] == label) & (effects["context"] == where)]
        own = own.assign(size=own["log2_fold_change"].abs(), shown=own["lfsr"].clip(lower=1e-4))
        n = int((own["lfsr"] < 0.05).sum())
        assert text(opened, "#headline").startswith(f"{label} in {where}: {n} of 40 genes change")
        # Rates are rounded to 2%, and equal ones are in the order of size.
        top = set(own.sort_values(["shown", "size"], ascending=[True, False])["gene"][:8])
        assert len(set(first_genes(opened, 5)) & top) >= 4
    assert "measured" in text(opened, "#kind")
    drawn = opened.execute_script("return document.getElementById('volcano').data[0].x.length")
    assert drawn == 40


def test_search_finds_genes_and_the_download_holds_them(
    opened: Any, effects: pd.DataFrame, tmp_path: Path
) -> None:
    from selenium.webdriver.common.by import By

    choose(opened, "B", "d1")
    opened.find_element(By.ID, "search").send_keys("gene1 GENE25")
    wanted = [f"gene{g}" for g in (1, *range(10, 20), 25)]
    assert sorted(first_genes(opened, 40)) == sorted(wanted)
    assert text(opened, "#count") == "12 genes."
    click(opened, "#download")
    until(lambda: list(tmp_path.glob("B_d1.csv")))
    table = pd.read_csv(tmp_path / "B_d1.csv").set_index("gene")
    own = effects[(effects["perturbation"] == "B") & (effects["context"] == "d1")]
    own = own.set_index("gene").loc[table.index]
    assert sorted(table.index) == sorted(wanted)
    np.testing.assert_allclose(table["log2_fold_change"], own["log2_fold_change"], atol=1e-3)
    np.testing.assert_allclose(table["lfsr"], own["lfsr"].clip(lower=1e-4), rtol=0.03)
    assert set(table["extrapolation"]) == {"seen"}


def test_heads_sort_the_table(opened: Any, effects: pd.DataFrame) -> None:
    choose(opened, "C", "d2")
    click(opened, "#genes th[data-key='effect']")
    own = effects[(effects["perturbation"] == "C") & (effects["context"] == "d2")]
    size = own.set_index("gene")["log2_fold_change"].abs()
    assert size[first_genes(opened, 1)[0]] == pytest.approx(size.max(), abs=1e-3)
    click(opened, "#genes th[data-key='effect']")
    assert size[first_genes(opened, 1)[0]] == pytest.approx(size.min(), abs=1e-3)


def test_a_bar_of_the_ranking_chooses(opened: Any) -> None:
    choose(opened, "A", "d1")
    best = opened.execute_script(
        """const target = document.getElementById("target");
        target.value = [...target.options].find((o) => o.textContent.includes("B,")).value;
        target.dispatchEvent(new Event("change"));
        return document.getElementById("ranking").data[0].y.at(-1);"""
    )
    assert "B" in best
    opened.execute_script(
        "document.getElementById('ranking').emit('plotly_click', {points: [{y: 'B'}]})"
    )
    assert text(opened, "#headline").startswith("B in d1")


def test_light_dark_wide_and_narrow_without_errors(opened: Any) -> None:
    paper = "return getComputedStyle(document.body).backgroundColor"
    light = opened.execute_script(paper)
    click(opened, "#theme")
    assert opened.execute_script(paper) != light
    media = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    for width in (1300, 390):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        time.sleep(0.3)
        assert opened.execute_script("return document.documentElement.scrollWidth") <= width
    opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert [e for e in opened.get_log("browser") if e["level"] == "SEVERE"] == []
