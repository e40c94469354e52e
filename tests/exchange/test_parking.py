"""Calls that wait for their clients, and the states that bring the clients back."""

import asyncio
import time
from typing import Any, cast

import pytest
from fakes import Recorder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from modern_fakes import modern
from selection import examples

from mcp_session_proxy.errors import InvalidParams, OverBudget, StateRefused, TooManyParked, TooManyRounds
from mcp_session_proxy.exchange.call import ModernCall
from mcp_session_proxy.exchange.parking import Parking, ParkingLimits
from mcp_session_proxy.memory import UNBOUNDED, Share
from mcp_session_proxy.protocol import jsonrpc
from mcp_session_proxy.protocol.inbound import ModernRequest
from mcp_session_proxy.store.clock import steady

pytestmark = pytest.mark.looptime


class FakeCall:
    """A call as far as parking knows it."""

    def __init__(self, request: ModernRequest, rounds: int = 1) -> None:
        self.modern = request
        self.rounds = rounds
        self.abandoned = 0
        self.parked = 0

    def park(self) -> None:
        self.parked += 1

    def abandon(self) -> None:
        self.abandoned += 1


class WatchedParking(Parking):
    """A parking, and what it tells."""

    def __init__(self, limits: ParkingLimits, share: Share) -> None:
        self.told = Recorder()
        super().__init__(limits, self.told, share)


def make(
    timeout: float = 60, parked: int = 10, per_principal: int = 5, rounds: int = 4, share: Share = UNBOUNDED
) -> WatchedParking:
    limits = ParkingLimits(
        timeout_seconds=timeout, max_parked=parked, max_parked_per_principal=per_principal, max_rounds=rounds
    )
    return WatchedParking(limits, share)


def outcomes(parking: WatchedParking) -> list[str]:
    """What the parking told."""
    return [event.outcome for event in parking.told.named("call.parked")]


def park(parking: Parking, call: FakeCall, principal: str = "ada") -> str:
    return parking.park(cast(ModernCall, call), principal)


BUY = modern(name="buy", arguments={"what": "tea", "n": 1})


# -- there and back --------------------------------------------------------------------------------


async def test_the_state_of_a_member_that_has_gone() -> None:
    """Any member reads it, and says that the call has been given up: nobody waits for its answer."""
    limits = ParkingLimits(timeout_seconds=60, max_parked=9, max_parked_per_principal=9, max_rounds=9)
    one, other = (Parking(limits, Recorder(), secret=b"of all", member=member) for member in ("a", "b"))
    state = park(one, FakeCall(BUY))
    assert one.find(state, "ada", BUY)
    with pytest.raises(StateRefused, match="The proxy that held this call is gone"):
        other.find(state, "ada", BUY)
    with pytest.raises(StateRefused, match="not issued here"):
        make().find(state, "ada", BUY)


async def test_there_and_back() -> None:
    """A state finds its call, which stays parked until it is taken, once."""
    parking, call = make(), FakeCall(BUY)
    state = park(parking, call)
    for _ in range(2):
        identifier, found = parking.find(state, "ada", BUY)
        assert found is cast(Any, call)
    parking.take(identifier)
    with pytest.raises(StateRefused):
        parking.find(state, "ada", BUY)
    assert (len(parking), call.abandoned) == (0, 0)
    assert outcomes(parking) == ["parked", "resumed", "refused"]


async def test_a_state_is_fresh_in_every_round() -> None:
    """The state of the round before is spent, even though the call is parked again."""
    parking, call = make(), FakeCall(BUY)
    first = park(parking, call)
    parking.take(parking.find(first, "ada", BUY)[0])
    second = park(parking, call)
    assert first != second
    with pytest.raises(StateRefused):
        parking.find(first, "ada", BUY)
    assert parking.find(second, "ada", BUY)[1] is cast(Any, call)


@pytest.mark.parametrize(
    "retry",
    [
        modern(arguments={"n": 1, "what": "tea"}, name="buy", identifier="other"),
        modern(name="buy", arguments={"what": "tea", "n": 1}, inputResponses={"a": 1}, requestState="x"),
        modern(name="buy", arguments={"what": "tea", "n": 1}, token=7, log_level="debug", capabilities={}),
    ],
    ids=["order and id", "answers", "metadata"],
)
async def test_what_may_differ_in_a_retry(retry: ModernRequest) -> None:
    """A retry has an id, answers and metadata of its own; what was asked for is the same."""
    parking, call = make(), FakeCall(BUY)
    assert parking.find(park(parking, call), "ada", retry)[1] is cast(Any, call)


