"""The report in a real browser: drawn, silent, without a network, and harmless whatever the names are."""

import json
import os
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from playwright.sync_api import sync_playwright

from reports.formatting import finalists, int8_finalists
from reports.html import page
from reports.run_report import write
from tests.reports.conftest import EVIL, KINDS, usual

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class Tags(HTMLParser):
    """Every tag with its attributes, and the text of each script."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.tags[-1:] and self.tags[-1][0] == "script" and data.strip():
            self.scripts.append(data)


def test_nothing_is_fetched_and_the_data_are_whole(result):
    text = page(result)
    parsed = Tags(text)
    links = [a[k] for _, a in parsed.tags for k in ("src", "href", "srcset", "action") if k in a]
    assert links == ["data:,"]
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])
    assert [t["trial"] for t in data["trials"]] == [m.trial for m in result.measurements]
    assert [tag for tag, _ in parsed.tags].count("script") == 3
    assert all("<caption>" in table for table in text.split("<table")[1:])


def test_names_are_text_everywhere(tmp_path):
    text = page(KINDS["evil"](tmp_path))
    assert "<script>document" not in text and "<b>&#34;" not in text
    assert "&lt;/script&gt;" in text and "{{ 7*7 }}" in text
    assert EVIL in json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])["trials"][0]["variant"]


def test_the_page_tells_what_int8_took(tmp_path):
    """Every rung of every int8 finalist, with what it lost; nothing where none is int8."""
    result = usual(tmp_path)
    told = int8_finalists(result)
    assert told and told[0] is result.choice and all(m.candidate.precision == "int8" for m in told)
    text = page(result)
    tables = re.findall(r'<table class="took">(.*?)</table>', text, re.S)
    assert len(tables) == len(told)
    rows = re.findall(r"<tr><th scope=\"row\">(.*?)</tr>", tables[0], re.S)
    cells = [re.sub(r"<[^>]+>", "|", row).replace("|", " ").split() for row in rows]
    assert all(" ".join(row).startswith(rung.name) for row, rung in zip(cells, told[0].accuracy.rungs, strict=True))
    last = " ".join(cells[-1])
    assert last.startswith("2 layers in floating point") and "-0.4 points 2 94 % 4.0 s kept" in last
    none = replace(result, choice=None, front=tuple(m for m in result.front if m.candidate.precision != "int8"))
    assert "Methods that int8 needed" in text and "Methods that int8 needed" not in page(none)


def test_the_page_says_what_the_device_really_runs(tmp_path):
    result = usual(tmp_path)
    assert result.choice.coverage is not None, "the choice of this run is in int8"
    text = page(result)
    line = "int8 is slower than fp32 here, taking 1.13 times as long: 40 of 60 layers ran in int8"
    assert f"{result.choice.candidate.describe()}: {line}" in text.replace("&#39;", "'")
    table = text[text.index('<table id="runs">') : text.index("</table>", text.index('<table id="runs">'))]
    assert table.count("<tr>") == 1 + len(finalists(result)) and "40 of 60" in table and "19.0 %" in table
    apart = [m for m in finalists(result) if m.agreement.disagrees]
    assert table.count('class="n bad"') == len(apart) > 0


def test_the_page_says_what_it_rests_on(tmp_path):
    text = page(KINDS["usual"](tmp_path))
    rests_on = ("onnxruntime 1.31.1", "search saw training and validation images only", "tpe", "Exit code 0")
    for fact in (*rests_on, "6 of 13 candidates over the budget were stopped before", "2 broken images left out"):
        assert fact in text
    assert 'role="alert"' not in text
    noisy = page(KINDS["disturbed"](tmp_path))
    assert noisy.count('role="alert"') == 2 and "Disturbed: 36 of 36" in noisy and "Simulated device" in noisy
    none = page(KINDS["no fit"](tmp_path))
    assert "Nothing measured keeps the budget" in none and "precision fp32 → int8 took 0.55" in none


@pytest.fixture(scope="module")
def browser():
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        message = f"no browser to look at the report with: none of {', '.join(BROWSERS)} is on the path"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def look(browser):
    """Opens a run's report from its file; at the end it must have been silent and asked no network."""
    heard, asked, pages = [], [], []

    def opened(result, **context):
        write(result, result.folder)
        sheet = browser.new_page(**({"viewport": {"width": 1200, "height": 900}} | context))
        pages.append(sheet)
        sheet.on("console", lambda message: heard.append(message.text))
        sheet.on("pageerror", lambda error: heard.append(str(error)))
        sheet.on("request", lambda request: asked.append(request.url))
        sheet.goto((result.folder / "report.html").as_uri())
        sheet.wait_for_selector("#plot .main-svg")
        return sheet

    yield opened
    for sheet in pages:
        sheet.close()
    assert heard == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


