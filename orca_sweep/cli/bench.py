"""``orca-sweep bench``: the benchmarks."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from orca_sweep.cli.documents import print_line
from orca_sweep.cli.layout import find_width, wrap_text
from orca_sweep.errors import InputError, Problem
from orca_sweep.registry import hint

if TYPE_CHECKING:
    from orca_sweep.bench import Measurement

HEADS = ("case", "ours ms", "naive ms", "ratio", "peak MiB", "difference", "ours samples/s", "naive samples/s")
ROW_COLUMNS = 120
"""Of a terminal on which a row of the table fits into a line."""


BENCHMARKS = ("objectives", "loading", "training", "sweep", "overhead", "collect", "report")


def bench(
    benchmark: Annotated[
        str, typer.Argument(metavar="NAME", help=f"what to measure: {', '.join(BENCHMARKS)}", show_default=False)
    ],
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document per case, each on a line")] = False,
    repeats: Annotated[int, typer.Option(min=1, help="how often to run the naive side; its median counts")] = 3,
) -> None:
    """Measure this package against the naive way.

    ratio = naive / ours, in CPU seconds of one thread, so bigger is better.

    objectives: each alignment distance, against its plain formula.
    loading: batches, against a DataLoader with 4 workers, whose CPU seconds count too; samples/s are wall-clock.
    training: fine-tuning, against a plain loop; on a GPU in wall-clock seconds, with the share of the card's peak.
    sweep: a grid of 48 trials, with and without sharing work.
    overhead: a sweep of trials that do nothing, against a plain Tuner that reuses its workers.
    collect: making tables, against reading every record into a frame and writing that.
    report: the page of 10,000 trials as a whole process, against writing their tables as JSON with pandas.
    """
    if benchmark not in BENCHMARKS:
        raise InputError(
            Problem(field="NAME", value=benchmark, rule=f"There is no such benchmark. {hint(benchmark, BENCHMARKS)}")
        )
    from orca_sweep.bench import run_benchmark

    has_speeds = benchmark in ("loading", "training")
    if not as_json:
        print(_format_row(HEADS, has_speeds))
    for measurement in run_benchmark(benchmark, repeats):
        if as_json:
            print_line("bench", measurement.as_dict())
        else:
            print(_format_measurement(measurement, has_speeds), flush=True)


def _format_measurement(m: "Measurement", has_speeds: bool) -> str:
    times = f"{m.ours_s * 1e3:.1f}", f"{m.other_s * 1e3:.0f}", f"{m.ratio:.1f}"
    speeds = f"{m.n_samples / m.ours_wall_s:.0f}", f"{m.n_samples / m.other_wall_s:.0f}"
    share = "" if m.peak_share is None else f"  {m.peak_share:.0%} of the card's bfloat16 peak"
    return _format_row((m.case, *times, f"{m.peak_memory_mib:.0f}", f"{m.difference:.0e}", *speeds), has_speeds) + share


def _format_row(texts: tuple[str, ...], has_speeds: bool) -> str:
    width = find_width(sys.stdout)
    if width is not None and width < ROW_COLUMNS:
        named = [text if text == head else f"{head} {text}" for head, text in zip(HEADS, texts, strict=True)]
        return "\n".join(wrap_text(", ".join(named if has_speeds else named[:-2]), width))
    row = "{:34} {:>10} {:>10} {:>8} {:>9} {:>11}" + " {:>14} {:>15}" * has_speeds
    return row.format(*texts)
