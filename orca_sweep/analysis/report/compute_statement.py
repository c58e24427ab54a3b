"""The compute statement: hours by purpose, hardware, and software, as the rows record them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orca_sweep.analysis import cost
from orca_sweep.analysis.cost import Cost, Spent
from orca_sweep.analysis.report.wording import count_text, format_time, join_names, join_words
from orca_sweep.analysis.writing import count_things, format_hours
from orca_sweep.errors import InputError
from orca_sweep.results import Results

if TYPE_CHECKING:
    import pandas as pd

PURPOSES = {"ok": "final trial", "failed": "trial that did not end well", "search": "trial of tuning"}


def compute_statement(results: Results) -> tuple[str, ...]:
    """Returns paragraphs on hours, on what they do not include, and on hardware and software."""
    try:
        total = cost.compute(results)
    except InputError as error:
        return (f"The cost of the trials cannot be computed from these tables: {'; '.join(map(str, error.problems))}",)
    # A trial that belongs to two cells has a row in each, but ran once.
    once = replace(results, trials=results.trials.drop_duplicates("trial_id"))
    parts = {noun: spent for kind, noun in PURPOSES.items() if (spent := getattr(total, kind)).n}
    paragraphs = (_describe_hours(total, parts), _describe_gaps(total, parts, results), _describe_hardware(once))
    return tuple(text for part in paragraphs if (text := " ".join(filter(None, part))))


def _sum_parts(parts: Iterable[Spent], name: str) -> Any:
    return sum(getattr(spent, name) for spent in parts)


# Hours --------------------------------------------------------------------------------------------


def _describe_hours(total: Cost, parts: Mapping[str, Spent]) -> Iterable[str]:
    n_timed = _sum_parts(parts.values(), "n") - _sum_parts(parts.values(), "n_untimed")
    if not n_timed:
        yield "No trial has recorded its time yet."
        return
    wall, cpu, gpu = (_sum_parts(parts.values(), name) for name in ("wall_s", "cpu_s", "gpu_s"))
    subject = _count_all(n_timed, n_timed, n_timed == _sum_parts(parts.values(), "n"))
    yield f"{subject} took {format_time(wall)} of wall time{' in total' * (n_timed > 1)}."
    if n_timed > total.n_unnamed:
        on_gpus = f" and {format_hours(gpu)} GPU-hours" if gpu else ""
        no_gpu = "; no GPU was used" if not gpu and not total.n_unnamed else ""
        yield f"This is {format_hours(cpu)} CPU-hours (wall time times threads){on_gpus}{no_gpu}."
    if total.n_unnamed:
        its, adds = ("its", "adds") if total.n_unnamed == 1 else ("their", "add")
        yield (
            f"{count_things(total.n_unnamed, 'trial')} did not record {its} hardware and {adds} nothing to CPU-hours and"
            " GPU-hours."
        )
    if total.n_assumed:
        yield (
            f"{count_things(total.n_assumed, 'trial')} on a GPU did not record the number of GPUs;"
            f" {'each counts' if total.n_assumed > 1 else 'it counts'} as one GPU."
        )
    yield from _describe_purposes(parts)


def _describe_purposes(parts: Mapping[str, Spent]) -> Iterable[str]:
    timed = {noun: spent for noun, spent in parts.items() if spent.n > spent.n_untimed}
    if len(timed) > 1 or "final trial" not in timed:
        yield f"Of the wall time, {join_words(map(_describe_part, timed, timed.values()))}."
    body_s = sum(spent.stages["body_s"] for spent in parts.values())
    if body_s:
        yield f"Pre-training or loading the body took {format_time(body_s)} of it."
    reused_s, n_reused = (_sum_parts(parts.values(), name) for name in ("reused_s", "n_reused"))
    if n_reused:
        yield (
            f"{count_things(n_reused, 'trial')} reused stored stages, which saved {format_time(reused_s)} of computing."
            " A stored stage counts once, in the trial that computed it."
        )


def _describe_part(noun: str, spent: Spent) -> str:
    """Returns '8.15 minutes went into 20 final trials (0.136 CPU-hours and 0.1 GPU-hours)'."""
    amounts = {"CPU-hours": spent.cpu_s, "GPU-hours": spent.gpu_s}
    hours = " and ".join(f"{format_hours(seconds)} {unit}" for unit, seconds in amounts.items() if seconds)
    n = spent.n - spent.n_untimed
    return f"{format_time(spent.wall_s)} went into {_count_trials(n, noun)}" + f" ({hours})" * bool(hours)


def _count_trials(n: int, noun: str) -> str:
    """Returns '1 trial of tuning', '2 trials of tuning'."""
    first, trial, rest = noun.partition("trial")
    return f"{n:,} {first}{trial}{'s' * (n != 1)}{rest}"


def _describe_gaps(total: Cost, parts: Mapping[str, Spent], results: Results) -> Iterable[str]:
    n, n_untimed, n_resumed = (_sum_parts(parts.values(), name) for name in ("n", "n_untimed", "n_resumed"))
    if n == n_untimed:
        return
    gaps = []
    if n_untimed:
        gaps.append(f"{count_things(n_untimed, 'trial')} without a recorded time (not run to an end, or lost)")
    if n_resumed:
        gaps.append(f"the attempts before the last of {count_things(n_resumed, 'resumed trial')}")
    if any(rules.get("retry") for rules in results.rules.values()):
        gaps.append("failed attempts of trials that were run again")
    stages = ", such as computing stages that earlier sweeps had stored" * bool(_sum_parts(parts.values(), "n_reused"))
    gaps.append(f"all work outside of these tables{stages}")
    yield f"These hours leave out {join_words(gaps)}."


# Hardware and software ----------------------------------------------------------------------------


def _describe_hardware(results: Results) -> Iterable[str]:
    trials = results.trials
    timed = trials[trials["wall_time_s"].notna()]
    if not len(timed):
        yield "No trial has recorded its hardware yet."
    else:
        places = _count_hardware(timed)
        is_whole = len(timed) == len(trials)
        ran = join_words(f"{_count_all(n, len(timed), is_whole)} ran {name}" for name, n in places.items())
        yield f"{ran}, on {_count_hosts(timed)}."
    for column, memory in (("peak_memory_mib", "main memory"), ("peak_gpu_memory_mib", "GPU memory")):
        if column in trials and trials[column].notna().any():
            yield f"No trial used more than {trials[column].max():,.0f} MiB of {memory}."
    kinds = {rules["accelerator_type"] for rules in results.rules.values() if rules.get("accelerator_type")}
    if kinds:
        yield f"The sweep asked for GPUs of the kind {join_names(sorted(kinds))}."
    yield from _describe_software(trials)


def _count_all(n: int, n_timed: int, is_whole: bool) -> str:
    """Returns 'All 52 trials', or how many of those with a time; ``is_whole`` says whether every trial has one."""
    if n < n_timed:
        return count_things(n, "trial")
    timed = "" if is_whole else " with a recorded time"
    return f"The trial{timed}" if n == 1 else f"{'All' if is_whole else 'The'} {n:,} trials{timed}"


def _count_hosts(timed: "pd.DataFrame") -> str:
    """Returns '2 hosts'; hosts that rows do not name are no number."""
    n = timed["host"].nunique()
    return count_things(n, "host") if n else "a host that the tables do not name"


def _count_hardware(timed: "pd.DataFrame") -> dict[str, int]:
    """Returns the number of trials by hardware, in words."""
    facts = [name for name in ("device", "processor", "n_gpus", "n_threads") if name in timed]
    counts: dict[str, int] = {}
    for row in timed[facts].value_counts(dropna=False, sort=False).reset_index(name="n").to_dict("records"):
        name = _name_hardware({str(fact): value for fact, value in row.items()})
        counts[name] = counts.get(name, 0) + int(row["n"])
    return counts


def _name_hardware(row: Mapping[str, Any]) -> str:
    """Returns 'on a CPU (AMD EPYC, 1 thread)', or that the row does not say."""
    device = row["device"]
    if not isinstance(device, str) or not device:
        return "on hardware that the tables do not name"
    noun = {"cpu": "a CPU", "cuda": "a GPU"}.get(device, device)
    n_gpus, n_threads = row.get("n_gpus"), row["n_threads"]
    facts = [row.get("processor") if isinstance(row.get("processor"), str) else "model not recorded"]
    if n_gpus == n_gpus and n_gpus and device != "cpu":
        facts.append(count_text(f"{n_gpus:g}", "GPU") + " per trial")
    if n_threads == n_threads:
        facts.append(f"{count_things(int(n_threads), 'thread')} per trial")
    return f"on {noun} ({', '.join(map(str, facts))})"


def _describe_software(trials: "pd.DataFrame") -> Iterable[str]:
    versions, libraries = (
        sorted(map(str, trials[column].dropna().unique())) if column in trials else []
        for column in ("code_version", "versions")
    )
    if not versions:
        return
    code = f"orca-sweep {join_words(versions)}"
    if len(libraries) < 2:
        yield f"The software was {code}{_with_libraries(libraries)}."
        return
    yield f"The software was {code}, with several sets of library versions: {'; '.join(map(_write_versions, libraries))}."


def _with_libraries(libraries: Sequence[str]) -> str:
    return f" with {_write_versions(libraries[0])}" if libraries else ""


def _write_versions(text: str) -> str:
    """Returns 'torch 2.1 and numpy 2.0' for 'torch=2.1 numpy=2.0'."""
    return join_words(" ".join(pair.split("=", 1)) for pair in text.split())
