"""Batches of photos: preprocessing against Pillow and torchvision, order, threads, unreadable photos."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from geoloc.models.batches import NOT_STORED, decode, iter_batches
from geoloc.models.preprocess import CROPS, Preprocess
from geoloc.models.settings import Augmentation
from geoloc.settings import SettingsError, parse

SMALL = Preprocess(resize_short_side=40, image_size=32)


class OneShard:
    """A reader over one run of bytes, as a shard is."""

    def __init__(self, photos: list[bytes]) -> None:
        self.data = b"".join(photos)
        ends = np.cumsum([len(photo) for photo in photos])
        self.rows = pd.DataFrame(
            {
                "shard": pd.Series(["a.tar"] * len(photos), dtype="str"),
                "offset": pd.array(ends - [len(photo) for photo in photos], dtype="Int64"),
                "length": pd.array([len(photo) for photo in photos], dtype="Int64"),
            }
        )

    def read(self, shard: str, offset: int, length: int) -> bytes:
        assert shard == "a.tar"
        return self.data[offset : offset + length]


def pixels(seed: int, height: int, width: int, channels: int = 3) -> np.ndarray:
    """A smooth random photo."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, channels), dtype=np.uint8)
    image = Image.fromarray(coarse.squeeze()).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image)


def jpeg(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "JPEG", quality=92)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("height", "width"), [(96, 96), (256, 341), (341, 256), (31, 57), (40, 61), (600, 400)]
)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_centre_is_torchvisions_resize_and_a_plain_crop(height: int, width: int, interpolation: str) -> None:
    photo = pixels(1, height, width)
    ours = Preprocess(resize_short_side=40, image_size=32, interpolation=interpolation).apply_uint8(photo)
    image = v2.Resize(40, v2.InterpolationMode(interpolation))(Image.fromarray(photo))
    left, top = math.floor(image.width / 2 - 16), math.floor(image.height / 2 - 16)
    np.testing.assert_array_equal(ours, np.asarray(image.crop((left, top, left + 32, top + 32))))


def test_normalise_is_that_of_torchvision_and_of_the_weights_note() -> None:
    images = torch.randint(
        0, 256, (2, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    oracle = v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])(images.float() / 255)
    torch.testing.assert_close(Preprocess().normalise(images), oracle, atol=2e-6, rtol=0)
    half = Preprocess(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)).normalise(images)
    torch.testing.assert_close(half, images.float() / 127.5 - 1, atol=1e-6, rtol=0)
    with pytest.raises(TypeError, match="uint8"):
        Preprocess().normalise(images.float())


