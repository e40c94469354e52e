from dataclasses import replace

import pytest
from check_samples import (
    TOOLS,
    answered,
    called,
    deleted_then,
    discovered,
    hello,
    modern,
    noted,
    play,
    proxied,
    refused,
    stateful,
    stateless,
    with_plays,
)

from mcp_session_proxy.check.clients import (
    ClientVerdict,
    State,
    handshake_seconds,
    is_slow,
    judge_clients,
    shows_state,
    tool_complaint,
)
from mcp_session_proxy.check.observations import Client, Failure, Play, ServerAnswer, Step


def fates(seen):
    return {fate.client: fate for fate in judge_clients(seen)}


def verdicts(seen):
    return {client.name: fate.verdict.name for client, fate in fates(seen).items()}


def test_a_server_with_sessions():
    """Only the client that does everything right is as well off as it should be."""
    assert verdicts(stateful()) == {
        "KEEPS": "WORKS",
        "OPENAI": "FAILS",
        "PER_CALL": "NOT_TRIED",
        "LEAVES": "NOT_TRIED",
        "FORGETFUL": "FAILS",
        "STALE": "FAILS",
        "MODERN": "FAILS",
    }


def test_failures_are_told_in_the_servers_words():
    """The step that failed, its status, and what the server said."""
    assert fates(stateful())[Client.OPENAI].text == "tools/list after DELETE: 404 Session not found"


def test_a_server_without_sessions():
    """Only modern clients suffer."""
    assert verdicts(stateless()) == {
        "KEEPS": "WORKS",
        "OPENAI": "WORKS",
        "PER_CALL": "WORKS",
        "LEAVES": "WORKS",
        "FORGETFUL": "WORKS",
        "STALE": "WORKS",
        "MODERN": "FAILS",
    }


def test_a_modern_server_without_sessions():
    """Nobody suffers."""
    assert set(verdicts(modern(stateless())).values()) == {"WORKS"}


def test_behind_the_proxy():
    """Nobody suffers, and a session for every call is not held against it: it hands state over."""
    assert set(verdicts(proxied()).values()) == {"WORKS"}


@pytest.mark.parametrize("status", [400, 404, 500])
def test_a_refused_notification_ends_a_client(status):
    """Most clients give up when one is refused."""
    seen = with_plays(
        stateful(), keeps=(Play(steps=(Step(name="initialize", answer=hello()), noted(status))),)
    )
    assert fates(seen)[Client.KEEPS].verdict is ClientVerdict.FAILS


def test_a_version_that_nobody_knows_ends_a_client():
    """The server goes on in one of its own."""
    opened = answered({"protocolVersion": "2099-01-01", "capabilities": {}}, session_id="s")
    fate = fates(with_plays(stateful(), keeps=(play(TOOLS, opened=opened),)))[Client.KEEPS]
    assert fate.verdict is ClientVerdict.FAILS
    assert fate.text == "initialize: answered in version '2099-01-01', which no client knows"


def test_a_refused_delete_ends_nobody():
    """Clients do not look at its answer."""
    gone = deleted_then(TOOLS)
    steps = [replace(s, answer=ServerAnswer(status=405)) if s.name == "DELETE" else s for s in gone.steps]
    assert (
        fates(with_plays(stateful(), openai=(Play(steps=tuple(steps)),)))[Client.OPENAI].verdict
        is ClientVerdict.WORKS
    )


def test_an_error_with_status_200_is_a_failure():
    """Some servers refuse that way."""
    error = refused(200, 'method "tools/list" is invalid during session initialization', 0)
    fate = fates(with_plays(stateful(), forgetful=(play(error, name="tools/list without an id"),)))[
        Client.FORGETFUL
    ]
    assert fate.verdict is ClientVerdict.FAILS
    assert fate.text == (
        'tools/list without an id: 200, error 0: method "tools/list" is invalid during session initialization'
    )


def test_success_without_a_response_is_a_failure():
    """A stream that ends before it says anything leaves clients hanging."""
    empty = ServerAnswer(status=200, content_type="text/event-stream")
    fate = fates(with_plays(stateful(), keeps=(play(empty),)))[Client.KEEPS]
    assert fate.text == "tools/list: 200 without a response"


def test_silence_is_a_failure():
    """An answer that never came is told as such."""
    silent = ServerAnswer(failure=Failure.SILENT, explanation="no answer in 15 s")
    fate = fates(with_plays(stateful(), stale=(Play(steps=(Step(name="tools/list", answer=silent),)),)))[
        Client.STALE
    ]
    assert fate.text == "tools/list: no answer in 15 s"


def test_discovering_only_old_versions_does_not_help_modern_clients():
    """A server may know server/discover and not the revision."""
    found = discovered("2025-11-25", "2025-06-18")
    steps = (Step(name="server/discover", answer=found), Step(name="tools/list", answer=TOOLS))
    seen = with_plays(stateful(discover=found), modern=(Play(steps=steps),))
    fate = fates(seen)[Client.MODERN]
    assert fate.verdict is ClientVerdict.FAILS
    assert fate.text == "server/discover: only 2025-11-25, 2025-06-18"


