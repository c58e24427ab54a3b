"""``orca-sweep store``: listing a store of stage artifacts, freeing space in it, marking it again."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orca_sweep.api.stores import explain_store_errors
from orca_sweep.cli.documents import AsJson, print_document
from orca_sweep.cli.layout import print_wrapped
from orca_sweep.errors import InputError, StorageError

if TYPE_CHECKING:
    from orca_sweep.store import Entry, Store

app = typer.Typer(help="List, clean up and mark stores of stage artifacts.", no_args_is_help=True)
Root = Annotated[str, typer.Argument(help="a store: OUT/store of a sweep, or what --store named", show_default=False)]
AGAIN = "Trials that need them compute them again."
DAY_S = 86400


def _open_marked_store(root: str) -> "tuple[Store, list[Entry]]":
    """Returns the store at a root and its entries.

    Raises:
        InputError: if the root is not marked as a store, whatever folders it has.
    """
    from orca_sweep.store import Store
    from orca_sweep.store.names import MARKER

    with explain_store_errors(root):
        store = Store(root)
        if not store.fs.exists(store.root):
            raise InputError(f"{root}: there is no such store. A store is OUT/store of a sweep, or what --store named.")
        if store.fs.exists(f"{store.root}/sweep.json"):
            raise InputError(f"{root}: a sweep folder, not a store. Its store is {root}/store, or what --store named.")
        if not store.is_marked():
            raise InputError(
                f"{root}: not a store (no {MARKER}), so nothing in it was touched. A store is OUT/store of a sweep, or"
                f" what --store named. If this is a store that lost the file: orca-sweep store mark {root}"
            )
        return store, store.list_entries()


@app.command("ls")
def list_stages(root: Root, as_json: AsJson = False) -> None:
    """List the stages in a store.

    Prints how many artifacts each has, their size, and how long they have been unused.
    """
    _, entries = _open_marked_store(root)
    by_stage = {
        stage: [entry for entry in entries if entry.stage == stage and entry.is_artifact]
        for stage in dict.fromkeys(entry.stage for entry in entries)
    }
    broken = [entry for entry in entries if not entry.is_artifact]
    if as_json:
        stages = [{"stage": stage, **_describe_artifacts(artifacts)} for stage, artifacts in by_stage.items()]
        print_document("store ls", {"store": root, "stages": stages, "broken": _describe_files(broken)})
        return
    print(f"{'stage':<16} {'artifacts':>9} {'MiB':>9} {'unused for (days)':>22}")
    for stage, artifacts in by_stage.items():
        days = [entry.age_s / DAY_S for entry in artifacts]
        span = f"{min(days):.1f} to {max(days):.1f}" if days else "-"
        print(f"{stage:<16} {len(artifacts):>9} {_size_mib(artifacts):>9.1f} {span:>22}")
    if broken:
        print_wrapped(f"{len(broken)} damaged or half-written files, {_size_mib(broken):.1f} MiB: gc deletes them")


def _describe_artifacts(artifacts: "Sequence[Entry]") -> dict[str, Any]:
    ages = [artifact.age_s for artifact in artifacts]
    ends = {"least_unused_s": min(ages, default=None), "most_unused_s": max(ages, default=None)}
    return {"n_artifacts": len(artifacts), "n_bytes": sum(artifact.n_bytes for artifact in artifacts), **ends}


def _describe_files(entries: "Sequence[Entry]") -> list[dict[str, Any]]:
    return [
        {"path": e.path, "stage": e.stage, "n_bytes": e.n_bytes, "unused_s": e.age_s, "is_artifact": e.is_artifact}
        for e in entries
    ]


def _size_mib(entries: "Sequence[Entry]") -> float:
    return sum(entry.n_bytes for entry in entries) / 2**20


@app.command("gc")
def delete_unused(
    root: Root,
    unused_for: Annotated[float, typer.Option(min=0, help="days since an artifact was last read or written")] = 30.0,
    stage: Annotated[str | None, typer.Option(help="only artifacts of this stage")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="delete; without it, only show what would be deleted")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete old artifacts and broken files.

    Deletes artifacts unused for --unused-for days, and damaged or half-written files older than a day. Prints each
    file before deleting it, and touches only files that a store writes, in a folder marked as a store.
    """
    store, entries = _open_marked_store(root)
    stages = list(dict.fromkeys(entry.stage for entry in entries))
    if stage is not None and stage not in stages:
        raise InputError(f"--stage {stage}: the store has no such stage. It has: {', '.join(stages) or 'nothing'}.")
    unused = [
        entry
        for entry in entries
        if stage in (None, entry.stage) and entry.age_s >= DAY_S * (unused_for if entry.is_artifact else 1)
    ]
    for entry in unused:
        print(f"{'to delete:' if yes else 'would delete'} {entry.path}")
    amount = f"{len(unused)} files, {_size_mib(unused):.1f} MiB"
    if yes:
        print(f"deleting {amount}", flush=True)
        _delete_entries(store, unused)
        print_wrapped(f"deleted {amount}. {AGAIN}")
    else:
        print_wrapped(f"{amount} would be deleted; add --yes to delete them. {AGAIN}")
    if as_json:
        totals = {"n_files": len(unused), "n_bytes": sum(entry.n_bytes for entry in unused)}
        print_document("store gc", {"store": root, "is_deleted": yes, **totals, "files": _describe_files(unused)})


def _delete_entries(store: "Store", entries: "Sequence[Entry]") -> None:
    failures = []
    for entry in entries:
        try:
            store.remove_entry(entry)
        except OSError as error:
            failures.append(f"{entry.path}: cannot delete it ({error.strerror or error}). Check your permissions.")
    if failures:
        raise StorageError("\n".join(failures))


@app.command("mark")
def restore_mark(root: Root, as_json: AsJson = False) -> None:
    """Mark a store that lost its marker file.

    Refuses a folder that contains anything but a store's own files.
    """
    from orca_sweep.store import Store
    from orca_sweep.store.names import mark_again

    with explain_store_errors(root):
        store = Store(root)
        mark_again(store.fs, store.root)
    if as_json:
        print_document("store mark", {"store": root, "is_marked": True})
    else:
        print(f"{root}: marked as a store")
