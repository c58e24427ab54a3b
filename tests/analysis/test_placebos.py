"""Placebos that cannot act: every analysis says so, and no claim counts them."""

from dataclasses import replace

import pytest

from orca_sweep.analysis import claims, seed_noise, table_effects, table_results
from orca_sweep.analysis.catalogue import make_output
from orca_sweep.analysis.compared import compared
from orca_sweep.analysis.placebos import describe_idle_placebos, find_idle_placebos
from orca_sweep.analysis.report import record
from tests.builders.claims import NAIVE, cell, tables, trained

REAL, SHUFFLED = trained(), trained(proxy="shuffled:mnist5k")
ACTS = "Permuted labels cannot act in proxy shuffled:mnist5k (1 cell; image; embedder.objective otdd-exact)"


def sweep_of(folder, act, *more, levels=None, **columns):
    """Naive, real and shuffled cells of a task, whose rows say this of the labels."""
    shuffled = {**SHUFFLED, **(levels or {})}
    parts = [(NAIVE, 0.3, None), ({**REAL, **(levels or {})}, 0.2, act), (shuffled, 0.2, act), *more]
    return tables(folder, *(cell("image", of, value, proxy_labels_act=known, **columns) for of, value, known in parts))


def ids_of(results, proxy="shuffled:mnist5k"):
    return set(results.trials.loc[results.trials["proxy"] == proxy, "cell_id"])


@pytest.mark.parametrize(
    ("act", "levels", "known"),
    [
        (True, {}, "acts"),
        (False, {}, False),
        (None, {}, None),
        # Rows of earlier versions: what every objective with that setting obeys.
        (None, {"embedder.label_gradient": False}, False),
        (None, {"embedder.label_gradient": True}, "acts"),
        # What was measured wins.
        (False, {"embedder.label_gradient": True}, False),
    ],
)
def test_the_rows_say_which_placebos_can_act(tmp_path, act, levels, known):
    results = sweep_of(tmp_path, act, levels=levels)
    idle = find_idle_placebos(results)
    assert idle == ({} if known == "acts" else dict.fromkeys(ids_of(results), known))
    assert len(describe_idle_placebos(results)) == len(idle)


def test_a_placebo_that_cannot_act_is_no_evidence_and_the_reason_names_what_to_change(tmp_path):
    """The error is equal to the real proxy's: counted, the placebo would support claim 3."""
    counted = verdict_on_proxies(sweep_of(tmp_path / "a", True))
    assert (counted.kind, len(counted.tasks[0].judgements)) == ("supported", 1)
    idle = verdict_on_proxies(sweep_of(tmp_path / "b", False))
    assert idle.kind == "cannot be judged"
    assert idle.verdict.endswith(
        "image: only one proxy (mnist5k), and the claim needs two; proxy shuffled:mnist5k does not count, since permuted"
        " labels count for nothing where labels cannot act: choose an objective whose gradient uses labels, such as"
        " otdd-gaussian, or set embedder.label_gradient: true where the objective takes it"
    )
    unknown = verdict_on_proxies(sweep_of(tmp_path / "c", None))
    assert "the rows do not say whether permuted labels can act there (proxy_labels_act)" in unknown.verdict
    named = verdict_on_proxies(sweep_of(tmp_path / "d", False), base=["proxy=shuffled:mnist5k"])
    assert named.kind == "cannot be judged" and "does not count" in named.verdict


def verdict_on_proxies(results, **asked):
    made = claims.compute(results, claims.Options(margin=["0.02"], **asked))
    return next(finding for finding in made.findings if finding.claim.compares_proxies)


def test_other_placebos_still_count_and_the_table_says_what_does_not(tmp_path):
    results = sweep_of(tmp_path, False, (trained(proxy="dummy"), 0.2, False))
    finding = verdict_on_proxies(results)
    assert (finding.kind, [j.name for j in finding.tasks[0].judgements]) == (
        "supported",
        ["proxy dummy against mnist5k"],
    )
    (table,) = [
        table
        for table in claims.build_tables(claims.compute(results, claims.Options(margin=["0.02"])))
        if table.name == "claims-3"
    ]
    assert any(note.startswith("image: proxy shuffled:mnist5k does not count") for note in table.notes)


def test_a_sweep_of_placebos_alone_judges_nothing(tmp_path):
    """Without the real proxy, the trained cells of claim 1 are a placebo's."""
    parts = [(NAIVE, 0.3, None), (SHUFFLED, 0.2, False)]
    results = tables(tmp_path, *(cell("image", of, value, proxy_labels_act=act) for of, value, act in parts))
    made = claims.compute(results, claims.Options(margin=["0.02"]))
    assert {finding.kind for finding in made.findings} == {"cannot be judged"}
    assert "no cell with a trained embedder" in made.findings[0].verdict
    assert "does not count" in made.findings[0].verdict


NOTED = {
    "table_effects": lambda results: list(table_effects.compute(results, margin=["0.02"]).notes),
    "table_results": lambda results: list(table_results.compute(results).notes),
    "claims": lambda results: list(claims.compute(results, claims.Options(margin=["0.02"])).notes),
    "seed_noise": lambda results: list(seed_noise.compute(results).notes),
    "report": lambda results: list(record.compute(results, margin=["0.02"]).notes),
    "every other": lambda results: list(compared(compared(results)).notes),
}


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory):
    """One sweep in which the labels act, one in which they cannot, and one whose rows do not say."""
    return {act: sweep_of(tmp_path_factory.mktemp("placebos"), act) for act in (True, False, None)}


@pytest.mark.parametrize("name", NOTED)
def test_every_analysis_that_shows_the_cell_says_so(sweeps, name):
    notes = {act: NOTED[name](results) for act, results in sweeps.items()}
    assert sum(note.startswith(ACTS) for note in notes[False]) == 1
    assert not any("labels" in note for note in notes[True])
    assert sum(note.startswith("Nobody knows whether permuted labels can act in") for note in notes[None]) == 1


@pytest.mark.parametrize("name", ["table_effects", "table_results", "claims", "seed_noise", "figure2_proxies"])
def test_what_is_written_says_so_once(sweeps, name):
    """In tables as a note, in figures in the caption."""
    output = make_output(name, sweeps[False], {})
    texts = [" ".join((table.caption, *table.notes)) for table in output.tables]
    if output.figure is not None and name.startswith("figure"):
        texts = [" ".join(" ".join(text.get_text().split()) for text in output.figure.findobj(match=is_text))]
    assert sum(text.count("Permuted labels cannot act") for text in texts) >= 1
    assert max(text.count("Permuted labels cannot act") for text in texts) == 1


def is_text(artist):
    from matplotlib.text import Text

    return isinstance(artist, Text)


def test_candidates_of_tuning_and_missing_columns_say_nothing(sweeps):
    results = sweeps[False]
    for drop in ([], ["embedder.objective"], ["proxy_labels_act"], ["proxy"]):
        trials = results.trials.drop(columns=drop)
        changed = replace(results, trials=trials, factors=("embedder.epochs",))
        known = find_idle_placebos(changed)
        assert len(known) == (0 if drop == ["proxy"] else 1)
        assert len(describe_idle_placebos(changed)) == len(known)
    assert find_idle_placebos(replace(results, trials=results.trials.assign(role="search"))) == {}
