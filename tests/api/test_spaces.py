"""A space from Python: what a mapping may hold, and that it means what the same YAML means."""

import enum
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

import orca_sweep
from orca_sweep import InputError, Space
from orca_sweep.space.bundled import list_bundled_spaces

SMALL = {"base": {"task": "digits"}, "factors": {"finetune.lr": [1e-3, 1e-4]}, "seeds": 2}


@pytest.fixture(autouse=True)
def work_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def ids(plan):
    return [(t.trial_id, t.cell_id, t.role) for t in plan.record.trials]


def messages(content):
    with pytest.raises(InputError) as raised:
        Space.from_dict(content).plan()
    return [str(problem) for problem in raised.value.problems]


@pytest.mark.parametrize("name", list_bundled_spaces())
def test_a_mapping_means_what_the_same_yaml_means(name):
    path = list_bundled_spaces()[name]
    ours, theirs = Space.from_dict(yaml.safe_load(path.read_text())).plan(), Space.from_yaml(name).plan()
    assert ids(ours) == ids(theirs)
    assert ours.record.labels == theirs.record.labels
    assert ours.record.names == theirs.record.names
    assert (
        (ours.folder, ours.data) == (theirs.folder, theirs.data) == (Path.cwd() / "results" / name, Path.cwd() / "data")
    )


class Proxy(enum.Enum):
    NONE = "none"


class Text(enum.StrEnum):
    NONE = "none"


def test_values_of_python_and_numpy_mean_their_text():
    plain = {
        "base": {"task": "digits", "proxy": "none"},
        "factors": {"finetune.lr": [0.001, 0.0001]},
        "seeds": [0, 1, 2],
    }
    written = {
        "base": {"task": np.str_("digits"), "proxy": Text.NONE},
        "factors": {"finetune": {"lr": (np.float64(1e-3), "1e-4")}},
        "seeds": range(np.int64(3)),
    }
    a, b = Space.from_dict(plain).plan(), Space.from_dict(written).plan()
    assert ids(a) == ids(b)
    assert a.trials["finetune.lr"].tolist() == ["0.001", "0.0001"] * 3
    assert b.trials["finetune.lr"].tolist() == ["0.001", "1e-4"] * 3  # as each of them writes it


def test_true_none_and_numbers_are_those_of_yaml(tmp_path):
    """``null`` is None and not the text, ``true`` is True."""
    text = (
        "base: {task: digits, embedder.label_gradient: true, proxy: mnist5k, finetune.decay_epochs: null}\nseeds: 1\n"
    )
    (tmp_path / "s.yaml").write_text(text)
    content = {
        "base": {
            "task": "digits", "embedder.label_gradient": True, "proxy": "mnist5k", "finetune.decay_epochs": None,
        },
        "seeds": 1,
    }  # fmt: skip
    assert ids(Space.from_dict(content).plan()) == ids(Space.from_yaml(tmp_path / "s.yaml").plan())


def test_a_path_is_a_path(tmp_path):
    module = tmp_path / "mine.py"
    module.write_text("")
    plan = Space.from_dict({**SMALL, "imports": [Path("mine.py")]}).plan()
    assert plan.record.space.imports == (str(module),)
    assert any("there is no file 'gone.py'. Paths are relative to the working folder." in text
               for text in messages({**SMALL, "imports": ["gone.py"]}))  # fmt: skip


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({1, 2}, "a space cannot hold a set. Give a list"),
        (np.arange(3), "a space cannot hold a numpy.ndarray. Write .tolist() behind it."),
        (np.float32(0.1), "write float(0.1) or float(0.10000000149011612), whichever you mean."),
        ((i for i in range(2)), "a space cannot hold a generator. Write list(...) around it."),
        (b"x", "a space cannot hold a bytes."),
        (1 + 2j, "a space cannot hold a complex."),
        (Proxy.NONE, "test_spaces.Proxy. Give texts, numbers"),
        (float("nan"), "nan is not a number that a level can be."),
        ("\ud800", "is not valid Unicode"),
        ("x" * 20_000, "a text of 20,000 characters"),
        ({3.5: 1}, "the key 3.5 is a float. Write keys as texts."),
        ({1: 2, "1": 3}, "appears here twice"),
    ],
)
def test_what_a_space_cannot_hold_is_a_problem_with_its_key(value, words):
    with pytest.raises(InputError) as raised:
        Space.from_dict({**SMALL, "base": {"proxy": [value], "also": object()}})
    first, *rest = raised.value.problems
    assert words in str(first)
    assert first.where.startswith("base.proxy[0]")
    assert [problem.where for problem in rest] == ["base.also"]  # all at once


def test_a_list_that_holds_itself_is_refused():
    loop = []
    loop.append(loop)
    with pytest.raises(InputError, match=r"factors.proxy\[0\]: the nesting is too deep"):
        Space.from_dict({**SMALL, "factors": {"proxy": loop}})
    for wrong in ([1], "base", None, 3):
        with pytest.raises(InputError, match="a space is a mapping, not an? "):
            Space.from_dict(wrong)


def test_all_mistakes_come_at_once_with_their_dotted_keys():
    texts = messages({
        "base": {"task": "digts", "embedder": {"epocs": 2}}, "factors": {"proxy": ["none", "mnist5", "none"]},
        "sedes": 3,
    })  # fmt: skip
    for part in (
        "sedes: sedes: unknown key. Did you mean 'seeds'?",
        "base.embedder.epocs: embedder.epocs: there is no field",
        "factors.proxy[2]: factors: proxy: this names the level 'none' twice",
        "the space: seeds: the space has no seeds.",
    ):
        assert any(part in text for text in texts), texts
    assert messages({}) and messages({"base": 3})


def test_a_space_can_be_nameless_or_too_large():
    assert Space.from_dict(SMALL).plan().name == "space"
    with pytest.raises(InputError, match="= 2,000 trials, more than 1,000"):
        Space.from_dict({**SMALL, "seeds": 1000}).plan(max_trials=1000)


def test_a_file_that_is_not_there_is_reported_at_once(tmp_path):
    (tmp_path / "mine.yaml").write_text("base: {task: digits}\nseeds: 1\n")
    with pytest.raises(InputError, match=r"mne.yaml: there is no such file. Did you mean 'mine.yaml'\?"):
        Space.from_yaml(tmp_path / "mne.yaml")
    with pytest.raises(InputError, match=r"Did you mean 'quickstart'\?"):
        Space.from_yaml("quickstrat")
    with pytest.raises(InputError):
        Space.from_yaml("a\0b")
    assert repr(Space.from_yaml("mine.yaml")) == "Space.from_yaml('mine.yaml')"
    assert "'seeds': '2'" in repr(Space.from_dict(SMALL))


def test_importing_the_package_is_cheap_and_its_names_are_all_there():
    code = (
        "import sys, orca_sweep\n"
        "heavy = {'numpy', 'pandas', 'pydantic', 'ray', 'torch', 'matplotlib', 'yaml', 'scipy', 'pyarrow', 'rich', 'typer'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert set(orca_sweep.__all__) <= set(dir(orca_sweep))\n"
        "from orca_sweep import Space, Plan, Sweep\n"
        "light = {'pandas', 'ray', 'torch', 'matplotlib', 'scipy.stats', 'pyarrow', 'typer', 'transformers'}\n"
        "assert not light & set(sys.modules), light & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    for name in orca_sweep.__all__:
        assert getattr(orca_sweep, name) is not None
    with pytest.raises(AttributeError, match="module 'orca_sweep' has no attribute 'Spaec'"):
        orca_sweep.Spaec  # noqa: B018
