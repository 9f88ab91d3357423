"""ResNets of any width and input, in torchvision's parameter layout."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models import get_model_weights
from torchvision.models.resnet import BasicBlock, Bottleneck

from bev_models.archive import check_archive
from bev_models.blocks import apply_checkpointed

# Seconds a server may take to answer.
_PATIENCE = 20.0

_LAYOUTS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


class Stage(nn.Sequential):
    """Residual blocks at one resolution.

    Attributes:
        checkpointing: of each block keep only the input for the backward pass.
    """

    def __init__(self, *blocks: nn.Module, checkpointing: bool = False) -> None:
        super().__init__(*blocks)
        self.checkpointing = checkpointing

    def forward(self, x: Float[Tensor, "b _c _h _w"]) -> Float[Tensor, "b c h w"]:
        """Apply one block after the other."""
        for block in self:
            x = apply_checkpointed(block, x, self.checkpointing)
        return x


class ResNet(nn.Module):
    """Residual network that returns the map of every stage.

    Attributes:
        channels: channels of each returned map.
        strides: input cells per cell of each returned map.

    Source: He et al., Deep Residual Learning (CVPR 2016); stride on the 3x3 convolution.
    """

    def __init__(
        self,
        depth: int = 50,
        *,
        in_channels: int = 3,
        width: int = 64,
        stages: int = 4,
        max_pool: bool = True,
        frozen_stem: bool = False,
        checkpointing: bool = False,
    ) -> None:
        """Build the network.

        Args:
            depth: 18, 34, 50, 101 or 152.
            in_channels: channels of the input.
            width: channels of the stem; stage s works at width * 2^s.
            stages: how many of the four stages to build.
            max_pool: halve the map after the stem.
            frozen_stem: stem weights get no gradient and its batch norm stays in evaluation mode.
            checkpointing: of each residual block keep only the input for the backward pass.

        Raises:
            ValueError: if the depth or the number of stages is none of these.
        """
        super().__init__()
        if depth not in _LAYOUTS:
            raise ValueError(f"ResNet depth must be one of {sorted(_LAYOUTS)}, got {depth}")
        if not 1 <= stages <= 4:
            raise ValueError(f"ResNet stages must be 1 to 4, got {stages}")
        self.depth, self.width = depth, width
        self.frozen_stem = frozen_stem
        block, blocks = _LAYOUTS[depth]
        self.conv1 = nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.max_pool = nn.MaxPool2d(3, stride=2, padding=1) if max_pool else nn.Identity()

        self.channels: list[int] = []
        self.strides: list[int] = []
        channels, stride = width, 4 if max_pool else 2
        for stage in range(stages):
            planes = width * 2**stage
            step = 1 if stage == 0 else 2
            stride *= step
            layers = _residual_blocks(block, channels, planes, blocks[stage], step)
            self.add_module(f"layer{stage + 1}", Stage(*layers, checkpointing=checkpointing))
            channels = planes * block.expansion
            self.channels.append(channels)
            self.strides.append(stride)
        self.apply(_init_weights)
        if frozen_stem:
            for module in (self.conv1, self.bn1):
                module.requires_grad_(False)
            self.bn1.eval()

    def train(self, mode: bool = True) -> "ResNet":
        """Switch mode; a frozen stem keeps its batch norm in evaluation mode."""
        super().train(mode)
        if self.frozen_stem:
            self.bn1.eval()
        return self

    def forward(self, x: Float[Tensor, "b c h w"]) -> list[Tensor]:
        """Return the map of every stage, finest first."""
        x = self.max_pool(self.relu(self.bn1(self.conv1(x))))
        maps = []
        for stage in range(len(self.channels)):
            x = self.get_submodule(f"layer{stage + 1}")(x)
            maps.append(x)
        return maps


def load_imagenet_weights(backbone: ResNet, source: str | Path = "imagenet") -> None:
    """Fill a backbone with ImageNet weights in torchvision's layout; the classifier is left out.

    Args:
        backbone: a ResNet of width 64 over RGB images with all four stages.
        source: "imagenet" takes torchvision's file (IMAGENET1K_V1) from torch's cache, or downloads it;
            anything else is the path of such a file.

    Raises:
        ValueError: if the backbone has another layout, or the file does not hold this network.
        FileNotFoundError: if the file is not there.
        RuntimeError: if the weights are not in the cache and cannot be downloaded.
    """
    if backbone.width != 64:
        raise ValueError(f"ImageNet weights need a backbone of width 64, got {backbone.width}")
    state: Mapping[str, Tensor]
    if str(source) == "imagenet":
        weights = get_model_weights(f"resnet{backbone.depth}")["IMAGENET1K_V1"]
        try:
            with _connection_timeout(_PATIENCE):
                state = torch.hub.load_state_dict_from_url(weights.url, progress=False, weights_only=True)
        except OSError as error:
            raise RuntimeError(
                f"the ImageNet weights of ResNet-{backbone.depth} are not in torch's cache "
                f"({torch.hub.get_dir()}/checkpoints) and could not be downloaded ({error}); put "
                f"{Path(weights.url).name} there, give its path, or train without (null)"
            ) from error
    else:
        path = Path(source)
        if not path.is_file():
            raise FileNotFoundError(
                f"ImageNet weights must be a file in torchvision's layout, none at {path}"
            )
        check_archive(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    state = {key: value for key, value in state.items() if not key.startswith("fc.")}
    try:
        missing, unexpected = backbone.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ValueError(f"weights from {source} do not fit ResNet-{backbone.depth}: {error}") from error
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ValueError(
            f"weights from {source} do not fit ResNet-{backbone.depth}: missing {missing[:3]}, "
            f"unexpected {unexpected[:3]}"
        )


@contextmanager
def _connection_timeout(seconds: float) -> Iterator[None]:
    """Let connections fail that do not answer: torch's download waits for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _residual_blocks(
    block: type[BasicBlock] | type[Bottleneck], in_channels: int, planes: int, blocks: int, stride: int
) -> list[nn.Module]:
    """The blocks of one stage; the first one changes channels and stride."""
    out_channels = planes * block.expansion
    downsample = None
    if stride != 1 or in_channels != out_channels:
        downsample = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
        )
    layers: list[nn.Module] = [block(in_channels, planes, stride, downsample)]
    layers += [block(out_channels, planes) for _ in range(1, blocks)]
    return layers


def _init_weights(module: nn.Module) -> None:
    """Kaiming-normal convolutions; the last batch norm of a residual branch starts at zero."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, BasicBlock):
        nn.init.zeros_(module.bn2.weight)
    elif isinstance(module, Bottleneck):
        nn.init.zeros_(module.bn3.weight)
