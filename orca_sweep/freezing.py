"""Freeze schedules as text: which parameters rest in which phase of fine-tuning.

A schedule is phases joined by ``>``, a phase is what is frozen, joined by ``+``, and its epochs after ``:``

    body:5 > none                          the body rests for five epochs, then everything trains
    embedder+body.layers[0:6]:3 > body     ... and then the body rests until the end
    body-without-norms:forever             only the body's normalisation layers train (and the new parts)

What a model makes of these words is the fine-tuning stage's affair; nothing here needs torch.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from orca_sweep.registry import hint

PARTS = ("embedder", "body", "predictor")
KINDS = ("norms", "attention", "biases")
WORDS = (*PARTS, *(f"body.{kind}" for kind in KINDS), *(f"body-without-{kind}" for kind in KINDS))
LAYERS = re.compile(r"body\.layers\[(-?\d+)?:(-?\d+)?\]")
PHASE = re.compile(r"((?:[^:\[]|\[[^\]]*\])*)(?::(.*))?", re.DOTALL)
GRADUAL = "gradual-unfreeze"
PRESETS: Mapping[str, str] = {
    "none": "none",
    "embedder": "embedder",
    "body": "body",
    "both": "embedder+body",
    "linear-probe": "embedder+body:forever",
    "layernorm": "body-without-norms:forever",
}
NAMED = {("embedder",): "embedder", ("body",): "body", ("embedder", "body"): "both"}


@dataclass(frozen=True)
class Phase:
    """A stretch of fine-tuning: how many epochs (None = to the end) and what is frozen, in one order."""

    epochs: int | None
    frozen: tuple[str, ...]


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
    texts = PRESETS.get(freeze, freeze).split(">")
    phases = []
    for i, text in enumerate(texts):
        found = PHASE.fullmatch(text.strip())
        if found is None:
            raise ValueError(f"{text.strip()!r} is no phase such as 'body:5'")
        words, length = found[1], found[2] or ""
        last = i == len(texts) - 1
        epochs = _epochs(length.strip(), last, freeze_epochs if len(texts) == 1 and words.strip() != "none" else None)
        phases.append(Phase(epochs, _frozen(words)))
    if phases[-1].epochs is not None:
        phases.append(Phase(None, ()))
    return _tidy(phases)


def _epochs(text: str, last: bool, otherwise: int | str | None) -> int | None:
    if text == "":
        if not last:
            raise ValueError("only the last phase may leave its length out: write 'body:5 > none'")
        return otherwise if isinstance(otherwise, int) else None
    if text == "forever":
        if not last:
            raise ValueError("only the last phase can last forever")
        return None
    if not text.isdecimal() or len(text) > 9:
        raise ValueError(f"the length {text!r} of a phase is neither a number of epochs nor 'forever'")
    return int(text)


def _frozen(text: str) -> tuple[str, ...]:
    words = [word.strip() for word in text.split("+")]
    if words == ["none"]:
        return ()
    for word in words:
        if word not in WORDS and not LAYERS.fullmatch(word):
            near = hint(word, {*WORDS, "none", "body.layers[0:6]", *((*PRESETS, GRADUAL) if len(words) == 1 else ())})
            raise ValueError(f"{word!r} cannot be frozen. {near}")
    if set(PARTS) <= set(words):
        raise ValueError("embedder, body and predictor frozen at once leave nothing to train")
    whole = "body" in words  # then its parts say nothing more
    kept = {word for word in words if not (whole and word.startswith("body") and word != "body")}
    return tuple(sorted(kept, key=lambda word: (WORDS.index(word) if word in WORDS else len(WORDS), word)))


def _tidy(phases: Iterable[Phase]) -> tuple[Phase, ...]:
    """Without empty phases, and with equal neighbours joined."""
    kept: list[Phase] = []
    for phase in phases:
        if phase.epochs == 0:
            continue
        if kept and kept[-1].frozen == phase.frozen:
            before = kept.pop()
            both = None if phase.epochs is None or before.epochs is None else before.epochs + phase.epochs
            phase = Phase(both, phase.frozen)
        kept.append(phase)
    return tuple(kept)


def beginning(phases: Iterable[Phase], epochs: int) -> tuple[Phase, ...]:
    """Returns the phases of the first ``epochs`` epochs, each with its length: equal ones are the same work."""
    kept, left = [], epochs
    for phase in phases:
        length = left if phase.epochs is None else min(left, phase.epochs)
        if length > 0:
            kept.append(Phase(length, phase.frozen))
        left -= length
    return tuple(kept)


def canonical(freeze: str, freeze_epochs: int | str, epochs: int) -> tuple[str, int | str]:
    """Returns the one (freeze, freeze_epochs) of all that do the same work in a run of ``epochs``.

    Phases that the run does not reach are left out. A schedule that says its own lengths and is none of the
    presets keeps its text, with freeze_epochs 0.

    Raises:
        ValueError: saying what is wrong with the text, or with a run of no epoch.
    """
    if epochs < 1:
        raise ValueError("a run has at least one epoch")
    if freeze == GRADUAL:
        first = schedule(freeze, freeze_epochs)[0]
        if first.epochs is None or (first.frozen == ("embedder", "body") and first.epochs >= epochs):
            return ("both", "forever") if first.frozen else ("none", 0)
        return freeze, freeze_epochs if first.frozen else 0
    *reached, last = beginning(schedule(freeze, freeze_epochs), epochs)
    phases = [*reached, Phase(None, last.frozen)]
    first = phases[0]
    if phases == [Phase(None, ())]:
        return "none", 0
    if len(phases) == 1:
        return {**NAMED, ("body-without-norms",): "layernorm"}.get(first.frozen, "+".join(first.frozen)), "forever"
    if len(phases) == 2 and first.frozen and not phases[1].frozen:
        return NAMED.get(first.frozen, "+".join(first.frozen)), first.epochs or 0
    return " > ".join(_text(phase) for phase in phases), 0


def _text(phase: Phase) -> str:
    words = "+".join(phase.frozen) or "none"
    return words if phase.epochs is None else f"{words}:{phase.epochs}"


def as_text(value: object) -> object:
    """Returns a list of phases (mappings with ``frozen`` and ``epochs``) as a schedule's text; text stays.

    Raises:
        ValueError: saying what is wrong with the list.
    """
    if not isinstance(value, list):
        return value
    texts = []
    for phase in value:
        if not isinstance(phase, dict) or not {"frozen"} <= set(phase) <= {"frozen", "epochs"}:
            raise ValueError("a phase is a mapping with 'frozen' and 'epochs', such as {frozen: [body], epochs: 5}")
        frozen = phase["frozen"]
        words = "+".join(map(str, frozen)) if isinstance(frozen, list) else str(frozen)
        length = phase.get("epochs")
        texts.append((words or "none") + (f":{length}" if length is not None else ""))
    if not texts:
        raise ValueError("a schedule needs at least one phase")
    return " > ".join(texts)


def checked(freeze: str) -> str:
    """Returns the text if it is a schedule, or a preset.

    Raises:
        ValueError: saying what is wrong with it.
    """
    schedule(freeze, 1)
    return freeze


def without_predictor(freeze: str) -> str:
    """Returns a schedule's text without the word ``predictor``: the same work where the predictor has no weights."""
    return re.sub(r"\bpredictor\b", "none", re.sub(r"\bpredictor\s*\+\s*|\s*\+\s*predictor\b", "", freeze))
