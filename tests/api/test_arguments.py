"""Arguments of the wrong kind are refused in words, before anything runs."""

from pathlib import Path

import pytest

from orca_sweep import InputError, Space, Sweep, read_results

CONTENT = {"name": "s", "base": {"task": "digits", "proxy": "none", "body.pretrain_fraction": 0}, "seeds": 2}


@pytest.fixture(autouse=True)
def work_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def plan():
    return Space.from_dict(CONTENT).plan()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Space.from_yaml(None), "space: a path is a text or a pathlib.Path, not NoneType."),
        (lambda: Space.from_yaml({"task": "digits"}), "space: a path is a text or a pathlib.Path, not dict."),
        (lambda: Space.from_dict(CONTENT).plan(max_trials="9"), "max_trials = '9': this is a whole number"),
        (lambda: Space.from_dict(CONTENT).plan(max_trials=0), "max_trials = '0': this is a whole number"),
        (lambda: Space.from_dict(CONTENT).plan(max_trials=2.5), "max_trials = '2.5': this is a whole number"),
        (lambda: Space.from_dict(CONTENT).plan(out=3), "out: a path is a text or a pathlib.Path, not int."),
        (lambda: Space.from_dict(CONTENT).plan(out="a\0b"), "a path has no zero bytes"),
        (lambda: Space.from_dict(CONTENT).plan(data=None), "data: a path is a text"),
        (lambda: Space.from_dict(CONTENT).plan(store=4), "store: a path is a text"),
        (lambda: plan().launch(address=5), "address: this is a text, not int."),
        (lambda: plan().launch(dashboard_host=3), "dashboard_host: this is a text, not int."),
        (lambda: plan().launch(store=4), "store: a path is a text"),
        (lambda: plan().launch(data=3), "data: a path is a text"),
        (lambda: plan().launch(progress="yes"), "progress = 'yes': this is True, False, or a function"),
        (lambda: Sweep.open(None), "folder: a path is a text"),
        (lambda: read_results(None), "a folder is a text or a pathlib.Path, not NoneType."),
        (lambda: read_results([b"a", 3]), "not bytes, int."),
        (lambda: read_results([]), "no folder"),
    ],
)
def test_an_argument_of_the_wrong_kind_is_refused(call, words):
    with pytest.raises(InputError) as caught:
        call()
    assert words in str(caught.value)
    assert list(Path().iterdir()) == []


def test_a_store_may_be_a_path():
    planned = Space.from_dict(CONTENT).plan(store=Path("mine"))
    assert planned.store_root == str(Path("mine").resolve())
