"""What an OpenID provider publishes: its metadata (OpenID Connect Discovery 1.0) and its keys (RFC 7517).

Keys are looked up by ``kid`` among those of the configured issuer and nowhere else: what a token says about where its
key is to be found is not read.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from bus.access.identity import Key, algorithm
from bus.errors import IdentityUnavailable

log = structlog.get_logger(__name__)
REFRESH_S: Final = 300.0
AGAIN_S: Final = 10.0
TIMEOUT_S: Final = 3.0
MAX_BYTES: Final = 256 * 1024
MIN_RSA_BITS: Final = 2048
_KINDS: Final[Mapping[str, type[RSAKey | ECKey | OKPKey]]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
_CURVES: Final = ("P-256", "Ed25519")
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Metadata:
    """Where the provider's endpoints are; those of signing in only where it has them."""

    issuer: str
    jwks: str
    authorization: str = ""
    token: str = ""
    end_session: str = ""


class Provider:
    """One provider's metadata and keys, read when first needed, every five minutes, and when a token names a key that
    is not known (at most every ten seconds, so that forged tokens do not make us a nuisance). What was read stays in
    use while the provider is away. Thread-safe; `refresh` blocks for up to some seconds.
    """

    def __init__(self, issuer: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.issuer, self._clock = issuer, clock
        self._metadata: Metadata | None = None
        self._keys: dict[str, Key] = {}
        self._tried = float("-inf")
        self._lock = threading.Lock()

    def find(self, kid: str) -> Key | None:
        """The key of that id, among those read last."""
        return self._keys.get(kid)

    @property
    def algorithms(self) -> list[str]:
        """The signature algorithms of the known keys."""
        return sorted({algorithm(key) for key in self._keys.values()})

    def metadata(self) -> Metadata:
        """Raises `IdentityUnavailable` before the provider was ever reached."""
        if self._metadata is None:
            self.refresh()
        if self._metadata is None:
            raise IdentityUnavailable()
        return self._metadata

    def may_refresh(self) -> bool:
        """Whether the last try is long enough ago."""
        return self._clock() - self._tried >= AGAIN_S

    def refresh(self) -> None:
        """Reads metadata and keys anew; one that does not answer, or answers with what is not to be trusted, changes
        nothing."""
        with self._lock:
            if not self.may_refresh():
                return
            self._tried = self._clock()
            try:
                with httpx2.Client(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False) as http:
                    metadata = read_metadata(self.issuer, _document(http, _well_known(self.issuer)))
                    keys = read_keys(_document(http, metadata.jwks))
            except (httpx2.HTTPError, ValueError) as error:
                log.error("the identity provider's keys could not be read", error=type(error).__name__)
                return
            self._metadata, self._keys = metadata, keys

    def run(self, stopping: threading.Event, every_s: float = REFRESH_S) -> None:
        """Reads them at once and then every five minutes, until told to stop."""
        while True:
            self.refresh()
            if stopping.wait(every_s):
                return


def _well_known(issuer: str) -> str:
    return f"{issuer.rstrip('/')}/.well-known/openid-configuration"


def _document(http: httpx2.Client, url: str) -> Mapping[str, Any]:
    """A JSON object of bounded size. Raises ValueError for anything else."""
    with http.stream("GET", _trusted(url), headers={"Accept": "application/json"}) as response:
        if response.status_code != 200:
            raise ValueError(f"HTTP {response.status_code}")
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > MAX_BYTES:
                raise ValueError("too long")
    document = httpx2.Response(200, content=bytes(body)).json()
    if not isinstance(document, dict):
        raise ValueError("not an object")
    return document


def _trusted(url: str) -> str:
    """HTTPS, or HTTP on this machine. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        return url
    raise ValueError("an address of the identity provider is neither https nor on this machine")


def read_metadata(issuer: str, document: Mapping[str, Any]) -> Metadata:
    """The endpoints. Raises ValueError where the document is another issuer's (OpenID Connect Discovery 4.3)."""
    if document.get("issuer") != issuer:
        raise ValueError("the metadata are another issuer's")
    names = ("authorization_endpoint", "token_endpoint", "end_session_endpoint")
    endpoints = [_trusted(str(document[name])) if document.get(name) else "" for name in names]
    return Metadata(issuer, _trusted(str(document.get("jwks_uri"))), *endpoints)


def read_keys(document: Mapping[str, Any]) -> dict[str, Key]:
    """The keys that signatures may be checked with, by ``kid``. Others are left out: symmetric ones, those meant for
    encryption, weak ones, unnamed ones. Raises ValueError where there is no list of keys."""
    listed = document.get("keys")
    if not isinstance(listed, list):
        raise ValueError("there are no keys")
    found: dict[str, Key] = {}
    for entry in listed:
        key = _key(entry)
        if key is not None:
            found[entry["kid"]] = key
    return found


def _key(entry: Any) -> Key | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("kid"), str) or entry.get("use", "sig") != "sig":
        return None
    kind = _KINDS.get(str(entry.get("kty")))
    if kind is None:
        return None
    try:
        key: Key = kind.import_key({name: value for name, value in entry.items() if name not in _PRIVATE})
    except (JoseError, ValueError, TypeError, KeyError):
        return None
    strong = key.raw_value.key_size >= MIN_RSA_BITS if isinstance(key, RSAKey) else key.curve_name in _CURVES
    return key if strong and entry.get("alg", algorithm(key)) in (algorithm(key), "EdDSA") else None


_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "alg", "use", "key_ops"})
