"""The profile ``shapes``: clusters that are not the usual three to five like brokers with three replicas each."""

from __future__ import annotations

import random

from tests.simulation.profiles import PROFILES
from tests.simulation.run import FLUSH_KEY, RunSpec, _settings
from tests.simulation.settings import WorldSettings
from tests.simulation.world import World

SHAPES = [_settings(RunSpec(seed, "shapes"), random.Random(f"shape of {seed}")) for seed in range(60)]


def _values(settings: WorldSettings, key: str) -> list[str]:
    return [settings.broker_config(broker_id).get(key, "") for broker_id in range(1, settings.brokers + 1)]


def test_there_are_clusters_of_every_size_and_of_fewer_replicas() -> None:
    assert {settings.brokers for settings in SHAPES} == {1, 2, 3, 4}
    assert {settings.replication_factor for settings in SHAPES if settings.brokers > 2} == {1, 2, 3}
    assert {_values(settings, "min.insync.replicas")[0] for settings in SHAPES} == {"1", "2", "3"}


def test_brokers_of_one_cluster_differ() -> None:
    detections = [_values(settings, "broker.failure.detection") for settings in SHAPES if settings.brokers > 1]
    for fits in (lambda waits: not any(waits), all, lambda waits: waits[::2] == [""] * len(waits[::2]) and waits[1]):
        assert [waits for waits in detections if fits(waits)]
    assert any(len({*_values(settings, FLUSH_KEY)}) == 2 for settings in SHAPES)


def test_a_broker_has_the_keys_that_it_alone_has() -> None:
    settings = WorldSettings(brokers=2, own_config={2: {"broker.failure.detection": "session"}})
    with World(1, settings) as world:
        assert world.config(1).get_str("broker.failure.detection") == "fast"
        assert world.config(2).get_str("broker.failure.detection") == "session"
        assert world.config(2).get_int("default.replication.factor") == 2


def test_other_profiles_keep_their_shape() -> None:
    for name, profile in PROFILES.items():
        if not profile.odd_shapes:
            settings = _settings(RunSpec(5, name), random.Random("shape of 5"))
            assert settings.brokers >= 3 and settings.replication_factor == 3 and not settings.own_config
