"""No request that can come over the wire makes a shard raise, or write what cannot be read again; each is answered."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.coordinator_scene import Scene, check_members
from zkbroker.coordinator.effects import GroupRequest
from zkbroker.coordinator.records import GroupKey, OffsetKey, read_group_value, read_key, read_offset_value
from zkbroker.model.errors import ErrorCode
from zkbroker.model.groups import (
    Client,
    CommitOffsets,
    DeleteGroup,
    DeleteOffsets,
    DescribeGroup,
    FetchOffsets,
    Heartbeat,
    JoinGroup,
    LeaveGroup,
    LeavingMember,
    OffsetToCommit,
    Protocol,
    SyncGroup,
)

LONG = "x" * 40_000
i32 = st.sampled_from((-(2**31), -2, -1, 0, 1, 2, 2**31 - 1)) | st.integers(-(2**31), 2**31 - 1)
i64 = st.sampled_from((-(2**63), -1, 0, 1, 2**63 - 1)) | st.integers(-(2**63), 2**63 - 1)
text = st.sampled_from(("", "g", "g", "a", "m", "é", "😀", "\ud800", "\n\0", LONG))
group_ids = st.sampled_from(("g", "g", "g", "", LONG, "\ud83d"))
member_ids = st.sampled_from(("", "", "a-1", "a-2", "a-3", "i-2", "i-3", "join", "sync", LONG))
instances = st.none() | st.sampled_from(("i", "", LONG))
protocols = st.lists(
    st.builds(Protocol, st.sampled_from(("range", "range", "", LONG)), st.binary(max_size=9)), max_size=3
)
places = st.lists(st.tuples(text, i32), max_size=3).map(tuple)
requests: st.SearchStrategy[GroupRequest] = st.one_of(
    st.builds(
        JoinGroup,
        group_ids,
        member_ids,
        st.builds(Client, text, text),
        st.sampled_from((6000, 6000, 6000, -1, 2**31 - 1)),
        i32,
        st.sampled_from(("consumer", "consumer", "connect", "", LONG)),
        protocols.map(tuple),
        instances,
        st.booleans(),
        st.booleans(),
        st.none() | text,
    ),
    st.builds(
        SyncGroup,
        group_ids,
        member_ids,
        st.integers(0, 3) | i32,
        instances,
        st.none() | text,
        st.none() | text,
        st.lists(st.tuples(member_ids, st.binary(max_size=9)), max_size=3).map(tuple),
    ),
    st.builds(Heartbeat, group_ids, member_ids, st.integers(0, 3) | i32, instances),
    st.builds(
        LeaveGroup, group_ids, st.lists(st.builds(LeavingMember, member_ids, instances, st.none() | text)).map(tuple)
    ),
    st.builds(
        CommitOffsets,
        group_ids,
        member_ids,
        st.integers(-1, 3) | i32,
        instances,
        st.just(-1) | i64,
        st.lists(st.builds(OffsetToCommit, text, i32, i64, i32, st.none() | text, i64), max_size=3).map(tuple),
    ),
    st.builds(FetchOffsets, group_ids, st.none() | places, st.booleans(), st.none() | text, i32),
    st.builds(DeleteOffsets, group_ids, places),
    st.builds(DescribeGroup, group_ids),
    st.builds(DeleteGroup, group_ids),
)
errors = st.sampled_from((*[ErrorCode.NONE] * 3, ErrorCode.REQUEST_TIMED_OUT, ErrorCode.NOT_ENOUGH_REPLICAS))


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(requests | st.tuples(st.sampled_from((0.0, 0.0, 7.0, 400.0)), errors), max_size=40))
def test_whatever_is_asked(steps: list[GroupRequest | tuple[float, ErrorCode]]) -> None:
    scene = Scene(metadata_length_max=2**31 - 1)
    for step in steps:
        if len(step) == 2 and isinstance(step[0], float):
            scene.wait(step[0])
            while scene.outstanding:
                scene.written(step[1])
        else:
            scene.ask("a", step)  # type: ignore[arg-type]
        for group in scene.shard._context.groups.values():
            check_members(group)
    for record in scene.log:
        key = read_key(record.key)
        assert isinstance(key, OffsetKey | GroupKey)
        if record.value is not None:
            _ = read_offset_value(record.value) if isinstance(key, OffsetKey) else read_group_value(record.value)
    scene.wait(2000)
    while scene.outstanding:
        scene.written()
        scene.wait(2000)
    assert set(scene.answers) == set(scene.asked), "whoever is parked is answered in time"
    scene.load()
    assert scene.shard.malformed == 0
