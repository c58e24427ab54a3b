"""Tables in memory for every figure, with names and numbers that are hard to draw, and the boxes of a figure's texts."""

import itertools
import math

import pandas as pd

from orca_sweep.analysis.sheet import take_renderer
from orca_sweep.results import Results

LONG = "a-name-of-sixty-characters-without-any-space-that-goes-on-"
"""58 characters; two digits more make it a level."""
DECLARED = "/home/someone/a folder/signals-{}.npz kind=classification output_shape=4 " + "note=lorem-ipsum " * 113
CHINESE = ("学習率のデータ", "éàüßøñç", "對時間", "naïve Ångström")
STATIC = {
    "task": "digits", "role": "replicate", "space": "demo", "status": "ok", "metric": "error", "metric_mode": "min",
    "metric_unit": "", "dims": 2, "proxy": "mnist5k", "embedder.epochs": 20, "embedder.objective": "otdd-exact",
    "finetune.freeze": "none", "finetune.freeze_epochs": "0", "body.pretrain_fraction": 1.0, "seed_varies": "all",
    "data_s": 1.0, "body_s": 2.0, "proxy_s": 3.0, "embedder_s": 4.0, "finetune_s": 20.0, "test_s": 1.0,
    "wall_time_s": 33.0, "reused": "pretrain", "reused_s": 9.0, "resumed_from_epoch": 0, "device": "cpu",
    "n_threads": 1, "host": "h", "n_reveals_before": 0,
}  # fmt: skip


def value_of(cell, seed):
    """A metric that differs between cells and seeds, and is never a tie."""
    return 0.3 + 0.1 * math.sin(1.7 * cell) + 0.02 * math.cos(3.1 * seed + cell)


def hard_tables(levels, n_seeds=3, n_epochs=3, scale=1.0, shift=0.0, n_failed=0, **static):
    """Tables of the cells that cross ``levels``, of n_seeds each; metrics are ``shift + scale * value``."""
    rows, history = [], []
    for i, combination in enumerate(itertools.product(*levels.values())):
        for seed in range(n_seeds):
            row = {**STATIC, **static, **dict(zip(levels, combination, strict=True)), "seed": seed}
            if row["proxy"] == "none" or row["embedder.epochs"] == 0:
                row |= {"proxy": "none", "embedder.epochs": 0, "embedder.objective": "none"}
            row["cell_id"] = repr([row[path] for path in levels])
            row["trial_id"] = f"{row['cell_id']}#{seed}"
            if any(row["trial_id"] == earlier["trial_id"] for earlier in rows[-400:]):
                continue
            value = shift + scale * value_of(i, seed)
            columns = {
                "test_metric_best": 1.0,
                "test_metric_last": 1.02,
                "val_metric_best": 0.97,
                "val_metric_last": 1.0,
            }
            row |= {column: value * factor for column, factor in columns.items()}
            objectives = [9.0 / (1 + e) + 0.1 * seed for e in range(min(row["embedder.epochs"], 40) + 1)]
            row["objective_last"] = objectives[-1] if row["embedder.epochs"] else math.nan
            rows.append(row)
            history += [
                {
                    "trial_id": row["trial_id"],
                    "stage": "finetune",
                    "epoch": epoch,
                    "val_metric": value * (1 + 0.5 / epoch),
                }
                for epoch in range(1, n_epochs + 1)
            ]
            history += [
                {"trial_id": row["trial_id"], "stage": "embedder", "epoch": epoch, "objective": objective}
                for epoch, objective in enumerate(objectives) if row["embedder.epochs"]
            ]  # fmt: skip
    for row in rows[:n_failed]:
        row |= dict.fromkeys((name for name in row if "_metric_" in name), math.nan) | {"status": "failed"}
    return Results(
        trials=pd.DataFrame(rows),
        epochs=pd.DataFrame(history, columns=["trial_id", "stage", "epoch", "objective", "val_metric"]),
        factors=tuple(levels),
        metric="test_metric_best",
        spaces=("demo",),
        questions=("?",),
    )


def find_texts(figure):
    """Every text that a reader sees, with its box in pixels, in the order in which it is drawn."""
    from matplotlib.text import Text

    renderer = take_renderer(figure.dpi)
    with renderer._draw_disabled():
        figure.draw(renderer)  # which puts every text where it will be
    hidden = {text for axis in figure.axes if not axis.get_visible() for text in axis.findobj(Text)}
    for axis in figure.axes:
        for side in (axis.xaxis, axis.yaxis):
            low, high = sorted(side.get_view_interval())
            slack = 1e-9 * max(abs(low), abs(high))
            for tick in [*side.get_major_ticks(), *side.get_minor_ticks()]:
                is_seen = low - slack <= tick.get_loc() <= high + slack and axis.axison
                hidden |= {label for label in (tick.label1, tick.label2) if not (is_seen and label.get_visible())}
            if not axis.axison:
                hidden |= {side.label, side.offsetText}
    seen = [
        text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible() and text not in hidden
    ]
    return [(text.get_text(), text.get_window_extent(renderer)) for text in dict.fromkeys(seen)]


def find_faults(figure):
    """What a reader could not read: texts that leave the figure, and pairs of texts that overlap."""
    texts, (width, height) = find_texts(figure), figure.get_size_inches() * figure.dpi
    faults = [
        f"outside: {text!r}"
        for text, box in texts
        if box.x0 < -1 or box.y0 < -1 or box.x1 > width + 1 or box.y1 > height + 1
    ]
    for (first, a), (second, b) in itertools.combinations(texts, 2):
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1:
            faults.append(f"overlap: {first!r} and {second!r}")
    return faults
