"""Identifies the user's own files and code by the hashes of their content, which become part of a trial's config."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from orca_sweep.config import CONTENT_OF, CONTENTS, ContentConfig, TrialConfig
from orca_sweep.config.naming import label_of
from orca_sweep.data.contents import SHOWN_DIGITS, Contents
from orca_sweep.errors import NO_VALUE, DataError, InputError, Problem
from orca_sweep.proxies import find_local_path
from orca_sweep.space import Plan
from orca_sweep.trial.importing import imports_digest
from orca_sweep.trial.records import ResolvedTrial, resolve_configs


def find_files(trial: ResolvedTrial) -> dict[str, list[Path]]:
    """Returns the user's own files and folders that a trial reads, under their content fields."""
    task, body, proxy = trial.task, trial.body, find_local_path(trial.config.proxy)
    rungs = [location for rung in body.ladder.values() for location in rung.locations]
    folders = [Path(location) for location in (body.location, *rungs) if location is not None]
    files = {
        "content.task": [Path(file.path) for file in task.files] if task.declaration is not None else [],
        "content.proxy": [] if proxy is None else [proxy],
        "content.body": [folder for folder in folders if folder.is_dir()],
    }
    return {field: paths for field, paths in files.items() if paths}


def fill_content(trial: ResolvedTrial, contents: Contents) -> TrialConfig:
    """Returns the config with the hashes of the user's files; the hash of the space's code stays as it is.

    Missing files, as on the head of a cluster whose workers hold the data, stay identified by their paths.

    Raises:
        InputError: if a file exists but cannot be read, or the config holds the hash of another content.
    """
    config = trial.config
    hashes: dict[str, str | None] = {"code": config.content.code}
    problems: list[Problem] = []
    for field, paths in find_files(trial).items():
        if all(path.exists() for path in paths):
            try:
                hashes[field.removeprefix("content.")] = contents.hash_paths(paths)
            except DataError as error:
                problems.append(Problem(field=CONTENT_OF[field], rule=str(error)))
    problems += _explain_changed_contents(config, hashes)
    if problems:
        raise InputError(problems)
    return config.model_copy(update={"content": ContentConfig(**hashes)})


def find_changes(trial: ResolvedTrial, imports: Iterable[str], contents: Contents) -> list[Problem]:
    """Returns a problem for each of a trial's own files, and its code, that changed after it was planned."""
    hashes: dict[str, str | None] = {
        field.removeprefix("content."): contents.hash_paths(paths) for field, paths in find_files(trial).items()
    }
    if trial.config.content.code is not None:
        hashes["code"] = imports_digest(imports)
    return _explain_changed_contents(trial.config, hashes)


def check_contents(plan: Plan) -> None:
    """Checks that the files and the code of an earlier plan have not changed.

    Raises:
        InputError: with every file that has changed or is missing.
    """
    contents, problems = Contents(), dict[Problem, None]()
    for trial in resolve_configs(plan.cells):
        try:
            problems |= dict.fromkeys(find_changes(trial, plan.space.imports, contents))
        except DataError as error:
            problems[Problem(rule=str(error))] = None
    if problems:
        raise InputError(list(problems))


def _explain_changed_contents(config: TrialConfig, hashes: Mapping[str, str | None]) -> list[Problem]:
    problems = []
    for content in CONTENTS:
        name = content.removeprefix("content.")
        planned, now = getattr(config.content, name), hashes.get(name)
        if planned is not None and now is not None and planned != now:
            field = CONTENT_OF.get(content)
            problems.append(
                Problem(
                    field=field or "imports",
                    value=NO_VALUE if field is None else label_of(config.flat()[field]),
                    rule=f"its content has changed since the trial was planned: {now[:SHOWN_DIGITS]} instead of"
                    f" {planned[:SHOWN_DIGITS]}.",
                    remedy="Launch the space again: trials of the new content are new trials.",
                )
            )
    return problems
