"""Spaces: types of levels, identity, and all mistakes at once."""

import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orca_sweep.config import EmbedderConfig, Hasher, TrialConfig, flatten, knobs, nest
from orca_sweep.errors import InputError
from orca_sweep.space import plan_space, read_space
from orca_sweep.store import write_json
from orca_sweep.trial import load_imports, make_config

GOOD = """
name: demo
question: what matters?
base:
  task: tiny
  body: {name: swin-micro}
  finetune.lr: 1e-4
factors:
  embedder.epochs: [0, 3]
  finetune.freeze: [none, body]
  proxy: [mnist5k, none]
seeds: [0, 1]
"""


def plan(path):
    return plan_space(path, load_imports, make_config)


def problems_of(path):
    with pytest.raises(InputError) as caught:
        plan(path)
    return tuple(map(str, caught.value.problems))


LISTS = """
base: {task: tiny, proxy: mnist5k}
factors:
  finetune.betas: [[0.9, 0.999], [0.9, 0.98]]
  embedder.lr_decay_after: [[1, 2], [1], null]
exclude:
  - {finetune.betas: [0.9, 0.98], embedder.lr_decay_after: [1, 2]}
  - {finetune.betas: "0.9, 0.999", embedder.lr_decay_after: [[1], null]}
seeds: 1
"""


def test_a_list_that_is_a_level_is_excluded_as_one(write_space):
    cells = plan(write_space(LISTS)).cells
    levels = {(cell.finetune.betas, cell.embedder.lr_decay_after) for cell in cells}
    assert levels == {("0.9, 0.999", "1, 2"), ("0.9, 0.98", "1"), ("0.9, 0.98", None)}


def test_levels_that_are_lists_are_distinct_in_messages(write_space):
    problems = problems_of(write_space(LISTS.replace("[[1], null]", "[7, 8]")))
    assert any("no level '7'. Its levels: [1, 2], [1], null." in problem for problem in problems), problems


def test_cells_are_crossed_and_equal_work_is_merged(write_space):
    made = plan(write_space(GOOD))
    # 2 x 2 x 2 combinations; without embedder epochs or proxy there is nothing to train: 3 of 4 are naive.
    assert made.n_combinations == 8
    assert len(made.cells) == 4
    assert made.n_merged == 4
    assert len(made.trials) == 8
    assert len({t.trial_id for t in made.trials}) == 8
    naive = [c for c in made.cells if c.embedder.epochs == 0]
    assert {(c.proxy, c.embedder.objective) for c in naive} == {("none", "none")}


def test_levels_take_the_type_of_their_field(write_space):
    text = """
    base: {task: tiny, proxy: mnist5k, finetune.lr: 1e-4, finetune.grad_clip: null}
    factors:
      finetune.freeze_epochs: [2, forever]
      finetune.freeze: [body]
      finetune.epochs: [3]
      embedder.weight_decay: [0, 1e-3]
    seeds: 2
    """
    made = plan(write_space(text))
    config = made.trials[0].config
    assert config.finetune.lr == 1e-4
    assert isinstance(config.finetune.lr, float)
    assert config.finetune.grad_clip is None
    assert [made.labels[c]["finetune.freeze_epochs"] for c in made.by_cell_id] == ["2", "2", "forever", "forever"]
    assert [made.labels[c]["embedder.weight_decay"] for c in made.by_cell_id] == ["0", "1e-3", "0", "1e-3"]
    assert {t.seed for t in made.trials} == {0, 1}


def test_no_is_not_false_and_a_number_can_be_a_name(write_space):
    problems = problems_of(write_space("base: {task: tiny, finetune.freeze: no}\nfactors: {task: [1e-4]}\nseeds: 1\n"))
    assert any("finetune.freeze = 'no'" in text for text in problems)
    problems = problems_of(write_space("base: {body.name: no}\nfactors: {task: [1e-4]}\nseeds: 1\n"))
    assert any("there is no task '1e-4'" in text for text in problems)
    assert any("there is no body 'no'" in text for text in problems)


