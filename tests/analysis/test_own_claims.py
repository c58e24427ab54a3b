"""The project's own claims, tables of several spaces, and tables that a careless rule would judge wrongly."""

import math
from dataclasses import replace

import pytest

from orca_sweep.analysis import claims
from orca_sweep.analysis.study import CLAIMS
from orca_sweep.analysis.writing import NOTHING
from orca_sweep.stats import smallest_effect
from tests.builders.claims import DIMS, FACTORS, NAIVE, SEEDS, cell, frozen, noise, tables, trained, world
from tests.builders.tables import in_memory, trial

SAME, LESS, MORE = 0.3, 0.2, 0.4
LR = "finetune.lr"


def results_of(*parts, factors=FACTORS, tuned=()):
    return replace(in_memory([planned for part in parts for planned in part], factors), tuned=tuned)


def find(results, claim, margin=("0.01",), **more):
    """The finding on a claim, and its tasks by name."""
    findings = claims.compute(results, claims.Options(margin=margin, **more)).findings
    finding = next(finding for finding in findings if finding.claim.id == claim)
    return finding, {task.task: task for task in finding.shown}


def words(task):
    return {judgement.name: judgement.word for judgement in task.judgements}


def test_every_claim_says_whose_it_is_and_has_a_short_name():
    assert {claim.id: claim.origin for claim in CLAIMS} == {
        **dict.fromkeys(("1", "2", "3", "4a", "4b", "5"), "study"),
        **dict.fromkeys("678", "ours"),
    }
    assert len({claim.short for claim in CLAIMS}) == len(CLAIMS)
    assert all(2 <= len(claim.short.split()) <= 6 for claim in CLAIMS)


# Normalising --------------------------------------------------------------------------------------


def crossed(task="image", way="channel", scale="", **values):
    """The four cells of claim 7: their true errors by name."""
    truth = {"naive": SAME, "trained": SAME, "raw_naive": MORE, "raw_trained": SAME, **values}
    parts = []
    for name, levels in (("naive", NAIVE), ("trained", trained())):
        for prefix, how in (("", way), ("raw_", "none")):
            if truth[prefix + name] is not None:
                said = {"normalised": scale} if scale else {}
                parts += cell(task, {**levels, "data.normalise": how}, truth[prefix + name], **said)
    return parts


NORMALISED = (*FACTORS, "data.normalise")


@pytest.mark.parametrize(
    ("truth", "says"),
    [
        ({}, "supports"),
        ({"trained": MORE}, "supports"),
        ({"trained": LESS}, "contradicts"),
        # What it does on raw inputs is no part of the rule.
        ({"raw_trained": 0.5}, "supports"),
        ({"trained": LESS, "raw_trained": MORE}, "contradicts"),
        ({"trained": SAME - 0.01}, "undecided"),
    ],
)
def test_training_is_judged_on_normalised_inputs_and_shown_on_raw_ones(truth, says):
    _, by_task = find(results_of(crossed(**truth), factors=NORMALISED), "7")
    task = by_task["image"]
    assert task.says == says
    normalised, raw, interaction = task.judgements
    assert [j.decides for j in task.judgements] == [True, False, False]
    assert (normalised.n_family, raw.n_family, interaction.n_family) == (1, 2, 2)
    assert task.leading is normalised
    assert interaction.estimate == pytest.approx(raw.estimate - normalised.estimate)
    assert interaction.name == "embedder.epochs 20 against naive, none minus channel"


def test_other_claims_are_judged_on_normalised_inputs_where_the_table_has_both():
    parts = crossed()[::-1]  # raw inputs first, on which training helps
    _, by_task = find(results_of(parts, factors=NORMALISED), "1")
    assert (by_task["image"].says, by_task["image"].n_other_settings) == ("supports", 1)
    assert "data.normalise channel" in by_task["image"].setting


