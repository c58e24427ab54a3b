"""``orca-sweep data``: the files that tasks need: listing, checking, fetching and converting them."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orca_sweep.api.paths import real_path
from orca_sweep.cli.documents import AsJson, print_document
from orca_sweep.cli.layout import find_width, lay_out_table, print_wrapped
from orca_sweep.errors import DataError, InputError, Problem

if TYPE_CHECKING:
    from orca_sweep.tasks import Task

app = typer.Typer(help="List, check, fetch and convert the files of tasks.", no_args_is_help=True)
TaskName = Annotated[
    str, typer.Argument(help="a task, openml:<id>, or a declaration of your own data", show_default=False)
]
TaskNames = Annotated[
    list[str], typer.Argument(help="tasks, openml:<id>, or declarations of your own data", show_default=False)
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
def list_tasks(data: Root = DATA, as_json: AsJson = False) -> None:
    """List the tasks that need files.

    Prints how many of the files are here, whether they are converted, and how to get them.
    """
    from orca_sweep.tasks import TASKS

    root = real_path(data)
    tasks = [_describe_files_here(task, root) for task in map(TASKS.get, TASKS.names()) if task.files]
    if as_json:
        print_document("data list", {"data": root, "tasks": tasks})
        return
    rows = []
    for task in tasks:
        state = "converted" if task["is_converted"] else f"{task['n_files_here']} of {task['n_files']} files here"
        rows.append((task["task"], state, "fetch" if task["can_be_fetched"] else "by hand, or fetch --base-url"))
    rows.append(("openml:<id>", "", "fetch"))
    print_wrapped(f"tasks with files below {root}:")
    for lines in lay_out_table(("task", "state", "how to get the files"), rows, find_width(sys.stdout)):
        print("\n".join(lines))


def _describe_files_here(task: "Task", root: Path) -> dict[str, Any]:
    return {
        "task": task.name,
        "n_files": len(task.files),
        "n_files_here": sum((root / file.path).is_file() for file in task.files),
        "is_converted": _is_converted(task, root),
        "can_be_fetched": all(file.url for file in task.files),
    }


def _is_converted(task: "Task", root: Path) -> bool:
    from orca_sweep.data import find_converted

    return task.convert is not None and find_converted(task.convert, root, task.files) is not None


@app.command("check")
def check_tasks(names: TaskNames, data: Root = DATA, imports: Imports = None, as_json: AsJson = False) -> None:
    """Check the files of tasks.

    Says what they hold, which are missing, how large those are and where they come from. Exit code 2 if a task cannot run.
    """
    root = real_path(data)
    tasks = {name: _find_task(name, imports) for name in dict.fromkeys(names)}
    checks = {name: _check_task(task, root) for name, task in tasks.items()}
    can_run = all(check["can_run"] for check in checks.values())
    if as_json:
        problems = [
            Problem(rule=f"task {check['task']!r}: {text}").as_json()
            for check in checks.values()
            for text in _list_reasons(check)
        ]
        print_document("data check", {"can_run": can_run, "tasks": list(checks.values()), "problems": problems})
    else:
        for i, (name, check) in enumerate(checks.items()):
            print("\n" * (i > 0), end="")
            _print_check(tasks[name], name, check)
        if len(checks) > 1:
            _print_total(list(checks.values()), root)
    if not can_run:
        raise typer.Exit(2)


def _check_task(task: "Task", root: Path) -> dict[str, Any]:
    """Returns what a task's files hold and lack, and whether the task can run."""
    from orca_sweep.data import missing_packages
    from orca_sweep.tasks import find_missing_files

    lacking = missing_packages(f"task {task.name!r}", task.packages, task.extra)
    files = [_describe_file(task, file, root, bool(lacking)) for file in task.files]
    missing = find_missing_files(task, root)
    is_converted = _is_converted(task, root) and task.convert is not None
    return {
        "task": task.name,
        "can_run": not (lacking or missing or any(file["state"] == "wrong" for file in files)),
        **{key: getattr(task, key) for key in ("meaning", "source", "licence")},
        "inputs": _describe_inputs(task),
        "files": files,
        "n_missing": len(missing),
        "download_mb": task.download_mb,
        "packages": lacking,
        "converted": root / "converted" / task.convert.name if is_converted and task.convert else None,
    }


def _list_reasons(check: dict[str, Any]) -> list[str]:
    """Returns why a task cannot run; empty if it can."""
    wrong = [
        f"{file['path']}: {file['state']}: {file['contents']}" for file in check["files"] if file["state"] != "present"
    ]
    return [] if check["can_run"] else [*check["packages"], *wrong]


