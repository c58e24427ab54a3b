"""Forward and backward of every alignment distance, against the same work with nothing kept between calls."""

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
"""Measured on photographs through an untrained 128-wide patch embedding."""


def make_features(n_proxy: int, n_classes: int, n_target: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns random target (n, D) and proxy features (M, D) of decaying spectrum, and proxy labels (M,)."""
    rng = stream_rng(0, "bench features")
    spread = np.arange(1, width + 1) ** -0.5
    labels = np.arange(n_proxy) % n_classes
    centres = rng.normal(size=(n_classes, width)) * spread / 2
    proxy = rng.normal(size=(n_proxy, width)) * spread + centres[labels]
    target = 0.7 * rng.normal(size=(n_target, width)) * spread + rng.normal(size=width) * spread
    unit = np.sqrt(MEAN_SQUARED_DISTANCE / (2 * (spread**2).sum()))
    return torch.from_numpy(target * unit).float(), torch.from_numpy(proxy * unit).float(), torch.from_numpy(labels)


def naive_distance(name: str, target: Tensor, proxy: Tensor, labels: Tensor) -> Tensor:
    """Returns the distance, computed the naive way; the distances of ORCA's released code as that code does."""
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


def _differentiate(distance: Callable[[Tensor], Tensor], target: Tensor) -> tuple[Tensor, Tensor]:
    target = target.clone().requires_grad_()
    value = distance(target)
    value.backward()
    return value.detach(), target.grad  # type: ignore[return-value]


def objective_case(
    name: str, width: int, n_proxy: int = N_PROXY, n_classes: int = N_CLASSES, n_target: int = N_TARGET
) -> Case:
    """Returns the case of one forward and backward of one class.

    Our side keeps what depends on the proxy alone; the naive side computes it each time.
    """
    target, proxy, labels = make_features(n_proxy, n_classes, n_target, width)
    constants = objectives.constants(name, proxy, labels)
    return Case(
        name=f"{name} D={width}",
        fast=lambda: _differentiate(lambda z: objectives.distance(name, constants, z), target),
        naive=lambda: _differentiate(lambda z: naive_distance(name, z, proxy, labels), target),
        check=lambda: _differentiate(lambda z: naive_distance(name, z, proxy.double(), labels), target.double()),
    )


def embedder_case(
    n_proxy: int = N_PROXY, n_classes: int = N_CLASSES, n_target: int = N_TARGET, image_size: int = 224
) -> Case:
    """Returns the case of one class in an embedder epoch with otdd-exact, on (N, 1, 16, 52) signals in 4 x 4 patches.

    The naive side makes every token and resizes the signals each time.
    """
    width, name = 128, "otdd-exact"
    _, proxy, labels = make_features(n_proxy, n_classes, n_target, width)
    constants = objectives.constants(name, proxy, labels)
    torch.manual_seed(0)
    embedder = Embedder2D(1, image_size, width, 4)
    x = torch.from_numpy(stream_rng(0, "bench signals").normal(size=(n_target, 1, 16, 52))).float()
    patches = embedder.cut_patches(x)

    def differentiate(model: Embedder2D, value: Tensor) -> tuple[Tensor, ...]:
        model.zero_grad()
        value.backward()
        return value.detach(), model.projection.weight.grad.clone()  # type: ignore[union-attr]

    def run_token_route(model: Embedder2D, x: Tensor, proxy: Tensor) -> tuple[Tensor, ...]:
        return differentiate(model, naive_distance(name, model(x).mean(dim=1), proxy, labels))

    return Case(
        name=f"embedder epoch, one class, D={width}",
        fast=lambda: differentiate(embedder, objectives.distance(name, constants, embedder.mean_features(patches))),
        naive=lambda: run_token_route(embedder, x, proxy),
        check=lambda: run_token_route(deepcopy(embedder).double(), x.double(), proxy.double()),
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
