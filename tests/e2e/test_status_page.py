"""The status page in a real Chromium, over the program with a real server behind it and real traffic."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from playwright.async_api import Browser, Page, Route, async_playwright, expect
from stdio_bench import TOY
from token_server import token

from .conftest import Desk
from .launch import Fleet, chromium, program_environment
from .modern_wire import EVERYTHING, TASKS_EXTENSION, ModernCaller
from .wire import Caller, eventually

pytestmark = pytest.mark.e2e

# The page looks every two seconds.
expect.set_options(timeout=60_000)  # none fails because a busy machine was slow

QUIET = """
    disable-background-networking disable-component-update disable-default-apps disable-domain-reliability
    disable-sync disable-extensions no-first-run no-pings disable-dev-shm-usage disable-gpu no-sandbox
"""
TOKEN = "correct-horse-battery"
HOSTILE = "<img src=x onerror=\"document.title='hacked'\"><script>document.title='hacked'</script>"
PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    """Debian's Chromium, headless."""
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(
            executable_path=chromium(),
            args=[f"--{flag}" for flag in QUIET.split()],
            env=program_environment(tmp_path / "chromium"),  # type: ignore[arg-type]
        )
        yield running
        await running.close()


@pytest.fixture
def open_page(browser: Browser) -> Callable[..., Any]:
    """Opens the page in a window of its own; it must neither complain nor ask anybody else for anything."""

    @asynccontextmanager
    async def show(at: Desk, *, complains: bool = False, **options: Any) -> AsyncIterator[Page]:
        context = await browser.new_context(**options)
        page = await context.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        asked: set[str] = set()
        page.on("request", lambda request: asked.add("/".join(request.url.split("/")[:3])))
        await page.goto(f"{at.proxy.admin}/")
        await expect(headline(page)).not_to_have_text("Connecting")
        yield page
        if not complains:
            assert (complaints, asked) == ([], {at.proxy.admin})
        await context.close()

    return show


@pytest.fixture
def page_desk(option_desk: Callable[..., Desk]) -> Callable[..., Desk]:
    """Makes a desk at the counting server, with a proxy of its own."""
    return lambda *options: option_desk("mcp-1.30", *options)


def headline(page: Page) -> Any:
    """Whether it is ready, in a word."""
    return page.locator("#headline")


def rows(page: Page, table: str = "upstream") -> Any:
    """The rows of a table."""
    return page.locator(f"#{table} tbody tr")


def button(page: Page, name: str) -> Any:
    """A button by what it says."""
    return page.get_by_role("button", name=name, exact=True)


async def tag(at: Desk) -> str:
    """The one upstream session there is."""
    (session,) = at.proxy.json("/sessions")["upstream_sessions"]
    return str(session["session"])


def cells(page: Page, table: str = "upstream") -> Any:
    """Of the first row, the texts by column."""
    return rows(page, table).first.evaluate(
        "row => Object.fromEntries([...row.cells].map(cell => [cell.dataset.label, cell.textContent]))"
    )


# -- what it shows ---------------------------------------------------------------------------------


async def test_shows_what_there_is(page_desk: Callable[..., Desk], open_page: Callable[..., Any]) -> None:
    """Readiness, servers, both kinds of sessions, churn and events; what happens later shows by itself."""
    at = page_desk()
    session = await at.caller.open(client="inspector")
    await at.caller.call("echo", {"message": "hello"}, session=session)
    async with open_page(at) as page:
        await expect(headline(page)).to_have_text("Ready")
        assert await page.title() == "Ready · mcp-session-proxy"
        await expect(page.locator("#servers tbody tr")).to_have_count(1)
        await expect(page.locator("#servers")).to_contain_text(at.server.origin)
        seen = await cells(page)
        assert (seen["Session"], seen["Client"], seen["Affinity"]) == (await tag(at), "inspector", "no")
        assert (seen["Requests"], seen["In flight"], seen["Parked"]) == ("1", "0", "0")
        (client,) = at.proxy.json("/sessions")["client_sessions"]
        seen = await cells(page, "clients")
        assert (seen["Session"], seen["Principal"]) == (client["client"], client["principal"])
        assert seen["Upstream"] == await tag(at)
        await expect(page.locator("#churn-text")).to_have_text(
            "In the last hour clients began 1 session and ended 0; the server saw 1 opened and 0 closed."
        )
        await expect(page.locator("#events")).to_contain_text("session.opened")
        await at.caller.delete(session)
        await at.another().open()
        await expect(rows(page)).to_have_count(2)
        await expect(page.locator("#churn-text")).to_have_text(
            "In the last hour clients began 2 sessions and ended 1; the server saw 2 opened and 0 closed."
        )
        bars = await page.locator("#plot rect.began").evaluate_all(
            "bars => bars.map(bar => Number(bar.getAttribute('height')))"
        )
        assert len(bars) == 60
        assert max(bars[-2:]) > 0 == max(bars[:-2])


