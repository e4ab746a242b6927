"""Close looks: other words are another picture, a version is the same one, doubt is said."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont

from clipsearch.close_looks import look_closely
from clipsearch.hashing import hash_file
from clipsearch.images.looking import Eyes
from clipsearch.images.structure import compare, is_enlarged
from clipsearch.images.undecoded import count_pages
from clipsearch.library import ItemRecord

WORDS = ("rent", "water", "energy", "repair", "hotel", "coffee", "school", "doctor", "market")


def page(
    *, width: int = 900, total: str = "483.60", seed: int = 1, ink: str = "black"
) -> Image.Image:
    """A bill with many lines; only ``total`` and the words of ``seed`` tell one from another."""
    image = Image.new("RGB", (width, round(width * 1.4)), "white")
    draw, scale, chance = ImageDraw.Draw(image), width / 900, random.Random(seed)
    for line in range(20):
        font = ImageFont.load_default(22 * scale)
        text = f"{chance.choice(WORDS)} {chance.choice(WORDS)}   {chance.randint(1000, 9999)}"
        draw.text((80 * scale, (100 + 48 * line) * scale), text, ink, font)
    draw.text((80 * scale, 1120 * scale), f"Total {total}", ink, ImageFont.load_default(24 * scale))
    return image


def saved(image: Image.Image, **options: object) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, **options)  # type: ignore[arg-type]
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def resized(image: Image.Image, factor: float) -> Image.Image:
    return image.resize((round(image.width * factor), round(image.height * factor)))


def verdict(one: Image.Image, other: Image.Image) -> str:
    return compare(one.convert("L"), other.convert("L")).verdict


@pytest.mark.parametrize("changed", [{"total": "488.60"}, {"total": "433.60"}, {"seed": 2}])
@pytest.mark.parametrize("further", ["as it is", "jpeg", "smaller"])
def test_one_digit_or_all_words_make_another_page(changed: dict[str, object], further: str) -> None:
    other = page(**changed)  # type: ignore[arg-type]
    if further == "jpeg":
        other = saved(other, format="JPEG", quality=50)
    elif further == "smaller":
        other = resized(other, 0.75)
    assert verdict(page(), other) == "other"


def test_versions_of_a_page_are_one_page() -> None:
    original = page(width=1000)
    for version in (
        saved(original, format="JPEG", quality=30),
        saved(resized(original, 0.75), format="JPEG", quality=60),
        saved(resized(original, 0.5), format="JPEG", quality=80),
        saved(resized(original, 1.5), format="JPEG", quality=70),
        ImageEnhance.Brightness(original).enhance(0.85),
        original.crop((4, 5, 996, 1396)),
    ):
        assert verdict(original, version) == "same"
        assert verdict(version, original) == "same"


def test_a_thumbnail_whose_text_cannot_be_read_is_not_surely_this_page_or_that() -> None:
    thumbnail = resized(page(), 1 / 8)
    for total in ("483.60", "933.60"):
        assert verdict(page(total=total), thumbnail) == "unresolved"


def photographed(image: Image.Image) -> Image.Image:
    """As a phone takes it of a screen: soft, with the noise of the moment."""
    noise = Image.effect_noise(image.size, 14).convert("RGB")
    soft = Image.blend(image.filter(ImageFilter.GaussianBlur(0.7)), noise, 0.2)
    return saved(soft, format="JPEG", quality=80)


@pytest.mark.parametrize(("width", "factor"), [(500, 0.5), (500, 0.75), (450, 2 / 3), (400, 0.5)])
def test_a_smaller_photo_of_another_page_is_never_surely_this_one(
    width: int, factor: float
) -> None:
    """Where the digit that differs is too small to be noticed, too."""
    small = resized(photographed(page(width=width, total="488.60")), factor)
    one = photographed(page(width=width))
    assert verdict(one, saved(small, format="JPEG", quality=70)) != "same"


def test_a_small_copy_of_a_photo_is_a_copy(real_photos: Path) -> None:
    for path in sorted(real_photos.glob("*.[pj]*g"))[:8]:
        photo = Image.open(path).convert("RGB")
        small = saved(resized(photo, 0.4), format="JPEG", quality=60)
        assert verdict(photo, small) == "same", path.name
        if path.name in ("bricks.png", "cell.png"):
            continue  # so soft that their large and their small version show equally little
        assert not is_enlarged(photo.convert("L"), small.convert("L")), path.name
        for how in (Image.Resampling.NEAREST, Image.Resampling.BICUBIC):
            size = (2 * photo.width, 2 * photo.height)
            large = saved(photo.resize(size, how), format="JPEG", quality=80)
            assert is_enlarged(large.convert("L"), photo.convert("L")), path.name


def stamped(photo: Image.Image, text: str) -> Image.Image:
    copy = photo.copy()
    place = (photo.width - 130, photo.height - 26)
    ImageDraw.Draw(copy).text(place, text, "#ff9a1a", ImageFont.load_default(18))
    return copy


def lettered(text: str) -> Image.Image:
    """Red letters on a ground that is just as light."""
    image = Image.new("RGB", (500, 300), (0, 130, 0))
    draw = ImageDraw.Draw(image)
    draw.rectangle((20, 200, 480, 280), fill="white")
    draw.text((40, 60), text, (255, 0, 0), ImageFont.load_default(40))
    return image


def given(path: Path) -> dict[str, object]:
    return {"hash": hash_file(path), "paths": [str(path)]}


def test_what_is_more_or_less_than_the_same_picture_is_not_the_same(
    real_photos: Path, tmp_path: Path
) -> None:
    cat = Image.open(real_photos / "cat.png").convert("RGB")
    red, blue = (Image.new("RGB", cat.size, colour) for colour in ("red", "blue"))
    faded = cat.convert("RGBA")
    white = Image.new("RGBA", (300, 200), (255, 255, 255, 0))
    logo = white.copy()
    ImageDraw.Draw(logo).ellipse((50, 20, 250, 180), fill=(255, 255, 255, 255))
    other_logo = white.copy()
    ImageDraw.Draw(other_logo).rectangle((50, 20, 250, 180), fill=(255, 255, 255, 255))
    faded.putalpha(Image.linear_gradient("L").resize(cat.size))
    made = {
        "cat.png": (cat, {}),
        "cat.jpg": (cat, {"quality": 80}),
        "to red.gif": (cat, {"save_all": True, "append_images": [red, cat]}),
        "to blue.gif": (cat, {"save_all": True, "append_images": [blue, cat]}),
        "two pages.tif": (cat, {"save_all": True, "append_images": [red]}),
        "faded.png": (faded, {}),
        "blank.png": (Image.new("RGB", (600, 800), "white"), {}),
        "blank too.png": (Image.new("RGB", (600, 800), "#fefefe"), {}),
        "logo.png": (logo, {}),
        "other logo.png": (other_logo, {}),
        "red words.png": (lettered("see you at 8"), {}),
        "other red words.jpg": (lettered("see you at 9"), {"quality": 80}),
        "stamped.png": (stamped(cat, "2019 05 01"), {}),
        "stamped otherwise.jpg": (stamped(cat, "2019 05 02"), {"quality": 80}),
    }
    for name, (image, options) in made.items():
        image.save(tmp_path / name, **options)  # type: ignore[arg-type]
    eyes = Eyes(10**8)

    def seen(one: str, other: str) -> str:
        return str(eyes.look(given(tmp_path / one), given(tmp_path / other))["verdict"])

    assert seen("cat.png", "cat.jpg") == "same"
    for one, other in (
        ("to red.gif", "to blue.gif"),
        ("cat.png", "to red.gif"),
        ("cat.png", "two pages.tif"),
        ("blank.png", "blank too.png"),
        ("logo.png", "other logo.png"),
        ("cat.png", "stamped.png"),
        ("red words.png", "other red words.jpg"),
        ("stamped.png", "stamped otherwise.jpg"),
    ):
        assert seen(one, other) == "other", (one, other)
    assert count_pages((tmp_path / "two pages.tif").read_bytes()) == 2
    assert count_pages(b"II*\0\xff") == 1


def test_icons_are_one_only_if_every_pixel_is() -> None:
    icon = Image.new("L", (16, 16), 255)
    dotted = icon.copy()
    dotted.putpixel((8, 8), 0)
    assert verdict(icon, icon.copy()) == "same"
    assert verdict(icon, dotted) == "unresolved"


def test_what_cannot_be_looked_at_is_said_and_ends_nothing(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        page(width=300).save(tmp_path / f"{number}.jpg", quality=90 - number)
    paths = {number: [tmp_path / f"{number}.jpg"] for number in (1, 2, 3)}
    records = {
        number: ItemRecord(number, hash_file(of[0]), 300, 420, "JPEG", 1, None, {})
        for number, of in paths.items()
    }
    paths[3][0].write_bytes(b"other bytes than were indexed")
    looks = look_closely([(1, 2), (1, 3), (2, 3)], records, paths)
    assert [look.verdict for look in looks] == ["same", "unseen", "unseen"]
    assert "3.jpg has changed since it was indexed" in looks[1].why
    paths[3][0].unlink()
    (look,) = look_closely([(3, 1)], records, paths)
    assert (look.verdict, "3.jpg" in look.why) == ("unseen", True)
    (look,) = look_closely([(1, 2)], records, paths, max_pixels=1000)
    assert (look.verdict, "1,000" in look.why) == ("unseen", True)
