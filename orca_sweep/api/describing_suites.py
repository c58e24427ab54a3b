"""The plan of a suite in sentences: a line per space, then what they come to together."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from orca_sweep.api.describing import Ways, describe_design, state_contrasts, write_cost, write_stages
from orca_sweep.space.statements import Statement, join_spaces

if TYPE_CHECKING:
    from orca_sweep.api.suites import SuitePlan
    from orca_sweep.planning.suite_forecast import SuiteForecast

HEAD = ["space", "cells", "trials", "to run", "hours"]


def list_members(plan: "SuitePlan") -> tuple[list[str], list[list[str]]]:
    """Returns the head and the rows of a table of the spaces, each as if it ran alone."""
    rows = []
    for member, alone in zip(plan.members, plan.cost.members, strict=True):
        hours = f"{alone.trial_hours:.2f}" if alone.n_known == alone.n_left else f"{alone.trial_hours:.2f}+?"
        shown = hours if alone.n_known or not alone.n_left else "?"
        rows.append([member.name, str(len(member.record.cells)), str(alone.n_trials), str(alone.n_left), shown])
    return HEAD, rows


def describe_suite(plan: "SuitePlan", cost: "SuiteForecast", *, ways: Ways) -> Iterator[str]:
    """Yields what a person reads of the plan of a suite, beside the table of its spaces.

    Args:
        plan: the plan.
        cost: its forecast, perhaps for another throughput than the plan assumes.
        ways: how to learn the cost.
    """
    yield from _write_totals(cost, ways)
    designs = {member.name: list(map(_state, describe_design(member.record))) for member in plan.members}
    yield from join_members(plan, designs)
    names = [member.name for member in plan.members]
    yield from join_members(plan, dict(zip(names, map(state_contrasts, plan.cost.members), strict=True)))
    yield from plan.terms
    yield from map("note: {}".format, plan.warnings)


def _state(text: str) -> Statement:
    return Statement(text=text)


def join_members(plan: "SuitePlan", by_space: Mapping[str, Sequence[Statement]]) -> list[str]:
    """Returns statements on the spaces of a suite as sentences, each once.

    Args:
        plan: the plan of the suite.
        by_space: the statements by the name of the space.
    """
    return join_spaces(by_space, {member.name: member.record.task_names for member in plan.members})


def _write_totals(cost: "SuiteForecast", ways: Ways) -> Iterator[str]:
    from orca_sweep.analysis.writing import count_things

    apart = f" ({cost.n_trials_apart} if each space ran its own)" if cost.n_trials_apart > cost.n_trials else ""
    spaces = count_things(len(cost.members), "space")
    yield f"{spaces}, {count_things(cost.n_trials, 'different trial')}{apart}: {cost.n_done} done, {cost.n_left} to run"
    if cost.stages:
        n = sum(stage.n_computed for stage in cost.stages)
        yield f"{write_stages(cost.stages)}; {n} in all, and {cost.n_stages_apart} if each trial made its own"
    if cost.n_shared_epochs:
        yield f"{cost.n_shared_epochs} of {cost.n_epochs} fine-tuning epochs are shared by trials with the same start"
    if cost.n_left:
        yield write_cost(cost, ways)
        if cost.n_known:
            yield f"without sharing: about {cost.hours_apart:.2f} hours of trials"
