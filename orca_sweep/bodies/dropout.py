"""Dropout rates of bodies while they train."""

from collections.abc import Mapping

from orca_sweep.bodies.records import Body

DROPOUT: Mapping[str, Mapping[str, float]] = {
    "roberta": {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1},
    "bert": {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1},
    "gpt2": {"resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1},
    "gpt_neox": {"attention_dropout": 0.0, "hidden_dropout": 0.0},
    "swin": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "drop_path_rate": 0.1},
    "vit": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
}
"""Each family's rates unless its config sets others: the defaults of transformers."""
STOCHASTIC_DEPTH = "drop_path_rate"
"""Drops whole branches of a block, not single numbers: ``finetune.dropout`` does not set it."""


def list_dropout_fields(family: str | None) -> tuple[str, ...]:
    """Returns the config fields of a family that are hidden or attention dropout."""
    return tuple(name for name in DROPOUT.get(family or "", ()) if name != STOCHASTIC_DEPTH)


def has_dropout(body: Body, dropout: float | None = None) -> bool | None:
    """Whether fine-tuning with this ``finetune.dropout`` drops anything in the body; None if only its config shows that."""
    if dropout:
        return True
    if body.architecture is None:
        return None
    rates = DROPOUT[body.architecture]
    names = set(rates) if dropout is None else set(rates) & {STOCHASTIC_DEPTH}
    if not names:
        return False
    if body.pretrain is None:
        return None
    return any(body.settings.get(name, rates[name]) > 0 for name in names)


def find_common_dropout(body: Body) -> float | None:
    """Returns the rate that all hidden and attention dropout of one of our own bodies shares; None if rates differ.

    Also None for all other bodies: their configs would have to be read.
    """
    if body.pretrain is None or body.architecture is None:
        return None
    defaults = DROPOUT[body.architecture]
    rates = {float(body.settings.get(name, defaults[name])) for name in list_dropout_fields(body.architecture)}
    return rates.pop() if len(rates) == 1 else None
