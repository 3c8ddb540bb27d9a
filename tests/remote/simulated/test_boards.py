"""Every simulated board: what it says of itself, and everything a session can ask of it."""

from __future__ import annotations

import json
import threading
import time

import numpy as np
import pytest

from evaluators.timing.latency import TimingRules, TimingTarget, calibrate, time_model
from evaluators.timing.reference_model import reference_model
from remote.device import Capabilities, capabilities
from remote.errors import CancelledError, CandidateError, DeviceError
from remote.inventory.resolve import settle
from remote.link.retrying_session import RetryingSession
from remote.link.session import Job, Session
from remote.simulated.boards import BOARDS
from tests.remote import models
from tests.remote.simulated.test_graph import HALF, layer, quantized

NAMES = [board.name for board in BOARDS]
CONVOLUTION = models.convolution().SerializeToString()
LINEAR = models.linear().SerializeToString()
# devices.md 1.1, 1.2: precisions that pay, opset ceiling, compute capability
EXPECTED = {
    "jetson-nano": (("fp32", "fp16"), 13, "5.3"),
    "tx2": (("fp32", "fp16"), 13, "6.2"),
    "xavier": (("fp32", "fp16", "int8"), 17, "7.2"),
    "orin-nano": (("fp32", "fp16", "int8"), 20, "8.7"),
    "orin": (("fp32", "fp16", "int8"), 20, "8.7"),
    "rpi4": (("fp32", "int8"), 21, None),
    "rpi5": (("fp32", "fp16", "int8"), 21, None),
    "nuc": (("fp32", "int8"), 21, None),
    "x86-cuda": (("fp32", "fp16", "int8"), 20, "7.5"),
}


def settled(session: Session) -> tuple[str, Capabilities]:
    device, profile = settle(session.device, session.facts)
    assert profile is not None and device.runtime is not None
    return device.runtime, capabilities(session.facts, [device.runtime])


def timed(session: Session, model: bytes, pairs: int = 20, **options):
    runtime, _ = settled(session)
    return session.time_block(
        session.put(model), session.put(reference_model()), Job(runtime=runtime, **options), pairs, 20.0
    )


def test_all_boards_are_expected():
    assert set(EXPECTED) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_recognized_and_can_do_what_such_a_board_can(name, opens):
    session = opens(name)
    facts = session.facts
    assert facts.simulated and facts.board.startswith("SIMULATED ")
    assert settle(session.device, facts)[1].name == name
    able, (precisions, opset_max, sm) = settled(session)[1], EXPECTED[name]
    assert (able.precisions, able.opset_max) == (precisions, opset_max)
    assert (facts.gpu.sm if facts.gpu else None) == sm


@pytest.mark.parametrize("name", NAMES)
def test_everything_can_be_asked(name, opens):
    session = opens(name)
    block = timed(session, CONVOLUTION)
    assert len(block["wall_ms"]) == 20 and block["peak_mb"] > block["runtime_mb"]
    assert bool(block.get("gpu_ms")) == (session.facts.gpu is not None)
    assert block["during"]["samples"] >= 2 and block["during"]["temperature_c_max"] < 60
    assert session.state()["load_average"] and session.survey()["disk_free_mb"] > 0
    runtime, _ = settled(session)
    rows = np.random.default_rng(0).standard_normal((4, 3, 2, 2)).astype("<f4")
    raw = session.predict(session.put(LINEAR), session.put(rows.tobytes()), rows.shape, Job(runtime=runtime))
    weights = np.arange(36, dtype=np.float32).reshape(12, 3) / 16
    np.testing.assert_allclose(np.frombuffer(raw, "<f4").reshape(4, 3), rows.reshape(4, 12) @ weights, rtol=1e-5)
    assert session.layers(session.put(LINEAR), Job(runtime=runtime)) == ((), "a simulated board runs no layers")


def test_the_board_says_what_it_is(opens):
    facts = opens("nano").facts
    assert facts.board == "SIMULATED Jetson Nano" and facts.release == "L4T 32.7.1" and facts.python == "3.6.9"
    assert facts.runtimes == {"tensorrt": "8.2.1.8"}


def test_same_seed_same_numbers(opens):
    first, second = timed(opens("nano"), CONVOLUTION), timed(opens("nano,drop=0.0"), CONVOLUTION)
    assert first["wall_ms"] == second["wall_ms"] and first["reference_gpu_ms"] == second["reference_gpu_ms"]
    other = timed(opens("nano,seed=1"), CONVOLUTION)
    assert other["wall_ms"] != first["wall_ms"]
    assert np.median(other["wall_ms"]) == pytest.approx(np.median(first["wall_ms"]), rel=0.02)


def test_noise_and_drift_are_as_asked(opens):
    walls = np.log(timed(opens("nano,noise=0.05,drift=0"), CONVOLUTION, 400)["wall_ms"])
    assert 0.04 < walls.std() < 0.06
    calm = timed(opens("nano,noise=0,drift=0.2"), CONVOLUTION, 40)["wall_ms"]
    assert calm[0] == pytest.approx(1.2 * calm[-1], rel=1e-3) and list(calm) == sorted(calm, reverse=True)


def test_latency_says_that_it_is_simulated(opens):
    session = opens("nano")
    patient, job = RetryingSession(session), Job(runtime="tensorrt")
    reference = patient.put(reference_model())
    reference_ms, restless = calibrate(patient, reference, job, TimingRules())
    assert restless == ""
    target = TimingTarget(
        model_sha256=patient.put(CONVOLUTION),
        reference_sha256=reference,
        job=job,
        runtime_version="8.2.1.8",
        percentile=95.0,
        reference_ms=reference_ms,
        simulated=session.facts.simulated,
    )
    latency = time_model(patient, target, TimingRules(), None)
    assert latency.simulated and latency.disturbed == "" and latency.gpu_ms.value < latency.median_ms.value
    assert latency.energy_mj == pytest.approx(4.5 * latency.median_ms.value, rel=0.05)


