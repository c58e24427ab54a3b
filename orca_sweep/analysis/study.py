"""The study's claims, each as contrasts of cells and a rule that turns the words of these into what a task says.

The study is Garcia-de-Herreros, Gautam, Slusallek, Klakow and Mosbach (2024), "What explains the success of cross-modal
fine-tuning with ORCA?", arXiv 2403.13537. The sentences are this project's own; ``source`` names where each comes from.
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
    ConfiguredCell,
    TaskCells,
    training_fields,
)

STUDY = "Garcia-de-Herreros et al. (2024), What explains the success of cross-modal fine-tuning with ORCA?, arXiv 2403.13537"
Says = Literal["supports", "contradicts", "undecided", "cannot be judged"]
SAYS: tuple[Says, ...] = get_args(Says)
NONE_OR_WORSE = frozenset({"no meaningful difference", "hurts"})
LEAST_AMOUNTS = 3
"""The fewest amounts of embedder training over which a rank correlation is asked for."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two cells that differ only in what a claim is about: is ``a`` better than ``b``?"""

    kind: str
    """The name that the claim's rule uses."""
    name: str
    a: ConfiguredCell
    b: ConfiguredCell


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


Amounts = tuple[ConfiguredCell, ...]
"""Cells that differ only in the amount of embedder training, which rises."""
Words = Sequence[tuple[str, str]]
"""Kind and word of each contrast, in order."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim of the study, and how it is judged."""

    id: str
    sentence: str
    source: str
    supports: str
    contradicts: str
    rows: str
    """Which rows it is judged on."""
    needs: tuple[str, ...]
    """Columns that judging it takes."""
    varied: frozenset[str]
    """Fields outside the setting: the claim compares all their levels."""
    settings: Callable[[TaskCells, Collection[ConfiguredCell]], Iterator[Setting]]
    """(task, cells to start from) -> settings to judge it at, the most usual first."""
    lacks: Callable[[TaskCells], str]
    """What a task without any setting lacks."""
    says: Callable[[Words], Says]
    dims: int | None = None
    """Dimensions of the tasks that it is about; None for all tasks."""
    compares_proxies: bool = False
    of_some: bool = False
    """Whether it is about some tasks rather than all."""


def _first_cell(cells: Iterable[ConfiguredCell], holds: Callable[[ConfiguredCell], bool]) -> ConfiguredCell | None:
    return next((cell for cell in cells if holds(cell)), None)


def _first_by_value(
    cells: Iterable[ConfiguredCell], value: Callable[[ConfiguredCell], float]
) -> tuple[ConfiguredCell, ...]:
    """Returns the first cell of each value, values rising."""
    first: dict[float, ConfiguredCell] = {}
    for cell in cells:
        first.setdefault(value(cell), cell)
    return tuple(first[key] for key in sorted(first))


def _words_of(words: Words, kind: str) -> list[str]:
    return [word for other, word in words if other == kind]


# Embedder training --------------------------------------------------------------------------------


def _pair_amounts(
    task: TaskCells, start: Collection[ConfiguredCell]
) -> Iterator[tuple[ConfiguredCell, ConfiguredCell, Amounts]]:
    """Yields a trained cell, its naive cell, and all trained cells that differ from the first only in the amount."""
    for cell in (cell for cell in start if cell.is_trained):
        naive = _first_cell(task.find_alike(cell, training_fields(cell)), lambda cell: cell.is_naive)
        if naive:
            trained = (other for other in task.find_alike(cell, {EPOCHS}) if other.is_trained)
            yield cell, naive, _first_by_value(trained, lambda cell: cell.epochs)


def _trained_or_not(task: TaskCells, start: Collection[ConfiguredCell]) -> Iterator[Setting]:
    for cell, naive, amounts in _pair_amounts(task, start):
        yield Setting(anchor=cell, free=training_fields(cell), pairs=_against_naive(amounts, naive))


def _against_naive(amounts: Iterable[ConfiguredCell], naive: ConfiguredCell) -> tuple[Pair, ...]:
    return tuple(
        Pair(kind="trained", name=f"{cell.describe_levels(EPOCHS)} against naive", a=cell, b=naive) for cell in amounts
    )


def _some_or_more(task: TaskCells, start: Collection[ConfiguredCell]) -> Iterator[Setting]:
    for cell, naive, amounts in _pair_amounts(task, start):
        if len(amounts) > 1:
            *fewer, most = amounts
            label = most.describe_levels(EPOCHS)
            more = [
                Pair(kind="more", name=f"{label} against {less.level_of(EPOCHS)}", a=most, b=less) for less in fewer
            ]
            pairs = (*_against_naive(amounts, naive), *more)
            yield Setting(anchor=cell, free=training_fields(cell), pairs=pairs)


