"""The answer: squares of known truths, signs, reasons once, the picture's marks, and the first screen of the report."""

import csv
import io
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from orca_sweep.analysis import answer as answers
from orca_sweep.analysis import claims
from orca_sweep.analysis.answer_figure import MARKS as SHAPES
from orca_sweep.analysis.answer_record import choose_leading, lay_out_claims
from orca_sweep.analysis.figure_style import read_style
from orca_sweep.analysis.report import compute, page
from orca_sweep.analysis.report.answer_page import MARKS, begins_with, lay_out_answer
from orca_sweep.analysis.report.record import Additions
from orca_sweep.analysis.writing import MINUS
from tests.builders.answers import TASKS, suite
from tests.builders.tables import cell_rows, in_memory, rows

TWO = {name: TASKS[name] for name in ("digits", "vowels")}


@pytest.fixture(scope="module")
def six():
    """The answer of six tasks whose truths are known."""
    return answers.compute(suite(spread=1))


@pytest.fixture(scope="module")
def two():
    """The tables of two tasks."""
    return suite(TWO, spread=1, seeds=range(4))


def squares(answer):
    return {(square.task, square.claim): square for square in answer.squares}


def columns(answer):
    return {column.claim: column for column in answer.columns}


def page_of(results, **more):
    answer = lay_out_claims(claims.compute(results), results)
    return page(compute(results, additions=Additions(answer=replace(answer, **more))), ())


# Squares ------------------------------------------------------------------------------------------


def test_every_square_has_the_word_of_its_known_truth(six):
    assert [row.task for row in six.rows] == list(TASKS)
    words = {key: square.word for key, square in squares(six).items()}
    assert [words[task, "1"] for task in TASKS] == ["supports", "supports", "contradicts", *["not concerned"] * 3]
    assert [words[task, "2"] for task in TASKS] == [*["not concerned"] * 3, "supports", "contradicts", "undecided"]
    assert [words[task, "3"] for task in TASKS][:3] == ["supports", "contradicts", "supports"]
    assert [words[task, "5"] for task in TASKS] == ["contradicts", "supports"] * 1 + ["contradicts", "supports"] * 2
    assert {square.concerns for square in six.squares if square.word == "not concerned"} == {"1D only", "2D only"}
    column = columns(six)["3"]
    assert (column.verdict, column.n_tasks, column.counts["supports"]) == ("mixed", 6, 5)
    assert (six.n_seeds, six.bodies) == ((5, 5), ("bundled-image", "bundled-text"))


def test_a_square_shows_the_contrast_that_decides(six):
    shown = {key: square.effect.contrast for key, square in squares(six).items() if square.effect}
    assert shown["terrain", "3"].startswith("proxy noise")
    assert shown["brain-tissue", "1"] == "embedder.epochs 60 against naive"
    assert shown["brain-tissue", "4"] == "body frozen forever against embedder"
    assert shown["vowels", "2"] == "embedder.epochs 60 against 5"


def test_of_contrasts_that_each_decide_the_farthest_stands_for_the_task(two):
    for finding in claims.compute(two).findings:
        for task in finding.tasks:
            leading = choose_leading(finding, task)
            assert leading in task.judgements
            if task.says == "supports" and finding.claim.id == "3":
                assert abs(leading.estimate) == max(abs(j.estimate) for j in task.judgements)
    finding = claims.compute(two).findings[0]
    assert choose_leading(finding, replace(finding.tasks[0], judgements=())) is None


def test_above_zero_is_better_whatever_the_metric(two):
    low, high = (answers.compute(results) for results in (two, suite(TWO, spread=1, seeds=range(4), mode="max")))
    pairs = [(a.effect, b.effect) for a, b in zip(low.squares, high.squares, strict=True) if a.effect]
    assert len(pairs) == 10
    for a, b in pairs:
        assert b.gain == pytest.approx(a.gain)
        assert (b.low, b.high) == pytest.approx((a.low, a.high))
        assert a.low <= a.gain <= a.high
        assert b.estimate == pytest.approx(-a.estimate)
        assert a.estimate == pytest.approx(a.gain if a.is_correlation else -a.gain)
    frozen = squares(low)["digits", "4"].effect
    assert frozen.gain == pytest.approx(-0.08, abs=0.01)
    assert frozen.scale_to_margin(frozen.gain) == pytest.approx(frozen.gain / 0.01)