async def test_tasks_by_status(option_desk: Callable[..., Desk], open_page: Callable[..., Any]) -> None:
    """How many there are, and how they stand."""
    at = option_desk("tasks-ts")
    caller = ModernCaller(at.http, at.proxy.url, capabilities=EVERYTHING | TASKS_EXTENSION)
    async with open_page(at) as page:
        number = page.locator("#numbers > div").filter(has_text="Tasks")
        await expect(number).to_have_text("Tasks0of 1,000")
        await caller.call_modern("confirm_delete", {"filename": "a"})
        for label in "ab":
            await caller.call_modern("slow_compute", {"seconds": 3600, "label": label})
        await expect(number).to_have_text("Tasks32 working, 1 input required")


async def test_names_from_outside_are_text(
    page_desk: Callable[..., Desk], open_page: Callable[..., Any]
) -> None:
    """A client may call itself what it likes: it is shown as it is, and does nothing."""
    at = page_desk()
    await at.caller.open(client=HOSTILE)
    async with open_page(at) as page:
        await expect(rows(page)).to_have_count(1)
        assert (await cells(page))["Client"] == HOSTILE
        await expect(page.locator("#events")).to_contain_text(HOSTILE)
        assert await page.locator("main img, main script").count() == 0
        assert await page.title() == "Ready · mcp-session-proxy"


async def test_markup_is_impossible(page_desk: Callable[..., Desk], open_page: Callable[..., Any]) -> None:
    """Even a mistake in the page's own script could not turn text into markup or code."""
    async with open_page(page_desk(), complains=True) as page:
        for attempt in (
            "document.body.innerHTML = '<b>x</b>'",
            "document.body.insertAdjacentHTML('beforeend', '<b>x</b>')",
        ):
            with pytest.raises(Exception, match="TrustedHTML"):
                await page.evaluate(attempt)
        async with page.expect_console_message(lambda said: "Content Security Policy" in said.text):
            await page.evaluate(
                "document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/elsewhere'}))"
            )


async def test_tables_sort_and_filter(page_desk: Callable[..., Desk], open_page: Callable[..., Any]) -> None:
    """By any column, both ways; by any text."""
    at = page_desk()
    for name in ("beta", "alpha", "gamma"):
        await at.another().open(client=name)
    async with open_page(at) as page:
        names = page.locator("#upstream td[data-label=Client] .value")
        await expect(names).to_have_text(["gamma", "alpha", "beta"])  # the newest first
        header = page.locator("#upstream").get_by_role("columnheader", name="Client")
        for order, expected in (
            ("ascending", ["alpha", "beta", "gamma"]),
            ("descending", ["gamma", "beta", "alpha"]),
        ):
            await header.get_by_role("button").click()
            await expect(header).to_have_attribute("aria-sort", order)
            await expect(names).to_have_text(expected)
        await page.keyboard.press("/")
        await page.keyboard.type("ALPH")
        await expect(names).to_have_text(["alpha"])
        await expect(page.locator("#upstream-count")).to_have_text("1 fit, of 3")


