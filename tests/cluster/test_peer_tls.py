"""Members that speak TLS to each other."""

import asyncio
import ssl
from pathlib import Path

import pytest
from aiohttp import web
from certificates import Authority
from peer_bench import KEY, OWNER, SENDER, Pair
from yarl import URL

from mcp_session_proxy.cluster.card import Card
from mcp_session_proxy.cluster.outcomes import PeerBroke, PeerUnreachable
from mcp_session_proxy.cluster.peer_signature import PeerClient, write_client
from mcp_session_proxy.cluster.peers import Peers
from mcp_session_proxy.settings.config import load

FIELDS = write_client(PeerClient(1, "https", 1, None)) + b"\r\nHost: h"


async def start(pair: Pair, tmp_path: Path, name: str = "127.0.0.1") -> Authority:
    authority = Authority(tmp_path)
    cert, key = authority.issue(name)
    await pair.start(peer_listen="127.0.0.1:0", peer_ca=authority.file, peer_cert=cert, peer_key=key)
    return authority


async def ask(pair: Pair, tls: ssl.SSLContext) -> None:
    peers = Peers(SENDER, [KEY], tls=tls)
    try:
        (await peers.send(pair.card, b"POST /mcp", FIELDS, b"{}")).close()
    finally:
        peers.close()


async def test_both_show_what_they_have(idle_pair: Pair, tmp_path: Path) -> None:
    """A request goes there and comes back."""
    await start(idle_pair, tmp_path)
    assert idle_pair.card.addresses[0].startswith("https://127.0.0.1:")
    idle_pair.answer = web.Response(text="answered")
    async with idle_pair.http.post(idle_pair.url, data=b"{}") as response:
        assert await response.text() == "answered"


async def test_who_shows_nothing(idle_pair: Pair, tmp_path: Path) -> None:
    """A client without a certificate, or with one of a stranger's, has nothing answered."""
    authority = await start(idle_pair, tmp_path)
    (tmp_path / "other").mkdir()
    stranger = Authority(tmp_path / "other").issue("127.0.0.1")
    for identity in (None, stranger):
        with pytest.raises((PeerBroke, PeerUnreachable)):
            await ask(idle_pair, authority.client_context(identity))
    assert idle_pair.seen == []


async def test_a_stranger_at_its_address(idle_pair: Pair, tmp_path: Path) -> None:
    """Whoever shows a certificate that is not the authority's is sent nothing."""
    await start(idle_pair, tmp_path)
    (tmp_path / "other").mkdir()
    with pytest.raises(PeerUnreachable):
        await ask(idle_pair, Authority(tmp_path / "other").client_context())
    assert idle_pair.seen == []


async def test_a_certificate_of_another_host(idle_pair: Pair, tmp_path: Path) -> None:
    """A member is called by the host in its URL, and its certificate must name that."""
    await start(idle_pair, tmp_path, "other.example")
    async with idle_pair.http.post(idle_pair.url, data=b"{}") as response:
        assert response.status == 503
    assert isinstance(idle_pair.failures[0], PeerUnreachable)


async def test_certificates_are_renewed(idle_pair: Pair, tmp_path: Path) -> None:
    """What SIGHUP reads again counts for new connections, at both ends."""
    authority = await start(idle_pair, tmp_path)
    port = URL(idle_pair.card.addresses[0]).port
    assert port is not None
    shown = authority.client_context(authority.issue("client"))

    async def certificate() -> object:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=shown)
        found = writer.get_extra_info("peercert")["serialNumber"]
        writer.close()
        return found

    before = await certificate()
    cert, key = authority.issue("127.0.0.1")
    idle_pair.tls.renew(
        load(
            {
                "upstream": "http://127.0.0.1:1/mcp",
                "peer_listen": "127.0.0.1:0",
                "peer_ca": authority.file,
                "peer_cert": cert,
                "peer_key": key,
            }
        )
    )
    assert await certificate() != before
    async with idle_pair.http.post(idle_pair.url, data=b"{}") as response:
        assert response.status == 200


async def test_a_plain_member(idle_pair: Pair) -> None:
    """On loopback it does without."""
    await idle_pair.start(peer_listen="127.0.0.1:0")
    assert idle_pair.card.addresses[0].startswith("http://127.0.0.1:")
    async with idle_pair.http.post(idle_pair.url, data=b"{}") as response:
        assert response.status == 200
    tls = Card(
        member=OWNER,
        pid=1,
        started=0.0,
        version="1",
        addresses=[idle_pair.card.addresses[0].replace("http:", "https:")],
    )
    idle_pair.card = tls
    with pytest.raises(PeerUnreachable):
        await ask(idle_pair, ssl.create_default_context())
