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
from orca_sweep.analysis.answer_record import lay_out_claims
from orca_sweep.analysis.catalogue import make_output
from orca_sweep.analysis.figure_style import read_style
from orca_sweep.analysis.report import Asked, compute, make_page, page
from orca_sweep.analysis.report.answer_page import MARKS, begins_with, lay_out_answer
from orca_sweep.analysis.report.record import Additions
from orca_sweep.analysis.study import CLAIMS
from orca_sweep.analysis.writing import MINUS
from tests.builders.answers import TASKS, suite
from tests.builders.tables import cell_rows, in_memory, rows

IDS = ("1", "2", "3", "4a", "4b", "5", "6", "7", "8")
MARGINED = ("1", "2", "3", "4b", "5")
"""Claims on differences, of which these tables have contrasts."""
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
    assert [words[task, "3"] for task in TASKS] == ["supports", "contradicts", "supports", *["not counted"] * 3]
    assert [words[task, "4b"] for task in TASKS] == ["supports", "supports", "contradicts", *["supports"] * 3]
    assert {words[task, claim] for task in TASKS for claim in ("4a", "7", "8")} == {"not judged"}
    assert {square.concerns for square in six.squares if square.word == "not concerned"} == {"1D only", "2D only"}
    column = columns(six)["3"]
    assert (column.verdict, column.n_tasks, column.counts["supports"]) == ("supported", 3, 2)
    assert (six.n_seeds, six.bodies) == ((5, 5), ("bundled-image", "bundled-text"))


def test_a_claim_with_words_of_its_own_has_no_yes_and_no_in_its_squares(six):
    labels = {square.task: square.label for square in six.squares if square.claim == "5"}
    assert [labels[task] for task in TASKS] == ["helps", "does not help"] * 1 + ["helps", "does not help"] * 2
    own = {word for claim in CLAIMS for word in claim.words.values()}
    assert own == {"helps", "does not help"}
    usual = {"supports", "contradicts", "undecided", "not judged", "mixed"}
    for marks in (MARKS, SHAPES):
        assert {marks[word] for word in own}.isdisjoint({marks[word] for word in usual})


def test_tallies_say_on_what_a_verdict_rests(six, two):
    tallies = {claim: column.tally for claim, column in columns(six).items()}
    assert tallies["1"] == tallies["3"] == "2 of 3 support, 1 contradicts"
    assert tallies["2"] == "1 of 3 supports, 1 contradicts, 1 undecided"
    assert tallies["5"] == "helps on 3 of 6, does not help on 3"
    assert tallies["7"] == ""
    assert columns(answers.compute(two))["3"].tally == "rests on one task, digits"
    assert answers.describe_rules(six).count("4 in 6") == 1
    assert "Claim 5: The claim is supported if it holds on one task at least" in answers.describe_rules(six)


def test_tasks_that_a_claim_is_not_about_are_shown_and_not_counted(six):
    square = squares(six)["vowels", "3"]
    assert (square.word, square.label, square.concerns) == ("not counted", "supports", "2D only")
    assert square.effect and not square.add
    assert answers.name_square(square) == "not counted (supports)"
    assert columns(six)["3"].counts["supports"] == 2


def test_what_would_decide_a_square_is_said_once_per_reason(six):
    (lack,) = [lack for lack in six.lacks if lack.claims == ("4a",)]
    assert lack.tasks == tuple(TASKS)
    assert lack.add.startswith("cells with finetune.freeze none, body and embedder")
    open_ones = {(square.task, square.claim) for square in six.squares if square.word == "undecided"}
    named = [(task, claim) for lack in six.additions for task in lack.tasks for claim in lack.claims]
    assert open_ones <= set(named)
    assert len({lack.text for lack in six.additions}) == len(six.additions)
    needs = {(line["task"], line["claim"]): line["needs"] for line in csv.DictReader(io.StringIO(answers.numbers(six)))}
    assert needs["digits", "6"].startswith("more seeds: by the spread seen, about ")
    assert needs["digits", "1"] == ""


