"""The pages of `dislab report` in a real browser; skipped where there is no Chromium or no playwright."""

import os
import shutil
from pathlib import Path

import pytest
from made_records import REFERENCE, made, picture, with_files, written

from dislab.report.html.pages import write_report

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on the path")
WIDTHS = (320, 400, 1400)
# The lowest contrast of all texts that are shown, and the text: WCAG's ratio of relative luminances.
CONTRAST = """
(elements) => {
  const luminance = (colour) => colour.slice(0, 3).reduce((sum, value, i) => {
    const c = value / 255;
    const linear = c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    return sum + [0.2126, 0.7152, 0.0722][i] * linear;
  }, 0);
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const ground = (element) => {
    for (; element; element = element.parentElement) {
      const colour = numbers(getComputedStyle(element).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const has_text = (e) => [...e.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  return elements.filter((e) => e.getClientRects().length && has_text(e)).map((e) => {
    const pair = [luminance(numbers(getComputedStyle(e).color)), luminance(ground(e))];
    const [light, dark] = pair.sort((x, y) => y - x);
    return [(light + 0.05) / (dark + 0.05), e.textContent.trim().slice(0, 40)];
  }).sort((x, y) => x[0] - y[0])[0];
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The pages of the reference records, and of Cars3D with another protocol and several rows."""
    path = tmp_path_factory.mktemp("report")
    values = {
        "vae": [0.3, 0.34],
        "betavae": [0.2, 0.25],
        "betatcvae": [0.36, 0.35],
        "mlvae": [0.1],
        "oracle": [0.9],
    }
    protocol = made("vae")["config"]["protocol"] | {"name": "quick+steps=9000", "steps": 9000}
    records = [
        made(
            model, seed, {"mig": value, "sap": 0.5 - value, "irs": value}, dataset="cars3d", protocol=protocol
        )
        for model, seeds in values.items()
        for seed, value in enumerate(seeds)
    ]
    files = {"reconstructions.png": picture("RGB", (700, 160)), "traversals.gif": picture("L", (700, 140), 3)}
    records[-2] = with_files(path / "results", records[-2], files)
    written(path / "results", *records)
    with (path / "results" / "records.jsonl").open("ab") as file:
        file.write(REFERENCE.read_bytes())
    write_report(path / "results", path / "report")
    return path / "report"


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as program:
        # A process of root has no sandbox, such as in a container.
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        shown = program.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield shown
        shown.close()


@pytest.fixture
def opened(browser, folder):
    """A function that opens a page. Nothing may be said on the console, nor asked of a network."""
    said, pages = [], []

    def open_page(name: str, width: int = 1400, **options):
        page = browser.new_page(viewport={"width": width, "height": 900}, **options)
        pages.append(page)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url) if request.url[:4] == "http" else None)
        page.goto(f"file://{folder / name}")
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not said


def column(page, table: str, number: int) -> list[str]:
    """The texts of a column of a table's ranked rows that are shown."""
    return page.eval_on_selector_all(
        f"{table} .ranked tr:not([hidden])",
        f"rows => rows.map(row => row.cells[{number}].innerText.split('\\n')[0].trim())",
    )


def test_pages_fit_every_width(opened, folder):
    for path in sorted(folder.iterdir()):
        page = opened(path.name, WIDTHS[0])
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            shown, wide = page.evaluate("[innerWidth, document.documentElement.scrollWidth]")
            assert wide <= shown == width, f"{path.name} is {wide} wide at {width}"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(opened, folder, scheme):
    for path in sorted(folder.iterdir()):
        contrast, text = opened(path.name, color_scheme=scheme).eval_on_selector_all(
            "main *, footer *", CONTRAST
        )
        assert contrast >= 4.5, f"{path.name}, {scheme}: {text}"


def test_columns_sort_and_reference_points_stay(opened):
    page = opened("leaderboard.html")
    board = "#data-cars3d .board"
    page.click("#tab-data-cars3d")
    names = page.eval_on_selector_all(
        f"{board} thead th:not(.other) button", "all => all.map(b => b.innerText)"
    )
    mig, sap = names.index("MIG"), names.index("SAP")
    first = column(page, board, mig)
    assert first == sorted(first, reverse=True) and len(first) == 4
    page.click(f"{board} thead button >> text=SAP")
    assert column(page, board, sap) == sorted(column(page, board, sap), reverse=True)
    assert page.get_attribute(f"{board} th:has(button:text-is('SAP'))", "aria-sort") == "descending"
    page.click(f"{board} thead button >> text=SAP")
    assert column(page, board, sap) == sorted(column(page, board, sap))
    page.click(f"{board} thead button >> text=Model")
    names = page.eval_on_selector_all(f"{board} .ranked th.model a", "all => all.map(a => a.innerText)")
    assert names == ["ML-VAE", "VAE", "β-TCVAE", "β-VAE"]
    places = page.eval_on_selector_all(f"{board} .place", "all => all.map(p => p.innerText)")
    assert places == ["1", "2", "3", "4"]
    assert page.inner_text(f"{board} tbody:last-child th.model a") == "Oracle"


