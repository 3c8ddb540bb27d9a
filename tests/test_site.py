"""The site that `make docs` builds: links lead somewhere, the Python API is on it, nothing comes from other hosts."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import search

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_site_strict_build_has_api_and_no_other_hosts(tmp_path):
    """Every warning of mkdocs, such as a broken link or a page outside the navigation, fails a strict build."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path]
    env = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {
        path.relative_to(tmp_path).as_posix(): path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html")
    }
    assert {f"docs/{path.stem}.html" for path in (ROOT / "docs").glob("*.md")} <= set(pages)
    identifiers = set(re.findall(r'id="[\w.]*?(\w+)"', pages["docs/api.html"]))
    assert {*search.__all__, "EdgefrontError", "UserError", "DeviceError", "HostError"} <= identifiers
    for name, page in pages.items():
        loaded = re.findall(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=\"?(https?:)?//", page)
        assert not loaded and 'class="mermaid"' not in page, name  # the theme fetches mermaid from another host
