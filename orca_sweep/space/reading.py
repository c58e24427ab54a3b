"""From a space YAML to a ``Space``: every value in its field's type, every mistake with its line."""

import copy
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orca_sweep.config.declaration import absolute_path, explain_impossible_path
from orca_sweep.errors import InputError, Problem
from orca_sweep.space import designs
from orca_sweep.space.documents import MOST_VALUES, Document, Keys, read_document
from orca_sweep.space.keys import SpaceKeys, explain_errors
from orca_sweep.space.levels import (
    Factors,
    Reading,
    count_levels,
    read_base,
    read_excluded,
    read_factors,
    read_included,
    read_rules,
    read_tune,
)
from orca_sweep.space.margins import name_margins
from orca_sweep.space.records import DEFAULT_LOGGERS, Logger, Rule, Space
from orca_sweep.space.sizes import MAX_TRIALS, find_size_problem
from orca_sweep.space.smoke import KEY, SUFFIX, apply_smoke, find_smoke_problems, has_smoke_form
from orca_sweep.space.tuning import Range, Search, Tune, default_seeds

UNNAMED = "space"
"""The name of a mapping without one; a file without one has the file's name."""
NEVER_LARGE = "one_at_a_time"
"""The design that replaces a wrong one, so that the mistakes in the cells are found too."""


def read_space(path: Path, max_trials: int = MAX_TRIALS) -> Space:
    """Reads a space YAML of at most ``max_trials`` trials.

    Raises:
        InputError: with every mistake: its file, line, value, rule and nearest name.
    """
    space, problems = read_space_and_problems(path, max_trials)
    problems += [] if problems else find_size_problem(space, max_trials)
    if problems:
        raise InputError(problems)
    return space


def read_space_and_problems(
    source: Path | Document, max_trials: int = MAX_TRIALS, *, is_smoke: bool = False
) -> tuple[Space, list[Problem]]:
    """Returns the space in a file or a document, or its smoke form, as far as it can be read, and the problems in both.

    Checks the length of each list, but not the number of trials.

    Raises:
        InputError: if nothing can be read, or if there are too many mistakes to go on.
    """
    document = source if isinstance(source, Document) else read_document(source, max(MOST_VALUES, 2 * max_trials))
    space, problems = _read_content(document, max_trials)
    of_form = [problem.at(document.locate(*keys)) for keys, problem in find_smoke_problems(document, is_asked=is_smoke)]
    if has_smoke_form(document):
        # A smoke form may leave out tasks that have a margin.
        tasks = _list_tasks(space.base, space.factors, space.when)
        form, form_problems = _read_content(apply_smoke(document), max_trials, tasks)
        news = [problem for problem in form_problems if problem not in problems]
        of_form += [replace(problem, scope=": ".join(filter(None, (KEY, problem.scope)))) for problem in news]
        space = replace(form, name=f"{form.name}{SUFFIX}", is_smoke=True) if is_smoke else space
    return space, [*problems, *of_form]


def _read_content(document: Document, max_trials: int, more_tasks: Sequence[str] = ()) -> tuple[Space, list[Problem]]:
    """Reads one form of a space; a margin may also be for one of ``more_tasks``."""
    reading = Reading(document, max_trials)
    keys = _read_keys(reading)
    space = _build_space(reading, keys, more_tasks)
    for location, problem in _find_contradictions(reading.document, keys, space):
        reading.report(location, problem)
    return space, reading.problems


def _build_space(reading: Reading, keys: SpaceKeys, more_tasks: Sequence[str]) -> Space:
    base = read_base(reading, keys.base)
    # Of a design that could not be read, nobody knows whether it lists combinations.
    may_repeat = keys.design.design.may_repeat or _was_design_refused(reading)
    factors = read_factors(reading, keys.factors, may_repeat=may_repeat)
    when = tuple(read_rules(reading, keys.when, factors))
    ruled = [field for rule in when for field in rule.settings]
    tune = read_tune(reading, keys.tune, [*base, *factors, *ruled])
    seeds = _fill_seeds(reading, "seeds", keys.seeds, ())
    aa = _fill_seeds(reading, "aa", keys.aa, seeds)
    return Space(
        name=keys.name,
        question=" ".join(keys.question.split()),
        base=base,
        factors=factors,
        design=_fit_design(reading, keys, factors),
        include=tuple(read_included(reading, keys.include, factors)),
        exclude=tuple(read_excluded(reading, keys.exclude, factors)),
        when=when,
        placebo=keys.placebo if _names_proxy(reading.document) else (),
        seeds=seeds,
        aa=aa,
        metric=keys.metric,
        resources=keys.resources,
        limits=keys.limits,
        loggers=_read_loggers(reading, keys.loggers),
        imports=tuple(_find_imports(reading, keys.imports)),
        path=reading.document.path,
        lines=reading.document.lines,
        tune=tune,
        search=_complete_search(keys.search, tune, (*seeds, *aa)),
        prune=keys.prune,
        budget=keys.budget,
        outcomes=keys.outcomes,
        margins=_read_margins(reading, keys.margin, [*_list_tasks(base, factors, when), *more_tasks]),
        checkpoints=keys.checkpoints,
        written=reading.written,
    )


