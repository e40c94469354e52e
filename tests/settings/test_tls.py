"""TLS on both sides of the proxy: real handshakes with certificates made for the test."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from certificates import Authority
from http_server import HttpServer
from messages import INITIALIZE, call
from proxy_bench import PATIENCE_SECONDS, Bench, until

from mcp_session_proxy.assembly.proxy import Proxy
from mcp_session_proxy.ops.introspection import Phase
from mcp_session_proxy.settings.config import load
from mcp_session_proxy.settings.sources import ConfigError
from mcp_session_proxy.settings.tls import listener_context, upstream_context

PLAIN = "http://127.0.0.1:1/mcp"
SECURE = "https://127.0.0.1:1/mcp"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"))


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Any]]:
    """Starts benches: a server, perhaps with TLS, and a proxy with these options in front of it."""
    running: list[Any] = []

    async def start(server_tls: ssl.SSLContext | None = None, **options: Any) -> Bench:
        server = HttpServer(tls=server_tls)
        running.append(await server.__aenter__())
        bench = Bench(server)
        running.append(await bench.__aenter__())
        await bench.start(**options)
        return bench

    yield start
    for thing in reversed(running):
        await thing.__aexit__()


async def exchange(bench: Bench, context: ssl.SSLContext | None = None) -> tuple[int, Any]:
    """One call at the endpoint, without a session: its HTTP status and its JSON."""
    connector = aiohttp.TCPConnector(ssl=context or True)
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        http.post(bench.url, json=call(), headers={"Accept": "application/json"}) as response,
    ):
        return response.status, await response.json()


# -- towards the server ----------------------------------------------------------------------------


async def test_a_server_with_a_certificate_of_the_given_authority_is_trusted(start, authority):
    """--upstream-ca makes the server's certificate good: calls work, the probe does, too."""
    bench = await start(authority.server_context(), upstream_ca=str(authority.file))
    status, answer = await exchange(bench)
    assert (status, answer["result"]) == (200, {"count": 1})
    await until(lambda: bench.proxy.snapshot.readiness().ready == 1)


async def test_other_paths_trust_the_same_authority(start, authority):
    """What is passed through goes over the same kind of connection."""
    bench = await start(authority.server_context(), upstream_ca=str(authority.file))
    async with bench.http.get(f"{bench.proxy.listen_url}/health") as response:
        assert response.status == 404
        assert (await response.json())["error"]["message"] == "Session not found"


async def test_a_server_of_another_authority_is_refused(start, authority, stranger):
    """A wrong authority is a 502 that names the option, at once, and the proxy is not ready."""
    bench = await start(authority.server_context(), upstream_ca=str(stranger.file))
    async with asyncio.timeout(PATIENCE_SECONDS):
        status, answer = await exchange(bench)
    assert (status, answer["error"]["data"]["reason"]) == (502, "upstream-protocol-error")
    assert "--upstream-ca" in answer["error"]["message"]
    async with bench.http.get(f"{bench.proxy.listen_url}/health") as response:
        assert response.status == 502
    await until(lambda: bench.proxy.snapshot.readiness().phase is Phase.UPSTREAM_DOWN)
    assert bench.server.seen == []


async def test_a_server_of_an_unknown_authority_is_refused_by_default(start, authority):
    """Without --upstream-ca the system's authorities count, which never heard of this one."""
    bench = await start(authority.server_context())
    status, answer = await exchange(bench)
    assert (status, answer["error"]["data"]["reason"]) == (502, "upstream-protocol-error")


