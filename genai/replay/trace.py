"""What a sampler did, recorded: which token it wrote after which evaluation of the network, and how sure the model was.

Neither samplers nor models know of it: what asks the network is wrapped while a text is drawn, which is the text that would have
been drawn without. A trace is plain JSON, so that what draws it (page.py, animation.py, `sample --watch`) needs no model:

    tokens       the text of each token of the finished canvas; joined, they are the finished text
    given        of each, whether it was given
    evaluations  of the network, in all
    events       in the order in which they happened, lists of
                 [evaluation, position, p]        the finished text's token was written there after so many evaluations;
                                                  the model gave it probability p, whatever the temperature
                 [evaluation, position, p, text]  another was, which did not stay
                 [evaluation, position]           what stood there was hidden again
"""

from bisect import bisect
from itertools import pairwise
from typing import Any, NamedTuple

LEVELS = (0.01, 0.05, 0.2, 0.5, 0.9)  # probabilities between which a token's colour changes


class Event(NamedTuple):
    """After an evaluation a position holds a token of probability p; None: it is hidden again."""

    evaluation: int
    position: int
    token: int | None
    p: float


class Recorder:
    """Notes, of one text, what became of the canvas from one evaluation of the network to the next.

    What is written and hidden again between two evaluations is seen by no network, and stands in no trace.
    """

    def __init__(self, canvas: Any, mask: int):
        """canvas: (1, T), the tokens before the first evaluation, `mask` where one is to be written."""
        self.mask, self.row, self.given = mask, canvas[0].tolist(), canvas[0] != mask
        self.evaluations = 0
        self.events: list[Event] = []
        self.asked: tuple[int, dict[int, Any]] = (0, {})  # the last evaluation, log p of each position that it told

    def evaluated(self, tokens: Any, where: Any, logits: Any) -> Any:
        """Note an evaluation of the canvas (1, T), asked for the logits (n, V) of positions (1, T), and return these."""
        assert len(tokens) == 1, "one text at a time is recorded"
        self.evaluations += 1
        if not (tokens[0] == self.mask)[self.given].any():  # else guidance asks what it would be without the prompt
            self.seen(tokens)
            log_p = logits.double().log_softmax(-1)
            self.asked = self.evaluations, dict(zip(where[0].nonzero()[:, 0].tolist(), log_p, strict=True))
        return logits

    def seen(self, tokens: Any) -> None:
        """Note in what the canvas (1, T) differs from the last that was seen."""
        evaluation, log_p = self.asked
        now = tokens[0].tolist()
        for i, (before, after) in enumerate(zip(self.row, now, strict=True)):
            if before != after and after == self.mask:
                self.events.append(Event(evaluation, i, None, 0.0))
            elif before != after:
                self.events.append(Event(evaluation, i, after, log_p[i][after].exp().item()))
        self.row = now


def record(model: Any, canvas: Any, sampling: Any, generator: Any) -> tuple[list[int], list[Event], int]:
    """Return what `model.sample` draws, the tokens of a text, with what happened and in how many evaluations.

    canvas: (1, T), -1 where a token is to be written; one text is drawn, not the best of several. Of block diffusion,
    evaluations that only keep a block's keys and values are not counted. Raises ValueError as `sample` does.
    """
    ask = next((name for name in ("denoise", "next_logits") if hasattr(model, name)), None)
    if ask is None:  # from left to right, an evaluation a token
        tokens = model.sample(canvas, sampling, generator)
        p = (-model.token_nats(tokens)).exp()[0].tolist()
        (row,) = tokens.tolist()
        written = (canvas[0] < 0).nonzero()[:, 0].tolist()
        return row, [Event(k, i, row[i], p[i]) for k, i in enumerate(written, 1)], len(written)
    inner, x = getattr(model, ask), canvas.where(canvas >= 0, model.mask)
    recorder = Recorder(x, model.mask)

    def denoise(tokens: Any, where: Any) -> Any:
        return recorder.evaluated(tokens, where, inner(tokens, where))

    def next_logits(text: Any, past: Any, block: Any, where: Any) -> Any:
        start, end = text.shape[1], text.shape[1] + block.shape[1]
        whole, asked = x.clone(), where.new_zeros(x.shape)
        whole[:, :start], whole[:, start:end], asked[:, start:end] = text, block, where
        return recorder.evaluated(whole, asked, inner(text, past, block, where))

    setattr(model, ask, denoise if ask == "denoise" else next_logits)
    try:
        tokens = model.sample(canvas, sampling, generator)
    finally:
        delattr(model, ask)  # the attribute that hid the method
    recorder.seen(tokens)
    return tokens[0].tolist(), recorder.events, recorder.evaluations


def trace(canvas: list[int], recorded: tuple[list[int], list[Event], int], tokenizer: Any) -> dict[str, Any]:
    """Return as JSON what `record` recorded of a canvas, -1 where a token was to be written."""
    row, events, evaluations = recorded
    last = {event.position: event for event in events}
    rows: list[list[Any]] = []
    for event in events:
        rows.append([event.evaluation, event.position])
        if event.token is not None:
            rows[-1].append(round(event.p, 4))
            if last[event.position] is not event:
                rows[-1].append(tokenizer.decode([event.token]))
    given = [token >= 0 for token in canvas]
    return {"tokens": pieces(row, tokenizer), "given": given, "evaluations": evaluations, "events": rows}


def pieces(row: list[int], tokenizer: Any) -> list[str]:
    """Return the text of each token; joined, they are the row's.

    A character whose bytes stand in several tokens is the last one's: U+FFFD, which the bytes before decode to, waits.
    """
    ends = [tokenizer.decode(row[: i + 1]) for i in range(len(row))]
    stable = ["", *(text.rstrip("\N{REPLACEMENT CHARACTER}") for text in ends[:-1]), *ends[-1:]]
    return [after[len(before) :] for before, after in pairwise(stable)]


class Cell(NamedTuple):
    """What stands at a position: its text, and of what was written after which evaluation and how surely."""

    text: str
    kind: str  # given, hidden, written
    evaluation: int = 0
    p: float = 0.0

    @property
    def level(self) -> int:
        """How sure the model was, from 0 to 5."""
        return bisect(LEVELS, self.p)


def cells(trace: dict[str, Any], evaluation: int) -> list[Cell]:
    """Return what stands at each position after so many evaluations; of what is hidden the text is that to come."""
    tokens, given = trace["tokens"], trace["given"]
    found = [Cell(text, "given" if g else "hidden") for text, g in zip(tokens, given, strict=True)]
    for e, i, *written in trace["events"]:
        if e > evaluation:
            break
        if written:
            p, text = [*written, tokens[i]][:2]
            found[i] = Cell(text, "written", e, p)
        else:
            found[i] = Cell(tokens[i], "hidden", e)
    return found


def moments(evaluations: int, most: int) -> list[int]:
    """Return the evaluations after which the canvas is shown, evenly spaced: from none to all, at most so many steps."""
    steps = min(evaluations, most)
    return [round(evaluations * k / steps) for k in range(steps + 1)] if steps else [0]
