"""The stages of a run: pre-train a body, train the embedder, fine-tune, predict; ``run`` is all of them in order.

Each stage takes what it depends on as arguments and draws from its own named streams; each stores its output under the hash
of exactly those arguments, fine-tuning those of its states that several runs pass through.
"""
