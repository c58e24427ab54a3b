"""What follows a launch or a reveal: the tables of the sweep, and the figures that suit it."""

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from orca_sweep.errors import InputError, OrcaSweepError, first_line

if TYPE_CHECKING:
    from orca_sweep.results import Results, Reveal


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A figure that could not be drawn."""

    figure: str
    reason: str

    def __str__(self) -> str:
        return f"no figure: {self.figure}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The figures that suit a sweep."""

    pictures: tuple[Path, ...]
    """As PNG."""
    refusals: tuple[Refusal, ...]
    """Figures that could not be drawn."""
    warnings: tuple[str, ...]
    """What the figures lack, such as letters that no installed font has."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What a sweep folder holds after a launch."""

    results: "Results"
    drawn: Drawn

    @property
    def notes(self) -> tuple[str, ...]:
        """What the tables and figures lack, a sentence each."""
        return (*self.results.notes, *map(str, self.drawn.refusals), *self.drawn.warnings)


def finish_sweep(folder: Path) -> Finished:
    """Makes tables and figures from the records of a sweep, however it ended.

    Raises:
        InputError: if something in the folder is not the sweep's, or damaged.
        StorageError: if a table cannot be written.
    """
    from orca_sweep.results import collect

    results = collect([folder], folder / "tables")
    return Finished(results=results, drawn=draw_figures(results, folder / "figures"))


def reveal_sweep(folder: Path) -> tuple["Reveal", Finished]:
    """Reveals the test metrics of the trials that have ended, logs that, and makes tables and figures again.

    Raises:
        InputError: if the folder holds no sweep, or every record with test metrics is damaged.
        StorageError: if the log or a table cannot be written.
    """
    from orca_sweep.results import reveal

    revealed = reveal(folder)
    finished = finish_sweep(folder)
    if not revealed.trials and revealed.damaged:
        raise InputError(list(revealed.damaged))
    return revealed, finished


def draw_figures(results: "Results", out: Path) -> Drawn:
    """Draws the figures that suit a sweep into a folder.

    The numbers of a sweep do not depend on a figure, so no reason is an error.
    """
    from orca_sweep.analysis.catalogue import choose_figures, make_output
    from orca_sweep.analysis.writing import write_output

    pictures: list[Path] = []
    refusals: list[Refusal] = []
    lacks: list[str] = []
    without_notes = replace(results, notes=())  # the summary prints them
    for name in choose_figures(results):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                output = make_output(name, without_notes)
                paths = write_output(out, name, output)
        except Exception as error:
            reason = str(error) if isinstance(error, OrcaSweepError) else first_line(error)
            refusals.append(Refusal(figure=name, reason=reason))
        else:
            pictures += [path for path in paths if path.suffix == ".png"]
            lacks += [f"{name}: {warning}" for warning in output.warnings]
    return Drawn(pictures=tuple(pictures), refusals=tuple(refusals), warnings=tuple(lacks))
