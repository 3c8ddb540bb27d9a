"""The ladder: cheap rungs first, no further than needed, every one told, the fewest layers in floating point."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from evaluators.jobs import CALIBRATIONS, Ladder
from evaluators.quantizing.ladder import climb, sensitivity
from evaluators.quantizing.qdq import Plan, layers, macs
from evaluators.quantizing.ranges import extremes
from evaluators.quantizing.replay import NoSuchOperator
from tests.evaluators.quantizing.nets import RECIPES, exam_of, images, plain_graph, unbalance

RECIPE = RECIPES["TensorRT"]
STRICT = Ladder(methods=("min-max",), allowed_drop=0.0, correct=False, floating_macs=0.0, qat_epochs=0)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return plain_graph(tmp_path_factory.mktemp("graph"), "tiny_mobile", "mb_w8")


BLOCK = "layer2.0"


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory):
    """Between the convolutions of one block a tensor whose channels differ so much that int8 leaves few of them."""
    folder = tmp_path_factory.mktemp("spoilt")
    return plain_graph(folder, "cifar_resnet", "cifar_resnet20", change=partial(unbalance, block=BLOCK))


def names(climbed):
    return [rung.name for rung in climbed.rungs]


def test_it_ends_at_the_first_rung_that_will_do(plain):
    climbed = climb(plain, RECIPE, exam_of(plain), images(16), replace(STRICT, allowed_drop=0.9), None)
    assert names(climbed) == ["fp32", "int8 min-max"]
    assert climbed.rungs[0].top1 == 1.0 and climbed.rungs[1].kept
    assert not climbed.plan.floating


def test_methods_are_all_tried_and_the_best_is_kept(plain):
    exam = exam_of(plain)
    climbed = climb(plain, RECIPE, exam, images(16), replace(STRICT, methods=CALIBRATIONS), None)
    tried = climbed.rungs[1:]
    assert [rung.name for rung in tried] == [f"int8 {method}" for method in CALIBRATIONS]
    assert exam.top1(climbed.graph) == max(rung.top1 for rung in tried)
    best = next(rung for rung in tried if rung.top1 == max(r.top1 for r in tried))
    assert [rung for rung in tried if rung.kept][-1] is best, "of equal ones the simpler"


def test_corrections_are_kept_only_where_they_score(spoilt):
    exam = exam_of(spoilt)
    climbed = climb(spoilt, RECIPE, exam, images(16), replace(STRICT, correct=True), None)
    assert names(climbed)[2:] in (["equalised", "bias corrected"], ["bias corrected"])
    best = 0.0
    for rung in climbed.rungs[1:]:
        assert rung.kept == (rung.top1 > best)
        best = max(best, rung.top1)
    assert exam.top1(climbed.graph) == best


def test_the_most_sensitive_layers_are_the_ones_that_were_spoilt(spoilt):
    plan = Plan(spoilt, RECIPE, extremes(spoilt, images(8)))
    order = sensitivity(plan, images(8))
    assert sorted(order) == sorted(layers(spoilt))
    assert any(BLOCK in name for name in order[:2]), order


def test_the_fewest_layers_go_back_to_floating_point(spoilt):
    exam = exam_of(spoilt)
    ladder = replace(STRICT, allowed_drop=0.12, floating_macs=0.5)
    climbed = climb(spoilt, RECIPE, exam, images(16), ladder, None)
    kept = [name for name, nodes in layers(spoilt).items() if set(nodes) & climbed.plan.floating]
    assert kept and exam.top1(climbed.graph) >= 0.88 > climbed.rungs[1].top1
    counts = {int(r.name.split()[0]): r.top1 for r in climbed.rungs if r.name.endswith("floating point")}
    assert len(kept) == min(count for count, top1 in counts.items() if top1 >= 0.88) < max(counts)
    assert len(kept) == 1 or counts[len(kept) - 1] < 0.88, "one fewer would not do"
    assert sum(macs(spoilt)[name] for name in kept) <= 0.5 * sum(macs(spoilt).values())


def test_no_more_than_the_allowed_share_goes_back(spoilt):
    ladder = replace(STRICT, floating_macs=0.02)
    climbed = climb(spoilt, RECIPE, exam_of(spoilt), images(16), ladder, None)
    kept = [name for name, nodes in layers(spoilt).items() if set(nodes) & climbed.plan.floating]
    assert sum(macs(spoilt)[name] for name in kept) <= 0.02 * sum(macs(spoilt).values())


def test_fine_tuning_comes_last_and_starts_from_all_layers_in_int8(spoilt):
    asked = []

    def tune(plan):
        asked.append(plan)
        return plan

    ladder = replace(STRICT, floating_macs=0.02, qat_epochs=3)
    climbed = climb(spoilt, RECIPE, exam_of(spoilt), images(16), ladder, tune)
    assert names(climbed)[-1] == "fine-tuned 3 epochs in int8"
    assert [plan.floating for plan in asked] == [frozenset()]


def test_a_graph_that_cannot_be_tuned_keeps_what_it_has(spoilt):
    def tune(plan):
        raise NoSuchOperator("Hardmax is not known to the replay of graphs")

    climbed = climb(spoilt, RECIPE, exam_of(spoilt), images(16), replace(STRICT, qat_epochs=1), tune)
    assert climbed.rungs[-1].note == "not done: Hardmax is not known to the replay of graphs"
    assert not climbed.rungs[-1].kept


def test_one_standard_error_is_allowed_where_it_is_more(plain):
    """Of 12 images, one wrong is within it: no second method is asked for what can't be told."""
    exam = exam_of(plain, 12)
    wrong = replace(exam, labels=np.append((exam.labels[:1] + 1) % 7, exam.labels[1:]))
    ladder = replace(STRICT, correct=True)
    climbed = climb(plain, RECIPE, wrong, images(16), ladder, None)
    lost = climbed.rungs[0].top1 - climbed.rungs[1].top1
    assert climbed.rungs[0].top1 == pytest.approx(11 / 12)
    assert (len(climbed.rungs) == 2) == (lost <= 0.1)  # (11 + 2) / (12 + 4): 0.098


def test_before_the_end_of_training_only_cheap_rungs_are_climbed():
    whole = Ladder()
    assert whole.at(3, 3) == whole
    assert whole.at(1, 3) == replace(whole, floating_macs=0.0, qat_epochs=0)
    assert whole.at(0, 3) == replace(whole.at(1, 3), methods=("min-max",), correct=False)
