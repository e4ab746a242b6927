"""Pictures that consist of words: rendered documents, chats and slides, and how people keep them.

``render`` draws one; the same seed gives the same layout, and ``Words`` says what is written in
it, so that two pictures can differ in a digit, a word, a line, or in all they say.
``captured`` makes a scan or a photo of one. Only Pillow's own fonts are used.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont

_NOUNS = [
    "paper",
    "printer",
    "cable",
    "lamp",
    "chair",
    "table",
    "window",
    "garden",
    "bicycle",
    "ticket",
    "train",
    "station",
    "report",
    "budget",
    "meeting",
    "invoice",
    "payment",
    "account",
    "transfer",
    "salary",
    "rent",
    "water",
    "energy",
    "insurance",
    "repair",
    "kitchen",
    "bathroom",
    "flower",
    "market",
    "doctor",
    "school",
    "teacher",
    "holiday",
    "flight",
    "hotel",
    "dinner",
    "breakfast",
    "coffee",
]
_NAMES = [
    "Anna",
    "Berta",
    "Carl",
    "Dora",
    "Emil",
    "Frida",
    "Georg",
    "Hanna",
    "Ivan",
    "Julia",
    "Klaus",
    "Lena",
    "Maria",
    "Nils",
    "Olga",
]
Draw = ImageDraw.ImageDraw


@dataclass
class Words:
    """Says what is written: the same for a seed, but for the texts that are ``changed``.

    ``changed`` maps the number of a text to how it is changed: "digit", "word" or "text".
    """

    seed: int
    changed: dict[int, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)

    def __call__(self, kind: str) -> str:
        chance = random.Random(f"{self.seed} {len(self.said)} {kind}")
        text = _text(kind, chance)
        change = self.changed.get(len(self.said))
        if change is not None:
            text = _altered(text, kind, change, chance)
        self.said.append(text)
        self.kinds.append(kind)
        return text


def _text(kind: str, chance: random.Random) -> str:
    if kind == "money":
        return f"{chance.randint(1, 999)}.{chance.randint(0, 99):02d}"
    if kind == "date":
        return f"{chance.randint(1, 28):02d}.{chance.randint(1, 12):02d}.20{chance.randint(10, 25)}"
    if kind == "time":
        return f"{chance.randint(0, 23):02d}:{chance.randint(0, 59):02d}"
    if kind == "number":
        return str(chance.randint(1000, 999999))
    if kind == "count":
        return str(chance.randint(1, 99))
    if kind == "name":
        return f"{chance.choice(_NAMES)} {chance.choice(_NOUNS).title()}er"
    if kind == "item":
        return f"{chance.choice(_NOUNS).title()} {chance.choice(_NOUNS)}"
    if kind == "spot":
        return chance.choice(_NOUNS).title()
    count = {"line": 7, "short": 4, "title": 3}[kind]
    return " ".join(chance.choice(_NOUNS) for _ in range(count)).capitalize()


def _altered(text: str, kind: str, change: str, chance: random.Random) -> str:
    digits = [at for at, letter in enumerate(text) if letter.isdigit()]
    if change == "digit" and digits:
        at = chance.choice(digits)
        other = chance.choice([d for d in "0123456789" if d != text[at]])
        return text[:at] + other + text[at + 1 :]
    words = text.split(" ")
    if change in ("digit", "word") and not digits:
        at = chance.randrange(len(words))
        others = [noun for noun in _NOUNS if noun not in words[at].lower()]
        near = sorted(others, key=lambda noun: abs(len(noun) - len(words[at])))[:6]
        other = chance.choice(near)
        words[at] = other.title() if words[at][:1].isupper() else other
        return " ".join(words)
    while (other := _text(kind, chance)) == text:
        pass
    return other


def font(size: float) -> ImageFont.FreeTypeFont:
    made = ImageFont.load_default(max(6.0, size))
    assert isinstance(made, ImageFont.FreeTypeFont)
    return made


def _page(width: int, paper: str = "white") -> tuple[Image.Image, Draw, float]:
    image = Image.new("RGB", (width, round(width * 1.414)), paper)
    return image, ImageDraw.Draw(image), width / 1240


def invoice(width: int, chance: random.Random, say: Words) -> Image.Image:
    image, draw, s = _page(width)
    draw.rectangle((80 * s, 60 * s, 300 * s, 160 * s), fill=(40, 80, chance.randint(90, 200)))
    draw.text((700 * s, 80 * s), f"Invoice {say('number')}", "black", font(40 * s))
    draw.text((700 * s, 140 * s), say("date"), "black", font(24 * s))
    for row in range(3):
        draw.text((90 * s, (230 + 34 * row) * s), say("name"), "black", font(24 * s))
    rows = chance.randint(6, 20)
    for row in range(rows):
        y = (420 + 44 * row) * s
        draw.text((90 * s, y), say("item"), "black", font(24 * s))
        draw.text((700 * s, y), say("count"), "black", font(24 * s))
        draw.text((960 * s, y), say("money"), "black", font(24 * s))
        draw.line((90 * s, y + 36 * s, 1150 * s, y + 36 * s), "#bbb", max(1, round(s)))
    draw.text((800 * s, (460 + 44 * rows) * s), f"Total {say('money')}", "black", font(32 * s))
    draw.text((90 * s, 1640 * s), say("line"), "#555", font(20 * s))
    return image


def statement(width: int, chance: random.Random, say: Words) -> Image.Image:
    image, draw, s = _page(width)
    draw.text((100 * s, 60 * s), f"Account statement {say('number')}", "black", font(36 * s))
    size = chance.choice([20, 24, 28])
    for row in range(round(1450 / (size * 1.9))):
        y = (150 + row * size * 1.9) * s
        draw.text((100 * s, y), say("date"), "black", font(size * s))
        draw.text((320 * s, y), say("item"), "black", font(size * s))
        draw.text((820 * s, y), f"{say('money')} EUR", "black", font(size * s))
    return image


def form(width: int, chance: random.Random, say: Words) -> Image.Image:
    image, draw, s = _page(width)
    layout = random.Random(chance.random())
    draw.text((100 * s, 70 * s), "Application for a residence permit", "black", font(38 * s))
    for row in range(15):
        y = (180 + 96 * row) * s
        draw.text((100 * s, y), _text("short", layout), "#333", font(18 * s))
        draw.rectangle(
            (100 * s, y + 24 * s, 1140 * s, y + 76 * s), outline="#446", width=max(1, round(2 * s))
        )
        answer = say(layout.choice(["name", "date", "number", "short"]))
        draw.text((120 * s, y + 30 * s), answer, (20, 30, 140), font(30 * s))
    return image


def letter(width: int, chance: random.Random, say: Words) -> Image.Image:
    image, draw, s = _page(width)
    size = chance.choice([18, 22, 26])
    for row in range(round(1450 / (size * 1.6))):
        draw.text((110 * s, (140 + row * size * 1.6) * s), say("line"), "black", font(size * s))
    return image


def receipt(width: int, chance: random.Random, say: Words) -> Image.Image:
    width = width // 2
    s = width / 480
    rows = chance.randint(12, 30)
    image = Image.new("RGB", (width, round((300 + 34 * rows) * s)), "#fbfaf6")
    draw = ImageDraw.Draw(image)
    draw.text((120 * s, 20 * s), "SUPERMARKET", "black", font(30 * s))
    draw.text((60 * s, 70 * s), f"{say('date')}   {say('time')}", "black", font(22 * s))
    for row in range(rows):
        y = (130 + 34 * row) * s
        draw.text((20 * s, y), say("item"), "#111", font(22 * s))
        draw.text((370 * s, y), say("money"), "#111", font(22 * s))
    draw.text((20 * s, (160 + 34 * rows) * s), f"TOTAL  {say('money')}", "black", font(34 * s))
    return image


def chat(width: int, chance: random.Random, say: Words, dark: bool = False) -> Image.Image:
    s = width / 1080
    image = Image.new("RGB", (width, round(width * 2.1)), "#0b141a" if dark else "#efeae2")
    draw = ImageDraw.Draw(image)
    ink, mine, other = ("#e9edef", "#005c4b", "#202c33") if dark else ("#111", "#d9fdd3", "white")
    draw.rectangle((0, 0, width, 190 * s), fill="#202c33" if dark else "#008069")
    draw.text((40 * s, 18 * s), say("time"), "white", font(34 * s))
    draw.ellipse((40 * s, 80 * s, 130 * s, 170 * s), fill="#c96")
    draw.text((160 * s, 95 * s), say("name"), "white", font(44 * s))
    y = 230 * s
    while y < image.height - 260 * s:
        is_mine = chance.random() < 0.5
        lines = chance.randint(1, 3)
        left = (280 if is_mine else 30) * s
        box = (left, y, left + 770 * s, y + (54 * lines + 70) * s)
        draw.rounded_rectangle(box, 24 * s, fill=mine if is_mine else other)
        for row in range(lines):
            draw.text((left + 24 * s, y + (18 + 54 * row) * s), say("short"), ink, font(38 * s))
        draw.text((left + 640 * s, y + (54 * lines + 20) * s), say("time"), "#8a969c", font(28 * s))
        y += (54 * lines + 95) * s
    return image


def chat_dark(width: int, chance: random.Random, say: Words) -> Image.Image:
    return chat(width, chance, say, dark=True)


def slide(width: int, chance: random.Random, say: Words) -> Image.Image:
    s = width / 1280
    paper, ink = chance.choice([("white", "#123"), ("#10243f", "white"), ("#fff4d6", "#511")])
    image = Image.new("RGB", (width, round(width * 9 / 16)), paper)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, width, 16 * s), fill="#d33")
    draw.text((70 * s, 60 * s), say("title"), ink, font(56 * s))
    for row in range(chance.randint(2, 5)):
        draw.text((100 * s, (190 + 80 * row) * s), "- " + say("short"), ink, font(34 * s))
    draw.ellipse((950 * s, 300 * s, 1200 * s, 550 * s), fill="#e9a23b")
    draw.text((1180 * s, 680 * s), say("count"), ink, font(22 * s))
    return image


def code(width: int, chance: random.Random, say: Words) -> Image.Image:
    s = width / 1280
    image = Image.new("RGB", (width, round(width * 0.7)), "#1e1e1e")
    draw = ImageDraw.Draw(image)
    for row in range(26):
        y, indent = (16 + 33 * row) * s, 40 * chance.randint(0, 4)
        draw.text((14 * s, y), str(row + 1), "#858585", font(22 * s))
        draw.text(
            ((70 + indent) * s, y), "let " + say("item").replace(" ", "_"), "#9cdcfe", font(22 * s)
        )
        draw.text(((480 + indent) * s, y), f"= {say('number')};", "#b5cea8", font(22 * s))
    return image


def spreadsheet(width: int, _chance: random.Random, say: Words) -> Image.Image:
    s = width / 1280
    image = Image.new("RGB", (width, round(width * 0.62)), "white")
    draw = ImageDraw.Draw(image)
    for row in range(24):
        y = 32 * row * s
        draw.line((0, y, width, y), "#d0d0d0", 1)
        for column in range(9):
            x = 142 * column * s
            draw.line((x, 0, x, image.height), "#d0d0d0", 1)
            draw.text((x + 10 * s, y + 5 * s), say("money"), "#222", font(19 * s))
    return image


def ticket(width: int, _chance: random.Random, say: Words) -> Image.Image:
    s = width / 1000
    image = Image.new("RGB", (width, round(width * 0.6)), "#eaf2ff")
    draw = ImageDraw.Draw(image)
    modules, cell = 29, 14 * s
    drawn = random.Random(say("number"))
    draw.rectangle((540 * s, 40 * s, 1000 * s, 500 * s), fill="white")
    for at in range(modules * modules):
        if drawn.random() < 0.5:
            x, y = 560 * s + at % modules * cell, 60 * s + at // modules * cell
            draw.rectangle((x, y, x + cell - 1, y + cell - 1), fill="black")
    for row, kind in enumerate(("title", "name", "date", "time", "number")):
        draw.text(
            (50 * s, (60 + 80 * row) * s), say(kind), "#123", font((46 if row == 0 else 30) * s)
        )
    return image


def calendar(width: int, chance: random.Random, say: Words) -> Image.Image:
    s = width / 1280
    image = Image.new("RGB", (width, round(width * 0.75)), "white")
    draw = ImageDraw.Draw(image)
    draw.text((40 * s, 20 * s), say("title"), "#b00", font(48 * s))
    for day in range(35):
        x, y = (30 + 175 * (day % 7)) * s, (110 + 165 * (day // 7)) * s
        draw.rectangle((x, y, x + 175 * s, y + 165 * s), outline="#999")
        draw.text((x + 8 * s, y + 4 * s), str(day + 1), "#444", font(26 * s))
        if chance.random() < 0.5:
            draw.text((x + 8 * s, y + 60 * s), say("time"), "#06c", font(22 * s))
            draw.text((x + 8 * s, y + 95 * s), say("spot"), "#06c", font(22 * s))
    return image


def scoreboard(width: int, _chance: random.Random, say: Words) -> Image.Image:
    s = width / 1000
    image = Image.new("RGB", (width, round(width * 0.5)), "#111a11")
    draw = ImageDraw.Draw(image)
    for row in range(4):
        draw.text((60 * s, (40 + 110 * row) * s), say("name"), "#eee", font(44 * s))
        draw.text((800 * s, (24 + 110 * row) * s), say("count"), "#ffc21a", font(78 * s))
    return image


def chart(width: int, chance: random.Random, say: Words) -> Image.Image:
    s = width / 1000
    image = Image.new("RGB", (width, round(width * 0.7)), "white")
    draw = ImageDraw.Draw(image)
    draw.text((80 * s, 20 * s), say("title"), "#222", font(34 * s))
    for bar in range(10):
        x, height = (90 + 85 * bar) * s, chance.randint(60, 480) * s
        draw.rectangle((x, 600 * s - height, x + 60 * s, 600 * s), fill="#3a7ca5")
        draw.text((x, 570 * s - height), say("count"), "#222", font(22 * s))
        draw.text((x, 615 * s), say("spot"), "#222", font(20 * s))
    return image


def sheet_music(width: int, _chance: random.Random, say: Words) -> Image.Image:
    image, draw, s = _page(width)
    draw.text((300 * s, 70 * s), say("title"), "black", font(50 * s))
    for staff in range(9):
        top = (200 + 165 * staff) * s
        for line in range(5):
            draw.line(
                (90 * s, top + 16 * line * s, 1150 * s, top + 16 * line * s),
                "black",
                max(1, round(2 * s)),
            )
        for note in range(12):
            x, y = (130 + 84 * note) * s, top + 8 * (int(say("count")) % 9) * s
            draw.ellipse((x, y - 8 * s, x + 20 * s, y + 8 * s), fill="black")
            draw.line((x + 20 * s, y, x + 20 * s, y - 56 * s), "black", max(1, round(2 * s)))
    return image


def street_map(width: int, chance: random.Random, say: Words) -> Image.Image:
    s = width / 1000
    image = Image.new("RGB", (width, width), "#e8e4d8")
    draw = ImageDraw.Draw(image)
    for _ in range(14):
        ends = [chance.randint(-100, 1100) * s for _ in range(4)]
        draw.line(ends, "white", round(chance.choice([8, 14, 22]) * s))
    for _ in range(5):
        x, y = chance.randint(0, 900) * s, chance.randint(0, 900) * s
        draw.ellipse((x, y, x + 160 * s, y + 110 * s), fill="#bcd8a4")
    for _ in range(24):
        place = (chance.randint(0, 850) * s, chance.randint(0, 960) * s)
        draw.text(place, say("spot"), "#333", font(chance.choice([18, 22, 30]) * s))
    return image


def handwriting(width: int, _chance: random.Random, say: Words) -> Image.Image:
    image, draw, s = _page(width, "#fdfcf7")
    for row in range(18):
        base, x = (150 + 84 * row) * s, 110 * s
        draw.line((90 * s, base + 12 * s, 1160 * s, base + 12 * s), "#bcd", 1)
        for word in say("line").split():
            pen = random.Random(word.lower())
            points = [(x, base)]
            for _ in range(2 * len(word)):
                x += 9 * s
                points.append((x + pen.uniform(-6, 6) * s, base - pen.uniform(-12, 34) * s))
            draw.line(points, (30, 40, 110), max(1, round(3 * s)), joint="curve")
            x += 24 * s
            if x > 1050 * s:
                break
    return image


def scenery(width: int, chance: random.Random) -> Image.Image:
    """Something like a photo: soft shapes, texture and noise."""
    generator = np.random.default_rng(chance.randint(0, 10**9))
    height = round(width * 0.75)
    soft = Image.fromarray(generator.integers(0, 255, (6, 8, 3), np.uint8)).resize(
        (width, height), 3
    )
    draw = ImageDraw.Draw(soft)
    for _ in range(30):
        x, y, size = (int(v) for v in generator.integers(0, width, 3))
        box = (x, y, x + size // 6 + 4, y + size // 5 + 4)
        draw.ellipse(box, fill=tuple(int(v) for v in generator.integers(0, 255, 3)))
    rough = np.asarray(soft, np.float32) + generator.normal(0, 7, (height, width, 1))
    return Image.fromarray(rough.clip(0, 255).astype(np.uint8))


def meme(width: int, chance: random.Random, say: Words) -> Image.Image:
    image = scenery(width, chance)
    draw, s = ImageDraw.Draw(image), width / 800
    for y, kind in ((20, "title"), (510, "title")):
        draw.text(
            (40 * s, y * s),
            say(kind).upper(),
            "white",
            font(46 * s),
            stroke_width=round(3 * s),
            stroke_fill="black",
        )
    return image


def stamped_photo(width: int, chance: random.Random, say: Words) -> Image.Image:
    image = scenery(width, chance)
    draw, s = ImageDraw.Draw(image), width / 800
    draw.text((540 * s, 550 * s), f"{say('date')} {say('time')}", "#ff9a1a", font(26 * s))
    return image


def screenshot(width: int, chance: random.Random, say: Words) -> Image.Image:
    s = width / 1080
    image = Image.new("RGB", (width, round(width * 1.9)), "#f4f5f7")
    draw = ImageDraw.Draw(image)
    draw.text((40 * s, 16 * s), say("time"), "black", font(34 * s))
    draw.text((900 * s, 16 * s), say("count") + " %", "black", font(30 * s))
    for row in range(8):
        y = (120 + 230 * row) * s
        draw.rounded_rectangle((40 * s, y, 1040 * s, y + 200 * s), 28 * s, fill="white")
        draw.rectangle(
            (70 * s, y + 30 * s, 210 * s, y + 170 * s), fill=(chance.randint(60, 220), 120, 150)
        )
        draw.text((250 * s, y + 40 * s), say("title"), "#111", font(40 * s))
        draw.text((250 * s, y + 110 * s), say("short"), "#666", font(32 * s))
    return image


KINDS: dict[str, Callable[[int, random.Random, Words], Image.Image]] = {
    made.__name__: made
    for made in (
        *(invoice, statement, form, letter, receipt, chat, chat_dark, slide, code, spreadsheet),
        *(ticket, calendar, scoreboard, chart, sheet_music, street_map, handwriting),
        *(meme, stamped_photo, screenshot),
    )
}
CHANGES = ("digit", "word", "line", "everything")


def render(kind: str, seed: int, width: int, words: Words) -> Image.Image:
    """One picture; the layout follows from the seed, the words from ``words``."""
    return KINDS[kind](width, random.Random(f"{kind} {seed}"), words)


def pair(kind: str, seed: int, width: int, change: str) -> tuple[Image.Image, Image.Image]:
    """Two pictures that differ in a digit, a word, a line or all they say, and in nothing else."""
    first = Words(seed)
    one = render(kind, seed, width, first)
    for attempt in range(20):  # an altered note may stand where it stood
        changed = _changed(first, change, random.Random(f"{seed} {attempt} change"))
        other = render(kind, seed, width, Words(seed, changed))
        if other.tobytes() != one.tobytes():
            return one, other
    raise AssertionError(f"{kind} {seed}: nothing that is drawn has changed")


def _changed(first: Words, change: str, chance: random.Random) -> dict[int, str]:
    if change == "everything":
        return dict.fromkeys(range(len(first.said)), "text")
    if change == "digit":
        having = [at for at, text in enumerate(first.said) if any(map(str.isdigit, text))]
        return {chance.choice(having or range(len(first.said))): "digit"}
    return {chance.randrange(len(first.said)): "word" if change == "word" else "text"}


CAPTURES = ("rendered", "scanned", "photographed")


def captured(image: Image.Image, how: str, seed: int, noise_seed: int) -> Image.Image:
    """As people have it: as it was rendered, scanned, or photographed on a table.

    The same ``seed`` gives the same place and light; ``noise_seed`` the noise of the moment.
    """
    if how == "rendered":
        return image
    place, noise = random.Random(f"{seed} place"), np.random.default_rng(noise_seed)
    if how == "scanned":
        image = image.rotate(place.uniform(-1.2, 1.2), Image.Resampling.BICUBIC, fillcolor="white")
    else:
        w, h = image.size
        table = scenery(w, place).resize((w, h))
        jitter = [place.uniform(0.01, 0.06) for _ in range(8)]
        quad = (
            *(-jitter[0] * w, -jitter[1] * h, -jitter[2] * w, h * (1 + jitter[3])),
            *(w * (1 + jitter[4]), h * (1 + jitter[5]), w * (1 + jitter[6]), -jitter[7] * h),
        )
        method, cubic = Image.Transform.QUAD, Image.Resampling.BICUBIC
        page = image.transform((w, h), method, quad, cubic)
        mask = Image.new("L", (w, h), 255).transform((w, h), method, quad)
        image = Image.composite(page, table, mask)
    soft = image.filter(ImageFilter.GaussianBlur(place.uniform(0.3, 0.8)))
    pixels = np.asarray(soft, np.float32)
    across = np.linspace(0, 1, pixels.shape[1], dtype=np.float32)[None, :, None]
    shade = 1 - place.uniform(0.05, 0.3) * across ** place.uniform(0.7, 2)
    shot = noise.normal(0, place.uniform(1, 5), (*pixels.shape[:2], 1)).astype(np.float32)
    taken = Image.fromarray((pixels * shade + shot).clip(0, 255).astype(np.uint8))
    return reencoded(taken, place.randint(75, 92))


def reencoded(image: Image.Image, quality: int, kind: str = "JPEG") -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def scaled(
    image: Image.Image, factor: float, how: Image.Resampling = Image.Resampling.LANCZOS
) -> Image.Image:
    return image.resize(
        (max(1, round(image.width * factor)), max(1, round(image.height * factor))), how
    )


VERSIONS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "jpeg-30": lambda image: reencoded(image, 30),
    "jpeg-60": lambda image: reencoded(image, 60),
    "jpeg-90": lambda image: reencoded(image, 90),
    "webp-50": lambda image: reencoded(image, 50, "WEBP"),
    "three-quarters": lambda image: reencoded(scaled(image, 0.75), 75),
    "half": lambda image: reencoded(scaled(image, 0.5), 60),
    "half-bilinear": lambda image: reencoded(scaled(image, 0.5, Image.Resampling.BILINEAR), 85),
    "quarter": lambda image: reencoded(scaled(image, 0.25), 80),
    "eighth": lambda image: reencoded(scaled(image, 0.125), 80),
    "enlarged": lambda image: reencoded(scaled(image, 1.5, Image.Resampling.BICUBIC), 60, "WEBP"),
    "brighter": lambda image: reencoded(ImageEnhance.Brightness(image).enhance(1.15), 60),
    "crop-1": lambda image: reencoded(
        image.crop(
            (
                image.width // 200,
                image.height // 200,
                image.width - image.width // 200,
                image.height - image.height // 200,
            )
        ),
        85,
    ),
    "sharpened": lambda image: reencoded(image.filter(ImageFilter.UnsharpMask(1.0, 80, 2)), 85),
}
