"""PDEBench's tasks of the ORCA paper: one jump from the first to the last time step (Takamoto et al. 2022).

Files are the benchmark's own. A sample is a simulation, so that splitting samples splits simulations. Validation
is cut out of training by the split seed; it has as many simulations as the test set.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from orca_sweep.data import Conversion, ConvertedArrays, File, Rows, Samples, Splits, Writer, check_shape, split_random
from orca_sweep.data.hdf5 import get_hdf5_dataset, open_hdf5
from orca_sweep.errors import DataError
from orca_sweep.tasks.recipes import Released, make_recipe
from orca_sweep.tasks.records import Task

SOURCE = "PDEBench (Takamoto et al. 2022, arXiv 2210.07182); settings of Shen et al. 2023 as released"
ADDRESS = "https://darus.uni-stuttgart.de/api/access/datafile/"
ROWS = 64
"""Simulations read at a time."""


@dataclass(frozen=True, kw_only=True)
class _Pde:
    """One equation's file and what of it is used."""

    file: str
    number: int
    """The file's number in the DaRUS repository."""
    md5: str
    stride: int = 1
    """Every so many-th grid point."""
    time_stride: int = 1
    steps: int = 10**6
    """The target is this step, counted after ``time_stride``; the last one if there are fewer."""
    test_first: bool = True
    """Whether the first tenth of the simulations is the test set, or the last."""
    fields: tuple[str, ...] = ("tensor",)

    def find_target_step(self, n_times: int) -> int:
        """Which time step is the target."""
        kept = -(-n_times // self.time_stride)
        return (min(self.steps, kept) - 1) * self.time_stride

    def split_simulations(self, n: int, split_seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Indices of training, validation and test."""
        n_test = n // 10 if self.test_first else n - int(n * 0.9)
        if not n_test:
            raise DataError(f"{self.file}: {n} simulations; a tenth of them is the test set. Get the whole file.")
        first = np.arange(n)[:n_test] if self.test_first else np.arange(n)[n - n_test :]
        rest = np.setdiff1d(np.arange(n), first)
        train, val, _ = split_random(len(rest), n_test, 0, split_seed)
        return rest[train], rest[val], first


def convert_fields(root: Path, writer: Writer, pde: _Pde, shape: tuple[int, ...]) -> None:
    """Data sets (N, T, *space) become first and last states (N, fields, *space), on every so many-th point."""
    path = root / pde.file
    with open_hdf5(path) as file:
        sets = [get_hdf5_dataset(file, path, name) for name in pde.fields]
        for name, data in zip(pde.fields, sets, strict=True):
            _check_fields(f"{path}: {name}", data, sets[0], len(shape))
        n, n_times = sets[0].shape[:2]
        _check_not_empty(path, n)
        _check_grid(path, sets[0].shape[2:], pde, shape)
        space = (slice(None, None, pde.stride),) * len(shape)
        for i in range(0, n, ROWS):
            for array, step in (("x", 0), ("y", pde.find_target_step(n_times))):
                block = [np.asarray(data[(slice(i, i + ROWS), step, *space)], np.float32) for data in sets]
                writer.append(array, np.stack(block, axis=1), path)
            writer.report(min(i + ROWS, n), n)


def _check_fields(where: str, data: Any, first: Any, dims: int) -> None:
    check_shape(where, data.shape, data.dtype, (None,) * (2 + dims))
    if data.shape != first.shape:
        raise DataError(f"{where}: shape {data.shape}, but another field has {first.shape}. Get the file again.")


def _check_not_empty(where: object, n: int) -> None:
    if not n:
        raise DataError(f"{where}: no simulations in it. Get the file again.")


def _check_grid(where: object, grid: tuple[int, ...], pde: _Pde, shape: tuple[int, ...]) -> None:
    """Refuses a file whose grid is another than the task's after thinning."""
    found = tuple(-(-points // pde.stride) for points in grid)
    if found != shape:
        raise DataError(f"{where}: a grid of {found} after thinning. {shape} was expected. Is it the right file?")


def convert_darcy(root: Path, writer: Writer, pde: _Pde, shape: tuple[int, ...]) -> None:
    """Viscosity nu (N, X, Y) and solution tensor (N, 1, X, Y) become (N, 1, *space) each."""
    path = root / pde.file
    with open_hdf5(path) as file:
        nu, solution = (get_hdf5_dataset(file, path, name) for name in ("nu", "tensor"))
        check_shape(f"{path}: nu", nu.shape, nu.dtype, (None, None, None))
        check_shape(f"{path}: tensor", solution.shape, solution.dtype, (len(nu), 1, *nu.shape[1:]))
        _check_not_empty(path, len(nu))
        _check_grid(path, nu.shape[1:], pde, shape)
        thin = (slice(None, None, pde.stride),) * 2
        for i in range(0, len(nu), ROWS):
            writer.append("x", np.asarray(nu[(slice(i, i + ROWS), *thin)], np.float32)[:, None], path)
            writer.append("y", np.asarray(solution[(slice(i, i + ROWS), slice(0, 1), *thin)], np.float32), path)
            writer.report(min(i + ROWS, len(nu)), len(nu))


def convert_groups(root: Path, writer: Writer, pde: _Pde, shape: tuple[int, ...]) -> None:
    """A group per simulation with data (T, *space, fields) becomes first and last states (N, fields, *space)."""
    path = root / pde.file
    with open_hdf5(path) as file:
        names = sorted(file)
        _check_not_empty(path, len(names))
        for i, name in enumerate(names):
            data = get_hdf5_dataset(file, path, f"{name}/data")
            _check_grid(f"{path}: {name}/data", data.shape[1:-1], pde, shape)
            check_shape(f"{path}: {name}/data", data.shape, data.dtype, (None,) * (2 + len(shape)))
            for array, step in (("x", 0), ("y", pde.find_target_step(len(data)))):
                state = np.moveaxis(np.asarray(data[step], np.float32), -1, 0)
                writer.append(array, state[None], path)
            writer.report(i + 1, len(names))


def _describe_file(pde: _Pde, kind: str, shape: tuple[int, ...]) -> File:
    """The record of an equation's file: its check reads headers, and the first simulation's of a file of groups."""
    path = pde.file

    def check_headers(root: Path) -> str:
        with open_hdf5(root / path) as file:
            if kind == "groups":
                names = sorted(file)
                _check_not_empty(root / path, len(names))
                data = get_hdf5_dataset(file, root / path, f"{names[0]}/data")
                found = check_shape(
                    f"{root / path}: {names[0]}/data", data.shape, data.dtype, (None,) * (2 + len(shape))
                )
                _check_grid(root / path, data.shape[1:-1], pde, shape)
                return f"{len(names)} simulations; the first is {found}"
            texts = []
            for name in ("nu", "tensor") if kind == "darcy" else pde.fields:
                data = get_hdf5_dataset(file, root / path, name)
                n_axes = 1 + len(shape) if name == "nu" else 2 + len(shape)
                texts.append(
                    f"{name} {check_shape(f'{root / path}: {name}', data.shape, data.dtype, (None,) * n_axes)}"
                )
                _check_not_empty(root / path, len(data))
                _check_grid(root / path, data.shape[n_axes - len(shape) :], pde, shape)
            return "; ".join(texts)

    return File(path=path, check=check_headers, url=f"{ADDRESS}{pde.number}", hash=f"md5:{pde.md5}")


def load_pde(data: ConvertedArrays, split_seed: int, pde: _Pde, shape: tuple[int, ...], field: int | None) -> Splits:
    """Returns first and last states, both of the task's shape: one field of several, or all of them."""

    def select_field(batch: np.ndarray) -> np.ndarray:
        kept = batch if field is None else batch[:, field : field + 1]
        # A 1D task's fields lie end to end in one channel, as in ORCA.
        return kept.reshape(len(batch), *shape)

    x, y = (Rows.from_array(data[name], f"{data.digest_of(name)} field={field}", select_field) for name in ("x", "y"))
    whole = Samples(x, y)
    return Splits(*(whole.take(part) for part in pde.split_simulations(len(whole), split_seed)))


def _make_task(
    name: str,
    pde: _Pde,
    shape: tuple[int, ...],
    meaning: str,
    settings: Mapping[str, Any],
    *,
    loss: str = "nrmse",
    normalise: str = "none",
    kind: str = "fields",
    field: int | None = None,
) -> Task:
    """A task of one equation; ``shape`` is (C, L) or (C, H, W) of inputs and targets."""
    dims = len(shape) - 1
    space = (shape[1] // len(pde.fields),) if dims == 1 else shape[1:]
    convert = {"fields": convert_fields, "darcy": convert_darcy, "groups": convert_groups}[kind]
    return Task(
        name=name,
        dims=dims,
        sample_shape=shape,
        kind="dense-regression",
        output_shape=shape,
        loss=loss,
        metric="nrmse",
        load=partial(load_pde, pde=pde, shape=shape, field=field),
        convert=Conversion(name=Path(pde.file).stem, run=partial(convert, pde=pde, shape=space)),
        meaning=meaning,
        source=SOURCE,
        licence="CC BY 4.0",
        files=(_describe_file(pde, kind, space),),
        packages=("h5py",),
        extra="benchmarks",
        preparation="simulated",
        normalise_inputs=normalise,  # type: ignore[arg-type]
        normalise_targets="none" if normalise == "none" else "as-inputs",
        recipe=settings,
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


REACTION_2D = _Pde(
    file="2D_diff-react_NA_NA.h5", number=133017, md5="b8d0b86064193195ddc30c33be5dc949", steps=101, test_first=False
)
RECORDS = (
    _make_task(
        "advection",
        _Pde(file="1D_Advection_Sols_beta0.4.hdf5", number=255674, md5="d595bbfd2c659df995a93cd40d6ea568", stride=4, time_stride=5, steps=200),
        (1, 256),
        "advection at speed 0.4, first state to last",
        _make_text_recipe("adam", 1e-4, 1e-5, 512),
    ),
    _make_task(
        "burgers",
        _Pde(file="1D_Burgers_Sols_Nu1.0.hdf5", number=281365, md5="9021eba35332d127306f11ef84c1a60f", stride=1, time_stride=5, steps=200),
        (1, 1024),
        "Burgers' equation at viscosity 1, first state to last",
        # Released as 128 tokens for 256 declared points, so two points per token. The data have 1024 points.
        _make_text_recipe("adam", 1e-5, 1e-5, 512),
        loss="rmse",
    ),
    _make_task(
        "1d-cfd",
        _Pde(
            file="1D_CFD_Rand_Eta0.1_Zeta0.1_periodic_Train.hdf5", number=164668, md5="45655bd77d006ab539c52b7fbcf099b9", stride=1, time_stride=5, steps=100,
            fields=("density", "pressure", "Vx"),
        ),
        (1, 3072),
        "compressible flow: density, pressure and velocity end to end; scored in normalised units",
        _make_text_recipe("adamw", 1e-4, 1e-3, 128),
        loss="rmse",
        normalise="pointwise",
    ),
    _make_task(
        "diffusion-reaction",
        _Pde(file="ReacDiff_Nu0.5_Rho1.0.hdf5", number=133177, md5="69a429239778d529cd419ed5888ea835", stride=1, time_stride=1, steps=30),
        (1, 1024),
        "diffusion with reaction, first state to the 30th",
        _make_text_recipe("sgd", 1e-3, 1e-5, 256),
    ),
    _make_task(
        "diffusion-sorption",
        _Pde(file="1D_diff-sorp_NA_NA.h5", number=133020, md5="9d466d1213065619d087319e16d9a938", steps=101, test_first=False),
        (1, 1024),
        "diffusion with sorption, first state to last",
        _make_text_recipe("adamw", 1e-4, 0.0, 32),
        kind="groups",
    ),
    _make_task(
        "darcy-pde",
        _Pde(file="2D_DarcyFlow_beta0.1_Train.hdf5", number=133218, md5="294f9a03a4aa16b0e386469ca8b471be", stride=2),
        (1, 64, 64),
        "steady Darcy flow on a 64x64 grid: viscosity to pressure",
        _change_recipe(epochs=100, weight_decay=1e-5, clip=None),
        kind="darcy",
    ),
    _make_task(
        "shallow-water",
        _Pde(file="2D_rdb_NA_NA.h5", number=133021, md5="75d838c47aa410694bdc912ea7f22282", steps=101, test_first=False),
        (1, 128, 128),
        "a dam breaks: water height, first state to last",
        _change_recipe(warmup=10),
        kind="groups",
    ),
    _make_task(
        "2d-diffusion-reaction",
        REACTION_2D,
        (1, 128, 128),
        "activator of a diffusion with reaction, first state to last (the inhibitor is not seen, as in ORCA)",
        _change_recipe(optimizer="adam", weight_decay=1e-3),
        kind="groups",
        field=0,
    ),
    _make_task(
        "2d-diffusion-reaction-both",
        REACTION_2D,
        (2, 128, 128),
        "the same with activator and inhibitor, which together determine the answer",
        _change_recipe(optimizer="adam", weight_decay=1e-3),
        kind="groups",
    ),
    _make_task(
        "2d-cfd",
        _Pde(
            file="2D_CFD_Rand_M1.0_Eta0.1_Zeta0.1_periodic_128_Train.hdf5", number=164691, md5="75a34f34a3dcd9bc8ae4b7adf8bf372c",
            stride=2, time_stride=1, steps=21, test_first=False, fields=("density", "pressure", "Vx", "Vy"),
        ),
        (4, 64, 64),
        "compressible flow on a 64x64 grid, four fields; scored in normalised units",
        _change_recipe(lr=1e-3, weight_decay=1e-3),
        normalise="channel",
    ),
)  # fmt: skip
