"""The smoke form of a space: what it replaces, where its mistakes are, and what a sweep of it says."""

import pytest

from orca_sweep.errors import InputError
from orca_sweep.space.manifest import make_manifest, rebuild_plan
from orca_sweep.space.reading import read_space_and_problems

SPACE = """
    name: demo
    base:
      task: tiny
      finetune: {epochs: 20, lr: 1e-3}
    factors: {embedder.epochs: [0, 10, 60]}
    seeds: 5
    aa: 2
    smoke:
      seeds: 2
      aa:
      base: {finetune.epochs: 1, data.n_train: 32}
      factors:
        embedder.epochs: [0, 1, 2]
"""


def read(path, *, is_smoke=True):
    return read_space_and_problems(path, is_smoke=is_smoke)


def list_lines(problems):
    return {(problem.where.rpartition(":")[2], problem.field) for problem in problems}


def test_fields_of_base_and_factors_are_replaced_one_by_one_and_other_keys_as_a_whole(write_space):
    space, problems = read(write_space(SPACE))
    assert problems == []
    assert space.base == {"task": "tiny", "finetune.epochs": 1, "finetune.lr": 1e-3, "data.n_train": 32}
    assert space.factors == {"embedder.epochs": (0, 1, 2)}
    assert (space.seeds, space.aa, space.name, space.is_smoke) == ((0, 1), (), "demo-smoke", True)


def test_without_being_asked_the_space_is_as_it_would_be_without_the_key(write_space):
    path = write_space(SPACE)
    space, problems = read(path, is_smoke=False)
    plain, _ = read(write_space(SPACE[: SPACE.index("    smoke:")], "plain.yaml"), is_smoke=False)
    assert problems == []
    assert (space.base, space.factors, space.seeds, space.aa) == (plain.base, plain.factors, plain.seeds, plain.aa)
    assert (space.name, space.is_smoke) == ("demo", False)


def test_mistakes_in_the_form_are_reported_at_their_lines_whether_or_not_it_is_asked_for(write_space):
    text = """
        base: {task: tiny}
        factors: {proxy: [none, mnist5k]}
        seeds: 3
        smoke:
          seeds: 0
          name: other
          sedes: 3
          base: {finetune.epochs: none}
          factors:
            embedder.epochs: [0, 0]
    """
    path = write_space(text)
    for is_smoke in (False, True):
        _, problems = read(path, is_smoke=is_smoke)
        assert list_lines(problems) == {
            ("7", "seeds"), ("8", "smoke.name"), ("9", "sedes"), ("10", "finetune.epochs"), ("12", "embedder.epochs"),
        }  # fmt: skip
        assert any("Did you mean 'seeds'?" in str(problem) for problem in problems)


def test_mistakes_of_the_space_itself_count_even_where_its_form_replaces_them(write_space):
    path = write_space("base: {task: tiny, finetune.epochs: x}\nseeds: 2\nsmoke: {base: {finetune.epochs: 1}}\n")
    _, problems = read(path)
    assert list_lines(problems) == {("2", "finetune.epochs")}


def test_a_form_may_leave_out_tasks_that_have_a_margin(write_space):
    text = """
        factors: {task: [tiny, digits]}
        seeds: 2
        margin: {tiny: 0.1, digits: 0.2}
        smoke: {factors: {task: [tiny]}}
    """
    path = write_space(text)
    space, problems = read(path)
    assert (problems, space.factors["task"], space.margins["tiny"]) == ([], ("tiny",), 0.1)
    path.write_text(path.read_text().replace("digits: 0.2", "digit: 0.2"))
    _, (problem,) = read(path)  # once, though both forms have it
    assert (problem.field, "Did you mean 'digits'?" in problem.rule) == ("margin", True)


def test_what_the_form_alone_breaks_is_said_to_be_of_the_form(write_space):
    path = write_space(SPACE + "    when: [{if: {embedder.epochs: 60}, set: {finetune.lr: 1e-4}}]\n")
    for is_smoke in (False, True):
        _, (problem,) = read(path, is_smoke=is_smoke)
        assert str(problem).startswith(f"{path}:16: smoke: when: embedder.epochs: this factor has no level 60")


def test_a_form_that_is_no_mapping_is_a_mistake(write_space):
    _, problems = read(write_space("base: {task: tiny}\nseeds: 2\nsmoke: [1]\n"))
    assert [str(problem).partition(": ")[2] for problem in problems] == [
        "smoke: this must be a mapping of keys that replace those of the space, such as {seeds: 2, base:"
        " {finetune.epochs: 1}}."
    ]


def test_a_space_without_a_form_is_refused_with_one_that_may_suit(write_space):
    path = write_space("base: {task: tiny}\nfactors: {embedder.epochs: [0, 60]}\nseeds: 2\n")
    assert read(path, is_smoke=False)[1] == []
    _, (problem,) = read(path)
    assert "nothing is guessed" in problem.rule
    assert "'smoke: {seeds: 2, base: {finetune.epochs: 1}, factors: {embedder.epochs: [0, 1]}}'" in problem.remedy


def test_a_manifest_keeps_that_its_sweep_is_a_smoke_sweep(write_space, tmp_path):
    from orca_sweep.space import plan_space
    from orca_sweep.trial import load_imports, make_config

    plan = plan_space(write_space(SPACE), load_imports, make_config, is_smoke=True)
    manifest = make_manifest(plan, tmp_path, "store")
    assert (manifest.name, manifest.is_smoke) == ("demo-smoke", True)
    assert rebuild_plan(manifest, tmp_path / "sweep.json").space.is_smoke
    whole = plan_space(write_space(SPACE), load_imports, make_config)
    assert not {trial.trial_id for trial in plan.trials} & {trial.trial_id for trial in whole.trials}


def test_python_plans_the_form_of_a_mapping(user_tasks, tmp_path):
    from orca_sweep import Space

    space = {"imports": [user_tasks], "base": {"task": "tiny"}, "factors": {"proxy": ["none", "mnist5k"]}, "seeds": 3}
    plan = Space.from_dict({**space, "smoke": {"seeds": 1}}).plan(out=tmp_path / "out", smoke=True)
    assert (plan.name, len(plan.trials)) == ("space-smoke", 2)
    assert plan.warnings[0].startswith("A smoke sweep")
    with pytest.raises(InputError, match="does not say what its smoke form is"):
        Space.from_dict(space).plan(smoke=True)