# Words and numbers --------------------------------------------------------------------------------


def test_the_first_two_sentences_answer_in_words(six, two):
    first, second = answers.write_summary(answers.compute(two))
    assert first == "Of 6 claims, 3 are supported, 2 are contradicted and 1 is undecided."
    assert second.startswith("Supported: Embedder training is no help (1), Any proxy will do (3), ")
    assert second.endswith("; undecided: OTDD does not tell the result (6).")
    unknown = replace(six, columns=tuple(replace(column, verdict="not judged") for column in six.columns))
    assert answers.write_summary(unknown)[0] == "None of the 6 claims can be judged from these rows."


def test_the_csv_has_a_line_per_square_in_units_and_in_margins(six):
    lines = list(csv.DictReader(io.StringIO(answers.numbers(six))))
    assert len(lines) == 36
    for line in lines:
        if line["word"] == "not concerned":
            assert line["concerns"] and not line["gain"]
            continue
        least = 0.3 if line["claim"] == "6" else 0.01
        assert float(line["least_that_counts"]) == least
        for name in ("gain", "low", "high"):
            assert float(line[f"{name}_in_margins"]) == pytest.approx(float(line[name]) / least)
    assert {line["origin"] for line in lines if line["claim"] == "6"} == {"ours"}


def test_the_tables_have_the_words_by_task_and_a_line_per_contrast(six):
    words, effects = answers.build_tables(six)
    assert words.head == ("task", "margin", *"123456")
    assert rows(words)[0][:5] == ("all tasks", "–", "mixed (2 of 3)", "mixed (1 of 3)", "mixed (5 of 6)")  # noqa: RUF001
    assert rows(words)[1][:4] == ("digits", "0.01", "supports", "1D only")
    assert len(rows(effects)) == 30
    assert answers.NULLS in words.caption
    assert "6 (ours): A lower OTDD" in words.caption


def test_without_margins_the_reason_stands_once(two):
    unmargined = answers.compute(replace(two, margins={}))
    assert {square.word for square in unmargined.squares if square.claim in "12345"} == {"not judged", "not concerned"}
    (lack, *_) = unmargined.lacks
    assert "there is no margin" in lack.text
    assert (lack.tasks, lack.claims) == (("digits", "vowels"), tuple("12345"))
    assert unmargined.has_effects  # differences are known, only not judged
    shown = lay_out_answer(unmargined)
    assert [lack["letter"] for lack in shown["lacks"] if "there is no margin" in lack["text"]] == ["a"]
    assert [square["reason"] for square in shown["rows"][0]["squares"][2:5]] == ["a"] * 3
    assert math.isnan(unmargined.rows[0].margin_value) and unmargined.rows[0].margin == "none"


# Picture ------------------------------------------------------------------------------------------


def write_texts(figure):
    return [text.get_text() for axis in figure.axes for text in axis.texts]


def test_words_are_written_where_they_fit_and_shapes_say_them_elsewhere(six):
    texts = write_texts(answers.plot(six, read_style("page")))
    assert texts.count("supports") == sum(square.word == "supports" for square in six.squares)
    assert texts.count("n = 5") == 30
    assert texts.count("1D only") == texts.count("2D only") == 3
    assert any(text.startswith(MINUS) for text in texts)
    small = answers.plot(six, read_style("column"))
    assert "supports" not in write_texts(small)
    assert write_texts(small).count("2D") == 3
    labels = [text.get_text() for axis in small.axes if axis.get_legend() for text in axis.get_legend().texts]
    assert labels == ["supports, supported", "contradicts", "undecided", "mixed"]
    says = [SHAPES[word] for word in ("supports", "contradicts", "undecided", "not judged", "mixed")]
    assert len({marker for marker, _ in says}) == 5
    caption = answers.write_caption(six)
    assert "n = 5 pairs of equal seed" in caption and "Margin of every task: 0.01." in caption


