"""The report as a frozen record: everything on the page except the figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orca_sweep.analysis import answer as answers
from orca_sweep.analysis import factor_effects, table_effects, table_results
from orca_sweep.analysis.answer_record import Answer
from orca_sweep.analysis.compared import compared, merge_equal_cells
from orca_sweep.analysis.report.answer_page import begins_with
from orca_sweep.analysis.report.comparisons import TaskLines, effects_of, lines_of
from orca_sweep.analysis.report.completeness import Matrix, count_statuses, describe_candidates, make_matrices
from orca_sweep.analysis.report.compute_statement import compute_statement
from orca_sweep.analysis.report.methods import describe_methods
from orca_sweep.analysis.report.realised import TaskRealised, measure_realised
from orca_sweep.analysis.report.trials import curves_json, t_quantiles, trials_json
from orca_sweep.analysis.smoke import mark_tables
from orca_sweep.analysis.table_effects import Effects
from orca_sweep.analysis.table_results import ResultsTable
from orca_sweep.analysis.tables import count_ok, describe_direction, read_cells
from orca_sweep.analysis.writing import Table, count_things, format_latex, format_moment
from orca_sweep.errors import InputError
from orca_sweep.results import Results

NAME = "report"
MOST_NAMES = 3
"""More spaces than these are folded, with their questions."""
NO_FACTORS = (
    "No effects of factors, only of cells: the ok cells are neither all combinations of the levels, each with every seed, nor a"
    " regular fraction of them. 'orca-sweep analyse factor_effects' lists the gaps."
)


@dataclass(frozen=True, kw_only=True)
class Source:
    """One of the files that the report is made from."""

    name: str
    n_rows: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Additions:
    """Parts of a report that other modules make from the same tables."""

    sources: tuple[Source, ...] = ()
    """The files that the tables were read from."""
    suite: str = ""
    """The name of the suite that the tables are of."""
    made_at: str = ""
    """When the report was made. If empty, the report shows when the last trial ended: equal tables give equal reports."""
    answer: Answer | None = None
    """What every task says of every claim, with which the page of several tasks begins."""
    claims: tuple[Table, ...] = ()
    """The verdicts of these rows on the study's claims, shown below the verdicts on cells."""
    flattery: tuple[Table, ...] = ()
    """How much selecting on test data would have flattered, shown below the claims; only for revealed test metrics."""
    noise: tuple[Table, ...] = ()
    """From which source of randomness the spread over seeds comes, shown below the results."""


NO_ADDITIONS = Additions()


@dataclass(frozen=True, kw_only=True)
class Head:
    """The head of the page: which sweeps, from which files, on which metric."""

    title: str
    """The names of the sweeps, or that of their suite."""
    spaces: tuple[tuple[str, str], ...]
    """Name and question of each space, if they are too many for the head of a page."""
    questions: tuple[str, ...]
    warning: str
    """That the rows are of a smoke sweep; else empty."""
    state: str
    """How many planned trials are ok, in words."""
    made: str
    sources: tuple[Source, ...]
    column: str
    measures: str
    """'digits: error, lower is better'."""
    custody: tuple[str, ...]
    """Whether test metrics are sealed, or else when and how often they were revealed."""
    is_sealed: bool


@dataclass(frozen=True, kw_only=True)
class Report:
    """All parts of the page."""

    head: Head
    matrices: tuple[Matrix, ...]
    totals: Mapping[str, int]
    """Planned trials by status."""
    candidates: str
    """A sentence about the candidates of tuning; empty if there are none."""
    effects: Effects | None
    """None if no task has two cells."""
    tasks: tuple[TaskLines, ...]
    factors: tuple[Table, ...]
    """Effects of factors, judged like the cells; empty if fewer than two vary, or no task is a design of them."""
    no_factors: str
    """Why the cells are no design of factors, if several vary."""
    answer: Answer | None
    claims: tuple[Table, ...]
    flattery: tuple[Table, ...]
    noise: tuple[Table, ...]
    notes: tuple[str, ...]
    """Which cells are left out of comparisons, in words."""
    table: ResultsTable
    realised: tuple[TaskRealised, ...]
    methods: tuple[str, ...]
    compute: tuple[str, ...]
    level: float
    trials: Mapping[str, Any]
    curves: Mapping[str, Mapping[str, Sequence[Any]]]
    quantiles: tuple[float, ...]
    """The half-width of an interval over n seeds in standard errors, for n = 2, 3, ..."""
    downloads: Mapping[str, str]
    """Text by file name."""


