"""How a published body's pre-training prepared its images: read from its own ``preprocessor_config.json``."""

import json
from pathlib import Path
from typing import Any

from orca_sweep.bodies import Body, model_location
from orca_sweep.bodies.configs import LARGEST_CONFIG
from orca_sweep.errors import InputError
from orca_sweep.pointers import find_pointer
from orca_sweep.proxies import Scaling

LARGEST, SMALLEST = 1e9, 1e-9
"""What a mean, a spread or a factor can be; single precision is to hold a pixel that is divided by it."""
PREPROCESSOR = "preprocessor_config.json"
WHERE = "embedder.proxy_scaling = 'body'"


def body_scaling(body: Body) -> Scaling | None:
    """Returns what a body's pre-training normalised pixels in [0, 1] with; None if it saw them as they are.

    The file speaks of pixels in 0 to 255 that are rescaled first (by 1/255 if it says nothing of it). Our own small
    bodies were pre-trained on raw images.

    Raises:
        InputError: if the file is missing, or does not say it in numbers.
    """
    if body.pretrain is not None:
        return None
    path = _preprocessor(body)
    problem = find_pointer(path)
    if problem:
        raise InputError(f"{WHERE}: {problem}")
    try:
        is_small = path.stat().st_size <= LARGEST_CONFIG
        settings = json.loads(path.read_text(encoding="utf-8")) if is_small else None
    except (OSError, ValueError, RecursionError):  # broken JSON and broken UTF-8 are ValueErrors
        settings = None
    if not isinstance(settings, dict):
        raise InputError(f"{WHERE}: {path} is not a JSON object. Save it anew with the body's image processor.")
    factors = _numbers(settings, "rescale_factor", path, 1 / 255) if _switch(settings, "do_rescale", path) else (1.0,)
    if len(factors) != 1:
        raise InputError(f"{WHERE}: {path} has {len(factors)} numbers in rescale_factor. One is needed.")
    full = 255 * factors[0]
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    if _switch(settings, "do_normalize", path):
        mean, std = _numbers(settings, "image_mean", path), _numbers(settings, "image_std", path)
        if len(mean) != len(std):
            raise InputError(
                f"{WHERE}: {path} has {len(mean)} numbers in image_mean, {len(std)} in image_std. Mend it."
            )
    if min(std) < SMALLEST or full < SMALLEST:
        raise InputError(
            f"{WHERE}: {path} has image_std {list(std)} and rescales by {full / 255}. Both must be above 0."
        )
    if set(mean) == {0.0} and {value / full for value in std} == {1.0}:
        return None
    return Scaling(mean=tuple(m / full for m in mean), std=tuple(s / full for s in std), channels_of="body")


def _preprocessor(body: Body) -> Path:
    location = model_location(body)
    remedy = "Save it beside the weights, or use proxy or none."
    if Path(location).is_dir():
        path = Path(location) / PREPROCESSOR
        if not path.is_file():
            raise InputError(f"{WHERE}: there is no {PREPROCESSOR} in {location}. {remedy}")
        return path
    from transformers.utils.hub import cached_file

    try:
        return Path(str(cached_file(location, PREPROCESSOR, revision=body.revision)))
    except OSError as error:  # transformers' own words, of a missing file and of a missing network
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"{WHERE}: {PREPROCESSOR} of {location} cannot be had: {lines[0]} {remedy}") from None


def _numbers(settings: dict[str, Any], name: str, path: Path, default: float | None = None) -> tuple[float, ...]:
    value = settings.get(name, default)
    values = value if isinstance(value, list) else [value]
    if not values or not all(_is_number(v) for v in values):
        shown = repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:57]}..."
        raise InputError(f"{WHERE}: {path} has {name} {shown}. A number, or one per channel, is needed.")
    return tuple(map(float, values))


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) <= LARGEST  # NaN is not


def _switch(settings: dict[str, Any], name: str, path: Path) -> bool:
    value = settings.get(name)
    if value is not None and not isinstance(value, bool):
        raise InputError(f"{WHERE}: {path} has {name} {value!r}. It is true or false.")
    return value is not False
