"""Loads a body's config and weights with transformers, strictly: every weight comes from the checkpoint."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

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
    list_shards,
    list_weight_files,
    merge_weights,
    refuse_differences,
    show_first_keys,
)
from orca_sweep.bodies.configs import fill_config, find_config_problems, read_config
from orca_sweep.bodies.finding import locate_model
from orca_sweep.bodies.records import DIMS, Body
from orca_sweep.bodies.shapes import is_needed, list_weight_shapes, publish_name
from orca_sweep.errors import DataError, InputError, Problem, first_line, out_of_memory, reason_of

CONFIG = "config.json"
DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def check_family(family: object) -> None:
    """Refuses an unsupported family.

    Raises:
        InputError: names the supported families.
    """
    if not isinstance(family, str) or family not in DIMS:
        raise InputError(f"body.name: the family {family!r} is not supported. Supported: {', '.join(DIMS)}.")


def read_body_config(body: Body) -> tuple[Mapping[str, Any], Any]:
    """Returns a body's config as written, and as a transformers config with single numbers for image and patch sizes.

    Raises:
        InputError: if a file is not a JSON object, the family is not supported, or the config is impossible.
        OSError: if the config of a hub id cannot be fetched (the message is from transformers).
    """
    if body.pretrain is not None:
        raw: Mapping[str, Any] = body.settings
        family = str(body.architecture)
    else:
        folder = find_folder(locate_model(body), body.revision)
        try:
            raw = read_config(folder / CONFIG)
        except InputError as error:
            raise InputError([problem.of("body.name", body.name) for problem in error.problems]) from None
        family = raw.get("model_type", "")
    check_family(family)
    return raw, _build_config(body.name, family, raw)


def find_folder(location: str, revision: str | None) -> Path:
    """Returns the folder that holds a body's config; for a hub id, its commit's folder in the cache of the hub's client.

    Raises:
        DataError: if the folder does not exist.
        OSError: if the config cannot be fetched (the message is from transformers).
    """
    folder = Path(location)
    if folder.is_dir():
        return folder
    if folder.is_absolute() or location.startswith("."):
        raise DataError(f"{location}: no such folder. Put the body there again, or correct body.name.")
    from transformers.utils.hub import cached_file

    return Path(str(cached_file(location, CONFIG, revision=revision))).parent


def _fetch_weights(location: str, revision: str | None, folder: Path, allow_pickle: bool) -> None:
    """Fetches a hub id's weights into its config's folder in the cache, where they are checked like a local folder's.

    Raises:
        DataError: if there are no weights, or only a pickle that the user has not allowed.
    """
    from transformers.utils.hub import cached_file

    commit = folder.name if folder.parent.name == "snapshots" else revision

    def fetch_file(name: str) -> bool:
        path = cached_file(
            location, name, revision=commit, _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False,
        )  # fmt: skip
        return path is not None

    fetch_file(ADAPTER)  # check_weights refuses an adapter
    name = next(filter(fetch_file, (SAFE, SAFE_INDEX, *((PICKLE, PICKLE_INDEX) if allow_pickle else ()))), None)
    if name is None:
        raise DataError(
            f"{location}: {SAFE} cannot be fetched: it is not on the hub, or the hub cannot be reached. A body with a"
            " pickle only needs body.allow_pickle: true (only tensors are read from it)."
        )
    if name in (SAFE_INDEX, PICKLE_INDEX):
        for shard in list_shards(folder / name):
            fetch_file(shard)


def _build_config(name: str, family: str, raw: Mapping[str, Any]) -> Any:
    from transformers import CONFIG_MAPPING

    problems = find_config_problems(family, raw)
    if problems:
        raise InputError([Problem(field="body.name", value=name, rule=rule) for rule in problems])
    try:
        config = CONFIG_MAPPING[family].from_dict({**raw, "model_type": family})
    except Exception as error:  # its type checks raise their own classes
        rule = f"transformers does not understand its config.json ({reason_of(error)})."
        remedy = "Correct that entry, or get the folder again."
        raise InputError(Problem(field="body.name", value=name, rule=rule, remedy=remedy)) from None
    _set_outputs(config)
    if hasattr(config, "image_size"):
        sides = fill_config(family, raw)
        config.image_size, config.patch_size = sides["image_size"], sides["patch_size"]
    return config


def _set_outputs(config: Any) -> None:
    """Overrides settings that change no number: the form of outputs, and computing them in chunks."""
    config.return_dict, config.output_hidden_states, config.output_attentions = True, False, False
    if hasattr(config, "chunk_size_feed_forward"):
        config.chunk_size_feed_forward = 0


def load_model(
    location: str, raw: Mapping[str, Any], config: Any, *, revision: str | None, allow_pickle: bool, options: Any
) -> Any:
    """Returns the model of a folder or hub id in single precision; all its weights come from the checkpoint.

    Heads and poolers are not used, so the checkpoint may have or lack them.

    Args:
        location: Folder or hub id.
        raw: Its config.json.
        config: Its transformers config.
        revision: Branch, tag or commit on the hub.
        allow_pickle: Whether a checkpoint without safetensors is read from its pickle.
        options: Further arguments for the model's class.

    Raises:
        DataError: if weights are missing, unexpected, of another shape or type, or not finite, or if a file is damaged.
        OSError: if the weights cannot be fetched (the message is from transformers).
    """
    folder = find_folder(location, revision)
    try:
        if folder != Path(location):
            _fetch_weights(location, revision, folder, allow_pickle)
        return _load_folder(folder, raw, config, allow_pickle=allow_pickle, options=options)
    except DataError as error:  # a path in the cache means nothing to the user
        raise DataError(str(error).replace(str(folder), location)) from None


def _load_folder(folder: Path, raw: Mapping[str, Any], config: Any, *, allow_pickle: bool, options: Any) -> Any:
    family = config.model_type
    check_weights(folder, family, raw)
    path = folder / str(find_weights(folder))
    if path.name in (PICKLE, PICKLE_INDEX):
        _check_pickle(path, family, raw, allow_pickle)
    model, report = _load_weights(path, config, allow_pickle, options)
    _refuse_report(path, family, raw, report)
    model.float()
    _copy_weights(model)
    _refuse_nonfinite(path, family, model)
    return model


def _check_pickle(path: Path, family: str, raw: Mapping[str, Any], allow_pickle: bool) -> None:
    if not allow_pickle:
        raise DataError(
            f"{path}: the weights are only a pickle. Save them as safetensors, or set body.allow_pickle: true"
            " (only tensors are read from it)."
        )
    weights = _read_pickles(list_weight_files(path.parent, path.name))
    differences = compare_weights(family, raw, weights)
    refuse_differences(path, family, raw, keys=weights, differences=differences)


def _load_weights(path: Path, config: Any, allow_pickle: bool, options: Any) -> tuple[Any, Mapping[str, Any]]:
    """Returns the model and the report of transformers on which weights it did not find, use or fit."""
    from transformers import AutoModel

    try:
        with _silence_transformers():
            # By default the file's weights would be rounded to the precision that the config names.
            model, report = AutoModel.from_pretrained(
                path.parent, config=config, dtype=torch.float32, use_safetensors=None if allow_pickle else True,
                ignore_mismatched_sizes=True, output_loading_info=True, **options,
            )  # fmt: skip
            return model, report
    except OSError:
        raise
    except Exception as error:  # readers of weights raise many classes on damaged files
        if out_of_memory(error):
            raise
        raise DataError(
            f"{path}: cannot be loaded ({reason_of(error)}). Correct config.json if one of its entries is the"
            " reason; otherwise save or get the weights again."
        ) from None


def _copy_weights(model: Any) -> None:
    """Copies each weight: it may be mapped from the file, which can change, or share memory with another."""
    for parameter in model.parameters():
        parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)


@contextmanager
def _silence_transformers() -> Iterator[None]:
    """Keeps transformers from warning about unused heads and from drawing progress bars."""
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
    """Returns the shapes and types in pickles, read by torch's tensors-only reader; data stays on disk where possible.

    Raises:
        DataError: if a pickle is damaged, holds other objects, or is not a dict of tensors by name.
    """
    weights: dict[str, Weight] = {}
    for path in files:
        state = _read_pickle(path)
        if isinstance(state, Mapping) and not any(isinstance(tensor, torch.Tensor) for tensor in state.values()):
            inner = [str(key) for key, value in state.items() if isinstance(value, Mapping)]
            hint = f" It holds {show_first_keys(inner)}." if inner else ""
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
        except (RuntimeError, ValueError):  # the old format cannot be memory-mapped
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the reader raises many classes on other content
        if out_of_memory(error):
            raise
        # torch then explains how to load such a file unsafely: only its text shows where that begins.
        reason = first_line(error).split(" This file can still be loaded")[0].rstrip(".")
        raise DataError(
            f"{path}: the pickle cannot be read as tensors only ({reason}). None of its code ran. Save the"
            " weights as safetensors, or get the file again."
        ) from None


def _refuse_report(where: object, family: str, raw: Mapping[str, Any], report: Mapping[str, Any]) -> None:
    """Refuses weights that transformers initialised at random or left out."""
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
    held = list_weight_shapes(family, fill_config(family, raw)).keys() - set(missing)
    refuse_differences(where, family, raw, keys=[*held, *report["unexpected_keys"]], differences=differences)


def _refuse_nonfinite(where: object, family: str, model: Any) -> None:
    broken = [publish_name(family, key) for key, tensor in model.state_dict().items() if not tensor.isfinite().all()]
    if broken:
        raise DataError(
            f"{where}: NaN or infinite values in {len(broken)} of its weights ({show_first_keys(broken)}). Get the file again,"
            " or save the model from before it diverged."
        )
