"""``zkbroker-delete-records``: Kafka's JSON in, Kafka's words out."""

from __future__ import annotations

import json
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from zkbroker.cli import _common as common
from zkbroker.cli import delete_records


def test_offsets_are_read_as_kafka_writes_them() -> None:
    text = '{"partitions": [{"topic": "t", "partition": 0, "offset": 5}, {"topic": "t", "partition": 1, "offset": -1}]}'
    assert delete_records.parse_offsets(text) == [("t", 0, 5), ("t", 1, -1)]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "must look like"),
        ("[]", "must look like"),
        ('{"version": 1}', "must look like"),
        ('{"version": 2, "partitions": []}', "Not supported version field value 2"),
        ('{"partitions": []}', "Missing partitions field"),
        ('{"partitions": [{"topic": "t", "partition": "a", "offset": 5}]}', "must look like"),
        (
            json.dumps({"partitions": [{"topic": "t", "partition": 0, "offset": offset} for offset in (5, 6)]}),
            "duplicate topic partitions: t-0",
        ),
    ],
)
def test_what_cannot_be_meant_is_said(text: str, complaint: str) -> None:
    with pytest.raises(common.CommandError, match=complaint):
        delete_records.parse_offsets(text)


class FakeAdmin:
    """One partition can be deleted from, the other cannot."""

    def __init__(self, config: dict[str, Any]) -> None: ...

    def delete_records(self, wanted: list[TopicPartition], **_: Any) -> dict[TopicPartition, Future[Any]]:
        answers = {}
        for asked in wanted:
            future: Future[Any] = Future()
            if asked.partition == 0:
                future.set_result(SimpleNamespace(low_watermark=asked.offset))
            else:
                future.set_exception(KafkaException(KafkaError(KafkaError.OFFSET_OUT_OF_RANGE)))
            answers[asked] = future
        return answers


def test_output(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(delete_records.admin, "AdminClient", FakeAdmin)
    offsets = [{"topic": "t", "partition": number, "offset": 5} for number in (0, 1)]
    (tmp_path / "offsets.json").write_text(json.dumps({"partitions": offsets, "version": 1}))
    flags = ["--bootstrap-server", "127.0.0.1:1", "--offset-json-file", str(tmp_path / "offsets.json")]
    assert delete_records.main(flags) == 0
    first, second, good, bad = capsys.readouterr().out.splitlines()
    assert (first, second) == ("Executing records delete operation", "Records delete operation completed:")
    assert good == "partition: t-0\tlow_watermark: 5"
    assert bad.startswith("partition: t-1\terror: org.apache.kafka.common.errors.OffsetOutOfRangeException: ")
    assert delete_records.main([*flags, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["partitions"]
    assert rows[0] == {"topic": "t", "partition": 0, "low_watermark": 5}
    assert "OffsetOutOfRangeException" in rows[1]["error"]
    assert delete_records.main([*flags[:3], str(tmp_path / "nothing.json")]) == 1


def test_errors_are_called_as_in_java() -> None:
    def of(code: int) -> str:
        return delete_records.java_name(KafkaException(KafkaError(code, "what the broker said")))

    package = "org.apache.kafka.common.errors."
    for code, name in (
        (KafkaError.TOPIC_EXCEPTION, "InvalidTopic"),
        (KafkaError.REQUEST_TIMED_OUT, "Timeout"),
        (KafkaError.POLICY_VIOLATION, "PolicyViolation"),
    ):
        assert of(code) == f"{package}{name}Exception: what the broker said", code
    assert of(KafkaError._NOENT).startswith(f"{package}UnknownTopicOrPartitionException: ")
    assert of(KafkaError._TIMED_OUT) == "no broker answered (what the broker said)"
