"""The only writer of analyses: numbers as text, CSV, Markdown, LaTeX, pictures, and files that are written whole.

A table is plain text until it is written, because levels are the user's words and each format has its own escapes. Each
folder keeps a list of the hashes of the files that analyses wrote there. A file is replaced only if it is still what an
analysis wrote; a file that the user made or edited stays.
"""

import csv
import hashlib
import io
import math
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orca_sweep.errors import InputError
from orca_sweep.record_files import read_regular_file
from orca_sweep.stats.digits import MINUS, NOTHING
from orca_sweep.visible import escape_controls

Record = Mapping[str, object]
WRITTEN = ".orca-sweep-written"
"""A file in the folder, with a line 'SHA-256  name' for each file that was written."""
PICTURE_DPI = 300
PICTURES = ("png", "svg", "pdf")


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table for readers, in plain text."""

    name: str
    """The name of its label in LaTeX."""
    title: str
    caption: str
    """What the numbers are, what they are over and how many, and the kind of each interval."""
    head: tuple[str, ...]
    align: str
    """A letter per column: l or r."""
    blocks: tuple[tuple[tuple[str, ...], ...], ...]
    """Groups of rows."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Output:
    """Everything that an analysis writes."""

    numbers: str
    """Every number, as CSV."""
    more_numbers: Mapping[str, str] = field(default_factory=dict)
    """Further CSV texts, by the suffix of their file name after the name of the analysis."""
    tables: tuple[Table, ...] = ()
    figure: Any = None
    """A matplotlib figure; None without a picture."""
    caption: str = ""
    """What the figure shows, over how many trials, what its intervals are over, and what is missing."""
    warnings: tuple[str, ...] = ()
    """What the analysis refused, and why."""


# Numbers as text ----------------------------------------------------------------------------------


def count_things(n: int, noun: str) -> str:
    """Returns '1 trial', '1,861 trials'."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


def format_moment(time: str) -> str:
    """Returns '2026-11-02 10:00:00 UTC' for a time in the log of reveals."""
    return f"{time[:19].replace('T', ' ')} UTC" if time.endswith("+00:00") else time


def format_hours(seconds: float) -> str:
    """Returns the number of hours, without a unit, to three digits or whole: '0.238', '1,204'."""
    hours = seconds / 3600
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"


def format_percent(share: float) -> str:
    """Returns '95%'."""
    return f"{100 * share:.4g}%"


def format_p(p: float) -> str:
    """Returns a p value with three digits, or '<0.001'."""
    if math.isnan(p):
        return NOTHING
    return "<0.001" if p < 0.001 else f"{p:.3g}"


def join_lines(text: str) -> str:
    """Returns a text as one line of printable characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


# CSV ----------------------------------------------------------------------------------------------


class CsvText(str):
    """A CSV text that keeps the records it was written from: in the text, numbers, words and nothing look alike."""

    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]


def list_records(text: str) -> tuple[Record, ...]:
    """Returns the records of a CSV text that this module wrote, with the types of their values.

    Raises:
        TypeError: if the text comes from elsewhere.
    """
    if not isinstance(text, CsvText):
        raise TypeError("only format_csv and format_csv_rows write a CSV text that keeps its records")
    return tuple(dict(zip(text.columns, row, strict=True)) for row in text.rows)


def format_csv(records: Sequence[Record], columns: Sequence[str] = ()) -> CsvText:
    """Returns records as CSV; ``columns`` are required if there may be no record."""
    names = columns or list(records[0])
    return format_csv_rows(names, ([record[name] for name in names] for record in records))


