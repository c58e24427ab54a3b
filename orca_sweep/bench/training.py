"""Fine-tuning: our loop beside a plainly written one in the manner of the reference, on the same model and data.

The plain loop takes its batches from a DataLoader with 4 workers over a TensorDataset, reads the loss back after every
batch, steps torch's foreach AdamW, and runs frozen parts again in every epoch. Both resize in the model, per batch.
Both sides train and validate for the same epochs from the same weights. On a GPU ours runs in bfloat16, the plain one in
single precision, as released.
"""

import copy
import statistics
import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from orca_sweep.bench import Measurement, peak_memory_mib, timed
from orca_sweep.bodies import find_body
from orca_sweep.bodies.network import LoadedBody, build_base_model, build_random_model
from orca_sweep.config import BodyConfig, EmbedderConfig, FinetuneConfig, TrialConfig
from orca_sweep.data import Samples, Splits
from orca_sweep.tasks import Task, TaskData
from orca_sweep.training.finetune import finetune
from orca_sweep.training.finetune_setup import FinetuneSetup
from orca_sweep.training.freezing import freeze_weights
from orca_sweep.training.model import OrcaModel, build_model
from orca_sweep.training.predict import Inference, predict

N_WORKERS = 4
LR = 1e-4
PEAK_BF16 = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "A10G": 70e12, "T4": 65e12}
"""Dense bfloat16 operations a second that a card's data sheet gives (T4: half precision)."""


@dataclass(frozen=True)
class Setting:
    """One case: a body, a task's shape and how it is trained."""

    name: str
    body: str
    shape: tuple[int, ...]
    n_classes: int
    n_train: int
    batch_size: int
    epochs: int
    freeze: str = "none"


NINAPRO, SATELLITE, ECG = ((1, 16, 52), 18), ((1, 46), 24), ((1, 1000), 4)
CASES = (
    Setting("Swin-like small, NinaPro", "swin-micro", *NINAPRO, 256, 32, 4),
    Setting("RoBERTa-like small, Satellite", "roberta-micro", *SATELLITE, 256, 16, 4),
    Setting("RoBERTa-like small, ECG", "roberta-micro", *ECG, 128, 4, 4),
    Setting("Swin-like small, NinaPro, both frozen", "swin-micro", *NINAPRO, 256, 32, 8, "both"),
    Setting("RoBERTa-like small, Satellite, both frozen", "roberta-micro", *SATELLITE, 256, 16, 8, "both"),
    Setting("RoBERTa-base size, ECG", "roberta", *ECG, 16, 4, 1),
    Setting("Swin-base size, NinaPro", "swin", *NINAPRO, 16, 4, 1),
)
"""Shapes and batch sizes of the reference's own tasks (ECG: 50 tokens)."""


def measured(setting: Setting, repeats: int) -> Measurement:
    """Measures a case in this process, on one thread or on the GPU."""
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    data, model, config = _prepared(setting)
    turns = max(1, repeats)
    models: dict[str, OrcaModel] = {}
    times: dict[str, list[tuple[float, float]]] = {"ours": [], "plain": []}
    peak = 0.0
    for turn in range(turns + (device != "cpu")):
        # In turn, so that a change of the machine's load meets both; on a GPU the first turn compiles its kernels.
        for side, run in (("ours", _ours), ("plain", _plain)):
            models[side] = copy.deepcopy(model)
            spent = timed(partial(run, models[side], data, config, device))
            if turn >= (device != "cpu"):
                times[side].append(spent)
            peak = peak or peak_memory_mib()
    cpu, wall, plain_cpu, plain_wall = (
        statistics.median(pair[column] for pair in times[side]) for side in ("ours", "plain") for column in (0, 1)
    )
    if device != "cpu":  # what is waited for there is the card
        cpu, plain_cpu = wall, plain_wall
    n_samples = setting.n_train * setting.epochs
    a, b = (torch.from_numpy(predict(models[side], data.val, Inference(device=device))) for side in ("ours", "plain"))
    difference = float((a - b).norm() / b.norm())
    share = _peak_share(model, data, n_samples / wall, device) if setting.freeze == "none" else None
    name = f"{setting.name}, batch {setting.batch_size}, {setting.epochs} epochs"
    return Measurement(
        name, cpu, plain_cpu, plain_cpu / cpu, peak, wall, plain_wall, difference, n_samples, share
    )  # fmt: skip


