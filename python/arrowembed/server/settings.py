"""All that can be set about the service, in one object.

A setting is looked for in this order: the command line, the environment (`ARROWEMBED_` and its name
in capitals), the file that `config` names (TOML). `SECTIONS` is what `arrowembed serve --help`
shows.
"""

from __future__ import annotations

import os
import tomllib
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, Field, FilePath, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from arrowembed.errors import InvalidArgumentError
from arrowembed.server.model_settings import (
    EngineOptions,
    ModelSettings,
    model_of_environment,
    written,
)
from arrowembed.server.observe.settings import ObserveSettings
from arrowembed.server.security.settings import RateLimitSettings, SecuritySettings
from arrowembed.server.store_settings import StoreSettings, parted

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

ENVIRONMENT = "ARROWEMBED_"
"""What the names of environment variables begin with."""


class ListenSettings(BaseModel):
    """Where it listens."""

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for all.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    grpc_port: int | None = Field(
        None, ge=0, le=65535, description="Port to listen on for gRPC; none without."
    )
    workers: int = Field(1, ge=1, description="Processes that answer requests.")
    num_threads: int | None = Field(
        None, ge=1, description="Threads to compute on, in each process; else its share of cores."
    )
    root_path: str = Field("", description="Path that a proxy takes off in front of all others.")
    keep_alive_seconds: int = Field(
        75, ge=1, description="Idle time after which a connection is closed."
    )


class LimitSettings(BaseModel):
    """What is refused."""

    max_texts: int = Field(100, ge=1, description="Most texts in a request.")
    max_text_chars: int = Field(100_000, ge=1, description="Most characters in a text.")
    max_body_bytes: int = Field(8 << 20, ge=1, description="Most bytes in a request's body.")
    request_seconds: float = Field(
        60.0, gt=0, allow_inf_nan=False, description="Time that a request may take."
    )
    max_queued_texts: int = Field(4096, ge=1, description="Most texts that wait, for each model.")
    max_queued_tokens: int = Field(
        1_000_000, ge=1, description="Most tokens that wait, for each model."
    )
    max_hits: int = Field(1000, ge=1, le=10_000, description="Most hits of a search.")
    max_queued_searches: int = Field(256, ge=0, description="Most searches that wait.")


class LifeSettings(BaseModel):
    """How it starts, changes models and stops."""

    lazy: bool = Field(False, description="Load models when they are first asked for.")
    watch_seconds: float | None = Field(
        None, gt=0, description="Look so often for changed model files, and load them anew."
    )
    drain_delay_seconds: float = Field(
        0.0, ge=0, description="Time between SIGTERM, with /ready saying no, and refusing requests."
    )
    shutdown_seconds: int = Field(
        30, ge=1, description="Time that requests get to be answered before it stops."
    )


class ServedSettings(BaseModel):
    """What it serves."""

    models: Annotated[list[ModelSettings], NoDecode] = Field(
        default_factory=lambda: [model_of_environment()],
        description="Models, as NAME, SOURCE or NAME=SOURCE with commas between them.",
    )
    default_model: str | None = Field(
        None, description="Name of the model that answers where none is asked for; else the first."
    )
    stores: Annotated[list[StoreSettings], NoDecode] = Field(
        default_factory=list,
        description="Store to search, as PATH or NAME=PATH; may be given several times.",
    )

    @field_validator("models", mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        return written(value)

    @field_validator("stores", mode="before")
    @classmethod
    def _read_stores(cls, value: Any) -> Any:
        return written(value, parted)

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        if not self.models:
            raise ValueError("models: none is given")
        names = [name for model in self.models for name in (model.name, *model.aliases)]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"models: {min(twice)!r} is the name or alias of more than one")
        if self.default_model is not None and self.default_model not in names:
            raise ValueError(f"default_model: {self.default_model!r} is none of {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _check_stores(self) -> Self:
        names = [store.name for store in self.stores]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"stores: {min(twice)!r} is the name of more than one")
        known = {name for model in self.models for name in (model.name, *model.aliases)}
        for store in self.stores:
            if store.model is not None and store.model.partition("@")[0] not in known:
                raise ValueError(f"stores: the model of {store.name!r}, {store.model!r}, is none")
        return self


_ONE_AT_A_TIME = {"stores": "store"}
"""Settings that the command line is given one value of at a time."""

SECTIONS: tuple[type[BaseModel], ...] = (
    ServedSettings,
    EngineOptions,
    ListenSettings,
    LimitSettings,
    LifeSettings,
    SecuritySettings,
    RateLimitSettings,
    ObserveSettings,
)
"""The parts of the settings, in the order in which they are shown."""


class ServerSettings(
    ServedSettings,
    EngineOptions,
    ListenSettings,
    LimitSettings,
    LifeSettings,
    SecuritySettings,
    RateLimitSettings,
    ObserveSettings,
    BaseSettings,
):
    """All settings of the service; those of `EngineOptions` hold for models that say nothing."""

    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT, extra="forbid", frozen=True)

    config: FilePath | None = Field(None, description="File of settings, in TOML.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments before the environment before the file."""
        del dotenv_settings, file_secret_settings
        given = init_settings.init_kwargs if isinstance(init_settings, InitSettingsSource) else {}
        path = given.get("config") or os.environ.get(f"{ENVIRONMENT}CONFIG")
        return (
            init_settings,
            env_settings,
            TomlConfigSettingsSource(settings_cls, toml_file=path or ()),
        )


def read_settings(**given: Any) -> ServerSettings:
    """The settings that arguments, environment and file make together.

    Args:
        given: Settings by name, which go before all others.

    Raises:
        InvalidArgumentError: A value is wrong; the message names the setting.
    """
    try:
        return ServerSettings(**given)
    except ValidationError as error:
        raise InvalidArgumentError("; ".join(map(_explained, error.errors()))) from error
    except tomllib.TOMLDecodeError as error:
        raise InvalidArgumentError(f"config: no TOML: {error}") from error
    except (SettingsError, OSError) as error:
        raise InvalidArgumentError(f"settings: {error}") from error


def flag_of(name: str) -> str:
    """A setting's option on the command line."""
    return "--" + _ONE_AT_A_TIME.get(name, name).replace("_", "-")


def variable_of(name: str) -> str:
    """A setting's environment variable."""
    return ENVIRONMENT + name.upper()


def _explained(error: ErrorDetails) -> str:
    """What is wrong with a value, and where it is set; not the value, which may be a secret."""
    message = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        return message
    name, *inner = map(str, error["loc"])
    if error["type"] == "extra_forbidden" and not inner:
        return f"{name}: there is no such setting"
    where = ".".join((name, *inner))
    return f"{where}: {message} ({flag_of(name)}, {variable_of(name)})"
