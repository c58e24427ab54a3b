"""What holds for every task that works offline, and facts of the grouped ones."""

import gzip
import importlib
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from orca_sweep.data import hash_each_row
from orca_sweep.data import samples as data_samples
from orca_sweep.data.shipped import find_package_file
from orca_sweep.errors import DataError
from orca_sweep.tasks import TASKS, explain_unavailable, load_task_data, peptides, terrain, tissue, vowels
from tests.builders.shipped_files import read_ts

HERE = Path()
OFFLINE = [name for name in TASKS.names() if not TASKS.get(name).files]


def skip_without(*packages):
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        pytest.skip(f"not installed: {missing}")


def take_installed(name):
    task = TASKS.get(name)
    skip_without(*task.packages)
    return task


def hash_samples(part):
    return set(hash_each_row(np.concatenate([part.x.reshape(len(part), -1), part.y.reshape(len(part), -1)], axis=1)))


def test_there_are_three_offline_tasks_of_each_kind():
    assert {"digits", "darcy-generated", "terrain", "watch-exercises", "vowels", "peptides"} <= set(OFFLINE)
    assert {dims: sum(TASKS.get(name).dims == dims for name in OFFLINE) >= 3 for dims in (1, 2)} == {1: True, 2: True}


@pytest.mark.parametrize("name", OFFLINE)
def test_an_offline_task_has_declared_shapes_and_disjoint_seeded_splits(name):
    task = take_installed(name)
    assert explain_unavailable(task, HERE) == []
    data, again, other = (load_task_data(task, HERE, seed, None) for seed in (0, 0, 1))
    assert data.fingerprint == again.fingerprint != other.fingerprint
    parts = (data.train, data.val, data.test)
    for part in parts:
        assert part.x.shape[1:] == task.sample_shape and part.y.shape[1:] == task.target_shape
        assert len(part) >= 50
    assert not set.intersection(*map(hash_samples, parts[:2])) | set.intersection(*map(hash_samples, parts[1:]))
    assert not hash_samples(parts[0]) & hash_samples(parts[2])
    assert len(data.train) == task.count_training_samples(0)
    assert task.n_train_max is None or len(other.train) == task.n_train_max


@pytest.mark.parametrize("name", [name for name in OFFLINE if TASKS.get(name).extra])
def test_a_missing_package_is_named_with_its_extra(name, monkeypatch):
    task = TASKS.get(name)
    monkeypatch.setattr(data_samples, "find_spec", lambda package: None)
    with pytest.raises(DataError, match=rf"task '{name}' needs the package \w+.*'orca-sweep\[{task.extra}\]'"):
        task.load(HERE, 0)
    assert any(f"[{task.extra}]" in text for text in explain_unavailable(task, HERE))


def test_a_package_without_a_folder_is_named():
    with pytest.raises(DataError, match="task 'x' needs the package six, which has no folder"):
        find_package_file("task 'x'", "six", "data.csv")


# Terrain ------------------------------------------------------------------------------------------


def whole_terrain():
    return terrain.cut_terrain_tiles(find_package_file("", "matplotlib", terrain.FILE))


