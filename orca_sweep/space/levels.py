"""Reads values of a trial's config: base, factors, and the keys that name levels or fields."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from orca_sweep.config import explain_unknown_knob, explain_validation, knobs
from orca_sweep.config.declaration import SHUFFLED
from orca_sweep.config.labels import write_as_given
from orca_sweep.errors import MOST_PROBLEMS, MOST_SHOWN, InputError, Problem, shorten_text
from orca_sweep.registry import hint
from orca_sweep.space.documents import Document, Keys, write_count
from orca_sweep.space.keys import RangeKeys, Row, RuleKeys, SpaceKeys, end_sentence, is_range
from orca_sweep.space.records import Rule
from orca_sweep.space.tuning import Range, Tune, make_range, takes_range

MOST_LEVELS_SHOWN = 20
"""The most levels that an error lists."""
ROW = TypeAdapter[dict[str, Any]](Row)
ROW_FORM = SpaceKeys.model_fields["include"].description
RULE_FORM = SpaceKeys.model_fields["when"].description
RANGE_FORM = "a range such as {low: 1e-5, high: 1e-3, log: true}; log is true or false, and may be left out"
Levels = tuple[Any, ...]
Factors = Mapping[str, Levels]
T = TypeVar("T")


class Reading:
    """The state of reading a space: its document, the problems so far, and how it writes its levels."""

    def __init__(self, document: Document, max_trials: int) -> None:
        self.document, self.max_trials = document, max_trials
        self.problems: list[Problem] = []
        self.written: dict[str, dict[Any, str]] = {}
        """For each field its values, and how the YAML writes each of them where it first appears."""
        self.declared = _find_declarations(document.content)

    def report(self, keys: Keys, *problems: Problem) -> None:
        """Adds problems, with the line of the value at a path in the document.

        Raises:
            InputError: if there are too many: finding the nearest names for thousands of wrong names takes minutes.
        """
        for problem in problems:
            self.problems.append(problem.at(self.document.locate(*keys)))
            if len(self.problems) > MOST_PROBLEMS:
                raise InputError(self.problems)

    def read_level(self, field: str, raw: object, keys: Keys, scope: str = "") -> Levels:
        """Returns the value of a field in the field's type, as a tuple of one; an empty tuple after a mistake."""
        try:
            level = knobs()[field].read(self._insert_declaration(field, raw))
        except ValidationError as error:
            rules = shorten_text("; ".join(rule for _, _, rule in explain_validation(error)), 10 * MOST_SHOWN)
            self.report(keys, Problem(field=field, value=raw, rule=end_sentence(rules), scope=scope))
            return ()
        self.written.setdefault(field, {}).setdefault(level, write_as_given(raw))
        return (level,)

    def read_part(self, kind: TypeAdapter[T], raw: object, keys: Keys, problem: Problem) -> T | None:
        """Returns a part of the document in the required form; otherwise reports a problem and returns None."""
        try:
            return kind.validate_python(raw)
        except ValidationError:
            self.report(keys, problem)
            return None

    def check_field(self, field: str, keys: Keys, scope: str = "") -> bool:
        """Returns whether a space may set a field of this name, and reports it if not."""
        if field == "seed":
            rule, remedy = "a run seed cannot be set here.", "List the run seeds under the key 'seeds'."
            self.report(keys, Problem(field=field, rule=rule, remedy=remedy, scope=scope))
        elif field not in knobs():
            self.report(keys, Problem(field=field, rule=explain_unknown_knob(field), scope=scope))
        return field != "seed" and field in knobs()

    def check_length(self, values: object, keys: Keys, field: str, scope: str = "") -> bool:
        """Returns whether a list is no longer than the largest number of trials, and reports it if it is longer."""
        if not isinstance(values, list) or len(values) <= self.max_trials:
            return True
        rule = (
            f"this list has {write_count(len(values))} values, and a space may have at most {self.max_trials:,} trials."
        )
        remedy = f"Remove some, or raise the limit with --max-trials {len(values)}."
        self.report(keys, Problem(field=field, rule=rule, remedy=remedy, scope=scope))
        return False

    def _insert_declaration(self, field: str, raw: object) -> object:
        """The declaration that a value names, its labels permuted or not; any other value stays as it is."""
        if not isinstance(raw, str):
            return raw
        name = raw
        while name.startswith(SHUFFLED):
            name = name.removeprefix(SHUFFLED)
        declaration = self.declared.get(field, {}).get(name)
        if declaration is None:
            return raw
        try:
            return raw.removesuffix(name) + knobs()[field].read(declaration)
        except ValidationError:
            return raw  # reported where the name is declared


def _find_declarations(content: object) -> dict[str, dict[str, object]]:
    """The tasks and proxies that are declared with a name, which stands for them elsewhere in the space."""
    content = content if isinstance(content, dict) else {}
    declared: dict[str, dict[str, object]] = {"task": {}, "proxy": {}}
    for field, by_name in declared.items():
        base, factors = (of if isinstance(of := content.get(key), dict) else {} for key in ("base", "factors"))
        levels = factors.get(field)
        for value in (base.get(field), *(levels if isinstance(levels, list) else ())):
            if isinstance(value, dict) and isinstance(value.get("name"), str):
                by_name.setdefault(value["name"], value)
    return declared


