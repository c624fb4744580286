"""Configuration from one TOML file and the environment; errors name file, key, value and what is allowed.

One file describes a whole fleet (`heron up`); a service reads its own table and `[fleet]`, so the same file,
or a part of it, serves every host:

    [fleet]            name, redis_url, site_token
    [router]           see router/config.py
    [power_feed]       see power_feed/config.py
    [[sites]]          one per site, see site_agent/config.py
    [demo]             only read by `heron demo`

Environment: `HERON_<TABLE>_<KEY>` overrides one key (`HERON_ROUTER_PORT`, `HERON_FLEET_REDIS_URL`); a site
agent reads `HERON_SITE_<KEY>`. Nested keys join with `__` (`HERON_ROUTER_HOLD__MAX_REQUESTS`). Values are
TOML values; what is not one, and what a key that wants text would not take (a token of digits), is a string.
"""

from __future__ import annotations

import base64
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from fleet.keys import FLEET_NAME

TABLES = ("fleet", "router", "power_feed", "sites", "demo")
TABLES_OF_MANY = ("sites",)
MAX_CONFIG_BYTES = 4 << 20
MAX_VALUE_CHARACTERS = 200
"""Of a value in a message."""
_URL_SECRET = re.compile(r"""(?<=://)\S*@|(?<=[?&]password=)[^&\s'"]*""")


NO_FILE = "without --config FILE"
"""Where a key is missing that no file could give."""


class ConfigError(Exception):
    """What is wrong in a configuration, one line a fault; the command line prints it and exits 2."""


