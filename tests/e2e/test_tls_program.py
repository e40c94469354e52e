"""The program with TLS on both sides, certificates of clients included."""

from pathlib import Path

import aiohttp
import pytest
from certificates import Authority
from http_server import HttpServer
from messages import call

from .launch import Fleet

pytestmark = pytest.mark.slow


async def test_tls_on_both_sides(owned: Fleet, tmp_path: Path) -> None:
    """A client with a certificate calls a server that wants one of the proxy; nobody else gets in."""
    authority = Authority(tmp_path)
    cert, key = authority.issue("127.0.0.1")
    own_cert, own_key = authority.issue("proxy.example")
    async with HttpServer(tls=authority.server_context(wants_client=True)) as server:
        proxy = owned.new_proxy(
            server.url,
            *("--upstream-ca", str(authority.file)),
            *("--upstream-cert", str(own_cert), "--upstream-key", str(own_key)),
            *("--tls-cert", str(cert), "--tls-key", str(key), "--tls-client-ca", str(authority.file)),
            ready=False,
        )
        assert proxy.origin.startswith("https://")
        known = authority.client_context(authority.issue("client.example"))
        async with aiohttp.ClientSession() as http:
            for count in (1, 2):
                async with http.post(proxy.url, json=call(), ssl=known) as response:
                    assert (await response.json())["result"] == {"count": count}
            with pytest.raises(aiohttp.ClientError):
                await http.post(proxy.url, json=call(), ssl=authority.client_context())
        assert proxy.stop() == 0
    said = proxy.program.log.read_text()
    assert f"listening on  {proxy.origin}" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("option", ["--tls-cert", "--upstream-ca"])
def test_a_missing_file_ends_the_program(owned: Fleet, tmp_path: Path, option: str) -> None:
    """The message names the option and the file; the status is that of wrong usage."""
    cert, key = Authority(tmp_path).issue("127.0.0.1")
    options = {"--tls-cert": str(cert), "--tls-key": str(key), option: "/no/such/file.pem"}
    words = [word for pair in options.items() for word in pair]
    proxy = owned.new_proxy("https://127.0.0.1:1/mcp", *words, start=False)
    with pytest.raises(Exception, match=f"exited with 2(.|\n)*{option}: /no/such/file.pem cannot be read"):
        proxy.start()
