"""Readers in blocks, conversion once and whole, and rows that stay on disk."""

import gzip
import multiprocessing
import os
import pickle
import shutil
import time
import tracemalloc
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from orca_sweep import data as d
from orca_sweep.data import hdf5, matlab, readers
from orca_sweep.errors import DataError

# Pickles ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("packed", [False, True])
def test_pickles_of_arrays_and_containers_come_back_as_they_were(tmp_path, protocol, packed):
    value = {
        "images": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
        "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "uneven": np.array([np.zeros(3), np.ones(2)], dtype=object),
        "text": np.array(["N", "A"]),
        "scalar": np.float32(2.5),
        "nested": [1, (2.0, "three", b"four", None, True), {5}],
    }
    value["nested"][2] = "five"  # sets need a name to be looked up in old protocols; they are no part of any file
    path = tmp_path / "a.pkl"
    with (gzip.open if packed else open)(path, "wb") as file:
        pickle.dump(value, file, protocol=protocol)
    found = d.read_pickle(path)
    assert found.keys() == value.keys()
    for name in ("images", "columns", "text"):
        np.testing.assert_array_equal(found[name], value[name])
        assert found[name].dtype == value[name].dtype
    assert [part.tolist() for part in found["uneven"]] == [[0, 0, 0], [1, 1]]
    assert (found["scalar"], found["nested"]) == (value["scalar"], value["nested"])


class Evil:
    def __init__(self, call, *args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


@pytest.mark.parametrize(
    "evil",
    [
        lambda path: Evil(os.system, f"touch {path}"),
        lambda path: Evil(eval, f"open({str(path)!r}, 'w')"),
        lambda path: Evil(getattr, "text", "upper"),
        lambda path: Evil(np.load, str(path)),
        lambda path: OrderedDict(a=1),
    ],
)
def test_a_pickle_that_asks_for_anything_else_is_refused_by_name(tmp_path, evil):
    path, ran = tmp_path / "a.pkl", tmp_path / "ran"
    path.write_bytes(pickle.dumps({"data": [evil(ran)]}))
    with pytest.raises(DataError, match=r"a.pkl: the pickle asks for \w+"):
        d.read_pickle(path)
    assert not ran.exists()


class Pointers:
    """np.frombuffer(b'A' * 16, a type with an object field and flags that deny it)."""

    class Type:
        def __reduce__(self):
            fields = {"a": (np.dtype("O"), 0)}
            return np.dtype, ("V8", False, True), (3, "|", None, ("a",), fields, 8, 1, 0)

    class Objects:
        def __reduce__(self):
            return np.dtype, ("O8", False, True), (3, "|", None, None, None, 8, 1, 0)

    def __init__(self, kind):
        self.kind = kind

    def __reduce__(self):
        return np._core.numeric._frombuffer, (b"A" * 16, self.kind(), (2,), "C")


@pytest.mark.parametrize("kind", [Pointers.Type, Pointers.Objects])
def test_a_pickle_cannot_make_bytes_into_pointers(tmp_path, kind):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"label": Pointers(kind)}))
    with pytest.raises(DataError, match=r"a.pkl: not readable"):
        d.read_pickle(path)


def test_rows_of_no_size_take_no_memory(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(np.zeros((200_000_000, 0))))
    with pytest.raises(DataError, match=r"a.pkl: not readable"):
        d.read_pickle(path)
    path.write_bytes(pickle.dumps(np.zeros((0, 46))))
    assert d.read_pickle(path).shape == (0, 46)


def test_big_endian_arrays_and_booleans_keep_their_values(tmp_path):
    value = {"big": np.arange(5, dtype=">i4"), "yes": np.array([True, False]), "text": np.array([b"N", b"~"])}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(value, protocol=2))
    found = d.read_pickle(tmp_path / "a.pkl")
    for name, array in value.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("call", [np.ndarray, np._core.multiarray._reconstruct])
