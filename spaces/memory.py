"""Tell a lack of memory from everything else that an exception may say; free of heavy imports."""

from __future__ import annotations

from collections.abc import Iterator

# What libraries say of it in errors that are no MemoryError, in lower case: torch and its CUDA, ONNX Runtime, C++,
# Python's threads.
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
    """Return True if a lack of memory on this machine raised an exception, or one of those that led to it."""
    return any(is_lack_of_memory(cause) for cause in chain(error))


def is_lack_of_memory(error: BaseException) -> bool:
    """Return True if an exception itself says that there is no memory."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in WORDS)


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those that led to it."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__
