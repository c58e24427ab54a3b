"""The report in a real browser: it loads nothing, logs no error, and works by mouse and by keyboard."""

import math
import os
import shutil

import pytest

from orca_sweep import results as r
from orca_sweep.analysis import table_effects
from orca_sweep.analysis.report import Asked, compute, draw, make_page, page
from orca_sweep.analysis.writing import MINUS, NOTHING
from tests.builders.answers import TASKS, suite
from tests.builders.reports import (
    HOSTILE,
    TRACEBACK,
    big_results,
    cell_rows_with_curves,
    history,
    hostile_sweep,
    made_page,
    sweep_folder,
)
from tests.builders.reports import with_curve as with_epochs
from tests.builders.tables import BASE, BETTER, MNIST, NONE, cell_rows, trial

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run", "--disable-quic",
)  # fmt: skip
DUMMY = {"proxy": "dummy"}


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium that is installed here; where the tests must run, not to have one is a failure."""
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no Chromium here: install the package chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        launched = play.chromium.launch(executable_path=executable, args=list(QUIET))
        yield launched
        launched.close()


@pytest.fixture
def opened(browser, tmp_path):
    """Opens a page from a file, and afterwards checks that it asked for nothing and complained of nothing."""
    contexts, complaints, requests = [], [], []

    def open_(text, width=1280, height=900, **more):
        path = tmp_path / "page of a sweep.html"
        path.write_text(text, encoding="utf-8")
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, **more))
        shown = contexts[-1].new_page()
        shown.on("console", lambda message: complaints.append(message.text))
        shown.on("pageerror", lambda error: complaints.append(str(error)))
        shown.on("request", lambda request: requests.append(request.url))
        shown.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        shown.goto(path.as_uri())
        allowed.add(path.as_uri())
        return shown

    allowed = set()
    yield open_
    for context in contexts:
        context.close()
    assert complaints == []
    assert {url.split("#")[0] for url in requests if not url.startswith(("data:", "blob:"))} <= allowed


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two tasks, a cell that helps, one that does nothing, one with a failure and a run that diverged."""
    folder = tmp_path_factory.mktemp("sweep")
    more = [0.31, 0.35, 0.32, 0.36, None]
    parts = [
        cell_rows_with_curves({"task": "a", **of}, values)
        for of, values in ((NONE, BASE), (MNIST, BETTER), (DUMMY, more))
    ]
    other = [cell_rows_with_curves({"task": "b", **of}, values[:2]) for of, values in ((NONE, BASE), (MNIST, BETTER))]
    lost = trial({"task": "b", **MNIST}, 2, status="diverged", error="loss is nan")
    parts += [*other, [with_epochs(lost, history([0.9, 0.8, 0.7]))]]
    return sweep_folder(folder, *parts, factors=("task", "proxy"), errors={14: TRACEBACK})


@pytest.fixture(scope="module")
def text(results):
    """The page of these results, with figures."""
    report = compute(results)
    return page(report, draw(results, report.effects))


def column(shown, name):
    """The texts of a column of the effects table, as they stand now."""
    heads = [text.split("\u00a0")[0] for text in shown.locator("#effects-table thead th").all_inner_texts()]
    position = heads.index(name)
    rows = shown.locator("#effects-table tbody tr:visible")
    return [rows.nth(i).locator("th, td").nth(position).inner_text() for i in range(rows.count())]


def overflow(shown):
    return shown.evaluate("document.documentElement.scrollWidth - window.innerWidth")


CONTRASTS = """() => {
  const parts = (text) => text.match(/[\\d.]+/g).map(Number);
  const groundOf = (e) => {
    for (; e; e = e.parentElement) {
      const ground = parts(getComputedStyle(e).backgroundColor);
      if (ground.length < 4 || ground[3] > 0) return ground.slice(0, 3);
    }
  };
  const hasText = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  const texts = [...document.querySelectorAll('#answer *')].filter(hasText);
  return texts.filter((e) => !e.closest('svg')).map((e) => [parts(getComputedStyle(e).color).slice(0, 3), groundOf(e)]);
}"""
"""The colours of each text of the answer and of what is behind it."""


def measure_contrast(pair):
    """The contrast of two colours as WCAG defines it."""

    def luminance(colour):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in colour)]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted(map(luminance, pair))
    return (high + 0.05) / (low + 0.05)


# Tables -------------------------------------------------------------------------------------------


