"""``orca-sweep reveal``: shows sealed test metrics."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orca_sweep.api.finishing import reveal_sweep
from orca_sweep.api.paths import real_path
from orca_sweep.cli.documents import AsJson, print_document

if TYPE_CHECKING:
    from orca_sweep.results import Reveal


def reveal(
    sweep: Annotated[Path, typer.Argument(help="the folder of a sweep or suite", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Show the sealed test metrics of a sweep.

    Reveals those of all ended trials, logs that, and makes tables and figures again. Do it when all choices are made:
    test metrics no longer judge what is tried after a look at them, and the tables say so (n_reveals_before).
    """
    from orca_sweep.cli.summary import summarise_sweep
    from orca_sweep.cli.terminal import open_console, print_text
    from orca_sweep.results import read_reveals, sweep_status

    folder, console = real_path(sweep), open_console()
    revealed, finished = reveal_sweep(folder)
    log = read_reveals(folder)
    document = summarise_sweep(folder, finished, console)
    status = sweep_status(folder)
    n_left = status.statuses.get("unfinished", 0) + status.n_later
    for line in _write_reveal(revealed, log, n_left):
        print_text(console, line)
    if as_json:
        times = {"n_reveals": len(log), "last_revealed": datetime.fromisoformat(log[-1].time) if log else None}
        counts = {"n_revealed": len(revealed.trials), "n_not_ended": n_left, "damaged": revealed.damaged}
        print_document("reveal", {**document, **counts, **times})


def _write_reveal(revealed: "Reveal", log: "Sequence[Reveal]", n_left: int) -> Iterator[str]:
    if not revealed.trials:
        reason = f"all test metrics were revealed on {log[-1].time}" if log else "no trial has test metrics yet"
        yield f"nothing to reveal: {reason}"
        return
    yield f"revealed the test metrics of {len(revealed.trials)} trials (look {len(log)} at this sweep, {revealed.time})"
    if n_left:
        yield f"{n_left} trials have not ended; their test metrics stay sealed until the next reveal."
