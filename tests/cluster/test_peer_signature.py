"""What members sign, and what is not believed."""

from collections.abc import Callable

import pytest

from mcp_session_proxy.bounds import PEER_SENDERS, PEER_SKEW_SECONDS
from mcp_session_proxy.cluster import peer_signature
from mcp_session_proxy.cluster.peer_signature import (
    Disbelief,
    Judge,
    NotBelieved,
    PeerClient,
    RawFields,
    Signed,
    Signer,
    write_client,
)

WINDOW = 1024
KEY, OTHER_KEY = b"k" * 32, b"o" * 32
A, B = "a" * 16, "b" * 16
CLIENT = PeerClient(1, "https", 17, "192.0.2.7")
FIELDS = write_client(CLIENT) + b"\r\nHost: h\r\nAuthorization: Bearer t"
BODY = b'{"jsonrpc":"2.0"}'

Parsed = tuple[str, str, list[tuple[bytes, bytes]]]


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 1_800_000_000.0

    def __call__(self) -> float:
        return self.seconds


def parse(head: bytes) -> Parsed:
    """The method, the target and the fields of a head, as a server reads them."""
    start, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    method, target, _ = start.decode().split(" ")
    fields = [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
    return method, target, fields


def sign(signer: Signer, body: bytes = BODY, to: str = A) -> Parsed:
    return parse(signer.sign(to, b"POST /mcp?x=1", FIELDS, body))


def why(judge: Judge, method: str, target: str, raw: RawFields) -> Disbelief:
    with pytest.raises(NotBelieved) as caught:
        judge.judge(method, target, raw)
    return caught.value.why


@pytest.fixture(autouse=True)
def _small_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_signature, "PEER_WINDOW", WINDOW)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def signer(clock: Clock) -> Signer:
    return Signer(B, [KEY], now=clock)


@pytest.fixture
def judge(clock: Clock) -> Judge:
    return Judge(A, [KEY], now=clock)


def test_what_was_signed_is_believed(signer: Signer, judge: Judge) -> None:
    """Who it is from, for whom, and where it has come from."""
    signed = judge.judge(*sign(signer))
    assert isinstance(signed, Signed)
    assert (signed.member, signed.to, signed.client) == (B, A, CLIENT)
    signed.check_body(BODY)


def test_without_a_body(signer: Signer, judge: Judge) -> None:
    """A GET has neither a body nor a length."""
    parsed = parse(signer.sign(A, b"GET /mcp", FIELDS, b""))
    assert b"Content-Length" not in dict(parsed[2])
    signed = judge.judge(*parsed)
    signed.check_body(b"")
    with pytest.raises(NotBelieved):
        signed.check_body(b"x")


def _field(name: bytes, value: bytes) -> Callable[[Parsed], Parsed]:
    def change(parsed: Parsed) -> Parsed:
        method, target, fields = parsed
        return method, target, [(n, value if n == name else v) for n, v in fields]

    return change


CHANGES: dict[str, Callable[[Parsed], Parsed]] = {
    "method": lambda p: ("GET", *p[1:]),
    "target": lambda p: (p[0], "/mcp?x=2", p[2]),
    "credential": _field(b"Authorization", b"Bearer u"),
    "receiver": _field(b"Msp-To", b"c" * 16),
    "body's hash": _field(b"Msp-Body", b"0" * 32),
    "address": _field(b"Msp-Client", b"1 https 17 127.0.0.1"),
    "length": _field(b"Content-Length", b"3"),
    "field more": lambda p: (*p[:2], [*p[2], (b"X", b"y")]),
    "field less": lambda p: (*p[:2], p[2][:-1]),
    "order": lambda p: (*p[:2], [*p[2][:4], *reversed(p[2][4:])]),
    "name": lambda p: (*p[:2], [(n.replace(b"Host", b"Hosu"), v) for n, v in p[2]]),
    "moved boundary": lambda p: (*p[:2], [(n, v) if n != b"Host" else (b"Hos", b"t: h") for n, v in p[2]]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_on_its_way(signer: Signer, judge: Judge, change: str) -> None:
    """Nothing in a head can be changed."""
    assert why(judge, *CHANGES[change](sign(signer))) is Disbelief.WRONG_MAC


def test_another_sender(signer: Signer, judge: Judge) -> None:
    """Nor who it is from, when, and under which number."""
    method, target, fields = sign(signer)
    words = fields[0][1].split(b" ")
    for place, other in ((1, b"c" * 16), (2, b"%d" % (int(words[2]) + 1)), (3, b"2")):
        claim = b" ".join([*words[:place], other, *words[place + 1 :]])
        assert why(judge, method, target, [(b"Msp-Peer", claim), *fields[1:]]) is Disbelief.WRONG_MAC


def test_another_body(signer: Signer, judge: Judge) -> None:
    """Nor the body."""
    signed = judge.judge(*sign(signer))
    with pytest.raises(NotBelieved) as caught:
        signed.check_body(BODY + b" ")
    assert caught.value.why is Disbelief.WRONG_BODY


def test_another_key(clock: Clock, judge: Judge) -> None:
    """Who does not have the key is nobody."""
    assert why(judge, *sign(Signer(B, [OTHER_KEY], now=clock))) is Disbelief.WRONG_MAC


def test_a_key_follows_another(clock: Clock) -> None:
    """Each of the keys is good; the first one signs."""
    judge = Judge(A, [OTHER_KEY, KEY], now=clock)
    for keys in ([KEY], [OTHER_KEY], [OTHER_KEY, KEY]):
        judge.judge(*sign(Signer(f"{len(keys)}{keys[0][:1].hex()}", keys, now=clock))).check_body(BODY)


def test_its_own(clock: Clock, judge: Judge) -> None:
    """What has come back to where it was from goes no further."""
    assert why(judge, *sign(Signer(A, [KEY], now=clock))) is Disbelief.ITSELF


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(PEER_SKEW_SECONDS + 1, Disbelief.TOO_OLD), (-PEER_SKEW_SECONDS - 1, Disbelief.TOO_NEW)],
)
def test_of_another_time(
    clock: Clock, signer: Signer, judge: Judge, seconds: float, expected: Disbelief
) -> None:
    """What was held up is refused, and so is what comes from the future: a clock is wrong."""
    request = sign(signer)
    clock.seconds += seconds
    assert why(judge, *request) is expected


