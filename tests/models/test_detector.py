import math

import pytest
import torch

from bev_models import (
    BEVEncoderConfig,
    BEVGrid,
    DepthBins,
    DepthNetConfig,
    DetectionLoss,
    DetectorConfig,
    HeadConfig,
    ImageEncoderConfig,
    Quirks,
    ResNet,
    StereoConfig,
    build_detector,
    load_imagenet_weights,
)
from bev_models.necks import MultiScaleNeck

from . import tiny


def flat(predictions):
    """All tensors of predictions."""
    return [*(x for maps in predictions.tasks for x in maps), predictions.depth_probs]


@pytest.mark.parametrize("cameras", [1, 2, 5])
def test_any_number_of_cameras(cameras):
    model = tiny.detector().eval()
    found = model(tiny.images(batch=2, cameras=cameras), tiny.rig(batch=2, cameras=cameras))
    assert found.depth_probs.shape == (2, cameras, 16, 4, 6)
    assert found.tasks[1].heatmap.shape == (2, 2, 32, 32)
    detections = model.decode(found)
    assert len(detections) == 2
    assert detections[0].boxes.shape[1] == 9


@pytest.mark.parametrize(("frames", "stereo"), [(1, False), (2, False), (2, True), (3, True)])
def test_any_number_of_frames_with_and_without_stereo(frames, stereo):
    model = tiny.detector(frames=frames, stereo=stereo)
    assert (model.stereo is not None) == stereo
    found = model(tiny.images(frames=frames), tiny.rig(frames=frames))
    torch.testing.assert_close(found.depth_probs.sum(2), torch.ones(1, 2, 4, 6))
    assert all(x.isfinite().all() for x in flat(found))


