"""What an operator can set, read once from ``BUS_*`` variables; everything left out is provided locally.

Only `bus.wiring` reads these. Each of the parts (Kafka, OPA, database) can be
pointed at an existing system; then the local stack does not start that part.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

CHECKOUT = Path(__file__).resolve().parents[1]
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class Settings(BaseSettings):
    """Frozen settings. Sizes in bytes, times in seconds."""

    model_config = SettingsConfigDict(env_prefix="BUS_", frozen=True, extra="ignore")

    home: Path = Field(CHECKOUT / ".bus", description="state, logs and secrets of the local stack")
    schemas: Path = Field(CHECKOUT / "schemas", description="contracts, views and grants that `bus demo` applies")
    policies: Path = Field(CHECKOUT / "policies", description="the Rego rules that serve signs and OPA fetches")

    kafka: str | None = Field(None, description="bootstrap servers of an existing cluster; unset: a local broker")
    kafka_security: Literal["SASL_PLAINTEXT", "SASL_SSL"] = "SASL_PLAINTEXT"
    kafka_username: str = Field("bus", description="the principal of the bus itself")
    kafka_password: SecretStr | None = None
    kafka_cafile: Path | None = None
    kafka_trusted: str = Field("", description="principals of others, comma-separated, whose ACLs are left alone")
    kafka_replication: int = Field(1, ge=1, description="replication factor of new topics (3 in production)")

    opa: str | None = Field(None, description="URL of an existing OPA; unset: a local one")
    opa_token: SecretStr | None = None
    bundle_token: SecretStr | None = Field(None, description="what an existing OPA sends to fetch the rules")

    database_url: str | None = Field(None, description="postgresql://…; unset: SQLite files under home")

    audit_anchors: Path | None = Field(
        None, description="the file that keeps the audit log's head each minute, on another's disk; unset: under home"
    )

    web_host: str = "127.0.0.1"
    web_port: int = Field(0, ge=0, le=65535, description="0: a free one is chosen at first start and kept")
    web_hosts: str = Field("", description="further host names that serve answers to, comma-separated")
    web_address: str | None = Field(None, description="the portal's public address, if a proxy is in front")
    tls_terminated: bool = Field(False, description="a proxy in front speaks TLS; this or tls_certificate off loopback")
    tls_certificate: Path | None = Field(None, description="PEM; serve speaks TLS itself")
    tls_key: Path | None = Field(None, description="PEM; the key of tls_certificate")
    tls_client_ca: Path | None = Field(None, description="PEM; only clients (proxies) certified by it may connect")
    client_cert_proxies: str = Field(
        "", description="addresses of proxies that forward verified client certificates, comma-separated"
    )

    oidc_issuer: str | None = Field(None, description="an OpenID provider whose tokens are believed too")
    oidc_audience: str = Field("bus", description="the audience that its tokens for this bus have")
    oidc_department_claim: str = Field("sub", description="the claim with the department, in systems' tokens")
    oidc_client_id: str | None = Field(None, description="the portal as its client: people can sign in")
    oidc_client_secret: SecretStr | None = None
    oidc_person_department_claim: str = Field("department", description="... in the ID tokens of people")
    oidc_officer_claim: str = Field("preferred_username", description="the claim with the person's name")
    oidc_administrator_claim: str = Field("bus_administrator", description="true: staff of the bus")

    lease_s: float = Field(5.0, gt=0, description="a view's lease; renewed every fifth of it")
    batch_events: int = Field(20_000, gt=0, description="events a builder applies in one transaction at most")
    changes_kept_days: float = Field(7.0, gt=0, description="how long the changes of streamed views are kept")
    demo: bool = Field(False, description="the portal may ask as any department: never outside a demonstration")
    streams_per_department: int = Field(20, gt=0, description="open streams of one department over HTTP")
    streams_open: int = Field(1_000, gt=0, description="open streams over HTTP in all")
    query_timeout_s: float = Field(5.0, gt=0)
    publish_timeout_s: float = Field(30.0, gt=0, description="how long a publisher waits for Kafka before it says so")

    @model_validator(mode="after")
    def refuse_unsafe(self) -> Settings:
        """Plain HTTP leaves the machine only behind a proxy that says it terminates TLS; a demonstration never does."""
        if self.web_host not in LOOPBACK and not self.tls_terminated and self.tls_certificate is None:
            raise ValueError(
                f"BUS_WEB_HOST={self.web_host} would serve plain HTTP off loopback: put a TLS proxy in front "
                "and set BUS_TLS_TERMINATED=true"
            )
        if self.demo and self.web_host not in LOOPBACK:
            raise ValueError(
                f"BUS_DEMO would let anyone who reaches BUS_WEB_HOST={self.web_host} ask as any department: "
                "leave one of them out"
            )
        if any(proxy not in LOOPBACK for proxy in self.proxies) and self.tls_client_ca is None:
            raise ValueError(
                "BUS_CLIENT_CERT_PROXIES names a proxy on another machine: anybody could claim its address. "
                "Set BUS_TLS_CERTIFICATE, BUS_TLS_KEY and BUS_TLS_CLIENT_CA, so that only the proxy can connect"
            )
        return self

    @property
    def proxies(self) -> frozenset[str]:
        """The addresses whose forwarded client certificates are believed."""
        return frozenset(filter(None, (part.strip() for part in self.client_cert_proxies.split(","))))

    @property
    def database(self) -> str:
        """The database's URL; a directory of SQLite files unless set."""
        return self.database_url or f"sqlite:///{self.home.resolve() / 'data'}"
