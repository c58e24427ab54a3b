"""The folder of a suite, in which several sweeps run as one: the owner of ``suite.json``.

``suite.json`` names the member sweeps of the last launch, in order. Each is an ordinary sweep folder below the suite's, under
the name of its space. `read_suite` is the only reader and `write_suite` the only writer.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter

from orca_sweep.errors import DamagedError, InputError, Problem, refuse_argument
from orca_sweep.record_files import read_record_file
from orca_sweep.space.manifest import MANIFEST
from orca_sweep.space.margins import ALL
from orca_sweep.space.records import Plan, Resources
from orca_sweep.store import write_json

SUITE = "suite.json"
LOCK = ".lock"
"""Held in the folder of a sweep, and in that of a suite, while a launch runs there."""
STORE = "store"
"""The folder of the store that the members share, unless the user names another one."""
TAKEN = frozenset({STORE, "tables", "figures", "ray", "trials", MANIFEST, SUITE, "report.html"})
"""Names of what else is in the folder of a suite or sweep, which no member can have."""
LAUNCH_AGAIN = "Launch the suite again with --out: this rewrites the file and keeps the trials that have ended."


def _check_names(names: tuple[str, ...]) -> tuple[str, ...]:
    folded = [name.casefold() for name in names]  # many file systems take upper and lower case for equal
    wrong = [name for name in names if name.casefold() in TAKEN or folded.count(name.casefold()) > 1]
    if wrong:
        raise ValueError(f"{wrong[0]!r} cannot be the name of a member, or is there twice")
    return names


# One part, which does not begin with a dot: no path leaves the suite's folder.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class SuiteManifest(BaseModel):
    """A suite as its folder holds it."""

    model_config = ConfigDict(frozen=True, strict=True)

    name: Name
    members: Annotated[tuple[Name, ...], Field(min_length=1), AfterValidator(_check_names)]
    """The names of the member sweeps and of their folders, in the order of the launch."""


SUITE_FILE: TypeAdapter[SuiteManifest] = TypeAdapter(SuiteManifest)


def write_suite(folder: Path, manifest: SuiteManifest) -> None:
    """Writes the manifest of a suite's folder.

    Raises:
        StorageError: if the file cannot be written.
    """
    write_json(folder / SUITE, manifest.model_dump())


def read_suite(folder: Path) -> SuiteManifest | None:
    """Returns the manifest of a suite's folder, or None if the folder holds no suite.

    Raises:
        DamagedError: if the file is damaged, or names what no member can have as its name.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        return None
    return read_record_file(folder / SUITE, SUITE_FILE, LAUNCH_AGAIN)


def holds_sweep(folder: Path) -> bool:
    """Returns whether a folder is that of a sweep or of a suite, damaged or not."""
    return os.path.lexists(folder / MANIFEST) or os.path.lexists(folder / SUITE)


@dataclass(frozen=True, kw_only=True)
class SweepFolders:
    """The sweep folders that a folder stands for."""

    folders: tuple[Path, ...]
    """Those of a suite's members, in order; of any other folder, the folder itself."""
    absent: tuple[Path, ...] = ()
    """Members of a suite whose sweep no launch has begun."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the absent members mean, a sentence each."""
        return tuple(
            f"{folder}: this member of the suite has no plan yet, so it has no rows. Launch the suite again."
            for folder in self.absent
        )


def list_sweep_folders(folder: Path) -> SweepFolders:
    """Returns the sweep folders of a suite, or the folder itself, which need not hold a sweep.

    Raises:
        DamagedError: if ``suite.json`` is damaged.
        InputError: if no member of the suite has a plan.
    """
    suite = read_suite(folder)
    if suite is None:
        return SweepFolders(folders=(folder,))
    members = [folder / name for name in suite.members]
    begun = tuple(member for member in members if os.path.lexists(member / MANIFEST))
    if not begun:
        raise InputError(
            f"{folder}: no member of this suite has a plan yet. Launch the suite again with --out {folder}."
        )
    return SweepFolders(folders=begun, absent=tuple(member for member in members if member not in begun))


