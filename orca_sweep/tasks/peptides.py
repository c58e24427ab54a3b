"""Antimicrobial peptides as one-hot sequences."""

from collections import defaultdict
from functools import lru_cache
from pathlib import Path

import numpy as np

from orca_sweep.data import Splits, split_random
from orca_sweep.data.shipped import find_package_file
from orca_sweep.errors import DataError
from orca_sweep.tasks.grouped import GroupedData
from orca_sweep.tasks.recipes import read_lines
from orca_sweep.tasks.records import Task

FILE = "data/AMPvsUniProt.csv"
ACIDS = "ACDEFGHIKLMNPQRSTVWY"
LENGTH = 48
N_VAL = 120
N_TEST = 300
SHARED = 8
"""Peptides that share a run of this many residues are kept in one split."""


def load_peptides(root: Path, split_seed: int) -> Splits:
    """Returns peptides (20, 48) and labels: one of each of 120 families for validation, and of 300 for test.

    Training holds all peptides of the other families. One of each family makes the samples of a score independent.
    """
    data = encode_peptides(find_package_file("task 'peptides'", "modlamp", FILE, "1d"))
    return data.take(split_families(data, split_seed))


def split_families(data: GroupedData, split_seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns index arrays (train, val, test), stratified by the families' size and label."""
    _, first, family_of, sizes = np.unique(data.groups, return_index=True, return_inverse=True, return_counts=True)
    strata = 2 * np.floor(np.log2(sizes)).astype(int) + data.y[first]
    train, val, test = split_random(len(sizes), N_VAL, N_TEST, split_seed, labels=strata)
    return np.flatnonzero(np.isin(family_of, train)), np.sort(first[val]), np.sort(first[test])


@lru_cache(maxsize=1)
def encode_peptides(path: Path) -> GroupedData:
    """Returns different peptides (N, 20, 48), one-hot, cut after 48 residues; 1 = antimicrobial.

    The group of a peptide is its family: two peptides of a family share a run of 8 residues, or are linked by others
    that do. A peptide with a residue outside the 20 common ones, or listed under both labels, is left out.

    Raises:
        DataError: naming the line that is not a sequence and a label.
    """
    labels = read_peptides(path)
    sequences = sorted(name for name, listed in labels.items() if len(listed) == 1 and set(name) <= set(ACIDS))
    x = np.zeros((len(sequences), len(ACIDS), LENGTH), np.float32)
    for i, sequence in enumerate(sequences):
        residues = [ACIDS.index(letter) for letter in sequence[:LENGTH]]
        x[i, residues, np.arange(len(residues))] = 1
    y = np.array([next(iter(labels[name])) for name in sequences], dtype=np.int64)
    return GroupedData(x=x, y=y, groups=find_families(sequences))


def read_peptides(path: Path) -> dict[str, set[int]]:
    """Returns the labels of each sequence in a file of lines such as ``GLFDIIKKIAESI, 1`` below a header."""
    labels = defaultdict(set)
    for number, line in enumerate(read_lines(path)[1:], start=2):
        sequence, _, label = (part.strip() for part in line.partition(","))
        if not sequence.isalpha() or label not in ("0", "1"):
            raise DataError(f"{path}: line {number} is {line[:60]!r}. A sequence and 0 or 1 were expected.")
        labels[sequence.upper()].add(int(label))
    return dict(labels)


def find_families(sequences: list[str]) -> np.ndarray:
    """Returns the family of each sequence (N,): sequences that share a run of SHARED residues belong together."""
    parent = list(range(len(sequences)))

    def find_root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first_with: dict[str, int] = {}
    for i, sequence in enumerate(sequences):
        for start in range(len(sequence) - SHARED + 1):
            j = first_with.setdefault(sequence[start : start + SHARED], i)
            parent[find_root(i)] = find_root(j)
    return np.array([find_root(i) for i in range(len(sequences))])


RECORDS = (
    Task(
        name="peptides",
        dims=1,
        sample_shape=(len(ACIDS), LENGTH),
        kind="classification",
        output_shape=(2,),
        loss="cross-entropy",
        metric="error",
        load=load_peptides,
        meaning="antimicrobial peptides against others, one-hot; split by families; 200 training peptides",
        source="modlAMP's AMPvsUniProt.csv (Mueller et al. 2017, doi 10.1093/bioinformatics/btx285), from APD3 and UniProt",
        licence="BSD-3-Clause (package); UniProt: CC BY 4.0; APD3 names none",
        packages=("modlamp",),
        extra="1d",
        n_train_by_split={0: 3674},
        codes=True,
        preparation="one-hot",
        recipe={
            "proxy": "pydoc-topics", "body.name": "minilm", "data.n_train": 200,
            "embedder.epochs": 20, "embedder.proxy_samples": 1000, "embedder.target_length": 12,
            "finetune.epochs": 4, "finetune.batch_size": 16, "finetune.lr": 2e-4, "finetune.grad_clip": 1.0,
            "finetune.warmup_epochs": 1, "finetune.decay_epochs": 4,
        },
    ),
)  # fmt: skip
