"""Two text proxies shipped with the package: docstrings by topic, and docstrings with the authors' markup as tags.

Both files are made by ``tests/builders/shipped_texts.py`` and pinned by their hashes, so they are the same in every
installation, whatever versions of the described packages it has.
"""

import gzip
from functools import lru_cache
from pathlib import Path

import numpy as np

from orca_sweep.data.shipped import read_shipped_file
from orca_sweep.proxies.records import ProxyData, Tagged

FOLDER = Path(__file__).parent
PASSAGES_SHA256 = "875b7a7e99d964b7215e136c1b7f43ec3b7a2ddb7e8a13802c23cfb283ca8908"
TAGS_SHA256 = "786883dc72ac85ddd7be8a99450f7fd0ebd64e1cdbeb15341f36d948d180dc1f"
N_PARTS = 12
N_KINDS = 9
"""Kinds of phrases, words without markup among them."""


@lru_cache(maxsize=1)
def load_docstrings() -> ProxyData:
    """Returns passages of 32 words, labelled by the part of a library that they describe, in alphabetical order."""
    text = _read_packed_text("docstrings.tsv.gz", PASSAGES_SHA256)
    parts, passages = zip(*(line.split("\t") for line in text.splitlines()), strict=True)
    labels = np.unique(parts, return_inverse=True)[1].astype(np.int64)
    return ProxyData(inputs=passages, labels=labels, fingerprint=PASSAGES_SHA256)


@lru_cache(maxsize=1)
def load_docstring_tags() -> ProxyData:
    """Returns paragraphs whose words are tagged with the markup that their authors gave them."""
    text = _read_packed_text("docstring_tags.conll.gz", TAGS_SHA256)
    rows = [[line.split("\t") for line in block.splitlines()] for block in text.split("\n\n")]
    names = sorted({tag for row in rows for _, tag in row})
    numbers = {name: k for k, name in enumerate(names)}
    tagged = Tagged(
        sentences=tuple(tuple(word for word, _ in row) for row in rows),
        tags=tuple(tuple(numbers[tag] for _, tag in row) for row in rows),
        names=tuple(names),
    )
    return ProxyData(inputs=tagged, labels=np.empty(0, dtype=np.int64), fingerprint=TAGS_SHA256)


def _read_packed_text(name: str, sha256: str) -> str:
    return gzip.decompress(read_shipped_file(FOLDER / name, sha256)).decode()
