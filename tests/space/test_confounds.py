"""Warnings of cells that differ in two things at once, above all where a rule of `when` moves with embedder training."""

import pytest

from orca_sweep.space.confounds import find_confounds
from orca_sweep.trial import read_trial_facts, resolve_config

TUNED = "tune: {finetune.weight_decay: [0, 0.1]}\n"


def set_rate(rate, **levels):
    named = ", ".join(f"{path.replace('__', '.')}: {level}" for path, level in levels.items())
    return f"{{if: {{{named}}}, set: {{finetune.lr: {rate}}}}}"


def rules(*texts):
    return f"when: [{', '.join(texts)}]\n"


def warnings_of(plan_of, text):
    """The warnings of a plan about fields that move together, without those about effort and untried rates."""
    warnings = find_confounds(plan_of(text + "seeds: 2\n"), lambda cell: read_trial_facts(resolve_config(cell)))
    texts = map(str, warnings)
    return [text for text in texts if "move together" in text or "also change" in text]


BASE = "base: {task: tiny, proxy: mnist5k}\n"
TWO = BASE + "factors: {embedder.epochs: [0, 2]}\n"
THREE = BASE + "factors: {embedder.epochs: [0, 2, 4]}\n"
PROXIES = "base: {task: tiny}\nfactors: {proxy: [none, mnist5k, dummy]}\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TWO + rules(set_rate(1e-2, embedder__epochs=2)), "embedder.epochs and finetune.lr move together in every cell"),
        (TWO + rules(set_rate(1e-2, embedder__epochs=0)), "embedder.epochs and finetune.lr move together in every cell"),
        (THREE + rules(set_rate(1e-2, embedder__epochs=2), set_rate(2e-2, embedder__epochs=4)),
         "embedder.epochs and finetune.lr move together in every cell"),
        (THREE + rules(set_rate(1e-2, embedder__epochs=0)),
         "Embedder training and finetune.lr move together in every cell of tiny (naive: 0.01; trained: 0.001)"),
        (THREE + rules(set_rate(1e-2, embedder__epochs=2), set_rate(1e-2, embedder__epochs=4)),
         "Embedder training and finetune.lr move together in every cell of tiny (naive: 0.001; trained: 0.01)"),
        ("base: {task: tiny}\nfactors: {proxy: [none, mnist5k]}\n" + rules(set_rate(1e-2, proxy="none")),
         "proxy and finetune.lr move together in every cell"),
        (BASE + "factors: {embedder.objective: [none, mmd]}\n" + rules(set_rate(1e-2, embedder__objective="none")),
         "embedder.objective and finetune.lr move together in every cell"),
        ("base: {task: tiny}\nfactors: {proxy: [none, mnist5k, dummy]}\n" + rules(set_rate(1e-2, proxy="dummy")),
         "proxy and finetune.lr move together in every cell of tiny where both act: "),
        # Trained cells alike, naive ones apart, in one of two schedules.
        ("base: {task: tiny}\nfactors: {proxy: [none, mnist5k, dummy], finetune.freeze: [none, body]}\n"
         + rules(set_rate(1e-2, proxy="none", finetune__freeze="body")),
         "2 of 4 comparisons between naive and trained cells in tiny also change finetune.lr"),
        # Without a rule: factors that are zipped.
        ("base: {task: tiny}\nfactors: {proxy: [none, mnist5k], finetune.lr: [1e-3, 1e-2]}\ndesign: zip\n",
         "proxy and finetune.lr move together in every cell"),
        ("base: {task: tiny}\nfactors: {proxy: [none, mnist5k, dummy], finetune.lr: [1e-3, 1e-2, 1e-2]}\ndesign: zip\n",
         "Embedder training and finetune.lr move together in every cell of tiny (naive: 1e-3; trained: 1e-2)"),
        # A rule that gives two of three levels one value hides behind the third.
        (BASE + "factors: {finetune.freeze: [none, body, embedder]}\n" + rules(set_rate(1e-2, finetune__freeze="body")),
         "2 of 3 comparisons between levels of finetune.freeze in tiny also change finetune.lr"),
        # Two conditions: only the contrasts in which they hold.
        ("base: {task: tiny}\nfactors: {proxy: [none, mnist5k], finetune.freeze: [none, body]}\n"
         + rules(set_rate(1e-2, proxy="none", finetune__freeze="body")),
         "1 of 2 comparisons between levels of finetune.freeze in tiny also change finetune.lr"),
        (TWO + rules(set_rate(1e-2, embedder__epochs=2)) + TUNED, "embedder.epochs and finetune.lr move together"),
        # A design that runs few combinations.
        ("base: {task: tiny}\nfactors: {proxy: [none, mnist5k], finetune.freeze: [none, body]}\ndesign: one_at_a_time\n"
         + rules(set_rate(1e-2, proxy="mnist5k")), "proxy and finetune.lr move together in every cell"),
    ],
)  # fmt: skip
def test_a_rule_that_moves_with_a_factor_is_reported(plan_of, text, words):
    texts = warnings_of(plan_of, text)
    assert any(words in text for text in texts), texts
    assert len(texts) == 1 or "also change" in words, texts


def test_a_rule_is_reported_in_the_tasks_where_it_changes_something(plan_of):
    text = "base: {proxy: mnist5k}\nfactors: {task: [tiny, digits], embedder.epochs: [0, 2]}\n"
    only = warnings_of(plan_of, text + rules(set_rate(1e-2, task="digits", embedder__epochs=2)))
    assert len(only) == 1 and "in every cell of digits" in only[0]
    # A rate per task is no confound: tasks are never compared with each other.
    assert warnings_of(plan_of, text + rules(set_rate(1e-2, task="digits"))) == []


@pytest.mark.parametrize(
    "text",
    [
        TWO,
        THREE,
        PROXIES,
        "base: {task: tiny}\nfactors: {proxy: [none, mnist5k], embedder.epochs: [0, 2]}\n",
        "base: {task: tiny}\nfactors: {proxy: [none, mnist5k], finetune.lr: [1e-3, 1e-2]}\n",
        # What a rule sets for naive cells alone has no level in them.
        TWO + "when: [{if: {embedder.epochs: 0}, set: {embedder.lr: 1e-2}}]\n",
        # With mmd, epsilon does not act: the objective is all that differs.
        BASE + "factors: {embedder.objective: [otdd-exact, mmd]}\n"
        "when: [{if: {embedder.objective: otdd-exact}, set: {embedder.epsilon: 0.5}}]\n",
        # A rule without an effect: it sets the value that all cells have.
        TWO + "when: [{if: {embedder.epochs: 2}, set: {finetune.weight_decay: 0.01}}]\n",
        "base: {task: tiny}\nfactors: {proxy: [none, mnist5k], finetune.freeze: [none, body]}\ndesign: one_at_a_time\n",
        "base: {task: tiny}\nfactors: {proxy: [none, mnist5k, mnist5k], embedder.epochs: [0, 2, 4]}\ndesign: zip\n",
        BASE + "factors: {embedder.epochs: [0, 2], finetune.freeze: [none, body]}\nplacebo: [shuffled, dummy]\n",
    ],
)
def test_what_can_be_separated_is_not_reported(plan_of, text):
    assert warnings_of(plan_of, text) == []
