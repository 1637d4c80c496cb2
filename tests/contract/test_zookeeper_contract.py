"""What zkbroker relies on in ZooKeeper and its client: the real ones and the fake pass the same tests."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.harness.zookeeper import ZooKeeperEnsemble, ZooKeeperMissing
from tests.harness.zookeeper_worlds import FakeWorld, RealWorld, World, connect, wait
from zkbroker.zookeeper.client import (
    ANY_VERSION,
    BadVersionError,
    Check,
    ConnectionLossError,
    Create,
    Delete,
    MultiError,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
    SessionState,
    SetData,
    Stat,
    ZooKeeperClient,
)

CONNECTED, RECONNECTED = SessionState.CONNECTED, SessionState.RECONNECTED
SUSPENDED, EXPIRED = SessionState.SUSPENDED, SessionState.EXPIRED

_chroots = itertools.count()


@pytest.fixture(scope="module")
def ensemble() -> Iterator[ZooKeeperEnsemble]:
    try:
        made = ZooKeeperEnsemble(1)
    except ZooKeeperMissing as missing:
        pytest.skip(str(missing))
    with made:
        yield made


@pytest.fixture(params=["fake", "real"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made: World
    if request.param == "fake":
        made = FakeWorld()
    else:
        made = RealWorld(request.getfixturevalue("ensemble"), f"/deep/test-{next(_chroots)}")
    yield made
    made.close()


@pytest.fixture
def client(world: World) -> ZooKeeperClient:
    client = world.session()
    connect(world, client)
    return client


@pytest.fixture
def other(world: World) -> ZooKeeperClient:
    other = world.session()
    connect(world, other)
    return other


def test_a_new_session_tells_connected_once(world: World) -> None:
    client = world.session()
    assert not client.is_connected
    assert client.session_id == 0
    assert connect(world, client) == [CONNECTED]
    assert client.session_id != 0
    assert len(client.session_password) == 16


def test_a_call_before_the_session_fails_at_once(world: World) -> None:
    client = world.session()
    client.start()
    with pytest.raises(ConnectionLossError):
        wait(world, client.get("/"))


def test_create_get_set_delete(world: World, client: ZooKeeperClient) -> None:
    assert wait(world, client.create("/a", b"one")) == "/a"
    data, created = wait(world, client.get("/a"))
    assert (data, created.version, created.ephemeral_owner) == (b"one", 0, 0)
    assert created.czxid == created.mzxid > 0
    changed = wait(world, client.set("/a", b"two"))
    assert isinstance(changed, Stat)
    assert (changed.czxid, changed.version) == (created.czxid, 1)
    assert changed.mzxid > created.mzxid
    assert changed.modified_ms > 0
    assert wait(world, client.get("/a")) == (b"two", changed)
    assert wait(world, client.exists("/a")) == changed
    wait(world, client.delete("/a"))
    assert wait(world, client.exists("/a")) is None


def test_empty_data_comes_back_empty(world: World, client: ZooKeeperClient) -> None:
    wait(world, client.create("/a", b""))
    assert wait(world, client.get("/a"))[0] == b""
    wait(world, client.set("/a", b""))
    assert wait(world, client.get("/a"))[0] == b""


def test_errors_have_the_path(world: World, client: ZooKeeperClient) -> None:
    wait(world, client.create("/a", b""))
    wait(world, client.create("/a/b", b""))
    for call, error in [
        (lambda: client.get("/no"), NoNodeError),
        (lambda: client.set("/no", b""), NoNodeError),
        (lambda: client.delete("/no"), NoNodeError),
        (lambda: client.children("/no"), NoNodeError),
        (lambda: client.create("/no/child", b""), NoNodeError),
        (lambda: client.create("/a", b""), NodeExistsError),
        (lambda: client.set("/a", b"", 7), BadVersionError),
        (lambda: client.delete("/a/b", 7), BadVersionError),
        (lambda: client.delete("/a"), NotEmptyError),
    ]:
        with pytest.raises(error) as caught:
            wait(world, call())
        assert caught.value.path.startswith(("/no", "/a"))


def test_a_write_at_the_right_version(world: World, client: ZooKeeperClient) -> None:
    wait(world, client.create("/a", b""))
    assert wait(world, client.set("/a", b"1", 0)).version == 1
    with pytest.raises(BadVersionError):
        wait(world, client.set("/a", b"2", 0))
    wait(world, client.delete("/a", 1))


def test_children_are_sorted_and_counted(world: World, client: ZooKeeperClient) -> None:
    wait(world, client.create("/p", b""))
    for name in ("b", "c", "a"):
        wait(world, client.create(f"/p/{name}", b""))
    assert wait(world, client.children("/p")) == ["a", "b", "c"]
    wait(world, client.delete("/p/b"))
    stat = wait(world, client.exists("/p"))
    assert stat is not None
    assert (stat.children_count, stat.children_version) == (2, 4)


def test_parents_are_made_on_wish(world: World, client: ZooKeeperClient) -> None:
    wait(world, client.create("/x/y", b"", make_parents=True))
    assert wait(world, client.create("/x/y/z/w", b"d", make_parents=True)) == "/x/y/z/w"
    assert wait(world, client.get("/x/y/z/w"))[0] == b"d"
    with pytest.raises(NodeExistsError):
        wait(world, client.create("/x/y", b"", make_parents=True))


def test_sequential_names_count_up(world: World, client: ZooKeeperClient) -> None:
    wait(world, client.create("/s", b""))
    names = [wait(world, client.create("/s/n_", b"", sequential=True)) for _ in range(2)]
    assert names == ["/s/n_0000000000", "/s/n_0000000001"]
    wait(world, client.delete(names[1]))
    assert wait(world, client.multi([Create("/s/n_", b"", sequential=True)])) == ["/s/n_0000000002"]


def test_a_multi_gives_a_result_for_each_op(world: World, client: ZooKeeperClient) -> None:
    wait(world, client.create("/epoch", b"1"))
    results = wait(
        world,
        client.multi(
            [Check("/epoch", 0), Create("/e", b"", ephemeral=True), SetData("/e", b"data", 0), Delete("/epoch", 0)]
        ),
    )
    stat = results[2]
    assert isinstance(stat, Stat)
    assert results == [True, "/e", stat, True]
    assert (stat.version, stat.ephemeral_owner) == (1, client.session_id)
    # One transaction: the broker epoch, a czxid, is learned from the SetData that follows the Create.
    assert stat.czxid == stat.mzxid
    assert wait(world, client.get("/e")) == (b"data", stat)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (Check("/a", 5), BadVersionError),
        (SetData("/a", b"", 5), BadVersionError),
        (Create("/a", b""), NodeExistsError),
        (Delete("/no"), NoNodeError),
        (Create("/no/child", b""), NoNodeError),
        (Check("/no", 0), NoNodeError),
    ],
)
@pytest.mark.parametrize("index", [0, 1, 2])
def test_of_a_failing_multi_nothing_happens(
    world: World, client: ZooKeeperClient, bad: Check, error: type[Exception], index: int
) -> None:
    wait(world, client.create("/a", b"before"))
    ops: list[Check | Create | SetData | Delete] = [Create("/new", b""), SetData("/a", b"after")]
    ops.insert(index, bad)
    with pytest.raises(MultiError) as caught:
        wait(world, client.multi(ops))
    # SetData, done before the bad op, has raised the version: the reason may differ, the op may not.
    assert caught.value.index == index
    assert isinstance(caught.value.error, error)
    assert wait(world, client.get("/a"))[0] == b"before"
    assert wait(world, client.exists("/new")) is None


def test_an_ephemeral_belongs_to_its_session_and_goes_with_it(
    world: World, client: ZooKeeperClient, other: ZooKeeperClient
) -> None:
    wait(world, client.create("/e", b"", ephemeral=True))
    stat = wait(world, other.exists("/e"))
    assert stat is not None
    assert stat.ephemeral_owner == client.session_id != other.session_id
    wait(world, client.stop())
    fired: list[str] = []
    if wait(world, other.exists("/e", lambda: fired.append("gone"))) is not None:
        world.until(lambda: bool(fired))
    assert wait(world, other.exists("/e")) is None


def test_watches_fire_once_each(world: World, client: ZooKeeperClient, other: ZooKeeperClient) -> None:
    fired: list[str] = []
    wait(world, client.create("/a", b""))
    wait(world, client.get("/a", lambda: fired.append("data")))
    wait(world, client.exists("/a", lambda: fired.append("exists")))
    wait(world, client.children("/a", lambda: fired.append("children")))
    wait(world, client.exists("/later", lambda: fired.append("created")))
    with pytest.raises(NoNodeError):
        wait(world, client.get("/later", lambda: fired.append("never left")))

    wait(world, other.set("/a", b"1"))
    wait(world, other.set("/a", b"2"))
    wait(world, client.get("/a"))
    assert sorted(fired) == ["data", "exists"]
    wait(world, other.create("/a/b", b""))
    wait(world, other.create("/a/c", b""))
    wait(world, client.get("/a"))
    assert sorted(fired) == ["children", "data", "exists"]
    wait(world, other.create("/later", b""))
    wait(world, other.delete("/later"))
    wait(world, client.get("/a"))
    assert sorted(fired) == ["children", "created", "data", "exists"]


def test_a_deletion_fires_the_watches_of_the_znode_and_its_parent(
    world: World, client: ZooKeeperClient, other: ZooKeeperClient
) -> None:
    fired: list[str] = []
    wait(world, client.create("/p/a", b"", make_parents=True))
    wait(world, client.get("/p/a", lambda: fired.append("data")))
    wait(world, client.children("/p/a", lambda: fired.append("children")))
    wait(world, client.children("/p", lambda: fired.append("parent")))
    wait(world, client.get("/p", lambda: fired.append("parent's data")))
    wait(world, other.delete("/p/a"))
    world.until(lambda: len(fired) == 3)
    wait(world, client.get("/p"))
    assert sorted(fired) == ["children", "data", "parent"]


def test_a_check_of_any_version_asks_only_whether_it_is_there(world: World, client: ZooKeeperClient) -> None:
    wait(world, client.create("/a", b""))
    wait(world, client.set("/a", b"changed"))
    assert wait(world, client.multi([Check("/a", ANY_VERSION), Check("/", ANY_VERSION)])) == [True, True]
    with pytest.raises(MultiError) as caught:
        wait(world, client.multi([Check("/a", ANY_VERSION), Check("/no", ANY_VERSION)]))
    assert isinstance(caught.value.error, NoNodeError)


def test_a_failing_multi_fires_no_watch(world: World, client: ZooKeeperClient, other: ZooKeeperClient) -> None:
    fired: list[str] = []
    wait(world, client.create("/a", b""))
    wait(world, client.get("/a", lambda: fired.append("data")))
    with pytest.raises(MultiError):
        wait(world, other.multi([SetData("/a", b"1"), Check("/a", 9)]))
    wait(world, client.get("/a"))
    assert fired == []
    wait(world, other.multi([SetData("/a", b"1"), Check("/a", 1)]))
    world.until(lambda: fired == ["data"])


def test_a_watch_is_told_before_a_read_that_shows_its_cause(
    world: World, client: ZooKeeperClient, other: ZooKeeperClient
) -> None:
    wait(world, client.create("/a", b""))
    for number in range(30):
        events: list[str] = []
        wanted = b"%d" % number
        wait(world, client.get("/a", lambda events=events: events.append("watch")))  # type: ignore[misc]
        other.set("/a", wanted)
        while "read" not in events:
            data, _ = wait(world, client.get("/a"))
            if data == wanted:
                events.append("read")
        assert events == ["watch", "read"]


def test_own_writes_fire_own_watches_before_the_answer(world: World, client: ZooKeeperClient) -> None:
    events: list[str] = []
    wait(world, client.create("/a", b""))
    wait(world, client.get("/a", lambda: events.append("watch")))
    client.set("/a", b"1").addCallback(lambda _: events.append("answer"))
    world.until(lambda: len(events) == 2)
    assert events == ["watch", "answer"]


def test_answers_come_in_the_order_of_the_calls(world: World, client: ZooKeeperClient) -> None:
    wait(world, client.create("/a", b""))
    answers: list[int] = []
    for number in range(300):
        call = client.set("/a", b"%d" % number) if number % 3 else client.get("/no" if number % 2 else "/a")
        call.addBoth(lambda _, number=number: answers.append(number))  # type: ignore[misc]
    world.until(lambda: len(answers) == 300)
    assert answers == list(range(300))


def test_a_lost_connection_keeps_the_session(world: World) -> None:
    client = world.session()
    states = connect(world, client)
    session_id = client.session_id
    wait(world, client.create("/e", b"", ephemeral=True))
    events: list[str] = []
    client.listen(lambda state: events.append(state.value))
    wait(world, client.get("/e", lambda: events.append("watch 1")))
    wait(world, client.children("/", lambda: events.append("watch 2")))
    world.break_connection(client)
    world.until(lambda: "suspended" in events)
    world.until(lambda: client.is_connected)
    assert states == [CONNECTED, SUSPENDED, RECONNECTED]
    assert events == ["suspended", "watch 1", "watch 2", "reconnected"]
    assert client.session_id == session_id
    stat = wait(world, client.exists("/e"))
    assert stat is not None
    assert stat.ephemeral_owner == session_id
    wait(world, client.set("/e", b"1"))
    assert events[-1] == "reconnected"


def test_calls_under_way_fail_before_suspended_is_told(world: World, client: ZooKeeperClient) -> None:
    events: list[str] = []
    client.listen(lambda state: events.append(state.value))
    wait(world, client.create("/a", b""))
    world.lose_next_reply(client)
    lost = client.set("/a", b"1")
    lost.addErrback(lambda failure: events.append(type(failure.value).__name__))
    follower = client.get("/a")
    follower.addErrback(lambda failure: events.append(type(failure.value).__name__))
    world.until(lambda: "reconnected" in events)
    assert events == ["ConnectionLossError", "ConnectionLossError", "suspended", "reconnected"]


def test_after_a_lost_reply_the_write_is_done(world: World, client: ZooKeeperClient) -> None:
    wait(world, client.create("/a", b"before"))
    world.lose_next_reply(client)
    with pytest.raises(ConnectionLossError):
        wait(world, client.set("/a", b"after"))
    world.until(lambda: client.is_connected)
    assert wait(world, client.get("/a"))[0] == b"after"


def test_after_a_lost_request_the_write_is_not_done(world: World, client: ZooKeeperClient) -> None:
    wait(world, client.create("/a", b"before"))
    world.lose_next_request(client)
    with pytest.raises(ConnectionLossError):
        wait(world, client.multi([SetData("/a", b"after")]))
    world.until(lambda: client.is_connected)
    assert wait(world, client.get("/a"))[0] == b"before"


def test_expiry_is_told_before_the_new_session(world: World, other: ZooKeeperClient) -> None:
    client = world.session()
    states = connect(world, client)
    old_id = client.session_id
    ids: list[int] = []
    client.listen(lambda state: ids.append(client.session_id))
    wait(world, client.create("/e", b"", ephemeral=True))
    world.expire(client)
    world.until(lambda: len(states) == 4)
    assert states == [CONNECTED, SUSPENDED, EXPIRED, CONNECTED]
    # While EXPIRED is told, the id is still that of the session which is over.
    assert ids[:2] == [old_id, old_id]
    assert ids[2] == client.session_id not in (0, old_id)
    assert wait(world, other.exists("/e")) is None
    wait(world, client.create("/e", b"", ephemeral=True))
    stat = wait(world, other.exists("/e"))
    assert stat is not None
    assert stat.ephemeral_owner == client.session_id


def test_an_old_session_can_be_reopened(world: World) -> None:
    client = world.session()
    connect(world, client)
    wait(world, client.create("/e", b"", ephemeral=True))
    world.crash(client)
    again = world.session(session=(client.session_id, client.session_password))
    assert connect(world, again) == [RECONNECTED]
    assert again.session_id == client.session_id
    stat = wait(world, again.exists("/e"))
    assert stat is not None
    assert stat.ephemeral_owner == again.session_id


def test_the_ephemerals_of_a_crashed_process_go_with_its_timeout(world: World, other: ZooKeeperClient) -> None:
    client = world.session()
    states = connect(world, client)
    wait(world, client.create("/e", b"", ephemeral=True))
    fired: list[str] = []
    wait(world, other.exists("/e", lambda: fired.append("gone")))
    started = world.monotonic()
    world.crash(client)
    world.until(lambda: bool(fired))
    # The timeout is 2 s; a real server looks twice a second, and counts from the last ping.
    assert world.monotonic() - started > 1.0
    assert wait(world, other.exists("/e")) is None
    assert states == [CONNECTED]


def test_reopening_a_session_that_is_gone_tells_so(world: World) -> None:
    client = world.session()
    connect(world, client)
    old = (client.session_id, client.session_password)
    wait(world, client.stop())
    again = world.session(session=old)
    assert connect(world, again) == [EXPIRED, CONNECTED]
    assert again.session_id not in (0, old[0])


def test_closing_the_session_of_an_earlier_process(world: World, other: ZooKeeperClient) -> None:
    client = world.session()
    states = connect(world, client)
    session_id, password = client.session_id, client.session_password
    wait(world, client.create("/e", b"", ephemeral=True))
    assert not wait(world, world.close_session(session_id, bytes(16)))
    assert wait(world, other.exists("/e")) is not None
    assert wait(world, world.close_session(session_id, password))
    assert wait(world, other.exists("/e")) is None
    assert not wait(world, world.close_session(session_id, password))
    world.until(lambda: EXPIRED in states)


def test_after_stop_nothing_is_told_and_calls_fail(world: World) -> None:
    client = world.session()
    states = connect(world, client)
    fired: list[str] = []
    wait(world, client.create("/a", b""))
    wait(world, client.get("/a", lambda: fired.append("watch")))
    failures: list[type[Exception]] = []
    client.get("/a").addErrback(lambda failure: failures.append(failure.type))
    stopped = client.stop()
    assert failures == [ConnectionLossError]
    wait(world, stopped)
    with pytest.raises(ConnectionLossError):
        wait(world, client.get("/a"))
    assert (states, fired, client.is_connected) == ([CONNECTED], [], False)


def test_the_last_reply_is_recent_while_connected_and_ages_after(world: World) -> None:
    client = world.session()
    assert client.last_reply_at == float("-inf")
    connect(world, client)
    before = world.monotonic()
    wait(world, client.exists("/"))
    assert before <= client.last_reply_at <= world.monotonic()
    # Nothing is asked for a while: the session's own pings keep it young.
    world.until(lambda: client.last_reply_at > before + 0.5)
    wait(world, client.stop())
    frozen = client.last_reply_at
    now = world.monotonic()
    world.until(lambda: world.monotonic() > now + 0.3)
    assert client.last_reply_at == frozen
