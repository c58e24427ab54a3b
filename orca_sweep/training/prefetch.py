"""Reading ahead: the next item is fetched in a thread while the present one is used."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Fetched = TypeVar("Fetched")


def prefetch(fetch: Callable[[Item], Fetched], items: Sequence[Item]) -> Iterator[Fetched]:
    """Yields ``fetch(item)`` of every item, in order, and fetches one item ahead in a thread.

    An error in ``fetch`` is raised where its result would be yielded; nothing is fetched after it. The thread ends with
    the generator: close it (``contextlib.closing``) where the loop over it may end early.
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
