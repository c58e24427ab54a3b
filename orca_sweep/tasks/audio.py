"""FSD50K: sound clips as log-mel spectrograms, from the benchmark's chunks of one second."""

import csv
import io
import json
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from orca_sweep.data import Conversion, ConvertedArrays, File, Rows, Samples, Splits, Writer
from orca_sweep.data.readers import read_wav
from orca_sweep.errors import DataError
from orca_sweep.tasks.nasbench360 import DRIVE, LICENCE, SOURCE
from orca_sweep.tasks.recipes import Released, make_recipe, path_from_root, read_lines, resolve_inside
from orca_sweep.tasks.records import Task

RATE, MELS, FRAMES, WIDTH = 22050, 96, 101, 102
"""Samples per second; mel bands; frames of 10 ms in a second; the same with one frame of padding."""
PARTS = {"train": "chunks/tr.csv", "val": "chunks/val.csv", "test": "chunks/eval.csv"}
LABELS = "chunks/lbl_map.json"
NOISE = "noise_22050"
N_CLASSES = 200


def log_mel(sound: np.ndarray) -> np.ndarray:
    """Returns the log-mel spectrogram (96, frames) of a sound (n,), float32: decibels with zero mean over the clip.

    Windows last 30 ms and start every 10 ms; the Fourier length is 1920. Values more than 80 dB below the loudest are
    raised to that. A sound shorter than a second is repeated to fill one.

    Source: the FSD50K paper's features (Fonseca et al. 2022, arXiv 2010.00475) as the benchmark computes them.
    """
    import torch
    from transformers.audio_utils import mel_filter_bank

    if len(sound) < RATE:
        sound = np.tile(sound, RATE // len(sound) + 1)[:RATE]
    n_fft, window = MELS * 20, int(RATE * 0.03)
    spectrum = torch.stft(
        torch.from_numpy(np.ascontiguousarray(sound, np.float32)),
        n_fft,
        hop_length=int(RATE * 0.01),
        win_length=window,
        window=torch.hann_window(window),
        return_complex=True,
    )
    filters = mel_filter_bank(
        num_frequency_bins=n_fft // 2 + 1,
        num_mel_filters=MELS,
        min_frequency=0.0,
        max_frequency=RATE / 2,
        sampling_rate=RATE,
        norm=None,
        mel_scale="htk",
    )
    power = filters.T.astype(np.float32) @ spectrum.abs().square().numpy()
    decibel = 10 * np.log10(np.maximum(power, 1e-10))
    decibel = np.maximum(decibel, decibel.max() - 80)
    return (decibel - decibel.mean()).astype(np.float32)


def _read_manifest(root: Path, part: str) -> list[tuple[Path, list[str], str]]:
    """Returns (file, labels, clip) of every chunk of a part."""
    path = root / PARTS[part]
    rows = list(csv.DictReader(io.StringIO("\n".join(read_lines(path, 2**28)))))
    if not rows or not all(row.get(column) for row in rows for column in ("files", "labels", "ext")):
        raise DataError(f"{path}: columns files, labels and ext were expected in every row. Is it the right file?")
    return [(_find_chunk(root, row["files"]), row["labels"].split(","), row["ext"]) for row in rows]


def _find_chunk(root: Path, name: str) -> Path:
    """Returns a chunk's path here. Manifests contain the paths of the machine on which they were made."""
    parts = [part for part in PurePosixPath(name).parts if part not in ("/", "..", ".")]
    for first in range(len(parts)):
        path = resolve_inside(root, "/".join(parts[first:]))
        if path.is_file():
            return path
    return root / "/".join(parts)


def _read_label_map(root: Path) -> dict[str, int]:
    path = root / LABELS
    try:
        names = json.loads("\n".join(read_lines(path)))
    except ValueError:
        names = None
    if not isinstance(names, dict) or sorted(map(str, names.values())) != sorted(map(str, range(len(names)))):
        raise DataError(f"{path}: a JSON object of {N_CLASSES} names and their numbers was expected.")
    if len(names) != N_CLASSES:
        raise DataError(f"{path}: {len(names)} labels. {N_CLASSES} were expected. Is it the right file?")
    return {str(name): int(number) for name, number in names.items()}


def _check_part(root: Path, part: str) -> str:
    rows = _read_manifest(root, part)
    noise = f", {len(_find_noises(root))} sounds of noise to augment by" if part == "train" else ""
    return f"{len(rows)} chunks of {len({clip for _, _, clip in rows})} clips{noise}"


def _list_chunks(root: Path, part: str) -> list[str]:
    return [path_from_root(root, str(path)) for path, _, _ in _read_manifest(root, part)]


def _find_noises(root: Path) -> list[Path]:
    return sorted((root / NOISE).glob("*.wav"))


def convert_fsd50k(root: Path, writer: Writer) -> None:
    """Writes spectrograms (96, 101) of all chunks in half precision (0.03 dB), with their labels and clips."""
    numbers = _read_label_map(root)
    parts = {part: _read_manifest(root, part) for part in PARTS}
    total, done = sum(map(len, parts.values())), 0
    for part, rows in parts.items():
        clips = {clip: i for i, clip in enumerate(dict.fromkeys(clip for _, _, clip in rows))}
        for path, labels, clip in rows:
            unknown = [label for label in labels if label not in numbers]
            if unknown:
                raise DataError(f"{root / PARTS[part]}: label {unknown[0]!r} of {path.name} is not in {LABELS}.")
            target = np.zeros((1, N_CLASSES), np.uint8)
            target[0, [numbers[label] for label in labels]] = 1
            writer.append(f"x_{part}", log_mel(read_wav(path, RATE))[None, :, :FRAMES].astype(np.float16), path)
            writer.append(f"y_{part}", target, path)
            writer.append(f"clip_{part}", np.array([clips[clip]]))
            done += 1
            writer.report(done, total)
    _write_noises(_find_noises(root), writer)


def _write_noises(paths: list[Path], writer: Writer) -> None:
    writer.append("noise", np.zeros((0, MELS), np.float16))
    for path in paths:
        frames = log_mel(read_wav(path, RATE)).T.astype(np.float16)
        writer.append("noise", frames, path)
        writer.append("noise_length", np.array([len(frames)]))
    if not paths:
        writer.append("noise_length", np.zeros(0, np.int64))


MASKS, MASKED_BANDS, MASKED_FRAMES, P_MASKED = 2, 0.15, 0.20, 0.5
P_NOISE, NOISE_SHARE = 0.75, 0.5


def load_fsd50k(data: ConvertedArrays, split_seed: int) -> Splits:
    """Returns spectrograms (1, 96, 102) of chunks, grouped by clip, with 200 yes-or-no labels.

    In each epoch, training draws one chunk of each clip. It masks bands and frames of half of them, and mixes background
    noise into three quarters, if the folder of noise existed at conversion. The prediction for a clip is the mean over
    its chunks.

    Differs from ORCA's code in: that draws and augments each clip only once per run.
    """
    return Splits(*(_make_samples(data, part) for part in PARTS))


def _make_samples(data: ConvertedArrays, part: str) -> Samples:
    sound = data[f"x_{part}"]

    def read_chunks(ids: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        batch = np.zeros((len(ids), 1, MELS, WIDTH), np.float32)
        batch[:, 0, :, :FRAMES] = sound[ids]
        return batch if rng is None else augment_batch(batch, data, rng)

    digest = f"{data.digest_of(f'x_{part}', 'noise')} padded"
    rows = Rows(read=read_chunks, ids=np.arange(len(sound)), sample_shape=(1, MELS, WIDTH), digest=digest)
    labels = Rows.from_array(data[f"y_{part}"], data.digest_of(f"y_{part}"))
    return Samples(rows, labels, np.asarray(data[f"clip_{part}"]))


def augment_batch(batch: np.ndarray, data: ConvertedArrays, rng: np.random.Generator) -> np.ndarray:
    """Returns spectrograms (B, 1, 96, 102) randomly masked and mixed with noise; changes the batch in place.

    Source: Park et al. 2019 (SpecAugment), with the FSD50K baseline's settings.
    """
    lengths = np.asarray(data["noise_length"])
    for image in batch[:, 0, :, :FRAMES]:
        if rng.random() < P_MASKED:
            _mask_image(image, rng)
        if rng.random() < P_NOISE and len(lengths):
            _mix_noise(image, data["noise"], lengths, rng)
    return batch


def _mask_image(image: np.ndarray, rng: np.random.Generator) -> None:
    lowest = image.min()
    for axis, share in ((0, MASKED_BANDS), (1, MASKED_FRAMES)) * MASKS:
        width = int(rng.uniform(0, share) * image.shape[axis])
        first = int(rng.integers(0, image.shape[axis] - width + 1))
        np.swapaxes(image, 0, axis)[first : first + width] = lowest


def _mix_noise(image: np.ndarray, noise: np.ndarray, lengths: np.ndarray, rng: np.random.Generator) -> None:
    """Mixes a second of one recording into an image; ``noise`` (frames, bands) holds all recordings end to end."""
    chosen = int(rng.integers(len(lengths)))
    start = int(lengths[:chosen].sum()) + int(rng.integers(0, max(1, lengths[chosen] - FRAMES + 1)))
    second = np.asarray(noise[start : start + FRAMES], np.float32).T
    share = rng.uniform(0, NOISE_SHARE)
    image *= 1 - share
    image += share * second


FSD50K = Task(
    name="fsd50k",
    dims=2,
    sample_shape=(1, MELS, WIDTH),
    kind="multi-label",
    output_shape=(N_CLASSES,),
    loss="bce",
    loss_settings={"pos_weight": 10.0},
    metric="map-error",
    load=load_fsd50k,
    splits_are_fixed=True,
    convert=Conversion(name="fsd50k", run=convert_fsd50k),
    preparation="log-mel decibels, each chunk less its mean",
    meaning="sound clips as log-mel spectrograms, 200 yes-or-no labels, the benchmark's three splits",
    source=f"FSD50K (Fonseca et al. 2022, arXiv 2010.00475); {SOURCE}",
    licence=LICENCE,
    get_from=DRIVE,
    download_mb=24000,
    files=(
        *(
            File(path=path, check=partial(_check_part, part=part), members=partial(_list_chunks, part=part))
            for part, path in PARTS.items()
        ),
        File(path=LABELS, check=lambda root: f"{len(_read_label_map(root))} labels"),
    ),
    augments=True,
    recipe=make_recipe(
        Released(
            body="swin-base",
            epochs=100,
            batch=32,
            optimizer="adam",
            lr=1e-4,
            weight_decay=5e-5,
            momentum=0.9,
            decay=100,
        )
    ),
)
RECORDS = (FSD50K,)
