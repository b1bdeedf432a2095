"""The language model that predicts each token from those before it.

The control of masked diffusion: the same transformer, causal, trained on the same windows.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genai.core.dataset import Description
from genai.diffusion.text.samplers import categorical, per_row
from genai.diffusion.text.transformer import KeyValues, TextSampling, Transformer, TransformerConfig

ROWS = 16  # windows that the network is given at a time in token_nats: a window of logits is 2 MB
PREVIEWED = 32  # tokens in a text that is shown while it trains: each takes a call of the network


class Autoregressive(nn.Module):
    """A language model by the chain rule: log p(x) = sum_t log p(x_t | x_1 ... x_{t-1}).

    The first token is predicted from the embedding of what lies outside the text, so that the sum is
    the exact code length of the whole window.
    """

    takes = frozenset({"text"})
    task = "language_model"
    metric = "bpc"
    generates = "text_generation"
    Sampling = TextSampling

    class Config(TransformerConfig):
        pass

    def __init__(self, config: Config, description: Description):
        super().__init__()
        V, T = description.vocabulary_size, description.shape[0]
        assert V is not None
        self.length = T
        self.transformer = Transformer(config, n_tokens=V, n_outputs=V, length=T, causal=True)

    def logits(self, tokens: Tensor) -> Tensor:
        """tokens: (B, T) -> (B, T, V), the logits of each token given those before it; it does not see itself."""
        return self.transformer.logits(self.transformer(tokens))

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the mean cross-entropy of a token in nats."""
        tokens = batch["tokens"]
        return F.cross_entropy(self.logits(tokens).flatten(0, 1), tokens.flatten())

    def nats(self, tokens: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """tokens: (B, T) -> -log p of each window, (B,) float64. Exact: the generator is not used."""
        return self.token_nats(tokens).sum(1)

    def token_nats(self, tokens: Tensor) -> Tensor:
        """tokens: (B, T) -> -log p of each token given those before it, (B, T) float64."""
        nats = [F.cross_entropy(self.logits(part).mT, part, reduction="none") for part in tokens.split(ROWS)]
        return torch.cat(nats).double()

    def sample(self, canvas: Tensor, sampling: TextSampling, generator: torch.Generator) -> Tensor:
        """Return the canvas (B, T) with each -1 replaced by a token, drawn from left to right.

        Each position goes through the network once: its keys and values are kept for those after it.
        generator: on the CPU, wherever the model is; a text does not depend on how many are made with it.
        Raises ValueError where a -1 stands before a given token, or there are more tokens than the window.
        """
        unknown, T = canvas < 0, canvas.shape[1]
        if (unknown[:, :-1] & ~unknown[:, 1:]).any():
            raise ValueError(
                "a gap before given text; this model writes from left to right, a diffusion model fills gaps"
            )
        network = self.transformer
        network.check_length(T)
        past, u = KeyValues(self.length), per_row(generator, len(canvas), canvas.device)(T)
        past.growing = True
        x, reach = canvas.clamp(min=0), len(network.embedding.offsets)
        for t in range(T):
            windows = network.embedding.windows(x[:, max(0, t - reach) : t + 1])[:, -1:]
            states = network.states(windows, network.cos[t : t + 1], network.sin[t : t + 1], past=past)
            if unknown[:, t].any():
                drawn = categorical(network.logits(states[:, 0]), u[:, t], sampling.temperature, sampling.top_p)
                x[:, t] = torch.where(unknown[:, t], drawn, x[:, t])
        return x

    def preview(self, generator: torch.Generator) -> Tensor:
        """Return the tokens of two short texts, (2, T)."""
        canvas = torch.full((2, min(self.length, PREVIEWED)), -1, device=self.transformer.cos.device)
        return self.sample(canvas, TextSampling(), generator)
