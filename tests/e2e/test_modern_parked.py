"""Calls that wait for their clients' answers: who may resume them, how they end, and that none runs twice."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from .conftest import Desk
from .launch import get
from .modern_wire import ModernCaller, accept
from .wire import Message, Reply, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.at_three(20)]

MakeDesk = Callable[..., Desk]
TOOL = "test_input_required_result_elicitation"
ANSWER = {"user_name": accept(name="Ada")}


class Table:
    """A desk at the fixture server, with a modern caller."""

    def __init__(self, at: Desk) -> None:
        self.at = at
        self.client = ModernCaller(at.http, at.proxy.url)
        self.before = self.count("started")

    def count(self, what: str, tool: str = "elicitation") -> int:
        """How often the tool was started, finished or cancelled at the server so far."""
        _, body = get(f"{self.at.server.origin}/calls")
        counted: int = json.loads(body)[what].get(tool, 0)
        return counted

    @property
    def ended(self) -> int:
        """How often the tool ended so far, in whatever way."""
        return sum(self.count(how) for how in ("finished", "cancelled", "failed"))

    @property
    def executions(self) -> int:
        """How often the tool was started since this test began."""
        return self.count("started") - self.before

    async def park(self) -> Message:
        """Make the call that asks; its result."""
        asked = (await self.client.call_modern(TOOL)).result
        assert asked["resultType"] == "input_required"
        return asked

    async def resume(self, asked: Message, who: ModernCaller | None = None) -> Reply:
        """Come back with the answer."""
        return await (who or self.client).resume_call(asked, ANSWER, TOOL)


@pytest.fixture(params=["modern", "modern-get"])
def table(desk: MakeDesk, request: pytest.FixtureRequest) -> Table:
    """A table at the shared fixture server: one that asks on the call's stream, one on the GET stream."""
    return Table(desk(request.param))


@pytest.fixture
def own_table(own_desk: MakeDesk) -> Callable[..., Table]:
    """Makes a table with a server and a proxy of the test's own."""
    return lambda *options: Table(own_desk("modern", *options))


def assert_refused(reply: Reply) -> None:
    """The answer that every state gets which is not, or no longer, good."""
    assert (reply.status, reply.error["code"]) == (400, -32602), reply.body
    assert reply.error["data"]["source"] == "mcp-session-proxy"


async def test_resumed_once(table: Table) -> None:
    """The answer reaches the call that waits, which was executed once and ends."""
    asked = await table.park()
    assert (table.executions, table.count("started") > table.ended) == (1, True)
    assert (await table.resume(asked)).text == "Hello, Ada!"
    assert table.executions == 1


async def test_another_principal(table: Table) -> None:
    """Another caller cannot resume the call; its own caller still can."""
    asked = await table.park()
    assert_refused(await table.resume(asked, ModernCaller(table.at.http, table.at.proxy.url)))
    assert (await table.resume(asked)).text == "Hello, Ada!"
    assert table.executions == 1


async def test_tampered(table: Table) -> None:
    """A state that was changed anywhere is refused, and the call waits on for the right one."""
    asked = await table.park()
    state = asked["requestState"]
    middle = len(state) // 2
    changed = "B" if state[middle] == "A" else "A"
    for forged in (state + "x", state[:-1], state[:middle] + changed + state[middle + 1 :], "", "x.y.z"):
        assert_refused(await table.resume(asked | {"requestState": forged}))
    assert (await table.resume(asked)).text == "Hello, Ada!"
    assert table.executions == 1


async def test_another_request(table: Table) -> None:
    """A state is good for the request it was given for, not for another tool or other arguments."""
    asked = await table.park()
    other = "test_input_required_result_tampered_state"
    assert_refused(await table.client.resume_call(asked, ANSWER, other))
    assert_refused(await table.client.resume_call(asked, ANSWER, TOOL, {"more": 1}))
    assert (await table.resume(asked)).text == "Hello, Ada!"
    assert table.executions == 1


async def test_replayed(table: Table) -> None:
    """A state is good for one use, in every round."""
    asked = await table.park()
    assert (await table.resume(asked)).text == "Hello, Ada!"
    assert_refused(await table.resume(asked))
    assert table.executions == 1


async def test_replayed_at_once(table: Table) -> None:
    """Of two retries at the same moment, one gets the result and the other is refused."""
    asked = await table.park()
    first, second = await asyncio.gather(table.resume(asked), table.resume(asked))
    good, bad = (first, second) if first.status == 200 else (second, first)
    assert good.text == "Hello, Ada!"
    assert_refused(bad)
    assert table.executions == 1


async def test_an_earlier_round_is_over(table: Table) -> None:
    """The state of the first round is refused once the second round has begun."""
    tool = "test_input_required_result_multi_round"
    first = (await table.client.call_modern(tool)).result
    second = (await table.client.resume_call(first, {"step1": accept(name="Ada")}, tool)).result
    assert list(second["inputRequests"]) == ["step2"]
    assert_refused(await table.client.resume_call(first, {"step1": accept(name="Bo")}, tool))
    done = await table.client.resume_call(second, {"step2": accept(color="blue")}, tool)
    assert done.text == "Ada likes blue."


