"""Rows of the stages table: the totals of stretches of epochs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from orca_sweep.config.freezing import Phase, phase_at


def phase_row(
    epochs: Sequence[Mapping[str, Any]], frozen: Sequence[str], n_trainable: int, reused_s: float
) -> dict[str, Any]:
    """Returns the totals of a stretch of epochs as columns of the stages table."""
    return {
        "frozen": "+".join(frozen),
        "first_epoch": epochs[0]["epoch"],
        "last_epoch": epochs[-1]["epoch"],
        "n_trainable": n_trainable,
        "n_steps": sum(row["n_steps"] for row in epochs),
        "lr_integral": math.fsum(row["lr_integral"] for row in epochs),
        "reused_s": reused_s,
    }


def list_phase_rows(
    phases: Sequence[Phase],
    history: Sequence[Mapping[str, Any]],
    reused_s: Mapping[int, float],
    spent_s: Mapping[int, float],
) -> list[dict[str, Any]]:
    """Returns a row for each phase of a freeze schedule that the run reached.

    Args:
        phases: the schedule.
        history: a row per epoch done.
        reused_s: seconds that each epoch taken over from other runs had cost.
        spent_s: seconds that each epoch computed now has cost.
    """
    rows = []
    for phase in phases:
        epochs = [row for row in history if phase_at(phases, row["epoch"]) is phase]
        if epochs:
            reused, spent = (sum(cost.get(row["epoch"], 0.0) for row in epochs) for cost in (reused_s, spent_s))
            row = phase_row(epochs, phase.frozen, epochs[0]["n_trainable"], reused)
            row |= {"lr_factor": phase.lr_factor, "constant_lr": phase.constant_lr}
            rows.append({**row, "fresh_optimizer": phase.fresh_optimizer, "wall_time_s": spent})
    return rows
