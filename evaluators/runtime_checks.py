"""Try every runtime of a device with small models, to find before a search what would fail in it."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy

from evaluators.device_probes import IMAGE_PX, DeviceProbes, image, probe_model
from evaluators.export.runtime_formats import for_runtime, needs
from evaluators.timing.reference_model import ADVICE, REINSTALL, reference_model
from evaluators.timing.reference_model import IMAGE_PX as REFERENCE_PX
from remote.checks.check import RuntimeTrial
from remote.device import Device
from remote.errors import CandidateError, DeviceError, EdgefrontError
from remote.link.retrying_session import RetryingSession, RetryPolicy
from remote.link.session import Event, Job, Session
from spaces.candidate import UnbuildableError

PATIENCE_S = 30.0  # time for retries of a failing device
TURN_S = 20.0  # wait for the end of another session's timing
BUILD_S = 900.0  # time limit of an engine build; a Nano takes most of a minute for these models
PAIRS, TIMED_S = 5, 1.0
HALTING = ("no_runtime", "reference")  # kinds of errors of the runtime; others concern the board or its link


class BusyError(EdgefrontError):
    """Raised when another session uses the device for longer than the device check waits."""


class LockWait:
    """Stop waiting for another session's timing after `TURN_S`."""

    def __init__(self) -> None:
        self._since_s: float | None = None

    def __call__(self, event: Event) -> None:
        """Handle an event of the session.

        Raises:
            BusyError: The session has waited for longer than `TURN_S`.
        """
        if event.get("event") != "waiting":
            self._since_s = None
        elif self._since_s is None:
            self._since_s = time.monotonic()
        elif time.monotonic() - self._since_s > TURN_S:
            raise BusyError(str(event.get("holder", ""))[:100])


def try_runtimes(session: Session, device: Device, holder: str) -> dict[str, RuntimeTrial]:
    """Run a small model, the reference model and a probe of each precision in every runtime of a device.

    Args:
        session: Connected device.
        device: Its resolved entry.
        holder: Session that times on the device now. If there is one, nothing is tried, since a trial would wait and
            disturb the timing.

    Returns:
        The outcome, by runtime.

    Raises:
        DeviceError: The board or its link failed.
    """
    found: dict[str, RuntimeTrial] = {}
    busy = f"in use by {holder}" if holder else ""
    turn = LockWait()
    patient = RetryingSession(session, RetryPolicy(patience_s=PATIENCE_S))
    with tempfile.TemporaryDirectory() as folder, session.listening(turn):
        for runtime in sorted(session.facts.runtimes):
            try:
                if busy:
                    raise BusyError(busy)
                found[runtime] = _try(patient, device, runtime, Path(folder))
            except BusyError as error:
                busy = str(error) or "in use by another session"
                found[runtime] = RuntimeTrial(skipped=busy)
    return found


def _try(patient: RetryingSession, device: Device, runtime: str, folder: Path) -> RuntimeTrial:
    facts = patient.session.facts
    workspace_mb = device.workspace_mb or 256
    job = Job(runtime=runtime, workspace_mb=workspace_mb, build_deadline_s=BUILD_S)
    try:
        model = patient.put(_file(probe_model("fp32"), runtime, IMAGE_PX, folder, "probe"))
        shown = image()
        raw = patient.predict(model, shown.tobytes(), shown.shape, job, 120.0)
        reference = patient.put(_file(reference_model(), runtime, REFERENCE_PX, folder, "reference"))
        block = patient.time_block(reference, reference, job, PAIRS, TIMED_S)
        probed = DeviceProbes(patient, facts, None, workspace_mb)(runtime, ("fp16", "int8"))
    except UnbuildableError as error:
        return RuntimeTrial(
            failed=f"no model can be made for it here: {error}", mend="use another runtime, or install that"
        )
    except CandidateError as error:
        return RuntimeTrial(failed=f"a small model fails in it: {error}", mend=ADVICE.get(error.kind, REINSTALL))
    except DeviceError as error:
        if error.kind not in HALTING:
            raise
        return RuntimeTrial(failed=f"it does not start: {error}", mend=REINSTALL)
    theirs, ours = numpy.frombuffer(raw, "<f4"), host_answer()
    same = theirs.shape == ours.shape and bool(numpy.isfinite(theirs).all())
    difference = float(numpy.abs(theirs - ours).max() / numpy.abs(ours).max()) if same else 1.0
    return RuntimeTrial(ms=median(block["wall_ms"]), difference=difference, why_not=probed.why_not, basis=probed.basis)


def _file(model: bytes, runtime: str, image_px: int, folder: Path, name: str) -> bytes:
    """Return the model in the format that the runtime reads. Raises UnbuildableError."""
    path = folder / f"{name}.onnx"
    path.write_bytes(model)
    return for_runtime(path, needs(runtime), image_px, folder).read_bytes()


def host_answer() -> numpy.ndarray:
    """Return the logits that ONNX Runtime computes on the host for the probe's image, float32 (64,)."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime  # its import takes a third of a second, and connecting does not need it

    session = onnxruntime.InferenceSession(probe_model("fp32"), providers=["CPUExecutionProvider"])
    return numpy.asarray(session.run(None, {"image": image()})[0], dtype="float32").ravel()
