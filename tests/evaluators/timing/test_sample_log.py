"""The raw samples' file: readable by gzip and pandas, wherever a kill cut it."""

import gzip
import io
import json

import pandas
import pytest

from evaluators.timing.sample_log import SampleLog, whole_members

LINES = [{"candidate": f"c{place:011x}", "wall_ms": [0.5 * place, 1.0]} for place in range(3)]


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "samples.jsonl.gz"
    for line in LINES:
        SampleLog(path).add(line)
    return path


def read(path):
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def test_samples_are_read_by_pandas(written):
    table = pandas.read_json(written, lines=True)
    assert list(table.candidate) == [line["candidate"] for line in LINES] and read(written) == LINES


def test_samples_cut_at_every_byte_keep_all_whole_members(written):
    data = written.read_bytes()
    ends = [end for _, end in whole_members(data)]
    assert len(ends) == 3 and ends[-1] == len(data)
    for cut in range(len(data) + 1):
        written.write_bytes(data[:cut])
        samples = SampleLog(written)
        whole = sum(end <= cut for end in ends)
        assert read(written) == LINES[:whole]
        samples.add({"after": cut})
        assert read(written) == [*LINES[:whole], {"after": cut}]


def test_samples_torn_in_the_middle_lose_one_member(written):
    """Earlier versions appended after a torn member, which hid all that came after it."""
    data = written.read_bytes()
    first, second = [end for _, end in whole_members(data)][:2]
    written.write_bytes(data[: second - 5] + data[second:])
    SampleLog(written)
    assert read(written) == [LINES[0], LINES[2]] and first < second


def test_whole_members_of_a_large_member_ends_where_it_ends():
    data = gzip.compress(bytes(1 << 20), 0) + gzip.compress(b"x")
    assert [gzip.GzipFile(fileobj=io.BytesIO(data[a:b])).read()[:1] for a, b in whole_members(data)] == [b"\0", b"x"]
