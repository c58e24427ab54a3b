"""What the table scripts share: cells and their base, tables as CSV, Markdown and LaTeX, the command line.

A table is plain text until it is rendered: levels are users' own words, and each format has its own escapes.
"""

import argparse
import csv
import io
import math
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from orca_sweep.analysis.figures import csv_field
from orca_sweep.analysis.outputs import write_files
from orca_sweep.config.labels import shorten_labels
from orca_sweep.errors import InputError
from orca_sweep.results import Cell, Results, TaskMetric, find_repeated_seeds, read_results, summarise_cells
from orca_sweep.stats.modes import Mode, describe_mode
from orca_sweep.visible import escape_controls, escape_output

Record = Mapping[str, object]
MINUS, NOTHING = "\u2212", "\u2013"


# Cells --------------------------------------------------------------------------------------------


def read_cells(
    results: Results, metric: str | None = None, level: float = 0.95, measures: Iterable[str] = ()
) -> tuple[Cell, ...]:
    """Returns every cell, A/A repeats too, in the order of the table; arguments as of `results.summarise_cells`.

    Raises:
        InputError: if there are no trials, a column is missing, a cell has several trials of one seed, or the trials of a
            task differ in what they measure.
    """
    require(results, ("task", "metric", *results.factors))
    cells = summarise_cells(results, metric, level, measures)
    problems = list(find_repeated_seeds(results))
    if problems:
        raise InputError(problems)
    return cells


def require(results: Results, columns: Iterable[str]) -> None:
    """Refuses a table without trials, or without some of the columns.

    Raises:
        InputError: naming what is missing.
    """
    missing = [column for column in columns if column not in results.trials]
    if missing:
        raise InputError(
            f"trials.parquet: no column {', '.join(missing)}. These tables are not what this version collects. Make them"
            " anew with 'orca-sweep collect'."
        )
    if not len(results.trials):
        raise InputError("trials.parquet: no trials, so there is nothing to show. Launch a sweep and collect it first.")


def metric_of(found: Sequence[Cell]) -> TaskMetric:
    """Returns what the cells of a task are compared on; it is called 'metric' as long as no trial is ok."""
    name = next((cell.metric for cell in found if cell.metric), "metric")
    return TaskMetric(name=name, mode=found[0].mode, unit=found[0].unit)


def describe_metric(metric: str, mode: Mode) -> str:
    """Returns 'error; lower is better'."""
    return f"{metric}; {describe_mode(mode)}"


def better_side(mode: Mode) -> str:
    """Returns on which side of zero a difference is an improvement."""
    return "left" if mode == "min" else "right"


def by_task(found: Iterable[Cell]) -> dict[str, list[Cell]]:
    """Returns the cells of each task, in their order."""
    tasks: dict[str, list[Cell]] = {}
    for cell in found:
        tasks.setdefault(cell.task, []).append(cell)
    return tasks


def replicated(found: Iterable[Cell]) -> list[Cell]:
    """Returns the cells without the A/A cells."""
    return [cell for cell in found if cell.role == "replicate"]


def pair_aa_cells(found: Sequence[Cell]) -> list[tuple[Cell, Cell]]:
    """Returns each A/A cell with the cell that it repeats; one whose cell is not in the tables is left out."""
    cells = {cell.cell_id: cell for cell in replicated(found)}
    pairs = [(cell, cells.get(cell.cell_id.removesuffix("-aa"))) for cell in found if cell.role == "aa"]
    return [(cell, reference) for cell, reference in pairs if reference]


def varying(found: Sequence[Cell]) -> tuple[str, ...]:
    """Returns the factors that have several levels among the cells; all of them if none has."""
    paths = tuple(found[0].labels) if found else ()
    return tuple(path for path in paths if len({cell.labels[path] for cell in found}) > 1) or paths


def levels_of(cell: Cell, paths: Sequence[str]) -> str:
    """Returns 'body · 20': what a figure's axis has room for."""
    return " · ".join(cell.labels[path] for path in paths) or "all trials"


def shared(found: Sequence[Cell], shown: Sequence[str]) -> str:
    """Returns a sentence on the factors that are not shown, since all cells have the same level of them."""
    held = [path for path in found[0].labels if path not in shown]
    return f" All of them have {found[0].describe(held)}." if held else ""


