"""What can come of a request that is sent to another member, if not an answer. Pure."""


class PeerFailure(Exception):
    """The other member has given no answer."""


class PeerRefused(PeerFailure):
    """Nobody listens there, or the process ended before it had read the request: certainly nothing was done.

    Most likely the process has gone.
    """


class PeerUnreachable(PeerFailure):
    """There is no connection, or the other member does not trust this one. Nothing was done.

    The other member may well be alive.
    """


class PeerBroke(PeerFailure):
    """The connection broke after some of the request was sent, and before an answer began.

    What became of the request is not known.
    """


class Misdirected(PeerFailure):
    """The other member does not have the shard, and has done nothing.

    ``owner`` is the member that has it; None if that is not known.
    """

    def __init__(self, owner: str | None) -> None:
        super().__init__(owner)
        self.owner = owner
