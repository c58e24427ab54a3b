"""What a plan will cost: stages to compute and to reuse, hours, and what its seeds can show.

Costs come from earlier rows of the same store. A trial without a similar earlier row has an unknown cost; nothing is
guessed.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Any

from orca_sweep.config import TrialConfig
from orca_sweep.errors import InputError
from orca_sweep.planning.flops import FlopEstimate, estimate_flops
from orca_sweep.results import validation_twin
from orca_sweep.space import Plan, Space
from orca_sweep.space.margins import ALL
from orca_sweep.space.prefixes import shared_epochs
from orca_sweep.stats import (
    LEAST_PAIRS,
    chance_of_no_difference,
    count_seeds_for_margin,
    detectable_effect,
    largest_spread_for_margin,
    smallest_effect,
    smallest_p,
)
from orca_sweep.store import Store, made_with
from orca_sweep.trial import Records, StageNames, resolve_config, shared_stages

MOST_ROWS = 5000
Row = Mapping[str, Any]
Kind = tuple[str, ...]
# The fields that two trials must share for a stage to cost about the same, from the strictest list to the loosest.
FINETUNE_LIKE: tuple[Kind, ...] = (
    ("task", "body.name", "data.n_train", "data.augment", "finetune.batch_size", "finetune.lora_rank", "finetune.freeze",
     "finetune.freeze_epochs"),
    ("task", "body.name", "data.n_train"),
    ("task", "body.name"),
)  # fmt: skip
EMBEDDER_LIKE: tuple[Kind, ...] = (
    ("task", "body.name", "data.n_train", "proxy", "embedder.objective", "embedder.max_samples_per_class"),
    ("task", "body.name", "embedder.objective"),
    ("task", "body.name"),
)
PROXY_LIKE: tuple[Kind, ...] = (("body.name", "proxy"), ("body.name",))
BODY_LIKE: tuple[Kind, ...] = (("body.name", "body.pretrain_steps"), ("body.name",))


def read_likeness(config: TrialConfig) -> tuple[object, ...]:
    """Returns the values that a trial's cost per epoch depends on most: a probe runs one trial for each such tuple."""
    flat = config.flat()
    return (*(flat[path] for path in FINETUNE_LIKE[1]), *(flat[path] for path in EMBEDDER_LIKE[0][3:]))


@dataclass(frozen=True, kw_only=True)
class Stage:
    """How many artifacts of one stage a plan needs."""

    name: str
    n_computed: int
    n_reused: int
    """The store already has them."""


@dataclass(frozen=True, kw_only=True)
class Contrasts:
    """What the seeds of one task can show when each cell is compared with the first, in pairs of equal seed."""

    task: str
    n_seeds: int
    n_comparisons: int
    smallest_p: float
    """The smallest p of an exact sign-flip test, however large the effect."""
    corrected_p: float
    """The same p after Holm's correction for all comparisons."""
    smallest_effect: float
    """The effect detected with 80% power at 5% after Holm's correction, in standard deviations of the paired difference."""
    spread: float | None
    """Standard deviation of the validation metric over seeds, in earlier rows of the task and its bodies; None: unknown."""
    margin: float | None = None
    """The margin that the space fixes for the task, if any."""
    largest_spread: float | None = None
    """The largest standard deviation of the paired difference at which a difference of zero is shown to lie within the
    margin with 80% power; None without a margin or below three seeds."""
    detectable: float | None = None
    """The smallest difference that is shown to lie beyond the margin with 80% power; None: margin or spread are unknown.

    Differences of unpaired draws have twice the variance of the metric; pairing can only do better. The two fields below
    assume the same."""
    chance_within: float | None = None
    """The probability that a difference of zero is shown to lie within the margin; None as above."""
    n_seeds_within: float | None = None
    """The fewest seeds with which that probability is 80%; infinite above 1,000, None as above."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a plan will cost and what it can show."""

    n_trials: int
    """Planned trials, including those that tuning plans later."""
    n_done: int
    stages: tuple[Stage, ...]
    n_epochs: int
    """Fine-tuning epochs of the trials that are left."""
    n_shared_epochs: int
    """How many of them a trial takes over from another trial with the same beginning."""
    trial_hours: float
    """Hours of the trials that are left, run one after another; trials of unknown cost are left out."""
    cpu_hours: float
    gpu_hours: float
    n_known: int
    """How many of the trials that are left have a known cost."""
    n_left: int
    n_rows: int
    """Earlier rows that the forecast is based on."""
    contrasts: tuple[Contrasts, ...]
    checkpoint_mib: float | None
    """Checkpoint of the largest trial whose size is known from earlier rows, on disk while it runs; None: none is known."""
    longest_trial_s: float | None = None
    """Seconds of the longest trial of known cost, without the stages that it shares; None: none is known."""
    flops: FlopEstimate | None = None
    """What the trials of unknown cost take by their sizes; None if that is not known either, or without a GPU."""
    n_over_limit: int = 0
    """How many of the trials that are left will probably exceed ``limits.trial_s``."""


