"""Bundled spaces are found by name: beside the package in a checkout, inside it in a wheel, from any folder."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from orca_sweep.errors import InputError
from orca_sweep.space.bundled import find_space, list_bundled_spaces, list_bundled_suites, read_question
from tests.builders.in_process import run_here as orca

REPO = Path(__file__).resolve().parents[2]


def test_all_spaces_of_the_folder_are_bundled_and_ask_something():
    bundled = list_bundled_spaces()
    assert set(bundled) == {path.stem for path in (REPO / "search_spaces").glob("*.yaml")}
    assert "quickstart" in bundled
    assert all(read_question(path).endswith("?") for path in bundled.values())


def test_a_path_that_exists_wins_over_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_space(Path("quickstart")) == list_bundled_spaces()["quickstart"]
    Path("quickstart").mkdir()  # a folder of that name, such as a sweep's, is no space
    assert find_space(Path("quickstart")) == list_bundled_spaces()["quickstart"]
    Path("quickstart").rmdir()
    for path in (Path("quickstart"), Path("gone.yaml"), Path("folder/quickstart")):
        if path.parent == Path() and not path.suffix:
            path.write_text("mine")
        assert find_space(path) == path


def test_an_unknown_name_is_told_with_the_nearest_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"quickstrat: there is no such file.*Did you mean 'quickstart'\?"):
        find_space(Path("quickstrat"))
    with pytest.raises(InputError, match="no bundled space of that name. Known: baselines, fair_lr, "):
        find_space(Path("zzz"))


def test_plan_and_submit_take_a_name_anywhere(tmp_path):
    assert "4 cells x 5 seeds = 20 trials" in orca("plan", "quickstart", cwd=tmp_path, check=0).stdout
    script = orca("submit", "quickstart", "--out", tmp_path / "out", "--emit", "slurm", cwd=tmp_path, check=0).stdout
    assert "quickstart.yaml" in script
    for command in ("plan", "launch", "submit"):
        assert "Did you mean 'quickstart'?" in orca(command, "quickstrat", cwd=tmp_path, check=2).stderr
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def wheel(site, tmp_path_factory):
    """Runs commands with the wheel from an empty folder."""
    empty = tmp_path_factory.mktemp("empty")

    def run(*words):
        output = run_python(site, empty, "-m", "orca_sweep.cli", *words)
        assert not list(empty.iterdir())
        return output

    return run


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with what a wheel has, as pyproject.toml says."""
    target = tomllib.loads((REPO / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    site = tmp_path_factory.mktemp("site")
    for source, target_name in {**{name: name for name in target["packages"]}, **target["force-include"]}.items():
        shutil.copytree(REPO / source, site / target_name, ignore=shutil.ignore_patterns("__pycache__"))
    return site


def run_python(site, folder, *words):
    """Runs Python in a folder with the wheel's packages instead of the checkout's, and returns what it prints."""
    done = subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, check=False, cwd=folder,
        env={**os.environ, "PYTHONPATH": str(site)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_wheel_in_an_empty_folder_knows_its_spaces_and_analyses(wheel, tmp_path):
    from tests.builders.sweeps import sweep_folder

    names = [line.split()[0] for line in wheel("list", "spaces").splitlines()]
    assert names == [*list_bundled_spaces(), *list_bundled_suites()]
    assert "4 cells x 5 seeds = 20 trials" in wheel("plan", "quickstart")
    out = tmp_path / "out"
    assert wheel("analyse", "figure2_proxies", sweep_folder(tmp_path / "s"), "--out", out).splitlines() == [
        str(out / f"figure2_proxies.{kind}") for kind in ("csv", "png", "svg", "pdf", "caption.txt")
    ]


SPACE = """
base: {task: digits, proxy: none, body.pretrain_fraction: 0, finetune.epochs: 1}
factors: {finetune.freeze: [none, body]}
seeds: 2
margin: 0.02
resources: {cpu: 1.9}
"""


def test_a_person_with_a_wheel_goes_from_nothing_to_verdicts_and_a_picture_for_a_paper(site, tmp_path):
    """In an empty folder, without the checkout."""

    def orca_sweep(*words):
        return run_python(site, tmp_path, "-m", "orca_sweep.cli", *words)

    where = run_python(site, tmp_path, "-c", "import orca_sweep.api.sweeps as s; print(s.__file__)")
    assert Path(where.strip()).is_relative_to(site)
    (tmp_path / "mine.yaml").write_text(SPACE)
    assert "2 cells x 2 seeds = 4 trials" in orca_sweep("plan", "mine.yaml")
    assert "all trials: 4 ok" in orca_sweep("launch", "mine.yaml")
    orca_sweep("analyse", "table_effects", "results/mine")
    table = (tmp_path / "results" / "mine" / "figures" / "table_effects.md").read_text()
    assert "| body |" in table and "verdict" in table
    assert any(word in table for word in ("helps", "hurts", "no meaningful difference", "undecided"))
    orca_sweep("analyse", "figure4_freezing", "results/mine", "--width", "column")
    pdf = (tmp_path / "results" / "mine" / "figures" / "figure4_freezing.pdf").read_bytes()
    (box,) = re.findall(rb"/MediaBox \[ 0 0 (\S+) (\S+) \]", pdf)
    assert float(box[0]) == 3.25 * 72
    assert b"/FontFile2" in pdf  # every font is embedded, and none as outlines that a publisher refuses
    assert pdf.count(b"/Type /FontDescriptor") == pdf.count(b"/FontFile2")
    assert b"/Type3" not in pdf
