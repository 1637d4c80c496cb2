"""What ``zkbroker-bench failover`` prints: a line for each round, and the table at the end."""

from __future__ import annotations

from collections.abc import Sequence

from zkbroker.cli._canary import QUIET_P99_MS
from zkbroker.cli._figures import Summary, percentile, summarize
from zkbroker.cli.bench_failover_rounds import Round
from zkbroker.cli.bench_failover_scenarios import Scenario


def milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def round_line(done: Round, count: int) -> str:
    """``kill-leader 3/20 zkbroker: 183 ms …``; what a person watches."""
    parts = [f"{done.scenario} {done.number + 1}/{count} {done.system}: {milliseconds(done.gap_ms)} ms"]
    if done.defaults_gap_ms is not None:
        parts.append(f"client's defaults {milliseconds(done.defaults_gap_ms)}")
    if done.moved_ms is not None:
        parts.append(f"znode {milliseconds(done.moved_ms)}")
    if done.undone_ms is not None:
        parts.append(
            f"{'undone' if done.moved_ms is not None else 'it lasted until undone'} {milliseconds(done.undone_ms)}"
        )
    if done.rejoined_ms is not None:
        parts.append(f"in the ISR again {milliseconds(done.rejoined_ms)} later")
    parts.append(f"CPU {done.cpu_s:.2f} s in {done.window_s:.1f}, waited {done.waited_s:.2f}")
    parts.append(f"canary p99 {done.delay.p99_ms:.1f} max {done.delay.max_ms:.0f}")
    if done.was_idle:
        parts.append("nothing under way")
    if done.lost_count:
        parts.append(f"LOST {done.lost_count} of {done.acknowledged_count} ACKNOWLEDGED RECORDS")
    if done.unsaved_count is not None:
        parts.append(f"{done.unsaved_count} were on no disk")
    if done.person_ms is not None:
        parts.append(f"no leader until a person accepted the loss after {milliseconds(done.person_ms)}")
    if not done.is_quiet:
        parts.append("noisy machine")
    return ", ".join(parts)


def rounds_of(rounds: Sequence[Round], scenario: str, system: str, only_quiet: bool) -> list[Round]:
    return [
        one for one in rounds if one.scenario == scenario and one.system == system and (one.is_quiet or not only_quiet)
    ]


def judged(rounds: Sequence[Round], scenario: str, system: str) -> list[Round]:
    """The rounds that the figures are made of: the quiet ones; all of them where there was no quiet one."""
    return rounds_of(rounds, scenario, system, True) or rounds_of(rounds, scenario, system, False)


def table(rounds: Sequence[Round], scenarios: Sequence[Scenario], systems: Sequence[str]) -> list[str]:
    """Median, 19th of 20 (95th percentile) and worst for each scenario and system; the first is compared with the
    second. All in milliseconds."""
    lines = [
        f"{'milliseconds without an acknowledged write':<50}"
        + "".join(f"{system:>24}{'':>9}" for system in systems)
        + (f"{'ratio':>9}" if len(systems) == 2 else ""),
        f"{'':<50}" + f"{'median':>9}{'19th/20':>9}{'worst':>9}{'n':>6}" * len(systems),
    ]
    for scenario in scenarios:
        if not any(one.scenario == scenario.name for one in rounds):
            continue
        by_system = {system: judged(rounds, scenario.name, system) for system in systems}
        if scenario.victim == "all":
            lines.extend(_losses(rounds, scenario, systems))
            continue
        title = scenario.title
        if scenario.asked_ms is not None:
            title += f" (< {scenario.asked_ms[0]:.0f}, {scenario.asked_ms[1]:.0f})"
        lines.append(_row(title, [summarize([one.gap_ms for one in by_system[system]]) for system in systems]))
        defaults = [
            summarize([one.defaults_gap_ms for one in by_system[system] if one.defaults_gap_ms is not None])
            for system in systems
        ]
        if any(defaults):
            lines.append(_row("  with the client's defaults", defaults))
        moved = [
            summarize([one.moved_ms for one in by_system[system] if one.moved_ms is not None]) for system in systems
        ]
        if any(moved):
            lines.append(_row("  until the znodes named the new leader and ISR", moved))
        rejoined = [
            summarize([one.rejoined_ms for one in by_system[system] if one.rejoined_ms is not None])
            for system in systems
        ]
        if any(rejoined):
            asked = "" if scenario.rejoin_asked_ms is None else f" (< {scenario.rejoin_asked_ms:.0f})"
            lines.append(_row(f"  once undone, until back in the ISR{asked}", rejoined))
        lines.extend(_beside(rounds, scenario.name, system) for system in systems if by_system[system])
    return lines


