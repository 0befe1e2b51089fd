"""Linear layers whose weights are int8."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from towers.backbone import Backbone
from towers.tuning import merge_adapter

# Half of int8's range. Without VNNI a CPU adds pairs of products, of an activation up to 255 and a weight, in 16 bits:
# 2 · 255 · 63 still fits there, and with 127 sums were cut off, which cost more than the bit is worth.
_LARGEST = 63
_STEPS, _ZERO = 127, 128  # of an activation: on either side of 0, and the byte that is 0

_MERGED = ("lora", "dora", "adalora")
_multiply = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32


@final
class Int8Linear(nn.Module):
    """A linear layer of int8 weights, one scale an output: y = x (scale · weight)ᵀ + bias.

    On a CPU, float32 activations become 8 bits too, with one scale a row that is read off the row itself, and integers
    are multiplied. Elsewhere, and in other precisions, weights are multiplied out first: they take a quarter of the
    memory, and no less time. No gradient goes through. Sources: ZeroQuant's scales a token (arXiv:2206.01861); torch's
    kernels.
    """

    weight: Tensor
    """Buffer int8 (out, in), -63 to 63."""
    scale: Tensor
    """Buffer (out,)."""
    bias: Tensor | None

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        weight = layer.weight.detach().float()
        scale = (weight.abs().amax(dim=1) / _LARGEST).clamp(min=1e-12)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.register_buffer("weight", torch.round(weight / scale.unsqueeze(1)).to(torch.int8))
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().float())
        # The same weights in the order in which the kernel reads them, made when first asked for; in a list, since
        # torch.export looks at attributes and takes no such objects.
        self._packed: list[Any] = []

    def forward(self, rows: Tensor) -> Tensor:
        """(..., in) → (..., out)."""
        if torch.onnx.is_in_onnx_export():
            return self._in_onnx(rows)
        if rows.device.type != "cpu" or rows.dtype != torch.float32 or torch.compiler.is_exporting():
            weight = self.weight.to(rows.dtype) * self.scale.to(rows.dtype).unsqueeze(1)
            return F.linear(rows, weight, None if self.bias is None else self.bias.to(rows.dtype))
        with torch.no_grad():
            size = rows.abs().amax(dim=-1, keepdim=True).clamp(min=1e-12)
            # The kernel takes one scale for all rows: rows of size 1 make that a scale a row, and no row depends on
            # the others of its batch, as it would where the scale is theirs.
            product = _multiply((rows / size).contiguous(), 1 / _STEPS, _ZERO, self._ready())
            return product * size if self.bias is None else torch.addcmul(self.bias, product, size)

    def extra_repr(self) -> str:
        """Sizes, as nn.Linear prints them."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"

    def _in_onnx(self, rows: Tensor) -> Tensor:
        """The same integers in ONNX's own words: `forward` on a CPU."""
        size = rows.abs().amax(dim=-1, keepdim=True).clamp(min=1e-12)
        steps = (torch.round(rows / size * _STEPS) + _ZERO).to(torch.uint8)
        zero = torch.full((), _ZERO, dtype=torch.uint8)
        shape = (*rows.shape[:-1], self.out_features)
        sums = torch.onnx.ops.symbolic("MatMulInteger", (steps, self.weight.T, zero), dtype=torch.int32, shape=shape)
        product = sums.to(torch.float32) * (self.scale / _STEPS) * size
        return product if self.bias is None else product + self.bias

    def _ready(self) -> Any:
        if not self._packed:
            # Whatever runs this in inference mode, what is kept serves outside of it too.
            with torch.inference_mode(False):
                zeros = torch.zeros(self.out_features, dtype=torch.int64)
                make = torch.ops.aten._make_per_channel_quantized_tensor
                whole = make(self.weight.clone(), self.scale.double(), zeros, 0)
                self._packed = [torch.ops.quantized.linear_prepack(whole, None)]
        return self._packed[0]

    def _load_from_state_dict(self, *args: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self._packed = []
        super()._load_from_state_dict(*args)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_packed": []}


def use_int8(backbone: Backbone) -> int:
    """How many linear layers of `backbone` have int8 weights now, in place; nothing of it learns any more.

    Low-rank adapters are merged first. What a network multiplies without calling a layer, such as the attention inside
    open_clip's ViT, and convolutions stay as they are.
    """
    if backbone.adapter in _MERGED:
        merge_adapter(backbone)
    backbone.requires_grad_(False)
    if backbone.tuning == "full":
        backbone.tuning = "frozen"
    return _replace(backbone.net)


def _replace(net: nn.Module) -> int:
    count = 0
    for name, child in net.named_children():
        # Not its subclasses, whose weights may be read past `forward`; adapters are small, and beside what is large.
        if type(child) is nn.Linear:
            setattr(net, name, Int8Linear(child))
            count += 1
        elif name != "bottleneck":
            count += _replace(child)
    return count
