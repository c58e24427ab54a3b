"""Words of the command line that name what cannot be: exit code 2, in words, and nothing written."""

import json
from dataclasses import replace

import pytest

from orca_sweep.bodies import find_body
from orca_sweep.bodies.network import load_pretrained
from orca_sweep.errors import OrcaSweepError, reason_of
from tests.builders.in_process import orca, snapshot
from tests.builders.sweeps import sweep_folder

LONG = "a" * 5000
SPACE = "base: {task: digits, finetune.epochs: 1}\nfactors: {embedder.epochs: [0, 1]}\nseeds: 1\n"
NO_FOLDER = ("FILE", "FILE/below", "LOOP", LONG, "a\0b")
ADDRESSES = ("foo", "foo:bar", "foo:", ":6379", "127.0.0.1:99999", "127.0.0.1:0", "127.0.0.1:-1", "127.0.0.1:1", "http://127.0.0.1",
             "[::1", "", "  ")  # fmt: skip
DASHBOARDS = ("", "http://", "foo:bar", "http://127.0.0.1:99999", "ftp://x", "http://[::1", "http://a b:1", "a\0b", "auto",
              "http://127.0.0.1:1", "http://:8265")  # fmt: skip
WRONG = (
    *(("launch", "SPACE", "--out", "OUT", "--address", address) for address in ADDRESSES),
    *(("resume", "SWEEP", "--address", address) for address in ("", " ")),
    *(("launch", "SPACE", "--out", path) for path in NO_FOLDER),
    *(("launch", "SPACE", "--out", "OUT", "--store", path) for path in (*NO_FOLDER, "foo://x")),
    *(("plan", "SPACE", "--store", path) for path in (*NO_FOLDER, "foo://x")),
    *((command, path) for command in ("launch", "plan", "submit") for path in (*NO_FOLDER, "FOLDER")),
    *(
        (command, path)
        for command in ("status", "collect", "reveal", "resume", "report")
        for path in (*NO_FOLDER, "FOLDER")
    ),
    *(("collect", "SWEEP", "-o", path) for path in NO_FOLDER),
    *(("report", "SWEEP", "-o", path) for path in ("FOLDER", LONG, "a\0b")),
    *(("analyse", "table_results", path) for path in (*NO_FOLDER, "FOLDER")),
    *(("analyse", "table_results", "SWEEP", "--out", path) for path in (LONG, "a\0b")),
    ("analyse", "table_result", "SWEEP"),
    *(("replay", "abc", "--from", path) for path in (*NO_FOLDER, "SWEEP")),
    *(("pretrain", "swin-micro", "--store", path) for path in NO_FOLDER),
    *(("pretrain", "swin-micro", "--threads", n) for n in ("0", "-1", "x")),
    *(("job", "list", "--address", address) for address in DASHBOARDS),
    *(("submit", "SPACE", "--out", "/tmp/orca-sweep-out", "--address", address) for address in DASHBOARDS),
    *(("data", "fetch", "darcy", "--base-url", "FOLDER", "--data", path) for path in NO_FOLDER),
    *(
        ("data", "fetch", "darcy", "--data", "FOLDER", "--base-url", path)
        for path in (*NO_FOLDER, "http://", "ftp://x")
    ),
    *(("data", command, "darcy", "--data", path) for command in ("check", "convert") for path in NO_FOLDER),
    *(("data", "check", "digits", "--imports", f"{path}.py") for path in NO_FOLDER),
)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    root = tmp_path_factory.mktemp("places")
    (root / "space.yaml").write_text(SPACE)
    (root / "file").write_text("x")
    (root / "folder").mkdir()
    (root / "loop").symlink_to("loop")
    sweep_folder(root / "sweep")
    return {"SPACE": root / "space.yaml", "FILE": root / "file", "FOLDER": root / "folder", "LOOP": root / "loop",
            "SWEEP": root / "sweep", "OUT": root / "out"}  # fmt: skip


def written_out(word, places):
    first, slash, rest = word.partition("/")
    return f"{places[first]}{slash}{rest}" if first in places else word


@pytest.mark.parametrize("words", WRONG, ids=lambda words: " ".join(words).replace(LONG, "LONG"))
def test_what_cannot_be_is_told_and_nothing_is_written(words, places, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    root = places["FILE"].parent
    before = snapshot(root)
    ended = orca(*(written_out(word, places) for word in words))
    assert ended.code == 2, ended.text
    assert "Traceback" not in ended.text and ended.text
    is_lock = lambda path: path.name.endswith(".lock")  # noqa: E731
    assert [path for path in before.keys() ^ snapshot(root).keys() if not is_lock(path)] == []


def test_a_metric_that_no_table_has_is_told(tmp_path):
    ended = orca("report", sweep_folder(tmp_path / "s"), "-o", tmp_path / "r.html", "--metric", "nonsense")
    assert ended.code == 2
    assert (
        "metric = 'nonsense': this is not a column of metrics in the trials table. Known: test_metric_best"
        in ended.text
    )


@pytest.mark.parametrize(
    ("entry", "value", "words"),
    [
        (
            "encoder_stride",
            "x",
            "not understand its config.json .* Field 'encoder_stride' expected int, got str .* Correct that entry",
        ),
        (
            "layer_norm_eps",
            None,
            "transformers does not understand its config.json .* Field 'layer_norm_eps' expected float, got NoneType",
        ),
        ("hidden_act", "nonsense", "the library that reads it does not know 'nonsense'.* Correct config.json"),
    ],
)
def test_what_a_library_says_of_a_body_has_a_place_and_a_remedy(saved_body, entry, value, words):
    folder = saved_body("vit")
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), entry: value}))
    with pytest.raises(OrcaSweepError, match=words) as caught:
        load_pretrained(find_body(str(folder)))
    assert str(folder) in str(caught.value) and "Error:" not in str(caught.value)


def test_a_reason_has_no_names_of_classes():
    errors = {
        "a size is 0: integer modulo by zero": lambda: 1 % 0,
        "the library that reads it does not know 'x'": lambda: {}["x"],
    }
    for words, cause in errors.items():
        with pytest.raises((ArithmeticError, LookupError)) as caught:
            cause()
        assert reason_of(caught.value).startswith(words)


def test_an_error_about_a_file_name_that_is_no_utf8_is_a_row_that_can_be_read(tmp_path, user_tasks):
    from orca_sweep import results
    from orca_sweep.store import Store
    from orca_sweep.tasks import TASKS
    from orca_sweep.training.run import RunContext, run_config
    from orca_sweep.training.worker import Worker
    from orca_sweep.trial import make_config

    def load(root, split_seed):
        raise OSError("no such file: gr\udcfcn.npy")

    TASKS.add(replace(TASKS.get("tiny"), name="no-utf8", load=load))
    config = make_config({"task": "no-utf8", "proxy": "none"})
    row = run_config(
        config, RunContext(folder=tmp_path, worker=Worker(Store(str(tmp_path / "store"))), data_root=tmp_path)
    )
    assert row["status"] == "failed"
    assert results.read_record(tmp_path, config.trial_id)["row"]["error"] == r"OSError: no such file: gr\udcfcn.npy"
    assert r"gr\udcfcn.npy" in (tmp_path / "trials" / config.trial_id / "error.txt").read_text(encoding="utf-8")
