"""What OpenAI's calls count to, with a token and without, as the quick start says."""

import pytest
from messages import INITIALIZE, call, request
from proxy_bench import Bench


async def play(bench: Bench, token: str | None) -> list[int]:
    """Three responses: each begins a session, lists the tools, ends the session, and then calls in it."""
    counts = []
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    for _ in range(3):
        opened = await bench.post(INITIALIZE, headers=headers)
        session = opened.headers["Mcp-Session-Id"]
        await bench.post(request(1, "tools/list"), session=session, headers=headers)
        ended = {**headers, "Mcp-Session-Id": session}
        async with bench.http.delete(bench.url, headers=ended) as answer:
            assert answer.status == 405
        counts.append((await bench.post(call(2), session=session, headers=headers)).json["result"]["count"])
    return counts


@pytest.mark.parametrize(
    ("anonymous", "token", "counts"),
    [
        ("pool", None, [1, 2, 3]),
        ("isolate", None, [1, 1, 1]),
        ("isolate", "alices", [1, 2, 3]),
    ],
)
async def test_counts(bench: Bench, anonymous: str, token: str | None, counts: list[int]) -> None:
    """State lasts from one response to the next where it is known whose they are."""
    await bench.start(anonymous=anonymous)
    assert await play(bench, token) == counts