def walk_fields(raw: Mapping[str, Any], keys: Keys = ()) -> Iterator[tuple[str, Keys, Any]]:
    """Yields the dotted name of each field, its keys and its value; fields may be written dotted or nested."""
    for key, value in raw.items():
        here = (*keys, key)
        if isinstance(value, Mapping) and value and not is_range(value) and ".".join(here) not in knobs():
            yield from walk_fields(value, here)
        else:
            yield ".".join(here), here, value


# Base and factors ---------------------------------------------------------------------------------


def read_base(reading: Reading, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of every trial."""
    settings: dict[str, Any] = {}
    for field, keys, value in _walk_once(reading, "base", raw):
        if reading.check_field(field, keys):
            settings.update((field, level) for level in reading.read_level(field, value, keys))
    return settings


def read_factors(reading: Reading, raw: Mapping[str, Any], *, may_repeat: bool = False) -> dict[str, Levels]:
    """Returns the levels of each factor, without factors none of whose levels could be read.

    Args:
        reading: the state of reading the space.
        raw: the levels as the YAML writes them.
        may_repeat: whether the design lists combinations, so that a level may stand in several of them.
    """
    factors: dict[str, Levels] = {}
    for field, keys, values in _walk_once(reading, "factors", raw):
        if reading.check_field(field, keys):
            factors[field] = _read_levels(reading, field, values, keys, may_repeat=may_repeat)
    return {field: levels for field, levels in factors.items() if levels}


def count_levels(raw: Mapping[str, Any]) -> dict[str, int]:
    """Returns how many levels each factor has in the YAML, valid or not."""
    counts: dict[str, int] = {}
    for field, _, values in walk_fields(raw):
        if isinstance(values, list) and values:
            counts.setdefault(field, len(values))
    return counts


def _walk_once(reading: Reading, key: str, raw: Mapping[str, Any]) -> Iterator[tuple[str, Keys, Any]]:
    """Yields the fields under a key, each once, with all their keys, and notes their lines under their dotted names."""
    seen: set[str] = set()
    for field, inner, value in walk_fields(raw):
        keys = (key, *inner)
        if field in seen:
            rule = "this field appears here twice, dotted and nested."
            reading.report(keys, Problem(field=field, rule=rule, remedy="Keep one.", scope=key))
            continue
        seen.add(field)
        lines = reading.document.lines
        lines[key, field] = lines.get(keys, 1)
        yield field, keys, value


def _read_levels(reading: Reading, field: str, raw: object, keys: Keys, *, may_repeat: bool = False) -> Levels:
    scope = keys[0]
    if not isinstance(raw, list) or not raw:
        remedy = "Give a list such as [a, b], or set it in base."
        reading.report(keys, Problem(field=field, rule="this has no levels.", remedy=remedy, scope=scope))
        return ()
    if not reading.check_length(raw, keys, field, scope):
        return ()
    levels: list[Any] = []
    seen: set[Any] = set()
    for i, value in enumerate(raw):
        here = (*keys, str(i))
        for level in reading.read_level(field, value, here):
            if level in seen and not may_repeat:
                reading.report(here, _find_repetition(reading, field, level, value).at("", scope))
                continue
            seen.add(level)
            levels.append(level)
    return tuple(levels)


def _find_repetition(reading: Reading, field: str, level: Any, raw: object) -> Problem:
    first, again = reading.written[field][level], write_as_given(raw)
    spelt = f", as {first} and as {again}" if first != again else ""
    return Problem(field=field, rule=f"this names the level {level!r} twice{spelt}.", remedy="Keep one.")


# Rows and rules -----------------------------------------------------------------------------------


def read_included(reading: Reading, raw: Sequence[Any], factors: Factors) -> Iterator[dict[str, Any]]:
    """Yields the rows of ``include``: some factors with a level each, which need not be one of the factor's."""
    for keys, row in _read_rows(reading, "include", raw):
        levels: dict[str, Any] = {}
        for field, inner, value in walk_fields(row):
            here = (*keys, *inner)
            if _check_factor(reading, field, here, factors):
                levels.update((field, level) for level in reading.read_level(field, value, here, "include"))
        yield levels


def read_excluded(reading: Reading, raw: Sequence[Any], factors: Factors) -> Iterator[dict[str, Levels]]:
    """Yields the rows of ``exclude``: some factors with a level or several."""
    for keys, row in _read_rows(reading, "exclude", raw):
        excluded: dict[str, Levels] = {}
        for field, inner, value in walk_fields(row):
            here = (*keys, *inner)
            if _check_factor(reading, field, here, factors):
                values = value if isinstance(value, list) and not _is_level(value, factors[field], field) else [value]
                levels = (_read_known_level(reading, here, (field, raw_level), factors[field]) for raw_level in values)
                excluded[field] = tuple(level for known in levels for level in known)
        yield excluded


def read_rules(reading: Reading, raw: Sequence[Any], factors: Factors) -> Iterator[Rule]:
    """Yields the rules of ``when``."""
    problem, kind = Problem(field="when", rule=f"this must be {RULE_FORM}."), TypeAdapter(RuleKeys)
    for i, item in enumerate(raw):
        keys = ("when", str(i))
        rule = reading.read_part(kind, item, keys, problem)
        if rule is not None:
            settings = _read_rule_settings(reading, rule.settings, (*keys, "set"), factors)
            yield Rule(levels=_read_condition(reading, rule.condition, (*keys, "if"), factors), settings=settings)


def _read_condition(reading: Reading, raw: Mapping[str, Any], keys: Keys, factors: Factors) -> dict[str, Any]:
    levels: dict[str, Any] = {}
    for field, inner, value in walk_fields(raw):
        here = (*keys, *inner)
        if _check_factor(reading, field, here, factors):
            levels.update((field, level) for level in _read_known_level(reading, here, (field, value), factors[field]))
    return levels


def _read_rule_settings(reading: Reading, raw: Mapping[str, Any], keys: Keys, factors: Factors) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for field, inner, value in walk_fields(raw):
        here = (*keys, *inner)
        if field in factors:
            rule, remedy = "this is a factor, so its levels are set there.", "Remove it from one of them."
            reading.report(here, Problem(field=field, rule=rule, remedy=remedy, scope="when"))
        elif reading.check_field(field, here, "when"):
            settings.update((field, level) for level in reading.read_level(field, value, here, "when"))
    return settings


def _read_rows(reading: Reading, key: str, raw: Sequence[Any]) -> Iterator[tuple[Keys, dict[str, Any]]]:
    problem = Problem(field=key, rule=f"this must be {ROW_FORM}.")
    for i, item in enumerate(raw):
        row = reading.read_part(ROW, item, (key, str(i)), problem)
        if row is not None:
            yield (key, str(i)), row


def _check_factor(reading: Reading, field: str, keys: Keys, factors: Factors) -> bool:
    if field not in factors:
        rule = f"this is not a factor of this space. {hint(field, factors) if factors else 'It has none.'}"
        reading.report(keys, Problem(field=field, rule=rule, scope=keys[0]))
    return field in factors


def _read_known_level(reading: Reading, keys: Keys, setting: tuple[str, object], known: Levels) -> Levels:
    """The value of a factor, reported if it is not one of the factor's levels."""
    field, raw = setting
    levels = reading.read_level(field, raw, keys, keys[0])
    for level in levels:
        if level not in known:
            shown = [_write_in_list(reading.written[field][of]) for of in known[:MOST_LEVELS_SHOWN]]
            more = f", ... ({len(known):,} in all)" if len(known) > MOST_LEVELS_SHOWN else ""
            rule = f"this factor has no level {level!r}. Its levels: {', '.join(shown)}{more}."
            reading.report(keys, Problem(field=field, rule=rule, scope=keys[0]))
    return levels


def _is_level(raw: list[Any], levels: Levels, field: str) -> bool:
    """Whether a list is a single level of a factor whose levels are lists, such as betas, and not several levels."""
    try:
        return knobs()[field].read(raw) in levels
    except ValidationError:
        return False


def _write_in_list(level: str) -> str:
    """A level's label in a list separated by commas."""
    return repr(level) if "," in level and level[0] not in '"[{' else level


# Tuning -------------------------------------------------------------------------------------------


def read_tune(reading: Reading, raw: Mapping[str, Any], set_elsewhere: Iterable[str]) -> Tune:
    """Returns the values or ranges of the fields that are tuned within each cell."""
    taken, tune = set(set_elsewhere), dict[str, Levels | Range]()
    for field, keys, values in _walk_once(reading, "tune", raw):
        if field in taken:
            rule, remedy = "this is also set in base, factors or when.", "Remove it from one of them."
            reading.report(keys, Problem(field=field, rule=rule, remedy=remedy, scope="tune"))
        elif reading.check_field(field, keys, "tune"):
            is_mapping = isinstance(values, dict)
            read = _read_range if is_mapping else _read_levels
            values = read(reading, field, values, keys)
            tune |= {field: values} if values else {}
    return tune


def _read_range(reading: Reading, field: str, raw: object, keys: Keys) -> Range | None:
    if not takes_range(field):
        rule, remedy = "this field cannot have a range.", "List its values."
        reading.report(keys, Problem(field=field, rule=rule, remedy=remedy, scope="tune"))
        return None
    form = Problem(field=field, value=raw, rule=f"this must be {RANGE_FORM}.", scope="tune")
    ends = reading.read_part(TypeAdapter(RangeKeys), raw, keys, form)
    if ends is None:
        return None
    low = reading.read_level(field, ends.low, (*keys, "low"), "tune")
    high = reading.read_level(field, ends.high, (*keys, "high"), "tune")
    try:
        return make_range(field, *low, *high, log=ends.log) if low and high else None
    except ValueError as error:
        reading.report(keys, Problem(field=field, rule=end_sentence(str(error)), scope="tune"))
        return None
