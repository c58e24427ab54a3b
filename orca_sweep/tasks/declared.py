"""A task that the user declares: names of arrays in an .npz, .npy, HDF5 or Parquet file, and what they mean."""

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
    ConvertedArrays,
    File,
    Rows,
    Samples,
    Splits,
    Writer,
    hash_each_row,
    missing_packages,
    read_npy,
    split_groups,
    split_random,
)
from orca_sweep.data.readers import BLOCK_BYTES
from orca_sweep.errors import DataError, InputError
from orca_sweep.registry import hint
from orca_sweep.tasks.declared_blocks import LAYOUTS, open_declared_array, read_typed_blocks
from orca_sweep.tasks.losses import takes_gaps
from orca_sweep.tasks.own_files import (
    ENDINGS,
    HDF5,
    explain_unlikely_channels,
    find_array,
    path_beside,
    read_group_shape,
    read_groups,
)
from orca_sweep.tasks.records import KINDS, Task
from orca_sweep.tasks.scaling import (
    FAR_MEAN,
    LARGE_SPREAD,
    SMALL_SPREAD,
    Moments,
    find_far_channels,
)

DEFAULTS = {
    "classification": ("cross-entropy", "error"),
    "multi-label": ("bce", "auroc-error"),
    "regression": ("mse", "mse"),
    "dense-regression": ("mse", "relative-l2"),
    "dense-classification": ("cross-entropy", "error"),
}
"""Loss and metric by kind, for declarations that name none."""
OWN_NORMALISE = "channel"
"""How inputs are normalised unless the declaration says otherwise."""
LOOKED_BLOCKS = 4
"""The number of blocks of each array (64 MiB together) that a check reads before a conversion."""


def make_declared_task(text: str) -> Task:
    """Returns the task that a text declares, without touching any file.

    Raises:
        InputError: with every mistake in the declaration.
    """
    declaration = _parse_declaration(text)
    loss, metric = choose_defaults(declaration)
    normalise: Any = declaration.normalise or OWN_NORMALISE
    return Task(
        name=label_of(text),
        declaration=text,
        dims=len(declaration.sample_shape) - 1,
        sample_shape=declaration.sample_shape,
        kind=declaration.kind,  # type: ignore[arg-type]
        output_shape=declaration.output_shape,
        loss=declaration.loss or loss,
        metric=declaration.metric or metric,
        load=partial(load_declared, declaration=declaration),
        convert=Conversion(name=_name_conversion(declaration), run=partial(convert_declared, declaration=declaration)),
        meaning=f"your own data in {declaration.path}",
        source="the user",
        licence="the user's",
        files=tuple(_describe_file(path, declaration) for path in _list_paths(declaration)),
        packages=("h5py",) if Path(declaration.path).suffix in HDF5 else (),
        extra="benchmarks",
        normalise_inputs=normalise,
        preparation="in your file",
        normalise_targets="channel" if declaration.kind == "dense-regression" else "none",
        recipe=_make_recipe(declaration),
    )


def _parse_declaration(text: str) -> TaskDeclaration:
    try:
        declaration = parse_task(text)
    except ValueError as error:
        raise InputError(f"task {text!r}: {error}.") from None
    if declaration.kind not in KINDS:
        raise InputError(
            f"task {label_of(text)!r}: there is no kind {declaration.kind!r}. {hint(declaration.kind, KINDS)}"
        )
    problems = [f"task {label_of(text)!r}: {problem}" for problem in _find_mistakes(declaration)]
    if problems:
        raise InputError(problems)
    return declaration


def _list_data_paths(declaration: TaskDeclaration) -> list[str]:
    return [declaration.path] if declaration.test is None else [declaration.path, declaration.test]


def _list_paths(declaration: TaskDeclaration) -> list[str]:
    """Returns all files of a declaration: the data, and the .npy files beside them that hold targets and groups."""
    paths = _list_data_paths(declaration)
    names = (declaration.target, declaration.group) if Path(declaration.path).suffix == ".npy" else ()
    return paths + [str(path_beside(path, name)) for path in paths for name in names if name]


def _name_conversion(declaration: TaskDeclaration) -> str:
    """Returns a name for the folder of arrays, with a hash of everything in the declaration that changes the arrays."""
    allow_nan = takes_gaps(declaration.loss or choose_defaults(declaration)[0])
    made_of = (
        *(declaration.path, declaration.test, declaration.input, declaration.target, declaration.group),
        *(declaration.kind, declaration.sample_shape, declaration.output_shape),
        *(allow_nan, declaration.layout == LAYOUTS[1]),
    )
    key = hashlib.sha256(repr(made_of).encode()).hexdigest()[:12]
    # 40 characters, so that a file's name has room for the key and a lock's ending.
    stem = re.sub(r"[^\w.-]", "_", Path(declaration.path).stem)[:40]
    return f"{stem}-{key}"


