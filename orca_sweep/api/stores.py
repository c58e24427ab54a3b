"""Opening a store that a user names."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from orca_sweep.api.paths import store_root
from orca_sweep.errors import NO_VALUE, InputError, refuse_argument

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
    """Returns the store that a user names; it need not exist yet.

    Raises:
        InputError: if nothing can be stored there, or something else is there.
    """
    from orca_sweep.store import Store

    root = store_root(store)
    try:
        with explain_store_errors(root):
            opened = Store(root)
            opened.check_root()
    except InputError as error:
        raise refuse_argument("store", NO_VALUE, str(error)) from None
    return opened
