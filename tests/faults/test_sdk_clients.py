"""Real clients, each in its own environment, before a server whose answers break."""

import json
from pathlib import Path

import pytest
from e2e.launch import Fleet, python
from e2e.run import Run

from .catalogue import CASES, GONE, RESULT, SERVERS_OWN
from .conftest import rig_at
from .fault_proxy import Fault, Request

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

# A few of the many dialects in which a session is gone: what follows is the same for all of them.
_SOME = ("gone 404 python 1.26", "gone 400 TypeScript", "gone 401 rmcp", "gone 200 in the wild: 200 SSE")
HEALED = [case for case in CASES.values() if case.outcomes == {RESULT}]
HEALED += [case for case in GONE.values() if case.name.startswith(_SOME)]
TOLD = [case for case in CASES.values() if not case.outcomes & {RESULT, SERVERS_OWN}]


@pytest.mark.share(2)
@pytest.mark.parametrize("client", ["mcp-1.30", "mcp-2-auto", "langchain", "sdk-ts-1"])
async def test_faults_that_a_client_never_sees(client: str, fleet: Fleet, tmp_path: Path) -> None:
    """One fault after the other that the proxy makes good: a real client sees nothing of them."""
    with rig_at(fleet) as rig:
        left = {f"sdk-{number}": case.fault for number, case in enumerate(HEALED)}
        keys = list(left)
        rig.faults.plan = lambda request: left.pop(request.key, None) if request.key else None
        calls = [("execute", {"key": key}) for key in keys]
        (seen,) = await Run(tmp_path).client(client, rig.proxy.url, "sdk", calls)
        assert seen["answers"] == ["1"] * len(keys)
        executions = rig.stats()["executions"]
        assert [executions.get(key) for key in keys] == [1] * len(keys)
        assert not left


@pytest.mark.share(2)
@pytest.mark.parametrize("environment", ["mcp-1.30", "mcp-2"])
async def test_faults_that_a_client_is_told_of(environment: str, fleet: Fleet, tmp_path: Path) -> None:
    """One fault after the other that nobody can make good: the SDK raises each time, and never hangs."""
    script = str(Path(__file__).parent / "sdk_client.py")
    with rig_at(fleet, "--request-timeout", "2s") as rig:
        cases = {f"told-{number}": case for number, case in enumerate(TOLD)}

        def plan(request: Request) -> Fault | None:
            return cases[request.key].fault if request.key in cases else None

        rig.faults.plan = plan
        printed = await Run(tmp_path).output([python(environment), script, rig.proxy.url, "sdk", *cases])
        told = json.loads(printed.strip().splitlines()[-1])
        executions = rig.stats()["executions"]
    assert {cases[key].name: what for key, what in told.items() if what in ("result", "hung")} == {}
    assert {case.name for key, case in cases.items() if executions.get(key, 0) not in case.executed} == set()
