"""Who is asking is what a valid token of our issuer says, and nothing else."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from opa_process import pem_pair

from bus.access.identity import Issuer, Subject, Verifier
from bus.errors import InvalidToken


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    "key",
    [
        ed25519.Ed25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP256R1()),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["Ed25519", "ES256", "RS256"],
)
def test_a_token_says_who_asks(key: object) -> None:
    """Department, officer, administrator and attributes come back, with each kind of key."""
    private, public = pem_pair(key)
    token = Issuer(private).token("tax", officer="张三", administrator=True, attributes={"ward": 7})
    assert Verifier(public).subject(f"Bearer {token}") == Subject("tax", "张三", True, {"ward": 7})


def test_the_scheme_is_read_in_any_case(token_keys: tuple[bytes, bytes]) -> None:
    """`bearer` is `Bearer` (RFC 9110)."""
    token = Issuer(token_keys[0]).token("tax")
    assert Verifier(token_keys[1]).subject(f"bearer  {token}").department == "tax"


def test_a_known_token_is_forgotten_when_it_expires(token_keys: tuple[bytes, bytes]) -> None:
    """The memory of verified tokens ends with the token, but for the leeway of the verification itself."""
    clock = Clock()
    verifier = Verifier(token_keys[1], clock=clock)
    header = f"Bearer {Issuer(token_keys[0], clock=clock).token('tax', lifetime_s=900)}"
    verifier.subject(header)
    clock.now += 900 + 59
    verifier.subject(header)
    clock.now += 2
    with pytest.raises(InvalidToken):
        verifier.subject(header)


def test_known_tokens_are_not_verified_again(token_keys: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """The signature is checked once."""
    verifier = Verifier(token_keys[1])
    header = f"Bearer {Issuer(token_keys[0]).token('tax')}"
    first = verifier.subject(header)
    monkeypatch.setattr(verifier, "_verify", lambda _: pytest.fail("verified again"))
    assert verifier.subject(header) is first


def test_two_keys_are_valid_while_one_replaces_the_other(token_keys: tuple[bytes, bytes]) -> None:
    """Tokens of the old and of the new key both count, tokens of a third do not."""
    old, new, other = (pem_pair(ec.generate_private_key(ec.SECP256R1())) for _ in range(3))
    verifier = Verifier(old[1], new[1], token_keys[1])
    for private in (old[0], new[0], token_keys[0]):
        assert verifier.subject(f"Bearer {Issuer(private).token('tax')}").department == "tax"
    with pytest.raises(InvalidToken):
        verifier.subject(f"Bearer {Issuer(other[0]).token('tax')}")


def test_a_token_of_tomorrow_is_refused(token_keys: tuple[bytes, bytes]) -> None:
    """A token issued after now, beyond the leeway, comes from a clock that is wrong."""
    clock = Clock()
    token = Issuer(token_keys[0], clock=lambda: clock.now + 3600).token("tax")
    with pytest.raises(InvalidToken):
        Verifier(token_keys[1], clock=clock).subject(f"Bearer {token}")
