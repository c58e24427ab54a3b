"""The compute statement: hours, hardware and versions, as the rows record them."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from orca_sweep.analysis import cost
from orca_sweep.analysis.cost import Cost, Spent
from orca_sweep.analysis.report.wording import format_time, join_words
from orca_sweep.analysis.writing import count_things, format_hours
from orca_sweep.errors import InputError
from orca_sweep.results import Results


def compute_statement(results: Results) -> tuple[str, ...]:
    """Returns two paragraphs, on hours and on hardware; hours of ok trials, other trials and tuning are separate."""
    try:
        # A trial that belongs to two cells has a row in each, but ran once.
        total = cost.compute(replace(results, trials=results.trials.drop_duplicates("trial_id")))
    except InputError as error:
        return (f"The cost of the trials cannot be computed from these tables: {'; '.join(map(str, error.problems))}",)
    return " ".join(_describe_hours(total)), " ".join(text for text in _describe_hardware(results, total) if text)


def _describe_hours(total: Cost) -> Iterable[str]:
    parts = {
        "ok trial": total.ok,
        "trial that did not end ok": total.failed,
        "trial of tuning": total.search,
    }
    known = {noun: spent for noun, spent in parts.items() if spent.n}
    n_trials, n_untimed = (sum(getattr(spent, name) for spent in known.values()) for name in ("n", "n_untimed"))
    if n_trials == n_untimed:
        yield "No trial has recorded its time yet."
        return
    wall, cpu, gpu = (sum(getattr(spent, name) for spent in known.values()) for name in ("wall_s", "cpu_s", "gpu_s"))
    on_gpus = f" and {format_hours(gpu)} GPU-hours" if gpu else ""
    summed = f"{count_things(n_trials, 'trial')} took {format_time(wall)}{' in total' * (n_trials > 1)}"
    yield f"{'The ' * (n_trials > 1)}{summed}: {format_hours(cpu)} CPU-hours{on_gpus}."
    if len(known) > 1:
        shares = [f"{format_time(s.wall_s)} for {_count_trials(s.n, noun)}" for noun, s in known.items()]
        yield f"This is {join_words(shares)}."
    yield from _describe_reuse(list(known.values()))
    if total.n_assumed:
        yield (
            f"{count_things(total.n_assumed, 'trial')} on a GPU did not record the number of GPUs;"
            f" {'each counts' if total.n_assumed > 1 else 'it counts'} as one GPU."
        )
    yield from _describe_gaps(list(known.values()))


def _count_trials(n: int, noun: str) -> str:
    """Returns '1 trial of tuning', '2 trials of tuning'."""
    first, trial, rest = noun.partition("trial")
    return f"{n:,} {first}{trial}{'s' * (n != 1)}{rest}"


def _describe_reuse(parts: Sequence[Spent]) -> Iterable[str]:
    reused = sum(spent.reused_s for spent in parts)
    if reused:
        yield (
            f"{count_things(sum(spent.n_reused for spent in parts), 'trial')} reused stored results that took"
            f" {format_time(reused)} to compute; that time is not included."
        )


def _describe_gaps(parts: Sequence[Spent]) -> Iterable[str]:
    n_untimed, n_resumed = (sum(getattr(spent, name) for spent in parts) for name in ("n_untimed", "n_resumed"))
    if n_untimed:
        yield (
            f"{n_untimed:,} of these trials recorded no time (unfinished, or lost with a worker), so that time is not"
            " included."
        )
    if n_resumed:
        yield f"For {count_things(n_resumed, 'resumed trial')}, only the last attempt is included."


def _describe_hardware(results: Results, total: Cost) -> Iterable[str]:
    devices = "; ".join(f"{count_things(n, 'trial')} on {device}" for device, n in total.devices.items())
    if devices:
        yield f"Hardware: {devices}; {count_things(total.n_hosts, 'host')}."
    else:
        yield "No trial has recorded its hardware yet."
    for column, memory in (("peak_memory_mib", "main memory"), ("peak_gpu_memory_mib", "GPU memory")):
        if column in results.trials and results.trials[column].notna().any():
            yield f"Peak {memory} of a trial: {results.trials[column].max():,.0f} MiB."
    for column, label in (("code_version", "Code: orca-sweep"), ("versions", "Libraries:")):
        known: Any = results.trials[column].dropna().unique() if column in results.trials else []
        yield f"{label} {' | '.join(sorted(map(str, known)))}." if len(known) else ""