def completeness(found: Iterable[Cell]) -> str:
    """Returns a sentence on how many planned trials are ok, and what became of the others."""
    counts = Counter(status for cell in found for status in cell.statuses.values())
    n_worst = sum(
        status != "ok" and not math.isnan(cell.values[s]) for cell in found for s, status in cell.statuses.items()
    )
    text = f"{counts['ok']} of {counts.total()} planned trials are ok"
    text += f"; the others: {not_ok(counts)}" if lacking(counts) else ""
    text += f"; {n_worst} of these count as the worst trial of the task, as the space asks" if n_worst else ""
    return f"{text}."


def not_ok(statuses: Mapping[str, int]) -> str:
    """Returns what is lacking, and what lost means."""
    return lacking(statuses) + (" (lost: its worker died too often)" if statuses.get("lost") else "")


def lacking(statuses: Mapping[str, int]) -> str:
    """Returns '2 failed, 1 lost'; empty if all trials are ok."""
    return ", ".join(f"{n} {status}" for status, n in statuses.items() if status != "ok" and n)


# Base ---------------------------------------------------------------------------------------------


def named_levels(
    option: str, items: Sequence[str], found: Sequence[Cell], more: Sequence[str] = ()
) -> list[tuple[str, str]]:
    """Returns the (factor, level) of each 'factor=level', a level as the table has it.

    Raises:
        InputError: with every factor and level that the cells do not have.
    """
    factors, named, problems = [*found[0].labels, *more], [], []
    for item in items:
        path, _, wanted = item.partition("=")
        known = dict.fromkeys(_known(found, path))
        level = next((level for level in known if is_level(level, wanted)), None)
        if path not in factors:
            problems.append(f"{option} {item!r}: {path!r} is no factor of these tables. Factors: {', '.join(factors)}.")
        elif level is None:
            problems.append(f"{option} {item!r}: no cell has that level of {path}. Levels: {', '.join(known)}.")
        else:
            named.append((path, level))
    if problems:
        raise InputError(problems)
    return named


def _known(found: Sequence[Cell], path: str) -> list[str]:
    if path == "task":
        return [cell.task for cell in found]
    if path == "seed":
        return [str(seed) for seed in sorted({seed for cell in found for seed in cell.values})]
    return [cell.labels[path] for cell in found if path in cell.labels]


def is_level(level: str, wanted: str) -> bool:
    """Returns whether a level is the one that is named; numbers may be written in another way."""
    try:
        return level == wanted or float(level) == float(wanted)
    except ValueError:
        return False


def find_base_cell(found: Sequence[Cell], named: Mapping[str, str]) -> Cell:
    """Returns the cell of a task that the others are compared to: its first, but for the levels that are named.

    Where no cell is that, since combinations that are the same work are one cell, the only one with the named levels.

    Raises:
        InputError: if no cell has the named levels, or several and none of them has the first cell's other levels.
    """
    cells = replicated(found)
    if not cells:
        raise InputError(f"{found[0].task}: no cell but the A/A cell is in these tables. Collect the whole sweep.")
    having = [cell for cell in cells if all(cell.labels[path] == level for path, level in named.items())]
    wanted = {**cells[0].labels, **named}
    exact = [cell for cell in having if cell.labels == wanted] or having
    if len(exact) == 1 or (exact and not named):
        return exact[0]
    said = ", ".join(f"{path}={level}" for path, level in named.items())
    if not exact:
        have = "; ".join(cell.name for cell in cells)
        raise InputError(f"--base {said}: {cells[0].task} has no such cell. Name the levels of one of: {have}.")
    several = "; ".join(f"{cell.name} (cell {cell.cell_id})" for cell in exact)
    raise InputError(
        f"--base {said}: {len(exact)} cells of {cells[0].task} have these levels. Name more of: {several}."
    )