def _make_recipe(declaration: TaskDeclaration) -> dict[str, Any]:
    is_image = len(declaration.sample_shape) == 3
    body, proxy = ("swin-micro", "mnist5k") if is_image else ("roberta-micro", "pydoc-topics")
    recipe: dict[str, Any] = {"body.name": body, "proxy": proxy, "embedder.epochs": 20, "embedder.proxy_samples": 1000}
    if declaration.kind.startswith("dense") and declaration.output_shape[0] > 1:
        recipe["predictor.dense"] = "linear"  # ORCA's own predictor mixes the channels of an output
    return recipe


def _describe_file(path: str, declaration: TaskDeclaration) -> File:
    is_data = path in (declaration.path, declaration.test)
    look = partial(_look_at_values, declaration=declaration, path=path) if is_data else None
    return File(path=path, check=partial(_check_headers, declaration=declaration, path=path), look=look)


def _find_mistakes(declaration: TaskDeclaration) -> Iterator[str]:
    ending = Path(declaration.path).suffix
    if ending not in ENDINGS:
        near = f" Rename it to end in {ending.lower()}." if ending.lower() in ENDINGS else ""
        near = " Save it as Parquet: pandas.read_csv(...).to_parquet(...)." if ending in (".csv", ".tsv") else near
        yield f"{declaration.path} is not a kind of file that can be read: {', '.join(ENDINGS)} are.{near}"
    if declaration.val_share + declaration.test_share >= 1:
        yield f"val_share {declaration.val_share} and test_share {declaration.test_share} leave nothing to train on."
    if declaration.test == declaration.path:
        yield "the test file is the training file. Leave test out, or name another file."
    elif declaration.test is not None and Path(declaration.test).suffix != ending:
        yield f"the test file {declaration.test} is of another kind than {declaration.path}. Save both as {ending or 'one kind'}."
    if declaration.layout not in (None, *LAYOUTS):
        yield f"there is no layout {declaration.layout!r}. {hint(str(declaration.layout), LAYOUTS)}"
    unlikely = explain_unlikely_channels(declaration.sample_shape)
    if unlikely and declaration.layout is None:
        first = (declaration.sample_shape[-1], *declaration.sample_shape[:-1])
        yield (f"sample_shape {list(declaration.sample_shape)} means {unlikely}. Channels come first: write sample_shape"
               f" {list(first)} and layout: channels-last, or layout: channels-first if you mean it.")  # fmt: skip
    if declaration.kind == "classification" and declaration.output_shape == (1,):
        yield "output_shape 1 is a single class, so there is nothing to distinguish. Declare at least two classes."


def choose_defaults(declaration: TaskDeclaration) -> tuple[str, str]:
    """Returns the loss and the metric of declarations that name none."""
    if declaration.kind == "dense-classification" and declaration.output_shape[0] == 1:
        return "masked-bce", "point-auroc-error"
    loss, metric = DEFAULTS[declaration.kind]
    return loss, "mse" if takes_gaps(declaration.loss) else metric


def canonicalise(declaration: TaskDeclaration) -> TaskDeclaration:
    """Returns the canonical form of a declaration: absolute paths, and no field that only repeats its default."""
    declaration = declaration.absolute()
    if declaration.kind not in KINDS:
        return declaration
    loss, metric = choose_defaults(declaration)
    declaration = replace(declaration, loss=None if declaration.loss == loss else declaration.loss)
    return replace(
        declaration,
        metric=None if declaration.metric == metric else declaration.metric,
        normalise=None if declaration.normalise == OWN_NORMALISE else declaration.normalise,
        layout=None
        if declaration.layout == LAYOUTS[0] and not explain_unlikely_channels(declaration.sample_shape)
        else declaration.layout,
    )


def drop_normalise(name: str) -> str:
    """Returns the name of a declared task without its ``normalise`` field; other names stay as they are."""
    return replace(parse_task(name), normalise=None).text if is_task_text(name) else name


# Checks of the files ------------------------------------------------------------------------------


def find_declared_task_problems(name: str) -> list[str]:
    """Returns the problems that headers show in the files of a declared task; none for other tasks.

    Missing files are not reported here. Cost: a few milliseconds.
    """
    if not is_task_text(name):
        return []
    task = make_declared_task(name)
    problems: list[str] = []
    for file in () if missing_packages(name, task.packages, None) else task.files:
        if file.check is not None and Path(file.path).is_file():
            try:
                file.check(Path())
            except DataError as error:
                problems += error.problems
    return list(dict.fromkeys(problems))


