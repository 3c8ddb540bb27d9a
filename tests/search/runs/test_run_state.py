"""A run goes on only with what it was measured with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.runs.run_state import WORDS, hold_to_state
from search.settings import SettingsError
from search.storage.ledger import Ledger

STATE = {"data": "0123", "device": {"cpu": "x", "cores": 4}, "runtimes": {"onnxruntime": "1.31"}, "recipe": {"lr": 0.1}}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "ledger.jsonl"


def begun(path, state=STATE):
    ledger = Ledger(path)
    assert hold_to_state(ledger, state, 0.0)
    ledger.put("latency", "key", 1, {}, 1.0)
    ledger.close()
    return ledger


def test_hold_to_state_same_again_goes_on_and_entries_name_it(folder):
    first = begun(folder)
    ledger = Ledger(folder)
    assert hold_to_state(ledger, STATE, 0.0) and ledger.state == first.state
    assert ledger.get("latency", "key").state == first.state != ""


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"data": "4567"}, "the data changed, was 0123, now 4567"),
        ({"device": {"cpu": "x", "cores": 1}}, "the device changed, cores was 4, now 1"),
        ({"runtimes": {"onnxruntime": "1.32"}}, "the runtime changed, onnxruntime was 1.31, now 1.32"),
        ({"recipe": {"lr": 0.1, "mirror": True}}, "the training recipe changed, mirror was none, now True"),
    ],
)
def test_hold_to_state_a_change_is_refused_in_one_line(folder, changed, said):
    begun(folder)
    with pytest.raises(SettingsError, match=said) as refused:
        hold_to_state(Ledger(folder), STATE | changed, 0.0)
    assert "--out" in str(refused.value) and "--warm-start" in str(refused.value) and "\n" not in str(refused.value)


def test_hold_to_state_more_becomes_known_later(folder):
    begun(folder)
    ledger = Ledger(folder)
    hold_to_state(ledger, STATE, 0.0)
    before = ledger.state
    hold_to_state(ledger, {"weights": {"net": "aa"}}, 0.0)
    assert ledger.state != before
    ledger.close()
    again = Ledger(folder)
    hold_to_state(again, STATE, 0.0)
    with pytest.raises(SettingsError, match="the pretrained weights changed, net was aa, now bb"):
        hold_to_state(again, {"weights": {"net": "bb"}}, 0.0)


def test_hold_to_state_old_folder_goes_on_and_is_told(folder):
    ledger = Ledger(folder)
    ledger.put("latency", "key", 1, {}, 1.0)
    ledger.close()
    again = Ledger(folder)
    assert not hold_to_state(again, STATE, 0.0)
    assert again.get("latency", "key").value == 1


VALUES = st.dictionaries(
    st.sampled_from(sorted(WORDS)), st.dictionaries(st.text(max_size=3), st.integers(), max_size=3)
)


@given(VALUES, VALUES)
def test_hold_to_state_any_two_states_that_differ_are_never_mixed(tmp_path_factory, one, other):
    """The kind of fault: numbers of two devices, data sets or recipes in one folder."""
    path = tmp_path_factory.mktemp("run") / "ledger.jsonl"
    ledger = Ledger(path)
    hold_to_state(ledger, one, 0.0)
    ledger.close()
    differ = any(one[name] != other[name] for name in one.keys() & other.keys())
    if not differ:
        hold_to_state(Ledger(path), other, 0.0)
        return
    with pytest.raises(SettingsError):
        hold_to_state(Ledger(path), other, 0.0)
