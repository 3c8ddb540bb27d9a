"""A chosen model's file that is gone or changed is made again, and measured again where it came out otherwise."""

from dataclasses import replace

from evaluators.measurement import Accuracy, Measurement, Outcome
from search.runs.model_restoration import TRIES, restore_chosen_model
from search.selection.finalists import SearchOutcome
from spaces.candidate import Candidate


def measured(trial, top1, sha256):
    candidate = Candidate(family="tiny_resnet", variant="res8_w4_s2", image_px=16 + trial)
    accuracy = Accuracy(
        top1=top1, correct=int(100 * top1), count=100, epochs=3, split="validation", model_sha256=sha256
    )
    return Measurement(candidate=candidate, outcome=Outcome.KEPT, accuracies=(accuracy,), trial=trial)


def finish(known):
    best = max(known, key=lambda m: m.accuracy.top1)
    return SearchOutcome(measurements=tuple(known), front=tuple(known), choice=best, baseline=None, miss=None)


class Files:
    """Files by candidate's size, as SHA-256; a model that is made again has the next one."""

    def __init__(self, **there):
        self.there, self.asked = {int(px[1:]): digest for px, digest in there.items()}, []

    def remade(self, candidate, epochs, sha256):
        self.asked.append((candidate.image_px, epochs))
        return self.there[candidate.image_px] != sha256


TRIALS = [measured(0, 0.8, "a"), measured(1, 0.9, "b")]


def test_mended_leaves_what_is_whole():
    void = []
    ending = restore_chosen_model(TRIALS, finish, Files(p16="a", p17="b"), None, void.append)
    assert ending.choice == TRIALS[1] and void == []


def test_mended_measures_again_what_came_out_otherwise():
    files, void = Files(p16="a", p17="c"), []

    def again(old, rivals):
        assert [m.trial for m in rivals] == [0]
        return replace(old, accuracies=(replace(old.accuracy, top1=0.7, model_sha256="c"),))

    ending = restore_chosen_model(TRIALS, finish, files, again, void.append)
    assert ending.choice == TRIALS[0], "what it is now is not the best any more"
    assert void == [f"{TRIALS[1].candidate.key()}@3"] and files.asked == [(17, 3), (16, 3)]


def test_mended_ends_where_no_two_trainings_are_alike():
    files, void = Files(p16="a", p17="never"), []
    ending = restore_chosen_model(TRIALS, finish, files, lambda old, rivals: old, void.append)
    assert ending.choice == TRIALS[1] and len(void) == TRIES
