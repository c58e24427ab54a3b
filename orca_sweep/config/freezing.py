"""Freeze schedules as text: what is frozen in each phase of fine-tuning, and at what learning rate the rest trains.

A schedule is a list of phases joined by ``>``. A phase names what is frozen, joined by ``+``, then its epochs after ``:``,
then, optionally, words about its learning rate and optimizer:

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

``freeze_words`` lists the words for what is frozen, and the presets. ``canonical_schedules`` writes all schedules that do
the same work alike.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

from orca_sweep.config.freeze_words import GRADUAL, PARTS, PRESETS, WORDS, read_words

HEAD = re.compile(r"((?:[^:\[]|\[[^\]]*\])*)(?::(.*))?", re.DOTALL)
FACTOR, CONSTANT, FRESH = "lr*", "constant", "fresh"
FIELDS = ("frozen", "epochs", "lr_factor", "constant_lr", "fresh_optimizer")
MOST_PHASES = 1000


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A phase of fine-tuning: how long it lasts, what is frozen, and how it steps."""

    epochs: int | None
    """None lasts to the end."""
    frozen: tuple[str, ...]
    """Words of ``freeze_words``, in its order."""
    lr_factor: float = 1.0
    """Multiplies the learning rate of every step."""
    constant_lr: bool = False
    """The rate stays at its peak, without warm-up and decay."""
    fresh_optimizer: bool = False
    """The optimizer's state is cleared when the phase begins, and warm-up and decay count from there."""

    @property
    def work(self) -> tuple[tuple[str, ...], float, bool, bool]:
        """Everything but the length: phases with equal work do the same in each epoch."""
        return self.frozen, self.lr_factor, self.constant_lr, self.fresh_optimizer

    @property
    def is_plain(self) -> bool:
        """Whether the phase only freezes, without changing how it steps."""
        return self.work == (self.frozen, 1.0, False, False)


TRAIN_ALL = Phase(epochs=None, frozen=())
"""Everything trains to the end."""


# Reading ------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def parse_schedule(freeze: str, freeze_epochs: int | str, n_layers: int = 0) -> tuple[Phase, ...]:
    """Returns the phases of a freeze schedule; the last one lasts to the end.

    Args:
        freeze: a preset or a schedule's text.
        freeze_epochs: the length, or "forever", of a single phase that does not give its own. After a last phase
            that gives its length, everything trains.
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
        return merge_phases([*_list_gradual_phases(freeze_epochs, n_layers), TRAIN_ALL])
    texts = _split_schedule(freeze)
    phases = [_read_phase(text, i == len(texts) - 1) for i, text in enumerate(texts)]
    if len(texts) == 1 and not _phase_states_length(texts[0]) and phases[0].frozen and isinstance(freeze_epochs, int):
        phases = [replace(phases[0], epochs=freeze_epochs)]
    if phases[-1].epochs is not None:
        phases.append(TRAIN_ALL)
    return merge_phases(phases)


def _list_gradual_phases(epochs: int, n_layers: int) -> list[Phase]:
    layers = [("embedder", f"body.layers[0:{i}]") for i in range(n_layers - 1, 0, -1)]
    return [Phase(epochs=epochs, frozen=frozen) for frozen in [("embedder", "body"), *layers, ("embedder",)]]


def _split_schedule(freeze: str) -> list[str]:
    """The texts of a schedule's phases."""
    texts = PRESETS.get(freeze.strip(), freeze).split(">")
    if len(texts) > MOST_PHASES:
        raise ValueError(f"a schedule of {len(texts):,} phases is longer than {MOST_PHASES:,}")
    return texts


def _read_phase(text: str, is_last: bool) -> Phase:
    head, *modifiers = split_phase(text)
    match = HEAD.fullmatch(head)
    if match is None:
        raise ValueError(f"{head!r} is not a phase such as 'body:5'")
    if head.startswith(FACTOR) or head in (CONSTANT, FRESH):
        raise ValueError(f"{text.strip()!r} does not say what is frozen. Write 'none {text.strip()}'")
    frozen = read_words(match[1])
    return Phase(epochs=_read_length(match[2] or "", is_last), frozen=frozen, **_read_modifiers(modifiers))


def split_phase(text: str) -> list[str]:
    """Returns what a phase freezes, with its length, then each further word."""
    return re.sub(r" ?([+:*]) ?", r"\1", " ".join(text.split())).split() or [""]


def _phase_states_length(text: str) -> bool:
    match = HEAD.fullmatch(split_phase(text)[0])
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


def _read_modifiers(words: Iterable[str]) -> dict[str, Any]:
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


def merge_phases(phases: Iterable[Phase]) -> tuple[Phase, ...]:
    """Returns the phases without empty ones, without a fresh start in the first, and with equal neighbours joined."""
    kept: list[Phase] = []
    for phase in phases:
        if phase.epochs == 0:
            continue
        if not kept:
            phase = replace(phase, fresh_optimizer=False)
        elif _continues(kept[-1], phase):
            phase = _join(kept.pop(), phase)
        kept.append(phase)
    return tuple(kept)


def _continues(before: Phase, after: Phase) -> bool:
    """Whether the second phase goes on exactly as the first one."""
    return not after.fresh_optimizer and replace(before, fresh_optimizer=False).work == after.work


def _join(before: Phase, after: Phase) -> Phase:
    is_open = after.epochs is None or before.epochs is None
    return replace(before, epochs=None if is_open else (before.epochs or 0) + (after.epochs or 0))


