"""Control characters in names, errors and levels come out written, on terminals and in files for spreadsheets."""

import csv
import io
import sys

import pytest
from rich.table import Table

from orca_sweep import results
from orca_sweep.analysis.writing import escape_csv, format_csv_rows
from orca_sweep.cli.terminal import open_console
from orca_sweep.config.labels import write_level
from orca_sweep.space.manifest import require_manifest, write_manifest
from orca_sweep.visible import EscapingStream, escape_controls, escape_output, has_controls
from tests.builders.in_process import command
from tests.builders.sweeps import sweep_folder

NASTY = "a\x1b[2J\x1b]0;title\x07\r\x08b\x9b31m\u202egnp\u2066\x7f\udcff\u2028\ufeff"
SHOWN = r"a\x1b[2J\x1b]0;title\x07\r\x08b\x9b31m\u202egnp\u2066\x7f\udcff\u2028\ufeff"


def assert_clean(text):
    assert not has_controls(text.replace("\n", "").replace("\t", "")), text


def test_control_characters_are_written_out_and_letters_stay():
    assert escape_controls(NASTY) == SHOWN
    assert escape_controls("a\n\tb", keep="\n\t") == "a\n\tb"
    assert escape_controls("a\n\tb") == r"a\n\tb"
    plain = "größe, 数据, שלום, 👩\u200d🔬, η², \u00a0"
    assert escape_controls(plain) == plain and not has_controls(plain)


def test_everything_printed_in_a_block_is_escaped_and_nothing_after(capsys):
    with escape_output():
        print(NASTY)
        print(NASTY, file=sys.stderr)
        sys.stdout.writelines([NASTY, "\n"])
        assert sys.stdout.isatty() is False and sys.stdout.encoding
        with pytest.raises(TypeError):  # by which click knows a stream of text
            sys.stdout.write(b"")
    print("\x1b")
    out, err = capsys.readouterr()
    assert (out, err) == (f"{SHOWN}\n{SHOWN}\n\x1b\n", f"{SHOWN}\n")


def test_a_console_escapes_texts_and_cells_and_keeps_its_own_colours(monkeypatch):
    class Screen(io.StringIO):
        def isatty(self):
            return True

    screen = Screen()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("sys.stdout", EscapingStream(screen))
    console = open_console()
    console.print("head", style="bold")
    assert screen.getvalue() == "\x1b[1mhead\x1b[0m\n"
    screen.truncate(0)
    console.print(NASTY, soft_wrap=True)
    table = Table("level", box=None)
    table.add_row(write_level(NASTY))
    console.print(table, width=200)
    shown = screen.getvalue().replace("\x1b[1m", "").replace("\x1b[0m", "").replace("\x00", "")
    assert_clean(shown)
    assert r"\x1b[2J" in shown and SHOWN in shown  # rich itself leaves out some of them


@pytest.fixture
def nasty_sweep(tmp_path):
    folder = sweep_folder(tmp_path / "s", statuses=["ok", "failed", "failed"])
    manifest = require_manifest(folder)
    failed = [trial["trial_id"] for trial in manifest.trials][1]
    record = results.read_record(folder, failed)
    record["row"] = results.make_json_safe(
        {**record["row"], "error": f"ValueError: {NASTY}\nmore"}
    )  # as a trial's end writes it
    results.write_json(folder / "trials" / failed / "row.json", record)
    (folder / "trials" / failed / "error.txt").write_bytes(f"{NASTY}".encode("utf-8", "surrogateescape"))
    texts = {"name": NASTY.replace("\udcff", ""), "question": NASTY.replace("\udcff", "")}
    write_manifest(folder, manifest.model_copy(update=texts))
    return folder


def test_status_shows_them_written(nasty_sweep, monkeypatch, capsys):
    assert command(monkeypatch, "status", nasty_sweep) == 0
    out, err = capsys.readouterr()
    assert_clean(out + err)
    assert out.count(r"\x1b[2J") >= 2
    assert command(monkeypatch, "status", nasty_sweep, "--json") == 0
    assert_clean(capsys.readouterr().out)


@pytest.mark.parametrize(
    "words",
    [
        ("status", NASTY), ("plan", NASTY), ("launch", NASTY), ("resume", NASTY), ("collect", NASTY, "-o", NASTY),
        ("report", NASTY), ("reveal", NASTY), ("store", "ls", NASTY), ("store", "gc", NASTY), ("store", "mark", NASTY),
        ("list", NASTY), (NASTY,), ("data", "check", NASTY), ("data", "fetch", NASTY), ("replay", NASTY),
        ("pretrain", NASTY), ("submit", NASTY, "--out", NASTY), ("status", ".", f"--{NASTY}"),
    ],
)  # fmt: skip
def test_an_error_that_echoes_a_value_shows_it_written(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, *words) in (1, 2)
    out, err = capsys.readouterr()
    assert err
    assert_clean(out + err)
    assert "Traceback" not in err


def test_a_plan_shows_levels_and_mistakes_written(tmp_path, write_space, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    good = write_space(r"""
        question: "a\e[2J\r"
        base: {task: tiny}
        factors: {embedder.epochs: [0, 1]}
        seeds: 2
    """)
    assert command(monkeypatch, "plan", good) == 0
    out = capsys.readouterr().out
    assert_clean(out)
    assert r"a\x1b[2J" in out
    bad = write_space('base: {task: tiny, "fine\\e[2Jtune.lr": "\\u202e", proxy: "a\\rb\\b"}\nseeds: 2\n', "bad.yaml")
    assert command(monkeypatch, "plan", bad) == 2
    assert_clean(capsys.readouterr().err)


def test_csv_has_them_written():
    text = format_csv_rows((NASTY,), [(NASTY, f"={NASTY}", 1.5, None, "-1", "\r=x")])
    assert_clean(text)
    assert list(csv.reader(io.StringIO(text)))[1] == [SHOWN, f"'={SHOWN}", "1.5", "", "-1", r"'\r=x"]
    assert escape_csv("größe") == "größe"