def test_ids_are_stable_and_grow(write_space):
    small = plan(write_space(GOOD))
    big = plan(write_space(GOOD.replace("seeds: [0, 1]", "seeds: [0, 1, 2]").replace("[0, 3]", "[0, 3, 4]")))
    assert {t.trial_id for t in small.trials} < {t.trial_id for t in big.trials}
    reordered = GOOD.replace("  embedder.epochs: [0, 3]\n", "").replace(
        "  proxy: [mnist5k, none]", "  proxy: [none, mnist5k]\n  embedder: {epochs: [3, 0]}"
    )
    assert {t.trial_id for t in plan(write_space(reordered)).trials} == {t.trial_id for t in small.trials}


def test_the_id_is_the_whole_config(write_space):
    trial = plan(write_space(GOOD)).trials[0]
    assert trial.config.trial_id == trial.trial_id
    for path, knob in knobs().items():
        value = trial.config.flat()[path]
        other = {"str": f"{value}x"}.get(knob.type_name, 7 if value != 7 else 8)
        other = not value if knob.type_name == "bool" else other
        other = {"finetune.freeze": "predictor"}.get(path, "0.1, 0.2" if path.endswith(".betas") else other)
        below_one = ("body.pretrain_fraction", "embedder.lr_decay", "embedder.momentum", "finetune.momentum")
        if "|" in knob.type_name or path in below_one:
            continue
        changed = TrialConfig.from_flat({**trial.config.flat(), path: other})
        assert changed.trial_id != trial.trial_id, path
        assert (changed.cell_id == trial.cell_id) == (path == "seed")


def test_the_ids_of_a_cell_s_seeds_are_those_of_their_configs(write_space):
    cell = plan(write_space(GOOD)).cells[0]
    seeds = [0, 7, 10**9]
    for seed, (trial_id, config) in zip(seeds, Hasher().replicates(cell, seeds), strict=True):
        assert config == cell.model_copy(update={"seed": seed})
        assert trial_id == config.trial_id
        assert TrialConfig.from_flat({**cell.flat(), "seed": seed}).trial_id == trial_id
    # A name that looks like the seed in the hashed text.
    odd = cell.model_copy(update={"proxy": ',"seed":0,', "task": '"seed":1'})
    assert [trial_id for trial_id, _ in Hasher().replicates(odd, [3])] == [odd.model_copy(update={"seed": 3}).trial_id]
    # Ids do not change: earlier sweeps are still found.
    first = make_config({"task": "digits", "embedder.epochs": 5})
    assert (first.trial_id, first.cell_id) == ("8f2b27e86754b794", "cf9b7703e03ae938")


def test_base_accepts_dotted_and_nested_alike(write_space):
    dotted = plan(write_space("base: {task: tiny, finetune.lr: 1e-3, finetune.epochs: 4}\nseeds: 1\n"))
    nested = plan(write_space("base: {task: tiny, finetune: {lr: 0.001, epochs: 4}}\nseeds: 1\n"))
    assert dotted.trials[0].trial_id == nested.trials[0].trial_id


def test_a_recipe_fills_what_the_space_leaves_open():
    config = make_config({"task": "ninapro"})
    assert (config.body.name, config.embedder.epochs, config.finetune.optimizer) == ("swin-base", 100, "adam")
    assert make_config({"task": "ninapro", "embedder.epochs": 5}).embedder.epochs == 5


