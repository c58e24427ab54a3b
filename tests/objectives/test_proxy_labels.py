"""What each objective declares about the proxy's labels is what permuted labels change: value, gradient, trained weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from orca_sweep.config.acting import Facts, proxy_labels_act
from orca_sweep.objectives import OBJECTIVES, Objective, evaluate
from orca_sweep.proxies import PROXIES
from orca_sweep.proxies.bundled import make_image_data
from orca_sweep.training.run import RunContext, run_config
from orca_sweep.trial import make_config

REMAINDER = 5e-3
"""What the short annealing leaves of label distances in the gradient of entropic transport that does not propagate them."""
CASES = [
    (objective, {"label_gradient": choice} if "label_gradient" in objective.settings else {})
    for objective in map(OBJECTIVES.get, OBJECTIVES.names())
    for choice in ((False, True) if "label_gradient" in objective.settings else (None,))
]
NAMES = [" ".join([objective.name, *map(str, settings.values())]) for objective, settings in CASES]


def make_facts(objective, settings):
    return Facts(
        trains_embedder=objective.name != "none",
        objective_settings=objective.settings,
        objective_sees_labels=objective.sees_proxy_labels,
        published_label_gradient=objective.settings.get("label_gradient"),
        **settings,
    )


def measure_change(name, settings, dtype=torch.float32):
    """The relative change of value and gradient when labels are permuted; classes lie apart, all with many samples."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 4
    proxy = torch.randn(120, 8, generator=generator, dtype=dtype) + 2 * labels[:, None]
    target = torch.randn(15, 8, generator=generator, dtype=dtype) + 1
    shuffled = labels[torch.randperm(len(labels), generator=generator)]
    values, gradients = [], []
    for of_labels in (labels, shuffled):
        z = target.clone().requires_grad_(True)
        value = evaluate(name, z, proxy, of_labels, **settings)
        value.backward()
        values.append(float(value.detach()))
        gradients.append(z.grad)
    size = float(gradients[0].norm()) or 1.0
    return abs(values[1] - values[0]) / (abs(values[0]) or 1.0), float((gradients[1] - gradients[0]).norm()) / size


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("objective", "settings"), CASES, ids=NAMES)
def test_an_objective_declares_what_permuted_labels_change(objective, settings, dtype):
    value, gradient = measure_change(objective.name, settings, dtype)
    assert (value > 1e-3) == objective.sees_proxy_labels
    if proxy_labels_act(make_facts(objective, settings)):
        assert gradient > 0.1
    elif objective.sees_proxy_labels:
        assert gradient < REMAINDER
    else:
        assert value == gradient == 0  # to the last bit: such cells are merged


@pytest.mark.parametrize("name", ["otdd-exact", "otdd-gaussian"])
def test_converged_transport_leaves_nothing_of_labels_in_a_gradient_that_does_not_propagate_them(name):
    settings = {"label_gradient": False, "epsilon": 5.0}
    _, short = measure_change(name, settings, torch.float64)
    _, converged = measure_change(name, {**settings, "extra_iterations": 300}, torch.float64)
    assert short > 1e-5 > 1e-9 > converged, (short, converged)


def test_unknown_facts_say_nothing_and_an_untrained_embedder_sees_no_labels():
    assert proxy_labels_act(Facts()) is None
    assert proxy_labels_act(Facts(trains_embedder=True, objective_sees_labels=None, objective_settings=())) is None
    assert proxy_labels_act(Facts(trains_embedder=False)) is False
    assert proxy_labels_act(Facts(objective_sees_labels=False)) is False
    assert proxy_labels_act(Facts(objective_sees_labels=True, objective_settings=())) is True
    published = {"objective_sees_labels": True, "objective_settings": ("label_gradient",)}
    for choice in (True, False):
        assert proxy_labels_act(Facts(**published, published_label_gradient=choice)) is choice
        assert (
            proxy_labels_act(Facts(**published, published_label_gradient=not choice, label_gradient=choice)) is choice
        )
    assert Objective(name="mine", meaning="", constants=dict, distance=dict).sees_proxy_labels is None


SAME = ("objective_first", "objective_last", "state_sha256", "val_metric_best", "val_metric_last")


def train(tmp_path, worker, proxy, objective, **settings):
    """The row and the trained embedder of a trial with exactly this proxy, even if it is the same work as another."""
    config = make_config({"task": "tiny", "proxy": "photo-patches", "embedder.objective": objective,
                          "embedder.optimizer": "sgd", "embedder.epochs": 8, "embedder.proxy_samples": 5000,
                          "finetune.epochs": 1, **settings})  # fmt: skip
    row = run_config(config.replaced(proxy=proxy), RunContext(folder=tmp_path, worker=worker, data_root=tmp_path))
    assert row["status"] == "ok", row["error"]
    tensors = worker.store.get("embedder", worker.store.used["embedder"]).tensors
    weights = [tensors[name].ravel() for name in sorted(tensors) if name.startswith("embedder.")]
    return row, np.concatenate(weights).astype(np.float64)


@pytest.mark.parametrize(
    ("objective", "settings", "act"),
    [
        ("mmd", {}, False),
        ("l2", {}, False),
        ("otdd-emd", {"embedder.label_gradient": False}, False),
        ("otdd-gaussian", {"embedder.label_gradient": False}, False),
        ("otdd-gaussian", {}, True),
    ],
)
def test_trained_weights_say_the_same(tmp_path, worker, user_tasks, objective, settings, act):
    """With a whole proxy of two classes, none of which is skipped; sgd, whose steps are as the gradient is."""
    (row, weights), (other, other_weights) = (
        train(tmp_path, worker, proxy, objective, **settings) for proxy in ("photo-patches", "shuffled:photo-patches")
    )
    _, shorter = train(tmp_path, worker, "photo-patches", objective, **{**settings, "embedder.epochs": 1})
    assert [row["proxy_labels_act"], other["proxy_labels_act"]] == [act, act]
    assert (row["n_proxy_classes"], row["n_proxy_classes_skipped"]) == (2, 0)
    moved, apart = np.linalg.norm(weights - shorter), np.linalg.norm(weights - other_weights)
    if not OBJECTIVES.get(objective).sees_proxy_labels:
        assert apart == 0 and {name: row[name] for name in SAME} == {name: other[name] for name in SAME}
    elif act:
        assert apart > 0.02 * moved
    else:  # not always to the last bit, so such cells are not merged
        assert row["objective_last"] != other["objective_last"] and apart < 2 * REMAINDER * moved


def test_permuting_one_class_changes_nothing_whatever_the_objective(tmp_path, worker, user_tasks, monkeypatch):
    name, x = "one-class", np.random.default_rng(0).random((40, 3, 8, 8), dtype=np.float32)
    data = make_image_data(x, np.zeros(40, dtype=np.int64))
    known = replace(PROXIES.get("mnist5k"), name=name, n_classes=1, load=lambda root: data)
    monkeypatch.setitem(PROXIES._records, name, known)
    rows = [
        train(tmp_path, worker, proxy, "otdd-gaussian", **{"embedder.epochs": 2})[0]
        for proxy in (name, f"shuffled:{name}")
    ]
    assert [row["proxy_labels_act"] for row in rows] == [False, False]
    assert {of: rows[0][of] for of in SAME} == {of: rows[1][of] for of in SAME}
