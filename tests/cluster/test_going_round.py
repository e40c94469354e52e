"""What an operator does at one proxy to all that share a store."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from messages import call
from proxy_bench import Answer, Bench
from several_bench import Several, cluster_of, open_several

from mcp_session_proxy import events

ME = {"Authorization": "Bearer me"}
EVERYWHERE = {"cluster": True}


@pytest.fixture
async def several(tmp_path: Path) -> AsyncIterator[Several]:
    async with open_several(tmp_path / "state") as opened:
        await opened.start(2, admin_listen="127.0.0.1:0")
        yield opened


async def ask(bench: Bench, verb: str, path: str, said: Any = EVERYWHERE) -> Answer:
    url = f"{bench.proxy.admin_url}/api/v1/{path}"
    async with bench.http.request(verb, url, json=said) as response:
        return await Answer.read(response)


def acted(answer: Answer) -> list[Any]:
    """What each has done, the one that was asked first."""
    assert [each["here"] for each in answer.json["members"]] == [True, False]
    return [each["acted"] for each in answer.json["members"]]


async def test_pause_and_resume(several: Several) -> None:
    """All of them hold requests back, and each says so; without the word, one alone does."""
    one, other = several.benches
    answer = await ask(one, "POST", "pause")
    assert (answer.status, answer.json["done"]) == (200, True)
    assert [each["paused"] for each in acted(answer)] == [True, True]
    names = [cluster_of(bench).shards.membership.member for bench in several.benches]
    assert [each["member"] for each in answer.json["members"]] == names
    assert all(bench.proxy.snapshot.paused for bench in several.benches)
    told = [event for event in several.told_of(events.OperatorActed) if event.peer.startswith("member ")]
    assert [(event.action, event.peer) for event in told] == [("pause", f"member {names[0]}")]
    await ask(one, "POST", "resume", {"cluster": False})
    assert [bench.proxy.snapshot.paused for bench in several.benches] == [False, True]
    await ask(other, "POST", "resume")
    assert not any(bench.proxy.snapshot.paused for bench in several.benches)


async def test_sessions_of_all(several: Several) -> None:
    """They are replaced wherever they are, and one is closed that another proxy has."""
    one, other = several.benches
    await other.post(call(), headers=ME)
    assert [each["sessions"] for each in acted(await ask(one, "POST", "reconnect"))] == [0, 1]
    await other.post(call(), headers=ME)
    (tag,) = [view.session for view in other.proxy.snapshot.upstream_sessions()]
    answer = await ask(one, "DELETE", f"sessions/{tag}")
    assert answer.status == 200
    assert [each["closed"] for each in acted(answer)] == [False, True]
    assert (await ask(one, "DELETE", f"sessions/{tag}")).status == 404


async def test_one_does_not_answer(several: Several) -> None:
    """The others have done it, and it is told which one has not."""
    one, other = several.benches
    await cluster_of(other)._listener.close()
    cluster_of(one).peers.close()
    answer = await ask(one, "POST", "pause")
    assert (answer.status, answer.json["done"]) == (502, False)
    assert [each and each["paused"] for each in acted(answer)] == [True, None]
    assert "no answer" in answer.json["members"][1]["problem"]
    assert one.proxy.snapshot.paused


async def test_what_is_no_answer_to_the_question(several: Several) -> None:
    """It is wanted or not."""
    assert (await ask(several.benches[0], "POST", "pause", {"cluster": "yes"})).status == 400
    assert not several.benches[0].proxy.snapshot.paused