@pytest.mark.parametrize(
    ("settings", "canonical"),
    [
        (
            {"embedder.epochs": 0, "embedder.lr": 0.5},
            {"proxy": "none", "embedder.objective": "none", "embedder.lr": 1e-3},
        ),
        ({"embedder.objective": "none"}, {"proxy": "none", "embedder.epochs": 0}),
        ({"proxy": "none"}, {"embedder.epochs": 0}),
        ({"finetune.freeze_epochs": 9}, {"finetune.freeze": "none", "finetune.freeze_epochs": 0}),
        ({"finetune.freeze": "body", "finetune.freeze_epochs": 0}, {"finetune.freeze": "none"}),
        ({"finetune.freeze": "body", "finetune.freeze_epochs": 99}, {"finetune.freeze_epochs": "forever"}),
        ({"body.pretrain_fraction": 0, "body.pretrain_steps": 9}, {"body.pretrain_steps": None}),
        ({"body.pretrain_steps": 300}, {"body.pretrain_steps": None}),
        ({"embedder.target_length": 7, "embedder.n_pseudo_classes": 3}, {"embedder.target_length": 512}),
        ({"embedder.objective": "l2", "embedder.epsilon": 5.0}, {"embedder.epsilon": 0.1}),
        ({"embedder.objective": "otdd-exact"}, {"embedder.label_gradient": False}),
        ({"embedder.objective": "otdd-gaussian"}, {"embedder.label_gradient": True}),
        ({"embedder.objective": "otdd-gaussian", "embedder.label_gradient": False}, {"embedder.label_gradient": False}),
        ({"embedder.objective": "otdd-emd"}, {"embedder.label_gradient": False}),
        ({"embedder.objective": "otdd-emd", "embedder.label_gradient": True}, {"embedder.label_gradient": True}),
        ({"embedder.objective": "otdd-emd", "embedder.epsilon": 5.0}, {"embedder.epsilon": 0.1}),
        ({"embedder.objective": "otdd-emd", "embedder.extra_iterations": 5}, {"embedder.extra_iterations": 0}),
        ({"embedder.objective": "mmd", "embedder.label_gradient": True}, {"embedder.label_gradient": None}),
        ({"embedder.objective": "mmd", "embedder.n_bandwidths": 3}, {"embedder.n_bandwidths": 3}),
        ({"embedder.n_projections": 9, "embedder.extra_iterations": 3}, {"embedder.n_projections": 128}),
        ({"body.name": "swin-tiny", "body.pretrain_seed": 3}, {"body.pretrain_seed": 0}),
        (
            {"body.name": "roberta-micro", "proxy": "pydoc-topics", "embedder.target_length": 7},
            {"embedder.target_length": 7},
        ),
    ],
)
def test_settings_that_change_nothing_have_one_canonical_value(settings, canonical):
    flat = make_config({"task": "digits", **settings}).flat()
    assert {path: flat[path] for path in canonical} == canonical


def test_every_mistake_is_named_at_once(write_space):
    text = """\
    name: bad/name
    bse: {}
    base:
      task: tiny
      finetune: {lr: -1, epohs: 3}
      seed: 4
    factors:
      embedder.epochs: [0, 5, 5.0, x]
      finetune.epochs: []
      finetune: {batch_size: 0}
      task: [tiny]
    seeds: []
    metric: accuracy
    resources: {cpus: 1, gpu: -1}
    """
    messages = "\n".join(problems_of(write_space(text)))
    for part in (
        "bse: unknown key. Did you mean 'base'?",
        "name = 'bad/name': this cannot be a folder's name",
        "finetune.lr = '-1': input should be greater than 0",
        "no field 'finetune.epohs' in a trial's config. Did you mean 'finetune.epochs'?",
        "seed: a run seed cannot be set here",
        "names the level 5 twice",
        "embedder.epochs = 'x': input should be a valid integer",
        "factors: finetune.epochs: this has no levels",
        "factors: finetune.batch_size: this has no levels",
        "task is both in base and a factor",
        "the space has no seeds",
        "metric = 'accuracy'",
        "Did you mean 'cpu'?",
        "resources.gpu = '-1'",
    ):
        assert part in messages, part
    assert "space.yaml:9: embedder.epochs = 'x'" in messages
    assert "space.yaml:6: " in messages


