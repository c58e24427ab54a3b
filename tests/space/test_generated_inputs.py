"""Generated inputs: whatever a user gives, the command line ends with code 0, 1 or 2, in words, and leaves nothing behind.

Four kinds of inputs: spaces, declarations of own tasks with real files, command lines, and freeze schedules. The command line
runs in this process. The short form tries some hundreds; ``pytest -m long`` tries many times more (ORCA_SWEEP_EXAMPLES says
how many of each kind). The counts are printed at the end of each test.
"""

import contextlib
import json
import math
import os
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orca_sweep import cli
from orca_sweep.config.canonical_schedules import canonicalise_schedule, write_schedule
from orca_sweep.config.freeze_words import KINDS, PRESETS, WORDS
from orca_sweep.config.freezing import FIELDS, check_schedule, parse_schedule
from tests.builders.levels import LEVELS

MOST_LEVELS, MOST_FACTORS = 3, 3
"""Limits of a generated space, so that its grid stays small."""
SHORT = {"spaces": 100, "tasks": 60, "command lines": 80, "freeze": 100}
"""The number of inputs of each kind."""
LONG_FACTOR = 100


class Counts:
    """The number of inputs so far, and how they ended."""

    def __init__(self, kind):
        self.kind, self.ends = kind, Counter()

    def say(self, capsys):
        ends = ", ".join(f"{n} with exit code {code}" for code, n in sorted(self.ends.items()))
        with capsys.disabled():
            print(f"\ngenerated {self.kind}: {self.ends.total()} inputs, {ends}")
        assert self.ends.total() and set(self.ends) <= {0, 1, 2}


def snapshot(folder):
    """Everything below a folder: names and contents of files."""
    contents = {}
    for parent, folders, files in os.walk(folder):
        contents |= {os.path.join(parent, name): None for name in folders}
        paths = [Path(parent) / name for name in files]
        contents |= {str(path): os.readlink(path) if path.is_symlink() else path.read_bytes() for path in paths}
    return contents


@contextlib.contextmanager
def captured():
    """Collects the output of this process and its children: yields two files, of stdout and stderr."""
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in "oe"]
        for number, file in enumerate(files, start=1):
            before = os.dup(number)
            stack.callback(os.close, before)
            stack.callback(os.dup2, before, number)
            os.dup2(file.fileno(), number)
        streams = [stack.enter_context(open(file.fileno(), "w", encoding="utf-8", closefd=False)) for file in files]
        with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
            yield files


def run_main(args):
    """Runs the command line in this process; returns its exit code and output."""
    before, sys.argv = sys.argv, ["orca-sweep", *args]
    code = 0
    try:
        with captured() as files:
            try:
                cli.main()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
            sys.stdout.flush()
            sys.stderr.flush()
            outputs = []
            for file in files:
                file.seek(0)
                outputs.append(file.read().decode(errors="replace"))
    finally:
        sys.argv = before
    return code, *outputs


def check_ending(args, folder, counts):
    """Runs a command in a folder and checks what holds for every command."""
    before = snapshot(folder)
    with contextlib.chdir(folder):
        code, out, err = run_main(args)
    counts.ends[code] += 1
    assert code in (0, 1, 2), (args, err[-2000:])
    assert "Traceback" not in err + out, err[-2000:]
    if code == 2:
        assert (err + out).strip()  # never silent
        assert snapshot(folder) == before, args
    return code


def tried(kind, factor=1):
    """Returns hypothesis settings for a number of inputs of a kind."""
    n = int(os.environ.get("ORCA_SWEEP_EXAMPLES", 0)) or SHORT[kind] * factor
    unhealthy = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
    return settings(max_examples=n, suppress_health_check=unhealthy, database=None, derandomize=factor == 1)


forms = pytest.mark.parametrize("factor", [1, pytest.param(LONG_FACTOR, marks=pytest.mark.long)], ids=["short", "long"])


# Scalars ------------------------------------------------------------------------------------------