def numbers_by_task(option: str, items: Sequence[str], tasks: Iterable[str]) -> dict[str, float]:
    """Returns a number for each task that has one, from '0.01' (all tasks) and 'task=0.01'.

    Raises:
        InputError: with each that is no number, 0 or more, or of no task in the tables.
    """
    known, problems = list(tasks), []
    given: dict[str, float] = {}
    for item in items:
        task, _, text = item.rpartition("=")
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not 0 <= number < math.inf:
            problems.append(f"{option} {item!r}: {text!r} is no number, 0 or more. Write 0.01, or TASK=0.01.")
        elif task and task not in known:
            problems.append(f"{option} {item!r}: no task {task!r} in these tables. Tasks: {', '.join(known)}.")
        else:
            given |= {task: number} if task else dict.fromkeys([name for name in known if name not in given], number)
    if problems:
        raise InputError(problems)
    return given


# Words --------------------------------------------------------------------------------------------


def decimals_of(spreads: Iterable[float]) -> int:
    """Returns how many decimals show two digits of the middle one of the spreads; 4 if there is none.

    The smallest shows one digit, if that takes no more than two decimals more.
    """
    places = sorted(-math.floor(math.log10(x)) for x in spreads if 0 < x < math.inf)
    if not places:
        return 4
    middle = places[len(places) // 2] + 1
    return min(8, max(0, middle, min(places[-1], middle + 2)))


def percent(share: float) -> str:
    """Returns '95%'."""
    return f"{100 * share:.4g}%"


def number(value: float, decimals: int, sign: str = "") -> str:
    """Returns a rounded number with a minus that is one; NaN is nothing. ``sign`` '+' shows the sign of both kinds."""
    if not math.isfinite(value):
        return NOTHING
    text = f"{value:{sign}.{decimals}f}"
    return text.replace("-", MINUS) if float(text) else text.replace("-", "")


def p_text(p: float) -> str:
    """Returns a p value with three digits."""
    if math.isnan(p):
        return NOTHING
    return "<0.001" if p < 0.001 else f"{p:.3g}"


def ends(low: float, high: float, decimals: int, sign: str = "") -> str:
    """Returns '[0.11, 0.23]'."""
    known = math.isfinite(low) and math.isfinite(high)
    return f"[{number(low, decimals, sign)}, {number(high, decimals, sign)}]" if known else NOTHING


def short(text: str, most: int = 44) -> str:
    """Returns a text for a figure as one line, its middle left out if it is long; of several, see ``shorts``."""
    half, text = (most - 1) // 2, _one_line(text)
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"


def wrapped(text: str, most: int = 60) -> str:
    """Returns a text for the title of a figure, whole, on as many lines as it takes."""
    return textwrap.fill(_one_line(text), most)


def shorts(texts: Iterable[str], most: int = 44) -> list[str]:
    """Returns texts that stand side by side in a figure, each on one line; different ones stay different."""
    whole = list(texts)
    made = shorten_labels(whole, most)
    return [made[text] for text in whole]


# Rendering ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """A table as people read it, in plain text."""

    name: str
    """Of its label in LaTeX."""
    title: str
    caption: str
    """What the numbers are, how many of what they are over, and what each interval is."""
    head: tuple[str, ...]
    align: str
    """A letter per column: l or r."""
    blocks: tuple[tuple[tuple[str, ...], ...], ...]
    """Rows, in groups that belong together."""
    notes: tuple[str, ...] = ()


def csv_text(records: Sequence[Record], columns: Sequence[str] = ()) -> str:
    """Returns records as CSV with all digits; what there is not is empty, and no text is a formula.

    ``columns`` are needed where there may be no record.
    """
    out = io.StringIO()
    names = columns or list(records[0])
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writerow({name: escape_controls(name) for name in names})
    for record in records:
        writer.writerow({key: _plain(value) for key, value in record.items()})
    return out.getvalue()


def _plain(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None or (isinstance(value, float) and not math.isfinite(value)) else csv_field(value)


def markdown(tables: Iterable[Table]) -> str:
    """Returns tables as GitHub's Markdown."""
    return "\n\n".join(map(_markdown, tables)) + "\n"


def _markdown(table: Table) -> str:
    rows = [table.head, *(row for block in table.blocks for row in block)]
    lines = [f"| {' | '.join(map(markdown_escape, row))} |" for row in rows]
    lines.insert(1, f"|{'|'.join({'l': ':--', 'r': '--:'}[letter] for letter in table.align)}|")
    notes = [f"- {markdown_escape(note)}" for note in table.notes]
    parts = [f"## {markdown_escape(table.title)}", "\n".join(lines), markdown_escape(table.caption), "\n".join(notes)]
    return "\n\n".join(part for part in parts if part)


def markdown_escape(text: str) -> str:
    """Returns a text that Markdown shows as it is, also in a cell of a table."""
    return re.sub(r"([\\`*_\[\]<>|~$&#])", r"\\\1", _one_line(text))


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\char34{}", MINUS: "$-$", "±": r"$\pm$",
    "²": r"\textsuperscript{2}", "ω": r"$\omega$", "η": r"$\eta$", NOTHING: r"\textendash{}", "…": r"\ldots{}",
    # After a line's end these would be read as its option.
    "[": "{[}", "]": "{]}", "*": "{*}",
} | {c: f"\\{c}" for c in "&%$#_{}"})  # fmt: skip


