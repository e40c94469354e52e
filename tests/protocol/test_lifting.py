"""What a legacy server answers and says, as a modern client gets it."""

import json
from typing import Any

import pytest
from fuzz.properties import read_tools
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcp_types import jsonrpc as rpc
from mcp_types import methods
from wire_types import (
    LEGACY,
    MODERN,
    assert_notification,
    assert_result,
    integers,
    json_objects,
    json_values,
    judge,
    notifications_of,
    questions_of,
    results_of,
)

from mcp_session_proxy.protocol import jsonrpc, lifting, revisions, tool_lists
from mcp_session_proxy.protocol.jsonrpc import Response
from mcp_session_proxy.protocol.lifting import CacheHint, ServerFacts

INFO_KEY = "io.modelcontextprotocol/serverInfo"
SUBSCRIPTION_KEY = "io.modelcontextprotocol/subscriptionId"
INFO = {"name": "old", "version": "1"}
FACTS = ServerFacts(raw := json.dumps(INFO).encode(), {}, None)
# The methods that both eras have; `server/discover` and `subscriptions/listen` have no legacy result.
SHARED = sorted(
    method
    for method, version in methods.SERVER_RESULTS
    if version == MODERN and (method, LEGACY) in methods.SERVER_RESULTS
)
QUESTIONS = (revisions.ELICIT, revisions.SAMPLE, revisions.LIST_ROOTS)
few = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def write(value: object) -> bytes:
    return json.dumps(value).encode()


def lift_error(error: dict[str, Any], **params: object) -> tuple[dict[str, Any], int]:
    lifted = lifting.lift_error(write(error), {name: write(value) for name, value in params.items()})
    return json.loads(lifted.raw), lifted.status


def hint_of(method: str) -> CacheHint | None:
    return CacheHint(5, "public") if method in revisions.CACHEABLE_METHODS else None


# -- results ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", SHARED)
@few
@given(data=st.data())
def test_any_legacy_result_becomes_a_modern_one(method: str, data: st.DataObject) -> None:
    """Whatever the old schema allows becomes what the new one allows, and nothing of it is lost."""
    result = data.draw(results_of(method))
    lifted = assert_result(method, lifting.lift_result(write(result), FACTS, hint_of(method)))
    assert lifted["resultType"] == "complete"
    meta = lifted.pop("_meta")
    own_meta = result.pop("_meta", {})
    assert meta == {INFO_KEY: INFO, **own_meta}
    assert {**lifted, **result} == lifted  # `resultType` and the hints are all that was added


@pytest.mark.parametrize(
    "text", [b"{}", b" { } ", b'{"a":1}', b'{ "a" : {"_meta":1}, "b":[{}]}', b'{"\\u005fmeta":{"x":1}}']
)
def test_members_are_added_to_what_was_there(text: bytes) -> None:
    """However a result is written, what it holds stays as it is."""
    lifted = json.loads(lifting.lift_result(text, FACTS, CacheHint()))
    expected = json.loads(text)
    meta = {INFO_KEY: INFO, **expected.pop("_meta", {})}
    assert lifted == {
        "resultType": "complete",
        "ttlMs": 0,
        "cacheScope": "private",
        "_meta": meta,
        **expected,
    }


def test_payloads_are_not_rewritten() -> None:
    """The bytes of a payload reach the client as the server wrote them."""
    payload = b'"content":[{"type":"text","text":"\\u00fc 1.50"}],"n":1.50e0}'
    assert lifting.lift_result(b"{" + payload, FACTS, None).endswith(payload)


@pytest.mark.parametrize("text", [b"null", b"3", b'"x"', b"[]", b"[" * 5000])
def test_a_result_that_is_no_object(text: bytes) -> None:
    """A server that answers nonsense gets its client an empty result rather than a broken one."""
    lifted = json.loads(lifting.lift_result(text, FACTS, None))
    assert lifted == {"resultType": "complete", "_meta": {INFO_KEY: INFO}}


