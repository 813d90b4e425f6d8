"""Who is asking: a short-lived signed token, and nothing else that a request carries.

Source of the claims: RFC 7519 (``sub`` is the department), RFC 8693 (``act.sub`` is the officer).
joserfc checks neither ``exp`` nor its presence by itself, so the claims are required here (E27).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from bus.core import names
from bus.core.grants import PUBLIC
from bus.errors import InvalidToken

AUDIENCE: Final = "bus"
LEEWAY_S: Final = 60
MAX_TOKEN_BYTES: Final = 8 * 1024
MAX_CACHED: Final = 10_000
_ALGORITHMS: Final = {"EC": "ES256", "OKP": "Ed25519", "RSA": "RS256"}
_KEYS: Final = (ECKey, OKPKey, RSAKey)
Key = ECKey | OKPKey | RSAKey
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Subject:
    """The department that asks, the officer it names, and attributes that row conditions may read."""

    department: str
    officer: str | None = None
    administrator: bool = False
    attributes: Mapping[str, str | int | float | bool] = field(default_factory=dict)


class UnknownKey(InvalidToken):
    """It names a key that is not known here: of another issuer, or newer than what was read of this one."""

    def __init__(self) -> None:
        super().__init__(InvalidToken(why="its key is not known here").detail)


PUBLIC_SUBJECT: Final = Subject(PUBLIC)
"""Everybody: who asks for open data, without a token."""


def load_key(pem: bytes) -> Key:
    """The key in a PEM file: P-256, Ed25519 or RSA. Raises ValueError for any other."""
    for kind in _KEYS:
        try:
            key = kind.import_key(pem)
        except (ValueError, TypeError, JoseError):
            continue
        if isinstance(key, RSAKey) or key.curve_name in ("P-256", "Ed25519"):
            return key
    raise ValueError("the key is not a PEM of a P-256, Ed25519 or RSA key")


def algorithm(key: Key) -> str:
    """The one algorithm that is used with the key."""
    return _ALGORITHMS[key.key_type]


class Issuer:
    """Issues tokens for the demo and for systems without an identity provider of their own."""

    def __init__(
        self, private_pem: bytes, issuer: str = "bus", *, audience: str = AUDIENCE, clock: Clock = time.time
    ) -> None:
        self._key = load_key(private_pem)
        self._issuer = issuer
        self._audience = audience
        self._clock = clock

    def token(
        self,
        department: str,
        *,
        officer: str | None = None,
        administrator: bool = False,
        lifetime_s: int = 900,
        attributes: Mapping[str, Any] | None = None,
    ) -> str:
        """A token for the department's system, or for its officer."""
        now = int(self._clock())
        claims: dict[str, Any] = {"iss": self._issuer, "aud": self._audience, "sub": department, "iat": now}
        claims |= {"exp": now + lifetime_s, "jti": uuid.uuid4().hex}
        if officer is not None:
            claims["act"] = {"sub": officer}
        if administrator:
            claims["bus_administrator"] = True
        if attributes:
            claims["bus_attributes"] = dict(attributes)
        header = {"alg": algorithm(self._key), "typ": "JWT", "kid": self._key.thumbprint()}
        return jwt.encode(header, claims, self._key, algorithms=[header["alg"]])


class Keys(Protocol):
    """The public keys of one issuer."""

    def find(self, kid: str) -> Key | None: ...
    @property
    def algorithms(self) -> list[str]: ...


class OwnKeys:
    """Keys in PEM files, named by their thumbprints."""

    def __init__(self, public_pems: Iterable[bytes]) -> None:
        self._keys: dict[str, Key] = {key.thumbprint(): key for key in map(load_key, public_pems)}

    def find(self, kid: str) -> Key | None:
        return self._keys.get(kid)

    @property
    def algorithms(self) -> list[str]:
        return sorted({algorithm(key) for key in self._keys.values()})