async def test_many_sessions(page_desk: Callable[..., Desk], open_page: Callable[..., Any]) -> None:
    """The first ones are shown, the newest 200 when asked for, and always how many there are."""
    at = page_desk("--sharing", "shared")
    for number in range(205):
        await at.caller.initialize(client=f"client {number}")
    async with open_page(at) as page:
        await expect(page.locator("#clients-count")).to_have_text("the newest 200 of 205")
        await expect(rows(page, "clients")).to_have_count(40)
        await button(page, "Show all 200").click()
        await expect(rows(page, "clients")).to_have_count(200)
        (newest, *_) = at.proxy.json("/sessions")["client_sessions"]
        assert (await cells(page, "clients"))["Session"] == newest["client"]


async def test_processes_show(
    owned: Fleet, http: aiohttp.ClientSession, open_page: Callable[..., Any]
) -> None:
    """Where the server is a command: each process, whose it is, and what it said last."""
    proxy = owned.new_stdio_proxy(TOY)
    async with open_page(SimpleNamespace(proxy=proxy)) as page:
        await expect(page.locator("#children-card")).to_be_hidden()
        await Caller(http, proxy.url).call("words", {"text": HOSTILE})
        await expect(rows(page, "children")).to_have_count(1)
        seen = await cells(page, "children")
        (session,) = proxy.json("/sessions")["upstream_sessions"]
        assert (seen["Session"], seen["State"], seen["Strays"]) == (session["session"], "serving", "0")
        assert seen["Said last on standard error"] == HOSTILE
    proxy.stop()


async def test_trouble_shows(own_desk: Callable[..., Desk], open_page: Callable[..., Any]) -> None:
    """A server that goes away and comes back: the word, the reason, the events, and only the problems."""
    at = own_desk("mcp-1.30")
    async with open_page(at) as page:
        await expect(headline(page)).to_have_text("Ready")
        await expect(page.locator("#last-problem")).to_have_text("No problem since the start.")
        at.server.stop()
        await expect(headline(page)).to_have_text("Server down")
        await expect(page.locator("#sentence")).to_contain_text(
            f"{at.server.origin} has taken no connections for"
        )
        await expect(page.locator("#heard")).to_have_text("upstream.down")
        await expect(page.locator("#last-problem")).to_have_text(
            re.compile(r"^upstream\.down: .*last problem, \d+ s ago$")
        )
        at.server.start()
        await expect(headline(page)).to_have_text("Ready")
        await expect(page.locator("#events")).to_contain_text("upstream.up")
        await page.get_by_label("problems only").check()
        shown = page.locator("#events li:visible b")
        await expect(shown).to_have_text(["upstream.down (warning)"])


async def test_traffic_shows(page_desk: Callable[..., Desk], open_page: Callable[..., Any]) -> None:
    """How much goes through and how fast, by era where there are both."""
    at = page_desk()
    session = await at.caller.open()
    for _ in range(20):
        await at.caller.call("echo", {"message": "hello"}, session=session)
    async with open_page(at) as page:
        await expect(page.locator("#numbers")).to_contain_text(
            re.compile(r"Calls per second\d+(\.\d)?legacy")
        )
        await expect(page.locator("#numbers")).to_contain_text(
            re.compile(r"Latency p95[\d.]+ m?sp50 [\d.]+ m?s")
        )


async def test_trouble_is_summed_up(own_desk: Callable[..., Desk], open_page: Callable[..., Any]) -> None:
    """By what and why, with the way to what to do; sessions at a server that is away are not green."""
    at = own_desk("mcp-1.30", "--acquire-timeout", "1s")
    session = await at.caller.open()
    await at.caller.call("increment", session=session)
    async with open_page(at) as page:
        await expect(page.locator("#no-troubles")).to_have_text("Nothing went wrong.")
        state = page.locator("#upstream td[data-label=State]")
        server = page.locator("#upstream td[data-label=Server]")
        await expect(server).to_have_text(at.server.origin.removeprefix("http://"))
        assert await state.get_attribute("data-mood") in ("ok", "active")
        at.server.kill()
        await expect(headline(page)).to_have_text("Server down")
        await expect(state).to_have_text(re.compile("server down$"))
        await expect(state).to_have_attribute("data-mood", "bad")
        for _ in range(3):
            await at.another().initialize()
        troubles = page.locator("#troubles li")
        await expect(troubles.filter(has_text="server away")).to_have_count(1)
        failed = troubles.filter(has_text="request failed")
        await expect(failed).to_contain_text(re.compile(r"^3 .request failed: upstream-\w+ last \d+ s ago"))
        link = failed.get_by_role("link", name=re.compile("What to do: upstream-"))
        await link.click()
        await expect(page).to_have_url(re.compile(r"/runbook#upstream-\w+$"))
        target = page.locator(":target")
        await expect(target).to_contain_text("upstream-")
        await expect(target).to_be_in_viewport()
        await page.get_by_role("link", name="Status", exact=True).click()
        await expect(headline(page)).to_have_text("Server down")


