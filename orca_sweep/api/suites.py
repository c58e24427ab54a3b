"""Several spaces that run as one: a suite, its plan, and its launch."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from orca_sweep.api.describing_suites import describe_suite, join_members, list_members
from orca_sweep.api.html import write_html
from orca_sweep.api.launching import LOOPBACK, Destination, Run
from orca_sweep.api.paths import read_path, read_text, real_path, store_root, sweep_folder
from orca_sweep.api.planning import collect_terms, make_suite_forecast
from orca_sweep.api.plans import PROBE, Plan
from orca_sweep.api.progress import Progress
from orca_sweep.api.spaces import PathLike, Space, check_max_trials
from orca_sweep.api.stores import open_store
from orca_sweep.api.suite_launching import SuiteRun, describe_former_members, run_suite
from orca_sweep.api.sweeps import Sweep
from orca_sweep.errors import InputError, Problem, refuse_argument
from orca_sweep.space.smoke import SUFFIX
from orca_sweep.space.sources import find_sources
from orca_sweep.space.suites import STORE, SuiteManifest, find_member_problems
from orca_sweep.visible import LINES, escape_controls

if TYPE_CHECKING:
    from orca_sweep.planning.suite_forecast import SuiteForecast
    from orca_sweep.planning.terms import Term


@dataclass(frozen=True, kw_only=True, repr=False)
class Suite:
    """Spaces that run as one, with one store: equal trials and shared stages are computed once."""

    name: str
    """Of the folder of its results."""
    spaces: tuple[Space, ...]

    @classmethod
    def from_yaml(cls, spaces: PathLike | Sequence[PathLike], name: str | None = None) -> "Suite":
        """Returns the suite of a folder of space YAMLs, of the bundled suite of this name, or of several of these.

        Args:
            spaces: a folder, whose spaces are taken in the order of their names; a bundled suite; or a list of folders,
                files, and names of bundled spaces and suites.
            name: the suite's; by default that of the only folder.

        Raises:
            InputError: for each source that is nothing of these, or without a name. ``plan`` reports mistakes in files.
        """
        several = [spaces] if isinstance(spaces, str | os.PathLike) else list(spaces)
        paths = [read_path(each, "spaces") for each in several]
        sources = find_sources(paths, None if name is None else read_text(name, "name"))
        if isinstance(sources, Path):
            rule = "this is a single space."
            raise refuse_argument(
                "spaces", sources, rule, "Name a folder of spaces, or several; Space.from_yaml reads one."
            )
        return cls(name=sources.name, spaces=tuple(Space.from_yaml(file) for file in sources.files))

    def __repr__(self) -> str:
        sources = ", ".join(str(space.source) for space in self.spaces)
        return f"Suite {self.name}: {sources}"

    def plan(
        self,
        *,
        max_trials: int | None = None,
        rehash: bool = False,
        data: PathLike = "data",
        store: PathLike | None = None,
        out: PathLike | None = None,
        smoke: bool = False,
    ) -> "SuitePlan":
        """Returns what the spaces would run together: trials, cost, and warnings. Runs nothing.

        Args:
            max_trials: the largest number of trials that a space may have.
            rehash: as of ``Space.plan``.
            data: folder with the files of tasks that need any.
            store: store that all spaces share; by default ``store`` in the folder of the suite.
            out: folder of the suite; by default ``results/<name>``. The cost leaves out trials that it already has.
            smoke: plan the smoke form of each space; the name of the suite then ends in '-smoke'.

        Raises:
            InputError: with every mistake in all spaces, and where they do not fit together.
        """
        check_max_trials(max_trials)
        name = f"{self.name}{SUFFIX}" if smoke else self.name
        folder, root = sweep_folder(out, name), real_path(data, "data")
        whole_store = store_root(store) if store else None
        members: list[Plan] = []
        problems: list[Problem] = []
        for space in self.spaces:
            try:
                plan = space.plan(max_trials=max_trials, rehash=rehash, data=data, out=folder, smoke=smoke)
            except InputError as error:
                problems += error.problems
            else:
                shared = whole_store or str(folder / STORE)
                members.append(Plan(record=plan.record, folder=folder / plan.name, store=shared, data=root))
        problems += find_member_problems([member.record for member in members])
        if problems:
            raise InputError(list(dict.fromkeys(problems)))
        return SuitePlan(name=name, folder=folder, members=tuple(members), store=whole_store, data=root)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SuitePlan:
    """What the spaces of a suite would run together. It exists only if none of them has a mistake."""

    name: str
    folder: Path
    """Of the suite; it need not exist."""
    members: tuple[Plan, ...]
    """The plan of each space, in order."""
    store: str | None
    """The store that the user names; None for ``store`` in the folder of the suite."""
    data: Path
    """The folder with the files of tasks."""

    @property
    def store_root(self) -> str:
        """Where stage artifacts and earlier rows of all spaces are."""
        return store_root(self.store or str(self.folder / STORE))

    @cached_property
    def cost(self) -> "SuiteForecast":
        """What the trials that are left cost; equal trials and shared stages count once."""
        return make_suite_forecast([member.record for member in self.members], self.folder, open_store(self.store_root))

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What to know before launching, a sentence each after the names of the spaces that it is about."""
        former = describe_former_members(self.folder, self.manifest, [member.record for member in self.members])
        return (*former, *join_members(self, {member.name: member.notes for member in self.members}))

    @property
    def manifest(self) -> SuiteManifest:
        """The suite as a launch records it in its folder."""
        return SuiteManifest(name=self.name, members=tuple(member.name for member in self.members))

    @cached_property
    def terms(self) -> tuple[str, ...]:
        """What holds for the sweeps, a sentence each after the names of the spaces."""
        terms = {name: [term.statement for term in terms] for name, terms in self.terms_by_member.items()}
        return tuple(join_members(self, terms))

    @cached_property
    def terms_by_member(self) -> dict[str, tuple["Term", ...]]:
        """What holds for the sweep of each space, by its name."""
        costs = zip(self.members, self.cost.members, strict=True)
        return {member.name: tuple(collect_terms(member.record, cost)) for member, cost in costs}

    def probe(self, say: Callable[[str], None] = print) -> None:
        """Runs a few epochs, on this machine, of each kind of trial whose cost is unknown; then reads the cost again.

        Args:
            say: receives a line for each kind.

        Raises:
            InputError: if data, packages, or a GPU are missing, or a probe fails.
        """
        for member in self.members:
            member.probe(say)
        for name in ("cost", "terms", "terms_by_member"):
            self.__dict__.pop(name, None)

    def __repr__(self) -> str:
        head, rows = list_members(self)
        lines = [" ".join(text.ljust(width) for text, width in zip(row, _measure_columns([head, *rows]), strict=True))
                 for row in (head, *rows)]  # fmt: skip
        return escape_controls(
            "\n".join([f"Suite plan {self.name}", *map(str.rstrip, lines), *self._describe()]), LINES
        )

    def _repr_html_(self) -> str:
        return write_html(f"Suite plan {self.name}", [list_members(self)], self._describe())

    def _describe(self) -> Iterator[str]:
        return describe_suite(self, self.cost, ways=PROBE)

    def launch(
        self,
        *,
        address: str | None = None,
        dashboard_host: str = LOOPBACK,
        progress: Progress = True,
    ) -> Sweep:
        """Runs the trials that the folder of the suite lacks, in this process, and returns the suite as a sweep.

        Arguments and errors are those of ``Plan.launch``; each event has the fact ``space``.
        """
        run_suite(self.make_run(address, dashboard_host), progress)
        return Sweep.open(self.folder)

    def make_run(self, address: str | None, dashboard_host: str) -> SuiteRun:
        """Returns what a launch runs, and where."""
        runs = tuple(
            Run(
                plan=member.record,
                destination=Destination(
                    folder=member.folder,
                    store=self.store_root,
                    data_root=self.data,
                    address=address,
                    dashboard_host=dashboard_host,
                ),
            )
            for member in self.members
        )
        return SuiteRun(folder=self.folder, manifest=self.manifest, runs=runs)


def _measure_columns(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*rows, strict=True)]
