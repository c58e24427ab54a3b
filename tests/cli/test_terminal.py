"""Terminals: no word, number or path is broken at any width, rows keep their heads, and trials are named by levels."""

import io
import re
import shlex
import subprocess

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from typer.testing import CliRunner

from orca_sweep import cli
from orca_sweep.cli.layout import find_width, lay_out_table, wrap_text, write_command, write_names
from orca_sweep.cli.listing import KINDS, describe_names
from orca_sweep.cli.progress import Progress
from orca_sweep.cli.summary import _print_cells
from orca_sweep.config.naming import shorten_paths
from orca_sweep.results import collect
from orca_sweep.space.trial_names import TrialNames
from tests.builders.in_process import command
from tests.builders.sweeps import sweep_folder
from tests.builders.tables import NONE, cell_rows, sweep
from tests.builders.terminals import run_on_terminal

WORDS = st.text("ab1.,/数据é\u0301", min_size=1, max_size=30)
TEXTS = st.lists(WORDS, min_size=1, max_size=12).map(" ".join)
WIDTHS = st.integers(20, 120)


def check_lines(lines, width):
    """Checks that no line is wider than the terminal, unless it is a single word."""
    for line in lines:
        assert cell_len(line) <= width or len(line.split()) == 1, line


# Layout ------------------------------------------------------------------------------------------


@given(text=TEXTS, width=WIDTHS)
def test_text_breaks_at_blanks_only(text, width):
    lines = wrap_text(text, width)
    check_lines(lines, width)
    assert " ".join(lines).split() == text.split()
    assert wrap_text(text, None) == [text]


def test_a_text_keeps_its_lines_and_blanks_and_hangs_below_its_start():
    assert wrap_text("  a  b\n\nc d", 80) == ["  a  b", "", "c d"]
    assert wrap_text("  one two three", 10) == ["  one two", "    three"]
    assert wrap_text("see /a/path/of/20/columns now", 20) == ["see", "/a/path/of/20/columns", "  now"]


@given(words=st.lists(st.text("ab '\"$\\x数", min_size=1, max_size=25), min_size=1, max_size=8), width=WIDTHS)
def test_a_command_can_be_pasted_at_any_width(words, width):
    lines = write_command("run:", shlex.join(words), width)
    pasted = "\n".join(lines).split("run:", 1)[1]
    assert shlex.split(pasted.replace(" \\\n", " ")) == words


def test_a_shell_runs_a_continued_command():
    lines = write_command("run:", shlex.join(["printf", "%s|", *(f"word number {i}" for i in range(9))]), 40)
    assert len(lines) > 4
    done = subprocess.run(["sh", "-c", "\n".join(lines[1:])], capture_output=True, text=True, check=True)
    assert done.stdout == "".join(f"word number {i}|" for i in range(9))


def test_a_command_stands_below_its_words_if_it_does_not_fit_beside_them():
    assert write_command("Then:", "orca-sweep resume x", 40) == ["Then: orca-sweep resume x"]
    assert write_command("To run the rest:", "orca-sweep resume results/x", 30) == [
        "To run the rest:",
        "  orca-sweep resume results/x",
    ]


@given(
    head=st.lists(
        st.sampled_from(["cell", "proxy", "body.pretrain_fraction", "finetune.lr", "n"]), min_size=2, max_size=5
    ),
    texts=st.lists(TEXTS, min_size=10, max_size=10),
    width=WIDTHS,
)
def test_a_table_shows_every_word_whole_at_any_width(head, texts, width):
    rows = [texts[i : i + len(head)] for i in range(0, 10 - len(head) + 1, len(head))]
    heads, lines = lay_out_table(head, rows, width)
    check_lines(lines, width) if not heads else None
    assert all(cell_len(line) <= width for line in heads)
    shown = set("\n".join(lines).replace(",", " ").split())
    assert {word for row in rows for text in row for word in text.replace(",", " ").split()} <= shown
    wide, one_line_each = lay_out_table(head, rows, None)
    assert (len(wide), len(one_line_each)) == (1, len(rows))


def test_a_wide_table_takes_short_heads_then_paragraphs():
    head, rows = ("cell", "finetune.freeze", "embedder.epochs"), [("1a2b", "none", "20"), ("3c4d", "forever", "0")]
    assert lay_out_table(head, rows, 80)[0] == ["cell  finetune.freeze  embedder.epochs"]
    assert lay_out_table(head, rows, 30) == (
        ["cell  freeze   epochs"],
        ["1a2b  none     20", "3c4d  forever  0"],
    )
    assert lay_out_table(head, rows, 18) == (
        [],
        [
            "cell 1a2b,", "    finetune.freeze", "        none,", "    embedder.epochs", "        20",
            "cell 3c4d,", "    finetune.freeze", "        forever,", "    embedder.epochs", "        0",
        ],
    )  # fmt: skip
    assert shorten_paths(["a.lr", "b.lr", "c.x"]) == {"a.lr": "a.lr", "b.lr": "b.lr", "c.x": "x"}


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("kind", KINDS)
def test_names_hang_below_their_column(kind, width):
    names = [(name.name, name.line or name.meaning) for name in describe_names(kind)]
    lines = list(write_names(names, 33, width))
    check_lines(lines, width)
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == [name for name, _ in names]
    assert " ".join(lines).split() == " ".join(f"{name} {meaning}" for name, meaning in names).split()
    assert list(write_names(names, 33, None)) == [f"{name:<32} {meaning}" for name, meaning in names]


