"""The sets a move is made of."""

from __future__ import annotations

from zkbroker.controller.cluster_image import Placement
from zkbroker.controller.reassignment import Reassignment, is_moving, move_of


def test_a_move_and_its_row_in_the_znode_say_the_same() -> None:
    move = Reassignment(origin=(1, 2, 3), target=(3, 4))
    assert move.placement() == Placement(replicas=(3, 4, 1, 2), adding=(4,), removing=(1, 2))
    found = move_of(move.placement())
    assert found is not None
    assert (sorted(found.origin), found.target) == ([1, 2, 3], (3, 4))


def test_a_partition_at_rest_moves_nowhere() -> None:
    assert not is_moving(Placement((1, 2)))
    assert move_of(Placement((1, 2))) is None
