"""Describes each knob from its field in ``TrialConfig``: type, column, default, meaning and when it acts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from orca_sweep.config.acting import BODY_TRAINS, DEFAULT, EMBEDDER_TRAINS, Facts, When
from orca_sweep.config.knobs import BodyConfig, ContentConfig, TrialConfig
from orca_sweep.registry import hint


@dataclass(frozen=True, kw_only=True)
class Knob:
    """One leaf field of TrialConfig."""

    path: str
    type_name: str
    column_type: Literal["string", "int64", "double", "bool"]
    default: str
    meaning: str
    acts: str
    """When the knob acts, in words; empty if it always does."""
    adapter: TypeAdapter[Any]

    def read(self, value: object) -> Any:
        """Returns the value in the field's own type.

        YAML reads ``1e-4`` as text: it becomes a number in a field of numbers and stays text in a field of texts.

        Raises:
            pydantic.ValidationError: if the field does not accept the value.
        """
        return self.adapter.validate_python(value)


@lru_cache(maxsize=1)
def knobs() -> Mapping[str, Knob]:
    """Returns every leaf field of TrialConfig under its dotted path."""
    return {path: _describe_knob(path, field) for path, field in _iterate_fields(TrialConfig)}


def _iterate_fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if kind is ContentConfig:
            continue  # not a knob: the user does not set it
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _iterate_fields(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def _describe_knob(path: str, field: FieldInfo) -> Knob:
    checks = [item for item in field.metadata if not isinstance(item, When)]
    annotation: Any = Annotated[field.annotation, *checks] if checks else field.annotation
    options = _plain_types(field.annotation)
    return Knob(
        path=path,
        type_name=_type_name(field.annotation),
        column_type=_column_type(options),
        default="required" if field.is_required() else ("null" if field.default is None else str(field.default)),
        meaning=field.description or "",
        acts=", ".join(rule.words for rule in rules()[path]),
        adapter=TypeAdapter(annotation),
    )


def _plain_types(annotation: Any) -> set[Any]:
    """The base types that an annotation admits, without constraints and None."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _plain_types(get_args(annotation)[0])
    if origin is Literal:
        return {type(value) for value in get_args(annotation)}
    if get_args(annotation):
        return set().union(*(_plain_types(part) for part in get_args(annotation)))
    return set() if annotation is NoneType else {annotation}


def _column_type(options: set[Any]) -> Literal["string", "int64", "double", "bool"]:
    if options == {bool}:
        return "bool"
    if options == {int}:
        return "int64"
    return "double" if options <= {int, float} else "string"


def _type_name(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _type_name(get_args(annotation)[0])
    if origin is Literal:
        return " | ".join(map(str, get_args(annotation)))
    if get_args(annotation):
        return " | ".join(_type_name(part) for part in get_args(annotation))
    return "null" if annotation is NoneType else annotation.__name__


def explain_unknown_knob(path: str) -> str:
    """Returns the message for a path that is not a field of TrialConfig."""
    if any(known.startswith(f"{path}.") for known in knobs()):
        inside = ", ".join(known for known in knobs() if known.startswith(f"{path}."))
        return f"{path!r} is a group of fields, not a field. Name one of: {inside}."
    return f"there is no field {path!r} in a trial's config. {hint(path, knobs())}"


def explain_validation(error: ValidationError) -> list[tuple[str, object, str]]:
    """Returns (dotted field, value, rule) for every mistake that pydantic reports.

    Each member of a union reports its own mistake; they are joined into one mistake per field.
    """
    rules: dict[str, tuple[object, list[str]]] = {}
    for item in error.errors(include_url=False, include_context=False):
        # A union adds its member's tag to the field's path: only lower-case names are fields.
        path = ".".join(str(part) for part in item["loc"] if _is_name(part))
        _, texts = rules.setdefault(path, (item["input"], []))
        own_text = item["msg"].removeprefix("Value error, ")
        text = own_text if own_text != item["msg"] else own_text[0].lower() + own_text[1:]
        if text not in texts:
            texts.append(text)
    return [(path, value, " or ".join(texts)) for path, (value, texts) in rules.items()]


def _is_name(part: int | str) -> bool:
    return isinstance(part, str) and part.replace("_", "").isalpha() and part.islower() and part not in {"int", "float"}


# When knobs act -----------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def rules() -> Mapping[str, tuple[When, ...]]:
    """Returns the rules of every knob under its dotted path; all of them must hold for the knob to act."""
    return {
        path: tuple(item for item in field.metadata if isinstance(item, When))
        for path, field in _iterate_fields(TrialConfig)
    }


@lru_cache(maxsize=1)
def default_settings() -> Mapping[str, Any]:
    """Returns the default of every field; fields without a default have the empty text."""
    return TrialConfig(task="", body=BodyConfig(name="")).flat()


def acts(path: str, facts: Facts) -> bool:
    """Returns whether a knob can change anything, as far as the facts show; True for a path that is not a knob."""
    return all(rule.holds(facts) for rule in rules().get(path, ()))


def find_idle(facts: Facts) -> dict[str, When]:
    """Returns the knobs that change nothing in a trial of these facts, each with the first of its rules that fails."""
    idle: dict[str, When] = {}
    for path, rule in _ordered_rules():
        if path not in idle and not rule.holds(facts):
            idle[path] = rule
    return idle


@lru_cache(maxsize=1)
def _ordered_rules() -> tuple[tuple[str, When], ...]:
    return tuple((path, rule) for path, its_rules in rules().items() for rule in its_rules)


@lru_cache(maxsize=1)
def naive_settings() -> Mapping[str, Any]:
    """Returns the fields that each turn embedder training off, with the values that do so."""
    return {
        path: rule.idle
        for path, rule in _ordered_rules()
        if rule.holds is EMBEDDER_TRAINS.holds and rule.idle is not DEFAULT
    }


@lru_cache(maxsize=1)
def embedder_training_fields() -> frozenset[str]:
    """Returns the fields that act only where the embedder is trained."""
    return frozenset(path for path, rule in _ordered_rules() if rule.holds is EMBEDDER_TRAINS.holds)


@lru_cache(maxsize=1)
def body_training_fields() -> frozenset[str]:
    """Returns the fields that act only where some of the body is trained."""
    return frozenset(path for path, rule in _ordered_rules() if rule.holds is BODY_TRAINS.holds)


def fields_of_level(path: str) -> tuple[str, ...]:
    """Returns the fields that a level of a field sets: ``finetune.freeze``, for example, also sets its length."""
    return (path, *(other for other, rule in _ordered_rules() if rule.written_by == path != other))