def test_a_square_shows_the_contrast_that_decides(six):
    shown = {key: square.effect.contrast for key, square in squares(six).items() if square.effect}
    assert shown["terrain", "3"].startswith("proxy noise")
    assert shown["brain-tissue", "1"] == "embedder.epochs 60 against naive"
    assert shown["brain-tissue", "4b"] == "body frozen forever against embedder"
    assert shown["vowels", "2"] == "embedder.epochs 60 against 5"


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
    frozen = squares(low)["digits", "4b"].effect
    assert frozen.gain == pytest.approx(-0.08, abs=0.01)
    assert frozen.scale_to_margin(frozen.gain) == pytest.approx(frozen.gain / 0.01)


# Words and numbers --------------------------------------------------------------------------------


def test_the_first_two_sentences_answer_in_words(six, two):
    first, second = answers.write_summary(answers.compute(two))
    assert first == "Of 9 claims, 3 are supported, 2 are contradicted, 1 is undecided and 3 are not judged."
    assert second.startswith("Supported: 1. Embedder training useless (2D), 3. Proxy does not matter (2D), ")
    assert second.endswith("; undecided: 6. OTDD not tied to error.")
    unknown = replace(six, columns=tuple(replace(column, verdict="not judged") for column in six.columns))
    assert answers.write_summary(unknown)[0] == "None of the 9 claims can be judged from these rows."


def test_the_csv_has_a_line_per_square_in_units_and_in_margins(six):
    lines = list(csv.DictReader(io.StringIO(answers.numbers(six))))
    assert len(lines) == 54
    for line in lines:
        if line["word"] == "not concerned":
            assert line["concerns"] and not line["gain"]
            continue
        if line["claim"] in ("4a", "7", "8"):
            assert line["not_judged_because"] and not line["gain"]
            continue
        least = 0.3 if line["claim"] == "6" else 0.01
        assert float(line["least_that_counts"]) == least
        for name in ("gain", "low", "high"):
            assert float(line[f"{name}_in_margins"]) == pytest.approx(float(line[name]) / least)
    assert {line["claim"] for line in lines if line["origin"] == "ours"} == set("678")
    assert {line["in_its_words"] for line in lines if line["claim"] == "5"} == {"helps", "does not help"}


def test_the_tables_have_the_words_by_task_and_a_line_per_contrast(six):
    words, effects = answers.build_tables(six)
    assert words.head == ("task", "margin", *IDS)
    over = rows(words)[0]
    assert over[:3] == ("all tasks", "–", "supported: 2 of 3 support, 1 contradicts")  # noqa: RUF001
    assert over[7] == "supported: helps on 3 of 6, does not help on 3"
    assert rows(words)[1][:4] == ("digits", "0.01", "supports", "1D only")
    assert len(rows(effects)) == 30
    assert answers.NULLS in words.caption
    assert "6 (ours): A lower OTDD" in words.caption
    assert "at least 4 in 6 of the tasks" in words.caption
    assert any(
        note.startswith("Not judged (all tasks; claim 4a): ") and "Remedy: cells with" in note for note in words.notes
    )
    assert any(note.startswith("Undecided (") and "to decide it, add: more seeds" in note for note in words.notes)


def test_without_margins_the_reason_stands_once(two):
    unmargined = answers.compute(replace(two, margins={}))
    assert {square.word for square in unmargined.squares if square.claim in MARGINED} == {
        "not judged",
        "not concerned",
        "not counted",
    }
    (lack, *_) = unmargined.lacks
    assert "there is no margin" in lack.text
    assert (lack.tasks, lack.claims) == (("digits", "vowels"), MARGINED)
    assert unmargined.has_effects  # differences are known, only not judged
    shown = lay_out_answer(unmargined)
    assert [lack["letter"] for lack in shown["lacks"] if "there is no margin" in lack["text"]] == ["a"]
    assert [shown["rows"][0]["squares"][i]["reason"] for i in (0, 2, 4, 5)] == ["a"] * 4
    assert lack.add.startswith("fix a margin in the space")
    assert math.isnan(unmargined.rows[0].margin_value) and unmargined.rows[0].margin == "none"


# Picture ------------------------------------------------------------------------------------------


def write_texts(figure):
    return [text.get_text() for axis in figure.axes for text in axis.texts]


