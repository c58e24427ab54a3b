"""``orca-sweep store``: what a store of stage artifacts holds, and making room in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from orca_sweep.errors import InputError

if TYPE_CHECKING:
    from orca_sweep.store import Entry, Store

app = typer.Typer(help="Stage artifacts: list them, make room.", no_args_is_help=True)
Root = Annotated[str, typer.Argument(help="a store: OUT/store of a sweep, or what --store named", show_default=False)]


@contextmanager
def told(said: str) -> Iterator[None]:
    """Says in words that a store cannot be opened."""
    try:
        yield
    except (ValueError, ImportError, OSError) as error:
        raise InputError(f"{said}: no store can be opened there ({error}). Give a folder or fsspec path.") from None


def _opened(root: str) -> "tuple[Store, list[Entry]]":
    from orca_sweep.store import Store

    with told(root):
        store = Store(root)
        entries = store.entries()
    if not store.fs.exists(store.root):
        raise InputError(f"{root}: there is no such store. It is OUT/store of a sweep, or what --store named.")
    return store, entries


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
    """Deletes artifacts that have not been used for long, and damaged or half-written files older than a day."""
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
        if yes:
            store.remove(entry)
        print(f"{'deleted' if yes else 'would delete'} {entry.stage}/{entry.name}")
    size = sum(entry.n_bytes for entry in old) / 2**20
    done = "deleted" if yes else "would be deleted; add --yes to do it"
    print(f"{len(old)} files, {size:.1f} MiB {done}. Trials compute again what they need.")