# -- refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "retry",
    [
        modern(name="sell", arguments={"what": "tea", "n": 1}),
        modern(name="buy", arguments={"what": "tea", "n": 2}),
        modern(name="buy", arguments={"what": "tea", "n": "1"}),
        modern(name="buy"),
        modern(name="buy", arguments={"what": "tea", "n": 1}, more=None),
        modern("prompts/get", name="buy", arguments={"what": "tea", "n": 1}),
    ],
)
async def test_another_request(retry: ModernRequest) -> None:
    """A state is good for the same request alone; the call waits on."""
    parking, call = make(), FakeCall(BUY)
    state = park(parking, call)
    with pytest.raises(StateRefused):
        parking.find(state, "ada", retry)
    assert (len(parking), call.abandoned) == (1, 0)


async def test_another_principal() -> None:
    """A state is good for the same caller alone."""
    parking = make()
    state = park(parking, FakeCall(BUY))
    with pytest.raises(StateRefused, match="another caller"):
        parking.find(state, "bob", BUY)
    assert len(parking) == 1


async def test_another_process() -> None:
    """A state from before a restart opens nothing, even with the same calls parked."""
    before, after = make(), make()
    call = FakeCall(BUY)
    state = park(before, call)
    park(after, call)
    with pytest.raises(StateRefused, match="restarted"):
        after.find(state, "ada", BUY)