def test_mistakes_of_the_file_and_of_its_names_come_together(write_space):
    text = "bse: 1\nbase: {task: digitz, proxy: mnist5, body.name: swim-micro, finetune.lr: -1}\n"
    messages = "\n".join(problems_of(write_space(text)))
    for part in ("bse: unknown key", "'digitz'", "'mnist5'", "'swim-micro'", "finetune.lr = '-1'", "no seeds"):
        assert part in messages, part


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("base: [1\n", ":3: not valid YAML"),
        ("", "needs at least base"),
        ("- 1\n", "the file is not a mapping"),
        ("seeds: 1\nseeds: 2\nbase: {task: tiny}\n", "'seeds' appears here twice"),
        ("base: &a {task: *a}\n", "alias that contains itself"),
        ("base: {task: tiny}\nseeds: [1, 1]\n", "the seed 1 appears here twice"),
        ("base: {task: tiny}\nseeds: [-1]\n", "greater than or equal to 0"),
        ("base: {task: tiny}\nseeds: [a]\n", "seeds = 'a'"),
        ("base: {task: tiny}\nseeds: 99999999999\n", "less than or equal to 100000"),
        ("base: {task: tiny, finetune.epochs: 99999999999999999999}\nseeds: 1\n", "less than or equal to 1000000000"),
        ("base: {task: tyny}\nseeds: 1\n", "there is no task 'tyny'. Did you mean 'tiny'?"),
        ("base: {task: tiny, proxy: mnist5}\nseeds: 1\n", "Did you mean 'mnist5k'?"),
        ("base: {task: tiny, body.name: swin-mikro}\nseeds: 1\n", "Did you mean 'swin-micro'?"),
        ("base: {task: tiny, body.name: ./nowhere}\nseeds: 1\n", "this is not a body folder"),
        ("base: {task: tiny, embedder.objective: otd-exact}\nseeds: 1\n", "Did you mean 'otdd-exact'?"),
        ("base: {task: tiny, proxy: pydoc-topics}\nseeds: 1\n", "holds texts, but the body 'swin-micro' embeds images"),
        (
            "base: {task: ninapro, body.pretrain_fraction: 0.5}\nseeds: 1\n",
            "has published weights at 0, 0.09, 1 (0 = random)",
        ),
        ("base: {task: tiny, finetune: {warmup_epochs: 5, decay_epochs: 5}}\nseeds: 1\n", "must end after the warm-up"),
        ("base: {proxy: mnist5k, body.name: swin-micro}\nseeds: 1\n", "this field is missing"),
        (
            "base: {task: tiny}\nseeds: 1\nfactors: {embedder: {epochs: [1]}, embedder.epochs: [2]}\n",
            "appears here twice",
        ),
        ("base: {task: tiny}\nseeds: 1\nfactors: {embedder: {}}\n", "'embedder' is a group of fields"),
        ("base: {task: tiny}\nseeds: 1\nfactors: []\n", "factors: this must be a mapping"),
        ("base: {task: tiny}\nseeds: 1\nresources: {custom: {GPU: 1}}\n", "GPU is a name that Ray reserves"),
        (
            "base: {task: tiny}\nseeds: 1\nresources: {gpu: 1, custom: {'accelerator_type:A100': 1}}\n",
            "accelerator_type:A100 is a name that Ray reserves; use accelerator_type",
        ),
        (
            "base: {task: tiny}\nseeds: 1\nresources: {accelerator_type: A100}\n",
            "accelerator_type names a kind of GPU, but gpu is 0",
        ),
        ("base: {task: tiny}\nseeds: 1\nloggers: csv\n", ":4: loggers: this must be a list such as [json"),
        ("base: {task: tiny}\nseeds: 1\nloggers: [tensorbord]\n", ":4: loggers = 'tensorbord': there is no logger"),
        (
            "base: {task: tiny}\nseeds: 1\nloggers: [{mlflow: {uri: x}}]\n",
            "mlflow has no setting 'uri'. Known: experiment",
        ),
        ("base: {task: tiny}\nseeds: 1\nloggers: [{csv: {a: b}}]\n", "csv has no setting 'a'. It has no settings."),
        ("base: {task: tiny}\nseeds: 1\nloggers: [{csv: a}]\n", "a logger must be a name, or {name: {setting: text}}"),
        ("base: {task: tiny}\nseeds: 1\nloggers: [csv, csv]\n", "loggers: csv appears here twice"),
        ("base: {task: digits, data.n_train: 5000}\nseeds: 1\n", "'digits' has 897 training samples"),
        ('base: {task: tiny, body.name: "~nobody-here/x"}\nseeds: 1\n', "this is not a body folder"),
        ("base: {task: tiny, body.name: " + "x" * 300 + "}\nseeds: 1\n", "there is no body"),
        ("base: {task: tiny, finetune.grad_clip: " + "[" * 3000 + "]" * 3000 + "}\nseeds: 1\n", "nesting is too deep"),
        ("base: {task: tiny, finetune: 3}\nseeds: 1\n", "'finetune' is a group of fields"),
    ],
)
def test_each_mistake_has_its_words(write_space, tmp_path, text, part):
    if text.startswith(("-", "base: [")) or not text:
        path = tmp_path / "plain.yaml"
        path.write_text(textwrap.dedent(text) + ("\n\n" if text.startswith("base: [") else ""))
        part = part.lstrip(":123") if text.startswith("base: [") else part
    else:
        path = write_space(text)
    assert any(part in problem for problem in problems_of(path)), problems_of(path)