def test_rows_are_found_by_words_and_choices(opened):
    page = opened("leaderboard.html")
    page.click("#tab-data-shapes3d")
    page.fill("#search", "ml-vae groups")
    assert page.locator(".tab:not([hidden]) tr[data-search]:not([hidden])").count() == 1
    assert page.inner_text("#tab-data-shapes3d small") == "1"
    page.fill("#search", "no such model")
    assert page.is_visible("#nothing")
    page.fill("#search", "")
    page.select_option("[data-choice=supervision]", "no labels")
    shown = page.locator(".tab:not([hidden]) tr[data-search]:not([hidden])")
    assert {row.get_attribute("data-supervision") for row in shown.all()} == {"no labels"}
    page.select_option("[data-choice=supervision]", "")
    page.select_option("[data-choice=protocol]", "quick+steps=9000")
    assert page.inner_text("#tab-data-shapes3d small") == "0"
    assert page.inner_text("#tab-data-cars3d small") == "5"


def test_tabs_other_scores_and_tooltips(opened):
    page = opened("leaderboard.html")
    page.focus("[role=tab][aria-selected=true]")
    before = page.inner_text("[role=tab][aria-selected=true]")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("[role=tab][aria-selected=true]") != before
    assert page.locator(".tab:visible").count() == 1
    page.click("#tab-data-cars3d")
    assert not page.is_visible("#data-cars3d thead button >> text=IRS")
    page.click("#others")
    assert page.is_visible("#data-cars3d thead button >> text=IRS")
    page.hover("#data-cars3d thead button >> text=MIG")
    assert "Chen et al. 2018" in page.inner_text("#tip")
    page.keyboard.press("Escape")
    assert page.is_hidden("#tip")
    page.hover("#data-cars3d td.best")
    assert "95 % interval" in page.inner_text("#tip")


def test_everything_is_there_without_script(opened):
    page = opened("leaderboard.html", java_script_enabled=False)
    assert page.locator(".tab:visible").count() == 2
    assert page.locator("#data-cars3d thead button >> text=IRS").is_visible()
    assert page.locator("#search").is_hidden()
    figures = opened("figures.html", java_script_enabled=False)
    assert figures.locator("svg.chart.wide").first.is_visible()
    assert figures.locator("svg.chart.narrow").first.is_hidden()


def test_a_figure_is_saved_as_svg_and_csv(opened):
    page = opened("figures.html")
    with page.expect_download() as download:
        page.click("button[data-svg] >> nth=0")
    text = Path(download.value.path()).read_text()
    assert text.startswith("<svg") and "--s1:#0072b2" in text.replace(" ", "") and "</svg>" in text
    with page.expect_download() as download:
        page.click("a[download$='.csv'] >> nth=0")
    assert len(Path(download.value.path()).read_text().splitlines()) > 2


def test_one_comes_from_the_leaderboard_to_a_model_and_back(opened):
    page = opened("leaderboard.html", 400)
    page.click("#tab-data-shapes3d")
    page.click("#data-shapes3d th.model a >> text=ML-VAE")
    assert page.inner_text("h1") == "ML-VAE"
    page.click(".crumbs a")
    assert page.inner_text("h1") == "Leaderboard"


@pytest.mark.parametrize("script", [True, False])
@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_what_moves_can_be_stopped(opened, motion, script):
    page = opened("model-mlvae.html", reduced_motion=motion, java_script_enabled=script)
    still, moving = page.locator(".moving .still"), page.locator(".moving .still + img")
    assert (still.is_visible(), moving.is_visible()) == (motion == "reduce", motion != "reduce")
    button = page.locator(".moving button")
    if not script:
        assert button.is_hidden()
        return
    assert button.inner_text() == ("Play" if motion == "reduce" else "Pause")
    button.click()
    assert (still.is_visible(), moving.is_visible()) == (motion != "reduce", motion == "reduce")