def test_a_pickle_cannot_ask_for_memory_without_data(tmp_path, call):
    args = ((2**40,),) if call is np.ndarray else (np.ndarray, (2**40,), "d")
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(Evil(call, *args)))
    with pytest.raises(DataError, match=r"a.pkl: not readable"):
        d.read_pickle(path)


def test_a_small_archive_that_unpacks_to_more_than_the_limit_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb") as file:
        pickle.dump(np.zeros(10**6), file)
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(readers, "LARGEST_PICKLE", 10**6)
    with pytest.raises(DataError, match=r"bomb.gz: unpacks to more than"):
        d.read_pickle(path)
    with gzip.open(path, "wb") as file:  # a length in the pickle that its data does not have
        file.write(b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"short")
    with pytest.raises(DataError, match=r"bomb.gz: "):
        d.read_pickle(path)


# Blocks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_arrays_come_in_blocks_that_join_to_the_whole(tmp_path, save, monkeypatch):
    monkeypatch.setattr(readers, "BLOCK_BYTES", 1000)
    value = np.arange(12_000, dtype=np.int16).reshape(100, 20, 6)
    save(tmp_path / "a.npz", x=value, y=np.arange(100))
    arrays = readers.open_npz_arrays(tmp_path / "a.npz")
    assert (arrays["x"].shape, arrays["x"].dtype, set(arrays)) == ((100, 20, 6), np.int16, {"x", "y"})
    blocks = list(arrays["x"].read_blocks())
    assert len(blocks) == 25
    np.testing.assert_array_equal(np.concatenate(blocks), value)


def test_an_npz_that_declares_more_than_it_holds_is_refused_before_it_is_read(tmp_path):
    header = tmp_path / "h.npy"
    with header.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (2**40, 1000, 4)})
        file.write(bytes(100))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.write(header, "x.npy")
    with pytest.raises(DataError, match=r"a.npz: x declares shape .* but holds 100 bytes"):
        readers.open_npz_arrays(tmp_path / "a.npz")
    with pytest.raises(DataError, match=r"h.npy: 2\d\d bytes, but its header declares"):
        d.read_npy(header)
    np.savez(tmp_path / "o.npz", x=np.array([{}], dtype=object))
    with pytest.raises(DataError, match="x holds Python objects"):
        readers.open_npz_arrays(tmp_path / "o.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:-10])
    with pytest.raises(DataError, match=r"cut.npz: not readable"):
        readers.open_npz_arrays(tmp_path / "cut.npz")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.uint8, np.int16])
def test_matlab_arrays_agree_with_scipy(tmp_path, compressed, dtype):
    from scipy.io import savemat

    value = (np.random.default_rng(0).random((5, 7, 9)) * 200).astype(dtype)
    others = {"a": np.arange(3.0), "a_longer_name": value * 2, "text": "words", "z": np.eye(3) * 1j}
    savemat(tmp_path / "a.mat", {**others, "coeff": value}, do_compression=compressed)
    for name, wanted in (("coeff", value), ("a_longer_name", value * 2)):
        found = matlab.open_mat_array(tmp_path / "a.mat", name)
        assert found.shape == wanted.shape
        np.testing.assert_array_equal(np.stack(list(found.read_blocks()), axis=-1), wanted)
    np.testing.assert_array_equal(
        np.stack(list(matlab.open_mat_array(tmp_path / "a.mat", "a").read_blocks()), -1), [[0, 1, 2]]
    )
    for name in ("text", "z"):
        with pytest.raises(DataError, match=f"{name} is not an array of real numbers"):
            matlab.open_mat_array(tmp_path / "a.mat", name)
    with pytest.raises(DataError, match=r"there is no array 'sol' in it. It holds: a, a_longer_name"):
        matlab.open_mat_array(tmp_path / "a.mat", "sol")


