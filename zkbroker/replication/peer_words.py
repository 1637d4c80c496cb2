"""SUSPECT and PROBE: what brokers tell each other about one that may be dead, as words. Pure."""

from __future__ import annotations

from zkbroker.model.errors import BrokerError, ErrorCode
from zkbroker.model.suspicion import Evidence, Finding, Suspect
from zkbroker.replication.codec import Message, encode_request
from zkbroker.replication.ports import Identity


def _suspect_words(suspect: Suspect) -> dict[str, str | int | None]:
    return {"broker": suspect.broker_id, "epoch": suspect.broker_epoch, "at": suspect.address}


def decode_suspect(message: Message) -> Suspect:
    """Whom a PROBE or SUSPECT is about. Raises BrokerError."""
    return Suspect(message.integer("broker"), message.integer("epoch"), message.text("at"))


def encode_probe(correlation: int, suspect: Suspect) -> bytes:
    """PROBE: what do you know of this broker? The answer comes as SUSPECT."""
    return encode_request("PROBE", correlation, _suspect_words(suspect))


def encode_evidence(correlation: int, evidence: Evidence) -> bytes:
    """SUSPECT: what the caller found out about a broker."""
    closed_ms = None if evidence.closed_ago_s < 0 else round(evidence.closed_ago_s * 1000)
    values = {**_suspect_words(evidence.suspect), "finding": evidence.finding.value, "closed_ms": closed_ms}
    return encode_request("SUSPECT", correlation, values)


def decode_evidence(message: Message, caller: Identity) -> Evidence:
    """The evidence is the caller's own. Raises BrokerError, also for a finding that this version does not know."""
    word = message.text("finding")
    try:
        finding = Finding(word)
    except ValueError:
        raise BrokerError(ErrorCode.INVALID_REQUEST, f"finding={word[:40]} is not known here") from None
    closed_ms = message.integer("closed_ms", -1)
    closed_ago_s = closed_ms / 1000 if closed_ms >= 0 else -1.0
    return Evidence(decode_suspect(message), caller.broker_id, caller.broker_epoch, finding, closed_ago_s)