def _print_check(task: "Task", name: str, check: dict[str, Any]) -> None:
    from orca_sweep.cli.terminal import open_console, print_command, print_table, print_text

    console, files = open_console(), check["files"]
    print_text(console, f"{task.name}: {task.meaning}\nsource: {task.source}; licence: {task.licence}")
    print_text(console, f"inputs: {check['inputs']}")
    for problem in check["packages"]:
        print_text(console, problem)
    if files:
        print_table(console, ("file", "state", "contents"), [tuple(map(str, file.values())) for file in files])
    else:
        print_text(console, "needs no files")
    if check["n_missing"] and task.download_mb:
        print_text(console, f"size of all its files: about {_write_size(task.download_mb)}")
    if task.convert is not None and task.files:
        if check["converted"]:
            print_text(console, f"converted: {check['converted']}")
        else:
            lead = "not converted yet: the first trial does it, or"
            print_command(console, lead, f"orca-sweep data convert {shlex.quote(name)}")


def _print_total(checks: list[dict[str, Any]], root: Path) -> None:
    """Prints which of several tasks can run, and how much is to be downloaded for the others."""
    from orca_sweep.cli.terminal import open_console, print_text

    console, lacking = open_console(), [check for check in checks if not check["can_run"]]
    print_text(console, f"\n{len(checks) - len(lacking)} of {len(checks)} tasks can run")
    missing = [check for check in lacking if check["n_missing"]]
    if not missing:
        return
    parts = [
        f"{check['task']} ({check['n_missing']} of {len(check['files'])} files"
        + (f", {_write_size(check['download_mb'])} in all)" if check["download_mb"] else ", size not known)")
        for check in missing
    ]
    total = sum(check["download_mb"] or 0 for check in missing)
    print_text(console, f"missing below {root}: {'; '.join(parts)}; together about {_write_size(total)}")


def _write_size(megabytes: float) -> str:
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes:g} MB"


def _describe_inputs(task: "Task") -> str:
    text = f"as given: {task.preparation}" if task.preparation else "as the task gives them"
    return text if task.codes else f"{text}; data.normalise: {task.normalise_inputs} unless a space sets it"


def _describe_file(task: "Task", file: Any, root: Path, cannot_read: bool) -> dict[str, Any]:
    """Returns a file's path, its state (missing, present, wrong), and what it holds or how to get it."""
    state, contents = _look_into_file(task, file, root, cannot_read)
    return {"path": file.path, "state": state, "contents": contents}


def _look_into_file(task: "Task", file: Any, root: Path, cannot_read: bool) -> tuple[str, str]:
    if not (root / file.path).is_file():
        packed = f", which holds it: orca-sweep data fetch {task.name}" if file.archive else ""
        by_hand = f"get it from {task.get_from or 'the source'}, or fetch --base-url"
        return "missing", f"download it: {file.url}{packed}" if file.url else by_hand
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
    as_json: AsJson = False,
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
        outcomes = [fetch_openml(name, root)]
    else:
        with _show_progress("fetching") as report:
            outcomes = [(root / file.path, file.how) for file in fetch_files(task.files, root, base_url, report)]
    if as_json:
        files = [{"path": path, "outcome": how} for path, how in outcomes]
        print_document("data fetch", {"task": task.name, "data": root, "files": files})
        return
    for path, how in outcomes:
        print(f"{path}: {how}")
    if not is_openml:
        print_wrapped(f"next: orca-sweep data check {name}" if task.files else f"{task.name} needs no files.")


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
def convert_files(name: TaskName, data: Root = DATA, imports: Imports = None, as_json: AsJson = False) -> None:
    """Convert the files of a task once, to arrays.

    All trials on this node map the arrays into memory.
    """
    from orca_sweep.tasks import explain_unavailable

    task, root = _find_task(name, imports), real_path(data)
    problems = explain_unavailable(task, root) if task.convert else []
    if problems:
        raise InputError(problems)
    arrays = _list_arrays(convert_task(task, root)) if task.convert else []
    if as_json:
        print_document("data convert", {"task": task.name, "arrays": arrays})
        return
    for array in arrays:
        print(f"{array['path']}: {array['shape']} {array['dtype']}, {array['n_bytes'] / 2**20:.1f} MiB")
    if task.convert is None:
        print(f"{task.name} needs no conversion.")


def _list_arrays(converted: Any) -> list[dict[str, Any]]:
    arrays = {name: converted[name] for name in sorted(converted.digests)}
    return [
        {
            "path": converted.folder / f"{name}.npy",
            "shape": values.shape,
            "dtype": str(values.dtype),
            "n_bytes": values.nbytes,
        }
        for name, values in arrays.items()
    ]


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

    from orca_sweep.cli.terminal import open_console

    with Progress(transient=True, console=open_console(is_for_errors=True)) as progress:
        bar = progress.add_task(activity, total=None)
        yield lambda name, done, total: progress.update(
            bar, description=f"{activity} {name}".strip(), completed=done, total=total
        )
