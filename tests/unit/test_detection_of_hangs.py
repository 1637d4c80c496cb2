"""A broker that hangs is no dead one; when its process ends, it is."""

from __future__ import annotations

from tests.unit.test_detection import CLIENTS, PEERS, Accepting, Cluster


def hang(cluster: Cluster, broker_id: int) -> None:
    """The process does nothing any more; its kernel accepts connections."""
    machine = cluster[broker_id]
    machine.detection.stop()
    for transport in machine.ends():
        transport.reads = False
    for port in (PEERS, CLIENTS):
        cluster.wire.listeners[machine.host, port] = Accepting()


def test_who_hangs_is_not_condemned_until_its_process_ends() -> None:
    """Its connections were given up long before, so none of them tells of the end: its listeners do."""
    cluster = Cluster()
    hang(cluster, 3)
    cluster.wire.run(8.0, step=0.05)
    assert cluster[1].reasons() == cluster[2].reasons() == set()
    assert not any(machine.doubted for machine in cluster.machines.values())
    cluster[3].stop_listening()
    cluster[3].cut()
    cluster.wire.run(0.5, step=0.05)
    assert cluster[1].reasons() == cluster[2].reasons() == {"broker 3 refused connections, 2 of 2 peers agree"}


def test_who_hung_and_goes_on_is_probed_no_more() -> None:
    cluster = Cluster()
    machine = cluster[3]
    hang(cluster, 3)
    cluster.wire.run(8.0, step=0.05)
    machine.listen()
    for transport in list(cluster.wire.transports):
        transport.reads = True
    cluster.wire.run(3.0, step=0.05)
    assert cluster[1].reasons() == cluster[2].reasons() == set()
    for peer_id in (1, 2):
        assert "peer: 3 up" in cluster[peer_id].detection.status_lines()[-1]


def test_half_a_connection_that_falls_silent_is_no_end_of_one() -> None:
    """A cut left it behind, and soon after its broker's machine went with its address. What counts is when the
    connections were closed, the same moment for all; not when one of them stopped listening to the half."""
    cluster = Cluster()
    for transport in list(cluster.wire.transports):
        if transport.protocol in cluster[1].server.connections and transport.other in cluster[3].ends():
            assert transport.other is not None
            cluster.wire.forget(transport.other)
    cluster.wire.run(1.0, step=0.05)
    cluster[3].kill()
    cluster.wire.silent.add("h3")
    cluster.wire.run(1.0, step=0.05)
    assert cluster[1].reasons() == set(), "the half is a sign of life for a while"
    cluster.wire.run(7.0, step=0.05)
    assert cluster[1].reasons() == {"broker 3 closed its connections and accepts none, 2 of 2 peers agree"}
