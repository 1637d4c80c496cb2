"""``python -m tests.simulation``, which is ``bin/zkbroker-simulate``: see ``--help``."""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from tests.simulation import hunting
from tests.simulation.bugs import BUGS, SWITCHES
from tests.simulation.campaign import (
    MINIMUM_OF_ANY_PROFILE,
    MINIMUM_PER_MILLION_STEPS,
    Interrupted,
    missing_counts,
    processors,
    report,
    run_campaign,
    say,
    summary,
)
from tests.simulation.mutant_results import RESULTS, SURVIVORS
from tests.simulation.mutants import MUTANTS
from tests.simulation.profiles import PROFILES
from tests.simulation.regressions import NOTICED, UNNOTICED
from tests.simulation.run import RunSpec, run
from tests.simulation.shrink import Shrinker

ALL = "all"
ALL_BUGS = "bugs"
STEPS_JUDGED = 50_000
"""A campaign of fewer may see too little by chance."""
SHRINK_SECONDS_MAX = 600.0

ABOUT = """\
Simulates a whole zkbroker cluster from one seed: real brokers on simulated clocks, connections, disks and a simulated
ZooKeeper, under faults, with every invariant of the design checked after every step. The same seed gives the same run,
to the byte.
"""
EXAMPLES = """\
how to:
  zkbroker-simulate --seeds 1-200                  200 seeds, profiles in turn, on all processors
  zkbroker-simulate --seed 7 --profile power       one run; a failure shows its last steps and how to repeat it
  zkbroker-simulate --seed 7 --trace               one run with everything that happened, on stdout
  zkbroker-simulate --seed 7 --shrink              if it fails: the smallest run that fails in the same way
  zkbroker-simulate --list-mutants                 the rules that can be switched off, and which seed shows it
  zkbroker-simulate --mutant epoch-start --seed 7  one run of a broker without that rule
  zkbroker-simulate --hunt epoch-start             seed after seed, until the missing rule is noticed
  zkbroker-simulate --list-bugs                    the bugs that were found, and which seed and test notice them now

A step is one delivered event: a timer, bytes that arrive, a disk job, a ZooKeeper reply, a client's request, a fault.
Exit status: 0 clean, 1 a violation (or a mutant that was not noticed), 2 wrong usage, 130 Ctrl-C.
"""
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        status = _act(parser, options)
        sys.stdout.flush()
        return status
    except Interrupted as interrupted:
        say("\n".join(["", "interrupted", *summary(interrupted.campaign)]))
        return INTERRUPTED
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # ``--trace | head``: the reader has what it wanted. The flush at exit must not be one more error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0


