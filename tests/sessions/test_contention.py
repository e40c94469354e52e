"""How clients that take one stream from each other are slowed down."""

from mcp_session_proxy.sessions.contention import Contention


def test_two_that_come_back_as_told() -> None:
    """The time doubles up to a minute, and stays there as long as they go on."""
    contention, now, told = Contention(), 0.0, []
    for _ in range(9):
        told.append(contention.taken(now))
        now += told[-1]
    assert told == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_two_that_do_not_listen() -> None:
    """Coming back at once makes it no better."""
    contention = Contention()
    assert [contention.taken(n / 10) for n in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_calm() -> None:
    """After a time in which the loser could have come back, it begins anew."""
    contention = Contention()
    assert [contention.taken(now) for now in (0, 1, 20)] == [1, 2, 1]
    assert contention.taken(27) == 2
    assert contention.taken(27 + 4 + 5.1) == 1


def test_streams_that_are_cut_every_few_minutes() -> None:
    """A client that takes over its own dead stream is no contention."""
    contention = Contention()
    assert {contention.taken(125.0 * n) for n in range(10)} == {1}


def test_settled() -> None:
    """The usual time is said once, after calm, and only where another was said before."""
    contention = Contention()
    assert contention.settled(0) is None
    contention.taken(0)
    assert contention.settled(5) is None
    assert contention.settled(8) == 1
    assert contention.settled(100) is None
