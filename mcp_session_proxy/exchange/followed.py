"""Whose a message of a server is that is about one of its tasks, and comes on no request's stream.

Some servers name the task, some say no more than that a task needs input, and then ask; and what is said on
the standalone stream may be here before the answer on another that says that there is a task.
"""

import asyncio
import math
from collections import OrderedDict
from typing import Final
from weakref import WeakKeyDictionary

import msgspec

from ..bounds import QUESTIONS_A_CALL, UNKNOWN_TASKS
from ..errors import OverBudget
from ..memory import UNBOUNDED, Share
from ..protocol import jsonrpc, revisions, tasks
from ..protocol.jsonrpc import Request
from ..protocol.tasks import LegacyTask, TaskOutcome, TaskStatus
from ..upstream.question import Question
from ..upstream.session import UpstreamSession
from .upstream_task import UpstreamTask

# How long after its answer a call may take to become a task here; and a question that none takes is held.
ADOPTION_SECONDS: Final = 1.0
_HELD_SECONDS: Final = 10.0


class _Foreword(msgspec.Struct):
    """What a server has said of a task before it has said that there is one: what last, what it wants to ask,
    and what it has asked since.
    """

    told: LegacyTask
    announced: LegacyTask | None = None
    questions: list[Question] = msgspec.field(default_factory=list)

    def refuse(self) -> None:
        """Nobody will answer what was asked in the course of this."""
        for question in self.questions:
            question.refuse()
        self.questions.clear()


class Followed:
    """The tasks that are followed, by session and by their ids there.

    What is asked before its task is known counts against ``room``.
    """

    def __init__(self, room: Share = UNBOUNDED) -> None:
        self._room = room
        self._tasks: WeakKeyDictionary[UpstreamSession, dict[str, UpstreamTask]] = WeakKeyDictionary()
        # The answer that says that there is a task comes on another stream than what is told of it.
        self._early: WeakKeyDictionary[UpstreamSession, OrderedDict[str, _Foreword]] = WeakKeyDictionary()
        self._expected_until: WeakKeyDictionary[UpstreamSession, float] = WeakKeyDictionary()

    def expect(self, session: UpstreamSession, seconds: float = math.inf) -> None:
        """A task of ours may begin in this session within this time."""
        self._expected_until[session] = asyncio.get_running_loop().time() + seconds

    async def follow(self, task: UpstreamTask) -> TaskOutcome:
        """How a task has ended. Until then it hears here what its server says of it.

        Raises nothing but a cancellation, of which the server hears nothing.
        """
        self._add(task)
        try:
            return await task.run()
        finally:
            self._remove(task)

    def _add(self, task: UpstreamTask) -> None:
        self._tasks.setdefault(task.session, {})[task.task.id] = task
        early = self._early.get(task.session, OrderedDict()).pop(task.task.id, None)
        if early is None:
            return
        for told in (early.announced, early.told):
            if told is not None:
                task.note(told)
        for question in early.questions:
            task.deliver(question.request)
        early.questions.clear()

    def _remove(self, task: UpstreamTask) -> None:
        here = self._tasks.get(task.session, {})
        if here.get(task.task.id) is task:
            del here[task.task.id]

    def forget(self, session: UpstreamSession, identifier: str) -> None:
        """Nobody wants the task of this id: what was asked in its course is refused."""
        early = self._early.get(session, OrderedDict()).pop(identifier, None)
        if early is not None:
            early.refuse()

    def take_status(self, session: UpstreamSession, params: bytes | None) -> None:
        """A server tells how one of its tasks stands."""
        told = tasks.read_task(params)
        if told is None:
            return
        task = self._tasks.get(session, {}).get(told.id)
        if task is not None:
            task.note(told)
            return
        all_early = self._early.setdefault(session, OrderedDict())
        early = all_early.setdefault(told.id, _Foreword(told))
        early.told = told
        if told.status is TaskStatus.INPUT_REQUIRED:
            early.announced = told
        if len(all_early) > UNKNOWN_TASKS:
            _, oldest = all_early.popitem(last=False)
            oldest.refuse()

    def take_request(self, session: UpstreamSession, request: Request) -> bool:
        """A server asks on its standalone stream: give it to the task that it belongs to, if it says so.

        Some say no more than that a task needs input, and then ask.
        """
        here = self._tasks.get(session, {})
        if not here and session not in self._early:
            return False
        named = tasks.related_task(request.params)
        if named is not None:
            task = here.get(named)
        elif request.method == revisions.LIST_ROOTS:
            return False  # asked of a client whenever its roots may have changed
        else:
            text = jsonrpc.read_string(jsonrpc.read_object(request.params).get("message"))
            task = next((each for each in here.values() if each.has_announced(text)), None)
            if task is None and self._hold(session, text, request):
                return True
            task = task or next((each for each in here.values() if each.is_about_to_ask), None)
        if task is None:
            return False
        task.deliver(request)
        return True

    def _hold(self, session: UpstreamSession, text: str | None, request: Request) -> bool:
        """Keep a question for the task that it was announced for, if that is only about to be known."""
        loop = asyncio.get_running_loop()
        if text is None or self._expected_until.get(session, 0.0) < loop.time():
            return False
        for early in self._early.get(session, {}).values():
            if early.announced is None or early.announced.message != text:
                continue
            if len(early.questions) >= QUESTIONS_A_CALL:
                return False
            try:
                early.questions.append(Question.keep(session, request, self._room))
            except OverBudget:
                return False
            early.announced = None
            loop.call_later(_HELD_SECONDS, early.refuse)
            return True
        return False

    def take_stray_request(self, session: UpstreamSession, request: Request) -> bool:
        """The same for a request that no call takes: it is any task's."""
        task = next(iter(self._tasks.get(session, {}).values()), None)
        if task is None:
            return False
        task.deliver(request)
        return True
