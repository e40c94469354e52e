"""What a client sends under the names of what members say to each other."""

from messages import call
from proxy_bench import Bench

FORGED = {
    "Msp-Peer": "v1 0000000000000000 1 1 00",
    "Msp-To": "0000000000000000",
    "Msp-Client": "1 https 1 203.0.113.9",
    "msp-auth-token": "somebody else's",
}


async def test_it_goes_nowhere(bench: Bench) -> None:
    """The server gets to see nothing of it."""
    await bench.start()
    answer = await bench.post(call(), headers=FORGED)
    assert answer.status == 200
    names = {name.lower() for request, _ in bench.server.seen for name in request.headers}
    assert names
    assert not [name for name in names if name.startswith("msp-")]


async def test_it_tells_no_callers_apart(bench: Bench) -> None:
    """Who sends it is the caller that it is without."""
    await bench.start()
    credentials = {"Authorization": "Bearer t"}
    plain = await bench.post(call(), headers=credentials)
    forged = await bench.post(call(), headers={**credentials, **FORGED})
    assert (plain.json["result"], forged.json["result"]) == ({"count": 1}, {"count": 2})