def test_a_missing_file_names_the_nearest(tmp_path, write_space):
    write_space("seeds: 1\n", "quickstart.yaml")
    with pytest.raises(InputError, match=r"no such file\. Did you mean 'quickstart.yaml'"):
        read_space(tmp_path / "quikstart.yaml")


def test_a_missing_import_is_reported(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("imports: [nowhere.py]\nbase: {task: digits}\nseeds: 1\n")
    with pytest.raises(InputError, match="there is no file 'nowhere.py'"):
        read_space(path)
    path.write_text("imports: [no_such_module_at_all]\nbase: {task: digits}\nseeds: 1\n")
    with pytest.raises(InputError, match="cannot be imported: ModuleNotFoundError"):
        load_imports(read_space(path).imports)


@given(st.dictionaries(st.from_regex(r"[a-z]{1,4}(\.[a-z]{5,8}){0,2}", fullmatch=True), st.integers(), max_size=6))
def test_flat_and_nested_are_the_same_settings(flat):
    paths = list(flat)
    if any(a != b and b.startswith(f"{a}.") for a in paths for b in paths):
        return
    assert flatten(nest(flat)) == flat


def test_the_defaults_of_objective_knobs_are_those_of_the_objectives():
    from orca_sweep.objectives import OBJECTIVES
    from orca_sweep.trial.shared_stages import OBJECTIVE_SETTINGS

    defaults = EmbedderConfig().model_dump()
    named = {path.removeprefix("embedder.") for path in OBJECTIVE_SETTINGS}
    taken = {name: value for o in OBJECTIVES.names() for name, value in OBJECTIVES.get(o).settings.items()}
    assert set(taken) == named | {"projection_seed"}  # the run's seed
    assert all(defaults[name] == taken[name] for name in named - {"label_gradient"})
    assert defaults["label_gradient"] is None


RULED = """\
base: {task: tiny, finetune.lr: 1e-4}
factors:
  finetune.freeze: [none, layernorm, body]
  proxy: [none, mnist5k]
when:
  - {if: {finetune.freeze: layernorm}, set: {finetune.lr: 1e-2}}
  - if: {finetune.freeze: layernorm, proxy: mnist5k}
    set: {finetune: {lr: 3e-2, weight_decay: 0}}
seeds: 1
"""


def test_rules_set_fields_for_some_levels_and_the_last_that_holds_wins(write_space):
    cells = plan(write_space(RULED)).cells
    settings = {(c.finetune.freeze, c.proxy): (c.finetune.lr, c.finetune.weight_decay) for c in cells}
    assert len(settings) == 6
    assert settings.pop(("layernorm", "none")) == (1e-2, 0.01)
    assert settings.pop(("layernorm", "mnist5k")) == (3e-2, 0.0)
    assert set(settings.values()) == {(1e-4, 0.01)}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "finetune.freeze: layernorm}, set",
            "finetune.freze: layernorm}, set",
            "finetune.freze: this is not a factor of this space. Did you mean 'fin",
        ),
        (
            "finetune.freeze: layernorm}, set",
            "finetune.epochs: 2}, set",
            "when: finetune.epochs: this is not a factor of this space",
        ),
        (
            "finetune.freeze: layernorm}, set",
            "finetune.freeze: both}, set",
            "has no level 'both'. Its levels: none, layernorm",
        ),
        ("set: {finetune.lr: 1e-2}", "set: {proxy: none}", "when: proxy: this is a factor"),
        ("set: {finetune.lr: 1e-2}", "set: {finetune.lrr: 1e-2}", "there is no field 'finetune.lrr'"),
        ("set: {finetune.lr: 1e-2}", "set: {finetune.lr: -1}", "finetune.lr = '-1': input should be greater than 0"),
        ("set: {finetune.lr: 1e-2}", "set: {}", "when: this must be a list of rules such as"),
        ("set: {finetune.lr: 1e-2}", "then: {finetune.lr: 1e-2}", "when: this must be a list of rules such as"),
    ],
)
def test_a_wrong_rule_is_reported_with_its_line(write_space, old, new, words):
    assert old in RULED
    with pytest.raises(InputError) as error:
        plan(write_space(RULED.replace(old, new)))
    assert len(error.value.problems) == 1
    assert words in str(error.value)
    assert ":7: " in str(error.value)  # one line below where it is written here: imports come first


