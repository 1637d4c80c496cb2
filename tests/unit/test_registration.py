"""/brokers/ids/N: made, kept, lost and made again, whatever the network and other people do to it."""

from __future__ import annotations

from tests.fakes.zookeeper import FakeSession
from tests.harness.zookeeper_worlds import FakeWorld, connect, wait
from zkbroker.broker.registration import FOREIGN_OWNER_TICKS, Registration, RegistrationSettings, RegistrationState
from zkbroker.model.cluster import BrokerRegistration, Endpoint, LossyReplica
from zkbroker.model.errors import StartError
from zkbroker.zookeeper.client import Create, Delete
from zkbroker.zookeeper.znodes import brokers as znode

PATH = "/brokers/ids/1"
DESCRIPTION = BrokerRegistration(
    1, -1, (Endpoint("PLAINTEXT", "h", 9092), Endpoint("REPLICATION", "h", 9192)), (("PLAINTEXT", "PLAINTEXT"),)
)
LOSSY = LossyReplica("t", 0, "vX7sTBNpQpmL0ZpGhB2cYw", 3, 17)
SESSION_TIMEOUT_S = 2.0
TICK_S = 0.5
FOREIGN_WAIT_S = SESSION_TIMEOUT_S + FOREIGN_OWNER_TICKS * TICK_S


class Place:
    """A broker's registration on a session of its own, and everything that it told, in order."""

    def __init__(self, world: FakeWorld, previous_session_id: int = 0, zk: FakeSession | None = None) -> None:
        self.world = world
        self.told: list[str] = []
        self.lines: list[str] = []
        self.describes = DESCRIPTION
        self.zk = zk if zk is not None else world.session()
        if not self.zk.is_connected:
            connect(world, self.zk)
        self.registration = Registration(
            zk=self.zk,
            reactor=world.reactor,
            clock=world.clock,
            settings=RegistrationSettings(SESSION_TIMEOUT_S, TICK_S),
            describe=lambda: self.describes,
            previous_session_id=previous_session_id,
            registered=lambda epoch: self.told.append(f"registered {epoch == self.czxid}"),
            lost=lambda reason: self.told.append(f"lost: {reason}"),
            failed=self._failed,
            log=self.lines.append,
        )

    def _failed(self, error: StartError) -> None:
        self.told.append(f"failed: {error}")

    @property
    def czxid(self) -> int | None:
        stat = self.world.zookeeper.stat(PATH)
        return None if stat is None else stat.czxid

    @property
    def owner(self) -> int:
        stat = self.world.zookeeper.stat(PATH)
        return -1 if stat is None else stat.ephemeral_owner

    def listed(self) -> tuple[LossyReplica, ...]:
        data = self.world.zookeeper.data(PATH)
        return () if data is None else znode.decode(PATH, data, 7).lossy

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.01)):
            self.world.reactor.advance(0.01)

    def holds_its_place(self) -> bool:
        state, epoch = self.registration.state, self.registration.broker_epoch
        return state is RegistrationState.REGISTERED and epoch == self.czxid and self.owner == self.zk.session_id


def new_world() -> FakeWorld:
    world = FakeWorld()
    for path in ("/brokers", "/brokers/ids"):
        world.zookeeper.write(Create(path, b""))
    return world


def registered(world: FakeWorld) -> Place:
    place = Place(world)
    place.registration.start()
    place.pass_time(0.1)
    assert place.holds_its_place()
    place.told.clear()
    return place


def test_the_epoch_is_the_czxid_and_the_znode_says_what_the_broker_is() -> None:
    place = Place(new_world())
    place.registration.start()
    place.pass_time(0.1)
    assert place.told == ["registered True"]
    assert place.holds_its_place()
    stat = place.world.zookeeper.stat(PATH)
    data = place.world.zookeeper.data(PATH)
    assert stat is not None
    assert data is not None
    assert stat.version == 1
    assert znode.decode(PATH, data, 7).endpoints == DESCRIPTION.endpoints
    assert repr(place.registration) == f"Registration(/brokers/ids/1 registered epoch={stat.czxid})"


def test_a_lost_answer_is_looked_into_and_not_done_twice() -> None:
    place = Place(new_world())
    place.zk.lose_next_reply()
    place.registration.start()
    place.pass_time(0.1)
    assert place.told == ["registered True"]
    assert place.holds_its_place()


def test_a_lost_request_is_sent_again() -> None:
    place = Place(new_world())
    place.zk.lose_next_request()
    place.registration.start()
    place.pass_time(0.1)
    assert place.told == ["registered True"]


