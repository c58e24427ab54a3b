"""Freeze schedules as text: what is frozen in each phase of fine-tuning, and at what learning rate the rest trains.

A schedule is phases joined by ``>``. A phase names what is frozen, joined by ``+``, then its epochs after ``:``, then,
optionally, words about its learning rate and optimizer:

    body:5 > none                          the body is frozen for five epochs, then everything trains
    embedder+body.layers[0:6]:3 > body     after three epochs, the body is frozen until the end
    body-without-norms:forever             of the body, only the normalisation layers train
    body:5 lr*10 constant > none fresh     embedder and predictor train for five epochs at ten times the learning rate;
                                           then everything trains, with a fresh optimizer

``lr*F``      multiplies the learning rate of every step of the phase by F.
``constant``  holds the rate at its peak for the phase: no warm-up and no decay.
``fresh``     restarts the optimizer and the learning-rate schedule: moments are cleared, and warm-up and decay count from
              the phase's first step.

Warm-up and decay count from the last fresh start, or from the first epoch if there is none, across all phases.

The last schedule is the predictor-only phase of the released ORCA (``get_optimizer_scheduler`` in its
``src/task_configs.py``), for five epochs. Despite its name it trains embedder and predictor; only the body is frozen. The
learning rate is ten times the recipe's if that is at most 0.001, otherwise the recipe's, without warm-up. Then optimizer
and schedule restart with all parameters. In a longer phase, the rate falls to a fifth at the 22nd epoch and to a
twenty-fifth at the 42nd: ``body:21 lr*10 constant > body:20 lr*2 constant > none fresh``.

``orca_sweep.training.freezing`` says which parameters each word freezes; nothing here needs torch.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

from orca_sweep.registry import hint

PARTS = ("embedder", "body", "predictor")
KINDS = ("norms", "transformer-norms", "attention", "qkv", "biases")
WORDS = (*PARTS, *(f"body.{kind}" for kind in KINDS), *(f"body-without-{kind}" for kind in KINDS))
WIDER: Mapping[str, str] = {
    "body.transformer-norms": "body.norms",
    "body.qkv": "body.attention",
    "body-without-norms": "body-without-transformer-norms",
    "body-without-attention": "body-without-qkv",
}
"""Words that freeze nothing more beside another word, which includes them."""
LAYERS = re.compile(r"body\.layers\[(-?\d+)?:(-?\d+)?\]")
HEAD = re.compile(r"((?:[^:\[]|\[[^\]]*\])*)(?::(.*))?", re.DOTALL)
FACTOR, CONSTANT, FRESH = "lr*", "constant", "fresh"
FIELDS = ("frozen", "epochs", "lr_factor", "constant_lr", "fresh_optimizer")
GRADUAL = "gradual-unfreeze"
MOST_PHASES = 1000
PRESETS: Mapping[str, str] = {
    "none": "none",
    "embedder": "embedder",
    "body": "body",
    "both": "embedder+body",
    "linear-probe": "embedder+body:forever",
    "layernorm": "body-without-norms:forever",
    "released-layernorm": "body-without-transformer-norms:forever",
    "released-non-attn": "body.qkv:forever",
}
NAMED = {("embedder",): "embedder", ("body",): "body", ("embedder", "body"): "both"}
NAMED_FOREVER = {
    **NAMED,
    ("body-without-norms",): "layernorm",
    ("body-without-transformer-norms",): "released-layernorm",
    ("body.qkv",): "released-non-attn",
}


@dataclass(frozen=True)
class Phase:
    """A phase of fine-tuning: its epochs (None = to the end), what is frozen, in a fixed order, and how it steps."""

    epochs: int | None
    frozen: tuple[str, ...]
    lr_factor: float = field(default=1.0, kw_only=True)
    """Multiplies the learning rate of every step."""
    constant_lr: bool = field(default=False, kw_only=True)
    """The rate stays at its peak, without warm-up and decay."""
    fresh_optimizer: bool = field(default=False, kw_only=True)
    """The optimizer's state is cleared as the phase begins, and warm-up and decay count from there."""

    @property
    def work(self) -> tuple[tuple[str, ...], float, bool, bool]:
        """Everything but the length: phases with equal work do the same in each epoch."""
        return self.frozen, self.lr_factor, self.constant_lr, self.fresh_optimizer

    @property
    def is_plain(self) -> bool:
        """Whether the phase only freezes, without changing how it steps."""
        return self.work == (self.frozen, 1.0, False, False)


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """The facts of a run that decide which words of its schedule have an effect."""

    warmup_epochs: int
    decay_epochs: int | None
    optimizer_remembers: bool
    """Whether a step depends on earlier ones; with sgd without momentum it does not."""
    merges_patches: bool
    """Whether the body may have down-sampling norms; only Swin does."""

    @property
    def has_constant_rate(self) -> bool:
        """Whether the run has neither warm-up nor decay."""
        return self.warmup_epochs == 0 and self.decay_epochs is None


