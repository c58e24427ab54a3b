"""Opening a store that a user names."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from orca_sweep.api.paths import store_root
from orca_sweep.errors import InputError

if TYPE_CHECKING:
    from orca_sweep.store import Store


@contextmanager
def explain_store_errors(name: str) -> Iterator[None]:
    """Turns an error of opening a store into one that names it.

    Raises:
        InputError: with the store's name as the user wrote it.
    """
    try:
        yield
    except (ValueError, ImportError, OSError) as error:
        raise InputError(f"{name}: cannot open a store there ({error}). Give a folder or fsspec path.") from None


def open_store(store: str) -> "Store":
    """Returns the store of an option ``--store``; it need not exist yet.

    Raises:
        InputError: if nothing can be stored there, or something else is there.
    """
    from orca_sweep.store import Store

    root = store_root(store)
    with explain_store_errors(f"--store {root}"):
        opened = Store(root)
        opened.check_root()
        return opened