def _act(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    if options.list_profiles:
        print("\n".join(f"{profile.name:<12} {profile.about}" for profile in PROFILES.values()))
        return 0
    if options.list_mutants:
        print("\n".join(hunting.table()))
        return 0
    if options.list_bugs:
        print("\n".join(hunting.table_of_bugs()))
        return 0
    if options.check_mutants:
        return _check([(hunting.recheck, RESULTS)])
    if options.check_bugs:
        return _check([(hunting.recheck, NOTICED), (hunting.recheck_test, BUGS)])
    if options.hunt is not None:
        return _hunt(parser, options)
    return _simulate(parser, options)


def _check(checks: Sequence[tuple[Callable[[str], str | None], Iterable[str]]]) -> int:
    """Say for which names a check has something to say."""
    told = [check(name) for check, names in checks for name in names]
    gone = [line for line in told if line is not None]
    print("\n".join([*gone, f"{len(told) - len(gone)} of {len(told)} are noticed"]))
    return 1 if gone else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="zkbroker-simulate",
        description=ABOUT,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("what to run")
    seeds = what.add_mutually_exclusive_group()
    seeds.add_argument("--seed", type=int, metavar="N", help="one run of this seed (default: 1)")
    seeds.add_argument("--seeds", metavar="A-B", help="a campaign over these seeds")
    what.add_argument(
        "--steps",
        type=_positive,
        default=2000,
        metavar="N",
        help="steps of each run under faults (default: 2000); starting and healing come on top",
    )
    what.add_argument(
        "--profile",
        choices=[*PROFILES, ALL],
        metavar="NAME",
        help=f"which faults, how often: {', '.join(PROFILES)}; or all, in turn by seed "
        "(default: all for --seeds, else default)",
    )
    what.add_argument("--jobs", type=_positive, metavar="N", help="processes side by side (default: all processors)")
    what.add_argument("--minutes", type=_minutes, metavar="N", help="end a campaign or hunt after so long")
    for name, about in (("brokers", "in the cluster"), ("partitions", "of each topic"), ("clients", "of each kind")):
        what.add_argument(f"--{name}", type=_positive, metavar="N", help=f"{name} {about} (default: by seed)")
    what.add_argument("--without-faults", type=_numbers, default=(), metavar="N,N", help="leave these faults out")
    what.add_argument(
        "--no-heal", action="store_true", help="end after the steps, without looking whether all comes round"
    )
    show = parser.add_argument_group("what to show")
    show.add_argument("--trace", action="store_true", help="print every step")
    show.add_argument("--shrink", action="store_true", help="look for a smaller run that fails in the same way")
    show.add_argument("--list-profiles", action="store_true", help="the profiles and what they do")
    rules = parser.add_argument_group("rules switched off, bugs brought back")
    rules.add_argument(
        "--mutant", choices=sorted(SWITCHES), metavar="NAME", help="run without this rule, or with this bug"
    )
    rules.add_argument("--list-mutants", action="store_true", help="the rules, and which seeds notice their absence")
    rules.add_argument("--check-mutants", action="store_true", help="run what --list-mutants shows, all of it")
    rules.add_argument("--list-bugs", action="store_true", help="the bugs found, and which seeds and tests notice them")
    rules.add_argument("--check-bugs", action="store_true", help="run what --list-bugs shows, seeds and tests")
    rules.add_argument(
        "--hunt",
        metavar="NAME",
        help=f"run seeds without this rule until that is noticed; {ALL}: every rule, {ALL_BUGS}: every bug",
    )
    return parser


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def _minutes(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not numbers with commas between them") from None


def _range(parser: argparse.ArgumentParser, text: str) -> range:
    first, dash, last = text.partition("-")
    try:
        found = range(int(first), int(last if dash else first) + 1)
    except ValueError:
        parser.error(f"argument --seeds: {text!r} is not A-B")
    if not found:
        parser.error(f"argument --seeds: {text!r} is empty")
    return found


def _specs(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[RunSpec]:
    seeds = [1 if options.seed is None else options.seed] if options.seeds is None else _range(parser, options.seeds)
    profile = options.profile or ("default" if options.seeds is None else ALL)
    names = list(PROFILES)
    return [
        RunSpec(
            seed,
            names[seed % len(names)] if profile == ALL else profile,
            options.steps,
            options.mutant or "",
            options.without_faults,
            options.brokers,
            options.partitions,
            options.clients,
            heals=not options.no_heal,
            keeps_trace=options.trace,
        )
        for seed in seeds
    ]


def _simulate(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    specs = _specs(parser, options)
    jobs = 1 if len(specs) == 1 else options.jobs or processors()
    campaign = run_campaign(
        specs, jobs=jobs, say=say, seconds_max=None if options.minutes is None else options.minutes * 60
    )
    if len(specs) == 1 and options.trace and not campaign.failures:
        print("\n".join(run(specs[0]).trace))
    for result in campaign.failures:
        print("\n".join(report(result, whole_trace=options.trace)))
        if options.shrink:
            best = Shrinker(result, run=run, say=say, seconds_max=SHRINK_SECONDS_MAX).shrink()
            print("\n".join(["", "THE SMALLEST FOUND", *report(best, whole_trace=options.trace)]))
    if options.shrink and not campaign.failures:
        say("nothing failed: there is nothing to shrink")
    say("\n".join(["", *summary(campaign)]))  # with the time it took: not among what one seed always prints
    if campaign.failures:
        return 1
    minimum = MINIMUM_PER_MILLION_STEPS if options.profile in (None, ALL) else MINIMUM_OF_ANY_PROFILE
    is_judged = options.seeds is not None and campaign.steps >= STEPS_JUDGED
    missing = missing_counts(campaign, minimum) if is_judged else []
    if missing:
        print(textwrap.indent("\n".join(["too little happened for this to mean much:", *missing]), "  "))
    return 1 if missing else 0


def _hunt(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    every: Mapping[str, Collection[str]] = {ALL: MUTANTS, ALL_BUGS: BUGS}
    if options.hunt not in every and options.hunt not in SWITCHES:
        parser.error(f"argument --hunt: no such mutant: {options.hunt} (see --list-mutants, --list-bugs)")
    seeds = range(1, 201) if options.seeds is None else _range(parser, options.seeds)
    survivors = []
    for name in every.get(options.hunt, [options.hunt]):
        caught = hunting.hunt(
            SWITCHES[name],
            seeds,
            profile=options.profile,
            steps=options.steps,
            jobs=options.jobs or processors(),
            say=say,
            seconds_max=None if options.minutes is None else options.minutes * 60,
        )
        print(hunting.result_line(name, caught), flush=True)
        if caught is None and name not in SURVIVORS and name not in UNNOTICED:
            survivors.append(name)
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
