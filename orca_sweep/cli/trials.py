"""``orca-sweep reveal`` and ``replay``: showing test metrics, and running a recorded trial again."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orca_sweep.cli import ending, plans
from orca_sweep.cli import store as store_commands
from orca_sweep.cli.terminal import open_console
from orca_sweep.cli.words import real_path
from orca_sweep.config.labels import write_level
from orca_sweep.errors import InputError

if TYPE_CHECKING:
    from orca_sweep.planning.replay import Compared, Replay

NAMES = {
    "data_sha256": "task data",
    "body_sha256": "body weights",
    "proxy_sha256": "proxy data",
    "code_sha256": "source code",
}


def reveal(sweep: Annotated[Path, typer.Argument(help="a sweep folder", show_default=False)]) -> None:
    """Shows the sealed test metrics of the trials that have ended, logs that, and makes tables and figures anew.

    Do it when all choices are made: what is tried after a look at test metrics is no longer judged by them, and says so
    in the tables (n_reveals_before).
    """
    from orca_sweep.results import read_reveals, sweep_status
    from orca_sweep.results import reveal as show

    folder = real_path(sweep)
    found, log = show(folder), read_reveals(folder)
    console = open_console()
    ending.finish(folder, console)
    if not found.trials:
        before = f"all that there are were revealed on {log[-1].time}" if log else "no trial has any yet"
        if found.damaged:
            raise InputError(list(found.damaged))
        console.print(f"nothing to reveal: {before}", soft_wrap=True)
        return
    console.print(
        f"revealed the test metrics of {len(found.trials)} trials (look {len(log)} at this sweep, {found.time})",
        soft_wrap=True,
    )
    status = sweep_status(folder)
    n_left = status.statuses.get("unfinished", 0) + status.n_later
    if n_left:
        console.print(f"{n_left} trials have not ended; theirs stay sealed until the next reveal.", soft_wrap=True)


def replay(
    trial_id: Annotated[str, typer.Argument(help="id of the trial, or how it begins", show_default=False)],
    source: Annotated[
        Path | None,
        typer.Option("--from", help="sweep folder or folder of tables; default: the one in results/ that has it"),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="folder with the tasks' files; default: the sweep's, or data")
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="take stage artifacts from here; default: everything is computed anew")
    ] = None,
    imports: Annotated[list[str] | None, typer.Option(help="your modules or files; default: the sweep's")] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="how far numbers may be apart; 0: weights and numbers equal to the last bit")
    ] = 0.0,
) -> None:
    """Runs one recorded trial again from its config and says whether its numbers came back; exit code 1 if not."""
    from orca_sweep.results import find_trial
    from orca_sweep.space.manifest import read_manifest
    from orca_sweep.store import Store

    place = source or _holder(trial_id)
    recorded = find_trial(place, trial_id)
    manifest = read_manifest(place)
    root = data or Path(manifest.data if manifest else "data")
    used = imports or (manifest.imports if manifest else ())
    from orca_sweep.planning.replay import replay as run

    print(f"replaying {recorded.trial_id} of {place}: seed {recorded.config.get('seed')}, recorded as", end=" ")
    print(f"{recorded.row.get('status')} in {recorded.row.get('wall_time_s') or 0:.0f} s", flush=True)
    with store_commands.told(f"--store {store}"):
        opened = None if store is None else Store(plans.store_root(store))
        if opened is not None:
            opened.check_root()
    found = run(recorded, real_path(root), used, opened)
    for line in _told(found, tolerance):
        print(line)
    raise typer.Exit(0 if found.came_back(tolerance) else 1)


def _holder(start: str) -> Path:
    """The only sweep in results/ that has a trial whose id begins so."""
    from orca_sweep.space.manifest import require_manifest

    found = []
    for path in sorted(Path("results").glob("*/sweep.json")):
        with contextlib.suppress(InputError):  # what is no sweep, or damaged, is not meant
            if any(trial["trial_id"].startswith(start) for trial in require_manifest(path.parent).all_trials):
                found.append(path.parent)
    if len(found) != 1:
        which = f"in {', '.join(map(str, found))}" if found else "in no sweep of results/"
        raise InputError(f"replay {start!r}: such a trial is {which}. Name the sweep folder with --from.")
    return found[0]


def _told(found: "Replay", tolerance: float) -> list[str]:
    lines = [_line(one, found.is_sealed and one.name.startswith("test_")) for one in (found.status, *found.numbers)]
    lines += [f"error now: {found.error}"] if found.error else []
    lines += [f"{one.name}: {'the same' if one.is_same else 'another'}" for one in found.exact]
    lines += [_cause(one) for one in found.causes]
    if found.is_bit_equal:
        verdict = "The numbers came back, equal to the last bit."
    elif found.came_back(tolerance):
        verdict = f"The numbers came back within {tolerance:g}, not to the last bit."
    else:
        known = "what differs is named above" if found.causes else "nothing that is recorded of the trial differs"
        verdict = f"The numbers did NOT come back; {known}."
    return [*lines, f"{verdict} ({found.seconds:.0f} s)"]


def _line(one: "Compared", is_sealed: bool) -> str:
    if is_sealed:
        return f"{one.name}: sealed, {'the same' if one.is_same else 'another'} now"
    if one.is_same:
        return f"{one.name}: {write_level(one.recorded)}, the same now"
    return f"{one.name}: {write_level(one.recorded)} recorded, {write_level(one.now)} now"


def _cause(one: "Compared") -> str:
    if one.name.endswith("sha256"):
        return f"differs: {NAMES[one.name]} (hash {str(one.recorded)[:8]} recorded, {str(one.now)[:8]} now)"
    return f"differs: {one.name}: {one.recorded} recorded, {one.now} now"