def test_matlab_7_3_is_read_by_its_own_axes(tmp_path):
    import h5py

    value = np.random.default_rng(0).random((5, 7, 9))
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        file["coeff"] = value.T
    raw = bytearray((tmp_path / "a.mat").read_bytes())
    raw[:19] = b"MATLAB 7.3 MAT-file"
    (tmp_path / "a.mat").write_bytes(raw)
    found = matlab.open_mat_array(tmp_path / "a.mat", "coeff")
    assert found.shape == value.shape
    np.testing.assert_array_equal(np.stack(list(found.read_blocks()), axis=-1), value)


@pytest.mark.parametrize("cut", [50, 130, 400, 2000])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_damaged_matlab_file_is_one_error(tmp_path, cut, compressed):
    from scipy.io import savemat

    savemat(tmp_path / "a.mat", {"coeff": np.random.default_rng(0).random((5, 7, 9))}, do_compression=compressed)
    raw = (tmp_path / "a.mat").read_bytes()
    (tmp_path / "cut.mat").write_bytes(raw[:cut])
    with pytest.raises(DataError, match=r"cut.mat: "):
        list(matlab.open_mat_array(tmp_path / "cut.mat", "coeff").read_blocks())
    rng = np.random.default_rng(cut)
    for _ in range(100):
        noise = bytearray(raw)
        for place in rng.integers(0, len(raw), 4):
            noise[place] = rng.integers(256)
        (tmp_path / "noise.mat").write_bytes(noise)
        try:
            for block in matlab.open_mat_array(tmp_path / "noise.mat", "coeff").read_blocks():
                assert block.nbytes < 10**7
        except DataError:
            pass


def test_hdf5_does_not_follow_links_out_of_the_file(tmp_path):
    import h5py

    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = np.arange(3.0)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = h5py.ExternalLink("secret.h5", "x")
        file["soft"] = h5py.SoftLink("/real")
        file["real"] = np.arange(4.0)
        file["inner"] = h5py.ExternalLink("secret.h5", "/")
        file["words"] = "no numbers"
    with hdf5.open_hdf5(tmp_path / "a.h5") as file:
        assert hdf5.get_hdf5_dataset(file, tmp_path / "a.h5", "real").shape == (4,)
        refused = {
            "x": "x is a link to another file",
            "soft": "soft is a soft link",
            "inner/x": "inner is a link to another",
        }
        for name, words in {**refused, "nothing": "there is no data set 'nothing' in it"}.items():
            with pytest.raises(DataError, match=words):
                hdf5.get_hdf5_dataset(file, tmp_path / "a.h5", name)
        with pytest.raises(DataError, match="words holds text"):
            hdf5.get_hdf5_dataset(file, tmp_path / "a.h5", "words")
    (tmp_path / "b.h5").write_bytes(b"no HDF5 at all")
    with pytest.raises(DataError, match=r"b.h5: cannot be read"), hdf5.open_hdf5(tmp_path / "b.h5"):
        pass


# Conversion ---------------------------------------------------------------------------------------


def numbers(root, writer):
    value = d.read_npy(root / "a.npy")
    for i in range(0, len(value), 10):
        writer.append("x", np.array(value[i : i + 10], np.float32), root / "a.npy")
        writer.append("n", np.arange(i, min(i + 10, len(value))))
        writer.report(i, len(value))


NUMBERS = d.Conversion(name="numbers", run=numbers)
FILES = (d.File(path="a.npy"),)


