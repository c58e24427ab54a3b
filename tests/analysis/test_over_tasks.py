"""The rule that turns what tasks say into a verdict, over the whole grid of counts."""

import itertools
import math

import pytest

from orca_sweep.analysis.over_tasks import (
    LEAST_SHARE,
    Votes,
    count_tasks_needed,
    count_votes,
    describe_rule,
    judge_share,
    judge_some,
    write_summary,
)

GRID = [
    Votes(supports=s, contradicts=c, undecided=u, unjudged=j)
    for s, c, u, j in itertools.product(range(7), repeat=4)
    if s + c + u + j <= 6
]
ORDER = {"contradicted": 0, "mixed": 1, "undecided": 1, "supported": 2}
RULES = [judge_share, judge_some]


def change(votes, **by):
    return Votes(**{name: getattr(votes, name) + by.get(name, 0) for name in vars(votes)})


def test_the_share_is_rounded_up_and_never_asks_for_unanimity_from_three_tasks_on():
    assert [count_tasks_needed(LEAST_SHARE, n) for n in range(1, 8)] == [1, 2, 2, 3, 4, 4, 5]
    assert all(count_tasks_needed(LEAST_SHARE, n) / n >= LEAST_SHARE - 1e-12 for n in range(1, 50))
    assert [count_tasks_needed(share, 6) for share in (0, 0.5, 1)] == [1, 3, 6]


def test_each_verdict_of_the_grid_is_what_the_rule_says():
    """Written out a second time, by what undecided tasks could still become."""
    for votes in GRID:
        n = votes.judged
        ends = (
            {(votes.supports + more) / n >= LEAST_SHARE - 1e-12 for more in range(votes.undecided + 1)} if n else set()
        )
        expected = (
            {True: "supported", False: "contradicted"}[ends.pop()]
            if len(ends) == 1
            else "cannot be judged"
            if not n
            else "mixed"
            if votes.supports and votes.contradicts
            else "undecided"
        )
        assert judge_share(votes) == expected, votes


def test_a_vote_never_moves_a_verdict_against_itself():
    for votes in GRID:
        if not votes.judged:
            continue
        here = ORDER[judge_share(votes)]
        if votes.undecided:
            assert ORDER[judge_share(change(votes, undecided=-1, supports=1))] >= here
            assert ORDER[judge_share(change(votes, undecided=-1, contradicts=1))] <= here
        if votes.contradicts:
            assert ORDER[judge_share(change(votes, contradicts=-1, supports=1))] >= here
        assert ORDER[judge_share(change(votes, supports=1))] >= here
        assert ORDER[judge_share(change(votes, contradicts=1))] <= here


def test_decided_verdicts_outlive_all_that_undecided_tasks_can_say():
    for rule, votes in itertools.product(RULES, GRID):
        kind = rule(votes)
        ends = {
            rule(change(votes, undecided=-votes.undecided, supports=s, contradicts=votes.undecided - s))
            for s in range(votes.undecided + 1)
        }
        if kind in ("supported", "contradicted"):
            assert ends == {kind}, (rule, votes)
        elif votes.undecided and votes.judged > 1:
            assert len(ends) > 1, (rule, votes)  # undecided tasks can tip it


def test_tasks_that_cannot_be_judged_have_no_vote():
    for rule, votes in itertools.product(RULES, GRID):
        assert rule(votes) == rule(change(votes, unjudged=-votes.unjudged))
        assert (rule(votes) == "cannot be judged") == (votes.judged == 0)


def test_a_claim_about_some_tasks_needs_both_kinds_and_one_task_decides_nothing():
    for votes in GRID:
        kind = judge_some(votes)
        assert (kind == "supported") == (votes.supports > 0 and votes.contradicts > 0)
        if votes.judged == 1:
            assert kind == "undecided"
        if kind == "contradicted":
            assert votes.judged > 1 and not votes.undecided


@pytest.mark.parametrize(
    ("says", "kind", "summary"),
    [
        ("s", "supported", "supported, resting on one task (a)"),
        ("sjj", "supported", "supported, resting on one task (a); 2 not judged"),
        ("ssc", "supported", "supported: 2 of 3 tasks support it, 1 contradicts it"),
        ("sss", "supported", "supported: 3 of 3 tasks support it"),
        ("scc", "contradicted", "contradicted: 2 of 3 tasks contradict it, 1 supports it"),
        ("ssscc", "contradicted", "contradicted: 3 of 5 tasks support it, 2 contradict it"),
        ("sccuuu", "mixed", "mixed: 2 of 6 tasks contradict it, 1 supports it, 3 are undecided"),
        ("uu", "undecided", "undecided: 2 of 2 tasks are undecided"),
        ("jj", "cannot be judged", "cannot be judged from these rows"),
    ],
)
def test_the_summary_counts_tasks_and_names_a_lone_one(says, kind, summary):
    names = {"s": "supports", "c": "contradicts", "u": "undecided", "j": "cannot be judged"}
    by_task = {task: names[letter] for task, letter in zip("abcdef", says, strict=False)}
    assert judge_share(count_votes(list(by_task.values()))) == kind
    assert write_summary(kind, by_task, {}) == summary


def test_the_rule_is_the_same_in_words():
    assert "at least 4 in 6 of the tasks that can be judged support it (rounded up, here 2 of 3)" in describe_rule(
        LEAST_SHARE, 3, of_some=False
    )
    assert "at least 50% of" in describe_rule(0.5, 0, of_some=False)
    assert "on one task at least and does not on another" in describe_rule(math.nan, 3, of_some=True)
