"""Makes the data files that lie in the package. Run ``python -m tests.builders.shipped_files vowels WHEEL_OF_AEON``."""

import hashlib
import io
import sys
import zipfile
from pathlib import Path

import numpy as np

import orca_sweep

PACKAGE = Path(orca_sweep.__file__).parent


def write_npz(path, arrays):
    """Writes the same bytes for the same arrays, and returns their SHA-256."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.save(member, np.ascontiguousarray(array))
            info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            archive.writestr(info, member.getvalue(), zipfile.ZIP_DEFLATED, 9)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_ts(text):
    """Returns the series (L, C) and the labels of a file of the UEA archive."""
    lines = [line.strip().split(":") for line in text.splitlines() if line.strip() and line[0] not in "#@"]
    series = [np.array([channel.split(",") for channel in channels], dtype=float).T for *channels, _ in lines]
    return series, [int(line[-1]) for line in lines]


def make_vowels(wheel):
    """Writes the published training utterances, then the published test utterances."""
    series, speakers = [], []
    with zipfile.ZipFile(wheel) as archive:
        for part in ("TRAIN", "TEST"):
            member = f"aeon/datasets/data/JapaneseVowels/JapaneseVowels_{part}.ts"
            some, labels = read_ts(archive.read(member).decode())
            series += some
            speakers += labels
    arrays = {
        # The publisher gives six decimals, so whole millionths are exact.
        "millionths": np.round(np.concatenate(series) * 1e6).astype(np.int32),
        "lengths": np.array([len(utterance) for utterance in series], np.uint8),
        "speakers": np.array(speakers, np.uint8),
    }
    return write_npz(PACKAGE / "tasks/japanese_vowels.npz", arrays)


if __name__ == "__main__":
    print({"vowels": make_vowels}[sys.argv[1]](*map(Path, sys.argv[2:])))
