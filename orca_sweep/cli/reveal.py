"""``orca-sweep reveal``: shows sealed test metrics."""

from pathlib import Path
from typing import Annotated

import typer

from orca_sweep.api.paths import real_path
from orca_sweep.cli.summary import summarise_sweep
from orca_sweep.cli.terminal import open_console
from orca_sweep.errors import InputError


def reveal(sweep: Annotated[Path, typer.Argument(help="a sweep folder", show_default=False)]) -> None:
    """Show the sealed test metrics of a sweep.

    Reveals those of all ended trials, logs that, and makes tables and figures again. Do it when all choices are made:
    test metrics no longer judge what is tried after a look at them, and the tables say so (n_reveals_before).
    """
    from orca_sweep.results import read_reveals, sweep_status
    from orca_sweep.results import reveal as reveal_metrics

    folder = real_path(sweep)
    revealed, log = reveal_metrics(folder), read_reveals(folder)
    console = open_console()
    summarise_sweep(folder, console)
    if not revealed.trials:
        if revealed.damaged:
            raise InputError(list(revealed.damaged))
        reason = f"all test metrics were revealed on {log[-1].time}" if log else "no trial has test metrics yet"
        console.print(f"nothing to reveal: {reason}", soft_wrap=True)
        return
    console.print(
        f"revealed the test metrics of {len(revealed.trials)} trials (look {len(log)} at this sweep, {revealed.time})",
        soft_wrap=True,
    )
    status = sweep_status(folder)
    n_left = status.statuses.get("unfinished", 0) + status.n_later
    if n_left:
        text = f"{n_left} trials have not ended; their test metrics stay sealed until the next reveal."
        console.print(text, soft_wrap=True)
