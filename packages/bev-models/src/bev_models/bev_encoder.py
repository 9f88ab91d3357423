"""BEV encoder: a small ResNet and a multi-scale neck over the bird's-eye view."""

from jaxtyping import Float
from torch import Tensor, nn

from bev_models.backbones import ResNet
from bev_models.necks import MultiScaleNeck


class BEVEncoder(nn.Module):
    """Three residual stages at strides 2, 4, 8 and the input itself, fused at the grid's own resolution.

    Attributes:
        out_channels: channels of the result.

    Source: Huang et al., BEVDet (2021), section 3.1; Li et al., BEVDepth (AAAI 2023).
    """

    def __init__(
        self,
        in_channels: int,
        *,
        channels: int,
        neck_channels: int,
        depth: int = 18,
        checkpointing: bool = False,
    ) -> None:
        """Build the encoder.

        Args:
            in_channels: channels of all frames' BEV maps together.
            channels: channels of the stem and the first stage.
            neck_channels: channels each of the four scales contributes.
            depth: layers of the ResNet.
            checkpointing: see `bev_models.backbones.ResNet`.
        """
        super().__init__()
        self.trunk = ResNet(
            depth,
            in_channels=in_channels,
            width=channels,
            stages=3,
            max_pool=False,
            checkpointing=checkpointing,
        )
        scales = [in_channels, *self.trunk.channels], [1, *self.trunk.strides]
        self.neck = MultiScaleNeck(*scales, out_channels=neck_channels, out_stride=1)
        self.out_channels = self.neck.out_channels

    def forward(self, bev: Float[Tensor, "b c y x"]) -> Float[Tensor, "b k y x"]:
        """Encode; the grid must be a multiple of 8 cells along both axes."""
        return self.neck([bev, *self.trunk(bev)])  # type: ignore[no-any-return]
