"""Rows, and how a person reads them."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement. `better` says which way is good; `bar` is the issue's, on the ratio when `bar_on_ratio`."""

    name: str
    unit: str
    drive: float
    plain: float | None = None
    better: str = "more"
    bar: float | None = None
    bar_on_ratio: bool = False
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """The drive's speed as a share of the plain directory's, also where less is better."""
        if self.plain is None:
            return None
        over, under = (self.drive, self.plain) if self.better == "more" else (self.plain, self.drive)
        return over / under if under else math.inf

    @property
    def reached(self) -> bool | None:
        """Whether the bar is met; None without a bar."""
        if self.bar is None:
            return None
        if self.bar_on_ratio:
            return self.ratio is not None and self.ratio >= self.bar
        return self.drive >= self.bar if self.better == "more" else self.drive <= self.bar

    def as_json(self) -> dict[str, object]:
        """All of it as plain values."""
        return asdict(self) | {"ratio": self.ratio, "reached": self.reached}


def number(value: float | None) -> str:
    """Three digits that matter."""
    if value is None:
        return ""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if value else "0"


def bar(row: Row) -> str:
    """What to reach, and whether it was."""
    if row.bar is None:
        return ""
    sign = "≥" if row.better == "more" or row.bar_on_ratio else "≤"
    what = " of plain" if row.bar_on_ratio else ""
    return f"{sign} {number(row.bar)}{what} {'✓' if row.reached else '✗'}"


def markdown(rows: Sequence[Row]) -> str:
    """The table for docs/performance.md."""
    lines = ["| row | unit | drive | plain directory | ratio | bar |", "|---|---|---:|---:|---:|---|"]
    for row in rows:
        name = row.name + (f" ({row.note})" if row.note else "")
        lines.append(
            f"| {name} | {row.unit} | {number(row.drive)} | {number(row.plain)} | {number(row.ratio)} | {bar(row)} |"
        )
    return "\n".join(lines)