def test_the_task_s_own_way_is_read_from_its_rows():
    rows = "channel: mean 3, spread 2; over all 100 training samples"
    _, by_task = find(results_of(crossed(way=None, scale=rows), factors=NORMALISED), "7")
    assert by_task["image"].says == "supports"
    _, by_task = find(results_of(crossed(way=None, trained=LESS), factors=NORMALISED), "7")
    assert by_task["image"].says == "cannot be judged"  # null may be none: nobody knows
    assert "no cell with normalised inputs" in by_task["image"].unjudged.text


def test_inputs_without_a_scale_are_no_evidence_and_nothing_is_asked_for():
    """One-hot inputs stay as they are: counted, equal cells would support the claim."""
    scale = "none: one-hot inputs stay as they are (data.normalise channel); over all 100 training samples"
    finding, by_task = find(results_of(crossed(scale=scale), factors=NORMALISED), "7")
    assert finding.kind == "cannot be judged"
    assert "they have no scale, so that data.normalise cannot act" in finding.verdict
    assert by_task["image"].add == ""


@pytest.mark.parametrize(
    ("without", "text"),
    [
        (("raw_naive", "raw_trained"), "no cell with raw inputs (data.normalise none; only channel)"),
        (("naive", "trained"), "no cell with normalised inputs"),
        (("raw_trained",), "no four cells, all else equal"),
        (("trained", "raw_trained"), "no cell with a trained embedder"),
    ],
)
def test_a_missing_corner_of_the_crossing_is_named(without, text):
    results = results_of(crossed(**dict.fromkeys(without)), factors=NORMALISED)
    finding, by_task = find(results, "7")
    assert finding.kind == "cannot be judged" and text in finding.verdict
    assert by_task["image"].add.startswith("cells with data.normalise none and channel")


# Labels -------------------------------------------------------------------------------------------


def proxies(act, task="image", **values):
    names = {"mnist5k": SAME, "photo-patches": SAME, "dummy": SAME, **values}
    parts = []
    for proxy, value in names.items():
        levels = {**trained(proxy=proxy), "embedder.label_gradient": act}
        parts += cell(task, levels, value, proxy_labels_act=act)
    return parts


LABELS = (*FACTORS, "embedder.label_gradient")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "supports"),
        ({"dummy": LESS}, "contradicts"),
        ({"photo-patches": MORE}, "contradicts"),
        ({"photo-patches": SAME + 0.01}, "undecided"),
        # Permuted labels do nothing here: they neither support nor contradict.
        ({"shuffled:mnist5k": LESS}, "supports"),
    ],
)
def test_proxies_are_compared_where_labels_cannot_act(values, says):
    parts = [proxies(False, **values), proxies(True, dummy=MORE, **{"photo-patches": LESS})]
    _, by_task = find(results_of(*parts, factors=LABELS), "8")
    task = by_task["image"]
    assert task.says == says
    deciding = [j.name for j in task.judgements if j.decides]
    assert deciding == ["proxy photo-patches against mnist5k", "proxy dummy against mnist5k"]
    shown = {j.name: j.word for j in task.judgements if not j.decides}
    assert shown == {
        "proxy photo-patches against mnist5k, labels act": "helps",
        "proxy dummy against mnist5k, labels act": "hurts",
    }


def test_labels_that_act_or_of_which_nobody_knows_say_nothing_of_claim_8():
    for act, text in ((True, "the labels of the proxy act in all its cells"), (None, "do not say whether the labels")):
        finding, _ = find(results_of(proxies(act), factors=LABELS), "8")
        assert finding.kind == "cannot be judged" and text in finding.verdict
    alone = [planned for planned in proxies(False) if planned[0]["config"]["proxy"] == "shuffled:mnist5k"]
    alone += cell("image", {**trained(), "embedder.label_gradient": False}, SAME, proxy_labels_act=False)
    finding, _ = find(results_of(alone, factors=LABELS), "8")
    assert "no two cells that differ only in the proxy where labels cannot act (mnist5k)" in finding.verdict


# Tuning and several spaces ------------------------------------------------------------------------