class Verifier:
    """Turns an ``Authorization`` header into a `Subject`. Several keys let one be replaced without a gap.

    ``keys``: of the issuer, instead of the PEMs; ``subject``: who the claims of a valid token name.
    """

    def __init__(
        self,
        *public_pems: bytes,
        issuer: str = "bus",
        audience: str = AUDIENCE,
        clock: Clock = time.time,
        keys: Keys | None = None,
        subject: Callable[[Mapping[str, Any]], Subject] | None = None,
    ) -> None:
        self._keys = keys or OwnKeys(public_pems)
        self._subject = subject or _subject
        self._clock = clock
        self._required: dict[str, Any] = {
            "iss": {"essential": True, "value": issuer},
            "aud": {"essential": True, "value": audience},
            "exp": {"essential": True},
            "sub": {"essential": True},
        }
        self._verified: OrderedDict[bytes, tuple[float, Subject]] = OrderedDict()
        self._lock = threading.Lock()

    def subject(self, authorization: str | None) -> Subject:
        """The subject that the header proves. Verified tokens are remembered until they expire (K9).

        Raises `InvalidToken` for whatever is not a valid token of this issuer.
        """
        token = bearer(authorization)
        digest = hashlib.sha256(token.encode()).digest()
        with self._lock:
            known = self._verified.get(digest)
        if known is not None and self._clock() < known[0]:
            return known[1]
        expires, claims = self._verify(token)
        subject = self._subject(claims)
        self._remember(digest, expires, subject)
        return subject

    def _remember(self, digest: bytes, expires: float, subject: Subject) -> None:
        with self._lock:
            self._verified[digest] = (expires, subject)
            self._verified.move_to_end(digest)
            while len(self._verified) > MAX_CACHED:
                self._verified.popitem(last=False)

    def claims(self, token: str) -> Mapping[str, Any]:
        """The claims of a token that is valid here. Raises `InvalidToken`."""
        return self._verify(_checked(token))[1]

    def _verify(self, token: str) -> tuple[float, Mapping[str, Any]]:
        try:
            decoded = jwt.decode(token, self._find_key, algorithms=self._keys.algorithms)
            registry = jwt.JWTClaimsRegistry(now=int(self._clock()), leeway=LEEWAY_S, **self._required)
            registry.validate(decoded.claims)
        except InvalidToken:
            raise
        except (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise InvalidToken(why="it does not verify") from error
        return _expiry(decoded.claims), decoded.claims

    def _find_key(self, token: Any) -> Key:
        """The key by the token's ``kid``, among ours only: ``jku``, ``x5u`` and embedded keys are not looked at."""
        header = token.headers()
        key = self._keys.find(str(header.get("kid")))
        if key is None:
            raise UnknownKey()
        if header.get("alg") != algorithm(key):
            raise InvalidToken(why="its algorithm is not the key's")
        return key


def bearer(authorization: str | None) -> str:
    """The token in the header. Raises `InvalidToken` where there is none that could be one."""
    if not authorization:
        raise InvalidToken(why="there is none")
    scheme, _, token = authorization.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise InvalidToken(why="the header is not `Bearer TOKEN`")
    return _checked(token)


def _checked(token: str) -> str:
    if len(token.encode()) > MAX_TOKEN_BYTES:
        raise InvalidToken(why="it is too long")
    if not token.isascii():
        raise InvalidToken(why="it is not a token")
    return token


def _expiry(claims: Mapping[str, Any]) -> float:
    expires = claims["exp"]
    if isinstance(expires, bool) or not isinstance(expires, int | float):
        raise InvalidToken(why="`exp` is not a time")
    try:
        dt.datetime.fromtimestamp(expires, dt.UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise InvalidToken(why="`exp` is not a time") from error
    return float(expires)


def _subject(claims: Mapping[str, Any]) -> Subject:
    return Subject(
        department_of(claims["sub"], "sub"),
        officer_of(claims.get("act")),
        claims.get("bus_administrator") is True,
        attributes_of(claims.get("bus_attributes")),
    )


def department_of(claim: Any, name: str) -> str:
    """The department that a claim names. Raises `InvalidToken`."""
    if not isinstance(claim, str) or not names.is_id(claim) or claim == PUBLIC:
        raise InvalidToken(why=f"`{name}` is not a department's id")
    return claim


def officer_of(actor: Any) -> str | None:
    """The officer in an ``act`` claim (RFC 8693); None without one. Raises `InvalidToken`."""
    if actor is None:
        return None
    name = actor.get("sub") if isinstance(actor, Mapping) else None
    if not isinstance(name, str) or not name.strip() or len(name) > 200 or not name.isprintable():
        raise InvalidToken(why="`act.sub` is not an officer's name")
    return name


def attributes_of(claim: Any) -> dict[str, str | int | float | bool]:
    """The attributes that row conditions may read. Raises `InvalidToken`."""
    if claim is None:
        return {}
    if not isinstance(claim, Mapping):
        raise InvalidToken(why="`bus_attributes` is not a mapping")
    for name, value in claim.items():
        if not names.is_id(name) or not isinstance(value, str | int | float):
            raise InvalidToken(why="`bus_attributes` holds what is not text, a number, true or false")
    return dict(claim)
