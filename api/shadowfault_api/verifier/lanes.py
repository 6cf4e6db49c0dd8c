"""A thread for each side: both servers work at once, and each does one thing at a time for a scan."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from shadowfault_api.verifier.stores import Store

_T = TypeVar("_T")


class Lane(NamedTuple):
    """A side and its thread; what it is asked is answered in that order."""

    store: Store
    pool: ThreadPoolExecutor

    def ask(self, look: Callable[[Store], _T]) -> Future[_T]:
        """Have the side looked at when its turn comes."""
        return self.pool.submit(look, self.store)


class Lanes(NamedTuple):
    """Both sides."""

    primary: Lane
    shadow: Lane

    @classmethod
    @contextmanager
    def opened(cls, primary: Store, shadow: Store) -> Iterator[Self]:
        """Make the threads; at the end what they are asked is waited for."""
        with ThreadPoolExecutor(1, "primary") as here, ThreadPoolExecutor(1, "shadow") as there:
            yield cls(Lane(primary, here), Lane(shadow, there))

    def ask(self, look: Callable[[Store], _T]) -> tuple[Future[_T], Future[_T]]:
        """Have both looked at."""
        return self.primary.ask(look), self.shadow.ask(look)

    def both(self, look: Callable[[Store], _T]) -> tuple[_T, _T]:
        """Look at both, and wait for them."""
        return answers(self.ask(look))


def answers(asked: tuple[Future[_T], Future[_T]]) -> tuple[_T, _T]:
    """Wait for both answers, also where the first is an error: nothing goes on behind the caller's back."""
    here, there = asked
    for error in (here.exception(), there.exception()):
        if error is not None:
            raise error
    return here.result(), there.result()