async def test_the_name_in_the_servers_certificate_counts(start, authority):
    """A certificate for another name is refused even if its authority is right."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("elsewhere.example"))
    bench = await start(context, upstream_ca=str(authority.file))
    assert (await exchange(bench))[0] == 502


async def test_a_server_that_asks_gets_the_proxys_certificate(start, authority):
    """--upstream-cert is shown to a server that wants one."""
    cert, key = authority.issue("proxy.example")
    bench = await start(
        authority.server_context(wants_client=True),
        upstream_ca=str(authority.file),
        upstream_cert=str(cert),
        upstream_key=str(key),
    )
    assert (await exchange(bench))[0] == 200
    request, _ = bench.server.seen[0]
    assert "proxy.example" in str(request.get_extra_info("peercert"))


async def test_a_server_that_asks_in_vain_is_an_error_of_the_servers(start, authority):
    """Without --upstream-cert such a server ends the connection, and the client gets an error."""
    bench = await start(
        authority.server_context(wants_client=True), upstream_ca=str(authority.file), acquire_timeout="300ms"
    )
    assert (await exchange(bench))[0] in (502, 503)
    assert bench.server.seen == []


# -- towards clients -------------------------------------------------------------------------------


async def test_clients_connect_by_https(start, authority):
    """--tls-cert turns the listener's URLs into https, and calls go over it."""
    cert, key = authority.issue("127.0.0.1")
    bench = await start(tls_cert=str(cert), tls_key=str(key))
    assert bench.proxy.listen_url.startswith("https://127.0.0.1:")
    assert bench.proxy.endpoint_url == bench.url
    status, answer = await exchange(bench, authority.client_context())
    assert (status, answer["result"]) == (200, {"count": 1})


async def test_pages_of_the_same_https_origin_may_call(start, authority):
    """The origin of a request over TLS is compared as https."""
    cert, key = authority.issue("127.0.0.1")
    bench = await start(tls_cert=str(cert), tls_key=str(key), allowed_host="127.0.0.1")
    options = {"json": INITIALIZE, "ssl": authority.client_context()}
    for origin, status in ((bench.proxy.listen_url, 200), ("http://evil.example", 403)):
        async with bench.http.post(bench.url, headers={"Origin": origin}, **options) as response:
            assert response.status == status


async def test_a_client_that_does_not_trust_the_proxy_cannot_connect(start, authority, stranger):
    """The certificate shown is the one that was given, and no other."""
    cert, key = authority.issue("127.0.0.1")
    bench = await start(tls_cert=str(cert), tls_key=str(key))
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await exchange(bench, stranger.client_context())


async def test_clients_without_tls_get_no_answer(start, authority):
    """Nothing is served over plain HTTP on a listener with TLS."""
    cert, key = authority.issue("127.0.0.1")
    bench = await start(tls_cert=str(cert), tls_key=str(key))
    with pytest.raises(aiohttp.ClientError):
        await bench.http.get(bench.url.replace("https:", "http:"))
    assert bench.server.seen == []


@pytest.mark.parametrize("shown", ["none", "of another authority"])
async def test_clients_without_a_certificate_of_the_authority_cannot_connect(
    start, authority, stranger, shown, capfd
):
    """--tls-client-ca: no good certificate, no request; and the log is not flooded."""
    cert, key = authority.issue("127.0.0.1")
    bench = await start(tls_cert=str(cert), tls_key=str(key), tls_client_ca=str(authority.file))
    identity = None if shown == "none" else stranger.issue("client.example")
    with pytest.raises(aiohttp.ClientError):
        await exchange(bench, authority.client_context(identity))
    assert bench.server.seen == []
    assert "Traceback" not in capfd.readouterr().err


async def test_clients_with_a_certificate_of_the_authority_are_served(start, authority):
    """--tls-client-ca: a certificate of that authority is the way in."""
    cert, key = authority.issue("127.0.0.1")
    bench = await start(tls_cert=str(cert), tls_key=str(key), tls_client_ca=str(authority.file))
    status, _ = await exchange(bench, authority.client_context(authority.issue("client.example")))
    assert status == 200


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("version", "works"), [(ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True)]
)
async def test_tls_below_1_2_is_not_spoken(start, authority, version, works):
    """The listener takes TLS 1.2 and nothing older."""
    cert, key = authority.issue("127.0.0.1")
    bench = await start(tls_cert=str(cert), tls_key=str(key))
    context = authority.client_context()
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    if works:
        assert (await exchange(bench, context))[0] == 200
    else:
        with pytest.raises(aiohttp.ClientConnectorError):
            await exchange(bench, context)


