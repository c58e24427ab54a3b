"""A space is counted before it is expanded; what is too large is refused in words, and what is large is planned cheaply.

The 200 MB and the two seconds of a refusal are those of a fresh process; here no test reads a clock, so each bomb is one
that would not end if it were expanded.
"""

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orca_sweep.config import Hasher
from orca_sweep.config.declaration import parse_task
from orca_sweep.errors import MOST_PROBLEMS, InputError
from orca_sweep.space import MAX_TRIALS, designs, make_plan, plan_space, read_space
from orca_sweep.trial import Remembering, StageNames, make_config, resolve_config, shared_stages

BASE = "base: {task: digits, proxy: mnist5k}\n"


def numbers(n):
    return "[" + ", ".join(f"{1e-9 * (i + 1):.9g}" for i in range(n)) + "]"


def aliases(n, first):
    """n nested lists, each of ten aliases of the one before."""
    lines = [f"a0: &a0 {first}", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, n))]
    return "\n".join(lines) + "\n"


WIDE = f"finetune.lr: {numbers(100)}, embedder.lr: {numbers(100)}"
TOO_LARGE = {
    "a grid": (f"{BASE}factors: {{{WIDE}, embedder.epsilon: {numbers(1000)}}}\nseeds: 1\n",
               ("space.yaml:2: 10,000,000 combinations of levels x 1 seeds = 10,000,000 trials", "--max-trials 10000000")),
    "a grid of more cells than atoms": (
        f"{BASE}factors: {{{', '.join(f'embedder.{name}: {numbers(900)}' for name in ('lr', 'epsilon', 'weight_decay'))},"
        f" {', '.join(f'finetune.{name}: {numbers(900)}' for name in ('lr', 'weight_decay', 'grad_clip'))}}}\nseeds: 9\n",
        ("= about 10^18 trials",)),
    "seeds as a number": (f"{BASE}seeds: 100000\n", ("space.yaml:2: seeds = 100000: a space may have at most 75,000 trials",)),
    "seeds as a list": (f"{BASE}seeds: {list(range(100_000))}\n", ("seeds: this list has 100,000 values", "75,000 trials")),
    "seeds after a mistake": (f"{BASE}seeds: 10000000000000\n", ("less than or equal to 1000000000",)),
    "an A/A cell": (f"{BASE}seeds: 1\naa: 100000000\n", ("aa = 100000000: a space may have at most 75,000 trials",)),
    "no seeds": (f"{BASE}factors: {{{WIDE}, embedder.epsilon: {numbers(1000)}}}\n",
                 ("has no seeds", "10,000,000 trials")),
    "a factor": (f"{BASE}factors: {{finetune.lr: {numbers(80_000)}}}\nseeds: 1\n",
                 ("factors: finetune.lr: this list has 80,000 values", "--max-trials 80000")),
    "a factor of a million levels": (f"{BASE}factors: {{finetune.lr: [{'0.001, ' * 10**6}]}}\nseeds: 1\n",
                                     ("about 1,000,00", "at most 4,194,304 bytes and 200,000 values")),
    "a factor of many short levels": (f"{BASE}factors: {{finetune.lr: [{'1,' * 300_000}]}}\nseeds: 1\n",
                                      ("300,013 values, but a space may have at most 200,000",)),
    "one at a time": (f"{BASE}design: one_at_a_time\nfactors: {{finetune.lr: {numbers(9000)}, embedder.lr: {numbers(9000)}}}\n"
                      "seeds: 5\n", ("17,999 combinations of levels x 5 seeds = 89,995 trials",)),
    "zipped": (f"{BASE}design: zip\nfactors: {{finetune.lr: {numbers(9000)}, embedder.lr: {numbers(9000)}}}\nseeds: 9\n",
               ("9,000 combinations of levels x 9 seeds = 81,000 trials",)),
    "included rows": (f"{BASE}factors: {{finetune.lr: {numbers(100)}}}\ninclude: [{'{finetune.lr: 1e-9}, ' * 9000}]\nseeds: 9\n",
                      ("9,100 combinations of levels x 9 seeds = 81,900 trials",)),
    "placebos": (f"{BASE}factors: {{finetune.lr: {numbers(9000)}}}\nplacebo: [shuffled, dummy]\nseeds: 3\n",
                 ("27,000 combinations of levels x 3 seeds = 81,000 trials",)),
    "a tuned grid": (f"{BASE}tune: {{finetune.lr: {numbers(1000)}, embedder.lr: {numbers(1000)}}}\nseeds: 2\n",
                     ("(1,000,000 candidates x 1 seeds + 2 seeds) = 1,000,002 trials",)),
    "random candidates": (f"{BASE}tune: {{finetune.lr: {{low: 1, high: 2}}}}\nsearch: {{candidates: 100000}}\nseeds: 2\n",
                          ("100,002 trials",)),
    "adaptive candidates": (
        f"{BASE}tune: {{finetune.lr: {{low: 1, high: 2}}}}\nsearch: {{method: optuna, candidates: 9000, seeds: [7, 8, 9]}}\n"
        "factors: {embedder.epochs: [1, 2, 3]}\nseeds: 2\n", ("81,006 trials",)),
    "aliases": (f"{aliases(10, '[x, x]')}{BASE}seeds: 1\n", ("values, more than 200,000. Write out only what is needed.",)),
    "aliases in depth": (f"a0: &a0 [x]\n{''.join(f'a{i}: &a{i} [*a{i - 1}]{chr(10)}' for i in range(1, 90))}{BASE}seeds: 1\n",
                         ("nesting is too deep",)),
    "depth": (f"{BASE}factors: {'[' * 100_000}{']' * 100_000}\nseeds: 1\n", ("nesting is too deep",)),
    "a long number": (f"base: {{task: digits, finetune.epochs: {'9' * 100_000}}}\nseeds: 1\n",
                      ("space.yaml:1: a text of 100,000 characters",)),
    "a long schedule": (f"base: {{task: digits, finetune.freeze: '{'body:1>none:1>' * 600}none'}}\nseeds: 1\n",
                        ("a schedule of 1,201 phases is longer than 1,000",)),
    "a long schedule as a list": (
        f"base: {{task: digits, finetune.freeze: [{'{frozen: body, epochs: 1}, ' * 9000}]}}\nseeds: 1\n",
        ("a schedule of 9,000 phases",)),
    "spaces in a schedule": (f"base: {{task: digits, finetune.freeze: 'body{' ' * 9900}x'}}\nseeds: 1\n", ("'x' cannot follow",)),
    "loggers": (f"{BASE}seeds: 1\nloggers: [{'json, ' * 60_000}]\n", ("json appears here twice",)),
    "unknown names": (f"factors: {{task: [{', '.join(f'digits{i}' for i in range(60_000))}]}}\nseeds: 1\n",
                      ("there is no task 'digits0'", "... and more.")),
    "unknown fields": (f"{BASE}factors: {{{', '.join(f'finetune.lr{i}: [1]' for i in range(30_000))}}}\nseeds: 1\n",
                       ("there is no field 'finetune.lr0'", "... and more.")),
}  # fmt: skip