async def test_tokens_show(page_desk: Callable[..., Desk], open_page: Callable[..., Any]) -> None:
    """What became of them, and whose are not believed; an issuer may call itself what it likes."""
    at = page_desk()
    async with open_page(at) as page:
        await expect(page.locator("#tokens-mode")).to_have_text("the server says who they speak for")
        await expect(page.locator("#tokens")).to_have_text("No token has claimed to speak for anybody.")
        first = at.another(token=token(iss=HOSTILE))  # this server takes any
        session = await first.open()
        await eventually(lambda: _asked(at))
        # Its handshake may have ended before that was found out or after it, so it is used once more.
        assert (await first.ask("ping", session=session)).status == 200
        await at.another(token=token(iss=HOSTILE)).open()
        await expect(page.locator("#tokens")).to_have_text(
            "Since the start: 0 accepted, 0 refused, 2 not believed."
        )
        await expect(page.locator("#unchecked")).to_have_text(
            f"Taken with any signature, so not believed: tokens of {HOSTILE}"
        )
        await expect(page.locator("#troubles")).to_contain_text("tokens not checked by the server")
        assert await page.locator("main img, main script").count() == 0


async def _asked(at: Desk) -> bool:
    return bool(at.proxy.json("/api/v1/status")["tokens"]["unchecked_issuers"])


async def test_callers_at_fault_are_no_trouble(
    option_desk: Callable[..., Desk], open_page: Callable[..., Any]
) -> None:
    """Refused callers are told calmly, and neither they nor comings and goings hide what matters."""
    at = option_desk("mcp-1.30-auth")
    await at.another(token="alice-a").open()
    for _ in range(3):
        assert (await at.another(token=None).initialize()).status == 401
    async with open_page(at) as page:
        shown = page.locator("#events li:visible b")
        await expect(shown).to_have_text(["upstream.up", "proxy.started"])
        await page.get_by_label("routine, too").check()
        await expect(shown).to_have_text(
            [*["request.failed"] * 3, "client.created", "session.opened", "upstream.up", "proxy.started"]
        )
        await expect(page.locator("#troubles li")).to_have_text(
            re.compile("^3 .caller refused: upstream-rejected")
        )
        await expect(page.locator("#last-problem")).to_have_text("No problem since the start.")
        assert at.proxy.json("/api/v1/status")["churn"]["failures"][-1] == 0


async def test_says_when_the_proxy_is_silent(
    page_desk: Callable[..., Desk], open_page: Callable[..., Any]
) -> None:
    """A page that cannot know any more says so, and forbids what it cannot do."""
    at = page_desk()
    async with open_page(at, complains=True) as page:
        at.proxy.program.kill()
        await expect(headline(page)).to_have_text("No answer")
        await expect(button(page, "Pause")).to_be_disabled()


async def test_the_plot_can_be_read_without_seeing_it(
    page_desk: Callable[..., Desk], open_page: Callable[..., Any]
) -> None:
    """Minute by minute with the arrow keys."""
    at = page_desk()
    await at.caller.open()
    async with open_page(at) as page:
        await page.locator("#frame").focus()
        await page.keyboard.press("End")
        said = page.locator("#churn-minute")
        await expect(said).to_have_text(
            re.compile(r"^This minute: clients began [01], ended 0; server opened")
        )
        await page.keyboard.press("ArrowLeft")
        await expect(said).to_have_text(re.compile(r"^\d\d:\d\d, 1 min ago: clients began [01], ended 0;"))


