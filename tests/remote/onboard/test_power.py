"""Watts from the chips of boards and the counters of PCs, and millijoules from watts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote import agent
from remote.link.transport import texts
from tests.remote.onboard.boards import AGX_ORIN_RAILS, NANO, NUC, ORIN_NANO, PI_4, build

agent.PARTS.update(texts())
power = agent.part("power")


@pytest.mark.parametrize(
    ("tree", "kind", "watts"),
    [
        (NANO, "INA3221 POM_5V_IN", 2.875),  # mW of the total rail alone
        (ORIN_NANO, "INA3221 VDD_IN", 4.984 * 1.856),  # mV and mA of the total rail alone
        # no total: the sum, without what is not connected
        (AGX_ORIN_RAILS, "INA3221 VDD_CPU_CV+VDD_GPU_SOC+VIN_SYS_5V0", 6.0 + 3.0 + 5.0),
    ],
)
def test_jetsons_have_a_chip_for_it(tmp_path, tree, kind, watts):
    source = power.power(build(tree, tmp_path))
    assert source.kind == kind
    assert source.watts() == pytest.approx(watts)
    source.close()
    assert source.watts() is None


def test_a_pi_does_not_tell(tmp_path):
    assert power.power(build(PI_4, tmp_path)) is None


@pytest.mark.parametrize("text", ["busy\n", "", "-5\n", "99999999999\n"])
def test_a_chip_that_makes_no_sense_is_none(tmp_path, text):
    tree = NANO | {"/sys/bus/i2c/devices/6-0040/iio:device0/in_power0_input": text}
    assert power.power(build(tree, tmp_path)) is None


def test_a_chip_that_falls_silent(tmp_path):
    source = power.power(build(NANO, tmp_path))
    (tmp_path / "sys/bus/i2c/devices/6-0040/iio:device0/in_power0_input").write_text("\n")
    assert source.watts() is None
    source.close()


def at(clock: list[float], patch: pytest.MonkeyPatch) -> None:
    patch.setattr(power.time, "monotonic", lambda: clock[0])


def test_rapl_tells_the_mean_since_it_was_asked_last(tmp_path, monkeypatch):
    clock = [100.0]
    at(clock, monkeypatch)
    source = power.power(build(NUC, tmp_path))
    assert source.kind == "RAPL packages"
    assert source.watts() is None  # nothing to compare with yet
    counter = tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj"
    counter.write_text("8000000\n")
    clock[0] = 100.5
    assert source.watts() == pytest.approx(6.0)  # 3 J in half a second; the core's part is not added again
    counter.write_text("1000000\n")  # past its range: 262143.32885 J
    clock[0] = 101.0
    assert source.watts() is None  # 262136 J in half a second would be more than any machine draws
    source.close()


def test_rapl_starts_again_from_zero(tmp_path, monkeypatch):
    clock = [5.0]
    at(clock, monkeypatch)
    near_end = {"/sys/class/powercap/intel-rapl:0/energy_uj": "262143000000\n"}
    source = power.power(build(NUC | near_end, tmp_path))
    source.watts()
    (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").write_text("1671150\n")
    clock[0] = 6.0
    assert source.watts() == pytest.approx(2.0)
    source.close()


def test_rapl_that_only_root_may_read(tmp_path):
    build(NUC, tmp_path)
    (tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj").unlink()  # root may read anything: gone, then
    assert power.power(str(tmp_path)) is None
    assert len(power.rapl_folders(str(tmp_path))) == 1


# ------------------------------------------------ energy


def test_energy_of_one_run():
    samples = [(second / 10, 5.0 if 10 <= second <= 30 else 2.0) for second in range(60)]
    # 5 W from 1 s to 3 s, 100 runs: 100 mJ each, 60 of them beyond the idle 2 W
    assert power.energy(samples, 1.0, 3.0, 100) == pytest.approx(100.0)
    assert power.energy(samples, 1.0, 3.0, 100, 2.0) == pytest.approx(60.0)


def test_energy_weighs_samples_by_the_time_they_stand_for():
    samples = [(0.0, 10.0), (1.0, 10.0), (1.1, 0.0), (1.2, 0.0), (1.3, 0.0)]
    assert power.energy(samples, 0.0, 1.3, 1) == pytest.approx((10 + 0.5) * 1000)


def test_energy_never_falls_below_nothing():
    assert power.energy([(0.0, 1.0), (0.5, 1.0), (1.0, 1.0)], 0.0, 1.0, 10, 3.0) == 0.0


@pytest.mark.parametrize(
    ("samples", "runs"),
    [([], 5), ([(0.1, 1.0), (0.2, 1.0)], 5), ([(0.1, 1.0)] * 3, 5), ([(0.1, 1.0), (0.2, 1.0), (0.3, 1.0)], 0)],
)
def test_energy_from_too_little_is_none(samples, runs):
    assert power.energy(samples, 0.0, 1.0, runs) is None


@given(
    st.floats(0.5, 500),
    st.floats(0, 0.5),
    st.integers(1, 1000),
    st.floats(0.5, 20),
    st.lists(st.floats(0.01, 0.3), min_size=3),
)
def test_energy_of_steady_power_is_power_times_time(watts, share_idle, runs, seconds, steps):
    """However unevenly the samples lie."""
    at_s, samples = 0.0, []
    while at_s <= seconds:
        samples.append((at_s, watts))
        at_s += steps[len(samples) % len(steps)]
    found = power.energy(samples, 0.0, seconds, runs, share_idle * watts)
    if len(samples) >= 3:
        assert found == pytest.approx((1 - share_idle) * watts * seconds / runs * 1000)


def test_idle_is_the_median(tmp_path: Path):
    source = power.power(build(NANO, tmp_path))
    assert power.idle_watts(source, 0.1, 100.0) == pytest.approx(2.875)
    source.close()
    assert power.idle_watts(source, 0.05, 100.0) is None