def test_hints_of_the_server_win_but_not_its_type() -> None:
    """A server that gives cache hints knows better; the type of the result is ours to say."""
    own = {"resultType": "input_required", "ttlMs": 9, "cacheScope": "public"}
    lifted = json.loads(lifting.lift_result(write(own), FACTS, CacheHint(1, "private")))
    assert (lifted["resultType"], lifted["ttlMs"], lifted["cacheScope"]) == ("complete", 9, "public")


@pytest.mark.parametrize(
    ("ttl", "told"),
    [
        *((b"%d" % n, n) for n in (0, 1, 10**15 - 1)),
        *(
            (text, 5)
            for text in (
                b"-1",
                b"-0",
                b"1.0",
                b"1e3",
                b'"60000"',
                b"null",
                b"true",
                b"[]",
                b"1" * 16,
                b"1e999",
            )
        ),
    ],
)
def test_how_long_a_server_may_say(ttl: bytes, told: int) -> None:
    """A whole number of milliseconds that any client can hold; for anything else, ours counts."""
    lifted = json.loads(lifting.lift_result(b'{"ttlMs":' + ttl + b"}", FACTS, CacheHint(5)))
    assert (lifted["ttlMs"], lifted["cacheScope"]) == (told, "private")


@pytest.mark.parametrize("scope", [b'"shared"', b'"PUBLIC"', b'""', b"null", b"1", b'["public"]', b'{"a":1}'])
def test_whom_a_server_may_let_keep_it(scope: bytes) -> None:
    """One of two words, or ours counts."""
    lifted = json.loads(lifting.lift_result(b'{"cacheScope":' + scope + b"}", FACTS, CacheHint()))
    assert (lifted["ttlMs"], lifted["cacheScope"]) == (0, "private")


@pytest.mark.parametrize("ours", ["private", "public"])
def test_one_scope_for_all_pages(ours: str) -> None:
    """Pages are lifted each for itself, so whatever the server says of one, all have the operator's scope."""
    pages = [
        (b'{"cacheScope":"public","nextCursor":"2","ttlMs":1}', {}),
        (b'{"nextCursor":"3","ttlMs":2}', {"cursor": b'"2"'}),
        (b'{"cacheScope":"private","ttlMs":3}', {"cursor": b'"3"'}),
    ]
    for number, (page, params) in enumerate(pages, start=1):
        heeded = lifting.heeded_hints(params)
        lifted = json.loads(lifting.lift_result(page, FACTS, CacheHint(0, ours), heeded))
        assert (lifted["cacheScope"], lifted["ttlMs"]) == (ours, number)


def test_a_whole_list_has_the_servers_scope() -> None:
    """A list of one page is as public as the server says."""
    page = b'{"cacheScope":"public","nextCursor":null}'
    lifted = json.loads(lifting.lift_result(page, FACTS, CacheHint(), lifting.heeded_hints({})))
    assert lifted["cacheScope"] == "public"


@pytest.mark.parametrize("name", ["inputResponses", "requestState"])
def test_results_of_retries_are_not_kept(name: str) -> None:
    """They depend on more than the cache key, whatever the server says."""
    own = b'{"ttlMs":9,"cacheScope":"public"}'
    lifted = json.loads(lifting.lift_result(own, FACTS, CacheHint(), lifting.heeded_hints({name: b"{}"})))
    assert (lifted["ttlMs"], lifted["cacheScope"]) == (0, "private")


def test_results_are_no_listeners_notifications() -> None:
    """The key that names a listener means nothing in a result, and would mislead; others are the server's."""
    own = {"_meta": {"io.modelcontextprotocol/subscriptionId": 1, "io.modelcontextprotocol/related-task": 2}}
    lifted = json.loads(lifting.lift_result(write(own), FACTS, None))
    assert lifted["_meta"] == {INFO_KEY: INFO, "io.modelcontextprotocol/related-task": 2}


def test_discovery_does_not_offer_tasks() -> None:
    """Neither those of the earlier revision nor the extension of that name; other extensions stay."""
    extensions = {"io.modelcontextprotocol/tasks": {}, "io.modelcontextprotocol/ui": {"a": 1}}
    said = write({"capabilities": {"tasks": {}, "tools": {}, "extensions": extensions}})
    found = lifting.lift_discovery(lifting.read_server_facts(said), CacheHint(), revisions.MODERN_VERSIONS)
    assert json.loads(found)["capabilities"] == {
        "tools": {},
        "extensions": {"io.modelcontextprotocol/ui": {"a": 1}},
    }


