"""A user's own task by declaration: arrays in an .npz, .npy, HDF5 or Parquet file, and what they are."""

import hashlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial, reduce
from pathlib import Path
from typing import Any

import numpy as np

from orca_sweep.config.declaration import TaskDeclaration, is_task_text, parse_task
from orca_sweep.config.naming import label_of
from orca_sweep.data import (
    Conversion,
    Converted,
    File,
    Rows,
    Samples,
    Splits,
    Writer,
    check_finite,
    check_labels,
    first_place,
    first_value,
    hash_rows,
    missing_packages,
    read_npy,
    split_groups,
    split_random,
)
from orca_sweep.data.readers import BLOCK_BYTES, Stored
from orca_sweep.errors import DataError, InputError
from orca_sweep.registry import hint
from orca_sweep.tasks.losses import IGNORED, takes_gaps
from orca_sweep.tasks.own_files import (
    ENDINGS,
    HDF5,
    PARQUET,
    arrange,
    beside,
    channels_problem,
    find_array,
    group_shape,
    read_groups,
    shape_problem,
)
from orca_sweep.tasks.records import KINDS, Task
from orca_sweep.tasks.scaling import (
    FAR_MEAN,
    LARGE_SPREAD,
    SMALL_SPREAD,
    Moments,
    RoundingLoss,
    find_far_channels,
)

DEFAULTS = {
    "classification": ("cross-entropy", "error"),
    "multi-label": ("bce", "auroc-error"),
    "regression": ("mse", "mse"),
    "dense-regression": ("mse", "relative-l2"),
    "dense-classification": ("cross-entropy", "error"),
}
"""Loss and metric of a kind that names none."""
OWN_NORMALISE = "channel"
"""How inputs of a declaration that says nothing are normalised."""
LAYOUTS = ("channels-first", "channels-last")
LOOKED_BLOCKS = 4
"""So many blocks of each array (64 MiB) are looked at before a conversion."""


def declared_task(text: str) -> Task:
    """Returns the task that a text declares; no file is touched.

    Raises:
        InputError: with every mistake in it.
    """
    try:
        found = parse_task(text)
    except ValueError as error:
        raise InputError(f"task {text!r}: {error}.") from None
    if found.kind not in KINDS:
        raise InputError(f"task {label_of(text)!r}: there is no kind {found.kind!r}. {hint(found.kind, KINDS)}")
    problems = [f"task {label_of(text)!r}: {problem}" for problem in _mistakes(found)]
    if problems:
        raise InputError(problems)
    loss, metric = defaults(found)
    loss = found.loss or loss
    dims = len(found.sample_shape) - 1
    body, proxy = ("swin-micro", "mnist5k") if dims == 2 else ("roberta-micro", "pydoc-topics")
    paths = [found.path] if found.test is None else [found.path, found.test]
    if Path(found.path).suffix == ".npy":
        paths += [str(beside(path, name)) for path in paths for name in (found.target, found.group) if name]
    allow_nan = takes_gaps(loss)
    made_of = (found.path, found.test, found.input, found.target, found.group, found.kind, found.sample_shape,
               found.output_shape, allow_nan, found.layout == LAYOUTS[1])  # fmt: skip
    key = hashlib.sha256(repr(made_of).encode()).hexdigest()[:12]
    normalise: Any = found.normalise or OWN_NORMALISE
    stem = re.sub(r"[^\w.-]", "_", Path(found.path).stem)[:40]  # with the key and a lock's ending still a file's name
    return Task(
        name=label_of(text),
        declaration=text,
        dims=dims,
        sample_shape=found.sample_shape,
        kind=found.kind,  # type: ignore[arg-type]
        output_shape=found.output_shape,
        loss=loss,
        metric=found.metric or metric,
        load=partial(load_declared, found=found),
        convert=Conversion(f"{stem}-{key}", partial(convert_declared, found=found)),
        meaning=f"your own data in {found.path}",
        source="the user",
        licence="the user's",
        files=tuple(_file(path, found) for path in paths),
        packages=("h5py",) if Path(found.path).suffix in HDF5 else (),
        extra="benchmarks",
        normalise_inputs=normalise,
        preparation="in your file",
        normalise_targets="channel" if found.kind == "dense-regression" else "none",
        recipe={
            "body.name": body,
            "proxy": proxy,
            "embedder.epochs": 20,
            "embedder.proxy_samples": 1000,
            # ORCA's own predictor mixes the channels of an output.
            **({"predictor.dense": "linear"} if found.kind.startswith("dense") and found.output_shape[0] > 1 else {}),
        },
    )