def forecast(
    plan: Plan,
    store: "Store | EarlierTrials | None",
    is_done: Callable[[str], bool] = lambda trial_id: False,
    n_later_done: int = 0,
) -> Forecast:
    """Returns what the plan will cost.

    Args:
        plan: the plan.
        store: where stage artifacts and earlier rows are, or what it has, if several plans ask; None if there is no store yet.
        is_done: whether the trial with this id is done.
        n_later_done: how many of the trials that tuning plans later are done.
    """
    resources = plan.space.resources
    every = store if isinstance(store, EarlierTrials) else EarlierTrials(store)
    earlier = every.find_comparable(resources.device, resources.n_threads)
    config_rows = earlier.config_rows
    planned = [trial.config for trial in plan.trials if not is_done(trial.trial_id)]
    left = [*planned, *list_later_configs(plan)[n_later_done:]]
    price = price_trials(left, shared_epochs(planned), earlier, n_gpus=resources.gpu)
    hours, seconds = price.hours, price.seconds
    return Forecast(
        n_trials=len(plan.trials) + plan.n_later,
        n_done=len(plan.trials) - len(planned) + n_later_done,
        stages=price.stages,
        n_epochs=price.n_epochs,
        n_shared_epochs=price.n_shared_epochs,
        trial_hours=hours,
        cpu_hours=hours * resources.cpu,
        gpu_hours=hours * resources.gpu,
        n_known=sum(s is not None for s in seconds),
        n_left=len(left),
        n_rows=len(config_rows),
        contrasts=tuple(_compute_contrasts(plan, config_rows)),
        checkpoint_mib=_estimate_checkpoint_mib(left, config_rows),
        longest_trial_s=max(filter(None, seconds), default=None),
        flops=price.flops,
        n_over_limit=sum(s > (plan.space.limits.trial_s or math.inf) for s in seconds if s is not None),
    )


@dataclass(frozen=True, kw_only=True)
class Price:
    """What trials cost that run beside each other with one store."""

    stages: tuple[Stage, ...]
    n_epochs: int
    n_shared_epochs: int
    hours: float
    """Run one after another; trials of unknown cost are left out."""
    seconds: tuple[float | None, ...]
    """Of each trial, without the stages that it shares; None: unknown."""
    flops: FlopEstimate | None
    """What the trials of unknown cost take by their sizes; None if that is not known either, or without a GPU."""


def price_trials(
    configs: Sequence[TrialConfig], n_shared_epochs: int, earlier: "ComparableTrials", *, n_gpus: float
) -> Price:
    """Returns what trials cost that hold this many GPUs each, by comparable earlier rows, else by their sizes."""
    costs = _Costs(earlier.config_rows)
    stages, computed = _count_stages(configs, earlier.stored)
    n_epochs = sum(config.finetune.epochs for config in configs)
    seconds = tuple(map(costs.estimate_trial, configs))
    trial_s = _sum_known(seconds)
    # Stages that trials share are made once; shared epochs of fine-tuning, too.
    shared_s = trial_s * n_shared_epochs / max(1, n_epochs)
    stage_s = _sum_known(costs.estimate_stage(stage, config) for stage, config in computed)
    return Price(
        stages=stages,
        n_epochs=n_epochs,
        n_shared_epochs=n_shared_epochs,
        hours=(trial_s - shared_s + stage_s) / 3600,
        seconds=seconds,
        flops=estimate_flops(
            [config for config, s in zip(configs, seconds, strict=True) if s is None],
            computed,
            share_left=1 - n_shared_epochs / max(1, n_epochs),
            n_gpus=n_gpus,
        ),
    )