def test_a_conversion_is_done_once_and_again_when_its_files_change(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(75.0).reshape(25, 3))
    seen = []
    made = d.load_or_convert(NUMBERS, tmp_path, FILES, lambda *at: seen.append(at))
    assert seen == [(0, 25), (10, 25), (20, 25)]
    assert isinstance(made["x"], np.memmap)
    np.testing.assert_array_equal(made["x"], np.load(tmp_path / "a.npy"))
    np.testing.assert_array_equal(made["n"], np.arange(25))
    assert np.load(made.folder / "x.npy").flags["C_CONTIGUOUS"]
    again = d.load_or_convert(NUMBERS, tmp_path, FILES, lambda *at: seen.append(at))
    assert len(seen) == 3
    assert again.digest_of("x", "n") == made.digest_of("x", "n")
    (tmp_path / "a.npy").unlink()
    assert d.find_converted(NUMBERS, tmp_path, FILES)  # the original is not needed any more
    np.save(tmp_path / "a.npy", np.arange(6.0).reshape(2, 3))
    assert not d.find_converted(NUMBERS, tmp_path, FILES)
    changed = d.load_or_convert(NUMBERS, tmp_path, FILES)
    assert changed["x"].shape == (2, 3)
    assert changed.digest_of("x") != made.digest_of("x")
    assert made.folder.is_dir()  # what a running trial may still read stays
    np.testing.assert_array_equal(made["x"][:2], np.arange(6.0).reshape(2, 3))  # an open map outlives its file


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_conversion_that_fails_leaves_nothing_behind(tmp_path, bad):
    value = np.zeros((25, 3))
    value[17, 1] = bad
    np.save(tmp_path / "a.npy", value)
    with pytest.raises(DataError, match=r"a.npy: x holds NaN or infinite values"):
        d.load_or_convert(NUMBERS, tmp_path, FILES)
    assert [path.name for path in (tmp_path / "converted").iterdir()] == [".numbers.lock"]


def test_rows_of_another_shape_or_type_are_refused(tmp_path):
    writer = d.Writer(tmp_path, lambda done, total: None)
    writer.append("x", np.zeros((2, 3)), "first")
    for block in (np.zeros((2, 4)), np.zeros((2, 3), np.float32)):
        with pytest.raises(DataError, match=r"second: rows of .* after rows of \(3,\) float64"):
            writer.append("x", block, "second")
    writer.append("holes", np.array([[np.nan]]), "third", allow_nan=True)
    writer.close()
    assert np.load(tmp_path / "x.npy").shape == (2, 3)


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 3)))
    (tmp_path / "converted").write_text("a file in the way")
    with pytest.raises(DataError, match=r"numbers: cannot be written .* convert elsewhere and copy"):
        d.load_or_convert(NUMBERS, tmp_path, FILES)


def slow(root, writer):
    (root / f"began-{os.getpid()}").touch()
    time.sleep(0.5)
    numbers(root, writer)


def _convert(root, name):
    d.load_or_convert(d.Conversion(name=name, run=slow), root, FILES)


def test_two_processes_convert_once(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 3)))
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_convert, args=(tmp_path, "numbers")) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert len(list(tmp_path.glob("began-*"))) == 1


def test_a_killed_conversion_is_no_conversion_and_the_next_one_clears_up(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 3)))
    process = multiprocessing.get_context("spawn").Process(target=_convert, args=(tmp_path, "numbers"))
    process.start()
    while not list(tmp_path.glob("began-*")):
        time.sleep(0.02)
    process.kill()
    process.join()
    assert not d.find_converted(NUMBERS, tmp_path, FILES)
    assert len(list((tmp_path / "converted").glob(".numbers.*.tmp"))) == 1
    d.load_or_convert(NUMBERS, tmp_path, FILES)
    assert not list((tmp_path / "converted").glob(".numbers.*.tmp"))


# Rows ---------------------------------------------------------------------------------------------


