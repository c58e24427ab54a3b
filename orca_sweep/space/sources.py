"""What a person names to plan or launch: one space, or the spaces of a suite."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orca_sweep.errors import InputError, Problem, refuse_argument
from orca_sweep.registry import hint
from orca_sweep.space.bundled import find_space, is_plain_word, list_bundled_spaces, list_bundled_suites
from orca_sweep.space.keys import FOLDER_NAME
from orca_sweep.space.manifest import MANIFEST
from orca_sweep.space.suites import SUITE

SUFFIX = ".yaml"
ONE_FOLDER = "A suite is one folder of space YAMLs, without folders in it."


@dataclass(frozen=True, kw_only=True)
class SuiteFiles:
    """The spaces of a suite."""

    name: str
    files: tuple[Path, ...]


def find_sources(sources: Sequence[Path], name: str | None = None) -> Path | SuiteFiles:
    """Returns the file of one space, or the name and the files of a suite, whose order is kept.

    Args:
        sources: one space, as `find_space` takes it; or one or more folders of spaces, files, and names of bundled spaces
            and suites.
        name: the suite's name; by default that of its only folder.

    Raises:
        InputError: with each source that is nothing of these, or if the suite has no name.
    """
    if not sources:
        raise InputError("no space. Name a space YAML, a folder of them, or a bundled space (orca-sweep list spaces).")
    folders = list(map(find_suite_folder, sources))
    if len(sources) == 1 and folders[0] is None:
        if name is not None:
            rule = "this names a suite, but there is one space."
            raise refuse_argument("name", name, rule, "The key 'name' of a space names its sweep.")
        return find_space(sources[0])
    files: list[Path] = []
    problems: list[Problem] = []
    for source, folder in zip(sources, folders, strict=True):
        try:
            files += [find_space(source)] if folder is None else list_suite_files(folder)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return SuiteFiles(name=_choose_name(folders, name), files=tuple(files))


def find_suite_folder(source: Path) -> Path | None:
    """Returns the folder of a suite, given its path or the name of a bundled one; None for a single space.

    A folder with spaces wins over a bundled name; one without, such as that of an earlier sweep, does not.

    Raises:
        InputError: for a word that is neither a folder, nor anything bundled, with the nearest names.
    """
    word = str(source)
    if "\0" in word:
        return None
    if is_plain_word(source) and not _holds_spaces(source):
        suites, spaces = list_bundled_suites(), list_bundled_spaces()
        if word in suites:
            return suites[word]
        if word not in spaces and not source.is_dir():
            rule = "there is no such file or folder, and no bundled space or suite of that name."
            raise InputError(f"{word}: {rule} {hint(word, [*spaces, *suites])}")
        if word in spaces:
            return None
    return source if source.is_dir() else None


def list_suite_files(folder: Path) -> list[Path]:
    """Returns the spaces in a folder, sorted by name.

    Raises:
        InputError: for a folder without spaces, and for whatever in it might be meant as one and is not.
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{folder}: this folder cannot be read ({error.strerror}).") from None
    problems = []
    if {MANIFEST, SUITE} & {entry.name for entry in entries}:
        rule = "this is the folder of a sweep, not of spaces."
        raise InputError(Problem(where=str(folder), rule=rule, remedy=f"Continue it with: orca-sweep resume {folder}"))
    for entry in entries:
        if entry.is_dir() and not entry.name.startswith((".", "__")):
            problems.append(Problem(where=entry.path, rule="a folder in the folder of a suite.", remedy=ONE_FOLDER))
        elif entry.name.endswith(".yml"):
            remedy = f"Rename it to {Path(entry.name).stem}{SUFFIX}, or move it away."
            problems.append(Problem(where=entry.path, rule=f"a space of a suite ends in {SUFFIX}.", remedy=remedy))
    files = [Path(entry.path) for entry in entries if entry.name.endswith(SUFFIX) and not entry.name.startswith(".")]
    if not files and not problems:
        rule = f"there is no space in this folder: no file ends in {SUFFIX}."
        problems.append(Problem(where=str(folder), rule=rule, remedy="Name a space YAML, or a folder of them."))
    if problems:
        raise InputError(problems)
    return files


def _holds_spaces(folder: Path) -> bool:
    return folder.is_dir() and any(folder.glob(f"*{SUFFIX}"))


def _choose_name(folders: Sequence[Path | None], name: str | None) -> str:
    if name is None and len(folders) > 1:
        rule = "several spaces are a suite, and it has no name."
        raise InputError(Problem(field="name", rule=rule, remedy="Give one: results/<name>.", is_argument=True))
    text = name if name is not None else Path(os.path.abspath(folders[0] or "")).name
    if not FOLDER_NAME.fullmatch(text):
        rule = "this cannot be the name of a suite. Use up to 100 letters, digits, '-', '_' and '.'."
        raise refuse_argument("name", text, rule)
    return text
