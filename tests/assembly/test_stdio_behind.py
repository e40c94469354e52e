"""The whole proxy before a command that speaks over its standard input and output."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator

import pytest
from http_server import HttpServer
from messages import call
from proxy_bench import until
from stdio_bench import TOY, StdioBench, is_there

pytestmark = pytest.mark.slow


@pytest.fixture
async def bench() -> AsyncIterator[StdioBench]:
    """To be started by the test."""
    async with HttpServer() as nobody, StdioBench(nobody) as bench:
        yield bench
    assert nobody.seen == []


async def test_nothing_is_started_before_somebody_calls(bench: StdioBench) -> None:
    """And then one child serves all requests of a caller, with what it knows."""
    await bench.start()
    assert bench.children == 0
    assert [await bench.read("count") for _ in range(3)] == [1, 2, 3]
    assert bench.children == 1


async def test_callers_have_children_of_their_own(bench: StdioBench) -> None:
    """Whoever calls by other credentials never meets another's state."""
    await bench.start()
    callers = [{"Authorization": f"Bearer {name}"} for name in ("ada", "bob", "ada")]
    assert [await bench.read("count", headers) for headers in callers] == [1, 1, 2]


async def test_a_callers_header_becomes_a_variable(bench: StdioBench) -> None:
    """Of that caller's own children, and of nobody else's; it counts as a credential by itself."""
    await bench.start(stdio_env_from_header=["X-Whatever=WHATEVER"])
    said = [await bench.read("environment", {"X-Whatever": name}) for name in ("one", "two")]
    assert [each["WHATEVER"] for each in said] == ["one", "two"]
    assert "WHATEVER" not in await bench.read("environment")