def test_rows_read_what_is_asked_for_and_name_what_they_depend_on():
    array = np.arange(40, dtype=np.uint8).reshape(10, 4)
    asked = []

    def read(ids, rng):
        asked.append(ids.tolist())
        return array[ids].astype(np.float32) + (0 if rng is None else rng.random(4, dtype=np.float32))

    rows = d.Rows(read=read, ids=np.arange(10), sample_shape=(4,), digest="source").take(np.array([7, 2, 5]))
    assert (rows.shape, len(rows), asked) == ((3, 4), 3, [])
    np.testing.assert_array_equal(rows[np.array([2, 0])], array[[5, 7]])
    np.testing.assert_array_equal(rows[1:], array[[2, 5]])
    half = rows.map(lambda batch: batch / 2, "half")
    np.testing.assert_array_equal(half[:], array[[7, 2, 5]] / 2)
    drawn = [half.read_augmented(np.array([1]), np.random.default_rng(seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).all()
    prints = {d.fingerprint(part) for part in (rows, half, rows.take(np.array([0, 2, 1])), rows.take(np.arange(2)))}
    assert len(prints) == 4
    assert d.fingerprint(rows.take(np.arange(3))) == d.fingerprint(rows)


def test_a_large_task_is_converted_and_read_in_blocks(tmp_path):
    """Neither conversion nor an epoch holds more than a few blocks of a file of 120 MB."""
    from orca_sweep.tasks import TASKS, load_task_data

    rng = np.random.default_rng(0)
    arrays = {}
    for part, n in (("train", 20_000), ("val", 400), ("test", 10_000)):
        arrays[f"x_{part}"] = np.eye(4, dtype=np.uint8)[rng.integers(0, 4, (n, 1000))]
        arrays[f"y_{part}"] = (rng.random((n, 36)) < 0.1).astype(np.uint8)
    np.savez(tmp_path / "deepsea_filtered.npz", **arrays)
    size = sum(array.nbytes for array in arrays.values())
    del arrays
    tracemalloc.start()
    data = load_task_data(TASKS.get("deepsea"), tmp_path, 0, None)
    for part in d.cut_into_chunks(data.train.x, 16 * 4000):
        assert data.train.x[part].shape == (16, 4, 1000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size > 120e6
    assert peak < 5 * readers.BLOCK_BYTES, peak


def test_a_conversion_that_will_not_fit_ends_at_its_first_report(tmp_path, monkeypatch):
    """A small disk stands in: one with room for a half of what will be written."""
    done = []

    def run(root, writer):
        for i in range(100):
            writer.append("x", np.zeros((1, 1000)))
            done.append(i)
            writer.report(i + 1, 100)

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(d.conversion.shutil, "disk_usage", lambda _: usage._replace(free=400_000))
    with pytest.raises(
        DataError, match=r"writes about 0.000745 GiB, of which 0.000738 GiB are left; 0.000373 GiB are free"
    ):
        d.load_or_convert(d.Conversion(name="big", run=run), tmp_path, [])
    assert done == [0]
    assert not list((tmp_path / "converted").glob("*big*/*"))
    monkeypatch.setattr(d.conversion.shutil, "disk_usage", lambda _: usage._replace(free=900_000))
    assert d.load_or_convert(d.Conversion(name="big", run=run), tmp_path, [])["x"].shape == (100, 1000)


def test_arrays_that_are_not_what_was_converted_are_not_used(tmp_path, caplog):
    (tmp_path / "a").write_bytes(b"1")
    conversion = d.Conversion(name="c", run=lambda root, writer: writer.append("x", np.arange(1000)))
    made = d.load_or_convert(conversion, tmp_path, [d.File(path="a")])
    path = made.folder / "x.npy"
    blob = path.read_bytes()
    path.write_bytes(blob)  # copied, say: another time, the same content
    assert d.load_or_convert(conversion, tmp_path, [d.File(path="a")]).folder == made.folder
    path.write_bytes(blob[:-1] + b"\1")
    with pytest.raises(DataError, match=r"x.npy: not what was converted .* Delete .* to convert the files again"):
        d.load_or_convert(conversion, tmp_path, [d.File(path="a")])
    path.write_bytes(blob[:-1])
    again = d.load_or_convert(conversion, tmp_path, [d.File(path="a")])
    assert again.folder != made.folder and again["x"].tolist() == list(range(1000))
    assert "x.npy: not the 8128 bytes that were written. The files are converted again." in caplog.text