def test_rules_that_split_one_cell_are_refused(write_space):
    text = """\
    base: {task: tiny}
    factors: {proxy: [none, mnist5k], embedder.epochs: [0, 6]}
    when: [{if: {proxy: none}, set: {finetune.lr: 5e-3}}]
    seeds: 1
    """
    with pytest.raises(InputError, match="the rules give one cell .proxy none, embedder.epochs 0. different settings"):
        plan(write_space(text))
    assert (
        len(plan(write_space(text.replace("proxy: none}, set", "proxy: mnist5k, embedder.epochs: 6}, set"))).cells) == 2
    )


def test_a_rule_may_name_a_declared_proxy(write_space):
    own = "{path: ./a.csv, input: x, label: y}"
    text = f"base: {{task: tiny}}\nfactors: {{proxy: [none, {own}]}}\nseeds: 1\n"
    text += f"when: [{{if: {{proxy: {own}}}, set: {{finetune.lr: 5e-3}}}}]\n"
    assert [cell.finetune.lr for cell in plan(write_space(text)).cells] == [1e-3, 5e-3]


# The A/A cell --------------------------------------------------------------------------------------


def test_the_first_cell_runs_again_as_a_cell_of_its_own(write_space):
    plain, made = plan(write_space(GOOD)), plan(write_space(GOOD + "aa: 3\n"))
    assert made.cells == plain.cells
    assert made.trials[: len(plain.trials)] == plain.trials
    again = made.trials[len(plain.trials) :]
    reference = made.cells[0]
    assert [t.seed for t in again] == [2, 3, 4]
    assert {(t.role, t.cell_id) for t in again} == {("aa", f"{reference.cell_id}-aa")}
    assert [t.config for t in again] == [reference.model_copy(update={"seed": seed}) for seed in (2, 3, 4)]
    assert all(t.trial_id == t.config.trial_id for t in again)
    assert {t.role for t in plain.trials} == {"replicate"}
    assert len({t.trial_id for t in made.trials}) == len(made.trials)


def test_the_first_cell_of_each_task_runs_again(write_space):
    text = GOOD.replace("  task: tiny\n", "").replace("factors:\n", "factors:\n  task: [tiny, digits]\n") + "aa: 2\n"
    made = plan(write_space(text))
    again = [trial for trial in made.trials if trial.role == "aa"]
    assert [(trial.config.task, trial.seed) for trial in again] == [
        ("tiny", 2),
        ("tiny", 3),
        ("digits", 2),
        ("digits", 3),
    ]
    first = {task: cells[0].cell_id for task, cells in made.by_task.items()}
    assert [trial.cell_id for trial in again[::2]] == [f"{first[task]}-aa" for task in ("tiny", "digits")]
    assert made.first_cells == tuple(first.values())
    tuned = plan(write_space(text + "tune: {finetune.batch_size: [4, 8]}\n"))
    assert (made.n_aa, len(made.trials)) == (4, len(made.cells) * 2 + 4)
    assert tuned.n_later == len(tuned.tuned) * 2 + 4


@pytest.mark.parametrize(
    ("seeds", "aa", "expected"),
    [("2", "2", (2, 3)), ("[1, 3]", "3", (0, 2, 4)), ("[5]", "[9, 7]", (9, 7)), ("2", "[]", ()), ("2", "null", ())],
)
def test_the_seeds_of_the_aa_cell_differ_from_all_other_seeds(write_space, seeds, aa, expected):
    assert read_space(write_space(f"base: {{task: tiny}}\nseeds: {seeds}\naa: {aa}\n")).aa == expected


def test_seeds_that_grow_take_the_aa_cell_s_trials_over(write_space):
    small = plan(write_space(GOOD + "aa: 2\n"))
    big = plan(write_space(GOOD.replace("seeds: [0, 1]", "seeds: 4") + "aa: 2\n"))
    assert {t.trial_id for t in small.trials} < {t.trial_id for t in big.trials}


@pytest.mark.parametrize(
    ("aa", "words"),
    [
        ("[1, 4, 0]", "aa = [1, 4, 0]: seeds also has 1, 0, but the A/A cell needs different seeds. Choose others."),
        ("[4, 4]", "the seed 4 appears here twice"),
        ("0", "aa = '0': input should be greater than or equal to 1. Give whole numbers from 0 on, or how many."),
        ("[x]", "aa = 'x': input should be a valid integer"),
        ("many", "aa = 'many'"),
    ],
)
def test_wrong_seeds_of_the_aa_cell_are_reported(write_space, aa, words):
    (problem,) = problems_of(write_space(f"base: {{task: tiny}}\nseeds: 2\naa: {aa}\n"))
    assert words in problem
    assert "space.yaml:4: " in problem


