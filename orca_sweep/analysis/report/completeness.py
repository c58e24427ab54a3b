"""Which trials are done and which are missing: per task a matrix of cells by seeds, with a square for each trial."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from orca_sweep.analysis.tables import by_task, describe_lacking, find_varying, levels_of
from orca_sweep.results import UNFINISHED, Cell, Results

MARKS: Mapping[str, tuple[str, str]] = {
    "ok": ("✓", "completed"),
    "failed": ("F", "stopped by an error"),
    "diverged": ("D", "a loss or metric became infinite or NaN"),
    "oom": ("M", "ran out of memory"),
    "timeout": ("T", "exceeded the time limit of its space"),
    "pruned": ("P", "stopped early because it fell behind"),
    "lost": ("L", "given up because its worker died too often"),
    UNFINISHED: ("·", "has not run to its end yet"),
}
"""The mark of each status, which is clear without colour, and its meaning."""
UNKNOWN = ("?", "a status unknown to this version")


@dataclass(frozen=True, kw_only=True)
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
        """The style class of the status; 'unknown' for a status that only the table knows."""
        return self.status.replace(" ", "-") if self.status in MARKS else "unknown"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One cell or A/A cell: its trials by seed, and the candidates of its tuning."""

    cell_id: str
    name: str
    role: str
    squares: tuple[Square | None, ...]
    """In the order of the seeds of the matrix; None for a trial that was not planned."""
    searched: tuple[Square, ...]

    @property
    def n_planned(self) -> int:
        """Planned trials, without candidates of tuning."""
        return sum(square is not None for square in self.squares)

    @property
    def n_ok(self) -> int:
        """Planned trials that are ok."""
        return sum(square is not None and square.status == "ok" for square in self.squares)

    @property
    def lacking(self) -> str:
        """'2 failed, 1 unfinished'; empty if all planned trials are ok."""
        return describe_lacking(Counter(square.status for square in self.squares if square))


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """The cells of one task by seed."""

    task: str
    paths: tuple[str, ...]
    """The factors whose levels name the rows."""
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]


def make_matrices(results: Results, cells: Sequence[Cell]) -> tuple[Matrix, ...]:
    """Returns a matrix for each task, with cells in the order of the table and A/A cells last."""
    squares = _make_squares(results)
    return tuple(_make_matrix(task, task_cells, squares) for task, task_cells in by_task(cells).items())


def _make_squares(results: Results) -> dict[tuple[str, bool], list[Square]]:
    """Returns the trials of each cell, and those of its search, by cell id and whether they are of the search."""
    trials = results.trials
    columns = [trials[name] for name in ("cell_id", "role", "trial_id", "seed", "status")]
    squares: dict[tuple[str, bool], list[Square]] = {}
    for cell_id, role, trial_id, seed, status in zip(*columns, strict=True):
        square = Square(trial_id=str(trial_id), seed=int(seed), status=str(status))
        squares.setdefault((str(cell_id), role == "search"), []).append(square)
    return squares


def _make_matrix(task: str, cells: Sequence[Cell], squares: Mapping[tuple[str, bool], Sequence[Square]]) -> Matrix:
    paths = find_varying(cells)
    seeds = tuple(sorted({seed for cell in cells for seed in cell.statuses}))
    rows = []
    for cell in sorted(cells, key=lambda cell: cell.role == "aa"):
        by_seed = {square.seed: square for square in squares.get((cell.cell_id, False), ())}
        rows.append(
            Row(
                cell_id=cell.cell_id,
                name=levels_of(cell, paths),
                role=cell.role,
                squares=tuple(by_seed.get(seed) for seed in seeds),
                searched=tuple(squares.get((cell.cell_id, True), ())),
            )
        )
    return Matrix(task=task, paths=paths, seeds=seeds, rows=tuple(rows))


def _take_once(squares: Iterable[Square]) -> list[Square]:
    return list({square.trial_id: square for square in squares}.values())


def describe_candidates(matrices: Iterable[Matrix]) -> str:
    """Returns a sentence about the candidates of tuning, which are in the tables but are no planned trials of a cell."""
    searched = _take_once(square for matrix in matrices for row in matrix.rows for square in row.searched)
    n_ok = sum(square.status == "ok" for square in searched)
    return f"Candidates of tuning: {n_ok:,} of {len(searched):,} ok; they are in no mean." if searched else ""


def count_statuses(matrices: Iterable[Matrix]) -> dict[str, int]:
    """Returns the number of planned trials by status over all tasks, without candidates of tuning.

    A trial of two cells counts once.
    """
    rows = (row for matrix in matrices for row in matrix.rows)
    counts = Counter(square.status for square in _take_once(square for row in rows for square in row.squares if square))
    order = [*MARKS, *sorted(set(counts) - set(MARKS))]
    return {status: counts[status] for status in order if counts[status]}
