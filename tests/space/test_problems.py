"""Problems are records: no code between the reader and the command line parses a message."""

import ast
import json
import pickle
from pathlib import Path

import pytest
from typer.testing import CliRunner

import orca_sweep
from orca_sweep.cli import app
from orca_sweep.errors import MOST_SHOWN, NO_VALUE, InputError, Problem
from orca_sweep.space import read_space

PROBLEM = Problem(
    field="finetune.lr", value="-1", rule="too small.", remedy="Raise it.", where="a.yaml:3", scope="tune"
)


def test_a_problem_is_written_as_one_sentence_after_its_line():
    assert str(PROBLEM) == "a.yaml:3: tune: finetune.lr = '-1': too small. Raise it."
    assert str(Problem(rule="too small.")) == "too small."
    assert str(Problem(field="task", rule="this is missing.")) == "task: this is missing."
    assert "..." in str(Problem(field="task", value="x" * 10**6, rule="unknown.")) and MOST_SHOWN < 1000


def test_a_known_line_stays():
    assert Problem(rule="wrong.").at("b.yaml:1", "when") == Problem(rule="wrong.", where="b.yaml:1", scope="when")
    assert PROBLEM.at("b.yaml:1", "when") == PROBLEM
    assert PROBLEM.of("task", "digits") == PROBLEM
    assert Problem(rule="wrong.").of("task", None) == Problem(field="task", value=None, rule="wrong.")


def test_a_problem_without_a_value_has_none_in_another_process_either():
    problem = pickle.loads(pickle.dumps(Problem(field="task", rule="this is missing.")))
    assert problem.value is NO_VALUE and str(problem) == "task: this is missing."


@pytest.mark.parametrize(
    ("value", "written"), [(NO_VALUE, None), ([1, "a"], [1, "a"]), (Path("x"), "PosixPath('x')"), (float("nan"), "nan")]
)
def test_programs_get_the_parts_of_a_problem(value, written):
    record = Problem(field="task", value=value, rule="wrong.").as_json()
    assert json.loads(json.dumps(record)) == record
    assert list(record) == ["field", "value", "rule", "remedy", "where", "message"]
    assert (record["field"], record["value"], record["remedy"], record["where"]) == ("task", written, None, None)


def test_each_kind_of_mistake_in_a_space_has_its_field_value_and_line(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(
        "bse: 1\nbase: {task: digits, finetune.lr: -1, finetune: {epohs: 3}}\nfactors:\n  proxy: [none, none]\n"
        "resources:\n  cpu: 0\n  gpus: 1\nexclude: [{proxy: dummy}]\nloggers: [jsn]\ntune: {embedder.lr: {low: 1}}\n"
        "outcomes: {lst: worst}\n"
    )
    with pytest.raises(InputError) as caught:
        read_space(path)
    problems = caught.value.problems
    assert all(problem.where.startswith(f"{path}:") and problem.field and problem.rule for problem in problems)
    lines = {problem.field: int(problem.where.rpartition(":")[2]) for problem in problems}
    assert lines == {
        "bse": 1, "finetune.lr": 2, "finetune.epohs": 2, "proxy": 8, "resources.cpu": 6, "resources.gpus": 7,
        "loggers": 9, "embedder.lr": 10, "outcomes": 11, "seeds": 1,
    }  # fmt: skip
    values = {problem.field: problem.value for problem in problems}
    assert (values["finetune.lr"], values["resources.cpu"], values["loggers"]) == ("-1", "0", "jsn")
    assert {problem.scope for problem in problems if problem.field == "proxy"} == {"factors", "exclude"}


def test_a_mistake_that_follows_from_another_is_not_reported(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text("base: {task: [digits]}\nseeds: 1\nprune: {nme: asha}\n")
    result = CliRunner().invoke(app, ["plan", str(path), "--json"])
    assert result.exit_code == 2
    problems = json.loads(result.stdout)["problems"]
    assert {problem["field"] for problem in problems} == {"task", "prune.name", "prune.nme"}
    assert all(problem["message"].startswith(problem["where"]) for problem in problems)


# Nobody reads a message ---------------------------------------------------------------------------

READS = {"split", "rsplit", "partition", "rpartition", "startswith", "endswith", "removeprefix", "removesuffix"}
"""Methods that split a text or look at a part of it."""


def find_parsed_problems(module):
    """Yields the lines of functions that split the text of an element of ``.problems``, or look for words in it."""
    functions = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef)]
    for scope in functions or [module]:
        yield from find_parsed_problems_of(scope)


def find_parsed_problems_of(tree):
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.For | ast.comprehension) and "problems" in ast.unparse(node.iter):
            names |= {name.id for name in ast.walk(node.target) if isinstance(name, ast.Name)}

    def is_text_of_problem(node):
        text = ast.unparse(node)
        return ".problems" in text or text in names or any(text == f"str({name})" for name in names)

    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in READS:
            if is_text_of_problem(node.func.value):
                yield node.lineno
        elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.In | ast.NotIn):
            if is_text_of_problem(node.comparators[0]) and ".problems" not in ast.unparse(node.comparators[0]):
                yield node.lineno
        elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Call) and is_text_of_problem(node.value):
            yield node.lineno


def test_no_code_takes_a_problem_apart():
    package = Path(orca_sweep.__file__).parent
    parsed = {
        str(path.relative_to(package)): lines
        for path in package.rglob("*.py")
        if (lines := list(find_parsed_problems(ast.parse(path.read_text()))))
    }
    assert parsed == {}


@pytest.mark.parametrize(
    "code",
    [
        "fields = [text.split(' ')[0] for text in error.problems]",
        "fields = [str(text).removeprefix('a: ') for text in error.problems]",
        "for p in problems:\n    if 'is missing' in str(p): pass",
    ],
)
def test_code_that_takes_a_problem_apart_is_seen(code):
    assert list(find_parsed_problems(ast.parse(code)))