def _read_keys(reading: Reading) -> SpaceKeys:
    """The keys of a space, without the wrong ones."""
    document = reading.document
    if not isinstance(document.content, dict):
        remedy = f"A space has the keys {', '.join(SpaceKeys.model_fields)}."
        raise InputError(Problem(where=str(document.path), rule="the file is not a mapping.", remedy=remedy))
    default_name = UNNAMED if document.path is None else document.path.stem
    content = {key: value for key, value in document.content.items() if value is not None}
    is_first = True
    while True:
        try:
            return SpaceKeys.model_validate({"name": default_name if is_first else "unnamed", **content})
        except ValidationError as error:
            # Mistakes that appear only on a second reading are consequences of those already reported.
            for problem in explain_errors(error, document, SpaceKeys) if is_first else ():
                reading.report((), problem)
            content, is_first = copy.deepcopy(content), False
            for item in error.errors(include_url=False, include_context=False):
                _drop_key(content, item["loc"])


def _drop_key(content: dict[Any, Any], location: tuple[int | str, ...]) -> None:
    """Removes the innermost key on the path to a location from nested mappings."""
    key, *rest = location
    inner = content.get(key)
    if rest and isinstance(inner, dict) and rest[0] in inner:
        _drop_key(inner, tuple(rest))
    else:
        content.pop(key, None)


# Seeds --------------------------------------------------------------------------------------------


def _fill_seeds(reading: Reading, key: str, seeds: int | tuple[int, ...], taken: tuple[int, ...]) -> tuple[int, ...]:
    """The seeds in a list; for a number n, the n smallest seeds that are not taken."""
    if isinstance(seeds, tuple):
        return seeds if reading.check_length(list(seeds), (key,), key) else ()
    if seeds > reading.max_trials:
        rule = f"a space may have at most {reading.max_trials:,} trials, and each seed is at least one trial."
        remedy = f"Give fewer seeds, or raise the limit with --max-trials {seeds}."
        reading.report((key,), Problem(field=key, value=seeds, rule=rule, remedy=remedy))
        return ()
    used = set(taken)
    return tuple(islice((seed for seed in count() if seed not in used), seeds))


def _complete_search(search: Search | None, tune: Tune, seeds: tuple[int, ...]) -> Search:
    has_ranges = any(isinstance(values, Range) for values in tune.values())
    search = search or Search(method="random" if has_ranges else "grid")
    return search if search.seeds or not tune else search.model_copy(update={"seeds": default_seeds(seeds)})


# What does not fit together -----------------------------------------------------------------------

Located = Iterator[tuple[Keys, Problem]]
"""Problems, each with the path in the document of what to correct."""


def _find_contradictions(document: Document, keys: SpaceKeys, space: Space) -> Located:
    """Yields what is wrong between the keys of a space."""
    content: Any = document.content
    if content.get("seeds") in (None, []):
        remedy = "Add 'seeds: [0, 1, 2]', or 'seeds: 3' for the same."
        yield ("seeds",), Problem(field="seeds", rule="the space has no seeds.", remedy=remedy)
    for field in sorted(space.base.keys() & space.factors.keys()):
        rule, remedy = f"{field} is both in base and a factor.", "Remove it from one of them."
        yield ("factors", field), Problem(field=field, rule=rule, remedy=remedy)
    if keys.placebo and not _names_proxy(document):
        rule = "a placebo replaces a proxy that the space sets, but it sets none: a recipe's proxy is not one of its levels."
        yield ("placebo",), Problem(field="placebo", rule=rule, remedy="Set proxy in base or as a factor.")
    yield from _find_shared_seeds(keys, space)
    yield from _find_search_problems(keys, space, has_tune=bool(content.get("tune")))


def _names_proxy(document: Document) -> bool:
    return bool({("base", "proxy"), ("factors", "proxy")} & document.lines.keys())


