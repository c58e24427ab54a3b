"""The list of analyses, with the question that each answers and its options. A new analysis is a module and an entry here.

The module has the name of its analysis. It has ``compute(results, **options)``, which returns a frozen record,
``numbers(record)``, which returns CSV, ``build_tables(record)`` if it has tables, ``plot(record, style)`` and
``write_caption(record)`` if it has a figure, and ``make_output(results, style, **options)``, which combines them. This module
imports nothing heavy: it loads the module of an analysis when it makes that analysis.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from orca_sweep.registry import Registry

if TYPE_CHECKING:
    from orca_sweep.analysis.writing import Output
    from orca_sweep.results import Results


@dataclass(frozen=True, kw_only=True)
class Option:
    """An option of an analysis: ``--name`` on the command line, a keyword argument of ``make_output``."""

    name: str
    kind: Literal["text", "texts", "number", "share", "flag", "width"]
    """texts: may be repeated; share: a number above 0 and below 1; width: a word or a number."""
    meaning: str
    metavar: str = ""
    keyword: str = ""
    """The keyword of ``make_output``, if it is not the name."""

    @property
    def parameter(self) -> str:
        """The keyword of ``make_output``."""
        return self.keyword or self.name.replace("-", "_")


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """A figure, table, or question, with its options."""

    name: str
    """The name of the analysis, its module, its files, and its command."""
    answers: str
    """The question it answers."""
    options: tuple[Option, ...] = ()
    title: str = ""
    """The title of the figure in the report; empty if the report shows the analysis in another way."""
    factor: str = ""
    """The factor that a figure of the study is about: a launch draws the figure if the sweep varies it."""
    least_levels: int = 2
    """The minimum number of factor levels for a useful figure."""
    has_figure: bool = True

    @property
    def all_options(self) -> tuple[Option, ...]:
        """Its own options, then those of its figure."""
        return (*self.options, *PICTURE_OPTIONS * self.has_figure)


BASE = Option(
    name="base", kind="texts", metavar="FACTOR=LEVEL", meaning="level of the base cell; may be repeated"
)  # fmt: skip
MARGIN = Option(
    name="margin",
    kind="texts",
    metavar="[TASK=]NUMBER",
    meaning="smallest difference that matters; may be repeated",
)
METRIC = Option(name="metric", kind="text", meaning="column to compare; default: the metric of the space")
LEVEL = Option(name="level", kind="share", meaning="confidence level of the intervals; default: 0.95")
COMPLETE_PAIRS = Option(
    name="complete-pairs",
    kind="flag",
    keyword="complete_pairs_only",
    meaning="judge cells that lack pairs from their complete pairs",
)

WITHOUT = Option(
    name="without",
    kind="texts",
    metavar="FACTOR=LEVEL",
    meaning="level, seed or task to leave out; may be repeated",
)
OF_CLAIMS = (
    replace(BASE, meaning="level of the setting to judge at; may be repeated"),
    MARGIN,
    METRIC,
    LEVEL,
    COMPLETE_PAIRS,
    Option(
        name="least-correlation",
        kind="number",
        meaning="least rank correlation of OTDD and metric that counts; default: 0.3",
    ),
)
PICTURE_OPTIONS = (
    Option(
        name="width",
        kind="width",
        metavar="column|page|INCHES",
        meaning="width of the figure: column is 3.25 inches, page 6.75; default: page",
    ),
    Option(name="font-size", kind="number", metavar="POINTS", meaning="size of the text in the figure; default: 8"),
    Option(
        name="no-caption",
        kind="flag",
        meaning="leave the caption out of the picture; it is always written as a text file",
    ),
)
"""Of every analysis that has a figure."""

ANALYSES: Registry[Analysis] = Registry("analysis")
for _analysis in (
    Analysis(
        name="figure2_proxies",
        answers="does it matter which proxy the embedder is aligned to, or whether it is aligned at all?",
        title="Fine-tuning curves and final metric",
        factor="proxy",
    ),
    Analysis(
        name="figure3_otdd_vs_error",
        answers="does more embedder training, and so a lower OTDD, mean a lower error (or a higher score)?",
        title="Alignment objective and error over embedder training",
        factor="embedder.epochs",
        least_levels=3,
    ),
    Analysis(
        name="figure4_freezing",
        answers="what do embedder and body each contribute, and what is lost where one of them is frozen?",
        title="Freeze schedules",
        factor="finetune.freeze",
    ),
    Analysis(
        name="figure5_pretraining",
        answers="how much pre-training does the body need, and can embedder training replace some of it?",
        title="Error over the amount of pre-training",
        factor="body.pretrain_fraction",
        least_levels=3,
    ),
    Analysis(
        name="table_results",
        answers="what did every cell reach, over how many seeds, and which trials are missing?",
        options=(METRIC, LEVEL),
        has_figure=False,
    ),
    Analysis(
        name="table_effects",
        answers="does each cell help or hurt against the base cell, or make no meaningful difference?",
        options=(BASE, MARGIN, METRIC, LEVEL, COMPLETE_PAIRS),
    ),
    Analysis(
        name="importance",
        answers="what is each changed part of the base cell worth (drop_one, add_one, one_at_a_time)?",
        options=(BASE, MARGIN, METRIC, LEVEL, COMPLETE_PAIRS),
    ),
    Analysis(
        name="factor_effects",
        answers="which factors matter, and which act together (full designs and two-level fractions)?",
        options=(
            WITHOUT,
            BASE,
            MARGIN,
            METRIC,
            LEVEL,
            Option(
                name="pooled",
                kind="flag",
                meaning="show F tests of the model that assumes the same spread in all cells",
            ),
        ),
    ),
    Analysis(
        name="half_normal",
        answers="which effects of a two-level design or a fraction stand out from the rest?",
        options=(WITHOUT, BASE, METRIC, LEVEL),
    ),
    Analysis(
        name="answer",
        answers="on one screen, what does each task say of each claim, by how much, and what is the verdict over tasks?",
        options=OF_CLAIMS,
    ),
    Analysis(
        name="claims",
        answers="does this sweep support or contradict the study's claims, and ours?",
        options=OF_CLAIMS,
    ),
    Analysis(
        name="summary_over_tasks",
        answers="what does each combination of levels change over all tasks, in percent of the base cell?",
        options=(
            BASE,
            METRIC,
            LEVEL,
            replace(COMPLETE_PAIRS, meaning="where pairs are missing, use the seeds with a pair in every task"),
        ),
    ),
    Analysis(
        name="seed_noise",
        answers="how large is the spread over seeds, where does it come from, and how many seeds does an effect need?",
        options=(
            BASE,
            Option(
                name="effect",
                kind="texts",
                metavar="[TASK=]NUMBER",
                meaning="difference to detect with the seeds needed; may be repeated",
            ),
            METRIC,
            LEVEL,
        ),
    ),
    Analysis(
        name="flattery",
        answers="how much better would test metrics look if epochs, cells or seeds were chosen on test?",
    ),
    Analysis(
        name="cost",
        answers="how many hours and GPU-hours did each cell and stage take, and what did reuse save?",
        options=(
            Option(
                name="gpus-per-trial",
                kind="number",
                meaning="GPUs per trial, for rows without gpu_s; default: 1",
            ),
        ),
    ),
):
    ANALYSES.add(_analysis)
ANY_FIGURE = "figure2_proxies"
"""The figure that suits any sweep: a line per level of its first factor."""


def find_figures() -> tuple[Analysis, ...]:
    """Returns the figures of the study."""
    analyses = (ANALYSES.get(name) for name in ANALYSES.names())
    return tuple(analysis for analysis in analyses if analysis.factor)


def choose_figures(results: "Results") -> tuple[str, ...]:
    """Returns the names of the figures that suit a sweep: of its design, then those whose factor it varies.

    If it varies the factor of none, the figure that suits any sweep follows those of its design.
    """
    # The most specific question first: nearly every sweep varies the proxy.
    fitting = (figure.name for figure in reversed(find_figures()) if _is_varied(results, figure))
    return (*_choose_by_design(results), *(tuple(fitting) or (ANY_FIGURE,)))


def _choose_by_design(results: "Results") -> tuple[str, ...]:
    """Returns the analyses of the design that the cells show: one changed factor at a time, or a fraction."""
    from orca_sweep.analysis import half_normal, importance

    if importance.is_suited(results):
        return (importance.NAME,)
    from orca_sweep.analysis import factor_effects

    return (factor_effects.NAME, half_normal.NAME) if half_normal.is_suited(results) else ()


def _is_varied(results: "Results", figure: Analysis) -> bool:
    return figure.factor in results.factors and results.labels[figure.factor].nunique() >= figure.least_levels


def load_analysis(name: str) -> Any:
    """Returns the module of an analysis.

    Raises:
        InputError: if no analysis has this name.
    """
    return import_module(f"orca_sweep.analysis.{ANALYSES.get(name).name}")


def make_output(name: str, results: "Results", options: Mapping[str, Any] | None = None) -> "Output":
    """Returns what an analysis writes; ``options`` are keyword arguments of its ``make_output``, or of its figure.

    Raises:
        InputError: if the analysis is unknown, if the tables lack what an option names, if they cannot answer the
            question, or if the figure cannot have that size.
    """
    from orca_sweep.analysis.figure_style import read_style
    from orca_sweep.analysis.fonts import explain_missing_letters, list_texts
    from orca_sweep.analysis.smoke import mark_output

    own, look = dict(options or {}), {}
    for option in PICTURE_OPTIONS * ANALYSES.get(name).has_figure:
        if option.parameter in own:
            look[option.parameter] = own.pop(option.parameter)
    if ANALYSES.get(name).has_figure:
        own["style"] = replace(read_style(**look), notice=results.smoke_warning)
    output: Output = mark_output(load_analysis(name).make_output(results, **own), results)
    warning = "" if output.figure is None else explain_missing_letters(list_texts(output.figure))
    return replace(output, warnings=(*output.warnings, warning)) if warning else output


def write_analysis(out: Path, name: str, results: "Results", options: Mapping[str, Any] | None = None) -> list[Path]:
    """Makes an analysis, writes it into a folder and returns the paths of its files.

    Raises:
        InputError: as ``make_output``; also with each file in the way that no analysis wrote.
        OSError: if the system refuses to write; no file is half-written then.
    """
    from orca_sweep.analysis.writing import write_output

    return write_output(out, name, make_output(name, results, options))
