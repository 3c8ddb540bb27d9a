"""A table written from formulas, of any size: what tests of samplers and of benchmarks search where no real one is."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy
import pandas

from spaces.table_space import TableSpace, load_table

TOML = """
title = "made from formulas"
key = "id"
files = ["made.csv"]
image_px = 32
axes = [{axes}]
numbers = ["macs_M"]
macs = {{ column = "macs_M", unit = 1e6 }}
parameters = {{ column = "macs_M", unit = 1e5 }}
accuracy = "{{data}}_test"
accuracy_unit = 0.01
epochs = 200
low = [{{ column = "{{data}}_ep12", epochs = 12 }}]
"""


def write(folder: Path, axes: int, values: int, missing: float = 0.0) -> Path:
    """The TOML file of a table `pi`/`pets` with `values` kinds of layer on each of `axes` edges.

    Each kind costs and yields its own, with less and less to gain; a layer of kind 0 does nothing. `missing` is the
    share of combinations the table has no row for.
    """
    random = numpy.random.default_rng(7)
    codes = numpy.array(list(product(range(values), repeat=axes)))
    cost = (1.4**codes - 1) @ random.uniform(0.5, 1.5, axes)
    worth = numpy.sqrt(codes) @ random.uniform(0.3, 1.0, axes) + random.normal(0, 0.15, len(codes))
    top1 = 95 - 60 * numpy.exp(-0.35 * worth)
    names = [f"edge{axis}" for axis in range(axes)]
    rows = pandas.DataFrame(codes, columns=names)
    rows.insert(0, "id", [f"n{place}" for place in range(len(rows))])
    rows["macs_M"] = 1 + cost
    rows["pets_test"] = top1.round(2)
    rows["pets_ep12"] = (top1 - 20 + random.normal(0, 2, len(rows))).round(2)
    rows["pi"] = ((2 + cost) * random.lognormal(0, 0.03, len(rows))).round(4)
    rows[random.random(len(rows)) >= missing].to_csv(folder / "made.csv", index=False)
    file = folder / "made.toml"
    file.write_text(TOML.format(axes=", ".join(f'"{name}"' for name in names)))
    return file


def made(folder: Path, axes: int, values: int, missing: float = 0.0) -> TableSpace:
    """The same, read."""
    return load_table(str(write(folder, axes, values, missing)), folder)
