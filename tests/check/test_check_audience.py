import base64
import json

import pytest
from check_samples import refused, stateful, text

from mcp_session_proxy.check.audience import (
    calls_itself,
    is_for_another,
    metadata_url,
    read_audience,
    speaks_of_audience,
)
from mcp_session_proxy.check.facts import list_facts
from mcp_session_proxy.check.observations import Entrance, ServerAnswer
from mcp_session_proxy.check.problems import Failed, diagnose
from mcp_session_proxy.check.report import judge_side, write_report

URL = "http://127.0.0.1:8000/mcp"
PUBLIC = "https://mcp.example.com/mcp"


def token(**claims) -> str:
    """A JWT that nobody signed."""
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{payload}.c2ln"


def bearer(value: str) -> list[tuple[str, str]]:
    return [("X-Other", "1"), ("authorization", f"bearer {value}")]


def challenged(challenge: str, status: int = 401) -> ServerAnswer:
    return ServerAnswer(status=status, headers={"WWW-Authenticate": challenge}, sent_session_id=False)


class TestTheToken:
    @pytest.mark.parametrize(("claim", "audience"), [("a", ("a",)), (["a", "b"], ("a", "b"))])
    def test_names_its_audience(self, claim, audience):
        """One, or several."""
        assert read_audience(bearer(token(aud=claim))) == audience

    @pytest.mark.parametrize(
        "headers",
        [
            [],
            bearer("opaque"),
            bearer("a.b.c"),
            bearer("a.!!!!.c"),
            bearer("é.é.é"),
            bearer(token(sub="me")),
            bearer(token(aud=7)),
            bearer(token(aud=[])),
            bearer("a." + "b" * 70_000 + ".c"),
            [("Authorization", "Basic " + token(aud="a"))],
        ],
    )
    def test_does_not_tell(self, headers):
        """Whatever is no readable token with an audience."""
        assert read_audience(headers) is None

    @pytest.mark.parametrize(
        ("audience", "another"),
        [
            ((URL,), False),
            ((URL + "/",), False),
            (("http://127.0.0.1:8000",), False),
            (("x", URL), False),
            ((PUBLIC,), True),
            (("http://127.0.0.1:8000/other",), True),
            (("http://127.0.0.1:80",), True),
            (("my-api", "::not a url::"), True),
        ],
    )
    def test_is_for_this_server_or_for_another(self, audience, another):
        """A token for the origin is for what is there, too."""
        entrance = Entrance(resource=URL, audience=audience)
        assert is_for_another(entrance) is another

    def test_is_not_judged_by_halves(self):
        """Where one of the two is not told, nothing is known."""
        assert not is_for_another(Entrance(resource=URL))
        assert not is_for_another(Entrance(audience=(URL,)))


class TestTheServersWords:
    @pytest.mark.parametrize(
        "refusal",
        [
            challenged('Bearer error="invalid_token", error_description="Invalid audience"'),
            text(401, '{"error":"invalid_token","error_description":"Resource mismatch"}'),
            refused(401, "jwt audience invalid. expected: x", -32001),
            text(401, "aud claim does not match"),
        ],
    )
    def test_are_about_the_audience(self, refusal):
        """In the challenge, in the body or in an error."""
        assert speaks_of_audience(refusal)

    @pytest.mark.parametrize(
        "refusal",
        [
            challenged('Bearer error="invalid_token", resource_metadata="http://audience.example/aud"'),
            text(401, "Token expired"),
            text(401, "laudable"),
        ],
    )
    def test_are_about_something_else(self, refusal):
        """Where the metadata are is no such word."""
        assert not speaks_of_audience(refusal)

    def test_name_the_metadata(self):
        """RFC 9728."""
        assert metadata_url(challenged(f'Bearer resource_metadata="{URL}"')) == URL
        assert metadata_url(challenged("Bearer")) is None

    def test_are_shown_without_secrets(self):
        """A URL may hold them, or control characters."""
        entrance = Entrance(resource="https://u:p@x/\x1b[2Jmcp?key=1")
        assert calls_itself(entrance) == "https://***@x/mcp?***"


class TestTheProblem:
    def diagnosed(self, refusal, **entrance):
        door = Entrance(**entrance)
        return diagnose(Failed(url=URL, hello=refusal, has_credentials=True, entrance=door))

    def test_is_a_token_for_another(self):
        """Seen by comparing the two."""
        problem = self.diagnosed(text(401, "invalid_token"), resource=URL, audience=(PUBLIC,))
        assert problem.key == "unauthorized"
        assert f"The server calls itself {URL}, and the token's audience is another one." in problem.text
        assert "public URL" in problem.hint

    @pytest.mark.parametrize(("status", "key"), [(401, "unauthorized"), (403, "forbidden")])
    def test_is_what_the_server_says(self, status, key):
        """Also where the token cannot be read."""
        problem = self.diagnosed(challenged('Bearer error_description="audience mismatch"', status))
        assert problem.key == key
        assert "It says that the token's audience is another one." in problem.text

    def test_is_perhaps_something_else(self):
        """A token that is for this server has another fault; the server's name may still help."""
        problem = self.diagnosed(text(401, "invalid_token"), resource=URL, audience=(URL,))
        assert "audience" not in problem.text
        assert URL in problem.hint

    def test_is_that_there_is_no_token(self):
        """It is said what one would have to be for."""
        refusal = text(401, "")
        door = Entrance(resource=URL)
        assert f"Tokens must be for {URL}." in diagnose(Failed(url=URL, hello=refusal, entrance=door)).hint


class TestTheReport:
    def seen(self, **entrance):
        return stateful(entrance=Entrance(**entrance))

    def advice(self, seen):
        report = write_report(judge_side(seen, URL), None, has_credentials=True)
        return {piece.key: piece.text for piece in report.advice}

    def test_says_for_whom_tokens_are(self):
        """And what that means behind a proxy. Whether it is checked was not tried."""
        seen = self.seen(resource=URL, audience=(URL,))
        assert f"Tokens for this server are for {URL}" in self.advice(seen)["audience"]
        assert "was not tried" in self.advice(seen)["audience"]
        (fact,) = [fact for fact in list_facts(seen, None) if fact.key == "audience"]
        assert fact.text == URL

    def test_says_that_the_audience_is_not_checked(self):
        """A token for another server was taken."""
        seen = self.seen(resource=URL, audience=(PUBLIC,))
        assert "audience" not in self.advice(seen)
        (fact,) = [fact for fact in list_facts(seen, None) if fact.key == "audience"]
        assert fact.text == f"{URL}; the given one is not, and is taken all the same"

    def test_says_nothing_where_nothing_is_told(self):
        """No metadata, no advice."""
        assert "audience" not in self.advice(self.seen())
        assert "audience" not in self.advice(stateful())
