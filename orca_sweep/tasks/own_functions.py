"""What is asked of a user's own functions, such as losses and metrics, and how their errors are told."""

import inspect
from collections.abc import Sequence

from orca_sweep.errors import InputError, OrcaSweepError, is_of_users_code, out_of_memory
from orca_sweep.registry import explain_name


def refuse_record(kind: str, name: object, function_problem: str | None, meaning: object, *more: str | None) -> None:
    """Raises InputError with all that is wrong with a record, naming it."""
    no_meaning = None if isinstance(meaning, str) and meaning.strip() else "it has no meaning. Say in words what it is."
    problems = [text for text in (explain_name(name), function_problem, no_meaning, *more) if text]
    if problems:
        raise InputError([f"{kind} {name!r:.80}: {problem}" for problem in problems])


def explain_function(function: object, arguments: str) -> str | None:
    """Returns why something cannot be called with predictions and targets; None if it can, or cannot tell."""
    if not callable(function):
        return f"{function!r:.60} is not callable. Give a function of {arguments}."
    try:
        inspect.signature(function).bind(None, None)
    except TypeError as error:
        return f"its function does not take {arguments}: {error}. Give one that takes these two."
    except ValueError:  # compiled functions have no signature
        return None
    return None


def to_input_error(where: str, error: BaseException, prediction: Sequence[int], target: Sequence[int]) -> BaseException:
    """Returns what to raise for an error in a loss or metric: our own errors, lack of memory and the system's stay."""
    if isinstance(error, OrcaSweepError) or out_of_memory(error):
        return error
    if not isinstance(error, Exception) and not is_of_users_code(error):
        return error
    words = " ".join(str(error).split()).rstrip(".")
    text = f"{type(error).__name__}: {words}" if words else type(error).__name__
    return InputError(
        f"{where} raised {text} on predictions of shape {tuple(prediction)} and targets of shape {tuple(target)}. Correct"
        " it, or name another."
    )
