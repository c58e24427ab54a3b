"""Finds the proxy of a name or declaration, and says what its local files hold or lack."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from orca_sweep.config.declaration import (
    SHUFFLED,
    Declaration,
    explain_declaration,
    parse_proxy,
    without_shuffling,
)
from orca_sweep.config.naming import label_of
from orca_sweep.data import missing_packages
from orca_sweep.data.pointers import pointer_problem
from orca_sweep.errors import DataError, InputError
from orca_sweep.proxies import declared
from orca_sweep.proxies.bundled import shuffle_labels
from orca_sweep.proxies.catalogue import PROXIES, TEXT_FILES
from orca_sweep.proxies.files import TEXT_KINDS, find_file_kind
from orca_sweep.proxies.records import Form, Proxy, ProxyData

FORMS: dict[str | None, Form] = {"npz": "features", "conll": "tagged"}
"""What files of these kinds hold; only reading shows what others hold."""


def find_proxy(name: str) -> Proxy:
    """Returns the proxy of a registered name, ``shuffled:<proxy>``, or a declaration.

    ``orca_sweep.config.declaration`` describes declarations.

    Raises:
        InputError: if it is none of these.
    """
    if name in PROXIES:
        return PROXIES.get(name)
    if name.startswith(SHUFFLED):
        return _shuffle_proxy(find_proxy(name.removeprefix(SHUFFLED)))
    declaration = parse_proxy(name)
    if declaration is None:
        raise InputError(
            f"{PROXIES.explain_unknown(name)} A data set of your own is declared as path[split]:input->label, a hub id as"
            " org/name[split]:input->label; shuffled:<proxy> permutes labels."
        )
    return _make_declared_proxy(name, declaration)


def _shuffle_proxy(proxy: Proxy) -> Proxy:
    if proxy.kind == "none":
        raise InputError("'none' has no labels to shuffle. Name a proxy.")
    return replace(
        proxy,
        name=SHUFFLED + proxy.name,
        declaration=SHUFFLED + (proxy.declaration or proxy.name),
        load=_shuffle_after(proxy.load),
        meaning=f"{proxy.name} with its labels permuted: a placebo",
    )


def _shuffle_after(load: Callable[[Path], ProxyData]) -> Callable[[Path], ProxyData]:
    return lambda root: shuffle_labels(load(root))


def _make_declared_proxy(name: str, declaration: Declaration) -> Proxy:
    is_local = declaration.is_local
    kind = find_file_kind(Path(declaration.path)) if is_local else None
    problems = explain_declaration(declaration)
    if declaration.encoding is not None and kind not in TEXT_KINDS:
        problems.append(f"encoding = {declaration.encoding!r}: {declaration.path} is not a text file. Leave it out.")
    if problems:
        raise InputError(problems)
    if declaration.name is not None and declaration.name in PROXIES:
        raise InputError(f"the name {declaration.name!r} is that of a registered proxy. Give the declaration another.")
    return Proxy(
        name=label_of(name),
        declaration=declaration.text,
        kind=None,
        n_classes=None,
        load=lambda root: declared.load_declared(declaration),
        meaning="declared",
        source=declaration.path,
        licence="the user's",
        packages=() if is_local else ("datasets",),
        extra=None if is_local else "data",
        form=FORMS.get(kind),
    )


def canonicalise_proxy(name: str) -> str:
    """Returns a proxy's one name: declared files get their absolute path (relative to the working folder)."""
    if name.startswith(SHUFFLED):
        return SHUFFLED + canonicalise_proxy(name.removeprefix(SHUFFLED))
    declaration = None if name in PROXIES else parse_proxy(name)
    return declaration.absolute().text if declaration else name


# Local files --------------------------------------------------------------------------------------


def find_local_path(name: str) -> Path | None:
    """Returns the file or folder that holds a proxy's samples; None for every proxy without local files."""
    declaration = _parse_local(name)
    return None if declaration is None else Path(declaration.path).expanduser()


def _parse_local(name: str) -> Declaration | None:
    """Returns the declaration of a proxy in a local file or folder; None for every other proxy."""
    plain = without_shuffling(name)
    declaration = None if plain in PROXIES else parse_proxy(plain)
    return declaration if declaration is not None and declaration.is_local else None


def describe_proxy(name: str, label: str | None = None) -> str | None:
    """Returns how many samples and classes a proxy's local files hold, under its label.

    None for other proxies, and if the files cannot be read.

    Cost: that of ``declared.count_samples``.
    """
    declaration = _parse_local(name)
    if declaration is None:
        return None
    try:
        counts = declared.count_samples(declaration)
    except DataError:
        return None
    kept = declared.MAX_SAMPLES
    is_npz = find_file_kind(Path(declaration.path)) == "npz"
    is_cut = counts.n_samples > kept and counts.samples_are == "samples" and not is_npz
    notes = [counts.about] if counts.about else []
    notes += [f"{kept:,} of them are used, drawn with a fixed seed"] if is_cut else []
    classes = "class" if counts.n_classes == 1 else "classes"
    samples = counts.samples_are.removesuffix("s") if counts.n_samples == 1 else counts.samples_are
    text = f"{counts.n_samples:,} {samples} of {counts.n_classes:,} {classes}"
    return f"proxy {label or label_of(name)}: {'; '.join([text, *notes])}"


def explain_missing_proxy(proxy: Proxy, data_root: Path | None = None) -> list[str]:
    """Returns why the proxy cannot be loaded here, each reason with its remedy; empty if it can."""
    problems = missing_packages(f"proxy {proxy.name!r}", proxy.packages, proxy.extra)
    declaration = _parse_local(proxy.declaration or proxy.name)
    if declaration is not None:
        return problems or _find_broken_files(proxy.name, declaration)
    if proxy.name.removeprefix(SHUFFLED) == "orca-text" and data_root is not None:
        problems += _find_missing_text(proxy.name, data_root)
    return problems


def _find_broken_files(name: str, declaration: Declaration) -> list[str]:
    path = Path(declaration.path).expanduser()
    if not path.exists():
        return [f"proxy {name!r} needs {declaration.path}, which does not exist. Correct the path."]
    pointer = pointer_problem(path)
    if pointer:
        return [f"proxy {name!r} needs {pointer}"]
    try:
        declared.count_samples(declaration)
    except DataError as error:
        return [f"proxy {error}"]
    return []


def _find_missing_text(name: str, data_root: Path) -> list[str]:
    """Returns what is wrong with the files of the reference's text proxy, as far as their presence shows it."""
    problems = []
    if not any((data_root / file).is_file() for file in TEXT_FILES):
        problems.append(f"proxy {name!r} needs {' or '.join(TEXT_FILES)} in {data_root}, which has neither.")
    pointers = [pointer_problem(data_root / file) for pair in TEXT_FILES.items() for file in pair]
    return problems + [f"proxy {name!r} needs {text}" for text in pointers if text]
