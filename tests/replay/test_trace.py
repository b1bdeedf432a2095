"""A trace tells what the sampler did: held to the toy's enumerated conditionals, and to the text drawn without it."""

from itertools import groupby, pairwise
from types import SimpleNamespace

import pytest
import torch

from genai.core.dataset import Description, load_tokenizer
from genai.diffusion.text.autoregressive import Autoregressive
from genai.diffusion.text.blocks import BlockDiffusion
from genai.diffusion.text.samplers import MaskedSampling, Revealing, sample
from genai.diffusion.text.transformer import TextSampling
from genai.replay.trace import cells, moments, pieces, record, trace
from tests import project
from tests.diffusion.text.test_samplers import MASK, SETTINGS, TABLE, Counted, V, generator, number

LETTERS = SimpleNamespace(decode=lambda ids: "".join("abc"[i] for i in ids))
CANVASES = [(-1, -1, -1, -1), (1, -1, -1, -1), (-1, 0, -1, 2), (0, 1, 2, -1)]
AROUND = [{}, {"block": 2}, {"guidance": 2.0, "temperature": 0.5, "top_p": 0.8}]


class Toy:
    """As MaskedDiffusion, over the denoiser that knows the joint distribution."""

    mask = MASK

    def __init__(self):
        self.counted = Counted()

    def denoise(self, tokens, where):
        return self.counted(tokens, where)

    def sample(self, canvas, sampling, generator):
        return sample(self.denoise, torch.where(canvas < 0, MASK, canvas), MASK, sampling, generator)


def runs(**numbers):
    for seed, canvas in enumerate(CANVASES * 2):
        toy, sampling = Toy(), MaskedSampling(**{"temperature": 1.0} | numbers)
        yield (
            toy,
            torch.tensor([canvas]),
            record(toy, torch.tensor([canvas]), sampling, generator(seed)),
            sampling,
            seed,
        )


@pytest.mark.parametrize("around", AROUND, ids=str)
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting["sampler"])
def test_recording_changes_nothing_and_tells_each_token_with_its_evaluation_and_probability(setting, around):
    for toy, canvas, (tokens, events, evaluations), sampling, seed in runs(**setting, **around):
        assert toy.sample(canvas, sampling, generator(seed))[0].tolist() == tokens and "denoise" not in vars(toy)
        toy.counted.asked = toy.counted.asked[:evaluations]  # those that were recorded
        x, left = torch.where(canvas < 0, MASK, canvas), list(events)
        for evaluation in range(1, evaluations + 1):
            seen = toy.counted.asked[evaluation - 1][0]
            if (seen == MASK)[canvas >= 0].any():
                continue  # guidance asked without the prompt
            assert torch.equal(seen, x)
            conditionals = TABLE[number(x, V + 1)][0].exp()
            while left and left[0].evaluation == evaluation:
                _, i, token, p = left.pop(0)
                if token is None:
                    assert x[0, i] < MASK and canvas[0, i] < 0
                else:
                    assert x[0, i] == MASK and p == pytest.approx(conditionals[i, token].item(), abs=1e-12)
                x[0, i] = MASK if token is None else token
        assert not left and x[0].tolist() == tokens


def test_as_many_evaluations_are_told_as_the_network_made():
    for numbers in ({"sampler": "ancestral", "steps": 6}, {"sampler": "first_hitting", "guidance": 3.0}):
        for toy, canvas, (_, events, evaluations), _, _ in runs(**numbers):
            assert len(toy.counted.asked) == evaluations
            if numbers["sampler"] == "first_hitting":
                each = 1 + bool((canvas >= 0).any())
                hidden = int((canvas < 0).sum())
                assert [event.evaluation for event in events] == [each * k for k in range(1, hidden + 1)]


@pytest.mark.parametrize("setting", [*SETTINGS, {"sampler": "remdm", "steps": 40, "eta": 0.3}], ids=str)
def test_the_last_moment_of_a_trace_is_the_text_and_the_first_the_canvas(setting):
    again = 0
    for _, canvas, recorded, _, _ in runs(**setting):
        told = trace(canvas[0].tolist(), recorded, LETTERS)
        assert "".join(told["tokens"]) == LETTERS.decode(recorded[0])
        last, first = cells(told, told["evaluations"]), cells(told, 0)
        assert [cell.text for cell in last] == told["tokens"] and all(cell.kind != "hidden" for cell in last)
        assert [cell.kind for cell in first] == ["given" if token >= 0 else "hidden" for token in canvas[0]]
        for before, event in pairwise(recorded[1]):
            assert before.evaluation <= event.evaluation
        for evaluation, i, token, _ in recorded[1]:
            if token is None:
                again += 1
                assert cells(told, evaluation)[i].kind == "hidden"
    assert (again > 0) == (setting["sampler"] == "remdm")


