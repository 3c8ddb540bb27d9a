"""The process behind a `sim:` board: `python -m remote.simulator SPEC NBYTES` speaks the agent's protocol on its pipes.

It is the agent, with its own wire, store and lock; only what would touch the machine (sensors, child processes)
is a simulated board's, and calls fail as the specification asks. See docs/simulated.md.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
from types import SimpleNamespace
from typing import Any

from remote import agent
from remote.agent import Refused
from remote.link.transport import texts
from remote.simulated import telemetry
from remote.simulated.faulty_wire import Wire, end
from remote.simulated.machine import SimulatedMachine
from remote.simulated.persistence import BoardFolder
from remote.simulated.spec import SimulationSpec, SimulationSpecError, parse

USAGE = "use it as a device: python -m remote.doctor sim:nano"
Value = dict[str, Any]


class Job(agent.Job):
    """A job without a child process: the machine works it out here."""

    machine: SimulatedMachine  # set once, when the process begins

    def __init__(self) -> None:
        super().__init__()
        self.fault = ""
        self.slowed = 1.0
        self.build_s = 0.0
        self.befall = lambda fault: None

    def run(self, order: Value, deadline_s: float, keep: Any = ()) -> tuple[Value, bytes]:
        """(value, raw bytes) of a child's function."""
        machine, function, job = self.machine, order["function"], order.get("job", {})

        def wait(seconds: float) -> None:
            self._pass(seconds, deadline_s)

        try:
            if function == "look":
                return telemetry.list_runtimes(machine.board), b""
            if function == "build":
                self.build_s = machine.build(job, wait)
                return {"notes": []}, b""
            if function == "measure":
                return machine.measure(job, wait, self.slowed), b""
            if function == "layers":
                wait(0.0)
                return {"layers": [], "why": "a simulated board runs no layers"}, b""
            return machine.predict(job, wait)
        except Exception as error:
            raise error if isinstance(error, Refused) else _as_a_child_would(error) from None

    def _pass(self, seconds: float, deadline_s: float) -> None:
        """Half of the time, the fault if there is one, the other half. Raises Refused for what ends a job early."""
        late = seconds > deadline_s
        self._sleep(min(seconds, deadline_s) / 2)
        self.befall(self.fault)
        self._sleep(min(seconds, deadline_s) / 2)
        if late:
            raise Refused("timed_out", f"not done after {deadline_s:g} s")

    def _sleep(self, seconds: float) -> None:
        if self.cancelled.wait(seconds if self.machine.spec.real_time else 0):
            raise Refused("cancelled", "cancelled")


def _as_a_child_would(error: Exception) -> Refused:
    return Refused(getattr(error, "kind", "failed"), agent.one_line(error))


class SimulatedAgent(agent.Agent):
    """The agent, whose calls fail now and then. The faults of a job strike in its middle."""

    def __init__(self, wire: Wire, spec: SimulationSpec, folder: BoardFolder, start: int) -> None:
        super().__init__(wire)
        self.spec, self.past, self.start = spec, folder, start
        self.calls = 0
        self.drawn: dict[int, str] = {}  # request id of a job -> its fault

    def draw(self, request: int, op: str) -> str:
        """The fault that befalls a call, empty for none. Of a drop the wire takes care."""
        self.calls += 1
        fault = self.spec.fault(op, self.start, self.calls)
        if fault == "drop" and op != "put":
            self.wire.cut.add(request)
        return fault

    def befall(self, fault: str) -> None:
        """What a fault does at the moment it strikes."""
        if fault == "hang":
            self.silence_s = math.inf  # nothing ends it but the other side
            self.wire.hang()
        if fault == "reboot":
            self.past.count(boots=1)
            end("the board reboots")
        if fault == "oom":
            usual_mb = self.spec.board.free_mb
            raise Refused("memory_taken", f"only {usual_mb // 10} of the usual {usual_mb} MB were free")
        if fault == "disk":
            raise Refused("no_space", "0 MB free, 64 MB needed")

    def stat(self, request: int, fields: Value) -> Value:
        self.befall(self.draw(request, "stat"))
        return super().stat(request, fields)

    def state(self, request: int, fields: Value) -> Value:
        self.befall(self.draw(request, "state"))
        return super().state(request, fields)

    def put(self, request: int, fields: Value) -> None:
        self.drawn[request] = self.draw(request, "put")
        self.befall(self.drawn[request])
        super().put(request, fields)

    def take_blob(self, request: int, length: int) -> Value | None:
        if self.drawn.pop(request, "") == "drop":
            self.wire.left = length // 2
        return super().take_blob(request, length)

    def time(self, request: int, fields: Value) -> None:
        self.drawn[request] = self.draw(request, "time")
        super().time(request, fields)

    def predict(self, request: int, fields: Value) -> None:
        self.drawn[request] = self.draw(request, "predict")
        super().predict(request, fields)

    def do(self, request: int, job: Job, *args: Any) -> Value | None:
        job.fault, job.befall = self.drawn.pop(request, ""), self.befall
        return super().do(request, job, *args)

    def watched(self, job: Job, order: Value, deadline_s: float, lock: int) -> tuple[Value, bytes]:
        if job.fault == "throttle":
            job.slowed = self.spec.slowed(self.start, self.calls)
        value, raw = job.run(order, deadline_s, [lock])
        machine = job.machine
        energy = {} if machine.energy_mj is None else {"energy_mj": machine.energy_mj}
        return value | energy | {"during": machine.during}, raw

    def engine(self, request: int, job: Job, *args: Any) -> tuple[str, float]:
        job.build_s = 0.0
        path, _ = super().engine(request, job, *args)
        return path, job.build_s


def install(machine: SimulatedMachine) -> None:
    """Puts the machine in the place of this one: the agent's parts, child processes and operations."""
    agent.PARTS.update(texts())
    agent.LOADED["sensors"] = SimpleNamespace(
        facts=lambda: machine.facts,
        state=machine.state,
        survey=lambda folder=None: machine.state() | telemetry.survey(machine.board),
    )
    Job.machine = machine
    agent.Job = Job  # type: ignore[misc]
    agent.OPS.update({name: getattr(SimulatedAgent, name) for name in agent.OPS})


def main() -> None:
    """Serves the controller at the other end of stdin and stdout."""
    try:
        text, size = sys.argv[1], int(sys.argv[2])
        spec = parse(text)
    except (IndexError, ValueError) as error:
        print(f"{error}" if isinstance(error, SimulationSpecError) else USAGE, file=sys.stderr)
        sys.exit(2)
    wire = Wire(*agent.take_pipes())
    os.umask(0o077)
    try:
        agent.write_all(wire.fd_out, b"\nAGENT-BOOT\n")
        wire.skip(size)  # the source: ours is here already
        folder = BoardFolder(spec.board.name)
        os.environ |= {"XDG_CACHE_HOME": str(folder.path), "EDGEFRONT_LOCK_DIR": str(folder.path)}
        start, boots = folder.count(starts=1)
        install(SimulatedMachine(spec, f"simulated-{spec.board.name}-{boots}"))
        serving = SimulatedAgent(wire, spec, folder, start)
    except agent.Gone:
        sys.exit("simulated: the source did not arrive whole")
    except (OSError, Refused) as error:
        sys.exit(f"simulated: {agent.one_line(error)}")
    threading.Thread(target=serving.watch, daemon=True).start()
    agent.write_all(wire.fd_out, f"\nAGENT-READY {agent.PROTOCOL}\n".encode())
    with contextlib.suppress(agent.Gone):
        serving.serve()
    agent.leave(0)


if __name__ == "__main__":
    main()
