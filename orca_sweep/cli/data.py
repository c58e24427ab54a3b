"""``orca-sweep data``: the files that tasks need: listing, checking, fetching and converting them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from orca_sweep.api.paths import real_path
from orca_sweep.cli.terminal import open_console
from orca_sweep.errors import DataError, InputError

if TYPE_CHECKING:
    from orca_sweep.tasks import Task

app = typer.Typer(help="List, check, fetch and convert the files of tasks.", no_args_is_help=True)
TaskName = Annotated[
    str, typer.Argument(help="a task, openml:<id>, or a declaration of your own data", show_default=False)
]
Root = Annotated[Path, typer.Option("--data", help="folder with the files of tasks")]
Imports = Annotated[list[str] | None, typer.Option(help="your modules or files with tasks")]
DATA = Path("data")


def load_named_imports(imports: list[str] | None) -> None:
    """Imports the modules and files that ``--imports`` names; a relative file is below the working folder."""
    from orca_sweep.trial import load_imports

    load_imports([str(real_path(name)) if name.endswith(".py") else name for name in imports or ()])


def _find_task(name: str, imports: list[str] | None = None) -> "Task":
    from orca_sweep.tasks import canonicalise_task, find_task

    load_named_imports(imports)
    return find_task(canonicalise_task(name))


@app.command("list")
def list_tasks(data: Root = DATA) -> None:
    """List the tasks that need files.

    Prints how many of the files are here, whether they are converted, and how to get them.
    """
    from orca_sweep.tasks import TASKS

    root = real_path(data)
    print(f"tasks with files below {root}:")
    for task in (TASKS.get(name) for name in TASKS.names()):
        if task.files:
            n_files = sum((root / file.path).is_file() for file in task.files)
            state = "converted" if _is_converted(task, root) else f"{n_files} of {len(task.files)} files here"
            how = "fetch" if all(file.url for file in task.files) else "by hand, or fetch --base-url"
            print(f"{task.name:<28} {state:<20} {how}")
    print(f"{'openml:<id>':<28} {'':<20} fetch")


def _is_converted(task: "Task", root: Path) -> bool:
    from orca_sweep.data import find_converted

    return task.convert is not None and find_converted(task.convert, root, task.files) is not None


@app.command("check")
def check_task(name: TaskName, data: Root = DATA, imports: Imports = None) -> None:
    """Check the files of a task and say what they hold.

    Exit code 2 if the task cannot run.
    """
    from orca_sweep.data import missing_packages
    from orca_sweep.tasks import find_missing_files

    task, root = _find_task(name, imports), real_path(data)
    missing = missing_packages(f"task {task.name!r}", task.packages, task.extra)
    console = open_console()
    console.print(f"{task.name}: {task.meaning}\nsource: {task.source}; licence: {task.licence}", soft_wrap=True)
    console.print(f"inputs: {_describe_inputs(task)}", soft_wrap=True)
    for problem in missing:
        console.print(problem, soft_wrap=True)
    has_wrong_file = _print_files(task, root, bool(missing), console)
    if task.convert is not None and task.files:
        done = f"converted: {root / 'converted' / task.convert.name}"
        to_do = f"not converted yet: the first trial does it, or orca-sweep data convert {name}"
        console.print(done if _is_converted(task, root) else to_do, soft_wrap=True)
    if missing or has_wrong_file or find_missing_files(task, root):
        raise typer.Exit(2)


def _print_files(task: "Task", root: Path, cannot_read: bool, console: Console) -> bool:
    """Prints a table of the task's files, and returns whether one of them is wrong."""
    table, has_wrong_file = Table(box=None, header_style="bold"), False
    for column in ("file", "state", "contents"):
        table.add_column(column, overflow="fold")
    for file in task.files:
        state, contents = _describe_file(file, root, cannot_read)
        has_wrong_file |= state == "wrong"
        table.add_row(file.path, state, contents)
    console.print(table if task.files else "needs no files")
    return has_wrong_file


def _describe_inputs(task: "Task") -> str:
    text = f"as given: {task.preparation}" if task.preparation else "as the task gives them"
    return text if task.codes else f"{text}; data.normalise: {task.normalise_inputs} unless a space sets it"