# Placebos -----------------------------------------------------------------------------------------

PLACEBO = """\
base: {task: tiny}
factors:
  proxy: [none, mnist5k, shuffled:photo-patches]
  embedder.epochs: [0, 2]
  finetune.lr: [1e-3, 1e-4]
placebo: [shuffled, dummy]
seeds: 2
"""


def test_every_cell_with_a_real_proxy_has_its_placebos(write_space):
    made = plan(write_space(PLACEBO))
    cells = [(cell.proxy, cell.embedder.epochs, cell.finetune.lr) for cell in made.cells]
    naive = [("none", 0, 1e-3), ("none", 0, 1e-4)]
    real = [("mnist5k", 2, 1e-3), ("mnist5k", 2, 1e-4)]
    shuffled = [("shuffled:photo-patches", 2, 1e-3), ("shuffled:photo-patches", 2, 1e-4)]
    placebos = [(proxy, 2, lr) for lr in (1e-3, 1e-4) for proxy in ("shuffled:mnist5k", "dummy")]
    assert cells == [*naive, *real, *shuffled, *placebos]
    assert made.space.factors["proxy"] == ("none", "mnist5k", "shuffled:photo-patches", "shuffled:mnist5k", "dummy")
    assert list(made.space.factors) == ["proxy", "embedder.epochs", "finetune.lr"]
    plain = plan(write_space(PLACEBO.replace("placebo: [shuffled, dummy]\n", "")))
    assert plain.cells == made.cells[:6]
    assert made.n_combinations == 12 + 4


def test_a_proxy_of_base_becomes_a_factor_with_its_placebos(write_space):
    text = "base: {task: tiny, proxy: mnist5k}\nfactors: {embedder.epochs: [2, 0]}\nplacebo: [dummy]\nseeds: 1\n"
    made = plan(write_space(text))
    assert made.space.factors == {"embedder.epochs": (2, 0), "proxy": ("mnist5k", "dummy")}
    assert "proxy" not in made.space.base
    assert [tuple(made.labels[cell].values()) for cell in made.by_cell_id] == [
        ("2", "mnist5k"),
        ("0", "none"),
        ("2", "dummy"),
    ]


def test_a_placebo_that_is_a_cell_already_is_not_run_twice(write_space):
    text = PLACEBO.replace("shuffled:photo-patches", "dummy, shuffled:mnist5k")
    made = plan(write_space(text))
    assert made.cells == plan(write_space(text.replace("placebo: [shuffled, dummy]\n", ""))).cells
    assert made.n_merged == 8 + 4


def test_a_placebo_has_the_settings_of_what_it_replaces(write_space):
    rule = "when: [{if: {proxy: mnist5k}, set: {finetune.epochs: 7}}]\n"
    text = "base: {task: tiny}\nfactors: {proxy: [none, mnist5k]}\nplacebo: [dummy]\nseeds: 1\n" + rule
    assert [(cell.proxy, cell.finetune.epochs) for cell in plan(write_space(text)).cells] == [
        ("none", 2), ("mnist5k", 7), ("dummy", 7),
    ]  # fmt: skip
    # The same cell as a level, to which the rule does not apply, would be another cell: that is refused.
    problems = problems_of(write_space(text.replace("mnist5k]}", "mnist5k, dummy]}")))
    assert "the rules give one cell (proxy dummy) different settings" in problems[0]