def _file(path: str, found: TaskDeclaration) -> File:
    is_data = path in (found.path, found.test)
    look = partial(_look, found=found, path=path) if is_data else None
    return File(path, partial(_check, found=found, path=path), look)


def _mistakes(found: TaskDeclaration) -> Iterator[str]:
    ending = Path(found.path).suffix
    if ending not in ENDINGS:
        near = f" Rename it to end in {ending.lower()}." if ending.lower() in ENDINGS else ""
        near = " Save it as Parquet: pandas.read_csv(...).to_parquet(...)." if ending in (".csv", ".tsv") else near
        yield f"{found.path} is no kind of file that is read. {', '.join(ENDINGS)} are.{near}"
    if found.val_share + found.test_share >= 1:
        yield f"val_share {found.val_share} and test_share {found.test_share} leave nothing to train on."
    if found.test == found.path:
        yield "the test file is the training file. Leave test out, or name another file."
    elif found.test is not None and Path(found.test).suffix != ending:
        yield f"the test file {found.test} is of another kind than {found.path}. Save both as {ending or 'one kind'}."
    if found.layout not in (None, *LAYOUTS):
        yield f"there is no layout {found.layout!r}. {hint(str(found.layout), LAYOUTS)}"
    unlikely = channels_problem(found.sample_shape)
    if unlikely and found.layout is None:
        first = (found.sample_shape[-1], *found.sample_shape[:-1])
        yield (f"sample_shape {list(found.sample_shape)} means {unlikely}. Channels come first: write sample_shape"
               f" {list(first)} and layout: channels-last, or layout: channels-first if it is meant so.")  # fmt: skip
    if found.kind == "classification" and found.output_shape == (1,):
        yield "output_shape 1 is one class only: there is nothing to tell apart. Declare two classes or more."


def defaults(found: TaskDeclaration) -> tuple[str, str]:
    """Returns the loss and the metric of a declaration that names none."""
    if found.kind == "dense-classification" and found.output_shape[0] == 1:
        return "masked-bce", "point-auroc-error"
    loss, metric = DEFAULTS[found.kind]
    return loss, "mse" if takes_gaps(found.loss) else metric


def canonical(found: TaskDeclaration) -> TaskDeclaration:
    """Returns the one form of a declaration: files absolute, what is the default anyway left out."""
    found = found.absolute()
    if found.kind not in KINDS:
        return found
    loss, metric = defaults(found)
    found = replace(found, loss=None if found.loss == loss else found.loss)
    return replace(
        found,
        metric=None if found.metric == metric else found.metric,
        normalise=None if found.normalise == OWN_NORMALISE else found.normalise,
        layout=None if found.layout == LAYOUTS[0] and not channels_problem(found.sample_shape) else found.layout,
    )


def without_normalise(name: str) -> str:
    """Returns the name of a declared task without what it says of normalising; any other name stays."""
    return replace(parse_task(name), normalise=None).text if is_task_text(name) else name


# What headers and a look tell ---------------------------------------------------------------------


def find_declared_task_problems(name: str) -> list[str]:
    """Returns what is wrong with the user's own files of a declared task, as far as headers tell; of others nothing.

    Files that are not there are not missed here. Cost: a few milliseconds.
    """
    if not is_task_text(name):
        return []
    task = declared_task(name)
    problems: list[str] = []
    for file in () if missing_packages(name, task.packages, None) else task.files:
        if file.check is not None and Path(file.path).is_file():
            try:
                file.check(Path())
            except DataError as error:
                problems += error.problems
    return list(dict.fromkeys(problems))