@pytest.mark.parametrize("stride", [4, 8, 16])
@pytest.mark.parametrize("deformable", [False, True])
def test_any_stride(stride, deformable):
    bins = DepthBins(2, 18, 1)
    depth_net = DepthNetConfig(bins, mid_channels=16, context_channels=8, deformable=deformable)
    model = tiny.detector(stride=stride, depth_net=depth_net)
    found = model(tiny.images(), tiny.rig())
    assert found.depth_probs.shape == (1, 2, 16, 64 // stride, 96 // stride)


def test_other_depth_ranges():
    model = tiny.detector(bins=DepthBins(1, 34, 1.5), ranges=(1, 4, 34), quirks="published")
    found = model(tiny.images(), tiny.rig())
    assert found.depth_probs.shape[2] == 22
    depth = model.expected_depth(found.depth_probs)
    assert depth.shape == (1, 2, 4, 6)
    assert ((depth > 1) & (depth < 34)).all()


def test_aggregation_changes_the_lift_only():
    depth_net = DepthNetConfig(DepthBins(2, 18, 1), 16, 8, deformable=False, aggregation=True)
    model = tiny.detector(depth_net=depth_net)
    found = model(tiny.images(), tiny.rig())
    sum(x.square().sum() for maps in found.tasks for x in maps).backward()
    assert all(p.grad.abs().sum() > 0 for p in model.view_transform.parameters() if p.dim() > 1)


def test_aggregation_one_camera_at_a_time_gives_the_same_numbers():
    """Without gradient only one camera's volume exists; with it all cameras' do."""
    depth_net = DepthNetConfig(DepthBins(2, 18, 1), 16, 8, deformable=False, aggregation=True)
    model = tiny.detector(depth_net=depth_net).eval()
    images, cameras = tiny.images(batch=2, cameras=3), tiny.rig(batch=2, cameras=3)
    seen = []
    model.view_transform.aggregation.register_forward_hook(lambda _, inputs, out: seen.append(len(out)))
    together = model(images, cameras)
    with torch.no_grad():
        alone = model(images, cameras)
    # The key frame at once, the one before camera by camera; then both camera by camera, two samples each.
    assert seen == [6, *[2] * 3, *[2] * 6]
    for one, other in zip(flat(together), flat(alone), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_depth_before_stereo_is_told_outside_training():
    model = tiny.detector().eval()
    found = model(tiny.images(), tiny.rig())
    assert not found.mono_depth_probs.requires_grad
    torch.testing.assert_close(found.mono_depth_probs.sum(2), torch.ones(1, 2, 4, 6))
    assert (found.mono_depth_probs - found.depth_probs).abs().max() > 1e-4
    assert model.train()(tiny.images(), tiny.rig()).mono_depth_probs is None
    assert tiny.detector(stereo=False).eval()(tiny.images(), tiny.rig()).mono_depth_probs is None


def test_a_certain_depth_is_expected_in_the_middle_of_its_bin():
    model = tiny.detector()
    probs = torch.zeros(1, 2, 16, 4, 6)
    probs[:, :, 3] = 1
    assert (model.expected_depth(probs) == 5.5).all()


@pytest.mark.parametrize("training", [False, True])
def test_only_the_key_frame_is_trained(training):
    model = tiny.detector().train(training)
    images = tiny.images().requires_grad_()
    found = model(images, tiny.rig())
    sum(x.square().sum() for x in flat(found)).backward()
    assert images.grad[:, 0].abs().sum() > 0
    assert images.grad[:, 1].abs().sum() == 0


def test_the_frame_before_still_matters():
    model = tiny.detector().eval()
    images, cameras = tiny.images(), tiny.rig()
    before = model(images, cameras)
    images[:, 1] = images[:, 1].flip(-1)
    assert (model(images, cameras).depth_probs - before.depth_probs).abs().max() > 1e-5


def test_frozen_stem_stays_as_it_is():
    model = tiny.detector().train()
    backbone = model.image_backbone
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found = model(tiny.images(), tiny.rig())
    sum(x.square().mean() for x in flat(found)).backward()
    optimizer.step()
    after = backbone.state_dict()
    stem = [key for key in before if key.startswith(("conv1", "bn1"))]
    assert len(stem) == 6
    assert all(torch.equal(before[key], after[key]) for key in stem)
    assert not torch.equal(before["layer1.0.bn2.weight"], after["layer1.0.bn2.weight"])
    assert not torch.equal(before["layer1.0.bn1.running_mean"], after["layer1.0.bn1.running_mean"])


def test_a_stem_that_is_not_frozen_trains():
    image = ImageEncoderConfig(depth=18, width=8, frozen_stem=False, neck_channels=8)
    model = tiny.detector(image=image).train()
    sum(x.square().mean() for x in flat(model(tiny.images(), tiny.rig()))).backward()
    assert model.image_backbone.conv1.weight.grad.abs().sum() > 0
    assert model.image_backbone.bn1.num_batches_tracked == 2


def test_every_trainable_parameter_gets_a_gradient():
    model = tiny.detector().train()
    boxes, labels = tiny.boxes()
    lidar = torch.full((1, 2, *tiny.SIZE), 7.0)
    losses = DetectionLoss(model.config)(model(tiny.images(), tiny.rig()), [boxes], [labels], lidar)
    sum(losses.values()).backward()
    missing = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_turning_the_ground_turns_the_map():
    """A quarter turn of keyego about the middle of the grid is a quarter turn of the lifted map."""
    model = tiny.detector().eval()
    maps = []
    model.view_transform.register_forward_hook(lambda _, inputs, output: maps.append((inputs[:2], output)))
    cameras = tiny.rig()
    model(tiny.images(), cameras)
    (probs, context), plain = maps[0]
    cameras.bev_aug[0, :2, :2] = torch.tensor([[0.0, -1], [1, 0]])
    projection = cameras.lift_projection(0, tiny.SIZE, (4, 6), model.config.bev.grid)
    turned = model.view_transform(probs, context, projection)
    # Points on the very border of a cell may round to either side.
    same = torch.isclose(turned, plain.rot90(1, (3, 2)), atol=1e-4).double().mean()
    assert same > 0.97


def test_bfloat16_autocast_is_finite_and_close():
    model = tiny.detector().eval()
    images, cameras = tiny.images(batch=2, cameras=3), tiny.rig(batch=2, cameras=3)
    exact = model(images, cameras)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(images, cameras)
    assert all(x.isfinite().all() for x in flat(found))
    assert all(x.dtype == torch.float32 for x in flat(found))
    assert (found.depth_probs - exact.depth_probs).abs().max() < 2e-2


def test_training_under_bfloat16_autocast():
    model = tiny.detector().train()
    boxes, labels = tiny.boxes()
    lidar = torch.full((1, 2, *tiny.SIZE), 7.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(tiny.images(), tiny.rig())
        total = sum(DetectionLoss(model.config)(found, [boxes], [labels], lidar).values())
    total.backward()
    assert total.dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_channels_last_gives_the_same_numbers():
    images, cameras = tiny.images(), tiny.rig()
    plain = tiny.detector().eval()(images, cameras)
    model = tiny.detector().eval().to(memory_format=torch.channels_last)
    for one, other in zip(flat(plain), flat(model(images, cameras)), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_weights_travel_strictly_and_hold_no_constants():
    model, other = tiny.detector(seed=0).eval(), tiny.detector(seed=1).eval()
    state = model.state_dict()
    other.load_state_dict(state, strict=True)
    images, cameras = tiny.images(), tiny.rig()
    for one, two in zip(flat(model(images, cameras)), flat(other(images, cameras)), strict=True):
        assert torch.equal(one, two)
    learned = {name for name, _ in model.named_parameters()}
    assert all(key in learned or "running_" in key or "num_batches" in key for key in state)


def test_no_cameras_frames_or_boxes_are_lost_in_a_batch():
    """A batch gives what its samples give one by one."""
    model = tiny.detector().eval()
    images, cameras = tiny.images(batch=2), tiny.rig(batch=2)
    cameras.bev_aug[1, 0, 0] = -1
    together = model(images, cameras)
    for b in range(2):
        alone = model(images[b : b + 1], type(cameras)(*(matrix[b : b + 1] for matrix in cameras)))
        for one, other in zip(flat(together), flat(alone), strict=True):
            torch.testing.assert_close(one[b : b + 1], other, atol=1e-4, rtol=1e-4)


def test_normalize():
    pixels = torch.zeros(1, 1, 1, 3, 2, 2, dtype=torch.uint8)
    pixels[:, :, :, 0] = 255
    red = (255 - 123.675) / 58.395
    found = tiny.detector().normalize(pixels)
    assert found.dtype == torch.float32
    assert found[0, 0, 0, :, 0, 0].tolist() == pytest.approx([red, -116.28 / 57.12, -103.53 / 57.375])
    published = tiny.detector(quirks="published").normalize(pixels)
    assert published[0, 0, 0, 2, 0, 0].item() == pytest.approx((255 - 103.53) / 57.375)


def test_heatmaps_start_from_their_prior():
    model = tiny.detector().eval()
    heat = model(tiny.images(), tiny.rig()).tasks[0].heatmap.sigmoid()
    assert heat.mean().item() == pytest.approx(0.1, abs=0.05)
    assert tiny.detector(head=HeadConfig((("a",),), nms_scale=(0.5,), heatmap_prior=None)).class_names == (
        "a",
    )


def test_class_names_are_what_labels_index():
    assert tiny.detector().class_names == ("car", "pedestrian", "cone")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: tiny.config(frames=1), r"frames must be at least 2 with stereo .*, got 1"),
        (lambda: tiny.config(frames=0, stereo=False), "frames must be at least 1, got 0"),
        (lambda: tiny.config(ranges=(2.0, 6.0, 10.0)), "ranges must reach from 2 m to 18 m"),
        (lambda: tiny.config(ranges=(2.0, 6.5, 18.0)), "border of a depth bin .* got 6.5 m"),
        (lambda: StereoConfig(ranges=(2.0, 2.0)), "rising depths"),
        (lambda: StereoConfig(ranges=(2.0,)), "at least two rising depths"),
        (lambda: StereoConfig(samples=4), "samples must be odd"),
        (lambda: StereoConfig(iterations=0), "iterations must be at least 1, got 0"),
        (lambda: HeadConfig(tasks=()), "non-empty groups"),
        (lambda: HeadConfig(tasks=(("a",), ())), "non-empty groups"),
        (lambda: HeadConfig(tasks=(("a",), ("a",)), nms_scale=(1.0, 1.0)), "name each class once"),
        (lambda: HeadConfig(tasks=(("a",),)), r"one value per task \(1\)"),
        (lambda: HeadConfig(peak_size=2), "peak_size must be an odd number of cells, got 2"),
        (lambda: HeadConfig(heatmap_prior=1.0), "heatmap_prior must lie between 0 and 1, got 1.0"),
        (lambda: DepthBins(0.0, 10.0, 1.0), "must start in front of the camera"),
        (lambda: DepthBins(2.0, 10.0, 3.0), "depth bins must span a whole number of steps"),
        (lambda: BEVGrid(x=(10.0, -10.0, 1.0)), "BEV grid axis x must be finite with low < high"),
        (lambda: BEVGrid(y=(-1.0, math.inf, 1.0)), "BEV grid axis y must be finite"),
        (lambda: BEVGrid(z=(-5.0, 3.0, 0.0)), "BEV grid axis z .* positive step"),
        (lambda: tiny.detector(stride=32), "image stride must be 4, 8 or 16, got 32"),
        (
            lambda: tiny.detector(bev=BEVEncoderConfig(BEVGrid((-10, 10, 1), (-16, 16, 1)), channels=8)),
            "multiples of 8 cells along x and y",
        ),
        (lambda: tiny.detector(image=ImageEncoderConfig(depth=42)), "ResNet depth must be one of"),
        (lambda: ResNet(stages=5), "stages must be 1 to 4, got 5"),
        (
            lambda: MultiScaleNeck([8], [3], out_channels=8, out_stride=16),
            "neck stride must divide or be divided by 3, got 16",
        ),
        (
            lambda: (
                tiny.detector(stereo=None, frames=2, image=ImageEncoderConfig(depth=18, width=6))
                and tiny.detector(image=ImageEncoderConfig(depth=18, width=6))
            ),
            "stereo groups must divide the 6 channels",
        ),
    ],
)
def test_configurations_that_cannot_be(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("images", "cameras", "message"),
    [
        (tiny.images()[0], tiny.rig(), r"images must be normalised floats \[b, t, n, 3, H, W\]"),
        (tiny.images().byte(), tiny.rig(), "images must be normalised floats .* torch.uint8"),
        (tiny.images(frames=3), tiny.rig(frames=3), "images must have 2 frames as configured, got 3"),
        (tiny.images(size=(64, 100)), tiny.rig(), "multiples of 32, got 64 x 100"),
        (tiny.images(), tiny.rig(cameras=3), r"cameras.sensor2keyego must have shape \[1, 2, 2, 4, 4\]"),
        (
            tiny.images(),
            tiny.rig()._replace(bev_aug=torch.eye(4).repeat(2, 1, 1)),
            r"cameras.bev_aug must have shape \[1, 4, 4\], got \[2, 4, 4\]",
        ),
    ],
)
def test_inputs_that_do_not_fit(images, cameras, message):
    with pytest.raises(ValueError, match=message):
        tiny.detector()(images, cameras)


def test_defaults_are_the_published_shape():
    config = DetectorConfig()
    assert config.depth_net.bins.count == 112
    assert config.bev.grid.shape == (1, 128, 128)
    assert config.quirks == Quirks()


class TestImageNetWeights:
    @pytest.fixture
    def weights(self, tmp_path):
        """A file in torchvision's layout, and the backbone it was made from."""
        torch.manual_seed(0)
        backbone = ResNet(18)
        state = {**backbone.state_dict(), "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
        torch.save(state, tmp_path / "resnet18.pth")
        return tmp_path / "resnet18.pth", backbone

    def test_fill_a_backbone(self, weights):
        path, source = weights
        backbone = ResNet(18, frozen_stem=True)
        load_imagenet_weights(backbone, path)
        for key, value in source.state_dict().items():
            assert torch.equal(backbone.state_dict()[key], value), key

    def test_from_a_path_in_words(self, weights):
        load_imagenet_weights(ResNet(18), str(weights[0]))

    @pytest.mark.parametrize("depth", [34, 50])
    def test_of_another_depth(self, weights, depth):
        with pytest.raises(ValueError, match=f"do not fit ResNet-{depth}"):
            load_imagenet_weights(ResNet(depth), weights[0])

    def test_of_another_width(self, weights):
        with pytest.raises(ValueError, match="need a backbone of width 64, got 16"):
            load_imagenet_weights(ResNet(18, width=16), weights[0])

    def test_of_something_else(self, tmp_path):
        torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
        with pytest.raises(ValueError, match=r"do not fit ResNet-18: missing .* unexpected \['weight'\]"):
            load_imagenet_weights(ResNet(18), tmp_path / "other.pth")

    def test_that_are_not_there(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"torchvision's layout, none at .*nowhere\.pth"):
            load_imagenet_weights(ResNet(18), tmp_path / "nowhere.pth")


def test_the_published_model_can_be_built_without_memory():
    with torch.device("meta"):
        model = build_detector()
    assert sum(p.numel() for p in model.parameters()) > 50e6
