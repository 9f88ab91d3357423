"""The detector on the reference's inputs, and what it computes, by the reference's names."""

import functools
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bev_models import Cameras, DetectionLoss, Detections, Detector
from bev_models.published import published_to_ours

from . import recipe
from .conftest import GOLDENS, read_golden_json

VARIANTS = ("2key", "2key_da")
# Batch norms by running statistics, and by those of the batch; what the names of its tensors begin with.
MODES = {"evalBN": "", "trainBN": "train."}
MAPS = {
    "heatmap": "heatmap",
    "offset": "reg",
    "height": "height",
    "size": "dim",
    "rotation": "rot",
    "velocity": "vel",
}


class Run(NamedTuple):
    """What one detector computed.

    Attributes:
        stages: tensors by their reference names; "train." with batch statistics.
        detections: of both samples.
        losses: by mode "evalBN" and "trainBN".
        gradients: norms by published name, by mode.
        state: running statistics after the training step.
    """

    stages: dict[str, Tensor]
    detections: list[Detections]
    losses: dict[str, dict[str, Tensor]]
    gradients: dict[str, dict[str, Tensor | None]]
    state: dict[str, Tensor]


@functools.cache
def goldens_of(variant: str) -> dict[str, NDArray[Any]]:
    values: dict[str, NDArray[Any]] = {}
    for name in VARIANTS[: VARIANTS.index(variant) + 1]:
        with np.load(GOLDENS / f"small_{name}.npz") as file:
            values |= dict(file)
    return values


def reference_of(variant: str) -> Any:
    """Losses, gradients and running statistics of the reference."""
    return read_golden_json(f"small_{variant}")


