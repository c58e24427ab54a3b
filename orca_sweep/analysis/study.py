"""The study's claims, each as contrasts of cells and a rule from their words to what they say of it.

The study is Garcia-de-Herreros, Gautam, Slusallek, Klakow and Mosbach (2024), "What explains the success of cross-modal
fine-tuning with ORCA?", arXiv 2403.13537. The sentences are this project's; ``source`` says where each comes from.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from orca_sweep.analysis.cells import (
    EPOCHS,
    FRACTION,
    FREEZE,
    FREEZE_EPOCHS,
    FREEZING,
    OBJECTIVE,
    PRETRAINING,
    PROXY,
    Cell,
    TaskCells,
    training,
)

STUDY = "Garcia-de-Herreros et al. (2024), What explains the success of cross-modal fine-tuning with ORCA?, arXiv 2403.13537"
Says = Literal["supports", "contradicts", "undecided", "cannot be judged"]
SAYS: tuple[Says, ...] = get_args(Says)
NONE_OR_WORSE = frozenset({"no meaningful difference", "hurts"})
LEAST_AMOUNTS = 3
"""Amounts of embedder training from which on it is asked whether two measures go together."""


@dataclass(frozen=True)
class Pair:
    """Two cells that differ in nothing but what a claim is about: is ``a`` better than ``b``?"""

    kind: str
    """What the rule calls it."""
    name: str
    a: Cell
    b: Cell


@dataclass(frozen=True)
class Setting:
    """What a claim is judged on in one task: pairs of cells, or cells along the amount of embedder training."""

    anchor: Cell
    """Its levels name the setting."""
    free: frozenset[str] = frozenset()
    """Fields in which the cells of a pair may differ."""
    pairs: tuple[Pair, ...] = ()
    along: tuple[Cell, ...] = ()

    @property
    def cells(self) -> frozenset[str]:
        """Ids of all of its cells."""
        return frozenset(one.arm.cell_id for pair in self.pairs for one in (pair.a, pair.b)) | frozenset(
            one.arm.cell_id for one in self.along
        )


Words = Sequence[tuple[str, str]]
"""Kind and word of each contrast, in their order."""


@dataclass(frozen=True)
class Claim:
    """One claim of the study, and how rows are asked about it."""

    id: str
    sentence: str
    source: str
    supports: str
    contradicts: str
    rows: str
    """What it is judged on."""
    needs: tuple[str, ...]
    """Columns without which nothing can be said."""
    varied: frozenset[str]
    """Fields that are no part of the setting that it is judged at: it compares all their levels."""
    settings: Callable[[TaskCells, Collection[Cell]], Iterator[Setting]]
    """(task, cells to start from) -> what it can be judged on, the most usual first."""
    lacks: Callable[[TaskCells], str]
    """What a task is missing that has no such setting."""
    says: Callable[[Words], Says]
    dims: int | None = None
    """Of the tasks that it is about; None: all."""
    of_some: bool = False
    """Whether it says something of some tasks, and not of all of them."""


def _first_cell(found: Iterable[Cell], holds: Callable[[Cell], bool]) -> Cell | None:
    return next((cell for cell in found if holds(cell)), None)


def _one_by_value(found: Iterable[Cell], value: Callable[[Cell], float]) -> tuple[Cell, ...]:
    """One cell for each value, rising."""
    cells: dict[float, Cell] = {}
    for cell in found:
        cells.setdefault(value(cell), cell)
    return tuple(cells[key] for key in sorted(cells))


def _words_of(words: Words, kind: str) -> list[str]:
    return [word for one, word in words if one == kind]


# Embedder training --------------------------------------------------------------------------------


def _pair_amounts(task: TaskCells, start: Collection[Cell]) -> Iterator[tuple[Cell, Cell, tuple[Cell, ...]]]:
    """A trained cell, its naive one, and all trained cells that differ from the first in the amount alone."""
    for cell in (cell for cell in start if cell.is_trained):
        naive = _first_cell(task.like(cell, training(cell)), lambda one: one.is_naive)
        if naive:
            yield (
                cell,
                naive,
                _one_by_value((one for one in task.like(cell, {EPOCHS}) if one.is_trained), lambda c: c.epochs),
            )


def _trained_or_not(task: TaskCells, start: Collection[Cell]) -> Iterator[Setting]:
    for cell, naive, amounts in _pair_amounts(task, start):
        yield Setting(cell, training(cell), _against_naive(amounts, naive))


def _against_naive(amounts: Iterable[Cell], naive: Cell) -> tuple[Pair, ...]:
    return tuple(Pair("trained", f"{one.said(EPOCHS)} against naive", one, naive) for one in amounts)


def _some_or_more(task: TaskCells, start: Collection[Cell]) -> Iterator[Setting]:
    for cell, naive, amounts in _pair_amounts(task, start):
        if len(amounts) > 1:
            *fewer, most = amounts
            more = [Pair("more", f"{most.said(EPOCHS)} against {one.shown(EPOCHS)}", most, one) for one in fewer]
            yield Setting(cell, training(cell), (*_against_naive(amounts, naive), *more))


def _lacks_training(task: TaskCells) -> str:
    if not any(cell.is_trained for cell in task.cells):
        return f"no cell with a trained embedder (a proxy, and {EPOCHS} above 0)"
    if not any(cell.is_naive for cell in task.cells):
        return f"no naive cell (proxy none, or {EPOCHS} 0)"
    return "no naive cell that equals one with a trained embedder in all else"


def _lacks_more(task: TaskCells) -> str:
    amounts = [found for _, _, found in _pair_amounts(task, task.cells)]
    if not amounts:
        return _lacks_training(task)
    return f"two amounts of embedder training beside none are needed, and there is one ({amounts[0][0].said(EPOCHS)})"


def _says_training_is_useless(words: Words) -> Says:
    found = _words_of(words, "trained")
    if "helps" in found:
        return "contradicts"
    return "supports" if NONE_OR_WORSE.issuperset(found) else "undecided"


def _says_some_is_enough(words: Words) -> Says:
    helps, more = _words_of(words, "trained"), _words_of(words, "more")
    if any(some == "helps" and rest in NONE_OR_WORSE for some, rest in zip(helps, more, strict=False)):
        return "supports"
    is_useless = NONE_OR_WORSE.issuperset(helps)
    return "contradicts" if is_useless or set(more) == {"helps"} else "undecided"


# Proxies ------------------------------------------------------------------------------------------


def _pair_proxies(task: TaskCells, start: Collection[Cell]) -> Iterator[Setting]:
    for cell in (cell for cell in start if cell.is_trained):
        others = [one for one in task.like(cell, {PROXY}) if one.is_trained and one is not cell]
        pairs = [
            Pair("proxy", f"{one.said(PROXY)} against {cell.shown(PROXY)}", one, cell)
            for one in others
            if one.settings[PROXY] != cell.settings[PROXY]
        ]
        if pairs:
            yield Setting(cell, frozenset({PROXY}), tuple(pairs))


def _lacks_proxies(task: TaskCells) -> str:
    names = dict.fromkeys(cell.settings[PROXY] for cell in task.cells if cell.is_trained)
    if not names:
        return _lacks_training(task)
    if len(names) == 1:
        return f"two proxies are needed, and there is one ({next(iter(names))})"
    return f"no two cells that differ in the proxy alone ({', '.join(names)})"


def _says_choice_is_no_matter(words: Words) -> Says:
    found = set(_words_of(words, "proxy"))
    if found & {"helps", "hurts"}:
        return "contradicts"
    return "supports" if found == {"no meaningful difference"} else "undecided"


# Freezing -----------------------------------------------------------------------------------------


def _pair_frozen(task: TaskCells, start: Collection[Cell]) -> Iterator[Setting]:
    for cell in (cell for cell in start if cell.settings.get(FREEZE) == "none"):
        frozen: dict[str, dict[str, Cell]] = {"body": {}, "embedder": {}}
        for one in task.like(cell, FREEZING):
            if one.settings[FREEZE] in frozen:
                frozen[one.settings[FREEZE]].setdefault(one.settings[FREEZE_EPOCHS], one)
        lengths = frozen["body"].keys() & frozen["embedder"].keys()
        if lengths:
            length = max(lengths, key=_read_length)
            yield _frozen_for(length, cell, frozen["body"][length], frozen["embedder"][length])


def _read_length(text: str) -> float:
    return float("inf") if text == "forever" else float(text) if text.isdecimal() else -1.0


def _frozen_for(length: str, none: Cell, body: Cell, embedder: Cell) -> Setting:
    how = "forever" if length == "forever" else f"for {length} epochs"
    pairs = (
        Pair("body", f"body frozen {how} against none", body, none),
        Pair("embedder", f"embedder frozen {how} against none", embedder, none),
        Pair("body or embedder", f"body frozen {how} against embedder", body, embedder),
    )
    return Setting(none, FREEZING, pairs)


def _lacks_freezing(task: TaskCells) -> str:
    there = {cell.settings.get(FREEZE) for cell in task.cells}
    missing = [f"{FREEZE} {level}" for level in ("none", "body", "embedder") if level not in there]
    if missing:
        return f"no cell with {', or '.join(missing)}"
    return "no body frozen as long as an embedder is, beside nothing frozen, all else being equal"


def _says_body_matters_most(words: Words) -> Says:
    (body,), (other,) = _words_of(words, "body"), _words_of(words, "body or embedder")
    if body == other == "hurts":
        return "supports"
    no_more = {"helps", "no meaningful difference"}
    return "contradicts" if body in no_more or other in no_more else "undecided"


# Pre-training -------------------------------------------------------------------------------------


def _pair_pretrained(task: TaskCells, start: Collection[Cell]) -> Iterator[Setting]:
    for cell in (cell for cell in start if cell.fraction > 0):
        found = task.like(cell, PRETRAINING)
        none = _first_cell(found, lambda one: one.fraction == 0)
        if none:
            amounts = _one_by_value((one for one in found if one.fraction > 0), lambda one: one.fraction)
            kinds = [*["part"] * (len(amounts) - 1), "most"]
            names = [f"{one.said(FRACTION)} against none" for one in amounts]
            pairs = (Pair(*three, none) for three in zip(kinds, names, amounts, strict=True))
            yield Setting(cell, PRETRAINING, tuple(pairs))


def _lacks_pretraining(task: TaskCells) -> str:
    if not any(cell.fraction == 0 for cell in task.cells):
        return f"no cell without pre-training ({FRACTION} 0)"
    if not any(cell.fraction > 0 for cell in task.cells):
        return f"no cell with pre-training ({FRACTION} above 0)"
    return "no two cells that differ in pre-training alone"


def _says_pretraining_is_not_needed(words: Words) -> Says:
    (word,) = _words_of(words, "most")
    if word == "helps":
        return "contradicts"
    return "supports" if word in NONE_OR_WORSE else "undecided"


# The objective ------------------------------------------------------------------------------------


def _is_otdd(cell: Cell) -> bool:
    return cell.is_trained and cell.settings.get(OBJECTIVE, "").startswith("otdd")


def _follow_otdd(task: TaskCells, start: Collection[Cell]) -> Iterator[Setting]:
    for cell in filter(_is_otdd, start):
        along = _one_by_value(filter(_is_otdd, task.like(cell, {EPOCHS})), lambda one: one.epochs)
        if len(along) >= LEAST_AMOUNTS:
            yield Setting(cell, along=along)


def _lacks_otdd(task: TaskCells) -> str:
    found = list(filter(_is_otdd, task.cells))
    if not found:
        return f"no cell whose embedder was trained towards an OTDD ({OBJECTIVE} otdd-exact, otdd-gaussian or otdd-emd)"
    most = max(len({one.epochs for one in filter(_is_otdd, task.like(cell, {EPOCHS}))}) for cell in found)
    return (
        f"{LEAST_AMOUNTS} amounts of embedder training are needed, all else being equal, and there are at most {most}"
    )


def _says_no_tracking(words: Words) -> Says:
    says: Mapping[str, Says] = {"tracks": "contradicts", "does not track": "supports"}
    ((_, word),) = words
    return says.get(word, "undecided")


CLAIMS = (
    Claim(
        id="1",
        sentence="On 2D tasks, training the embedder towards a proxy does not help.",
        source="abstract of the study",
        supports="every amount of embedder training makes no meaningful difference to none, or hurts",
        contradicts="some amount of it helps",
        rows="each amount of embedder training against naive fine-tuning, with one proxy",
        needs=(PROXY, EPOCHS),
        varied=frozenset({EPOCHS}),
        settings=_trained_or_not,
        lacks=_lacks_training,
        says=_says_training_is_useless,
        dims=2,
    ),
    Claim(
        id="2",
        sentence="On 1D tasks, some embedder training helps, and more of it does not help more.",
        source="abstract of the study",
        supports="some amount helps against none, and the largest makes no meaningful difference to it, or hurts",
        contradicts="no amount helps against none, or the largest helps against every other",
        rows="each amount of embedder training against naive fine-tuning, and the largest against each other, with one proxy",
        needs=(PROXY, EPOCHS),
        varied=frozenset({EPOCHS}),
        settings=_some_or_more,
        lacks=_lacks_more,
        says=_says_some_is_enough,
        dims=1,
    ),
    Claim(
        id="3",
        sentence="Which proxy the embedder is aligned to does not matter, noise and permuted labels included.",
        source="summaries of the study, which say it of 2D tasks",
        supports="no proxy makes a meaningful difference to the reference proxy",
        contradicts="some proxy helps or hurts against it",
        rows="each proxy against the reference proxy (the first real one in the table, or of --base), at one amount of training",
        needs=(PROXY, EPOCHS),
        varied=frozenset(),
        settings=_pair_proxies,
        lacks=_lacks_proxies,
        says=_says_choice_is_no_matter,
    ),
    Claim(
        id="4",
        sentence="Fine-tuning the body is the largest factor.",
        source="abstract of the study, of four of its six data sets",
        supports="freezing the body hurts, against freezing nothing and against freezing the embedder for as long",
        contradicts="freezing the body does not hurt, or not more than freezing the embedder",
        rows="body, embedder or nothing frozen, for the longest time that the table has both for",
        needs=(FREEZE, FREEZE_EPOCHS),
        varied=FREEZING,
        settings=_pair_frozen,
        lacks=_lacks_freezing,
        says=_says_body_matters_most,
    ),
    Claim(
        id="5",
        sentence="On some tasks a pre-trained body is not necessary.",
        source="summaries of the study",
        supports="the most pre-training makes no meaningful difference to none, or hurts",
        contradicts="the most pre-training helps",
        rows="each amount of pre-training against a body of random weights",
        needs=(FRACTION,),
        varied=PRETRAINING,
        settings=_pair_pretrained,
        lacks=_lacks_pretraining,
        says=_says_pretraining_is_not_needed,
        of_some=True,
    ),
    Claim(
        id="6",
        sentence="A lower OTDD after embedder training does not go with a better result.",
        source="what the study's figure 3 asks, in this project's words",
        supports="their rank correlation over trials is surely weaker than the least that would count",
        contradicts="it is surely stronger",
        rows="trials of at least three amounts of embedder training with one proxy: OTDD at its end, and metric",
        needs=(PROXY, EPOCHS, OBJECTIVE, "objective_last"),
        varied=frozenset({EPOCHS}),
        settings=_follow_otdd,
        lacks=_lacks_otdd,
        says=_says_no_tracking,
    ),
)