def format_csv_rows(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> CsvText:
    """Returns rows as CSV with all digits; a missing value is an empty field, and no text is a formula."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(escape_controls, columns))
    kept = tuple(map(tuple, rows))
    writer.writerows([_csv_field(value) for value in row] for row in kept)
    text = CsvText(out.getvalue())
    text.columns, text.rows = tuple(columns), kept
    return text


def _csv_field(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return escape_csv(value) if isinstance(value, str) else value


def escape_csv(text: str) -> str:
    """Returns a text that is safe in a spreadsheet: an apostrophe precedes what the spreadsheet would run as a formula.

    Control characters are escaped.
    """
    shown = escape_controls(text)
    if not text.startswith(("=", "+", "-", "@", "\t", "\r")):
        return shown
    try:
        float(text)
    except ValueError:
        return f"'{shown}"
    return shown


# Markdown -----------------------------------------------------------------------------------------


def format_markdown(tables: Iterable[Table]) -> str:
    """Returns tables as GitHub Markdown."""
    return "\n\n".join(map(_markdown_table, tables)) + "\n"


def _markdown_table(table: Table) -> str:
    rows = [table.head, *(row for block in table.blocks for row in block)]
    lines = [f"| {' | '.join(map(escape_markdown, row))} |" for row in rows]
    lines.insert(1, f"|{'|'.join({'l': ':--', 'r': '--:'}[letter] for letter in table.align)}|")
    notes = [f"- {escape_markdown(note)}" for note in table.notes]
    parts = [f"## {escape_markdown(table.title)}", "\n".join(lines), escape_markdown(table.caption), "\n".join(notes)]
    return "\n\n".join(part for part in parts if part)


def escape_markdown(text: str) -> str:
    """Returns a text escaped so that Markdown shows it unchanged, also in a cell of a table."""
    return re.sub(r"([\\`*_\[\]<>|~$&#])", r"\\\1", join_lines(text))


# LaTeX --------------------------------------------------------------------------------------------

LATEX_ESCAPES = str.maketrans({
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\char34{}", MINUS: "$-$", "±": r"$\pm$",
    "²": r"\textsuperscript{2}", "ω": r"$\omega$", "η": r"$\eta$", NOTHING: r"\textendash{}", "…": r"\ldots{}",
    # After the end of a line, LaTeX would read these as its option.
    "[": "{[}", "]": "{]}", "*": "{*}",
} | {c: f"\\{c}" for c in "&%$#_{}"})  # fmt: skip


def format_latex(tables: Iterable[Table]) -> str:
    """Returns tables as LaTeX floats with booktabs rules."""
    return "% Needs \\usepackage{booktabs}.\n" + "\n".join(map(_latex_table, tables))


def _latex_table(table: Table) -> str:
    blocks = [[f"    {' & '.join(map(escape_latex, row))} \\\\" for row in block] for block in table.blocks if block]
    body = "\n    \\midrule\n".join("\n".join(block) for block in blocks)
    caption = " ".join(map(escape_latex, (table.caption, *table.notes)))
    return f"""\
\\begin{{table}}
  \\centering\\small
  \\caption{{{escape_latex(table.title)}. {caption}}}
  \\label{{tab:{table.name}}}
  \\begin{{tabular}}{{{table.align}}}
    \\toprule
    {" & ".join(map(escape_latex, table.head))} \\\\
    \\midrule
{body}
    \\bottomrule
  \\end{{tabular}}
\\end{{table}}
"""


def escape_latex(text: str) -> str:
    """Returns a text escaped so that LaTeX shows it unchanged; two hyphens stay two."""
    return re.sub("-(?=-)", "-{}", join_lines(text).translate(LATEX_ESCAPES))


# Files --------------------------------------------------------------------------------------------


def write_output(out: Path, name: str, output: Output) -> list[Path]:
    """Writes an analysis into a folder: numbers as CSV, tables as Markdown and LaTeX, the figure as PNG, SVG and PDF.

    The caption of the figure is also a text file, since a picture may leave it out.

    Returns:
        The paths, in this order.

    Raises:
        InputError: with each file that is in the way; then nothing is written.
        OSError: if the system refuses.
    """
    texts = {f"{name}.csv": output.numbers}
    texts |= {f"{name}_{part}.csv": text for part, text in output.more_numbers.items()}
    if output.tables:
        texts |= {f"{name}.md": format_markdown(output.tables), f"{name}.tex": format_latex(output.tables)}
    contents = {file: text.encode() for file, text in texts.items()}
    if output.figure is not None:
        contents |= {f"{name}.{kind}": render_figure(output.figure, kind) for kind in PICTURES}
        contents |= {f"{name}.caption.txt": f"{output.caption}\n".encode()}
    return write_files(out, contents)


def render_figure(figure: Any, kind: str) -> bytes:
    """Returns the bytes of a matplotlib figure as 'png', 'svg' or 'pdf'; the same tables give the same bytes.

    Letters are outlines in an SVG, so that it looks the same everywhere, and embedded TrueType fonts in a PDF, as
    publishers ask for.
    """
    from orca_sweep.analysis.figure_style import LOOK, use_settings
    from orca_sweep.analysis.fonts import ignore_missing_letters

    drawn = io.BytesIO()
    without_date: Any = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    look = {**LOOK, "svg.hashsalt": "orca-sweep", "svg.fonttype": "path", "pdf.fonttype": 42}
    with use_settings(look), ignore_missing_letters():
        figure.savefig(drawn, format=kind, dpi=PICTURE_DPI, metadata=without_date.get(kind))
    return drawn.getvalue()


def write_files(out: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Writes files into a folder, each whole or not at all, and returns their paths.

    Raises:
        InputError: with each file that is in the way; then nothing is written.
        OSError: if the system refuses.
    """
    written = _read_written(out / WRITTEN)
    check_replaceable(
        [out / name for name, content in contents.items() if _is_in_the_way(out / name, content, written)]
    )
    out.mkdir(parents=True, exist_ok=True)
    new = [line for name, content in contents.items() if (line := _written_line(name, content)) not in written]
    if new:  # before the files, so that an analysis killed between two files recognises them later
        with (out / WRITTEN).open("a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in new))
    for name, content in contents.items():
        with replace_whole(out / name) as temporary:
            temporary.write_bytes(content)
    return [out / name for name in contents]


def check_replaceable(in_the_way: list[Path]) -> None:
    """Refuses to replace files.

    Raises:
        InputError: with each of the files, if there are any.
    """
    if in_the_way:
        raise InputError(
            [
                f"{path}: the file exists, and orca-sweep did not write it, or it was edited since. Nothing was replaced."
                " Choose another folder with --out, or move the file away."
                for path in in_the_way
            ]
        )


@contextmanager
def replace_whole(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside the file to write to, and replaces the file with it at the end."""
    temporary = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _is_in_the_way(path: Path, content: bytes, written: frozenset[str]) -> bool:
    try:
        before = read_regular_file(path)
    except NotADirectoryError:
        return False  # creating the folder reports that
    except OSError:  # a folder, a pipe, or unreadable
        return True
    return before is not None and before != content and _written_line(path.name, before) not in written


def _written_line(name: str, content: bytes) -> str:
    return f"{hashlib.sha256(content).hexdigest()}  {name}"


def _read_written(path: Path) -> frozenset[str]:
    with suppress(OSError, UnicodeDecodeError):
        return frozenset((read_regular_file(path) or b"").decode().splitlines())
    return frozenset()
