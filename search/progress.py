"""Show the progress of a search: a live view in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from evaluators.measurement import OUTCOMES, Measurement
from remote.link.reply_parsing import printable
from search.budget import Budget
from search.console_output import make_unfailing


class ProgressView:
    """Draw the state of a search.

    The view is redrawn only when its state changes, so that no work of ours runs during a timing.

    Args:
        console: Console to draw on.
        budget: Limits to display.
        trials: Number of trials to run; None if only time limits the search.
        time_limit_s: Time limit in seconds; None without one.
    """

    def __init__(self, console: Console, budget: Budget, trials: int | None, time_limit_s: float | None) -> None:
        self._console, self._budget, self._trials, self._limit = make_unfailing(console), budget, trials, time_limit_s
        self._began = time.monotonic()
        self._device, self._state = "", ""
        self._doing = "starting"
        self._outcomes: Counter[str] = Counter()
        self._best: Measurement | None = None
        self._share: float | None = None
        self._lines: list[str] = []
        self._before = 0  # number of trials of earlier sessions
        is_live = console.is_terminal and not console.is_dumb_terminal
        self._live = Live(console=console, auto_refresh=False, transient=True) if is_live else None

    def __enter__(self) -> ProgressView:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def device(self, name: str, state: str) -> None:
        """Show the device and its state.

        Args:
            name: Name of the device.
            state: Description such as `calm, reference 1.21 ms`.
        """
        if (name, state) != (self._device, self._state):
            self._device, self._state = name, state
            self.log(f"device {name}: {state}")

    def earlier(self, measurements: Sequence[Measurement], best: Measurement | None) -> None:
        """Count the trials of earlier sessions of a resumed run.

        Args:
            measurements: Measurements of the earlier trials.
            best: Best feasible measurement among them.
        """
        if measurements:
            self._outcomes.update(m.outcome for m in measurements)
            self._before, self._best = len(measurements), best
            self.log(f"resuming: {len(measurements)} trials were recorded before")

    def doing(self, what: str, share: float | None = None) -> None:
        """Show the current activity.

        Args:
            what: One line that describes it.
            share: Completed share, 0..1, where it is known.
        """
        what = printable(what)
        if what != self._doing and not self._live:
            self._line(what)
        self._doing, self._share = what, share
        self._draw()

    def outcome(self, measurement: Measurement, best: Measurement | None) -> None:
        """Record the end of a trial.

        Args:
            measurement: Measurement of the trial.
            best: Best feasible measurement so far.
        """
        self._outcomes[measurement.outcome] += 1
        self._best = best
        self.log(f"trial {measurement.trial}: {measurement.candidate.describe()}: {_ending(measurement)}")

    def log(self, line: str) -> None:
        """Append a line to the log."""
        line = printable(line)
        self._lines = [*self._lines, line][-6:]
        if self._live:
            self._draw()
        else:
            self._line(line)

    def _line(self, text: str) -> None:
        elapsed = time.monotonic() - self._began
        stamp = f"[{int(elapsed) // 60:3d}:{int(elapsed) % 60:02d}]"
        self._console.print(f"{stamp} {text}", markup=False, highlight=False, soft_wrap=True)

    def _draw(self) -> None:
        if self._live:
            self._live.update(self._panel(), refresh=True)

    def _panel(self) -> Panel:
        done = sum(self._outcomes.values())
        table = Table.grid(padding=(0, 2))
        table.add_row("device", Text(printable(f"{self._device}: {self._state}")))
        table.add_row("budget", self._budget.describe())
        counts = ", ".join(f"{self._outcomes[o]} {o}" for o in OUTCOMES if self._outcomes[o])
        before = f" ({self._before} before)" if self._before else ""
        table.add_row("trials", f"{done}{f' of {self._trials}' if self._trials else ''}{before}   {counts}")
        table.add_row("best in budget", Text(_best(self._best)))
        table.add_row("time", self._time(done))
        table.add_row("now", Text(self._doing, overflow="ellipsis", no_wrap=True))
        bar = ProgressBar(total=1.0, completed=self._share if self._share is not None else self._share_done(done))
        log = Text("\n".join(self._lines), style="dim", overflow="ellipsis", no_wrap=True)
        return Panel(Group(table, bar, log), title="edgefront", border_style="cyan")

    def _share_done(self, done: int) -> float:
        """Return the completed share of the search, 0..1, by the limit that is nearer."""
        elapsed = time.monotonic() - self._began
        return max(done / self._trials if self._trials else 0.0, elapsed / self._limit if self._limit else 0.0)

    def _time(self, done: int) -> str:
        elapsed, now = time.monotonic() - self._began, done - self._before
        left = elapsed / now * (self._trials - done) if now and self._trials else None
        if self._limit is not None:
            rest = max(self._limit - elapsed, 0.0)
            left = rest if left is None else min(left, rest)
        return f"{_clock(elapsed)} gone" + (f", about {_clock(left)} left" if left is not None else "")


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _best(best: Measurement | None) -> str:
    if best is None or best.accuracy is None or best.latency is None:
        return "none yet"
    interval = best.latency.percentile_ms
    return (
        f"{100 * best.accuracy.score:.1f} %  {best.candidate.describe()}  "
        f"p{best.latency.percentile:g} {interval.value:.3g} ms (up to {interval.high:.3g})"
    )


def _ending(measurement: Measurement) -> str:
    parts: list[str] = [measurement.outcome]
    if measurement.reason:
        parts.append(measurement.reason)
    elif measurement.latency and measurement.accuracy:
        parts.append(
            f"{100 * measurement.accuracy.score:.1f} % at p{measurement.latency.percentile:g} "
            f"{measurement.latency.percentile_ms.value:.3g} ms"
        )
    if measurement.latency and measurement.latency.disturbed:
        parts.append(f"disturbed: {measurement.latency.disturbed}")
    return ", ".join(parts)
