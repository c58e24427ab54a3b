"""What a trial of the user's own files and code is known by: the hashes of their content, filled into its config."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from orca_sweep.bodies import find_body
from orca_sweep.config import CONTENT_OF, CONTENTS, ContentConfig, TrialConfig
from orca_sweep.config.naming import label_of
from orca_sweep.data.contents import SHOWN_DIGITS, Contents
from orca_sweep.errors import DataError, InputError
from orca_sweep.proxies import find_local_path
from orca_sweep.space import Plan
from orca_sweep.tasks import list_own_files
from orca_sweep.trial.importing import imports_digest


def find_files(config: TrialConfig) -> dict[str, list[Path]]:
    """Returns the user's own files and folders that a trial reads, by the content field that they belong to."""
    body = find_body(config.body.name)
    rungs = [location for rung in body.ladder.values() for location in rung.locations]
    proxy = find_local_path(config.proxy)
    folders = [Path(location) for location in (body.location, *rungs) if location is not None]
    files = {
        "content.task": list_own_files(config.task),
        "content.proxy": [] if proxy is None else [proxy],
        "content.body": [folder for folder in folders if folder.is_dir()],
    }
    return {field: paths for field, paths in files.items() if paths}


def fill_content(config: TrialConfig, contents: Contents) -> TrialConfig:
    """Returns the config with the hashes of its own files; code is known to the space alone and stays.

    Files that are not here, as on the head of a cluster whose workers hold the data, stay known by their path.

    Raises:
        InputError: if a file is there but cannot be read, or a hash that the config holds is that of another content.
    """
    hashes: dict[str, str | None] = {"code": config.content.code}
    problems: list[str] = []
    for field, paths in find_files(config).items():
        if all(path.exists() for path in paths):
            try:
                hashes[field.removeprefix("content.")] = contents.hash_paths(paths)
            except DataError as error:
                problems.append(f"{CONTENT_OF[field]} {error}")
    problems += _explain_other_contents(config, hashes)
    if problems:
        raise InputError(problems)
    return config.model_copy(update={"content": ContentConfig(**hashes)})


def find_changes(config: TrialConfig, imports: Iterable[str], contents: Contents) -> list[str]:
    """Returns what of a planned trial's own files and code is no longer as it was planned; reads only what it must."""
    hashes: dict[str, str | None] = {
        field.removeprefix("content."): contents.hash_paths(paths) for field, paths in find_files(config).items()
    }
    if config.content.code is not None:
        hashes["code"] = imports_digest(imports)
    return _explain_other_contents(config, hashes)


def check_contents(plan: Plan) -> None:
    """Refuses a plan of before whose files or code are no longer as they were planned.

    Raises:
        InputError: with every file whose content is another one now, or is gone.
    """
    contents, problems = Contents(), dict[str, None]()
    for cell in plan.cells:
        try:
            problems |= dict.fromkeys(find_changes(cell, plan.space.imports, contents))
        except DataError as error:
            problems[str(error)] = None
    if problems:
        raise InputError(list(problems))


def _explain_other_contents(config: TrialConfig, hashes: Mapping[str, str | None]) -> list[str]:
    problems, flat = [], config.flat()
    for field in CONTENTS:
        name = field.removeprefix("content.")
        planned, now = getattr(config.content, name), hashes.get(name)
        if planned is not None and now is not None and planned != now:
            named = (
                f"{CONTENT_OF[field]} {label_of(flat[CONTENT_OF[field]])!r}"
                if field in CONTENT_OF
                else "imports: the code"
            )
            problems.append(
                f"{named} has changed since the trial was planned: content {now[:SHOWN_DIGITS]} instead of"
                f" {planned[:SHOWN_DIGITS]}. Launch the space again: trials of the new content are new trials."
            )
    return problems
