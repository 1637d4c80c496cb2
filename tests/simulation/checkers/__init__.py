"""What must hold after every step of a simulated cluster: the invariants of the domain's rules, and who checks each.

| | invariant | where |
|---|---|---|
| 1 | controller, leader, partition and broker epochs rise; a controller epoch has one owner | znodes |
| 2 | one leader per partition and leader epoch, states written only by the highest controller epoch | znodes, roles |
| 3 | ISR within replicas, not empty; leader in the ISR or none; recovering means one member | znodes |
| 4 | the leader of the present epoch counts all whom ZooKeeper has in ISR and ELR | roles |
| 5 | the true high watermark never falls; every running member that lost nothing holds all of it | committed |
| 6 | who is elected holds all that is committed; nothing lost while lossy failures < min ISR | committed |
| 7 | logs agree below their high watermarks; an epoch and offset have one content, ever | committed, logs |
| 8 | log start ≤ last stable ≤ high watermark ≤ end; a leader's mark never falls, frozen below min ISR | logs |
| 9 | the epoch cache rises in both columns and says what the batches say | logs |
| 10 | what was read once is read again the same (there are no transactions yet) | ``history`` |
| 11 | nothing committed is truncated | committed |
| 12 | nobody joins by a fetch of another leader epoch or incarnation, or unregistered | roles, znodes |
| 13 | sequences of a producer are contiguous; retries are stored once, offsets are true | logs, ``history`` |
| 14 | adding and removing fit the assignment; only the spared go; data goes with topic or replica | znodes, roles |
| 15 | a fenced broker falls silent in time | fencing |
| 16 | what is rebuilt from files is what was in memory | logs, observer |
| 17 | healed, the cluster works; who hangs or is cut off is followed in time | ``liveness``, ``gray_faults`` |
| 18 | fast failover fences nobody without majority, against a veto, or for the worse | promises |

The checkers read the brokers' memory and the bytes of their files, and share no code with what they check.
"""

from __future__ import annotations

from typing import Any

from tests.simulation.checkers.committed import CommittedChecker
from tests.simulation.checkers.fencing import FencingChecker
from tests.simulation.checkers.ghost import Ghost
from tests.simulation.checkers.logs import LogChecker
from tests.simulation.checkers.observer import Observer
from tests.simulation.checkers.promises import PromiseChecker
from tests.simulation.checkers.roles import RoleChecker
from tests.simulation.checkers.znodes import ZnodeChecker


class Checkers:
    """All of them, for one world."""

    def __init__(self, world: Any, *, min_insync_replicas: int = 2) -> None:
        self.ghost = Ghost(min_insync_replicas, lambda text: world.trace.add("checker", text))
        self.znodes = ZnodeChecker(self.ghost)
        self.logs = LogChecker(self.ghost)
        self.committed = CommittedChecker(self.ghost, lambda broker_id: bool(world.nodes[broker_id].is_running))
        self.roles = RoleChecker(self.ghost, lambda broker_id: _running_disk(world, broker_id))
        self.fencing = FencingChecker(self.ghost, world.settings.session_timeout_s)
        self.promises = PromiseChecker(self.ghost, world)
        # Logs first: what is committed is looked up in contents that were found sound.
        checkers = [self.znodes, self.logs, self.committed, self.roles, self.fencing, self.promises]
        self._observer = Observer(self.ghost, checkers)
        self._world = world
        world.on_commit.append(self._observer.note_commit)
        world.checkers.append(self)

    def after_step(self, world: Any) -> None:
        self._observer.after_step(world)
        self.promises.after_step(world)

    def at_end(self) -> None:
        """The run is over: compare what is only compared as a whole, and count."""
        self._observer.at_end()
        counts = self._world.counts
        counts["truncations_with_bytes"] += self.logs.truncations_with_bytes_count
        counts["committed_batches"] += sum(len(partition.committed) for partition in self.ghost.partitions.values())
        counts["permitted_losses"] += sum(partition.resets for partition in self.ghost.partitions.values())
        counts["moves_ended"] += self.znodes.moves_count
        counts["verdicts"] += self.promises.verdicts_count
        counts["elr_members"] += self.znodes.elr_members_count


def _running_disk(world: Any, broker_id: int) -> Any:
    node = world.nodes[broker_id]
    return node.disk if node.is_running else None


def install(world: Any, *, min_insync_replicas: int = 2) -> Checkers:
    """Have every step of the world checked. Before its brokers start."""
    return Checkers(world, min_insync_replicas=min_insync_replicas)