def tuned(task, levels, value, lr, candidates=(0.1, 0.2), space="tuned"):
    """A cell with its own best learning rate."""
    levels = {"task": task, **levels}
    parts = [trial(levels, 9, 0.5, "search", space=space, **{LR: x}) for x in candidates]
    more = {"dims": DIMS[task], "space": space, "proxy_labels_act": levels["embedder.epochs"] > 0 or None, LR: lr}
    return parts + [
        trial(levels, s, value + 0.02 * s + noise(repr((task, levels, lr)), s), **more) for s in range(SEEDS)
    ]


def fixed(task, levels, value, lr=0.1, space="fixed", seeds=range(SEEDS)):
    return cell(task, {**levels, LR: lr}, value, seeds, space=space)


def test_tuned_fields_are_no_difference_and_tuned_pairs_come_first():
    """Untuned, training helps; tuned, it does not: what helped was the learning rate."""
    parts = [tuned("image", NAIVE, SAME, 0.2), tuned("image", trained(), SAME, 0.1)]
    parts += [fixed("image", NAIVE, MORE), fixed("image", trained(), SAME)]
    for order in (parts, parts[::-1]):
        finding, by_task = find(results_of(*order, tuned=(LR,)), "1")
        assert words(by_task["image"]) == {"embedder.epochs 20 against naive": "no meaningful difference"}
        assert by_task["image"].judgements[0].differs == ""
        assert by_task["image"].setting.endswith("finetune.lr tuned")
        assert by_task["image"].n_other_settings == 1
        assert finding.kind == "supported"


def test_a_tuned_cell_is_never_compared_with_an_untuned_one_whatever_its_rate():
    parts = [tuned("image", trained(), LESS, 0.1), fixed("image", NAIVE, SAME, 0.1)]
    for factors in (FACTORS, (*FACTORS, LR)):  # the rate may be a factor of the other space
        finding, _ = find(results_of(*parts, factors=factors, tuned=(LR,)), "1")
        assert "no naive cell that equals a cell with a trained embedder" in finding.verdict


def test_cells_of_two_spaces_that_tried_other_rates_are_not_equally_tuned():
    parts = [tuned("image", NAIVE, SAME, 0.2), tuned("image", trained(), LESS, 0.1, (0.1, 0.3), space="other")]
    assert find(results_of(*parts, tuned=(LR,)), "1")[0].kind == "cannot be judged"
    parts[1] = tuned("image", trained(), LESS, 0.1, space="other")
    assert find(results_of(*parts, tuned=(LR,)), "1")[0].kind == "contradicted"


def test_amounts_that_only_untuned_cells_have_stand_beside_the_tuned_ones():
    parts = [tuned("image", NAIVE, SAME, 0.2), tuned("image", trained(), SAME, 0.1)]
    parts += [fixed("image", NAIVE, SAME), fixed("image", trained(), LESS), fixed("image", trained(5), LESS)]
    _, by_task = find(results_of(*parts, tuned=(LR,)), "1")
    assert words(by_task["image"]) == {
        "embedder.epochs 5 against naive, finetune.lr 0.1": "helps",
        "embedder.epochs 20 against naive": "no meaningful difference",
    }
    assert by_task["image"].says == "contradicts"


def test_seeds_that_only_one_space_planned_do_not_count_and_are_named():
    parts = [fixed("image", NAIVE, SAME, seeds=range(8)), fixed("image", trained(), LESS, space="b")]
    finding, by_task = find(results_of(*parts), "1")
    (judgement,) = by_task["image"].judgements
    assert (finding.kind, judgement.n, judgement.unplanned, judgement.gaps) == ("contradicted", SEEDS, (6, 7), "")
    notes = "\n".join(claims.build_tables(claims.compute(results_of(*parts), claims.Options(margin=["0.01"])))[1].notes)
    assert "seeds that only some of its cells were planned with do not count: 6, 7" in notes


