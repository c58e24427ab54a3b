"""Tiny sets of files in the formats in which the benchmarks publish them, one writer per task.

Names, keys, shapes and types are the published ones; only the number of samples is small, and lengths in time where
the tasks clamp them. Everything is drawn from a fixed seed.
"""

import csv
import gzip
import io
import json
import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np

DEEPCOV = ("1a3aA", "1a6mA", "1aapA", "1abaA")
PSICOV = ("1bdoA", "1cc8A")


def rng_of(name):
    """A generator per file."""
    return np.random.default_rng(list(name.encode()))


def cycle(n, n_classes, first=0):
    """Labels in which every class comes up."""
    return np.arange(n) % n_classes + first


def place(root, name):
    """The path of a file, its folder made."""
    path = Path(root) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


# Pickles as old programs write them ---------------------------------------------------------------


class _Python2(pickle._Pickler):
    """Writes text and bytes as the byte strings of Python 2."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def _save_string(self, obj):
        raw = obj if isinstance(obj, bytes) else obj.encode("latin1")
        short = len(raw) < 256
        head = (
            pickle.SHORT_BINSTRING + bytes([len(raw)]) if short else pickle.BINSTRING + len(raw).to_bytes(4, "little")
        )
        self.write(head + raw)
        self.memoize(obj)

    dispatch[str] = _save_string
    dispatch[bytes] = _save_string


def numpy_1(raw):
    """A pickle up to protocol 3 with the module names of NumPy 1."""
    return raw.replace(b"cnumpy._core.", b"cnumpy.core.")


def python_2(value):
    """The bytes of a pickle of protocol 2 as Python 2 writes it."""
    out = io.BytesIO()
    _Python2(out, 2).dump(value)
    return numpy_1(out.getvalue())


def save_objects(path, array, protocol=3):
    """``np.save`` of an object array as NumPy 1 did it."""
    with Path(path).open("wb") as file:
        header = {"descr": "|O", "fortran_order": False, "shape": array.shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.write(numpy_1(pickle.dumps(array, protocol)))


def box(value):
    """A scalar object array, which ``np.save`` makes of a dict."""
    array = np.empty((), object)
    array[()] = value
    return array


# Images -------------------------------------------------------------------------------------------


def cifar10(root):
    rng = rng_of("cifar10")
    n = 10
    for name in [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]:
        value = {
            "batch_label": f"{name} of 6",
            "labels": cycle(n, 10).tolist(),
            "data": rng.integers(0, 256, (n, 3072), np.uint8),
            "filenames": [f"a_s_{j:06}.png" for j in range(n)],
        }
        place(root, f"cifar-10-batches-py/{name}").write_bytes(python_2(value))


def cifar100(root):
    rng = rng_of("cifar100")
    for name, n in (("train", 206), ("test", 4)):
        value = {
            "filenames": [f"b_s_{j:06}.png" for j in range(n)],
            "batch_label": f"{name} batch 1 of 1",
            "fine_labels": cycle(n, 100).tolist(),
            "coarse_labels": cycle(n, 20).tolist(),
            "data": rng.integers(0, 256, (n, 3072), np.uint8),
        }
        place(root, f"cifar-100-python/{name}").write_bytes(python_2(value))


def spherical(root):
    rng = rng_of("spherical")
    parts = {
        name: {"images": rng.integers(0, 256, (n, 3, 60, 60), np.uint8), "labels": cycle(n, 100)}
        for name, n in (("train", 204), ("test", 4))
    }
    with gzip.open(place(root, "s2_cifar100.gz"), "wb", compresslevel=1) as file:
        file.write(numpy_1(pickle.dumps(parts, 3)))


def cosmic(root):
    rng = rng_of("cosmic")
    lists = {"train": [], "test": []}
    for part, folder, n in (("train", "10595_1", 6), ("test", "10595_4", 2)):
        for i in range(1, n + 1):
            planes = 3 if i % 2 else 2
            data = np.empty((planes, 256, 256), np.float32)
            data[0] = rng.normal(50, 10, (256, 256))
            data[1:] = rng.random((planes - 1, 256, 256)) < 0.1
            name = f"./cosmic/npy_{part}/f435w/GAL/{folder}/{i}_0.npy"
            np.save(place(root, name), data)
            lists[part].append(name)
        np.save(place(root, f"cosmic/npy_{part}/f435w/GAL/{folder}/sky.npy"), 40.0 + np.arange(n))
        np.save(place(root, f"cosmic/{part}_dirs.npy"), lists[part])


# Signals ------------------------------------------------------------------------------------------


def ninapro(root):
    rng = rng_of("ninapro")
    for part, n in (("train", 54), ("val", 18), ("test", 18)):
        np.save(place(root, f"ninaPro/ninapro_{part}.npy"), rng.normal(size=(n, 52, 16)))
        np.save(root / f"ninaPro/label_{part}.npy", cycle(n, 18))


def satellite(root):
    rng = rng_of("satellite")
    for part, n, protocol in (("train", 100, 3), ("test", 24, 2)):
        value = {"data": rng.normal(500, 200, (n, 46)), "label": cycle(n, 24, 1)}
        save_objects(place(root, f"satellite_{part}.npy"), box(value), protocol)


def ecg(root):
    """Recordings of uneven length; of each class some, one too short to give a window."""
    rng = rng_of("ecg")
    names = np.array(["N", "A", "O", "~"] * 10)
    lengths = {"N": 2600, "A": 1200, "O": 1760, "~": 1080}
    signals = np.empty(len(names), object)
    for i, name in enumerate(names):
        length = lengths[name] + 7 * i
        signals[i] = rng.normal(5, 100, length).astype(np.int16).astype(np.float64)
    signals[8] = signals[8][:1000]
    place(root, "challenge2017.pkl").write_bytes(numpy_1(pickle.dumps({"data": signals, "label": names}, 3)))


def deepsea(root):
    rng = rng_of("deepsea")
    arrays = {}
    for part, n in (("train", 24), ("val", 8), ("test", 8)):
        arrays[f"x_{part}"] = np.eye(4, dtype=np.uint8)[rng.integers(0, 4, (n, 1000))]
        arrays[f"y_{part}"] = (rng.random((n, 36)) < 0.4).astype(np.uint8)
    np.savez_compressed(place(root, "deepsea_filtered.npz"), **arrays)


def fsd50k(root):
    """Chunks of a second in 16 bits, two or three of a clip, and two noises."""
    from scipy.io import wavfile

    rng = rng_of("fsd50k")
    labels = [f"label_{i}" for i in range(200)]
    place(root, "chunks/lbl_map.json").write_text(json.dumps({name: i for i, name in enumerate(labels)}))
    for part, folder, n in (("tr", "tr", 8), ("val", "val", 3), ("eval", "eval", 3)):
        rows = []
        for clip in range(n):
            of_clip = ",".join([labels[clip % 5], labels[5 + clip % 3]])
            for second in range(2 + clip % 2):
                name = f"chunks/{folder}/{part}{clip}_{second}.wav"
                sound = rng.normal(0, 3000, 22050) * np.linspace(0.2, 1, 22050)
                wavfile.write(place(root, name), 22050, sound.astype(np.int16))
                rows.append([f"/home/somebody/data/{name}", of_clip, f"{part}{clip}"])
        with place(root, f"chunks/{part}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["files", "labels", "ext"], *rows])
    for i, seconds in enumerate((2, 3)):
        noise = rng.normal(0, 500, 22050 * seconds).astype(np.int16)
        wavfile.write(place(root, f"noise_22050/noise{i}.wav"), 22050, noise)


# Proteins -----------------------------------------------------------------------------------------


def protein(root, folder, name, L, rng):
    """One protein's two files."""
    features = {
        "seq": "".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), L)),
        "ss": rng.random((3, L)),
        "pssm": rng.random((L, 22)),
        "sa": rng.random(L),
        "entropy": rng.random(L),
        "ccmpred": rng.random((L, L)),
        "freecon": rng.random((L, L)),
        "potential": rng.random((L, L)),
    }
    place(root, f"protein/{folder}/features/{name}.pkl").write_bytes(numpy_1(pickle.dumps(features, 3)))
    points = rng.normal(0, 7, (L, 3))
    distances = np.sqrt(((points[:, None] - points[None]) ** 2).sum(-1))
    distances[0, 2] = distances[2, 0] = 0.3
    saved = np.empty(3, object)
    saved[:] = [L, features["seq"], distances]
    save_objects(place(root, f"protein/{folder}/distance/{name}-cb.npy"), saved)
    return features, distances


