"""`prefix:rest` → a backbone."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from towers.backbone import Backbone
from towers.vectors import PrecomputedVectors, VectorStatistics

MODALITY_OF_PREFIX: dict[str, str | None] = {
    "hf": "text",
    "open_clip": "image",
    "timm": "image",
    "torchaudio": "audio",
    "spectrogram": "audio",
    "frames": "video",
    "vectors": None,
}
"""Which modality a backbone of each prefix reads; `frames` goes before an image backbone, or names its tower; the
`vectors` that were computed elsewhere may be of any."""


@dataclass(frozen=True, kw_only=True)
class BackboneOptions:
    """What may be chosen about a backbone; each kind takes what concerns it."""

    pretrained: bool = True
    """False gives the real class with random weights."""
    pooling: str = "auto"
    """Of tokens: `auto`, `mean`, `cls` or `attention`."""
    prefix: str | None = None
    """Put before every text; None takes what the folder declares."""
    image_size_px: int | None = None
    """Side of the square picture or frame; None takes the backbone's own."""
    clip_seconds: float = 3.0
    """Length of one window of sound."""
    max_tokens: int = 256
    """Texts are cut after this many tokens."""
    modality: str = "text"
    """What `vectors` stand for."""
    vectors: VectorStatistics | None = None
    """What `vectors` are standardised with."""


def split_name(name: str) -> tuple[str, str]:
    """Prefix and rest of `hf:bert-base-uncased`. Raises `ValueError` for an unknown prefix, with the nearest one."""
    prefix, colon, rest = name.partition(":")
    if not colon or prefix not in MODALITY_OF_PREFIX:
        near = difflib.get_close_matches(prefix, MODALITY_OF_PREFIX, n=1)
        hint = f" Did you mean '{near[0]}:'?" if near else ""
        expected = ", ".join(f"'{each}:'" for each in MODALITY_OF_PREFIX)
        raise ValueError(f"backbone '{name}' has no known prefix. Expected one of {expected} before the name.{hint}")
    if not rest and prefix != "vectors":
        raise ValueError(f"backbone '{name}' has nothing after its prefix. Expected a name or a folder there.")
    return prefix, rest


def build_backbone(name: str, options: BackboneOptions | None = None) -> Backbone:  # noqa: PLR0911 - one a kind
    """The backbone of a name such as `timm:resnet10t`, untuned, in evaluation mode.

    `frames:` before an image backbone's name gives that backbone. Raises `ValueError` for an unknown name, with the
    nearest ones, and `OSError` where its files are not on this machine: nothing is downloaded.
    """
    # Each library is imported where it is used: together they take ten seconds, which every command would wait.
    # ruff: noqa: PLC0415
    options = BackboneOptions() if options is None else options
    prefix, rest = split_name(name)
    if prefix == "vectors":
        return _vectors(name, options)
    pretrained = options.pretrained
    if prefix == "hf":
        from towers.text import HuggingFaceText

        return HuggingFaceText(
            rest,
            pretrained=pretrained,
            pooling=options.pooling,
            max_tokens=options.max_tokens,
            prefix=options.prefix,
        )
    if prefix == "open_clip":
        from towers.open_clip_image import OpenClipImage

        return OpenClipImage(rest, pretrained=pretrained, image_size_px=options.image_size_px)
    if prefix == "timm":
        from towers.image import TimmImage

        return TimmImage(rest, pretrained=pretrained, image_size_px=options.image_size_px)
    if prefix == "torchaudio":
        from towers.audio import TorchaudioSound

        return TorchaudioSound(rest, pretrained=pretrained, clip_seconds=options.clip_seconds)
    if prefix == "spectrogram":
        from towers.spectrogram import SpectrogramSound

        return SpectrogramSound(rest, pretrained=pretrained, clip_seconds=options.clip_seconds)
    if ":" not in rest or MODALITY_OF_PREFIX.get(rest.partition(":")[0]) != "image":
        raise ValueError(
            f"backbone '{name}' stands for the tower of '{rest}', which was not given. Expected an image tower to "
            f"share, or an image backbone of its own, such as 'frames:timm:resnet10t'."
        )
    return build_backbone(rest, options)


def _vectors(name: str, options: BackboneOptions) -> Backbone:
    if options.vectors is None:
        raise ValueError(
            f"backbone '{name}' has to know how the vectors lie, to standardise them. Expected statistics, such as "
            'vectors=VectorStatistics.fit({"vggish": matrix}).'
        )
    return PrecomputedVectors(options.vectors, modality=options.modality)