def test_the_four_figures_of_two_tasks_collected_together_are_judged_like_each_alone():
    """Proxies, amounts, tuned freezing and pre-training, 2D and 1D; freezing on both tasks, at first and for good."""
    parts = []
    for task in ("image", "signal"):
        parts += [
            cell(task, {**trained(proxy=p), LR: 0.1}, LESS, space="2", proxy_labels_act=True)
            for p in ("mnist5k", "dummy")
        ]
        parts += [cell(task, {**NAIVE, LR: 0.1}, SAME, range(8), space="2")]
        parts += [cell(task, {**trained(epochs), LR: 0.1}, LESS, range(5), space="3") for epochs in (5, 40)]
        for length in ("2", "forever"):
            parts += [
                tuned(task, frozen("body", length), MORE, 0.2, space="4"),
                tuned(task, frozen("embedder", length), SAME, 0.1, space="4"),
            ]
        parts += [tuned(task, trained(), LESS, 0.2, space="4"), tuned(task, NAIVE, SAME, 0.1, space="4")]
        parts += [
            cell(
                task, {**trained(), "body.pretrain_fraction": 0, LR: 0.1}, SAME if task == "image" else LESS, space="5"
            )
        ]
    results = results_of(*parts, tuned=(LR,))
    made = claims.compute(results, claims.Options(margin=["0.01"]))
    kinds = {finding.claim.id: finding.kind for finding in made.findings}
    assert kinds == {
        "1": "contradicted",
        "2": "supported",
        "3": "supported",
        "4a": "supported",
        "4b": "supported",
        "5": "supported",
        "6": "cannot be judged",
        "7": "cannot be judged",
        "8": "cannot be judged",
    }
    by_claim = {finding.claim.id: {task.task: task for task in finding.shown} for finding in made.findings}
    for claim in ("4a", "4b"):
        assert all(task.setting.endswith("finetune.lr tuned") for task in by_claim[claim].values())
        assert all(j.differs == "" for task in by_claim[claim].values() for j in task.judgements)
    assert {j.name for j in by_claim["1"]["image"].judgements} == {
        "embedder.epochs 5 against naive, finetune.lr 0.1",
        "embedder.epochs 20 against naive",
        "embedder.epochs 40 against naive, finetune.lr 0.1",
    }
    assert [task.task for task in made.findings[2].information] == ["signal"]
    claims.build_tables(made)
    claims.numbers(made)


# Attacks ------------------------------------------------------------------------------------------


def test_one_dimensional_tasks_are_shown_and_never_counted():
    signal = world("signal", amounts={20: SAME}, proxies={"dummy": LESS})
    finding, by_task = find(results_of(signal), "3")
    assert (finding.kind, by_task["signal"].says) == ("cannot be judged", "contradicts")
    image = world("image", amounts={20: SAME}, proxies={"dummy": SAME})
    both, by_task = find(results_of(signal, image), "3")
    axis = claims.plot(claims.compute(results_of(signal, image), claims.Options(margin=["0.01"]))).axes[2]
    notes = [text.get_text().replace("\n", " ") for text in axis.texts]
    assert ["shown only" in note for note in notes] == [False, True]
    alone, lone = find(results_of(image), "3")
    assert both.summary == alone.summary == "supported, resting on one task (image)"
    # Nor do they cost the tasks that count any power.
    assert by_task["image"].judgements[0].p_within == lone["image"].judgements[0].p_within


@pytest.mark.parametrize("difference", [0.0, -0.25])
def test_equal_differences_give_no_word(difference):
    """Three equal pairs: without a spread there is no test."""
    parts = [
        trial({"task": "image", **levels}, seed, 0.5 + shift, dims=2, proxy_labels_act=True)
        for levels, shift in ((NAIVE, 0.0), (trained(), difference))
        for seed in range(3)
    ]
    finding, by_task = find(results_of(parts), "1")
    assert finding.kind == "cannot be judged"
    (judgement,) = by_task["image"].judgements
    assert judgement.unjudged.reason == "no-spread" and "so their spread is unknown" in judgement.sentence
    assert (judgement.n_family, math.isnan(by_task["image"].detectable)) == (0, True)
    assert "more seeds alone may not tell" in by_task["image"].add
    row = claims.build_tables(claims.compute(results_of(parts), claims.Options(margin=["0.01"])))[1].blocks[0][0]
    assert row[7] == NOTHING