def psicov(root):
    for names, folder in ((DEEPCOV, "deepcov"), (PSICOV, "psicov")):
        place(root, f"protein/{folder}.lst").write_text("".join(f"{name}\n" for name in names))
        for i, name in enumerate(names):
            protein(root, folder, name, 40 + 5 * i, rng_of(name))


# Equations ----------------------------------------------------------------------------------------


def darcy(root):
    """Twelve and six problems of the full grid; one file packed, the other plain."""
    for name, content in pack_darcy(rng_of).items():
        place(root, name).write_bytes(content)


@cache
def pack_darcy(make_rng):
    """Returns the bytes of each file: packing takes seconds, and many tests need the files."""
    from scipy.io import savemat

    rng, files = make_rng("darcy"), {}
    for k, n, packed in ((1, 12, True), (2, 6, False)):
        coeff = np.where(rng.random((n, 421, 421)) < 0.5, 3.0, 12.0)
        smooth = np.sin(np.linspace(0, np.pi, 421))
        sol = (smooth[:, None] * smooth * rng.uniform(0.5, 2, (n, 1, 1)) + coeff / 100).astype(np.float64)
        value = {"coeff": coeff, "Kcoeff": coeff[:, :2], "sol": sol}
        file = io.BytesIO()
        savemat(file, value, do_compression=packed)
        files[f"piececonst_r421_N1024_smooth{k}.mat"] = file.getvalue()
    return files