def test_words_are_written_where_they_fit_and_shapes_say_them_elsewhere(six):
    texts = write_texts(answers.plot(six, read_style("page")))
    labels = [square.label for square in six.squares if square.word not in ("not counted", "not concerned")]
    tallies = {"supports": texts.count("1 of 3")}  # its second line is the word
    for word in ("supports", "contradicts", "helps"):
        assert texts.count(word) - tallies.get(word, 0) == labels.count(word) > 0
    assert texts.count("not counted") == texts.count("1D only") == texts.count("2D only") == 3
    assert texts.count("n = 5") == 30
    assert all(text.get_fontsize() >= 6 for axis in answers.plot(six, read_style("page")).axes for text in axis.texts)
    assert any(text.startswith(MINUS) for text in texts)
    small = answers.plot(six, read_style("column"))
    assert "supports" not in write_texts(small)
    assert write_texts(small).count("2D") == 3
    labels = [text.get_text() for axis in small.axes if axis.get_legend() for text in axis.get_legend().texts]
    said = ["supports, supported", "contradicts", "undecided", "not judged", "mixed", "not counted"]
    assert labels == [*said, "helps", "does not help"]
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
    assert header.text.index("Of 9 claims") < header.text.index(answers.NULLS) < header.text.index("all tasks")
    assert header.text.index("all tasks") < header.text.index("What matters in ORCA&#39;s recipe?")
    assert "2 tasks, 18 cells, 4 seeds each; bodies bundled-image, bundled-text." in header.text
    assert "1D only" in header.text and "Undecided: the interval" in header.text
    assert "not counted alone: supports" in header.text
    aimed = {link[1:] for link in header.links if link.startswith("#claims-")}
    assert len(aimed) == 7 and aimed <= set(header.ids)
    table = text.partition('<table class="answer')[2].partition("</table>")[0]
    assert table.count("<td ") == 27
    assert table.count('scope="col"') == 10 and table.count('scope="row"') == 3
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


def test_a_smoke_page_warns_once_and_a_sealed_one_says_so(two):
    smoke = replace(two, smoke=("study-offline-smoke",))
    smoke = replace(smoke, notes=(smoke.smoke_warning,), n_sealed=3, metric="val_metric_best")
    text = make_page(smoke, Asked(figures=[]))
    shown = text.partition("<script")[0]
    assert shown.count('<p class="warn">Smoke sweep') == 1
    assert shown.count(smoke.smoke_warning) == 2  # and in the methods, which are copied alone
    header = Header(text).text
    assert header.index("Smoke sweep") < header.index("Of 9 claims")
    assert "On validation data: the test metrics of 3 trials are sealed." in header
    files = compute(smoke, additions=Additions(answer=answers.compute(smoke))).downloads
    assert files["answer.tex"].count("Smoke sweep") == files["answer.tex"].count("caption{") == 2
    assert files["effects.tex"].count("Smoke sweep") == files["effects.tex"].count("caption{")


@pytest.mark.parametrize("name", ["answer", "claims", "table_effects"])
def test_everything_made_of_a_smoke_sweep_says_so_once(two, name):
    smoke = replace(two, smoke=("study-offline-smoke",))
    smoke = replace(smoke, notes=(smoke.smoke_warning,))
    output = make_output(name, smoke)
    texts = [" ".join((table.caption, *table.notes)) for table in output.tables]
    texts += [output.caption, " ".join(" ".join(text.get_text() for text in output.figure.texts).split())]
    assert [text.count("Smoke sweep") for text in texts] == [1] * len(texts)


def test_no_two_words_share_a_sign():
    says = [MARKS[word][0] for word in MARKS if word not in ("supported", "contradicted")]
    assert len(set(says)) == len(says) == 8


def test_reasons_have_letters_and_task_names_are_no_html(two):
    hostile = {"<b>x</b>": {}, "y": {}}
    text = page_of(replace(suite(hostile, spread=1, seeds=range(3)), margins={}))
    assert "<b>x</b>" not in text and "&lt;b&gt;x&lt;/b&gt;" in text
    assert "<sup>a</sup>" in text and "<strong>a</strong>" in text
