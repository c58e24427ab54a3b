"""Imports the user's modules and files, and hashes the code that a trial runs."""

import hashlib
import sys
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

from orca_sweep.errors import InputError, Problem, is_of_users_code


def load_imports(imports: Iterable[str]) -> str | None:
    """Imports the user's modules and files, each once per process, which registers their records.

    Returns:
        The SHA-256 of their source (``imports_digest``).

    Raises:
        InputError: naming each import that failed, with its error.
    """
    imports, problems = tuple(imports), []
    for name in imports:
        try:
            _import_file(name) if name.endswith(".py") else import_module(name)
        except BaseException as error:  # the user reads whatever the module raises, sys.exit() included
            if not isinstance(error, Exception) and not is_of_users_code(error):
                raise
            rule = f"it cannot be imported: {_describe_error(error)}."
            problems.append(Problem(field="imports", value=name, rule=rule, remedy="Correct it, or leave it out."))
    if problems:
        raise InputError(problems)
    return imports_digest(imports)


def _describe_error(error: BaseException) -> str:
    """An error's class and message, on one line and without a full stop."""
    message = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def code_digest(imports: Iterable[str]) -> str:
    """Returns the SHA-256 of this program's source and of the modules and files that a space imports."""
    return hashlib.sha256(f"{_own_digest()}{imports_digest(imports)}".encode()).hexdigest()


def imports_digest(imports: Iterable[str]) -> str | None:
    """Returns the SHA-256 of the modules and files that a space imports, whatever folder they are in; None for no imports.

    A package counts with all its modules. Modules that the code imports in turn do not count.
    """
    digests = [_source_digest(name) for name in imports]
    return hashlib.sha256("".join(digests).encode()).hexdigest() if digests else None


def _source_digest(name: str) -> str:
    """The hash of the source of a file or module, or of its name if no source can be read."""
    if name.endswith(".py"):
        paths = [Path(name)]
    else:
        spec = find_spec(name)
        folders = [] if spec is None else [Path(folder) for folder in spec.submodule_search_locations or ()]
        paths = sorted(path for folder in folders for path in folder.rglob("*.py"))
        paths = paths or ([Path(spec.origin)] if spec is not None and spec.origin else [])
    digest = hashlib.sha256(b"" if name.endswith(".py") else f"{name}\n".encode())
    for path in paths:
        digest.update(hashlib.sha256(path.read_bytes() if path.is_file() else name.encode()).digest())
    return digest.hexdigest()


@cache
def _own_digest() -> str:
    package = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        relative = path.relative_to(package)
        if relative.parts[0] != "analysis":
            digest.update(f"{relative.as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()


@cache
def _import_file(name: str) -> None:
    unique = f"orca_sweep_import_{Path(name).stem}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    spec = spec_from_file_location(unique, name)
    if spec is None or spec.loader is None:
        raise ImportError(f"{name} is not a Python file")
    # Dataclasses and pickles look their module up by name.
    sys.modules[unique] = module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[unique]
        raise
