import pytest
from multidict import CIMultiDict

from mcp_session_proxy.ops.admin.access import Access, Changes, NotAllowed

TOKEN = "correct-horse"
ASKING = {"X-Requested-With": "mcp-session-proxy"}
SHOWN = {"Authorization": f"Bearer {TOKEN}"}


def judge(token=None, *, loopback=True, **headers):
    """The refusal of a request with these headers, or None."""
    access = Access(lambda: token, listens_on_loopback=loopback)
    try:
        access.check(CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()}))
    except NotAllowed as refusal:
        return refusal
    return None


class TestWithoutAToken:
    def test_on_loopback_everybody_may(self):
        """Whoever can connect is on this machine."""
        assert Access(lambda: None, listens_on_loopback=True).changes is Changes.OPEN
        assert judge(**ASKING) is None

    def test_beyond_loopback_nobody_may(self):
        """And is told what to set."""
        refusal = judge(loopback=False, **ASKING, **SHOWN)
        assert (refusal.status, refusal.reason) == (403, "changes-refused")
        assert "MCP_SESSION_PROXY_ADMIN_TOKEN" in refusal.message
        assert "--admin-listen" in refusal.message

    @pytest.mark.parametrize(
        "content_type",
        [
            "",
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data",
            "text/plain; application/json",
        ],
    )
    def test_what_any_page_could_send_is_refused(self, content_type):
        """A form of another site's page has no header of its own, and only these content types."""
        refusal = judge(Content_Type=content_type)
        assert (refusal.status, refusal.reason) == (403, "header-missing")
        assert "X-Requested-With" in refusal.message

    @pytest.mark.parametrize(
        "headers",
        [
            {"x-requested-with": "curl"},
            {"Content-Type": "application/json"},
            {"Content-Type": "Application/JSON; charset=utf-8"},
        ],
    )
    def test_what_no_page_can_send_unasked_is_taken(self, headers):
        """Any header of one's own and a JSON body make a browser ask first."""
        assert judge(**headers) is None

    @pytest.mark.parametrize("site", ["cross-site", "same-site"])
    def test_pages_of_other_origins_are_refused(self, site):
        """Even on the same machine: other ports are other people's."""
        assert judge(**ASKING, Sec_Fetch_Site=site).reason == "foreign-page"

    @pytest.mark.parametrize("site", ["same-origin", "none"])
    def test_the_own_page_is_taken(self, site):
        """So says the browser of it."""
        assert judge(**ASKING, Sec_Fetch_Site=site) is None


@pytest.mark.parametrize("loopback", [True, False])
class TestWithAToken:
    def test_needs_the_token(self, loopback):
        """On loopback as well: whoever sets a token wants it asked for."""
        assert Access(lambda: TOKEN, listens_on_loopback=loopback).changes is Changes.TOKEN
        refusal = judge(TOKEN, loopback=loopback, **ASKING)
        assert (refusal.status, refusal.reason) == (401, "token-required")
        assert refusal.headers["WWW-Authenticate"].startswith("Bearer ")

    @pytest.mark.parametrize("shown", [f"Bearer {TOKEN}", f"bearer  {TOKEN} "])
    def test_the_token_is_enough(self, loopback, shown):
        """No page of another origin can send it, so nothing else is needed; schemes have no case."""
        assert judge(TOKEN, loopback=loopback, Authorization=shown) is None

    @pytest.mark.parametrize(
        "shown",
        [
            "",
            "Bearer",
            "Bearer ",
            TOKEN,
            f"Basic {TOKEN}",
            f"Bearer {TOKEN}x",
            f"Bearer {TOKEN[:-1]}",
            f"Bearer {TOKEN.upper()}",
            "Bearer \udcff",
            "Bearer ü",
        ],
    )
    def test_anything_else_is_not(self, loopback, shown):
        """Neither a part nor another scheme, nor what is no text."""
        refusal = judge(TOKEN, loopback=loopback, **ASKING, Authorization=shown)
        assert (refusal.status, refusal.reason) == (401, "wrong-token")
        assert TOKEN not in f"{refusal.message} {refusal.headers}"

    def test_pages_of_other_origins_are_refused(self, loopback):
        """Whatever they know."""
        assert judge(TOKEN, loopback=loopback, **SHOWN, Sec_Fetch_Site="cross-site").reason == "foreign-page"
