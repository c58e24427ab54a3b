"""The house rules that hold stay held, and the script that measures them finds what it is to find."""

import ast
import re
from textwrap import dedent

import pytest

from orca_sweep.config import freeze_words
from tests import house


def module(text, name="store/sample.py"):
    text = dedent(text)
    return house.Module(name=name, n_lines=len(text.splitlines()), tree=ast.parse(text))


def texts(offences):
    return [offence.text for offence in offences]


def test_every_target_of_the_house_is_measured_and_holds():
    """All are measured in one test, since that takes seconds."""
    targets = house.measure_targets()
    assert len({target.name for target in targets}) == 11
    missed = [
        f"{target.name}: {target.measured} {offence}"
        for target in targets
        if not target.holds
        for offence in target.offences
    ]
    assert all(target.holds for target in targets), "\n".join(missed)


def test_one_word_names_are_counted_without_pythons_own():
    share, offences = house.measure_one_word_functions(
        [module("def __init__(): ...\ndef _go(): ...\ndef go_on(): ...")]
    )
    assert (share, texts(offences)) == (0.5, ["def _go"])


def test_empty_words_are_seen_as_names_attributes_and_parameters():
    sample = module("found = 1\ndef f(told): self.said = g(place=found_it)\nclass One: ...\nx = 'found'  # found")
    words = house.find_empty_words(sample, house.EMPTY_WORDS)
    assert [(o.line, o.text) for o in words] == [(1, "found"), (2, "place"), (2, "said"), (2, "told"), (3, "One")]


def test_long_signatures_count_what_a_caller_gives():
    text = """
    class A:
        def six(self, a, b, c, d, e, f): ...
    def seven(a, b, c, d, *, e, f, g): ...
    """
    assert texts(house.find_long_signatures(module(text))) == ["def seven: 7 parameters"]


def test_calls_by_position_count_where_the_function_is_ours():
    text = """
    import re
    re.sub(1, 2, 3, 4, 5)
    read_tensors(1, 2, 3, 4, 5)
    read_tensors(1, 2, 3, 4, *rest)
    """
    assert texts(house.find_positional_calls(module(text))) == ["read_tensors(...): 5 arguments by position"]


def test_look_ups_are_free_where_names_are_resolved_alone():
    text = "find_task('digits')\ntasks.find_body('x')"
    assert texts(house.find_look_ups(module(text))) == ["find_task(...)", "find_body(...)"]
    assert house.find_look_ups(module(text, "trial/records.py")) == []


@pytest.mark.parametrize(
    "line",
    [
        "str(error) == 'gone'",
        "'gone' in str(error)",
        "str(error).partition(': ')",
        "re.search('[a-z]+', str(error))",
        "error.args[0].startswith('x')",
        "text.split(':')",
    ],
)
def test_a_message_that_is_parsed_is_seen(line):
    text = f"def f():\n    try: ...\n    except ValueError as error:\n        text = str(error)\n        return {line}"
    assert len(house.find_parsed_messages(module(text))) == 1


def test_a_message_that_is_shown_is_no_offence():
    text = "def f():\n    try: ...\n    except ValueError as error: raise E(f'{error}', str(error).splitlines()[0]) from None"
    assert house.find_parsed_messages(module(text)) == []


BODY = """
def {name}({a}):
    total = 0
    for item in {a}:
        if item:
            total += item
    return total {sign} {number}
"""


def test_the_same_logic_is_seen_under_other_names_of_variables():
    twice = BODY.format(name="f", a="rows", sign="+", number=1) + BODY.format(name="g", a="cells", sign="+", number=1)
    assert texts(house.find_duplicates([module(twice)])) == ["g: as f in orca_sweep/store/sample.py:3"]


def test_other_logic_is_no_duplicate():
    other = BODY.format(name="f", a="rows", sign="+", number=1) + BODY.format(name="g", a="rows", sign="-", number=1)
    assert house.find_duplicates([module(other)]) == []


def test_no_test_file_imports_another():
    """What several need is built in ``tests/builders``, so that a file can be moved, run and read alone."""
    importing = re.compile(r"^\s*(from|import) tests\.(\w+\.)?(test_\w+|conftest)\b", re.MULTILINE)
    files = sorted((house.REPO / "tests").rglob("*.py"))
    assert [str(path) for path in files if importing.search(path.read_text())] == []


def modules_that_write(text):
    return {m.name for m in house.read_modules() for n in m.nodes if isinstance(n, ast.Constant) and n.value == text}


@pytest.mark.parametrize("kind", freeze_words.KINDS)
def test_a_freeze_word_is_declared_in_two_modules(kind):
    modules = {name for name in modules_that_write(kind) if not name.startswith("objectives/")}  # norms of vectors
    assert len(modules | {"config/freeze_words.py"}) <= 2


@pytest.mark.parametrize("name", ["n_proxy_texts_cut", "n_test_unscored", "pretrain_metric"])
def test_a_trial_column_is_declared_in_one_module_and_measured_in_another(name):
    modules = {module for module in modules_that_write(name) if not module.startswith("bench/")}  # it makes rows up
    assert len(modules) == 2


@pytest.mark.parametrize(("name", "record"), [("tasks/measures.py", "Metric"), ("tasks/losses.py", "Loss")])
def test_metrics_and_losses_are_declared_in_one_module_each(name, record):
    declaring = {
        m.name
        for m in house.read_modules()
        for n in m.nodes
        if isinstance(n, ast.Call) and ast.unparse(n.func) == record
    }
    assert declaring == {name}