# -- what it does ----------------------------------------------------------------------------------


async def test_kill_asks_first(page_desk: Callable[..., Desk], open_page: Callable[..., Any]) -> None:
    """Nothing happens until it is confirmed; then the session is closed at the server, and no other."""
    at = page_desk()
    other = at.another()
    for caller in (at.caller, other):
        await caller.call("increment", session=await caller.open())
    victim = next(
        each["session"]
        for each in at.proxy.json("/sessions")["upstream_sessions"]
        if each["principal"] == at.proxy.json("/sessions")["client_sessions"][-1]["principal"]
    )
    async with open_page(at) as page:
        kill = button(page, f"Kill session {victim}")
        for dismiss in ("Cancel", "Escape"):
            await kill.click()
            dialog = page.get_by_role("dialog", name=f"Kill session {victim}?")
            await expect(dialog).to_be_visible()
            await expect(button(page, "Cancel")).to_be_focused()
            await (page.keyboard.press("Escape") if dismiss == "Escape" else button(page, "Cancel").click())
            await expect(dialog).to_be_hidden()
            await expect(kill).to_be_focused()
        await expect(rows(page)).to_have_count(2)
        assert (await at.stats())["sessions"]["closed"] == 0
        await kill.click()
        await button(page, "Kill session").click()
        await expect(page.locator("#said")).to_have_text(f"Killed {victim}")
        await expect(rows(page)).to_have_count(1)
        await expect(page.locator("#events")).to_contain_text("operator.acted")
    assert (await at.stats())["sessions"]["closed"] == 1
    assert (await at.stats(other))["sessions"]["closed"] == 0


async def test_killed_before_it_was_confirmed(
    page_desk: Callable[..., Desk], open_page: Callable[..., Any]
) -> None:
    """What the proxy refuses is told where it was asked for."""
    at = page_desk()
    await at.caller.open()
    async with open_page(at, complains=True) as page:
        name = await tag(at)
        await button(page, f"Kill session {name}").click()
        headers = {"X-Requested-With": "test"}
        async with at.http.delete(f"{at.proxy.admin}/api/v1/sessions/{name}", headers=headers) as response:
            assert response.status == 200
        await button(page, "Kill session").click()
        await expect(page.get_by_role("alert").first).to_contain_text("No upstream session has this tag")


async def test_pause_and_resume(page_desk: Callable[..., Desk], open_page: Callable[..., Any]) -> None:
    """Requests wait while it is paused, and the page says so."""
    at = page_desk("--acquire-timeout", "60s")
    async with open_page(at) as page:
        await button(page, "Pause").click()
        await page.get_by_role("dialog").get_by_role("button", name="Pause").click()
        await expect(headline(page)).to_have_text("Paused")
        waiting = asyncio.create_task(at.caller.call("echo", {"message": "hello"}))
        await expect(page.locator("#numbers")).to_contain_text(re.compile(r"Waiting for a session1of"))
        assert not waiting.done()
        await button(page, "Resume").click()
        await page.get_by_role("dialog").get_by_role("button", name="Resume").click()
        await expect(headline(page)).to_have_text("Ready")
        assert (await waiting).text == "Echo: hello"


async def test_reconnect(page_desk: Callable[..., Desk], open_page: Callable[..., Any]) -> None:
    """Every session is replaced."""
    at = page_desk()
    await at.caller.call("echo", {"message": "hello"})
    former = await tag(at)
    async with open_page(at) as page:
        await button(page, "Reconnect").click()
        await page.get_by_role("dialog").get_by_role("button", name="Reconnect all").click()
        await expect(page.locator("#said")).to_have_text("1 session to be replaced")
        await expect(rows(page)).to_have_count(0)
        await at.caller.call("echo", {"message": "hello"})
        await expect(rows(page)).to_have_count(1)
        assert await tag(at) != former