def test_columns_are_sorted_by_mouse_and_by_keyboard(opened, text):
    shown = opened(text)
    before = column(shown, "difference")
    assert len(before) == 3
    head = shown.locator("#effects-table th", has_text="difference")
    assert head.get_attribute("aria-sort") == "none"
    shown.get_by_role("button", name="difference").click()
    assert head.get_attribute("aria-sort") == "ascending"
    numbers = [value for value in column(shown, "difference") if value != NOTHING]
    assert numbers == sorted(numbers, key=lambda value: float(value.replace(MINUS, "-")))
    assert column(shown, "difference")[-1] == NOTHING  # what is not known is last, either way
    shown.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert [value for value in column(shown, "difference") if value != NOTHING] == numbers[::-1]
    assert column(shown, "difference")[-1] == NOTHING
    shown.keyboard.press("Tab")
    shown.keyboard.press("Space")
    assert shown.locator("#effects-table th[aria-sort=ascending]").inner_text().startswith("95% interval")
    assert head.get_attribute("aria-sort") == "none"


def test_effects_are_filtered_by_text_task_and_verdict(opened, text):
    shown = opened(text)
    count = shown.locator("#effects-count")
    assert count.inner_text() == "3 of 3 comparisons shown"
    shown.get_by_label("Task", exact=True).select_option("a")
    assert count.inner_text() == "2 of 3 comparisons shown"
    shown.get_by_label("Verdict", exact=True).select_option("helps")
    assert (count.inner_text(), column(shown, "proxy")) == ("1 of 3 comparisons shown", ["mnist5k"])
    shown.get_by_label("Find").focus()
    shown.keyboard.type("DUMMY")
    assert count.inner_text() == "0 of 3 comparisons shown"
    shown.get_by_role("button", name="Clear").press("Enter")
    shown.wait_for_function("() => document.getElementById('effects-count').textContent.startsWith('3 of 3')")
    shown.get_by_label("Find").fill("dumm")
    assert column(shown, "proxy") == ["dummy"]


def test_arrow_keys_walk_through_the_matrix_which_is_one_stop(opened, text):
    shown = opened(text)
    matrix = shown.locator(".matrix").first
    assert matrix.locator("a.sq[tabindex='0']").count() == 1
    matrix.locator("a.sq").first.focus()
    shown.keyboard.press("ArrowDown")
    shown.keyboard.press("ArrowDown")
    for _ in range(4):
        shown.keyboard.press("ArrowRight")
    assert shown.evaluate("document.activeElement.getAttribute('aria-label')") == "failed, seed 4"
    shown.keyboard.press("ArrowRight")  # there is nothing further
    assert matrix.locator("a.sq[tabindex='0']").get_attribute("aria-label") == "failed, seed 4"
    shown.keyboard.press("Enter")
    assert "failed" in shown.locator("#trial").inner_text()


# Curves -------------------------------------------------------------------------------------------


def test_a_curve_appears_by_pointing_by_focus_and_stays_when_kept(opened, text):
    shown = opened(text)
    chart, rows = shown.locator("#chart"), shown.locator(".cells tbody tr")
    assert chart.inner_text() == ""
    rows.nth(1).hover()
    assert chart.locator("path.mean").count() == 2  # the base beside it
    prose = " ".join(chart.inner_text().split())
    assert "proxy mnist5k: mean of n = 5 seeds." in prose
    assert "proxy none (base): mean of n = 5 seeds." in prose
    assert "95% Student-t interval of the mean over seeds at equal epoch" in prose
    assert chart.locator("path.band").count() == 2
    shown.get_by_role("button", name="Keep the curve of proxy mnist5k").first.click()
    rows.nth(2).locator("button").focus()
    assert "proxy dummy: mean of n = 4 seeds; 1 not ok, dotted and in no mean: failed after epoch 1." in " ".join(
        chart.inner_text().split()
    )
    assert "proxy mnist5k" in chart.inner_text()
    assert "(base)" not in chart.inner_text()
    shown.keyboard.press("Space")
    assert rows.nth(2).locator("button").get_attribute("aria-pressed") == "true"


def test_few_seeds_are_thin_lines_and_who_ended_early_is_told(opened, text):
    shown = opened(text)
    shown.locator(".cells").nth(1).locator("tbody tr").nth(1).hover()
    chart = shown.locator("#chart")
    prose = " ".join(chart.inner_text().split())
    assert "b, fine-tuning" in prose
    assert "mean of n = 2 seeds, too few for a band: thin lines are the seeds" in prose
    assert "1 not ok, dotted and in no mean: diverged after epoch 3." in prose
    assert chart.locator("path.band").count() == 0
    assert chart.locator("path.thin").count() == 4
    assert chart.locator("path.early").count() == chart.locator("path.end").count() == 1
    shown.get_by_role("button", name="embedder training").click()
    assert "embedder epoch" in chart.inner_html()


