"""Names of classes, files and devices are the user's: never markup, never HTML, never an escape sequence."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from reports.html import page
from reports.plots import draw
from reports.terminal import summary
from spaces.show import table
from spaces.space import load
from tests.reports.conftest import EVIL, usual
from tests.reports.test_classes import missed

PARTS = [
    *"<>&\"'[]{}/\\`$%\x1b\x07\x85\u2028\u202e\n\r\tü測a",
    "[red]", "[/red]", "[link=file:///x]", "<b>", "</script>", "<!--", "{{ 7*7 }}", "{% raw %}", "\x1b[31m", "$x^2$",
    "\\frac", "&lt;",
]  # fmt: skip
HOSTILE = st.lists(st.sampled_from(PARTS), min_size=1, max_size=8).map("".join)


def named(folder, name: str):
    """A run in which everything that a user can name bears one name, a missed class among it."""
    result = missed(usual(folder, count=12))
    renamed = {
        m.trial: replace(m, candidate=replace(m.candidate, variant=f"{m.candidate.variant}{name}"), reason=name)
        for m in (*result.measurements, result.choice)
    }
    return replace(
        result,
        command=name,
        classes=tuple(f"{name}{place}" for place in range(6)),
        device={"name": name, name: name},
        data={"set": name, "classes": name},
        provenance={name: name},
        warnings=(name,),
        incidents=((name, 2),),
        measurements=tuple(renamed.values()),
        front=tuple(renamed[m.trial] for m in result.front),
        choice=renamed[result.choice.trial],
        baseline=renamed[result.baseline.trial],
    )


class Shape(HTMLParser):
    """The tags of a page, and its words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        assert all(name in KNOWN or name.startswith(("data-", "aria-")) for name, _ in attributes), attributes

    def handle_data(self, data):
        self.words.append(data)


ATTRIBUTES = (
    "lang charset name content http-equiv rel href id class role datetime scope type for value checked open "
    "placeholder tabindex title style"
)
KNOWN = set(ATTRIBUTES.split())


@settings(deadline=None, max_examples=15)
@given(HOSTILE)
@example(EVIL)
@example("</title><img src=x onerror=alert(1)>")
def test_a_page_has_the_same_tags_whatever_the_names_are(tmp_path_factory, name):
    folder = tmp_path_factory.getbasetemp()
    harmless, hostile = (Shape(page(named(folder, one))) for one in ("harmless", name))
    assert hostile.tags == harmless.tags
    data = re.search(r'id="data">(.*?)</script>', page(named(folder, name)), re.S)[1]
    assert all(t["variant"].endswith(name) for t in json.loads(data)["trials"])


@settings(deadline=None, max_examples=15)
@given(HOSTILE)
@example("[/red]")
@example("\x1b]0;owned\x07")
def test_a_terminal_shows_names_and_obeys_none(tmp_path_factory, name):
    file = io.StringIO()
    Console(file=file, width=20_000, color_system=None).print(summary(named(tmp_path_factory.getbasetemp(), name)))
    text = file.getvalue()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028]", text)
    if name.isprintable():
        assert f"warning: {name.rstrip()}" in text


def test_a_spaces_own_names_are_no_markup():
    space = load("tiny")
    file = io.StringIO()
    Console(file=file, width=300).print(table(replace(space, title="[/red] [b]x", left_out=("[/nothing] left",))))
    assert "[/red] [b]x" in file.getvalue() and "[/nothing] left" in file.getvalue()


def test_the_picture_is_drawn_of_any_name(tmp_path):
    for name in (EVIL, "$x^2$ \\frac", "\x1b[31m", "测\u202e"):
        draw(named(tmp_path, name), tmp_path / "front.png")
        assert (tmp_path / "front.png").stat().st_size > 10_000
