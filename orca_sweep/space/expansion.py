"""From a space to its combinations of levels and their placebos, each resolved to the cell it is."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orca_sweep.config import Hasher, TrialConfig, digest
from orca_sweep.config.declaration import SHUFFLED
from orca_sweep.errors import MOST_PROBLEMS, InputError
from orca_sweep.space import designs, tuning
from orca_sweep.space.records import PLACEBOS, Resolve, Rule, Space, TunedCell


@dataclass(frozen=True, slots=True)
class Resolved:
    """A combination of levels as it is asked for, and the cell it is: combinations that are equal work have one."""

    levels: Mapping[str, Any]
    cell: TrialConfig
    settings: Mapping[str, Any]
    """All that the space says of it, before anything without effect is left out."""


def expand(space: Space, resolve: Resolve) -> tuple[list[Resolved], list[str]]:
    """Returns the combinations, placebos last, and what is wrong with those that are not among them."""
    own: list[Resolved] = []
    placebos: list[Resolved] = []
    problems: dict[str, None] = {}
    refused: set[InputError] = set()
    rules = _Rules(space.when)
    for levels in designs.combinations(space.design, space.factors, space.include, space.exclude):
        if len(problems) > MOST_PROBLEMS:  # the nearest names of thousands of wrong ones take minutes
            break
        settings = {**space.base, **levels, **rules.settings_for(levels)}
        if space.code is not None:
            settings["content.code"] = space.code
        try:
            own.append(Resolved(levels, resolve(settings), settings))
            for proxy in _stand_ins(space, own[-1].cell.proxy):
                # A placebo differs from what it stands in for in the proxy alone: the same rules hold for it.
                placebo = {**settings, "proxy": proxy}
                placebos.append(Resolved({**levels, "proxy": proxy}, resolve(placebo), placebo))
        except InputError as error:
            if error not in refused:
                refused.add(error)
                problems.update(dict.fromkeys(f"{_place(space, str(text))}: {text}" for text in error.problems))
    return [*own, *placebos], [*problems, *_lacking(space, own, placebos, problems)]


class _Rules:
    """The rules of ``when`` by the factors and levels they ask for: of thousands, a combination meets only its own."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.by_paths: dict[tuple[str, ...], dict[tuple[Any, ...], dict[str, tuple[int, Any]]]] = {}
        """Of rules that ask for the same, what the last of them sets, with its place among the rules."""
        for place, rule in enumerate(rules):
            paths = tuple(sorted(rule.levels))
            known = self.by_paths.setdefault(paths, {})
            settings = known.setdefault(tuple(rule.levels[path] for path in paths), {})
            settings.update({path: (place, value) for path, value in rule.settings.items()})

    def settings_for(self, levels: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what the rules that hold for a combination set; the last of them wins."""
        found: dict[str, tuple[int, Any]] = {}
        for paths, known in self.by_paths.items():
            for path, setting in known.get(tuple(levels[path] for path in paths), {}).items():
                if path not in found or found[path][0] < setting[0]:
                    found[path] = setting
        return {path: value for path, (_, value) in sorted(found.items(), key=lambda item: item[1][0])}


def _stand_ins(space: Space, proxy: str) -> list[str]:
    """The placebos of a resolved cell's proxy: none for no proxy, which is what an untrained embedder has too."""
    is_real = proxy not in ("none", "dummy") and not proxy.startswith(SHUFFLED)
    return [PLACEBOS[name](proxy) for name in space.placebo] if is_real else []


def _lacking(
    space: Space, own: Sequence[Resolved], placebos: Sequence[Resolved], problems: Mapping[str, None]
) -> Iterator[str]:
    if not own and not problems:
        yield f"{space.where('exclude')}: exclude leaves no combination of levels. Take a rule out."
    elif space.placebo and not placebos and not problems:
        yield (
            f"{space.where('placebo')}: no combination trains the embedder towards a real proxy, so there is nothing to"
            " make a placebo of. Take placebo out."
        )


def with_placebo_levels(space: Space, found: Sequence[Resolved]) -> Space:
    """Returns the space with every proxy of its combinations among the levels; the proxy becomes a factor if it was none."""
    if not space.placebo:
        return space
    levels = (*space.factors.get("proxy", ()), *(one.levels.get("proxy", space.base.get("proxy")) for one in found))
    base = {path: value for path, value in space.base.items() if path != "proxy"}
    asked = {one.cell.proxy: space.write("proxy", one.levels.get("proxy", space.base.get("proxy"))) for one in found}
    shuffled = {f"{SHUFFLED}{proxy}": f"{SHUFFLED}{text}" for proxy, text in asked.items() if text[0] not in '"{'}
    written = {**space.written, "proxy": {**shuffled, **space.written.get("proxy", {})}}
    factors = {**space.factors, "proxy": tuple(dict.fromkeys(levels))}
    return replace(space, base=base, factors=factors, written=written)


def split_by_rules(space: Space, labels: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Cells that are one by their levels, but were given different settings by rules on what they were before."""
    seen: dict[tuple[str, ...], str] = {}
    for cell_id, by_path in labels.items() if space.when else ():
        levels = tuple(by_path.values())
        if seen.setdefault(levels, cell_id) != cell_id:
            named = ", ".join(f"{path} {level}" for path, level in by_path.items())
            yield (
                f"{space.where('when')}: the rules give one cell ({named}) different settings: combinations of levels that"
                " are equal work are told apart by them. Let the rules hold for all of these combinations or for none."
            )


def split_by_declarations(space: Space, cells: Iterable[TrialConfig]) -> Iterator[str]:
    """Cells that are one by their levels, but whose tasks were declared with different ways to normalise."""
    if "task" not in space.factors or "data.normalise" in space.factors:
        return
    seen: dict[tuple[Any, ...], object] = {}
    for flat in (cell.flat() for cell in cells):
        levels = tuple(flat[path] for path in space.factors)
        how = flat["data.normalise"]
        if seen.setdefault(levels, how) != how:
            yield (
                f"{space.where('factors', 'task')}: levels of task are the same data, once normalised by {seen[levels]!r} and"
                f" once by {how!r}. Leave normalise out of the declarations, and make data.normalise a factor."
            )


# Tuning -------------------------------------------------------------------------------------------


def tuned_cells(
    space: Space, found: Iterable[Resolved], resolve: Resolve, hasher: Hasher
) -> tuple[dict[str, list[Resolved]], tuple[TunedCell, ...], list[str]]:
    """Returns each cell's combinations, the cells with what is tried in each, and what is wrong with it.

    Combinations are one cell if everything tried is the same work in both. An adaptive search is checked at its ends.
    """
    search, problems = space.search, dict[str, None]()
    tries = tuning.grid(space.tune)
    if search.method != "grid":
        tries = tuning.random(space.tune, search.n_candidates or 0, search.sampler_seed)
    cells: dict[frozenset[str], TunedCell] = {}
    asked: dict[str, list[Resolved]] = {}
    for one in found:
        candidates: dict[str, TrialConfig] = {}
        every: set[str] = set()
        for i, settings in enumerate((*tries, *tuning.corners(space.tune))):
            try:
                config = candidate(one.settings, settings, resolve)
            except InputError as error:
                problems.update(dict.fromkeys(f"{_place(space, str(text))}: tune: {text}" for text in error.problems))
                continue
            cell_id = hasher.cell_id(config)
            every.add(cell_id)
            if i < len(tries):
                candidates.setdefault(cell_id, config)
        tried = () if search.method == "optuna" else tuple(candidates.values())
        cell = TunedCell(_tuned_id(space, one), one.cell, one.settings, one.levels, tried)
        first = cells.setdefault(frozenset(every), cell)
        asked.setdefault(first.cell_id, []).append(one)
    return asked, tuple(cells.values()), list(problems)


def _tuned_id(space: Space, one: Resolved) -> str:
    """Of what is fixed in a cell, and of what is searched there: another range is another cell."""
    fixed = {path: value for path, value in one.cell.hashed().items() if path != "seed" and path not in space.tune}
    tune = {
        path: str(values) if isinstance(values, tuning.Range) else list(values) for path, values in space.tune.items()
    }
    return digest("tuned cell", [fixed, dict(one.levels), tune, space.search.method])


def candidate(fixed: Mapping[str, Any], settings: Mapping[str, Any], resolve: Resolve) -> TrialConfig:
    """Returns the config of a cell's settings with tuned ones.

    Resolved from what the space says, not from a resolved config: what has no effect beside one candidate may have one
    beside the next.

    Raises:
        InputError: if they do not fit together.
    """
    return resolve({**fixed, **settings})


def _place(space: Space, text: str) -> str:
    """The line of the field a resolve problem starts with ('body.name ...'), wherever it was set."""
    path = text.split(" ", 1)[0].rstrip(":")
    if path in space.factors:
        return space.where("factors", path)
    if path in space.tune:
        return space.where("tune", path)
    if any(path in rule.settings for rule in space.when):
        return space.where("when")
    return space.where("base", path) if path in space.base else space.where("base")


# Fractions ----------------------------------------------------------------------------------------


def fraction_notes(
    space: Space,
    aliasing: designs.Aliasing | None,
    asked: Mapping[str, Sequence[Resolved]],
    labels: Mapping[str, Mapping[str, str]],
) -> Iterator[str]:
    """Yields what keeps a fraction from being the balanced one that its aliases are of; the space as it was read."""
    if aliasing is None or aliasing.resolution is None:
        return
    whole = {tuple(levels.values()) for levels in space.design.combinations(space.factors)}
    found = [(cell_id, one) for cell_id, of in asked.items() for one in of]
    own = [(cell_id, one) for cell_id, one in found if tuple(one.levels.values()) in whole]
    n_out = len(whole) - len({tuple(one.levels.values()) for _, one in own})
    if n_out:
        yield (
            f"exclude takes {n_out} of the fraction's {len(whole)} combinations out: the aliases are those of the whole"
            " fraction, and without these more effects mix. Use cross, or exclude nothing."
        )
    run = [(one.levels, labels[cell_id]) for cell_id, one in own]
    idle = [path for path in space.factors if not _acts_everywhere([(levels[path], by[path]) for levels, by in run])]
    if idle:
        n_cells = len({one.cell.cell_id for _, one in own})
        yield (
            f"{', '.join(idle)}: some of the fraction's combinations ask for a level that changes nothing there and runs as"
            f" another one, so its {len(whole)} combinations are {n_cells} different cells and no longer balanced: more"
            " effects mix than the aliases say. Use cross, or factors that act whatever the levels of the others."
        )
    if len(own) < len(found):
        yield (
            f"{len(found) - len(own)} combinations stand beside the fraction (include, placebo): the aliases are those of"
            " the fraction alone."
        )


def _acts_everywhere(levels: Iterable[tuple[object, object]]) -> bool:
    """Whether each level of a factor, as asked for, runs as one and the same, and no two levels as the same one."""
    pairs = set(levels)
    return len(pairs) == len({asked for asked, _ in pairs}) == len({run for _, run in pairs})