async def test_drain_ends_the_program(page_desk: Callable[..., Desk], open_page: Callable[..., Any]) -> None:
    """As SIGTERM does: the call in flight is finished, the sessions are given back, the status is 0."""
    at = page_desk()
    session = await at.caller.open()
    async with open_page(at, complains=True) as page:
        slow = asyncio.create_task(at.caller.call("slow", {"seconds": 4}, session=session))
        await eventually(lambda: _in_flight(at))
        await button(page, "Drain").click()
        await page.get_by_role("dialog").get_by_role("button", name="Drain and end").click()
        await expect(page.locator("#said")).to_have_text("Draining; 1 request in flight")
        await expect(headline(page)).to_have_text("Draining")
        assert (await slow).status == 200
        await expect(headline(page)).to_have_text("Ended")
    process = at.proxy.program.process
    assert process is not None
    assert process.wait(10) == 0
    assert (await at.stats())["sessions"]["live"] == 0


async def _in_flight(at: Desk) -> bool:
    return bool(at.proxy.json("/api/v1/status")["totals"]["in_flight"])


async def test_keyboard(page_desk: Callable[..., Desk], open_page: Callable[..., Any]) -> None:
    """Everything can be reached and done without a mouse, and what has the focus is to be seen."""
    at = page_desk()
    await at.caller.open()
    async with open_page(at) as page:
        for _ in range(3):
            await page.keyboard.press("Tab")
            outline = "getComputedStyle(document.activeElement).outlineStyle"
            assert await page.evaluate(outline) == "solid"
        await expect(button(page, "Drain")).to_be_focused()
        await page.keyboard.press("Shift+Tab")
        await page.keyboard.press("Enter")
        await expect(button(page, "Cancel")).to_be_focused()
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await expect(page.locator("#said")).to_have_text("1 session to be replaced")
        # A row's button keeps the focus while the table is refreshed.
        await at.another().open()
        kill = button(page, f"Kill session {await _newest(at)}")
        await kill.focus()
        await at.another().open()
        await expect(rows(page)).to_have_count(2)
        await expect(kill).to_be_focused()


async def _newest(at: Desk) -> str:
    return str(at.proxy.json("/sessions")["upstream_sessions"][0]["session"])


# -- who may ---------------------------------------------------------------------------------------


async def test_asks_for_the_token(page_desk: Callable[..., Desk], open_page: Callable[..., Any]) -> None:
    """When it is needed and not before, again after a wrong one, and keeps the right one in memory only."""
    at = page_desk("--admin-token", TOKEN)
    async with open_page(at, complains=True) as page:
        await expect(headline(page)).to_have_text("Ready")
        login = page.get_by_role("dialog", name="Admin token")
        await expect(login).to_be_hidden()
        await button(page, "Pause").click()
        await page.locator("#ask-yes").click()
        await expect(login).to_be_visible()
        await page.get_by_role("textbox", name="Token").fill("guess")
        await page.keyboard.press("Enter")
        await expect(page.locator("#login-problem")).to_have_text("That is not the token of this proxy.")
        assert at.proxy.json("/api/v1/status")["paused"] is False
        await page.get_by_role("textbox", name="Token").fill(TOKEN)
        await page.keyboard.press("Enter")
        await expect(headline(page)).to_have_text("Paused")
        await button(page, "Resume").click()
        await page.locator("#ask-yes").click()
        await expect(headline(page)).to_have_text("Ready")
        stored = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])"
        assert TOKEN not in await page.evaluate(stored) + await page.content()
        await page.reload()
        await expect(headline(page)).to_have_text("Ready")
        await button(page, "Pause").click()
        await page.locator("#ask-yes").click()
        await expect(login).to_be_visible()
        await page.locator("#login-no").click()
        await expect(login).to_be_hidden()
    log = at.proxy.program.log.read_text()
    assert TOKEN not in log
    assert log.count("operator.refused") == 1


