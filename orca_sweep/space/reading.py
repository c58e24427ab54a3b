"""Reading a space YAML: every value in its field's type, every mistake with its line."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import count, islice
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import Field, TypeAdapter, ValidationError

from orca_sweep.config import Seed, explain, knobs, unknown_knob
from orca_sweep.config.declaration import SHUFFLED, absolute_path, explain_impossible_path
from orca_sweep.config.labels import write_as_given
from orca_sweep.errors import MOST_PROBLEMS, InputError
from orca_sweep.registry import hint
from orca_sweep.space import designs
from orca_sweep.space.documents import MOST_VALUES, read_document
from orca_sweep.space.margins import read_margins
from orca_sweep.space.records import (
    DEFAULT_LOGGERS,
    PLACEBOS,
    Budget,
    Checkpoints,
    Limits,
    Logger,
    MetricColumn,
    OutcomeRule,
    Outcomes,
    Path_,
    Pruning,
    Resources,
    Rule,
    Space,
    Unhappy,
    where,
)
from orca_sweep.space.sizes import MAX_TRIALS, as_number
from orca_sweep.space.tuning import Range, Search, Tune, default_seeds, range_of, takes_range

MOST_SEEDS = 10**9
MOST_LEVELS_SHOWN = 20
"""Levels that an error names."""
"""Of a number of seeds: beyond it they are no seeds."""
MOST_SHOWN = 200
"""Characters of a wrong value."""
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def read(path: Path, max_trials: int = MAX_TRIALS) -> tuple[Space, list[str]]:
    """Returns the space, as far as it can be read, and what is wrong with it; of sizes what one list shows."""
    document, lines = read_document(path, max(MOST_VALUES, 2 * max_trials))
    reader = _SpaceReader(path, lines, max_trials)
    return reader.read(document), reader.problems


class _SpaceReader:
    """Collects the mistakes of one document while reading it."""

    KEYS = (
        "name", "question", "base", "factors", "design", "include", "exclude", "when", "placebo", "seeds", "aa", "metric",
        "margin", "resources", "limits", "loggers", "imports", "tune", "search", "prune", "budget", "outcomes", "checkpoints",
    )  # fmt: skip

    def __init__(self, path: Path, lines: dict[Path_, int], max_trials: int) -> None:
        self.path = path
        self.lines = lines
        self.max_trials = max_trials
        self.problems: list[str] = []
        self.named: dict[str, dict[str, object]] = {"task": {}, "proxy": {}}
        """Declarations of the space by the names that they give themselves."""
        self.n_levels: dict[str, int] = {}
        """Levels of each factor as they stand there, right or wrong."""
        self.written: dict[str, dict[Any, str]] = {}
        """Of each field its values, and how they are written where they stand first."""

    def wrong(self, place: Path_, text: str) -> None:
        self.problems.append(f"{where(self.path, self.lines, place)}: {text}")
        if len(self.problems) > MOST_PROBLEMS:  # the nearest names of thousands of wrong ones take minutes
            raise InputError(self.problems)

    def is_too_long(self, what: str, values: object, place: Path_) -> bool:
        """Says that a list holds more than a space may have trials: before its values are read, one by one."""
        if not isinstance(values, list) or len(values) <= self.max_trials:
            return False
        self.wrong(
            place,
            f"{what} has {as_number(len(values))} values, and a space at most {self.max_trials:,} trials. Take some out, or"
            f" raise the limit with --max-trials {len(values)}.",
        )
        return True

    def read(self, document: object) -> Space:
        if not isinstance(document, dict):
            raise InputError(f"{self.path}: the file holds no mapping. A space has the keys {', '.join(self.KEYS)}.")
        for key in document:
            if key not in self.KEYS:
                self.wrong((key,), f"unknown key {key!r}. {hint(key, self.KEYS)}")
        self.note_names(document)
        base, factors = self.base(document), self.factors(document)
        self.both(base, factors)
        name, question = self.name(document), self.text(document, "question")
        seeds, imports = self.seeds(document), self.imports(document)
        aa, placebo = self.aa(document, seeds), self.placebo(document)
        metric = self.typed(document, "metric", MetricColumn, "test_metric_best")
        resources = self.typed(document, "resources", Resources, Resources())
        limits = self.typed(document, "limits", Limits, Limits())
        checkpoints = self.typed(document, "checkpoints", Checkpoints, Checkpoints())
        loggers = self.loggers(document)
        factors = {name: levels for name, levels in factors.items() if levels}
        when, design = self.when(document, factors), self.design(document, factors)
        include = tuple(
            {path: levels[0] for path, levels in row.items()} for row in self.rows(document, "include", factors)
        )
        exclude = tuple(self.rows(document, "exclude", factors))
        tune = self.tune(document, {*base, *factors, *(path for rule in when for path in rule.settings)})
        search = self.search(document, tune, (*seeds, *aa))
        prune = self.prune(document, tune)
        budget, outcomes = self.typed(document, "budget", Budget, Budget()), self.outcomes(document)
        margins = self.margins(document, [base, *(rule.settings for rule in when)], factors)
        return Space(
            name, question, base, factors, design, include, exclude, when, placebo, seeds, aa, metric, resources, limits,
            loggers, imports, self.path, self.lines, tune, search, prune, budget, outcomes, margins, checkpoints=checkpoints,
            written=self.written,
        )  # fmt: skip

    def note_names(self, document: dict[str, Any]) -> None:
        """Notes the declarations that have a name: elsewhere in the space that name stands for them."""
        base, factors = (document.get(key) for key in ("base", "factors"))
        for path, by_name in self.named.items():
            values = [base.get(path)] if isinstance(base, dict) else []
            levels = factors.get(path) if isinstance(factors, dict) else None
            for value in [*values, *(levels if isinstance(levels, list) else [])]:
                if isinstance(value, dict) and isinstance(value.get("name"), str):
                    by_name.setdefault(value["name"], value)

    def with_declaration(self, path: str, value: object) -> object:
        """The declaration that a value is the name of, labels permuted or not; every other value as it is."""
        if path not in self.named or not isinstance(value, str):
            return value
        name = value
        while name.startswith(SHUFFLED):
            name = name.removeprefix(SHUFFLED)
        if name not in self.named[path]:
            return value
        try:
            return value.removesuffix(name) + knobs()[path].read(self.named[path][name])
        except ValidationError:
            return value  # what is wrong with it is said where it stands

    def design(self, document: dict[str, Any], factors: Mapping[str, tuple[Any, ...]]) -> designs.Design:
        """The design, or after a mistake one that is never large, so that the cells' own mistakes are found too."""
        raw, fallback = document.get("design") or "cross", designs.DESIGNS["one_at_a_time"]
        said = raw if isinstance(raw, dict) else {"name": raw}
        for key in said:
            if key not in ("name", "resolution"):
                self.wrong(("design", key), f"unknown key 'design.{key}'. {hint(key, ('name', 'resolution'))}")
        name = said.get("name")
        if not isinstance(name, str) or name not in designs.DESIGNS:
            self.wrong(("design",), f"there is no design {name!r}. {hint(str(name), designs.DESIGNS)}")
            return fallback
        design = designs.DESIGNS[name]
        if "resolution" in said:
            design = self.resolution(design, said["resolution"])
        for text in designs.misfits(design, self.n_levels):
            self.wrong(("design",), text)
        # What could be read may fit no design where what stands there does.
        fits = not any(designs.misfits(design, {path: len(levels) for path, levels in factors.items()}))
        return design if fits else fallback

    def resolution(self, design: designs.Design, value: object) -> designs.Design:
        """The fraction of a resolution; after a mistake the design as it is."""
        place, known = ("design", "resolution"), {str(n): n for n in designs.RESOLUTIONS}
        if design.aliasing is None:
            self.wrong(place, f"design {design.name} has no resolution; a fraction has. Take it out.")
        elif not isinstance(value, str) or value not in known:
            rule = ", ".join(f"{n} ({text})" for n, text in designs.RESOLUTIONS.items())
            self.wrong(place, f"design.resolution = {value!r} is none of {rule}.")
        else:
            return designs.fraction(known[value])
        return design

    def rows(
        self, document: dict[str, Any], key: str, factors: Mapping[str, tuple[Any, ...]]
    ) -> Iterator[dict[str, tuple[Any, ...]]]:
        """Rows of include (a level per factor) or exclude (a level or several per factor)."""
        raw = document.get(key) or []
        form = f"{key} must be a list of rows of factors and levels, such as {{proxy: none, embedder.epochs: 0}}."
        if not isinstance(raw, list):
            self.wrong((key,), form)
            return
        for i, row in enumerate(raw):
            if not isinstance(row, dict) or not row:
                self.wrong((key, str(i)), form)
                continue
            found: dict[str, tuple[Any, ...]] = {}
            for path, value in _dotted(row):
                name, place = ".".join(path), (key, str(i), *path)
                if name not in factors:
                    self.wrong(place, f"{key}: {name} is no factor of this space. {hint(name, factors)}")
                elif key == "exclude":
                    several = value if isinstance(value, list) and not _is_level(value, name, factors) else [value]
                    found[name] = tuple(self.known_level(name, one, place, factors, key) for one in several)
                else:
                    typed: dict[str, Any] = {}
                    self.level(name, value, place, typed)
                    found |= {name: (level,) for name, level in typed.items()}
            yield found

    def known_level(
        self, name: str, value: object, place: Path_, factors: Mapping[str, tuple[Any, ...]], key: str
    ) -> Any:
        """A level that the factor has, in its type."""
        found: dict[str, Any] = {}
        self.level(name, value, place, found)
        if found and found[name] not in factors[name]:
            shown = [_among_others(self.written[name][level]) for level in factors[name][:MOST_LEVELS_SHOWN]]
            more = f", ... ({len(factors[name]):,} in all)" if len(factors[name]) > MOST_LEVELS_SHOWN else ""
            text = f"{key}: {name} has no level {found[name]!r}. Its levels: {', '.join(shown)}{more}."
            self.wrong(place, text)
        return found.get(name)

    def name(self, document: dict[str, Any]) -> str:
        name = document.get("name", self.path.stem)
        if not isinstance(name, str) or not PLAIN_NAME.fullmatch(name):
            self.wrong(
                ("name",), f"name {name!r} cannot name a folder. Use up to 100 letters, digits, '-', '_' and '.'."
            )
        return str(name)

    def text(self, document: dict[str, Any], key: str) -> str:
        value = document.get(key) or ""
        if not isinstance(value, str):
            self.wrong((key,), f"{key} must be a text.")
            return ""
        return " ".join(value.split())

    def typed(self, document: dict[str, Any], key: str, kind: Any, default: Any) -> Any:
        if document.get(key) is None:
            return default
        try:
            return TypeAdapter(kind).validate_python(document[key])
        except ValidationError as error:
            for place, value, rule in explain(error):
                names = getattr(kind, "model_fields", ())
                more = f" {hint(place, names)}" if "extra inputs" in rule else ""
                dotted = f"{key}.{place}" if place else key
                self.wrong((*key.split("."), *place.split(".")), f"{dotted} = {_cut(repr(value))}: {rule}.{more}")
            return default

    def base(self, document: dict[str, Any]) -> dict[str, Any]:
        raw = document.get("base") or {}
        if not isinstance(raw, dict):
            self.wrong(("base",), "base must be a mapping of config fields to values.")
            return {}
        settings: dict[str, Any] = {}
        self._base_level(raw, ("base",), "", settings)
        return settings

    def _base_level(self, raw: dict[str, Any], place: Path_, prefix: str, settings: dict[str, Any]) -> None:
        for key, value in raw.items():
            path, here = f"{prefix}{key}", (*place, key)
            if isinstance(value, dict) and any(known.startswith(f"{path}.") for known in knobs()):
                self._base_level(value, here, f"{path}.", settings)
            elif path in settings:
                self.wrong(here, f"{path} is set twice in base. Keep one.")
            elif self.known(path, here):
                # The dotted name is where later messages look a field's line up.
                self.lines[("base", path)] = self.lines[here]
                self.level(path, value, here, settings)

    def level(self, path: str, value: object, place: Path_, settings: dict[str, Any]) -> None:
        try:
            settings[path] = knobs()[path].read(self.with_declaration(path, value))
            self.written.setdefault(path, {}).setdefault(settings[path], write_as_given(value))
        except ValidationError as error:
            rules = _cut("; ".join(rule for _, _, rule in explain(error)), 10 * MOST_SHOWN)
            self.wrong(place, f"{path} = {_cut(repr(value))}: {rules}.".replace("?.", "?"))

    def known(self, path: str, place: Path_) -> bool:
        if path == "seed":
            self.wrong(place, "seed is not set here. List the run seeds under the top-level key 'seeds'.")
            return False
        if path not in knobs():
            self.wrong(place, unknown_knob(path))
            return False
        return True

    def factors(self, document: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
        raw = document.get("factors")
        raw = {} if raw is None else raw
        if not isinstance(raw, dict):
            self.wrong(("factors",), "factors must be a mapping of config fields to lists of levels.")
            return {}
        factors: dict[str, tuple[Any, ...]] = {}
        for path, levels in _dotted(raw):
            place = ("factors", *path)
            name = ".".join(path)
            if name in factors:
                self.wrong(place, f"factor {name} stands here twice, dotted and nested. Keep one.")
                continue
            self.lines[("factors", name)] = self.lines.get(place, 1)
            if isinstance(levels, list) and levels:
                self.n_levels[name] = len(levels)
            if self.known(name, place):
                factors[name] = self.levels(name, levels, place)
        return factors

    def levels(self, path: str, levels: object, place: Path_, what: str = "factor") -> tuple[Any, ...]:
        if not isinstance(levels, list) or not levels:
            self.wrong(place, f"{what} {path} has no levels. Give a list such as [a, b], or set it in base.")
            return ()
        if self.is_too_long(f"{what} {path}", levels, place):
            return ()
        typed: list[Any] = []
        known: set[Any] = set()
        for i, value in enumerate(levels):
            found: dict[str, Any] = {}
            self.level(path, value, (*place, str(i)), found)
            if path in found and found[path] in known:
                first, again = self.written[path][found[path]], write_as_given(value)
                spelt = f", as {first} and as {again}" if first != again else ""
                self.wrong((*place, str(i)), f"{what} {path} names the level {found[path]!r} twice{spelt}. Keep one.")
            known.update(found.values())
            typed.extend(found.values())
        return tuple(typed)

    def both(self, base: Mapping[str, Any], factors: Mapping[str, Any]) -> None:
        for path in base.keys() & factors.keys():
            self.wrong(("factors", path), f"{path} is both in base and a factor. Take it out of one.")

    def when(self, document: dict[str, Any], factors: Mapping[str, tuple[Any, ...]]) -> tuple[Rule, ...]:
        raw = document.get("when") or []
        form = "when must be a list of rules such as {if: {proxy: none}, set: {finetune.lr: 1e-3}}."
        if not isinstance(raw, list):
            self.wrong(("when",), form)
            return ()
        rules = []
        for i, item in enumerate(raw):
            condition, wanted = (item.get("if"), item.get("set")) if isinstance(item, dict) else (None, None)
            if not (
                isinstance(condition, dict) and isinstance(wanted, dict) and condition and wanted and len(item) == 2
            ):
                self.wrong(("when", str(i)), form)
                continue
            settings: dict[str, Any] = {}
            for path, value in _dotted(wanted):
                name, place = ".".join(path), ("when", str(i), "set", *path)
                if name in factors:
                    self.wrong(place, f"when: {name} is a factor, so its levels are set there. Take it out of one.")
                elif self.known(name, place):
                    self.level(name, value, place, settings)
            rules.append(Rule(self.condition(condition, factors, i), settings))
        return tuple(rules)

    def condition(self, raw: dict[str, Any], factors: Mapping[str, tuple[Any, ...]], i: int) -> dict[str, Any]:
        levels: dict[str, Any] = {}
        for path, value in _dotted(raw):
            name, place = ".".join(path), ("when", str(i), "if", *path)
            if name not in factors:
                self.wrong(place, f"when: {name} is no factor of this space. {hint(name, factors)}")
                continue
            levels[name] = self.known_level(name, value, place, factors, "when")
        return levels

    def tune(self, document: dict[str, Any], set_elsewhere: set[str]) -> Tune:
        raw = document.get("tune") or {}
        if not isinstance(raw, dict):
            self.wrong(("tune",), "tune must be a mapping of config fields to lists of values or {low, high, log}.")
            return {}
        found: dict[str, tuple[Any, ...] | Range] = {}
        for path, values in _dotted(raw, ends=("low", "high")):
            name, place = ".".join(path), ("tune", *path)
            if name in set_elsewhere:
                self.wrong(place, f"tune: {name} is set in base, factors or when too. Take it out of one.")
            elif name in found:
                self.wrong(place, f"tune: {name} stands here twice, dotted and nested. Keep one.")
            elif self.known(name, place):
                self.lines[("tune", name)] = self.lines.get(place, 1)
                one = (
                    self.range(name, values, place)
                    if isinstance(values, dict)
                    else self.levels(name, values, place, "tune:")
                )
                if one:
                    found[name] = one
        return found

    def range(self, path: str, raw: dict[str, Any], place: Path_) -> Range | None:
        if not takes_range(path):
            self.wrong(place, f"tune: {path} takes no range; list its values.")
            return None
        unknown = raw.keys() - {"low", "high", "log"}
        if unknown or not {"low", "high"} <= raw.keys():
            self.wrong(
                place, f"tune: {path} = {raw!r}: a range is {{low: 1e-5, high: 1e-3, log: true}}; log may be left out."
            )
            return None
        ends: dict[str, Any] = {}
        for key in ("low", "high"):
            one: dict[str, Any] = {}
            self.level(path, raw[key], (*place, key), one)
            if path in one:
                ends[key] = one[path]
        try:
            log = TypeAdapter(bool).validate_python(raw.get("log", False))
            return range_of(path, ends["low"], ends["high"], log) if len(ends) == 2 else None
        except ValidationError:
            self.wrong((*place, "log"), f"tune: {path}.log = {raw['log']!r}: true or false.")
        except ValueError as error:
            self.wrong(place, f"tune: {path}: {error}.")
        return None

    def search(self, document: dict[str, Any], tune: Tune, seeds: tuple[int, ...]) -> Search:
        raw, ranges = document.get("search"), [path for path, values in tune.items() if isinstance(values, Range)]
        if raw is not None and not document.get("tune"):
            self.wrong(("search",), "search looks for the values of what 'tune' names. Add tune, or take search out.")
        raw = {"method": raw} if isinstance(raw, str) else dict(raw) if isinstance(raw, dict) else raw
        if isinstance(raw, dict) and "method" not in raw:
            raw["method"] = "random" if ranges else "grid"
        search: Search = self.typed({"search": raw}, "search", Search, Search(method="random" if ranges else "grid"))
        if search.method == "grid" and ranges:
            self.wrong(
                ("search",), f"search: a grid needs lists of values, but {ranges[0]} is a range. Take random or optuna."
            )
        both = sorted(set(search.seeds) & set(seeds))
        if both:
            self.wrong(("search", "seeds"), f"search: the seed {both[0]} is a replicate's too, which would favour the"
                       " candidate chosen by it. Take others.")  # fmt: skip
        return search if search.seeds or not tune else search.model_copy(update={"seeds": default_seeds(seeds)})

    def prune(self, document: dict[str, Any], tune: Tune) -> Pruning | None:
        pruning: Pruning | None = self.typed(document, "prune", Pruning, None)
        if pruning is not None and not pruning.cells and not document.get("tune"):
            self.wrong(
                ("prune",),
                "prune compares candidates of one cell, and there is no tune. To prune the cells of the ablation"
                " themselves, which their comparison then suffers from, say cells: true.",
            )
        return pruning

    def outcomes(self, document: dict[str, Any]) -> Outcomes:
        raw = document.get("outcomes") or {}
        if not isinstance(raw, dict):
            self.wrong(("outcomes",), "outcomes must be a mapping such as {oom: {retry: 1}, diverged: worst}.")
            return {}
        found: Outcomes = {}
        for status, rule in raw.items():
            if status not in get_args(Unhappy):
                self.wrong(
                    ("outcomes", status), f"outcomes: no trial ends as {status!r}. {hint(status, get_args(Unhappy))}"
                )
                continue
            inner = self.typed({f"outcomes.{status}": rule}, f"outcomes.{status}", OutcomeRule, OutcomeRule())
            found[status] = inner
        return found

    def margins(
        self, document: dict[str, Any], settings: Iterable[Mapping[str, Any]], factors: Mapping[str, tuple[Any, ...]]
    ) -> dict[str, float]:
        tasks = [one["task"] for one in settings if "task" in one] + list(factors.get("task", ()))
        margins, problems = read_margins(document.get("margin"), tasks)
        for place, text in problems:
            self.wrong(place, text)
        return margins

    def seeds(self, document: dict[str, Any]) -> tuple[int, ...]:
        raw = document.get("seeds")
        if raw is None or raw == []:
            self.wrong(("seeds",), "the space has no seeds. Add 'seeds: [0, 1, 2]', or 'seeds: 3' for the same.")
            return ()
        return self.seed_list("seeds", raw, taken=())

    def aa(self, document: dict[str, Any], seeds: tuple[int, ...]) -> tuple[int, ...]:
        """Seeds of the A/A cell: those named, or so many of the smallest that ``seeds`` leaves free."""
        raw = document.get("aa")
        found = () if raw is None else self.seed_list("aa", raw, taken=seeds)
        known = set(seeds)
        both = _cut(", ".join(str(seed) for seed in found if seed in known))
        if both:
            shown = _cut(str(list(found)))
            self.wrong(
                ("aa",), f"aa = {shown}: {both} stands in seeds too, and the A/A cell needs its own. Name others."
            )
        return found

    def seed_list(self, key: str, raw: object, taken: tuple[int, ...]) -> tuple[int, ...]:
        """The seeds that a list names, or as many of the smallest not taken as a number says."""
        used = set(taken)
        if self.is_too_long(key, raw, (key,)):
            return ()
        try:
            if isinstance(raw, list):
                seeds = TypeAdapter(list[Seed]).validate_python(raw)
            else:
                n = TypeAdapter(Annotated[int, Field(ge=1, le=MOST_SEEDS)]).validate_python(raw)
                if n > self.max_trials:
                    self.wrong((key,), f"{key} = {n}: a space has at most {self.max_trials:,} trials, and each seed is at"
                               f" least one. Give fewer, or raise the limit with --max-trials {n}.")  # fmt: skip
                    return ()
                seeds = list(islice((seed for seed in count() if seed not in used), n))
        except ValidationError as error:
            for _, value, rule in explain(error):
                self.wrong((key,), f"{key} = {_cut(repr(value))}: {rule}. Give whole numbers from 0 on, or how many.")
            return ()
        if len(set(seeds)) < len(seeds):
            self.wrong(
                (key,), f"{key} = {_cut(str(seeds))}: one stands here twice. A trial never runs twice; keep one."
            )
        return tuple(seeds)

    def placebo(self, document: dict[str, Any]) -> tuple[str, ...]:
        raw = document.get("placebo") or []
        if not isinstance(raw, list):
            self.wrong(
                ("placebo",), "placebo must be a list, of shuffled (labels permuted) and dummy (noise) or one of them."
            )
            return ()
        for i, item in enumerate(raw):
            place = ("placebo", str(i))
            if not isinstance(item, str) or item not in PLACEBOS:
                self.wrong(place, f"there is no placebo {item!r}. {hint(str(item), PLACEBOS)}")
            elif raw.index(item) < i:
                self.wrong(place, f"placebo names {item} twice. Keep one.")
        if not raw or {("base", "proxy"), ("factors", "proxy")} & self.lines.keys():
            return tuple(name for name in PLACEBOS if name in raw)
        self.wrong(
            ("placebo",),
            "placebo stands in for a proxy that the space names, and it names none: a recipe's is no level of it."
            " Set proxy in base or as a factor.",
        )
        return ()

    def loggers(self, document: dict[str, Any]) -> tuple[Logger, ...]:
        raw = document.get("loggers")
        if raw is None:
            return DEFAULT_LOGGERS
        if not isinstance(raw, list):
            self.wrong(
                ("loggers",), "loggers must be a list such as [json, tensorboard, {mlflow: {experiment: mine}}]."
            )
            return DEFAULT_LOGGERS
        loggers: list[Logger] = []
        for i, item in enumerate(raw):
            try:
                loggers.append(Logger.model_validate(item))
            except ValidationError as error:
                self.wrong(("loggers", str(i)), f"loggers: {item!r}: {'; '.join(rule for *_, rule in explain(error))}")
        for name, n in Counter(logger.name for logger in loggers).items():
            if n == 1:
                continue
            self.wrong(("loggers",), f"loggers: {name} stands here twice. Keep one.")
        return tuple(loggers)

    def imports(self, document: dict[str, Any]) -> tuple[str, ...]:
        raw = document.get("imports") or []
        if not isinstance(raw, list) or not all(isinstance(item, str) for item in raw):
            self.wrong(("imports",), "imports must be a list of module names or paths of .py files.")
            return ()
        return tuple(self.import_name(item, i) for i, item in enumerate(raw))

    def import_name(self, item: str, index: int) -> str:
        """Module names stay; files become absolute, looked up beside the YAML."""
        if not item.endswith(".py"):
            return item
        file = absolute_path(str(self.path.parent / item))
        problem = explain_impossible_path(file)
        if problem:
            self.wrong(("imports", str(index)), f"imports: {problem}")
        elif not Path(file).is_file():
            self.wrong(("imports", str(index)), f"imports: no such file {item!r}. Paths count from the YAML's folder.")
        return file


def _cut(text: str, length: int = MOST_SHOWN) -> str:
    """A text as far as a message shows it: a value may fill the whole file."""
    return text if len(text) <= length else f"{text[:length]}... ({len(text):,} characters)"


def _is_level(value: list[Any], name: str, factors: Mapping[str, tuple[Any, ...]]) -> bool:
    """Whether a list is one level of a factor whose levels are lists, such as betas, and not several levels."""
    try:
        return knobs()[name].read(value) in factors[name]
    except ValidationError:
        return False


def _among_others(level: str) -> str:
    """A level's label where commas stand between levels."""
    return repr(level) if "," in level and level[0] not in '"[{' else level


def _dotted(raw: Mapping[str, Any], place: Path_ = (), ends: Path_ = ()) -> Iterator[tuple[Path_, object]]:
    """Factors may be written dotted or nested; either way they come out as one path each.

    A mapping with one of the keys ``ends`` is a value.
    """
    for key, value in raw.items():
        inner = isinstance(value, Mapping) and value and not any(end in value for end in ends)
        if inner and ".".join((*place, key)) not in knobs():
            yield from _dotted(value, (*place, key), ends)
        else:
            yield (*place, key), value
