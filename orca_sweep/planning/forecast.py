"""What a plan will take: stages to compute and to reuse, hours, and what its seeds can show.

Told from earlier rows of the same store; what has no like there is said to be unknown, never guessed.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from orca_sweep.config import TrialConfig
from orca_sweep.errors import InputError
from orca_sweep.results import validation_twin
from orca_sweep.space import Plan
from orca_sweep.space.prefixes import shared_epochs
from orca_sweep.stats import smallest_effect, smallest_p
from orca_sweep.store import Store, made_with
from orca_sweep.trial import Records, StageNames, resolve_config, shared_stages

MOST_ROWS = 5000
Row = Mapping[str, Any]
Kind = tuple[str, ...]
# What makes two trials alike in a stage's cost, from the closest likeness to the loosest.
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


def likeness(config: TrialConfig) -> tuple[object, ...]:
    """Returns what a probe tells the cost of: trials of equal likeness cost about the same per epoch."""
    flat = config.flat()
    return (*(flat[path] for path in FINETUNE_LIKE[1]), *(flat[path] for path in EMBEDDER_LIKE[0][3:]))


@dataclass(frozen=True)
class Stage:
    """Artifacts of one stage that a plan needs."""

    name: str
    n_computed: int
    n_reused: int
    """Found in the store."""


@dataclass(frozen=True)
class Contrasts:
    """What the seeds of one task can show, each cell against the first in pairs of equal seed."""

    task: str
    n_seeds: int
    n_comparisons: int
    smallest_p: float
    """Of an exact sign-flip test, whatever the effect."""
    corrected_p: float
    """The same after Holm's correction for all comparisons."""
    smallest_effect: float
    """With 80% power at 5% after Holm's correction, in standard deviations of the paired difference."""
    spread: float | None
    """Standard deviation over seeds of the validation metric in earlier rows of the same task and body."""


@dataclass(frozen=True)
class Forecast:
    """What a plan will take."""

    n_trials: int
    """Planned, with those that are planned on the way."""
    n_done: int
    stages: tuple[Stage, ...]
    n_epochs: int
    """Fine-tuning epochs of the trials left."""
    n_shared_epochs: int
    """Those of them that a trial takes over from another with the same beginning."""
    trial_hours: float
    """Of the trials left whose like is known, one after another."""
    cpu_hours: float
    gpu_hours: float
    n_known: int
    n_left: int
    n_rows: int
    """Earlier rows that were gone by."""
    contrasts: tuple[Contrasts, ...]
    checkpoint_mib: float | None
    """Of the largest trial whose size earlier rows tell: what is on disk of it while it runs. None: they tell none."""


def forecast(
    plan: Plan, store: Store | None, done: Callable[[str], bool] = lambda trial_id: False, n_later_done: int = 0
) -> Forecast:
    """Returns what the plan will take with a store (None: there is none yet).

    Args:
        plan: the plan.
        store: where stage artifacts and earlier rows are.
        done: whether a trial is done already.
        n_later_done: how many of those that are planned on the way are.
    """
    resources = plan.space.resources
    every = _comparable(store, resources.device, resources.n_threads)
    rows = [row for row in every if "config" in row]
    known = [trial.config for trial in plan.trials if not done(trial.trial_id)]
    later = _later(plan)[n_later_done:]
    costs = _Costs(rows)
    left = [*known, *later]
    stages, wanted = _stages(left, every, store)
    seconds = [costs.finetune(config) for config in left]
    stage_seconds = [costs.stage(stage, config) for stage, config in wanted]
    n_epochs, n_shared = sum(config.finetune.epochs for config in left), shared_epochs(known)
    own = sum(s for s in seconds if s is not None) * (1 - n_shared / max(1, n_epochs))
    total = (own + sum(s for s in stage_seconds if s is not None)) / 3600
    return Forecast(
        n_trials=len(plan.trials) + plan.n_later,
        n_done=len(plan.trials) - len(known) + n_later_done,
        stages=stages,
        n_epochs=n_epochs,
        n_shared_epochs=n_shared,
        trial_hours=total,
        cpu_hours=total * resources.cpu,
        gpu_hours=total * resources.gpu,
        n_known=sum(s is not None for s in seconds),
        n_left=len(left),
        n_rows=len(rows),
        contrasts=tuple(_contrasts(plan, rows)),
        checkpoint_mib=_checkpoint_mib(left, rows),
    )