def test_the_width_is_that_of_the_terminal(monkeypatch):
    assert find_width(io.StringIO()) is None

    class Screen(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("COLUMNS", "63")
    assert find_width(Screen()) == 63
    monkeypatch.setenv("COLUMNS", "wide")
    assert find_width(Screen()) == 80


# Help and errors ---------------------------------------------------------------------------------


def list_commands():
    app = typer.main.get_command(cli.app)
    for name, part in app.commands.items():
        yield from ([name, word] for word in part.commands) if hasattr(part, "commands") else [[name]]


@pytest.mark.parametrize("words", [[], ["analyse"], ["data"], ["store"], ["job"], *list_commands()], ids=" ".join)
def test_help_breaks_no_word(words):
    lines = CliRunner().invoke(cli.app, [*words, "--help"], terminal_width=58).stdout.splitlines()
    check_lines(lines, 60)
    assert "..." not in "\n".join(lines).partition("Commands:")[2]


@pytest.mark.parametrize("columns", [60, 80])
def test_a_plan_and_its_mistakes_on_a_terminal(columns, tmp_path):
    import numpy as np

    (tmp_path / "数据集 of 2024").mkdir()
    for name in ("数据集 of 2024/心电图的测量数据集", "measurements_from_the_laboratory_second_series_2023"):
        np.savez(tmp_path / f"{name}.npz", x=np.zeros((40, 1, 8), "float32"), y=np.arange(40) % 2)
    (tmp_path / "s.yaml").write_text("""
question: 冻结主体对错误率有何影响、以及预训练的数据量在多大程度上可以由嵌入器训练替代
base: {body.name: roberta-micro, proxy: pydoc-topics}
factors:
  task:
    - {path: "数据集 of 2024/心电图的测量数据集.npz", kind: classification, sample_shape: [1, 8], output_shape: 2}
    - {path: measurements_from_the_laboratory_second_series_2023.npz, kind: classification, sample_shape: [1, 8], output_shape: 2}
  embedder.epochs: [0, 5]
  finetune.freeze: [none, body]
seeds: 3
""")
    code, lines = run_on_terminal("plan", "s.yaml", columns=columns, cwd=tmp_path)
    assert code == 0, lines
    check_lines(lines, columns)
    for word in ("心电图的测量数据集.npz", "measurements_from_the_laboratory_second_series_2023.npz"):
        assert any(word in line for line in lines)
    (tmp_path / "s.yaml").write_text("base: {task: digts, finetune.lrr: 1e-4, proxy: mnist}\nseeds: 2\n")
    code, lines = run_on_terminal("plan", "s.yaml", columns=columns, cwd=tmp_path)
    assert code == 2
    check_lines(lines, columns)
    assert "Did you mean 'digits'?" in " ".join(" ".join(lines).split())
    code, lines = run_on_terminal("plan", "s.yaml", "--max-trialss", "1", columns=columns, cwd=tmp_path)
    check_lines(lines, columns)
    assert code == 2


# Names of trials ---------------------------------------------------------------------------------


def test_trials_are_named_by_levels_and_seed_and_by_id_where_that_is_not_enough():
    names = TrialNames({"c": {"proxy": "none", "body.pretrain_fraction": "0"}}, ["finetune.lr"])

    def name(trial_id, cell_id="c", seed=2, role="replicate", **tuned):
        return names.add_trial(trial_id, cell_id, seed=seed, role=role, tuned=tuned)

    assert name("t1") == "proxy none, pretrain_fraction 0, seed 2"
    assert name("t1") == "proxy none, pretrain_fraction 0, seed 2"
    assert name("t2", "c-aa", 9, "aa") == "proxy none, pretrain_fraction 0, A/A repeat, seed 9"
    candidate = name("t3", role="search", **{"finetune.lr": "1e-4"})
    assert candidate == "proxy none, pretrain_fraction 0, lr 1e-4, candidate of tuning, seed 2"
    assert name("t4") == "proxy none, pretrain_fraction 0, seed 2, trial t4"
    assert name("t1") == "proxy none, pretrain_fraction 0, seed 2, trial t1"
    assert TrialNames({}, []).add_trial("t", "c", seed=0, role="replicate", tuned={}) == "seed 0"


TUNED = """
    base: {task: tiny}
    factors: {finetune.freeze: [none, body], body.pretrain_fraction: [0, 1]}
    tune: {finetune.lr: [1e-3, 1e-4]}
    seeds: 2
    aa: 2
"""


@pytest.fixture
def progress(plan_of):
    """The progress of a tuned sweep on a terminal of 60 columns, and what it has printed."""
    screen = io.StringIO()
    console = Console(
        file=screen, force_terminal=True, width=60, height=24, highlight=False, markup=False, color_system=None
    )
    return Progress(console, plan_of(TUNED)), screen


def end(progress, trial, **facts):
    progress("run", {"trial_id": trial.trial_id, "trial": trial})
    facts = {"status": "ok", "wall_time_s": 3.12, "val_metric_best": 0.418, **facts}
    progress("end", {"trial_id": trial.trial_id, "cell_id": trial.cell_id, **facts})


def test_progress_names_levels_and_seed(progress):
    shown, screen = progress
    shown("start", {"n_todo": 8, "n_shared": 0, "n_done": 0, "n_later": 10, "dashboard": None})
    trial = shown.plan.trials[0]
    end(shown, trial, reused="pretrain,proxy-features")
    end(shown, shown.plan.trials[1], status="failed", val_metric_best=None, error="ValueError: x", again=True)
    lines = screen.getvalue().splitlines()
    check_lines(lines, 60)
    text = " ".join(screen.getvalue().split())
    name = "freeze none, pretrain_fraction 0, lr 1e-3, candidate of tuning, seed 1000000"
    assert f"[1/8 at 0 s] {name}: ok in 3.1 s, validation 0.4180, reused pretrain, proxy-features" in text
    assert "failed in 3.1 s, ValueError: x, will be tried again" in text
    assert trial.trial_id not in text


def test_the_live_table_fits_the_screen_and_breaks_nothing(progress):
    shown, screen = progress
    trials = {trial.cell_id: trial for trial in shown.plan.trials}
    for i, trial in enumerate(trials.values()):
        end(shown, trial, val_metric_best=0.4 + i / 10, metric_mode="max")
    for trial in shown.plan.trials[:4]:
        shown("run", {"trial_id": trial.trial_id, "trial": trial})
        shown("epoch", {"trial_id": trial.trial_id, "stage": "finetune", "epoch": 3, "val_metric": 0.5})
    for height in (24, 12, 5):
        screen.truncate(0)
        screen.seek(0)
        shown.console.size = shown.console.size._replace(height=height)
        shown.console.print(shown._draw())
        lines = screen.getvalue().splitlines()
        check_lines(lines, 60)
        assert len(lines) < height
        if height == 24:
            best = [line.split()[0] for line in lines if re.match(r"0\.\d{4} ", line)]
            assert best == ["0.7000", "0.6000", "0.5000", "0.4000"]
            assert any("best validation" in line and "pretrain_fraction" in line for line in lines)


def test_a_live_table_without_a_result_has_no_head(progress):
    shown, screen = progress
    shown.console.print(shown._draw())
    assert "best" not in screen.getvalue()


def test_status_names_failures_by_levels_and_seed(tmp_path, monkeypatch, capsys):
    from orca_sweep.space.manifest import require_manifest, write_manifest

    folder = sweep_folder(tmp_path / "s", statuses=["failed", "ok", None])
    manifest = require_manifest(folder)
    labels = {
        trial["cell_id"]: {"embedder.epochs": str(trial["config"]["embedder.epochs"])} for trial in manifest.trials
    }
    write_manifest(folder, manifest.model_copy(update={"labels": labels}))
    (folder / "trials" / manifest.trials[2]["trial_id"]).mkdir(exist_ok=True)
    assert command(monkeypatch, "status", folder) == 0
    text = capsys.readouterr().out
    assert f"{manifest.trials[0]['trial_id']} failed, epochs 0, seed 0\n" in text
    assert "started:\n  epochs 0, seed 2\n" in text
    code, lines = run_on_terminal("status", folder, columns=60)
    assert code == 0
    check_lines(lines, 60)
    assert "failed, epochs 0, seed 0" in " ".join(" ".join(lines).split())


# Heads of a summary ------------------------------------------------------------------------------


def show_cells(results):
    screen = io.StringIO()
    _print_cells(results, Console(file=screen, highlight=False, markup=False))
    return screen.getvalue().splitlines()


def test_a_summary_without_an_ok_trial_says_so_below_no_empty_brackets(tmp_path):
    folder = sweep_folder(tmp_path / "s", statuses=["failed"] * 3 + [None] * 3)
    lines = show_cells(collect([folder], tmp_path / "t"))
    assert lines[0] == "test_metric_best: no trial is ok yet, so there is nothing to average"
    assert lines[1].split("  ")[0] == "embedder.epochs"
    assert [re.split(r"\s{2,}", line)[1:] for line in lines[2:]] == [
        ["0", "-", "-", "3 failed"],
        ["0", "-", "-", "3 unfinished"],
    ]


def test_a_task_without_an_ok_trial_has_its_own_words(tmp_path):
    rows = [*cell_rows(NONE, [0.3, 0.4]), *cell_rows({**NONE, "task": "cifar100"}, [None, None])]
    lines = show_cells(sweep(tmp_path, rows, factors=("task", "proxy")))
    assert lines[0] == (
        "test_metric_best (digits: error, lower is better; cifar100: no trial is ok yet), mean over n seeds with Student-t"
        " interval:"
    )
    assert lines[-1].split() == ["cifar100", "none", "0", "-", "-", "2", "failed"]