def test_the_mean_and_the_band_are_those_of_the_tables(opened, results, text):
    shown = opened(text)
    shown.locator(".cells tbody tr").first.hover()
    points = shown.evaluate("seriesOf(cellData().cells[0], 'finetune', 0).mean")
    from orca_sweep.stats import t_interval

    for point in points:
        want = t_interval([value + 1 / point["x"] for value in BASE])
        assert point["n"] == 5
        assert [point["y"], point["low"], point["high"]] == pytest.approx([want.mean, want.low, want.high], rel=1e-4)


def test_the_page_computes_bounded_bands_as_the_tables_do(opened, results, text):
    from orca_sweep.stats import Bounds, t_interval

    shown = opened(text)
    for low, high in ((0, 1), (0, None), (None, 1), (None, None)):
        for values in ([0.0, 0.0, 0.01], [0.3, 0.5, 0.4], [0.999, 1.0, 1.0], [0.2, 0.2, 0.2]):
            bounds = Bounds(low=-math.inf if low is None else low, high=math.inf if high is None else high)
            want, half = t_interval(values, bounds=bounds), t_interval(values).half_width
            ends = shown.evaluate("([y, half, bounds]) => endsOf(y, half, bounds)", [want.mean, half, [low, high]])
            assert ends == pytest.approx([want.low, want.high], rel=1e-6, abs=1e-12)


# Trials -------------------------------------------------------------------------------------------


def test_a_trial_has_a_page_and_back_leads_to_where_one_was(opened, results, text):
    shown = opened(text)
    square = shown.locator(".matrix a.sq.failed")
    square.scroll_into_view_if_needed()
    shown.evaluate("window.scrollBy(0, 120)")
    at = shown.evaluate("window.scrollY")
    square.click()
    prose = shown.locator("#trial").inner_text()
    assert not shown.locator("#report").is_visible()
    assert shown.evaluate("document.activeElement.id") == "trial-title"
    assert TRACEBACK in shown.locator("#trial pre.traceback").inner_text()
    for words in ("failed", "stopped by an error", "proxy (factor)", "wall_time_s", "validation error"):
        assert words in prose, words
    assert shown.locator("#trial tr.factor th").all_inner_texts() == ["task (factor)", "proxy (factor)"]
    assert shown.locator("#trial svg path.early").count() == 2
    assert shown.locator("#trial svg path.end").count() == 1  # the embedder was trained to its end
    assert "3 epochs of this trial only, failed in fine-tuning." in " ".join(prose.split())
    shown.get_by_role("link", name="seed 0: ok").click()
    assert "completed" in shown.locator("#trial").inner_text()
    assert shown.locator("#trial svg path.mean").count() == 2
    shown.go_back()
    assert "stopped by an error" in shown.locator("#trial").inner_text()
    shown.go_back()
    assert shown.locator("#report").is_visible()
    assert not shown.locator("#trial").is_visible()
    assert shown.evaluate("window.scrollY") == pytest.approx(at, abs=2)
    shown.go_forward()
    shown.get_by_role("link", name="Back to the report").click()
    assert shown.locator("#report").is_visible()
    shown.evaluate("location.hash = '#trial/nobody%'")
    assert "There is no trial nobody% in these tables." in shown.locator("#trial").inner_text()
    shown.evaluate("location.hash = '#methods'")
    assert shown.locator("#methods-title").is_visible()


def test_an_address_with_a_trial_opens_its_page(opened, results, text):
    shown = opened(text)
    first = results.trials["trial_id"][0]
    shown.evaluate(f"location.hash = '#trial/{first}'")
    shown.reload()
    assert first in shown.locator("#trial-title").inner_text()


def test_what_a_hostile_table_brings_is_shown_and_never_run(opened, tmp_path):
    hostile = hostile_sweep(tmp_path / "s")
    shown = opened(made_page(hostile, None))
    assert HOSTILE in shown.locator("#completeness").inner_text()
    shown.locator(".cells tbody tr").first.hover()
    assert HOSTILE in shown.locator("#chart").inner_text()
    for trial_id in hostile.trials["trial_id"]:
        shown.evaluate("name => { location.hash = '#trial/' + name; }", trial_id)
        shown.wait_for_function("name => document.getElementById('trial').textContent.includes(name)", arg=trial_id)
        assert HOSTILE in shown.locator("#trial").inner_text()
    assert TRACEBACK in shown.locator("#trial").inner_text()
    assert shown.locator("img").count() == 0