def _checkpoint_mib(configs: Iterable[TrialConfig], rows: Iterable[Row]) -> float | None:
    """The most that a checkpoint takes: weights, best-validated weights, and moments of all that may train."""
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


def _later(plan: Plan) -> list[TrialConfig]:
    """Configs that stand for the trials planned on the way: each cell's, as it is untuned."""
    if not plan.tuned:
        return []
    search = plan.space.search
    adaptive = [] if search.method != "optuna" else [s for s in search.seeds for _ in range(search.n_candidates or 0)]
    pairs = [(cell.base, seed) for cell in plan.tuned for seed in (*plan.space.seeds, *adaptive)]
    pairs += [(plan.tuned[0].base, seed) for seed in plan.space.aa]
    return [config.model_copy(update={"seed": seed}) for config, seed in pairs]


def _comparable(store: Store | None, device: str, n_threads: int) -> list[Row]:
    """Earlier rows made as this plan's will be: same device, threads, code of the stages and libraries."""
    if store is None:
        return []
    like = made_with(device, n_threads)
    return [
        row
        for row in store.read_rows(MOST_ROWS)
        if "used" in row and all(row.get(key) == value for key, value in like.items())
    ]


def _stages(
    configs: Sequence[TrialConfig], rows: Iterable[Row], store: Store | None
) -> tuple[tuple[Stage, ...], list[tuple[str, TrialConfig]]]:
    """Counts artifacts by stage, and returns a trial for each artifact that has to be computed."""
    there = _there(rows, store)
    needed: dict[tuple[str, str], TrialConfig] = {}
    name_stages, records = StageNames(), Records()
    for config in configs:
        names = name_stages(records.resolve_config(config))
        if ("embedder", names.get("embedder", ""), config.embedder.epochs) in there:
            names.pop("objective")  # a finished embedder asks for no distance any more
        for stage, name in names.items():
            known = needed.get((stage, name))
            if known is None or known.embedder.epochs < config.embedder.epochs:
                needed[stage, name] = config
    computed = [
        (stage, config)
        for (stage, name), config in needed.items()
        if (stage, name, config.embedder.epochs if stage == "embedder" else 0) not in there
    ]
    all_of, made = [stage for stage, _ in needed], [stage for stage, _ in computed]
    stages = dict.fromkeys(all_of)
    return tuple(Stage(n, made.count(n), all_of.count(n) - made.count(n)) for n in stages), computed


def _there(rows: Iterable[Row], store: Store | None) -> set[tuple[str, str, int]]:
    """Stage, name and length of the artifacts that earlier rows used and that are still in the store."""
    found: set[tuple[str, str, int]] = set()
    exists: dict[tuple[str, str], bool] = {}
    if store is None:
        return found
    for row in rows:
        config = _config_of(row)
        names = row.get("made", {}) if config is None else _names_of(config)
        for stage, name in names.items():
            key = row["used"].get(stage)
            if key is not None and (stage, key) not in exists:
                exists[stage, key] = store.has(stage, key)
            if exists.get((stage, str(key))):
                found.add((stage, name, config.embedder.epochs if config is not None and stage == "embedder" else 0))
    return found


def _config_of(row: Row) -> TrialConfig | None:
    """The config of an earlier row; None if another version wrote it."""
    try:
        return TrialConfig.from_flat(row["config"])
    except (KeyError, ValueError):
        return None


def _names_of(config: TrialConfig) -> Mapping[str, str]:
    """The names of a row's shared stages; none, if it is of a task or body of somebody else's that is not known here."""
    try:
        return shared_stages(resolve_config(config))
    except InputError:
        return {}


