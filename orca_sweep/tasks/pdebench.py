"""PDEBench's tasks of the ORCA paper: one jump from the first to the last time step (Takamoto et al. 2022).

Files are the benchmark's own. A sample is a simulation, so splitting samples splits simulations. The split seed draws
validation from training; it has as many simulations as the test set.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from orca_sweep.config import Normalise
from orca_sweep.data import (
    Conversion,
    ConvertedArrays,
    File,
    Rows,
    Samples,
    Splits,
    Writer,
    check_shape,
    split_random,
)
from orca_sweep.data.hdf5 import get_hdf5_dataset, open_hdf5
from orca_sweep.errors import DataError
from orca_sweep.tasks.recipes import Released, make_recipe
from orca_sweep.tasks.records import Task

SOURCE = "PDEBench (Takamoto et al. 2022, arXiv 2210.07182); settings of Shen et al. 2023 as released"
ADDRESS = "https://darus.uni-stuttgart.de/api/access/datafile/"
BLOCK_SIMULATIONS = 64
"""Simulations read at a time."""


@dataclass(frozen=True, kw_only=True)
class _Pde:
    """One equation's file, and which of its numbers a task uses."""

    file: str
    number: int
    """The file's number in the DaRUS repository."""
    md5: str
    shape: tuple[int, ...]
    """(C, L) or (C, H, W) of inputs and targets."""
    layout: Literal["fields", "darcy", "groups"] = "fields"
    """How the file stores simulations; a conversion and a check read each layout."""
    fields: tuple[str, ...] = ("tensor",)
    """The data sets of the layout ``fields``."""
    field: int | None = None
    """The one field that the task uses; None = all."""
    stride: int = 1
    """Every ``stride``-th grid point is used."""
    time_stride: int = 1
    steps: int = 10**6
    """The target is this time step, counted after ``time_stride``; the last one if there are fewer."""
    test_first: bool = True
    """Whether the test set is the first tenth of the simulations, or the last."""

    @property
    def grid(self) -> tuple[int, ...]:
        """(L,) or (H, W) of one field."""
        is_1d = len(self.shape) == 2
        # A 1D task's fields lie end to end in one channel.
        return (self.shape[1] // len(self.fields),) if is_1d else self.shape[1:]

    def find_target_step(self, n_times: int) -> int:
        """Returns the time step that is the target."""
        n_kept = -(-n_times // self.time_stride)
        return (min(self.steps, n_kept) - 1) * self.time_stride

    def split_simulations(self, n: int, split_seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the indices of training, validation and test.

        Raises:
            DataError: if there are too few simulations.
        """
        n_test = n // 10 if self.test_first else n - int(n * 0.9)
        if not n_test:
            raise DataError(f"{self.file}: {n} simulations; a tenth of them is the test set. Get the whole file.")
        test = np.arange(n)[:n_test] if self.test_first else np.arange(n)[n - n_test :]
        rest = np.setdiff1d(np.arange(n), test)
        train, val, _ = split_random(len(rest), n_val=n_test, n_test=0, seed=split_seed)
        return rest[train], rest[val], test


# Conversions --------------------------------------------------------------------------------------


def convert_fields(root: Path, writer: Writer, pde: _Pde) -> None:
    """Writes first and last states (N, fields, *grid) of data sets (N, T, *space)."""
    path = root / pde.file
    with open_hdf5(path) as file:
        sets = [get_hdf5_dataset(file, path, name) for name in pde.fields]
        for name, data in zip(pde.fields, sets, strict=True):
            _check_field(f"{path}: {name}", data, sets[0], len(pde.grid))
        n, n_times = sets[0].shape[:2]
        _check_not_empty(path, n)
        _check_grid(path, sets[0].shape[2:], pde)
        space = (slice(None, None, pde.stride),) * len(pde.grid)
        for i in range(0, n, BLOCK_SIMULATIONS):
            for array, step in (("x", 0), ("y", pde.find_target_step(n_times))):
                block = [np.asarray(data[(slice(i, i + BLOCK_SIMULATIONS), step, *space)], np.float32) for data in sets]
                writer.append(array, np.stack(block, axis=1), path)
            writer.report(min(i + BLOCK_SIMULATIONS, n), n)


def _check_field(where: str, data: Any, first: Any, dims: int) -> None:
    check_shape(where, data.shape, data.dtype, (None,) * (2 + dims))
    if data.shape != first.shape:
        raise DataError(f"{where}: shape {data.shape}, but another field has {first.shape}. Get the file again.")


def _check_not_empty(where: object, n: int) -> None:
    if not n:
        raise DataError(f"{where}: no simulations in it. Get the file again.")


def _check_grid(where: object, points: tuple[int, ...], pde: _Pde) -> None:
    """Refuses a file whose grid, after thinning, is not the task's."""
    grid = tuple(-(-n // pde.stride) for n in points)
    if grid != pde.grid:
        raise DataError(f"{where}: a grid of {grid} after thinning. {pde.grid} was expected. Is it the right file?")


def convert_darcy(root: Path, writer: Writer, pde: _Pde) -> None:
    """Writes viscosity nu (N, X, Y) and solution tensor (N, 1, X, Y) as (N, 1, *grid) each."""
    path = root / pde.file
    with open_hdf5(path) as file:
        nu, solution = (get_hdf5_dataset(file, path, name) for name in ("nu", "tensor"))
        check_shape(f"{path}: nu", nu.shape, nu.dtype, (None, None, None))
        check_shape(f"{path}: tensor", solution.shape, solution.dtype, (len(nu), 1, *nu.shape[1:]))
        _check_not_empty(path, len(nu))
        _check_grid(path, nu.shape[1:], pde)
        thin = (slice(None, None, pde.stride),) * 2
        for i in range(0, len(nu), BLOCK_SIMULATIONS):
            block = slice(i, i + BLOCK_SIMULATIONS)
            writer.append("x", np.asarray(nu[(block, *thin)], np.float32)[:, None], path)
            writer.append("y", np.asarray(solution[(block, slice(0, 1), *thin)], np.float32), path)
            writer.report(min(i + BLOCK_SIMULATIONS, len(nu)), len(nu))


def convert_groups(root: Path, writer: Writer, pde: _Pde) -> None:
    """Writes first and last states (N, fields, *grid) of one group per simulation with data (T, *space, fields)."""
    path = root / pde.file
    with open_hdf5(path) as file:
        names = sorted(file)
        _check_not_empty(path, len(names))
        for i, name in enumerate(names):
            data = get_hdf5_dataset(file, path, f"{name}/data")
            _check_grid(f"{path}: {name}/data", data.shape[1:-1], pde)
            check_shape(f"{path}: {name}/data", data.shape, data.dtype, (None,) * (2 + len(pde.grid)))
            for array, step in (("x", 0), ("y", pde.find_target_step(len(data)))):
                state = np.moveaxis(np.asarray(data[step], np.float32), -1, 0)
                writer.append(array, state[None], path)
            writer.report(i + 1, len(names))


CONVERSIONS: dict[str, Callable[..., None]] = {
    "fields": convert_fields,
    "darcy": convert_darcy,
    "groups": convert_groups,
}


# Checks by header ---------------------------------------------------------------------------------


def _check_headers(root: Path, pde: _Pde) -> str:
    """Returns what a file holds according to its headers; of a file of groups, the first simulation's.

    Raises:
        DataError: if that is not what the task expects.
    """
    path = root / pde.file
    with open_hdf5(path) as file:
        if pde.layout == "groups":
            return _check_first_group(file, path, pde)
        texts = []
        for name in ("nu", "tensor") if pde.layout == "darcy" else pde.fields:
            data = get_hdf5_dataset(file, path, name)
            n_axes = (1 if name == "nu" else 2) + len(pde.grid)
            texts.append(f"{name} {check_shape(f'{path}: {name}', data.shape, data.dtype, (None,) * n_axes)}")
            _check_not_empty(path, len(data))
            _check_grid(path, data.shape[n_axes - len(pde.grid) :], pde)
        return "; ".join(texts)


def _check_first_group(file: Any, path: Path, pde: _Pde) -> str:
    names = sorted(file)
    _check_not_empty(path, len(names))
    where = f"{path}: {names[0]}/data"
    data = get_hdf5_dataset(file, path, f"{names[0]}/data")
    text = check_shape(where, data.shape, data.dtype, (None,) * (2 + len(pde.grid)))
    _check_grid(path, data.shape[1:-1], pde)
    return f"{len(names)} simulations; the first is {text}"


# Tasks --------------------------------------------------------------------------------------------


def load_pde(data: ConvertedArrays, split_seed: int, pde: _Pde) -> Splits:
    """Returns first and last states, both of the task's shape, with one field or all of them."""

    def select_field(batch: np.ndarray) -> np.ndarray:
        kept = batch if pde.field is None else batch[:, pde.field : pde.field + 1]
        # A 1D task's fields lie end to end in one channel, as in ORCA.
        return kept.reshape(len(batch), *pde.shape)

    x, y = (
        Rows.from_array(data[name], f"{data.digest_of(name)} field={pde.field}", select_field) for name in ("x", "y")
    )
    whole = Samples(x, y)
    return Splits(*(whole.take(part) for part in pde.split_simulations(len(whole), split_seed)))


def _describe_file(pde: _Pde) -> File:
    url, check = f"{ADDRESS}{pde.number}", partial(_check_headers, pde=pde)
    return File(path=pde.file, check=check, url=url, hash=f"md5:{pde.md5}")


def _make_task(
    name: str,
    pde: _Pde,
    meaning: str,
    recipe: Mapping[str, Any],
    *,
    loss: str = "nrmse",
    normalise: Normalise = "none",
) -> Task:
    return Task(
        name=name,
        dims=len(pde.shape) - 1,
        sample_shape=pde.shape,
        kind="dense-regression",
        output_shape=pde.shape,
        loss=loss,
        metric="nrmse",
        load=partial(load_pde, pde=pde),
        convert=Conversion(name=Path(pde.file).stem, run=partial(CONVERSIONS[pde.layout], pde=pde)),
        meaning=meaning,
        source=SOURCE,
        licence="CC BY 4.0",
        files=(_describe_file(pde),),
        packages=("h5py",),
        extra="benchmarks",
        preparation="simulated",
        normalise_inputs=normalise,
        normalise_targets="none" if normalise == "none" else "as-inputs",
        recipe=recipe,
    )


RELEASED = Released(
    body="swin-base",
    epochs=200,
    batch=4,
    optimizer="adamw",
    lr=1e-4,
    weight_decay=0.0,
    momentum=0.99,
    decay=200,
    clip=1.0,
)
"""Settings that most of these tasks share."""


def _change_recipe(**settings: Any) -> dict[str, Any]:
    return make_recipe(replace(RELEASED, **settings))


def _make_text_recipe(optimizer: str, lr: float, weight_decay: float, length: int) -> dict[str, Any]:
    return _change_recipe(body="roberta-base", optimizer=optimizer, lr=lr, weight_decay=weight_decay, length=length)


ADVECTION = _Pde(
    file="1D_Advection_Sols_beta0.4.hdf5",
    number=255674,
    md5="d595bbfd2c659df995a93cd40d6ea568",
    shape=(1, 256),
    stride=4,
    time_stride=5,
    steps=200,
)
BURGERS = _Pde(
    file="1D_Burgers_Sols_Nu1.0.hdf5",
    number=281365,
    md5="9021eba35332d127306f11ef84c1a60f",
    shape=(1, 1024),
    time_stride=5,
    steps=200,
)
CFD_1D = _Pde(
    file="1D_CFD_Rand_Eta0.1_Zeta0.1_periodic_Train.hdf5",
    number=164668,
    md5="45655bd77d006ab539c52b7fbcf099b9",
    shape=(1, 3072),
    fields=("density", "pressure", "Vx"),
    time_stride=5,
    steps=100,
)
REACTION_1D = _Pde(
    file="ReacDiff_Nu0.5_Rho1.0.hdf5",
    number=133177,
    md5="69a429239778d529cd419ed5888ea835",
    shape=(1, 1024),
    steps=30,
)
SORPTION = _Pde(
    file="1D_diff-sorp_NA_NA.h5",
    number=133020,
    md5="9d466d1213065619d087319e16d9a938",
    shape=(1, 1024),
    layout="groups",
    steps=101,
    test_first=False,
)
DARCY = _Pde(
    file="2D_DarcyFlow_beta0.1_Train.hdf5",
    number=133218,
    md5="294f9a03a4aa16b0e386469ca8b471be",
    shape=(1, 64, 64),
    layout="darcy",
    stride=2,
)
SHALLOW_WATER = _Pde(
    file="2D_rdb_NA_NA.h5",
    number=133021,
    md5="75d838c47aa410694bdc912ea7f22282",
    shape=(1, 128, 128),
    layout="groups",
    steps=101,
    test_first=False,
)
REACTION_2D = _Pde(
    file="2D_diff-react_NA_NA.h5",
    number=133017,
    md5="b8d0b86064193195ddc30c33be5dc949",
    shape=(2, 128, 128),
    layout="groups",
    steps=101,
    test_first=False,
)
CFD_2D = _Pde(
    file="2D_CFD_Rand_M1.0_Eta0.1_Zeta0.1_periodic_128_Train.hdf5",
    number=164691,
    md5="75a34f34a3dcd9bc8ae4b7adf8bf372c",
    shape=(4, 64, 64),
    fields=("density", "pressure", "Vx", "Vy"),
    stride=2,
    steps=21,
    test_first=False,
)
RECORDS = (
    _make_task(
        "advection",
        ADVECTION,
        "advection at speed 0.4, first state to last",
        _make_text_recipe("adam", 1e-4, 1e-5, 512),
    ),
    _make_task(
        "burgers",
        BURGERS,
        "Burgers' equation at viscosity 1, first state to last",
        # Released as 128 tokens for 256 declared points, so two points per token. The data have 1024 points.
        _make_text_recipe("adam", 1e-5, 1e-5, 512),
        loss="rmse",
    ),
    _make_task(
        "1d-cfd",
        CFD_1D,
        "compressible flow: density, pressure and velocity end to end; scored in normalised units",
        _make_text_recipe("adamw", 1e-4, 1e-3, 128),
        loss="rmse",
        normalise="pointwise",
    ),
    _make_task(
        "diffusion-reaction",
        REACTION_1D,
        "diffusion with reaction, first state to the 30th",
        _make_text_recipe("sgd", 1e-3, 1e-5, 256),
    ),
    _make_task(
        "diffusion-sorption",
        SORPTION,
        "diffusion with sorption, first state to last",
        _make_text_recipe("adamw", 1e-4, 0.0, 32),
    ),
    _make_task(
        "darcy-pde",
        DARCY,
        "steady Darcy flow on a 64x64 grid: viscosity to pressure",
        _change_recipe(epochs=100, weight_decay=1e-5, clip=None),
    ),
    _make_task(
        "shallow-water",
        SHALLOW_WATER,
        "a dam breaks: water height, first state to last",
        _change_recipe(warmup=10),
    ),
    _make_task(
        "2d-diffusion-reaction",
        replace(REACTION_2D, shape=(1, 128, 128), field=0),
        "activator of a diffusion with reaction, first state to last (the inhibitor is not seen, as in ORCA)",
        _change_recipe(optimizer="adam", weight_decay=1e-3),
    ),
    _make_task(
        "2d-diffusion-reaction-both",
        REACTION_2D,
        "the same with activator and inhibitor, which together determine the answer",
        _change_recipe(optimizer="adam", weight_decay=1e-3),
    ),
    _make_task(
        "2d-cfd",
        CFD_2D,
        "compressible flow on a 64x64 grid, four fields; scored in normalised units",
        _change_recipe(lr=1e-3, weight_decay=1e-3),
        normalise="channel",
    ),
)
