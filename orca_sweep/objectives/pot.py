"""Loads POT (Python Optimal Transport) when it is first needed, without its unwanted backends.

Tests compare our functions with POT's where both compute the same numbers. At run time POT solves unregularised
transport (``otdd-emd``), which it does best. The docstrings of the other objectives give their speed relative to POT.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

UNWANTED_BACKENDS = ("JAX", "CUPY", "TENSORFLOW")
"""POT imports each of these if installed, which takes seconds and can reserve a GPU's whole memory."""


def load_pot() -> ModuleType:
    """Returns POT's module ``ot``, with only its NumPy and torch backends.

    Restores the environment variables that it sets.
    """
    with _disable_backends():
        return import_module("ot")


@contextmanager
def _disable_backends() -> Iterator[None]:
    names = [f"POT_BACKEND_DISABLE_{backend}" for backend in UNWANTED_BACKENDS]
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
