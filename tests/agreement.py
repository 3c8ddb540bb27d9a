"""python -m tests.agreement RUN...: where the table of a run folder says something else than its study's journal.

Also a helper of tests: `disagreements(folder)`. A line for each difference, exit code 1 where there is one.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pandas
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from spaces.candidate import Candidate

ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
NEAR = 1e-9  # a number that went through a CSV is the same to the last digit but one


def disagreements(folder: Path) -> list[str]:
    """Return a line for each trial that trials.csv and study.journal tell differently; empty where they agree.

    Trials that have ended can't be changed in a study: what is corrected afterwards stands in the study's attribute
    `corrections`, by trial number. A latency is compared where it was taken once: the report has the finalists' second
    timing, which the journal has not.
    """
    study = optuna.load_study(
        study_name="edgefront", storage=JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    )
    table = pandas.read_csv(folder / "trials.csv")
    rows = {int(row["trial"]): row for row in table.to_dict("records")}
    ended = [t for t in study.get_trials(deepcopy=False) if t.state in ENDED and "candidate" in t.user_attrs]
    corrections, timings = study.user_attrs.get("corrections", {}), _timings(folder / "ledger.jsonl")
    found = [f"trial {number}: in the table only" for number in sorted(rows.keys() - {t.number for t in ended})]
    for trial in ended:
        if trial.number not in rows:
            found.append(f"trial {trial.number}: in the journal only")
            continue
        corrected = corrections.get(str(trial.number), {})
        once = timings[_key(trial)] <= 1 and not rows[trial.number]["confirmed"]
        found += [f"trial {trial.number}: {what}" for what in _differences(rows[trial.number], trial, corrected, once)]
    return found


def _differences(row: dict[str, Any], trial: FrozenTrial, corrected: dict[str, Any], timed_once: bool) -> list[str]:
    told = trial.user_attrs | corrected
    pairs = [("outcome", row["outcome"], told["outcome"])]
    if told["outcome"] != row["outcome"]:
        return [_line(*pairs[0])]
    if (trial.state == TrialState.COMPLETE) != (told["outcome"] == "kept") and not corrected:
        pairs.append(("state", "kept" if told["outcome"] == "kept" else "stopped", trial.state.name))
    scored = told["accuracies"][-1] if told.get("accuracies") else {}
    pairs.append(("validation score", row["validation_score"], scored.get("score", scored.get("top1"))))
    if trial.state == TrialState.COMPLETE:
        pairs.append(("first objective", row["validation_score"], trial.values[0]))
    if timed_once and not corrected:
        latency = told.get("latency") or {}
        pairs.append(("latency, ms", row["latency_ms"], latency.get("percentile_ms", {}).get("value")))
        pairs.append(("rank, ms", row["rank_ms"], latency.get("rank_ms", {}).get("value")))
    return [_line(*pair) for pair in pairs if not _same(pair[1], pair[2])]


def _same(here: Any, there: Any) -> bool:
    nothing = [value is None or (isinstance(value, float) and math.isnan(value)) for value in (here, there)]
    if any(nothing):
        return all(nothing)
    if isinstance(here, str) or isinstance(there, str):
        return bool(here == there)
    return math.isclose(here, there, rel_tol=NEAR)


def _line(what: str, here: Any, there: Any) -> str:
    return f"{what} is {here} in the table and {there} in the journal"


def _key(trial: FrozenTrial) -> str:
    return Candidate.from_dict(trial.user_attrs["candidate"]).key()


def _timings(ledger: Path) -> Counter[str]:
    """Return how often each candidate was timed, finalists' timings among them."""
    entries = [json.loads(line) for line in ledger.read_text(encoding="utf-8").splitlines()]
    return Counter(e["key"].partition("@")[0] for e in entries if e["stage"] in ("latency", "confirm"))


if __name__ == "__main__":
    told = [f"{folder}: {line}" for folder in sys.argv[1:] for line in disagreements(Path(folder))]
    print("\n".join(told) or "they agree")
    sys.exit(bool(told))
