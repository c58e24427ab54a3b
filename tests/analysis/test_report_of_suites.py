"""The report of a suite: its name and spaces in the head, a figure by space, and what is long folded by task."""

import re
from dataclasses import replace

from orca_sweep.analysis.report import Asked, Member, make_page, make_page_parts
from orca_sweep.api.reporting import ReportOptions, write_report
from tests.builders.answers import suite
from tests.builders.suites import suite_folder


def head_of(text):
    return text.partition("</header>")[0]


def test_the_page_of_a_suite_has_its_name_and_a_figure_of_each_space(tmp_path):
    folder = suite_folder(tmp_path / "study", first=(), second=())
    written = write_report(folder, tmp_path / "page.html", ReportOptions())
    text = written.path.read_text(encoding="utf-8")
    assert "<h1>study</h1>" in text and "<title>study: report</title>" in text
    titles = re.findall(r"<summary>(.*?)</summary>", text.partition('id="figures"')[2].partition('id="effects"')[0])
    assert titles == ["first: Fine-tuning curves and final metric", "second: Fine-tuning curves and final metric"]
    ids = re.findall(r'\sid="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_many_spaces_are_folded_with_their_questions():
    names = tuple(f"space_{i}" for i in range(5))
    few = {"digits": {}, "vowels": {}}
    results = replace(suite(few, seeds=range(3)), spaces=names, questions=tuple(f"Why {i}?" for i in range(5)))
    text = head_of(make_page(results, Asked(figures=[])))
    assert "<h1>5 spaces</h1>" in text and "<summary>The 5 spaces and their questions</summary>" in text
    assert all(f"<dt>{name}</dt><dd>Why {i}?</dd>" in text for i, name in enumerate(names))
    assert '<p class="lead">Why' not in text


def test_tables_of_many_cells_are_folded_by_task_and_those_of_few_are_open():
    many = {f"task{i}": {} for i in range(7)}
    long, short = (
        make_page(suite(tasks, seeds=range(3)), Asked(figures=[])) for tasks in (many, {"digits": {}, "b": {}})
    )
    for section in ("completeness", "results"):
        of_many, of_few = (
            text.partition(f'<section id="{section}"')[2].partition("</section>")[0] for text in (long, short)
        )
        assert of_many.count('<details class="fold">') >= 7
        assert of_many.count("<details") == of_many.count("</details>")
        assert '<details class="fold">' not in of_few
    assert "<strong>task0</strong>: 9 cells, 27 of 27 planned trials are ok" in long


def test_a_figure_that_cannot_be_drawn_names_a_few_problems():
    clashing = suite({"digits": {}, "vowels": {}}, seeds=range(3))
    one_factor = replace(clashing, factors=("task", "proxy"))
    text = "".join(
        make_page_parts(clashing, Asked(figures=("figure2_proxies",)), (), (Member(name="s", results=one_factor),))
    )
    (missing,) = re.findall(r"No figure: (.*?)</p>", text)
    assert missing.count("have the same levels") == 3
    assert re.search(r"\d+ more of this kind\. Make that field a factor", missing)
