"""Whatever happens to a pool in whatever order, as Hypothesis makes it up: its books stay right."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from session_fakes import ALL_USAGES, SessionMaker, Stand, key, run_story, settle

from mcp_session_proxy.errors import UpstreamError, UpstreamUnreachable
from mcp_session_proxy.sessions import upkeep
from mcp_session_proxy.sessions.books import Usage
from mcp_session_proxy.sessions.state import SessionState

KEYS = st.builds(key, st.sampled_from("pq"), st.sampled_from([None, "x"]))
STEPS = st.one_of(
    st.tuples(st.just("acquire"), KEYS, st.sampled_from(ALL_USAGES), st.sampled_from([1.0, 5.0, 50.0])),
    st.tuples(
        st.sampled_from(
            ["cancel", "release", "retire", "reclaim", "opened", "refused", "failed", "lost", "goodbye"]
        ),
        st.integers(0, 7),
    ),
    st.tuples(st.just("time"), st.sampled_from([0.0, 0.25, 1.0, 10.0, 100.0])),
    st.tuples(st.just("step"), st.integers(0, 3)),
    st.tuples(st.sampled_from(["pause", "resume", "reconnect"])),
    st.tuples(st.sampled_from(["kill", "serve"]), st.integers(0, 7)),
)


class Story:
    """Plays a list of steps on a pool."""

    def __init__(self, stand):
        self.stand = stand
        self.requests = {}
        self.leases = []
        self.former = []

    def collect(self):
        """Take note of the requests that are over."""
        for request, (session_key, usage) in list(self.requests.items()):
            if request.done():
                del self.requests[request]
                if not request.cancelled() and request.exception() is None:
                    lease = request.result()
                    assert lease.slot.key == session_key
                    assert lease.usage is usage
                    self.leases.append(lease)

    def acquire(self, session_key, usage, timeout):
        request = asyncio.ensure_future(self.stand.acquire(session_key, usage, timeout=timeout))
        self.requests[request] = (session_key, usage)

    def choose(self, things, number):
        return things[number % len(things)] if things else None

    def cancel(self, number):
        if (request := self.choose(list(self.requests), number)) is not None:
            request.cancel()

    def release(self, number):
        if (lease := self.choose(self.leases, number)) is not None:
            self.leases.remove(lease)
            self.former.append(lease)
            lease.release()

    def retire(self, number):
        if (lease := self.choose(self.leases, number)) is not None:
            self.leases.remove(lease)
            lease.retire("lost")

    def reclaim(self, number):
        lease = self.choose([one for one in self.former if one.usage is not Usage.ONCE], number)
        if lease is not None:
            self.former.remove(lease)
            if (again := self.stand.pool.reclaim(lease.slot, lease.usage)) is not None:
                self.leases.append(again)

    def opening(self, number):
        undecided = [one for one in self.stand.server.opening if one.is_undecided]
        return self.choose(undecided, number)

    def opened(self, number):
        if (session := self.opening(number)) is not None:
            session.finish_opening()

    def refused(self, number):
        if (session := self.opening(number)) is not None:
            session.fail_opening(UpstreamUnreachable("refused"))

    def failed(self, number):
        if (session := self.opening(number)) is not None:
            session.fail_opening(UpstreamError("no"))

    def lost(self, number):
        if (session := self.choose(self.stand.server.sessions[-5:], number)) is not None:
            session.lose(beyond_help=number % 2 == 0)

    def goodbye(self, number):
        sessions = [one for one in self.stand.server.sessions if one.goodbye and not one.goodbye.done()]
        if (session := self.choose(sessions, number)) is not None:
            session.goodbye.set_result(None)

    def pause(self):
        self.stand.pool.pause()

    def resume(self):
        self.stand.pool.resume()

    def reconnect(self):
        upkeep.reconnect(self.stand.pool)

    def kill(self, number):
        if (session := self.choose(self.stand.server.sessions[-5:], number)) is not None:
            upkeep.kill(self.stand.pool, session.tag)

    def serve(self, number):
        if (lease := self.choose(self.leases, number)) is not None:
            lease.slot.session.record.requests += 1

    async def time(self, seconds):
        await asyncio.sleep(seconds)
        upkeep.maintain(self.stand.pool)

    async def step(self, count):
        for _ in range(count):
            await asyncio.sleep(0)

    async def play(self, steps):
        for name, *arguments in steps:
            result = getattr(self, name)(*arguments)
            if result is not None:
                await result
            self.stand.check(at_rest=False)
            self.collect()
        await settle()
        self.collect()
        self.stand.check()
        held = {lease.slot for lease in self.leases if lease.slot.usable}
        leased = {slot for slot in self.stand.books.slots() if slot.state is SessionState.LEASED}
        assert held == leased

    async def stop(self):
        """The server answers, everybody leaves, and time passes."""
        self.resume()
        self.stand.server.by_hand = False
        for lease in self.leases:
            lease.release()
        while (session := self.opening(0)) is not None:
            session.finish_opening()
        await asyncio.sleep(200.0)
        self.collect()
        assert not self.requests, "a request is still waiting long after its deadline"
        for lease in self.leases:
            lease.release()


@given(
    steps=st.lists(STEPS, max_size=40),
    limits=st.fixed_dictionaries(
        {
            "max_sessions": st.integers(1, 4),
            "max_sessions_per_principal": st.integers(1, 3),
            "max_waiters": st.sampled_from([0, 2, 100]),
            "open_concurrency": st.integers(1, 2),
            "min_idle": st.integers(0, 1),
            "idle_timeout_seconds": st.just(60.0),
            "max_lifetime_seconds": st.sampled_from([0.0, 30.0]),
            "max_requests": st.sampled_from([0, 2]),
        }
    ),
)
@settings(max_examples=300, deadline=None)
@pytest.mark.slow
def test_any_sequence_of_events_keeps_the_books(steps, limits):
    """Whatever comes in whatever order: limits hold, nobody is forgotten, and nothing is left at the end."""

    async def play():
        stand = Stand(SessionMaker(by_hand=True, goodbyes_by_hand=True), **limits)
        story = Story(stand)
        await story.play(steps)
        await story.stop()
        await stand.close_and_check()

    run_story(play())