def price_trials_apart(configs: Sequence[TrialConfig], earlier: "ComparableTrials") -> tuple[int, float]:
    """Returns the number of artifacts and the hours if each trial computed everything itself, by comparable earlier rows."""
    costs = _Costs(earlier.config_rows)
    name_stages, records = StageNames(), Records()
    stages = [(stage, config) for config in configs for stage in name_stages(records.resolve_config(config))]
    trial_s = _sum_known(map(costs.estimate_trial, configs))
    stage_s = _sum_known(costs.estimate_stage(stage, config) for stage, config in stages)
    return len(stages), (trial_s + stage_s) / 3600


def _sum_known(seconds: Iterable[float | None]) -> float:
    return sum(s for s in seconds if s is not None)


def _estimate_checkpoint_mib(configs: Iterable[TrialConfig], rows: Iterable[Row]) -> float | None:
    """The most that a checkpoint can take: current weights, best-validated weights, and the optimizer's moments."""
    sizes = {
        (row["config"]["task"], row["config"]["body.name"]): row["n_parameters"]
        for row in rows
        if row.get("n_parameters")
    }
    numbers = [
        sizes[config.task, config.body.name] * (3 if config.finetune.optimizer == "sgd" else 4)
        for config in configs
        if (config.task, config.body.name) in sizes
    ]
    return 4 * max(numbers) / 2**20 if numbers else None


def list_later_configs(plan: Plan) -> list[TrialConfig]:
    """Returns stand-ins for the trials that tuning plans later: each cell's untuned config, with their seeds."""
    if not plan.tuned:
        return []
    search = plan.space.search
    adaptive = [] if search.method != "optuna" else [s for s in search.seeds for _ in range(search.n_candidates or 0)]
    pairs = [(cell.base, seed) for cell in plan.tuned for seed in (*plan.space.seeds, *adaptive)]
    pairs += [(plan.by_cell_id[cell_id], seed) for cell_id in plan.first_cells for seed in plan.space.aa]
    return [config.model_copy(update={"seed": seed}) for config, seed in pairs]


class EarlierTrials:
    """The earlier trials whose rows a store has. Several plans may ask: each row is read once."""

    def __init__(self, store: Store | None) -> None:
        """Takes the store; None has no rows."""
        self.store = store
        self._comparable: dict[tuple[str, int], ComparableTrials] = {}

    @cached_property
    def _rows(self) -> list[Row]:
        rows: Sequence[Row] = [] if self.store is None else self.store.read_rows(MOST_ROWS)
        return [row for row in rows if "used" in row]

    def find_comparable(self, device: str, n_threads: int) -> "ComparableTrials":
        """Returns those that were made with this device, so many threads, and the libraries and stage code of now."""
        if (device, n_threads) not in self._comparable:
            wanted = made_with(device, n_threads) if self._rows else {}
            rows = [row for row in self._rows if all(row.get(key) == value for key, value in wanted.items())]
            self._comparable[device, n_threads] = ComparableTrials(rows, self.store)
        return self._comparable[device, n_threads]


class ComparableTrials:
    """Earlier trials that were made as planned ones will be."""

    def __init__(self, rows: Sequence[Row], store: Store | None) -> None:
        self.rows, self.store = rows, store
        self.config_rows = [row for row in rows if "config" in row]
        """Without those of artifacts that were made alone."""

    @cached_property
    def stored(self) -> frozenset[tuple[str, str, int]]:
        """Stage, name and length of the artifacts that they used and that the store still has."""
        return frozenset(_find_stored(self.rows, self.store))