def _check_headers(root: Path, declaration: TaskDeclaration, path: str) -> str:
    """Returns what a file holds according to its headers.

    Raises:
        DataError: with every problem that the headers show, one per line.
    """
    if path not in (declaration.path, declaration.test):
        return f"{read_npy(Path(path)).shape}"
    task, arrays, problems = make_declared_task(declaration.text), {}, []
    for name in ("input", "target"):
        try:
            arrays[name] = open_declared_array(Path(path), declaration, name, task)
        except DataError as error:
            problems.append(str(error))
    lengths = {name: array.shape[0] for name, array in arrays.items()}
    if declaration.group:
        try:
            lengths["group"] = (read_group_shape(Path(path), declaration.group)[0] or (0,))[0]
        except DataError as error:
            problems.append(str(error))
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        problems.append(f"{path}: " + ", ".join(f"{n} rows of {name}" for name, n in lengths.items())
                        + ". Every sample needs all of them, and there must be samples.")  # fmt: skip
    if problems:
        raise DataError(*problems)
    return "; ".join(f"{name} {array.shape} {array.dtype}" for name, array in arrays.items())


def _look_at_values(root: Path, declaration: TaskDeclaration, path: str) -> str:
    """Returns how many rows were checked, as text: all rows of a file below 64 MiB, else the first ones.

    Raises:
        DataError: as the conversion would.
    """
    task, n_rows = make_declared_task(declaration.text), []
    labels: set[int] = set()
    inputs: list[Moments] = []
    for name in ("input", "target"):
        blocks = itertools.islice(read_typed_blocks(Path(path), declaration, name, task), LOOKED_BLOCKS)
        n_rows.append(0)
        for block in blocks:
            n_rows[-1] += len(block)
            if name == "target" and task.kind == "classification":
                labels.update(np.unique(block).tolist())
            elif name == "input" and len(block):
                inputs.append(Moments.of_block(block))
    n = find_array(Path(path), declaration, "input").shape[0]
    missing = sorted(set(range(task.output_shape[0])) - labels) if task.kind == "classification" else []
    if missing and n_rows[1] == n and path == declaration.path:
        raise DataError(f"{path}: target holds no label {', '.join(map(str, missing[:10]))}, but {task.output_shape[0]}"
                        " classes were declared. A class without samples cannot be learned.")  # fmt: skip
    if declaration.group:
        read_groups(Path(path), declaration.group, n)
    scale = f"; input {reduce(Moments.join, inputs).text}" if inputs else ""
    return f"values looked at in {min(n_rows)} rows{scale}"


def describe_raw_inputs(name: str, normalise: str | None) -> str | None:
    """Returns a warning if the inputs of a declared task are not normalised and far from zero mean and unit spread.

    None if they are close to that, one-hot, or cannot be read here. Cost: reads the first 16 MiB of the inputs.
    """
    if normalise != "none" or not is_task_text(name):
        return None
    task = make_declared_task(name)
    declaration = parse_task(name)
    path = Path(declaration.path)
    if not path.is_file() or missing_packages(name, task.packages, None):
        return None
    try:
        block = next(read_typed_blocks(path, declaration, "input", task), None)
        n = find_array(path, declaration, "input").shape[0]
    except DataError:
        return None  # other checks report it
    if block is None or not len(block):
        return None
    moments = Moments.of_block(block)
    far = find_far_channels(moments)
    if moments.is_one_hot or not far:
        return None
    of = f"the first {len(block)} of {n}" if len(block) < n else f"all {n}"
    return (
        f"{label_of(name)}: data.normalise is none, and raw inputs are far from zero mean and unit spread in {len(far)} of"
        f" {len(moments.mean)} channels ({moments.text}, {of} samples; far means a mean beyond {FAR_MEAN:g} either way, or a"
        f" spread below {SMALL_SPREAD:g} or above {LARGE_SPREAD:g}). Alignment and pre-training can seem to help only because"
        " they repair the scale. Leave data.normalise out, or compare with channel."
    )


# Conversion ---------------------------------------------------------------------------------------