def test_both_contexts_begin_at_tls_1_2(authority):
    """Nothing older is spoken on either side."""
    cert, key = authority.issue("127.0.0.1")
    settings = load(
        {"upstream": SECURE, "upstream_ca": str(authority.file), "tls_cert": str(cert), "tls_key": str(key)}
    )
    for context in (upstream_context(settings), listener_context(settings)):
        assert context is not None
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2


# -- what is wrong at the start ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"tls_cert": "c"}, "--tls-cert: 'c' is not allowed; it needs --tls-key"),
        ({"tls_key": "k"}, "--tls-key: 'k' is not allowed; it needs --tls-cert"),
        ({"tls_client_ca": "a"}, "--tls-client-ca: 'a' is not allowed; it needs --tls-cert"),
        ({"upstream_cert": "c"}, "--upstream-cert: 'c' is not allowed; it needs --upstream-key"),
        ({"upstream_key": "k"}, "--upstream-key: 'k' is not allowed; it needs --upstream-cert"),
        (
            {"upstream_ca": "a", "upstream": PLAIN},
            "--upstream-ca: 'a' is not allowed; it needs a server with an https URL",
        ),
    ],
)
def test_options_that_mean_nothing_alone_are_refused(options, problem):
    """Half a pair, or TLS options for a server without TLS, would give a false sense of safety."""
    with pytest.raises(ConfigError, match=f"^{problem}$"):
        load({"upstream": SECURE, **options})


def test_files_are_checked(tmp_path: Path, authority, stranger):
    """What is wrong with a file is said with its option and its path."""
    cert, key = authority.issue("a.example")
    other_key = stranger.issue("b.example")[1]
    junk = tmp_path / "junk.pem"
    junk.write_text("nothing\n")
    locked = tmp_path / "locked.pem"
    locked.write_bytes(_encrypted(key))
    missing = tmp_path / "missing.pem"
    pair = {"tls_cert": cert, "tls_key": key}
    for options, problem in (
        ({**pair, "tls_cert": missing}, f"--tls-cert: {missing} cannot be read: No such file or directory"),
        ({**pair, "tls_key": tmp_path}, f"--tls-key: {tmp_path} cannot be read: Is a directory"),
        ({**pair, "tls_key": other_key}, f"--tls-key: {other_key} is not the key of the certificate {cert}"),
        ({**pair, "tls_cert": junk}, f"--tls-cert, --tls-key: {junk} and {key} hold no certificate and key"),
        ({**pair, "tls_key": junk}, f"--tls-cert, --tls-key: {cert} and {junk} hold no certificate and key"),
        ({**pair, "tls_key": locked}, f"--tls-key: {locked} is encrypted"),
        ({**pair, "tls_client_ca": junk}, f"--tls-client-ca: {junk} holds no certificates in PEM form"),
        ({"upstream_ca": missing}, f"--upstream-ca: {missing} cannot be read"),
        ({"upstream_ca": junk}, f"--upstream-ca: {junk} holds no certificates in PEM form"),
        (
            {"upstream_cert": cert, "upstream_key": other_key},
            f"--upstream-key: {other_key} is not the key of the certificate {cert}",
        ),
    ):
        settings = load({"upstream": SECURE, **{name: str(path) for name, path in options.items()}})
        side = upstream_context if any(name.startswith("upstream") for name in options) else listener_context
        with pytest.raises(ConfigError) as caught:
            side(settings)
        assert str(caught.value).startswith(problem)


async def test_a_bad_file_stops_the_start(authority, tmp_path: Path):
    """Nothing listens when a certificate is no good."""
    _, key = authority.issue("127.0.0.1")
    flags = {
        "upstream": PLAIN,
        "listen": "127.0.0.1:0",
        "admin_listen": "off",
        "tls_cert": str(tmp_path / "missing.pem"),
        "tls_key": str(key),
    }
    proxy = Proxy(load(flags))
    with pytest.raises(ConfigError, match="--tls-cert"):
        await proxy.__aenter__()
    assert proxy.listen_url == ""


def _encrypted(key: Path) -> bytes:
    from cryptography.hazmat.primitives import serialization

    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    return loaded.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