def _check(root: Path, found: TaskDeclaration, path: str) -> str:
    """What a file holds by its headers.

    Raises:
        DataError: with all that headers tell to be wrong, one a line.
    """
    if path not in (found.path, found.test):
        return f"{read_npy(Path(path)).shape}"
    task, arrays, problems = declared_task(found.text), {}, []
    for name in ("input", "target"):
        try:
            arrays[name] = _checked(Path(path), found, name, task)
        except DataError as error:
            problems.append(str(error))
    lengths = {name: array.shape[0] for name, array in arrays.items()}
    if found.group:
        try:
            lengths["group"] = (group_shape(Path(path), found.group)[0] or (0,))[0]
        except DataError as error:
            problems.append(str(error))
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        problems.append(f"{path}: " + ", ".join(f"{n} rows of {name}" for name, n in lengths.items())
                        + ". Every sample needs all of them, and there must be some.")  # fmt: skip
    if problems:
        raise DataError(*problems)
    return "; ".join(f"{name} {array.shape} {array.dtype}" for name, array in arrays.items())


def _checked(path: Path, found: TaskDeclaration, name: str, task: Task) -> Stored:
    """The array, if its type and shape are those declared."""
    stored = find_array(path, found, name)
    where = f"{path}: {name}"
    if stored.shape[:1] == (0,):
        return stored  # that there are no samples is said of all arrays at once
    if stored.dtype.kind in "USO":
        raise DataError(f"{where} holds text ({stored.dtype}). Real numbers were expected. Number the classes from 0, as"
                        " np.unique(array, return_inverse=True)[1] does.")  # fmt: skip
    if stored.dtype.kind not in "biuf":
        raise DataError(f"{where} holds {stored.dtype}. Real numbers were expected. Save it as numbers.")
    problem = shape_problem(stored, _shape_of(task, name), _is_last(found, task, name), path.suffix in PARQUET)
    if problem:
        raise DataError(f"{where}: {problem}")
    return stored


def _shape_of(task: Task, name: str) -> tuple[int, ...]:
    return task.sample_shape if name == "input" else task.target_shape


def _is_last(found: TaskDeclaration, task: Task, name: str) -> bool:
    """Whether the array has its channels last: targets with an axis of channels follow the layout, too."""
    has_channels = name == "input" or (task.is_dense and not task.has_labels)
    return found.layout == LAYOUTS[1] and has_channels


def _look(root: Path, found: TaskDeclaration, path: str) -> str:
    """Says how many rows were looked at: all of a file below 64 MiB, else the first.

    Raises:
        DataError: as the conversion would.
    """
    task, n_rows = declared_task(found.text), []
    labels: set[int] = set()
    inputs: list[Moments] = []
    for name in ("input", "target"):
        blocks = itertools.islice(_typed_blocks(Path(path), found, name, task), LOOKED_BLOCKS)
        n_rows.append(0)
        for block in blocks:
            n_rows[-1] += len(block)
            if name == "target" and task.kind == "classification":
                labels.update(np.unique(block).tolist())
            elif name == "input" and len(block):
                inputs.append(Moments.of_block(block))
    n = find_array(Path(path), found, "input").shape[0]
    missing = sorted(set(range(task.output_shape[0])) - labels) if task.kind == "classification" else []
    if missing and n_rows[1] == n and path == found.path:
        raise DataError(f"{path}: target holds no label {', '.join(map(str, missing[:10]))}, but {task.output_shape[0]}"
                        " classes were declared. A class without samples cannot be learned.")  # fmt: skip
    if found.group:
        read_groups(Path(path), found.group, n)
    scale = f"; input {reduce(Moments.join, inputs).text}" if inputs else ""
    return f"values looked at in {min(n_rows)} rows{scale}"