class TestHandshakes:
    def slow(self, seen, seconds):
        plays = tuple(play(TOOLS, opened=hello(None, seconds=seconds)) for _ in range(3))
        return with_plays(seen, per_call=plays)

    def test_the_middle_one_counts(self):
        """One slow handshake among three says nothing."""
        plays = tuple(play(TOOLS, opened=hello(seconds=seconds)) for seconds in (0.01, 5.0, 0.02))
        assert handshake_seconds(with_plays(stateful(), per_call=plays)) == 0.02

    def test_a_slow_one_is_told(self):
        """A client that opens a session for every call waits each time."""
        seen = self.slow(stateless(), 1.03)
        fate = fates(seen)[Client.PER_CALL]
        assert is_slow(seen)
        assert fate.verdict is ClientVerdict.SLOW
        assert fate.text == "1030 ms before every call"

    def test_losing_state_is_worse(self):
        """Where both are so, the text has both; it has the time, too, where only that is known."""
        seen = self.slow(called(stateful(), {"keeps": (1, 2)}), 0.75)
        fate = fates(seen)[Client.PER_CALL]
        assert fate.verdict is ClientVerdict.LOSES_STATE
        assert fate.text.endswith("; in one session 1, 2; 750 ms before every call")
        untried = fates(self.slow(stateful(), 0.75))[Client.PER_CALL]
        assert untried.text == "not tried (use --call): 750 ms before every call"

    def test_a_long_way_is_not_a_slow_server(self):
        """Round trips to a distant server are not its fault."""
        seen = replace(self.slow(stateless(), 0.45), ping=answered(seconds=0.2))
        assert not is_slow(seen)

    def test_without_any_there_is_no_time(self):
        """A server that takes no handshake has none."""
        failed = Play(steps=(Step(name="initialize", answer=refused(400, "no", -32022)),))
        assert handshake_seconds(with_plays(stateful(), per_call=(failed,))) is None


class TestState:
    def test_is_shown_by_two_calls_in_one_session(self):
        """A tool that answers differently the second time remembers something."""
        assert shows_state(stateful()) is None
        assert shows_state(called(stateful(), {"keeps": (1, 2)})) is True
        assert shows_state(called(stateful(), {"keeps": ("x", "x")})) is False

    def test_is_not_judged_without_a_call(self):
        """That a new session has no old state is inferred; a server may keep it elsewhere, or have none."""
        seen = modern(stateful())
        for client in (Client.PER_CALL, Client.LEAVES):
            assert fates(seen)[client].verdict is ClientVerdict.NOT_TRIED
            assert fates(seen)[client].text.startswith("not tried (use --call)")
            assert fates(seen)[client].state is State.NOT_TRIED
            assert not fates(seen)[client].suffers
        assert fates(seen)[Client.MODERN].verdict is ClientVerdict.WORKS
        assert fates(seen)[Client.MODERN].text == "state: not tried (use --call)"

    def test_is_not_judged_through_the_proxy_either(self):
        """Those clients work, as far as it is known; the text says how far."""
        fate = fates(proxied())[Client.LEAVES]
        assert fate.verdict is ClientVerdict.WORKS
        assert fate.state is State.NOT_TRIED
        assert "state: not tried (use --call)" in fate.text

    def test_is_no_question_where_there_are_no_sessions(self):
        """Nothing could be lost."""
        assert {fate.state for fate in fates(stateless()).values()} == {None}

    def test_is_lost_to_modern_clients_of_a_server_of_both_eras(self):
        """Its modern side has no sessions."""
        seen = called(modern(stateful()), {"keeps": (1, 2), "per_call": (1, 1), "modern": (1, 1)})
        assert fates(seen)[Client.MODERN].verdict is ClientVerdict.LOSES_STATE

    def test_is_lost_where_every_call_gets_the_same_answer(self):
        """What counts in one session and not from one conversation to the next was lost in between."""
        seen = called(stateful(), {"keeps": (1, 2), "per_call": (1, 1)})
        fate = fates(seen)[Client.PER_CALL]
        assert fate.verdict is ClientVerdict.LOSES_STATE
        assert fate.text == "count: 1, 1; in one session 1, 2"

    def test_is_lost_though_something_was_found_at_first(self):
        """The first conversation may find what another client has left, and lose it all the same."""
        seen = called(proxied(), {"keeps": (1, 2), "leaves": (6, 1, 1)})
        assert fates(seen)[Client.LEAVES].verdict is ClientVerdict.LOSES_STATE
        assert fates(seen)[Client.LEAVES].text == "count: 1, 1; in one session 1, 2"

    def test_is_kept_by_a_switch(self):
        """Answers may come again, as long as they change from one call to the next."""
        seen = called(proxied(), {"keeps": ("on", "off"), "per_call": ("on", "off", "on")})
        assert fates(seen)[Client.PER_CALL].state is State.KEPT

    def test_is_kept_where_the_count_goes_on(self):
        """As behind the proxy."""
        seen = called(proxied(), {"keeps": (1, 2), "per_call": (3, 4), "modern": (5, 6)})
        assert fates(seen)[Client.PER_CALL].text == "count: 3, 4"
        assert fates(seen)[Client.MODERN].verdict is ClientVerdict.WORKS

    def test_a_proxy_that_gives_everybody_a_fresh_session_is_found_out(self):
        """Once a tool was called, nothing is taken on trust."""
        seen = called(proxied(), {"keeps": (1, 2), "forgetful": (1, 1)})
        assert fates(seen)[Client.FORGETFUL].verdict is ClientVerdict.LOSES_STATE

    def test_is_not_shown_by_a_tool_that_fails(self):
        """Two equal complaints say nothing."""
        failing = answered({"content": [{"type": "text", "text": "no such city"}], "isError": True})
        seen = replace(called(stateful(), {"keeps": (1, 2)}), in_session=(failing, failing))
        assert shows_state(seen) is None
        assert tool_complaint(seen) == "no such city"
        assert tool_complaint(replace(seen, in_session=(refused(400, "no", -32602),))) == "400 no"

    def test_a_tool_that_remembers_nothing_loses_nothing(self):
        """Whoever names a tool asks about that tool."""
        seen = called(stateful(), {"keeps": ("hi", "hi"), "per_call": ("hi", "hi")})
        assert fates(seen)[Client.PER_CALL].verdict is ClientVerdict.WORKS