class ConfigModel(BaseModel):
    """Base of every configuration table: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Port = Annotated[int, Field(ge=0, le=65535)]
"""0 lets the system choose; the service logs which."""


def _checked_url(url: str) -> str:
    parts = urlsplit(url)
    try:
        _ = parts.port
    except ValueError:
        raise ValueError("the port must be a number from 0 to 65535") from None
    return url


def with_host(url: str) -> str:
    """A validator: the URL can be taken apart, and names a host that can be asked.

    Raises:
        ValueError: it does not.
    """
    try:
        parts = urlsplit(url)
        is_good = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good:
        raise ValueError("must be scheme://host:port, the port from 1 to 65535")
    return url


RedisUrl = Annotated[str, Field(pattern=r"^(rediss?|unix)://"), AfterValidator(_checked_url)]


def _checked_public_key(text: str) -> str:
    try:
        der = base64.b64decode(text, validate=True)
    except ValueError:
        der = b""
    if not der.startswith(PUBLIC_KEY_HEAD) or len(der) != PUBLIC_KEY_BYTES:
        raise ValueError(
            "must be an Ed25519 public key: the one line between BEGIN and END that "
            "`openssl pkey -in KEY.pem -pubout` prints"
        )
    return text


PUBLIC_KEY_HEAD = bytes.fromhex("302a300506032b6570032100")
"""Of an Ed25519 key in DER (RFC 8410, section 4)."""
PUBLIC_KEY_BYTES = len(PUBLIC_KEY_HEAD) + 32
PublicKeys = Annotated[
    tuple[Annotated[str, AfterValidator(_checked_public_key)], ...], Field(min_length=1, max_length=16)
]
"""Several, so that a writer can go over to a new one."""


class TrustedKeys(ConfigModel):
    """`[fleet.trusted_keys]`: whose records are believed (docs/records.md#signed-records).

    A kind of writer that has keys here must sign; one that has none is believed as it is. As soon as one site
    has keys, a site without is not believed.
    """

    power_feed: PublicKeys = ()
    router: PublicKeys = ()
    operator: PublicKeys = ()
    """`heron cordon` and `heron keys`."""
    sites: dict[Annotated[str, Field(pattern=f"^{FLEET_NAME.pattern}$")], PublicKeys] = {}


class FleetConfig(ConfigModel):
    """`[fleet]`: what all services of a fleet share."""

    name: Annotated[str, Field(pattern=f"^{FLEET_NAME.pattern}$")] = "default"
    redis_url: RedisUrl = "redis://127.0.0.1:6379/0"
    site_token: SecretStr | None = None
    """What routers show to site agents. Needed unless everything listens on loopback only."""
    max_clock_skew_seconds: Annotated[float, Field(gt=0)] = 30.0
    tls_ca_file: Path | None = None
    """PEM: the CAs of sites' and the feed's certificates, where their URLs begin with `https://`. None: the
    system's. Relative to the configuration file, as the next two."""
    tls_client_certificate_file: Path | None = None
    """PEM: what is shown to a site that asks for one (`tls_client_ca_file` there)."""
    tls_client_key_file: Path | None = None
    trusted_keys: TrustedKeys = TrustedKeys()
    operator_key_file: Path | None = None
    """PEM: the Ed25519 private key with which `heron cordon` and `heron keys` sign; only they read it.
    Relative to the configuration file."""

    @model_validator(mode="after")
    def _is_a_pair(self) -> Self:
        if (self.tls_client_certificate_file is None) != (self.tls_client_key_file is None):
            raise ValueError(
                "tls_client_certificate_file and tls_client_key_file belong together: give both, or neither"
            )
        return self


Model = TypeVar("Model", bound=BaseModel)


def read_file(path: Path) -> dict[str, Any]:
    """Read a TOML file and check its top-level tables.

    Raises:
        ConfigError: unreadable, not TOML, or a table that no service knows.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(raw) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{path}: {len(raw)} bytes, at most {MAX_CONFIG_BYTES}")
    try:
        tables = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    for name, value in tables.items():
        if name not in TABLES:
            raise ConfigError(f"{path}: [{name}]: no such table; allowed are {', '.join(TABLES)}")
        if name in TABLES_OF_MANY:
            if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
                raise ConfigError(f"{path}: {name} must be tables: [[{name}]]")
        elif not isinstance(value, dict):
            raise ConfigError(f"{path}: [{name}] must be a table")
    return tables


def build(
    model: type[Model],
    values: Mapping[str, Any],
    *,
    table: str,
    source: str,
    environment: Mapping[str, str] | None = None,
    environment_prefix: str | None = None,
) -> Model:
    """Check one table, the environment over it.

    `source` names the file in messages; `environment_prefix` is e.g. `HERON_ROUTER_`.

    Raises:
        ConfigError: one line per fault, each with file, key, value and what is allowed.
    """
    merged: dict[str, Any] = dict(values)
    texts: dict[tuple[str, ...], tuple[str, str]] = {}
    if environment_prefix is not None:
        texts = _overlay(merged, os.environ if environment is None else environment, environment_prefix)
    try:
        return _validate(model, merged, texts)
    except ValidationError as error:
        origin = {path[0]: f"environment {name}" for path, (name, _) in texts.items()}
        lines = []
        for fault in _own_faults(error):
            path = [str(part) for part in fault["loc"]]
            where = origin.get(path[0] if path else "", source)
            if fault["type"].startswith("union_tag"):
                path.append(fault["ctx"]["discriminator"].strip("'"))
            lines.append(
                f"{where}: [{table}]{' ' if path else ''}{'.'.join(path)}{_shown(model, fault)}: "
                f"{_allowed(model, fault)}"
            )
        raise ConfigError("\n".join(lines)) from None


def _own_faults(error: ValidationError) -> list[Any]:
    """Without "at least 1 item" of a list whose items were refused: pydantic counts only the good ones."""
    faults = error.errors(include_url=False)
    deeper = {fault["loc"][:depth] for fault in faults for depth in range(len(fault["loc"]))}
    return [fault for fault in faults if fault["type"] != "too_short" or fault["loc"] not in deeper]


def _validate(
    model: type[Model], merged: dict[str, Any], texts: Mapping[tuple[str, ...], tuple[str, str]]
) -> Model:
    try:
        return model.model_validate(merged)
    except ValidationError as error:
        wanted_text = [
            path
            for fault in error.errors(include_url=False)
            if fault["type"] == "string_type" and (path := tuple(map(str, fault["loc"]))) in texts
        ]
        if not wanted_text:
            raise
    for path in wanted_text:
        _put(merged, path, texts[path][1])
    return model.model_validate(merged)


def _overlay(
    merged: dict[str, Any], environment: Mapping[str, str], prefix: str
) -> dict[tuple[str, ...], tuple[str, str]]:
    """Put the environment over `merged`; returns the variable and its text by the key's path."""
    texts: dict[tuple[str, ...], tuple[str, str]] = {}
    for name in sorted(environment):
        if name.startswith(prefix):
            path = tuple(name[len(prefix) :].lower().split("__"))
            _put(merged, path, _toml_value(environment[name]))
            texts[path] = (name, environment[name])
    return texts


def _put(merged: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Set a nested key; the tables on the way are copied, for they are the file's."""
    target = merged
    for part in path[:-1]:
        existing = target.get(part)
        target[part] = dict(existing) if isinstance(existing, Mapping) else {}
        target = target[part]
    target[path[-1]] = value


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def without_password(text: str) -> str:
    """A URL, or text with URLs in it, fit to be shown."""
    return _URL_SECRET.sub(lambda match: "…@" if match[0].endswith("@") else "…", text)


def _shown(model: type[BaseModel], fault: Any) -> str:
    """The faulty value as ` = value`, without a secret; nothing of a whole table, which may hold one."""
    if fault["type"] == "missing" or not fault["loc"]:  # of several keys together: the message names them
        return ""
    given = fault["ctx"]["tag"] if fault["type"] == "union_tag_invalid" else fault["input"]
    is_misspelt_text = fault["type"] == "extra_forbidden" and isinstance(given, str)  # a secret, maybe
    if is_misspelt_text or _is_secret(model, fault["loc"]):
        return " = (not shown)"
    if _has_table(given):
        return ""
    value = without_password(repr(given))
    return f" = {value if len(value) <= MAX_VALUE_CHARACTERS else value[:MAX_VALUE_CHARACTERS] + '…'}"


def _is_secret(kind: Any, path: tuple[Any, ...]) -> bool:
    """Whether the path leads to a secret; on it are keys, and places in lists and tags of unions between."""
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return kind is SecretStr or any(_is_secret(part, path) for part in get_args(kind))
    depth = next((at for at, part in enumerate(path) if part in kind.model_fields), None)
    return depth is not None and _is_secret(kind.model_fields[path[depth]].annotation, path[depth + 1 :])


def _has_table(value: Any) -> bool:
    return isinstance(value, Mapping) or (
        isinstance(value, (list, tuple)) and any(_has_table(item) for item in value)
    )


def _allowed(model: type[BaseModel], fault: Any) -> str:
    if fault["type"] == "extra_forbidden":
        return (
            f"no such key; allowed are {', '.join(_keys(model))}" if len(fault["loc"]) == 1 else "no such key"
        )
    if fault["type"] in ("missing", "union_tag_not_found"):
        return "is missing and has no default"
    if fault["type"] == "union_tag_invalid":
        return f"allowed are {fault['ctx']['expected_tags']}"
    return str(fault["msg"]).removeprefix("Value error, ")  # pydantic's word for a check of our own


def with_files(table: Mapping[str, Any], path: Path | None) -> dict[str, Any]:
    """The same table, each `…_file` in it relative to the configuration file `path`."""
    if path is None:
        return dict(table)
    directory = path.resolve().parent
    return {
        key: str(directory / Path(value).expanduser())
        if key.endswith("_file") and isinstance(value, str)
        else value
        for key, value in table.items()
    }


def _keys(model: type[BaseModel]) -> list[str]:
    """Its own first, then those that it has in common with other tables."""
    return sorted(model.model_fields, key=lambda name: name not in model.__annotations__)


def load_fleet(
    tables: Mapping[str, Any],
    source: str,
    environment: Mapping[str, str] | None = None,
    *,
    path: Path | None = None,
) -> FleetConfig:
    """The `[fleet]` table; `path`: of the file that it comes from."""
    return build(
        FleetConfig,
        with_files(tables.get("fleet", {}), path),
        table="fleet",
        source=source,
        environment=environment,
        environment_prefix="HERON_FLEET_",
    )
