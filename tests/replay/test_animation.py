"""The animation: words stay in its width, nothing moves, and the same trace gives the same bytes."""

from itertools import pairwise

import numpy as np
from PIL import Image, ImageColor

from genai.replay import animation

WORDS = [" the", " found", "ation", ",", "\n", "\n", "And", " it", " came", " to", " pass", ".", " x" * 3] * 6
T = len(WORDS)
EVENTS = [[k, i, round((k % 10) / 10, 4)] for k, i in enumerate(np.random.default_rng(0).permutation(T).tolist(), 1)]
TRACE = {"tokens": WORDS, "given": [False] * T, "evaluations": T, "events": EVENTS}


def test_words_are_wrapped_at_the_width_and_tokens_of_a_word_stay_together():
    places = animation.layout(WORDS)
    font = animation._font(animation.SIZE)
    assert "".join(place.text for place in places) == "".join("".join(WORDS).split())
    for before, place in pairwise(places):
        if before.y == place.y:
            assert before.x + font.getlength(before.text) <= place.x + 1e-6
        else:
            assert before.y < place.y and place.text not in ("ation", ",", ".")
    assert max(place.x + font.getlength(place.text) for place in places) <= animation.WIDTH - animation.MARGIN
    long = animation.layout(["a" * 20] * 9)  # one word, longer than a line
    assert len({place.y for place in long}) > 1


def test_the_same_trace_gives_the_same_bytes_and_the_end_stays(tmp_path):
    for name in ("a.gif", "b.gif"):
        animation.write(TRACE, "model, sampler", tmp_path / name)
    assert (tmp_path / "a.gif").read_bytes() == (tmp_path / "b.gif").read_bytes()
    assert (tmp_path / "a.gif").stat().st_size < 300_000
    with Image.open(tmp_path / "a.gif") as image:
        assert image.n_frames == animation.STEPS + 1 and image.width == animation.WIDTH
        frames = []
        for k in range(image.n_frames):
            image.seek(k)
            frames.append(np.asarray(image.convert("RGB"), dtype=int))
        assert image.info["duration"] == 3000 and image.info["loop"] == 0
    places = animation.layout(WORDS)
    wanted = np.asarray(animation.frame(TRACE, T, "model, sampler", places), dtype=int)
    assert np.abs(frames[-1] - wanted).max() <= 16  # the palette
    middle = [(int(place.y + animation.LINE - 8), int(place.x + 6)) for place in places]  # below the letters
    hidden = np.array(ImageColor.getrgb(animation.HIDDEN))
    shares = [np.mean([np.abs(frame[at] - hidden).max() < 8 for at in middle]) for frame in frames]
    assert shares[0] > 0.8 and shares[-1] == 0 and all(a >= b for a, b in pairwise(shares))


def test_a_token_that_does_not_stay_takes_the_room_of_the_one_that_does():
    trace = {
        "tokens": ["it"],
        "given": [False],
        "evaluations": 2,
        "events": [[1, 0, 0.5, "Nebuchadnezzar"], [2, 0, 0.5]],
    }
    places = animation.layout(trace["tokens"])
    early, late = (np.asarray(animation.frame(trace, n, "", places)) for n in (1, 2))
    differ = np.argwhere((early != late).any(-1))
    text = differ[differ[:, 0] > animation.MARGIN + 5]
    assert len(text) and text[:, 1].max() < places[0].x + 2 * animation.SIZE


def test_one_evaluation_is_two_frames_and_none_is_one(tmp_path):
    for evaluations in (0, 1):
        events = [[1, 0, 0.5]] * evaluations
        animation.write(
            {"tokens": ["a"], "given": [not evaluations], "evaluations": evaluations, "events": events},
            "",
            tmp_path / "x.gif",
        )
        with Image.open(tmp_path / "x.gif") as image:
            assert image.n_frames == 1 + evaluations