def test_an_engine_is_built_once(opens):
    session = opens("nano,seed=77")
    model = models.convolution(23).SerializeToString()
    assert timed(session, model)["build_s"] > 5
    assert timed(session, model)["build_s"] == 0
    assert timed(opens("nano"), model)["build_s"] == 0, "another session finds it on the board"


def test_what_was_sent_stays_on_the_board(opens, home):
    digest = opens("rpi4").put(LINEAR)
    assert (home / "edgefront-simulated" / "rpi4" / "edgefront" / "blobs" / digest).read_bytes() == LINEAR
    assert not (home / "edgefront").exists(), "the real agent's cache is another"


@pytest.mark.parametrize(
    ("name", "model", "kind", "says"),
    [
        ("nano", quantized(), "unsupported", "require hardware with Int8 support"),
        ("tx2", quantized(), "unsupported", "no int8 arithmetic"),
        ("orin", quantized(3), "unsupported", "zero points"),
        ("nano", models.unknown_op().SerializeToString(), "unsupported", "No importer registered for op: Nonsense"),
        ("rpi5", models.unknown_op().SerializeToString(), "unsupported", "Nonsense is not a registered op"),
        ("rpi5", b"no model", "unbuildable", "unbuildable"),
        ("nano", b"no model", "unbuildable", "unbuildable"),
    ],
)
def test_refusals_are_the_models_fault(name, model, kind, says, opens):
    session = opens(name)
    with pytest.raises(CandidateError, match=says) as caught:
        timed(session, model)
    assert caught.value.kind == kind
    assert timed(session, CONVOLUTION)["wall_ms"], "the session goes on"


def test_int8_pays_where_there_is_hardware_for_it(opens):
    for name in ("orin", "rpi5"):
        session = opens(f"{name},noise=0")
        assert timed(session, quantized())["wall_ms"] <= timed(session, layer())["wall_ms"]


def test_a_later_opset_is_refused(opens):
    model = models.convolution()
    model.opset_import[0].version = 17
    session = opens("nano")
    with pytest.raises(CandidateError, match="reads opset 13 at most, not 17"):
        timed(session, model.SerializeToString())
    assert timed(opens("xavier"), model.SerializeToString())["wall_ms"]


def test_a_model_beyond_the_memory(opens):
    with pytest.raises(CandidateError, match="MB were free") as caught:
        timed(opens("nano"), layer(channels=64, image_px=2600))
    assert caught.value.kind == "out_of_memory"
    assert timed(opens("orin"), layer(HALF, channels=64, image_px=2600), pairs=5)["device_mb"] > 1000


def test_a_runtime_that_is_not_there(opens):
    session = opens("rpi4")
    digest = session.put(LINEAR)
    with pytest.raises(DeviceError, match="there is no openvino on this board") as caught:
        session.time_block(digest, digest, Job(runtime="openvino"), 5, 5.0)
    assert caught.value.kind == "no_runtime"


def test_a_slow_model_gives_fewer_pairs_and_then_times_out(opens):
    session = opens("rpi4")
    model = layer(channels=256, image_px=96)
    digest, reference = session.put(model), session.put(reference_model())
    block = session.time_block(digest, reference, Job(runtime="onnxruntime"), 40, 20.0)
    assert 5 <= len(block["wall_ms"]) < 40
    with pytest.raises(CandidateError, match="not finished within 5 s") as caught:
        session.time_block(digest, reference, Job(runtime="onnxruntime"), 40, 20.0, deadline_s=5.0)
    assert caught.value.kind == "timed_out"


def test_fake_time_does_not_wait_and_real_time_does(opens):
    began_s = time.monotonic()
    fake = timed(opens("rpi4"), CONVOLUTION, 100)
    assert time.monotonic() - began_s < 2 < fake["during"]["seconds"]
    began_s = time.monotonic()
    real = timed(opens("rpi4,time=real"), CONVOLUTION, 10)
    assert time.monotonic() - began_s >= real["during"]["seconds"] > 0.5


def test_a_timing_in_real_time_can_be_cancelled(opens):
    session = opens("rpi4,time=real")
    outcome: list[BaseException] = []

    def work() -> None:
        try:
            timed(session, layer(channels=256, image_px=96), 1000)
        except CancelledError as error:
            outcome.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(1.0)
    began_s = time.monotonic()
    session.cancel()
    thread.join(10)
    assert outcome and time.monotonic() - began_s < 2


def test_two_sessions_share_one_board(opens):
    """The same lock as on a real board: the second waits while the first is timed."""
    told: list[dict] = []
    first, second = opens("rpi5,time=real"), opens("rpi5,time=real", on_event=told.append)
    thread = threading.Thread(target=timed, args=(first, CONVOLUTION, 20))
    thread.start()
    time.sleep(0.5)
    timed(second, CONVOLUTION, 5)
    thread.join()
    assert [event for event in told if event.get("event") == "waiting"]


def test_the_counts_survive_a_torn_write(opens, home):
    opens("tx2")
    counts = home / "edgefront-simulated" / "tx2" / "counts.json"
    assert json.loads(counts.read_text())["starts"] >= 1
    counts.write_text("")
    assert opens("tx2").facts.boot_id.endswith("-0")
