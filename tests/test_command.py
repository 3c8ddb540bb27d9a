"""What a user types: the real command, from nothing to a chosen model, killed, gone on with, and refused."""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path

import numpy
import onnxruntime
import pandas
import pytest
from PIL import Image

from remote.exit_codes import BUG, DEVICE, HOST, NOTHING_FITS, OK, USER
from search.storage.ledger import Ledger
from tests.agreement import disagreements
from tests.ending_runs import heed_signals, worker_of

ROOT = Path(__file__).parent.parent
# Two small networks and few epochs: seconds a trial, so that a whole search is a test.
SPACE = """
title = "two for a test"
[variants]
tiny_resnet = ["res8_w4_s2", "res8_w16_s2"]
[axes]
image_px = [16, 24, 32]
prune = [0.0, 0.25, 0.5]
precision = ["fp32", "int8"]
"""


def start(*words, cwd=ROOT):
    command = [sys.executable, "-m", "search.run", *map(str, words)]
    env = os.environ | {"COLUMNS": "120"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=cwd, env=env, preexec_fn=heed_signals, **pipes)


def run(*words, timeout=600):
    process = start(*words)
    out, err = process.communicate(timeout=timeout)
    assert "Traceback" not in out + err, out + err
    return process.returncode, out, err


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    path = tmp_path_factory.mktemp("space") / "two.toml"
    path.write_text(SPACE)
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, space, cache):
    """Run one whole search over the embedded digits."""
    folder = tmp_path_factory.mktemp("run") / "run"
    words = ["--budget-ms", 50, "--space", space, "--trials", 6, "--rungs", "0,1", "--out", folder]
    code, out, err = run(*words, "--parent-epochs", 2, "--cache", cache)
    assert code == OK, out + err
    return folder, out, [*words, "--parent-epochs", 2, "--cache", cache]


@pytest.mark.slow
def test_a_search_leaves_everything_it_promises(finished):
    folder, out, _ = finished
    for name in ("report.html", "front.csv", "trials.csv", "trials.parquet", "looks.csv", "front.png", "study.journal"):
        assert (folder / name).stat().st_size > 0, name
    trials = pandas.read_parquet(folder / "trials.parquet")
    assert len(trials) == 6 and trials.chosen.sum() == 1 and trials.baseline.sum() == 1
    looks = pandas.read_csv(folder / "looks.csv")
    timed = {json.loads(line)["key"] for line in (folder / "ledger.jsonl").open() if '"stage": "latency"' in line}
    assert len(looks) <= len(timed) - len(trials), "ladders of channel counts are no candidates of the space"
    assert trials.validation_balanced.notna().sum() == trials.validation_top1.notna().sum() > 0
    assert "Class by class" in (folder / "report.html").read_text() and disagreements(folder) == []
    assert "front" in out and "res8" in out and "budget" in out
    assert "reference" in out and "trial 0" in out, "plain log lines where there is no terminal"


@pytest.mark.slow
def test_what_is_chosen_is_what_was_measured(finished):
    """Test accuracy recomputed from the ONNX file, image by image, equals the report's to the last digit."""
    from evaluators.data.loading import arrays, open_dataset

    folder, _, _ = finished
    config = json.loads((folder / "chosen" / "config.json").read_text())
    chosen = pandas.read_csv(folder / "trials.csv").query("chosen").iloc[0]
    px = config["preprocessing"]["image_px"]
    images, labels = arrays(open_dataset("digits", 0), "test", px, folder / "again")
    session = onnxruntime.InferenceSession(folder / "chosen" / "model.onnx")
    mean, std = (numpy.float32(config["preprocessing"][name]) for name in ("mean", "std"))
    right = 0
    for image, label in zip(images, labels, strict=True):
        x = ((image.astype(numpy.float32) / 255 - mean) / std).transpose(2, 0, 1)[None]
        right += session.run(None, {"image": x})[0].argmax() == label
    assert right / len(labels) == pytest.approx(chosen.test_top1, abs=1e-12)


@pytest.mark.slow
def test_finalists_say_what_really_ran(finished):
    """On this machine the device's runtime is the host's, so both give the same answers."""
    trials = pandas.read_csv(finished[0] / "trials.csv")
    shown, rest = trials[trials.on_front | trials.chosen], trials[~(trials.on_front | trials.chosen)]
    assert (shown.same_answer == 1).all() and (shown.host_top1 == shown.validation_top1).all()
    int8 = shown[shown.precision == "int8"]
    assert (int8.layers_as_asked > 0).all() and int8.reformat_share.between(0.001, 0.9).all()
    assert rest.same_answer.isna().all() and shown[shown.precision == "fp32"].layers.isna().all()


