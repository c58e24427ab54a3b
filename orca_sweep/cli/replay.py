"""``orca-sweep replay``: runs a recorded trial again and compares."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orca_sweep.api.paths import real_path
from orca_sweep.api.stores import open_store
from orca_sweep.cli.documents import AsJson, print_document
from orca_sweep.cli.layout import print_wrapped
from orca_sweep.errors import InputError

if TYPE_CHECKING:
    from orca_sweep.planning.replay import Compared, Replay

HASHED = {
    "data_sha256": "task data",
    "body_sha256": "body weights",
    "proxy_sha256": "proxy data",
    "code_sha256": "source code",
}


def replay(
    trial_id: Annotated[str, typer.Argument(help="id of the trial, or its first characters", show_default=False)],
    source: Annotated[
        Path | None,
        typer.Option("--from", help="folder of a sweep, a suite, or tables; default: the one in results/ that has it"),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="folder with the files of tasks; default: the sweep's, or data")
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="take stage artifacts from this store; default: compute everything")
    ] = None,
    imports: Annotated[list[str] | None, typer.Option(help="your modules or files; default: the sweep's")] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="largest difference allowed; 0: weights and numbers equal to the last bit")
    ] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Run a recorded trial again and compare.

    Says whether its numbers come back; exit code 1 if not.
    """
    from orca_sweep.results import find_trial
    from orca_sweep.space.manifest import read_manifest

    folder = (_find_member(source, trial_id) or source) if source else _find_sweep(trial_id)
    recorded = find_trial(folder, trial_id)
    manifest = read_manifest(folder)
    root = data or Path(manifest.data if manifest else "data")
    modules = imports or (manifest.imports if manifest else ())
    from orca_sweep.planning.replay import replay as replay_trial

    print(f"replaying {recorded.trial_id} of {folder}: seed {recorded.config.get('seed')}, recorded as", end=" ")
    print(f"{recorded.row.get('status')} in {recorded.row.get('wall_time_s') or 0:.0f} s", flush=True)
    opened = None if store is None else open_store(store)
    replayed = replay_trial(recorded, real_path(root), modules, opened)
    if as_json:
        print_document("replay", _describe_replay(replayed, tolerance))
    else:
        for line in _write_replay(replayed, tolerance):
            print_wrapped(line)
    raise typer.Exit(0 if replayed.came_back(tolerance) else 1)


def _describe_replay(replayed: "Replay", tolerance: float) -> dict[str, Any]:
    return {
        "trial_id": replayed.trial_id,
        "came_back": replayed.came_back(tolerance),
        "is_bit_equal": replayed.is_bit_equal,
        "tolerance": tolerance,
        "duration_s": replayed.seconds,
        "status": _describe_value(replayed.status, False),
        "values": [
            _describe_value(value, replayed.is_sealed and value.name.startswith("test_"))
            for value in (*replayed.numbers, *replayed.exact)
        ],
        "causes": [_describe_value(cause, False) for cause in replayed.causes],
        "trial_error": replayed.error or None,
    }


def _describe_value(value: "Compared", is_sealed: bool) -> dict[str, Any]:
    shown = {"recorded": None, "now": None} if is_sealed else {"recorded": value.recorded, "now": value.now}
    return {"name": value.name, **shown, "is_same": value.is_same, "is_sealed": is_sealed}


def _find_sweep(start: str) -> Path:
    """Returns the only sweep in results/ that has a trial whose id begins with ``start``; of a suite, its first member."""
    from orca_sweep.space.suites import holds_sweep

    folders = sorted(folder for folder in Path("results").glob("*") if holds_sweep(folder))
    sweeps = [member for folder in folders if (member := _find_member(folder, start)) is not None]
    if len(sweeps) != 1:
        where = (
            f"such trials are in {', '.join(map(str, sweeps))}" if sweeps else "no sweep in results/ has such a trial"
        )
        raise InputError(f"replay {start!r}: {where}. Name the sweep folder with --from.")
    return sweeps[0]


def _find_member(folder: Path, start: str) -> Path | None:
    """Returns the sweep folder, or the first in the folder of a suite, that has a trial whose id begins with ``start``."""
    from orca_sweep.space.manifest import require_manifest
    from orca_sweep.space.suites import list_sweep_folders

    with contextlib.suppress(InputError):  # skips folders that are damaged or not a sweep
        for member in list_sweep_folders(folder).folders:
            if any(trial["trial_id"].startswith(start) for trial in require_manifest(member).all_trials):
                return member
    return None


def _write_replay(replayed: "Replay", tolerance: float) -> list[str]:
    numbers = (replayed.status, *replayed.numbers)
    lines = [_write_number(number, replayed.is_sealed and number.name.startswith("test_")) for number in numbers]
    lines += [f"error now: {replayed.error}"] if replayed.error else []
    lines += [f"{exact.name}: {'same' if exact.is_same else 'different'}" for exact in replayed.exact]
    lines += [_write_cause(cause) for cause in replayed.causes]
    if replayed.is_bit_equal:
        verdict = "The numbers came back, equal to the last bit."
    elif replayed.came_back(tolerance):
        verdict = f"The numbers came back within {tolerance:g}, not to the last bit."
    else:
        cause = "the differences above may be why" if replayed.causes else "no recorded property of the trial differs"
        verdict = f"The numbers did NOT come back; {cause}."
    return [*lines, f"{verdict} ({replayed.seconds:.0f} s)"]


def _write_number(number: "Compared", is_sealed: bool) -> str:
    from orca_sweep.config.labels import write_level

    if is_sealed:
        return f"{number.name}: sealed, {'same' if number.is_same else 'different'} now"
    if number.is_same:
        return f"{number.name}: {write_level(number.recorded)}, same now"
    return f"{number.name}: {write_level(number.recorded)} recorded, {write_level(number.now)} now"


def _write_cause(cause: "Compared") -> str:
    if cause.name.endswith("sha256"):
        return f"differs: {HASHED[cause.name]} (hash {str(cause.recorded)[:8]} recorded, {str(cause.now)[:8]} now)"
    return f"differs: {cause.name}: {cause.recorded} recorded, {cause.now} now"
