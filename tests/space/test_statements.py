"""Statements about tasks are joined where they are equal, and never say more than each of them does."""

from orca_sweep.space.statements import TASKS, Statement, join_spaces, join_statements, name_spaces


def about(*tasks, text=f"cells of {TASKS} differ", part=""):
    return Statement(text=text, tasks=tuple((task, part) for task in tasks))


def test_equal_statements_of_several_tasks_are_one():
    (joined,) = join_statements([about("digits"), about("ecg"), about("digits")])
    assert str(about("digits")) == "cells of digits differ"
    assert str(joined) == "cells of each of digits, ecg differ"
    assert joined.write(["ecg", "digits"]) == "cells of each task differ"
    assert joined.write(["ecg", "digits", "tiny"]) == str(joined)
    assert len(join_statements([about("digits"), about("ecg", text="other")])) == 2


def test_what_is_particular_to_tasks_is_written_once():
    rates = [about(task, text=f"rate: {TASKS}", part=part) for task, part in (("a", "0.1"), ("b", "0.3"), ("c", "0.1"))]
    assert [str(joined) for joined in join_statements(rates)] == ["rate: 0.1 (a, c); 0.3 (b)"]


def test_spaces_with_different_tasks_share_a_sentence_that_is_true_of_each():
    by_space = {"one": [about("a"), about("b")], "two": [about("c")], "three": []}
    assert join_spaces(by_space, {"one": ["a", "b"], "two": ["c"], "three": ["a"]}) == [
        "one, two: cells of each task differ"
    ]


def test_a_sentence_never_says_of_a_space_what_holds_for_another():
    # In space two, a does not differ.
    by_space = {"one": [about("a")], "two": [about("b")], "three": [about("b")]}
    assert join_spaces(by_space, {"one": ["a", "b"], "two": ["a", "b"], "three": ["b"]}) == [
        "one: cells of a differ", "two, three: cells of b differ",
    ]  # fmt: skip
    # The same task has another rate elsewhere.
    rates = {name: [about("a", text=f"rate: {TASKS}", part=part)] for name, part in (("one", "0.1"), ("two", "0.3"))}
    assert join_spaces(rates, {"one": ["a"], "two": ["a"]}) == ["one: rate: 0.1 (a)", "two: rate: 0.3 (a)"]


def test_spaces_are_named_in_the_shorter_way():
    assert name_spaces(["a"], ["a"]) == "a"
    assert name_spaces(["a", "b"], ["a", "b"]) == "all spaces"
    assert name_spaces(["a", "b"], ["a", "b", "c"]) == "a, b"
    assert name_spaces(["a_proxies", "b_amounts"], ["a_proxies", "b_amounts", "c"]) == "all spaces but c"