# Reading ------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def schedule(freeze: str, freeze_epochs: int | str, n_layers: int = 0) -> tuple[Phase, ...]:
    """Returns the phases of a freeze schedule; the last one lasts to the end.

    Args:
        freeze: a preset or a schedule's text.
        freeze_epochs: length, or "forever", of a single phase that does not say its own. After a last phase
            that says its length, everything trains.
        n_layers: of the body; only ``gradual-unfreeze`` needs it. It starts with embedder and body frozen,
            thaws the body's layers from the last to the first, ``freeze_epochs`` apart, then the embedder.

    Raises:
        ValueError: saying what is wrong with the text.

    Source: gradual unfreezing, Howard & Ruder 2018, arXiv 1801.06146; norms only, Lu et al. 2021,
    arXiv 2103.05247; biases only, Ben Zaken et al. 2022, arXiv 2106.10199.
    """
    if freeze == GRADUAL:
        if not isinstance(freeze_epochs, int):
            raise ValueError(f"{GRADUAL} needs finetune.freeze_epochs as a number: the epochs between two thaws")
        frozen = [("embedder", "body"), *(("embedder", f"body.layers[0:{i}]") for i in range(n_layers - 1, 0, -1))]
        phases = [Phase(freeze_epochs, part) for part in [*frozen, ("embedder",)]]
        return _tidy([*phases, Phase(None, ())])
    texts = PRESETS.get(freeze.strip(), freeze).split(">")
    if len(texts) > MOST_PHASES:
        raise ValueError(f"a schedule of {len(texts):,} phases is longer than {MOST_PHASES:,}")
    phases = [_read_phase(text, i == len(texts) - 1) for i, text in enumerate(texts)]
    if len(texts) == 1 and not _says_length(texts[0]) and phases[0].frozen and isinstance(freeze_epochs, int):
        phases = [replace(phases[0], epochs=freeze_epochs)]
    if phases[-1].epochs is not None:
        phases.append(Phase(None, ()))
    return _tidy(phases)


def _read_phase(text: str, is_last: bool) -> Phase:
    head, *rest = _split_phase(text)
    match = HEAD.fullmatch(head)
    if match is None:
        raise ValueError(f"{head!r} is not a phase such as 'body:5'")
    if head.startswith(FACTOR) or head in (CONSTANT, FRESH):
        raise ValueError(f"{text.strip()!r} does not say what is frozen. Write 'none {text.strip()}'")
    frozen = _read_words(match[1])
    return Phase(_read_length(match[2] or "", is_last), frozen, **_read_stepping(rest))


def _split_phase(text: str) -> list[str]:
    """What is frozen, with its length, then each further word."""
    return re.sub(r" ?([+:*]) ?", r"\1", " ".join(text.split())).split() or [""]


def _says_length(text: str) -> bool:
    match = HEAD.fullmatch(_split_phase(text)[0])
    return bool(match and match[2])


def _read_length(text: str, is_last: bool) -> int | None:
    if text == "":
        if not is_last:
            raise ValueError("only the last phase may leave its length out: write 'body:5 > none'")
        return None
    if text == "forever":
        if not is_last:
            raise ValueError("only the last phase can last forever")
        return None
    if not text.isdecimal() or len(text) > 9:
        raise ValueError(f"the length {text!r} of a phase is neither a number of epochs nor 'forever'")
    return int(text)