@pytest.mark.slow
def test_the_example_predicts(finished):
    folder, _, _ = finished
    Image.fromarray(numpy.full((48, 48), 30, numpy.uint8)).save(folder / "grey.png")
    done = subprocess.run(
        [sys.executable, folder / "chosen" / "predict.py", folder / "grey.png"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[0] in "0123456789"


@pytest.mark.slow
def test_the_same_command_again_measures_nothing_more(finished):
    folder, _, words = finished
    before = (folder / "ledger.jsonl").read_text()
    began = time.monotonic()
    code, _, err = run(*words)
    assert code == OK, err
    after = (folder / "ledger.jsonl").read_text()
    assert after.startswith(before) and time.monotonic() - began < 90
    new = [json.loads(line)["stage"] for line in after[len(before) :].splitlines()]
    assert set(new) <= {"session"}, new


@pytest.mark.slow
def test_more_trials_go_on_where_it_stopped(finished, tmp_path):
    folder, _, _ = finished
    copy = tmp_path / "more"
    shutil.copytree(folder, copy)
    code, _, err = run("--resume", "--out", copy, "--trials", 7)
    assert code == OK, err
    assert len(pandas.read_csv(copy / "trials.csv")) == 7


@pytest.mark.slow
def test_other_wishes_for_the_same_folder_are_refused(finished):
    folder, _, _ = finished
    code, _, err = run("--budget-ms", 2, "--out", folder)
    assert code == USER and "budget_ms was 50.0, now 2.0" in err and err.count("\n") == 1


@pytest.mark.slow
def test_nothing_fits_has_its_own_exit_code_and_says_what_is_nearest(space, cache, tmp_path):
    words = ["--budget-ms", 0.001, "--space", space, "--trials", 3, "--rungs", "0,1", "--out", tmp_path / "r"]
    words += ["--device", "sim:nano", "--probe-share", 0]
    code, out, err = run(*words, "--parent-epochs", 2, "--cache", cache)
    assert code == NOTHING_FITS, err
    assert "nothing" in out.lower() and "0.001" in out
    assert (tmp_path / "r" / "report.html").exists() and not (tmp_path / "r" / "chosen").exists()


@pytest.mark.slow
def test_optuna_dashboard_opens_the_journal(finished):
    folder, _, _ = finished
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).parent / "optuna-dashboard", "--port", str(port), folder / "study.journal"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(120):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies", timeout=5) as answer:
                    studies = json.loads(answer.read())["study_summaries"]
                break
            except OSError:
                time.sleep(0.5)
        assert [study["study_name"] for study in studies] == ["edgefront"]
    finally:
        server.terminate()
        server.wait(10)


def lines_of(ledger):
    return ledger.read_bytes().count(b"\n") if ledger.exists() else 0


@pytest.mark.slow
def test_search_killed_at_three_random_moments_goes_on_and_repeats_nothing(space, tmp_path):
    """Kill -9 the whole command; each time the same command goes on. One consistent journal at the end.

    The first is killed as it starts; each of the others some entries further than the one before had come, so that
    little time is spent on starting and every stage has its turn.
    """
    rng, folder = random.Random(0), tmp_path / "r"
    words = ["--budget-ms", 50, "--space", space, "--trials", 4, "--rungs", "0,1", "--out", folder]
    words += ["--parent-epochs", 1, "--probe-share", 0, "--cache", tmp_path / "cache"]
    words += ["--sampler", "tpe"]  # ours looks at some latencies again, on purpose
    for further in (0, 9, 9):
        process, least = start(*words), lines_of(folder / "ledger.jsonl") + further
        while further and process.poll() is None and lines_of(folder / "ledger.jsonl") < least:
            time.sleep(0.02)
        time.sleep(rng.uniform(0.0, 1.0) if further else 1.0)
        process.send_signal(signal.SIGKILL)
        out, err = process.communicate(timeout=60)
        assert process.returncode in (-signal.SIGKILL, OK), out + err
        assert "Traceback" not in out + err, out + err
    code, out, err = run(*words)
    assert code == OK, out + err
    ledger = Ledger(folder / "ledger.jsonl")
    # what took no time was not measured: a session's end, a device that is faster or slower for good
    counts = Counter((entry.stage, entry.key) for entry in ledger.entries() if entry.spent_s)
    assert [what for what, times in counts.items() if times > 1 and what[0] not in ("latency", "confirm")] == []
    assert max(counts.values()) <= 3, "leaders and finalists alone are timed again, on purpose"
    trials = pandas.read_csv(folder / "trials.csv")
    assert len(trials) == 4 == trials.trial.nunique()
    columns = ["variant", "image_px", "prune", "precision"]
    assert len(trials.drop_duplicates(columns)) == 4, "no candidate was evaluated twice"


@pytest.mark.slow
def test_signal_undoes_everything_and_says_that_the_same_command_goes_on(space, cache, tmp_path):
    """In the middle of a training: the board is restored, the worker gone, and the folder can be gone on with.

    `tests/search/test_signal_handling.py` tries the other signals, SIGINT among them.
    """
    (tmp_path / "edgefront").mkdir()
    entry = f"[bench]\nrestore = ['touch {tmp_path / 'restored'}']\n"
    (tmp_path / "edgefront" / "devices.toml").write_text(entry)
    words = ["--budget-ms", 50, "--space", space, "--trials", 3, "--out", tmp_path / "r", "--cache", tmp_path / "cache"]
    os.environ["XDG_CONFIG_HOME"] = str(tmp_path)
    try:
        process = start(*words, "--device", "bench")
    finally:
        del os.environ["XDG_CONFIG_HOME"]
    log = tmp_path / "r" / "progress.json"  # a training has begun
    while not log.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    worker = worker_of(process.pid)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143 and "same command to resume" in err and "Traceback" not in out + err, out + err
    assert (tmp_path / "restored").exists() and worker is not None and not Path(f"/proc/{worker}").exists()
    before = (tmp_path / "r" / "ledger.jsonl").read_bytes()
    assert before.endswith(b"\n") and Ledger(tmp_path / "r" / "ledger.jsonl")


@pytest.mark.slow
def test_output_that_nobody_reads_ends_quietly(space, cache, tmp_path):
    command = f"{sys.executable} -m search.run --budget-ms 50 --device sim:nano --space {space} --trials 2 --rungs 0"
    command += f" --parent-epochs 1 --probe-share 0 --out {tmp_path / 'r'} --cache {cache} 2>{tmp_path / 'err'}"
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -1; exit ${{PIPESTATUS[0]}}"], cwd=ROOT, capture_output=True
    )
    assert done.returncode == 141 and (tmp_path / "err").read_bytes() == b""