def _lacks_training(task: TaskCells) -> str:
    if not any(cell.is_trained for cell in task.cells):
        return f"no cell with a trained embedder (a proxy, and {EPOCHS} above 0)"
    if not any(cell.is_naive for cell in task.cells):
        return f"no naive cell (proxy none, or {EPOCHS} 0)"
    return "no naive cell that equals a cell with a trained embedder in all other fields"


def _lacks_more(task: TaskCells) -> str:
    amounts = [cells for _, _, cells in _pair_amounts(task, task.cells)]
    if not amounts:
        return _lacks_training(task)
    return f"only one amount of embedder training ({amounts[0][0].describe_levels(EPOCHS)}), and the claim needs two"


def _says_training_is_useless(words: Words) -> Says:
    trained = _words_of(words, "trained")
    if "helps" in trained:
        return "contradicts"
    return "supports" if NONE_OR_WORSE.issuperset(trained) else "undecided"


def _says_some_is_enough(words: Words) -> Says:
    helps, more = _words_of(words, "trained"), _words_of(words, "more")
    if any(some == "helps" and rest in NONE_OR_WORSE for some, rest in zip(helps, more, strict=False)):
        return "supports"
    is_useless = NONE_OR_WORSE.issuperset(helps)
    return "contradicts" if is_useless or set(more) == {"helps"} else "undecided"


# Proxies ------------------------------------------------------------------------------------------


def _pair_proxies(task: TaskCells, start: Collection[ConfiguredCell]) -> Iterator[Setting]:
    for cell in (cell for cell in start if cell.is_trained):
        trained = [other for other in task.find_alike(cell, {PROXY}) if other.is_trained]
        reference = cell.level_of(PROXY)
        pairs = [
            Pair(kind="proxy", name=f"{other.describe_levels(PROXY)} against {reference}", a=other, b=cell)
            for other in trained
            if other.settings[PROXY] != cell.settings[PROXY]
        ]
        if pairs:
            yield Setting(anchor=cell, free=frozenset({PROXY}), pairs=tuple(pairs))


def _lacks_proxies(task: TaskCells) -> str:
    names = dict.fromkeys(cell.settings[PROXY] for cell in task.cells if cell.is_trained)
    if not names:
        return _lacks_training(task)
    if len(names) == 1:
        return f"only one proxy ({next(iter(names))}), and the claim needs two"
    return f"no two cells that differ only in the proxy ({', '.join(names)})"


def _says_choice_is_no_matter(words: Words) -> Says:
    distinct = set(_words_of(words, "proxy"))
    if distinct & {"helps", "hurts"}:
        return "contradicts"
    return "supports" if distinct == {"no meaningful difference"} else "undecided"


# Freezing -----------------------------------------------------------------------------------------


def _pair_frozen(task: TaskCells, start: Collection[ConfiguredCell]) -> Iterator[Setting]:
    for cell in (cell for cell in start if cell.settings.get(FREEZE) == "none"):
        frozen: dict[str, dict[str, ConfiguredCell]] = {"body": {}, "embedder": {}}
        for other in task.find_alike(cell, FREEZING):
            if other.settings[FREEZE] in frozen:
                frozen[other.settings[FREEZE]].setdefault(other.settings[FREEZE_EPOCHS], other)
        lengths = frozen["body"].keys() & frozen["embedder"].keys()
        if lengths:
            length = max(lengths, key=_read_length)
            yield _pair_parts(length, cell, frozen["body"][length], frozen["embedder"][length])


def _read_length(text: str) -> float:
    return float("inf") if text == "forever" else float(text) if text.isdecimal() else -1.0


def _pair_parts(length: str, none: ConfiguredCell, body: ConfiguredCell, embedder: ConfiguredCell) -> Setting:
    """Returns the setting in which body and embedder are frozen for equally long."""
    how = "forever" if length == "forever" else f"for {length} epochs"
    pairs = (
        Pair(kind="body", name=f"body frozen {how} against none", a=body, b=none),
        Pair(kind="embedder", name=f"embedder frozen {how} against none", a=embedder, b=none),
        Pair(kind="body or embedder", name=f"body frozen {how} against embedder", a=body, b=embedder),
    )
    return Setting(anchor=none, free=FREEZING, pairs=pairs)


def _lacks_freezing(task: TaskCells) -> str:
    levels = {cell.settings.get(FREEZE) for cell in task.cells}
    missing = [f"{FREEZE} {level}" for level in ("none", "body", "embedder") if level not in levels]
    if missing:
        return f"no cell with {' or with '.join(missing)}"
    return "no three cells, all else equal, with nothing, the body and the embedder frozen, the last two equally long"


def _says_body_matters_most(words: Words) -> Says:
    (body,), (other,) = _words_of(words, "body"), _words_of(words, "body or embedder")
    if body == other == "hurts":
        return "supports"
    no_more = {"helps", "no meaningful difference"}
    return "contradicts" if body in no_more or other in no_more else "undecided"


# Pre-training -------------------------------------------------------------------------------------


