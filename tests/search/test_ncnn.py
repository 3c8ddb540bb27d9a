"""A whole search with ncnn, whose nets are made of the graphs by pnnx: the one runtime with files of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("ncnn", reason="ncnn is not installed")
pytest.importorskip("pnnx", reason="pnnx is not installed")

ROOT = Path(__file__).parents[2]
SPACE = 'title = "one"\n[variants]\ntiny_resnet = ["res8_w4_s2"]\n[axes]\nimage_px = [16]\nprecision = ["fp32"]\n'
ENTRY = '[small]\nprofile = "local"\nruntime = "ncnn"\n'


@pytest.mark.slow
def test_search_with_ncnn_ends_with_a_choice_and_the_net_that_was_timed(tmp_path):
    """That files are converted, timed, scored and handed over, which no part of it proves alone."""
    (tmp_path / "edgefront").mkdir()
    (tmp_path / "edgefront" / "devices.toml").write_text(ENTRY)
    (tmp_path / "space.toml").write_text(SPACE)
    words = ["--budget-ms", "1000", "--device", "small", "--space", str(tmp_path / "space.toml"), "--trials", "1"]
    words += ["--rungs", "0", "--parent-epochs", "1", "--probe-share", "0", "--out", str(tmp_path / "run")]
    env = os.environ | {"XDG_CONFIG_HOME": str(tmp_path), "EDGEFRONT_LOCK_DIR": str(tmp_path)}
    argv = [sys.executable, "-m", "search.run", *words, "--cache", str(tmp_path / "cache")]
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    chosen = tmp_path / "run" / "chosen"
    config = json.loads((chosen / "config.json").read_text())
    assert config["candidate"]["runtime"] == "ncnn" and config["measured"]["validation"]["top1"] > 0
    with zipfile.ZipFile(chosen / "model.ncnn.zip") as net:
        assert net.namelist() == ["model.param", "model.bin"]