def fields(root, name, shape, keys=("tensor",)):
    """An HDF5 file with a data set per field, and coordinates beside them."""
    import h5py

    rng = rng_of(name)
    with h5py.File(place(root, name), "w") as file:
        for key in keys:
            file[key] = rng.random(shape, np.float32) + np.float32(0.5)
        file["x-coordinate"] = np.linspace(0, 1, shape[2], dtype=np.float32)
        file["t-coordinate"] = np.linspace(0, 2, shape[1] + 1, dtype=np.float32)


def groups(root, name, n, shape):
    """An HDF5 file with a group per simulation."""
    import h5py

    rng = rng_of(name)
    with h5py.File(place(root, name), "w") as file:
        for i in range(n):
            group = file.create_group(f"{i:04}")
            group["data"] = rng.random(shape, np.float32) + np.float32(0.5)
            group["grid/x"] = np.linspace(0, 1, shape[1], dtype=np.float32)
            group["grid/t"] = np.linspace(0, 1, shape[0], dtype=np.float32)


def advection(root):
    fields(root, "1D_Advection_Sols_beta0.4.hdf5", (12, 11, 1024))


def burgers(root):
    fields(root, "1D_Burgers_Sols_Nu1.0.hdf5", (12, 11, 1024))


def cfd_1d(root):
    name = "1D_CFD_Rand_Eta0.1_Zeta0.1_periodic_Train.hdf5"
    fields(root, name, (12, 11, 1024), ("density", "pressure", "Vx"))


def diffusion_reaction(root):
    fields(root, "ReacDiff_Nu0.5_Rho1.0.hdf5", (12, 40, 1024))


def diffusion_sorption(root):
    groups(root, "1D_diff-sorp_NA_NA.h5", 12, (6, 1024, 1))


def darcy_pde(root):
    import h5py

    rng = rng_of("darcy-pde")
    with h5py.File(place(root, "2D_DarcyFlow_beta0.1_Train.hdf5"), "w") as file:
        file["nu"] = rng.choice(np.array([0.1, 1.0], np.float32), (12, 128, 128))
        file["tensor"] = rng.random((12, 1, 128, 128), np.float32) + np.float32(0.5)
        file["x-coordinate"] = file["y-coordinate"] = np.linspace(0, 1, 128, dtype=np.float32)


def shallow_water(root):
    groups(root, "2D_rdb_NA_NA.h5", 12, (3, 128, 128, 1))


def diffusion_reaction_2d(root):
    groups(root, "2D_diff-react_NA_NA.h5", 12, (3, 128, 128, 2))


def cfd_2d(root):
    name = "2D_CFD_Rand_M1.0_Eta0.1_Zeta0.1_periodic_128_Train.hdf5"
    fields(root, name, (12, 3, 128, 128), ("density", "pressure", "Vx", "Vy"))


# Tables -------------------------------------------------------------------------------------------


def openml(root):
    """A table as ``orca-sweep data fetch`` makes it: numbers with gaps, categories, a class."""
    import pandas as pd

    rng = rng_of("openml")
    n = 60
    table = pd.DataFrame(
        {
            "age": rng.normal(40, 10, n),
            "job": pd.Categorical(rng.choice(["clerk", "smith", "baker"], n)),
            "amount": rng.integers(0, 10**6, n),
            "target": np.array(["bad", "good", "so-so"])[cycle(n, 3)],
        }
    )
    table.loc[3, "age"] = np.nan
    table.to_parquet(place(root, "openml/31.parquet"))


def openml_split(root):
    """The file that ORCA's code makes: numbers only, a tenth for test."""
    rng = rng_of("openml-split")
    value = {}
    for part, n in (("dev", 54), ("test", 6)):
        value |= {f"X_norm_{part}": rng.normal(size=(n, 8, 1)), f"y_{part}": cycle(n, 2)}
    save_objects(place(root, "37_dev_test_split.npy"), box(value))


ORIGINALS: dict[str, Callable[[Path], None]] = {
    "cifar10": cifar10,
    "cifar10-permuted": cifar10,
    "cifar100": cifar100,
    "cifar100-permuted": cifar100,
    "spherical": spherical,
    "cosmic": cosmic,
    "ninapro": ninapro,
    "satellite": satellite,
    "ecg": ecg,
    "deepsea": deepsea,
    "fsd50k": fsd50k,
    "psicov": psicov,
    "darcy": darcy,
    "advection": advection,
    "burgers": burgers,
    "1d-cfd": cfd_1d,
    "diffusion-reaction": diffusion_reaction,
    "diffusion-sorption": diffusion_sorption,
    "darcy-pde": darcy_pde,
    "shallow-water": shallow_water,
    "2d-diffusion-reaction": diffusion_reaction_2d,
    "2d-diffusion-reaction-both": diffusion_reaction_2d,
    "2d-cfd": cfd_2d,
    "openml:31": openml,
    "openml-orca:37": openml_split,
}
"""The writer of every task that has files; ``openml:37`` is the form of ORCA's own code."""
