"""Settings of who may ask, and how much; and what they make together."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, FilePath, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from arrowembed.server.rate_limit import WhenStoreFails
from arrowembed.server.security.access import AnonymousAdmin

Several = Annotated[list[str], NoDecode]
"""Values with commas between them."""


class SecuritySettings(BaseModel):
    """Who may ask."""

    api_keys: SecretStr | None = Field(
        None, description="Hashes of API keys, as `arrowembed keys new` prints them, with spaces."
    )
    api_keys_file: FilePath | None = Field(None, description="File of them, one a line.")
    jwt_secret: SecretStr | None = Field(None, description="Secret of tokens signed with HS256.")
    jwt_public_key_file: FilePath | None = Field(
        None, description="PEM file with the key of tokens signed with RS256 or ES256."
    )
    jwt_jwks: str | None = Field(
        None, description="Address or file of the key set of those who sign tokens."
    )
    jwt_issuer: str | None = Field(None, description="Who must have issued tokens (iss).")
    jwt_audience: Several = Field(
        default_factory=list, description="Whom tokens must be meant for (aud)."
    )
    jwt_leeway_seconds: float = Field(
        30.0, ge=0, le=600, description="Time by which clocks may differ."
    )
    anonymous_admin: AnonymousAdmin = Field(
        "loopback",
        description="Who may administer where there are neither keys nor tokens: loopback, nobody "
        "or everybody.",
    )
    trusted_proxies: Several = Field(
        default_factory=list,
        description="Addresses or networks whose X-Forwarded-For is believed.",
    )
    allowed_hosts: Several = Field(
        default_factory=list, description="Names that requests may be sent to; none is all."
    )
    cors_origins: Several = Field(
        default_factory=list, description="Origins whose pages may ask from a browser."
    )
    tls_certificate: FilePath | None = Field(None, description="Certificate chain, PEM.")
    tls_key: FilePath | None = Field(None, description="Key of the certificate, PEM.")

    @field_validator(
        "jwt_audience", "trusted_proxies", "allowed_hosts", "cors_origins", mode="before"
    )
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [value]
        if isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
            # As an option it may be given several times, each with commas.
            return [part.strip() for part in ",".join(value).split(",") if part.strip()]
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _check_networks(cls, networks: list[str]) -> list[str]:
        for network in networks:
            # A name would be trusted by nobody, and silently.
            ip_network(network)
        return networks

    @model_validator(mode="after")
    def _check_tokens(self) -> Self:
        sources = (self.jwt_secret, self.jwt_public_key_file, self.jwt_jwks)
        given = sum(source is not None for source in sources)
        if given > 1:
            raise ValueError("jwt_secret, jwt_public_key_file, jwt_jwks: give one of them")
        if given and (self.jwt_issuer is None or not self.jwt_audience):
            raise ValueError(
                "jwt_issuer, jwt_audience: must be given with tokens, so that those for other "
                "services are refused"
            )
        if not given and (self.jwt_issuer is not None or self.jwt_audience):
            raise ValueError(
                "jwt_issuer, jwt_audience: give jwt_secret, jwt_public_key_file or jwt_jwks, too"
            )
        return self

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate, tls_key: give both")
        return self


class RateLimitSettings(BaseModel):
    """How much each client may send."""

    rate_limit: int | None = Field(
        None, ge=1, description="Texts that a client may send in a minute."
    )
    rate_limit_burst: int | None = Field(
        None, ge=1, description="Texts that it may send at once; else those of a minute."
    )
    rate_limit_redis: SecretStr | None = Field(
        None, description="redis:// address where all replicas count together."
    )
    rate_limit_when_redis_fails: WhenStoreFails = Field(
        "open",
        description="open: each process counts on its own meanwhile; closed: requests are refused.",
    )

    @model_validator(mode="after")
    def _check_rate(self) -> Self:
        if self.rate_limit is None and (self.rate_limit_burst or self.rate_limit_redis):
            raise ValueError("rate_limit: must be given with rate_limit_burst and rate_limit_redis")
        return self
