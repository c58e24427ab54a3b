"""The margin of a task: from the command line, else from its space, else from an A/A cell, else none."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from orca_sweep.analysis.tables import numbers_by_task, pair_aa_cells
from orca_sweep.analysis.writing import format_percent
from orca_sweep.errors import InputError
from orca_sweep.results import Cell, Results
from orca_sweep.stats import NoiseMargin, aa_margin

MOST_SPACES = 3
"""More spaces than these are counted rather than named."""


@dataclass(frozen=True, kw_only=True)
class Margin:
    """The smallest difference that matters in a task, and its source."""

    value: float
    source: str
    kind: Literal["given", "fixed", "noise", "none"]
    noise: NoiseMargin | None = None

    @property
    def short(self) -> str:
        """Short enough for a figure: 'margin 0.02, fixed in the space'."""
        words = {"given": "given", "fixed": "fixed in the space", "noise": "from the A/A cell", "none": ""}
        return f"margin {self.value:.3g}, {words[self.kind]}" if self.kind != "none" else "no margin"

    @property
    def limit(self) -> float | None:
        """The value, or None if there is no margin; a margin of 0 is one that somebody fixed."""
        return None if self.kind == "none" else self.value

    @property
    def number(self) -> str:
        """The value as text: '0.02', or 'none'."""
        return "none" if self.kind == "none" else f"{self.value:.3g}"

    def describe(self) -> str:
        """Returns what words are judged against: 'a margin of 0.02, given for this analysis', or zero and why."""
        if self.kind == "none":
            return f"zero, with no margin, {self.source}"
        limits = (
            f" ({format_percent(self.noise.level)} limits {self.noise.low:.3g} to {self.noise.high:.3g})"
            if self.noise
            else ""
        )
        return f"a margin of {self.number}{limits}, {self.source}"


def fixed_margins(results: Results, given: Sequence[str], tasks: Sequence[str]) -> dict[str, Margin]:
    """Returns the margin of each task that has one from the command line or else from its space.

    Args:
        results: the tables.
        given: values of --margin: '0.01' for all tasks, 'task=0.01' for one.
        tasks: the tasks in the tables.

    Raises:
        InputError: for a text that is not a margin, and for tasks whose spaces fix different margins while --margin
            gives none.
    """
    numbers = numbers_by_task("--margin", given, tasks)
    margins = {
        task: Margin(value=number, source="given for this analysis", kind="given") for task, number in numbers.items()
    }
    problems = []
    for task in (task for task in tasks if task not in margins):
        fixed = results.margins.get(task, ())
        if len({margin for _, margin in fixed}) > 1:
            by_space = ", ".join(f"{margin:g} in {space}" for space, margin in fixed)
            problems.append(
                f"{task}: its spaces fix different margins ({by_space}). Choose one with --margin, such as"
                f" --margin {task}={fixed[0][1]:g}."
            )
        elif fixed:
            spaces = [space for space, _ in fixed]
            margins[task] = Margin(value=fixed[0][1], source=f"fixed in {_name_spaces(spaces)}", kind="fixed")
    if problems:
        raise InputError(problems)
    return margins


def _name_spaces(spaces: Sequence[str]) -> str:
    if len(spaces) > MOST_SPACES:
        return f"{len(spaces)} spaces ({spaces[0]} and others)"
    return f"the space {spaces[0]}" if len(spaces) == 1 else f"the spaces {', '.join(spaces)}"


def margin_of(cells: Sequence[Cell], base: Cell | None, fixed: Mapping[str, Margin], level: float) -> Margin:
    """Returns the margin of a task: the fixed one, else that of the A/A cell of the base (or of another cell), else none."""
    task = cells[0].task
    if task in fixed:
        return fixed[task]
    pairs = sorted(pair_aa_cells(cells), key=lambda pair: pair[1] is not base)
    for repeat, reference in pairs:
        noise = aa_margin(repeat.known_values, reference.known_values, level=level)
        if math.isfinite(noise.margin):
            source = (
                "the standard deviation of the difference between two seeds of one cell, from the A/A cell of"
                f" {reference.name} ({noise.n_aa} and {noise.n_reference} seeds)"
            )
            return Margin(value=noise.margin, source=source, kind="noise", noise=noise)
    why = "the A/A cell has too few ok trials" if pairs else "there is no A/A cell"
    source = f"because none is given or fixed and {why}, so nothing can be shown to make no difference"
    return Margin(value=0.0, source=source, kind="none")
