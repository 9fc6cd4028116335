"""Embedding with any layer: what it gives, by hand; and a layer that is none is told with those that are."""

from __future__ import annotations

import pytest
import torch

from geoloc.models.embedder import build_embedder
from geoloc.models.layers import LayerEmbedder, at_layer, layer_names
from geoloc.models.metric import build_metric_network
from geoloc.models.settings import LayerSettings, ModelSettings
from geoloc.retrieval.embeddings import model_hash
from geoloc.settings import SettingsError

SMALL = ModelSettings(backbone="squeezenet1_1", image_size=64, resize_short_side=64)
IMAGES = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def at(model, name, **others):
    return LayerEmbedder(model, LayerSettings(name=name, **others)).eval()


@pytest.mark.parametrize(
    ("pooling", "by_hand"),
    [
        ("max", lambda x: x.amax((2, 3))),
        ("average", lambda x: x.mean((2, 3))),
        ("gem", lambda x: x.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3)),
    ],
)
def test_it_is_the_layers_output_pooled(pooling, by_hand):
    model = build_embedder(SMALL, 1).eval()
    layer = at(model, "features.4", pooling=pooling)
    with torch.no_grad():
        wanted = by_hand(model.backbone.features[:5](model.preprocess.normalise(IMAGES)))
        torch.testing.assert_close(layer.embed(IMAGES), wanted)
    assert layer.embedding_size == wanted.shape[1] == 128
    # Those of another layer or pooling are embeddings by another model.
    others = [model, layer, at(model, "features.3"), at(model, "features.4", pooling="gem", gem_power=2.0)]
    assert len({model_hash(one) for one in others}) == 4


def test_the_layers_after_the_backbone():
    model = build_metric_network(SMALL, 1, projected_to=7).eval()
    with torch.no_grad():
        features = at(model, "pooling").embed(IMAGES)
        torch.testing.assert_close(
            features, model.pooling(model.backbone(model.preprocess.normalise(IMAGES)))
        )
        torch.testing.assert_close(model.projection(features), model.embed(IMAGES))
        torch.testing.assert_close(at(model, "projection").embed(IMAGES), model.embed(IMAGES))
    assert at_layer(model, None) is model
    assert layer_names(model)[-3:] == ["features.12", "pooling", "projection"]


def test_layers_of_timm_and_of_networks_with_tokens_or_maps_that_end_in_features(monkeypatch):
    """The last layer's output is the backbone's map, however the network lays it out."""
    for name in ("normal_", "trunc_normal_"):  # slow; any weights will do
        monkeypatch.setattr(
            torch.nn.init, name, lambda weights, *args, **options: weights.data.uniform_(-0.02, 0.02)
        )
    for backbone, name, blocks in (
        ("timm/vit_tiny_patch16_224", "norm", "blocks.11"),
        ("timm/tf_efficientnet_lite0", "bn2", "blocks.6"),
        ("swin_t", "norm", "features.7.1"),
    ):
        model = build_embedder(ModelSettings(backbone=backbone, pooling="average", image_size=64), 1).eval()
        layer = at(model, name, pooling="average")
        assert layer.embedding_size == model.embedding_size
        with torch.no_grad():
            torch.testing.assert_close(layer.embed(IMAGES), model.embed(IMAGES))
        assert at(model, blocks).embedding_size > 100
    with pytest.raises(SettingsError, match=r"'features.1.0.attn.softmax'"):
        at(model, "features.1.0.attn.softmax")
    model = build_embedder(ModelSettings(backbone="convnext_tiny", image_size=64), 1).eval()
    assert at(model, "features.1.0.block.3").embedding_size == 384  # a linear layer on [B, h, w, D]
    assert at(model, "features.1.0.block.0").embedding_size == 96


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "features.13",
            r"embeddings.layer.name must be a layer of squeezenet1_1, got 'features.13'; its layers are",
        ),
        ("", r"got ''; its layers are features.0, .*, features.12, pooling, and the modules"),
        ("features.3.squeez", r"the nearest: features.3.squeeze"),
        ("projection", r"got 'projection'; its layers are"),
        ("backbone.features", r"got 'backbone.features'"),
    ],
)
def test_a_layer_that_is_none(name, message):
    with pytest.raises(SettingsError, match=message):
        at(build_embedder(SMALL, 1), name)


def test_a_layer_that_does_not_run():
    model = build_embedder(ModelSettings(backbone="timm/tf_efficientnet_lite0", image_size=64), 1)
    with pytest.raises(
        SettingsError, match=r"'global_pool' does not run; its layers are conv_stem, bn1, blocks.0"
    ):
        at(model, "global_pool")


def test_its_pooling_is_on_the_networks_device(monkeypatch):
    # "meta" stands for a GPU, and nothing can be computed there.
    monkeypatch.setattr(LayerEmbedder, "_try_out", lambda self, key: 1)
    model = build_embedder(ModelSettings(backbone="squeezenet1_1", weights="none"), 0).to("meta")
    layer = LayerEmbedder(model, LayerSettings(name="features.3", pooling="gem"))
    assert {parameter.device.type for parameter in layer.parameters()} == {"meta"}