async def test_read_only_beyond_loopback(
    page_desk: Callable[..., Desk], open_page: Callable[..., Any]
) -> None:
    """Without a token, the page of a listener that others can reach shows everything and changes nothing."""
    at = page_desk("--admin-listen", "0.0.0.0:0")
    at.proxy.admin = at.proxy.admin.replace("0.0.0.0", "127.0.0.1")
    await at.caller.open()
    async with open_page(at) as page:
        await expect(rows(page)).to_have_count(1)
        await expect(page.locator("#readonly")).to_contain_text("MCP_SESSION_PROXY_ADMIN_TOKEN")
        for name in ("Pause", "Reconnect", "Drain"):
            await expect(button(page, name)).to_be_disabled()
        await expect(rows(page).locator("button")).to_be_hidden()


ATTACK = """async (admin) => {
  const tried = {};
  const attempt = async (name, options) => {
    tried[name] = await fetch(`${admin}/api/v1/pause`, {method: 'POST', ...options}).then(
      (answer) => answer.type, () => 'failed');
  };
  await attempt('simple', {mode: 'no-cors'});
  await attempt('text', {mode: 'no-cors', body: '{}', headers: {'Content-Type': 'text/plain'}});
  await attempt('header', {headers: {'X-Requested-With': 'mcp-session-proxy'}});
  await attempt('json', {headers: {'Content-Type': 'application/json'}, body: '{}'});
  tried.read = await fetch(`${admin}/sessions`).then((answer) => answer.type, () => 'failed');
  tried.beacon = navigator.sendBeacon(`${admin}/api/v1/pause`, 'x');
  const frame = document.createElement('iframe');
  frame.name = 'sink';
  document.body.append(frame);
  const form = Object.assign(document.createElement('form'), {
    action: `${admin}/api/v1/pause`, method: 'post', target: 'sink', enctype: 'text/plain'});
  document.body.append(form);
  const loaded = new Promise((resolve) => { frame.onload = resolve; });
  form.submit();
  await loaded;
  return tried;
}"""


@pytest.fixture
async def foreign(browser: Browser) -> AsyncIterator[Callable[..., Any]]:
    """Opens a page of somebody else's: on another port of this machine, or of elsewhere."""
    blank = "<!doctype html><title>evil</title>"

    async def show(_: web.Request) -> web.Response:
        return web.Response(text=blank, content_type="text/html")

    async def pretend(route: Route) -> None:
        await route.fulfill(body=blank, content_type="text/html")

    app = web.Application()
    app.router.add_get("/", show)
    async with TestServer(app, host="127.0.0.1") as server:

        async def visit(name: str) -> Page:
            page = await browser.new_page()
            await page.route("http://evil.example/**", pretend)
            await page.goto(f"http://localhost:{server.port}/" if name == "localhost" else f"http://{name}/")
            return page

        yield visit


@pytest.mark.share(2)
@pytest.mark.parametrize("name", ["localhost", "evil.example"])
async def test_other_sites_pages_can_do_nothing(
    page_desk: Callable[..., Desk], foreign: Callable[..., Any], name: str
) -> None:
    """Neither of the same machine nor of elsewhere: no change is made and nothing is read."""
    at = page_desk()
    page = await foreign(name)
    tried = await page.evaluate(ATTACK, at.proxy.admin)
    assert tried["header"] == tried["json"] == tried["read"] == "failed"
    assert at.proxy.json("/api/v1/status")["paused"] is False


FRAME = """(url) => new Promise((resolve) => {
  const frame = document.createElement('iframe');
  frame.onload = resolve;
  frame.src = url;
  document.body.append(frame);
})"""


async def test_cannot_be_framed(page_desk: Callable[..., Desk], foreign: Callable[..., Any]) -> None:
    """Nobody can lay the page under something else and have it clicked."""
    at = page_desk()
    page = await foreign("localhost")
    await page.evaluate(FRAME, f"{at.proxy.admin}/")
    _, framed = page.frames

    async def is_refused() -> bool:
        # The frame has loaded before its new address is told here.
        return framed.url.startswith("chrome-error:")

    await eventually(is_refused)
    assert await framed.locator("#headline").count() == 0


