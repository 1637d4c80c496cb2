"""Files torn, deleted, or refused by a full disk."""

from __future__ import annotations

from pathlib import Path

from tests.faults.torture import Torture


def _segments(torture: Torture, victim: int) -> list[Path]:
    """The last segment of each replica, where there are records in it."""
    last = [sorted(folder.glob("*.log"))[-1:] for folder in torture.arena.replica_dirs(victim, torture.topic)]
    return [path for paths in last for path in paths if path.stat().st_size]


def torn_tails(torture: Torture) -> None:
    victim = torture.leader(torture.some_partition())
    is_garbage = torture.dice.random() < 0.5
    at_once = torture.dice.random() < 0.5
    what = "end in garbage" if is_garbage else "are cut off in the middle"
    torture.begin(f"kill -9 broker {victim}, its segments {what}{', back at once' if at_once else ''}")
    torture.kill(victim)
    for path in _segments(torture, victim):
        content = path.read_bytes()
        if is_garbage:
            path.write_bytes(content + torture.dice.randbytes(torture.dice.randrange(1, 300)))
        else:
            path.write_bytes(content[: -torture.dice.randrange(1, min(2000, len(content)) + 1)])
    if not at_once:
        torture.wait_progress(f"without broker {victim}")
    torture.start(victim)


def deleted_indexes(torture: Torture) -> None:
    victim = torture.leader(torture.some_partition())
    is_clean = torture.dice.random() < 0.5
    torture.begin(f"{'SIGTERM' if is_clean else 'kill -9'} broker {victim}, its indexes and checkpoints are deleted")
    if is_clean:
        torture.broker(victim).stop()
    else:
        torture.kill(victim)
    for folder in torture.arena.replica_dirs(victim, torture.topic):
        for pattern in ("*.index", "*.timeindex", "*.snapshot"):
            for path in folder.glob(pattern):
                path.unlink()
    for folder in torture.arena.log_dirs(victim):
        (folder / "recovery-point-offset-checkpoint").unlink(missing_ok=True)
    torture.wait_progress(f"without broker {victim}")
    torture.start(victim)


def emptied(torture: Torture) -> None:
    victim = torture.leader(torture.some_partition())
    torture.begin(f"kill -9 broker {victim}, its data folders are emptied, back at once")
    torture.kill(victim)
    torture.arena.empty_folders(victim)
    torture.start(victim)


def emptied_first(torture: Torture) -> None:
    """It comes back before those that have the records: it must not lead, or they are lost."""
    victim = torture.leader(torture.some_partition())
    torture.begin(f"kill -9 all, broker {victim}'s data folders are emptied, it comes back first")
    torture.kill(*torture.cluster.brokers)
    torture.arena.empty_folders(victim)
    torture.start(victim)
    torture.hold(torture.arena.session_s + 2)
    torture.start(*torture.others(victim))


def emptied_alive(torture: Torture) -> None:
    victim = torture.leader(torture.some_partition())
    torture.begin(f"the data folders of broker {victim} are emptied while it runs")
    torture.arena.empty_folders(victim)
    torture.wait_progress(f"with broker {victim}'s folders emptied")
    torture.kill(victim)
    torture.start(victim)


def full_disk(torture: Torture) -> None:
    victim = max(torture.cluster.brokers)
    folder = torture.arena.small_disk
    assert folder is not None
    torture.begin(f"the disk of broker {victim}'s second log folder is full")
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 4096):
                pass
        except OSError:
            pass  # full
    torture.wait_progress("with a full disk")
    torture.hold(2)
    torture.kill(victim)
    filler.unlink()
    torture.start(victim)
