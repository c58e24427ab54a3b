"""Checks a body's weight files: compares their headers with its config before anything is loaded.

Needs neither torch nor transformers, so ``plan`` can use it. ``orca_sweep.bodies.loading`` checks what headers do not
contain.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orca_sweep.bodies.configs import fill_config
from orca_sweep.bodies.shapes import count_layers, is_needed, list_weight_shapes, publish_name
from orca_sweep.data.pointers import refuse_pointer
from orca_sweep.errors import DataError

SAFE, SAFE_INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLE, PICKLE_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
ADAPTER = "adapter_config.json"
N_SHOWN = 5
"""Keys of each kind that a message shows."""
LARGEST_HEADER = 2**24
"""Bytes: room for a hundred thousand weights; the largest bodies have a few thousand."""
LARGEST_INDEX = 2**26
MOST_DIMENSIONS = 16
LONGEST_KEY = 200
"""Characters of a key that a message shows."""
BYTES_PER_NUMBER: Mapping[str, int] = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2, "I8": 1,
    "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip
FLOATS = ("F64", "F32", "F16", "BF16")
WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|module|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""Key parts added by torch.compile, DataParallel and other wrappers."""


@dataclass(frozen=True, kw_only=True)
class Weight:
    """Shape and type of a weight, as read from a file's header."""

    shape: tuple[int, ...]
    dtype: str
    """As safetensors names it."""


@dataclass(frozen=True, kw_only=True)
class Differences:
    """How a checkpoint differs from the body that its config describes; keys have their published names."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    """Without heads and poolers, which are allowed."""
    misshaped: list[str] = field(default_factory=list)
    """Keys with both shapes."""
    not_floats: list[str] = field(default_factory=list)
    """Keys with their types."""
    duplicate: list[str] = field(default_factory=list)

    def describe_kinds(self) -> list[str]:
        """Returns one text per kind of difference: the number of keys and the first of them."""
        kinds = (
            (self.missing, "missing"),
            (self.unexpected, "not in its config.json"),
            (self.misshaped, "of another shape"),
            (self.not_floats, "not floating-point"),
            (self.duplicate, "duplicate, with and without a prefix"),
        )
        return [f"{len(keys)} {words} ({show_first_keys(keys)})" for keys, words in kinds if keys]


def show_first_keys(keys: Iterable[str]) -> str:
    """Returns the first ``N_SHOWN`` keys as text; an ellipsis stands for the rest."""
    keys = list(keys)
    return ", ".join(map(_shorten_key, keys[:N_SHOWN])) + (", ..." if len(keys) > N_SHOWN else "")


def _shorten_key(key: str) -> str:
    text = key if key.isprintable() else repr(key)
    return text if len(text) <= LONGEST_KEY else f"{text[:LONGEST_KEY]}..."


# Files --------------------------------------------------------------------------------------------


def find_weights(folder: Path) -> str | None:
    """Returns the name of the file that holds a folder's weights or their index; None if there is none.

    Prefers safetensors to pickles, and a single file to an index of shards.
    """
    return next((name for name in (SAFE, SAFE_INDEX, PICKLE, PICKLE_INDEX) if (folder / name).is_file()), None)


def list_weight_files(folder: Path, name: str) -> list[Path]:
    """Returns the files that hold the weights: the named file, or the shards of the named index.

    Raises:
        DataError: if a file is a Git LFS pointer, or the index is broken or names missing files.
    """
    path = folder / name
    refuse_pointer(path)
    if not name.endswith(".json"):
        return [path]
    shards = list_shards(path)
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        raise DataError(
            f"{path}: missing shards: {len(missing)} of {len(shards)} ({show_first_keys(missing)}). Put each shard beside the"
            " index."
        )
    for shard in shards:
        refuse_pointer(folder / shard)
    return [folder / shard for shard in shards]


def list_shards(path: Path) -> list[str]:
    """Returns the file names in an index of shards.

    Raises:
        DataError: if it is a Git LFS pointer or not an index of shards, or if it names a file in another folder.
    """
    refuse_pointer(path)
    try:
        is_small = path.stat().st_size <= LARGEST_INDEX
        index = json.loads(path.read_text(encoding="utf-8")) if is_small else {}
        shards = sorted(set(index["weight_map"].values()))
        has_metadata = isinstance(index.get("metadata"), dict)
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        shards, has_metadata = [], False
    if not shards or not has_metadata or not all(isinstance(shard, str) and _is_file_name(shard) for shard in shards):
        raise DataError(
            f"{path}: not an index of shards. It needs a mapping metadata, and a weight_map from each key to a file in the same"
            " folder. Save the weights again."
        )
    return shards


def _is_file_name(text: str) -> bool:
    return 0 < len(text.encode(errors="replace")) <= 255 and text.isprintable() and text == Path(text).name != ".."


def read_header(path: Path) -> dict[str, Weight]:
    """Returns the shapes and types of a safetensors file's weights, read from its header alone.

    Raises:
        DataError: if it is a Git LFS pointer or not a safetensors file, or if its length contradicts its header.
    """
    refuse_pointer(path)
    problem = f"{path}: not a safetensors file. Save the weights again, or get the file again."
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or not 2 <= length <= LARGEST_HEADER:
                raise DataError(problem)
            if length > size - 8:
                raise DataError(
                    f"{path}: {size:,} bytes, but its header alone takes {length:,}. The file is truncated. Get it again."
                )
            # Like safetensors itself, accept UTF-8 only, without a byte order mark.
            entries = dict(json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_read_unique_pairs))
        metadata = entries.pop("__metadata__", {})
        if not all(isinstance(value, str) for value in metadata.values()):
            raise DataError(problem)
        weights = {key: _read_entry(entry) for key, entry in entries.items()}
        end = _find_end([entry["data_offsets"] for entry in entries.values()])
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}). Give access to it.") from None
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError, IndexError):
        raise DataError(problem) from None
    if size != 8 + length + end:
        raise DataError(
            f"{path}: {size:,} bytes, but its header declares {8 + length + end:,}. The file is truncated or damaged."
            " Get it again."
        )
    return weights


def _read_entry(entry: Any) -> Weight:
    """Returns one weight of a header.

    Raises:
        ValueError: if its shape, type and offsets contradict each other.
    """
    shape, (start, end) = tuple(entry["shape"]), entry["data_offsets"]
    if len(shape) > MOST_DIMENSIONS or any(type(n) is not int or not 0 <= n < 2**63 for n in (*shape, start, end)):
        raise ValueError("not a shape")
    n_bytes = BYTES_PER_NUMBER.get(entry["dtype"])
    if n_bytes is not None and end - start != math.prod(shape) * n_bytes:
        raise ValueError("length and shape differ")
    return Weight(shape=shape, dtype=str(entry["dtype"]))


def _read_unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns a JSON object's pairs as a mapping.

    Raises:
        ValueError: if a key occurs twice: it is not clear which value is meant.
    """
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise ValueError("a key twice")
    return mapping