# Asking -------------------------------------------------------------------------------------------


def phase_at(phases: Sequence[Phase], epoch: int) -> Phase:
    """Returns the phase that fine-tuning epoch ``epoch`` (from 1) belongs to."""
    return next(phase for phase, first in reversed(list(with_first_epochs(phases))) if first <= epoch)


def epochs_before_fresh_start(phases: Sequence[Phase], epoch: int) -> int:
    """Returns the number of epochs before the last fresh start at or before an epoch (from 1); 0 without one.

    The epoch's optimizer state, warm-up and decay begin there.
    """
    starts = (first - 1 for phase, first in with_first_epochs(phases) if phase.fresh_optimizer and first <= epoch)
    return max(starts, default=0)


def with_first_epochs(phases: Iterable[Phase]) -> Iterator[tuple[Phase, int]]:
    """Yields each phase and its first epoch (from 1)."""
    first = 1
    for phase in phases:
        yield phase, first
        first += phase.epochs or 0


def cut_phases(phases: Iterable[Phase], epochs: int) -> tuple[Phase, ...]:
    """Returns the phases of the first ``epochs`` epochs, each with its length; equal results mean equal work."""
    kept, left = [], epochs
    for phase in phases:
        length = left if phase.epochs is None else min(left, phase.epochs)
        if length > 0:
            kept.append(replace(phase, epochs=length))
        left -= length
    return tuple(kept)


def without_stepping(phases: Iterable[Phase]) -> tuple[Phase, ...]:
    """Returns what the phases freeze, and for how long: no factors, no constant rates, no fresh starts."""
    return merge_phases(Phase(epochs=phase.epochs, frozen=phase.frozen) for phase in phases)


def body_is_always_frozen(freeze: str, freeze_epochs: int | str) -> bool:
    """Whether the whole body is frozen in every phase; False if the text is not a schedule."""
    return freeze != GRADUAL and all("body" in phase.frozen for phase in _parse_or_train_all(freeze, freeze_epochs))


@lru_cache(maxsize=4096)
def never_follows_schedule(freeze: str, freeze_epochs: int | str, epochs: int) -> bool:
    """Whether every phase within ``epochs`` epochs holds the rate constant, so that warm-up and decay have no effect."""
    phases = _parse_or_train_all(freeze, freeze_epochs if freeze != GRADUAL else 1)
    return all(phase.constant_lr for phase in cut_phases(phases, epochs))


def freezes_kinds_of_weights(freeze: str) -> bool:
    """Whether a phase freezes weights of the body by kind, rather than by part or layer."""
    kinds = {word for word in WORDS if word not in PARTS}
    return any(kinds & set(phase.frozen) for phase in _parse_or_train_all(freeze, 1))


def _parse_or_train_all(freeze: str, freeze_epochs: int | str) -> tuple[Phase, ...]:
    """The phases; if the text is not a schedule, one that freezes nothing: the field's validation reports the mistake."""
    try:
        return parse_schedule(freeze, freeze_epochs) if isinstance(freeze, str) else (TRAIN_ALL,)
    except (TypeError, ValueError):  # a length that is a list has no hash
        return (TRAIN_ALL,)


def states_length(freeze: str) -> bool:
    """Whether a schedule, as a text or a written list of phases, gives its own lengths: freeze_epochs then has no effect."""
    if freeze.startswith("["):
        return True
    texts = PRESETS.get(freeze.strip(), freeze).split(">")
    return len(texts) > 1 or _phase_states_length(texts[0])


# Writing ------------------------------------------------------------------------------------------


def write_phase(phase: Phase) -> str:
    """Returns the text of a phase."""
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
    return " > ".join(map(_write_mapping, value))


def _write_mapping(phase: object) -> str:
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


# Checking -----------------------------------------------------------------------------------------


def check_schedule(freeze: str) -> str:
    """Returns the text if it is a schedule or a preset.

    Raises:
        ValueError: saying everything that is wrong with it except its ranges of layers, which
            ``freeze_words.find_range_problems`` checks.
    """
    problems = list(dict.fromkeys(_find_problems(freeze)))
    if problems:
        raise ValueError("; ".join(problems))
    return freeze


def _find_problems(freeze: str) -> Iterator[str]:
    if freeze == GRADUAL:
        return
    try:
        texts = _split_schedule(freeze)
    except ValueError as error:
        yield str(error)
        return
    phases: list[Phase | None] = []
    for i, text in enumerate(texts):
        try:
            phases.append(_read_phase(text, i == len(texts) - 1))
        except ValueError as error:
            phases.append(None)
            yield str(error)
        yield from _find_repeated_words(text)
    for i, (before, after) in enumerate(pairwise(phases)):
        if before and after and _continues(before, after):
            yield (
                f"phases {i + 1} and {i + 2} do the same ({texts[i].strip()!r} and {texts[i + 1].strip()!r}), but each"
                f" phase must differ from the one before it. Write one phase: {write_phase(_join(before, after))!r}"
            )


def _find_repeated_words(text: str) -> Iterator[str]:
    match = HEAD.fullmatch(split_phase(text)[0])
    words = match[1].split("+") if match else []
    for word in dict.fromkeys(word for word in words if words.count(word) > 1):
        yield f"{word!r} appears twice in the phase {text.strip()!r}. Keep one"
