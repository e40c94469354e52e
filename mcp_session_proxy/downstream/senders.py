"""Who sent a request, and what of its head travels upstream: judged once for all that have the same head."""

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from aiohttp import web

from .. import events
from ..bounds import CACHED_HEADER_NAMES
from ..errors import BadRequest
from ..events import Observer
from ..protocol import inbound, revisions
from ..protocol.headers import (
    forward_request_headers,
    is_forwarded,
    names_of_this_hop,
    own_repetitions,
    writable,
)
from ..sessions.accepting import Acceptances
from ..sessions.credentials import sounds_like_identity
from ..sessions.identity import Claim, Identifier, Principal
from ..tracing import CONTEXT_KEYS
from ..upstream.transport import Caller
from . import eras
from .connection import Connection
from .head import Head, Sender
from .hops import restate_way
from .rules import EndpointRules

_MAX_HEADERS_TOLD: Final = 20
_MAX_NAME_CHARS: Final = 100
_ADVICE: Final = (
    "A caller without credentials came over a listener beyond loopback. All such callers share sessions and "
    "their state. If they are not one party, use --anonymous isolate, or --credential-header for what tells "
    "them apart."
)


class Senders:
    """Finds out who sends requests. ``rules`` may be replaced at any time.

    ``traces``: each request has a trace context of its own upstream, in place of its client's.
    """

    def __init__(
        self,
        *,
        identifier: Identifier,
        acceptances: Acceptances,
        rules: EndpointRules,
        observe: Observer,
        traces: bool,
    ) -> None:
        self.rules = rules
        # Told who the bearer of a token counts as, and what it claims.
        self.on_claimed: list[Callable[[str, str], None]] = []
        self._identifier = identifier
        self._acceptances = acceptances
        self._observe = observe
        self._own_headers = CONTEXT_KEYS if traces else frozenset()
        self._tells = lru_cache(maxsize=CACHED_HEADER_NAMES)(self._tells_of_sender)
        self._warn_of_anonymous = rules.warn_of_anonymous
        self._told_of_headers = 0

    def judge(self, http: web.BaseRequest, head: Head) -> None:
        """Note what a head says to the endpoint, by the rules of now.

        ``judged_by`` stays None if the server has to be asked who sends it: see ``settle``. Until then the
        sender is somebody to whom nothing belongs.

        Raises:
            BadRequest: it would hide from the server who is calling.
            TooManyConnections: its caller has too many.
        """
        headers, rules = http.headers, self.rules
        sender = head.sender = self._find(http)
        session_id = headers.get(revisions.SESSION_HEADER)
        head.session_id = writable(session_id) if session_id else None
        head.versions = headers.getall(revisions.VERSION_HEADER, ())
        head.version = head.versions[0] if head.versions else None
        head.names_modern = inbound.is_modern_version(head.version)
        head.version_served = eras.are_served(head.versions, rules.eras)
        head.accepts = inbound.read_accept(headers.getall("Accept", ()))
        # Not part of the sender, which is kept: they differ from request to request.
        own = own_repetitions(http.raw_headers)
        head.legacy_caller = sender.caller.with_more(own) if own else sender.caller
        standing = sender.standing
        if standing is not None:
            standing.heads.add(head)
        head.judged_by = rules if sender.claim is None or standing is not None else None

    async def settle(self, http: web.BaseRequest, head: Head) -> None:
        """Find out who sends this, by asking the server whether it takes the token that nobody has seen.

        Raises:
            UpstreamError: the server is away, slow or full, so nothing is known.
            TooManyWaiters: too many tokens are being asked about.
            TooManyConnections: its caller has too many.
        """
        sender = head.sender
        if sender.claim is None:
            return
        standing = await self._acceptances.ask(sender.claim, sender.shown, sender.caller.credentials)
        head.sender = sender._replace(
            principal=Principal(digest=standing.principal, anonymous=False), standing=standing
        )
        self._tell_claimed(standing.principal, sender.claim)
        connection = http.protocol
        assert isinstance(connection, Connection)
        connection.sent_by(head.sender)
        if not standing.over:
            standing.heads.add(head)
            head.judged_by = self.rules

    def _find(self, http: web.BaseRequest) -> Sender:
        """Who sent this. Most clients say the same with each request of a connection, so it is kept there.

        Principals are a keyed hash over all that tells callers apart, and hashing is dear; comparing the
        headers themselves is not, and no shorter comparison would be safe: two callers may share a
        connection behind a front proxy.
        """
        tells = self._tells
        headers = [pair for pair in http.headers.items() if tells(pair[0])]
        query = http.rel_url.raw_query_string
        connection = http.protocol
        assert isinstance(connection, Connection)
        known, rules = connection.sender, self.rules
        if (
            known is not None
            and known.headers == headers
            and known.query == query
            and known.rules is rules
            and (known.claim is None or (known.standing is not None and not known.standing.over))
        ):
            return known
        if any(map(self._identifier.is_credential, names_of_this_hop(headers))):
            # Left out as RFC 9110 asks, it would have told the caller apart here and not at the server.
            raise BadRequest('"Connection" must not name a header that says who is calling.')
        principal = self._identifier.principal(headers, query)
        if principal.anonymous and self._warn_of_anonymous:
            self._warn_of_anonymous = False
            self._observe(events.AnonymousCaller(advice=_ADVICE))
        caller = self._caller(http, headers, query)
        sender = Sender(headers, query, rules, principal, caller)
        claim = self._identifier.claim(headers, query)
        if claim is not None:
            sender = self._judge_claim(sender, claim)
        connection.sent_by(sender)
        return sender

    def _judge_claim(self, sender: Sender, claim: Claim) -> Sender:
        """The same sender with a token that claims to speak for somebody, as far as that is believed."""
        shown, standing = sender.principal, self._acceptances.judge(claim, sender.principal)
        digest = claim.token if standing is None else standing.principal
        principal = Principal(digest=digest, anonymous=False)
        if standing is not None:
            self._tell_claimed(digest, claim)
        return sender._replace(principal=principal, claim=claim, shown=shown, standing=standing)

    def _tell_claimed(self, principal: str, claim: Claim) -> None:
        for told in self.on_claimed:
            told(principal, claim.digest)

    def _tells_of_sender(self, name: str) -> bool:
        """Whether a header of this name says who is calling, or is one that the server gets to see."""
        if name.lower() in self._own_headers:
            return False
        if self._identifier.is_credential(name):
            return True
        if sounds_like_identity(name) and self._told_of_headers < _MAX_HEADERS_TOLD:
            # The names are cached, so each is told of once as long as callers do not invent thousands.
            self._told_of_headers += 1
            self._observe(events.UncountedIdentity(header=name[:_MAX_NAME_CHARS]))
        return is_forwarded(name)

    def _caller(self, http: web.BaseRequest, headers: list[tuple[str, str]], query: str) -> Caller:
        """What of these headers travels upstream: with this request, and with what the proxy sends itself."""
        forwarded = tuple(
            restate_way(
                forward_request_headers(headers),
                peer=http.remote,
                scheme=http.scheme,
                trusted=self.rules.trusted_proxies,
            )
        )
        credentials = tuple(pair for pair in forwarded if self._identifier.is_credential(pair[0]))
        if credentials == forwarded:
            return Caller(headers=forwarded, query=query)
        return Caller(headers=forwarded, query=query, reduced=Caller(headers=credentials, query=query))