def _find_end(offsets: Iterable[list[int]]) -> int:
    """Returns where the data end.

    Raises:
        ValueError: if two weights share bytes, or bytes between them belong to no weight.
    """
    last = 0
    for start, end in sorted(map(tuple, offsets)):
        if start != last or end < start:
            raise ValueError("gap or overlap")
        last = end
    return last


def read_headers(files: Iterable[Path]) -> dict[str, Weight]:
    """Returns the shapes and types of the weights in several safetensors files.

    Raises:
        DataError: as ``read_header``; also if two files hold the same key.
    """
    weights: dict[str, Weight] = {}
    for path in files:
        weights = merge_weights(path, weights, read_header(path))
    return weights


def merge_weights(path: Path, weights: dict[str, Weight], more: dict[str, Weight]) -> dict[str, Weight]:
    """Returns the weights of earlier shards together with those of one more file.

    Raises:
        DataError: if the file repeats a key of an earlier shard.
    """
    shared = sorted(weights.keys() & more.keys())
    if shared:
        raise DataError(
            f"{path}: keys that another shard holds too: {len(shared)} ({show_first_keys(shared)}). Save the weights again."
        )
    return weights | more


# Comparing ----------------------------------------------------------------------------------------


def compare_weights(family: str, raw: Mapping[str, Any], weights: Mapping[str, Weight]) -> Differences:
    """Returns how weights differ from those that a config's body needs for its input layer and its network.

    Heads and poolers are not used, so they may be present or missing.
    """
    expected = list_weight_shapes(family, fill_config(family, raw))
    held: dict[str, Weight] = {}
    duplicate = []
    for key, weight in weights.items():
        name = publish_name(family, key)
        duplicate += [name] if name in held and name in expected else []
        held[name] = weight
    both = [name for name in expected if name in held]
    return Differences(
        missing=[name for name in expected if name not in held],
        unexpected=[name for name in held if name not in expected and is_needed(family, name)],
        misshaped=[
            f"{name} {held[name].shape} instead of {expected[name]}"
            for name in both
            if held[name].shape != expected[name]
        ],
        not_floats=[f"{name} {held[name].dtype}" for name in both if held[name].dtype not in FLOATS],
        duplicate=duplicate,
    )


