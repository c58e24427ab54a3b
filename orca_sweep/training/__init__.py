"""The stages of a trial: pre-train a body, train the embedder, fine-tune, predict; ``run`` runs all of them in order.

Each stage takes what it depends on as arguments, draws from its own named streams, and stores its output under the hash
of exactly those arguments; fine-tuning stores the states that several runs share (``prefixes``).

* Stages: ``pretrain`` (with ``pretrain_corpus``), ``alignment_inputs``, ``embedder`` (with ``alignment_loss`` and
  ``mean_features``), ``finetune`` (with ``finetune_setup`` and ``optimizer_steps``), ``predict``.
* Shared by the three trainings: ``state``, ``checkpoints``, ``prefixes``, ``optimizers``, ``learning_rates``.
* Samples and features: ``feed``, ``prefetch``, ``feature_cache``.
* The model: ``model``, ``predictors``, ``freezing``, ``compute_settings``.
* Place and cost: ``worker``, ``meter``, ``stage_rows``.
"""
