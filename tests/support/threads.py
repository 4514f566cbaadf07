"""Work in other threads of this process."""

import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def background(run: Callable[..., object], *arguments: Any, seconds: float = 60) -> Iterator[threading.Thread]:
    """Run a function beside the block; after the block it must end within ``seconds``."""
    thread = threading.Thread(target=run, args=arguments, daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(seconds)
    assert not thread.is_alive()


@contextmanager
def repeating(run: Callable[[], object]) -> Iterator[None]:
    """Call a function again and again until the end of the block."""
    is_over = threading.Event()

    def repeat() -> None:
        while not is_over.is_set():
            run()

    with background(repeat):
        try:
            yield
        finally:
            is_over.set()


def concurrently(run: Callable[[T], R], each: Collection[T]) -> list[R]:
    """Call a function for each, all from the same moment; what each call returned."""
    start = threading.Barrier(len(each))

    def begin(one: T) -> R:
        start.wait(10)
        return run(one)

    with ThreadPoolExecutor(len(each)) as pool:
        return list(pool.map(begin, each))
