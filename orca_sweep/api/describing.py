"""A plan in sentences: the same on a terminal, in Python, and in a notebook."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from orca_sweep.space.statements import TASKS, Statement, join_statements

if TYPE_CHECKING:
    from orca_sweep.planning.forecast import Contrasts, Forecast, Stage
    from orca_sweep.planning.suite_forecast import SuiteForecast
    from orca_sweep.planning.terms import Term
    from orca_sweep.space import Plan, Space

Ways = tuple[str, str]
"""How to learn the cost: if all of it is unknown, such as '--probe measures a few epochs', or a part."""
LEGEND = (
    "what the seeds can show: no p of an exact test is smaller; with 80% power, t tests detect or show as follows, after"
    " Holm's correction; sd is the standard deviation of the paired difference"
)


def describe_plan(
    planned: "Plan", estimate: "Forecast", *, terms: Iterable["Term"], notes: Iterable[str], ways: Ways
) -> Iterator[str]:
    """Yields what a person reads of a plan, beside the table of its cells.

    Args:
        planned: the plan.
        estimate: what it costs.
        terms: what holds for the sweep.
        notes: what to know before launching.
        ways: how to learn the cost.
    """
    yield write_size(planned)
    yield from describe_design(planned)
    if planned.tuned:
        yield f"{len(planned.trials) + planned.n_later} trials in all with those that tuning plans later"
    yield from (term.write(planned.task_names) for term in join_statements(term.statement for term in terms))
    yield from _write_forecast(estimate, planned.task_names, ways)
    yield from map("note: {}".format, notes)


def write_size(plan: "Plan") -> str:
    """Returns '4 cells x 5 seeds + 2 A/A = 22 trials'."""
    from orca_sweep.analysis.writing import count_things

    space = plan.space
    merged = f"; {_count_merged(plan.n_merged)}" if plan.n_merged else ""
    again = f" + {plan.n_aa} A/A" if space.aa else ""
    n = len(plan.cells) * len(space.seeds) + plan.n_aa
    counts = " x ".join([count_things(len(plan.cells), "cell"), count_things(len(space.seeds), "seed")])
    return f"{counts}{again} = {count_things(n, 'trial')}{merged}"


def _count_merged(n: int) -> str:
    if n == 1:
        return "1 combination is the same work as another and runs once"
    return f"{n} combinations are the same work as another and run once"


def describe_design(planned: "Plan") -> Iterator[str]:
    """Yields how the cells come about and what is fixed beforehand: design, A/A repeats, tuning, margins."""
    yield from _write_design(planned)
    space = planned.space
    if space.aa:
        which = "the first cell" if len(planned.first_cells) == 1 else "the first cell of each task"
        yield f"A/A: {which} again with the seeds {', '.join(map(str, space.aa))}, as a separate cell"
    if space.tune:
        search = space.search
        counts = sorted(
            {len(cell.candidates) for cell in planned.tuned} if search.n_candidates is None else {search.n_candidates}
        )
        tuned = ", ".join(f"{path} {_write_values(space, path)}" for path in space.tune)
        seeds = ", ".join(map(str, search.seeds))
        yield (
            f"tuned within each cell: {tuned}; {search.method}, {' to '.join(map(str, counts))} candidates with seed {seeds};"
            " the best on validation data is replicated"
        )
    if space.margins:
        yield (
            f"margin fixed beforehand: {_write_margins(planned)}, in the metric's unit; differences within it do not count"
            " as meaningful"
        )


def _write_margins(planned: "Plan") -> str:
    """Returns '0.01', or '0.01 (digits), 0.02 (ecg), none for satellite'."""
    from orca_sweep.space.margins import ALL

    margins = planned.space.margins
    if ALL in margins:
        return f"{margins[ALL]:g}"
    fixed = [f"{margins[task]:g} ({planned.names[task]})" for task in planned.by_task if task in margins]
    unfixed = [f"none for {planned.names[task]}" for task in planned.by_task if task not in margins]
    return ", ".join([*fixed, *unfixed])


def _write_values(space: "Space", path: str) -> str:
    values = space.tune[path]
    return (
        f"[{', '.join(space.write_level(path, value) for value in values)}]"
        if isinstance(values, tuple)
        else str(values)
    )


def _write_design(planned: "Plan") -> Iterator[str]:
    """Yields the design in words and, for a fraction, all effects that it mixes."""
    from orca_sweep.space.designs import RESOLUTIONS

    design, aliasing = planned.space.design, planned.aliasing
    if aliasing is None:
        if design.name != "cross":
            yield f"design {design.name}: {design.meaning}"
    elif aliasing.resolution is None:
        yield f"design fraction: all {aliasing.n_whole} combinations: a fraction of so few factors has a lower resolution"
    else:
        meaning = RESOLUTIONS[min(aliasing.resolution, max(RESOLUTIONS))]
        shown = f"{aliasing.n_run} of {aliasing.n_whole} combinations, resolution {aliasing.resolution}"
        yield f"design fraction: {shown}: {meaning}"
        for first, *aliases in aliasing.aliases:
            yield f"  {first} cannot be told from {' or '.join(aliases)}"


def _write_forecast(estimate: "Forecast", task_names: Sequence[str], ways: Ways) -> Iterator[str]:
    if estimate.n_done:
        yield f"{estimate.n_done} trials are done, {estimate.n_left} are left"
    if estimate.stages:
        yield write_stages(estimate.stages)
    if estimate.n_shared_epochs:
        yield (
            f"{estimate.n_shared_epochs} of {estimate.n_epochs} fine-tuning epochs are shared: trials with the same start"
            " compute them once"
        )
    if estimate.n_left:
        yield write_cost(estimate, ways)
        if estimate.checkpoint_mib is not None:
            yield f"checkpoints: at most {estimate.checkpoint_mib:.3g} MiB for each running trial, deleted when it ends"
    yield from (statement.write(task_names) for statement in state_contrasts(estimate))


def write_stages(stages: Iterable["Stage"]) -> str:
    """Returns how many artifacts of each stage are to be computed, and how many the store has."""
    counts = [
        f"{stage.name} {stage.n_computed}" + (f" (+ {stage.n_reused} found)" if stage.n_reused else "")
        for stage in stages
    ]
    return f"stages to compute, once for all trials that share them: {', '.join(counts)}"


def state_contrasts(estimate: "Forecast") -> list[Statement]:
    """Returns what the seeds can show of each task."""
    from orca_sweep.config.naming import label_declarations
    from orca_sweep.stats import LEAST_PAIRS

    names = label_declarations(contrasts.task for contrasts in estimate.contrasts)
    general = [
        Statement(text=_write_seeds(contrasts), tasks=((names[contrasts.task], ""),))
        for contrasts in estimate.contrasts
    ]
    particular = [
        Statement(text=_write_known_spread(contrasts), tasks=((names[contrasts.task], _write_power(contrasts)),))
        for contrasts in estimate.contrasts
        if contrasts.spread and contrasts.n_seeds >= LEAST_PAIRS
    ]
    legend = [Statement(text=LEGEND)] if any(each.n_seeds >= LEAST_PAIRS for each in estimate.contrasts) else []
    return join_statements([*legend, *general, *particular])


def _write_seeds(contrasts: "Contrasts") -> str:
    """Returns what the number of seeds allows, whatever the spread."""
    from orca_sweep.analysis.writing import count_things
    from orca_sweep.stats import LEAST_PAIRS

    lead = f"each cell against the first of {TASKS}, {count_things(contrasts.n_seeds, 'seed')}:"
    if contrasts.n_seeds < LEAST_PAIRS:
        return f"{lead} no difference can be judged, at least {LEAST_PAIRS} seeds are needed"
    n, effect = contrasts.n_comparisons, f"{contrasts.smallest_effect:.2f} sd"
    corrected = f" ({contrasts.smallest_p:.3g} before Holm's correction)" if n > 1 else ""
    text = f"{lead} {count_things(n, 'comparison')}, p from {contrasts.corrected_p:.3g}{corrected}; detects {effect}"
    if contrasts.largest_spread is None:
        return text
    return (
        f"{text}, {contrasts.margin:g} + {effect} beyond the margin; shows no meaningful difference if sd is below"
        f" {contrasts.largest_spread:.2g}"
    )


def _write_known_spread(contrasts: "Contrasts") -> str:
    against = "" if contrasts.margin is None else f" against the margin of {contrasts.margin:g}"
    return f"by the spread of earlier rows, {contrasts.n_seeds} seeds{against} are {TASKS}; pairing can only do better"


def _write_power(contrasts: "Contrasts") -> str:
    """Returns what the seeds can show with the spread that earlier rows have."""
    from orca_sweep.stats.power import POWER

    if contrasts.detectable is None or contrasts.chance_within is None or contrasts.n_seeds_within is None:
        return f"enough for differences from {contrasts.smallest_effect * (contrasts.spread or 0) * 2**0.5:.2g}"
    beyond = f"enough for differences from {contrasts.detectable:.2g}"
    if contrasts.chance_within >= POWER:
        return f"{beyond}, and to show that there is none that matters"
    n = contrasts.n_seeds_within
    needed = f"{n:.0f} seeds" if n < math.inf else "more than 1,000 seeds"
    return f"{beyond}, but too few to show that there is none that matters ({contrasts.chance_within:.0%}; {needed} for 80%)"


def write_cost(forecast: "Forecast | SuiteForecast", ways: Ways) -> str:
    """Returns what the trials that are left cost."""
    sizes = _write_sizes_cost(forecast, ways)
    if not forecast.n_known:
        return f"cost: {sizes or f'unknown, as the store has no earlier row of similar trials ({ways[0]})'}"
    hours = f"{forecast.trial_hours:.2f} hours of trials"
    used = f"{forecast.cpu_hours:.2f} CPU-hours, {forecast.gpu_hours:.2f} GPU-hours"
    n_unknown = forecast.n_left - forecast.n_known
    rest = f"; the cost of {n_unknown} more trials is unknown ({ways[1]})" if n_unknown else ""
    rest = f"; {n_unknown} more trials: {sizes}" if n_unknown and sizes else rest
    return f"cost: about {hours} one after another ({used}), from {forecast.n_rows} earlier rows{rest}"


def _write_sizes_cost(forecast: "Forecast | SuiteForecast", ways: Ways) -> str:
    """Returns what trials that no row has timed cost by their sizes; empty if that is not known either."""
    flops = forecast.flops
    if flops is None:
        return ""
    unknown = f"; {flops.n_unknown} trials of unknown size come on top" if flops.n_unknown else ""
    guessed = f"; how many samples {' and '.join(flops.guessed)} have is partly a guess" if flops.guessed else ""
    hours = float(f"{flops.gpu_hours:.2g}")
    return (
        f"about {hours:,g} GPU-hours, estimated from {flops.flops:.2g} FLOPs at {flops.tflops:g} TFLOP/s in"
        f" {flops.precision} (assumed), right within a factor of 2 or 3: no such trial has been timed ({ways[0]})"
        f"{guessed}{unknown}"
    )
