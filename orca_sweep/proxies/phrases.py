"""Draws labelled samples from tagged sentences: phrases, or single tokens."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from orca_sweep.errors import DataError
from orca_sweep.proxies.bundled import shuffle_labels
from orca_sweep.proxies.records import Pooling, ProxyData, Spans, Tagged
from orca_sweep.streams import stream_rng

SAMPLES_PER_CLASS = 350
"""Phrases or tokens drawn per class: most words belong to no entity."""
MAX_WORDS = 64
"""Samples come from this many first words of a sentence, which fit into every body's input."""
Tag = tuple[str, str]
"""A tag's mark ('B', 'I', or none) and its kind: 'B-PER' is ('B', 'PER'), 'O' is ('', 'O')."""


def draw_samples(data: ProxyData, pooling: Pooling) -> ProxyData:
    """Returns a proxy's labelled samples: up to 350 per class from tagged sentences, any other data unchanged.

    With ``mean``, a sample is a phrase: a run of tokens that the tags mark as one. Its class is the tag without its mark.
    With ``token``, a sample is one token and its class is the tag. The seed is fixed.

    Raises:
        DataError: if no phrase lies within the first words of its sentence.

    Source: ``mean`` follows the authors' description of their text proxy (labelled spans of a CoNLL data set, prepared
    as in ganeshjawahar/interpret_bert); ``token`` follows later code by the same authors.
    """
    if not isinstance(data.inputs, Tagged):
        return data
    samples = _label_and_draw(data.inputs, pooling)
    for _ in range(data.inputs.n_shuffles):
        samples = shuffle_labels(samples)
    return samples


def _label_and_draw(tagged: Tagged, pooling: Pooling) -> ProxyData:
    has_begins = any(name.startswith("B-") for name in tagged.names)
    tags = [split_tag(name, has_begins) if pooling == "mean" else ("", name) for name in tagged.names]
    numbers = {kind: k for k, kind in enumerate(dict.fromkeys(kind for _, kind in tags))}
    bounds, labels, n_found = [], [], 0
    for i, row in enumerate(tagged.tags):
        marks = [tags[k] for k in row]
        phrases = find_phrases(marks)
        n_found += len(phrases)
        for first, end in phrases:
            if end <= MAX_WORDS:
                bounds.append((i, first, end))
                labels.append(numbers[marks[first][1]])
    if not bounds:
        raise DataError(f"proxy: no phrase lies within the first {MAX_WORDS} words of a sentence. Split the sentences.")
    kept = _draw_evenly(np.array(labels, dtype=np.int64), "proxy tokens" if pooling == "token" else "proxy phrases")
    samples = _keep_sentences(
        tagged, np.array(bounds, dtype=np.int64)[kept], np.array(labels, dtype=np.int64)[kept], pooling
    )
    return replace(samples, n_found=n_found)


def split_tag(name: str, has_begins: bool) -> Tag:
    """Returns a tag's mark and kind; E-, L-, S- and U- count as marks only if the data have B- tags."""
    mark, _, kind = name.partition("-")
    is_mark = mark in ("B", "I") or (has_begins and mark in ("E", "L", "S", "U"))
    return (mark, kind) if kind and is_mark else ("", name)


def find_phrases(tags: Sequence[Tag]) -> list[tuple[int, int]]:
    """Returns the first token and the end of each phrase in a sentence; a token without a mark is a phrase.

    Reads IOB1, IOB2 and BIOES (or BILOU): I-X continues a B-X or I-X directly before it; otherwise it starts a phrase.
    """
    starts = [j for j, tag in enumerate(tags) if j == 0 or not _continues_phrase(tags[j - 1], tag)]
    return list(pairwise([*starts, len(tags)]))


def _continues_phrase(before: Tag, tag: Tag) -> bool:
    return tag[0] in ("I", "E", "L") and before[0] in ("B", "I") and before[1] == tag[1]


def _draw_evenly(labels: np.ndarray, stream: str) -> np.ndarray:
    """Returns the indices of up to SAMPLES_PER_CLASS random samples of each class, in order."""
    rng = stream_rng(0, stream)
    drawn = [rng.permutation(np.flatnonzero(labels == k))[:SAMPLES_PER_CLASS] for k in np.unique(labels)]
    return np.sort(np.concatenate(drawn))


def _keep_sentences(tagged: Tagged, bounds: np.ndarray, labels: np.ndarray, pooling: Pooling) -> ProxyData:
    """Returns the samples with only those sentences that contain one."""
    used, bounds[:, 0] = np.unique(bounds[:, 0], return_inverse=True)
    sentences = tuple(tagged.sentences[i] for i in used)
    content = json.dumps([pooling, sentences]).encode() + bounds.tobytes() + labels.tobytes()
    spans = Spans(sentences=sentences, bounds=bounds, pooling=pooling)
    return ProxyData(inputs=spans, labels=labels, fingerprint=hashlib.sha256(content).hexdigest())