ODD = st.sampled_from([
    "", "~", "null", "no", "yes", "true", ".nan", ".inf", "-.inf", "NaN", "1e999", "-1", "0", "1e-4", "1_000", "0x1F", "1:30",
    "9" * 30, "1e-400", "-0.0", "!!python/object/apply:os.system ['true']", "!!binary aGk=", "!!set {a}", "!!float x", "*a",
    "&a 1", "<<", "[]", "{}", "[[]]", "{a: }", "'", '"', '"\\0"', '"\\ud800"', "\u00e9", "\u202e", "\U0001f600", "\x00", "\t",
    "| x", "> y", "@x", "%y", "`z", "- a", "? b", ": c", "2001-01-01", "/", "..", "~nobody/x", "a" * 300, "a/" * 2500, "=1+1",
    "{path: x}", "shuffled:", "shuffled:shuffled:mnist5k", "a[b]:c->d", './x"[]:a->b', "org/name", "openml:0", "openml:x",
    "openml-orca:1",
    "x.npz kind=classification", "x kind=", "'x kind=a", "body:4 > none", "body.layers[0:99]",
])  # fmt: skip
TEXTS = st.one_of(ODD, st.text(max_size=12), st.integers().map(str), st.floats().map(repr))
PATHS = st.sampled_from([path for path in LEVELS if path != "task"])


@st.composite
def leaf(draw, path, is_clean):
    """A level of a field as a YAML writes it; in inputs that are not clean, sometimes something else."""
    if is_clean or draw(st.integers(0, 4)):
        return draw(st.sampled_from(LEVELS[path]))
    return draw(TEXTS)


# Spaces -------------------------------------------------------------------------------------------

MORE = {
    "name": ["mine", "../x", "a b", "''"],
    "question": ["why?", "[a]"],
    "design": ["cross", "zip", "one_at_a_time", "drop_one", "add_one", "fraction", "{name: fraction, resolution: 5}",
               "{name: x}"],
    "include": ["[{proxy: none}]", "[{embedder.epochs: 0}]", "[{}]", "[1]", "{a: b}"],
    "exclude": ["[{proxy: none, embedder.epochs: 0}]", "[{finetune.freeze: [none, body]}]", "[[a]]"],
    "when": ["[{if: {finetune.freeze: body}, set: {finetune.lr: 1e-2}}]", "[{if: {}, set: {}}]", "[{if: a, set: b}]"],
    "placebo": ["[shuffled, dummy]", "[dummy]", "[none]", "shuffled"],
    "tune": ["{finetune.lr: [1e-3, 1e-4]}", "{finetune.lr: {low: 1e-5, high: 1e-3, log: true}}", "{finetune.lr: {low: 1}}",
             "{finetune.momentum: {low: 0.5, high: 0.1}}", "{finetune.batch_size: {low: 1, high: 64, log: true}}"],
    "search": ["grid", "random", "{method: random, candidates: 3}", "{method: optuna, candidates: 2, seeds: [9]}",
               "{candidates: -1}"],
    "prune": ["asha", "median", "{name: asha, cells: true}", "{name: asha, reduction: 1}"],
    "aa": ["2", "[5, 6]", "[0]", "-1"],
    "metric": ["val_metric_last", "test_metric_best", "loss"],
    "margin": ["0.01", "{digits: 0.01}", "{x: 1}", "-1", "[]"],
    "checkpoints": ["{epochs: 5, minutes: 10}", "{epochs: 0}", "5"],
    "limits": ["{trial_s: 60}", "{trial_s: 0}", "{trial_s: .nan}"],
    "budget": ["{trials: 3, hours: 1}", "{hours: .inf}", "{gpu_hours: -1}"],
    "outcomes": ["{oom: {retry: 2}, diverged: worst}", "{ok: worst}", "{failed: 7}", "[oom]"],
    "resources": ["{cpu: 2}", "{gpu: 0.5, accelerator_type: A100}", "{custom: {CPU: 1}}", "{cpu: 0}", "{accelerator_type: x}"],
    "loggers": ["[csv]", "[{mlflow: {experiment: a}}]", "[x]", "[csv, csv]", "{csv: {}}"],
    "imports": ["[nothing.here]", "[./no.py]", '["a\\0.py"]', f"[./{'a' * 300}.py]", "[json]", "[.]", "[1]", "[a b]",
                "['']"],
}  # fmt: skip