def test_placebos_go_with_every_design_and_with_a_declared_proxy(write_space):
    own = "{path: ./a.csv, input: x, label: y}"
    text = f"base: {{task: tiny}}\nfactors: {{proxy: [none, {own}]}}\ndesign: one_at_a_time\nplacebo: [shuffled]\nseeds: 1\n"
    naive, real, placebo = plan(write_space(text)).cells
    assert (naive.proxy, placebo.proxy) == ("none", f"shuffled:{real.proxy}")
    assert real.proxy.startswith("/")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("placebo: [shufled]", "there is no placebo 'shufled'. Did you mean 'shuffled'?"),
        ("placebo: [[dummy]]", "there is no placebo ['dummy']"),
        ("placebo: [dummy, dummy]", "dummy appears here twice. Keep one."),
        ("placebo: dummy", "placebo: this must be a list, of shuffled (labels permuted) and dummy (noise)"),
    ],
)
def test_wrong_placebos_are_reported(write_space, text, words):
    (problem,) = problems_of(write_space(f"base: {{task: tiny, proxy: mnist5k}}\nseeds: 2\n{text}\n"))
    assert words in problem
    assert "space.yaml:4: " in problem


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "base: {task: tiny}\n",
            "it sets none: a recipe's proxy is not one of its levels. Set proxy in base or as a factor.",
        ),
        ("base: {task: tiny, proxy: none}\n", "no combination trains the embedder towards a real proxy"),
        ("base: {task: tiny, proxy: dummy}\n", "no combination trains the embedder towards a real proxy"),
        ("base: {task: tiny, proxy: mnist5k, embedder.epochs: 0}\n", "no combination trains the embedder"),
        ("base: {task: tiny, proxy: mnist5k, embedder.objective: none}\n", "no combination trains the embedder"),
        ("base: {task: tiny, proxy: mnist5}\n", "Did you mean 'mnist5k'?"),  # without problems that follow from it
    ],
)
def test_placebos_of_nothing_are_reported(write_space, text, words):
    (problem,) = problems_of(write_space(f"{text}seeds: 1\nplacebo: [shuffled]\n"))
    assert words in problem


def test_a_plan_is_found_again_in_its_folder(write_space, tmp_path):
    from orca_sweep.space.manifest import make_manifest, rebuild_plan, require_manifest, write_manifest

    more = "resources: {cpu: 2, gpu: 1, custom: {fast: 1}, accelerator_type: A100}\nlimits: {trial_s: 60}\n"
    more += "checkpoints: {epochs: 5, minutes: 2.5}\nmetric: val_metric_best\nloggers: [csv, {mlflow: {experiment: mine}}]\n"
    made = plan(write_space(GOOD + more + "aa: [8, 5]\nplacebo: [dummy]\n"))
    write_manifest(tmp_path, make_manifest(made, tmp_path, "store"))
    manifest = require_manifest(tmp_path)
    again = rebuild_plan(manifest, tmp_path / "sweep.json")
    assert again.trials == made.trials
    assert [cell.cell_id for cell in again.cells] == [cell.cell_id for cell in made.cells]
    for name in (
        "name",
        "question",
        "metric",
        "resources",
        "limits",
        "checkpoints",
        "loggers",
        "imports",
        "seeds",
        "aa",
    ):
        assert getattr(again.space, name) == getattr(made.space, name), name
    assert again.labels == made.labels
    assert [t.role for t in again.trials[-2:]] == ["aa", "aa"]
    for name in ("aa", "limits", "outcomes"):
        write_json(tmp_path / "sweep.json", {key: of for key, of in manifest.content().items() if key != name})
        with pytest.raises(
            InputError, match=rf"its content is wrong: {name}: Field required\. Launch the sweep's space again"
        ):
            require_manifest(tmp_path)
    trials = [{**trial, "trial_id": "0"} for trial in manifest.trials]
    with pytest.raises(InputError, match="its trials have other ids"):
        rebuild_plan(manifest.model_copy(update={"trials": trials}), tmp_path)
    trials = [{**t, "config": {**t["config"], "finetune.old": 1}} for t in manifest.trials]
    with pytest.raises(InputError, match=r"another version launched this sweep \(finetune.old\)"):
        rebuild_plan(manifest.model_copy(update={"trials": trials}), tmp_path)


def test_how_often_states_are_saved_is_checked_like_all_else(write_space):
    base = "base: {task: tiny}\nfactors: {embedder.epochs: [0, 2]}\nseeds: 1\n"
    settled = plan(write_space(base + "checkpoints: {minutes: 1}\n")).space.checkpoints
    assert (settled.epochs, settled.minutes) == (1, 1.0)
    with pytest.raises(InputError) as caught:
        plan(write_space(base + "checkpoints: {epochs: 0, minute: 3}\n"))
    text = str(caught.value)
    assert "checkpoints.epochs" in text and "checkpoints.minute" in text and "space.yaml:5" in text