def list_former_members(folder: Path, suite: SuiteManifest) -> list[str]:
    """Returns the names of the sweep folders in a suite's folder that are no longer its members."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    return [name for name in names if name not in suite.members and os.path.lexists(folder / name / MANIFEST)]


# Plans that run as one ---------------------------------------------------------------------------


def check_suite_folder(folder: Path, manifest: SuiteManifest) -> None:
    """Refuses a folder that holds a plain sweep, another suite, or anything else than this suite.

    Raises:
        InputError: with what the folder holds.
    """
    remedy = "Choose another folder, or give the suite another name."
    if os.path.lexists(folder) and not folder.is_dir():
        raise refuse_argument("out", folder, "a file or a broken link, not a folder.", remedy)
    if os.path.lexists(folder / MANIFEST):
        raise refuse_argument("out", folder, "holds the sweep of a single space, not a suite.", remedy)
    known = {LOCK, STORE, *manifest.members}
    foreign = sorted(set(os.listdir(folder)) - known) if folder.is_dir() else []
    try:
        earlier = read_suite(folder)
    except DamagedError as error:
        if not (folder / SUITE).is_file():
            raise DamagedError(error.path, error.why, "Move it away, then launch again.") from None
        if any((folder / name / MANIFEST).is_file() for name in manifest.members):
            return  # the launch writes it anew
        raise
    if earlier is not None and earlier.name != manifest.name:
        raise refuse_argument("out", folder, f"holds the suite {earlier.name!r}, not {manifest.name!r}.", remedy)
    if earlier is None and foreign:
        names = ", ".join(foreign[:3])
        raise refuse_argument("out", folder, f"not empty and not a suite ({names}).", remedy)


def find_member_problems(plans: Sequence[Plan]) -> Iterator[Problem]:
    """Yields what keeps plans from running as one: names of spaces, and what their tasks are judged by."""
    by_name: dict[str, list[Plan]] = {}
    for plan in plans:
        name = plan.space.name
        by_name.setdefault(name.casefold(), []).append(plan)
        if name.casefold() in TAKEN:
            rule = "this is the name of another file or folder of a suite."
            yield Problem(
                where=plan.space.locate("name"), field="name", value=name, rule=rule, remedy="Choose another."
            )
    for same in by_name.values():
        if len(same) > 1:
            files, name = [plan.space.locate("name") for plan in same], same[0].space.name
            equal = "the same" if len({plan.space.name for plan in same}) == 1 else "names that differ only in case"
            rule = f"the spaces of a suite need different names, but {' and '.join(files)} have {equal}."
            yield Problem(where=files[0], field="name", value=name, rule=rule, remedy="Rename one with the key 'name'.")
    yield from _find_disagreements(plans)
    yield from _find_mixed_resources(plans)
    yield from _find_repeats_without_news(plans)


def _find_disagreements(plans: Iterable[Plan]) -> Iterator[Problem]:
    """Yields where two spaces compare different columns, score failures differently, or judge one task by different margins.

    The tables of a suite are compared on one column, a trial that two spaces have has one score, and a claim needs one margin
    for each task.
    """
    known: dict[str, tuple[object, str]] = {}
    for plan in plans:
        space = plan.space
        worst = ", ".join(sorted(status for status, rule in space.outcomes.items() if rule.then == "worst")) or "none"
        rules: dict[str, tuple[object, str]] = {
            "metric": (space.metric, space.locate("metric")),
            "outcomes scored as worst": (worst, space.locate("outcomes")),
        }
        for task in plan.by_task:
            if task in space.margins or ALL in space.margins:
                margin = space.margins.get(task, space.margins.get(ALL))
                rules[f"margin of {plan.names[task]}"] = (margin, space.locate("margin", task))
        for subject, (value, where) in rules.items():
            other, origin = known.setdefault(subject, (value, where))
            if other != value:
                rule = f"the {subject} is {value} here and {other} in {origin}, but a suite has one."
                field = subject.partition(" ")[0]
                yield Problem(where=where, field=field, value=value, rule=rule, remedy="Set the same in both.")


def _find_mixed_resources(plans: Sequence[Plan]) -> Iterator[Problem]:
    """Yields where two spaces have equal trials, but not on the same number of threads and kind of device.

    Such a trial runs once, and its bits would depend on which space comes to it first.
    """
    known: dict[str, Plan] = {}
    for plan in plans:
        resources = plan.space.resources
        conflicts: dict[str, Resources] = {}
        for cell_id in sorted(_list_settings(plan)):
            other = known.setdefault(cell_id, plan)
            theirs = other.space.resources
            if (theirs.device, theirs.n_threads) != (resources.device, resources.n_threads):
                conflicts.setdefault(other.space.locate("resources"), theirs)
        for where, theirs in conflicts.items():
            here = f"{resources.cpu:g} CPU and {resources.gpu:g} GPU here"
            rule = f"{here}, and {theirs.cpu:g} and {theirs.gpu:g} in {where}, but both spaces have some of the same trials."
            remedy = "Set the same in both, or run the spaces apart."
            yield Problem(where=plan.space.locate("resources"), field="resources", rule=rule, remedy=remedy)


def _list_settings(plan: Plan) -> set[str]:
    """Returns the ids of all settings that a plan's trials have, whatever their seeds."""
    return {trial.config.cell_id for trial in plan.trials} | {c.cell_id for t in plan.tuned for c in t.candidates}


def _find_repeats_without_news(plans: Sequence[Plan]) -> Iterator[Problem]:
    """Yields where the A/A repeats of one space are replicates of the same cell in another.

    The cell would be compared with its own trials, and the noise between seeds would seem smaller than it is.
    """
    for plan in plans:
        for other in plans:
            seeds = sorted(set(plan.space.aa) & set(other.space.seeds))
            if seeds and set(plan.first_cells) & other.by_cell_id.keys():
                free = max((*(s for p in plans for s in p.space.seeds), -1)) + 1
                advice = list(range(free, free + len(plan.space.aa)))
                shown = ", ".join(map(str, seeds[:5])) + (", ..." if len(seeds) > 5 else "")
                rule = f"{other.space.locate('seeds')} runs the same cell with seeds {shown} as replicates."
                remedy = f"A/A repeats need seeds that no space of the suite has, such as aa: {advice}."
                yield Problem(where=plan.space.locate("aa"), field="aa", rule=rule, remedy=remedy)
