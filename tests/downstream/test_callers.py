"""Who counts as whom at the front door: what callers show, and what strangers cannot get by showing it."""

import pytest
from messages import call
from proxy_bench import Bench


async def count(bench: Bench, query: str = "", **headers: str) -> int:
    """One session-less call of the counter, as a caller who sends these headers."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    async with bench.http.post(bench.url + query, json=call(), headers=names) as response:
        assert response.status == 200, await response.text()
        counted: int = (await response.json())["result"]["count"]
        return counted


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("", {}),
        ("?a=1", {}),
        ("", {"X_User_Agent": "x"}),
        ("", {"X_MCP_Readonly": "true"}),
        ("", {"Authorization": ""}),
        ("", {"Authorization": "Bearer"}),
        ("", {"Authorization": "Bearer undefined"}),
        ("", {"Authorization": "null"}),
        ("", {"Cookie": ""}),
    ],
)
async def test_isolated_strangers_share_nothing(bench: Bench, query: str, headers: dict[str, str]) -> None:
    """Under --anonymous isolate, callers who prove nothing never meet, whatever they have in common."""
    await bench.start(anonymous="isolate")
    assert [await count(bench, query, **headers) for _ in range(2)] == [1, 1]


async def test_a_credential_makes_a_caller_known(bench: Bench) -> None:
    """Who shows a credential is the same caller in the next request."""
    await bench.start(anonymous="isolate")
    assert [await count(bench, Authorization="Bearer t") for _ in range(2)] == [1, 2]


@pytest.mark.parametrize("name", ["Api_Key", "Cf_Access_Jwt_Assertion", "Remote_User", "X_Forwarded_Email"])
async def test_callers_named_by_others_share_nothing(bench: Bench, name: str) -> None:
    """A gateway's word for who is calling tells callers apart without any option."""
    await bench.start()
    assert [await count(bench, **{name: who}) for who in ("alice", "bob", "alice")] == [1, 1, 2]


async def test_a_mirrored_parameter_is_no_caller(bench: Bench) -> None:
    """A tool's argument that a header repeats says nothing of who is calling, whatever its name."""
    await bench.start()
    names = ("Mcp_Param_User", "Mcp_Param_Token", "Mcp_Param_Owner")
    assert [await count(bench, **{name: value}) for name in names for value in "ab"] == [1, 2, 3, 4, 5, 6]


async def test_a_key_for_each_request_is_no_caller(bench: Bench) -> None:
    """Headers that differ in each request of one caller do not give it a session each time."""
    await bench.start()
    assert [await count(bench, Idempotency_Key=str(key)) for key in range(3)] == [1, 2, 3]


async def test_a_name_that_does_not_count_is_told_once(bench: Bench) -> None:
    """A header that sounds like identity and does not count is worth one warning that names it."""
    await bench.start(credential_header="authorization")
    told: list[object] = []
    bench.watch(lambda event: told.append(getattr(event, "header", None)))
    for who in ("alice", "bob"):
        await count(bench, X_Forwarded_Email=who)
    assert [header for header in told if header] == ["X-Forwarded-Email"]


@pytest.mark.parametrize("verb", ["POST", "GET", "DELETE"])
@pytest.mark.parametrize("claimed", ["X-Tenant", "close, authorization"])
async def test_a_credential_cannot_be_kept_from_the_server(bench: Bench, verb: str, claimed: str) -> None:
    """A header that tells a caller apart here and would not reach the server is refused."""
    await bench.start()
    headers = {"X-Tenant": "a", "Authorization": "Bearer t", "Connection": claimed}
    async with bench.http.request(verb, bench.url, json=call(), headers=headers) as response:
        assert response.status == 400
    assert bench.server.seen == []
