"""Git LFS pointers in the place of files are named as such. Of bodies: see test_checkpoints."""

import pytest
from typer.testing import CliRunner

from orca_sweep.data.pointers import pointer_problem
from orca_sweep.errors import DataError, InputError

POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 498818054\n"
)
POINTS = r"a Git LFS pointer, not the file itself \(its 498,818,054 bytes are missing\). Run 'git lfs pull'"


def test_a_pointer_is_told_from_a_file(tmp_path):
    path = tmp_path / "x"
    assert pointer_problem(path) is None
    for text, is_pointer in ((POINTER, True), (POINTER.replace("\n", "\r\n"), True), (f" {POINTER}", False), ("version 1", False),
                             (POINTER + "x" * 2000, False), ("", False)):  # fmt: skip
        path.write_text(text, newline="")
        assert (pointer_problem(path) is not None) == is_pointer


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.pkl", "x.parquet", "x.h5", "x.mat", "x.wav"])
def test_a_pointer_in_the_place_of_data_is_named(name, tmp_path):
    from orca_sweep.data import hdf5, matlab, readers

    path = tmp_path / name
    path.write_text(POINTER)
    readings = {
        "x.npy": readers.read_npy,
        "x.npz": readers.open_npz_arrays,
        "x.pkl": readers.read_pickle,
        "x.parquet": lambda p: readers.report_parquet_damage(p).__enter__(),
        "x.h5": lambda p: hdf5.open_hdf5(p).__enter__(),
        "x.mat": lambda p: matlab.open_mat_array(p, "a"),
        "x.wav": lambda p: readers.read_wav(p, 16000),
    }
    with pytest.raises(DataError, match=f"{name}: {POINTS}"):
        readings[name](path)


@pytest.mark.parametrize(
    "name", ["x.npz", "x.conll", "x.txt", "x.csv", "x.parquet", "x.jsonl", "images/train/cat/1.png"]
)
def test_a_pointer_in_the_place_of_a_proxy_is_named_before_it_is_read(name, tmp_path):
    from orca_sweep.proxies import explain_missing_proxy, find_proxy

    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(POINTER)
    place = tmp_path / name.split("/")[0]
    proxy = find_proxy(f"{place}[train]:0->1")
    with pytest.raises(DataError, match=f"{path.name}: {POINTS}"):
        proxy.load(tmp_path)
    if place.is_file():
        [problem] = explain_missing_proxy(proxy, tmp_path)
        assert "a Git LFS pointer" in problem


def test_a_pointer_in_the_place_of_a_task_s_or_the_text_proxy_s_file_is_named_by_plan(tmp_path):
    from orca_sweep.proxies import explain_missing_proxy, find_proxy
    from orca_sweep.tasks import explain_unavailable, find_task

    (tmp_path / "data.npz").write_text(POINTER)
    task = find_task(f"{tmp_path}/data.npz kind=classification output_shape=3 sample_shape=1x8x8")
    [problem] = explain_unavailable(task, tmp_path)
    assert "data.npz: a Git LFS pointer" in problem
    (tmp_path / "text_xs_32.npy").write_text(POINTER)
    assert "text_xs_32.npy: a Git LFS pointer" in explain_missing_proxy(find_proxy("orca-text"), tmp_path)[0]
    with pytest.raises(DataError, match=POINTS):
        find_proxy("orca-text").load(tmp_path)


def test_a_pointer_in_the_place_of_a_space_is_named(tmp_path):
    from orca_sweep.cli import app

    (tmp_path / "space.yaml").write_text(POINTER)
    done = CliRunner().invoke(app, ["plan", str(tmp_path / "space.yaml")])
    assert done.exit_code == 2 or isinstance(done.exception, InputError)
    assert "a Git LFS pointer" in (done.output + str(done.exception))


def test_a_pointer_that_a_mirror_sends_is_not_kept(tmp_path):
    from orca_sweep.data.fetching import _Downloader

    (tmp_path / "source").write_text(POINTER)
    part = tmp_path / "part"
    with pytest.raises(DataError, match="the server sent a Git LFS pointer, not the file itself. It was not kept"):
        _Downloader(part, lambda done, total: None)(f"file://{tmp_path}/source", str(tmp_path / "out"), None)
    assert not part.exists()
    assert not (tmp_path / "out").exists()