def test_terrain_tiles_of_two_bands_share_no_cell(tmp_path):
    # The differences of squares say where a tile stands: from the first row or column to the next, 2 i + 1.
    heights = np.arange(344)[:, None] ** 2 + np.arange(403) ** 2
    np.savez(tmp_path / "map.npz", elevation=heights)
    terrain.cut_terrain_tiles.cache_clear()
    data = terrain.cut_terrain_tiles(tmp_path / "map.npz")
    terrain.cut_terrain_tiles.cache_clear()
    rows, columns = (np.rint(d[:, 0, 0, 0] - 1).astype(int) // 2 for d in (np.diff(data.y, axis=2), np.diff(data.y)))
    assert len({*zip(rows.tolist(), columns.tolist(), strict=True)}) == len(data.y) == 480
    width = 403 // terrain.N_BANDS
    np.testing.assert_array_equal(columns // width, data.groups)
    np.testing.assert_array_equal((columns + terrain.TILE - 1) // width, data.groups)
    assert rows.max() + terrain.TILE <= 344


@pytest.mark.parametrize("seed", range(5))
def test_terrain_keeps_bands_together(seed):
    data, splits = whole_terrain(), terrain.load_terrain(HERE, seed)
    band_of = dict(zip(hash_each_row(data.y), data.groups.tolist(), strict=True))
    bands = [{band_of[row] for row in hash_each_row(part.y)} for part in (splits.train, splits.val, splits.test)]
    assert [len(some) for some in bands] == [4, 2, 2]
    assert len(set.union(*bands)) == 8


def test_relief_is_bright_where_it_faces_the_light():
    flat = np.zeros((5, 5))
    assert terrain.shade_relief(flat, 0) == pytest.approx(np.full((5, 5), np.sqrt(0.5)))
    rises_to_south = np.arange(5)[:, None] * np.full(5, terrain.CELL_M[0])  # 45 degrees, facing north
    assert terrain.shade_relief(rises_to_south, 0) == pytest.approx(np.ones((5, 5)))
    assert terrain.shade_relief(rises_to_south, 180) == pytest.approx(np.zeros((5, 5)), abs=1e-12)
    rises_to_west = -np.arange(5) * np.full((5, 1), terrain.CELL_M[1])  # faces east
    assert terrain.shade_relief(rises_to_west, 90) == pytest.approx(np.ones((5, 5)))


# Brain tissue -------------------------------------------------------------------------------------


def write_nifti(path, volume):
    """A packed NIfTI-1 file of bytes, with the 348 bytes of its header and 4 of no extension."""
    header = bytearray(352)
    header[40:56] = np.array([3, *volume.shape, 1, 1, 1, 1], "<i2").tobytes()
    header[70:72] = np.array([2], "<i2").tobytes()
    header[108:112] = np.array([352], "<f4").tobytes()
    header[344:348] = b"n+1\0"
    path.write_bytes(gzip.compress(bytes(header) + volume.astype("u1").tobytes(order="F"), 1))
    return path


def test_a_nifti_file_is_read_by_its_header(tmp_path):
    volume = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    path = write_nifti(tmp_path / "v.nii.gz", volume)
    np.testing.assert_allclose(tissue.read_nifti(path), volume / np.float32(23), rtol=1e-6)
    whole = gzip.decompress(path.read_bytes())
    for bad, words in (
        (gzip.compress(whole[:-1]), "damaged"),
        (gzip.compress(whole[:60]), "damaged"),
        (whole, "damaged"),
        (gzip.compress(whole.replace(b"n+1", b"ni1")), "not a volume in one NIfTI-1 file"),
    ):
        path.write_bytes(bad)
        with pytest.raises(DataError, match=f"v.nii.gz: {words}"):
            tissue.read_nifti(path)


def test_tissue_shows_two_slices_of_the_slab_around_the_one_asked_for(tmp_path):
    # The scan's brightness is its slice; the tissue is white where the slice's number is odd (counted at 2 mm), else grey.
    depth = 2 * (tissue.FIRST + tissue.N_SLABS * tissue.SLAB)
    slices = np.broadcast_to(np.arange(depth) // 2, (64, 64, depth))
    white = np.where(slices % 2, 100, 0)
    paths = [
        write_nifti(tmp_path / name, volume) for name, volume in (("t1", slices), ("gm", 100 - white), ("wm", white))
    ]
    tissue.cut_tissue_tiles.cache_clear()
    data = tissue.cut_tissue_tiles(*paths)
    tissue.cut_tissue_tiles.cache_clear()
    below, above = np.rint(data.x[:, :, 0, 0] * slices.max()).astype(int).T
    np.testing.assert_array_equal(above - below, 2 * tissue.REACH)
    np.testing.assert_array_equal(data.y[:, 0, 0], 1 + (below + tissue.REACH) % 2)
    for seen in (below, above):
        np.testing.assert_array_equal((seen - tissue.FIRST) // tissue.SLAB, data.groups)
    assert set(data.groups) == set(range(tissue.N_SLABS))


@pytest.mark.parametrize("seed", range(3))
def test_tissue_keeps_slabs_together(seed):
    skip_without("nilearn")
    splits = tissue.load_tissue(HERE, seed)
    paths = [find_package_file("", "nilearn", f"{tissue.FOLDER}/{n}") for n in (tissue.SCAN, tissue.GREY, tissue.WHITE)]
    data = tissue.cut_tissue_tiles(*paths)
    slab_of = dict(zip(hash_each_row(data.x), data.groups.tolist(), strict=True))
    slabs = [{slab_of[row] for row in hash_each_row(part.x)} for part in (splits.train, splits.val, splits.test)]
    assert [len(some) for some in slabs] == [4, 2, 2]
    assert len(set.union(*slabs)) == 8


# Vowels -------------------------------------------------------------------------------------------


def test_vowels_are_the_published_utterances():
    x, speakers = vowels.read_utterances(vowels.FILE)
    assert np.bincount(speakers[:270]).tolist() == [30] * 9
    assert np.bincount(speakers[270:]).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]
    lengths = (x != 0).any(axis=1).sum(axis=1)
    assert (lengths.min(), lengths.max(), lengths.sum()) == (7, 29, vowels.N_FRAMES)
    np.testing.assert_array_equal(x[0, :2, 0], np.float32([1.860936, -0.207383]))
    assert x[0, :, 20:].any() == np.False_


@pytest.mark.parametrize("seed", [0, 1])
def test_the_published_test_utterances_stay_the_test_set(seed):
    x, speakers = vowels.read_utterances(vowels.FILE)
    splits = vowels.load_vowels(HERE, seed)
    np.testing.assert_array_equal(splits.test.x, x[270:])
    np.testing.assert_array_equal(splits.test.y, speakers[270:])
    assert np.bincount(splits.train.y).tolist() == [20] * 9


def test_a_changed_vowel_file_is_refused(tmp_path):
    shutil.copy(vowels.FILE, tmp_path / "v.npz")
    with (tmp_path / "v.npz").open("ab") as file:
        file.write(b" ")
    with pytest.raises(DataError, match=r"v.npz: not the file that comes with orca-sweep"):
        vowels.read_utterances(tmp_path / "v.npz")


def test_the_maker_of_the_vowel_file_reads_the_archive_format():
    series, labels = read_ts("#a note\n@data\n1,2,3:4,5,6:9\n7:8:1\n")
    assert [one.tolist() for one in series] == [[[1, 4], [2, 5], [3, 6]], [[7, 8]]]
    assert labels == [9, 1]


# Peptides -----------------------------------------------------------------------------------------


def test_a_shared_run_makes_a_family_also_through_a_third():
    a, b, c = "AAAAKKKKRR", "KKKKRRWWLLLL", "GGWWLLLLGG"
    families = peptides.find_families([a, b, "GGGGGGGG", c, "GGGGGGGGG", "VVV", "VVV"])
    # a and b share only six residues; b and c share WWLLLL: six again.
    assert len(set(families[[0, 1, 3]])) == 3
    assert families[2] == families[4]
    linked = peptides.find_families(["AAAACCCC", "AAAACCCCDDDD", "CCCCDDDD", "CCCDDDD"])
    assert linked[0] == linked[1] == linked[2] != linked[3]


def test_peptides_are_read_coded_and_left_out(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("5,2,a,b\nACD, 1\nXXA, 1\nACD, 1\nYYY, 0\nYYY, 1\nWWWW,0\n" + "K" * 60 + ", 1\n")
    peptides.encode_peptides.cache_clear()
    data = peptides.encode_peptides(path)
    assert data.y.tolist() == [1, 1, 0]  # ACD, KKK..., WWWW
    assert data.x.sum(axis=(1, 2)).tolist() == [3, 48, 4]
    assert data.x[0].argmax(axis=0)[:3].tolist() == [0, 1, 2]
    path.write_text("1,1,a,b\nACD, 1\nAC3, 1\n")
    with pytest.raises(DataError, match=r"p.csv: line 3 is 'AC3, 1'"):
        peptides.read_peptides(path)
    peptides.encode_peptides.cache_clear()


@pytest.mark.parametrize("seed", range(3))
def test_no_two_splits_of_peptides_share_a_run(seed):
    skip_without("modlamp")
    data = peptides.encode_peptides(find_package_file("", "modlamp", peptides.FILE))
    train, val, test = peptides.split_families(data, seed)
    codes = np.where(data.x.any(axis=1), data.x.argmax(axis=1), -1)

    def runs(part):
        rows = (codes[i][codes[i] >= 0].tobytes() for i in part)
        step = codes.itemsize
        return {row[i * step : (i + 8) * step] for row in rows for i in range(len(row) // step - 7)}

    assert not runs(train) & runs(val) and not runs(train) & runs(test) and not runs(val) & runs(test)
    assert len(np.unique(data.groups[val])) == len(val) == 120
    assert len(np.unique(data.groups[test])) == len(test) == 300
    assert 0.4 < data.y[val].mean() < 0.6


def test_every_data_file_of_the_package_is_under_a_megabyte_and_named_in_the_notice():
    package = Path(importlib.import_module("orca_sweep").__file__).parent
    notice = (package / "NOTICE.md").read_text()
    files = [path for ending in ("*.npz", "*.gz") for path in package.rglob(ending)]
    assert {path.name for path in files} == {"japanese_vowels.npz", "docstrings.tsv.gz", "docstring_tags.conll.gz"}
    assert all(path.stat().st_size < 1_000_000 and path.name in notice for path in files)
