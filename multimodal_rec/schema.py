"""What a catalogue's columns mean: the content of `catalogue.toml`."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

from multimodal_rec.config import MODALITIES
from multimodal_rec.errors import CatalogueError, ConfigError
from multimodal_rec.fields import parse_field_type

KINDS = ("product", "video", "music")
"""What a catalogue may be a catalogue of."""

INTERACTION_COLUMNS = ("user_id", "item_id", "timestamp", "position", "event", "value")
"""Columns of the interactions with a meaning of their own; context columns need other names."""

_TABLES = ("columns", "attributes", "context", "user_attributes", "profile", "events", "updated", "vectors")


@dataclass(frozen=True)
class Schema:
    """Which columns of a catalogue are text, pictures, sound, video, attributes and context."""

    name: str
    """Short name, for reports and messages."""
    _: KW_ONLY
    kind: str = "product"
    """`product`, `video` or `music`."""
    licence: str = ""
    """Licence of texts and media, an SPDX name where there is one."""
    text: tuple[str, ...] = ()
    """Item columns whose texts are joined in this order. A `category` or `tags` among the attributes may be named here
    too: its words then are compared as they are and read for what they mean."""
    image: tuple[str, ...] = ()
    """Item columns of paths to pictures below `media/`."""
    audio: tuple[str, ...] = ()
    """Item columns of paths to sounds below `media/`."""
    video: tuple[str, ...] = ()
    """Item columns of paths to videos below `media/`."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Item column → field type (`category`, `tags`, `number`, `cyclic:P`)."""
    context: Mapping[str, str] = field(default_factory=dict)
    """Interaction column → field type."""
    user_attributes: Mapping[str, str] = field(default_factory=dict)
    """User column → field type."""
    profile: str | None = None
    """User column with free text, or None."""
    vectors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Modality → item columns of vectors that were computed elsewhere: cells of float32 (dim,), or None."""
    events: Mapping[str, float] = field(default_factory=dict)
    """Event → weight: negative where the event says dislike, 0 where it says nothing; empty means 1.0 for all."""

    updated: Mapping[str, str] = field(default_factory=dict)
    """`items` or `users` → column of that table with the moment (as a timestamp) when a row's texts, attributes and
    vectors were last written; evaluations by time then refuse what was written too late."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(
                f"kind is '{self.kind}'. Expected one of {', '.join(map(repr, KINDS))}.{_near(self.kind, KINDS)}"
            )
        for modality in MODALITIES:
            object.__setattr__(self, modality, _column_names(modality, getattr(self, modality)))
        _check_table("vectors", self.vectors)
        _check_keys("[vectors]", self.vectors, MODALITIES)
        declared = {name: _column_names(f"vectors of {name}", columns) for name, columns in self.vectors.items()}
        object.__setattr__(self, "vectors", {name: declared[name] for name in MODALITIES if declared.get(name)})
        for table in ("attributes", "context", "user_attributes"):
            declared = getattr(self, table)
            _check_table(table, declared)
            for column, field_type in declared.items():
                parse_field_type(column, field_type)
        _check_table("events", self.events)
        for event, weight in self.events.items():
            if isinstance(weight, bool) or not isinstance(weight, (int, float)):
                raise ConfigError(
                    f"event '{event}' has the weight {weight!r}. Expected a number, negative for a dislike."
                )
        object.__setattr__(self, "events", {event: float(weight) for event, weight in self.events.items()})
        _check_table("updated", self.updated)
        _check_keys("[updated]", self.updated, ("items", "users"))
        self._check_roles()
        self._check_words()

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that items can have, as media or as vectors, in the model's order."""
        return tuple(name for name in MODALITIES if name in self.media_modalities or name in self.vectors)

    @property
    def media_modalities(self) -> tuple[str, ...]:
        """The modalities that items can have as texts and media, in the model's order.

        Sound is among them also where only videos are declared: a video's soundtrack speaks for an item without a
        sound of its own.
        """
        declared = {modality for modality in MODALITIES if getattr(self, modality)}
        if "video" in declared:
            declared.add("audio")
        return tuple(modality for modality in MODALITIES if modality in declared)

    @property
    def media_columns(self) -> tuple[str, ...]:
        """The item columns that hold paths: pictures, then sounds, then videos."""
        return self.image + self.audio + self.video

    @property
    def vector_columns(self) -> tuple[str, ...]:
        """The item columns that hold vectors."""
        return tuple(dict.fromkeys(column for columns in self.vectors.values() for column in columns))

    @classmethod
    def read(cls, path: str | Path) -> Schema:
        """The schema in a `catalogue.toml`. Raises `CatalogueError` where the file is absent or not TOML."""
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CatalogueError(
                f"no schema can be read from '{path}'. Expected a UTF-8 catalogue.toml that names the columns."
            ) from error
        return cls.from_toml(text, source=str(path))

    @classmethod
    def from_toml(cls, text: str, *, source: str = "catalogue.toml") -> Schema:
        """The schema that this TOML text declares; `source` names the text in messages.

        Raises `CatalogueError` for text that is not TOML, an unknown key (naming the nearest), or a missing name.
        """
        try:
            content = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise CatalogueError(f"{source} is not TOML: {error}. Correct that line.") from error
        try:
            return _from_content(content)
        except ConfigError as error:
            raise CatalogueError(f"{source}: {error}") from error

    def to_toml(self) -> str:
        """This schema as the text of a `catalogue.toml`; `from_toml` gives it back."""
        lines = [f"{key} = {_quote(getattr(self, key))}" for key in ("name", "kind", "licence")]
        lines += ["", "[columns]"]
        lines += [f"{m} = [{', '.join(map(_quote, getattr(self, m)))}]" for m in MODALITIES]
        if self.vectors:
            lines += ["", "[vectors]"]
            lines += [f"{m} = [{', '.join(map(_quote, columns))}]" for m, columns in self.vectors.items()]
        for table in ("attributes", "context", "user_attributes"):
            if getattr(self, table):
                lines += ["", f"[{table}]"]
                lines += [f"{_key(column)} = {_quote(kind)}" for column, kind in getattr(self, table).items()]
        if self.profile is not None:
            lines += ["", "[profile]", f"text = {_quote(self.profile)}"]
        if self.events:
            lines += ["", "[events]", *(f"{_key(event)} = {weight!r}" for event, weight in self.events.items())]
        if self.updated:
            lines += ["", "[updated]", *(f"{key} = {_quote(column)}" for key, column in self.updated.items())]
        return "\n".join([*lines, ""])

    def _check_roles(self) -> None:
        seen: dict[str, str] = {}
        for modality in ("image", "audio", "video"):
            for column in getattr(self, modality):
                seen.setdefault(column, modality)
        for role, columns in (
            ("text", self.text),
            ("attributes", self.attributes),
            *((m, getattr(self, m)) for m in MODALITIES[1:]),
        ):
            for column in columns:
                if seen.get(column, role) != role:
                    raise ConfigError(
                        f"column '{column}' is declared as {seen[column]} and as {role}. "
                        "Expected paths or values, not both: give one of them a column of its own."
                    )
        for modality, columns in self.vectors.items():
            for column in columns:
                role = seen.get(column, "text" if column in self.text else None)
                role = "attributes" if column in self.attributes else role
                if role is not None:
                    raise ConfigError(
                        f"column '{column}' is declared as {role} and as vectors of {modality}. Expected values or "
                        "vectors, not both: give one of them a column of its own."
                    )
                if not re.fullmatch(r"\w([\w .+-]*\w)?", column):
                    raise ConfigError(
                        f"column '{column}' of vectors cannot be the name of a file. Expected letters, digits, '_', "
                        "'-', '+', '.' and spaces. Rename it."
                    )
        reserved = {
            "vector_columns": ("item_id",),
            "text": ("item_id",),
            "attributes": ("item_id",),
            "context": INTERACTION_COLUMNS,
            "user_attributes": ("user_id",),
        }
        for role, names in reserved.items():
            for column in getattr(self, role):
                if column in names:
                    raise ConfigError(
                        f"column '{column}' cannot be declared under {role}: it has its own meaning. Rename it."
                    )

    def _check_words(self) -> None:
        for column in self.text:
            kind, _ = parse_field_type(column, self.attributes.get(column, "category"))
            if kind not in ("category", "tags"):
                raise ConfigError(
                    f"column '{column}' is declared as text and as attributes, and a {kind} has no words to read. "
                    "Expected 'category' or 'tags', or one of the two. Leave one out."
                )