@pytest.mark.parametrize("seconds", [PEER_SKEW_SECONDS - 1, 1 - PEER_SKEW_SECONDS])
def test_clocks_may_differ_a_little(clock: Clock, signer: Signer, judge: Judge, seconds: float) -> None:
    """Clocks need not agree to the second."""
    request = sign(signer)
    clock.seconds += seconds
    judge.judge(*request)


def test_once(signer: Signer, judge: Judge) -> None:
    """What has come once does not come again, also when others have come since."""
    requests = [sign(signer) for _ in range(100)]
    for request in [*requests[::2], *reversed(requests[1::2])]:
        judge.judge(*request)
    for request in requests:
        assert why(judge, *request) is Disbelief.REPLAYED


def test_the_window_moves(signer: Signer, judge: Judge) -> None:
    """A number that is older than all that is remembered is refused: nobody knows whether it has come."""
    requests = [sign(signer) for _ in range(3)]
    judge.judge(*requests[1])
    for _ in range(WINDOW):
        last = sign(signer)
    judge.judge(*last)
    assert [why(judge, *request) for request in requests] == [Disbelief.REPLAYED] * 3


@pytest.mark.parametrize("jump", [1, 7, 8, 9, 1000, WINDOW - 1])
def test_numbers_that_were_left_out(signer: Signer, judge: Judge, jump: int) -> None:
    """Those between two that have come are still good, each once, wherever the ring begins anew."""
    judge.judge(*sign(signer))
    between = [sign(signer) for _ in range(jump)]
    judge.judge(*sign(signer))
    some = between[:: max(1, jump // 50)]
    for request in some:
        judge.judge(*request)
    assert {why(judge, *request) for request in some} == {Disbelief.REPLAYED}


def test_senders_are_remembered_within_a_bound(clock: Clock, judge: Judge) -> None:
    """Of the members that there have been, those are forgotten that were silent for longest."""
    for number in range(PEER_SENDERS + 10):
        judge.judge(*sign(Signer(f"{number:016x}", [KEY], now=clock)))
    assert len(judge._senders) == PEER_SENDERS


@pytest.mark.parametrize(
    "claim",
    [
        b"",
        b"v1",
        b"v1 b 1 1",
        b"v1 b x 1 mac",
        b"v1 b 1 -1 mac",
        b"v1 b 1 1 mac more",
        b"v1 b 99999999999999999999 1 mac",
        b"v1  1 1 \xff",
    ],
)
def test_malformed(signer: Signer, judge: Judge, claim: bytes) -> None:
    """Whatever else stands there is no signature."""
    method, target, fields = sign(signer)
    reason = why(judge, method, target, [(b"Msp-Peer", claim), *fields[1:]])
    assert reason in (Disbelief.UNSIGNED, Disbelief.OTHER_VERSION, Disbelief.WRONG_MAC)


def test_unsigned(judge: Judge) -> None:
    """A request like any other's is nobody's here, and neither is an empty one."""
    assert why(judge, "POST", "/mcp", [(b"Host", b"h"), (b"Accept", b"*/*")]) is Disbelief.UNSIGNED
    assert why(judge, "GET", "/", []) is Disbelief.UNSIGNED


def test_a_later_version(signer: Signer, judge: Judge) -> None:
    """Another way to sign is not guessed at."""
    method, target, fields = sign(signer)
    later = (b"Msp-Peer", fields[0][1].replace(b"v1", b"v2", 1))
    assert why(judge, method, target, [later, *fields[1:]]) is Disbelief.OTHER_VERSION
