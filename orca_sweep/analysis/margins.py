"""Where a task's margin comes from: the command line, else its space, else an A/A cell, else there is none."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from orca_sweep.analysis.tables import numbers_by_task, pair_aa_cells
from orca_sweep.errors import InputError
from orca_sweep.results import Cell, Results
from orca_sweep.stats import NoiseMargin, aa_margin


@dataclass(frozen=True)
class Margin:
    """The smallest difference that matters in a task, and where it comes from."""

    value: float
    source: str
    kind: Literal["given", "fixed", "noise", "none"]
    noise: NoiseMargin | None = None

    @property
    def short(self) -> str:
        """'margin 0.02, fixed in the space': what a figure has room for."""
        words = {"given": "given", "fixed": "fixed in the space", "noise": "from the A/A cell", "none": ""}
        return f"margin {self.value:.3g}, {words[self.kind]}" if self.kind != "none" else "no margin"


def fixed_margins(results: Results, given: Sequence[str], tasks: Sequence[str]) -> dict[str, Margin]:
    """Returns the margin of each task that has one from the command line or else from its space.

    Args:
        results: the tables.
        given: with --margin: '0.01' for all tasks, 'task=0.01' for one.
        tasks: those that the tables have.

    Raises:
        InputError: for what is no margin, and for tasks whose spaces do not agree on it while none is given.
    """
    numbers = numbers_by_task("--margin", given, tasks)
    found = {task: Margin(number, "given with --margin", "given") for task, number in numbers.items()}
    problems = []
    for task in (task for task in tasks if task not in found):
        fixed = results.margins.get(task, ())
        if len({margin for _, margin in fixed}) > 1:
            said = ", ".join(f"{margin:g} in {space}" for space, margin in fixed)
            problems.append(
                f"{task}: its spaces fix different margins ({said}). Say which one holds with --margin, such as"
                f" --margin {task}={fixed[0][1]:g}."
            )
        elif fixed:
            spaces = [space for space, _ in fixed]
            where = f"the space {spaces[0]}" if len(spaces) == 1 else f"the spaces {', '.join(spaces)}"
            found[task] = Margin(fixed[0][1], f"fixed in {where}", "fixed")
    if problems:
        raise InputError(problems)
    return found


def margin_of(found: Sequence[Cell], base: Cell | None, fixed: Mapping[str, Margin], level: float) -> Margin:
    """Returns the margin of a task: the fixed one, else that of the A/A cell of the base (or of another cell), else 0."""
    task = found[0].task
    if task in fixed:
        return fixed[task]
    pairs = sorted(pair_aa_cells(found), key=lambda pair: pair[1] is not base)
    for repeat, reference in pairs:
        noise = aa_margin(repeat.known_values, reference.known_values, level=level)
        if math.isfinite(noise.margin):
            return Margin(
                noise.margin,
                f"the standard deviation of the difference of two seeds of one cell, from the A/A cell of {reference.name}"
                f" ({noise.n_aa} and {noise.n_reference} seeds)",
                "noise",
                noise,
            )
    why = "the A/A cell has too few ok trials" if pairs else "there is no A/A cell"
    return Margin(0.0, f"none was given or fixed and {why}, so nothing can be shown to make no difference", "none")
