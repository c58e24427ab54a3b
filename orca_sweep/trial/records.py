"""Looks up the records that a config names, each once."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from orca_sweep.bodies import Body, find_body, find_rung
from orca_sweep.config import EmbedderConfig, TrialConfig
from orca_sweep.errors import InputError
from orca_sweep.objectives import OBJECTIVES, Objective
from orca_sweep.proxies import Proxy, find_proxy
from orca_sweep.tasks import Task, find_task

R = TypeVar("R")


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedTrial:
    """A config with the records that it names: code that takes one never looks a name up."""

    config: TrialConfig
    task: Task
    body: Body
    rung: Body
    """The body with the published weights of ``body.pretrain_fraction`` and ``body.pretrain_seed``, or else the body."""
    proxy: Proxy
    objective: Objective

    @property
    def n_training_samples(self) -> int | None:
        """How many training samples the task has; None if it is not known without reading files."""
        splits_vary = self.config.seed_varies in ("data-split", "everything")
        return self.task.n_train_max if splits_vary else self.task.count_training_samples(self.config.data.split_seed)


@dataclass(frozen=True, kw_only=True)
class KnownRecords:
    """The records of settings that may be wrong; None for an unknown name."""

    task: Task | None
    body: Body | None
    proxy: Proxy | None
    objective: Objective | None


class Records:
    """Looks each name up once during a plan or a trial, in which registries and files must not change."""

    def __init__(self) -> None:
        self._known: dict[Hashable, Any] = {}

    def get_task(self, name: str) -> Task:
        """Returns a task; raises InputError as ``find_task``."""
        task: Task = self._look_up(("task", name), lambda: find_task(name))
        return task

    def get_task_or_none(self, settings: Mapping[str, Any]) -> Task | None:
        """Returns the task that dotted settings name, or None."""
        return _get_or_none(self.get_task, settings.get("task", ""))

    def get_body(self, name: str) -> Body:
        """Returns a body; raises InputError as ``find_body``."""
        body: Body = self._look_up(("body", name), lambda: find_body(name))
        return body

    def get_rung(self, name: str, fraction: float, seed: int) -> Body:
        """Returns a body with the weights of a rung of its ladder; at fraction 0 the body itself.

        Raises:
            InputError: as ``find_body`` and ``find_rung``.
        """
        body = self.get_body(name)
        if fraction == 0:
            return body
        rung: Body = self._look_up(("rung", name, fraction, seed), lambda: find_rung(body, fraction, seed))
        return rung

    def get_proxy(self, name: str) -> Proxy:
        """Returns a proxy; raises InputError as ``find_proxy``."""
        proxy: Proxy = self._look_up(("proxy", name), lambda: find_proxy(name))
        return proxy

    def get_objective(self, name: str) -> Objective:
        """Returns an objective; raises InputError for an unknown name."""
        return OBJECTIVES.get(name)

    def get_known(self, settings: Mapping[str, Any]) -> KnownRecords:
        """Returns the records that dotted settings name, as far as the names are known."""
        return KnownRecords(
            task=self.get_task_or_none(settings),
            body=_get_or_none(self.get_body, settings.get("body.name", "")),
            proxy=_get_or_none(self.get_proxy, settings.get("proxy", "none")),
            objective=_get_or_none(self.get_objective, settings.get("embedder.objective", EmbedderConfig().objective)),
        )

    def resolve_config(self, config: TrialConfig) -> ResolvedTrial:
        """Returns the trial of a whole config.

        Raises:
            InputError: if a name is unknown here, for example because the module that registers it is not imported.
        """
        body = config.body
        return ResolvedTrial(
            config=config,
            task=self.get_task(config.task),
            body=self.get_body(body.name),
            rung=self.get_rung(body.name, body.pretrain_fraction, body.pretrain_seed),
            proxy=self.get_proxy(config.proxy),
            objective=self.get_objective(config.embedder.objective),
        )

    def _look_up(self, key: Hashable, find: Callable[[], Any]) -> Any:
        if key not in self._known:
            try:
                self._known[key] = find()
            except InputError as error:
                self._known[key] = error
        known = self._known[key]
        if isinstance(known, InputError):
            raise known.with_traceback(None)
        return known


def _get_or_none(get: Callable[[str], R], name: str) -> R | None:
    try:
        return get(name)
    except InputError:
        return None


def resolve_config(config: TrialConfig) -> ResolvedTrial:
    """Returns the trial of a whole config, looked up now; raises InputError as ``Records.resolve_config``."""
    return Records().resolve_config(config)


def resolve_configs(configs: Iterable[TrialConfig]) -> list[ResolvedTrial]:
    """Returns the trials of whole configs; each name is looked up once."""
    return list(map(Records().resolve_config, configs))
