"""The ladder: cheap rungs first, no further than needed, every one told, the fewest layers in floating point."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from evaluators.measurement import standard_error_of_difference
from evaluators.quantization.calibration import extremes
from evaluators.quantization.host_scoring import EvaluationSet, decibels, logits
from evaluators.quantization.ladder import ScoredPlan, climb, sensitivity
from evaluators.quantization.qdq import QuantizationPlan, initializers, layers, macs
from evaluators.quantization.torch_graph import OPERATORS, UnknownOperatorError
from evaluators.training.jobs import CALIBRATIONS, FITTED, QUICK, LadderConfig
from tests.evaluators.quantization.nets import RECIPES, exam_of, images, plain_graph, right, top1, unbalance

RECIPE = RECIPES["TensorRT"]
STRICT = LadderConfig(methods=("min-max",), allowed_drop=0.0, correct=False, floating_macs=0.0, qat_epochs=0)


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
    climbed = climb(
        plain, RECIPE, exam=exam_of(plain), calibration=images(16), ladder=replace(STRICT, allowed_drop=0.9), tune=None
    )
    assert names(climbed) == ["fp32", "int8 min-max"]
    assert climbed.rungs[0].top1 == 1.0 and climbed.rungs[1].kept
    assert not climbed.plan.floating


def test_methods_are_all_tried_and_the_best_is_kept(plain):
    exam = exam_of(plain)
    climbed = climb(
        plain, RECIPE, exam=exam, calibration=images(16), ladder=replace(STRICT, methods=CALIBRATIONS), tune=None
    )
    tried = climbed.rungs[1:]
    assert [rung.name for rung in tried] == [f"int8 {method}" for method in CALIBRATIONS]
    kept = [rung for rung in tried if rung.kept][-1]
    assert top1(exam, climbed.graph) == kept.top1
    best = max(rung.top1 for rung in tried)
    assert best - kept.top1 < 0.02 and near_db(kept) >= max(near_db(rung) for rung in tried if rung.top1 == best)


def test_where_the_best_is_not_asked_for_the_first_method_that_will_do_is_kept(plain):
    short = replace(STRICT, methods=("percentile 99.9", *CALIBRATIONS), best=False, allowed_drop=0.9)
    climbed = climb(plain, RECIPE, exam=exam_of(plain), calibration=images(16), ladder=short, tune=None)
    assert names(climbed) == ["fp32", "int8 percentile 99.9"] and climbed.rungs[-1].kept
    whole = names(
        climb(plain, RECIPE, exam=exam_of(plain), calibration=images(16), ladder=replace(short, best=True), tune=None)
    )
    assert len(whole) > 2, "else this shows nothing"


def test_what_passes_by_luck_is_found_out_on_other_images(plain):
    lenient, asked = replace(STRICT, allowed_drop=0.2, floating_macs=1.0, second=100), []
    whole = exam_of(plain)
    at_first = climb(plain, RECIPE, exam=whole, calibration=images(16), ladder=lenient, tune=None)
    assert names(at_first)[1:] == ["int8 min-max"], "else this shows nothing"

    def hard():
        """An exam on which fp32 has everything right and int8 little: what they answer differently."""
        asked.append(True)
        shown = images(2000, 9)
        answers = [logits(graph, shown).argmax(axis=1) for graph in (plain, at_first.graph)]
        return EvaluationSet(shown[answers[0] != answers[1]], answers[0][answers[0] != answers[1]])

    climbed = climb(plain, RECIPE, exam=whole, calibration=images(16), ladder=lenient, tune=None, second=hard)
    assert "loses 100.0 points on" in climbed.rungs[1].note and "floating point" in climbed.rungs[-1].name
    assert len(asked) == 1 and top1(hard(), climbed.graph) >= 1 - lenient.allowed_drop
    asked.clear()
    climb(plain, RECIPE, exam=whole, calibration=images(16), ladder=replace(lenient, second=0), tune=None, second=hard)
    nobody = climb(
        plain,
        RECIPE,
        exam=whole,
        calibration=images(16),
        ladder=lenient,
        tune=None,
        second=lambda: EvaluationSet(whole.images[:0], whole.labels[:0]),
    )
    assert not asked and names(nobody) == names(at_first)


def near_db(rung):
    return float(rung.note.split("; ")[-1].removesuffix(" dB"))


def found(right, near_db, good=True):
    return ScoredPlan(plan=None, graph=None, right=[True] * right + [False] * (200 - right), near_db=near_db, good=good)


def test_accuracy_decides_where_it_tells_two_apart_and_nearness_to_fp32_where_it_does_not():
    assert found(180, 10.0).better(found(160, 30.0)) and not found(160, 30.0).better(found(180, 10.0))
    assert found(179, 30.0).better(found(180, 10.0)) and not found(180, 10.0).better(found(179, 30.0))
    assert found(150, 10.0).better(found(180, 30.0, good=False)), "what is good enough comes first"
    assert not found(180, 20.0).better(found(180, 20.0)), "of equal ones the simpler, which came first"


def test_logits_that_are_no_numbers_are_near_to_nothing():
    whole = np.ones((2, 3), np.float32)
    assert decibels(whole, np.full((2, 3), np.nan, np.float32)) == -np.inf < decibels(whole, 0 * whole)


def test_corrections_are_kept_only_where_they_score(spoilt):
    exam = exam_of(spoilt)
    climbed = climb(spoilt, RECIPE, exam=exam, calibration=images(16), ladder=replace(STRICT, correct=True), tune=None)
    assert names(climbed)[2:] in (["equalised", "bias corrected"], ["bias corrected"])
    best = climbed.rungs[1]
    for rung in climbed.rungs[2:]:
        if rung.kept:
            assert rung.top1 > best.top1 or near_db(rung) >= near_db(best)
            best = rung
        else:
            assert rung.top1 <= best.top1 or near_db(rung) <= near_db(best)
    assert top1(exam, climbed.graph) == best.top1


def test_the_most_sensitive_layers_are_the_ones_that_were_spoilt(spoilt):
    plan = QuantizationPlan(spoilt, RECIPE, extremes(spoilt, images(8)))
    order = sensitivity(plan, images(8))
    assert sorted(order) == sorted(layers(spoilt))
    assert any(BLOCK in name for name in order[:2]), order


def test_the_fewest_layers_go_back_to_floating_point(spoilt):
    exam = exam_of(spoilt)
    ladder = replace(STRICT, allowed_drop=0.12, floating_macs=0.5)
    climbed = climb(spoilt, RECIPE, exam=exam, calibration=images(16), ladder=ladder, tune=None)
    kept = [name for name, nodes in layers(spoilt).items() if set(nodes) & climbed.plan.floating]
    assert kept and top1(exam, climbed.graph) >= 0.88 > climbed.rungs[1].top1
    counts = {int(r.name.split()[0]): r.top1 for r in climbed.rungs if r.name.endswith("floating point")}
    assert len(kept) == min(count for count, top1 in counts.items() if top1 >= 0.88) < max(counts)
    assert len(kept) == 1 or counts[len(kept) - 1] < 0.88, "one fewer would not do"
    told = [rung for rung in climbed.rungs if rung.kept][-1]
    share = sum(macs(spoilt)[name] for name in kept) / sum(macs(spoilt).values())
    assert told.floating == len(kept) and told.floating_macs == pytest.approx(share, abs=1e-4)
    assert all(rung.floating == 0 for rung in climbed.rungs[:2])
    assert sum(macs(spoilt)[name] for name in kept) <= 0.5 * sum(macs(spoilt).values())


def test_no_more_than_the_allowed_share_goes_back_before_fine_tuning(spoilt):
    seen = []

    def tune(plan):
        seen.append(plan)
        return plan

    ladder = replace(STRICT, floating_macs=0.07, qat_epochs=3)
    climbed = climb(spoilt, RECIPE, exam=exam_of(spoilt), calibration=images(16), ladder=ladder, tune=tune)
    tuned_at = names(climbed).index("fine-tuned 3 epochs in int8")
    before = [rung for rung in climbed.rungs[:tuned_at] if "in floating point" in rung.name]
    assert before and all(0 < rung.floating_macs <= 0.07 for rung in before)
    assert [plan.floating for plan in seen] == [frozenset()], "it starts from all layers in int8"


def test_layers_that_go_back_have_the_biases_of_fp32(plain):
    """A corrected bias makes up for an error; where that is gone it is one itself."""
    ladder = replace(STRICT, methods=("percentile 97",), correct=True, floating_macs=1.0)
    climbed = climb(plain, RECIPE, exam=exam_of(plain), calibration=images(64), ladder=ladder, tune=None)
    rungs = {rung.name: rung for rung in climbed.rungs}
    assert rungs["bias corrected"].kept
    every = next(rung for name, rung in rungs.items() if name.endswith("floating point"))
    assert every.name.startswith(f"{len(layers(plain))} layers") and every.top1 == 1.0


def test_fine_tuning_that_is_not_enough_gives_back_as_many_layers_as_it_takes(spoilt):
    """The share holds before it; after it the ladder ends where it should, at the limit with fp32 itself."""
    ladder = replace(STRICT, allowed_drop=0.05, floating_macs=0.01, qat_epochs=1)
    exam = exam_of(spoilt)
    climbed = climb(spoilt, RECIPE, exam=exam, calibration=images(16), ladder=ladder, tune=lambda plan: plan)
    after = names(climbed)[names(climbed).index("fine-tuned 1 epochs in int8") + 1 :]
    assert after and all(name.endswith("in floating point, fine-tuned") for name in after)
    assert top1(exam, climbed.graph) >= 0.95 and climbed.plan.floating
    kept = [name for name, nodes in layers(spoilt).items() if set(nodes) & climbed.plan.floating]
    assert len(kept) < len(layers(spoilt)), "not all were needed"


def test_weights_that_fine_tuning_ruined_are_not_gone_on_with(spoilt):
    def ruin(plan):
        value = initializers(plan.plain)
        return plan.with_weights({name: 0 * v for name, v in value.items() if v.ndim == 4})

    ladder = replace(STRICT, allowed_drop=0.05, floating_macs=0.01, qat_epochs=1)
    exam = exam_of(spoilt)
    climbed = climb(spoilt, RECIPE, exam=exam, calibration=images(16), ladder=ladder, tune=ruin)
    assert top1(exam, climbed.graph) >= 0.95
    assert [name for name in names(climbed) if name.endswith("fine-tuned")] == [
        f"{len(layers(spoilt))} layers in floating point, fine-tuned"
    ]


def test_fitted_ranges_are_a_method_like_others(spoilt):
    exam = exam_of(spoilt)
    climbed = climb(
        spoilt,
        RECIPE,
        exam=exam,
        calibration=images(16),
        ladder=replace(STRICT, methods=("min-max", FITTED)),
        tune=None,
    )
    assert names(climbed) == ["fp32", "int8 min-max", "int8 fitted"]
    assert climbed.rungs[2].kept == (climbed.rungs[2].top1 > climbed.rungs[1].top1)
    easy = replace(STRICT, methods=("min-max", FITTED), allowed_drop=1.0)
    assert names(climb(spoilt, RECIPE, exam=exam, calibration=images(16), ladder=easy, tune=None)) == [
        "fp32",
        "int8 min-max",
    ]


def test_a_graph_that_cannot_be_replayed_is_calibrated_by_the_others(spoilt, monkeypatch):
    monkeypatch.delitem(OPERATORS, "Relu")
    climbed = climb(
        spoilt,
        RECIPE,
        exam=exam_of(spoilt),
        calibration=images(16),
        ladder=replace(STRICT, methods=("min-max", FITTED)),
        tune=None,
    )
    assert climbed.rungs[2].note == "not done: Relu is not supported by the replay of graphs" and climbed.rungs[1].kept


def test_a_graph_that_cannot_be_tuned_keeps_what_it_has(spoilt):
    def tune(plan):
        raise UnknownOperatorError("Hardmax is not supported by the replay of graphs")

    climbed = climb(
        spoilt, RECIPE, exam=exam_of(spoilt), calibration=images(16), ladder=replace(STRICT, qat_epochs=1), tune=tune
    )
    assert climbed.rungs[-1].note == "not done: Hardmax is not supported by the replay of graphs"
    assert not climbed.rungs[-1].kept


def test_a_difference_within_its_own_standard_error_is_allowed(plain):
    """Of images that both have right, or both wrong, nothing is to be learned about the difference."""
    exam = exam_of(plain, 100)
    climbed = climb(plain, RECIPE, exam=exam, calibration=images(16), ladder=replace(STRICT, correct=True), tune=None)
    still = right(exam, climbed.graph)
    error = standard_error_of_difference(right(exam, plain), still)
    assert error == pytest.approx((((~still).sum() + 2) - (~still).sum() ** 2 / 102) ** 0.5 / 102)
    assert (len(climbed.rungs) == 2) == (1 - climbed.rungs[1].top1 <= error + 1e-9)


def test_the_paired_error_counts_what_changed():
    right = np.array([True] * 60 + [False] * 40)
    assert standard_error_of_difference(right, right) == pytest.approx(2**0.5 / 102)
    swapped = np.roll(right, 10)  # ten won, ten lost: no difference, but an uncertain one
    assert standard_error_of_difference(right, swapped) == pytest.approx(22**0.5 / 102)
    assert standard_error_of_difference(right, ~right) < 0.11


def test_before_the_end_of_training_only_cheap_rungs_are_climbed():
    whole = LadderConfig()
    assert whole.at(3, 3) == whole
    assert whole.at(1, 3) == replace(whole, floating_macs=0.0, qat_epochs=0, methods=QUICK, best=False, second=0)
    assert whole.at(0, 3) == replace(whole.at(1, 3), methods=("min-max",), correct=False)