def convert_declared(root: Path, writer: Writer, declaration: TaskDeclaration) -> None:
    """Writes inputs as float32 in the declared shape, targets unchanged, and groups as numbers; test rows come last.

    The array ``content`` numbers the samples by content: equal samples have equal numbers.
    """
    task = make_declared_task(declaration.text)
    paths = [Path(path) for path in _list_data_paths(declaration)]
    groups, hashes = [], []
    for path in paths:
        _check_headers(root, declaration, str(path))
        parts: dict[str, list[np.ndarray]] = {"input": [], "target": []}
        for name, part in parts.items():
            for rows in read_typed_blocks(path, declaration, name, task):
                writer.append(name, rows, path, allow_nan=name == "target" and takes_gaps(task.loss))
                part.append(hash_each_row(rows))
        hashes.append(hash_each_row(np.stack([np.concatenate(part) for part in parts.values()], axis=1)))
        n = len(hashes[-1])
        writer.append("rows", np.array([n]))
        groups += [read_groups(path, declaration.group, n)] if declaration.group else []
    if len(paths) > 1:
        _refuse_shared(paths, hashes)
    writer.append("content", np.unique(np.concatenate(hashes), return_inverse=True)[1].astype(np.int64))
    if groups:
        shared = np.intersect1d(groups[0], groups[1]) if len(groups) > 1 else np.zeros(0)
        if len(shared):
            raise DataError(f"{paths[1]}: group {str(shared[0])!r} is in training and in test. Remove it from one.")
        writer.append("group", np.unique(np.concatenate(groups), return_inverse=True)[1].astype(np.int64))


def _refuse_shared(paths: list[Path], hashes: list[np.ndarray]) -> None:
    shared = np.isin(hashes[1], hashes[0])
    if shared.any():
        row = int(np.argmax(shared))
        twin = int(np.argmax(hashes[0] == hashes[1][row]))
        raise DataError(
            f"{paths[1]}: {int(shared.sum())} of its {len(shared)} samples are in {paths[0]} too (row {row} is row {twin}"
            " there). A test sample may not be trained on. Remove it from one."
        )


def load_declared(data: ConvertedArrays, split_seed: int, declaration: TaskDeclaration) -> Splits:
    """Returns seeded splits, stratified by label or with each group in one split; a declared test file is the test split.

    Equal samples (input and target) stay in one split, and so do groups that share a sample.
    """
    task = make_declared_task(declaration.text)
    target = data["target"]
    small = target.ndim == 1 or target.nbytes <= BLOCK_BYTES
    y = np.asarray(target) if small or task.has_labels else Rows.from_array(target, data.digest_of("target"))
    whole = Samples(Rows.from_array(data["input"], data.digest_of("input")), y)
    rows = np.asarray(data["rows"])
    n = int(rows[0])
    labels = np.asarray(target[:n]) if task.kind == "classification" else None
    shares = (declaration.val_share, 0.0 if declaration.test else declaration.test_share)
    content = np.asarray(data["content"][:n])
    if declaration.group:
        groups = _join_groups(np.asarray(data["group"][:n]), content, declaration)
        n_groups = len(np.unique(groups))
        parts = split_groups(groups, _count_share(shares[0], n_groups), _count_share(shares[1], n_groups), split_seed)
    else:
        parts = _split_contents(content, labels, shares, split_seed)
    train, val, test = parts
    if declaration.test:
        test = np.arange(n, int(rows.sum()))
    return Splits(*(whole.take(part) for part in (train, val, test)))


def _split_contents(
    content: np.ndarray, labels: np.ndarray | None, shares: tuple[float, float], split_seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns index arrays (train, val, test). Shares count distinct samples; copies of a sample go where it goes."""
    _, first, copy_of = np.unique(content, return_index=True, return_inverse=True)
    # Without copies, keep the samples in their own order instead of the order of their contents.
    first, copy_of = (np.arange(len(content)),) * 2 if len(first) == len(content) else (first, copy_of)
    n = len(first)
    n_val, n_test = (_count_share(share, n) for share in shares)
    drawn = split_random(n, n_val, n_test, split_seed, labels=None if labels is None else labels[first])
    train, val, test = (np.flatnonzero(np.isin(copy_of, part)) for part in drawn)
    return train, val, test


def _join_groups(groups: np.ndarray, content: np.ndarray, declaration: TaskDeclaration) -> np.ndarray:
    """Returns groups (N,) in which groups that share a sample are merged.

    Raises:
        DataError: if too few groups are left for the splits, although there were enough before.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    names, of = np.unique(groups, return_inverse=True)
    _, what = np.unique(content, return_inverse=True)
    n_groups, size = len(names), len(names) + int(what.max()) + 1
    links = coo_matrix((np.ones(len(of)), (of, n_groups + what)), shape=(size, size))
    _, parts = connected_components(links, directed=False)
    joined = parts[of]
    n_left, n_needed = len(np.unique(joined)), 2 if declaration.test else 3
    if n_left < n_needed <= n_groups:
        n_shared = n_groups - n_left
        raise DataError(
            f"{declaration.path}: groups {declaration.group!r} share equal samples: {n_shared} of {n_groups} cannot be"
            f" separated, and {n_left} are left for {n_needed} splits. No sample may be in two splits. Remove the copies."
        )
    return groups if n_left == n_groups else joined


def _count_share(share: float, n: int) -> int:
    return max(1, round(share * n)) if share else 0
