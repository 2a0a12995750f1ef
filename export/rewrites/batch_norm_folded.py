"""A batch norm in the convolution before it: what is stored is then one weight, not two.

Runtimes fold it when they load, so that fp32 has no need of this; but weights that a compression
rounded before would no longer be on their grid after.
"""

from __future__ import annotations

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .base import register_rewrite


@register_rewrite("batch_norm_folded")
class BatchNormFolded:
    """nn.Sequential of a convolution and a batch norm -> the same of one convolution."""

    def replace(self, module: nn.Module) -> nn.Module | None:
        """The convolution keeps its name."""
        if not isinstance(module, nn.Sequential) or len(module) != 2:
            return None
        conv, norm = module
        if not isinstance(conv, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
            return None
        return nn.Sequential(fuse_conv_bn_eval(conv.eval(), norm.eval()))
