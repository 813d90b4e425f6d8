"""Tokens, sign-in and certificates from outside: a certified OpenID provider, a proxy that forwards certificates."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from html import unescape
from pathlib import Path
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey
from oidc_process import PORTAL, running_provider, signing_key, system_token
from served_world import World, served

from bus.access.identity import Verifier
from bus.access.oidc import provider as provider_module
from bus.access.oidc.claims import Claims
from bus.access.oidc.provider import Provider
from bus.access.oidc.signin import SignIn
from bus.access.oidc.verifying import Verifiers
from bus.sharing.cursors.sealing import Cursors
from bus.web.parts import Parts
from bus.web.session import Sessions
from tests.conftest import free_port

VIEW = "/v1/views/food_business?limit=1"
FIRST = signing_key("first")
CERTIFICATE = 'Hash=00ff;Subject="CN=one, O=\\"tax\\"";URI=dept://tax/system1'


@dataclass
class Outside:
    """A served world that believes an OpenID provider, which `restart` runs with other keys."""

    world: World
    issuer: str
    restart: Callable[..., None]

    def get(self, token: str) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {token}", "Purpose": "levy"}
        return httpx2.get(self.world.url + VIEW, headers=headers, timeout=30)


@pytest.fixture(scope="module")
def outside(opa_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    """A world that is no demonstration, the provider, and this machine as a proxy that forwards certificates."""
    folder, port = tmp_path_factory.mktemp("outside"), free_port()
    issuer = f"http://127.0.0.1:{port}"

    def extend(parts: Parts) -> Parts:
        keys = Provider(issuer)
        people = Claims("department", "preferred_username")
        tokens = Verifier(issuer=issuer, audience=PORTAL[0], keys=keys, subject=people.person)
        signin = SignIn(keys, client_id=PORTAL[0], client_secret=PORTAL[1], tokens=tokens, claims=people)
        systems = Verifier(issuer=issuer, keys=keys, subject=Claims().subject)
        verifiers = Verifiers(parts.verifier, systems, keys)  # type: ignore[arg-type] - its own is a plain one
        sessions = Sessions(signin, Cursors(b"for tests"))
        return replace(parts, verifier=verifiers, sessions=sessions, proxies=frozenset({"127.0.0.1"}), demo=False)

    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setattr(provider_module, "AGAIN_S", 0.0)
        world = stack.enter_context(served(f"sqlite:///{folder / 'data'}", opa_binary, folder / "opa", extend=extend))
        running = stack.enter_context(ExitStack())

        def restart(*keys: dict[str, object]) -> None:
            running.close()
            if keys:
                running.enter_context(running_provider(port, list(keys), f"{world.url}/login/callback", folder))

        restart(FIRST)
        yield Outside(world, issuer, restart)


def refused(answer: httpx2.Response) -> bool:
    return (answer.status_code, answer.json()["code"]) == (401, "invalid_token")


def test_a_system_with_client_credentials(outside: Outside) -> None:
    """The provider's token is as good as the bus's own; what it proves is in the audit entry."""
    answer = outside.get(system_token(outside.issuer))
    assert (answer.status_code, answer.headers["Masked-Columns"]) == (200, "legal_name")
    assert outside.world.entries()[-1]["who"] == "tax"


def test_keys_that_are_replaced(outside: Outside) -> None:
    """A token of a new key is accepted at once, since the keys are read anew; one of a key that is gone is not. While
    the provider is away its last keys go on, and unknown ones are refused."""
    old = system_token(outside.issuer)
    outside.restart(signing_key("second"), FIRST)
    assert outside.get(system_token(outside.issuer)).status_code == 200
    assert outside.get(old).status_code == 200
    third = signing_key("third")
    outside.restart(third)
    new = system_token(outside.issuer)
    assert outside.get(new).status_code == 200
    outside.restart()
    assert outside.get(new).status_code == 200
    assert refused(outside.get(forged(outside.issuer, signing_key("fourth"))))
    outside.restart(FIRST)


def forged(issuer: str, key: dict[str, object], **claims: object) -> str:
    body = {"iss": issuer, "aud": "bus", "sub": "tax", "exp": 4_000_000_000, **claims}
    return jwt.encode({"alg": "ES256", "kid": key["kid"]}, body, ECKey.import_key(key))


def test_forged_tokens(outside: Outside) -> None:
    """Another key under the provider's id, the provider's key for another audience or for a name that is no department,
    and a token that names the bus as its issuer (A19)."""
    assert outside.get(system_token(outside.issuer)).status_code == 200
    assert refused(outside.get(forged(outside.issuer, {**signing_key("first")})))
    assert refused(outside.get(forged(outside.issuer, FIRST, aud="portal")))
    assert refused(outside.get(forged(outside.issuer, FIRST, sub="public")))
    assert refused(outside.get(forged("bus", FIRST)))
    assert outside.get(forged(outside.issuer, FIRST)).status_code == 200, "the near miss"


class Browser:
    """Follows redirects by hand and fills in the provider's forms."""

    def __init__(self) -> None:
        self.http = httpx2.Client(follow_redirects=False, timeout=20)

    def go(self, url: str, **data: str) -> httpx2.Response:
        answer = self.http.post(url, data=data) if data else self.http.get(url)
        while answer.status_code in (302, 303) and "/login/callback" not in answer.headers["location"]:
            answer = self.http.get(urljoin(str(answer.url), answer.headers["location"]))
        return answer

    def sign_in(self, url: str, name: str) -> str:
        """The address that the provider sends the browser back to."""
        answer = self.go(
            url,
        )
        answer = self.go(self._form(answer), prompt="login", login=name, password="any")
        answer = self.go(self._form(answer), prompt="consent")
        return str(answer.headers["location"])

    @staticmethod
    def _form(answer: httpx2.Response) -> str:
        found = re.search(r'<form[^>]*action="([^"]+)"', answer.text)
        assert found is not None
        return urljoin(str(answer.url), unescape(found[1]))


