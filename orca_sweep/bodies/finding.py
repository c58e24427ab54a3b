"""Finds the body of a name, and checks what it needs before anything is loaded.

Needs neither torch nor transformers.
"""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from orca_sweep.bodies.catalogue import BODIES
from orca_sweep.bodies.checkpoints import SAFE, SAFE_INDEX, check_weights, find_weights
from orca_sweep.bodies.configs import fill_config, find_config_problems, read_config
from orca_sweep.bodies.records import DIMS, Architecture, Body, count_config_layers
from orca_sweep.bodies.tokenizers import check_tokenizer
from orca_sweep.config.declaration import absolute_path, is_local_path
from orca_sweep.errors import DataError, InputError, Problem

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def find_body(name: str) -> Body:
    """Returns the body of a registered name, a local folder or a hub id (org/name).

    Raises:
        InputError: if the name is unknown, or the folder does not hold a body of a supported family.
    """
    if name in BODIES:
        return BODIES.get(name)
    if is_local_path(name):
        return _read_body_folder(name, _expand_home(name))
    if HUB_ID.fullmatch(name):
        return Body(
            name=name,
            meaning=f"downloaded from the hub: {name}",
            source=name,
            licence="see the hub page",
            architecture=None,
            location=name,
        )
    raise InputError(f"{BODIES.explain_unknown(name)} A hub id is written org/name, a folder starts with '.' or '/'.")


def find_rung(body: Body, fraction: float, seed: int) -> Body:
    """Returns the body with the weights of a rung of its ladder; the full body for fraction 1.

    Raises:
        InputError: if the ladder lacks that rung, or the rung lacks a run of that seed.
    """
    if fraction == 1 or body.pretrain is not None:
        return body
    if fraction not in body.ladder:
        known = ", ".join(f"{f:g}" for f in body.fractions or ())
        rule = f"{body.name!r} has published weights at {known} (0 = random)."
        remedy = "Our own small bodies take any fraction."
        raise InputError(Problem(field="body.pretrain_fraction", value=fraction, rule=rule, remedy=remedy))
    rung = body.ladder[fraction]
    if seed >= len(rung.locations):
        rule = f"{body.name!r} has {len(rung.locations)} published runs at fraction {fraction:g}."
        remedy = f"Use 0 to {len(rung.locations) - 1}."
        raise InputError(Problem(field="body.pretrain_seed", value=seed, rule=rule, remedy=remedy))
    return replace(body, location=rung.locations[seed], revision=rung.revision)


def canonicalise_body(name: str) -> str:
    """Returns a body's one name: a folder's absolute path (relative to the working folder), any other name unchanged."""
    return absolute_path(name) if name not in BODIES and is_local_path(name) else name


def locate_model(body: Body) -> str:
    """Returns the hub id or folder from which the body's weights are loaded.

    Raises:
        InputError: if the package that carries them is not installed, or a folder hides the hub id.
    """
    if body.package is None:
        location = str(body.location)
        if body.name != location and HUB_ID.fullmatch(location) and is_local_path(location):
            rule = f"its hub id {location} is also a folder in the working folder, which would be loaded instead."
            remedy = f"Work elsewhere, or name the folder './{location}'."
            raise InputError(Problem(field="body.name", value=body.name, rule=rule, remedy=remedy))
        return location
    missing = explain_missing_body(body)
    if missing:
        raise InputError(missing)
    spec = find_spec(body.package)
    return str(Path(next(iter(spec.submodule_search_locations or ()))) / "model") if spec else ""


def explain_missing_body(body: Body) -> list[str]:
    """Returns why the body cannot be loaded here, each reason with its remedy; empty if it can."""
    if body.package and find_spec(body.package) is None:
        return [
            f"body.name {body.name!r} needs the package {body.package}, which is not installed."
            f" Run: pip install 'orca-sweep[{body.extra}]'"
        ]
    return []


def find_file_problems(body: Body, has_weights: bool = True) -> list[Problem]:
    """Returns what is wrong with a local body's files, as far as their headers show it; empty if nothing.

    Loads nothing: mistakes in pickles and on the hub show only when the body is loaded.

    Args:
        body: The body, with the weights of the rung in use.
        has_weights: Whether its weights are used; a random body uses only its config and tokenizer.
    """
    if body.pretrain is not None or explain_missing_body(body):
        return []
    try:
        folder = Path(locate_model(body))
        if not folder.is_dir():
            return []
        rules = _check_files(folder, has_weights)
    except InputError as error:
        return [problem.of("body.name", body.name) for problem in error.problems]
    return [Problem(field="body.name", value=body.name, rule=rule) for rule in rules]


def _check_files(folder: Path, has_weights: bool) -> list[str]:
    family, raw = _read_checked_config(folder / "config.json")
    checks = [partial(check_weights, folder, family, raw)] if has_weights else []
    if DIMS[family] == 1:
        checks.append(partial(check_tokenizer, folder, fill_config(family, raw)["vocab_size"]))
    return [text for check in checks if (text := _catch_refusal(check))]


def _catch_refusal(check: Callable[[], None]) -> str | None:
    try:
        check()
    except (DataError, OSError) as error:
        return str(error)
    return None


# Folders ------------------------------------------------------------------------------------------


def _expand_home(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:  # '~nobody': no such user
        return Path(name)


def _read_body_folder(name: str, folder: Path) -> Body:
    if not _is_body_folder(folder):
        raise InputError("this is not a body folder. It must be a folder with config.json and model.safetensors.")
    family, raw = _read_checked_config(folder / "config.json")
    weights = find_weights(folder)
    if weights is None:
        raise InputError("the folder has no model.safetensors. Save the weights there as safetensors.")
    real_path = os.path.realpath(folder)
    return Body(
        name=name,
        meaning="local folder",
        source=real_path,
        licence="the user's",
        architecture=family,
        location=real_path,
        only_pickle=weights not in (SAFE, SAFE_INDEX),
        published_layers=count_config_layers(family, raw),
        published_channels=fill_config(family, raw)["num_channels"] if DIMS[family] == 2 else None,
    )


def _is_body_folder(folder: Path) -> bool:
    try:
        return folder.is_dir() and (folder / "config.json").is_file()
    except OSError:
        return False


def _read_checked_config(path: Path) -> tuple[Architecture, dict[str, Any]]:
    """Reads a config.json and returns its family and its content.

    Raises:
        InputError: if the family is not supported; otherwise with every mistake in the config.
    """
    raw = read_config(path)
    family = raw.get("model_type")
    if not isinstance(family, str) or family not in DIMS:
        raise InputError(f"its family {family!r} is not supported. Supported families: {', '.join(DIMS)}.")
    problems = find_config_problems(family, raw)
    if problems:
        raise InputError(problems)
    return cast(Architecture, family), raw