@st.composite
def space_texts(draw):
    """The text of a space, mostly good, with some damage."""
    is_clean = draw(st.booleans())
    paths = draw(st.lists(PATHS if is_clean else st.one_of(PATHS, PATHS, PATHS, TEXTS), max_size=5, unique=True))
    n_base = draw(st.integers(max(0, len(paths) - MOST_FACTORS), len(paths)))
    base = {} if not is_clean and draw(st.integers(0, 9)) == 0 else {"task": "digits"}
    base |= {path: draw(leaf(path, is_clean) if path in LEVELS else TEXTS) for path in paths[:n_base]}
    factors = {}
    for path in paths[n_base:]:
        wanted = leaf(path, is_clean) if path in LEVELS else TEXTS
        factors[path] = draw(st.lists(wanted, min_size=int(is_clean), max_size=MOST_LEVELS, unique=True))
    lines = ["base:", *(f"  {path}: {value}" for path, value in base.items())] if base else []
    lines += ["factors:", *(f"  {path}: [{', '.join(of)}]" for path, of in factors.items())] if factors else []
    seeds = st.sampled_from(["1", "2", "[0, 3]"])
    lines += [f"seeds: {draw(seeds if is_clean else st.one_of(seeds, TEXTS))}"]
    for key in draw(st.lists(st.sampled_from(sorted(MORE)), max_size=1 if is_clean else 3, unique=True)):
        wanted = st.sampled_from(MORE[key][:1] if is_clean else MORE[key])
        lines.append(f"{key}: {draw(wanted if is_clean else st.one_of(wanted, wanted, TEXTS))}")
    text = "\n".join([*lines, ""])
    return text if is_clean else draw(damaged(text))


@st.composite
def damaged(draw, text):
    """A text, half of the time unchanged; otherwise some of its characters are lost, doubled or replaced."""
    if draw(st.booleans()):
        return text
    start = draw(st.integers(0, len(text)))
    end = min(len(text), start + draw(st.integers(0, 9)))
    new = draw(st.one_of(st.just(""), st.just(text[start:end] * 2), st.text(max_size=4), ODD))
    return text[:start] + new + text[end:]


@forms
def test_spaces_are_planned_or_refused_in_words(tmp_path, capsys, factor):
    counts = Counts("spaces")
    (tmp_path / "work").mkdir()
    file = tmp_path / "space.yaml"

    @tried("spaces", factor)
    @given(space_texts(), st.booleans())
    def look(text, as_json):
        file.write_text(text, encoding="utf-8", errors="surrogatepass")
        check_ending(["plan", str(file), *["--json"] * as_json], tmp_path / "work", counts)

    look()
    counts.say(capsys)


DOCUMENTS = {
    "a BOM": b"\xef\xbb\xbfbase: {task: digits}\nseeds: 1\n",
    "UTF-16": "base: {task: digits}\nseeds: 1\n".encode("utf-16"),
    "latin-1": "question: \u00e9\nbase: {task: digits}\nseeds: 1\n".encode("latin-1"),
    "a NUL": b"base: {task: 'a\0b'}\nseeds: 1\n",
    "NULs that are escaped": b'base: {task: "a\\0", proxy: "a\\0", body.name: "/a\\0"}\nimports: ["a\\0.py", "a\\0"]\nseeds: 1\n',
    "surrogates": b'name: "\\ud800"\nbase: {task: "\\ud800.npz kind=x", proxy: "\\ud800", body.name: "./\\ud800"}\n',
    "brackets": b"base: " + b"[" * 500 + b"]" * 500,
    "mappings": b"base: " + b"{a: " * 900 + b"1" + b"}" * 900,
    "digits": b"base: {task: digits, finetune.epochs: " + b"9" * 5000 + b"}\nseeds: " + b"9" * 5000,
    "an alias": b"base: {task: digits}\nfactors: {finetune.lr: &l [1e-3, 1e-4], embedder.lr: *l}\nseeds: 1\n",
    "an alias of itself": b"base: &b {task: *b}\nseeds: 1\n",
    "a merge": b"a: &a {task: digits}\nbase: {<<: *a}\nseeds: 1\n",
    "keys of all kinds": b"? [1, 2]\n: 3\nbase: {1: 2, null: 3, 1.5: 4, true: 5}\nseeds: 1\n",
    "a tag that runs": b"base: !!python/object/apply:os.system ['touch x']\nseeds: 1\n",
    "two documents": b"base: {task: digits}\nseeds: 1\n---\nbase: {}\n",
    "a list": b"- 1\n",
    "nothing": b"",
    "a tab": b"base:\n\ttask: digits\n",
    "odd phases": b"base: {task: digits}\nfactors: {finetune.freeze: [[{frozen: {a: b}, epochs: [1]}], [[a]], null]}\nseeds: 1\n",
}


