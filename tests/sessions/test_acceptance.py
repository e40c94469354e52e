"""What is known of tokens, and that all of it ends somewhere."""

import pytest

from mcp_session_proxy.sessions import acceptance
from mcp_session_proxy.sessions.acceptance import Acceptance, First, Judged, is_over, standing_seconds
from mcp_session_proxy.sessions.identity import Claim


def claim(who: str = "alice", token: str = "t1", expires_at: float | None = None) -> Claim:
    return Claim(who, token, "https://issuer.example", expires_at)


class Head(Judged):
    """Something that was judged."""

    __slots__ = ()


def test_a_head_is_judged_again_when_its_token_is_over() -> None:
    """Nobody looks at a clock for each request: the end of a standing empties its verdicts."""
    known, head = Acceptance(), Head()
    standing = known.stand(claim(), "p", accepted=True)
    head.judged_by = "rules"
    standing.heads.add(head)
    assert known.find(claim()) is standing
    known.end(claim(), standing)
    assert head.judged_by is None
    assert standing.over
    assert known.find(claim()) is None


def test_the_end_of_a_former_standing_ends_no_later_one() -> None:
    """A token that was judged anew meanwhile keeps its newer standing."""
    known = Acceptance()
    former, later = known.stand(claim(), "p", accepted=True), known.stand(claim(), "q", accepted=True)
    assert former.over
    known.end(claim(), former)
    assert known.find(claim()) is later
    assert not later.over


def test_the_first_token_stands_for_all_further_ones() -> None:
    """Whoever was faster stays: the second of two first tokens counts as that one."""
    known = Acceptance()
    assert known.principal_of(claim()) is None
    known.note_first(claim(), "bytes of t1")
    assert known.first(claim(token="t2")) == known.first_named("bytes of t1") == First(claim(), "bytes of t1")
    standing = known.stand(claim(), "bytes of t1", accepted=False)
    assert known.found(claim(), "bytes of t1")
    assert known.first(claim()) is known.first_named("bytes of t1") is None
    assert not known.found(claim(token="t2"), "bytes of t2")
    assert known.principal_of(claim(token="t3")) == "bytes of t1"
    assert (known.find(claim()), standing.over, known.believed, known.callers) == (standing, False, 1, 1)


def test_a_first_token_that_is_passed_over() -> None:
    """Another one with its claim was accepted before it: it is judged anew, and counts as that one then."""
    known = Acceptance()
    known.note_first(claim(), "bytes of t1")
    standing = known.stand(claim(), "bytes of t1", accepted=False)
    assert known.found(claim(token="t2"), "bytes of t2")
    assert standing.over
    assert known.find(claim()) is None
    assert known.first_named("bytes of t1") is None
    assert known.principal_of(claim()) == "bytes of t2"


def test_firsts_that_are_displaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever makes up many takes nothing but a moment: who was displaced is judged anew, and first again."""
    monkeypatch.setattr(acceptance, "KNOWN_TOKENS", 2)
    known = Acceptance()
    known.note_first(claim(), "bytes of t1")
    standing = known.stand(claim(), "bytes of t1", accepted=False)
    for number in range(2):
        known.note_first(claim(f"c{number}", f"f{number}"), f"bytes of f{number}")
    assert standing.over
    assert known.first(claim()) is known.first_named("bytes of t1") is None


def test_tokens_that_were_made_up_displace_none_that_was_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody can make as many as the table has room for."""
    monkeypatch.setattr(acceptance, "KNOWN_TOKENS", 2)
    known = Acceptance()
    first = known.stand(claim(), "p", accepted=False)
    known.found(claim(), "p")
    for number in range(3):
        known.stand(claim(token=f"forged {number}"), "q", accepted=False)
    assert not first.over
    assert known.find(claim()) is first


def test_a_blind_server_ends_what_was_believed() -> None:
    """Whoever was judged is judged again, by bytes then."""
    known = Acceptance()
    standing = known.stand(claim(), "p", accepted=True)
    known.note_blind(claim())
    assert known.is_blind(claim(token="t2"))
    assert standing.over


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest goes, and whoever was judged by it is judged again."""
    for limit in ("KNOWN_TOKENS", "KNOWN_CLAIMANTS", "KNOWN_ISSUERS"):
        monkeypatch.setattr(acceptance, limit, 2)
    known = Acceptance()
    standings = []
    for number in range(3):
        one = Claim(f"c{number}", f"t{number}", f"i{number}", None)
        standings.append(known.stand(one, "p", accepted=True))
        known.note_first(one, f"p{number}")
        known.found(one, f"p{number}")
    assert [standing.over for standing in standings] == [True, False, False]
    assert [known.first_named(f"p{number}") for number in range(3)] == [None] * 3
    callers = [known.principal_of(claim(f"c{number}")) for number in range(3)]
    assert callers == [None, "p1", "p2"]
    for number in range(3):
        known.note_blind(Claim("c", "t", f"i{number}", None))
    assert [known.is_blind(Claim("c", "t", f"i{number}", None)) for number in range(3)] == [False, True, True]


@pytest.mark.parametrize(
    ("expires_at", "seconds"), [(None, 3600), (1060.0, 60), (1e12, 86400), (1000.0, 2), (-5.0, 2)]
)
def test_how_long_a_token_stands(expires_at: float | None, seconds: float) -> None:
    """Until its end, an hour without one, a day at most; one that is taken after its end, a moment."""
    assert standing_seconds(claim(expires_at=expires_at), 1000.0) == seconds


def test_when_a_token_is_over() -> None:
    """At its end, not after it."""
    assert [is_over(claim(expires_at=end), 10.0) for end in (None, 10.5, 10.0, 9.0)] == [
        False,
        False,
        True,
        True,
    ]
