"""The one loud word about callers who cannot be told apart."""

from typing import Any

from proxy_bench import Bench

PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
ANYWHERE = "0.0.0.0:0"


async def warnings(bench: Bench, headers: dict[str, str] | None = None, **options: Any) -> list[str]:
    """What two equal callers make the proxy say."""
    await bench.start(**options)
    told: list[str] = []
    bench.watch(lambda event: told.append(event.name))
    url = bench.url.replace("0.0.0.0", "127.0.0.1")
    for _ in range(2):
        async with bench.http.post(url, json=PING, headers=headers) as response:
            assert response.status == 200
    return [name for name in told if name == "identity.anonymous_callers_share"]


async def test_said_once(bench: Bench) -> None:
    """Beyond loopback, the first caller without credentials is worth one warning, and the second none."""
    assert len(await warnings(bench, listen=ANYWHERE)) == 1


async def test_not_on_loopback(bench: Bench) -> None:
    """A sidecar's callers are one party."""
    assert await warnings(bench) == []


async def test_not_where_they_are_isolated(bench: Bench) -> None:
    """Callers that share nothing need no warning."""
    assert await warnings(bench, listen=ANYWHERE, anonymous="isolate") == []


async def test_not_for_those_who_show_a_credential(bench: Bench) -> None:
    """Whoever can be told apart is no stranger."""
    assert await warnings(bench, {"Authorization": "Bearer t"}, listen=ANYWHERE) == []