def test_documents_that_are_no_space_end_in_words(tmp_path, capsys):
    counts = Counts("documents")
    (tmp_path / "work").mkdir()
    for name, content in DOCUMENTS.items():
        file = tmp_path / f"{name.replace(' ', '-')}.yaml"
        file.write_bytes(content)
        code = check_ending(["plan", str(file)], tmp_path / "work", counts)
        assert code == (0 if name in ("a BOM", "an alias") else 2), name
    counts.say(capsys)


# Tasks --------------------------------------------------------------------------------------------

DTYPES = ["float32", "float64", "int64", "uint8", "bool", "complex64", "U3", "O", "datetime64[D]", "float16"]
SHAPES = [(6, 1, 8, 8), (6, 8, 8, 1), (6, 2, 5), (6, 5), (0, 1, 8, 8), (6, 1, 8, 0), (), (5, 1, 8, 8), (6, 1, 8, 8, 1)]


@st.composite
def arrays(draw):
    dtype, shape = draw(st.sampled_from(DTYPES)), draw(st.sampled_from(SHAPES))
    array = np.zeros(shape, dtype)
    if array.size and array.dtype.kind in "fiu":
        array += np.arange(array.size).reshape(shape).astype(dtype) % 3
        if draw(st.integers(0, 5)) == 0:
            with np.errstate(all="ignore"):
                array.flat[0] = draw(st.sampled_from([math.nan, math.inf])) if array.dtype.kind == "f" else 99
    return array


TARGETS = st.one_of(
    st.sampled_from(
        [
            np.arange(6) % 2,
            np.arange(6) % 2 + 0.0,
            np.zeros(6),
            np.arange(6).reshape(6, 1) % 2 * 1.0,
            np.array(["a"] * 6),
        ]
    ),
    arrays(),
)
DECLARED = {
    "kind": ["classification", "regression", "multi-label", "dense-regression", "dense-classification", "x", "[a]"],
    "sample_shape": ["[1, 8, 8]", "[2, 5]", "1x8x8", "[8, 8, 1]", "[0, 8, 8]", "[-1]", "[1.5, 8, 8]", "x", "8",
                     "[[1], 8]", "99999999999999999999"],
    "output_shape": ["2", "[2]", "1", "[1]", "[1, 8, 8]", "[]", "0", "[2, 8, 8]", "2x", "1000000"],
    "input": ["x", "y", "nope", "a/b", "[x, y]", "''"],
    "target": ["y", "x", "nope", "''"],
    "group": ["y", "x", "g", "nope"],
    "test": ["data.npz", "other.npz", "gone.npz", "."],
    "loss": ["cross-entropy", "mse", "bce", "masked-bce", "nope"],
    "metric": ["error", "mse", "auroc-error", "nope"],
    "normalise": ["channel", "none", "pointwise", "x"],
    "val_share": ["0.2", "0.9", "1", "nan", "x"],
    "test_share": ["0.2", "0.9", "-1"],
    "layout": ["channels-first", "channels-last", "x"],
    "more": ["1"],
}  # fmt: skip


CLASSES = {"path": "data.npz", "kind": "classification", "sample_shape": "[1, 8, 8]", "output_shape": "2"}
FITTING = [
    CLASSES,
    {**CLASSES, "group": "g", "normalise": "channel"},
    {**CLASSES, "path": "x.npy"},
    {**CLASSES, "test": "other.npz"},
]
FITTING_ARRAYS = st.just((np.zeros((6, 1, 8, 8), "float32"), np.arange(6) % 2))
"""What these files declare."""


@st.composite
def declarations(draw):
    if draw(st.integers(0, 2)) == 0:
        return draw(st.sampled_from(FITTING))
    values = {
        "path": draw(
            st.sampled_from(
                ["data.npz", "data.npz", "data.npz", "x.npy", "data.parquet", "broken.npz", "data.csv", "gone.h5", "."]
            )
        )
    }
    for key in ("kind", "sample_shape", "output_shape"):
        values[key] = draw(st.sampled_from(DECLARED[key][:3] if draw(st.integers(0, 2)) else DECLARED[key]))
    for key in draw(st.lists(st.sampled_from(sorted(DECLARED)[:]), max_size=2)):
        values[key] = draw(st.sampled_from(DECLARED[key]) if draw(st.integers(0, 7)) else TEXTS)
    if not draw(st.integers(0, 9)):
        values.pop(draw(st.sampled_from(sorted(values))))
    return values


