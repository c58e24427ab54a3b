"""Words of the command line that name what cannot be: exit code 2, in words, and nothing written."""

import pytest
from test_damage_matrix import orca, snapshot
from test_store_results import sweep_folder

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


def test_a_metric_that_no_table_has_is_told(tmp_path, capfd):
    ended = orca("report", sweep_folder(tmp_path / "s"), "-o", tmp_path / "r.html", "--metric", "nonsense")
    assert ended.code == 2
    assert "metric 'nonsense' is no column of the trials table. Take one of: val_metric_best" in capfd.readouterr().err
