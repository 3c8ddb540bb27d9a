"""Measure the overhead of a device beside the timing itself: `python benchmarks/overhead.py [--device NAME]`.

A timing consists of the calls that a search makes for one block: state, time, state. The reported overhead is its wall
time minus the time on the device's own clock between `started` (the lock is held, the model's process is about to
start) and `ended_at_s` (that process has ended). The subtracted part covers interpreter, runtime, loading, warm-up and
timed runs of a process that is fresh on purpose. A trial is the smallest set of calls for one candidate: a put of a
file that the device already has, and two such timings.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from statistics import median, quantiles
from typing import Any

from evaluators.timing.latency import TimingRules, foreign_cores
from evaluators.timing.reference_model import reference_model
from remote.connect import connect
from remote.inventory.setup_commands import prepare_device
from remote.link.session import Job, Session

CONNECT_S, TRIAL_MS, ROUND_TRIPS = 1.5, 50.0, 1.0  # the targets
UPLOAD_MIB = 20
CALM_CORES = 0.3  # with more busy cores while the benchmark waits, the figures describe the machine's load


@dataclass(frozen=True)
class Row:
    """Hold one figure.

    Attributes:
        what: Description of the figure.
        unit: Unit of the values; empty for counts.
        values: All measured values.
        target: Largest accepted median; None without a target.
    """

    what: str
    unit: str
    values: tuple[float, ...]
    target: float | None = None

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def p90(self) -> float:
        return quantiles(self.values, n=10, method="inclusive")[-1] if len(self.values) > 1 else self.values[0]

    @property
    def kept(self) -> bool:
        return self.target is None or self.median <= self.target


@dataclass
class Wire:
    """Record the traffic of a session's link.

    Attributes:
        ops: Names of the operations.
        lives_s: For each timing, the lifetime of its process in seconds.
    """

    ops: list[str] = field(default_factory=list)
    lives_s: list[float] = field(default_factory=list)


@contextmanager
def listening(session: Session) -> Iterator[Wire]:
    """Context manager that records a session's calls at its link, below the public interface, to count round trips."""
    wire, link, call = Wire(), session._link, session._link.call

    def counted(op: str, fields: Any = None, **options: Any) -> Any:
        wire.ops.append(op)
        began: list[float] = []
        options["on_event"] = lambda event: began.extend([event["at_s"]] if event.get("event") == "started" else [])
        kind, reply, raw = call(op, fields, **options)
        if op == "time" and began:
            wire.lives_s.append(reply["ended_at_s"] - began[0])
        return kind, reply, raw

    link.call = counted  # type: ignore[method-assign]
    try:
        yield wire
    finally:
        link.call = call  # type: ignore[method-assign]


def took_s(work: Callable[[], object]) -> float:
    """Return the wall time of a call in seconds."""
    began_s = time.monotonic()
    work()
    return time.monotonic() - began_s


def busy_cores(session: Session) -> float:
    """Return the number of device cores that other processes keep busy while the benchmark waits."""
    before = session.state()
    time.sleep(1.0)
    return foreign_cores(before, session.state(), 0) or 0.0


def connecting(name: str, times: int) -> Row:
    """Measure the time to connect, up to the device's facts and capabilities."""
    seconds = []
    for _ in range(times):
        began_s = time.monotonic()
        session, _, _ = connect(name)
        seconds.append(time.monotonic() - began_s)
        session.close()
    return Row("connect, once a search", "s", tuple(seconds), CONNECT_S)


def pinging(session: Session) -> Row:
    """Measure round trips of the smallest message."""
    return Row("ping", "ms", tuple(1000 * took_s(session.ping) for _ in range(200)))


def uploading(session: Session) -> Row:
    """Measure the upload rate of random bytes, which are hashed at both ends."""
    rates = [UPLOAD_MIB / took_s(lambda: session.put(os.urandom(UPLOAD_MIB << 20))) for _ in range(3)]
    return Row(f"upload of {UPLOAD_MIB} MiB", "MiB/s", tuple(rates))