@pytest.mark.slow
def test_what_may_be_deleted_is_made_again(finished, tmp_path):
    """README: `graphs/` and `nets/` can be deleted. The chosen model is damaged, too."""
    folder, _, _ = finished
    copy = tmp_path / "again"
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / "chosen")
    shutil.rmtree(copy / "graphs")
    shutil.rmtree(copy / "nets")
    assert run("--resume", "--out", copy)[0] == OK
    config = json.loads((copy / "chosen" / "config.json").read_text())
    model = copy / pandas.read_csv(copy / "trials.csv").query("chosen").iloc[0].model_path
    assert hashlib.sha256(model.read_bytes()).hexdigest() == config["sha256"]["model.onnx"]
    model.write_bytes(model.read_bytes()[:100])
    assert run("--resume", "--out", copy)[0] == OK
    assert hashlib.sha256(model.read_bytes()).hexdigest() == config["sha256"]["model.onnx"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--budget-ms", "5", "--data", "nowhere"], "nowhere"),
        (["--budget-ms", "5", "--device", "moon"], "local"),
        (["--budget-ms", "5", "--space", "moon"], "edge"),
        (["--budget-ms", "5", "--sampler", "moon"], "tpe"),
        (["--budget-ms", "5", "--weights", "nowhere"], "nowhere"),
        (["--budget-ms", "-5"], "above 0"),
        (["--budget-ms", "5", "--cache", "README.md/cache"], "--cache README.md/cache can't be written"),
        (["--budget-ms", "5", "--device", "[/red]"], "[/red]"),
        (["--budget-ms", "5", "--data", "two\nlines"], "two\\nlines"),
        (["--budget-ms", "5", "--table", "x", "--space", "nb201", "--device", "table:x", "--sampler", "moon"], "tpe"),
        (["--budget-ms", "5", "--warm-start", "docs"], "no run folder"),
        ([], "--budget-ms 30"),
    ],
)
def test_a_wrong_wish_ends_with_one_line(words, says, tmp_path):
    code, out, err = run(*words, *(["--out", tmp_path / "r"] if words else []))
    assert code == USER and says in err and err.startswith("error: ") and err.count("\n") == 1, (out, err)
    assert not (tmp_path / "r").exists(), "nothing is left behind"


def test_exit_codes_are_documented():
    done = subprocess.run([sys.executable, "-m", "search.run", "--help"], cwd=ROOT, capture_output=True, text=True)
    readme = (ROOT / "README.md").read_text()
    for code in (OK, BUG, USER, NOTHING_FITS, DEVICE, HOST, 129, 130, 141, 143):
        for text in (done.stdout.split("exit codes:")[1], readme.split("| exit code |")[1].split("## ")[0]):
            assert re.search(rf"\b{code}\b", text), code
