"""The compute statement: hours, hardware and versions, as the rows tell them."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from orca_sweep.analysis import cost
from orca_sweep.analysis.cost import Cost, Spent
from orca_sweep.analysis.report.wording import count_things, format_hours, format_time
from orca_sweep.errors import InputError
from orca_sweep.results import Results


def compute_statement(results: Results) -> tuple[str, ...]:
    """Returns hours, hardware and versions, trials that are not ok and candidates of tuning counted apart."""
    try:
        # A trial that stands for two cells has a row in each, and was run once.
        once = replace(results, trials=results.trials.drop_duplicates("trial_id"))
        found = cost.compute(once)
    except InputError as error:
        return (f"What the trials took cannot be told from these tables: {'; '.join(map(str, error.problems))}",)
    return " ".join(_describe_hours(found)), " ".join(text for text in _describe_hardware(results, found) if text)


def _describe_hours(found: Cost) -> Iterable[str]:
    parts = {"ok": found.ok, "not ok": found.failed, "trials of tuning": found.search}
    spent = [one for one in parts.values() if one.n]
    wall, cpu, gpu = (sum(getattr(one, name) for one in spent) for name in ("wall_s", "cpu_s", "gpu_s"))
    on_gpus = f" and {format_hours(gpu)} GPU-hours" if gpu else ""
    n_trials = sum(one.n for one in spent)
    yield f"All {n_trials} trials together took {format_time(wall)} of trial time: {format_hours(cpu)} CPU-hours{on_gpus}."
    apart = (f"{format_time(one.wall_s)} in {_count_trials(one.n, name)}" for name, one in parts.items() if one.n)
    yield f"Of these: {', '.join(apart)}."
    reused = sum(one.reused_s for one in spent)
    if reused:
        yield (
            f"Work of {format_time(reused)} was not done again but taken from the store by"
            f" {count_things(sum(one.n_reused for one in spent), 'trial')}; it is not counted above."
        )
    if found.n_assumed:
        yield f"{count_things(found.n_assumed, 'trial')} on a GPU did not tell how many they held, and count with one."
    yield from _describe_gaps(spent)


def _count_trials(n: int, kind: str) -> str:
    return {"ok": count_things(n, "ok trial"), "not ok": f"{count_things(n, 'trial')} not ok"}.get(
        kind, f"{n:,} {kind}"
    )


def _describe_gaps(spent: Sequence[Spent]) -> Iterable[str]:
    n_untimed, n_resumed = sum(one.n_untimed for one in spent), sum(one.n_resumed for one in spent)
    if n_untimed:
        yield f"{count_things(n_untimed, 'planned trial')} left no time: unfinished, or lost with a worker; no number has theirs."
    if n_resumed:
        yield f"{count_things(n_resumed, 'trial')} were resumed; only the last attempt is counted."


def _describe_hardware(results: Results, found: Cost) -> Iterable[str]:
    ran = "; ".join(f"{count_things(n, 'trial')} on {device}" for device, n in found.devices.items())
    yield f"Hardware: {ran}; {count_things(found.n_hosts, 'host')}." if ran else "No trial has told its hardware yet."
    for column, words, unit in (
        ("peak_memory_mib", "main memory", "MiB"),
        ("peak_gpu_memory_mib", "GPU memory", "MiB"),
    ):
        if column in results.trials and results.trials[column].notna().any():
            yield f"Most {words} of a trial: {results.trials[column].max():,.0f} {unit}."
    for column, words in (("code_version", "orca-sweep"), ("versions", "Libraries:")):
        known: Any = results.trials[column].dropna().unique() if column in results.trials else []
        yield f"{words} {' | '.join(sorted(map(str, known)))}." if len(known) else ""
