"""``orca-sweep store``: what a store of stage artifacts holds, making room in it, marking one again."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from orca_sweep.errors import InputError, StorageError

if TYPE_CHECKING:
    from orca_sweep.store import Entry, Store

app = typer.Typer(help="Stage artifacts: list them, make room.", no_args_is_help=True)
Root = Annotated[str, typer.Argument(help="a store: OUT/store of a sweep, or what --store named", show_default=False)]
AGAIN = "Trials compute again what they need."


@contextmanager
def told(said: str) -> Iterator[None]:
    """Says in words that a store cannot be opened."""
    try:
        yield
    except (ValueError, ImportError, OSError) as error:
        raise InputError(f"{said}: no store can be opened there ({error}). Give a folder or fsspec path.") from None


def _opened(root: str) -> "tuple[Store, list[Entry]]":
    """The store at a root that is marked as one, and what it holds.

    Raises:
        InputError: for anything else, whatever folders are in it.
    """
    from orca_sweep.store import Store
    from orca_sweep.store.names import MARKER

    with told(root):
        store = Store(root)
        if not store.fs.exists(store.root):
            raise InputError(f"{root}: there is no such store. It is OUT/store of a sweep, or what --store named.")
        if store.fs.exists(f"{store.root}/sweep.json"):
            raise InputError(f"{root}: a sweep folder, not a store. Its store is {root}/store, or what --store named.")
        if not store.is_marked():
            raise InputError(
                f"{root}: no store (no {MARKER}): nothing in it is touched. A store is OUT/store of a sweep, or what --store"
                f" named. If this is one that lost the file: orca-sweep store mark {root}"
            )
        return store, store.list_entries()


@app.command()
def ls(root: Root) -> None:
    """Lists how many artifacts of each stage there are, how large, and how long unused."""
    _, entries = _opened(root)
    print(f"{'stage':<16} {'artifacts':>9} {'MiB':>9} {'unused for (days)':>22}")
    for stage in dict.fromkeys(entry.stage for entry in entries):
        ours = [entry for entry in entries if entry.stage == stage and entry.is_artifact]
        days = [entry.age_s / 86400 for entry in ours]
        span = f"{min(days):.1f} to {max(days):.1f}" if days else "-"
        print(f"{stage:<16} {len(ours):>9} {sum(e.n_bytes for e in ours) / 2**20:>9.1f} {span:>22}")
    left = [entry for entry in entries if not entry.is_artifact]
    if left:
        print(
            f"{len(left)} damaged or half-written files, {sum(e.n_bytes for e in left) / 2**20:.1f} MiB: gc takes them"
        )


@app.command()
def gc(
    root: Root,
    unused_for: Annotated[float, typer.Option(min=0, help="days since an artifact was last read or written")] = 30.0,
    stage: Annotated[str | None, typer.Option(help="of this stage only")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="delete; without it only says what would be deleted")] = False,
) -> None:
    """Deletes artifacts that have not been used for long, and damaged or half-written files older than a day.

    It says what it takes before it takes anything, and touches only what a store writes, in a folder marked as a store.
    """
    store, entries = _opened(root)
    stages = list(dict.fromkeys(entry.stage for entry in entries))
    if stage is not None and stage not in stages:
        raise InputError(f"--stage {stage}: the store has none. It has: {', '.join(stages) or 'nothing'}.")
    old = [
        entry
        for entry in entries
        if stage in (None, entry.stage) and entry.age_s >= 86400 * (unused_for if entry.is_artifact else 1)
    ]
    for entry in old:
        print(f"{'to delete:' if yes else 'would delete'} {entry.path}")
    size = sum(entry.n_bytes for entry in old) / 2**20
    if not yes:
        print(f"{len(old)} files, {size:.1f} MiB would be deleted; add --yes to do it. {AGAIN}")
        return
    print(f"{len(old)} files, {size:.1f} MiB are being deleted", flush=True)
    _remove(store, old)
    print(f"{len(old)} files, {size:.1f} MiB deleted. {AGAIN}")


def _remove(store: "Store", entries: "Sequence[Entry]") -> None:
    refused = []
    for entry in entries:
        try:
            store.remove_entry(entry)
        except OSError as error:
            refused.append(f"{entry.path}: cannot be deleted ({error.strerror or error}). See that you may.")
    if refused:
        raise StorageError("\n".join(refused))


@app.command()
def mark(root: Root) -> None:
    """Marks a store again that has lost its marker; refuses a folder that holds anything else than a store's own files."""
    from orca_sweep.store import Store
    from orca_sweep.store.names import mark_again

    with told(root):
        store = Store(root)
        mark_again(store.fs, store.root)
    print(f"{root}: marked as a store")