def describe_raw_inputs(name: str, normalise: str | None) -> str | None:
    """Returns a warning if inputs of a declared task stay as they are and are far from zero mean and unit spread.

    None if they are not, are normalised, are one-hot, or cannot be read here. Cost: the first 16 MiB of the inputs.
    """
    if normalise != "none" or not is_task_text(name):
        return None
    task = declared_task(name)
    found = parse_task(name)
    path = Path(found.path)
    if not path.is_file() or missing_packages(name, task.packages, None):
        return None
    try:
        block = next(_typed_blocks(path, found, "input", task), None)
        n = find_array(path, found, "input").shape[0]
    except DataError:
        return None  # said elsewhere
    if block is None or not len(block):
        return None
    moments = Moments.of_block(block)
    far = find_far_channels(moments)
    if moments.is_one_hot or not far:
        return None
    of = f"the first {len(block)} of {n}" if len(block) < n else f"all {n}"
    return (
        f"{label_of(name)}: data.normalise is none, and raw inputs are far from zero mean and unit spread in {len(far)} of"
        f" {len(moments.mean)} channels ({moments.text}, {of} samples; far is a mean beyond {FAR_MEAN:g} either way, or a"
        f" spread below {SMALL_SPREAD:g} or above {LARGE_SPREAD:g}). Alignment and pre-training can seem to help only because"
        " they repair the scale. Leave data.normalise out, or compare with channel."
    )


# Conversion ---------------------------------------------------------------------------------------


def convert_declared(root: Path, writer: Writer, found: TaskDeclaration) -> None:
    """Inputs as float32 in the declared shape, targets as they are, groups as numbers; test rows come last.

    ``content`` numbers the samples by what they hold: equal ones have one number.
    """
    task = declared_task(found.text)
    paths = [Path(found.path)] if found.test is None else [Path(found.path), Path(found.test)]
    groups, hashes = [], []
    for path in paths:
        _check(root, found, str(path))
        parts: dict[str, list[np.ndarray]] = {"input": [], "target": []}
        for name, part in parts.items():
            for rows in _typed_blocks(path, found, name, task):
                writer.append(name, rows, path, allow_nan=name == "target" and takes_gaps(task.loss))
                part.append(hash_rows(rows))
        hashes.append(hash_rows(np.stack([np.concatenate(part) for part in parts.values()], axis=1)))
        n = len(hashes[-1])
        writer.append("rows", np.array([n]))
        groups += [read_groups(path, found.group, n)] if found.group else []
    if len(paths) > 1:
        _refuse_shared(paths, hashes)
    writer.append("content", np.unique(np.concatenate(hashes), return_inverse=True)[1].astype(np.int64))
    if groups:
        shared = np.intersect1d(groups[0], groups[1]) if len(groups) > 1 else np.zeros(0)
        if len(shared):
            raise DataError(f"{paths[1]}: group {str(shared[0])!r} is in training and in test. Take it out of one.")
        writer.append("group", np.unique(np.concatenate(groups), return_inverse=True)[1].astype(np.int64))


def _refuse_shared(paths: list[Path], hashes: list[np.ndarray]) -> None:
    shared = np.isin(hashes[1], hashes[0])
    if shared.any():
        row = int(np.argmax(shared))
        twin = int(np.argmax(hashes[0] == hashes[1][row]))
        raise DataError(
            f"{paths[1]}: {int(shared.sum())} of its {len(shared)} samples are in {paths[0]} too (row {row} is row {twin}"
            " there). A test sample may not be trained on. Take it out of one."
        )


def _typed_blocks(path: Path, found: TaskDeclaration, name: str, task: Task) -> Iterator[np.ndarray]:
    """The rows of an array in the declared shape, as they are trained on: labels as int64, numbers as float32."""
    stored, shape, is_last = _checked(path, found, name, task), _shape_of(task, name), _is_last(found, task, name)
    where, first_row, loss = f"{path}: {name}", 0, RoundingLoss()
    for block in stored.blocks():
        rows = arrange(block, shape, is_last)
        typed = _typed(rows, where, name == "target", task, first_row)
        if name == "input":
            loss.add(rows, typed)
        yield typed
        first_row += len(rows)
    loss.check(where)


def _typed(rows: np.ndarray, where: str, is_target: bool, task: Task, first_row: int) -> np.ndarray:
    if is_target and task.kind == "classification":
        return check_labels(rows, where, len(rows), 0, task.output_shape[0], first_row=first_row)
    if is_target and task.has_labels:
        return _point_labels(rows, where, task.output_shape[0], first_row)
    check_finite(rows, where, is_target and takes_gaps(task.loss), first_row)
    if is_target and task.kind in ("multi-label", "dense-classification"):
        wrong = (rows != 0) & (rows != 1) & ~np.isnan(rows.astype(np.float64))
        if wrong.any():
            raise DataError(f"{where} holds {first_value(rows, wrong)} in {first_place(wrong, first_row)}. Targets of this"
                            " kind are 0 or 1. Is it the right file?")  # fmt: skip
    with np.errstate(over="ignore"):
        small = rows.astype(np.float32)
    lost = np.isinf(small) & ~np.isinf(rows)
    if lost.any():
        raise DataError(f"{where} holds {first_value(rows, lost)} in {first_place(lost, first_row)}, more than float32"
                        " holds (3.4e38). Use a larger unit.")  # fmt: skip
    return small


