"""Every figure, on tables that are hard to draw: no text is clipped or covered, and series differ without colour."""

import functools
import itertools
import re
import zlib

import pytest

from orca_sweep.analysis.catalogue import ANALYSES, load_analysis, make_output
from orca_sweep.analysis.figure_style import COLOURS, FigureStyle
from orca_sweep.errors import InputError
from tests.builders.figures import CHINESE, DECLARED, LONG, find_faults, find_texts, hard_tables

NAMES = [name for name in ANALYSES.names() if ANALYSES.get(name).has_figure]
FACTORS = {
    "figure2_proxies": {},
    "figure3_otdd_vs_error": {"embedder.epochs": [0, 1, 5, 20]},
    "figure4_freezing": {"finetune.freeze": ["none", "body"]},
    "figure5_pretraining": {"body.pretrain_fraction": [0.0, 0.001, 0.1, 1.0]},
}
STYLES = [FigureStyle(width=width, font_size=size) for width in (3.25, 6.75) for size in (6, 10)]
FIRST, SECOND = ["digits", "ecg"], ["none", "mnist5k", "dummy"]


def factors(name, **levels):
    """The factors that a figure needs, with these levels of task and proxy."""
    return {"task": FIRST, "proxy": SECOND} | levels | FACTORS.get(name, {"embedder.init": ["copied", "random"]})


CASES = {
    "usual": lambda name: hard_tables(factors(name), n_failed=2),
    "one of each": lambda name: hard_tables(
        {"task": ["digits"], "proxy": ["mnist5k"]} | {path: v[-1:] for path, v in FACTORS.get(name, {}).items()},
        n_seeds=1, n_epochs=1,
    ),
    "one seed": lambda name: hard_tables(factors(name), n_seeds=1),
    "one task": lambda name: hard_tables(factors(name, task=["digits"]), n_epochs=1),
    "twelve long levels": lambda name: hard_tables(factors(name, proxy=[f"{LONG}{i:02}" for i in range(12)])),
    "eight long tasks": lambda name: hard_tables(factors(name, task=[f"{i}-{LONG}" for i in range(8)], proxy=SECOND[:2])),
    "own data": lambda name: hard_tables(
        factors(name, task=[DECLARED.format(i) for i in range(2)], proxy=["none", *(DECLARED.format(i) for i in range(3))])
    ),
    "other letters": lambda name: hard_tables(
        factors(name, task=["手書き数字", "écg"], proxy=["none", *CHINESE]), metric="誤り率", metric_unit="μ²"
    ),
    "tiny": lambda name: hard_tables(factors(name), scale=1e-9, shift=1e-7),
    "huge": lambda name: hard_tables(factors(name), scale=1e11, shift=4e12, metric_mode="max"),
    "close": lambda name: hard_tables(factors(name), scale=1e-4, shift=123456),
    "negative": lambda name: hard_tables(factors(name), scale=-100.0, metric_mode="max"),
    "long metric": lambda name: hard_tables(factors(name), metric="normalised_root_mean_squared_error_of_all_fields_over_time",
                                            metric_unit="share of the norm of the field at the last time step"),
    "forty cells": lambda name: hard_tables(factors(name, task=["digits"], proxy=[f"proxy {i}" for i in range(20)])),
    "dollars": lambda name: hard_tables(factors(name, proxy=["none", "$x_", "a_b^c$", "100%", "a\\b{c}"])),
}  # fmt: skip


@functools.cache
def record_of(name, case):
    """The record of an analysis of hard tables; None if the analysis refuses them."""
    try:
        return load_analysis(name).compute(CASES[case](name))
    except InputError as error:
        assert (case in ("one of each", "one seed", "one task", "negative", "forty cells", "twelve long levels")), error
        return None


def styles_of(name, case):
    """All styles in a few cases, and one in each other: every style meets every analysis."""
    if case in ("usual", "own data", "twelve long levels"):
        return STYLES
    return [STYLES[(zlib.crc32(name.encode()) + list(CASES).index(case)) % len(STYLES)], STYLES[1]]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_no_text_is_clipped_or_covered(name, case):
    record = record_of(name, case)
    if record is None:
        return
    for style in styles_of(name, case):
        figure = load_analysis(name).plot(record, style)
        assert figure.get_figwidth() == style.width
        assert len(find_texts(figure)) > 2
        assert not find_faults(figure), style
