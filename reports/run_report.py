"""Write the report files into the run folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from remote.files import replace_file
from reports.html import page
from reports.plots import draw
from reports.trial_table import rows, rows_of_screened
from search.result import Result


def write(result: Result, folder: Path) -> tuple[Path, ...]:
    """Write report.html, front.csv, trials.csv, trials.parquet, looks.csv and front.png.

    A file appears under its name only when it is complete, and replaces an older one.

    Args:
        result: The result of the run.
        folder: Folder for the files.

    Returns:
        Paths of the files.
    """
    table = rows(result)
    front = table[table["on_front"]].sort_values("rank_ms", kind="stable")
    makers: dict[str, Callable[[Path], object]] = {
        "trials.csv": lambda file: table.to_csv(file, index=False, encoding="utf-8"),
        "trials.parquet": lambda file: table.to_parquet(file, index=False),
        "looks.csv": lambda file: rows_of_screened(result).to_csv(file, index=False, encoding="utf-8"),
        "front.csv": lambda file: front.to_csv(file, index=False, encoding="utf-8"),
        "front.png": lambda file: draw(result, file),
        "report.html": lambda file: file.write_text(page(result), encoding="utf-8"),
    }
    return tuple(_whole(folder / name, make) for name, make in makers.items())


def _whole(file: Path, make: Callable[[Path], object]) -> Path:
    with replace_file(file) as part:
        make(part)
    return file