async def test_missing_answers_are_asked_again(table: Table) -> None:
    """A retry that answers only some questions is asked the others again, with a new state."""
    tool = "test_input_required_result_multiple_inputs"
    asked = (await table.client.call_modern(tool)).result
    by_method = {request["method"]: key for key, request in asked["inputRequests"].items()}
    assert set(by_method) == {"elicitation/create", "sampling/createMessage", "roots/list"}
    some = {by_method["elicitation/create"]: accept(name="Ada"), "unknown": accept()}
    again = (await table.client.resume_call(asked, some, tool)).result
    assert set(again["inputRequests"]) == {by_method["sampling/createMessage"], by_method["roots/list"]}
    rest = {
        by_method["sampling/createMessage"]: {
            "role": "assistant",
            "model": "none",
            "content": {"type": "text", "text": "good day"},
        },
        by_method["roots/list"]: {"roots": [{"uri": "file:///srv"}]},
    }
    done = await table.client.resume_call(again, rest, tool)
    assert done.text == "name: Ada; greeting: good day; roots: file:///srv"


@pytest.mark.parametrize("answer", [12345, "yes", None, {"action": "maybe"}, {"content": {}}])
async def test_malformed_answers(table: Table, answer: Any) -> None:
    """An answer without the form of one is refused; the call waits on for a better one."""
    asked = await table.park()
    refused = await table.client.resume_call(asked, {"user_name": answer}, TOOL)
    assert (refused.status, refused.error["code"]) == (400, -32602)
    assert (await table.resume(asked)).text == "Hello, Ada!"
    assert table.executions == 1


@pytest.mark.parametrize(
    ("method", "params", "key", "answer", "said"),
    [
        (
            "prompts/get",
            {"name": "test_input_required_result_prompt"},
            "user_context",
            accept(context="tea"),
            "Consider: tea",
        ),
        ("resources/read", {"uri": "test://asking/tea"}, "may_show", accept(ok=True), "tea: accept"),
    ],
    ids=["prompt", "resource"],
)
async def test_prompts_and_resources_may_ask(
    table: Table, method: str, params: Message, key: str, answer: Message, said: str
) -> None:
    """A prompt and a resource can ask the client as well as a tool can."""
    asked = (await table.client.ask_modern(method, params)).result
    assert list(asked["inputRequests"]) == [key]
    done = (await table.client.resume(asked, {key: answer}, method, params)).result
    assert done["resultType"] == "complete"
    assert said in json.dumps(done)


async def test_lists_may_not_ask(table: Table) -> None:
    """A retry of a method that cannot ask is refused."""
    asked = await table.park()
    again = await table.client.resume(asked, {}, "tools/list", {})
    assert_refused(again)
    assert (await table.resume(asked)).text == "Hello, Ada!"


async def test_others_go_on_while_one_is_parked(table: Table) -> None:
    """While a call waits for its client, the same caller's other calls run, those that ask included."""
    asked = await table.park()
    async with asyncio.timeout(30):
        assert (await table.client.call_modern("test_simple_text")).text.startswith("This is")
        other = (await table.client.call_modern("ask_with", {"message": "B"})).result
        ((key, _),) = other["inputRequests"].items()
        done = await table.client.resume_call(other, {key: accept(name="Bo")}, "ask_with", {"message": "B"})
        assert done.text == "B: Bo"
    assert (await table.resume(asked)).text == "Hello, Ada!"
    assert table.executions == 1


async def test_many_calls_that_ask_at_once(table: Table) -> None:
    """Concurrent calls that ask get the answers to their own questions, whoever of the caller was asked."""

    async def whole(word: str) -> str:
        asked = await table.client.call_modern("ask_with", {"message": word})
        while "inputRequests" in (result := asked.result):
            # On the GET stream a question may come to the wrong request of the right caller.
            answers = {
                key: accept(name=f"told {request['params']['message']}")
                for key, request in result["inputRequests"].items()
            }
            asked = await table.client.resume_call(result, answers, "ask_with", {"message": word})
        return asked.text

    words = [f"w{number}" for number in range(5)]
    assert await asyncio.gather(*map(whole, words)) == [f"{word}: told {word}" for word in words]


async def test_expired(own_table: Callable[..., Table]) -> None:
    """A call whose client does not come back in time is cancelled at the server; its state is refused."""
    table = own_table("--park-timeout", "1s")
    asked = await table.park()

    async def ended() -> bool:
        return table.ended == 1

    await eventually(ended)
    metrics = table.at.proxy.metrics()
    assert (metrics["exchanges_parked"], metrics['parked_total{outcome="expired"}']) == (0, 1)
    assert_refused(await table.resume(asked))
    assert table.executions == 1


