"""The verdict on a claim about tasks, from what each task says.

**The rule.** Of the n tasks that a claim concerns and that can be judged, s support it, c contradict it and u are undecided.
A claim names its least share of tasks, four of six unless it says otherwise; as a number of tasks it is rounded up, never
down: 1 of 1, 2 of 2, 2 of 3, 3 of 4, 4 of 5, 4 of 6. The claim is

- *supported* if s reaches the least share, whatever the undecided tasks would say;
- *contradicted* if c is so large that s could not reach the least share even if all undecided tasks supported the claim;
- *mixed* if neither holds and tasks disagree: undecided tasks could still tip it either way;
- *undecided* if neither holds and the tasks that are decided agree, or none is decided;
- *not judged* if no task can be judged.

**A claim about some tasks**, such as "helps on some tasks, and not on others", needs one task of either kind, and no share. It is
contradicted if at least two tasks are judged, all are decided and all are of one kind; one task alone decides nothing.

The verdict of one task alone says that it rests on one task.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["supported", "contradicted", "mixed", "undecided", "cannot be judged"]
Says = Literal["supports", "contradicts", "undecided", "cannot be judged"]
SAYS: tuple[Says, ...] = ("supports", "contradicts", "undecided", "cannot be judged")
LEAST_SHARE = 4 / 6
UNJUDGED = "cannot be judged from these rows"


@dataclass(frozen=True, kw_only=True)
class Votes:
    """How many of the tasks that a claim concerns say what."""

    supports: int
    contradicts: int
    undecided: int
    unjudged: int = 0

    @property
    def judged(self) -> int:
        """Tasks that can be judged."""
        return self.supports + self.contradicts + self.undecided


def count_votes(says: Sequence[Says]) -> Votes:
    """Returns how many tasks say what."""
    supports, contradicts, undecided, unjudged = (says.count(word) for word in SAYS)
    return Votes(supports=supports, contradicts=contradicts, undecided=undecided, unjudged=unjudged)


def count_tasks_needed(least_share: float, n: int) -> int:
    """Returns the fewest of n tasks that make up the least share: never fewer than that share, and at least one."""
    return max(1, math.ceil(least_share * n - 1e-9))


def judge_share(votes: Votes, least_share: float = LEAST_SHARE) -> Kind:
    """Returns the verdict on a claim about tasks; see the rule above."""
    if votes.judged == 0:
        return "cannot be judged"
    needed = count_tasks_needed(least_share, votes.judged)
    if votes.supports >= needed:
        return "supported"
    if votes.supports + votes.undecided < needed:
        return "contradicted"
    return "mixed" if votes.supports and votes.contradicts else "undecided"


def judge_some(votes: Votes) -> Kind:
    """Returns the verdict on a claim that some tasks are of one kind and some of the other; see the rule above."""
    if votes.judged == 0:
        return "cannot be judged"
    if votes.supports and votes.contradicts:
        return "supported"
    return "undecided" if votes.undecided or votes.judged == 1 else "contradicted"


def describe_rule(least_share: float, n: int, *, of_some: bool) -> str:
    """Returns the rule as sentences, for n tasks that can be judged."""
    if of_some:
        return (
            "The claim is supported if it holds on one task at least and does not on another, and contradicted if two tasks"
            " or more are judged, none is undecided and all say the same."
        )
    needed = count_tasks_needed(least_share, n) if n else 0
    here = f", here {needed} of {n}" if n else ""
    return (
        f"The claim is supported if at least {_write_share(least_share)} of the tasks that can be judged support it"
        f" (rounded up{here}), contradicted if so many contradict it that undecided tasks cannot make up that share, mixed"
        " if tasks disagree and undecided ones could still tip it, else undecided."
    )


def _write_share(share: float) -> str:
    return "4 in 6" if math.isclose(share, LEAST_SHARE) else f"{100 * share:.3g}%"


def write_summary(kind: Kind, says: Mapping[str, Says], words: Mapping[Says, str]) -> str:
    """Returns the verdict as people read it, with the number of tasks behind it.

    Args:
        kind: the verdict.
        says: what each task says, by its name.
        words: for a claim with words of its own, what a task of either kind is called, such as 'helps'.
    """
    votes = count_votes(list(says.values()))
    if kind == "cannot be judged":
        return UNJUDGED
    if votes.judged == 1:
        (name,) = (task for task, word in says.items() if word != "cannot be judged")
        return f"{kind}, resting on one task ({name}){_count_unjudged(votes)}"
    parts = _count_by_word(votes, words) if words else _count_votes_in_words(votes)
    return f"{kind}: {', '.join(parts)}{_count_unjudged(votes)}"


def _count_votes_in_words(votes: Votes) -> list[str]:
    """Returns '4 of 6 tasks support it', '1 contradicts it', '1 is undecided'; the more frequent first."""
    counts = [(votes.supports, "supports it", "support it"), (votes.contradicts, "contradicts it", "contradict it")]
    counts = [*sorted(counts, key=lambda count: -count[0]), (votes.undecided, "is undecided", "are undecided")]
    texts = [(n, singular if n == 1 else plural) for n, singular, plural in counts if n]
    (n, first), *rest = texts
    return [f"{n} of {votes.judged} tasks {first}", *(f"{n} {text}" for n, text in rest)]


def _count_by_word(votes: Votes, words: Mapping[Says, str]) -> list[str]:
    counts = {
        words["contradicts"]: votes.contradicts,
        words["supports"]: votes.supports,
        "is undecided": votes.undecided,
    }
    return [f"{word} on {n} of {votes.judged} tasks" for word, n in counts.items() if n]


def _count_unjudged(votes: Votes) -> str:
    return f"; {votes.unjudged} not judged" if votes.unjudged else ""