def _find_shared_seeds(keys: SpaceKeys, space: Space) -> Located:
    shared = ", ".join(map(str, filter(set(space.seeds).__contains__, space.aa)))
    if shared:
        rule = f"seeds also has {shared}, but the A/A cell needs different seeds."
        yield ("aa",), Problem(field="aa", value=list(space.aa), rule=rule, remedy="Choose others.")
    used = set(space.search.seeds) & {*space.seeds, *space.aa} if keys.search is not None else ()
    if used:
        rule = f"the seed {min(used)} is also used for replicates, which would favour the candidate chosen with it."
        yield ("search", "seeds"), Problem(field="search.seeds", rule=rule, remedy="Choose others.")


def _find_search_problems(keys: SpaceKeys, space: Space, *, has_tune: bool) -> Located:
    if keys.search is not None and not has_tune:
        rule = "search chooses the values of the fields under 'tune', but there is no tune."
        yield ("search",), Problem(field="search", rule=rule, remedy="Add tune, or remove search.")
    if keys.prune is not None and not keys.prune.cells and not has_tune:
        rule = "prune compares the candidates of a cell, but there is no tune."
        remedy = "To prune the cells of the ablation themselves, which harms their comparison, set cells: true."
        yield ("prune",), Problem(field="prune", rule=rule, remedy=remedy)
    ranges = [field for field, values in space.tune.items() if isinstance(values, Range)]
    if keys.search is not None and keys.search.method == "grid" and ranges:
        rule = f"a grid needs lists of values, but {ranges[0]} is a range."
        yield ("search",), Problem(field="search.method", value="grid", rule=rule, remedy="Use random or optuna.")


def _fit_design(reading: Reading, keys: SpaceKeys, factors: Factors) -> designs.Design:
    """The design, or after a mistake a design that is never large."""
    design = keys.design.design
    misfits = list(designs.find_misfits(design, count_levels(keys.factors)))
    reading.report(("design",), *(Problem(field="design", value=design.name, rule=rule) for rule in misfits))
    was_refused = _was_design_refused(reading)
    # If some levels could not be read, the others may not fit a design that all levels together fit.
    counts = {field: len(levels) for field, levels in factors.items()}
    is_misfit = was_refused or any(designs.find_misfits(design, counts))
    return designs.DESIGNS[NEVER_LARGE] if is_misfit else design


def _was_design_refused(reading: Reading) -> bool:
    return any(problem.field in ("design", "design.name") for problem in reading.problems)


# Keys that name parts -----------------------------------------------------------------------------


def _read_loggers(reading: Reading, raw: Sequence[Any] | None) -> tuple[Logger, ...]:
    if raw is None:
        return DEFAULT_LOGGERS
    loggers: list[Logger] = []
    for i, item in enumerate(raw):
        try:
            loggers.append(Logger.model_validate(item))
        except ValidationError as error:
            reading.report((), *explain_errors(error, reading.document, Logger, ("loggers", str(i))))
    for name, n in Counter(logger.name for logger in loggers).items():
        if n > 1:
            problem = Problem(field="loggers", rule=f"{name} appears here twice.", remedy="Keep one.")
            reading.report(("loggers",), problem)
    return tuple(loggers)


def _find_imports(reading: Reading, names: Iterable[str]) -> Iterator[str]:
    """Yields module names unchanged, and files as absolute paths.

    Relative paths start in the YAML's folder; those of a mapping start in the working folder.
    """
    path = reading.document.path
    folder, start = (Path(), "the working folder") if path is None else (path.parent, "the YAML's folder")
    for i, name in enumerate(names):
        if not name.endswith(".py"):
            yield name
            continue
        file = absolute_path(str(folder / name))
        rule = explain_impossible_path(file)
        if rule is None and not Path(file).is_file():
            rule = f"there is no file {name!r}. Paths are relative to {start}."
        reading.report(("imports", str(i)), *([Problem(field="imports", rule=rule)] if rule else []))
        yield file


def _list_tasks(base: Mapping[str, Any], factors: Factors, when: Iterable[Rule]) -> list[str]:
    settings = [base, *(rule.settings for rule in when)]
    return [of["task"] for of in settings if "task" in of] + list(factors.get("task", ()))


def _read_margins(reading: Reading, margins: Mapping[str, float], tasks: Sequence[str]) -> dict[str, float]:
    """The margins by task; names are checked even if their margins are wrong."""
    content: Any = reading.document.content
    written = content.get("margin")
    by_task, problems = name_margins(margins, tasks, list(written) if isinstance(written, dict) else [])
    for name, problem in problems.items():
        reading.report(("margin", name), problem)
    return by_task
