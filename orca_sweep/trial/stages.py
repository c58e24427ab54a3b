"""Names of the stage artifacts that trials share, as plans know them before anything is made."""

import hashlib
from typing import TYPE_CHECKING

from orca_sweep.config import BodyConfig, Facts, canonical_json, digest, find_idle
from orca_sweep.trial.records import ResolvedTrial

if TYPE_CHECKING:
    from hashlib import _Hash

PROXY_SETTINGS = tuple(find_idle(Facts(proxy_has_images=False, proxy_has_tags=False)))
"""Fields that change how proxy samples enter the body's input layer."""
OBJECTIVE_SETTINGS = tuple(find_idle(Facts(objective_settings=())))
"""Fields that are settings of an objective, where it takes them."""


def shared_stages(trial: ResolvedTrial) -> dict[str, str]:
    """Returns the stage artifacts that a trial shares with others, as ``StageNames`` does."""
    return StageNames()(trial)


class StageNames:
    """Names the stage artifacts of many trials, for the length of one plan: each is written and hashed once."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], tuple[dict[str, str], _Hash | None]] = {}
        self._numbers: dict[int, tuple[int, object]] = {}
        """By the identity of a part of a config, which is kept so that no other takes its place: equal parts have one
        number."""
        self._parts: dict[object, int] = {}

    def __call__(self, trial: ResolvedTrial) -> dict[str, str]:
        """Returns the stage artifacts that a trial shares with others: stage to a name for its content, as they are made.

        Equal names are equal work. The names of embedder runs leave their length out, since a longer one holds the shorter
        ones.
        """
        config = trial.config.as_run()
        parts = map(self._number, (config.data, config.body, config.embedder))
        key = (config.task, config.proxy, *parts)
        if key not in self._known:
            self._known[key] = _name_stages(trial)
        names, embedder = self._known[key]
        if embedder is None:
            return names.copy()
        embedder = embedder.copy()
        seeds = [config.seed_of("embedder-init"), config.seed_of("embedder-training")]
        embedder.update(f"{canonical_json(seeds)}]".encode())
        return {**names, "embedder": embedder.hexdigest()[:16]}

    def _number(self, part: object) -> int:
        known = self._numbers.get(id(part))
        if known is None:
            known = self._numbers[id(part)] = self._parts.setdefault(part, len(self._parts)), part
        return known[0]


def _name_stages(trial: ResolvedTrial) -> tuple[dict[str, str], "_Hash | None"]:
    """The names that no run seed is part of, and the hash of an embedder run, still without its seeds."""
    config = trial.config.as_run()
    flat = config.flat()
    body = {path: value for path, value in flat.items() if path.startswith("body.")}
    names: dict[str, str] = {}
    if trial.body.pretrain is not None and config.body.pretrain_fraction > 0:
        names["pretrain"] = pretrained_name(config.body)
    if config.embedder.epochs == 0:
        return names, None
    proxy = {"proxy": config.proxy, **{path: flat[path] for path in PROXY_SETTINGS}}
    names["proxy-features"] = digest("proxy-features", {**body, **proxy})
    data = {path: value for path, value in flat.items() if path == "task" or path.startswith("data.")}
    if trial.task.kind != "classification":
        names["pseudo-labels"] = digest("pseudo-labels", {**data, "n": config.embedder.n_pseudo_classes})
    objective = {path: flat[path] for path in ("embedder.objective", "embedder.proxy_samples", *OBJECTIVE_SETTINGS)}
    names["objective"] = digest("objective", {**body, **proxy, **objective})
    other = ("embedder.epochs", "seed", "seed_varies")
    embedder = {k: v for k, v in flat.items() if not k.startswith(("finetune.", "predictor.")) and k not in other}
    return names, hashlib.sha256(f"embedder:[{canonical_json(embedder)},".encode())


def pretrained_name(body: BodyConfig) -> str:
    """Returns the name by which plans know the artifact of our own pre-training of a body."""
    return digest("pretrain", {f"body.{path}": value for path, value in body.model_dump().items()})
