"""Forward and backward of every alignment distance, beside the same work with nothing kept between calls."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial

import numpy as np
import torch
from torch import Tensor

from orca_sweep import objectives
from orca_sweep.bench import Case, plain
from orca_sweep.streams import stream_rng
from orca_sweep.training.model import Embedder2D

N_PROXY, N_CLASSES, N_TARGET = 5000, 10, 128
WIDTHS = (128, 768)
MEAN_SQUARED_DISTANCE = 134.0
"""Of photographs through an untrained 128-wide patch embedding."""


def features(n_proxy: int, n_classes: int, n_target: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns made-up target (n, D) and proxy features (M, D) of decaying spectrum, and proxy labels (M,)."""
    rng = stream_rng(0, "bench features")
    spread = np.arange(1, width + 1) ** -0.5
    labels = np.arange(n_proxy) % n_classes
    centres = rng.normal(size=(n_classes, width)) * spread / 2
    proxy = rng.normal(size=(n_proxy, width)) * spread + centres[labels]
    target = 0.7 * rng.normal(size=(n_target, width)) * spread + rng.normal(size=width) * spread
    unit = np.sqrt(MEAN_SQUARED_DISTANCE / (2 * (spread**2).sum()))
    return torch.from_numpy(target * unit).float(), torch.from_numpy(proxy * unit).float(), torch.from_numpy(labels)


def naive(name: str, target: Tensor, proxy: Tensor, labels: Tensor) -> Tensor:
    """Returns the distance the naive way, as ORCA's code does it where it has it."""
    if name == "otdd-emd":
        return plain.otdd_emd(target, proxy, labels)
    if name.startswith("otdd"):
        exact = name == "otdd-exact"
        return plain.otdd(target, proxy, labels, exact, label_gradient=not exact)
    if name == "sliced-wasserstein":
        settings = objectives.list_settings(name)
        drawn = stream_rng(0, "sliced directions").normal(size=(proxy.shape[1], settings["n_projections"]))
        directions = torch.from_numpy(drawn / np.linalg.norm(drawn, axis=0)).to(proxy)
        return plain.sliced_wasserstein(target, proxy, directions)
    simple = {"mmd": plain.mmd, "l2": plain.l2, "l2-paired": plain.l2_paired, "moment": plain.moment}
    return simple[name](target, proxy)


def _gradient(distance: Callable[[Tensor], Tensor], target: Tensor) -> tuple[Tensor, Tensor]:
    target = target.clone().requires_grad_()
    value = distance(target)
    value.backward()
    return value.detach(), target.grad  # type: ignore[return-value]


def objective_case(
    name: str, width: int, n_proxy: int = N_PROXY, n_classes: int = N_CLASSES, n_target: int = N_TARGET
) -> Case:
    """One forward and backward of one class; what depends on the proxy alone is kept, or done again."""
    target, proxy, labels = features(n_proxy, n_classes, n_target, width)
    constants = objectives.constants(name, proxy, labels)
    return Case(
        f"{name} D={width}",
        lambda: _gradient(lambda z: objectives.distance(name, constants, z), target),
        lambda: _gradient(lambda z: naive(name, z, proxy, labels), target),
        lambda: _gradient(lambda z: naive(name, z, proxy.double(), labels), target.double()),
    )


def embedder_case(
    n_proxy: int = N_PROXY, n_classes: int = N_CLASSES, n_target: int = N_TARGET, image_size: int = 224
) -> Case:
    """One class of an embedder epoch with otdd-exact: embed (N, 1, 16, 52) signals in 4 x 4 patches, align, backward.

    Naively every token is made and the signals are resized each time.
    """
    width, name = 128, "otdd-exact"
    _, proxy, labels = features(n_proxy, n_classes, n_target, width)
    constants = objectives.constants(name, proxy, labels)
    torch.manual_seed(0)
    embedder = Embedder2D(1, image_size, width, 4)
    x = torch.from_numpy(stream_rng(0, "bench signals").normal(size=(n_target, 1, 16, 52))).float()
    patches = embedder.cut_patches(x)

    def slopes(model: Embedder2D, value: Tensor) -> tuple[Tensor, ...]:
        model.zero_grad()
        value.backward()
        return value.detach(), model.projection.weight.grad.clone()  # type: ignore[union-attr]

    def token_route(model: Embedder2D, x: Tensor, proxy: Tensor) -> tuple[Tensor, ...]:
        return slopes(model, naive(name, model(x).mean(dim=1), proxy, labels))

    return Case(
        f"embedder epoch, one class, D={width}",
        lambda: slopes(embedder, objectives.distance(name, constants, embedder.mean_features(patches))),
        lambda: token_route(embedder, x, proxy),
        lambda: token_route(deepcopy(embedder).double(), x.double(), proxy.double()),
    )


CASES: tuple[Callable[[], Case], ...] = (
    *(
        partial(objective_case, name, width)
        for width in WIDTHS
        for name in objectives.OBJECTIVES.names()
        if name != "none"
    ),
    embedder_case,
)