def test_a_picture_of_nothing_says_what_is_missing():
    parts = [cell_rows({"task": task, "proxy": "none"}, [0.1, 0.2, 0.3]) for task in "ab"]
    nothing = answers.compute(in_memory([each for part in parts for each in part], ("task", "proxy")))
    assert not nothing.has_effects and nothing.n_judged == 0
    titles = [axis.get_title(loc="left") for axis in answers.plot(nothing).axes]
    assert titles[0].startswith("No claim can be judged")
    assert len(titles) == 1 + len(nothing.lacks)


# Page ---------------------------------------------------------------------------------------------


class Header(HTMLParser):
    """The header of a page: its elements, its text, and the ids and links of the whole page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.links = [], [], []
        self.feed(text)
        self.text = " ".join(re.sub("<[^>]+>", " ", text.partition("<header>")[2].partition("</header>")[0]).split())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.links += [attrs["href"]] if tag == "a" else []


def test_a_page_of_several_tasks_begins_with_the_answer(two):
    tables = claims.build_tables(claims.compute(two))
    answer = lay_out_claims(claims.compute(two), two)
    text = page(compute(two, additions=Additions(answer=answer, claims=tables)), ())
    header = Header(text)
    assert header.text.index("Of 6 claims") < header.text.index(answers.NULLS) < header.text.index("all tasks")
    assert header.text.index("all tasks") < header.text.index("What matters in ORCA&#39;s recipe?")
    assert "2 tasks, 18 cells, 4 seeds each; bodies bundled-image, bundled-text." in header.text
    assert "1D only" in header.text and "Undecided: the interval" in header.text
    aimed = {link[1:] for link in header.links if link.startswith("#claims-")}
    assert len(aimed) == 6 and aimed <= set(header.ids)
    table = text.partition('<table class="answer')[2].partition("</table>")[0]
    assert table.count("<td ") == 18
    assert table.count('scope="col"') == 7 and table.count('scope="row"') == 3
    assert text.count('href="#answer"') == 1
    downloads = compute(two, additions=Additions(answer=answer)).downloads
    assert downloads["answer.csv"] == answers.numbers(answer)


def test_pages_of_one_task_and_of_other_questions_begin_as_before(two):
    single = answers.compute(suite({"digits": {}}, spread=1, seeds=range(3)))
    assert single.has_effects and lay_out_answer(single) is None
    levels = [{"task": task, "finetune.lr": rate} for task in "ab" for rate in (0.1, 0.2)]
    other = in_memory([each for of in levels for each in cell_rows(of, [0.1, 0.2, 0.3])], ("task", "finetune.lr"))
    answer = answers.compute(other)
    assert not begins_with(answer)
    assert lay_out_answer(answer) is None and lay_out_answer(None) is None
    assert begins_with(answers.compute(two))


def test_smoke_and_seal_are_said_above_the_table(two):
    smoke = answers.compute(replace(two, spaces=("study-offline-smoke",)))
    assert smoke.smoke == ("study-offline-smoke",)
    text = Header(page_of(replace(two, n_sealed=3, metric="val_metric_best"), smoke=smoke.smoke)).text
    assert text.index(answers.SMOKE) < text.index("Of 6 claims")
    assert text.index("On validation data: the test metrics of") < text.index("all tasks")
    assert answers.SMOKE in answers.build_tables(smoke)[0].notes


def test_no_two_words_share_a_sign():
    says = [MARKS[word][0] for word in ("supports", "contradicts", "mixed", "undecided", "not judged")]
    assert len(set(says)) == 5


def test_reasons_have_letters_and_task_names_are_no_html(two):
    hostile = {"<b>x</b>": {}, "y": {}}
    text = page_of(replace(suite(hostile, spread=1, seeds=range(3)), margins={}))
    assert "<b>x</b>" not in text and "&lt;b&gt;x&lt;/b&gt;" in text
    assert "<sup>a</sup>" in text and "<strong>a</strong>" in text
