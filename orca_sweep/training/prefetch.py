"""Reading ahead: a thread fetches the next item while the current item is in use."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Fetched = TypeVar("Fetched")


def prefetch(fetch: Callable[[Item], Fetched], items: Sequence[Item]) -> Iterator[Fetched]:
    """Yields ``fetch(item)`` for every item in order, while a thread fetches the next item.

    An error in ``fetch`` is raised where its result would be yielded; nothing is fetched after it. The thread ends with
    the generator: close the generator (``contextlib.closing``) if the loop over it may end early.
    """
    if not items:
        return
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(fetch, items[0])
        for following in items[1:]:
            fetched = ahead.result()
            ahead = pool.submit(fetch, following)
            yield fetched
        yield ahead.result()
