"""What can come of a request that is sent to another member, where no answer does. Pure."""


class PeerFailure(Exception):
    """There is no answer of the other member's."""


class PeerRefused(PeerFailure):
    """Nobody listens there, or whoever did had not read the request when it went: certainly nothing was done.
    Most likely the process is gone.
    """


class PeerUnreachable(PeerFailure):
    """There is no connection, or no trust: nothing was sent. The other member may well live."""


class PeerBroke(PeerFailure):
    """The connection broke when the request had been sent, in part at least, and no answer had begun."""


class Misdirected(PeerFailure):
    """The shard is not there, and nothing was done. ``owner`` is the member that has it, if that is known."""

    def __init__(self, owner: str | None) -> None:
        super().__init__(owner)
        self.owner = owner
