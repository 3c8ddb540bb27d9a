"""Recognise exceptions that were caused by a lack of memory. The module has no heavy imports."""

from __future__ import annotations

from collections.abc import Iterator

# Phrases (lower case) in errors other than MemoryError: those of torch and its CUDA, ONNX Runtime, C++ and Python's
# threads.
WORDS = (
    "can't allocate memory",
    "cannot allocate memory",
    "failed to allocate memory",
    "unable to allocate",
    "not enough memory",
    "out of memory",
    "bad_alloc",
    "bad allocation",
    "can't start new thread",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a lack of memory on this machine caused an exception.

    Args:
        error: An exception; its causes and contexts are examined too.
    """
    return any(is_lack_of_memory(cause) for cause in chain(error))


def is_lack_of_memory(error: BaseException) -> bool:
    """Return whether an exception itself reports a lack of memory.

    Args:
        error: An exception; its causes are not examined.
    """
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in WORDS)


def chain(error: BaseException) -> Iterator[BaseException]:
    """Iterate over an exception and the exceptions that led to it.

    Args:
        error: The first item; the others follow its `__cause__` or else its `__context__`.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__
