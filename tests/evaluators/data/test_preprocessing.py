"""What a picture of any kind is to a network: the values its format means, and the same in predict.py."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torchvision import transforms

from evaluators.data.decode_check import check
from evaluators.data.preprocessing import fit, load_image, resize_image
from evaluators.data.resizing import RESIZES
from reports.model_bundle import EXAMPLE
from search.settings import Settings, SettingsError
from tests.evaluators.kinds import KINDS, pixels, tiff

sides = st.integers(1, 24)


@pytest.mark.parametrize("name", KINDS)
def test_picture_of_each_kind_has_the_values_its_format_means(name, tmp_path):
    """At its own size nothing is resized, so the values are those of numpy; 16-bit colours may lose half a level."""
    ending, *_, write, means = KINDS[name]
    made = pixels(name, 16, 16, 0)
    write(tmp_path / f"one.{ending}", made)
    read = load_image(tmp_path / f"one.{ending}", 16)
    assert np.abs(read.astype(float) - means(made)).max() <= (0.5 if "PGM" in name else 0)
    assert check(tmp_path / f"one.{ending}").broken == ""


@pytest.fixture(scope="module")
def predicts(tmp_path_factory):
    """predict.py's own way from a file to a square, run by itself: nothing of ours is imported."""
    steps = EXAMPLE[: EXAMPLE.index("here = pathlib")].replace(", onnxruntime", "")
    scope: dict = {}
    exec(compile(steps, "predict.py", "exec"), scope)
    return lambda path, px, resize: scope["fit"](Image.open(path), px, resize)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(KINDS)), sides, sides, st.integers(1, 20), st.sampled_from(sorted(RESIZES)), st.randoms())
def test_search_and_predict_see_the_same_numbers_in_every_file(
    predicts, tmp_path_factory, name, width, height, px, resize, random
):
    ending, *_, write, means = KINDS[name]
    width += width % 2 if name.startswith("12-bit") else 0
    made = pixels(name, width, height, random.randrange(1000))
    path = tmp_path_factory.getbasetemp() / f"any.{ending}"
    write(path, made)
    seen = load_image(path, px, resize)
    assert seen.shape == (px, px, 3) and seen.dtype == np.uint8
    assert np.array_equal(seen, predicts(path, px, resize))
    if "PGM" not in name:  # whose rounding is Pillow's
        assert np.array_equal(seen, np.asarray(resize_image(Image.fromarray(means(made).astype(np.uint8)), px, resize)))


@pytest.mark.parametrize("name", ["16-bit grey TIFF, big-endian", "16-bit grey PNG", "RGB PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_that_lie_on_their_side_are_set_upright(name, orientation, tmp_path):
    ending, *_, write, means = KINDS[name]
    made = pixels(name, 16, 16, 3)
    write(tmp_path / f"one.{ending}", made)
    with Image.open(tmp_path / f"one.{ending}") as image:
        exif = Image.Exif()
        exif[0x0112] = orientation
        image.save(tmp_path / f"turned.{ending}", exif=exif)
    upright = ImageOps.exif_transpose(_with(Image.fromarray(means(made).astype(np.uint8)), exif))
    assert np.array_equal(load_image(tmp_path / f"turned.{ending}", 16), np.asarray(upright))


def _with(image, exif):
    image.getexif().update(dict(exif))
    return image


REFUSED = {
    "floating-point": lambda p: tiff(p, np.random.default_rng(0).random((8, 8, 1), np.float32), kind=3),
    "signed pixels": lambda p: tiff(p, np.arange(-32, 32, dtype=np.int16).reshape(8, 8, 1), kind=2),
    "beyond 0 to 65535": lambda p: tiff(p, np.full((8, 8, 1), 70000, np.uint32)),
    "of more than 8 bits are stored in": lambda p: tiff(p, np.full((8, 8, 3), 258, np.uint16), planar=True),
    "an unsupported kind of TIFF": lambda p: tiff(p, np.zeros((8, 8, 3), np.float64), kind=3),
}


@pytest.mark.parametrize("said", REFUSED)
def test_picture_whose_values_cannot_be_had_is_refused_in_one_line(said, tmp_path):
    REFUSED[said](tmp_path / "one.tif")
    assert said in check(tmp_path / "one.tif").broken
    with pytest.raises(OSError):
        load_image(tmp_path / "one.tif", 8)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(8, 64), st.integers(0, 9))
def test_crop_is_what_presets_of_torchvision_do(width, height, px, seed):
    image = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))
    if max(width, height) / min(width, height) > 40:
        return  # torchvision would make an image of any size
    preset = transforms.Compose([transforms.Resize(int(px / 0.875)), transforms.CenterCrop(px)])
    expected, found = (np.asarray(one).astype(int) for one in (preset(image), resize_image(image, px, "crop")))
    # Pillow's box is of float32, and it rounds twice, between its two passes and at the end
    assert np.abs(expected - found).max() <= 2 and np.abs(expected - found).mean() < 0.3


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(8, 64), st.integers(0, 9))
def test_pad_is_pillows_own_with_black(width, height, px, seed):
    image = Image.fromarray(np.random.default_rng(seed).integers(1, 256, (height, width, 3), dtype=np.uint8))
    found = np.asarray(resize_image(image, px, "pad"))
    if round(px * min(width, height) / max(width, height)) == 0:  # of which Pillow leaves nothing
        assert found.any()
    else:
        assert np.array_equal(np.asarray(ImageOps.pad(image, (px, px), Image.Resampling.BILINEAR)), found)


@pytest.mark.parametrize("resize", sorted(RESIZES))
@pytest.mark.parametrize("size", [(30_000, 1), (1, 30_000)])
def test_resizing_a_very_long_image_takes_no_more_than_the_result(resize, size):
    assert fit(Image.new("RGB", size, (9, 9, 9)), 32, resize).shape == (32, 32, 3)


def test_unknown_resize_is_refused_in_one_line():
    with pytest.raises(SettingsError, match="resize = 'stretch' must be one of squash, crop, pad"):
        Settings(budget_ms=1.0, resize="stretch")


def peak_mb(path):
    """What loading an image said, and the megabytes it took at most, in a process of its own."""
    code = (
        "import resource, sys; from evaluators.data.preprocessing import load_image; from pathlib import Path\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: print(load_image(Path(sys.argv[1]), 32).shape)\n"
        "except OSError as error: print(error)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    words = [sys.executable, "-c", code, path]
    done = subprocess.run(words, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True)
    assert not done.stderr
    said, peak = done.stdout.splitlines()
    return said, int(peak)


@pytest.mark.parametrize("mode", ["RGB", "I;16"])
def test_largest_image_that_is_read_takes_bounded_memory(mode, tmp_path):
    """The only test of it at the limit itself: about 10 bytes a pixel."""
    Image.new(mode, (10_000, 10_000)).save(tmp_path / "large.png", compress_level=1)
    said, took_mb = peak_mb(tmp_path / "large.png")
    assert said == "(32, 32, 3)" and took_mb < 1300


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # pytest shows what the program hides
@pytest.mark.parametrize("side", [10_001, 60_000])
def test_image_beyond_the_limit_is_judged_by_its_header(side, tmp_path):
    (tmp_path / "bomb.ppm").write_bytes(b"P6 %d %d 255\n" % (side, side))
    said, took_mb = peak_mb(tmp_path / "bomb.ppm")
    assert "more than 100 megapixels" in said and took_mb < 100
    assert "more than 100 megapixels" in check(tmp_path / "bomb.ppm").broken
