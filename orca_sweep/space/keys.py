"""The keys of a space YAML as pydantic models, and pydantic's errors as problems with their lines.

Values under ``base``, ``factors`` and the keys that name levels have the types of a trial's config: ``levels.py`` reads
them.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from orca_sweep.config import NonNegative, Seed
from orca_sweep.errors import Problem
from orca_sweep.registry import hint
from orca_sweep.space import designs
from orca_sweep.space.documents import Document, Keys
from orca_sweep.space.margins import ALL
from orca_sweep.space.records import (
    PLACEBOS,
    Budget,
    Checkpoints,
    Limits,
    MetricColumn,
    Outcomes,
    Pruning,
    Resources,
)
from orca_sweep.space.tuning import Search

MOST_SEEDS = 10**9
"""Of a number of seeds."""
FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
MARGIN = "a number, 0 or more, or one per task such as {digits: 0.01, ecg: 0.02}"
SMOKE = "a mapping of keys that replace those of the space, such as {seeds: 2, base: {finetune.epochs: 1}}"
SEEDS = "a number of seeds, or a list of whole numbers such as [0, 1, 2]"
REMEDIES: Mapping[str, str] = {
    "seeds": "Give whole numbers from 0 on, or how many.",
    "aa": "Give whole numbers from 0 on, or how many.",
    "margin": f"A margin must be {MARGIN}.",
}
"""What to do about a wrong value of a key, or inside it."""


# Values -------------------------------------------------------------------------------------------


def _check_folder_name(name: str) -> str:
    if not FOLDER_NAME.fullmatch(name):
        raise ValueError("this cannot be a folder's name. Use up to 100 letters, digits, '-', '_' and '.'")
    return name


def _check_placebo(name: object) -> object:
    if not isinstance(name, str) or name not in PLACEBOS:
        raise ValueError(f"there is no placebo {name!r}. {hint(str(name), PLACEBOS)}")
    return name


def _order_placebos(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in set(names):
        if names.count(name) > 1:
            raise ValueError(f"{name} appears here twice. Keep one")
    return tuple(name for name in PLACEBOS if name in names)


def _read_seeds(value: object) -> object:
    """A number of seeds, or a list of different seeds."""
    if not isinstance(value, list):
        return TypeAdapter(Annotated[int, Field(ge=1, le=MOST_SEEDS)]).validate_python(value)
    seeds = TypeAdapter(tuple[Seed, ...]).validate_python(value)
    repeated = next((seed for seed, n in Counter(seeds).items() if n > 1), None)
    if repeated is not None:
        raise ValueError(f"the seed {repeated} appears here twice. A trial never runs twice; keep one")
    return seeds


def _read_margins(value: object) -> object:
    """Margins by task; under ``ALL`` the margin of all tasks."""
    if isinstance(value, Mapping):
        return TypeAdapter(Annotated[dict[str, NonNegative], Field(min_length=1)]).validate_python(value)
    return {ALL: TypeAdapter(NonNegative).validate_python(value)}


Seeds = Annotated[int | tuple[int, ...], BeforeValidator(_read_seeds)]
Items = list[Any]
Table = dict[str, Any]
Row = Annotated[Table, Field(min_length=1)]


# Models -------------------------------------------------------------------------------------------


class DesignKeys(BaseModel):
    """Which design makes the combinations: its name, and for a fraction its resolution."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "cross"
    resolution: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _accept_name(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if name not in designs.DESIGNS:
            raise ValueError(f"there is no design {name!r}. {hint(name, designs.DESIGNS)}")
        return name

    @field_validator("resolution", mode="before")
    @classmethod
    def _check_resolution(cls, resolution: object, info: ValidationInfo) -> object:
        name = info.data.get("name", "fraction")
        if designs.DESIGNS[name].find_aliasing is None:
            raise ValueError(f"design {name} has no resolution; only a fraction has one. Remove it")
        if resolution not in [str(n) for n in designs.RESOLUTIONS]:
            known = ", ".join(f"{n} ({meaning})" for n, meaning in designs.RESOLUTIONS.items())
            raise ValueError(f"a fraction's resolution must be one of {known}")
        return resolution

    @property
    def design(self) -> designs.Design:
        """The design itself."""
        return designs.DESIGNS[self.name] if self.resolution is None else designs.make_fraction(int(self.resolution))


class RuleKeys(BaseModel):
    """A rule of ``when``, its levels and settings as the YAML writes them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    condition: Row = Field(alias="if")
    settings: Row = Field(alias="set")


class RangeKeys(BaseModel):
    """A range of ``tune``, its ends as the YAML writes them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: Any
    high: Any
    log: bool = False


class SpaceKeys(BaseModel):
    """All keys of a space.

    Errors quote the description of a key as what its value must be.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, AfterValidator(_check_folder_name)] = Field(description="the name of a folder")
    question: str = Field("", description="a text")
    base: Table = Field({}, description="a mapping of config fields to values")
    factors: Table = Field({}, description="a mapping of config fields to lists of levels")
    design: DesignKeys = Field(DesignKeys(), description="the name of a design, or {name: fraction, resolution: 5}")
    include: Items = Field(
        [], description="a list of rows of factors and levels, such as {proxy: none, embedder.epochs: 0}"
    )
    exclude: Items = Field(
        [], description="a list of rows of factors and levels, such as {proxy: none, embedder.epochs: 0}"
    )
    when: Items = Field([], description="a list of rules such as {if: {proxy: none}, set: {finetune.lr: 1e-3}}")
    placebo: Annotated[tuple[Annotated[str, BeforeValidator(_check_placebo)], ...], AfterValidator(_order_placebos)] = (
        Field((), description="a list, of shuffled (labels permuted) and dummy (noise) or one of them")
    )
    seeds: Seeds = Field((), description=SEEDS)
    aa: Seeds = Field((), description=SEEDS)
    metric: MetricColumn = "test_metric_best"
    margin: Annotated[dict[str, float], BeforeValidator(_read_margins)] = Field({}, description=MARGIN)
    resources: Resources = Resources()
    limits: Limits = Limits()
    loggers: Items | None = Field(None, description="a list such as [json, tensorboard, {mlflow: {experiment: mine}}]")
    imports: tuple[str, ...] = Field((), description="a list of module names or paths of .py files")
    tune: Table = Field({}, description="a mapping of config fields to lists of values or {low, high, log}")
    search: Search | None = None
    prune: Pruning | None = None
    budget: Budget = Budget()
    outcomes: Outcomes = Field({}, description="a mapping such as {oom: {retry: 1}, diverged: worst}")
    checkpoints: Checkpoints = Checkpoints()
    smoke: Table = Field({}, description=SMOKE)

    @model_validator(mode="before")
    @classmethod
    def _choose_search(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        """Fills in a missing search method: a grid, or random if something is searched in a range."""
        keys = dict(value)
        search = keys.get("search", {})
        search = {"method": search} if isinstance(search, str) else search
        if isinstance(search, Mapping) and ("tune" in keys or "search" in keys):
            keys["search"] = {"method": "random" if _holds_range(keys.get("tune")) else "grid", **search}
        return keys


def is_range(value: object) -> bool:
    """Whether a value of ``tune`` is meant as a range."""
    return isinstance(value, Mapping) and ("low" in value or "high" in value)


def _holds_range(tune: object) -> bool:
    return is_range(tune) or (isinstance(tune, Mapping) and any(map(_holds_range, tune.values())))


# Errors -------------------------------------------------------------------------------------------

SHAPES = frozenset({"dict_type", "list_type", "tuple_type", "string_type", "model_type", "too_short"})
"""Pydantic's errors for a value of another kind, or an empty one."""


def explain_errors(
    error: ValidationError, document: Document, model: type[BaseModel], keys: Keys = ()
) -> Iterator[Problem]:
    """Yields each of pydantic's errors about a part of a document as a problem with its line.

    Args:
        error: what the model rejects.
        document: the document.
        model: the model.
        keys: the path to the part in the document.
    """
    refused: set[tuple[int | str, ...]] = set()
    for item in error.errors(include_url=False):
        location = (*keys, *item["loc"])
        is_key = location[-1:] == ("[key]",)
        if any(location[:n] in refused for n in range(len(location))):
            continue  # the value of a key that does not exist needs no error
        if is_key:
            refused.add(location[:-1])
        names = [part for part in location if isinstance(part, str) and not part.isdigit()]
        field = ".".join(names[:-2] if is_key else names)
        rule, remedy = _explain_rule(dict(item), model), REMEDIES.get(names[0] if names else "", "")
        shows_value = item["type"] not in ("missing", "extra_forbidden")
        if item["type"] in SHAPES and (form := _describe_form(model, item["loc"], item["type"])):
            rule, remedy, shows_value = f"this must be {form}.", "", False
        problem = Problem(field=field, rule=rule, remedy=remedy, **({"value": item["input"]} if shows_value else {}))
        yield problem.at(document.locate(*_follow_keys(document, location)))


def _explain_rule(item: Mapping[str, Any], model: type[BaseModel]) -> str:
    """What is wrong, as a sentence; pydantic's messages begin with a capital letter and have no full stop."""
    if item["type"] == "extra_forbidden":
        *before, key = item["loc"]
        return f"unknown key. {hint(str(key), _find_model(model, tuple(before)).model_fields)}"
    if item["type"] == "missing":
        return "this key is required."
    if item["type"] == "value_error":
        return end_sentence(str(item["ctx"]["error"]))
    names = _find_key_names(model, item["loc"])
    if names:
        return f"there is no {item['input']!r} here. {hint(str(item['input']), names)}"
    return end_sentence(item["msg"][0].lower() + item["msg"][1:])


def end_sentence(text: str) -> str:
    """Returns a text with a full stop, unless it already ends like a sentence."""
    return text if text.endswith((".", "?")) else f"{text}."


def _find_model(model: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel]:
    """The innermost model on the path from a model to a location in it."""
    for part in location:
        field = model.model_fields.get(str(part))
        types = (field.annotation, *get_args(field.annotation)) if field else ()
        model = next((kind for kind in types if isinstance(kind, type) and issubclass(kind, BaseModel)), model)
    return model


def _find_key_names(model: type[BaseModel], location: tuple[int | str, ...]) -> tuple[str, ...]:
    """The words that a mapping accepts as keys, if the location is one of its keys."""
    if location[-1:] != ("[key]",):
        return ()
    field = model.model_fields.get(str(location[0]))
    words = get_args(field.annotation)[0] if field and get_origin(field.annotation) is dict else None
    return get_args(words) if get_origin(words) is Literal else ()


def _describe_form(model: type[BaseModel], location: tuple[int | str, ...], error_type: str) -> str:
    """What the value must be, in words; empty if pydantic's message is as good."""
    field = model.model_fields.get(str(location[0])) if location else None
    is_whole_key = not any(isinstance(part, str) for part in location[1:])
    if field is not None and field.description and is_whole_key:
        return field.description
    keys = _find_model(model, location).model_fields if error_type == "model_type" else ()
    return f"a mapping with keys among {', '.join(keys)}" if keys else ""


def _follow_keys(document: Document, location: tuple[int | str, ...]) -> Keys:
    """The keys of a location that are in the document: pydantic adds its own names, and those of missing keys."""
    keys: Keys = ()
    for part in map(str, location):
        keys = (*keys, part) if (*keys, part) in document.lines else keys
    return keys