def write_files(folder, x, y, kind):
    """The files that declarations name, with arbitrary arrays."""
    for path in folder.iterdir():
        path.unlink()
    np.savez(folder / "data.npz", x=x, y=y, g=np.arange(6))
    np.savez(folder / "other.npz", x=x, y=y)
    np.save(folder / "x.npy", x, allow_pickle=True)
    np.save(folder / "y.npy", y, allow_pickle=True)
    (folder / "broken.npz").write_bytes((folder / "data.npz").read_bytes()[: 40 * kind])
    (folder / "data.csv").write_text("x,y\n1,2\n")
    pd.DataFrame({"x": [1.0, 2, 3], "y": ["a", None, "b"], "g": [1, 1, 2]}).to_parquet(folder / "data.parquet")


@forms
def test_own_tasks_are_planned_checked_or_refused_in_words(tmp_path, capsys, factor):
    counts = Counts("own tasks")
    work, space = tmp_path / "work", tmp_path / "space.yaml"
    work.mkdir()

    @tried("tasks", factor)
    @given(
        declarations(),
        st.one_of(FITTING_ARRAYS, st.tuples(arrays(), TARGETS)),
        st.integers(0, 9),
        st.sampled_from(["plan", "check", "convert"]),
    )
    def look(declared, both, kind, command):
        write_files(work, *both, kind)
        task = "{" + ", ".join(f"{key}: {value}" for key, value in declared.items()) + "}"
        space.write_text(f"base: {{task: {task}}}\nseeds: 1\n", encoding="utf-8", errors="surrogatepass")
        if command == "plan":
            check_ending(["plan", str(space)], work, counts)
        else:
            text = " ".join([declared.get("path", "x.npz"), *(f"{k}={v}" for k, v in declared.items() if k != "path")])
            check_ending(["data", command, text, "--data", str(tmp_path / "data")], work, counts)

    look()
    counts.say(capsys)


# Command lines ------------------------------------------------------------------------------------

GOOD = [
    ["plan", "good.yaml"], ["plan", "good.yaml", "--json"], ["plan", "bad.yaml"], ["plan", "good.yaml", "--out", "sweep"],
    ["plan", "good.yaml", "--store", "empty", "--data", "empty"], ["list", "tasks"], ["list", "factors"], ["list", "spaces"],
    ["collect", "sweep", "-o", "made"], ["collect", "sweep", "sweep", "-o", "made"], ["status", "sweep"],
    ["status", "sweep", "--json"],
    ["status", "sweep", "--check"], ["report", "sweep", "-o", "made.html"], ["reveal", "sweep"],
    ["analyse", "table_effects", "sweep", "-o", "made"],
    ["replay", "abc", "--from", "sweep"],
    ["data", "list"], ["data", "check", "digits"], ["data", "check", "ninapro", "--data", "empty"], ["data", "convert", "digits"],
    ["data", "fetch", "digits"], ["store", "ls", "empty"], ["store", "gc", "empty"], ["store", "gc", "empty", "--yes"],
    ["pretrain", "nothing"], ["pretrain", "minilm"], ["launch", "bad.yaml"], ["launch", "gone.yaml", "--out", "made"],
    ["resume", "empty"],
    ["submit", "bad.yaml", "--address", "http://127.0.0.1:1"], ["bench", "nothing"], ["job", "status", "x", "--address", "foo"],
    ["job", "logs", "x", "--address", ""], ["--help"], ["--version"], ["data"], ["store"], ["job"], [], ["nothing"],
]  # fmt: skip
"""Command lines to start from; those that could start Ray or train get input that they refuse."""
FLAGS = [
    "--json", "--out", "-o", "--data", "--store", "--probe", "--address", "--dashboard-host", "--fraction", "--seed", "--steps",
    "--threads", "--gpu", "--imports", "--repeats", "--check", "--metric", "--base", "--margin", "--from", "--tolerance", "--yes",
    "--older", "--help", "--version", "--debugg", "--level", "--base-url", "--working-dir", "--env", "--nodes", "-x", "--",
    "--backend", "--kind", "--image", "--namespace", "--keep",
]  # fmt: skip
VALUES = [
    "good.yaml", "bad.yaml", "gone.yaml", "sweep", "empty", "file", ".", "", " ", "/dev/null/x", "loop", "tasks", "digits",
    "swin-micro", "nothing", "0", "-1", "1e9", "nan", "inf", "x=1", "finetune.freeze=body", "a" * 300, "a/" * 2500, "a\udcffb",
    "\u00e9", "http://127.0.0.1:1", "s3://nowhere/x", "foo://x", "ray://127.0.0.1:1", "127.0.0.1:1", "memory://x",
    "~nobody/x", "[", "{}",
]  # fmt: skip
SLOW = {"launch", "resume", "submit", "bench", "replay", "job", "pretrain"}
"""Commands that may start Ray, a Job or training: they get input that they refuse."""
REFUSED = [value for value in VALUES if value not in ("good.yaml", "sweep", "swin-micro", "tasks")]


