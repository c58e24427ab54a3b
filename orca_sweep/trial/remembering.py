"""Resolving the cells of a large space: what cells have in common is resolved once."""

import math
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from orca_sweep.config import EmbedderConfig, FinetuneConfig, TrialConfig
from orca_sweep.errors import InputError

Resolve = Callable[[Mapping[str, Any]], TrialConfig]
MEANINGLESS = 1.2345678e-7
"""A number that is nobody's level: it stands for any number of a plain field."""
PLAIN: Mapping[str, tuple[str, str, float]] = {
    f"{part}.{name}": (part, name, getattr(default, name))
    for part, default in (("finetune", FinetuneConfig()), ("embedder", EmbedderConfig()))
    for name in ("lr", "weight_decay")
}
"""Fields, with part, name and default, of which no rule asks more than whether they are used: configs that differ in such a
number are the same but for it. Zero and the default, which a rule may ask for, count as levels of their own."""


class Remembering:
    """Resolves as ``resolve`` does, for the length of one plan: the registries and files it asks must stay as they are.

    Settings that differ in plain numbers alone are resolved once, and equal parts of configs are one object.
    """

    def __init__(self, resolve: Resolve) -> None:
        self.resolve = resolve
        self._known: dict[Hashable, TrialConfig | InputError] = {}
        self._parts: dict[Hashable, Any] = {}

    def __call__(self, settings: Mapping[str, Any]) -> TrialConfig:
        """Returns the whole, checked config of dotted settings.

        Raises:
            InputError: as ``resolve``.
        """
        numbers = {path: value for path in PLAIN if _is_plain(path, value := settings.get(path))}
        alike = {**settings, **dict.fromkeys(numbers, MEANINGLESS)}
        try:
            key = frozenset(alike.items())
            known = self._known.get(key)
        except TypeError:  # a value that is a list or mapping
            return self.resolve(settings)
        if known is None:
            known = self._known[key] = self._resolve(alike)
        if isinstance(known, TrialConfig):
            return self._with(known, numbers) if numbers else known
        if any(path in text for path in numbers for text in known.problems):
            return self.resolve(settings)  # the message has its number
        raise known

    def _resolve(self, settings: Mapping[str, Any]) -> TrialConfig | InputError:
        try:
            config = self.resolve(settings)
        except InputError as error:
            return error.with_traceback(None)
        return config.replaced(**{name: self._parts.setdefault((name, value), value) for name, value in config})

    def _with(self, known: TrialConfig, numbers: Mapping[str, float]) -> TrialConfig:
        """The config with its own numbers, but for those that have no effect and took their canonical value."""
        changes: dict[str, dict[str, float]] = {}
        for path, value in numbers.items():
            part, name, _ = PLAIN[path]
            if getattr(getattr(known, part), name) == MEANINGLESS:
                changes.setdefault(part, {})[name] = value
        parts = {}
        for part, values in changes.items():
            before = getattr(known, part)
            key = part, id(before), *values.items()
            if key not in self._parts:
                self._parts[key] = before.replaced(**values)
            parts[part] = self._parts[key]
        return known.replaced(**parts)


def _is_plain(path: str, value: object) -> bool:
    return type(value) is float and 0 < value < math.inf and value not in (PLAIN[path][2], MEANINGLESS)