def test_equal_differences_of_one_task_take_no_power_from_the_others():
    zero = [
        trial({"task": "picture", **levels}, seed, 0.5, dims=2, proxy_labels_act=True)
        for levels in (NAIVE, trained())
        for seed in range(SEEDS)
    ]
    finding, by_task = find(results_of(world("image", amounts={20: SAME}), zero), "1")
    assert finding.summary == "supported, resting on one task (image); 1 not judged"
    assert by_task["image"].judgements[0].n_family == 1


def test_one_huge_effect_counts_as_one_task():
    parts = [world(task, amounts={20: SAME}) for task in ("image", "picture")]
    huge = [trial({"task": "vast", **levels}, s, 1e6 * v + 1e3 * noise("vast", 9 * s + v), dims=2, proxy_labels_act=True)
            for levels, v in ((NAIVE, 9), (trained(), 1)) for s in range(SEEDS)]  # fmt: skip
    finding, _ = find(results_of(*parts, huge), "1", margin=("0.01", "vast=1"))
    assert finding.summary == "supported: 2 of 3 tasks support it, 1 contradicts it"


def test_a_margin_of_zero_never_supports_and_says_so():
    finding, by_task = find(results_of(world("image", amounts={20: SAME})), "1", margin=("0",))
    task = by_task["image"]
    assert (finding.kind, task.says, task.power.chance_of_none) == ("undecided", "undecided", 0)
    assert "margin 0 can never be reached" in task.add


def test_training_towards_noise_alone_is_no_embedder_training():
    parts = [cell("image", NAIVE, SAME), cell("image", trained(proxy="dummy"), SAME)]
    finding, _ = find(results_of(*parts), "1")
    assert "no cell with an embedder that is trained towards a real proxy" in finding.verdict
    assert find(results_of(*parts), "3")[0].kind == "cannot be judged"


def test_power_and_seeds_are_said_where_a_task_is_undecided():
    spread = [
        trial({"task": "image", **levels}, seed, 0.3 + value, dims=2, proxy_labels_act=True)
        for levels, values in ((NAIVE, [0.0] * 5), (trained(), [0.02, -0.018, 0.012, -0.014, 0.001]))
        for seed, value in enumerate(values)
    ]
    finding, by_task = find(results_of(spread), "1")
    task = by_task["image"]
    assert task.says == "undecided" and finding.kind == "undecided"
    assert task.detectable == pytest.approx(0.01 + smallest_effect(5) * task.leading.sd)
    assert 0 <= task.power.chance_of_none < 0.5
    note = next(
        n
        for n in claims.build_tables(claims.compute(results_of(spread), claims.Options(margin=["0.01"])))[1].notes
        if "could" in n
    )
    assert note.startswith("image: 5 pairs could have shown 0.037 or more; margin 0.01 was out of reach")
    assert f"about {task.power.seeds_for_margin:.0f} bring the margin within reach" in task.add
    assert finding.add == f"image: {task.add}"
    assert "image 0.037" in finding.power and "in reach on 0 of 1 task" in finding.power


def test_the_columns_of_the_numbers_say_power_and_what_to_add(tmp_path):
    results = tables(tmp_path, world("image", amounts={20: SAME + 0.01}), margins={"": 0.01})
    first = claims.numbers(claims.compute(results)).splitlines()[0].split(",")
    new = {"origin", "source", "claim_could_have_shown", "claim_needs", "is_counted", "task_says_in_words", "detectable",
           "chance_of_no_difference", "seeds_for_margin", "seeds_to_decide", "task_could_have_shown", "task_needs", "decides",
           "sd_of_differences", "seeds_not_planned_in_all", "is_leading"}  # fmt: skip
    assert new <= set(first)