def refuse_differences(
    where: object, family: str, raw: Mapping[str, Any], *, keys: Iterable[str], differences: Differences
) -> None:
    """Refuses weights that are not exactly those of the body that their config describes.

    Args:
        where: The beginning of the message.
        family: The body's family.
        raw: Its config.json.
        keys: All keys of the checkpoint, as written in the file; they decide the remedy.
        differences: What ``compare_weights`` returns.

    Raises:
        DataError: with the count and the first five keys of each kind of difference, and a remedy.
    """
    texts = differences.describe_kinds()
    if texts:
        expected = list_weight_shapes(family, fill_config(family, raw))
        remedy = _find_remedy(family, expected, list(keys))
        raise DataError(
            f"{where}: these weights do not fit the {family} body of its config.json: {'; '.join(texts)}. {remedy}"
        )


def _find_remedy(family: str, expected: Mapping[str, Any], keys: list[str]) -> str:
    names = {publish_name(family, key) for key in keys}
    if any(WRAPPERS.search(key) and publish_name(family, WRAPPERS.sub("", key)) in expected for key in keys):
        wrapper = next(match[0] for key in keys if (match := WRAPPERS.search(key)))
        return f"Keys contain {wrapper!r}: these weights were saved from a compiled or wrapped model. Save the inner model."
    shared = names & expected.keys()
    if not shared:
        prefix = _find_prefix(family, expected, keys)
        if prefix:
            return f"Keys begin with {prefix!r}: these weights were saved from a larger model. Save the inner model."
        shown = f" (first: {', '.join(map(_shorten_key, sorted(keys)[:2]))})" if keys else ""
        return f"None of its {len(keys)} keys{shown} belongs to a {family} body. Is this another model's file?"
    n_asked, n_held = count_layers(expected), count_layers(names)
    if n_asked != n_held:
        return f"config.json has {n_asked} layers, the weights have {n_held}. Use config and weights of the same model."
    return "Use config and weights of the same model, or save the whole model again with save_pretrained."


def _find_prefix(family: str, expected: Mapping[str, Any], keys: list[str]) -> str | None:
    """Returns the prefix of the body's keys; None if they have none."""
    for key in keys:
        parts = key.split(".")
        for i in range(1, len(parts)):
            if publish_name(family, ".".join(parts[i:])) in expected:
                return ".".join(parts[:i]) + "."
    return None


def check_weights(folder: Path, family: str, raw: Mapping[str, Any]) -> None:
    """Refuses a folder whose weights are not exactly those of the body that its config describes.

    Of a pickle, only missing files are noticed here; loading checks its content.

    Args:
        folder: Holds the weights.
        family: The body's family.
        raw: Its config.json, already checked.

    Raises:
        DataError: names the file and what is wrong with it.

    Cost: reads the headers of safetensors files, a few milliseconds.
    """
    if (folder / ADAPTER).is_file():
        raise DataError(
            f"{folder / ADAPTER}: the folder holds an adapter of another model. Merge it into the model"
            " (merge_and_unload) and save that."
        )
    if any(folder.glob("shard-*-model-*-of-*.safetensors")):
        raise DataError(
            f"{folder}: the folder holds a distributed checkpoint. Save the whole model with save_pretrained."
        )
    name = find_weights(folder)
    if name is None:
        raise DataError(f"{folder}: the folder has no {SAFE}. Save the weights there as safetensors.")
    files = list_weight_files(folder, name)
    if name in (SAFE, SAFE_INDEX):
        weights = read_headers(files)
        differences = compare_weights(family, raw, weights)
        refuse_differences(folder / name, family, raw, keys=weights, differences=differences)
