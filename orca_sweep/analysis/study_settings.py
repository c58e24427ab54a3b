"""The cells that the study's claims compare, what a task lacks for them, and what it says by their words."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

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
from orca_sweep.analysis.claim_records import (
    NONE_OR_WORSE,
    Pair,
    Setting,
    Words,
    first_by_value,
    first_cell,
    words_of,
)
from orca_sweep.analysis.over_tasks import Says

LEAST_AMOUNTS = 3
"""The fewest amounts of embedder training over which a rank correlation is asked for."""
FOREVER = "forever"
Amounts = tuple[ConfiguredCell, ...]
"""Cells that differ only in the amount of embedder training, which rises."""


# Embedder training --------------------------------------------------------------------------------


def pair_amounts(
    task: TaskCells, start: Collection[ConfiguredCell]
) -> Iterator[tuple[ConfiguredCell, ConfiguredCell, Amounts]]:
    """Yields a trained cell, its naive cell, and all trained cells that differ from the first only in the amount.

    Trained means towards a real proxy: training towards noise or permuted labels is a control.
    """
    for cell in (cell for cell in start if cell.trains_on_data):
        naive = first_cell(task.find_alike(cell, training_fields(cell)), lambda cell: cell.is_naive)
        if naive:
            trained = (other for other in task.find_alike(cell, {EPOCHS}) if other.is_trained)
            yield cell, naive, first_by_value(trained, lambda cell: cell.epochs)


def compare_training(task: TaskCells, start: Collection[ConfiguredCell]) -> Iterator[Setting]:
    """Yields settings that compare each amount of embedder training with none."""
    for cell, naive, amounts in pair_amounts(task, start):
        yield Setting(anchor=cell, free=training_fields(cell), pairs=_against_naive(amounts, naive))


def add_untuned_amounts(task: TaskCells, setting: Setting) -> Setting:
    """Returns a setting of tuned cells with the amounts that only untuned cells have, each against its untuned naive cell.

    Both cells of a pair are equally tuned, and an amount that tuned cells have is taken from these.
    """
    anchor = setting.anchor
    known = {pair.a.epochs for pair in setting.pairs}
    if not anchor.candidates:
        return setting
    fixed = [path for path in anchor.settings if path not in anchor.candidates and path != EPOCHS]
    twins = [cell for cell in task.cells if not cell.candidates and _are_equal(cell, anchor, fixed)]
    for _, naive, amounts in pair_amounts(task, twins):
        more = [cell for cell in amounts if cell.epochs not in known]
        how = naive.describe_levels(*anchor.candidates)
        pairs = (replace(pair, name=f"{pair.name}, {how}") for pair in _against_naive(more, naive))
        return replace(setting, pairs=tuple(sorted((*setting.pairs, *pairs), key=lambda pair: pair.a.epochs)))
    return setting


def _are_equal(cell: ConfiguredCell, other: ConfiguredCell, paths: Iterable[str]) -> bool:
    return all(cell.level_of(path) == other.level_of(path) for path in paths)


def _against_naive(amounts: Iterable[ConfiguredCell], naive: ConfiguredCell) -> tuple[Pair, ...]:
    return tuple(
        Pair(kind="trained", name=f"{cell.describe_levels(EPOCHS)} against naive", a=cell, b=naive) for cell in amounts
    )


def compare_amounts(task: TaskCells, start: Collection[ConfiguredCell]) -> Iterator[Setting]:
    """Yields settings that compare each amount of embedder training with none, and the largest with each smaller one."""
    for cell, naive, amounts in pair_amounts(task, start):
        if len(amounts) > 1:
            *fewer, most = amounts
            label = most.describe_levels(EPOCHS)
            more = [
                Pair(kind="more", name=f"{label} against {less.level_of(EPOCHS)}", a=most, b=less) for less in fewer
            ]
            pairs = (*_against_naive(amounts, naive), *more)
            yield Setting(anchor=cell, free=training_fields(cell), pairs=pairs)


def lacks_training(task: TaskCells) -> str:
    """Returns what a task lacks for a comparison of embedder training with none."""
    if not any(cell.is_trained for cell in task.cells):
        return f"no cell with a trained embedder (a proxy, and {EPOCHS} above 0)"
    if not any(cell.trains_on_data for cell in task.cells):
        return "no cell with an embedder that is trained towards a real proxy; noise and permuted labels are controls"
    if not any(cell.is_naive for cell in task.cells):
        return f"no naive cell (proxy none, or {EPOCHS} 0)"
    return "no naive cell that equals a cell with a trained embedder in all other fields"


def lacks_amounts(task: TaskCells) -> str:
    """Returns what a task lacks for a comparison of amounts of embedder training."""
    amounts = [cells for _, _, cells in pair_amounts(task, task.cells)]
    if not amounts:
        return lacks_training(task)
    return f"only one amount of embedder training ({amounts[0][0].describe_levels(EPOCHS)}), and the claim needs two"


def says_some_is_enough(words: Words) -> Says:
    """Returns what a task says of the claim that some embedder training helps and more of it does not help more."""
    helps, more = words_of(words, "trained"), words_of(words, "more")
    if any(some == "helps" and rest in NONE_OR_WORSE for some, rest in zip(helps, more, strict=False)):
        return "supports"
    is_useless = NONE_OR_WORSE.issuperset(helps)
    return "contradicts" if is_useless or set(more) == {"helps"} else "undecided"


# Proxies ------------------------------------------------------------------------------------------


def compare_proxies(task: TaskCells, start: Collection[ConfiguredCell]) -> Iterator[Setting]:
    """Yields settings that compare each proxy, placebos included, with a real one."""
    for cell in (cell for cell in start if cell.trains_on_data):
        trained = [other for other in task.find_alike(cell, {PROXY}) if other.is_trained]
        reference = cell.level_of(PROXY)
        pairs = [
            Pair(kind="proxy", name=f"{other.describe_levels(PROXY)} against {reference}", a=other, b=cell)
            for other in trained
            if other.settings[PROXY] != cell.settings[PROXY]
        ]
        if pairs:
            yield Setting(anchor=cell, free=frozenset({PROXY}), pairs=tuple(pairs))


def lacks_proxies(task: TaskCells) -> str:
    """Returns what a task lacks for a comparison of proxies."""
    names = dict.fromkeys(cell.settings[PROXY] for cell in task.cells if cell.is_trained)
    if not names:
        return lacks_training(task)
    if len(names) == 1:
        return f"only one proxy ({next(iter(names))}), and the claim needs two"
    if not any(cell.trains_on_data for cell in task.cells):
        return f"no real proxy to compare placebos with ({', '.join(names)})"
    return f"no two cells that differ only in the proxy ({', '.join(names)})"


# Freezing -----------------------------------------------------------------------------------------


def freeze_first(task: TaskCells, start: Collection[ConfiguredCell]) -> Iterator[Setting]:
    """Yields settings in which body or embedder are frozen at first, and then everything trains."""
    return _compare_frozen(task, start, forever=False)


def freeze_for_good(task: TaskCells, start: Collection[ConfiguredCell]) -> Iterator[Setting]:
    """Yields settings in which body or embedder are frozen to the end."""
    return _compare_frozen(task, start, forever=True)


def _compare_frozen(task: TaskCells, start: Collection[ConfiguredCell], *, forever: bool) -> Iterator[Setting]:
    for cell in (cell for cell in start if cell.settings.get(FREEZE) == "none"):
        frozen: dict[str, dict[str, ConfiguredCell]] = {"body": {}, "embedder": {}}
        for other in task.find_alike(cell, FREEZING):
            length = other.settings[FREEZE_EPOCHS]
            is_asked = length == FOREVER if forever else _read_length(length) > 0
            if other.settings[FREEZE] in frozen and is_asked:
                frozen[other.settings[FREEZE]].setdefault(length, other)
        lengths = frozen["body"].keys() & frozen["embedder"].keys()
        if lengths:
            length = max(lengths, key=_read_length)
            yield _pair_parts(length, cell, frozen["body"][length], frozen["embedder"][length])


def _read_length(text: str) -> float:
    """Returns the epochs of a temporary freeze; 0 for another text."""
    return float(text) if text.isdecimal() else 0.0


def _pair_parts(length: str, none: ConfiguredCell, body: ConfiguredCell, embedder: ConfiguredCell) -> Setting:
    """Returns the setting in which body and embedder are frozen for equally long."""
    how = FOREVER if length == FOREVER else f"for {length} epochs"
    pairs = (
        Pair(kind="body", name=f"body frozen {how} against none", a=body, b=none),
        Pair(kind="embedder", name=f"embedder frozen {how} against none", a=embedder, b=none, decides=False),
        Pair(kind="body or embedder", name=f"body frozen {how} against embedder", a=body, b=embedder),
    )
    return Setting(anchor=none, free=FREEZING, pairs=pairs)


def lacks_first(task: TaskCells) -> str:
    """Returns what a task lacks for a comparison of parts that are frozen at first."""
    return _lacks_freezing(task, "for equally many epochs and then trained")


def lacks_for_good(task: TaskCells) -> str:
    """Returns what a task lacks for a comparison of parts that are frozen to the end."""
    return _lacks_freezing(task, f"to the end ({FREEZE_EPOCHS} {FOREVER})")


def _lacks_freezing(task: TaskCells, how: str) -> str:
    levels = {cell.settings.get(FREEZE) for cell in task.cells}
    missing = [f"{FREEZE} {level}" for level in ("none", "body", "embedder") if level not in levels]
    if missing:
        return f"no cell with {' or with '.join(missing)}"
    return f"no three cells, all else equal, with nothing, the body and the embedder frozen, the last two {how}"


def says_body_matters_most(words: Words) -> Says:
    """Returns what a task says of the claim that fine-tuning the body makes the largest difference."""
    (body,), (other,) = words_of(words, "body"), words_of(words, "body or embedder")
    if body == other == "hurts":
        return "supports"
    no_more = {"helps", "no meaningful difference"}
    return "contradicts" if body in no_more or other in no_more else "undecided"


# Pre-training -------------------------------------------------------------------------------------


def compare_pretraining(task: TaskCells, start: Collection[ConfiguredCell]) -> Iterator[Setting]:
    """Yields settings that compare each amount of pre-training with none."""
    for cell in (cell for cell in start if cell.fraction > 0):
        alike = task.find_alike(cell, PRETRAINING)
        none = first_cell(alike, lambda cell: cell.fraction == 0)
        if none:
            amounts = first_by_value((other for other in alike if other.fraction > 0), lambda cell: cell.fraction)
            kinds = [*["part"] * (len(amounts) - 1), "most"]
            pairs = (
                Pair(
                    kind=kind,
                    name=f"{amount.describe_levels(FRACTION)} against none",
                    a=amount,
                    b=none,
                    decides=kind == "most",
                )
                for kind, amount in zip(kinds, amounts, strict=True)
            )
            yield Setting(anchor=cell, free=PRETRAINING, pairs=tuple(pairs))


def lacks_pretraining(task: TaskCells) -> str:
    """Returns what a task lacks for a comparison of pre-training with none."""
    if not any(cell.fraction == 0 for cell in task.cells):
        return f"no cell without pre-training ({FRACTION} 0)"
    if not any(cell.fraction > 0 for cell in task.cells):
        return f"no cell with pre-training ({FRACTION} above 0)"
    return "no two cells that differ only in pre-training"


# The objective ------------------------------------------------------------------------------------


def _is_otdd(cell: ConfiguredCell) -> bool:
    return cell.trains_on_data and cell.settings.get(OBJECTIVE, "").startswith("otdd")


def follow_otdd(task: TaskCells, start: Collection[ConfiguredCell]) -> Iterator[Setting]:
    """Yields settings with the cells of a rising amount of embedder training towards an OTDD."""
    for cell in filter(_is_otdd, start):
        along = first_by_value(filter(_is_otdd, task.find_alike(cell, {EPOCHS})), lambda cell: cell.epochs)
        if len(along) >= LEAST_AMOUNTS:
            yield Setting(anchor=cell, along=along)


def lacks_otdd(task: TaskCells) -> str:
    """Returns what a task lacks for the correlation of OTDD and metric."""
    cells = list(filter(_is_otdd, task.cells))
    if not cells:
        return f"no cell whose embedder was trained towards an OTDD ({OBJECTIVE} otdd-exact, otdd-gaussian or otdd-emd)"
    most = max(len({other.epochs for other in filter(_is_otdd, task.find_alike(cell, {EPOCHS}))}) for cell in cells)
    amounts = "1 amount" if most == 1 else f"{most} amounts"
    return f"at most {amounts} of embedder training, all else equal, and the claim needs {LEAST_AMOUNTS}"


def says_no_tracking(words: Words) -> Says:
    """Returns what a task says of the claim that OTDD and metric do not go together."""
    says: Mapping[str, Says] = {"tracks": "contradicts", "does not track": "supports"}
    ((_, word),) = words
    return says.get(word, "undecided")