def _read_words(text: str) -> tuple[str, ...]:
    words = text.split("+")
    if words == ["none"]:
        return ()
    for word in words:
        if word in WORDS or (LAYERS.fullmatch(word) and len(word) < 40):
            continue
        if word == "none":
            raise ValueError("'none' cannot be frozen beside other parts: it means that nothing is frozen")
        if word == GRADUAL or word in PRESETS:
            means = f", {PRESETS[word]!r}" if word in PRESETS else ""
            raise ValueError(
                f"{word!r} cannot be frozen in a phase: it names a whole schedule{means}. Name the parts instead"
            )
        near = hint(word, {*WORDS, "none", "body.layers[0:6]", *((*PRESETS, GRADUAL) if len(words) == 1 else ())})
        raise ValueError(f"{word!r} cannot be frozen. {near}")
    if set(PARTS) <= set(words):
        raise ValueError("embedder, body and predictor frozen at once leave nothing to train")
    return _order_words(words)


def _order_words(words: Iterable[str]) -> tuple[str, ...]:
    """The words in a fixed order, without those that others include."""
    given = set(map(_as_slice, words))
    kept = {
        word
        for word in given
        if WIDER.get(word) not in given and not ("body" in given and word.startswith("body") and word != "body")
    }
    return tuple(sorted(kept, key=lambda word: (WORDS.index(word) if word in WORDS else len(WORDS), word)))


def _as_slice(word: str) -> str:
    """A word of layers with its start, and without leading zeros; any other word stays."""
    match = LAYERS.fullmatch(word)
    return f"body.layers[{int(match[1] or 0)}:{'' if match[2] is None else int(match[2])}]" if match else word


def _read_stepping(words: Iterable[str]) -> dict[str, Any]:
    """The fields of ``Phase`` that the words after the length set."""
    fields: dict[str, Any] = {}
    for word in words:
        if word.startswith(FACTOR):
            name, value = "lr_factor", _read_factor(word.removeprefix(FACTOR))
        elif word in (CONSTANT, FRESH):
            name, value = {CONSTANT: "constant_lr", FRESH: "fresh_optimizer"}[word], True
        else:
            raise ValueError(
                f"{word!r} cannot follow what is frozen and its length. Allowed are a factor such as 'lr*10', 'constant'"
                " and 'fresh', as in 'body:5 lr*10 > none fresh'"
            )
        if name in fields:
            raise ValueError(f"a phase has {FACTOR + '...' if name == 'lr_factor' else word!r} twice")
        fields[name] = value
    return fields


