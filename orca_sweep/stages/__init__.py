"""The stages of a run as functions: pre-train a body, embed a proxy, train the embedder, fine-tune.

Each takes what it depends on as arguments and draws from its own named streams; each stores its output under the hash
of exactly those arguments, fine-tuning those of its states that several runs pass through.
"""

from orca_sweep.stages.embedding import EmbedderTraining, ProxyFeatures, proxy_features, target_labels, train_embedder
from orca_sweep.stages.finetuning import FinetuneResult, Saving, finetune
from orca_sweep.stages.frozen import frozen_names, set_frozen
from orca_sweep.stages.place import Place, Progress, phase_row
from orca_sweep.stages.predicting import predict, predict_wholes
from orca_sweep.stages.pretraining import pretrain_body
from orca_sweep.stages.sharing import Prefixes

__all__ = [
    "EmbedderTraining",
    "FinetuneResult",
    "Place",
    "Prefixes",
    "Progress",
    "ProxyFeatures",
    "Saving",
    "finetune",
    "frozen_names",
    "phase_row",
    "predict",
    "predict_wholes",
    "pretrain_body",
    "proxy_features",
    "set_frozen",
    "target_labels",
    "train_embedder",
]
