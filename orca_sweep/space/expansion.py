"""From a space to its combinations of levels and their placebos, each resolved to its cell."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orca_sweep.config import TrialConfig
from orca_sweep.config.acting import LABELS_CAN_ACT
from orca_sweep.config.declaration import SHUFFLED
from orca_sweep.config.naming import label_declarations
from orca_sweep.errors import MOST_PROBLEMS, InputError, Problem
from orca_sweep.space import designs
from orca_sweep.space.documents import Keys
from orca_sweep.space.records import PLACEBOS, Resolve, Rule, Space


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """A combination of levels as the space asks for it, and its cell; combinations with equal work share a cell."""

    levels: Mapping[str, Any]
    cell: TrialConfig
    settings: Mapping[str, Any]
    """All that the space sets for it, including what has no effect."""


def expand_space(space: Space, resolve: Resolve) -> tuple[list[Resolved], list[Problem]]:
    """Returns the combinations that can be resolved, placebos last, and the problems of the rest."""
    own: list[Resolved] = []
    placebos: list[Resolved] = []
    problems: dict[Problem, None] = {}
    refused: set[InputError] = set()
    rules = _RuleIndex(space.when)
    for levels in designs.list_combinations(space.design, space.factors, space.include, space.exclude):
        if len(problems) > MOST_PROBLEMS:  # finding the nearest names for thousands of wrong names takes minutes
            break
        settings = {**space.base, **levels, **rules.settings_for(levels)}
        if space.code is not None:
            settings["content.code"] = space.code
        try:
            own.append(Resolved(levels=levels, cell=resolve(settings), settings=settings))
            for proxy in _choose_placebos(space, own[-1].cell.proxy):
                # A placebo differs from its original only in the proxy: the same rules apply to it.
                placebo = {**settings, "proxy": proxy}
                placebos.append(Resolved(levels={**levels, "proxy": proxy}, cell=resolve(placebo), settings=placebo))
        except InputError as error:
            if error not in refused:
                refused.add(error)
                problems |= dict.fromkeys(locate_problems(space, error.problems))
    problems = problems or dict.fromkeys(_find_lacks(space, own, placebos))
    return [*own, *placebos], list(problems)


def locate_problems(space: Space, problems: Iterable[Problem], scope: str = "") -> Iterator[Problem]:
    """Yields problems of settings with the line where the space sets their field; if several do, the one that wins."""
    for problem in problems:
        field = problem.field or ""
        keys: Keys = ("base", field)
        if field in space.factors:
            keys = ("factors", field)
        elif field in space.tune:
            keys = ("tune", field)
        elif any(field in rule.settings for rule in space.when):
            keys = ("when",)
        yield problem.at(space.locate(*keys), scope)


class _RuleIndex:
    """The rules of ``when`` by their factors and levels: of thousands, a combination is checked against its own only."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.by_fields: dict[tuple[str, ...], dict[tuple[Any, ...], dict[str, tuple[int, Any]]]] = {}
        """For rules with equal conditions, what the last of them sets, with its number among the rules."""
        for number, rule in enumerate(rules):
            fields = tuple(sorted(rule.levels))
            by_levels = self.by_fields.setdefault(fields, {})
            settings = by_levels.setdefault(tuple(rule.levels[field] for field in fields), {})
            settings.update({field: (number, value) for field, value in rule.settings.items()})

    def settings_for(self, levels: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the settings of the rules that apply to a combination; the last rule wins."""
        settings: dict[str, tuple[int, Any]] = {}
        for fields, by_levels in self.by_fields.items():
            for field, setting in by_levels.get(tuple(levels[field] for field in fields), {}).items():
                if field not in settings or settings[field][0] < setting[0]:
                    settings[field] = setting
        return {field: value for field, (_, value) in sorted(settings.items(), key=lambda item: item[1][0])}


def _choose_placebos(space: Space, proxy: str) -> list[str]:
    """The placebos of a resolved cell's proxy; none without a proxy, as in cells with an untrained embedder."""
    is_real = proxy not in ("none", "dummy") and not proxy.startswith(SHUFFLED)
    return [PLACEBOS[name](proxy) for name in space.placebo] if is_real else []


def _find_lacks(space: Space, own: Sequence[Resolved], placebos: Sequence[Resolved]) -> Iterator[Problem]:
    if not own:
        rule = "exclude leaves no combination of levels."
        yield Problem(where=space.locate("exclude"), field="exclude", rule=rule, remedy="Remove a rule.")
    elif space.placebo and not placebos:
        rule = "no combination trains the embedder towards a real proxy, so a placebo has nothing to replace."
        yield Problem(where=space.locate("placebo"), field="placebo", rule=rule, remedy="Remove placebo.")


def add_placebo_levels(space: Space, combinations: Sequence[Resolved]) -> Space:
    """Returns the space with every proxy of its combinations among the levels of proxy, which becomes a factor if needed."""
    if not space.placebo:
        return space
    asked = [(of.cell.proxy, of.levels.get("proxy", space.base.get("proxy"))) for of in combinations]
    base = {field: value for field, value in space.base.items() if field != "proxy"}
    texts = {proxy: space.write_level("proxy", level) for proxy, level in asked}
    shuffled = {f"{SHUFFLED}{proxy}": f"{SHUFFLED}{text}" for proxy, text in texts.items() if text[0] not in '"{'}
    written = {**space.written, "proxy": {**shuffled, **space.written.get("proxy", {})}}
    levels = dict.fromkeys((*space.factors.get("proxy", ()), *(level for _, level in asked)))
    return replace(space, base=base, factors={**space.factors, "proxy": tuple(levels)}, written=written)


def describe_merged_placebos(
    by_cell: Mapping[str, Sequence[Resolved]],
) -> Iterator[str]:
    """Yields a note for each objective under which permuted labels are the same work as real ones.

    Args:
        by_cell: the combinations of each cell.
    """
    labels = label_declarations(dict.fromkeys(combinations[0].cell.proxy for combinations in by_cell.values()))
    proxies: dict[str, dict[str, None]] = {}
    for combinations in by_cell.values():
        for asked in combinations:
            cell, proxy = asked.cell, str(asked.settings.get("proxy"))
            if cell.embedder.epochs and proxy.startswith(SHUFFLED) and not cell.proxy.startswith(SHUFFLED):
                proxies.setdefault(cell.embedder.objective, {})[labels[combinations[0].cell.proxy]] = None
    for objective, names in proxies.items():
        permuted = ", ".join(f"{SHUFFLED}{name}" for name in names)
        yield (
            f"proxy {permuted} is the same work as with the real labels under embedder.objective {objective}, which sees no"
            f" labels: it runs once, with the real labels, and is no placebo there. {LABELS_CAN_ACT}, or use the placebo"
            " dummy."
        )


def find_split_rules(space: Space, labels: Mapping[str, Mapping[str, str]]) -> Iterator[Problem]:
    """Yields a problem for each cell that rules split: its combinations are equal work, but rules set them differently."""
    seen: dict[tuple[str, ...], str] = {}
    for cell_id, by_field in labels.items() if space.when else ():
        levels = tuple(by_field.values())
        if seen.setdefault(levels, cell_id) != cell_id:
            named = ", ".join(f"{field} {level}" for field, level in by_field.items())
            rule = (
                f"the rules give one cell ({named}) different settings: they apply to only some of the combinations of"
                " levels that are equal work."
            )
            remedy = "Let the rules apply to all of these combinations or to none."
            yield Problem(where=space.locate("when"), field="when", rule=rule, remedy=remedy)


def find_split_declarations(space: Space, cells: Iterable[TrialConfig]) -> Iterator[Problem]:
    """Yields a problem for each cell that declarations split: its levels are equal, but its tasks normalise differently."""
    if "task" not in space.factors or "data.normalise" in space.factors:
        return
    seen: dict[tuple[Any, ...], object] = {}
    for flat in (cell.flat() for cell in cells):
        levels, normalise = tuple(flat[field] for field in space.factors), flat["data.normalise"]
        if seen.setdefault(levels, normalise) != normalise:
            rule = f"some levels are the same data, once normalised by {seen[levels]!r} and once by {normalise!r}."
            remedy = "Remove normalise from the declarations, and make data.normalise a factor."
            yield Problem(where=space.locate("factors", "task"), field="task", rule=rule, remedy=remedy)


# Fractions ----------------------------------------------------------------------------------------


def describe_imbalance(
    space: Space,
    aliasing: designs.Aliasing | None,
    by_cell: Mapping[str, Sequence[Resolved]],
    labels: Mapping[str, Mapping[str, str]],
) -> Iterator[str]:
    """Yields each reason why a fraction is not balanced, so that its aliases are incomplete.

    Args:
        space: the space as it was read.
        aliasing: what the fraction cannot separate; None for another design.
        by_cell: the combinations of each cell.
        labels: for each cell, the level of every factor.
    """
    if aliasing is None or aliasing.resolution is None:
        return
    whole = {tuple(levels.values()) for levels in space.design.combine(space.factors)}
    every = [(cell_id, asked) for cell_id, combinations in by_cell.items() for asked in combinations]
    own = [(cell_id, asked) for cell_id, asked in every if tuple(asked.levels.values()) in whole]
    n_out = len(whole) - len({tuple(asked.levels.values()) for _, asked in own})
    if n_out:
        yield (
            f"exclude removes {n_out} of the fraction's {len(whole)} combinations: the aliases are those of the whole"
            " fraction, and without these combinations more effects mix. Use cross, or exclude nothing."
        )
    run = [(asked.levels, labels[cell_id]) for cell_id, asked in own]
    idle = [path for path in space.factors if not _acts_everywhere([(levels[path], by[path]) for levels, by in run])]
    if idle:
        n_cells = len({asked.cell.cell_id for _, asked in own})
        yield (
            f"{', '.join(idle)}: some of the fraction's combinations ask for a level that has no effect there and runs as"
            f" another level, so its {len(whole)} combinations are {n_cells} different cells and no longer balanced: more"
            " effects mix than the aliases show. Use cross, or factors that act at every level of the other factors."
        )
    if len(own) < len(every):
        yield (
            f"{len(every) - len(own)} combinations are not part of the fraction (include, placebo): the aliases are those of"
            " the fraction alone."
        )


def _acts_everywhere(levels: Iterable[tuple[object, object]]) -> bool:
    """Whether each level that is asked for always runs as the same level, and different levels as different ones."""
    pairs = set(levels)
    return len(pairs) == len({asked for asked, _ in pairs}) == len({run for _, run in pairs})