def _count_stages(
    configs: Sequence[TrialConfig], stored: Set[tuple[str, str, int]]
) -> tuple[tuple[Stage, ...], list[tuple[str, TrialConfig]]]:
    """Counts the artifacts of each stage, and returns a trial for each artifact that must be computed."""
    needed: dict[tuple[str, str], TrialConfig] = {}
    name_stages, records = StageNames(), Records()
    for config in configs:
        names = name_stages(records.resolve_config(config))
        if ("embedder", names.get("embedder", ""), config.embedder.epochs) in stored:
            names.pop("objective")  # a trained embedder needs no distance any more
        for stage, name in names.items():
            known = needed.get((stage, name))
            if known is None or known.embedder.epochs < config.embedder.epochs:
                needed[stage, name] = config
    computed = [
        (stage, config)
        for (stage, name), config in needed.items()
        if (stage, name, config.embedder.epochs if stage == "embedder" else 0) not in stored
    ]
    n_needed, n_computed = Counter(stage for stage, _ in needed), Counter(stage for stage, _ in computed)
    stages = (
        Stage(name=stage, n_computed=n_computed[stage], n_reused=n - n_computed[stage]) for stage, n in n_needed.items()
    )
    return tuple(stages), computed


def _find_stored(rows: Iterable[Row], store: Store | None) -> set[tuple[str, str, int]]:
    """Stage, name and length of the artifacts that earlier rows used and that the store still has."""
    stored: set[tuple[str, str, int]] = set()
    exists: dict[tuple[str, str], bool] = {}
    if store is None:
        return stored
    for row in rows:
        config = _read_config(row)
        names = row.get("made", {}) if config is None else _name_stages(config)
        for stage, name in names.items():
            key = row["used"].get(stage)
            if key is not None and (stage, key) not in exists:
                exists[stage, key] = store.has(stage, key)
            if exists.get((stage, str(key))):
                stored.add((stage, name, config.embedder.epochs if config is not None and stage == "embedder" else 0))
    return stored


def _read_config(row: Row) -> TrialConfig | None:
    """The config of an earlier row; None if another version wrote it."""
    try:
        return TrialConfig.from_flat(row["config"])
    except (KeyError, ValueError):
        return None


def _name_stages(config: TrialConfig) -> Mapping[str, str]:
    """The names of a row's shared stages; empty if its task or body is not registered here."""
    try:
        return shared_stages(resolve_config(config))
    except InputError:
        return {}


class _Costs:
    """Seconds of trials and stages, estimated from the most similar earlier rows."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.per_epoch = _Table(FINETUNE_LIKE)
        self.around = _Table(FINETUNE_LIKE)
        """Loading and scoring: what a trial takes beside the stages."""
        self.embedder = _Table(EMBEDDER_LIKE)
        self.proxy, self.pretrain = _Table(PROXY_LIKE), _Table(BODY_LIKE)
        for row in rows:
            self._add_row(row)

    def _add_row(self, row: Row) -> None:
        config, reused = row["config"], str(row.get("reused") or "").split(",")
        seconds = {name: row.get(f"{name}_s") or 0.0 for name in ("wall_time", "finetune", "embedder", "proxy", "body")}
        if not row.get("resumed_from_epoch") and "finetune-prefix" not in reused:
            self.per_epoch.add(config, seconds["finetune"] / config["finetune.epochs"])
        shared = seconds["embedder"] + seconds["proxy"] + (0.0 if "pretrain" in reused else seconds["body"])
        self.around.add(config, max(0.0, seconds["wall_time"] - seconds["finetune"] - shared))
        if config["embedder.epochs"] and "embedder" not in reused:
            self.embedder.add(config, seconds["embedder"] / config["embedder.epochs"])
        if config["embedder.epochs"] and "proxy-features" not in reused:
            self.proxy.add(config, seconds["proxy"])
        if config["body.pretrain_fraction"] > 0 and "pretrain" not in reused:
            self.pretrain.add(config, seconds["body"])

    def estimate_trial(self, config: TrialConfig) -> float | None:
        """A trial's own seconds: fine-tuning, and loading and scoring around it; None: unknown."""
        if not self.per_epoch.numbers:
            return None
        flat = config.flat()
        per_epoch, around = self.per_epoch.estimate(flat), self.around.estimate(flat)
        return None if per_epoch is None else per_epoch * config.finetune.epochs + (around or 0.0)

    def estimate_stage(self, stage: str, config: TrialConfig) -> float | None:
        """Seconds of making an artifact; None: unknown. The embedder's include its constants and clusters."""
        flat = config.flat()
        if stage == "embedder":
            per_epoch = self.embedder.estimate(flat)
            return None if per_epoch is None else per_epoch * config.embedder.epochs
        table = {"proxy-features": self.proxy, "pretrain": self.pretrain}.get(stage)
        return table.estimate(flat) if table else None


