import signal
import socket
import subprocess
import sys

import pytest

from mcp_session_proxy.demo import show
from mcp_session_proxy.settings.config import load
from mcp_session_proxy.settings.values import Address

pytestmark = pytest.mark.slow

ANY_PORT = "127.0.0.1:0"


def settings(**options):
    """Settings as the command line makes them for the demonstration."""
    return load({"upstream": show.PLACEHOLDER_URL, **options})


class TestEndingByItself:
    def test_shows_the_difference(self, capfd):
        """Every call fails directly, and through the proxy they share one count and one session."""
        assert show.run(settings(), stay=False) == 0
        printed = capfd.readouterr().out
        assert "5 of 5 fail" in printed
        assert "5 of 5 work" in printed
        (line,) = [line for line in printed.splitlines() if "by the proxy, at the server" in line]
        assert line.split()[-4] == "1"

    def test_says_nothing_else_unless_asked(self):
        """Log lines would stand between the tables; who wants them names a level."""
        command = [sys.executable, "-m", "mcp_session_proxy", "demo"]
        for options, logged in (([], False), (["--log-level", "info"], True)):
            done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=60)
            assert done.returncode == 0
            assert ("session.opened" in done.stderr) is logged

    def test_works_without_an_admin_listener(self, capfd):
        """Without metrics there is no churn to show, and nothing else is missing."""
        assert show.run(settings(admin_listen="off"), stay=False) == 0
        assert "churn" not in capfd.readouterr().out

    def test_a_taken_port_is_named_with_its_option(self, capfd):
        """Whoever uses the port already, the way out is an option."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            assert show.run(settings(listen=address), stay=False) == 1
        printed = capfd.readouterr().err
        assert address in printed
        assert "--listen" in printed


class TestStaying:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_stays_up_until_told_to_stop(self, number):
        """It prints what to try, waits, and leaves with status 0 and nothing behind."""
        command = [sys.executable, "-m", "mcp_session_proxy", "demo", "--serve"]
        command += ["--listen", ANY_PORT, "--admin-listen", ANY_PORT]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert any("Or point an MCP client at" in line for line in process.stdout)
            assert process.poll() is None
            process.send_signal(number)
            assert process.wait(timeout=30) == 0


class TestPorts:
    def test_needs_no_known_port_to_end_by_itself(self):
        """Nobody will call it by hand, so it takes what is free."""
        adapted = show.adapt(settings(), "http://127.0.0.1:5/mcp", stay=False)
        assert adapted.admin_listen is not None
        assert (adapted.listen.port, adapted.admin_listen.port) == (0, 0)
        assert adapted.upstream == "http://127.0.0.1:5/mcp"

    def test_keeps_the_ports_that_were_asked_for(self):
        """An explicit choice is a choice."""
        adapted = show.adapt(settings(listen="127.0.0.1:7"), "http://127.0.0.1:5/mcp", stay=False)
        assert adapted.listen == Address("127.0.0.1", 7)

    def test_stays_on_the_usual_ports(self):
        """Commands to try are easier with ports that one knows."""
        adapted = show.adapt(settings(), "http://127.0.0.1:5/mcp", stay=True)
        assert adapted.admin_listen is not None
        assert (adapted.listen.port, adapted.admin_listen.port) == (8080, 9090)