def compute(
    results: Results,
    base: Sequence[str] = (),
    margin: Sequence[str] = (),
    level: float = 0.95,
    complete_pairs_only: bool = False,
    additions: Additions = NO_ADDITIONS,
) -> Report:
    """Returns the report of a sweep, finished or not.

    Args:
        results: the tables; ``metric`` is what is compared.
        base: levels of the base cell, each 'factor=level'.
        margin: '0.01' for all tasks, 'task=0.01' for one.
        level: confidence level of the intervals; words are judged at 1 - level.
        complete_pairs_only: judge a cell from its complete pairs if some seeds give none.
        additions: parts of the page that other modules make.

    Raises:
        InputError: for names that the tables do not have, and for tables without trials.
    """
    cells, comparable = read_cells(results), compared(results, base)
    compared_cells = cells if comparable is results else read_cells(comparable)
    once = merge_equal_cells(comparable)
    once_cells = compared_cells if once is comparable else read_cells(once)
    effects = effects_of(
        once, once_cells, base=base, margin=margin, level=level, complete_pairs_only=complete_pairs_only
    )
    realised, table = measure_realised(results, cells), table_results.compute(comparable, level=level)
    matrices = make_matrices(results, cells)
    totals = count_statuses(matrices)
    factors, no_factors = _build_factor_tables(once, effects)
    return Report(
        head=_make_head(results, table, totals, additions),
        matrices=matrices,
        totals=totals,
        candidates=describe_candidates(matrices),
        effects=effects,
        tasks=lines_of(effects, realised),
        factors=factors,
        no_factors=no_factors,
        answer=additions.answer,
        claims=additions.claims,
        flattery=additions.flattery,
        noise=additions.noise,
        table=table,
        realised=realised,
        methods=describe_methods(
            comparable, compared_cells, effects, level=level, column=results.metric, has_factors=bool(factors)
        ),
        notes=once.notes,
        compute=compute_statement(results),
        level=level,
        trials=trials_json(results),
        curves=curves_json(results),
        quantiles=tuple(t_quantiles(max(len(cell.trials) for cell in cells), level)),
        downloads=_make_downloads(results, table, effects, additions.answer),
    )


def _build_factor_tables(results: Results, effects: Effects | None) -> tuple[tuple[Table, ...], str]:
    """Returns the tables of factor effects, or none and why the page has none."""
    if effects is None or not factor_effects.has_several_factors(results):
        return (), ""
    try:
        factors = factor_effects.compute_beside(effects, results)
    except InputError:  # the page compares cells one by one
        return (), NO_FACTORS
    return factor_effects.build_tables(replace(factors, notes=())), ""  # the page has the notes


def _make_head(results: Results, table: ResultsTable, totals: Mapping[str, int], additions: Additions) -> Head:
    measures = "; ".join(
        f"{task.task}: {task.metric}, {describe_direction(task.metric, task.mode)}" for task in table.tasks
    )
    names = tuple(dict.fromkeys(filter(None, results.spaces))) or ("sweep",)
    are_many = len(names) > MOST_NAMES
    return Head(
        title=additions.suite or (f"{len(names)} spaces" if are_many else ", ".join(names)),
        spaces=tuple(dict(zip(results.spaces, results.questions, strict=True)).items()) if are_many else (),
        questions=tuple(dict.fromkeys(question.strip() for question in results.questions if question.strip())),
        warning=results.smoke_warning,
        state=count_ok(totals.get("ok", 0), sum(totals.values())),
        made=f"Made at {additions.made_at}." if additions.made_at else _describe_newest(results),
        sources=additions.sources,
        column=results.metric,
        measures=measures,
        custody=tuple(_describe_custody(results)),
        is_sealed=results.n_sealed > 0,
    )


def _describe_newest(results: Results) -> str:
    """Returns when the last trial ended, in words."""
    ends: Any = results.trials["ended_at"].dropna() if "ended_at" in results.trials else []
    if not len(ends):
        return "No trial has recorded when it ended."
    return f"As of {max(ends):%Y-%m-%d %H:%M:%S} UTC, when the last trial ended."


def _describe_custody(results: Results) -> Sequence[str]:
    sentences = []
    if results.n_sealed:
        sentences.append(
            f"The test metrics of {count_things(results.n_sealed, 'ok trial')} are sealed: nobody has seen them, and they are not"
            f" part of this page. All comparisons here use {results.metric}."
        )
    looks = [
        f"{format_moment(time)} ({space or 'sweep'}: {count_things(n, 'trial')})" for space, time, n in results.reveals
    ]
    if looks:
        sentences.append(f"Test metrics were revealed {_count_times(len(looks))}: {'; '.join(looks)}.")
    elif not results.n_sealed:
        sentences.append(_never_sealed(results))
    later = results.trials["n_reveals_before"].fillna(0).gt(0).sum() if "n_reveals_before" in results.trials else 0
    if later:
        sentences.append(f"{count_things(later, 'trial')} began after test metrics of their sweep had been revealed.")
    return sentences


def _count_times(n: int) -> str:
    return "once" if n == 1 else f"{n} times"


def _never_sealed(results: Results) -> str:
    columns = [name for name in ("test_metric_best", "test_metric_last") if name in results.trials]
    if columns and results.trials[columns].notna().any(axis=None):
        return "Test metrics were never sealed, so it is unknown how often they were looked at."
    return "These tables have no test metric yet."


def _make_downloads(
    results: Results, table: ResultsTable, effects: Effects | None, answer: Answer | None
) -> dict[str, str]:
    """Returns the files of the page; each is read alone, so those of a smoke sweep say that it is one."""
    shown: dict[str, tuple[str, Sequence[Table]]] = {}
    if effects is not None:
        shown["effects"] = (table_effects.numbers(effects), table_effects.build_tables(effects))
    if answer and begins_with(answer):
        shown["answer"] = (answers.numbers(answer), answers.build_tables(answer))
    shown["results"] = (table_results.numbers(table), table_results.build_tables(table))
    files: dict[str, str] = {}
    for name, (numbers, tables) in shown.items():
        files |= {f"{name}.csv": numbers, f"{name}.tex": format_latex(mark_tables(tables, results))}
    return files