def test_a_lost_answer_and_an_expired_session_end_in_one_registration() -> None:
    place = Place(new_world())
    place.zk.lose_next_reply()
    place.registration.start()
    place.world.reactor.advance(0.0015)
    place.zk.disconnect()
    place.pass_time(SESSION_TIMEOUT_S + 0.1)
    place.zk.reconnect()
    place.pass_time(0.1)
    assert place.told == ["registered True"]
    assert place.holds_its_place()


def test_started_while_zookeeper_is_away_it_registers_when_it_is_back() -> None:
    place = Place(new_world())
    place.zk.disconnect()
    place.registration.start()
    place.pass_time(1.0)
    assert place.told == []
    place.zk.reconnect()
    place.pass_time(0.1)
    assert place.told == ["registered True"]


def test_a_connection_lost_and_found_changes_nothing() -> None:
    place = registered(new_world())
    for _ in range(3):
        place.zk.disconnect()
        place.pass_time(0.5)
        place.zk.reconnect()
        place.pass_time(0.1)
    assert place.told == []
    assert place.holds_its_place()


def test_expiry_is_told_as_lost_and_then_registered() -> None:
    place = registered(new_world())
    first = place.registration.broker_epoch
    place.world.expire(place.zk)
    place.pass_time(0.1)
    assert place.told == ["lost: the ZooKeeper session expired", "registered True"]
    assert place.registration.broker_epoch > first


def test_a_znode_deleted_by_hand_is_made_again_under_a_new_epoch() -> None:
    place = registered(new_world())
    for _ in range(3):
        before = place.registration.broker_epoch
        place.world.zookeeper.write(Delete(PATH))
        place.pass_time(0.1)
        assert place.told == ["lost: its znode was deleted", "registered True"]
        assert place.registration.broker_epoch > before
        place.told.clear()


def test_a_znode_deleted_while_nobody_watched_is_noticed_after_the_reconnect() -> None:
    place = registered(new_world())
    place.zk.disconnect()
    place.world.zookeeper.write(Delete(PATH))
    place.pass_time(0.5)
    place.zk.reconnect()
    place.pass_time(0.1)
    assert place.told == ["lost: its znode was deleted", "registered True"]


def test_a_znode_replaced_by_another_process_is_lost_once_and_waited_for() -> None:
    world = new_world()
    place = registered(world)
    other = world.session()
    connect(world, other)
    place.zk.disconnect()
    world.zookeeper.write(Delete(PATH))
    wait(world, other.create(PATH, b"{}", ephemeral=True))
    place.zk.reconnect()
    place.pass_time(0.5)
    assert place.told == ["lost: its znode was replaced"]
    assert place.registration.broker_epoch == -1
    other.kill()
    place.pass_time(SESSION_TIMEOUT_S + 0.5)
    assert place.told == ["lost: its znode was replaced", "registered True"]


def test_the_znode_of_this_brokers_previous_session_is_removed_at_once() -> None:
    world = new_world()
    old = registered(world)
    session_id = old.zk.session_id
    old.zk.kill()
    place = Place(world, previous_session_id=session_id)
    place.registration.start()
    place.pass_time(0.1)
    assert place.told == ["registered True"]
    assert place.holds_its_place()


def test_a_foreign_owner_that_expires_leaves_the_place() -> None:
    world = new_world()
    other = registered(world)
    other.zk.kill()
    place = Place(world)
    place.registration.start()
    place.pass_time(1.0)
    assert place.told == []
    place.pass_time(SESSION_TIMEOUT_S)
    assert place.told == ["registered True"]
    waits = [line for line in place.lines if "waiting for it to expire" in line]
    assert len(waits) == 1


def test_a_foreign_owner_that_lives_ends_the_start_with_one_line() -> None:
    world = new_world()
    other = registered(world)
    place = Place(world)
    place.registration.start()
    place.pass_time(FOREIGN_WAIT_S + 0.5)
    reason = f"{PATH} belongs to the live session 0x{other.zk.session_id:x} of another process"
    assert place.told == [f"failed: broker.id 1 is in use: {reason}"]
    assert place.registration.state is RegistrationState.STOPPED
    other.zk.kill()
    place.pass_time(5.0)
    assert place.told == [f"failed: broker.id 1 is in use: {reason}"]
    assert place.czxid is None


def test_each_foreign_owner_has_its_own_time_to_go() -> None:
    world = new_world()
    first = registered(world)
    second_zk = world.session()
    connect(world, second_zk)
    place = Place(world)
    place.registration.start()
    place.pass_time(FOREIGN_WAIT_S - 0.5)
    first.registration.stop()
    world.zookeeper.write(Delete(PATH))
    wait(world, second_zk.create(PATH, b"{}", ephemeral=True))
    place.pass_time(FOREIGN_WAIT_S - 0.5)
    assert place.told == []
    place.pass_time(1.0)
    assert place.told[0].startswith("failed: broker.id 1 is in use")


