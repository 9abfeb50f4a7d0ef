"""Every usual kind of image file becomes RGB, and broken ones are named."""

import builtins

import cv2
import numpy as np
import pytest

from frcnn.data import images
from frcnn.data.images import check_size, decode_image, opencv, read_image
from frcnn.errors import UserError

# 60 high, 80 wide: red grows to the right, green downwards.
Y, X = np.mgrid[:60, :80]
RGB = np.stack([X * 3, Y * 4, np.full_like(X, 50)], axis=2).astype(np.uint8)
BGR = RGB[..., ::-1].copy()


def encode(image, extension=".png", *options):
    return cv2.imencode(extension, image, list(options))[1].tobytes()


def with_exif_rotation(jpeg, orientation):
    tiff = b"II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00" + bytes([orientation, 0, 0, 0]) + bytes(4)
    segment = b"Exif\x00\x00" + tiff
    return jpeg[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + jpeg[2:]


@pytest.mark.parametrize("extension", [".png", ".bmp", ".tiff"])
def test_lossless_files_come_back_exactly(extension):
    image = decode_image(encode(BGR, extension))
    np.testing.assert_array_equal(image, RGB)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous


@pytest.mark.parametrize("extension", [".jpg", ".webp"])
def test_lossy_files_come_back_nearly(extension):
    assert np.abs(decode_image(encode(BGR, extension)).astype(int) - RGB).mean() < 3


def test_grey_becomes_three_equal_channels():
    image = decode_image(encode(BGR[..., 0]))
    np.testing.assert_array_equal(image, np.repeat(BGR[..., :1], 3, axis=2))


@pytest.mark.parametrize("extension", [".png", ".tiff"])
def test_16_bits_are_scaled_to_8(extension):
    np.testing.assert_array_equal(decode_image(encode(BGR.astype(np.uint16) * 257, extension)), RGB)


def test_16_bit_grey_is_scaled_to_8():
    image = decode_image(encode(BGR[..., 2].astype(np.uint16) * 257))
    np.testing.assert_array_equal(image, np.repeat(RGB[..., :1], 3, axis=2))


def test_alpha_is_dropped():
    alpha = np.zeros((60, 80, 1), np.uint8)
    np.testing.assert_array_equal(decode_image(encode(np.concatenate([BGR, alpha], axis=2))), RGB)


def test_exif_orientation_is_applied():
    jpeg = encode(BGR, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 100)
    image = decode_image(with_exif_rotation(jpeg, 6))  # 6: the camera was turned, show it turned clockwise
    assert image.shape == (80, 60, 3)
    assert np.abs(image.astype(int) - np.rot90(RGB, -1)).mean() < 3


@pytest.mark.parametrize("extension", [".png", ".jpg", ".bmp", ".webp", ".tiff"])
@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_file_that_was_cut_is_never_taken_for_an_image(tmp_path, extension, share):
    data = encode(BGR, extension)
    path = tmp_path / f"cut{extension}"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError) as caught:
        read_image(str(path), "image id 7")
    assert f"{path} (image id 7): " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_end_of_an_exif_thumbnail_is_not_the_end_of_the_image():
    jpeg = encode(BGR, ".jpg")
    thumbnail = b"\xff\xe1\x00\x0cExif\x00\x00\xff\xd8\xff\xd9"
    whole = jpeg[:2] + thumbnail + jpeg[2:]
    assert decode_image(whole).shape == (60, 80, 3)
    with pytest.raises(UserError, match="cut short"):
        decode_image(whole[:-300])


def test_bytes_behind_the_end_do_not_matter():
    assert decode_image(encode(BGR, ".jpg") + bytes(5000)).shape == (60, 80, 3)


def test_missing_empty_and_foreign_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"gone.png \(image id 3\): there is no such image file"):
        read_image(str(tmp_path / "gone.png"), "image id 3")
    (tmp_path / "empty.png").touch()
    with pytest.raises(UserError, match=r"empty.png: the image file is empty \(0 bytes\)"):
        read_image(str(tmp_path / "empty.png"))
    (tmp_path / "page.jpg").write_text("<html>not found</html>")
    with pytest.raises(UserError, match=r"page.jpg: cannot be decoded as an image \(22 bytes that begin with b'<html>"):
        read_image(str(tmp_path / "page.jpg"))
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read_image(str(tmp_path))


def test_a_size_unlike_the_annotations_is_told_with_both():
    check_size(RGB, (60, 80), "x.jpg")
    with pytest.raises(
        UserError, match=r"x.jpg: the file is 80 x 60 but the annotations say 640 x 480; the boxes were"
    ):
        check_size(RGB, (480, 640), "x.jpg")
    with pytest.raises(
        UserError, match="annotations say 60 x 80; width and height are swapped, most likely by the EXIF"
    ):
        check_size(RGB, (80, 60), "x.jpg")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ImportError("libGL.so.1: cannot open shared object file"), "libgl1"),
        (ModuleNotFoundError("No module named 'cv2'", name="cv2"), "pip install opencv-python-headless"),
    ],
)
def test_opencv_that_cannot_be_imported_names_what_to_install(monkeypatch, error, expected):
    real = builtins.__import__

    def refuse(name, *rest):
        if name == "cv2":
            raise error
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    opencv.cache_clear()
    with pytest.raises(UserError, match=expected):
        images.opencv()
