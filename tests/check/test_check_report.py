import json
from dataclasses import replace

import pytest
from check_samples import (
    TOOLS,
    URL,
    answered,
    called,
    hello,
    modern,
    noted,
    play,
    proxied,
    refused,
    stateful,
    stateless,
    text,
    with_plays,
)

from mcp_session_proxy.check.observations import Idle, Play
from mcp_session_proxy.check.problems import Diagnosis
from mcp_session_proxy.check.report import ExitStatus, judge_side, to_json, write_report

PROXY_URL = "http://127.0.0.1:8080/mcp"
DEAD = Diagnosis(key="unreachable", text="There is no connection.", hint="Is it running?")


def report(direct, through=None, **options):
    side = None if through is None else judge_side(through, PROXY_URL)
    return write_report(judge_side(direct, URL), side, has_credentials=False, **options)


def document(*sides, **options):
    return json.loads(to_json(report(*sides, **options)))


def advice(*sides, **options):
    return {piece.key: piece for piece in report(*sides, **options).advice}


class TestStatus:
    def test_somebody_suffers(self):
        """A server with sessions."""
        assert report(stateful()).status is ExitStatus.SUFFERS
        assert int(ExitStatus.SUFFERS) == 1

    def test_nobody_suffers(self):
        """A modern server without sessions."""
        assert report(modern(stateless())).status is ExitStatus.WORKS
        assert int(ExitStatus.WORKS) == 0

    def test_it_could_not_be_checked(self):
        """There was nothing to see."""
        assert report(DEAD).status is ExitStatus.UNCHECKED
        assert int(ExitStatus.UNCHECKED) == 3

    def test_the_proxied_side_decides(self):
        """With --through, whatever the server itself is like."""
        assert report(stateful(), proxied()).status == ExitStatus.WORKS
        assert report(DEAD, proxied()).status == ExitStatus.WORKS
        assert report(modern(stateless()), DEAD).status == ExitStatus.UNCHECKED