def _read_factor(text: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = math.nan
    if not (math.isfinite(factor) and factor > 0):
        raise ValueError(f"the factor {text!r} of a phase's learning rate must be a number above zero, as in 'lr*10'")
    return factor


def _tidy(phases: Iterable[Phase]) -> tuple[Phase, ...]:
    """The phases without empty ones, without a fresh start in the first one, and with equal neighbours joined."""
    kept: list[Phase] = []
    for phase in phases:
        if phase.epochs == 0:
            continue
        if not kept:
            phase = replace(phase, fresh_optimizer=False)
        elif not phase.fresh_optimizer and replace(kept[-1], fresh_optimizer=False).work == phase.work:
            before = kept.pop()
            both = None if phase.epochs is None or before.epochs is None else before.epochs + phase.epochs
            phase = replace(before, epochs=both)
        kept.append(phase)
    return tuple(kept)


# Asking -------------------------------------------------------------------------------------------


def phase_at(phases: Sequence[Phase], epoch: int) -> Phase:
    """Returns the phase that fine-tuning epoch ``epoch`` (from 1) belongs to."""
    return next(phase for phase, first in reversed(list(_with_first_epochs(phases))) if first <= epoch)


def epochs_before_fresh_start(phases: Sequence[Phase], epoch: int) -> int:
    """Returns the number of epochs before the last fresh start at or before an epoch (from 1); 0 without one.

    The epoch's optimizer state, warm-up and decay begin there.
    """
    starts = (first - 1 for phase, first in _with_first_epochs(phases) if phase.fresh_optimizer and first <= epoch)
    return max(starts, default=0)


def _with_first_epochs(phases: Iterable[Phase]) -> Iterator[tuple[Phase, int]]:
    first = 1
    for phase in phases:
        yield phase, first
        first += phase.epochs or 0


def beginning(phases: Iterable[Phase], epochs: int) -> tuple[Phase, ...]:
    """Returns the phases of the first ``epochs`` epochs, each with its length; equal results mean equal work."""
    kept, left = [], epochs
    for phase in phases:
        length = left if phase.epochs is None else min(left, phase.epochs)
        if length > 0:
            kept.append(replace(phase, epochs=length))
        left -= length
    return tuple(kept)


def without_stepping(phases: Iterable[Phase]) -> tuple[Phase, ...]:
    """Returns the phases with nothing but their freezing: no factors, no constant rates, no fresh starts."""
    return _tidy(Phase(phase.epochs, phase.frozen) for phase in phases)


def body_is_always_frozen(freeze: str, freeze_epochs: int | str) -> bool:
    """Whether the whole body is frozen in every phase; False if the text is not a schedule."""
    return freeze != GRADUAL and all("body" in phase.frozen for phase in _phases_or_none(freeze, freeze_epochs))


@lru_cache(maxsize=4096)
def never_follows_schedule(freeze: str, freeze_epochs: int | str, epochs: int) -> bool:
    """Whether every phase within ``epochs`` epochs holds the rate constant, so that warm-up and decay have no effect."""
    phases = _phases_or_none(freeze, freeze_epochs if freeze != GRADUAL else 1)
    return all(phase.constant_lr for phase in beginning(phases, epochs))


def freezes_kinds_of_weights(freeze: str) -> bool:
    """Whether a phase freezes weights of the body by kind, rather than by part or layer."""
    kinds = {word for word in WORDS if word not in PARTS}
    return any(kinds & set(phase.frozen) for phase in _phases_or_none(freeze, 1))


def _phases_or_none(freeze: str, freeze_epochs: int | str) -> tuple[Phase, ...]:
    """The phases, or one plain phase if the text is not a schedule: validation of the field reports that."""
    try:
        return schedule(freeze, freeze_epochs) if isinstance(freeze, str) else (Phase(None, ()),)
    except (TypeError, ValueError):  # a length that is a list has no hash
        return (Phase(None, ()),)


# One way to write it ------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def canonical(freeze: str, freeze_epochs: int | str, epochs: int, run: RunFacts | None = None) -> tuple[str, int | str]:
    """Returns one (freeze, freeze_epochs) for all schedules that do the same work in a run of ``epochs`` epochs.

    Leaves out phases that the run does not reach. With ``run``, it also leaves out what has no effect: ``constant``
    where the rate is at its peak anyway, ``fresh`` where there is neither optimizer state nor a rate schedule to restart,
    and the distinction of down-sampling norms where the body has none. A schedule with its own lengths that is not a
    preset keeps its text, with freeze_epochs 0.

    Raises:
        ValueError: saying what is wrong with the text, or if ``epochs`` is below 1.
    """
    if epochs < 1:
        raise ValueError("a run needs at least one epoch")
    if freeze == GRADUAL:
        first = schedule(freeze, freeze_epochs)[0]
        if first.epochs is None or (first.frozen == ("embedder", "body") and first.epochs >= epochs):
            return ("both", "forever") if first.frozen else ("none", 0)
        return freeze, freeze_epochs if first.frozen else 0
    reached = beginning(schedule(freeze, freeze_epochs), epochs)
    *before, last = reached if run is None else _tidy(_without_idle_words(reached, run))
    phases = [*before, replace(last, epochs=None)]
    first = phases[0]
    if len(phases) == 1:
        if not first.frozen:
            return _write_phase(first), 0
        return (
            NAMED_FOREVER.get(first.frozen, _write_phase(first)) if first.is_plain else _write_phase(first)
        ), "forever"
    if len(phases) == 2 and first.frozen and phases[1] == Phase(None, ()):
        text = _write_phase(replace(first, epochs=None))
        return (NAMED.get(first.frozen, text) if first.is_plain else text), first.epochs or 0
    return " > ".join(_write_phase(phase) for phase in phases), 0


def write_schedule(freeze: str, freeze_epochs: str) -> str:
    """Returns one text for both fields of a canonical schedule, without which ``body`` does not say for how long."""
    if (
        freeze_epochs in ("0", "null")
        or freeze in ("none", "null")
        or (freeze_epochs == "forever" and says_length(freeze))
    ):
        return freeze
    if freeze == GRADUAL:
        return f"{freeze}, {freeze_epochs} epochs each"
    if (freeze, freeze_epochs) == ("both", "forever"):
        return "linear-probe"
    head, *words = _split_phase(PRESETS.get(freeze, freeze))
    return " ".join([f"{head}:{freeze_epochs}", *words])


def says_length(freeze: str) -> bool:
    """Whether a schedule, as a text or a written list of phases, says its own lengths: freeze_epochs then has no effect."""
    if freeze.startswith("["):
        return True
    texts = PRESETS.get(freeze.strip(), freeze).split(">")
    return len(texts) > 1 or _says_length(texts[0])


def _without_idle_words(phases: Sequence[Phase], run: RunFacts) -> Iterator[Phase]:
    for phase, first in _with_first_epochs(phases):
        done = first - 1 - epochs_before_fresh_start(phases, first)  # epochs of the rate schedule so far
        is_at_peak = run.decay_epochs is None and done >= run.warmup_epochs
        yield replace(
            phase,
            frozen=phase.frozen if run.merges_patches else _order_words(map(_with_all_norms, phase.frozen)),
            constant_lr=phase.constant_lr and not is_at_peak,
            fresh_optimizer=phase.fresh_optimizer and not (run.has_constant_rate and not run.optimizer_remembers),
        )


def _with_all_norms(word: str) -> str:
    return word.replace("transformer-norms", "norms")


def _write_phase(phase: Phase) -> str:
    words = "+".join(phase.frozen) or "none"
    parts = [words if phase.epochs is None else f"{words}:{phase.epochs}"]
    if phase.lr_factor != 1:
        whole = phase.lr_factor.is_integer() and phase.lr_factor < 1e15
        parts.append(f"{FACTOR}{int(phase.lr_factor) if whole else repr(phase.lr_factor)}")
    return " ".join(parts + [CONSTANT] * phase.constant_lr + [FRESH] * phase.fresh_optimizer)


def as_text(value: object) -> object:
    """Returns a list of phases (mappings with the fields of ``Phase``) as a schedule's text; a text stays as it is.

    Raises:
        ValueError: saying what is wrong with the list.
    """
    if not isinstance(value, list):
        return value
    if not value:
        raise ValueError("a schedule needs at least one phase")
    return " > ".join(map(_mapping_as_text, value))


def _mapping_as_text(phase: object) -> str:
    if not isinstance(phase, dict) or not {"frozen"} <= set(phase) <= set(FIELDS):
        raise ValueError(
            "a phase is a mapping with 'frozen' and 'epochs', such as {frozen: [body], epochs: 5}; it may also have"
            " 'lr_factor', 'constant_lr' and 'fresh_optimizer'"
        )
    frozen, length, factor = phase["frozen"], phase.get("epochs"), phase.get("lr_factor")
    words = ("+".join(map(str, frozen)) if isinstance(frozen, list) else str(frozen)) or "none"
    parts = [words + (f":{length}" if length is not None else "")]
    parts += [f"{FACTOR}{factor}"] if factor is not None else []
    parts += [CONSTANT] * _read_switch(phase, "constant_lr") + [FRESH] * _read_switch(phase, "fresh_optimizer")
    return " ".join(parts)


def _read_switch(phase: Mapping[str, object], name: str) -> bool:
    value = phase.get(name, False)
    if value not in (True, False, "true", "false"):
        raise ValueError(f"{name} of a phase is {value!r}. It must be true or false")
    return value in (True, "true")


def checked(freeze: str) -> str:
    """Returns the text if it is a schedule, or a preset.

    Raises:
        ValueError: saying all that is wrong with it, but for its ranges of layers: see ``find_range_problems``.
    """
    problems = list(dict.fromkeys(_find_problems(freeze)))
    if problems:
        raise ValueError("; ".join(problems))
    return freeze


def _find_problems(freeze: str) -> Iterator[str]:
    if freeze == GRADUAL:
        return
    texts = PRESETS.get(freeze.strip(), freeze).split(">")
    if len(texts) > MOST_PHASES:
        yield f"a schedule of {len(texts):,} phases is longer than {MOST_PHASES:,}"
        return
    phases: list[Phase | None] = []
    for i, text in enumerate(texts):
        try:
            phases.append(_read_phase(text, i == len(texts) - 1))
        except ValueError as error:
            phases.append(None)
            yield str(error)
        yield from _find_repeated_words(text)
    for i, (before, after) in enumerate(pairwise(phases), start=1):
        if before and after and not after.fresh_optimizer and replace(before, fresh_optimizer=False).work == after.work:
            both = None if after.epochs is None or before.epochs is None else before.epochs + after.epochs
            yield (
                f"the phases {i} and {i + 1} do the same ({texts[i - 1].strip()!r} and {texts[i].strip()!r}): each phase"
                f" differs from the one before it. Write one, {_write_phase(replace(before, epochs=both))!r}"
            )


def _find_repeated_words(text: str) -> Iterator[str]:
    match = HEAD.fullmatch(_split_phase(text)[0])
    words = match[1].split("+") if match else []
    for word in dict.fromkeys(word for word in words if words.count(word) > 1):
        yield f"{word!r} stands twice in the phase {text.strip()!r}. Keep one"


def find_range_problems(freeze: str, body: str, n_layers: int | None) -> list[str]:
    """Returns what is wrong with a schedule's ranges of layers; a text that is no schedule has no ranges.

    Args:
        freeze: a schedule's text.
        body: what to call the body.
        n_layers: how many layers it has; None if only its config on the hub says.
    """
    words = [
        word
        for text in freeze.split(">") if "layers[" in freeze
        for word in re.sub(r"\s*([+:])\s*", r"\1", text).replace("+", " ").split()
    ]  # fmt: skip
    ranges = dict.fromkeys(match[0] for word in words if (match := LAYERS.match(word)))
    return [problem for word in ranges if (problem := explain_range(word, body, n_layers))]


def explain_range(word: str, body: str, n_layers: int | None) -> str | None:
    """Returns what is wrong with a range such as ``body.layers[0:6]``; None if nothing."""
    match = LAYERS.fullmatch(word)
    if match is None or len(word) >= 40:
        return None
    start, stop = int(match[1] or 0), None if match[2] is None else int(match[2])
    if start < 0 or (stop is not None and stop < 0):
        what = "counts from the end"
    elif (stop is not None and stop <= start) or (n_layers is not None and start >= n_layers):
        what = "holds no layer"
    elif n_layers is not None and stop is not None and stop > n_layers:
        what = "goes beyond the last layer"
    else:
        return None
    most, example = ("the number of layers", 12) if n_layers is None else (str(n_layers), n_layers)
    known = f"{body} has {n_layers} layers" if n_layers is not None else f"how many {body} has, its config says"
    return (
        f"{word} {what}; {known}. In body.layers[A:B] layers count from 0 and B is left out: 0 <= A < B <= {most}."
        f" Write body.layers[{max(0, example // 2)}:{example}] for the last half, say."
    )


def without_predictor(freeze: str) -> str:
    """Returns a schedule's text without the word ``predictor``, which has no effect if the predictor has no weights."""
    return re.sub(r"\bpredictor\b", "none", re.sub(r"\bpredictor\s*\+\s*|\s*\+\s*predictor\b", "", freeze))