def _losses(rounds: Sequence[Round], scenario: Scenario, systems: Sequence[str]) -> list[str]:
    """After a loss of power the figure is how many acknowledged records were lost: a count, not a time. Beside it those
    that need not have been, for they were on some disk. A busy machine makes none of them: all rounds are shown."""
    every = [rounds_of(rounds, scenario.name, system, False) for system in systems]
    needless = [[r.lost_count - r.unsaved_count for r in done if r.unsaved_count is not None] for done in every]
    lines = [
        _row(f"{scenario.title}: LOST", [summarize([one.lost_count for one in done]) for done in every], False),
        _row("  of them those that a broker's disk still held", [summarize(one) for one in needless], False),
        _row("  milliseconds from the start to the first write", [summarize([r.gap_ms for r in one]) for one in every]),
    ]
    for system, done in zip(systems, every, strict=True):
        if not done:
            continue
        waited = [one.person_ms for one in done if one.person_ms is not None]
        line = _beside(rounds, scenario.name, system)
        if waited:
            line += f"; in {len(waited)} of {len(done)} rounds no leader was elected until a person accepted the loss"
        lines.append(line)
    return lines


def _row(title: str, summaries: Sequence[Summary | None], with_ratio: bool = True) -> str:
    line = f"{title:<50}"
    for one in summaries:
        if one is None:
            line += f"{'-':>9}{'-':>9}{'-':>9}{0:>6}"
        else:
            line += f"{milliseconds(one.median):>9}{milliseconds(one.high):>9}{milliseconds(one.worst):>9}"
            line += f"{one.rounds:>6}"
    if (
        with_ratio
        and len(summaries) == 2
        and summaries[0] is not None
        and summaries[1] is not None
        and summaries[0].median > 0
    ):
        line += f"{summaries[1].median / summaries[0].median:>8.1f}x"
    return line


def _beside(rounds: Sequence[Round], scenario: str, system: str) -> str:
    """What the figures of one system must be read beside."""
    counted = judged(rounds, scenario, system)
    every = rounds_of(rounds, scenario, system, False)
    noisy = [one for one in every if not one.is_quiet]
    cpu = summarize([one.cpu_s for one in counted])
    lost = sum(one.lost_count for one in every)
    acknowledged = sum(one.acknowledged_count for one in every)
    text = (
        f"    {system}: {lost} of {acknowledged:,} acknowledged records lost; brokers' CPU "
        f"{cpu.median if cpu else 0:.2f} s (median), waited for a processor up to "
        f"{max(one.waited_s for one in counted):.2f} s; canary's p99 up to "
        f"{max(one.delay.p99_ms for one in counted):.1f} ms, max {max(one.delay.max_ms for one in counted):.0f} ms"
    )
    endured = [one.undone_ms for one in counted if one.undone_ms is not None and one.moved_ms is None]
    if endured:
        text += (
            f"; in {len(endured)} of {len(counted)} rounds nothing was written until the fault was undone, after "
            f"{milliseconds(percentile(endured, 0.5))} ms"
        )
    idle = [one.gap_ms for one in counted if one.was_idle]
    if idle:
        text += (
            f"; in {len(idle)} of {len(counted)} rounds the client had nothing under way when it struck: median "
            f"{milliseconds(percentile(idle, 0.5))}, worst {milliseconds(max(idle))}"
        )
    if noisy:
        all_of_them = summarize([one.gap_ms for one in every])
        text += (
            f"; {len(noisy)} rounds with a p99 above {QUIET_P99_MS:g} ms were repeated, with them median "
            f"{milliseconds(all_of_them.median if all_of_them else None)}, 19th/20 "
            f"{milliseconds(all_of_them.high if all_of_them else None)}"
        )
    return text
