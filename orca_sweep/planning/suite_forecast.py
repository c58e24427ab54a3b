"""What a suite will cost: equal trials and shared stages of its spaces count once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from orca_sweep.config import TrialConfig
from orca_sweep.planning.flops import FlopEstimate, join_estimates
from orca_sweep.planning.forecast import (
    EarlierTrials,
    Forecast,
    Price,
    Stage,
    forecast,
    list_later_configs,
    price_trials,
    price_trials_apart,
)
from orca_sweep.space import Plan
from orca_sweep.space.prefixes import shared_epochs
from orca_sweep.store import Store


@dataclass(frozen=True, kw_only=True)
class PlannedMember:
    """The plan of a space in a suite, and what of it is done."""

    plan: Plan
    is_done: Callable[[str], bool]
    """Whether the trial with this id is done, here or in another space of the suite."""
    added: tuple[str, ...] = ()
    """Ids of the trials that tuning has planned by now; they may equal trials of other spaces."""

    @property
    def n_later_done(self) -> int:
        """How many of the trials that tuning plans later are done."""
        return sum(map(self.is_done, self.added))


@dataclass(frozen=True, kw_only=True)
class SuiteForecast:
    """What a suite will cost and what its spaces can show."""

    members: tuple[Forecast, ...]
    """What each space would cost without the others; what is done in any of them is done in all."""
    n_trials: int
    """Different trials, including those that tuning plans later."""
    n_trials_apart: int
    """Trials if each space ran all of its own."""
    n_done: int
    n_left: int
    stages: tuple[Stage, ...]
    """Different artifacts that the trials that are left need."""
    n_stages_apart: int
    """Artifacts if each trial made all of its own."""
    n_epochs: int
    n_shared_epochs: int
    """Fine-tuning epochs that a trial takes over from another one of its space."""
    trial_hours: float
    """Hours of the trials that are left, run one after another; trials of unknown cost are left out."""
    hours_apart: float
    """The same if each trial of each space computed everything itself."""
    cpu_hours: float
    gpu_hours: float
    n_known: int
    """How many of the trials that are left have a known cost."""
    n_rows: int
    """Earlier rows that the forecast is based on."""
    flops: FlopEstimate | None = None
    """What the trials of unknown cost take by their sizes; None if that is not known either, or without a GPU."""


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Trials that need equal resources, each trial of the suite in one part."""

    price: Price
    n_stages_apart: int
    """Of the same trials, each as often as spaces have it and with artifacts of its own."""
    hours_apart: float
    cpu_hours: float
    gpu_hours: float


def forecast_suite(members: Sequence[PlannedMember], store: Store | None) -> SuiteForecast:
    """Returns what the spaces of a suite will cost together."""
    earlier = EarlierTrials(store)
    alone = tuple(forecast(member.plan, earlier, member.is_done, member.n_later_done) for member in members)
    by_id = {trial.trial_id: member for member in reversed(members) for trial in member.plan.trials}
    by_id_or_added = {trial_id: member for member in reversed(members) for trial_id in member.added} | by_id
    # Those that tuning has still to plan are unknown, so each of them counts as another trial.
    n_unknown = sum(max(0, m.plan.n_later - len(m.added)) for m in members)
    n_done = sum(member.is_done(trial_id) for trial_id, member in by_id_or_added.items())
    parts = _price_parts(members, by_id, earlier)
    return SuiteForecast(
        members=alone,
        n_trials=len(by_id_or_added) + n_unknown,
        n_trials_apart=sum(each.n_trials for each in alone),
        n_done=n_done,
        n_left=len(by_id_or_added) - n_done + n_unknown,
        stages=_join_stages([part.price for part in parts]),
        n_stages_apart=sum(part.n_stages_apart for part in parts),
        n_epochs=sum(part.price.n_epochs for part in parts),
        n_shared_epochs=sum(part.price.n_shared_epochs for part in parts),
        trial_hours=sum(part.price.hours for part in parts),
        hours_apart=sum(part.hours_apart for part in parts),
        cpu_hours=sum(part.cpu_hours for part in parts),
        gpu_hours=sum(part.gpu_hours for part in parts),
        n_known=sum(seconds is not None for part in parts for seconds in part.price.seconds),
        n_rows=max((each.n_rows for each in alone), default=0),
        flops=join_estimates(part.price.flops for part in parts),
    )


def _price_parts(
    members: Sequence[PlannedMember], by_id: Mapping[str, PlannedMember], earlier: EarlierTrials
) -> list[_Part]:
    """Returns the price of the trials that are left, by the resources that they need."""
    groups: dict[tuple[float, float], list[PlannedMember]] = {}
    for member in members:
        resources = member.plan.space.resources
        groups.setdefault((resources.cpu, resources.gpu), []).append(member)
    parts = []
    for (cpu, gpu), group in groups.items():
        resources = group[0].plan.space.resources
        comparable = earlier.find_comparable(resources.device, resources.n_threads)
        every, left, n_shared = [], [], 0
        for member in group:
            own = {t.trial_id: t.config for t in member.plan.trials if not member.is_done(t.trial_id)}
            first = [config for trial_id, config in own.items() if by_id[trial_id] is member]
            later: list[TrialConfig] = list_later_configs(member.plan)[member.n_later_done :]
            every += [*own.values(), *later]
            left += [*first, *later]
            n_shared += shared_epochs(first)
        price = price_trials(left, n_shared, comparable, n_gpus=gpu)
        n_stages, hours = price_trials_apart(every, comparable)
        parts.append(
            _Part(
                price=price,
                n_stages_apart=n_stages,
                hours_apart=hours,
                cpu_hours=price.hours * cpu,
                gpu_hours=price.hours * gpu,
            )
        )
    return parts


def _join_stages(prices: Sequence[Price]) -> tuple[Stage, ...]:
    stages = [stage for price in prices for stage in price.stages]
    return tuple(
        Stage(
            name=name,
            n_computed=sum(stage.n_computed for stage in stages if stage.name == name),
            n_reused=sum(stage.n_reused for stage in stages if stage.name == name),
        )
        for name in dict.fromkeys(stage.name for stage in stages)
    )
