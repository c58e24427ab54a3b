"""The page that says what equals ORCA's code names tests that are there."""

import re
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
PAGE = (REPO / "orca_sweep" / "tasks" / "README.md").read_text(encoding="utf-8")


def test_every_test_that_the_page_names_is_there():
    named = re.findall(r"`(tests/\w+\.py)::(\w+)`", PAGE)
    assert len(named) >= 15
    for file, name in named:
        assert re.search(rf"^def {name}\(", (REPO / file).read_text(encoding="utf-8"), re.M), f"{file}::{name}"


def test_every_row_of_equal_things_has_its_test():
    equal = PAGE.split("## Equal")[1].split("## Different")[0]
    rows = [row for row in equal.splitlines() if row.startswith("| ") and row != "| what | checked by |"]
    assert len(rows) >= 12
    assert all("::" in row for row in rows), [row for row in rows if "::" not in row]


def test_every_file_and_field_that_the_page_names_is_there():
    from orca_sweep.config import knobs
    from orca_sweep.tasks import TASKS

    for path in re.findall(r"`(tests/[\w/.-]+)`", PAGE):
        assert (REPO / path).exists(), path
    for field in re.findall(r"`((?:embedder|finetune|predictor|body|data)\.\w+)", PAGE):
        assert field in knobs(), field
    for task in ("darcy", "burgers", "psicov", "2d-diffusion-reaction", "2d-diffusion-reaction-both", "satellite"):
        assert f"`{task}`" in PAGE
        assert task in TASKS