class TestAdvice:
    def test_a_server_that_needs_no_proxy(self):
        """No command is suggested."""
        found = report(modern(stateless()))
        assert [piece.key for piece in found.advice] == ["no-proxy"]
        assert found.command is None

    def test_a_server_with_sessions(self):
        """The command is there to be copied, with the flags of TLS that were needed for the check."""
        found = report(stateful(), upstream_flags=("--upstream-ca", "ca.pem"))
        assert found.command == f"mcp-session-proxy serve {URL} --upstream-ca ca.pem"
        assert found.advice[0].key == "proxy"
        assert "use a session they have deleted" in found.advice[0].text

    def test_a_proxy_that_is_there_already(self):
        """Is not to be started again; the flags are still worth a thought."""
        found = report(stateful(), proxied())
        assert found.command is None
        assert "proxy" not in advice(stateful(), proxied())
        assert "second-stream" in advice(stateful(), proxied())

    def test_only_those_who_suffer_are_helped(self):
        """A server of both eras answers modern clients; where they lose state, that is another matter."""
        assert "are modern" in advice(stateful())["proxy"].text
        assert "are modern" not in advice(modern(stateful()))["proxy"].text
        losing = called(modern(stateful()), {"keeps": (1, 2), "modern": (1, 1)})
        assert "are modern" in advice(losing)["proxy"].text

    def test_a_server_without_sessions(self):
        """Only modern clients need help."""
        assert "modern-clients" in advice(stateless())

    def test_a_server_that_nobody_can_use(self):
        """The proxy is not sold as the cure for everything."""
        broken = with_plays(stateful(), keeps=(play(refused(500, "boom", -32603)),))
        found = report(broken)
        assert [piece.key for piece in found.advice] == ["server-fails"]
        assert found.command is None

    def test_a_server_that_refuses_notifications_and_nothing_else(self):
        """The proxy does not mind, and takes them from its clients."""
        first = play(TOOLS).steps
        deaf = (Play(steps=(first[0], noted(400), *first[2:])),)
        found = report(with_plays(stateful(), keeps=deaf, per_call=deaf, leaves=deaf))
        assert found.advice[0].key == "proxy"
        assert "do not expect their notifications to be refused" in found.advice[0].text
        assert found.command is not None

    def test_a_slow_handshake(self):
        """Fresh sessions are kept ready, if fresh ones are wanted."""
        slow = tuple(play(TOOLS, opened=hello(seconds=1.0)) for _ in range(3))
        assert advice(with_plays(stateful(), per_call=slow))["slow-handshake"].flags == (
            "--sharing fresh",
            "--min-idle 3",
        )
        assert "slow-handshake" not in advice(stateful())

    def test_a_server_that_had_to_start(self):
        """A slow first session is told from sessions that are slow each time."""
        started = stateful(hello=hello(seconds=13.0))
        assert advice(started)["slow-start"].flags == ()
        assert "The first session took 13.0 s" in advice(started)["slow-start"].text
        slow = tuple(play(TOOLS, opened=hello(seconds=13.0)) for _ in range(3))
        assert "slow-start" not in advice(with_plays(started, per_call=slow))
        behaviour = document(started)["direct"]["behaviour"]
        assert behaviour["start"]["text"] == "13.0 s; later ones 2 ms"

    def test_a_handshake_that_takes_nearly_too_long(self):
        """Whether the first or each: the proxy has a limit, which can be raised."""
        assert "handshake-timeout" not in advice(stateful(hello=hello(seconds=13.0)))
        once = stateful(hello=hello(seconds=40.0))
        assert advice(once)["handshake-timeout"].flags == ("--handshake-timeout 2m",)
        always = with_plays(stateful(), per_call=(play(TOOLS, opened=hello(seconds=50.0)),))
        assert advice(always)["handshake-timeout"].flags == ("--handshake-timeout 150s",)

    def test_a_server_that_can_have_one_session(self):
        """It is shared, the command says so, and nothing is advised that takes more sessions."""
        taken = refused(400, "Invalid Request: Server already initialized", -32600)
        found = report(stateful(beside=taken))
        keys = {piece.key: piece for piece in found.advice}
        assert keys["one-session"].flags == ("--sharing shared",)
        assert found.command == f"mcp-session-proxy serve {URL} --sharing shared"
        assert not {"callers", "slow-handshake"} & set(keys)
        assert "restart" not in keys["one-session"].text
        server = document(stateful(beside=taken))["direct"]["server"]
        assert server["one_session"] is True

    def test_a_server_whose_one_session_is_used_up(self):
        """It is not free after DELETE, which the check must own up to."""
        taken = refused(400, "Invalid Request: Server already initialized", -32600)
        stuck = with_plays(stateful(beside=taken), per_call=(play(opened=taken),))
        assert "restart the server first" in advice(stuck)["one-session"].text

    @pytest.mark.parametrize("status", [429, 503])
    def test_a_server_that_is_full_is_not_one_with_a_single_session(self, status):
        """A limit was reached, perhaps for a moment."""
        full = stateful(beside=refused(status, "Too many open sessions", -32600))
        assert "one-session" not in advice(full)
        assert document(full)["direct"]["server"]["one_session"] is False

    @pytest.mark.parametrize(
        "words",
        [
            "Bad Request: Session already initialized",
            "Only one active session is allowed",
            "Another client is connected",
        ],
    )
    def test_a_single_session_is_known_by_its_words_too(self, words):
        """Whatever the status."""
        assert "one-session" in advice(stateful(beside=refused(503, words, -32600)))

    def test_a_server_that_is_strict_about_versions(self):
        """Which ones it refuses, and who is helped."""
        no = refused(400, "Unsupported protocol version", -32602)
        strict = stateful(asked_version="2025-06-18", refused_versions={"2025-11-25": no})
        assert "whoever asks for 2025-11-25" in advice(strict)["strict-versions"].text
        assert "asks for 2025-06-18 itself" in advice(strict)["strict-versions"].text
        found = document(strict)["direct"]
        assert found["server"]["refused_versions"] == ["2025-11-25"]
        assert (
            found["behaviour"]["refused_versions"]["text"] == "2025-11-25: 400 Unsupported protocol version"
        )

    def test_a_server_that_is_strict_about_older_versions(self):
        """OpenAI's clients ask for one."""
        no = refused(400, "Unsupported protocol version", -32602)
        strict = with_plays(stateful(), openai=(play(opened=no),))
        assert "whoever asks for 2025-03-26" in advice(strict)["strict-versions"].text
        assert "strict-versions" not in advice(stateful())

    def test_sessions_that_are_bound_to_a_cookie(self):
        """Seen where clients without cookies fail."""
        bound = with_plays(
            stateful(cookies=("AWSALB",)), no_cookies=(play(refused(404, "Session not found", -32600)),)
        )
        assert "AWSALB" in advice(bound)["cookies"].text
        assert "keep no cookies" in advice(bound)["proxy"].text
        behaviour = document(bound)["direct"]["behaviour"]
        assert behaviour["cookies"]["text"] == "AWSALB; without them 1 of 1 sessions failed"

    def test_cookies_that_are_not_needed(self):
        """No advice, and no suffering."""
        free = with_plays(stateful(cookies=("seen",)), no_cookies=(play(TOOLS),))
        assert "cookies" not in advice(free)
        assert document(free)["direct"]["behaviour"]["cookies"]["text"] == "seen; they are not needed"
        assert document(free)["direct"]["clients"]["keeps-no-cookies"]["verdict"] == "works"

    def test_pings_that_are_not_answered(self):
        """Quiet sessions cannot be checked with one."""
        deaf = stateful(ping=refused(404, "Method not found", -32601))
        assert advice(deaf)["no-ping"].flags == ("--check-after 0",)
        assert "no-ping" not in advice(stateful())

    @pytest.mark.parametrize(("seconds", "flags"), [(60.0, ("--keepalive 30s",)), (600.0, ())])
    def test_idle_sessions_that_were_seen_to_expire(self, seconds, flags):
        """Pings must come more often than sessions expire."""
        gone = Idle(seconds=seconds, answer=refused(404, "Session not found", -32600))
        assert advice(stateful(idle=gone))["idle"].flags == flags

    def test_idle_sessions_that_lived(self):
        """Nothing is to be done."""
        assert "idle" not in advice(stateful(idle=Idle(seconds=60.0, answer=TOOLS)))

    def test_known_idleness(self):
        """The proxy's pings hold it off; where there are no sessions there is nothing to hold."""
        assert advice(stateful())["idle"].flags == ()
        assert "idle" not in advice(stateless())

    def test_a_server_that_refuses_a_second_stream(self):
        """The proxy holds the only one."""
        assert "second-stream" in advice(stateful())
        assert "second-stream" not in advice(stateful(streams=None))

    def test_a_server_that_speaks_modern(self):
        """Such requests pass through."""
        assert "modern-server" in advice(modern(stateful()))
        assert "modern-server" not in advice(stateful())

    def test_words_that_the_proxy_does_not_know(self):
        """It would not notice a lost session, and says so."""
        assert "unknown-dialect" in advice(stateful(unknown=text(418, "out of luck")))
        assert "unknown-dialect" not in advice(stateful())

    def test_a_redirect(self):
        """Some clients do not follow it."""
        assert "redirect" in advice(stateful(moved_to="/mcp/"))

    def test_callers_without_credentials(self):
        """Who gives a credential knows that callers are told apart."""
        assert advice(stateful())["callers"].flags == ("--anonymous isolate",)
        side = judge_side(stateful(), URL)
        assert "callers" not in {p.key for p in write_report(side, None, has_credentials=True).advice}

    def test_a_proxy_that_turns_old_ids_away(self):
        """It was told to."""
        strict = with_plays(proxied(), stale=(play(refused(404, "unknown", -32001)),))
        assert advice(stateful(), strict)["unknown-session"].flags == ("--unknown-session adopt",)

    def test_a_proxy_that_loses_state(self):
        """It was told to, too."""
        fresh = called(proxied(), {"keeps": (1, 2), "per_call": (1, 1)})
        assert advice(stateful(), fresh)["sharing"].flags == ("--sharing handover",)

    def test_a_proxy_in_front_of_one_session(self):
        """It turns away whoever cannot have that; ids have nothing to do with it."""
        full = refused(503, "The MCP server can have one session only, and somebody has it.", -32603)
        seen = with_plays(replace(proxied(), beside=full), stale=(play(full),))
        assert advice(stateful(), seen)["one-session"].flags == ("--sharing shared",)
        assert "unknown-session" not in advice(stateful(), seen)

    def test_a_proxy_that_keeps_client_sessions_apart(self):
        """Requests without a session share one, others do not: that is another mode than losing all of it."""
        seen = called(proxied(), {"keeps": (1, 2), "per_call": (1, 1), "forgetful": (3, 4)})
        apart = advice(stateful(), seen)["sharing"]
        assert apart.flags == ("--sharing handover",)
        assert "--sharing isolated" in apart.text

    def test_a_proxy_that_passes_modern_requests_through(self):
        """Only modern clients lose state: the mode that hands it over is in force, and is not advised."""
        kept = dict.fromkeys(("per_call", "leaves", "openai", "forgetful", "stale"), (3, 4))
        seen = called(proxied(), {"keeps": (1, 2), "modern": (1, 1), **kept})
        assert "sharing" not in advice(stateful(), seen)
        assert advice(stateful(), seen)["upstream-era"].flags == ("--upstream-era legacy",)

    def test_a_proxy_that_does_not_see_clients_leave(self):
        """After DELETE the state is handed on."""
        kept = dict.fromkeys(("per_call", "modern", "openai", "forgetful", "stale"), (3, 4))
        seen = called(proxied(), {"keeps": (1, 2), "leaves": (1, 1), **kept})
        assert set(advice(stateful(), seen)) & {"sharing", "leaving"} == {"leaving"}

    def test_another_proxy(self):
        """Whatever is at the other URL is not taken for this proxy."""
        assert "not-this-proxy" in advice(stateful(), stateful())

    def test_the_proxy_itself_checked_directly(self):
        """A proxy in front of the proxy is not suggested."""
        found = report(proxied())
        assert found.command is None
        assert found.advice == ()

    def test_what_only_a_call_can_show(self):
        """Said as long as no tool was called."""
        assert "--call" in (report(stateful()).remark or "")
        assert report(called(stateful(), {"keeps": (1, 2)})).remark is None
        failing = called(stateful(in_session=()), {"keeps": (1, 2)})
        failing = replace(failing, in_session=(refused(400, "no", -32602),))
        assert report(failing).remark == "count shows nothing about state, as it fails: 400 no"
        assert report(stateless()).remark is None

    def test_a_tool_that_shows_nothing(self):
        """A tool that repeats itself, or answers differently each time, says nothing about sessions."""
        echo = called(stateful(), {"keeps": ("hi", "hi"), "per_call": ("hi", "hi")})
        assert "gave one answer twice" in (report(echo).remark or "")
        clock = called(stateful(), {"keeps": ("1:00", "1:01"), "per_call": ("1:02", "1:03")})
        assert "answers differently in new sessions, too" in (report(clock).remark or "")

    def test_nobody_is_seen_to_suffer(self):
        """What was not tried is no reason to call it needless."""
        seen = modern(stateful())
        fine = (play(TOOLS),)
        found = report(with_plays(seen, openai=fine, forgetful=fine, stale=fine))
        assert [piece.key for piece in found.advice] == ["not-tried"]
        assert found.status is ExitStatus.WORKS


