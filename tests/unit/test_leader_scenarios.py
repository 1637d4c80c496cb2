"""Runs tests/scenarios/partition/*.txt: commands to a leader, with what it decides below each. ``pytest --rewrite``
writes the outcomes anew; read the difference before you commit it.

A command is a line; its outcome follows ``----`` and ends at an empty line::

    leader isr=1,2,3 end=10 min_isr=2     broker 1 becomes leader of replicas 1, 2, 3 in leader epoch 5
    append 3 | fetch 2 offset=10 | wait 5 | shrink | answer NONE isr=1,2 | told isr=1 | die 3 | return 3 | contact age=9
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.test_leader import Case
from zkbroker.model.errors import ErrorCode
from zkbroker.partition.leader import FetchRefusal, ProposeIsr

SCENARIOS = Path(__file__).parent.parent / "scenarios" / "partition"


class Scene:
    def __init__(self) -> None:
        self.case = Case()

    def run(self, line: str) -> str:
        verb, *words = line.split()
        plain = [word for word in words if "=" not in word]
        named = dict(word.split("=") for word in words if "=" in word)
        return getattr(self, f"do_{verb}")(*plain, **named)

    def after(self, effects: object) -> str:
        return "\n".join([*map(shown, effects if type(effects) is tuple else (effects,)), repr(self.case.leader)])

    def do_leader(self, isr: str, end: str = "0", min_isr: str = "1", mark: str = "0") -> str:
        self.case = Case(ids(isr), int(end), int(mark), int(min_isr))
        return self.after(self.case.leader.started(self.case.now))

    def do_append(self, count: str) -> str:
        return self.after(self.case.append(self.case.leader.log_end_offset + int(count)))

    def do_fetch(self, broker: str, offset: str, last: str = "5", epoch: str = "5") -> str:
        case = self.case
        refused = case.leader.fetch_refusal(case.contacts[int(broker)], int(epoch), int(offset), int(last), 0)
        return self.after(refused if refused is not None else case.fetch(int(broker), int(offset)))

    def do_wait(self, seconds: str) -> str:
        self.case.now += float(seconds)
        return self.after(self.case.leader.look_again(self.case.now))

    def do_shrink(self) -> str:
        return self.after(self.case.leader.shrink_if_lagging(self.case.now))

    def do_answer(self, error: str, isr: str = "") -> str:
        outcome, effects = self.case.answer(ErrorCode[error], ids(isr))
        return f"{outcome.value}\n" + self.after(effects)

    def do_told(self, isr: str, epoch: str) -> str:
        state = self.case.state._replace(isr=ids(isr), partition_epoch=int(epoch))
        return self.after(self.case.leader.state_told(state, self.case.now))

    def do_die(self, broker: str) -> str:
        del self.case.live[int(broker)]
        return self.after(self.case.leader.look_again(self.case.now))

    def do_produce(self, acks: str) -> str:
        refused = self.case.leader.append_refusal(int(acks))
        return "may append" if refused is None else refused.name

    def do_contact(self, age: str) -> str:
        is_fresh = self.case.leader.has_fresh_contact(self.case.now, float(age), 5.0)
        return "may answer" if is_fresh else "must not answer acks<=1 or reads"


def shown(effect: object) -> str:
    if isinstance(effect, ProposeIsr):
        proposal = effect.proposal
        members = " ".join(f"{member}/{broker_epoch}" for member, broker_epoch in proposal.isr)
        return f"ProposeIsr #{proposal.proposal_id} at epoch {proposal.partition_epoch}: {members}"
    if isinstance(effect, FetchRefusal):
        if effect.error is ErrorCode.NONE:
            return f"diverging: epoch {effect.diverging_epoch} ends at {effect.diverging_end}"
        return f"refused: {effect.error.name}"
    return repr(effect)


def ids(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part)


def played(text: str) -> str:
    """The scenario with the outcomes as they are now."""
    scene = Scene()
    blocks = []
    for block in text.strip().split("\n\n"):
        lines = block.split("----")[0].rstrip("\n").split("\n")
        command = lines[-1]
        if command.startswith("#"):
            blocks.append(block.rstrip())
        else:
            blocks.append("\n".join([*lines, "----", scene.run(command)]))
    return "\n\n".join(blocks) + "\n"


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.txt")), ids=lambda path: path.stem)
def test_scenario(path: Path, request: pytest.FixtureRequest) -> None:
    text = path.read_text()
    now = played(text)
    if request.config.getoption("--rewrite"):
        path.write_text(now)
    else:
        assert text == now