def test_a_server_without_a_name() -> None:
    """A server that never said who it is is not given a name."""
    assert json.loads(lifting.lift_result(b"{}", ServerFacts(None, {}, None), None)) == {
        "resultType": "complete"
    }


@few
@given(
    result=results_of("initialize"), ttl=st.integers(0, 10**9), scope=st.sampled_from(["public", "private"])
)
def test_any_handshake_becomes_a_discovery(result: dict[str, Any], ttl: int, scope: str) -> None:
    """What the server said in its handshake is what discovery tells, with the versions served here."""
    facts = lifting.read_server_facts(write(result))
    found = assert_result(
        revisions.DISCOVER, lifting.lift_discovery(facts, CacheHint(ttl, scope), revisions.SERVED_VERSIONS)
    )
    assert found["supportedVersions"][0] == MODERN
    assert LEGACY in found["supportedVersions"]
    assert found["_meta"][INFO_KEY] == result["serverInfo"]
    assert found.get("instructions") == result.get("instructions")
    assert (found["ttlMs"], found["cacheScope"]) == (ttl, scope)
    assert "tasks" not in found["capabilities"]  # another protocol by now


def test_offers() -> None:
    """A detail of a capability is offered when it is there and true."""
    capabilities = {
        "tools": {"listChanged": True},
        "resources": {"subscribe": False},
        "prompts": {},
        "logging": 1,
    }
    facts = lifting.read_server_facts(write({"capabilities": capabilities}))
    assert facts.offers("tools", "listChanged")
    assert not facts.offers("resources", "subscribe")
    assert not facts.offers("prompts", "listChanged")
    assert not facts.offers("logging", "any")
    assert not facts.offers("nothing", "listChanged")


# -- tools -----------------------------------------------------------------------------------------


def lift_tools(result: bytes) -> bytes:
    """A list as modern clients get it."""
    if not tool_lists.may_be_marked(result):
        return result
    lifted = read_tools(result).lifted
    return result if lifted is None else lifted


def tool(name: str, header: object) -> dict[str, Any]:
    return {
        "name": name,
        "inputSchema": {"type": "object", "properties": {"p": {"type": "string", "x-mcp-header": header}}},
    }


def test_badly_marked_tools_are_left_out() -> None:
    """A tool whose header annotations are invalid is not listed; the others stay, in their order."""
    plain = {"name": "plain", "inputSchema": {"type": "object"}}
    tools = [tool("good", "Region"), tool("bad", "not a token"), plain, tool("odd", 3)]
    lifted = json.loads(lift_tools(write({"tools": tools, "nextCursor": "c"})))
    assert lifted == {"tools": [tools[0], plain], "nextCursor": "c"}


@few
@given(result=results_of("tools/list"))
@pytest.mark.slow
def test_any_list_of_tools(result: dict[str, Any]) -> None:
    """How tools may run as tasks is left out, and all else stays."""
    lifted = json.loads(lift_tools(write(result)))
    plain = [{key: value for key, value in tool.items() if key != "execution"} for tool in result["tools"]]
    assert lifted == {**result, "tools": plain}


def test_lists_without_marks_stay_as_they_are() -> None:
    """Lists in which there is nothing to do are not touched."""
    data = write({"tools": [{"name": "a", "inputSchema": {"type": "object"}}], "nextCursor": "c"})
    assert lift_tools(data) is data


@pytest.mark.parametrize(
    "execution",
    [
        '{"taskSupport":"required"}',
        '{"t\\u0061skSupport":"required"}',
        '{"taskSupport":"optional"}',
        '{"taskSupport":"forbidden"}',
        '{"taskSupport":3}',
        '"required"',
        "null",
    ],
)
@pytest.mark.parametrize("key", ["execution", "\\u0065xecution"])
def test_no_mention_of_tasks(key: str, execution: str) -> None:
    """However it is written, a modern client gets every tool, and no mention of earlier tasks."""
    data = f'{{"tools":[{{"name":"a","{key}":{execution}}}]}}'.encode()
    assert json.loads(lift_tools(data)) == {"tools": [{"name": "a"}]}


