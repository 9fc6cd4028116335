"""TensorFlow's SAME padding for strided convolutions, which weights trained in TensorFlow expect."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class SameConv2d(nn.Conv2d):
    """A convolution padded like TensorFlow's SAME: output size ceil(n / stride), the odd row at bottom and right.

    A stride-2 3x3 convolution of an even side gets no row at the top and one at the bottom. Torch's padding=1 gives one
    at each: the same weights then look one pixel away from where they were trained to look.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Pad by the input's size, then convolve."""
        height = same_padding(input.shape[-2], self.kernel_size[0], self.stride[0], self.dilation[0])
        width = same_padding(input.shape[-1], self.kernel_size[1], self.stride[1], self.dilation[1])
        padded = functional.pad(input, (*width, *height))
        return functional.conv2d(
            padded, self.weight, self.bias, self.stride, 0, dilation=self.dilation, groups=self.groups
        )


def same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Rows to add before and after an axis of length `size` (tf.nn, "SAME" padding)."""
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def use_same_padding(network: nn.Module) -> int:
    """Give every strided convolution of `network` SAME padding, in place; weights and names stay. Returns how many.

    Convolutions of stride 1 with an odd kernel and half its size as padding already have it.
    """
    strided = [
        (parent, name, child)
        for parent in network.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Conv2d and max(child.stride) > 1 and max(child.kernel_size) > 1
    ]
    for parent, name, child in strided:
        same = SameConv2d(
            child.in_channels,
            child.out_channels,
            child.kernel_size,  # type: ignore[arg-type]
            child.stride,  # type: ignore[arg-type]
            0,
            child.dilation,  # type: ignore[arg-type]
            child.groups,
            bias=child.bias is not None,
            device="meta",
        )
        same.weight, same.bias = child.weight, child.bias
        setattr(parent, name, same)
    return len(strided)
