"""Reads how a body's pre-training normalised images, from its ``preprocessor_config.json``."""

import json
from pathlib import Path
from typing import Any

from orca_sweep.bodies.configs import LARGEST_CONFIG
from orca_sweep.bodies.finding import locate_model
from orca_sweep.bodies.records import Body
from orca_sweep.data.pointers import pointer_problem
from orca_sweep.errors import InputError, Problem
from orca_sweep.proxies.images import Scaling

LARGEST, SMALLEST = 1e9, 1e-9
"""Bounds of a mean, a standard deviation or a factor: single precision must hold a pixel divided by it."""
PREPROCESSOR = "preprocessor_config.json"


def read_body_scaling(body: Body) -> Scaling | None:
    """Returns the mean and standard deviation with which a body's pre-training normalised pixels in [0, 1].

    None if it saw raw pixels, as our own small bodies did. The file describes pixels from 0 to 255 that are first
    rescaled, by 1/255 unless it gives another factor.

    Raises:
        InputError: if the file is missing, unreadable, or holds entries of the wrong kind or size.
    """
    if body.pretrain is not None:
        return None
    path = _find_preprocessor(body)
    settings = _read_settings(path)
    full = _read_full_scale(settings, path)
    mean, std = _read_moments(settings, path)
    if min(std) < SMALLEST or full < SMALLEST:
        raise _refuse(f"{path} has image_std {list(std)} and rescale_factor {full / 255}. Both must be above 0.")
    if set(mean) == {0.0} and {value / full for value in std} == {1.0}:
        return None
    return Scaling(mean=tuple(m / full for m in mean), std=tuple(s / full for s in std), channels_of="body")


def _read_settings(path: Path) -> dict[str, Any]:
    problem = pointer_problem(path)
    if problem:
        raise _refuse(f"{problem}")
    try:
        is_small = path.stat().st_size <= LARGEST_CONFIG
        settings = json.loads(path.read_text(encoding="utf-8")) if is_small else None
    except (OSError, ValueError, RecursionError):  # broken JSON and broken UTF-8 are ValueErrors
        settings = None
    if not isinstance(settings, dict):
        raise _refuse(f"{path} is not a JSON object. Save it again with the body's image processor.")
    return settings


def _read_full_scale(settings: dict[str, Any], path: Path) -> float:
    """Returns what a pixel of 255 becomes by rescaling."""
    factors: tuple[float, ...] = (1.0,)
    if _read_switch(settings, "do_rescale", path):
        factors = _read_numbers(settings, "rescale_factor", path, 1 / 255)
    if len(factors) != 1:
        raise _refuse(f"{path} has {len(factors)} numbers in rescale_factor. Give one number.")
    return 255 * factors[0]


def _read_moments(settings: dict[str, Any], path: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns the means and standard deviations of rescaled pixels, each one number or one per channel."""
    if not _read_switch(settings, "do_normalize", path):
        return (0.0,), (1.0,)
    mean, std = _read_numbers(settings, "image_mean", path), _read_numbers(settings, "image_std", path)
    if len(mean) != len(std):
        raise _refuse(
            f"{path} has {len(mean)} numbers in image_mean, but {len(std)} in image_std. Give one of each per channel."
        )
    return mean, std


def _find_preprocessor(body: Body) -> Path:
    location = locate_model(body)
    remedy = "Save it beside the weights, or set embedder.proxy_scaling to proxy or none."
    if Path(location).is_dir():
        path = Path(location) / PREPROCESSOR
        if not path.is_file():
            raise _refuse(f"{location} has no {PREPROCESSOR}. {remedy}")
        return path
    from transformers.utils.hub import cached_file

    try:
        return Path(str(cached_file(location, PREPROCESSOR, revision=body.revision)))
    except OSError as error:  # a missing file or no network; transformers words the message
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise _refuse(f"{PREPROCESSOR} of {location} cannot be fetched: {lines[0]} {remedy}") from None


def _read_numbers(settings: dict[str, Any], name: str, path: Path, default: float | None = None) -> tuple[float, ...]:
    value = settings.get(name, default)
    values = value if isinstance(value, list) else [value]
    if not values or not all(_is_number(v) for v in values):
        shown = repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:57]}..."
        raise _refuse(f"{path} has {name} {shown}. It must be a number, or a list of one per channel.")
    return tuple(map(float, values))


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) <= LARGEST  # NaN is not


def _read_switch(settings: dict[str, Any], name: str, path: Path) -> bool:
    value = settings.get(name)
    if value is not None and not isinstance(value, bool):
        raise _refuse(f"{path} has {name} {value!r}. It must be true or false.")
    return value is not False


def _refuse(rule: str) -> InputError:
    return InputError(Problem(field="embedder.proxy_scaling", value="body", rule=rule))
