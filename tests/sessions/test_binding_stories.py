"""Whatever clients do in whatever order, as Hypothesis makes it up: nothing stays attached for ever."""

import asyncio

import pytest
from binding_world import ALPHA, BETA, ME, YOU, World
from hypothesis import given, settings
from hypothesis import strategies as st
from session_fakes import run_story, settle

from mcp_session_proxy.sessions import upkeep
from mcp_session_proxy.sessions.identity import ANONYMOUS
from mcp_session_proxy.sessions.modes import Anonymous, Sharing
from mcp_session_proxy.upstream.transport import NOBODY

STEPS = st.one_of(
    st.tuples(st.just("initialize"), st.sampled_from([ALPHA, BETA]), st.sampled_from([None, "a", "foreign"])),
    st.tuples(
        st.sampled_from(
            [
                "notify",
                "request",
                "affinity",
                "answer",
                "leave",
                "listen",
                "hang_up",
                "connect",
                "disconnect",
                "cut",
                "delete",
                "lose",
            ]
        ),
        st.integers(0, 7),
    ),
    st.tuples(st.just("ask"), st.sampled_from([ME, YOU, ANONYMOUS])),
    st.tuples(st.sampled_from(["restart", "pause", "resume", "reconnect"])),
    st.tuples(st.just("time"), st.sampled_from([0.0, 0.25, 1.0, 6.0, 61.0, 2000.0])),
)


class Story:
    """Plays a list of steps on a world."""

    def __init__(self, world):
        self.world = world
        self.tasks = set()
        self.visits = []
        self.streams = []
        self.connections = []

    @staticmethod
    def choose(things, number):
        things = list(things)
        return things[number % len(things)] if things else None

    def spawn(self, work):
        self.tasks.add(asyncio.ensure_future(work))

    async def collect(self):
        await settle(5)
        for task in [task for task in self.tasks if task.done()]:
            self.tasks.discard(task)
            if task.cancelled() or task.exception() is not None:
                continue
            visit = task.result()
            if isinstance(visit, tuple):
                if visit[0] not in self.world.clients:
                    self.world.clients.append(visit[0])
                visit[1].end()
            else:
                visit.session.record.requests += 1
                self.visits.append(visit)

    def initialize(self, profile, named):
        affinity, brought = (None, named) if named == "foreign" else (named, None)
        self.spawn(self.world.binder.initialize(ME, profile, affinity, brought, NOBODY))

    def client(self, number):
        found = self.choose([one for one in self.world.clients if not one.forgotten], number)
        return None if found is None else self.world.find(found.id, found.principal)

    def notify(self, number):
        self.client(number)

    def request(self, number):
        if (client := self.client(number)) is not None:
            self.spawn(self.world.binder.enter(client, NOBODY))

    def affinity(self, number):
        if (client := self.client(number)) is not None:
            self.spawn(self.world.binder.borrow(client.principal, "a", client, NOBODY))

    def ask(self, principal):
        self.spawn(self.world.binder.borrow(principal, None, None, NOBODY))

    def answer(self, number):
        if (visit := self.choose(self.visits, number)) is not None:
            self.visits.remove(visit)
            visit.end()

    def leave(self, number):
        if (task := self.choose(self.tasks, number)) is not None:
            task.cancel()

    def listen(self, number):
        if (client := self.client(number)) is not None:
            self.streams.append(client)
            self.world.binder.stream_opened(client, NOBODY)

    def hang_up(self, number):
        if (client := self.choose(self.streams, number)) is not None:
            self.streams.remove(client)
            self.world.binder.stream_closed(client)

    def connect(self, number):
        if (client := self.client(number)) is not None:
            self.connections.append(client)
            self.world.connect(client)

    def disconnect(self, number, by_client=True):
        if (client := self.choose(self.connections, number)) is not None:
            self.connections.remove(client)
            self.world.disconnect(client, by_client=by_client)

    def cut(self, number):
        self.disconnect(number, by_client=False)

    def delete(self, number):
        if (client := self.client(number)) is not None:
            self.world.delete(client)

    def lose(self, number):
        if (session := self.choose(self.world.server.sessions[-6:], number)) is not None:
            session.lose(beyond_help=number % 2 == 0)

    def restart(self):
        for session in list(self.world.server.sessions):
            session.lose(beyond_help=True)

    def pause(self):
        self.world.stand.pool.pause()

    def resume(self):
        self.world.stand.pool.resume()

    def reconnect(self):
        upkeep.reconnect(self.world.stand.pool)

    async def time(self, seconds):
        await self.world.wait(seconds, 10)

    async def play(self, steps):
        for name, *arguments in steps:
            result = getattr(self, name)(*arguments)
            if result is not None:
                await result
            await self.collect()
            self.world.check()

    async def stop(self):
        """All clients leave, whatever they were doing."""
        self.resume()
        while self.tasks:
            await self.world.wait(11.0, 4)
            await self.collect()
        for visit in self.visits:
            visit.end()
        for client in self.streams:
            self.world.binder.stream_closed(client)


@given(
    steps=st.lists(STEPS, max_size=30),
    sharing=st.sampled_from(list(Sharing)),
    options=st.fixed_dictionaries(
        {
            "anonymous": st.sampled_from(list(Anonymous)),
            "open_seconds": st.sampled_from([0.0, 0.5]),
            "max_clients": st.sampled_from([2, 100]),
            "max_sessions": st.sampled_from([1, 3, 100]),
            "min_idle": st.integers(0, 1),
            "max_requests": st.sampled_from([0, 2]),
        }
    ),
)
@settings(max_examples=200, deadline=None)
@pytest.mark.slow
def test_any_sequence_leaves_nothing_behind(steps, sharing, options):
    """Whatever clients do in whatever order, nothing stays attached, and in the end nothing is left."""

    async def play():
        world = World(sharing, **options)
        story = Story(world)
        await story.play(steps)
        await story.stop()
        await world.end()

    run_story(play())
