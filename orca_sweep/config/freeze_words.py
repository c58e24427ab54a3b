"""The words for what a phase of fine-tuning freezes: parts, kinds of weights and ranges of layers, and the presets.

``orca_sweep.training.freezing`` says which parameters each word freezes; nothing here needs torch.
"""

import re
from collections.abc import Iterable, Mapping

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
"""A word, and the wider word that already includes it when both are given."""
LAYERS = re.compile(r"body\.layers\[(-?\d+)?:(-?\d+)?\]")
GRADUAL = "gradual-unfreeze"
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


def read_words(text: str) -> tuple[str, ...]:
    """Returns the words of what a phase freezes, joined by ``+``, in a fixed order; empty for ``none``.

    Raises:
        ValueError: saying which word is wrong.
    """
    words = text.split("+")
    if words == ["none"]:
        return ()
    for word in words:
        if word in WORDS or (LAYERS.fullmatch(word) and len(word) < 40):
            continue
        if word == "none":
            raise ValueError("'none' cannot be combined with other words: it means that nothing is frozen")
        if word == GRADUAL or word in PRESETS:
            means = f", {PRESETS[word]!r}" if word in PRESETS else ""
            raise ValueError(
                f"{word!r} cannot be frozen in a phase: it names a whole schedule{means}. Name the parts instead"
            )
        near = hint(word, {*WORDS, "none", "body.layers[0:6]", *((*PRESETS, GRADUAL) if len(words) == 1 else ())})
        raise ValueError(f"{word!r} cannot be frozen. {near}")
    if set(PARTS) <= set(words):
        raise ValueError("freezing embedder, body and predictor at once leaves nothing to train")
    return order_words(words)


def order_words(words: Iterable[str]) -> tuple[str, ...]:
    """Returns the words in a fixed order, without those that a wider word includes."""
    given = set(map(_complete_range, words))
    kept = {
        word
        for word in given
        if WIDER.get(word) not in given and not ("body" in given and word.startswith("body") and word != "body")
    }
    return tuple(sorted(kept, key=lambda word: (WORDS.index(word) if word in WORDS else len(WORDS), word)))


def _complete_range(word: str) -> str:
    """A range of layers with its start written out and without leading zeros; any other word stays."""
    match = LAYERS.fullmatch(word)
    return f"body.layers[{int(match[1] or 0)}:{'' if match[2] is None else int(match[2])}]" if match else word


def name_all_norms(word: str) -> str:
    """Returns a word about the norms of transformer layers as the one about all norms; any other word stays."""
    return word.replace("transformer-norms", "norms")


def find_range_problems(freeze: str, body: str, n_layers: int | None) -> list[str]:
    """Returns what is wrong with a schedule's ranges of layers; nothing for a text that is not a schedule.

    Args:
        freeze: a schedule's text.
        body: what to call the body.
        n_layers: how many layers it has; None if only its config on the hub states that.
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
    known = f"{body} has {n_layers} layers" if n_layers is not None else f"the config of {body} states how many it has"
    return (
        f"{word} {what}; {known}. In body.layers[A:B], layers count from 0 and B is excluded: 0 <= A < B <= {most}."
        f" For the last half, for example, write body.layers[{max(0, example // 2)}:{example}]."
    )


def without_predictor(freeze: str) -> str:
    """Returns a schedule's text without the word ``predictor``, which has no effect if the predictor has no weights."""
    return re.sub(r"\bpredictor\b", "none", re.sub(r"\bpredictor\s*\+\s*|\s*\+\s*predictor\b", "", freeze))
