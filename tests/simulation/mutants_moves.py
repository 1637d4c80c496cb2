"""The rules of reassignments, each switched off; see ``mutants``."""

from __future__ import annotations

from tests.simulation.mutation import Edit, Mutant

_STEPS = "controller.reassignment"

MOVES = (
    Mutant(
        "moves-end-early",
        "a move ends when all of its target is in the ISR (§3 Reassign, B)",
        (
            Edit(
                f"{_STEPS}:settled_placement",
                "if all(replica in state.isr for replica in target) and _can_lead(",
                "if _can_lead(",
            ),
        ),
        profile="moves",
    ),
    Mutant(
        "superseded-replicas-dropped",
        "a replica that an overridden move added goes only if the rest holds all that was acknowledged (§3 Reassign)",
        (Edit(f"{_STEPS}:_can_spare", "", "return True"),),
        profile="moves",
    ),
    Mutant(
        "moves-keep-the-leader-epoch",
        "each step of a move raises the leader epoch (§3 Reassign, A and B)",
        (Edit(f"{_STEPS}:reassigned_state", "leader_epoch=state.leader_epoch + 1", "leader_epoch=state.leader_epoch"),),
        profile="moves",
    ),
    Mutant(
        "removals-forgotten",
        "whoever takes office has the data deleted that reassignments left behind (DECISIONS, Reassignments)",
        (Edit("zookeeper.znodes.states:encode", "    if state.removed:\n", "    if False:\n"),),
        profile="moves",
    ),
    Mutant(
        "deletes-what-came-back",
        "a replica that is assigned again is not deleted any more (invariant 14)",
        (
            Edit(
                f"{_STEPS}:reassigned_state",
                "gone = tuple(replica for replica in (*state.removed, *before.replicas) "
                "if replica not in placement.replicas)",
                "gone = (*state.removed, *(replica for replica in before.replicas "
                "if replica not in placement.replicas))",
            ),
            Edit("controller.removals:Removals.noted", " if broker not in state.replicas", ""),
            Edit(
                "broker.node:Node._delete",
                "if state is not None and state.topic_id == deleted.topic_id and self._broker_id in state.replicas:",
                "if False:",
            ),
        ),
        profile="moves",
    ),
)