def record(detector: Detector, stages: dict[str, Tensor], prefix: str) -> list[Any]:
    """Let a detector write down what passes through it."""
    seen: dict[str, int] = {}

    def hook(
        module: nn.Module, name: str, write: Callable[[int, tuple[Any, ...], Any], dict[str, Tensor]]
    ) -> Any:
        def called(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            t = seen.get(name, 0)
            seen[name] = t + 1
            stages.update({prefix + key: value.detach() for key, value in write(t, inputs, output).items()})

        return module.register_forward_hook(called)

    def depth_net(t: int, inputs: tuple[Any, ...], output: Any) -> dict[str, Tensor]:
        names = ("mono_depth", "context", "mu", "sigma", "range_score")
        values = {f"s{t}.{name}": value for name, value in zip(names, output, strict=True)}
        return values | {f"s{t}.mlp_in": inputs[1]}

    def stereo(t: int, _: tuple[Any, ...], output: Any) -> dict[str, Tensor]:
        pooled = nn.functional.avg_pool2d(output.mu, 4)
        first = [0, 12, 28, 52]
        per_range = {f"ref{t}.r{r}.mu_pooled": pooled[:, r : r + 1] for r in range(4)}
        per_range |= {f"ref{t}.r{r}.mask": output.mask[:, first[r], None] for r in range(4)}
        return per_range | {
            f"ref{t}.stereo_depth": output.depth,
            f"ref{t}.mask_score": output.mask,
            f"ref{t}.depth_downsample": output.logits,
        }

    def scores(call: int, _: tuple[Any, ...], output: Tensor) -> dict[str, Tensor]:
        if prefix:  # in training ranges pass one by one
            return {}
        by_range = output.view(12, 4, 3, 16, 48)
        return {f"ref{call // 3}.r{r}.it{call % 3}.score": by_range[:, r] for r in range(4)}

    parts: list[Tensor] = []

    def aggregation(call: int, _: tuple[Any, ...], volume: Tensor) -> dict[str, Tensor]:
        if len(volume) == 12:
            return {f"ref{call}.depth_aggregation": volume.permute(0, 2, 4, 3, 1)}
        parts.append(volume)  # without gradient: camera by camera, two samples each
        whole = torch.stack(parts, dim=1).flatten(0, 1)
        return {"ref1.depth_aggregation": whole.permute(0, 2, 4, 3, 1)}

    refined = detector.view_transform.aggregation
    return [
        *([hook(refined, "aggregation", aggregation)] if refined else []),
        hook(detector.image_backbone, "backbone", lambda t, _, out: {f"s{t}.stereo_feat": out[0]}),
        hook(detector.image_neck, "neck", lambda t, _, out: {f"s{t}.neck": out}),
        hook(detector.depth_net, "depth_net", depth_net),
        hook(detector.depth_net.reduce, "reduce", lambda t, _, out: {f"s{t}.depth_feat": out}),
        hook(detector.depth_net.depth_features, "features", lambda t, _, out: {f"s{t}.depth_feat_conv": out}),
        hook(detector.stereo, "stereo", stereo),
        hook(detector.stereo.similarity_net, "similarity", scores),
        hook(
            detector.view_transform,
            "view",
            lambda t, inputs, out: {f"ref{t}.depth_score": inputs[0], f"ref{t}.bev": out},
        ),
        hook(
            detector.bev_encoder, "encoder", lambda _t, inputs, out: {"head.in": inputs[0], "head.neck": out}
        ),
        hook(detector.head.shared, "shared", lambda _t, _, out: {"head.shared": out}),
        hook(
            detector.head,
            "head",
            lambda _t, _, tasks: {
                f"head.t{i}.{MAPS[name]}": value
                for i, task in enumerate(tasks)
                for name, value in task._asdict().items()
            },
        ),
    ]


def ground_truth(values: dict[str, NDArray[Any]]) -> tuple[list[Tensor], list[Tensor]]:
    boxes = [torch.from_numpy(values[f"input.gt_boxes.{b}"]) for b in range(2)]
    return boxes, [torch.from_numpy(values[f"input.gt_labels.{b}"]) for b in range(2)]


def gradient_norms(detector: Detector, published: list[str]) -> dict[str, Tensor | None]:
    mine = dict(detector.named_parameters())
    gradients = {key: mine[str(published_to_ours(key))].grad for key in published}
    return {key: None if gradient is None else gradient.norm() for key, gradient in gradients.items()}


class Given(Detector):
    """Takes the reference's depth distributions in place of its own; gradients flow as through its own."""

    def _depth_probs(self, reference: int, *arguments: Any) -> tuple[Tensor, Tensor | None]:
        own, density = super()._depth_probs(reference, *arguments)
        mode = "train." if self.training else ""
        with np.load(GOLDENS / "depth_small_2key.npz") as file:
            given = torch.from_numpy(file[f"{mode}ref{reference}.depth_score"])
        return given + (own - own.detach()), density


class Inputs(NamedTuple):
    """What the network sees."""

    images: Tensor
    cameras: Cameras


def inputs_of(variant: str) -> Inputs:
    return Inputs(recipe.images(), recipe.cameras(goldens_of(variant)))


def one_run(kind: type[Detector], variant: str, inputs: Inputs | None = None) -> Run:
    """Forward and backward in evaluation mode, then with batch statistics; in the inputs' precision."""
    images, cameras = inputs or inputs_of(variant)
    detector = kind(recipe.small_config(aggregation=variant == "2key_da"))
    recipe.fill(detector, read_golden_json(f"keys_small_{variant}"))
    detector.to(images.dtype)
    boxes, labels = ground_truth(goldens_of(variant))
    criterion = DetectionLoss(detector.config)
    stages: dict[str, Tensor] = {}
    losses, gradients, detections = {}, {}, []
    for mode, prefix in MODES.items():
        detector.train(mode == "trainBN")
        for module in detector.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # the reference values were made without
        hooks = record(detector, stages, prefix)
        predictions = detector(images, cameras)
        for hook in hooks:
            hook.remove()
        if mode == "evalBN":
            detections = detector.decode(predictions)
        losses[mode] = criterion(predictions, boxes, labels, recipe.lidar_depth())
        detector.zero_grad()
        torch.stack(list(losses[mode].values())).sum().backward()
        gradients[mode] = gradient_norms(detector, list(reference_of(variant)["grads"][mode]))
    losses = {mode: {name: loss.detach() for name, loss in terms.items()} for mode, terms in losses.items()}
    return Run(stages, detections, losses, gradients, detector.state_dict())


def stride_of(entries: int, stored: int) -> int:
    """Of a tensor with so many entries the reference keeps `flat[::stride]`, so many numbers."""
    stride = -(-entries // stored)
    while -(-entries // stride) > stored:
        stride += 1
    return stride


def bulk_distance(value: Tensor, reference: Tensor, share: float) -> float:
    """Relative L2 distance over that share of the entries that is nearest."""
    off = (value.double().flatten() - reference.double().flatten()).abs()
    kept = off.sort().values[: math.ceil(share * len(off))]
    return float(kept.norm() / reference.double().norm().clamp(min=1e-12))


def distance(value: Tensor, golden: NDArray[Any], norm: float, share: float) -> float:
    """Distance to a stored sample of a tensor; the norm of the whole must agree as well."""
    flat = value.double().flatten()
    sampled = flat[:: stride_of(flat.numel(), golden.size)]
    of_sample = bulk_distance(sampled, torch.from_numpy(golden).flatten(), share)
    return max(of_sample, abs(float(flat.norm()) / norm - 1))


def stage_names(variant: str) -> list[str]:
    with np.load(GOLDENS / f"small_{variant}.npz") as file:
        return [name.removesuffix("#norm") for name in file.files if name.endswith("#norm")]


def gradient_differences(
    found: Mapping[str, Tensor | None], reference: Mapping[str, float | None]
) -> tuple[dict[str, Tensor], float]:
    """Relative difference of each gradient's norm, and the norm of all gradients found."""
    for key, norm in reference.items():
        if norm is None:
            assert found[key] is None or found[key] == 0, key
    # In theory exactly 0: a softmax does not see what all candidates' scores share, and batch statistics
    # take off the bias of the convolution before them.
    nothing = re.compile(
        r"backbone\.(similarity_net\.2|depth_net\.(reduce_conv\.0|mu_sigma_range_net\.[14])"
        r"|mask_net\.0|depth_downsample_net\.[03])\.bias"
    )
    learned = {key: norm for key, norm in reference.items() if norm and not nothing.fullmatch(key)}
    mine = torch.tensor([float(found[key]) for key in learned])
    off = {key: (value - norm).abs() / norm for (key, norm), value in zip(learned.items(), mine, strict=True)}
    return off, float(mine.norm())