def test_a_token_that_does_not_stay_is_told_by_its_own_text():
    events = [(1, 0, 2, 0.5), (2, 0, None, 0.0), (3, 0, 1, 0.25)]
    told = trace(
        [-1], ([1], [SimpleNamespace(evaluation=e, position=i, token=t, p=p) for e, i, t, p in events], 3), LETTERS
    )
    assert told["events"] == [[1, 0, 0.5, "c"], [2, 0], [3, 0, 0.25]]
    assert [(cell.text, cell.kind) for n in range(4) for cell in cells(told, n)] == [
        ("b", "hidden"), ("c", "written"), ("b", "hidden"), ("b", "written"),
    ]  # fmt: skip


def test_a_failed_drawing_leaves_the_model_as_it_was():
    toy = Toy()
    toy.sample = lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        record(toy, torch.tensor([CANVASES[0]]), None, None)
    assert "denoise" not in vars(toy)


def test_an_autoregressive_text_is_told_from_left_to_right_with_the_chain_rule():
    torch.manual_seed(0)
    config = Autoregressive.Config(layers=1, width=8, heads=2)
    model = Autoregressive(config, Description(kind="text", shape=[8], vocabulary_size=5)).eval()
    torch.nn.init.normal_(model.transformer.head.weight)
    canvas, sampling = torch.tensor([[3, 1, -1, -1, -1, -1]]), TextSampling(length=6)
    with torch.no_grad():
        tokens, events, evaluations = record(model, canvas, sampling, generator())
        assert model.sample(canvas, sampling, generator())[0].tolist() == tokens
        p = model.logits(torch.tensor([tokens])).double().softmax(-1)[0]
    assert [event[:3] for event in events] == [(k, k + 1, tokens[k + 1]) for k in range(1, 5)] and evaluations == 4
    for event in events:
        assert event.p == pytest.approx(p[event.position, event.token].item(), rel=1e-6)


@pytest.mark.parametrize(
    "setting", [{"sampler": "ancestral", "steps": 8}, {"sampler": "remdm", "steps": 12, "eta": 0.5}]
)
def test_block_diffusion_is_told_block_after_block_with_its_own_probabilities(setting):
    torch.manual_seed(0)
    config = BlockDiffusion.Config(layers=1, width=8, heads=2, block=3)
    model = BlockDiffusion(config, Description(kind="text", shape=[8], vocabulary_size=5)).eval()
    torch.nn.init.normal_(model.transformer.head.weight)
    canvas, sampling = torch.tensor([[3, -1, -1, -1, -1, -1, -1, -1]]), Revealing(length=8, **setting)
    with torch.no_grad():
        tokens, events, _ = record(model, canvas, sampling, generator(2))
        assert model.sample(canvas, sampling, generator(2))[0].tolist() == tokens
        x = torch.where(canvas < 0, model.mask, canvas)
        for _, together in groupby(events, key=lambda event: event.evaluation):
            p = torch.zeros(8, 5).double()
            p[x[0] == model.mask] = model.logits(x.clamp(max=4), x == model.mask).double().softmax(-1)
            for _, i, token, told in together:
                assert token is None or told == pytest.approx(p[i, token].item(), rel=1e-5)
                x[0, i] = model.mask if token is None else token
    assert x[0].tolist() == tokens and "next_logits" not in vars(model)
    blocks = [event.position // 3 for event in events]
    assert blocks == sorted(blocks) and any(event.token is None for event in events) == (setting["sampler"] == "remdm")


@pytest.mark.parametrize("text", ["Ünïcode 漢字 and 🎉", "plain", "\n\n x "])
def test_pieces_are_those_of_the_text_whatever_the_tokens_part(tmp_path, text):
    tokenizer = load_tokenizer(project.prepare(tmp_path, "text", project.TEXT))  # a token a byte
    row = tokenizer.encode(text).ids
    assert len(row) == len(text.encode()) and "".join(pieces(row, tokenizer)) == text
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces(row, tokenizer))
    for cut in range(1, len(row)):  # also where it ends within a character, and in an order of no text
        for part in (row[:cut], row[:cut][::-1]):
            assert "".join(pieces(part, tokenizer)) == tokenizer.decode(part)


def test_moments_go_from_nothing_to_all_in_steps_that_differ_by_one_at_most():
    assert moments(0, 9) == [0] and moments(3, 9) == [0, 1, 2, 3]
    many = moments(100, 48)
    assert len(many) == 49 and (many[0], many[-1]) == (0, 100)
    assert {b - a for a, b in pairwise(many)} == {2, 3}
