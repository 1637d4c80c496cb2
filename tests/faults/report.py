"""What a run found, for people."""

from __future__ import annotations

from tests.faults.checker import Verdict

WIDTHS = (9, 8, 6, 8, 6, 11, 10)
SHOWN_MAX = 5
"""Violations of one kind that are shown in full; all are counted."""


def write_report(verdict: Verdict) -> str:
    """A table for people: a line for each fault, the totals, and what was violated."""
    lines = [
        f"{'fault':<26}{'held':>7}{'acked':>8}{'lost':>6}{'acks=1':>8}{'lost':>6}{'worst gap':>11}{'full ISR':>10}"
    ]

    def seconds(value: float | None) -> str:
        return "never" if value is None else f"{value:.2f} s"

    for one in verdict.figures:
        cells = (
            *(seconds(one.held_s), one.acknowledged, one.lost, one.acknowledged_one, one.lost_one),
            *(seconds(one.worst_gap_s), seconds(one.full_isr_s)),
        )
        line = f"{one.fault:<22}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, WIDTHS, strict=True))
        lines.append(f"{line}  {one.detail}")
        lines.extend(f"  {promise}" for promise in one.promises)
    lost = sum(violation.kind == "lost" for violation in verdict.violations)
    lines.append(
        f"{verdict.attempts} records tried, {verdict.acknowledged} acknowledged with acks=all ({lost} lost), "
        f"{verdict.acknowledged_one} with acks=1 ({verdict.lost_one} lost), {verdict.failed} given up, "
        f"{verdict.reads} read"
    )
    shown: dict[str, int] = {}
    for violation in verdict.violations:
        shown[violation.kind] = shown.get(violation.kind, 0) + 1
        if shown[violation.kind] <= SHOWN_MAX:
            lines.append(f"VIOLATION {str(violation).splitlines()[0]}")
    lines.extend(f"VIOLATIONS of kind {kind!r}: {count}" for kind, count in shown.items())
    return "\n".join(lines)
