"""``orca-sweep collect``: makes the tables."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orca_sweep.cli.documents import AsJson, print_document
from orca_sweep.cli.layout import print_wrapped
from orca_sweep.errors import InputError

if TYPE_CHECKING:
    from orca_sweep.results import Results


def collect(
    sweeps: Annotated[list[Path], typer.Argument(help="folders of sweeps, suites, or tables", show_default=False)],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="default: tables/ in the only sweep folder")] = None,
    as_json: AsJson = False,
) -> None:
    """Make Parquet tables from sweep folders.

    Writes trials, epochs and stages.parquet. Works while a sweep runs, and merges tables made elsewhere.
    """
    from orca_sweep.results import collect as collect_tables

    if out is None and len(sweeps) > 1:
        raise InputError("collect: several sweep folders need a folder for the merged tables. Give one with -o.")
    target = out or sweeps[0] / "tables"
    results = collect_tables(sweeps, target)
    if as_json:
        print_document("collect", _describe_tables(target, results))
        return
    for note in results.notes:
        print_wrapped(note)
    statuses, n_rows = _count_statuses(results), len(results.trials)
    counts, n_trials = ", ".join(f"{n} {status}" for status, n in statuses.items()), sum(statuses.values())
    rows = f" in {n_rows} rows: a trial that is in two cells has a row for each" if n_rows > n_trials else ""
    print_wrapped(f"{target / 'trials.parquet'}: {n_trials} trials ({counts}){rows}")
    print(f"{target / 'epochs.parquet'}: {len(results.epochs)} epochs")
    print(f"{target / 'stages.parquet'}: {0 if results.stages is None else len(results.stages)} stages")
    if results.n_sealed:
        print_wrapped(
            f"test metrics of {results.n_sealed} trials are sealed (orca-sweep reveal SWEEP_FOLDER shows them)"
        )


def _count_statuses(results: "Results") -> dict[str, int]:
    """Returns how many different trials have each status."""
    one_each = results.trials.drop_duplicates("trial_id")
    return {str(status): int(n) for status, n in one_each["status"].value_counts().items()}


def _describe_tables(folder: Path, results: "Results") -> dict[str, Any]:
    statuses = _count_statuses(results)
    return {
        "tables": {name: folder / f"{name}.parquet" for name in ("trials", "epochs", "stages")},
        "n_trials": sum(statuses.values()),
        "n_epochs": len(results.epochs),
        "n_stages": 0 if results.stages is None else len(results.stages),
        "n_sealed": results.n_sealed,
        "statuses": statuses,
        "notes": results.notes,
    }
