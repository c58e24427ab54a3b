"""Resolves the cells of a large space fast: settings that cells share are resolved once."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from orca_sweep.config import MOST, EmbedderConfig, FinetuneConfig, TrialConfig
from orca_sweep.errors import InputError

Resolve = Callable[[Mapping[str, Any]], TrialConfig]
Number = float | int


@dataclass(frozen=True, kw_only=True)
class _Plain:
    """A field whose number no rule reads; rules ask only whether the field is used."""

    part: str
    name: str
    default: Number
    least: Number
    """Represents, together with ``most``, all numbers between the two."""
    most: Number


PLAIN: Mapping[str, _Plain] = {
    f"{part}.{name}": _Plain(part=part, name=name, default=getattr(defaults, name), least=least, most=most)
    for part, defaults, names, least, most in (
        ("finetune", FinetuneConfig(), ("lr", "weight_decay"), 1.2345e-30, 1.2345e30),
        ("embedder", EmbedderConfig(), ("lr", "weight_decay"), 1.2345e-30, 1.2345e30),
        ("finetune", FinetuneConfig(), ("batch_size", "accumulation", "eval_batch_size"), 1, MOST),
        ("embedder", EmbedderConfig(), ("epochs",), 1, MOST),
        ("embedder", EmbedderConfig(), ("proxy_samples", "max_samples_per_class"), 2, MOST),
    )
    for name in names
}
"""Configs that differ only in these numbers are resolved alike. This is checked for each cell: where the least and the most
are resolved differently, every number is resolved by itself. So are the default and numbers outside of the two, such as
zero, since a rule may ask for them."""


class Remembering:
    """Makes configs as ``make_config`` does during one plan, in which registries and files must not change.

    Settings that differ only in plain numbers are resolved once, and equal parts of configs are the same object.
    """

    def __init__(self, resolve: Resolve) -> None:
        self.resolve = resolve
        self._known: dict[Hashable, TrialConfig | InputError] = {}
        self._alike: dict[Hashable, TrialConfig | InputError | None] = {}
        """For settings that differ only in plain numbers: their config, with each number that is used at its most; their
        error, if all have the same; None, if they are resolved differently."""
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
            self._alike[key] = self._compare_ends(self._resolve_shared(least), self._resolve_shared(most), numbers)
        alike = self._alike.get(key)
        if isinstance(alike, InputError):
            raise alike
        return self._resolve_exactly(settings) if alike is None else self._set_numbers(alike, numbers)

    def _resolve_exactly(self, settings: Mapping[str, Any]) -> TrialConfig:
        key = frozenset(settings.items())
        if key not in self._known:
            self._known[key] = self._resolve_shared(settings)
        known = self._known[key]
        if isinstance(known, InputError):
            raise known
        return known

    def _resolve_shared(self, settings: Mapping[str, Any]) -> TrialConfig | InputError:
        """The config of settings, its parts shared with equal ones; or the error."""
        try:
            config = self.resolve(settings)
        except InputError as error:
            return error.with_traceback(None)
        return config.replaced(**{name: self._parts.setdefault((name, value), value) for name, value in config})

    def _compare_ends(
        self, least: TrialConfig | InputError, most: TrialConfig | InputError, numbers: Mapping[str, Number]
    ) -> TrialConfig | InputError | None:
        """The config at the most, if the config at the least differs from it only in numbers that both use; else None.

        If both ends have the same problems, so have all numbers between them.
        """
        if isinstance(least, InputError) and isinstance(most, InputError):
            return most if least.problems == most.problems else None
        if isinstance(least, InputError) or isinstance(most, InputError):
            return None
        least_numbers = {path: PLAIN[path].least for path in numbers if _read_number(most, path) == PLAIN[path].most}
        both_use = all(_read_number(least, path) == number for path, number in least_numbers.items())
        return most if both_use and self._set_numbers(most, least_numbers) == least else None

    def _set_numbers(self, config: TrialConfig, numbers: Mapping[str, Number]) -> TrialConfig:
        """The config with these numbers, except where one has no effect and took its canonical value."""
        changes: dict[str, dict[str, Number]] = {}
        for path, value in numbers.items():
            plain = PLAIN[path]
            if _read_number(config, path) == plain.most:
                changes.setdefault(plain.part, {})[plain.name] = value
        parts = {}
        for part, values in changes.items():
            before = getattr(config, part)
            key = part, id(before), *values.items()
            if key not in self._parts:
                # Keeps the earlier part alive, so that no other object gets its id.
                self._parts[key] = before, before.replaced(**values)
            parts[part] = self._parts[key][1]
        return config.replaced(**parts) if parts else config


def _read_number(config: TrialConfig, path: str) -> Any:
    plain = PLAIN[path]
    return getattr(getattr(config, plain.part), plain.name)


def _is_plain(path: str, value: object) -> bool:
    plain = PLAIN[path]
    return type(value) is type(plain.least) and plain.least < value < plain.most and value != plain.default
