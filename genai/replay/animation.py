"""How a text was written, as a GIF: a frame for a few evaluations of the network, each token coloured by how sure it was."""

import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageColor, ImageDraw, ImageFont

from genai.core.dataset import atomic
from genai.replay.trace import cells, moments

COLOURS = (
    "#f4a063",
    "#f9c9a0",
    "#f3e3d6",
    "#dbe8f4",
    "#b0d3f1",
    "#86bcec",
)  # unsure to sure; all tell orange from blue
HIDDEN, BACK, TEXT, SOFT = "#e6e8eb", "#ffffff", "#1c1e21", "#5c636b"
WIDTH, MARGIN, SIZE, SMALL, LINE = 800, 24, 17, 13, 29  # pixels
STEPS = 48  # frames after the first
SHADES = 14  # of a letter's edge
SECONDS, LAST = 7.0, 3.0  # of writing, of the finished text


class Place(NamedTuple):
    """Where a token, or what of it has no white space in it, stands in the finished text."""

    position: int
    text: str
    x: float
    y: int


def write(trace: dict[str, Any], title: str, path: Path) -> None:
    """Write the animation, atomically; the same trace gives the same bytes."""
    palette = _palette()
    places = layout(trace["tokens"])
    shown = moments(trace["evaluations"], STEPS)
    frames = [frame(trace, n, title, places).quantize(palette=palette, dither=Image.Dither.NONE) for n in shown]
    step = round(1000 * min(0.5, SECONDS / len(shown)))
    durations = [2 * step, *[step] * (len(frames) - 2), round(1000 * LAST)][-len(frames) :]
    with atomic(path) as temporary:
        frames[0].save(temporary, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)


def layout(tokens: list[str]) -> list[Place]:
    """Return where the tokens of the finished text stand, its words wrapped."""
    font = _font(SIZE)
    places: list[Place] = []
    word: list[tuple[int, str]] = []  # what stands together
    x, y = float(MARGIN), 2 * MARGIN

    def line() -> None:
        nonlocal x, y
        x, y = float(MARGIN), y + LINE

    def end_word() -> None:
        nonlocal x
        if x + sum(font.getlength(text) for _, text in word) > WIDTH - MARGIN:
            line()
        for position, text in word:
            if x + font.getlength(text) > WIDTH - MARGIN:
                line()
            places.append(Place(position, text, x, y))
            x += font.getlength(text)
        word.clear()

    for position, token in enumerate(tokens):
        for text in re.split(r"(\s)", token):
            if text and not text.isspace():
                word.append((position, text))
            elif text:
                end_word()
                x += font.getlength(" ")
                if text == "\n":
                    line()
    end_word()
    return places


def frame(trace: dict[str, Any], evaluation: int, title: str, places: list[Place]) -> Image.Image:
    """Return the picture after so many evaluations."""
    font, small = _font(SIZE), _font(SMALL)
    image = Image.new("RGB", (WIDTH, max((place.y for place in places), default=0) + LINE + 2 * MARGIN), BACK)
    draw = ImageDraw.Draw(image)
    count = f"{evaluation} of {trace['evaluations']} evaluations of the network"
    draw.text((MARGIN, MARGIN), title, SOFT, small, anchor="ls")
    draw.text((WIDTH - MARGIN, MARGIN), count, SOFT, small, anchor="rs")
    now = cells(trace, evaluation)
    for place in places:
        cell = now[place.position]
        width = font.getlength(place.text)
        if cell.kind != "given":
            box = (place.x, place.y, place.x + width - 1, place.y + LINE - 6)
            draw.rounded_rectangle(box, 4, HIDDEN if cell.kind == "hidden" else COLOURS[cell.level])
        if cell.kind != "hidden":
            text = place.text
            if cell.text != trace["tokens"][place.position]:  # one that does not stay: what fits into the place
                text = "".join(cell.text.split())
                while font.getlength(text) > width:
                    text = text[:-1]
            draw.text((place.x, place.y + LINE - 12), text, TEXT, font, anchor="ls")
    x, y = MARGIN, image.height - MARGIN
    for colour in COLOURS:
        draw.rectangle((x, y - 10, x + 25, y + 1), colour)
        x += 26
    draw.text(
        (x + 8, y), "the probability that the model gave to a token: under 1 % to over 90 %", SOFT, small, anchor="ls"
    )
    return image


@cache
def _font(size: int) -> Any:
    import matplotlib

    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)


def _palette() -> Image.Image:
    """Return an image whose palette has the colours of all frames: the grounds, and the edges of letters on them."""
    colours: list[int] = []
    for ground, ink in [(BACK, SOFT), *((ground, TEXT) for ground in (BACK, HIDDEN, *COLOURS))]:
        for share in range(SHADES):
            for a, b in zip(ImageColor.getrgb(ground), ImageColor.getrgb(ink), strict=True):
                colours.append(round(a + (b - a) * share / (SHADES - 1)))
    image = Image.new("P", (1, 1))
    image.putpalette(colours)
    return image
