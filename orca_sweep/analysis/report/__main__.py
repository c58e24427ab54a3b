"""The report of a sweep as one HTML page: completeness, verdicts, figures, effects, every trial, methods, compute.

It reads the tables and nothing else, and works while a sweep still runs. The base of comparisons and their margin are
those of table_effects. The same tables give the same bytes; --made-at puts in when it was made.

Run: python analysis/report --tables results/quickstart/tables --out report.html
"""

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from orca_sweep.analysis import claims, flattery, seed_noise
from orca_sweep.analysis.compared import compared
from orca_sweep.analysis.outputs import check_replaceable, whole
from orca_sweep.analysis.report import NAME, compute, draw, page
from orca_sweep.analysis.report.pictures import SCRIPTS
from orca_sweep.analysis.report.record import Source
from orca_sweep.errors import InputError
from orca_sweep.record_files import read_regular_file
from orca_sweep.results import Results, read_results
from orca_sweep.visible import escaping_output

GENERATOR = b'<meta name="generator" content="orca-sweep report">'
"""By which a report is known again: nothing else is replaced by one."""
HEAD_BYTES = 1000


@escaping_output()
def main() -> None:
    """Reads the tables and writes the page; wrong input ends with code 2, a page that cannot be written with 1."""
    args = _arguments().parse_args()
    try:
        check_replaceable([args.out] if _is_in_the_way(args.out) else [])
        made = _made(args)
    except InputError as error:
        stop(NAME, list(map(str, error.problems)), 2)
    try:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        with whole(args.out) as temporary:
            temporary.write_bytes(made)
    except OSError as error:
        stop(NAME, [f"{args.out}: {error.strerror or error}. Nothing was left half-written."], 1)
    print(f"{args.out}: {len(made) / 1e6:.1f} MB")


def _arguments() -> argparse.ArgumentParser:
    parser = arguments(__doc__, out="the HTML file")
    parser.add_argument("--base", nargs="+", default=[], metavar="FACTOR=LEVEL", help="levels of the base cell")
    parser.add_argument(
        "--margin", nargs="+", default=[], metavar="[TASK=]NUMBER", help="smallest difference that matters"
    )
    parser.add_argument(
        "--complete-pairs", action="store_true", help="judge cells that lack pairs from those they have"
    )
    parser.add_argument(
        "--figures", nargs="*", choices=SCRIPTS, help="figures to draw; default: all that the tables can fill"
    )
    parser.add_argument("--made-at", default="", help="when the report is made; default: when the last trial ended")
    return parser


def _made(args: argparse.Namespace) -> bytes:
    results = read_results(args.tables)
    results = replace(results, metric=args.metric or results.metric)
    like = compared(results, args.base)
    quiet = replace(like, notes=())  # which the report itself tells
    judged = claims.compute(quiet, (), args.margin, args.metric, args.level, args.complete_pairs)
    is_open = not results.n_sealed and results.trials.get(flattery.TEST, pd.Series(dtype=float)).notna().any()
    report = compute(
        results,
        args.base,
        args.margin,
        args.level,
        args.complete_pairs,
        sources=_sources(args.tables, results),
        made_at=args.made_at,
        claims=claims.build_tables(judged),
        flattery=flattery.build_tables(flattery.compute(quiet, args.level)) if is_open else (),
        noise=seed_noise.build_source_tables(seed_noise.compute(results, args.base, level=args.level)),
    )
    return page(report, draw(like, report.effects, args.figures)).encode()


def _is_in_the_way(path: Path) -> bool:
    """Whether something is there that is no report of ours."""
    try:
        before = read_regular_file(path)
        return before is not None and GENERATOR not in before[:HEAD_BYTES]
    except NotADirectoryError:
        return False  # writing says so
    except OSError:  # a folder, a pipe, a link to nothing, or not to be read
        return True


def _sources(folder: Path, results: Results) -> Sequence[Source]:
    frames = {"trials": results.trials, "epochs": results.epochs, "stages": results.stages}
    files = ((folder / f"{name}.parquet", frame) for name, frame in frames.items() if frame is not None)
    return [Source(path.name, len(frame), _sha256(path)) for path, frame in files if path.is_file()]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    main()