def test_names_that_every_object_has_are_only_names(opened, tmp_path):
    levels = [{"task": "constructor", "proxy": name} for name in ("toString", "__proto__")]
    parts = [cell_rows_with_curves(of, [0.1, 0.2]) for of in levels]
    odd = trial(levels[0], 7, status="constructor")
    shown = opened(made_page(sweep_folder(tmp_path / "s", *parts, [odd], factors=("task", "proxy"))))
    shown.locator(".cells tbody tr").nth(1).hover()
    assert "proxy __proto__" in shown.locator("#chart").inner_text()
    shown.locator("a.sq.unknown").click()
    assert "a status unknown to this version" in shown.locator("#trial").inner_text()


# Look ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_no_page_is_wider_than_its_window(opened, text, width):
    shown = opened(text, width=width, height=740)
    assert overflow(shown) == 0
    shown.locator(".cells .pin").first.click()
    assert overflow(shown) == 0
    assert shown.locator("#chart svg").first.bounding_box()["width"] <= width
    shown.evaluate("location.hash = document.querySelector('a.sq.failed').getAttribute('href')")
    assert shown.locator("#trial-title").is_visible()
    assert overflow(shown) == 0


SIZES = """[...document.querySelectorAll('#answer *')]
  .filter(e => e.getClientRects().length && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
  .map(e => parseFloat(getComputedStyle(e).fontSize))"""
"""Of all texts of the answer, in pixels."""


@pytest.fixture(scope="module")
def answered():
    """The page of a suite of six tasks, one with a long name, that begins with the answer."""
    tasks = {name: truths for name, truths in TASKS.items() if name != "vowels"}
    tasks["a-task-with-a-long-name-such-as-that-of-a-file"] = TASKS["vowels"]
    return make_page(suite(tasks), Asked(figures=[]))


def test_the_answer_is_on_one_screen_on_a_desk(opened, answered):
    shown = opened(answered)
    table = shown.locator("table.answer").bounding_box()
    assert table["y"] + table["height"] < 900
    assert overflow(shown) == 0
    assert min(shown.evaluate(SIZES)) >= 12
    shown.locator("table.answer tbody tr").nth(1).get_by_role("link", name="supports, digits, claim 3").click()
    # The details of a claim are folded until somebody wants them.
    assert shown.locator("#claims-3").is_visible()
    assert shown.evaluate("document.getElementById('claims-3').getBoundingClientRect().top") < 200


def test_the_answer_on_a_phone_is_a_list_that_needs_no_scrolling_sideways(opened, answered):
    shown = opened(answered, width=390, height=844)
    assert overflow(shown) == 0
    wider = (
        "[...document.querySelectorAll('#answer td, #answer th, #answer td *')].filter(e => e.scrollWidth > 390).length"
    )
    assert shown.evaluate(wider) == 0
    square = shown.locator("table.answer tbody tr").nth(1).locator("td").nth(2)
    assert square.locator(".of").inner_text() == "3. Proxy does not matter (2D)"
    assert "supports" in square.inner_text() and "n = 5" in square.inner_text()
    assert not shown.locator("table.answer thead th").first.is_visible() or (
        shown.locator("table.answer thead").bounding_box()["width"] <= 1
    )


def test_the_answer_is_printed_on_one_page_and_its_words_can_be_read(opened, answered):
    shown = opened(answered, width=1032, height=703)  # A4, landscape, without margins
    shown.emulate_media(media="print")
    box = shown.locator("table.answer").bounding_box()
    assert box["y"] + box["height"] < 703
    assert shown.evaluate("getComputedStyle(document.querySelector('#answer')).breakAfter") == "page"
    for scheme in ("light", "dark"):
        shown.emulate_media(media="screen", color_scheme=scheme)
        pairs = shown.evaluate(CONTRASTS)
        assert len(pairs) > 100
        assert min(map(measure_contrast, pairs)) >= 4.5


def test_a_curve_is_in_sight_on_a_phone(opened, text):
    shown = opened(text, width=360, height=740)
    shown.locator(".cells .pin").nth(1).click()
    box = shown.locator("#chart svg").first.bounding_box()
    assert 0 <= box["y"] < 740


def test_dark_and_light_follow_the_system_and_the_reader(opened, text):
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = opened(text, color_scheme="dark")
    assert dark.evaluate(ground) == "rgb(19, 23, 27)"
    light = opened(text, color_scheme="light")
    assert light.evaluate(ground) == "rgb(255, 255, 255)"
    button = light.get_by_role("button", name="Colours: system")
    button.press("Enter")
    light.get_by_role("button", name="Colours: light").click()
    assert light.evaluate(ground) == "rgb(19, 23, 27)"
    light.reload()
    assert light.evaluate(ground) == "rgb(19, 23, 27)"
    assert (
        light.evaluate("getComputedStyle(document.querySelector('.card .scroll')).backgroundColor")
        == "rgb(255, 255, 255)"
    )


