"""What is tried again, what is not, and what is told of it."""

from __future__ import annotations

import pytest

from remote.errors import CancelledError, CandidateError, DeviceError
from remote.link import reply_parsing
from remote.link.retrying_session import Incident, RetryingSession, RetryPolicy
from remote.link.session import Job

JOB = Job(runtime="onnxruntime")
QUICK = RetryPolicy(first_wait_s=0.001, longest_wait_s=0.002, patience_s=5.0)


class Failing:
    """A session whose calls fail as told, then succeed."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.calls: list[str] = []

    def put(self, data):
        self.calls.append("put")
        return "digest of " + data.decode()

    def time_block(self, model, reference, job, pairs, seconds_max):
        self.calls.append("time")
        if self.failures:
            raise self.failures.pop(0)
        return {"wall_ms": (1.0,)}

    def predict(self, model, data, shape, job):
        self.calls.append("predict")
        if self.failures:
            raise self.failures.pop(0)
        return b""

    def state(self):
        return {}


def patient(*failures: Exception, patience: RetryPolicy = QUICK) -> tuple[RetryingSession, Failing, list[Incident]]:
    session, told = Failing(*failures), []
    return RetryingSession(session, patience, told.append), session, told


def timed(calls: RetryingSession):
    model, reference = calls.put(b"model"), calls.put(b"reference")
    return calls.time_block(model, reference, JOB, 5, 1.0)


def test_the_devices_failures_are_survived_told_and_blobs_sent_again():
    calls, session, told = patient(DeviceError("gone", "link"), DeviceError("new boot", "rebooted"))
    assert timed(calls) == {"wall_ms": (1.0,)}
    assert [incident.kind for incident in told] == ["link", "rebooted"]
    assert session.calls == ["put", "put", "time", "put", "put", "time", "put", "put", "time"]


def test_patience_ends():
    forever = [DeviceError("gone", "link")] * 10000
    calls, _, told = patient(*forever, patience=RetryPolicy(0.001, 0.01, 0.05))
    with pytest.raises(DeviceError, match="gone"):
        timed(calls)
    assert 3 < len(told) < 200


@pytest.mark.parametrize("kind", ["closed", "changed", "no_runtime", "bad_request", "protocol"])
def test_what_no_other_try_mends_is_raised_at_once(kind):
    calls, session, told = patient(DeviceError("no", kind))
    with pytest.raises(DeviceError):
        timed(calls)
    assert not told and session.calls.count("time") == 1


def test_a_failure_of_unknown_cause_is_not_tried_for_ever():
    calls, session, _ = patient(*[DeviceError("nonsense", "failed")] * 50)
    with pytest.raises(DeviceError, match="nonsense"):
        timed(calls)
    assert session.calls.count("time") == 5


def test_full_disk_is_told_at_once_and_not_waited_for_long():
    """The device has removed what it could: only others can make room."""
    full = reply_parsing.error({"kind": "no_space", "reason": "12 MB free, 76 MB needed"})
    calls, session, told = patient(*[full] * 50)
    with pytest.raises(DeviceError, match="disk is full: 12 MB free, 76 MB needed; make room"):
        timed(calls)
    assert session.calls.count("time") == 4 and all("make room" in incident.reason for incident in told)


@pytest.mark.parametrize("kind", sorted(reply_parsing.PLAIN))
def test_what_a_device_names_is_told_in_plain_words(kind):
    error = reply_parsing.error({"kind": kind, "reason": "{because} {0}"})
    assert isinstance(error, DeviceError) and error.kind == kind
    assert "{because} {0}" in str(error) and not str(error).startswith(kind + ":") and "_" not in str(error)


def test_being_cancelled_is_final():
    calls, _, told = patient(CancelledError("enough"))
    with pytest.raises(CancelledError):
        timed(calls)
    assert not told


@pytest.mark.parametrize("kind", ["out_of_memory", "crashed", "timed_out"])
def test_a_suspect_verdict_needs_to_be_seen_twice(kind):
    calls, _, told = patient(CandidateError(kind, "once"))
    assert timed(calls) and [incident.kind for incident in told] == [f"refuted {kind}"]
    calls, _, told = patient(CandidateError(kind, "once"), CandidateError(kind, "twice"))
    with pytest.raises(CandidateError, match="twice"):
        timed(calls)
    assert not told


@pytest.mark.parametrize("kind", ["unsupported", "unbuildable"])
def test_a_clear_verdict_is_the_models_own(kind):
    calls, session, _ = patient(CandidateError(kind, "no such operator"))
    with pytest.raises(CandidateError):
        timed(calls)
    assert session.calls.count("time") == 1


def test_predictions_send_their_data_where_the_device_lost_it():
    calls, session, told = patient(DeviceError("evicted", "missing"))
    assert calls.predict("digest of model", b"rows", (1, 3, 2, 2), JOB) == b""
    assert session.calls == ["put", "predict", "put", "predict"] and told[0].kind == "missing"
