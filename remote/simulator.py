"""Run the process behind a `sim:` board.

`python -m remote.simulator SPEC NBYTES` speaks the agent's protocol on its pipes. It is the agent, with its own wire,
store and lock; only the parts that would touch the machine (sensors, child processes) are a simulated board's, and
calls fail as the specification asks. See docs/simulated.md.
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
from remote.agent import RequestError
from remote.link.transport import texts
from remote.simulated import telemetry
from remote.simulated.faulty_wire import Wire, end
from remote.simulated.machine import SimulatedMachine
from remote.simulated.persistence import BoardFolder
from remote.simulated.spec import SimulationSpec, SimulationSpecError, parse

USAGE = "use it as a device: python -m remote.doctor sim:nano"
Value = dict[str, Any]


class Job(agent.Job):
    """Run a job without a child process: the simulated machine computes its result."""

    machine: SimulatedMachine  # set once, at the start of the process

    def __init__(self) -> None:
        super().__init__()
        self.fault = ""
        self.slowed = 1.0
        self.build_s = 0.0
        self.befall = lambda fault: None

    def run(self, order: Value, deadline_s: float, keep: object = ()) -> tuple[Value, bytes]:
        """Return (value, raw bytes) of a child's function.

        Args:
            order: The function's name and the job's fields.
            deadline_s: Seconds after which the job has timed out.
            keep: Descriptors for the child; not used here.

        Raises:
            RequestError: The job failed, or a fault struck.
        """
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
            raise error if isinstance(error, RequestError) else _as_a_child_would(error) from None

    def _pass(self, seconds: float, deadline_s: float) -> None:
        """Sleep half of the time, inject the fault if there is one, and sleep the other half.

        Raises:
            RequestError: The job ends early.
        """
        late = seconds > deadline_s
        self._sleep(min(seconds, deadline_s) / 2)
        self.befall(self.fault)
        self._sleep(min(seconds, deadline_s) / 2)
        if late:
            raise RequestError("timed_out", f"not finished within {deadline_s:g} s")

    def _sleep(self, seconds: float) -> None:
        if self.cancelled.wait(seconds if self.machine.spec.real_time else 0):
            raise RequestError("cancelled", "cancelled")


def _as_a_child_would(error: Exception) -> RequestError:
    return RequestError(getattr(error, "kind", "failed"), agent.one_line(error))


class SimulatedAgent(agent.Agent):
    """Run the agent with injected failures. The faults of a job strike in its middle."""

    def __init__(self, wire: Wire, spec: SimulationSpec, folder: BoardFolder, start: int) -> None:
        super().__init__(wire)
        self.spec, self.past, self.start = spec, folder, start
        self.calls = 0
        self.drawn: dict[int, str] = {}  # request id of a job -> its fault

    def draw(self, request: int, op: str) -> str:
        """Draw the fault of a call, empty for none. A drop is carried out by the wire.

        Args:
            request: Number of the request.
            op: Name of the operation.
        """
        self.calls += 1
        fault = self.spec.fault(op, self.start, self.calls)
        if fault == "drop" and op != "put":
            self.wire.cut.add(request)
        return fault

    def befall(self, fault: str) -> None:
        """Apply a fault at the moment it strikes."""
        if fault == "hang":
            self.silence_s = math.inf  # only the other side can end it
            self.wire.hang()
        if fault == "reboot":
            self.past.count(boots=1)
            end("the board reboots")
        if fault == "oom":
            usual_mb = self.spec.board.free_mb
            raise RequestError("memory_taken", f"only {usual_mb // 10} of the usual {usual_mb} MB were free")
        if fault == "disk":
            raise RequestError("no_space", "0 MB free, 64 MB needed")

    def stat(self, request: int, fields: Value) -> Value:
        """Return whether a blob is stored, or fail."""
        self.befall(self.draw(request, "stat"))
        return super().stat(request, fields)

    def state(self, request: int, fields: Value) -> Value:
        """Return the present readings, or fail."""
        self.befall(self.draw(request, "state"))
        return super().state(request, fields)

    def put(self, request: int, fields: Value) -> None:
        """Wait for a blob, or fail."""
        self.drawn[request] = self.draw(request, "put")
        self.befall(self.drawn[request])
        super().put(request, fields)

    def take_blob(self, request: int, length: int) -> Value | None:
        """Receive a blob; in a drop, only half of it."""
        if self.drawn.pop(request, "") == "drop":
            self.wire.left = length // 2
        return super().take_blob(request, length)

    def time(self, request: int, fields: Value) -> None:
        """Begin a timing, with its fault if one is drawn."""
        self.drawn[request] = self.draw(request, "time")
        super().time(request, fields)

    def predict(self, request: int, fields: Value) -> None:
        """Begin a prediction, with its fault if one is drawn."""
        self.drawn[request] = self.draw(request, "predict")
        super().predict(request, fields)

    def do(self, request: int, job: Job, *args: object) -> Value | None:
        """Run one job with the fault that was drawn for it."""
        job.fault, job.befall = self.drawn.pop(request, ""), self.befall
        return super().do(request, job, *args)

    def run_monitored(self, job: Job, order: Value, deadline_s: float, lock: int) -> tuple[Value, bytes]:
        """Return the machine's answer with the simulated readings during its run."""
        if job.fault == "throttle":
            job.slowed = self.spec.slowdown(self.start, self.calls)
        value, raw = job.run(order, deadline_s, [lock])
        machine = job.machine
        energy = {} if machine.energy_mj is None else {"energy_mj": machine.energy_mj}
        return value | energy | {"during": machine.during}, raw

    def engine(self, request: int, job: Job, *args: object) -> tuple[str, float]:
        """Return (path, simulated seconds) of a stored model's engine."""
        job.build_s = 0.0
        path, _ = super().engine(request, job, *args)
        return path, job.build_s


def install(machine: SimulatedMachine) -> None:
    """Replace the parts, child processes and operations of the agent by the simulated machine's."""
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
    """Serve the controller at the other end of stdin and stdout."""
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
        wire.skip(size)  # the source, which this process has already
        folder = BoardFolder(spec.board.name)
        os.environ |= {"XDG_CACHE_HOME": str(folder.path), "EDGEFRONT_LOCK_DIR": str(folder.path)}
        start, boots = folder.count(starts=1)
        install(SimulatedMachine(spec, f"simulated-{spec.board.name}-{boots}"))
        serving = SimulatedAgent(wire, spec, folder, start)
    except agent.ConnectionClosedError:
        sys.exit("simulated: the source arrived incomplete")
    except (OSError, RequestError) as error:
        sys.exit(f"simulated: {agent.one_line(error)}")
    threading.Thread(target=serving.watch, daemon=True).start()
    agent.write_all(wire.fd_out, f"\nAGENT-READY {agent.PROTOCOL}\n".encode())
    with contextlib.suppress(agent.ConnectionClosedError):
        serving.serve()
    agent.leave(0)


if __name__ == "__main__":
    main()