def problems_of(path, make=make_config, **options):
    with pytest.raises(InputError) as refused:
        plan_space(path, lambda names: None, Remembering(make), **options)
    return tuple(map(str, refused.value.problems))


@pytest.mark.parametrize("case", TOO_LARGE)
def test_what_is_too_large_is_refused_with_its_number_and_the_limit(case, tmp_path):
    text, words = TOO_LARGE[case]
    path = tmp_path / "space.yaml"
    path.write_text(text)
    problems = problems_of(path)
    for part in words:
        assert any(part in problem for problem in problems), problems
    assert len(problems) <= MOST_PROBLEMS + 1
    assert max(map(len, problems)) < 5000


def test_a_flag_raises_the_limit(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(f"{BASE}factors: {{finetune.lr: [1e-4, 1e-3]}}\nseeds: 30\n")
    assert "2 combinations of levels x 30 seeds = 60 trials, more than 59." in problems_of(path, max_trials=59)[0]
    assert len(plan_space(path, lambda names: None, make_config, 60).trials) == 60
    path.write_text(f"{BASE}seeds: {MAX_TRIALS + 1}\n")
    assert len(read_space(path, MAX_TRIALS + 1).seeds) == MAX_TRIALS + 1
    path.write_text(f"{BASE}factors: {{finetune.lr: [{'1,' * 300_000}]}}\nseeds: 1\n")
    assert "finetune.lr: this names the level 1.0 twice" in problems_of(path, max_trials=10**6)[0]


def test_refusals_take_little_memory(tmp_path):
    """Of aliases that stand for billions of values, in a separate process."""
    path = tmp_path / "space.yaml"
    path.write_text(TOO_LARGE["aliases"][0])
    code = f"""
import resource
from orca_sweep.errors import InputError
from orca_sweep.space import read_space
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_space(__import__("pathlib").Path({str(path)!r}))
except InputError:
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100


@pytest.mark.parametrize("design", designs.DESIGNS)
def test_designs_count_as_many_combinations_as_they_make(design):
    for n_factors in (3, 5, 9):
        factors = {f"f{i}": ("off", "on") for i in range(n_factors)}
        made = list(designs.DESIGNS[design].combine(factors))
        assert designs.DESIGNS[design].count(dict.fromkeys(factors, 2)) == len(made)
    if designs.DESIGNS[design].levels == "any":
        factors = {"a": (1, 2, 3), "b": (1, 2), "c": (1,)}
        count = designs.DESIGNS[design].count({path: len(levels) for path, levels in factors.items()})
        assert count == len(list(designs.DESIGNS[design].combine(factors)))


def test_thousands_of_rules_are_asked_only_where_they_can_hold(tmp_path):
    """Checking each of ten thousand combinations against each of five thousand rules would be fifty million checks."""
    rates = numbers(100).strip("[]").split(", ")
    pairs = [(a, b) for a in rates for b in rates[:50]]
    excluded = ", ".join(f"{{finetune.lr: {a}, embedder.lr: {b}}}" for a, b in pairs)
    ruled = ", ".join(
        f"{{if: {{finetune.lr: {a}, embedder.lr: {b}}}, set: {{finetune.epochs: 7}}}}" for a, b in pairs[:4000]
    )
    path = tmp_path / "space.yaml"
    path.write_text(f"{BASE}factors: {{{WIDE}}}\nexclude: [{excluded}, {{finetune.lr: {numbers(2)}}}]\nseeds: 1\n")
    assert len(make_plan(read_space(path), Remembering(make_config)).cells) == 98 * 50
    path.write_text(f"{BASE}factors: {{{WIDE}}}\nwhen: [{ruled}]\nseeds: 1\n")
    epochs = [cell.finetune.epochs for cell in make_plan(read_space(path), Remembering(make_config)).cells]
    assert epochs.count(7) == 4000


def test_a_condition_that_thousands_of_rules_share_is_asked_once(tmp_path):
    """Applying each to each combination would be a hundred million settings; the last rule wins, whatever its condition."""
    alike = ", ".join(f"{{if: {{embedder.epochs: {i % 2}}}, set: {{finetune.epochs: {i + 9}}}}}" for i in range(20_000))
    first = "{if: {finetune.lr: 1e-09}, set: {finetune.epochs: 5}}"
    second = "{if: {finetune.lr: 2e-09, embedder.epochs: 1}, set: {finetune.epochs: 6}}"
    path = tmp_path / "space.yaml"
    factors = f"factors: {{embedder.epochs: [0, 1], finetune.lr: {numbers(5000)}}}"
    path.write_text(f"{BASE}{factors}\nwhen: [{first}, {second}, {alike}, {first}, {second}]\nseeds: 1\n")
    plan = make_plan(read_space(path), Remembering(make_config))
    epochs = {(cell.embedder.epochs, round(cell.finetune.lr * 1e9)): cell.finetune.epochs for cell in plan.cells}
    assert len(epochs) == 10_000
    assert [epochs[0, 1], epochs[1, 1], epochs[0, 2], epochs[1, 2], epochs[0, 3], epochs[1, 3]] == [
        5, 5, 20_007, 6, 20_007, 20_008,
    ]  # fmt: skip


def test_what_no_number_changes_is_refused_once(tmp_path):
    """Thousands of cells with the same mistake are not resolved one by one."""
    asked = []

    def counted(settings):
        asked.append(settings)
        return make_config(settings)

    path = tmp_path / "space.yaml"
    path.write_text(
        f"base: {{task: ninapro, body.name: roberta-micro, proxy: mnist5k}}\nfactors: {{{WIDE}}}\nseeds: 1\n"
    )
    problems = problems_of(path, make=counted)
    assert problems == (
        f"{path}:1: proxy = 'mnist5k': it holds images, but the body 'roberta-micro' embeds texts. Name a proxy of texts.",
    )
    assert len(asked) < 10


def test_an_unknown_level_is_reported_with_some_of_thousands(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(f"{BASE}factors: {{finetune.lr: {numbers(7000)}}}\nexclude: [{{finetune.lr: 9}}]\nseeds: 1\n")
    (problem,) = problems_of(path)
    assert "exclude: finetune.lr: this factor has no level 9.0. Its levels: 1e-09, 2e-09, " in problem
    assert problem.endswith("2e-08, ... (7,000 in all).")


def test_a_declared_task_is_read_once_for_thousands_of_cells(tmp_path):
    """Cells that differ in more than plain numbers are resolved one by one; the text of their task is read once."""
    text = f"{tmp_path}/x.npz kind=classification sample_shape=1x8x8 output_shape=3"
    before = parse_task.cache_info().misses
    for epochs in range(1, 50):
        make_config({"task": text, "finetune.freeze": f"body:{epochs} > none"})
    assert parse_task.cache_info().misses - before <= 3


# Resolving cheaply changes nothing ----------------------------------------------------------------

SETTINGS = {
    "task": ["digits", "darcy-generated", "ninapro", "watch-exercises", "digitz"],
    "proxy": ["none", "mnist5k", "dummy", "shuffled:mnist5k", "nope"],
    "embedder.epochs": [0, 1, 2, 60, 10**9],
    "embedder.objective": ["otdd-exact", "mmd", "none", "sliced-wasserstein"],
    "embedder.optimizer": ["adamw", "sgd"],
    "embedder.lr": [1e-3, 3e-3, 1e-30, 1e30, 1.2345e30],
    "embedder.weight_decay": [0.0, 0.1],
    "embedder.proxy_samples": [2, 100, 5000, 10**9],
    "embedder.max_samples_per_class": [2, 5, 128],
    "embedder.lr_decay": [0.2, 1.0],
    "finetune.lr": [1e-4, 1e-3, 2e-3],
    "finetune.weight_decay": [0.0, 0.01, 0.05],
    "finetune.batch_size": [1, 16, 32, 10**9],
    "finetune.accumulation": [1, 2],
    "finetune.eval_batch_size": [1, 8, 256],
    "finetune.epochs": [1, 3, 20],
    "finetune.freeze": ["none", "body", "body:5 > none", "linear-probe", "body:2 lr*10 constant > none fresh"],
    "finetune.optimizer": ["adamw", "sgd"],
    "finetune.lora_rank": [None, 4],
    "body.pretrain_fraction": [0.0, 0.5, 1.0],
    "data.n_train": [None, 50, 5000],
    "seed_varies": ["all", "everything", "dropout", "embedder-training"],
    "predictor.dense": ["released", "linear"],
}
SETTING = st.fixed_dictionaries(
    {"task": st.sampled_from(SETTINGS["task"])},
    optional={path: st.sampled_from(values) for path, values in SETTINGS.items() if path != "task"},
)


def resolved_or_refused(how, asked):
    try:
        return how(asked)
    except InputError as error:
        return tuple(map(str, error.problems))


@given(st.lists(SETTING, min_size=1, max_size=20))
@settings(max_examples=60)
def test_what_is_resolved_once_for_many_is_what_each_would_be(many):
    """All of them share a memory: what it keeps from one must not affect another."""
    quick, hasher, names = Remembering(make_config), Hasher(), StageNames()
    for asked in [*many, *many]:
        plain, config = (resolved_or_refused(how, asked) for how in (make_config, quick))
        assert config == plain
        if isinstance(plain, tuple):
            continue
        assert [(path, type(v), v) for path, v in config.flat().items()] == [
            (path, type(v), v) for path, v in plain.flat().items()
        ]
        assert hasher.cell_id(config) == plain.cell_id
        for trial_id, trial in hasher.replicates(config, [0, 7]):
            same = plain.model_copy(update={"seed": trial.seed})
            assert (trial, trial_id) == (same, same.trial_id)
            assert names(resolve_config(trial)) == shared_stages(resolve_config(same))


def test_a_rule_about_a_number_shows_at_the_ends_of_its_field():
    """A new rule on a plain field must not be missed, such as one that makes large batches equal work."""

    def ruled(settings):
        config = make_config(settings)
        batch_size = min(config.finetune.batch_size, 100)
        return config.replaced(finetune=config.finetune.replaced(batch_size=batch_size))

    quick = Remembering(ruled)
    for size in (16, 64, 99, 101, 500):
        asked = {"task": "digits", "finetune.batch_size": size, "finetune.lr": 3e-4}
        assert quick(asked) == ruled(asked)


def test_equal_parts_of_a_plan_s_configs_are_one_object(tmp_path):
    """So that a trial takes at most 3 kB."""
    path = tmp_path / "space.yaml"
    path.write_text(f"{BASE}factors: {{{WIDE}}}\nseeds: 2\n")
    plan = make_plan(read_space(path), Remembering(make_config))
    assert len(plan.trials) == 20_000
    assert len({id(trial.config.finetune) for trial in plan.trials}) == 100
    assert len({id(trial.config.embedder) for trial in plan.trials}) == 100
    assert len({id(trial.config.body) for trial in plan.trials}) == 1


@pytest.mark.parametrize("path", ["finetune.freeze", "finetune.freeze_epochs", "finetune.lr", "embedder.epochs"])
@pytest.mark.parametrize("value", [[1], {"a": [1]}, [[]]])
def test_values_without_a_hash_are_refused_as_ever(path, value):
    for how in (make_config, Remembering(make_config)):
        with pytest.raises(InputError, match=path):
            how({"task": "digits", path: value})


def test_a_job_is_given_the_raised_limit():
    from orca_sweep.sweep.jobs import Submission

    def command(**more):
        paths = {"folder": None, "out": "/out", "data": None, "store": None}
        return Submission(plan=None, **paths, env={}, pip=(), **more).write_command("s.yaml")

    assert command() == "python -m orca_sweep.cli launch s.yaml --address auto --out /out"
    assert command(max_trials=10**6).endswith(" --out /out --max-trials 1000000")
