"""Computes the ids of many configs at once."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

from orca_sweep.config import declaration
from orca_sweep.config.digests import canonical_json
from orca_sweep.config.knobs import CONTENTS, BodyConfig, Part, TrialConfig


class Hasher:
    """Computes ids equal to ``cell_id`` and ``trial_id``; parts that configs share are written as JSON once."""

    def __init__(self) -> None:
        self._texts: dict[int, tuple[Part, str]] = {}
        """By the ``id`` of a part, which is kept alive so that no other object gets its id."""
        self._bodies: dict[int, tuple[BodyConfig, BodyConfig]] = {}
        """By the ``id`` of a body: the body and its copy without the path of its folder."""

    def cell_id(self, config: TrialConfig) -> str:
        """Returns the hash of a config without its seed."""
        before, after = self._around_seed(config)
        return hashlib.sha256(f"cell:{{{','.join((*before, *after))}}}".encode()).hexdigest()[:16]

    def replicates(self, config: TrialConfig, seeds: Iterable[int]) -> Iterator[tuple[str, TrialConfig]]:
        """Yields the trial's id and config for each seed.

        Cost: one hash of a few bytes per seed; the rest is written and hashed once.
        """
        before, after = self._around_seed(config)
        common = hashlib.sha256("".join(["trial:{", *(f"{text}," for text in before)]).encode())
        rest = "".join(f",{text}" for text in after)
        for seed in seeds:
            whole = common.copy()
            whole.update(f'"seed":{seed}{rest}}}'.encode())
            yield whole.hexdigest()[:16], config.replaced(seed=seed)

    def _around_seed(self, config: TrialConfig) -> tuple[list[str], list[str]]:
        """The JSON that ids are hashes of: the texts before the seed and those after it."""
        values = self._without_paths(config)
        before = (self._text(name, values[name]) for name in _FIELDS if name < "seed")
        after = (self._text(name, values[name]) for name in _FIELDS if name > "seed")
        return [text for text in before if text], [text for text in after if text]

    def _without_paths(self, config: TrialConfig) -> dict[str, Any]:
        """The config's fields, without the paths of files whose content hash is known (``TrialConfig.hashed``)."""
        values, content = dict(config.__dict__), config.content
        if content.task is not None:
            values["task"] = declaration.without_path(config.task)
        if content.proxy is not None:
            values["proxy"] = declaration.without_path(config.proxy)
        if content.body is not None:
            key = id(config.body)
            if key not in self._bodies:
                name = declaration.without_path(config.body.name)
                self._bodies[key] = config.body, config.body.model_copy(update={"name": name})
            values["body"] = self._bodies[key][1]
        return values

    def _text(self, name: str, value: Any) -> str:
        if not isinstance(value, Part):
            return canonical_json({name: value})[1:-1]
        known = self._texts.get(id(value))
        if known is None:
            flat = ((f"{name}.{field}", inner) for field, inner in value.__dict__.items())
            hashed = {path: inner for path, inner in flat if not (path in CONTENTS and inner is None)}
            known = self._texts[id(value)] = value, canonical_json(hashed)[1:-1]
        return known[1]


_FIELDS = tuple(sorted(TrialConfig.model_fields))
"""This order also sorts the dotted names of all fields, since no name of a part is the beginning of another field's."""
