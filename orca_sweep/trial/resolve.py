"""Resolves dotted settings to a trial: its whole, checked config with the records that it names."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from orca_sweep.bodies import Body
from orca_sweep.config import TrialConfig, declaration, explain_validation, freeze_words, freezing
from orca_sweep.config.naming import label_of
from orca_sweep.data.contents import Contents
from orca_sweep.errors import InputError, Problem
from orca_sweep.objectives import OBJECTIVES
from orca_sweep.trial.canonical import canonical_settings
from orca_sweep.trial.contradictions import find_contradictions
from orca_sweep.trial.identity import fill_content
from orca_sweep.trial.records import Records, ResolvedTrial
from orca_sweep.trial.sources import canonical_sources


def resolve_settings(
    settings: Mapping[str, Any], records: Records | None = None, contents: Contents | None = None
) -> ResolvedTrial:
    """Returns the trial of dotted settings: its whole, checked config and the records that it names.

    Unset settings come from the task's recipe, then from the fields' defaults. Settings that cannot change the work take one
    canonical value (``canonical_settings``, ``canonical_sources``), so that equal work has an equal id. Folders of bodies
    and proxies become absolute, since workers run in another folder. The user's own files are hashed: ids depend on their
    content, not on their paths.

    Args:
        settings: dotted names and values.
        records: shared by trials that are resolved together; if None, every name is looked up afresh.
        contents: hashes of the user's own files; None reads every file again.

    Raises:
        InputError: with every mistake, each a problem of one field.
    """
    records = records or Records()
    settings = {**settings, **_declare_texts(settings)}
    problems = list(_find_unknown_names(settings, records))
    task = records.get_task_or_none(settings)
    whole = {**(task.recipe if task else {}), **settings}
    problems = problems or list(_find_unknown_names(whole, records))
    known = records.get_known(whole)
    ranges = _find_range_problems(whole, known.body)
    try:
        config = TrialConfig.from_flat(canonical_settings(whole, known))
    except ValidationError as error:
        problems += [*_explain_validation(error, task is not None), *ranges]
        raise InputError(list(dict.fromkeys(problems))) from None
    if problems or ranges:
        raise InputError(list(dict.fromkeys([*problems, *ranges])))
    trial = _resolve_checked(config, records)
    config = fill_content(replace(trial, config=canonical_sources(trial)), contents or Contents())
    return replace(trial, config=config)


def make_config(
    settings: Mapping[str, Any], records: Records | None = None, contents: Contents | None = None
) -> TrialConfig:
    """Returns only the config of ``resolve_settings``: plans hold configs."""
    return resolve_settings(settings, records, contents).config


def _resolve_checked(config: TrialConfig, records: Records) -> ResolvedTrial:
    """The trial of a valid config.

    Raises:
        InputError: with every combination of its settings that does not fit together.
    """
    body, problems = config.body, list[Problem]()
    try:
        records.get_rung(body.name, body.pretrain_fraction, body.pretrain_seed)
    except InputError as error:
        problems += error.problems
    # If the body has no such rung, everything else is checked with the body itself.
    full = config.replaced(body=body.replaced(pretrain_fraction=1.0)) if problems else config
    trial = replace(records.resolve_config(full), config=config)
    problems += find_contradictions(trial)
    if problems:
        raise InputError(list(dict.fromkeys(problems)))
    return trial


def _declare_texts(settings: Mapping[str, Any]) -> dict[str, object]:
    """The text form of a task or proxy that is given as a mapping."""
    texts: dict[str, object] = {}
    for path, as_text in (("task", declaration.task_as_text), ("proxy", declaration.as_text)):
        value = settings.get(path)
        if isinstance(value, Mapping):
            try:
                texts[path] = as_text(value)
            except ValueError as error:
                raise InputError(Problem(field=path, value=value, rule=f"{error}.")) from None
    return texts


def _explain_validation(error: ValidationError, is_task_known: bool) -> Iterator[Problem]:
    """The problems that pydantic reports, except for a missing body, which follows from an unknown task."""
    for path, value, rule in explain_validation(error):
        field = "body.name" if path == "body" else path
        if rule != "field required":
            yield Problem(field=field, value=value, rule=f"{rule}.".replace("?.", "?"))
        elif field == "task" or is_task_known:
            yield Problem(field=field, rule="this field is missing.", remedy="Set it in base or as a factor.")


def _find_unknown_names(settings: Mapping[str, Any], records: Records) -> Iterator[Problem]:
    objective = settings.get("embedder.objective", "none")
    if objective not in OBJECTIVES:
        yield Problem(field="embedder.objective", value=objective, rule=OBJECTIVES.explain_unknown(objective))
    getters: dict[str, Callable[[str], object]] = {
        "task": records.get_task,
        "proxy": records.get_proxy,
        "body.name": records.get_body,
    }
    for path, get in getters.items():
        if path in settings:
            try:
                get(settings[path])
            except InputError as error:
                for problem in error.problems:
                    yield replace(problem, field=path, value=label_of(settings[path]))


def _find_range_problems(settings: Mapping[str, Any], body: Body | None) -> list[Problem]:
    """The problems of the freeze schedule's ranges of layers, even in phases that the run does not reach."""
    try:
        freeze = freezing.as_text(settings.get("finetune.freeze"))
    except ValueError:
        return []
    if body is None or not isinstance(freeze, str):
        return []
    rules = freeze_words.find_range_problems(freeze, f"body {body.name!r}", body.n_layers)
    return [Problem(field="finetune.freeze", value=freeze, rule=rule) for rule in rules]