def _pair_pretrained(task: TaskCells, start: Collection[ConfiguredCell]) -> Iterator[Setting]:
    for cell in (cell for cell in start if cell.fraction > 0):
        alike = task.find_alike(cell, PRETRAINING)
        none = _first_cell(alike, lambda cell: cell.fraction == 0)
        if none:
            amounts = _first_by_value((other for other in alike if other.fraction > 0), lambda cell: cell.fraction)
            kinds = [*["part"] * (len(amounts) - 1), "most"]
            pairs = (
                Pair(kind=kind, name=f"{amount.describe_levels(FRACTION)} against none", a=amount, b=none)
                for kind, amount in zip(kinds, amounts, strict=True)
            )
            yield Setting(anchor=cell, free=PRETRAINING, pairs=tuple(pairs))


def _lacks_pretraining(task: TaskCells) -> str:
    if not any(cell.fraction == 0 for cell in task.cells):
        return f"no cell without pre-training ({FRACTION} 0)"
    if not any(cell.fraction > 0 for cell in task.cells):
        return f"no cell with pre-training ({FRACTION} above 0)"
    return "no two cells that differ only in pre-training"


def _says_pretraining_is_not_needed(words: Words) -> Says:
    (word,) = _words_of(words, "most")
    if word == "helps":
        return "contradicts"
    return "supports" if word in NONE_OR_WORSE else "undecided"


# The objective ------------------------------------------------------------------------------------


def _is_otdd(cell: ConfiguredCell) -> bool:
    return cell.is_trained and cell.settings.get(OBJECTIVE, "").startswith("otdd")


def _follow_otdd(task: TaskCells, start: Collection[ConfiguredCell]) -> Iterator[Setting]:
    for cell in filter(_is_otdd, start):
        along = _first_by_value(filter(_is_otdd, task.find_alike(cell, {EPOCHS})), lambda cell: cell.epochs)
        if len(along) >= LEAST_AMOUNTS:
            yield Setting(anchor=cell, along=along)


def _lacks_otdd(task: TaskCells) -> str:
    cells = list(filter(_is_otdd, task.cells))
    if not cells:
        return f"no cell whose embedder was trained towards an OTDD ({OBJECTIVE} otdd-exact, otdd-gaussian or otdd-emd)"
    most = max(len({other.epochs for other in filter(_is_otdd, task.find_alike(cell, {EPOCHS}))}) for cell in cells)
    amounts = "1 amount" if most == 1 else f"{most} amounts"
    return f"at most {amounts} of embedder training, all else equal, and the claim needs {LEAST_AMOUNTS}"


def _says_no_tracking(words: Words) -> Says:
    says: Mapping[str, Says] = {"tracks": "contradicts", "does not track": "supports"}
    ((_, word),) = words
    return says.get(word, "undecided")


CLAIMS = (
    Claim(
        id="1",
        sentence="On 2D tasks, training the embedder towards a proxy does not help.",
        source="abstract of the study",
        supports="every amount of embedder training hurts, or makes no meaningful difference from none",
        contradicts="some amount of embedder training helps",
        rows="each amount of embedder training against none, with one proxy",
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
        supports="some amount helps against none, and the largest hurts against it or makes no meaningful difference from it",
        contradicts="no amount helps against none, or the largest helps against every smaller one",
        rows="each amount of embedder training against none, and the largest against each smaller one, with one proxy",
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
        source="summaries of the study, for 2D tasks",
        supports="no proxy makes a meaningful difference from the reference proxy",
        contradicts="some proxy helps or hurts against the reference proxy",
        rows="each proxy against the reference proxy (of --base, or the first real one), at one amount of embedder training;"
        " permuted labels only where labels can act",
        needs=(PROXY, EPOCHS),
        compares_proxies=True,
        varied=frozenset(),
        settings=_pair_proxies,
        lacks=_lacks_proxies,
        says=_says_choice_is_no_matter,
    ),
    Claim(
        id="4",
        sentence="Fine-tuning the body is the largest factor.",
        source="abstract of the study, for four of its six data sets",
        supports="freezing the body hurts, both against freezing nothing and against freezing the embedder for as long",
        contradicts="freezing the body does not hurt, or hurts no more than freezing the embedder",
        rows="body, embedder or nothing frozen, for the longest time at which the table has both",
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
        supports="the most pre-training hurts, or makes no meaningful difference from none",
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
        source="the question of the study's figure 3, in this project's words",
        supports="their rank correlation over trials is significantly weaker than the least that counts",
        contradicts="their rank correlation is significantly stronger than the least that counts",
        rows="trials of at least three amounts of embedder training with one proxy: OTDD at the end of it, and metric",
        needs=(PROXY, EPOCHS, OBJECTIVE, "objective_last"),
        varied=frozenset({EPOCHS}),
        settings=_follow_otdd,
        lacks=_lacks_otdd,
        says=_says_no_tracking,
    ),
)
