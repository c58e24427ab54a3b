"""Names the stage artifacts that trials share, before anything is computed."""

import hashlib
from typing import TYPE_CHECKING

from orca_sweep.config import BodyConfig, Facts, canonical_json, digest, find_idle
from orca_sweep.trial.records import ResolvedTrial

if TYPE_CHECKING:
    from hashlib import _Hash

PROXY_SETTINGS = tuple(find_idle(Facts(proxy_has_images=False, proxy_has_tags=False)))
"""Fields that change how proxy samples enter the body's input layer."""
OBJECTIVE_SETTINGS = tuple(find_idle(Facts(objective_settings=())))
"""Fields that are settings of some objectives."""


def shared_stages(trial: ResolvedTrial) -> dict[str, str]:
    """Returns the names of the stage artifacts that a trial can share, as ``StageNames`` does."""
    return StageNames()(trial)


class StageNames:
    """Names the stage artifacts of many trials during one plan: equal settings are hashed once."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], tuple[dict[str, str], _Hash | None]] = {}
        self._numbers: dict[int, tuple[int, object]] = {}
        """A number for each part of a config, by the part's ``id``; equal parts have the same number. The part is kept
        alive, so that no other object gets its id."""
        self._parts: dict[object, int] = {}

    def __call__(self, trial: ResolvedTrial) -> dict[str, str]:
        """Returns the name of each stage artifact that a trial can share with other trials, in the order of the stages.

        Equal names are equal work. The name of an embedder run does not include its length, since a longer run contains the
        shorter ones.
        """
        config = trial.config.as_run()
        parts = map(self._number_part, (config.data, config.body, config.embedder))
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

    def _number_part(self, part: object) -> int:
        known = self._numbers.get(id(part))
        if known is None:
            known = self._numbers[id(part)] = self._parts.setdefault(part, len(self._parts)), part
        return known[0]


def _name_stages(trial: ResolvedTrial) -> tuple[dict[str, str], "_Hash | None"]:
    """The names that do not depend on the run seed, and the hash of the embedder run before its seeds are added."""
    config = trial.config.as_run()
    flat = config.flat()
    body = {path: value for path, value in flat.items() if path.startswith("body.")}
    names: dict[str, str] = {}
    if trial.body.pretrain is not None and config.body.pretrain_fraction > 0:
        names["pretrain"] = name_pretraining(config.body)
    if config.embedder.epochs == 0:
        return names, None
    proxy = {"proxy": config.proxy, **{path: flat[path] for path in PROXY_SETTINGS}}
    names["proxy-features"] = digest("proxy-features", {**body, **proxy})
    data = {path: value for path, value in flat.items() if path == "task" or path.startswith("data.")}
    if trial.task.kind != "classification":
        names["pseudo-labels"] = digest("pseudo-labels", {**data, "n": config.embedder.n_pseudo_classes})
    objective = {path: flat[path] for path in ("embedder.objective", "embedder.proxy_samples", *OBJECTIVE_SETTINGS)}
    names["objective"] = digest("objective", {**body, **proxy, **objective})
    excluded = ("embedder.epochs", "seed", "seed_varies")
    embedder = {k: v for k, v in flat.items() if not k.startswith(("finetune.", "predictor.")) and k not in excluded}
    return names, hashlib.sha256(f"embedder:[{canonical_json(embedder)},".encode())


def name_pretraining(body: BodyConfig) -> str:
    """Returns the name under which plans know a body that this program pre-trains."""
    return digest("pretrain", {f"body.{path}": value for path, value in body.model_dump().items()})