@pytest.mark.at_one
async def test_after_a_restart(own_table: Callable[..., Table]) -> None:
    """A proxy that was restarted refuses the states of the one before, whose calls were cancelled."""
    table = own_table()
    asked = await table.park()
    assert table.at.proxy.stop() == 0
    table.at.proxy.start()
    table.client.url = table.at.proxy.url
    assert_refused(await table.resume(asked))

    async def ended() -> bool:
        return table.ended == 1

    await eventually(ended)
    assert table.executions == 1


async def test_the_server_dies_meanwhile(own_table: Callable[..., Table]) -> None:
    """When the server dies under a parked call, the retry gets an error soon; nothing is executed again."""
    table = own_table()
    asked = await table.park()
    table.at.server.kill()
    table.at.server.start()
    async with asyncio.timeout(30):
        reply = await table.resume(asked)
    assert reply.error["code"] == -32603, reply.body
    assert reply.error["data"]["reason"] in ("outcome-unknown", "session-lost")
    assert table.count("started") == 0
    assert (await table.resume(await table.park())).text == "Hello, Ada!"
    assert table.count("started") == 1


async def test_refusing_does_not_harm_the_session(own_table: Callable[..., Table]) -> None:
    """Calls that are given up while their server waits for an answer leave their session alive.

    Servers built on mcp 1.x end the whole session when an answer and a cancellation cross.
    """
    table = own_table("--max-parked-per-principal", "1")
    asked = await table.park()
    unable = ModernCaller(table.at.http, table.at.proxy.url, capabilities={})
    for _ in range(20):
        full, missing = await asyncio.gather(
            table.client.call_modern(TOOL), unable.call_modern("test_missing_capability")
        )
        assert full.error["data"]["reason"] == "too-many-parked", full.body
        assert (missing.status, missing.error["code"]) == (400, -32021), missing.body
    assert not [name for name in table.at.proxy.metrics() if name.startswith("upstream_sessions_lost_total")]
    assert (await table.resume(asked)).text == "Hello, Ada!"


async def test_limit_per_caller(own_table: Callable[..., Table]) -> None:
    """A caller with as many parked calls as it may have is told so; its call is cancelled at the server."""
    table = own_table("--max-parked-per-principal", "1")
    asked = await table.park()
    full = await table.client.call_modern(TOOL)
    assert (full.status, full.error["data"]["reason"]) == (503, "too-many-parked")
    assert "Retry-After" in full.headers
    other = ModernCaller(table.at.http, table.at.proxy.url)
    assert (await other.call_modern(TOOL)).result["resultType"] == "input_required"
    assert (await table.resume(asked)).text == "Hello, Ada!"


async def test_limit_of_rounds(own_table: Callable[..., Table]) -> None:
    """A server that asks more often than it may in one call is cut off with an error."""
    table = own_table("--max-rounds", "1")
    tool = "test_input_required_result_multi_round"
    first = (await table.client.call_modern(tool)).result
    second = await table.client.resume_call(first, {"step1": accept(name="Ada")}, tool)
    assert second.error["data"]["reason"] == "too-many-rounds", second.body


async def leave_while_lingering(table: Table, params: Message) -> None:
    """Make a call, wait until the server is at work, and close the response."""
    before = table.count("cancelled", "linger")
    async with table.client.open_modern("tools/call", params, meta={"progressToken": 1}) as stream:
        assert (await stream.next() or {})["method"] == "notifications/progress"

    async def cancelled() -> bool:
        return table.count("cancelled", "linger") == before + 1

    await eventually(cancelled)


async def test_a_client_that_leaves_cancels(table: Table) -> None:
    """Closing the response cancels the call at the server."""
    await leave_while_lingering(table, {"name": "linger", "arguments": {}})


async def test_a_client_that_leaves_after_its_answer_cancels(table: Table) -> None:
    """Closing the response of a retry cancels the call at the server, too."""
    params: Message = {"name": "linger", "arguments": {"ask": True}}
    asked = (await table.client.ask_modern("tools/call", params, meta={"progressToken": 1})).result
    ((key, _),) = asked["inputRequests"].items()
    answers = {"inputResponses": {key: accept(ok=True)}, "requestState": asked["requestState"]}
    await leave_while_lingering(table, params | answers)


async def test_progress_over_the_rounds(table: Table) -> None:
    """What the server says between two questions comes with the retry, under the retry's own token."""
    tool = "test_input_required_result_multi_round"
    first = (await table.client.call_modern(tool, meta={"progressToken": "p1"})).result
    answer = {"step1": accept(name="Ada")}
    second = await table.client.resume_call(first, answer, tool, meta={"progressToken": "p2"})
    told = [message["params"] for message in second.messages if "method" in message]
    assert [(note["progressToken"], note["progress"]) for note in told] == [("p2", 50)]
    done = await table.client.resume_call(second.result, {"step2": accept(color="red")}, tool)
    assert done.text == "Ada likes red."