def latex_escape(text: str) -> str:
    """Returns a text that LaTeX shows as it is; two hyphens stay two."""
    return re.sub("-(?=-)", "-{}", _one_line(text).translate(LATEX))


def latex(tables: Iterable[Table]) -> str:
    """Returns tables as LaTeX floats with the rules of booktabs."""
    return "% Needs \\usepackage{booktabs}.\n" + "\n".join(map(_latex, tables))


def _latex(table: Table) -> str:
    blocks = [[f"    {' & '.join(map(latex_escape, row))} \\\\" for row in block] for block in table.blocks if block]
    body = "\n    \\midrule\n".join("\n".join(block) for block in blocks)
    caption = " ".join(map(latex_escape, (table.caption, *table.notes)))
    return f"""\
\\begin{{table}}
  \\centering\\small
  \\caption{{{latex_escape(table.title)}. {caption}}}
  \\label{{tab:{table.name}}}
  \\begin{{tabular}}{{{table.align}}}
    \\toprule
    {" & ".join(map(latex_escape, table.head))} \\\\
    \\midrule
{body}
    \\bottomrule
  \\end{{tabular}}
\\end{{table}}
"""


# Running ------------------------------------------------------------------------------------------


def arguments(
    doc: str | None, level: float | None = 0.95, out: str = "folder for what is made"
) -> argparse.ArgumentParser:
    """Returns the command line that all table scripts have; the whole docstring is its help."""
    first, _, more = (doc or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=first, epilog=more.strip(), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", type=Path, required=True, help="folder with trials.parquet and epochs.parquet")
    parser.add_argument("--out", type=Path, required=True, help=out)
    if level is not None:
        parser.add_argument("--metric", help="column to compare; default: the one the space names")
        parser.add_argument("--level", type=_share, default=level, help="of the intervals (default: %(default)s)")
    return parser


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is no share. It lies between 0 and 1, such as 0.95.")
    return value


@escape_output()
def run(name: str, parser: argparse.ArgumentParser, make: Callable[[Results, Any], Mapping[str, Any]]) -> None:
    """Reads the tables and writes what is made of them: texts under their file's name, figures as PNG and SVG.

    Ends the program with code 2 for wrong input, and with 1 if a file cannot be written.
    """
    args = parser.parse_args()
    try:
        made = make(read_results(args.tables), args)
        contents: dict[str, bytes] = {}
        for file, content in made.items():
            if isinstance(content, str):
                contents[file] = content.encode()
            else:
                contents |= {f"{file}.{kind}": _drawn(content, kind) for kind in ("png", "svg")}
        for path in write_files(args.out, contents):
            print(path)
    except InputError as error:
        stop(name, list(map(str, error.problems)), 2)
    except OSError as error:
        stop(name, [f"{error.filename or args.out}: {error.strerror or error}. Nothing was left half-written."], 1)


def _drawn(figure: Any, kind: str) -> bytes:
    from matplotlib import rc_context

    drawn = io.BytesIO()
    # Without a date, and with names that are no chance, the same tables give the same file.
    with rc_context({"svg.hashsalt": "orca-sweep"}):
        figure.savefig(drawn, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    return drawn.getvalue()


def stop(name: str, problems: Iterable[str], code: int) -> NoReturn:
    """Ends the program with a code, each problem as a line of its own."""
    for problem in problems:
        print(f"{name}: {problem}", file=sys.stderr)
    sys.exit(code)
