"""Clusters on a clock of their own, with failures at random: what must hold, holds; and what it costs."""

import pytest
from simulation import EVERYTHING, Broken, Link, Member, PlayedMembership, Report, simulate

# The lease of a member that dies.
LEASE_SECONDS = 5.0
# In such a run, a member sees up to three times whether a hundred shards are still its own.
VERIFIED = 300


def happened(report: Report) -> dict[str, int]:
    return dict(report.outcomes)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.slow
def test_everything_goes_wrong(seed: int) -> None:
    """Members are killed, stall and are replaced, the store goes away, nobody reaches anybody: nothing that
    must not happen does, and nearly all calls are answered.
    """
    report = simulate(8, 300, seconds=40.0, seed=seed, every_seconds=EVERYTHING)
    assert len(report.failures) >= 5
    assert report.outcomes["answered"] > 0.85 * report.calls


def test_nothing_goes_wrong() -> None:
    """Each caller has one session, and the store is asked once for what a member does not know."""
    report = simulate(5, 200, seconds=20.0, every_seconds={}, calls_each=4)
    assert happened(report) == {"answered": 800}
    assert report.sessions_opened == 200
    assert report.verbs["claim"] <= 200 * 4 + VERIFIED * 5
    assert (report.verbs["load"], report.verbs["write"]) == (0, 200)
    assert report.longest_wait_seconds < 0.5


def test_members_are_killed() -> None:
    """Nobody waits longer than a lease and a moment, and no session is lost that was written."""
    report = simulate(8, 300, seconds=60.0, every_seconds={"kill": 3.0})
    assert set(report.outcomes) <= {"answered", "connection lost", "unknown"}
    assert report.longest_wait_seconds < LEASE_SECONDS + 1
    assert report.sessions_opened <= 300 + report.outcomes["connection lost"] + report.outcomes["unknown"]


def test_members_are_replaced() -> None:
    """Nobody notices: every call is answered, in the same session as ever."""
    report = simulate(6, 300, seconds=60.0, every_seconds={"drain": 3.0})
    assert happened(report) == {"answered": 900}
    assert report.sessions_opened == 300
    assert report.longest_wait_seconds < 2.0


@pytest.mark.slow
def test_the_store_goes_away() -> None:
    """Whoever has an owner notices nothing."""
    report = simulate(6, 300, seconds=60.0, every_seconds={"store away": 15.0})
    assert happened(report) == {"answered": 900}


def test_the_work_grows_with_the_callers() -> None:
    """Four times as many members with four times as many callers ask the store four times as much."""
    small, large = (
        simulate(members, 50 * members, seconds=30.0, every_seconds={}, calls_each=2) for members in (3, 12)
    )
    for verb in ("beat", "news", "write"):
        assert 3.5 < large.verbs[verb] / small.verbs[verb] < 4.5
    # Each member asks where a caller is, once.
    assert large.verbs["claim"] <= 2 * 600 + VERIFIED * 12


def test_two_owners_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A member that is always sure of itself is one too many, when it has stalled for too long."""
    monkeypatch.setattr(PlayedMembership, "is_sure", property(lambda _: True))
    with pytest.raises(Broken, match="both sure"):
        simulate(4, 50, seconds=60.0, every_seconds={"stall": 1.0}, calls_each=60)


def test_a_call_that_is_repeated_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """So is a member that executes what it was sent twice."""
    arrive = Member.runs

    async def runs(self: Member) -> None:
        await arrive(self)
        self.world.executed.update(number for number in list(self.world.executed))

    monkeypatch.setattr(Member, "runs", runs)
    with pytest.raises(Broken, match="executed"):
        simulate(3, 50, seconds=10.0, every_seconds={})


def test_a_fence_that_goes_back_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a store that gives the same fence to two owners."""
    claim = Link.claim

    async def forgetful(self: Link, member: str, shard: str, ttl_seconds: float, min_fence: int = 0):
        return (await claim(self, member, shard, ttl_seconds, min_fence))._replace(fence=1)

    monkeypatch.setattr(Link, "claim", forgetful)
    with pytest.raises(Broken, match="under 1"):
        simulate(4, 100, seconds=60.0, every_seconds={"kill": 3.0}, calls_each=10)