def test_a_person_signs_in_and_out(outside: Outside) -> None:
    """By the code flow; the cookie is for this host, out of scripts' reach and never brought by another site. An
    officer sees the department's own grants, staff all, nobody none."""
    url, browser = outside.world.url, Browser()
    first = browser.http.get(f"{url}/grants")
    assert (first.status_code, first.headers["location"]) == (303, "/login?next=/grants")
    back = browser.sign_in(f"{url}/login?next=/grants", "li.na")
    landed = browser.http.get(back)
    assert 'content="0; url=/grants"' in landed.text
    cookie = next(line for line in landed.headers.get_list("set-cookie") if line.startswith("bus_session="))
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    page = browser.http.get(f"{url}/grants?lang=en").text
    assert "tax-food-business-levy" in page
    assert "social-food-business-support" not in page
    assert browser.http.get(f"{url}/connect/social-food-business-support").status_code == 404
    crossed = browser.http.post(f"{url}/logout", headers={"Sec-Fetch-Site": "cross-site"})
    assert crossed.json()["code"] == "csrf"
    assert "/session/end?" in browser.http.post(f"{url}/logout").headers["location"]
    assert browser.http.get(f"{url}/grants").status_code == 303
    staff = Browser()
    staff.http.get(staff.sign_in(f"{url}/login", "wang.wei"))
    assert "social-food-business-support" in staff.http.get(f"{url}/grants?lang=en").text


def test_a_sign_in_that_somebody_else_began(outside: Outside) -> None:
    """A code brought with another state, or to a browser that began nothing, signs nobody in; a cookie that was changed
    is none."""
    url, browser = outside.world.url, Browser()
    back = browser.sign_in(f"{url}/login", "li.na")
    assert refused(httpx2.get(back))
    state = parse_qs(urlsplit(back).query)["state"][0]
    assert refused(browser.http.get(back.replace(state, state[::-1])))
    browser.http.get(back)
    sealed = browser.http.cookies["bus_session"]
    forged_cookie = {"bus_session": sealed[:-2] + ("AA" if sealed[-2:] != "AA" else "BB")}
    assert httpx2.get(f"{url}/grants", cookies=forged_cookie).status_code == 303


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (CERTIFICATE, 200),
        ("By=spiffe://proxy;URI=dept://tax/a", 200),
        ("URI=dept://tax/a,URI=dept://tax/a", 401),
        ("URI=dept://tax/a;URI=dept://food/a", 401),
        ('Subject="URI=dept://tax/a"', 401),
        ("URI=https://tax/a", 401),
        ("URI=dept://public/a", 401),
        ("", 401),
    ],
)
def test_a_forwarded_certificate(outside: Outside, header: str, status: int) -> None:
    """A trusted proxy's header names the department where it is one certificate with one name."""
    sent = {"X-Forwarded-Client-Cert": header, "Purpose": "levy"}
    assert httpx2.get(outside.world.url + VIEW, headers=sent).status_code == status


def test_a_certificate_and_a_token(outside: Outside) -> None:
    """Both must be the same department's; two certificates are one too many."""
    sent = {"X-Forwarded-Client-Cert": CERTIFICATE}
    as_tax = {**outside.world.headers("tax", "levy"), **sent}
    assert httpx2.get(outside.world.url + VIEW, headers=as_tax).status_code == 200
    as_food = {**outside.world.headers("food", "levy"), **sent}
    assert refused(httpx2.get(outside.world.url + VIEW, headers=as_food))
    twice = [("X-Forwarded-Client-Cert", CERTIFICATE)] * 2
    assert httpx2.get(outside.world.url + VIEW, headers=twice).status_code == 400
