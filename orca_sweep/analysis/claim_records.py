"""What a claim is: the pairs of cells that it compares, and a rule that turns the words of these into what a task says."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from orca_sweep.analysis.cells import ConfiguredCell, TaskCells
from orca_sweep.analysis.over_tasks import LEAST_SHARE, Says

Origin = Literal["study", "ours"]
NONE_OR_WORSE = frozenset({"no meaningful difference", "hurts"})


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two cells that differ only in what a claim is about: is ``a`` better than ``b``?"""

    kind: str
    """The name that the claim's rule uses."""
    name: str
    a: ConfiguredCell
    b: ConfiguredCell
    less: "Pair | None" = None
    """A pair whose difference is taken off, seed by seed: the two differ by an interaction."""
    decides: bool = True
    """Whether the claim's rule reads it; else it is only shown, and is no part of the family that is corrected for."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a claim is judged on in one task: pairs of cells, or cells of a rising amount of embedder training."""

    anchor: ConfiguredCell
    """Its levels name the setting."""
    free: frozenset[str] = frozenset()
    """Fields in which the cells of a pair may differ."""
    pairs: tuple[Pair, ...] = ()
    along: tuple[ConfiguredCell, ...] = ()

    @property
    def cells(self) -> frozenset[str]:
        """Ids of all cells in it."""
        paired = [cell for pair in self.pairs for cell in (pair.a, pair.b)]
        return frozenset(configured.cell.cell_id for configured in (*paired, *self.along))


Words = Sequence[tuple[str, str]]
"""Kind and word of each contrast that decides, in order."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim, and how it is judged."""

    id: str
    origin: Origin
    """Who claims it: the study, or this project."""
    sentence: str
    short: str
    """Two to six words, for the head of a column."""
    source: str
    supports: str
    contradicts: str
    rows: str
    """Which rows it is judged on."""
    recipe: str
    """What a space needs for it."""
    needs: tuple[str, ...]
    """Columns that judging it takes."""
    varied: frozenset[str]
    """Fields outside the setting: the claim compares all their levels."""
    settings: Callable[[TaskCells, Collection[ConfiguredCell]], Iterator[Setting]]
    """(task, cells to start from) -> settings to judge it at, the most usual first."""
    lacks: Callable[[TaskCells], str]
    """What a task without any setting lacks."""
    says: Callable[[Words], Says]
    excludes: Callable[[TaskCells], str] | None = None
    """Why a task can never be judged, whatever cells are added; empty if it can."""
    widen: Callable[[TaskCells, Setting], Setting] | None = None
    """Adds pairs from elsewhere in the task to the setting that is chosen."""
    dims: int | None = None
    """Dimensions of the tasks that it is about; None for all tasks."""
    shows_rest: bool = False
    """Whether tasks of other dimensions are shown, although they do not count."""
    compares_proxies: bool = False
    of_some: bool = False
    """Whether it is about some tasks rather than a share of them."""
    least_share: float = LEAST_SHARE
    """The share of the tasks that can be judged which has to support it."""
    words: Mapping[Says, str] = field(default_factory=dict)
    """What a task that supports or contradicts it is called, if those words would mislead."""

    def name_word(self, says: Says) -> str:
        """Returns what a task says, in the claim's own words if it has some."""
        return self.words.get(says, says)


def first_cell(cells: Iterable[ConfiguredCell], holds: Callable[[ConfiguredCell], bool]) -> ConfiguredCell | None:
    """Returns the first cell for which something holds."""
    return next((cell for cell in cells if holds(cell)), None)


def first_by_value(
    cells: Iterable[ConfiguredCell], value: Callable[[ConfiguredCell], float]
) -> tuple[ConfiguredCell, ...]:
    """Returns the first cell of each value, values rising."""
    first: dict[float, ConfiguredCell] = {}
    for cell in cells:
        first.setdefault(value(cell), cell)
    return tuple(first[key] for key in sorted(first))


def words_of(words: Words, kind: str) -> list[str]:
    """Returns the words of the contrasts of a kind."""
    return [word for other, word in words if other == kind]


def says_all_equal(words: Words) -> Says:
    """Returns what a task says of a claim that none of its contrasts makes a difference."""
    distinct = {word for _, word in words}
    if distinct & {"helps", "hurts"}:
        return "contradicts"
    return "supports" if distinct == {"no meaningful difference"} else "undecided"


def says_none_helps(words: Words) -> Says:
    """Returns what a task says of a claim that none of its contrasts helps."""
    distinct = {word for _, word in words}
    if "helps" in distinct:
        return "contradicts"
    return "supports" if distinct and distinct <= NONE_OR_WORSE else "undecided"
