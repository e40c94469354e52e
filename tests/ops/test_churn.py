from mcp_session_proxy import events
from mcp_session_proxy.ops.admin.model import ChurnSeries
from mcp_session_proxy.ops.churn import MINUTES, SERIES, Churn
from mcp_session_proxy.ops.observers import Tee

BEGAN = events.ClientSessionCreated(
    client="c1", session="u1", principal="p1", origin="minted", client_name="inspector"
)
ENDED = events.DeleteAbsorbed(client="c1", principal="p1")


class Clock:
    """A clock that tests set."""

    def __init__(self, now=0.0):
        self.now = now

    def __call__(self):
        return self.now


def test_counts_by_minute():
    """What happens within a minute adds up; the running minute is the last one."""
    clock = Clock(3599.0)
    churn = Churn(clock)
    Tee(churn)(BEGAN)
    Tee(churn)(BEGAN)
    clock.now += 1
    Tee(churn)(BEGAN)
    Tee(churn)(ENDED)
    series = churn.series()
    assert series["clients_began"][-3:] == [0, 2, 1]
    assert series["clients_ended"][-3:] == [0, 0, 1]
    assert {len(counts) for counts in series.values()} == {MINUTES}


def test_forgets_what_is_older_than_an_hour():
    """A minute is shown until the same minute of the next hour begins."""
    clock = Clock()
    churn = Churn(clock)
    Tee(churn)(BEGAN)
    clock.now = 59 * 60 + 59.9
    assert churn.series()["clients_began"][0] == 1
    clock.now = 60 * 60
    assert sum(churn.series()["clients_began"]) == 0


def test_forgets_the_minutes_in_which_nothing_happened():
    """Silence is shown as silence, whatever was counted in its place an hour before."""
    clock = Clock()
    churn = Churn(clock)
    for minute in range(MINUTES):
        clock.now = minute * 60.0
        Tee(churn)(BEGAN)
    clock.now = (MINUTES + 9) * 60.0
    Tee(churn)(BEGAN)
    assert churn.series()["clients_began"] == [1] * (MINUTES - 10) + [0] * 9 + [1]


def test_a_long_silence():
    """Days without an event cost no more than an hour without one."""
    clock = Clock()
    churn = Churn(clock)
    Tee(churn)(BEGAN)
    clock.now = 1e12
    Tee(churn)(ENDED)
    series = churn.series()
    assert sum(series["clients_began"]) == 0
    assert series["clients_ended"] == [0] * (MINUTES - 1) + [1]


def test_failures_of_all_kinds_count_together():
    """Requests that failed and handshakes that failed."""
    churn = Churn(Clock())
    Tee(churn)(
        events.SessionOpenFailed(principal="p1", why="demand", error="upstream-timeout", detail="Too late.")
    )
    Tee(churn)(events.Crashed(where="open", error="KeyError()"))
    assert churn.series()["failures"][-1] == 2


def test_refused_callers_are_no_failures():
    """What is a caller's own fault does not make the proxy look ill."""
    churn = Churn(Clock())
    words = {"principal": "p1", "detail": "The MCP server answered HTTP 401."}
    Tee(churn)(events.SessionRefused(why="demand", error="upstream-rejected", **words))
    Tee(churn)(
        events.RequestRefused(method="initialize", reason="upstream-rejected", request_id="r1", **words)
    )
    assert churn.series()["failures"][-1] == 0


def test_other_events_do_not_count():
    """Nothing that comes with every request is looked at."""
    churn = Churn(Clock())
    Tee(churn)(events.UpstreamUp(upstream="http://h"))
    assert not any(map(any, churn.series().values()))


def test_the_api_shows_every_series():
    """What is counted is what is answered."""
    assert list(ChurnSeries.__annotations__) == list(SERIES)
