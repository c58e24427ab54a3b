"""POT (Python Optimal Transport), loaded when it is first needed and without the backends nobody asked for.

Where its functions give the numbers of ours, they are the tests' oracle. At run time it solves what it solves
best, unregularised transport (``otdd-emd``); the docstrings of the others say how much faster ours are.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

UNWANTED_BACKENDS = ("JAX", "CUPY", "TENSORFLOW")
"""POT imports each of these that is installed, which takes seconds and can reserve a GPU's whole memory."""


def load_pot() -> ModuleType:
    """Returns POT's module ``ot``; of its backends only NumPy's and torch's are imported.

    The environment is as before when it returns.
    """
    with _without_backends():
        return import_module("ot")


@contextmanager
def _without_backends() -> Iterator[None]:
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