def _prepared(setting: Setting) -> tuple[TaskData, OrcaModel, FinetuneConfig]:
    rng = np.random.default_rng(0)
    splits = []
    for n in (setting.n_train, max(4, setting.n_train // 4)):
        y = rng.integers(0, setting.n_classes, n)
        x = rng.normal(size=(n, *setting.shape)) + y.reshape(-1, *[1] * len(setting.shape)) / setting.n_classes
        splits.append(Samples(x.astype(np.float32), y))
    train, val = splits
    n_dims, outputs = len(setting.shape) - 1, (setting.n_classes,)
    kind, loss, metric = "classification", "cross-entropy", "error"
    task = Task(
        name="bench",
        dims=n_dims,
        sample_shape=setting.shape,
        kind=kind,  # type: ignore[arg-type]
        output_shape=outputs,
        loss=loss,
        metric=metric,
        load=_made_here,
        meaning="",
        source="",
        licence="",
    )
    data = TaskData(task=task, train=train, val=val, test=val, fingerprint="")
    finetuning = FinetuneConfig(
        epochs=setting.epochs, batch_size=setting.batch_size, lr=LR, freeze=setting.freeze, freeze_epochs="forever"
        if setting.freeze != "none" else 0,
    )  # fmt: skip
    config = TrialConfig(
        task="digits",
        body=BodyConfig(name="swin-micro"),
        embedder=EmbedderConfig(target_length=64),
        finetune=finetuning,
    )
    return data, build_model(data, _body(setting.body), config), finetuning


def _made_here(source: object, split_seed: int) -> Splits:
    raise RuntimeError("the data of a benchmark are made in it")


def _body(name: str) -> LoadedBody:
    if "-" in name:
        return LoadedBody(model=build_random_model(find_body(name), 0))
    from transformers import AutoConfig

    base = {"swin": {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32]}, "roberta": {}}
    return LoadedBody(model=build_base_model(AutoConfig.for_model(name, **base[name])))


def _ours(model: OrcaModel, data: TaskData, config: FinetuneConfig, device: str) -> None:
    finetune(model, data, FinetuneSetup(config=config, seed_of=lambda source: 0, device=device))
    _wait(device)


def _plain(model: OrcaModel, data: TaskData, config: FinetuneConfig, device: str) -> None:
    model.to(device)
    freeze_weights(model, ("embedder", "body") if config.freeze == "both" else ())
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.lr, weight_decay=config.weight_decay, foreach=True)
    loss_of = nn.CrossEntropyLoss()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # more workers than cores, on a small machine
        train, val = (
            # Forked, as in a program of its own: this process was spawned, and would spawn them at ten times the cost.
            DataLoader(
                _dataset(split),
                config.batch_size,
                shuffle=is_train,
                num_workers=N_WORKERS,
                multiprocessing_context="fork",
            )
            for split, is_train in ((data.train, True), (data.val, False))
        )
        for _ in range(config.epochs):
            freeze_weights(model, ("embedder", "body") if config.freeze == "both" else ())
            total = 0.0
            for x, y in train:
                optimizer.zero_grad()
                loss = loss_of(model(x.to(device)), y.to(device))
                loss.backward()
                optimizer.step()
                total += loss.item()
            _plain_validation(model, val, device)
    _wait(device)


def _plain_validation(model: OrcaModel, val: Any, device: str) -> float:
    model.eval()
    wrong = 0.0
    with torch.no_grad():
        for x, y in val:
            wrong += (model(x.to(device)).argmax(1) != y.to(device)).float().sum().item()
    return wrong


def _dataset(split: Samples) -> TensorDataset:
    return TensorDataset(torch.from_numpy(split.x[:]), torch.from_numpy(split.y[:]))


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def _peak_share(model: OrcaModel, data: TaskData, samples_s: float, device: str) -> float | None:
    """Share of the card's bfloat16 operations a second; None where its peak is not known."""
    peak = next(
        (peak for name, peak in PEAK_BF16.items() if device != "cpu" and name in torch.cuda.get_device_name()), None
    )
    if peak is None:
        return None
    from torch.utils.flop_counter import FlopCounterMode

    probe, x = copy.deepcopy(model).to(device), torch.from_numpy(data.train.x[:2]).to(device)
    with FlopCounterMode(display=False) as counter:
        probe(x).sum().backward()
    return samples_s * counter.get_total_flops() / 2 / peak