def test_the_time_that_the_ensemble_was_away_does_not_count_against_a_foreign_owner() -> None:
    world = new_world()
    other = registered(world)
    place = Place(world)
    place.registration.start()
    place.pass_time(0.5)
    other.zk.kill()
    world.zookeeper.stop()
    place.pass_time(10.0)
    world.zookeeper.start()
    place.pass_time(SESSION_TIMEOUT_S + 0.5)
    assert place.told == ["registered True"]


def test_a_persistent_znode_in_its_place_is_named() -> None:
    world = new_world()
    world.zookeeper.write(Create(PATH, b""))
    place = Place(world)
    place.registration.start()
    place.pass_time(0.1)
    assert place.told == [f"failed: {PATH} is a persistent znode, which no broker makes: delete it"]


def test_a_failure_that_stays_is_logged_once() -> None:
    world = FakeWorld()  # without /brokers/ids
    place = Place(world)
    place.registration.start()
    place.pass_time(3.0)
    assert place.told == []
    assert len(place.lines) == 1
    for path in ("/brokers", "/brokers/ids"):
        world.zookeeper.write(Create(path, b""))
    place.pass_time(0.5)
    assert place.told == ["registered True"]


def test_remove_deletes_the_own_znode_and_registers_no_more() -> None:
    place = registered(new_world())
    wait(place.world, place.registration.remove())
    assert place.czxid is None
    place.world.expire(place.zk)
    place.pass_time(1.0)
    assert (place.czxid, place.told) == (None, [])


def test_remove_leaves_another_processes_znode_alone() -> None:
    world = new_world()
    other = registered(world)
    place = Place(world)
    place.registration.start()
    place.pass_time(0.5)
    wait(world, place.registration.remove())
    place.pass_time(1.0)
    assert other.holds_its_place()
    assert other.told == []


def test_stopped_while_the_answer_is_on_its_way_it_tells_nothing() -> None:
    place = Place(new_world())
    place.registration.start()
    place.registration.stop()
    place.pass_time(0.5)
    assert place.told == []
    assert place.registration.state is RegistrationState.STOPPED


def test_remove_does_not_fail_while_zookeeper_is_away() -> None:
    place = registered(new_world())
    place.zk.disconnect()
    wait(place.world, place.registration.remove())
    assert place.registration.broker_epoch == -1


def test_a_change_of_the_description_is_written_in_the_same_epoch() -> None:
    place = registered(new_world())
    epoch = place.czxid
    place.describes = DESCRIPTION._replace(lossy=(LOSSY,))
    place.registration.update()
    place.pass_time(0.1)
    assert place.listed() == (LOSSY,)
    assert place.czxid == epoch
    assert place.told == []
    assert place.holds_its_place()
    place.describes = DESCRIPTION
    place.zk.lose_next_request()
    place.registration.update()
    place.pass_time(1)
    assert place.listed() == (), "tried until it is written"
    assert place.holds_its_place()


def test_a_change_waits_for_the_connection() -> None:
    place = registered(new_world())
    place.zk.disconnect()
    place.pass_time(0.1)
    place.describes = DESCRIPTION._replace(lossy=(LOSSY,))
    place.registration.update()
    place.pass_time(0.5)
    assert place.listed() == ()
    place.zk.reconnect()
    place.pass_time(0.5)
    assert place.listed() == (LOSSY,)


def test_a_change_while_the_broker_registers_is_written_too() -> None:
    """The znode was made with the old list, its answer was lost, and the place is found to be ours already."""
    place = Place(new_world())
    place.describes = DESCRIPTION._replace(lossy=(LOSSY,))
    place.zk.lose_next_reply()
    place.registration.start()
    place.pass_time(0.05)
    assert place.registration.state is not RegistrationState.REGISTERED
    place.describes = DESCRIPTION
    place.registration.update()
    place.pass_time(1)
    assert place.holds_its_place()
    assert place.listed() == ()


def test_a_change_is_not_written_into_another_incarnations_znode() -> None:
    world = new_world()
    place = registered(world)
    other = BrokerRegistration(1, -1, (Endpoint("PLAINTEXT", "elsewhere", 1),), (("PLAINTEXT", "PLAINTEXT"),))
    place.describes = DESCRIPTION._replace(lossy=(LOSSY,))
    place.registration.update()
    world.zookeeper.write(Delete(PATH, -1), Create(PATH, znode.encode(other, timestamp_ms=1)))
    place.pass_time(0.002)
    assert place.listed() == ()
    place.pass_time(1)
    assert place.registration.state is not RegistrationState.REGISTERED
