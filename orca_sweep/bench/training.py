"""Fine-tuning: our loop against a plain one in the style of the reference, on the same model and data.

The plain loop takes its batches from a DataLoader with 4 workers over a TensorDataset, reads the loss back after every
batch, steps torch's foreach AdamW, and runs frozen parts again in every epoch. Both resize in the model, per batch.
Both train and validate for the same epochs from the same weights. On a GPU, ours runs in bfloat16 and the plain loop in
single precision, as released.
"""

import copy
import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from orca_sweep.bench import Measurement, Times, peak_memory_mib, take_median, time_call
from orca_sweep.bodies import BODIES
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
"""Dense bfloat16 operations per second in the card's data sheet (T4: half precision)."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The inputs and outputs of a task."""

    sample: tuple[int, ...]
    n_classes: int


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One case: a body, a task's shape, and how the model is trained."""

    name: str
    body: str
    shape: Shape
    n_train: int
    batch_size: int
    epochs: int
    freeze: str = "none"


NINAPRO = Shape(sample=(1, 16, 52), n_classes=18)
SATELLITE = Shape(sample=(1, 46), n_classes=24)
ECG = Shape(sample=(1, 1000), n_classes=4)
CASES = (
    Setting(name="Swin-like small, NinaPro", body="swin-micro", shape=NINAPRO, n_train=256, batch_size=32, epochs=4),
    Setting(
        name="RoBERTa-like small, Satellite",
        body="roberta-micro",
        shape=SATELLITE,
        n_train=256,
        batch_size=16,
        epochs=4,
    ),
    Setting(name="RoBERTa-like small, ECG", body="roberta-micro", shape=ECG, n_train=128, batch_size=4, epochs=4),
    Setting(
        name="Swin-like small, NinaPro, both frozen",
        body="swin-micro",
        shape=NINAPRO,
        n_train=256,
        batch_size=32,
        epochs=8,
        freeze="both",
    ),
    Setting(
        name="RoBERTa-like small, Satellite, both frozen",
        body="roberta-micro",
        shape=SATELLITE,
        n_train=256,
        batch_size=16,
        epochs=8,
        freeze="both",
    ),
    Setting(name="RoBERTa-base size, ECG", body="roberta", shape=ECG, n_train=16, batch_size=4, epochs=1),
    Setting(name="Swin-base size, NinaPro", body="swin", shape=NINAPRO, n_train=16, batch_size=4, epochs=1),
)
"""Shapes and batch sizes of the reference's tasks (ECG: 50 tokens)."""


def measure_training(setting: Setting, repeats: int) -> Measurement:
    """Measures a case in this process, on one thread or on the GPU."""
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    data, model, config = _prepare(setting)
    turns = max(1, repeats)
    models: dict[str, OrcaModel] = {}
    times: dict[str, list[Times]] = {"ours": [], "plain": []}
    peak = 0.0
    for turn in range(turns + (device != "cpu")):
        # In turn, so that a change of the machine's load affects both; on a GPU the first turn compiles kernels.
        for side, run in (("ours", _train_ours), ("plain", _train_plainly)):
            models[side] = copy.deepcopy(model)
            spent = time_call(partial(run, models[side], data, config, device))
            if turn >= (device != "cpu"):
                times[side].append(spent)
            peak = peak or peak_memory_mib()
    fast, plain = take_median(times["ours"]), take_median(times["plain"])
    n_samples = setting.n_train * setting.epochs
    a, b = (torch.from_numpy(predict(models[side], data.val, Inference(device=device))) for side in ("ours", "plain"))
    share = _measure_peak_share(model, data, n_samples / fast.wall_s, device) if setting.freeze == "none" else None
    is_on_cpu = device == "cpu"  # on a GPU, the CPU mostly waits for the card
    return Measurement(
        case=f"{setting.name}, batch {setting.batch_size}, {setting.epochs} epochs",
        ours_s=fast.cpu_s if is_on_cpu else fast.wall_s,
        other_s=plain.cpu_s if is_on_cpu else plain.wall_s,
        peak_memory_mib=peak,
        ours_wall_s=fast.wall_s,
        other_wall_s=plain.wall_s,
        difference=float((a - b).norm() / b.norm()),
        n_samples=n_samples,
        peak_share=share,
    )


