"""The smoke form of the offline study, run to its end: every space, task, and stage of it once in small."""

import pytest

from orca_sweep import Suite, Sweep
from tests.commands import warm_workers

TASKS = {"digits", "terrain", "brain-tissue", "watch-exercises", "vowels", "peptides"}


@pytest.fixture(scope="module")
def study(head, tmp_path_factory):
    """The suite after its launch."""
    out = tmp_path_factory.mktemp("study") / "study_offline-smoke"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in warm_workers().items():
            patch.setenv(name, value)
        Suite.from_yaml("study_offline").plan(smoke=True, out=out).launch(address=head.address, progress=False)
    return Sweep.open(out)


def test_every_trial_of_every_space_ends_well(study):
    status = study.status()
    assert set(status.statuses) == {"ok"}
    assert len(status.members) == 14
    trials = study.results(all_columns=True)
    assert set(trials["task"]) == TASKS
    assert trials["val_metric_best"].notna().all()
    assert len(set(trials["trial_id"])) == status.n_planned < sum(member.n_planned for member in status.members)


def test_a_second_plan_has_nothing_to_run(study):
    cost = Suite.from_yaml("study_offline").plan(smoke=True, out=study.folder).cost
    assert (cost.n_left, cost.n_done) == (0, study.status().n_planned)


def test_the_page_answers_with_a_warning_and_no_claim_is_judged(study, tmp_path):
    page = study.report(tmp_path / "report.html").read_text()
    assert page.index("believe no") < page.index("completeness")
    assert set(study.claims()["verdict"]) == {"cannot be judged"}  # one seed