def known(name: str, times: int) -> list[Row]:
    """Measure time and round trips of putting a file that an earlier session sent, in a new session each time."""
    data, seconds, trips, again = os.urandom(1 << 20), [], [], []
    with connect(name)[0] as session:
        session.put(data)
    for _ in range(times):
        with connect(name)[0] as session, listening(session) as wire:
            seconds.append(1000 * took_s(partial(session.put, data)))
            trips.append(float(len(wire.ops)))
            session.put(data)
            again.append(float(len(wire.ops) - trips[-1]))
    return [
        Row("put 1 MiB sent in an earlier session", "ms", tuple(seconds)),
        Row("  its round trips", "", tuple(trips), ROUND_TRIPS),
        Row("  and once more in the same session", "", tuple(again), 0.0),
    ]


def trials(session: Session, runtime: str, times: int) -> list[Row]:
    """Measure the overhead of whole trials and of single timings."""
    model, rules = reference_model(), TimingRules()
    job, digest = Job(runtime=runtime), session.put(model)
    trial_ms, timing_ms, lives_s = [], [], []
    for _ in range(times):
        with listening(session) as wire:
            began_s = time.monotonic()
            session.put(model)
            for _ in range(rules.blocks_min):
                block_s = time.monotonic()
                session.state()
                session.time_block(digest, digest, job, rules.pairs, rules.block_seconds_max)
                session.state()
                timing_ms.append(1000 * (time.monotonic() - block_s - wire.lives_s[-1]))
            trial_ms.append(1000 * (time.monotonic() - began_s - sum(wire.lives_s)))
            lives_s += wire.lives_s
    return [
        Row("overhead of a trial", "ms", tuple(trial_ms), TRIAL_MS),
        Row("  of one timing in it", "ms", tuple(timing_ms)),
        Row("what was subtracted from each timing", "s", tuple(lives_s)),
    ]


def fresh_process(session: Session, runtime: str) -> Row:
    """Measure the cost of a fresh process, by timings with almost no timed runs."""
    digest = session.put(reference_model())
    with listening(session) as wire:
        for _ in range(5):
            session.time_block(digest, digest, Job(runtime=runtime), 1, 0.1)
    return Row("  of which a fresh process, loading, 0.1 s of runs", "s", tuple(wire.lives_s))


def table(rows: list[Row]) -> str:
    """Format the rows as a Markdown table."""
    lines = ["| | median | p90 | target |", "|---|---|---|---|"]
    for row in rows:
        target = "" if row.target is None else f"{row.target:g} {row.unit}: {'kept' if row.kept else 'MISSED'}"
        lines.append(f"| {row.what} | {row.median:.3g} {row.unit} | {row.p90:.3g} | {target} |")
    return "\n".join(lines)


def main() -> int:
    """Run the benchmark; return exit code 0 if every target is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="local")
    parser.add_argument("--times", type=int, default=10, help="trials, and connections by half as many")
    parser.add_argument("--json", action="store_true", help="every value, instead of the table")
    args = parser.parse_args()
    session, device, _ = connect(args.device)
    with session, prepare_device(device, session.facts):
        runtime = device.runtime or ""
        busy = [busy_cores(session)]
        rows = [connecting(args.device, max(2, args.times // 2)), pinging(session), uploading(session)]
        rows += [*known(args.device, 3), *trials(session, runtime, args.times), fresh_process(session, runtime)]
        busy.append(busy_cores(session))
    calm = max(busy) <= CALM_CORES
    if args.json:
        figures = [asdict(row) | {"median": row.median, "p90": row.p90, "kept": row.kept} for row in rows]
        print(json.dumps({"device": device.name, "calm": calm, "busy_cores": busy, "rows": figures}))
    else:
        print(f"{device.name}, {session.facts.cpu}, {'calm' if calm else f'NOT CALM: {max(busy):.1f} cores busy'}")
        print(table(rows))
    return 0 if all(row.kept for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