class TestJson:
    def test_has_everything(self):
        """What it is, how it behaves, how clients fare, what suits it."""
        found = document(stateful(), proxied())
        assert found["schema"] == 1
        assert (found["outcome"], found["exit_status"]) == ("works", 0)
        server = found["direct"]["server"]
        assert server["name"] == "counter"
        assert server["version"] == "1.2.3"
        assert server["protocol_version"] == "2025-11-25"
        assert server["capabilities"] == ["tools"]
        assert server["tools"] == 1
        assert server["issues_session_ids"] is True
        assert server["handshake_ms"] == 2.0
        assert server["keeps_state"] is None
        assert server["family"]["key"] == "python-sdk-1"
        assert found["direct"]["clients"]["openai-style"] == {
            "verdict": "fails",
            "text": "tools/list after DELETE: 404 Session not found",
        }
        assert found["through"]["server"]["is_this_proxy"] is True
        assert {each["verdict"] for each in found["through"]["clients"].values()} == {"works"}
        assert found["advice"][-1] == {
            "key": "callers",
            "flags": ["--anonymous isolate"],
            "text": found["advice"][-1]["text"],
        }

    def test_tells_what_was_measured(self):
        """What is known of such servers in general is marked."""
        behaviour = document(stateful())["direct"]["behaviour"]
        assert behaviour["unknown_id"]["status"] == 404
        assert behaviour["unknown_id"]["measured"] is True
        assert behaviour["idle_expiry"]["measured"] is False
        assert behaviour["delete"]["text"] == "200; afterwards 404 Session not found"
        assert behaviour["second_stream"]["status"] == 409

    def test_tells_measured_idleness(self):
        """Measuring takes the place of what is known."""
        behaviour = document(stateful(idle=Idle(seconds=600.0, answer=TOOLS)))["direct"]["behaviour"]
        assert behaviour["idle_expiry"] == {"text": "alive after 10m", "status": 200, "measured": True}

    def test_tells_expired_sessions(self):
        """In the server's words, and how often to ping instead."""
        gone = Idle(seconds=20.0, answer=refused(404, "Session not found", -32600))
        found = document(stateful(idle=gone))
        assert found["direct"]["behaviour"]["idle_expiry"]["text"] == "gone within 20s: 404 Session not found"
        assert "--keepalive 10s" in [flag for piece in found["advice"] for flag in piece["flags"]]

    def test_tells_problems(self):
        """In place of everything else."""
        side = document(DEAD)["direct"]
        assert side["problem"] == {
            "key": "unreachable",
            "text": "There is no connection.",
            "hint": "Is it running?",
        }
        assert side["server"] is None
        assert side["clients"] == {}

    def test_never_holds_a_session_id(self):
        """Whoever reads the report could use it."""
        session_id = stateful().hello.session_id
        assert session_id is not None
        assert session_id not in to_json(report(stateful(), proxied())).decode()


def test_a_modern_only_server_is_described_from_what_it_discovers():
    """There is no handshake to tell its name."""
    found = {
        "supportedVersions": ["2026-07-28"],
        "capabilities": {"tools": {}},
        "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "only", "version": "3"}},
    }
    refusal = refused(400, "Unsupported protocol version", -32022)
    seen = replace(modern(stateful(hello=refusal, listed=None, ping=None)), discover=answered(found))
    side = judge_side(seen, URL)
    texts = {fact.key: fact.text for fact in side.facts}
    assert texts["server"] == "only 3"
    assert texts["versions"] == "2026-07-28"
    assert texts["capabilities"] == "tools"
    assert "session_ids" not in texts