def _prepare(setting: Setting) -> tuple[TaskData, OrcaModel, FinetuneConfig]:
    data = _make_data(setting)
    finetuning = FinetuneConfig(
        epochs=setting.epochs,
        batch_size=setting.batch_size,
        lr=LR,
        freeze=setting.freeze,
        freeze_epochs="forever" if setting.freeze != "none" else 0,
    )
    config = TrialConfig(
        task="digits",
        body=BodyConfig(name="swin-micro"),
        embedder=EmbedderConfig(target_length=64),
        finetune=finetuning,
    )
    return data, build_model(data, _build_body(setting.body), config), finetuning


def _make_data(setting: Setting) -> TaskData:
    """Returns random samples whose mean depends on their class."""
    rng = np.random.default_rng(0)
    sample, n_classes = setting.shape.sample, setting.shape.n_classes
    splits = []
    for n in (setting.n_train, max(4, setting.n_train // 4)):
        y = rng.integers(0, n_classes, n)
        x = rng.normal(size=(n, *sample)) + y.reshape(-1, *[1] * len(sample)) / n_classes
        splits.append(Samples(x.astype(np.float32), y))
    train, val = splits
    task = Task(
        name="bench",
        dims=len(sample) - 1,
        sample_shape=sample,
        kind="classification",
        output_shape=(n_classes,),
        loss="cross-entropy",
        metric="error",
        load=_refuse_to_load,
        meaning="",
        source="",
        licence="",
    )
    return TaskData(task=task, train=train, val=val, test=val, fingerprint="")


def _refuse_to_load(source: object, split_seed: int) -> Splits:
    raise RuntimeError("a benchmark makes its own data")


def _build_body(name: str) -> LoadedBody:
    if "-" in name:
        return LoadedBody(model=build_random_model(BODIES.get(name), 0))
    from transformers import AutoConfig

    base = {"swin": {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32]}, "roberta": {}}
    return LoadedBody(model=build_base_model(AutoConfig.for_model(name, **base[name])))


def _train_ours(model: OrcaModel, data: TaskData, config: FinetuneConfig, device: str) -> None:
    finetune(model, data, FinetuneSetup(config=config, seed_of=lambda source: 0, device=device))
    _wait_for_device(device)


def _train_plainly(model: OrcaModel, data: TaskData, config: FinetuneConfig, device: str) -> None:
    model.to(device)
    freeze_weights(model, ("embedder", "body") if config.freeze == "both" else ())
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.lr, weight_decay=config.weight_decay, foreach=True)
    loss_of = nn.CrossEntropyLoss()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # more workers than cores, on a small machine
        train, val = (
            # Forked, as in a normal program: this process was spawned, and would spawn workers at ten times the cost.
            DataLoader(
                _make_dataset(split),
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
            _validate_plainly(model, val, device)
    _wait_for_device(device)


def _validate_plainly(model: OrcaModel, val: Any, device: str) -> float:
    model.eval()
    wrong = 0.0
    with torch.no_grad():
        for x, y in val:
            wrong += (model(x.to(device)).argmax(1) != y.to(device)).float().sum().item()
    return wrong


def _make_dataset(split: Samples) -> TensorDataset:
    return TensorDataset(torch.from_numpy(split.x[:]), torch.from_numpy(split.y[:]))


def _wait_for_device(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def _measure_peak_share(model: OrcaModel, data: TaskData, samples_s: float, device: str) -> float | None:
    """Returns the share reached of the card's bfloat16 peak; None if the card's peak is not known."""
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
