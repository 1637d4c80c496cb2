"""COMPLAINTS on the wire: round trip, foreign rows, nonsense."""

from __future__ import annotations

import pytest

from zkbroker.model.complaints import StalledDir, Unreachable, Word
from zkbroker.model.errors import BrokerError
from zkbroker.model.topics import TopicPartition
from zkbroker.replication.codec import Message
from zkbroker.replication.complaints import decode_complaints, encode_complaints

WORD = Word(
    (Unreachable(1, 8589934598, 2.1), Unreachable(3, 17, 4.0)),
    (
        StalledDir("/data/a b=1", 5.123, (TopicPartition("t", 0), TopicPartition("7", 3)), (TopicPartition("7", 3),)),
        StalledDir("/data/2", 6.0, (), ()),
    ),
    (Unreachable(2, 18, 3.0),),
)


def received(data: bytes) -> Message:
    line, _, body = data.partition(b"\n")
    verb, correlation, *_ = line.decode().split(" ")
    return Message(verb, int(correlation), [], {}, body)


@pytest.mark.parametrize("word", [WORD, Word(), Word(WORD.unreachable), Word((), WORD.stalled)])
def test_a_word_travels_whole(word: Word) -> None:
    message = received(encode_complaints(7, word))
    assert (message.verb, message.correlation) == ("COMPLAINTS", 7)
    assert decode_complaints(message) == word


def test_as_it_stands_in_the_protocol() -> None:
    word = Word(
        (Unreachable(1, 8589934598, 2.1),),
        (
            StalledDir(
                "/data/2", 5.1, (TopicPartition("demo", 0), TopicPartition("demo", 1)), (TopicPartition("demo", 1),)
            ),
        ),
        (Unreachable(3, 8589934602, 2.5),),
    )
    assert encode_complaints(7, word) == (
        b"COMPLAINTS 7 body=149\n"
        b"UNREACHABLE 1 epoch=8589934598 for_ms=2100\n"
        b"SILENT 3 epoch=8589934602 for_ms=2500\n"
        b"STALLED /data/2 for_ms=5100\n"
        b"REPLICA demo 0\n"
        b"REPLICA demo 1 waiting=1\n"
    )


def test_rows_of_a_later_version_are_skipped() -> None:
    body = b"WEATHER bad\nUNREACHABLE 1 epoch=5 for_ms=2000 mood=low\n\n"
    assert decode_complaints(Message("COMPLAINTS", 1, [], {}, body)) == Word((Unreachable(1, 5, 2.0),))


@pytest.mark.parametrize(
    "body",
    [
        b"UNREACHABLE epoch=5 for_ms=1\n",
        b"UNREACHABLE x epoch=5 for_ms=1\n",
        b"UNREACHABLE 1 for_ms=1\n",
        b"UNREACHABLE 1 epoch=5\n",
        b"UNREACHABLE 99999999999 epoch=5 for_ms=1\n",
        b"STALLED for_ms=1\n",
        b"REPLICA demo 0\n",
        b"STALLED /d for_ms=1\nREPLICA demo\n",
        b"STALLED /d for_ms=1\nREPLICA demo -1\n",
        b"\xff\n",
    ],
)
def test_nonsense_is_refused(body: bytes) -> None:
    with pytest.raises(BrokerError):
        decode_complaints(Message("COMPLAINTS", 1, [], {}, body))