def _describe_file(file: Any, root: Path, cannot_read: bool) -> tuple[str, str]:
    """Returns the state of a file (missing, present, wrong) and what it holds or how to get it."""
    if not (root / file.path).is_file():
        return "missing", f"download it: {file.url}" if file.url else "get it from the source, or fetch --base-url"
    if file.check is None or cannot_read:
        return "present", ""
    from orca_sweep.data.fetching import find_missing_members

    try:
        contents, missing = file.check(root), find_missing_members(file, root)
        contents += f"; {file.look(root)}" if file.look is not None else ""
    except DataError as error:
        return "wrong", str(error)
    if missing:
        return "wrong", f"{contents}; {len(missing)} files that it lists are missing, the first: {missing[0]}"
    return "present", contents


@app.command("fetch")
def fetch_task(
    name: TaskName,
    data: Root = DATA,
    base_url: Annotated[str | None, typer.Option(help="a mirror: a folder, or a server with the same paths")] = None,
    imports: Imports = None,
) -> None:
    """Download the files of a task.

    Keeps files that are already here, and continues broken downloads.
    """
    from orca_sweep.data.fetching import fetch_files
    from orca_sweep.tasks.tabular import PREFIX, fetch_openml

    task, root = _find_task(name, imports), real_path(data)
    is_openml = name.startswith(PREFIX) and base_url is None
    _check_fetching(name, is_openml)
    _make_folder(root)
    if is_openml:
        path, how = fetch_openml(name, root)
        print(f"{path}: {how}")
        return
    if not task.files:
        print(f"{task.name} needs no files.")
        return
    with _show_progress("fetching") as report:
        outcomes = fetch_files(task.files, root, base_url, report)
    for outcome in outcomes:
        print(f"{root / outcome.path}: {outcome.how}")
    print(f"next: orca-sweep data check {name}")


def _check_fetching(name: str, is_openml: bool) -> None:
    """Refuses to fetch without the packages for it."""
    from orca_sweep.data import missing_packages

    packages, extra = (("openml",), "openml") if is_openml else (("pooch",), "benchmarks")
    missing = missing_packages(f"data fetch {name}", packages, extra)
    if missing:
        raise InputError(missing)


def _make_folder(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "a file is in the way" if isinstance(error, FileExistsError | NotADirectoryError) else error.strerror
        raise InputError(f"--data {root}: cannot make this folder ({reason}). Give another folder.") from None


@app.command("convert")
def convert_files(name: TaskName, data: Root = DATA, imports: Imports = None) -> None:
    """Convert the files of a task once, to arrays.

    All trials on this node map the arrays into memory.
    """
    from orca_sweep.tasks import explain_unavailable

    task, root = _find_task(name, imports), real_path(data)
    if task.convert is None:
        print(f"{task.name} needs no conversion.")
        return
    problems = explain_unavailable(task, root)
    if problems:
        raise InputError(problems)
    converted = convert_task(task, root)
    for array in sorted(converted.digests):
        values = converted[array]
        print(f"{converted.folder / array}.npy: {values.shape} {values.dtype}, {values.nbytes / 2**20:.1f} MiB")


def convert_task(task: "Task", root: Path) -> Any:
    """Returns the arrays of a task; converts its files first, with a progress bar, if they are not converted yet."""
    from orca_sweep.data import load_or_convert

    if task.convert is None:
        raise InputError(f"task {task.name!r} has nothing to convert.")
    with _show_progress(f"converting {task.convert.name}") as report:
        return load_or_convert(task.convert, root, task.files, lambda done, total: report("", done, total))


@contextmanager
def _show_progress(activity: str) -> Iterator[Any]:
    """Shows a progress bar on a terminal and nothing elsewhere; yields a function (name, done, total)."""
    from rich.progress import Progress

    with Progress(transient=True, console=open_console(is_for_errors=True)) as progress:
        bar = progress.add_task(activity, total=None)
        yield lambda name, done, total: progress.update(
            bar, description=f"{activity} {name}".strip(), completed=done, total=total
        )
