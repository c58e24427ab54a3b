"""Which trials of a plan begin alike: fine-tuning epochs that are the same work in several trials are computed once.

Trials that differ only in freeze schedule and number of epochs start fine-tuning from the same state and do the same in
every epoch until their schedules differ or the shorter one ends.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from orca_sweep.config import FinetuneConfig, TrialConfig
from orca_sweep.config.freeze_words import GRADUAL
from orca_sweep.config.freezing import Phase, cut_phases, parse_schedule
from orca_sweep.space.records import PlannedTrial

Work = tuple[tuple[str, ...], float, bool, bool]
"""``Phase.work``: what each epoch of a phase does."""
Stretches = tuple[tuple[Work, int], ...]
"""Successive stretches of equal epochs: their work and their number."""
NO_SCHEDULE: Mapping[str, Any] = {"freeze": "none", "freeze_epochs": 0, "epochs": 1}


def without_schedule(config: TrialConfig) -> TrialConfig:
    """Returns what trials that begin alike have in common: the config with a fixed freeze schedule and number of epochs.

    Trials that are the same work at several levels of ``seed_varies``, as all are at seed 0, have the same.
    """
    config = config.as_run()
    return config.replaced(finetune=config.finetune.replaced(**NO_SCHEDULE))


def first_work(config: TrialConfig) -> Work:
    """Returns the work of a trial's first fine-tuning epoch; trials that differ in it share no epochs."""
    return parse_schedule(config.finetune.freeze, config.finetune.freeze_epochs)[0].work


def shared_prefixes(trials: Iterable[PlannedTrial]) -> Mapping[str, frozenset[int]]:
    """Returns, by trial id, the fine-tuning epochs after which another trial continues differently, or either ends.

    Omits epochs from whose state no other trial of the plan continues, and trials that share nothing.
    ``gradual-unfreeze`` depends on the body's number of layers, which a plan does not know: after its first phase
    it counts as different from every other schedule.

    Cost: O(n log n) for sorting, plus the size of the result; 0.1 s for 5,000 trials.
    """
    groups = _group_trials((trial.config, trial.trial_id) for trial in trials)
    partings = (pair for group in groups if len(group) > 1 for pair in _find_partings(group))
    return {trial_id: epochs for trial_id, epochs in partings if epochs}


def shared_epochs(configs: Iterable[TrialConfig]) -> int:
    """Returns how many fine-tuning epochs need not be computed because another trial has computed them."""
    groups = _group_trials((config, "") for config in configs)
    # In sorted order, each trial computes only what it does not share with its predecessor.
    return sum(_count_agreed_epochs(a, b) for group in groups for (a, _), (b, _) in pairwise(sorted(group)))


def _group_trials(trials: Iterable[tuple[TrialConfig, str]]) -> Iterable[list[tuple[Stretches, str]]]:
    """Groups of trials that start fine-tuning alike (equal ``without_schedule``), each trial as its stretches and id."""
    groups: dict[tuple[object, ...], list[tuple[Stretches, str]]] = defaultdict(list)
    parts: dict[object, int] = {}
    known: dict[int, tuple[object, Any]] = {}
    """Answers by a part's identity: trials share parts. The part is kept so that its identity is not reused."""

    def ask_once(part: Any, answer: Callable[[Any], Any]) -> Any:
        if id(part) not in known:
            known[id(part)] = part, answer(part)
        return known[id(part)][1]

    def number_part(part: object) -> int:
        return parts.setdefault(part, len(parts))

    def split_finetune(finetune: FinetuneConfig) -> tuple[int, Stretches]:
        return number_part(finetune.replaced(**NO_SCHEDULE)), _list_stretches(finetune)

    for config, trial_id in trials:
        config = config.as_run()
        finetune, stretches = ask_once(config.finetune, split_finetune)
        shared = [ask_once(part, number_part) for part in (config.data, config.body, config.embedder, config.predictor)]
        key = (finetune, *shared, config.task, config.proxy, config.seed, config.seed_varies)
        groups[key].append((stretches, trial_id))
    return groups.values()


def _list_stretches(config: FinetuneConfig) -> Stretches:
    phases = parse_schedule(config.freeze, config.freeze_epochs)
    if config.freeze == GRADUAL:
        phases = (phases[0], Phase(epochs=None, frozen=(GRADUAL, str(config.freeze_epochs))))
    return tuple((phase.work, phase.epochs or 0) for phase in cut_phases(phases, config.epochs))


def _find_partings(group: Iterable[tuple[Stretches, str]]) -> Iterator[tuple[str, frozenset[int]]]:
    """The epochs at which each trial of a group parts from another trial.

    In sorted order, trials that share a number of epochs are adjacent, and two trials share as many epochs as the
    neighbours between them that share the fewest.
    """
    ordered = sorted(group)
    agreed = [_count_agreed_epochs(a, b) for (a, _), (b, _) in pairwise(ordered)]
    before, after = list(_list_running_minima(agreed)), list(_list_running_minima(agreed[::-1]))[::-1]
    for (_, trial_id), left, right in zip(ordered, before, after, strict=True):
        yield trial_id, left | right


def _count_agreed_epochs(a: Stretches, b: Stretches) -> int:
    """How many epochs two schedules share from the start."""
    epochs = 0
    for (work, length), (other_work, other_length) in zip(a, b, strict=False):
        if work != other_work:
            break
        epochs += min(length, other_length)
        if length != other_length:
            break
    return epochs


def _list_running_minima(agreed: Iterable[int]) -> Iterator[frozenset[int]]:
    """For each trial in order, the positive numbers of epochs that it shares with trials before it."""
    rising: list[int] = []
    yield frozenset()
    for epochs in agreed:
        while rising and rising[-1] >= epochs:
            rising.pop()
        if epochs > 0:
            rising.append(epochs)
        yield frozenset(rising)