# -- how it looks ----------------------------------------------------------------------------------


@pytest.mark.share(2)
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_light_and_dark(
    page_desk: Callable[..., Desk], open_page: Callable[..., Any], scheme: str
) -> None:
    """As the system is; every text can be read on its ground (WCAG 2.2, 1.4.3)."""
    at = page_desk()
    await at.caller.open()
    async with open_page(at, color_scheme=scheme) as page:
        ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", ground))) > 380) is (scheme == "light")
        assert await page.evaluate(CONTRAST) == []


# Texts whose contrast with the nearest ground is under 4.5 (3 for large ones).
CONTRAST = """() => {
  const light = (color) => {
    const [r, g, b] = color.match(/[\\d.]+/g).map(Number).map((v) => {
      v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (!/, 0\\)$/.test(color)) return color;
    }
    return 'rgb(255, 255, 255)';
  };
  const poor = [];
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim() !== '');
    const isExempt = element.closest(':disabled, .hidden, [hidden], noscript') !== null;
    if (!own || isExempt || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const [one, other] = [light(style.color), light(ground(element))].sort((a, b) => b - a);
    const ratio = (one + 0.05) / (other + 0.05);
    const needed = parseFloat(style.fontSize) >= 24 ? 3 : 4.5;
    const name = element.className || element.id || element.tagName;
    if (ratio < needed) poor.push(`${name}: ${ratio.toFixed(2)}`);
  }
  return poor;
}"""


@pytest.mark.share(2)
@pytest.mark.parametrize("screen", [{}, PHONE], ids=["desktop", "phone"])
async def test_a_thousand_events_do_not_make_it_longer(
    page_desk: Callable[..., Desk], open_page: Callable[..., Any], screen: dict[str, Any]
) -> None:
    """Events scroll in their own box, and so does what is said of them to those who only listen."""
    at = page_desk()
    told: list[dict[str, Any]] = []

    async def tell(route: Route) -> None:
        after = int(route.request.url.partition("after=")[2])
        await route.fulfill(json={"newest": 2000, "events": [each for each in told if each["id"] > after]})

    height = "Math.max(document.documentElement.scrollHeight, document.body.scrollHeight)"
    async with open_page(at, **screen) as page:
        await page.get_by_label("routine, too").check()
        told[:] = [
            {
                "id": number + 1001,
                "time": "2026-01-01T00:00:00Z",
                "level": ("warning", "error", "info")[number % 3],
                "event": f"some.event_{number % 40}",
                "fields": {"reason": "because", "detail": "x " * 50},
                "runbook": "/runbook#first-look",
            }
            for number in range(1000)
        ]
        few = await page.evaluate(height)
        await page.route("**/api/v1/events*", tell)
        await expect(page.locator("#events li", has_text="some.event")).to_have_count(1000)
        box = await page.locator("#events").bounding_box()
        assert box is not None
        assert box["height"] <= 60 * 16
        assert await page.evaluate(height) <= few + box["height"] + 200


async def test_on_a_phone(page_desk: Callable[..., Desk], open_page: Callable[..., Any]) -> None:
    """Nothing is cut off or has to be scrolled to the side, even with long names; buttons fit a thumb."""
    at = page_desk()
    await at.caller.open(client="x" * 150)
    async with open_page(at, color_scheme="dark", **PHONE) as page:
        await expect(rows(page)).to_have_count(1)
        width = await page.evaluate("document.documentElement.scrollWidth")
        assert width <= PHONE["viewport"]["width"]  # type: ignore[index]
        assert await page.get_by_role("table").count() == 3  # still tables to those who listen
        assert await page.locator("#upstream").get_by_role("row").count() == 2
        box = await button(page, f"Kill session {await tag(at)}").bounding_box()
        assert box is not None
        assert box["height"] >= 32
        assert box["x"] + box["width"] <= PHONE["viewport"]["width"]  # type: ignore[index]
        await button(page, f"Kill session {await tag(at)}").tap()
        await expect(page.get_by_role("dialog")).to_be_in_viewport(ratio=1)