async def test_children_know_little_of_the_proxys_environment(
    bench: StdioBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They get what MCP's SDKs give, and what the operator names."""
    monkeypatch.setenv("PROXY_SECRET", "x")
    monkeypatch.setenv("PASSED_ON", "as it is, here")
    await bench.start(stdio_env=["PASSED_ON", "GIVEN=a,b=c"])
    said = await bench.read("environment")
    assert "PROXY_SECRET" not in said
    assert said["PATH"] == os.environ["PATH"]
    assert (said["PASSED_ON"], said["GIVEN"]) == ("as it is, here", "a,b=c")


@pytest.mark.parametrize("name", ["", "/{session}/work"])
async def test_a_private_directory(bench: StdioBench, tmp_path: object, name: str) -> None:
    """Each child has its own, which goes with it."""
    await bench.start(stdio_cwd=f"{tmp_path}/x{name or '-{session}'}", idle_timeout="10ms")
    where = [(await bench.read("where", {"X-User": user}))["cwd"] for user in "ab"]
    assert len(set(where)) == 2
    await bench.all_gone()
    await until(lambda: not any(map(os.path.exists, where)))


async def test_a_child_that_dies_while_nobody_looks(bench: StdioBench) -> None:
    """It is noticed at once, and the next call finds a new one."""
    await bench.start()
    pid = (await bench.read("where"))["pid"]
    os.kill(pid, signal.SIGKILL)
    await bench.all_gone()
    [ended] = bench.told("child.ended")
    assert (ended.pid, ended.how, ended.signal) == (pid, "exited", "SIGKILL")
    assert await bench.read("count") == 1


async def test_a_child_that_dies_over_a_call(bench: StdioBench) -> None:
    """The client is told that nobody knows what came of it; it is not made again, and the next one works."""
    await bench.start()
    assert await bench.read("count") == 1
    answer = await bench.use("die")
    assert answer.error == (1, -32603, "outcome-unknown")
    assert await bench.read("count") == 1
    assert len(bench.told("child.started")) == 2


async def test_half_an_answer(bench: StdioBench) -> None:
    """It is none: the child ended amid a line."""
    await bench.start()
    assert (await bench.use("half")).error == (1, -32603, "outcome-unknown")


@pytest.mark.parametrize(
    ("how", "padding"), [("it ends", 0), ("it ends", 300_000), ("its output ends", 0), ("others go on", 0)]
)
async def test_an_answer_whose_line_has_no_end(bench: StdioBench, how: str, padding: int) -> None:
    """It is whole all the same, and reaches its caller; the next call is another child's."""
    await bench.start()
    answer = await bench.use("unended", how=how, padding=padding)
    assert answer.json["result"]["content"][0]["text"].strip() == "the last"
    assert bench.told("child.noise") == []
    assert await bench.read("count") == 1


async def test_what_a_dead_child_was_told(bench: StdioBench) -> None:
    """A call that waits for another one's end is answered by the next child, if nothing of it was written."""
    await bench.start()
    session = await bench.initialize()
    pid = (await bench.read("where"))["pid"]
    os.kill(pid, signal.SIGKILL)
    answer = await bench.post(call(1, name="count"), session=session)
    assert answer.json["result"]["content"][0]["text"] == "1"


@pytest.mark.parametrize("step", ["start", "initialize"])
async def test_a_child_that_dies_at_its_start(bench: StdioBench, step: str) -> None:
    """The caller hears with which status, at once; the log has its last words; nothing is left."""
    await bench.start("--at", step, "die")
    answer = await bench.use("count")
    assert answer.error == (1, -32603, "server-not-started")
    assert "ended with exit status 3" in answer.json["error"]["message"]
    await bench.all_gone()
    [ended] = bench.told("child.ended")
    assert (ended.status, ended.last_words) == (3, f"dying at {step}")
    assert [event.text for event in bench.told("server.said")] == [f"dying at {step}"]


@pytest.mark.parametrize("step", ["start", "initialize"])
async def test_a_child_that_says_nothing_at_its_start(bench: StdioBench, step: str) -> None:
    """It is given up, and ended."""
    await bench.start("--at", step, "hang", stdio_start_timeout="300ms")
    answer = await bench.use("count")
    assert answer.error == (1, -32603, "upstream-timeout")
    assert "--stdio-start-timeout" in answer.json["error"]["message"]
    await bench.all_gone()


async def test_a_command_that_says_something_else(bench: StdioBench) -> None:
    """It ends without having answered: the caller hears so."""
    await bench.start(command=["sh", "-c", "echo hello; echo there >&2; exit 0"])
    answer = await bench.use("count")
    assert answer.error == (1, -32603, "server-not-started")
    assert [event.text for event in bench.told("child.noise")] == ["hello"]


@pytest.mark.parametrize(
    "banner", [r"Welcome!\n\n", r"\xef\xbb\xbf", r"\r\n \r\n", r"\xff\xc3\n", r"[INFO] up\n"]
)
async def test_what_is_no_message(bench: StdioBench, banner: str) -> None:
    """Banners, blanks, marks and half characters on standard output are skipped."""
    await bench.start("--banner", banner)
    assert await bench.read("count") == 1


@pytest.mark.parametrize(
    "options", [[], ["--helper"], ["--double"], ["--stubborn"], ["--stubborn", "--helper"]]
)
async def test_nothing_is_left_of_a_child(bench: StdioBench, options: list[str]) -> None:
    """Neither of what it has started, nor if it ignores the end of its input and SIGTERM."""
    await bench.start(*options, idle_timeout="10ms")
    group = (await bench.read("where"))["group"]
    assert is_there(group)
    await bench.all_gone()
    assert not is_there(group)


async def test_a_child_within_a_shell(bench: StdioBench) -> None:
    """Shells pass no signals on: the group gets them."""
    await bench.start(command=["sh", "-c", f"{' '.join(TOY)} --stubborn; true"], idle_timeout="10ms")
    group = (await bench.read("where"))["group"]
    await bench.all_gone()
    assert not is_there(group)
    assert [event.how for event in bench.told("child.ended")] == ["killed"]


async def test_a_child_that_leaves(bench: StdioBench) -> None:
    """It is told as such: nothing more than the end of its input was needed."""
    await bench.start(idle_timeout="10ms")
    await bench.read("count")
    await bench.all_gone()
    [ended] = bench.told("child.ended")
    assert (ended.how, ended.status, ended.signal, ended.last_words) == ("left", 0, None, None)


async def test_every_child_ends_with_the_proxy(bench: StdioBench) -> None:
    """One by one, with a goodbye."""
    await bench.start()
    groups = [(await bench.read("where", {"Authorization": name}))["group"] for name in ("ada", "bob")]
    await bench.stop()
    assert not any(map(is_there, groups))


async def test_a_flood_of_stderr(bench: StdioBench) -> None:
    """It never stops the child, and the log gets only so much of it."""
    await bench.start()
    assert await bench.read("say", lines=20_000) == "done"
    assert len(bench.told("server.said")) < 1000


async def test_a_secret_on_stderr(bench: StdioBench) -> None:
    """The log does not have it."""
    await bench.start(stdio_env_from_header=["X-Token=TOKEN"])
    await bench.read("words", {"X-Token": "sesame-1234"}, text="the token is sesame-1234")
    await until(lambda: bench.told("server.said"))
    [said] = bench.told("server.said")
    assert said.text == "the token is ***"


async def test_a_child_that_reads_nothing(bench: StdioBench) -> None:
    """It holds up nobody but those who wait for it."""
    await bench.start()
    pid = (await bench.read("where", {"Authorization": "ada"}))["pid"]
    await bench.read("count", {"Authorization": "bob"})
    os.kill(pid, signal.SIGSTOP)
    async with bench.asking(call(1, name="count"), headers={"Authorization": "ada"}) as waiting:
        assert await bench.read("count", {"Authorization": "bob"}) == 2
        assert not waiting.done()
        os.kill(pid, signal.SIGCONT)
        assert (await waiting).json["result"]["content"][0]["text"] == "1"


async def test_a_large_answer(bench: StdioBench) -> None:
    """A line may be as long as an answer."""
    await bench.start()
    assert len(await bench.read("large", bytes=3_000_000)) == 3_000_000


async def test_an_answer_that_there_is_no_memory_for(bench: StdioBench) -> None:
    """It is given up, and its child with it; others go on."""
    await bench.start(memory_budget="8MiB")
    other = {"Authorization": "other"}
    assert await bench.read("count", other) == 1
    answer = await bench.use("large", bytes=8_000_000)
    assert answer.error == (1, -32603, "answer-over-budget")
    assert await bench.read("count", other) == 2
    assert await bench.read("count") == 1
    await until(lambda: bench.proxy.core.memory.answers.used_bytes == 0)


async def test_a_message_with_ends_of_lines(bench: StdioBench) -> None:
    """What a client writes in several lines is one line for the child."""
    await bench.start()
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{\n"name":\n"count"\r\n}\n}'
    assert (await bench.post(body)).json["result"]["content"][0]["text"] == "1"


