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
    counts = ", ".join(f"{n} {status}" for status, n in results.trials["status"].value_counts().items())
    print_wrapped(f"{target / 'trials.parquet'}: {len(results.trials)} trials ({counts})")
    print(f"{target / 'epochs.parquet'}: {len(results.epochs)} epochs")
    print(f"{target / 'stages.parquet'}: {0 if results.stages is None else len(results.stages)} stages")
    if results.n_sealed:
        print_wrapped(
            f"test metrics of {results.n_sealed} trials are sealed (orca-sweep reveal SWEEP_FOLDER shows them)"
        )


def _describe_tables(folder: Path, results: "Results") -> dict[str, Any]:
    counts = results.trials["status"].value_counts()
    return {
        "tables": {name: folder / f"{name}.parquet" for name in ("trials", "epochs", "stages")},
        "n_trials": len(results.trials),
        "n_epochs": len(results.epochs),
        "n_stages": 0 if results.stages is None else len(results.stages),
        "n_sealed": results.n_sealed,
        "statuses": {str(status): int(n) for status, n in counts.items()},
        "notes": results.notes,
    }
