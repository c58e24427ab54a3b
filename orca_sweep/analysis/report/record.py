"""The report as a frozen record: everything that the page shows but its figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orca_sweep.analysis import table_effects, table_results
from orca_sweep.analysis.compared import compared
from orca_sweep.analysis.report.comparisons import TaskLines, effects_of, lines_of
from orca_sweep.analysis.report.completeness import Matrix, count_statuses, make_matrices
from orca_sweep.analysis.report.compute_statement import compute_statement
from orca_sweep.analysis.report.methods import describe_methods
from orca_sweep.analysis.report.realised import TaskRealised, measure_realised
from orca_sweep.analysis.report.trials import curves_json, t_quantiles, trials_json
from orca_sweep.analysis.table_effects import Effects
from orca_sweep.analysis.table_results import ResultsTable
from orca_sweep.analysis.tables import arms
from orca_sweep.analysis.writing import Table, format_latex
from orca_sweep.results import Results
from orca_sweep.stats.modes import describe_mode

NAME = "report"


@dataclass(frozen=True, kw_only=True)
class Source:
    """One of the files that the report was made from."""

    name: str
    n_rows: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Additions:
    """What a report shows that others have made from the same tables."""

    sources: tuple[Source, ...] = ()
    """The files that the tables were read from."""
    made_at: str = ""
    """When the report was made. Without it the newest end of a trial stands for it: equal tables give equal reports."""
    claims: tuple[Table, ...] = ()
    """What these rows say of the study's claims, shown above the verdicts."""
    flattery: tuple[Table, ...] = ()
    """What choosing on test data would have flattered, shown below the verdicts; only where test metrics are revealed."""
    noise: tuple[Table, ...] = ()
    """Which source of randomness the spread over seeds comes from, shown below the results."""


NO_ADDITIONS = Additions()


@dataclass(frozen=True)
class Head:
    """What the report is of."""

    names: tuple[str, ...]
    questions: tuple[str, ...]
    made: str
    sources: tuple[Source, ...]
    column: str
    measures: str
    """'digits: error, lower is better'."""
    custody: tuple[str, ...]
    """Whether test metrics are sealed, or when and how often they were looked at."""
    is_sealed: bool


@dataclass(frozen=True)
class Report:
    """All parts of the page, in its order."""

    head: Head
    matrices: tuple[Matrix, ...]
    totals: Mapping[str, int]
    effects: Effects | None
    """None where no task has two cells."""
    tasks: tuple[TaskLines, ...]
    claims: tuple[Table, ...]
    flattery: tuple[Table, ...]
    noise: tuple[Table, ...]
    notes: tuple[str, ...]
    """What was left out of comparisons."""
    table: ResultsTable
    realised: tuple[TaskRealised, ...]
    methods: tuple[str, ...]
    compute: tuple[str, ...]
    level: float
    trials: Mapping[str, Any]
    curves: Mapping[str, Mapping[str, Sequence[Any]]]
    quantiles: tuple[float, ...]
    """By n from 2 on: how many standard errors the half-width of an interval over n seeds is."""
    downloads: Mapping[str, str]
    """Text by the name of the file that it is downloaded as."""


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
        level: of the intervals; words are judged at 1 - level.
        complete_pairs_only: judge a cell from the pairs there are, where seeds lack one.
        additions: what the page shows beside.

    Raises:
        InputError: for what was asked and the tables do not have, and where there are no trials.
    """
    found, like = arms(results), compared(results, base)
    own = found if like is results else arms(like)
    effects = effects_of(like, own, base=base, margin=margin, level=level, complete_pairs_only=complete_pairs_only)
    done, table = measure_realised(results, found), table_results.compute(like, level=level)
    squares = make_matrices(results, found)
    return Report(
        head=_make_head(results, table, additions.sources, additions.made_at),
        matrices=squares,
        totals=count_statuses(squares),
        effects=effects,
        tasks=lines_of(effects, done),
        claims=additions.claims,
        flattery=additions.flattery,
        noise=additions.noise,
        table=table,
        realised=done,
        methods=describe_methods(like, own, effects, level, results.metric),
        notes=like.notes,
        compute=compute_statement(results),
        level=level,
        trials=trials_json(results),
        curves=curves_json(results),
        quantiles=tuple(t_quantiles(max(len(arm.statuses) for arm in found), level)),
        downloads=_make_downloads(table, effects),
    )


def _make_head(results: Results, table: ResultsTable, sources: tuple[Source, ...], made_at: str) -> Head:
    measures = "; ".join(f"{task.task}: {task.metric}, {describe_mode(task.mode)}" for task in table.tasks)
    return Head(
        names=tuple(dict.fromkeys(filter(None, results.spaces))) or ("sweep",),
        questions=tuple(dict.fromkeys(question.strip() for question in results.questions if question.strip())),
        made=f"Made at {made_at}." if made_at else _describe_newest(results),
        sources=sources,
        column=results.metric,
        measures=measures,
        custody=tuple(_describe_custody(results)),
        is_sealed=results.n_sealed > 0,
    )


def _describe_newest(results: Results) -> str:
    """The newest end of a trial, in words."""
    ends: Any = results.trials["ended_at"].dropna() if "ended_at" in results.trials else []
    if not len(ends):
        return "The trials do not tell when they ended."
    return f"As of {max(ends):%Y-%m-%d %H:%M:%S} UTC, when the last trial ended."


def _describe_custody(results: Results) -> Sequence[str]:
    said = []
    if results.n_sealed:
        said.append(
            f"The test metrics of {results.n_sealed} ok trials are sealed: nobody has been shown them, and they are no part"
            f" of this page. Everything here compares {results.metric}."
        )
    looks = [f"{_format_moment(time)} ({space or 'sweep'}: {n} trials)" for space, time, n in results.reveals]
    if looks:
        said.append(f"Test metrics were revealed {_count_times(len(looks))}: {'; '.join(looks)}.")
    elif not results.n_sealed:
        said.append(_never_sealed(results))
    later = results.trials["n_reveals_before"].fillna(0).gt(0).sum() if "n_reveals_before" in results.trials else 0
    if later:
        said.append(f"{later} trials began after test metrics of their sweep had been seen.")
    return said


def _format_moment(time: str) -> str:
    """'2026-11-02 10:00:00 UTC' of what the log of reveals has."""
    return f"{time[:19].replace('T', ' ')} UTC" if time.endswith("+00:00") else time


def _count_times(n: int) -> str:
    return "once" if n == 1 else f"{n} times"


def _never_sealed(results: Results) -> str:
    columns = [name for name in ("test_metric_best", "test_metric_last") if name in results.trials]
    if columns and results.trials[columns].notna().any(axis=None):
        return "Test metrics were never sealed, so how often they were looked at is not known."
    return "There is no test metric in these tables yet."


def _make_downloads(table: ResultsTable, effects: Effects | None) -> dict[str, str]:
    texts = {
        "results.csv": table_results.numbers(table),
        "results.tex": format_latex(table_results.build_tables(table)),
    }
    if effects is None:
        return texts
    shown = table_effects.build_tables(effects)
    return {"effects.csv": table_effects.numbers(effects), "effects.tex": format_latex(shown), **texts}
