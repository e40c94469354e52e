"""Every request gets an answer here, whatever happens to it, and how it went is told once."""

import itertools
import time
from asyncio import CancelledError
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import msgspec

from .. import events
from ..errors import Draining, InternalError, ProxyError
from ..events import Observer
from ..exchange.call import ModernCall
from ..exchange.exchange import Exchange
from ..protocol import inbound, revisions
from ..protocol.inbound import ModernRequest
from ..protocol.revisions import Era, ServedEras
from ..sessions.identity import Identifier
from ..tracing import UNTRACED, Tracer
from . import eras
from .answers import Answer, answer_error
from .in_flight import InFlight, UnderWay
from .legacy import LegacyRequests
from .modern import ModernRequests, in_modern_words
from .request import ClientRequest
from .rules import EndpointRules

_SHUTTING_DOWN: Final = "The proxy is shutting down."


class Dispatcher:
    """Has each request answered by the rules of its era. ``rules`` may be replaced at any time.

    While ``draining``, requests are refused; those that are under way go on.
    """

    def __init__(
        self,
        *,
        legacy: LegacyRequests,
        modern: ModernRequests,
        identifier: Identifier,
        in_flight: InFlight,
        rewrite_challenge: Callable[[str], str],
        rules: EndpointRules,
        observe: Observer,
        tracer: Tracer = UNTRACED,
    ) -> None:
        self.draining = False
        self.rules = rules
        self._rewrite_challenge = rewrite_challenge
        self._legacy = legacy
        self._modern = modern
        self._identifier = identifier
        self._in_flight = in_flight
        self._observe = observe
        self._tracer = tracer
        self._numbers = itertools.count(1)
        self._requests: dict[ClientRequest, None] = {}

    def exchanges(self) -> list[Exchange | ModernCall]:
        """Everything that is under way upstream for a client that waits."""
        return [request.exchange for request in self._requests if request.exchange is not None]

    def refuse_while_draining(self) -> None:
        """Nothing new begins during a shutdown.

        Raises:
            Draining: there is one.
        """
        if self.draining:
            raise Draining(_SHUTTING_DOWN)

    async def answer(self, request: ClientRequest) -> Answer:
        """The answer to one request, be it an error.

        Three ways out, and each of them is told: an answer of the server's, an error that is somebody's
        fault, or one that is ours. The fourth, a cancellation, is that of the client that has left (modern),
        or of the process: nobody is there to be answered, so it goes on, and only a trace hears of it.
        """
        started = time.perf_counter()
        request.id = f"r{next(self._numbers)}"
        request.trace = trace = self._tracer.begin(request.trace_facts)
        self._requests[request] = None
        try:
            if self.draining:
                raise Draining(_SHUTTING_DOWN)
            request.affinity = self._identifier.affinity(request.http.headers, request.meta)
            if request.era is Era.MODERN and request.message.method == revisions.LISTEN:
                # It is under way for hours and works on nothing, so it has limits of its own.
                answer = await self._modern.answer(request, self._check_modern(request))
            else:
                with UnderWay(self._in_flight, request.principal.digest):
                    if request.era is Era.MODERN:
                        answer = await self._modern.answer(request, self._check_modern(request))
                    else:
                        if not request.head.version_served:
                            eras.check_version(request.head, self.rules.eras)
                        answer = await self._legacy.answer(request)
            if answer.failed:
                request.outcome = "error"
        except ProxyError as error:
            answer = self._fail(request, error)
            # Its frames hold the request, and where a server has refused, what leads back to this error.
            error.__traceback__ = error.__cause__ = error.__context__ = None
        except Exception as error:
            request.outcome, request.fault = InternalError.reason, InternalError.culprit
            self._observe(
                events.Crashed(
                    where="request",
                    error=repr(error),
                    request_id=request.id,
                    trace_id=trace.id or request.client_trace_id,
                )
            )
            answer = answer_error(
                InternalError("The proxy failed. Its log has the details."), request.message.id
            )
        except CancelledError:
            trace.finished("cancelled", b"")
            raise
        finally:
            del self._requests[request]
        self._observe(request.finished(time.perf_counter() - started))
        trace.finished(request.outcome, answer.body)
        return answer

    def refuse(self, request: ClientRequest, error: ProxyError, seconds: float) -> Answer:
        """The answer to a request on which nothing could be begun, told like that of every other.

        ``seconds`` is how long it took to find that out.
        """
        request.id = f"r{next(self._numbers)}"
        request.trace = self._tracer.begin(request.trace_facts)
        answer = self._fail(request, error)
        self._observe(request.finished(seconds))
        request.trace.finished(request.outcome, answer.body)
        return answer

    def _fail(self, request: ClientRequest, error: ProxyError) -> Answer:
        """The answer to a request that ends in an error, which is told."""
        self._observe(request.failed(error))
        if request.era is Era.MODERN:
            # Only now: the log has what the server said, the client what its revision has words for.
            error = in_modern_words(error, request.message)
        return self._refusal(error, request.message.id)

    def refuse_batch(self, requests: Sequence[ClientRequest], error: ProxyError) -> list[Answer]:
        """The same error for all of these, of which none begins. Each counts, but only the first is told."""
        answers = []
        for place, request in enumerate(requests):
            request.id = f"r{next(self._numbers)}"
            failed = request.failed(error)
            if place == 0:
                self._observe(failed)
            self._observe(request.finished(0.0))
            answers.append(self._refusal(error, request.message.id))
        return answers

    def _check_modern(self, request: ClientRequest) -> ModernRequest:
        """What a modern request says, once it has passed the front-door checks.

        Raises:
            ProxyError: it has not passed; see ``eras.check`` and ``inbound.read_modern``.
        """
        served = self.rules.eras
        if served is not ServedEras.BOTH:
            eras.check(request.message, request.head, served)
        values = partial(request.http.headers.getall, default=())
        return inbound.read_modern(request.message, request.meta, values, served.versions, extensions=True)

    def _refusal(self, error: ProxyError, identifier: bytes) -> Answer:
        answer = answer_error(error, identifier)
        challenge = answer.headers.get("WWW-Authenticate")
        if challenge is None:
            return answer
        headers = {**answer.headers, "WWW-Authenticate": self._rewrite_challenge(challenge)}
        return msgspec.structs.replace(answer, headers=headers)