@settings(max_examples=examples(200), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_tampered(data: st.DataObject) -> None:
    """A state in which any character was changed, added or left out is refused."""
    parking = make()
    state = park(parking, FakeCall(BUY))
    place = data.draw(st.integers(0, len(state) - 2))  # the last character has bits that mean nothing
    instead = data.draw(st.text(max_size=2) | st.sampled_from([state[place] * 2, ".", "A", "-", "="]))
    forged = state[:place] + instead + state[place + 1 :]
    if forged == state:
        return
    with pytest.raises(StateRefused):
        parking.find(forged, "ada", BUY)


@given(text=st.text(max_size=60))
async def test_anything_else(text: str) -> None:
    """Whatever a client makes up is refused, with the error of a bad parameter."""
    with pytest.raises(InvalidParams) as caught:
        make().find(text, "ada", BUY)
    assert (caught.value.http_status, caught.value.code) == (400, -32602)


async def test_states_tell_nothing() -> None:
    """Neither the arguments nor anything readable of them is in a state."""
    secret = modern(name="buy", arguments={"password": "hunter2"})
    state = park(make(), FakeCall(secret))
    assert "hunter2" not in state
    assert len(state) < 300


# -- time ------------------------------------------------------------------------------------------


async def test_expiry() -> None:
    """A call whose client does not come back is given up, once, after the time that it had."""
    parking, call = make(timeout=60), FakeCall(BUY)
    state = park(parking, call)
    await asyncio.sleep(59)
    parking.find(state, "ada", BUY)
    assert call.abandoned == 0
    await asyncio.sleep(2)
    assert (call.abandoned, len(parking)) == (1, 0)
    with pytest.raises(StateRefused):
        parking.find(state, "ada", BUY)
    assert outcomes(parking) == ["parked", "expired", "refused"]


async def test_each_round_has_the_whole_time() -> None:
    """The time begins anew with every round; the timer of the round before is off."""
    parking, call = make(timeout=60), FakeCall(BUY)
    state = park(parking, call)
    await asyncio.sleep(50)
    parking.take(parking.find(state, "ada", BUY)[0])
    await asyncio.sleep(50)
    park(parking, call)
    await asyncio.sleep(50)
    assert (call.abandoned, len(parking)) == (0, 1)


async def test_an_old_state_is_refused_by_its_own_age(monkeypatch: pytest.MonkeyPatch) -> None:
    """The seal knows its age, whatever else is kept here."""
    parking = make(timeout=60)
    state = park(parking, FakeCall(BUY))
    later = steady() + 62
    monkeypatch.setattr("mcp_session_proxy.exchange.parking.steady", lambda: later)
    with pytest.raises(StateRefused, match="expired"):
        parking.find(state, "ada", BUY)


@pytest.mark.parametrize("hours", [-5, 5])
async def test_a_clock_that_is_set(monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    """It makes no state older than it is, and none of the future: the call goes on."""
    parking = make(timeout=60)
    state = park(parking, FakeCall(BUY))
    other = time.time() + hours * 3600
    monkeypatch.setattr("time.time", lambda: other)
    parking.find(state, "ada", BUY)


# -- limits ----------------------------------------------------------------------------------------


async def test_limit_per_principal() -> None:
    """One caller cannot take all the room; a call over its limit is given up, and others have theirs."""
    parking = make(per_principal=2)
    states = [park(parking, FakeCall(BUY)) for _ in range(2)]
    over = FakeCall(BUY)
    with pytest.raises(TooManyParked) as caught:
        park(parking, over)
    assert (over.abandoned, caught.value.http_status) == (1, 503)
    park(parking, FakeCall(BUY), "bob")
    parking.take(parking.find(states[0], "ada", BUY)[0])
    park(parking, FakeCall(BUY))
    assert outcomes(parking).count("too-many-parked") == 1


async def test_limit_in_all() -> None:
    """There is a limit for everybody together, and room again when one has expired."""
    parking = make(parked=3, timeout=10)
    for principal in "abc":
        park(parking, FakeCall(BUY), principal)
    with pytest.raises(TooManyParked):
        park(parking, FakeCall(BUY), "d")
    await asyncio.sleep(11)
    park(parking, FakeCall(BUY), "d")
    assert len(parking) == 1


async def test_limit_of_memory() -> None:
    """What the clients of parked calls sent has a share, and is given back with them."""
    share = Share("questions", 1000)
    parking = make(share=share)
    large = modern(name="buy", arguments={"what": "x" * 600})
    state = park(parking, FakeCall(large))
    over = FakeCall(large)
    with pytest.raises(OverBudget):
        park(parking, over)
    assert (over.abandoned, outcomes(parking)) == (1, ["parked", "memory-budget"])
    parking.take(parking.find(state, "ada", large)[0])
    assert share.used_bytes == 0


async def test_large_arguments_are_compared_as_they_were_written() -> None:
    """To bring them into one form would cost more than a call."""
    parking = make()
    large = modern(name="buy", arguments={"what": "x" * 100_000, "n": 1})
    state = park(parking, FakeCall(large))
    with pytest.raises(StateRefused):
        parking.find(state, "ada", modern(name="buy", arguments={"n": 1, "what": "x" * 100_000}))
    parking.find(state, "ada", modern(arguments={"what": "x" * 100_000, "n": 1}, name="buy"))


async def test_limit_of_rounds() -> None:
    """A server that asks over and over is cut off, and it is the server's fault."""
    parking = make(rounds=4)
    park(parking, FakeCall(BUY, rounds=4))
    endless = FakeCall(BUY, rounds=5)
    with pytest.raises(TooManyRounds) as caught:
        park(parking, endless)
    assert (endless.abandoned, caught.value.http_status) == (1, 502)


async def test_close() -> None:
    """When we leave, every parked call is given up."""
    parking = make()
    calls = [FakeCall(BUY) for _ in range(3)]
    for call in calls:
        park(parking, call)
    parking.close()
    assert [call.abandoned for call in calls] == [1, 1, 1]
    assert len(parking) == 0


@settings(max_examples=50)
@given(
    steps=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["park", "take", "wait"])), max_size=30)
)
async def test_books_balance(steps: list[tuple[str, str]]) -> None:
    """Whatever happens, the counts are those of the calls that are really there, and within their limits."""
    parking = make(parked=4, per_principal=2, timeout=10)
    states: dict[str, list[str]] = {"a": [], "b": [], "c": []}
    for principal, step in steps:
        if step == "wait":
            await asyncio.sleep(11)
            states = {name: [] for name in states}
        elif step == "take" and states[principal]:
            parking.take(parking.find(states[principal].pop(), principal, BUY)[0])
        elif step == "park":
            try:
                states[principal].append(park(parking, FakeCall(BUY), principal))
            except TooManyParked:
                assert len(states[principal]) == 2 or len(parking) == 4
        there = {name: len(own) for name, own in states.items() if own}
        assert parking._per_principal == there
        assert len(parking) == sum(there.values()) <= 4


async def test_spelling_does_not_matter() -> None:
    """Two spellings of the same JSON are the same request."""
    first, second = (
        BUY._replace(params=jsonrpc.read_object(raw))
        for raw in (
            b'{"name":"b","arguments":{"x":1,"y":"\\u00fc"}}',
            '{ "arguments" : {"y":"\u00fc", "x":1},"name":"b"}'.encode(),
        )
    )
    parking = make()
    parking.find(park(parking, FakeCall(first)), "ada", second)