async def test_many_callers_at_once(bench: StdioBench) -> None:
    """As many children as sessions, started a few at a time, and none that nobody knows of."""
    await bench.start(stdio_spawns=2, max_sessions=100)
    answers = await asyncio.gather(*(bench.read("count", {"Authorization": f"u{n}"}) for n in range(12)))
    assert answers == [1] * 12
    assert bench.children == len(bench.told("child.started")) == 12


async def test_no_other_paths_and_ready(bench: StdioBench) -> None:
    """There is nothing to pass through, and the endpoint is where it was said to be."""
    await bench.start(path="/elsewhere")
    assert bench.proxy.endpoint_url.endswith("/elsewhere")
    async with bench.http.get(bench.proxy.listen_url + "/mcp") as answer:
        assert answer.status == 404
    assert bench.proxy.snapshot.readiness().phase == "ready"
    await bench.read("count")
    [session] = bench.proxy.snapshot.upstream_sessions()
    assert session.server is not None
    assert session.server.startswith("stdio python")


MODERN_ONLY = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    data = {"supported": ["2026-07-28"], "requested": asked["params"].get("protocolVersion")}
    error = {"code": -32022, "message": "Unsupported protocol version", "data": data}
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "error": error}), flush=True)
"""


async def test_a_server_that_speaks_modern_only(bench: StdioBench) -> None:
    """It says so to whoever calls, and is started once for that: no other version would help."""
    await bench.start(command=[sys.executable, "-I", "-S", "-c", MODERN_ONLY])
    error = (await bench.use("count")).json["error"]
    assert (error["code"], error["data"]["supported"]) == (-32022, ["2026-07-28"])
    assert len(bench.told("child.started")) == 1
    await bench.all_gone()


async def test_operators_see_each_child(bench: StdioBench) -> None:
    """Whose it is, how old, what it said last, without secrets and shortened, and what nobody heard."""
    await bench.start(
        stdio_env_from_header=["X-Token=TOKEN"], request_timeout="0.3s", admin_listen="127.0.0.1:0"
    )
    me = {"X-Token": "sesame-1234"}
    await bench.read("words", me, text="\n".join([*"abc", "the token is sesame-1234", "x" * 900]))
    pid = (await bench.read("where", me))["pid"]
    # Its answer comes when nobody waits for it any more.
    assert (await bench.use("sleep", me, seconds=1)).error[2] == "upstream-timeout"
    await bench.read("count", {})
    await until(lambda: bench.proxy.snapshot.children()[-1].strays)
    async with bench.http.get(f"{bench.proxy.admin_url}/api/v1/children") as response:
        shown = await response.json()
    other, mine = shown["children"]
    async with bench.http.get(f"{bench.proxy.admin_url}/sessions") as response:
        sessions = {each["session"]: each for each in (await response.json())["upstream_sessions"]}
    assert (mine["pid"], mine["state"], mine["strays"]) == (pid, "serving", 1)
    assert mine["said"] == ["c", "the token is ***", "x" * 200]
    assert mine["principal"] == sessions[mine["session"]]["principal"]
    assert mine["requests"] == sessions[mine["session"]]["requests"] == 3
    assert mine["age_seconds"] > other["age_seconds"] >= 0
    assert (other["said"], other["strays"], shown["total"]) == ([], 0, 2)
    async with bench.http.get(f"{bench.proxy.admin_url}/api/v1/children?limit=1") as response:
        assert [child["pid"] for child in (await response.json())["children"]] == [other["pid"]]
    os.kill(pid, signal.SIGKILL)
    await until(lambda: bench.children == 1)
    assert [child.pid for child in bench.proxy.snapshot.children()] == [other["pid"]]


async def test_operators_see_a_child_that_starts(bench: StdioBench) -> None:
    """It is there before it has answered, and so is what it says meanwhile."""
    await bench.start("--at", "initialize", "hang", "--slow", "0")
    async with bench.asking(call(1, name="count")) as waiting:
        await until(lambda: bench.proxy.snapshot.children())
        [child] = bench.proxy.snapshot.children()
        assert (child.state, child.requests, child.said) == ("starting", 0, [])
        waiting.cancel()
