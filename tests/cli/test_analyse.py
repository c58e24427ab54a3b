"""``orca-sweep analyse``: every analysis of the list, its options, where it writes, and what it refuses."""

import inspect
import re

import pytest

from orca_sweep.analysis.catalogue import ANALYSES, load_analysis
from orca_sweep.cli.analyse import make_command
from tests.builders import tables
from tests.builders.in_process import command, orca
from tests.builders.sweeps import sweep_folder

NAMES = ANALYSES.names()


@pytest.fixture
def sweep(tmp_path):
    return sweep_folder(tmp_path / "sweep")


@pytest.mark.parametrize("name", NAMES)
def test_each_declared_option_is_one_of_its_compute(name):
    analysis, module = ANALYSES.get(name), load_analysis(name)
    parameters = {**inspect.signature(module.make_output).parameters, **inspect.signature(module.compute).parameters}
    if hasattr(module, "Options"):  # a record of the options that compute takes
        parameters |= inspect.signature(module.Options).parameters
    for option in analysis.options:
        assert option.parameter in parameters, option
        default = parameters[option.parameter].default
        if option.kind in ("number", "share"):
            assert option.meaning.endswith(f"default: {default:g}")
    assert name == module.NAME
    assert module.numbers
    assert (module.make_output.__doc__ or "").startswith("Returns what to write of the analysis")


@pytest.mark.parametrize("name", NAMES)
def test_a_command_has_the_options_that_its_analysis_declares(name):
    parameters = list(inspect.signature(make_command(ANALYSES.get(name))).parameters)
    assert parameters == ["folder", "out", "as_json", *(option.parameter for option in ANALYSES.get(name).all_options)]


def test_it_writes_below_the_sweep_and_reads_sweeps_and_tables(sweep, tmp_path, monkeypatch, capsys):
    assert command(monkeypatch, "analyse", "table_results", sweep) == 0
    files = [str(sweep / "figures" / f"table_results.{kind}") for kind in ("csv", "md", "tex")]
    assert capsys.readouterr().out.splitlines() == files
    assert (sweep / "tables" / "trials.parquet").is_file()
    assert command(monkeypatch, "analyse", "table_results", sweep / "tables", "--out", tmp_path / "out") == 0
    assert (tmp_path / "out/table_results.csv").read_bytes() == (sweep / "figures/table_results.csv").read_bytes()


def test_nothing_is_written_into_a_sweep_that_is_only_read(sweep, tmp_path, monkeypatch):
    before = sorted(sweep.rglob("*"))
    assert command(monkeypatch, "analyse", "table_results", sweep, "-o", tmp_path / "out") == 0
    assert sorted(sweep.rglob("*")) == before


def test_options_reach_the_analysis(sweep, tmp_path, monkeypatch):
    words = ("analyse", "table_results", sweep, "-o", tmp_path, "--metric", "val_metric_last", "--level", "0.8")
    assert command(monkeypatch, *words) == 0
    text = (tmp_path / "table_results.csv").read_text()
    assert "val_metric_last" in text
    assert "80% Student-t interval" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["figure2"], "there is no analysis 'figure2'. Did you mean 'figure2_proxies'?"),
        (["claims", "SWEEP", "--margn", "1"], "No such option: --margn"),
        (["claims", "SWEEP", "--margn", "1"], "--margin"),
        (["table_results", "SWEEP", "--level", "95"], "A share is between 0 and 1, such as 0.95."),
        (["table_effects", "SWEEP", "--base", "prox=none"], "'prox' is not a factor of these tables"),
        (["cost", "SWEEP", "--gpus-per-trial", "0"], "the number must be positive"),
        (["cost", "SWEEP", "--gpus-per-trial", "x"], "Invalid value for '--gpus-per-trial'"),
        (["figure4_freezing", "SWEEP"], "'finetune.freeze' is not a factor of this sweep"),
        (["cost", "FOLDER"], "neither a sweep (no sweep.json) nor tables (no trials.parquet)"),
        (["cost"], "Missing argument"),
    ],
)
def test_what_is_wrong_is_told_with_exit_code_2(sweep, tmp_path, monkeypatch, capsys, words, said):
    (tmp_path / "folder").mkdir()
    places = {"SWEEP": sweep, "FOLDER": tmp_path / "folder"}
    words = [places.get(word, word) for word in words]
    out = ["--out", tmp_path / "out"] if len(words) > 1 else []
    assert command(monkeypatch, "analyse", *words, *out) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_ends_with_code_1(sweep, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    assert command(monkeypatch, "analyse", "table_results", sweep, "--out", tmp_path / "file") == 1
    assert "file: File exists. Nothing was left half-written." in capsys.readouterr().err


def test_a_figure_has_the_width_and_the_letters_that_are_asked_for(tmp_path):
    tables.sweep(tmp_path, tables.cell_rows(tables.NONE, tables.BASE), tables.cell_rows(tables.MNIST, tables.BETTER))
    words = ("analyse", "figure2_proxies", tmp_path / "s", "-o", tmp_path / "f")
    ended = orca(*words, "--width", "column", "--font-size", "7", "--no-caption")
    assert ended.code == 0, ended.text
    points = re.search(
        r"MediaBox \[ 0 0 ([\d.]+)", (tmp_path / "f" / "figure2_proxies.pdf").read_bytes().decode("latin1")
    )
    assert float(points[1]) == pytest.approx(3.25 * 72, abs=0.5)
    refused = orca(*words, "--width", "wide")
    assert (refused.code, "a width is column, page, or a number of inches" in refused.text) == (2, True)
