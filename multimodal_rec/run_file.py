"""The TOML file of one training run: `[model]`, `[training]` and `[split]`."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import KW_ONLY, asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multimodal_rec.config import RecommenderConfig, TrainingConfig
from multimodal_rec.errors import ConfigError

if TYPE_CHECKING:
    from multimodal_rec.catalogue import Catalogue
    from multimodal_rec.splits import Split

_SPLIT_FILE = "split.json"


@dataclass(frozen=True)
class SplitChoice:
    """How a catalogue is split, kept beside a model so that it is judged on what it has not seen."""

    how: str = "none"
    """`none`, or a split of `Catalogue.split`."""
    _: KW_ONLY
    valid: float = 0.1
    """Share for validation."""
    test: float = 0.1
    """Share for the test."""
    seed: int = 0
    """Of splits that draw at random."""
    column: str | None = None
    """Interaction column that says the part, for `label`."""

    def __post_init__(self) -> None:
        for name, kinds, expected in (
            ("how", str, "text"),
            ("valid", (int, float), "a share"),
            ("test", (int, float), "a share"),
            ("seed", int, "a whole number"),
            ("column", (str, type(None)), "a column's name"),
        ):
            value = getattr(self, name)
            if not isinstance(value, kinds) or isinstance(value, bool):
                raise ConfigError(f"[split] {name} is {value!r}. Expected {expected}.")

    @classmethod
    def read(cls, model: Path) -> SplitChoice | None:
        """The split that the model in this folder was trained with; None where it was trained from Python."""
        path = model / _SPLIT_FILE
        if not path.is_file():
            return None
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def write(self, model: Path) -> None:
        """Keep this choice in a model's folder."""
        (model / _SPLIT_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    def apply(self, catalogue: Catalogue) -> Split | None:
        """The three parts of `catalogue`; None for `none`. Raises `SplitError` as `Catalogue.split` does."""
        if self.how == "none":
            return None
        return catalogue.split(self.how, valid=self.valid, test=self.test, seed=self.seed, column=self.column)

    def with_option(self, option: str | None) -> SplitChoice:
        """This choice with the way to split that `--split` gives (`time`, `label:COLUMN`); None changes nothing."""
        if option is None:
            return self
        how, _, column = option.partition(":")
        return replace(self, how=how, column=column or self.column)


@dataclass(frozen=True, kw_only=True)
class RunFile:
    """What a TOML file says about a run; every table and every key may be left out."""

    model: Mapping[str, Any] = field(default_factory=dict)
    """Settings of `RecommenderConfig`; towers as `[model.towers.text]` and so on."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """Settings of `TrainingConfig`."""
    split: SplitChoice = field(default_factory=SplitChoice)
    """Settings of `SplitChoice`."""

    @classmethod
    def read(cls, path: Path) -> RunFile:
        """The run that the file at `path` describes. Raises `ConfigError` naming the file and the nearest key."""
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"no configuration can be read from '{path}'. Expected a UTF-8 TOML file.") from error
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path} is not TOML: {error}. Correct that line.") from error
        _check_keys(content, ("model", "training", "split"), where=f"{path}", noun="table")
        for name, table in content.items():
            if not isinstance(table, dict):
                raise ConfigError(f"{path}: '{name}' is {table!r}. Expected a table: [{name}] with one setting a line.")
        split = content.get("split", {})
        _check_keys(split, ("how", "valid", "test", "seed", "column"), where=f"{path}: [split]", noun="setting")
        try:
            training = TrainingConfig.from_dict(content.get("training", {}))
            model = content.get("model", {})
            RecommenderConfig.from_dict(model)
            choice = SplitChoice(**split)
        except (ConfigError, TypeError) as error:
            raise ConfigError(f"{path}: {error}") from error
        return cls(model=model, training=training, split=choice)

    def config(self, default: RecommenderConfig) -> RecommenderConfig:
        """`default` with this file's settings over it; towers, where the file has any, replace the default's whole."""
        return RecommenderConfig.from_dict({**default.to_dict(), **self.model})


def _check_keys(values: Mapping[str, Any], known: tuple[str, ...], *, where: str, noun: str) -> None:
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else f" It has: {', '.join(known)}."
            raise ConfigError(f"{where} has no {noun} '{key}'.{hint}")
