"""A progress bar on standard error; silent when that is no terminal."""

from __future__ import annotations

import shutil
import sys
import time
from types import TracebackType

from layrfs.cli.rendering import shown_bytes, shown_seconds
from layrfs.model.status import ProgressReport

_BAR_CELLS = 24
_ENOUGH_SECONDS = 1.0
_CLEAR_LINE = "\r\x1b[2K"


class ProgressBar:
    """``with ProgressBar("syncing") as bar: client.call(..., bar.show)``."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._visible = sys.stderr.isatty()
        self._started: tuple[float, int] | None = None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._visible:
            self._write(_CLEAR_LINE)

    def show(self, report: ProgressReport) -> None:
        """Replace what is shown."""
        if self._visible:
            width = shutil.get_terminal_size().columns - 1
            self._write(_CLEAR_LINE + self._line(report)[:width])

    def _line(self, report: ProgressReport) -> str:
        now = time.monotonic()
        if self._started is None:
            self._started = (now, report.done_bytes)
        since, before = self._started
        rate = (report.done_bytes - before) / (now - since) if now - since > _ENOUGH_SECONDS else 0.0
        return progress_line(self._title, report, rate)

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


def progress_line(title: str, report: ProgressReport, bytes_per_second: float) -> str:
    """``syncing [######······] 45 %  1.2 GiB of 2.7 GiB  83 MiB/s  20 s left  waiting for hosts``."""
    parts = [title]
    if report.total_bytes > 0:
        share = min(1.0, report.done_bytes / report.total_bytes)
        filled = int(share * _BAR_CELLS)
        parts.append(f"[{'#' * filled}{'.' * (_BAR_CELLS - filled)}] {share:4.0%}")
        parts.append(f"{shown_bytes(report.done_bytes)} of {shown_bytes(report.total_bytes)}")
    elif report.done_bytes:
        parts.append(shown_bytes(report.done_bytes))
    if bytes_per_second > 0:
        parts.append(f"{shown_bytes(int(bytes_per_second))}/s")
        if report.total_bytes > report.done_bytes:
            parts.append(f"{shown_seconds((report.total_bytes - report.done_bytes) / bytes_per_second)} left")
    if report.text:
        parts.append(report.text)
    return "  ".join(parts)
