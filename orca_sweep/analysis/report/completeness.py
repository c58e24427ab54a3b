"""What is there and what is lacking: a matrix of cells by seeds per task, each square a trial with its status."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orca_sweep.analysis.tables import Arm, by_task, describe_lacking, find_varying, levels_of
from orca_sweep.results import Results, with_roles

NOT_RUN = "unfinished"
MARKS: Mapping[str, tuple[str, str]] = {
    "ok": ("✓", "ended well"),
    "failed": ("F", "ended by an error"),
    "diverged": ("D", "a loss or metric was not finite any more"),
    "oom": ("M", "out of memory"),
    "timeout": ("T", "over the time that its space gives it"),
    "pruned": ("P", "ended early, since it fell behind"),
    "lost": ("L", "given up after its workers died"),
    NOT_RUN: ("·", "not run to an end yet"),
}
"""Each status as a mark that needs no colour, and in words."""
UNKNOWN = ("?", "a status that this version does not know")


@dataclass(frozen=True)
class Square:
    """One trial."""

    trial_id: str
    seed: int
    status: str

    @property
    def mark(self) -> str:
        """The status as a letter or sign."""
        return MARKS.get(self.status, UNKNOWN)[0]

    @property
    def look(self) -> str:
        """The status as a name in a style sheet; never a word that a table has brought along."""
        return self.status.replace(" ", "-") if self.status in MARKS else "unknown"


@dataclass(frozen=True)
class Row:
    """One cell, or its A/A arm: its trials by seed, and the candidates of its tuning."""

    cell_id: str
    name: str
    role: str
    squares: tuple[Square | None, ...]
    """In the order of the matrix' seeds; None where none was planned."""
    searched: tuple[Square, ...]

    @property
    def n_planned(self) -> int:
        """Trials that were planned, candidates of tuning apart."""
        return sum(square is not None for square in self.squares)

    @property
    def n_ok(self) -> int:
        """Those that ended well."""
        return sum(square is not None and square.status == "ok" for square in self.squares)

    @property
    def lacking(self) -> str:
        """'2 failed, 1 unfinished'; empty if nothing is lacking."""
        return describe_lacking(Counter(square.status for square in self.squares if square))


@dataclass(frozen=True)
class Matrix:
    """The cells of one task by seed."""

    task: str
    paths: tuple[str, ...]
    """The factors that the rows' names are the levels of."""
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]


def make_matrices(results: Results, arms: Sequence[Arm]) -> tuple[Matrix, ...]:
    """Returns a matrix for each task, cells in the order of the table, A/A arms last."""
    squares = _make_squares(results)
    return tuple(_make_matrix(task, found, squares) for task, found in by_task(arms).items())


def _make_squares(results: Results) -> dict[tuple[str, bool], list[Square]]:
    """The trials of each cell, and those of its search."""
    trials = with_roles(results.trials)
    columns = [trials[name] for name in ("cell_id", "role", "trial_id", "seed", "status")]
    found: dict[tuple[str, bool], list[Square]] = {}
    for cell_id, role, trial_id, seed, status in zip(*columns, strict=True):
        square = Square(str(trial_id), int(seed), str(status))
        found.setdefault((str(cell_id), role == "search"), []).append(square)
    return found


def _make_matrix(task: str, found: Sequence[Arm], squares: Mapping[tuple[str, bool], Sequence[Square]]) -> Matrix:
    paths = find_varying(found)
    seeds = tuple(sorted({seed for arm in found for seed in arm.statuses}))
    ordered = sorted(found, key=lambda arm: arm.role == "aa")
    rows = tuple(
        _make_row(arm, paths, seeds, squares.get((arm.cell_id, False), ()), squares.get((arm.cell_id, True), ()))
        for arm in ordered
    )
    return Matrix(task, paths, seeds, rows)


def _make_row(arm: Arm, paths: Sequence[str], seeds: Iterable[int], own: Sequence[Square], searched: Any) -> Row:
    by_seed = {square.seed: square for square in own}
    return Row(
        arm.cell_id, levels_of(arm, paths), arm.role, tuple(by_seed.get(seed) for seed in seeds), tuple(searched)
    )


def count_statuses(made: Iterable[Matrix]) -> dict[str, int]:
    """Returns the number of planned trials by status, of all tasks, candidates of tuning apart."""
    rows = (row for matrix in made for row in matrix.rows)
    counts = Counter(square.status for row in rows for square in row.squares if square)
    order = [*MARKS, *sorted(set(counts) - set(MARKS))]
    return {status: counts[status] for status in order if counts[status]}