@pytest.mark.parametrize("kind", ["usual", "no fit", "evil", "failed", "empty", "no baseline"])
def test_every_kind_of_run_is_drawn(look, kind, tmp_path):
    result = KINDS[kind](tmp_path / "run")
    sheet = look(result)
    timed = [m for m in result.measurements if m.latency]
    scored = [m for m in timed if m.accuracy]
    named = [m for m in {result.choice, result.baseline} - {None} if m in scored]
    points = sheet.locator("#plot .scatterlayer .point").count()
    assert points == len(timed) + len(named)
    assert sheet.title().endswith("edgefront"), "no script of the names has run"
    words = sheet.locator("#plot").text_content()
    assert ("chosen" in words) == (result.choice is not None)
    assert "budget" in words
    assert sheet.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_hovering_shows_the_facts(look, tmp_path):
    result = KINDS["usual"](tmp_path / "run")
    sheet = look(result)
    star = sheet.locator("#plot .subplot.xy .trace").last.locator(".point")
    box = star.bounding_box()
    sheet.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    sheet.wait_for_selector("#plot .hoverlayer .hovertext")
    shown = sheet.locator("#plot .hoverlayer").inner_html()
    assert result.choice.candidate.describe() in shown
    assert "p95 3.42 ms [3.32, 3.52]" in shown and "test 95.0 ± 1.0 %" in shown and "134 MB" in shown


def test_clicking_a_point_finds_its_row(look, tmp_path):
    result = KINDS["usual"](tmp_path / "run")
    sheet = look(result)
    box = sheet.locator("#plot .subplot.xy .trace").last.locator(".point").bounding_box()
    sheet.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    sheet.wait_for_selector("tr.found")
    assert sheet.locator("tr.found").get_attribute("id") == f"trial-{result.choice.trial}"


def test_colours_and_axes_follow_the_controls(look, tmp_path):
    result = KINDS["memory"](tmp_path / "run")
    sheet = look(result)
    for colour, shown in (("precision", "int8"), ("image_px", "64 px"), ("family", "resnet"), ("prune", "pruned 0.3")):
        sheet.select_option("#colour", colour)
        assert shown in sheet.locator("#plot .legend").text_content()
    sheet.select_option("#colour", "peak_mb")
    sheet.wait_for_selector("#plot .colorbar")
    sheet.select_option("#across", "peak_mb")
    assert "peak memory, MB" in sheet.locator("#plot").text_content()
    assert "budget 110 MB" in sheet.locator("#plot").text_content()
    sheet.set_checked("#logarithmic", False)
    assert sheet.evaluate("document.getElementById('plot').layout.xaxis.type") == "linear"


def test_the_table_sorts_and_filters(look, tmp_path):
    result = KINDS["usual"](tmp_path / "run")
    sheet = look(result)
    head = sheet.locator("#trials thead th", has_text="p95 ms")
    for order in ("ascending", "descending"):
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == order
        cells = sheet.locator("#trials tbody tr td:nth-child(5)").evaluate_all("c => c.map(x => x.dataset.v)")
        known = [float(cell) for cell in cells if cell]
        assert known == sorted(known, reverse=order == "descending") and len(known) == 36
        assert cells[36:] == [""] * 4, "what was not measured stays last"
    sheet.select_option("#outcome", "failed")
    assert sheet.locator("#trials tbody tr:visible").count() == 4
    assert sheet.locator("#shown").inner_text() == "4 of 40"
    sheet.select_option("#outcome", "")
    sheet.fill("#find", "resnet18 int8")
    wanted = [m for m in result.measurements if {"resnet18", "int8"} <= set(m.candidate.describe().split())]
    assert sheet.locator("#trials tbody tr:visible").count() >= len(wanted) > 0
    sheet.fill("#find", "")
    sheet.check("#within")
    keep = [m for m in result.measurements if m.latency and result.budget.keeps(m.latency)]
    assert sheet.locator("#trials tbody tr:visible").count() == len(keep)


def test_dark_phone_and_paper(look, tmp_path):
    result = KINDS["usual"](tmp_path / "run")
    dark = look(result, color_scheme="dark")
    dark.screenshot(path=tmp_path / "dark.png", full_page=True)
    assert _lightness(dark, "body", "backgroundColor") < 60 < 180 < _lightness(dark, "body", "color")
    assert _lightness(dark, "#plot .xtick text", "fill") > 180
    phone = look(result, viewport={"width": 390, "height": 800}, has_touch=True)
    phone.screenshot(path=tmp_path / "phone.png", full_page=True)
    assert phone.evaluate("document.documentElement.scrollWidth") == 390
    assert phone.locator("#plot .nsewdrag").first.bounding_box()["width"] > 240
    dark.emulate_media(media="print", color_scheme="dark")
    dark.pdf(path=tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").stat().st_size > 20_000
    assert _lightness(dark, "body", "backgroundColor") > 240 and not dark.locator("#find").is_visible()


def _lightness(sheet, selector: str, what: str) -> float:
    colour = sheet.locator(selector).first.evaluate(f"e => getComputedStyle(e).{what}")
    channels = [float(part) for part in re.findall(r"[\d.]+", colour)[:3]]
    return sum(channels) / 3
