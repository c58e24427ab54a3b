"""How a published body's images were normalised in pre-training, read from its ``preprocessor_config.json``."""

import json
from pathlib import Path
from typing import Any

from orca_sweep.bodies import Body, model_location
from orca_sweep.errors import InputError
from orca_sweep.proxies import Scaling

PREPROCESSOR = "preprocessor_config.json"
WHERE = "embedder.proxy_scaling = 'body'"


def body_scaling(body: Body) -> Scaling | None:
    """Returns the mean and standard deviation by which a body's pre-training normalised pixels in [0, 1].

    None if it saw raw pixels, as our own small bodies did. The file describes pixels from 0 to 255, which are rescaled
    first (by 1/255 unless it says otherwise).

    Raises:
        InputError: if the file is missing, or its entries are not numbers.
    """
    if body.pretrain is not None:
        return None
    path = _find_preprocessor(body)
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        settings = None
    if not isinstance(settings, dict):
        raise InputError(f"{WHERE}: {path} is not a JSON object. Save it again with the body's image processor.")
    full = 255 * (
        _read_numbers(settings, "rescale_factor", path, 1 / 255)[0] if settings.get("do_rescale", True) else 1.0
    )
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    if settings.get("do_normalize", True):
        mean, std = _read_numbers(settings, "image_mean", path), _read_numbers(settings, "image_std", path)
        if len(mean) != len(std):
            raise InputError(
                f"{WHERE}: {path} has {len(mean)} numbers in image_mean, but {len(std)} in image_std. Give one of each per"
                " channel."
            )
    if min(std) <= 0 or full <= 0:
        raise InputError(
            f"{WHERE}: {path} has image_std {list(std)} and rescale_factor {full / 255}. Both must be above 0."
        )
    if set(mean) == {0.0} and {value / full for value in std} == {1.0}:
        return None
    return Scaling(mean=tuple(m / full for m in mean), std=tuple(s / full for s in std), channels_of="body")


def _find_preprocessor(body: Body) -> Path:
    location = model_location(body)
    remedy = "Save it beside the weights, or set embedder.proxy_scaling to proxy or none."
    if Path(location).is_dir():
        path = Path(location) / PREPROCESSOR
        if not path.is_file():
            raise InputError(f"{WHERE}: {location} has no {PREPROCESSOR}. {remedy}")
        return path
    from transformers.utils.hub import cached_file

    try:
        return Path(str(cached_file(location, PREPROCESSOR, revision=body.revision)))
    except OSError as error:  # a missing file or a missing network, in transformers' own words
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"{WHERE}: {PREPROCESSOR} of {location} cannot be fetched: {lines[0]} {remedy}") from None


def _read_numbers(settings: dict[str, Any], name: str, path: Path, default: float | None = None) -> tuple[float, ...]:
    value = settings.get(name, default)
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        raise InputError(f"{WHERE}: {path} has {name} {value!r}. It must be a number, or a list of one per channel.")
    return tuple(map(float, values))
