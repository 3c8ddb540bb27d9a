"""Outcomes and kinds of failures are texts in ledgers, journals and tables, which other versions read."""

import json
from dataclasses import asdict

import pytest

from evaluators.measurement import OUTCOMES, Failure, Measurement, Outcome, failure_from_dict
from remote.errors import CANDIDATE_KINDS, FailureKind
from spaces.candidate import Candidate

CANDIDATE = Candidate(family="tiny_resnet", variant="res8_w4_s2", image_px=16)


def test_outcome_and_failure_kind_texts_are_those_of_earlier_versions():
    trials = ["kept", "over budget", "no gain", "unpromising", "out of time", "failed"]
    assert [str(outcome) for outcome in OUTCOMES] == trials
    assert [str(outcome) for outcome in Outcome] == [*trials, "timed only", "tried briefly"]
    kinds = ["unbuildable", "no_gain", "unsupported", "out_of_memory", "crashed", "timed_out", "parity"]
    assert [str(kind) for kind in FailureKind] == kinds
    assert json.dumps(CANDIDATE_KINDS) == '["unsupported", "unbuildable", "out_of_memory", "crashed", "timed_out"]'


@pytest.mark.parametrize("outcome", Outcome)
def test_measurement_to_dict_has_the_outcome_as_plain_text(outcome):
    plain = Measurement(candidate=CANDIDATE, outcome=outcome).to_dict()
    assert type(plain["outcome"]) is str and json.loads(json.dumps(plain))["outcome"] == outcome.value


@pytest.mark.parametrize("kind", FailureKind)
def test_failure_from_dict_restores_what_json_holds(kind):
    failure = Failure("latency", kind, "why")
    again = failure_from_dict(json.loads(json.dumps(asdict(failure))))
    assert again == failure and type(again.kind) is FailureKind


def test_failure_from_dict_of_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="tired"):
        failure_from_dict({"stage": "latency", "kind": "tired", "reason": "why"})
