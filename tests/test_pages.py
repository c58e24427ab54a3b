"""The pages that people read first are true: links, commands, options, fields, spaces, and code in them."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import typer.main

from orca_sweep import cli
from orca_sweep.config import knobs
from orca_sweep.results import trial_columns
from orca_sweep.tasks import TASKS
from tests.commands import orca

REPO = Path(__file__).resolve().parents[1]
PAGES = {
    str(path.relative_to(REPO)): path.read_text(encoding="utf-8")
    for path in sorted(
        [
            *REPO.glob("*.md"),
            *REPO.glob(".github/*.md"),
            *REPO.glob("search_spaces/*.md"),
            *REPO.glob("analysis/*.md"),
            *REPO.glob("orca_sweep/*/README.md"),
        ]
    )
}
README = PAGES["README.md"]
EQUALITY = PAGES["orca_sweep/training/README.md"]
COMMANDS = typer.main.get_command(cli.app)
FOREIGN_OPTIONS = {"--generate", "--help"}
"""Options of other programs, and the one that every command has."""
FREEZE_WORDS = {"body.layers", "body.norms", "body.attention", "body.qkv", "body.biases"}
"""Words of freeze schedules that look like fields."""


def walk_commands(command=COMMANDS, path=()):
    """Yields every command with its words, groups included."""
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from walk_commands(inner, (*path, name))


ALL_COMMANDS = dict(walk_commands())


def test_the_readme_is_short_enough_to_be_read():
    assert len(README.encode()) < 12_000


def test_the_readme_s_two_commands_are_what_ci_and_users_run():
    assert "pip install -e . -c constraints.txt && orca-sweep launch search_spaces/quickstart.yaml" in README
    assert "pip install -e '.[dev]' -c constraints.txt && pytest" in README
    ci = (REPO / ".ci" / "run").read_text()
    assert "-e '.[dev]' -c constraints.txt" in ci
    assert "\npytest\n" in ci


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    text = PAGES[page]
    anchors = {
        re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif "://" not in target:
            assert ((REPO / page).parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES)
def test_every_command_and_option_exists(page):
    text = PAGES[page]
    for words in set(re.findall(r"orca-sweep ((?:[a-z][a-z-]*(?: |$|`))+)", text)):
        path = tuple(words.strip(" `").split())
        while path and path not in ALL_COMMANDS and isinstance(ALL_COMMANDS.get(path[:-1]), click.Command):
            assert not isinstance(ALL_COMMANDS[path[:-1]], click.Group), f"orca-sweep {' '.join(path)}"
            path = path[:-1]
        while path not in ALL_COMMANDS:
            path = path[:-1]
        assert path, f"orca-sweep {words}"
    known = {option for command in ALL_COMMANDS.values() for p in command.params for option in p.opts} | FOREIGN_OPTIONS
    for line in text.splitlines():
        if not re.search(r"\bpip |pytest|ruff|mypy|lint-imports|git ", line):
            for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", line):
                assert option in known, f"{page}: {option}"


def test_every_path_of_the_tree_exists_and_every_room_is_in_it():
    tree = README.split("## The tree")[1].split("```")[1]
    named = [path.rstrip("/") for path in re.findall(r"^(?:│   |    )?[├└]── ([\w./-]+)", tree, re.MULTILINE)]
    for path in named:
        assert (REPO / path).exists() or (REPO / "orca_sweep" / path).exists(), path
    rooms = [path.name for path in (REPO / "orca_sweep").iterdir() if (path / "__init__.py").exists()]
    assert set(rooms) <= set(named)


@pytest.mark.parametrize("page", PAGES)
def test_every_file_and_field_that_a_page_names_is_there(page):
    text = PAGES[page]
    for path in set(re.findall(r"\b(?:search_spaces|analysis|tests|orca_sweep)/[\w/.-]+\.(?:yaml|py|md)\b", text)):
        assert (REPO / path).exists() or (REPO / "orca_sweep" / path).exists() or "my_" in path, path
    for field in re.findall(r"`((?:embedder|finetune|predictor|body|data)\.\w+)`", text):
        assert field in knobs() or field in FREEZE_WORDS, field


@pytest.mark.parametrize(
    "page", [page for page, text in PAGES.items() if re.search(r"```(yaml|python)\n# \S+\n", text)]
)
def test_every_space_of_a_page_plans(page, tmp_path):
    """Every YAML block is a space; the Python blocks before it are the files that it imports. Files that none imports run."""
    imported = " ".join(re.findall(r"^imports: .*$", PAGES[page], re.MULTILINE))
    for kind, name, block in re.findall(r"```(python|yaml)\n# (\S+)\n(.*?)```", PAGES[page], re.DOTALL):
        (tmp_path / name).write_text(block)
        if kind == "yaml":
            done = orca("plan", tmp_path / name)
            assert done.returncode == 0, done.stderr
        elif name not in imported:
            subprocess.run([sys.executable, tmp_path / name], check=True, env={**os.environ, "PYTHONPATH": str(REPO)})


@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if "```python\nimport" in text])
def test_the_code_of_a_page_runs(page):
    for block in re.findall(r"```python\n(import.*?)```", PAGES[page], re.DOTALL):
        if "read_parquet" in block:  # needs the quickstart's tables: the columns must be there at least
            strings = {node.value for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Constant)}
            columns = {column.name for column in trial_columns()}
            assert {text for text in strings if "." in text and "/" not in text} <= columns
            assert {"status", "val_metric_best"} <= columns
        else:
            exec(compile(block, page, "exec"), {})


# What equals ORCA's code --------------------------------------------------------------------------


def test_every_test_that_the_page_of_equal_things_names_is_there():
    named = re.findall(r"`(tests/\w+/\w+\.py)::(\w+)`", EQUALITY)
    assert len(named) >= 15
    for file, name in named:
        assert re.search(rf"^def {name}\(", (REPO / file).read_text(encoding="utf-8"), re.MULTILINE), f"{file}::{name}"


def test_every_row_of_equal_things_has_its_test():
    equal = EQUALITY.split("## Equal")[1].split("## Different")[0]
    rows = [row for row in equal.splitlines() if row.startswith("| ") and row != "| what | checked by |"]
    assert len(rows) >= 12
    assert all("::" in row for row in rows), [row for row in rows if "::" not in row]
    for task in ("darcy", "burgers", "psicov", "2d-diffusion-reaction", "2d-diffusion-reaction-both", "satellite"):
        assert f"`{task}`" in EQUALITY
        assert task in TASKS
