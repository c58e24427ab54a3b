"""Checks of a user's own functions, such as losses and metrics, and reports of the errors that they raise."""

import inspect
from collections.abc import Iterable, Sequence

from orca_sweep.errors import InputError, OrcaSweepError, is_of_users_code, out_of_memory
from orca_sweep.registry import explain_name


def refuse_record(kind: str, name: object, meaning: object, problems: Iterable[str | None]) -> None:
    """Raises InputError with everything that is wrong with a record: its name, its meaning, and the given problems."""
    no_meaning = None if isinstance(meaning, str) and meaning.strip() else "it has no meaning. Say in words what it is."
    texts = [text for text in (explain_name(name), no_meaning, *problems) if text]
    if texts:
        raise InputError([f"{kind} {name!r:.80}: {text}" for text in texts])


def explain_function(function: object, arguments: str) -> str | None:
    """Returns why something cannot be called with predictions and targets; None if it can, or if its signature is unknown."""
    if not callable(function):
        return f"{function!r:.60} is not callable. Give a function of {arguments}."
    try:
        inspect.signature(function).bind(None, None)
    except TypeError as error:
        return f"its function does not take {arguments}: {error}. Give one that takes these two."
    except ValueError:  # some compiled functions have no signature
        return None
    return None


def to_input_error(where: str, error: BaseException, prediction: Sequence[int], target: Sequence[int]) -> BaseException:
    """Returns the exception to raise for an error in a loss or metric.

    Errors of this package, lack of memory, and exits that the user's code did not ask for stay as they are.
    """
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