@few
@given(schemas=st.lists(json_objects, max_size=3))
def test_any_schema_can_be_judged(schemas: list[Any]) -> None:
    """Whatever a server calls a schema, its list gets through."""
    marked = [{"x-mcp-header": "A", **schema} for schema in schemas]
    tools = [{"name": str(n), "inputSchema": schema} for n, schema in enumerate(marked)]
    assert json.loads(lift_tools(write({"tools": tools}))) == {"tools": []}


def test_a_tool_that_is_too_large() -> None:
    """Nobody looks for marks in a megabyte: a modern client does not hear of it, but of all else."""
    large = {**tool("large", "A"), "description": "x" * 1024 * 1024}
    plain = {"name": "plain", "description": "y" * 1024 * 1024}
    read = read_tools(write({"tools": [large, plain, tool("small", "B")]}))
    assert read.lifted is not None
    assert json.loads(read.lifted) == {"tools": [plain, tool("small", "B")]}
    assert set(read.marks) == {"small"}


# -- errors ----------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(
    code=st.sampled_from(
        [0, 1, -1, -32000, -32002, -32019, -32020, -32042, -32099, -32100, -32601, -32602, -32768]
    )
    | integers,
    message=st.text(max_size=20),
    data=st.none() | json_values,
    params=st.fixed_dictionaries({}, optional={"uri": st.text(max_size=10)}),
)
@pytest.mark.slow
def test_any_error_becomes_a_modern_one(code: int, message: str, data: Any, params: dict[str, Any]) -> None:
    """Any error of a legacy server becomes one with a code that means the same to a modern client."""
    error = {"code": code, "message": message} | ({} if data is None else {"data": data})
    lifted, status = lift_error(error, **params)
    judge(rpc.ErrorData).validate_python(lifted)
    reserved = range(-32099, -32019)
    assert lifted["code"] not in reserved
    assert lifted["code"] != 0
    assert lifted["code"] != -32002
    assert status == (404 if lifted["code"] == -32601 else 200)
    if lifted["code"] == code:
        assert lifted["message"] == (message or lifted["message"])
        assert lifted.get("data") == data
    elif lifted["code"] == -32603:
        assert lifted["data"]["original"] == error


@pytest.mark.parametrize(
    ("code", "message"),
    [(-32002, "Resource not found"), (0, "Unknown resource: test://x")],
    ids=["2025-11-25", "FastMCP"],
)
def test_resource_not_found(code: int, message: str) -> None:
    """A resource that is not there is an invalid parameter, and the error names it."""
    lifted, status = lift_error({"code": code, "message": message}, uri="test://x")
    assert (lifted["code"], lifted["data"], status) == (-32602, {"uri": "test://x"}, 200)
    assert lifted["message"] == message


def test_the_servers_own_uri_stays() -> None:
    """What a server says about the missing resource is kept."""
    error = {"code": -32002, "message": "gone", "data": {"uri": "a", "more": 1}}
    assert lift_error(error, uri="b")[0]["data"] == {"uri": "a", "more": 1}


@pytest.mark.parametrize(
    "code", [-32000, -32001, -32019, -32700, -32600, -32602, -32603, 1, 42, -31999, -40000]
)
def test_codes_that_stay(code: int) -> None:
    """Standard codes, the servers' own range and anything outside JSON-RPC's mean what they meant."""
    error = {"code": code, "message": "m", "data": [1]}
    assert lift_error(error) == (error, 200)


@pytest.mark.parametrize("code", [0, -32020, -32021, -32022, -32042, -32099, -32100, -32500, -32768])
def test_codes_that_mean_something_else_now(code: int) -> None:
    """Codes that this revision reserves become an internal error, with the original in its data."""
    error = {"code": code, "message": "m"}
    assert lift_error(error) == ({"code": -32603, "message": "m", "data": {"original": error}}, 200)


def test_unknown_method() -> None:
    """A method that the server does not know is a 404."""
    error = {"code": -32601, "message": "Method not found"}
    assert lift_error(error) == (error, 404)


