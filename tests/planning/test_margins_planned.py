"""What a plan says of its seeds against the margin that the space fixes, with and without a known spread."""

import pytest

from orca_sweep.api.describing import state_contrasts
from orca_sweep.planning.forecast import forecast
from orca_sweep.stats import chance_of_no_difference, detectable_effect, smallest_effect
from orca_sweep.store import Store, made_with

SPACE = "base: {finetune.epochs: 1}\nfactors: {task: [tiny, digits], proxy: [none, mnist5k, dummy]}\nseeds: 6\n"


@pytest.fixture
def fill(tmp_path):
    """A store with rows of a plan whose metric spreads by a given amount in each task."""

    def write(plan, **spreads):
        store = Store(str(tmp_path / "store"))
        for trial in plan.trials:
            sd = spreads.get(trial.config.task)
            if sd is not None:
                value = 0.5 + sd * (-1) ** trial.seed * (5 / 6) ** 0.5  # n - 1 of n seeds
                row = {"config": trial.config.flat(), "cell_id": trial.cell_id, "used": {}, "val_metric_best": value}
                store.put_row(trial.trial_id, {**row, "wall_time_s": 1.0, "finetune_s": 1.0, **made_with("cpu", 1)})
        return store

    return write


def write_texts(plan, store=None):
    return [statement.write(plan.task_names) for statement in state_contrasts(forecast(plan, store))]


def test_without_a_known_spread_the_margin_is_compared_in_standard_deviations(plan_of):
    legend, text = write_texts(plan_of(SPACE + "margin: 0.03\n"))
    assert "standard deviation of the paired difference" in legend
    effect = f"{smallest_effect(6, 2):.2f} sd"
    assert text == (
        "each cell against the first of each task, 6 seeds: 2 comparisons, p from 0.0625 (0.0312 before Holm's correction);"
        f" detects {effect}, 0.03 + {effect} beyond the margin; shows no meaningful difference if sd is below 0.018"
    )
    assert write_texts(plan_of(SPACE))[1].endswith(f"detects {effect}")
    (contrasts, _) = forecast(plan_of(SPACE + "margin: 0.03\n"), None).contrasts
    assert chance_of_no_difference(6, contrasts.largest_spread, 0.03, 2) == pytest.approx(0.8, abs=1e-4)
    assert (contrasts.margin, contrasts.detectable, contrasts.chance_within) == (0.03, None, None)


def test_tasks_with_different_margins_have_different_sentences(plan_of):
    _, tiny, digits = write_texts(plan_of(SPACE + "margin: {tiny: 0.03, digits: 0.06}\n"))
    assert "first of tiny, " in tiny and "0.03 + " in tiny
    assert "first of digits, " in digits and "0.06 + " in digits


def test_with_a_known_spread_the_plan_says_whether_the_seeds_are_enough(plan_of, fill):
    plan = plan_of(SPACE + "margin: 0.03\n")
    store = fill(plan, tiny=0.004, digits=0.05)
    tiny, digits = forecast(plan, store).contrasts
    assert tiny.spread == pytest.approx(0.004) and digits.spread == pytest.approx(0.05)
    assert digits.detectable == pytest.approx(detectable_effect(6, 2**0.5 * 0.05, 0.03, 2))
    assert digits.chance_within < 0.05 < 0.8 < tiny.chance_within
    *_, text = write_texts(plan, store)
    assert text == (
        "by the spread of earlier rows, 6 seeds against the margin of 0.03 are enough for differences from"
        f" {tiny.detectable:.2g}, and to show that there is none that matters (tiny); enough for differences from"
        f" {digits.detectable:.2g}, but too few to show that there is none that matters ({digits.chance_within:.0%};"
        f" {digits.n_seeds_within:.0f} seeds for 80%) (digits); pairing can only do better"
    )
    only = fill(plan_of(SPACE), tiny=0.004)
    *_, plain = write_texts(plan_of(SPACE), only)
    assert plain.startswith("by the spread of earlier rows, 6 seeds are enough for differences from 0.0")


def test_a_spread_of_zero_and_few_seeds_say_nothing_of_the_margin(plan_of, fill):
    plan = plan_of(SPACE + "margin: 0.03\n")
    contrasts = forecast(plan, fill(plan, tiny=0.0)).contrasts[0]
    assert (contrasts.spread, contrasts.detectable) == (0.0, None)
    few = plan_of(SPACE.replace("seeds: 6", "seeds: 2") + "margin: 0.03\n")
    assert forecast(few, None).contrasts[0].largest_spread is None
    assert write_texts(few) == [
        "each cell against the first of each task, 2 seeds: no difference can be judged, at least 3 seeds are needed"
    ]