def test_decode_is_that_of_pillow_for_colour_and_grey() -> None:
    for channels in (3, 1):
        data = jpeg(pixels(2, 50, 70, channels))
        np.testing.assert_array_equal(decode(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_every_photo_comes_once_in_order_whatever_the_threads(tmp_path: Path) -> None:
    shard = OneShard([jpeg(pixels(i, 45 + i, 60)) for i in range(23)])
    order = np.random.default_rng(0).permutation(23)
    for workers in (1, 3):
        batches = list(iter_batches(shard, shard.rows, SMALL, 5, workers, order=order))
        assert [len(b.row_indices) for b in batches] == [5, 5, 5, 5, 3]
        np.testing.assert_array_equal(np.concatenate([b.row_indices for b in batches]), order)
        for batch in batches:
            for image, row in zip(batch.images, batch.row_indices, strict=True):
                place = shard.rows.iloc[row]
                expected = SMALL.apply_uint8(decode(shard.read("a.tar", place.offset, place.length)))
                np.testing.assert_array_equal(image.permute(1, 2, 0), expected)


def test_unreadable_photos_are_named_and_the_others_keep_their_places() -> None:
    good = [jpeg(pixels(i, 50, 60)) for i in range(20)]
    shard = OneShard([*good[:3], b"not a photo", *good[3:10], good[10][:-200], b"", *good[11:]])
    shard.rows.loc[[5, 9], ["shard", "offset", "length"]] = [None, pd.NA, pd.NA]
    batches = list(iter_batches(shard, shard.rows, SMALL, 10, 2))
    bad = np.concatenate([b.unreadable_indices for b in batches]).tolist()
    assert bad == [3, 5, 9, 11, 12]
    reasons = [reason for b in batches for reason in b.reasons]
    assert reasons[1] == NOT_STORED
    assert all(reasons)
    read = np.concatenate([b.row_indices for b in batches])
    assert sorted([*read, *bad]) == list(range(len(shard.rows)))
    place = shard.rows.iloc[13]
    slot = batches[1].row_indices.tolist().index(13)
    expected = SMALL.apply_uint8(decode(shard.read("a.tar", place.offset, place.length)))
    np.testing.assert_array_equal(batches[1].images[slot].permute(1, 2, 0), expected)


def test_a_batch_of_unreadable_photos_is_empty_not_missing() -> None:
    shard = OneShard([b"x", b"y", jpeg(pixels(0, 40, 40))])
    first, second = iter_batches(shard, shard.rows, SMALL, 2)
    assert first.images.shape == (0, 3, 32, 32)
    assert first.unreadable_indices.tolist() == [0, 1]
    assert second.row_indices.tolist() == [2]


def test_a_fault_of_the_pool_is_an_error_not_an_unreadable_photo() -> None:
    class Broken(OneShard):
        def read(self, shard: str, offset: int, length: int) -> bytes:
            raise FileNotFoundError("a.tar is gone")

    shard = Broken([jpeg(pixels(0, 40, 40))])
    with pytest.raises(FileNotFoundError, match="gone"):
        list(iter_batches(shard, shard.rows, SMALL, 2))


def test_augmentation_depends_on_seed_epoch_and_photo_only() -> None:
    shard = OneShard([jpeg(pixels(i, 50, 60)) for i in range(12)])

    def images(order: list[int], seed: int, epoch: int, workers: int) -> dict[int, np.ndarray]:
        batches = iter_batches(
            shard,
            shard.rows,
            SMALL,
            5,
            workers,
            order=order,
            augmentation=Augmentation(),
            seed=seed,
            epoch=epoch,
        )
        return {int(i): x.numpy() for b in batches for i, x in zip(b.row_indices, b.images, strict=True)}

    first = images(list(range(12)), 7, 0, 1)
    again = images([3, 1, 11, 0, 2], 7, 0, 3)
    assert all(np.array_equal(first[i], again[i]) for i in again)
    assert not any(np.array_equal(first[i], x) for i, x in images(list(range(12)), 7, 1, 1).items())
    assert not any(np.array_equal(first[i], x) for i, x in images(list(range(12)), 8, 0, 1).items())


def test_augmentation_limits_hold() -> None:
    """On a photo whose colour is its position, the crop can be read from the pixels."""
    down, right = np.mgrid[0:200, 0:200].astype(np.uint8)
    photo = np.stack([right, down, np.zeros_like(down)], axis=-1)
    augmentation = Augmentation(minimum_area=0.5, maximum_aspect=1.25)
    areas, flips, aspects = [], [], []
    for index in range(300):
        cut = SMALL.augment_uint8(photo, augmentation, seed=1, epoch=0, index=index).astype(float)
        width = (cut[:, -1, 0] - cut[:, 0, 0]).mean() * 32 / 31
        height = (cut[-1, :, 1] - cut[0, :, 1]).mean() * 32 / 31
        flips.append(width < 0)
        areas.append(abs(width) * height / 200**2)
        aspects.append(abs(width) / height)
    assert 0.47 < min(areas) < 0.56
    assert max(areas) > 0.9
    assert 1 / 1.3 < min(aspects) < 0.85
    assert 1.18 < max(aspects) < 1.3
    assert 0.4 < np.mean(flips) < 0.6


def test_whole_photo_when_nothing_is_random() -> None:
    photo = pixels(5, 64, 64)
    cut = SMALL.augment_uint8(
        photo, Augmentation(minimum_area=1.0, maximum_aspect=1.0, flip=False), seed=0, epoch=0, index=0
    )
    np.testing.assert_array_equal(
        cut, np.asarray(Image.fromarray(photo).resize((32, 32), Image.Resampling.BILINEAR))
    )


def test_wrong_arguments_say_what_is_wrong() -> None:
    shard = OneShard([jpeg(pixels(0, 40, 40))])
    with pytest.raises(ValueError, match="missing: length"):
        iter_batches(shard, shard.rows.drop(columns="length"), SMALL, 2)
    with pytest.raises(ValueError, match="positions below 1"):
        iter_batches(shard, shard.rows, SMALL, 2, order=[1])
    with pytest.raises(SettingsError, match=r"model\.resize_short_side must be at least image_size"):
        parse(Preprocess, {"resize_short_side": 100, "image_size": 128}, "model")


@pytest.mark.parametrize("shape", [(50, 61, 3), (64, 40, 3), (40, 40, 3)])
def test_five_crops_are_torchvisions(shape: tuple[int, int, int]) -> None:
    photo = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    preprocess = Preprocess(resize_short_side=min(shape[:2]), image_size=32)  # no resizing: crops only
    top_left, top_right, bottom_left, bottom_right, _ = v2.FiveCrop(32)(Image.fromarray(photo))
    expected = dict(zip(CROPS[1:], (top_left, top_right, bottom_left, bottom_right), strict=True))
    for crop, wanted in expected.items():
        np.testing.assert_array_equal(preprocess.apply_uint8(photo, crop), np.asarray(wanted))
