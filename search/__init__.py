"""Find the most accurate image model that keeps a latency budget on a device.

```python
import search

result = search.search(search.Settings(budget_ms=5, data="./defects"))
```
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from remote.deprecated_names import install

if TYPE_CHECKING:
    from evaluators.measurement import Measurement
    from search.budget import Budget
    from search.result import Result
    from search.run import search
    from search.settings import Settings

# Names are imported at their first use: importing the package costs nothing, and `--help` stays fast.
_PLACES = {
    "Budget": "search.budget",
    "Measurement": "evaluators.measurement",
    "Result": "search.result",
    "Settings": "search.settings",
    "search": "search.run",
}

install()

__all__ = ["Budget", "Measurement", "Result", "Settings", "search"]


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module 'search' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