class _Costs:
    """Seconds of stages, by the likeness of trials."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.per_epoch = _Table(FINETUNE_LIKE)
        self.around = _Table(FINETUNE_LIKE)
        self.embedder = _Table(EMBEDDER_LIKE)
        self.proxy, self.pretrain = _Table(PROXY_LIKE), _Table(BODY_LIKE)
        for row in rows:
            self._learn(row)

    def _learn(self, row: Row) -> None:
        config, reused = row["config"], str(row.get("reused") or "").split(",")
        told = {name: row.get(f"{name}_s") or 0.0 for name in ("wall_time", "finetune", "embedder", "proxy", "body")}
        if not row.get("resumed_from_epoch") and "finetune-prefix" not in reused:
            self.per_epoch.add(config, told["finetune"] / config["finetune.epochs"])
        shared = told["embedder"] + told["proxy"] + (0.0 if "pretrain" in reused else told["body"])
        self.around.add(config, max(0.0, told["wall_time"] - told["finetune"] - shared))
        if config["embedder.epochs"] and "embedder" not in reused:
            self.embedder.add(config, told["embedder"] / config["embedder.epochs"])
        if config["embedder.epochs"] and "proxy-features" not in reused:
            self.proxy.add(config, told["proxy"])
        if config["body.pretrain_fraction"] > 0 and "pretrain" not in reused:
            self.pretrain.add(config, told["body"])

    def finetune(self, config: TrialConfig) -> float | None:
        """A trial's own seconds: fine-tuning, and loading and scoring around it."""
        if not self.per_epoch.numbers:
            return None
        flat = config.flat()
        per_epoch, around = self.per_epoch.of(flat), self.around.of(flat)
        return None if per_epoch is None else per_epoch * config.finetune.epochs + (around or 0.0)

    def stage(self, stage: str, config: TrialConfig) -> float | None:
        """Seconds of making an artifact; those of constants and clusters are in the embedder's."""
        flat = config.flat()
        if stage == "embedder":
            per_epoch = self.embedder.of(flat)
            return None if per_epoch is None else per_epoch * config.embedder.epochs
        table = {"proxy-features": self.proxy, "pretrain": self.pretrain}.get(stage)
        return table.of(flat) if table else None


class _Table:
    """Numbers by ever looser likeness; what is closest to like counts, by its median."""

    def __init__(self, kinds: tuple[Kind, ...]) -> None:
        self.kinds = kinds
        self.numbers: dict[tuple[object, ...], list[float]] = {}
        self.found: dict[tuple[object, ...], float] = {}

    def add(self, flat: Mapping[str, Any], number: float) -> None:
        for kind in self.kinds:
            self.numbers.setdefault(self._key(kind, flat), []).append(number)

    def of(self, flat: Mapping[str, Any]) -> float | None:
        for kind in self.kinds:
            key = self._key(kind, flat)
            if key in self.numbers:
                if key not in self.found:
                    self.found[key] = median(self.numbers[key])
                return self.found[key]
        return None

    def _key(self, kind: Kind, flat: Mapping[str, Any]) -> tuple[object, ...]:
        return (kind, *(flat.get(path) for path in kind))


def _contrasts(plan: Plan, rows: Sequence[Row]) -> Iterable[Contrasts]:
    n = len(plan.space.seeds)
    for task, cells in plan.by_task.items():
        k = len(cells) - 1
        if k > 0:
            p = smallest_p(n)
            spread = _spread(rows, task, {cell.body.name for cell in cells}, validation_twin(plan.space.metric))
            yield Contrasts(task, n, k, p, min(1.0, k * p), smallest_effect(n, k), spread)


def _spread(rows: Iterable[Row], task: str, bodies: set[str], metric: str) -> float | None:
    """Pooled standard deviation over seeds within the cells of earlier rows."""
    cells: dict[str, list[float]] = {}
    for row in rows:
        config, value = row["config"], row.get(metric)
        is_like = config["task"] == task and config["body.name"] in bodies and config.get("seed_varies", "all") == "all"
        if is_like and value is not None:
            cells.setdefault(str(row["cell_id"]), []).append(float(value))
    squares = sum(sum((v - sum(vs) / len(vs)) ** 2 for v in vs) for vs in cells.values())
    freedom = sum(len(vs) - 1 for vs in cells.values())
    return math.sqrt(squares / freedom) if freedom > 0 else None