@pytest.mark.parametrize(
    "raw", [b"null", b"{}", b'"x"', b'{"code":"1","message":3}', b"[]", b'{"code":1.5,"message":"m"}']
)
def test_errors_that_are_none(raw: bytes) -> None:
    """Whatever a server sends for an error, the client gets one."""
    lifted = lifting.lift_error(raw, {})
    judge(rpc.ErrorData).validate_python(json.loads(lifted.raw))


def test_required_urls() -> None:
    """The error that demands visits is recognised, and only that one."""
    asked = [{"mode": "url", "url": "https://a", "message": "m", "elicitationId": "1"}]
    error = {"code": -32042, "message": "visit", "data": {"elicitations": asked}}
    (found,) = lifting.required_urls(Response(b"1", error=write(error)))
    assert json.loads(found) == asked[0]
    assert lifting.required_urls(Response(b"1", error=write(error | {"code": -32041}))) == []
    assert lifting.required_urls(Response(b"1", error=write({"code": -32042, "message": "m"}))) == []
    assert lifting.required_urls(Response(b"1", result=b"{}")) == []


# -- questions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", QUESTIONS)
@pytest.mark.parametrize("asking", ["tools/call", "prompts/get", "resources/read"])
@few
@given(data=st.data())
@pytest.mark.slow
def test_any_question_can_be_put_into_a_result(method: str, asking: str, data: st.DataObject) -> None:
    """Whatever a legacy server may ask is allowed in a result that requires input, with all that matters."""
    question = data.draw(questions_of(method))
    params = question.get("params")
    lifted = lifting.lift_question(method, None if params is None else write(params))
    state = data.draw(st.text(max_size=10))
    result = assert_result(asking, lifting.lift_input_required({"it": lifted}, state, FACTS))
    assert result["resultType"] == "input_required"
    assert result["requestState"] == state
    assert result["_meta"] == {INFO_KEY: INFO}
    asked = result["inputRequests"]["it"]
    assert asked["method"] == method
    kept = {
        name: value
        for name, value in (params or {}).items()
        if name not in ("_meta", "task", "elicitationId")
    }
    got = dict(asked.get("params", {}))
    got.pop("_meta", None)
    assert got == kept
    assert "task" not in asked.get("params", {})


def test_what_belongs_to_the_old_revision_is_dropped() -> None:
    """Tasks, elicitation ids and progress tokens are not for a modern client; other metadata is."""
    params = {
        "mode": "url",
        "url": "u",
        "message": "m",
        "elicitationId": "1",
        "task": {},
        "_meta": {"progressToken": 1, "x": 2},
    }
    lifted = json.loads(lifting.lift_question(revisions.ELICIT, write(params)))
    assert lifted["params"] == {"mode": "url", "url": "u", "message": "m", "_meta": {"x": 2}}


# -- notifications ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [
        revisions.LOG_MESSAGE,
        revisions.PROGRESS,
        revisions.RESOURCE_UPDATED,
        revisions.TOOLS_CHANGED,
        revisions.PROMPTS_CHANGED,
        revisions.RESOURCES_CHANGED,
    ],
)
@few
@given(data=st.data(), identifier=st.integers(0, 2**31) | st.text(max_size=8))
@pytest.mark.slow
def test_any_notification_can_be_tagged(method: str, data: st.DataObject, identifier: int | str) -> None:
    """A notification of a legacy server is one that a listener may get, under the listener's own id."""
    note = data.draw(notifications_of(method))
    params = note.get("params")
    tagged = json.loads(lifting.tag(None if params is None else write(params), write(identifier)))
    assert_notification({"method": method, "params": tagged})
    assert tagged["_meta"][SUBSCRIPTION_KEY] == identifier
    own = dict(params or {})
    meta = own.pop("_meta", {})
    assert {**tagged["_meta"], **meta, SUBSCRIPTION_KEY: identifier} == tagged["_meta"]
    tagged.pop("_meta")
    assert tagged == own


def test_cache_hints() -> None:
    """A hint is written as the revision names its members."""
    assert jsonrpc.write_object(CacheHint(7, "public").members()) == b'{"ttlMs":7,"cacheScope":"public"}'