@st.composite
def command_lines(draw):
    """A command line, unchanged or with words lost, doubled, replaced and added."""
    args = list(draw(st.sampled_from(GOOD)))
    is_slow = bool(args) and args[0] in SLOW
    known = [
        value for value in (REFUSED if is_slow else VALUES) if args[:1] != ["store"] or value[:1] not in ("/", "~")
    ]
    # Everything that a command could write or delete is inside the test's folder.
    values = st.one_of(st.sampled_from(known), st.text(st.characters(exclude_characters="\0/.~"), max_size=8))
    for _ in range(draw(st.sampled_from([0, 1, 1, 2, 3]))):
        position = draw(st.integers(1, max(1, len(args))))
        change = draw(st.sampled_from(["lose", "double", "replace", "flag", "flag with value", "word"]))
        new = {
            "flag": [draw(st.sampled_from(FLAGS))],
            "word": [draw(values)],
            "double": args[position : position + 1],
            "lose": [],
        }
        new |= {"flag with value": [draw(st.sampled_from(FLAGS)), draw(values)], "replace": [draw(values)]}
        args[position : position + (change in ("lose", "replace", "double"))] = new[change] * (1 + (change == "double"))
    return args


def make_work(folder):
    """A folder with inputs for commands: spaces, a sweep, something else."""
    folder.mkdir()
    good = "base: {task: digits, proxy: mnist5k}\nfactors: {embedder.epochs: [0, 2]}\nseeds: 2\n"
    (folder / "good.yaml").write_text(good)
    (folder / "bad.yaml").write_text("base: {task: digts}\n")
    (folder / "file").write_bytes(b"\0\xff text")
    (folder / "empty").mkdir()
    (folder / "loop").symlink_to("loop")
    (folder / "sweep").mkdir()
    (folder / "sweep" / "sweep.json").write_text(json.dumps({"name": "s", "trials": [], "factors": []}))


@forms
def test_command_lines_end_in_words(tmp_path, capsys, factor, monkeypatch):
    counts = Counts("command lines")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    numbers = iter(range(10**9))

    @tried("command lines", factor)
    @given(command_lines())
    def look(args):
        work = tmp_path / f"w{next(numbers)}"
        make_work(work)
        check_ending(args, work, counts)

    look()
    counts.say(capsys)


PATHS_OF_NO_FILE = [
    "a/" * 2500,
    "a" * 300,
    "loop",
    "loop/x",
    "a\udcffb",
    " ",
    "file",
    "file/x",
    "/dev/null/x",
    "~nobody/x",
    "",
    "\u202e",
]
WITH_A_PATH = [
    ["collect", ...], ["collect", ..., "-o", "made"], ["collect", "sweep", "-o", ...], ["status", ...], ["reveal", ...],
    ["resume", ...], ["plan", ...], ["plan", "good.yaml", "--out", ...], ["plan", "good.yaml", "--store", ...],
    ["plan", "good.yaml", "--data", ...], ["store", "ls", ...], ["store", "gc", ...], ["data", "list", "--data", ...],
    ["data", "check", "ninapro", "--data", ...], ["data", "convert", "ninapro", "--data", ...], ["data", "check", ...],
    ["replay", "x", "--from", ...], ["submit", ...], ["submit", "good.yaml", "--working-dir", ...], ["launch", ...],
    ["pretrain", ...], ["list", ...], ["report", ...], ["analyse", "table_results", ...],
    ["analyse", "table_results", "sweep", "-o", ...],
]  # fmt: skip
"""All commands that take a path."""