def _from_content(content: Mapping[str, Any]) -> Schema:
    values = dict(content)
    _check_keys("catalogue.toml", values, ("name", "kind", "licence", *_TABLES))
    for table in _TABLES:
        if not isinstance(values.get(table, {}), dict):
            raise ConfigError(f"'{table}' is {values[table]!r}. Expected a table: [{table}] with one line a column.")
    columns = values.pop("columns", {})
    profile = values.pop("profile", {})
    _check_keys("[columns]", columns, MODALITIES)
    _check_keys("[profile]", profile, ("text",))
    for key in ("name", "kind", "licence"):
        if not isinstance(values.get(key, ""), str):
            raise ConfigError(f"'{key}' is {values[key]!r}. Expected text in quotes.")
    if not values.get("name"):
        raise ConfigError('it has no name. Add a line such as name = "music".')
    return Schema(values.pop("name"), profile=profile.get("text"), **columns, **values)


def _column_names(modality: str, columns: object) -> tuple[str, ...]:
    if not isinstance(columns, (list, tuple)) or not all(isinstance(column, str) and column for column in columns):
        raise ConfigError(f"columns for {modality} are {columns!r}. Expected a list of column names.")
    return tuple(dict.fromkeys(columns))


def _check_table(table: str, declared: object) -> None:
    if not isinstance(declared, Mapping):
        raise ConfigError(f"{table} is {declared!r}. Expected a mapping with one entry a column.")


def _check_keys(where: str, values: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in values:
        if key not in known:
            hint = _near(key, known) or f" It has: {', '.join(known)}."
            raise ConfigError(f"{where} has no key '{key}'.{hint}")


def _near(word: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean '{near[0]}'?" if near else ""


def _quote(text: str) -> str:
    # A TOML basic string is a JSON string, except that DEL needs an escape and surrogate pairs are not allowed.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    bare = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
    return name if bare else _quote(name)
