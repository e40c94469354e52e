"""Clients of all kinds that count without pause, while the proxy is stopped, replaced and killed.

FULL_FAULTS=1 runs the whole number of restarts and of clients, real ones among them; without it a share.
"""

import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from counting import OPTIONS, WITH_IDS, CountingServer, Crowd, Note, note
from counting_programs import KINDS as PROGRAMS
from counting_programs import CountingProgram
from proxy_bench import until
from restart_bench import Succession, rows
from selection import FULL_FAULTS

RESTARTS = 50 if FULL_FAULTS else 2
OF_EACH_KIND = 3 if FULL_FAULTS else 1
REAL = list(PROGRAMS) if FULL_FAULTS else []
# How long those wait for an answer.
REAL_SECONDS = 20.0
# Eight of them start at the same time.
START_SECONDS = 120.0

pytestmark = [pytest.mark.timeout(3600), pytest.mark.share(2), pytest.mark.slow]


@pytest.fixture
async def server() -> AsyncIterator[CountingServer]:
    async with CountingServer() as running_server:
        yield running_server


@pytest.mark.parametrize("how", ["SIGTERM", "replace", "kill -9"])
async def test_everybody_counts_on(
    server: CountingServer, tmp_path: Path, how: str, record_property: Note
) -> None:
    """No count begins anew, no call is executed twice, no connection is refused; only of what was in flight
    when the process was killed is it not known whether it was executed.
    """
    real = [CountingProgram(kind, tmp_path, REAL_SECONDS) for kind in REAL]
    crowd = Crowd(OF_EACH_KIND, programs=real)
    clients = crowd.everybody
    async with contextlib.AsyncExitStack() as stack:
        succession = Succession(tmp_path, server.url, how, stack, *OPTIONS)
        async with crowd.counting(await succession.start()):
            await crowd.until_all_count_on(2, START_SECONDS)
            # A session at the server for each, and the ids that some of the kinds hold.
            await until(lambda: rows(succession.state, "records") >= len(clients) + WITH_IDS * OF_EACH_KIND)
            for _ in range(RESTARTS):
                await succession.succeed()
                await crowd.until_all_count_on(2)
    text = f"{RESTARTS} x {how}, {len(clients)} clients: {crowd.answered} answered, {len(crowd.unknown)} not"
    note(record_property, text, crowd, server, count=RESTARTS)
    assert crowd.trouble == []
    assert server.twice == {}
    assert server.mixed == {}
    assert crowd.refused == Counter()
    # One that was sent in the very moment in which its connection was closed for its silence has not begun.
    assert how == "kill -9" or [tag for tag in crowd.unknown if server.executed[tag]] == []
    assert server.opened == {f"Bearer {client.name}": 1 for client in clients}
    for client in real:
        said = Counter(line.partition(": ")[2] for line in client.said)
        print(f"{client.name}: {client.answered} answered, {len(client.unknown)} not: {dict(said)}")
