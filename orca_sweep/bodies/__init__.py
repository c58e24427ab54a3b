"""Bodies: the pre-trained networks that are kept. Importing this needs neither torch nor transformers."""

from orca_sweep.bodies.catalogue import BODIES
from orca_sweep.bodies.dropout import DROPOUT, STOCHASTIC_DEPTH, find_common_dropout, has_dropout, list_dropout_fields
from orca_sweep.bodies.finding import (
    canonicalise_body,
    explain_missing_body,
    find_body,
    find_file_problems,
    find_rung,
    locate_model,
)
from orca_sweep.bodies.records import DECODERS, DIMS, PICTURE_CHANNELS, Architecture, Body, PretrainRecipe, Rung

__all__ = [
    "BODIES",
    "DECODERS",
    "DIMS",
    "DROPOUT",
    "PICTURE_CHANNELS",
    "STOCHASTIC_DEPTH",
    "Architecture",
    "Body",
    "PretrainRecipe",
    "Rung",
    "canonicalise_body",
    "explain_missing_body",
    "find_body",
    "find_common_dropout",
    "find_file_problems",
    "find_rung",
    "has_dropout",
    "list_dropout_fields",
    "locate_model",
]
