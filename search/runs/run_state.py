"""Record the dependencies of a run's measurements once, and compare them whenever the run is resumed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from remote.device import Facts
from search.settings import SettingsError
from search.storage.ledger import Ledger

STAGE = "state"
WORDS = {
    "data": "the data",
    "device": "the device",
    "runtimes": "the runtime",
    "recipe": "the training recipe",
    "weights": "the pretrained weights",
    "families": "the family file",
    "models": "the model file or its preprocessing",
}


def describe_device(facts: Facts, runtimes: dict[str, str]) -> dict[str, object]:
    """Return the dependencies of timings by name.

    Args:
        facts: Facts that the device reported.
        runtimes: Version by name of the space's runtimes; other installed runtimes have no effect.
    """
    return {
        "device": {
            "machine": facts.machine,
            "cpu": facts.cpu,
            "cores": facts.cores,
            "kernel": facts.kernel,
            "board": facts.board,
            "gpu": [facts.gpu.name, facts.gpu.sm] if facts.gpu else None,
            "system": facts.release,
            "simulated": facts.simulated,
        },
        "runtimes": runtimes,
    }


def hold_to_state(ledger: Ledger, state: Mapping[str, object], now_s: float) -> bool:
    """Compare the dependencies of a run with the recorded ones, and add their digest to each later ledger entry.

    It may be called again with further dependencies as they become known.

    Args:
        ledger: Ledger of the run.
        state: Plain JSON values by the names of `WORDS`; the differences of a mapping are reported by key.
        now_s: Seconds since the session began.

    Returns:
        False if the run was begun by a version that did not record its state, which is then assumed to be unchanged.

    Raises:
        SettingsError: A dependency changed. The message says what changed and how to continue.
    """
    state = json.loads(json.dumps(state))
    is_old = any(True for _ in ledger.entries()) and not any(True for _ in ledger.entries(STAGE))
    before = {name: known.value for name in state if (known := ledger.get(STAGE, name)) is not None}
    if changed := _changes(before, {name: state[name] for name in before}):
        raise SettingsError(
            f"this run was measured under other conditions: {'; '.join(changed)}. Measurements are never mixed: name a "
            "new --out, and --warm-start this folder to use its measurements"
        )
    for name in sorted(state.keys() - before.keys()):
        ledger.put(STAGE, name, state[name], {}, now_s)
    whole = {entry.key: entry.value for entry in ledger.entries(STAGE)}
    ledger.state = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:12]
    return not is_old


def _changes(before: dict[str, object], after: dict[str, object]) -> list[str]:
    """Return one line per difference."""
    found = []
    for name in before.keys() | after.keys():
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        what = WORDS.get(name, name)
        if isinstance(old, dict) and isinstance(new, dict):
            keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
            found += [
                f"{what} changed, {key} was {_format_value(old.get(key))}, now {_format_value(new.get(key))}"
                for key in keys
            ]
        else:
            found.append(f"{what} changed, was {_format_value(old)}, now {_format_value(new)}")
    return sorted(found)


def _format_value(value: object) -> str:
    return "none" if value is None else str(value)