def test_every_impossible_path_ends_in_a_message(tmp_path, capsys):
    counts = Counts("paths")
    make_work(tmp_path / "w")
    before = snapshot(tmp_path / "w")
    for command in WITH_A_PATH:
        for path in PATHS_OF_NO_FILE:
            check_ending([path if word is ... else word for word in command], tmp_path / "w", counts)
            if snapshot(tmp_path / "w") != before:  # tables may have been made there
                shutil.rmtree(tmp_path / "w")
                make_work(tmp_path / "w")
    counts.say(capsys)


# Freeze schedules ---------------------------------------------------------------------------------

NUMBERS = st.one_of(
    st.integers(0, 12).map(str), st.sampled_from(["forever", "-1", "", "x", "9" * 12, "\u0663", "1.5", "1_0"])
)
RANGES = st.builds("body.layers[{}:{}]".format, NUMBERS, NUMBERS)
NAMES = st.one_of(st.sampled_from([*WORDS, "none", *PRESETS, "gradual-unfreeze", *KINDS]), RANGES, st.text(max_size=5))
GOOD_NAMES = st.sampled_from([*WORDS, "none", "body.layers[0:2]", "body.layers[1:]", "body.layers[:4]"])
GOOD_STEPPING = st.sampled_from(["", "", " lr*10", " lr*1e-3 constant", " constant", " fresh"])
STEPPING = st.sampled_from(
    ["", " lr*10", " lr*", " lr*1e999", " lr * 3", " constant", " fresh", " fresh fresh", " lr*2 constant fresh", " x"]
)


@st.composite
def phases(draw):
    words = draw(st.lists(NAMES, min_size=1, max_size=3))
    length = f":{draw(NUMBERS)}" if draw(st.booleans()) else ""
    return draw(st.sampled_from(["+", " + ", "++"])).join(words) + length + draw(STEPPING)


@st.composite
def good_schedules(draw):
    """Mostly a valid schedule, except for phases that do the same as the one before, or leave nothing to train."""
    texts = []
    for _ in range(draw(st.integers(1, 3))):
        words = draw(st.lists(GOOD_NAMES.filter(lambda word: word != "none"), max_size=2, unique=True)) or ["none"]
        texts.append(f"{'+'.join(words)}:{draw(st.integers(0, 9))}{draw(GOOD_STEPPING)}")
    last = draw(st.sampled_from(["", " > none", " > body", " > none fresh"]))
    return draw(st.one_of(st.just(" > ".join(texts) + last), st.sampled_from([*PRESETS, "gradual-unfreeze"])))


FREEZES = st.lists(phases(), min_size=1, max_size=3).flatmap(
    lambda texts: st.sampled_from([">", " > ", ">>"]).map(lambda sign: sign.join(texts))
)
MAPPINGS = st.lists(
    st.one_of(
        st.dictionaries(
            st.sampled_from([*FIELDS, "x"]), st.one_of(TEXTS, st.lists(TEXTS, max_size=2), st.none()), max_size=4
        ),
        TEXTS,
    ),
    max_size=3,
)


@forms
def test_freeze_schedules_are_planned_or_refused_in_words(tmp_path, capsys, factor):
    counts = Counts("freeze schedules")
    (tmp_path / "work").mkdir()
    file = tmp_path / "space.yaml"

    @tried("freeze", factor)
    @given(
        st.one_of(good_schedules(), good_schedules(), FREEZES, MAPPINGS),
        st.sampled_from(["1", "5", "20"]),
        st.sampled_from(["0", "3", "forever"]),
    )
    def look(freeze, epochs, length):
        base = {"task": "digits", "finetune.epochs": epochs, "finetune.freeze_epochs": length}
        # JSON is YAML: the text stays as it is.
        text = json.dumps({"base": base, "factors": {"finetune.freeze": ["none", freeze]}, "seeds": "1"})
        file.write_text(text, encoding="utf-8")
        code = check_ending(["plan", str(file), "--json"], tmp_path / "work", counts)
        if code == 0 and isinstance(freeze, str) and length != "forever":
            read = parse_schedule(check_schedule(freeze), int(length), 4)
            stored, n = canonicalise_schedule(freeze, int(length), int(epochs))
            again = (
                canonicalise_schedule(write_schedule(stored, str(n)), 0, int(epochs))
                if freeze != "gradual-unfreeze"
                else (stored, n)
            )
            assert again == (stored, n) and read

    look()
    counts.say(capsys)