def _point_labels(rows: np.ndarray, where: str, n_classes: int, first_row: int) -> np.ndarray:
    wrong = (rows != np.floor(rows)) | (rows < IGNORED) | (rows >= n_classes)
    if wrong.any():
        raise DataError(
            f"{where}: holds the label {first_value(rows, wrong)} in {first_place(wrong, first_row)}. Labels are whole"
            f" numbers from 0 to {n_classes - 1}, or {IGNORED} where a point does not count."
        )
    return rows.astype(np.int64)


def load_declared(data: Converted, split_seed: int, found: TaskDeclaration) -> Splits:
    """Returns seeded splits: stratified by label, whole groups together, or the declared test file as test.

    Equal samples (input and target) are in one split; so are groups that share one.
    """
    task = declared_task(found.text)
    target = data["target"]
    small = target.ndim == 1 or target.nbytes <= BLOCK_BYTES
    y = np.asarray(target) if small or task.has_labels else Rows.of(target, data.digest("target"))
    whole = Samples(Rows.of(data["input"], data.digest("input")), y)
    rows = np.asarray(data["rows"])
    n = int(rows[0])
    labels = np.asarray(target[:n]) if task.kind == "classification" else None
    shares = (found.val_share, 0.0 if found.test else found.test_share)
    content = np.asarray(data["content"][:n])
    if found.group:
        groups = _joined(np.asarray(data["group"][:n]), content, found)
        n_groups = len(np.unique(groups))
        parts = split_groups(groups, _count(shares[0], n_groups), _count(shares[1], n_groups), split_seed)
    else:
        parts = _split_contents(content, labels, shares, split_seed)
    train, val, test = parts
    if found.test:
        test = np.arange(n, int(rows.sum()))
    return Splits(*(whole.take(part) for part in (train, val, test)))


def _split_contents(
    content: np.ndarray, labels: np.ndarray | None, shares: tuple[float, float], split_seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Index arrays (train, val, test); shares are of the different samples, and copies (N,) follow the first of them."""
    _, first, copy_of = np.unique(content, return_index=True, return_inverse=True)
    # Without copies each sample stays itself, in its own order.
    first, copy_of = (np.arange(len(content)),) * 2 if len(first) == len(content) else (first, copy_of)
    n = len(first)
    drawn = split_random(
        n, _count(shares[0], n), _count(shares[1], n), split_seed, None if labels is None else labels[first]
    )
    train, val, test = (np.flatnonzero(np.isin(copy_of, part)) for part in drawn)
    return train, val, test


def _joined(groups: np.ndarray, content: np.ndarray, found: TaskDeclaration) -> np.ndarray:
    """Groups (N,) in which those that share a sample are one.

    Raises:
        DataError: if fewer than three are left where there were three.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    names, of = np.unique(groups, return_inverse=True)
    _, what = np.unique(content, return_inverse=True)
    n_groups, size = len(names), len(names) + int(what.max()) + 1
    links = coo_matrix((np.ones(len(of)), (of, n_groups + what)), shape=(size, size))
    _, parts = connected_components(links, directed=False)
    joined = parts[of]
    n_left, n_needed = len(np.unique(joined)), 2 if found.test else 3
    if n_left < n_needed <= n_groups:
        n_shared = n_groups - n_left
        raise DataError(
            f"{found.path}: groups {found.group!r} share equal samples, so that {n_shared} of {n_groups} cannot be parted"
            f" and {n_left} are left for {n_needed} splits. No sample may be in two splits. Take the copies out."
        )
    return groups if n_left == n_groups else joined


def _count(share: float, n: int) -> int:
    return max(1, round(share * n)) if share else 0
