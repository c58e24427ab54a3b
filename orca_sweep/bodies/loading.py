"""Loads a body's config and weights with transformers, strictly: every weight comes from the checkpoint."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from orca_sweep.bodies import DIMS, Body, model_location
from orca_sweep.bodies.checkpoints import (
    ADAPTER,
    PICKLE,
    PICKLE_INDEX,
    SAFE,
    SAFE_INDEX,
    Differences,
    Weight,
    check_weights,
    compare_weights,
    find_weights,
    first_keys,
    list_shards,
    list_weight_files,
    merge_weights,
    refuse_differences,
)
from orca_sweep.bodies.configs import fill_config, find_config_problems, read_config
from orca_sweep.bodies.shapes import expected_shapes, is_needed, publish_name
from orca_sweep.errors import DataError, InputError, Problem, first_line, out_of_memory, reason_of

CONFIG = "config.json"
DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def check_family(family: object) -> None:
    """Refuses a family that is not supported.

    Raises:
        InputError: naming those that are.
    """
    if not isinstance(family, str) or family not in DIMS:
        raise InputError(f"body.name: the family {family!r} is not supported. Supported: {', '.join(DIMS)}.")


def read_body_config(body: Body) -> tuple[Mapping[str, Any], Any]:
    """Returns a body's config as written, and as a transformers config whose image and patch sizes are single numbers.

    Raises:
        InputError: if a file is not a JSON object, the family is not supported, or the config is impossible.
        OSError: if the config of a hub id cannot be fetched (transformers' own words).
    """
    if body.pretrain is not None:
        raw: Mapping[str, Any] = body.settings
        family = str(body.architecture)
    else:
        folder = find_folder(model_location(body), body.revision)
        try:
            raw = read_config(folder / CONFIG)
        except InputError as error:
            raise InputError([problem.of("body.name", body.name) for problem in error.problems]) from None
        family = raw.get("model_type", "")
    check_family(family)
    return raw, _build_config(body.name, family, raw)


def find_folder(location: str, revision: str | None) -> Path:
    """Returns the folder that holds a body's config: of a hub id its commit in the cache of the hub's client.

    Raises:
        DataError: if a folder is not there.
        OSError: if the config cannot be fetched (transformers' own words).
    """
    folder = Path(location)
    if folder.is_dir():
        return folder
    if folder.is_absolute() or location.startswith("."):
        raise DataError(f"{location}: no such folder. Put the body there again, or correct body.name.")
    from transformers.utils.hub import cached_file

    return Path(str(cached_file(location, CONFIG, revision=revision))).parent


def _fetch_weights(location: str, revision: str | None, folder: Path, allow_pickle: bool) -> None:
    """Fetches a hub id's weights to its config's folder in the cache, so that they are checked as those of a folder are.

    Raises:
        DataError: if there are none, or none but a pickle that is not asked for.
    """
    from transformers.utils.hub import cached_file

    commit = folder.name if folder.parent.name == "snapshots" else revision

    def fetch(name: str) -> bool:
        path = cached_file(
            location, name, revision=commit, _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False,
        )  # fmt: skip
        return path is not None

    fetch(ADAPTER)  # refused if there is one
    name = next(filter(fetch, (SAFE, SAFE_INDEX, *((PICKLE, PICKLE_INDEX) if allow_pickle else ()))), None)
    if name is None:
        raise DataError(
            f"{location}: {SAFE} cannot be had: it is not on the hub, or the hub cannot be reached. A body that has its"
            " weights as a pickle only needs body.allow_pickle: true (tensors only are read)."
        )
    if name in (SAFE_INDEX, PICKLE_INDEX):
        for shard in list_shards(folder / name):
            fetch(shard)


def _build_config(name: str, family: str, raw: Mapping[str, Any]) -> Any:
    from transformers import CONFIG_MAPPING

    problems = find_config_problems(family, raw)
    if problems:
        raise InputError([Problem(field="body.name", value=name, rule=rule) for rule in problems])
    try:
        config = CONFIG_MAPPING[family].from_dict({**raw, "model_type": family})
    except Exception as error:  # its checks of types raise classes of their own
        rule, remedy = (
            f"its config.json is not understood ({reason_of(error)}).",
            "Correct that entry, or get the folder again.",
        )
        raise InputError(Problem(field="body.name", value=name, rule=rule, remedy=remedy)) from None
    _set_outputs(config)
    if hasattr(config, "image_size"):
        sides = fill_config(family, raw)
        config.image_size, config.patch_size = sides["image_size"], sides["patch_size"]
    return config


def _set_outputs(config: Any) -> None:
    """Sets what a config may ask for and no number depends on: the form of outputs, and computing them in chunks."""
    config.return_dict, config.output_hidden_states, config.output_attentions = True, False, False
    if hasattr(config, "chunk_size_feed_forward"):
        config.chunk_size_feed_forward = 0


def load_model(
    location: str, raw: Mapping[str, Any], config: Any, *, revision: str | None, allow_pickle: bool, options: Any
) -> Any:
    """Returns the model of a folder or hub id in single precision, with all of its weights from the checkpoint.

    Heads and poolers are not used, so the checkpoint may have or lack them.

    Args:
        location: Folder or hub id.
        raw: Its config.json.
        config: Its transformers config.
        revision: Branch, tag or commit on the hub.
        allow_pickle: Whether a checkpoint without safetensors is read from its pickle.
        options: Further arguments of the model's class.

    Raises:
        DataError: if weights are missing, unexpected, of another shape or type, or not finite, or if a file is damaged.
        OSError: if the weights cannot be fetched (transformers' own words).
    """
    folder = find_folder(location, revision)
    try:
        if folder != Path(location):
            _fetch_weights(location, revision, folder, allow_pickle)
        return _load_folder(folder, raw, config, allow_pickle, options)
    except DataError as error:  # of a hub id, the cache's folder says nothing
        raise DataError(str(error).replace(str(folder), location)) from None


def _load_folder(folder: Path, raw: Mapping[str, Any], config: Any, allow_pickle: bool, options: Any) -> Any:
    from transformers import AutoModel

    family = config.model_type
    check_weights(folder, family, raw)
    name = str(find_weights(folder))
    where = str(folder / name)
    if name in (PICKLE, PICKLE_INDEX):
        if not allow_pickle:
            raise DataError(
                f"{where}: the weights are a pickle only. Save them as safetensors, or set body.allow_pickle: true"
                " (tensors only are read)."
            )
        weights = _read_pickles(list_weight_files(folder, name))
        differences = compare_weights(family, raw, weights)
        refuse_differences(where, family, raw, keys=weights, differences=differences)
    try:
        with _quiet_transformers():
            # In the precision that the config names, weights of the file would be rounded to it.
            model, report = AutoModel.from_pretrained(
                folder, config=config, dtype=torch.float32, use_safetensors=None if allow_pickle else True,
                ignore_mismatched_sizes=True, output_loading_info=True, **options,
            )  # fmt: skip
    except OSError:
        raise
    except Exception as error:  # whatever the readers of weights raise on damaged files
        if out_of_memory(error):
            raise
        raise DataError(
            f"{where}: cannot be loaded ({reason_of(error)}). Correct config.json if it names an entry of it; else save or"
            " get the weights again."
        ) from None
    _refuse_report(where, family, raw, report)
    model.float()
    _own_memory(model)
    _refuse_infinite(where, family, model)
    return model


def _own_memory(model: Any) -> None:
    """Gives each weight memory of its own: they may lie in the file, which can change, and share it with each other."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keeps transformers from warning of unused heads and from drawing progress bars."""
    from transformers.utils import logging

    verbosity, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bars:
            logging.enable_progress_bar()


def _read_pickles(files: list[Path]) -> dict[str, Weight]:
    """Shapes and types in pickles, by torch's tensors-only reader; where the format allows, data stays on the disk.

    Raises:
        DataError: if a pickle is damaged, holds other objects, or is not a dict of tensors by name.
    """
    weights: dict[str, Weight] = {}
    for path in files:
        state = _read_pickle(path)
        if isinstance(state, Mapping) and not any(isinstance(tensor, torch.Tensor) for tensor in state.values()):
            inner = [str(key) for key, value in state.items() if isinstance(value, Mapping)]
            hint = f" It holds {first_keys(inner)}." if inner else ""
            raise DataError(
                f"{path}: the pickle is not a dict of tensors by name.{hint} Save model.state_dict() itself."
            )
        if not isinstance(state, Mapping):
            raise DataError(
                f"{path}: the pickle holds a {type(state).__name__}, not a dict of tensors by name. Save"
                " model.state_dict()."
            )
        tensors = {str(key): value for key, value in state.items() if isinstance(value, torch.Tensor)}
        held = {
            key: Weight(shape=tuple(tensor.shape), dtype=DTYPES.get(tensor.dtype, str(tensor.dtype)))
            for key, tensor in tensors.items()
        }
        weights = merge_weights(path, weights, held)
    return weights


def _read_pickle(path: Path) -> Any:
    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except (RuntimeError, ValueError):  # the older format cannot be mapped
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the reader raises on bytes that are no pickle of tensors
        if out_of_memory(error):
            raise
        # torch goes on to say how such a file could be loaded after all: only its words tell where that begins.
        reason = first_line(error).split(" This file can still be loaded")[0].rstrip(".")
        raise DataError(
            f"{path}: the pickle cannot be read as tensors only ({reason}). None of its code ran. Save the"
            " weights as safetensors, or get the file again."
        ) from None


def _refuse_report(where: object, family: str, raw: Mapping[str, Any], report: Mapping[str, Any]) -> None:
    """Refuses weights that transformers would initialise at random or leave out."""
    missing = sorted(publish_name(family, key) for key in report["missing_keys"])
    differences = Differences(
        missing=missing,
        unexpected=sorted(
            name for key in report["unexpected_keys"] if is_needed(family, name := publish_name(family, key))
        ),
        misshaped=sorted(
            f"{publish_name(family, key)} {tuple(held)} instead of {tuple(asked)}"
            for key, held, asked in report["mismatched_keys"]
        ),
    )
    held = expected_shapes(family, fill_config(family, raw)).keys() - set(missing)
    refuse_differences(where, family, raw, keys=[*held, *report["unexpected_keys"]], differences=differences)


def _refuse_infinite(where: object, family: str, model: Any) -> None:
    broken = [publish_name(family, key) for key, tensor in model.state_dict().items() if not tensor.isfinite().all()]
    if broken:
        raise DataError(
            f"{where}: NaN or infinite values in {len(broken)} of its weights ({first_keys(broken)}). Get the file again,"
            " or save the model from before it diverged."
        )