class _Table:
    """Numbers of earlier trials: the median of the most similar trials is the estimate for a new trial."""

    def __init__(self, kinds: tuple[Kind, ...]) -> None:
        self.kinds = kinds
        self.numbers: dict[tuple[object, ...], list[float]] = {}
        self.medians: dict[tuple[object, ...], float] = {}

    def add(self, flat: Mapping[str, Any], number: float) -> None:
        for kind in self.kinds:
            self.numbers.setdefault(_make_key(kind, flat), []).append(number)

    def estimate(self, flat: Mapping[str, Any]) -> float | None:
        for kind in self.kinds:
            key = _make_key(kind, flat)
            if key in self.numbers:
                if key not in self.medians:
                    self.medians[key] = median(self.numbers[key])
                return self.medians[key]
        return None


def _make_key(kind: Kind, flat: Mapping[str, Any]) -> tuple[object, ...]:
    return (kind, *(flat.get(path) for path in kind))


def _compute_contrasts(plan: Plan, rows: Sequence[Row]) -> Iterator[Contrasts]:
    n_seeds, p = len(plan.space.seeds), smallest_p(len(plan.space.seeds))
    for task, cells in plan.by_task.items():
        n_comparisons = len(cells) - 1
        if n_comparisons > 0:
            bodies = {cell.body.name for cell in cells}
            spread = _pool_spread(rows, task, bodies, validation_twin(plan.space.metric))
            yield Contrasts(
                task=task,
                n_seeds=n_seeds,
                n_comparisons=n_comparisons,
                smallest_p=p,
                corrected_p=min(1.0, n_comparisons * p),
                smallest_effect=smallest_effect(n_seeds, n_comparisons) if n_seeds >= LEAST_PAIRS else math.nan,
                spread=spread,
                **_compare_with_margin(plan.space, task, n_comparisons, spread),
            )


def _compare_with_margin(space: Space, task: str, n_comparisons: int, spread: float | None) -> dict[str, Any]:
    """The fields of `Contrasts` about the margin of a task."""
    margin, n_seeds = space.margins.get(task, space.margins.get(ALL)), len(space.seeds)
    if margin is None:
        return {}
    if n_seeds < LEAST_PAIRS:
        return {"margin": margin}
    known = {"margin": margin, "largest_spread": largest_spread_for_margin(n_seeds, margin, n_comparisons)}
    if not spread:
        return known
    sd = math.sqrt(2) * spread
    return {
        **known,
        "detectable": detectable_effect(n_seeds, sd, margin, n_comparisons),
        "chance_within": chance_of_no_difference(n_seeds, sd, margin, n_comparisons),
        "n_seeds_within": count_seeds_for_margin(margin, sd, n_comparisons),
    }


def _pool_spread(rows: Iterable[Row], task: str, bodies: set[str], metric: str) -> float | None:
    """The pooled standard deviation over seeds within the cells of earlier rows; None: no cell has two seeds."""
    cells: dict[str, list[float]] = {}
    for row in rows:
        config, value = row["config"], row.get(metric)
        is_like = config["task"] == task and config["body.name"] in bodies and config.get("seed_varies", "all") == "all"
        if is_like and value is not None:
            cells.setdefault(str(row["cell_id"]), []).append(float(value))
    squares = sum(sum((v - sum(vs) / len(vs)) ** 2 for v in vs) for vs in cells.values())
    freedom = sum(len(vs) - 1 for vs in cells.values())
    return math.sqrt(squares / freedom) if freedom > 0 else None