def test_on_paper_everything_is_unfolded_and_nothing_waits_for_a_click(opened, tmp_path):
    cells = [cell_rows({"proxy": f"p{i:02}"}, [0.1 + i / 100, 0.2, 0.3 - i / 50]) for i in range(15)]
    text = made_page(sweep_folder(tmp_path / "s", *cells))
    shown = opened(text, color_scheme="dark")
    sentence = shown.locator(".verdicts .sentence").last
    assert not sentence.is_visible()
    shown.emulate_media(media="print", color_scheme="dark")
    shown.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert sentence.is_visible()
    assert shown.evaluate("getComputedStyle(document.body).color") == "rgb(28, 33, 38)"
    for selector in ("nav", "button.pin", ".filters", "#theme", "#downloads"):
        assert not shown.locator(selector).first.is_visible(), selector
    assert shown.locator("#effects-table th").first.inner_text().startswith("proxy")
    boxes = shown.evaluate("[...document.querySelectorAll('.scroll')].map(box => getComputedStyle(box).overflowX)")
    assert set(boxes) == {"visible"}
    assert shown.pdf(prefer_css_page_size=True).startswith(b"%PDF")
    shown.emulate_media(media="screen")
    shown.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert not sentence.is_visible()


def test_without_scripts_all_tables_can_be_read(opened, text):
    shown = opened(text, java_script_enabled=False)
    assert shown.locator("#effects-table tbody tr:visible").count() == 3
    assert not shown.locator(".filters").is_visible()
    assert not shown.locator(".pin").first.is_visible()
    assert "Without JavaScript" in shown.locator("header").inner_text()


def test_the_keyboard_skips_to_the_report_and_focus_is_seen(opened, text):
    shown = opened(text)
    shown.keyboard.press("Tab")
    assert shown.evaluate("document.activeElement.textContent") == "Skip to the report"
    assert shown.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    shown.keyboard.press("Enter")
    assert shown.evaluate("document.activeElement.id") == "main"
    names = shown.evaluate(
        "[...document.querySelectorAll('a[href], button, input, select')]"
        ".filter(e => !(e.textContent.trim() || e.getAttribute('aria-label') || (e.labels && e.labels.length))).length"
    )
    assert names == 0
    scopes = shown.evaluate("[...document.querySelectorAll('#report th')].filter(e => !e.hasAttribute('scope')).length")
    assert scopes == 0


# Files --------------------------------------------------------------------------------------------


def test_downloads_are_the_tables_and_the_methods_are_copied(opened, results, text):
    shown = opened(text, permissions=["clipboard-read", "clipboard-write"])
    effects = table_effects.compute(results)
    for name, content in (("effects.csv", table_effects.numbers(effects)), ("effects.tex", None)):
        with shown.expect_download() as download:
            shown.get_by_role("button", name=name).click()
        assert download.value.suggested_filename == name
        downloaded = download.value.path().read_text(encoding="utf-8")
        assert downloaded == content if content else r"\toprule" in downloaded
    shown.get_by_role("button", name="Copy methods").click()
    shown.get_by_text("Copied.").wait_for()
    assert shown.evaluate("navigator.clipboard.readText()").split() == " ".join(compute(results).methods).split()


def test_2000_trials_open(opened):
    shown = opened(made_page(big_results()))
    assert shown.locator("a.sq").count() == 2000
    for section in ("results", "completeness"):  # folded by task, since they are many
        shown.locator(f"#{section} summary").first.click()
    shown.locator(".cells tbody tr").nth(3).hover()
    assert "n = " in shown.locator("#chart").inner_text()
    shown.locator("a.sq.failed").first.click()
    assert "RuntimeError: no" in shown.locator("#trial").inner_text()


def test_a_running_sweep_opens(opened, tmp_path):
    later = [trial(levels, seed, status="unfinished") for levels in (NONE, MNIST) for seed in range(2, 8)]
    sweep_folder(
        tmp_path / "s", cell_rows_with_curves(NONE, [0.1, 0.2]), cell_rows_with_curves(MNIST, [0.3, None]), later
    )
    shown = opened(made_page(r.read_results(tmp_path / "s" / "tables"), None))
    shown.locator("a.sq.unfinished").first.click()
    assert "has not run to its end yet" in shown.locator("#trial").inner_text()
