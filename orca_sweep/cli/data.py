"""``orca-sweep data``: what files tasks need, whether they are here, getting and converting them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from orca_sweep.cli.terminal import open_console
from orca_sweep.cli.words import real_path
from orca_sweep.errors import DataError, InputError

if TYPE_CHECKING:
    from orca_sweep.tasks import Task

app = typer.Typer(help="Files of tasks: list, check, fetch, convert.", no_args_is_help=True)
TaskName = Annotated[
    str, typer.Argument(help="a task, openml:<id>, or a declaration of your own data", show_default=False)
]
Root = Annotated[Path, typer.Option("--data", help="folder with the files of tasks")]
Imports = Annotated[list[str] | None, typer.Option(help="your modules or files with tasks")]
HERE = Path("data")


def load_named(imports: list[str] | None) -> None:
    """Imports what ``--imports`` names; files count from the working folder."""
    from orca_sweep.trial import load_imports

    load_imports([str(real_path(name)) if name.endswith(".py") else name for name in imports or ()])


def _find(name: str, imports: list[str] | None = None) -> "Task":
    from orca_sweep.tasks import canonicalise_task, find_task

    load_named(imports)
    return find_task(canonicalise_task(name))


@app.command("list")
def list_(data: Root = HERE) -> None:
    """Lists the tasks that need files: how many are here, whether they are converted, how to get them."""
    from orca_sweep.tasks import TASKS

    root = real_path(data)
    print(f"tasks with files below {root}:")
    for task in (TASKS.get(name) for name in TASKS.names()):
        if task.files:
            there = sum((root / file.path).is_file() for file in task.files)
            state = "converted" if _is_converted(task, root) else f"{there} of {len(task.files)} files here"
            how = "fetch" if all(file.url for file in task.files) else "by hand, or fetch --base-url"
            print(f"{task.name:<28} {state:<20} {how}")
    print(f"{'openml:<id>':<28} {'':<20} fetch")


def _is_converted(task: "Task", root: Path) -> bool:
    from orca_sweep.data import find_converted

    return task.convert is not None and find_converted(task.convert, root, task.files) is not None


@app.command()
def check(name: TaskName, data: Root = HERE, imports: Imports = None) -> None:
    """Says for each file of a task whether it is there and what it holds; exit code 2 if the task cannot run."""
    from orca_sweep.data import missing_packages
    from orca_sweep.tasks import find_missing_files

    task, root = _find(name, imports), real_path(data)
    packages = missing_packages(f"task {task.name!r}", task.packages, task.extra)
    console = open_console()
    console.print(f"{task.name}: {task.meaning}\nsource: {task.source}; licence: {task.licence}", soft_wrap=True)
    console.print(f"inputs: {_inputs_text(task)}", soft_wrap=True)
    for problem in packages:
        console.print(problem, soft_wrap=True)
    table, wrong = Table(box=None, header_style="bold"), 0
    for column in ("file", "state", "what it holds"):
        table.add_column(column, overflow="fold")
    for file in task.files:
        state, what = _state(file, root, bool(packages))
        wrong += state == "wrong"
        table.add_row(file.path, state, what)
    console.print(table if task.files else "needs no files")
    is_converted, lacks = _is_converted(task, root), find_missing_files(task, root)
    if task.convert is not None and task.files:
        place = root / "converted" / task.convert.name
        console.print(f"converted: {place}" if is_converted else "not converted yet: the first trial will, or"
                      f" orca-sweep data convert {name}", soft_wrap=True)  # fmt: skip
    if packages or wrong or lacks:
        raise typer.Exit(2)


def _inputs_text(task: "Task") -> str:
    given = f"as given: {task.preparation}" if task.preparation else "as the task gives them"
    return (
        f"{given}; data.normalise: {task.normalise_inputs} unless a space says otherwise" if not task.codes else given
    )


def _state(file: Any, root: Path, cannot_read: bool) -> tuple[str, str]:
    if not (root / file.path).is_file():
        return "missing", f"get it: {file.url}" if file.url else "get it from the source, or fetch --base-url"
    if file.check is None or cannot_read:
        return "present", ""
    from orca_sweep.data.fetching import find_missing_members

    try:
        what, missing = file.check(root), find_missing_members(file, root)
        what += f"; {file.look(root)}" if file.look is not None else ""
    except DataError as error:
        return "wrong", str(error)
    if missing:
        return "wrong", f"{what}; {len(missing)} files that it lists are not there, the first: {missing[0]}"
    return "present", what


@app.command()
def fetch(
    name: TaskName,
    data: Root = HERE,
    base_url: Annotated[str | None, typer.Option(help="a mirror: a folder, or a server with the same paths")] = None,
    imports: Imports = None,
) -> None:
    """Downloads a task's files; what is there stays, what was broken off goes on."""
    from orca_sweep.data import missing_packages
    from orca_sweep.data.fetching import fetch_files
    from orca_sweep.tasks.tabular import PREFIX, fetch_openml

    task, root = _find(name, imports), real_path(data)
    by_openml = name.startswith(PREFIX) and base_url is None
    lacking = missing_packages(f"data fetch {name}", ("openml",) if by_openml else ("pooch",),
                               "openml" if by_openml else "benchmarks")  # fmt: skip
    if lacking:
        raise InputError(lacking)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = "a file is in the way" if isinstance(error, FileExistsError | NotADirectoryError) else error.strerror
        raise InputError(f"--data {root}: {why}, so no folder can be made there. Give another folder.") from None
    if by_openml:
        path, how = fetch_openml(name, root)
        print(f"{path}: {how}")
        return
    if not task.files:
        print(f"{task.name} needs no files.")
        return
    with _bar("fetching") as report:
        outcomes = fetch_files(task.files, root, base_url, report)
    for outcome in outcomes:
        print(f"{root / outcome.path}: {outcome.how}")
    print(f"next: orca-sweep data check {name}")


@app.command()
def convert(name: TaskName, data: Root = HERE, imports: Imports = None) -> None:
    """Converts a task's files once to arrays that all trials on this node map into memory."""
    from orca_sweep.tasks import explain_unavailable

    task, root = _find(name, imports), real_path(data)
    if task.convert is None:
        print(f"{task.name} needs no conversion.")
        return
    problems = explain_unavailable(task, root)
    if problems:
        raise InputError(problems)
    made = convert_task(task, root)
    for array in sorted(made.digests):
        values = made[array]
        print(f"{made.folder / array}.npy: {values.shape} {values.dtype}, {values.nbytes / 2**20:.1f} MiB")


def convert_task(task: "Task", root: Path) -> Any:
    """Converts a task with a progress bar, if that has not been done, and returns its arrays."""
    from orca_sweep.data import load_or_convert

    if task.convert is None:
        raise InputError(f"task {task.name!r} has nothing to convert.")
    with _bar(f"converting {task.convert.name}") as report:
        return load_or_convert(task.convert, root, task.files, lambda done, total: report("", done, total))


@contextmanager
def _bar(what: str) -> Iterator[Any]:
    """A progress bar on a terminal, silence elsewhere; gives a function (name, done, total)."""
    from rich.progress import Progress

    with Progress(transient=True, console=open_console(is_for_errors=True)) as progress:
        task = progress.add_task(what, total=None)
        yield lambda name, done, total: progress.update(
            task, description=f"{what} {name}".strip(), completed=done, total=total
        )
