"""A device's survey is data from a stranger: what makes no sense is as if it had not been shown."""

from __future__ import annotations

import json
import math

import pytest

from remote.checks.check import Check, UntrustedReply, fit


def test_one_bad_check_is_enough():
    ok, warn, bad = (Check("a", verdict, "") for verdict in ("ok", "warn", "bad"))
    assert fit([]) and fit([ok, warn]) and not fit([ok, bad, warn])


@pytest.mark.parametrize("value", [None, "7", True, [7], {}, math.nan, math.inf, -1, 101, 10**400])
def test_what_is_no_number_within_the_limits(value):
    shown = UntrustedReply({"a": value, "list": [value, 5], "by name": {"x": value, "y": 5}})
    assert shown.number("a", 0, 100) is None
    assert shown.numbers("list", 0, 100) == (5.0,)
    assert shown.numbers_of("by name", 0, 100) == {"y": 5.0}


@pytest.mark.parametrize("value", [None, 7, True, ["a"], {}])
def test_what_is_no_text(value):
    shown = UntrustedReply({"a": value, "list": [value, "b"], "by name": {"x": value, "y": "b"}})
    assert shown.text("a") == "" and shown.bits("a") is None
    assert shown.texts("list") == ("b",)
    assert shown.words("by name") == {"y": "b"}


@pytest.mark.parametrize("value", [None, 7, "abc", {"a": 1}])
def test_what_is_no_list(value):
    shown = UntrustedReply({"a": value})
    assert shown.texts("a") == shown.numbers("a") == shown.rows("a") == ()


@pytest.mark.parametrize("value", [None, 7, "abc", [1, 2]])
def test_what_is_no_object(value):
    assert UntrustedReply({"a": value}).numbers_of("a") == {} and UntrustedReply({"a": value}).words("a") == {}


def test_text_cannot_move_a_cursor_and_is_cut_short():
    shown = UntrustedReply(
        {"a": "\x1b[2Jred\r\n\x00" + "x" * 9000, "list": ["\x1b"], "rows": [{"name": "\x07bell"}, 3]}
    )
    assert shown.text("a").startswith("[2Jred") and len(shown.text("a")) <= 100
    assert shown.texts("list") == ()
    assert [row.text("name") for row in shown.rows("rows")] == ["bell"]


@pytest.mark.parametrize(
    ("text", "bits"),
    [("0", 0), ("50005", 0x50005), ("0x50005", 0x50005), ("0xffffffffffffffff", 2**64 - 1), ("5g", None), ("-1", None)],
)
def test_bits(text, bits):
    assert UntrustedReply({"a": text}).bits("a") == bits


def test_flags_are_booleans_only():
    shown = UntrustedReply(json.loads('{"yes": true, "no": false, "one": 1, "text": "true"}'))
    assert [shown.flag(name) for name in ("yes", "no", "one", "text", "missing")] == [True, False, None, None, None]


def test_endless_lists_are_cut():
    assert len(UntrustedReply({"a": [1] * 100_000}).numbers("a")) == 200
    assert len(UntrustedReply({"a": {str(index): 1 for index in range(5000)}}).numbers_of("a")) == 200
