"""Resolving the cells of a large space: what cells have in common is resolved once."""

from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

from orca_sweep.config import MOST, EmbedderConfig, FinetuneConfig, TrialConfig
from orca_sweep.errors import InputError

Resolve = Callable[[Mapping[str, Any]], TrialConfig]
Number = float | int


class _Plain(NamedTuple):
    """A field whose number no rule looks at, beyond asking whether the field is used."""

    part: str
    name: str
    default: Number
    least: Number
    """Stands, with ``most``, for all numbers between the two."""
    most: Number


PLAIN: Mapping[str, _Plain] = {
    f"{part}.{name}": _Plain(part, name, getattr(defaults, name), least, most)
    for part, defaults, names, least, most in (
        ("finetune", FinetuneConfig(), ("lr", "weight_decay"), 1.2345e-30, 1.2345e30),
        ("embedder", EmbedderConfig(), ("lr", "weight_decay"), 1.2345e-30, 1.2345e30),
        ("finetune", FinetuneConfig(), ("batch_size", "accumulation", "eval_batch_size"), 1, MOST),
        ("embedder", EmbedderConfig(), ("epochs",), 1, MOST),
        ("embedder", EmbedderConfig(), ("proxy_samples", "max_samples_per_class"), 2, MOST),
    )
    for name in names
}
"""Configs that differ in such a number are the same but for it. That is checked for each cell: where its two ends are
resolved differently, every number counts as a level of its own. So do the default and what lies outside of the ends, such
as zero: for these a rule may ask."""


class Remembering:
    """Makes configs as ``make_config`` does, for the length of one plan: registries and files must stay as they are.

    Settings that differ in plain numbers alone are resolved once, and equal parts of configs are one object.
    """

    def __init__(self, resolve: Resolve) -> None:
        self.resolve = resolve
        self._known: dict[Hashable, TrialConfig | InputError] = {}
        self._alike: dict[Hashable, TrialConfig | InputError | None] = {}
        """The config of all settings that are alike but for plain numbers, with each at its most if it is used; the error
        where all are refused alike; None where they are resolved differently."""
        self._parts: dict[Hashable, Any] = {}

    def __call__(self, settings: Mapping[str, Any]) -> TrialConfig:
        """Returns the whole, checked config of dotted settings.

        Raises:
            InputError: as ``make_config``.
        """
        numbers: dict[str, Number] = {path: settings[path] for path in PLAIN if _is_plain(path, settings.get(path))}
        least = {**settings, **{path: PLAIN[path].least for path in numbers}}
        try:
            key = (frozenset(least.items()), *numbers)
            hash(key)
        except TypeError:  # a value that is a list or mapping
            return self.resolve(settings)
        if numbers and key not in self._alike:
            most = {**settings, **{path: PLAIN[path].most for path in numbers}}
            self._alike[key] = self._compare(self._resolve(least), self._resolve(most), numbers)
        alike = self._alike.get(key)
        if isinstance(alike, InputError):
            raise alike
        return self._resolve_exactly(settings) if alike is None else self._with(alike, numbers)

    def _resolve_exactly(self, settings: Mapping[str, Any]) -> TrialConfig:
        key = frozenset(settings.items())
        if key not in self._known:
            self._known[key] = self._resolve(settings)
        known = self._known[key]
        if isinstance(known, InputError):
            raise known
        return known

    def _resolve(self, settings: Mapping[str, Any]) -> TrialConfig | InputError:
        try:
            config = self.resolve(settings)
        except InputError as error:
            return error.with_traceback(None)
        return config.replaced(**{name: self._parts.setdefault((name, value), value) for name, value in config})

    def _compare(
        self, least: TrialConfig | InputError, most: TrialConfig | InputError, numbers: Mapping[str, Number]
    ) -> TrialConfig | InputError | None:
        """The config at the most numbers, if that at the least is the same but for numbers that are in both.

        An error that is told in the same words at both ends is that of all numbers.
        """
        if isinstance(least, InputError) and isinstance(most, InputError):
            return most if least.problems == most.problems else None
        if isinstance(least, InputError) or isinstance(most, InputError):
            return None
        used = {path: PLAIN[path].least for path in numbers if _read(most, path) == PLAIN[path].most}
        same = all(_read(least, path) == number for path, number in used.items()) and self._with(most, used) == least
        return most if same else None

    def _with(self, config: TrialConfig, numbers: Mapping[str, Number]) -> TrialConfig:
        """The config with its own numbers, but for those that have no effect and took their canonical value."""
        changes: dict[str, dict[str, Number]] = {}
        for path, value in numbers.items():
            plain = PLAIN[path]
            if _read(config, path) == plain.most:
                changes.setdefault(plain.part, {})[plain.name] = value
        parts = {}
        for part, values in changes.items():
            before = getattr(config, part)
            key = part, id(before), *values.items()
            if key not in self._parts:
                # The part before is kept, so that no other has its identity.
                self._parts[key] = before, before.replaced(**values)
            parts[part] = self._parts[key][1]
        return config.replaced(**parts) if parts else config


def _read(config: TrialConfig, path: str) -> Any:
    plain = PLAIN[path]
    return getattr(getattr(config, plain.part), plain.name)


def _is_plain(path: str, value: object) -> bool:
    plain = PLAIN[path]
    return type(value) is type(plain.least) and plain.least < value < plain.most and value != plain.default
