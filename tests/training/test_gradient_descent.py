"""The training loop against a bare loop, and through kills, signals, bad numbers and poisoned files."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from genai.core.config import UserError
from genai.training.gradient_descent import devices
from genai.training.gradient_descent.optimizers import make_optimizers, schedule
from genai.training.gradient_descent.train import Config, descend, preview_steps

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


class Toy(nn.Module):
    """A network with all that a checkpoint must hold: an embedding, a hidden matrix, a head, dropout, batch norm."""

    def __init__(self, pause: float = 0.0, broken_at: int | None = None):
        super().__init__()
        self.embedding = nn.Embedding(7, 8)
        self.hidden = nn.Linear(8, 8)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 1)
        self.pause, self.broken_at, self.calls = pause, broken_at, 0

    def loss(self, batch):
        time.sleep(self.pause)
        self.calls += self.training
        x = self.norm(torch.dropout(self.hidden(self.embedding(batch["x"])), 0.1, self.training)).relu()
        loss = (self.head(x).squeeze(1) - batch["y"]).square().mean()
        return loss * float("nan") if self.calls == self.broken_at and self.training else loss


class Slow(Toy):
    """Slow enough to be killed at a step."""

    changes: ClassVar = {"steps": 120}

    def __init__(self):
        super().__init__(pause=0.01)


def toy_data():
    x = np.arange(56) % 7
    return {"x": x, "y": np.sin(x).astype(np.float32), "number": np.arange(56)}


def settings(**changes) -> Config:
    numbers = {
        "method": "gradient_descent",
        "seed": 0,
        "threads": 1,
        "steps": 60,
        "batch_size": 8,
        "learning_rate": 0.01,
    }
    numbers |= {"muon_learning_rate": 0.02, "ema": 0.9, "validate_every": 10}
    return Config(**(numbers | changes))


def run(work: Path, build=Toy, checkpoint_seconds=1e9, on_preview=None, **changes):
    work.mkdir(exist_ok=True)
    torch.manual_seed(0)
    model = build()
    changes = getattr(model, "changes", {}) | changes
    return descend(model, toy_data(), toy_data(), settings(**changes), work, "same", checkpoint_seconds, on_preview)


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same_bits(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_same_seed_same_bits_and_another_seed_others(tmp_path):
    first, second, other = (weights(run(tmp_path / str(i), seed=seed)) for i, seed in enumerate((3, 3, 4)))
    assert_same_bits(first, second)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_full_batches_equal_a_bare_adamw_loop(tmp_path):
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(32, 3)).astype(np.float32)
    data = {"x": x, "y": x @ np.array([1.0, -2.0, 0.5], np.float32)}

    class Linear(nn.Linear):
        def loss(self, batch):
            return (self(batch["x"]).squeeze(1) - batch["y"]).square().mean()

    numbers = settings(batch_size=32, muon_learning_rate=None, ema=None, warmup=0.0, decay=0.0, steps=40)
    ours, bare = Linear(3, 1), Linear(3, 1)
    bare.load_state_dict(ours.state_dict())
    descend(ours, data, data, numbers, tmp_path, "", 1e9)
    optimizer = torch.optim.AdamW(bare.parameters(), lr=0.01, betas=(0.9, 0.95), weight_decay=0.0)
    batch = {name: torch.from_numpy(array) for name, array in data.items()}
    for _ in range(40):
        loss = bare.loss(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(bare.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    torch.testing.assert_close(ours.weight, bare.weight, rtol=1e-4, atol=1e-6)


def test_a_batch_in_parts_makes_the_same_step(tmp_path):
    class Linear(nn.Linear):
        sizes: ClassVar = set()

        def loss(self, batch):
            if self.training:
                self.sizes.add(len(batch["x"]))
            return (self(batch["x"]).squeeze(1) - batch["y"]).square().mean()

    x = np.random.default_rng(0).normal(size=(32, 3)).astype(np.float32)
    data = {"x": x, "y": x @ np.array([1.0, -2.0, 0.5], np.float32)}
    found = []
    for parts, size in ((1, 8), (4, 2)):
        torch.manual_seed(0)
        Linear.sizes.clear()
        numbers = settings(accumulate=parts, muon_learning_rate=None)
        found.append(descend(Linear(3, 1), data, data, numbers, tmp_path / str(parts), ""))
        assert Linear.sizes == {size}
    for one, other in zip(*(model.parameters() for model in found), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
    one, other = ((tmp_path / name / "history.csv").read_text().splitlines() for name in "14")
    assert [row.split(",")[:2] for row in one] == [row.split(",")[:2] for row in other]
    with pytest.raises(UserError, match=r"train.batch_size: 8 should be .* times train.accumulate, 3"):
        descend(Linear(3, 1), data, data, settings(accumulate=3), tmp_path / "no", "")


def test_schedule_rises_stays_and_falls_to_zero():
    numbers = settings(steps=100, warmup=0.1, decay=0.5)
    factors = [schedule(step, numbers) for step in range(101)]
    assert factors[0] == pytest.approx(0.1) and factors[9] == 1 and factors[50] == 1
    assert factors[75] == pytest.approx(0.5) and factors[100] == 0


def test_every_parameter_has_one_optimizer_and_muon_only_hidden_matrices():
    model = Toy()
    adamw, muon = make_optimizers(model, settings(), bf16=False)
    owned = [p for optimizer in (adamw, muon) for group in optimizer.param_groups for p in group["params"]]
    assert len(owned) == len({id(p) for p in owned}) == len(list(model.parameters()))
    assert [p is model.hidden.weight for p in muon.param_groups[0]["params"]] == [True]


def test_history_has_a_row_per_validation_and_the_loss_falls(tmp_path):
    run(tmp_path)
    rows = (tmp_path / "history.csv").read_text().split()
    assert rows[0] == "step,train_loss,validation_loss,learning_rate"
    assert [int(row.split(",")[0]) for row in rows[1:]] == [10, 20, 30, 40, 50, 60]
    assert float(rows[-1].split(",")[2]) < float(rows[1].split(",")[2])


def test_average_of_weights_follows_its_recursion(tmp_path):
    path = []

    class Watched(Toy):
        def loss(self, batch):
            if self.training:
                path.append(self.head.bias.detach().clone())
            return super().loss(batch)

    model = Watched()
    averaged = run(tmp_path, lambda: model, ema=0.8, steps=5)
    expected = None
    for value in [*path[1:], model.head.bias.detach()]:
        expected = value if expected is None else 0.8 * expected + 0.2 * value
    torch.testing.assert_close(averaged.head.bias, expected)


PROGRAM = f"""
import os, sys, torch
from pathlib import Path
sys.path[:0] = [{str(ROOT)!r}, {str(HERE)!r}]
import test_gradient_descent as test
torch.set_num_threads(1)
rank = os.environ.get("RANK", "0")
for name, work in zip(sys.argv[2::2], map(Path, sys.argv[3::2])):
    work.mkdir(exist_ok=True)
    (work / f"pid_{{rank}}").write_text(str(os.getpid()))
    model = test.run(work, getattr(test, name), float(sys.argv[1]))
    torch.save(model.state_dict(), work / f"done_{{rank}}.pt")
"""


def start(*models_and_works: str | Path, seconds: float = 1e9, processes: int = 1) -> subprocess.Popen:
    """Train these models one after the other in a process of its own, or shared by several."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "--no-python"]
    command = [*([sys.executable, *torchrun] if processes > 1 else []), sys.executable, "-c", PROGRAM, str(seconds)]
    return subprocess.Popen([*command, *map(str, models_and_works)], stderr=subprocess.DEVNULL)


def done(work: Path, rank: int = 0):
    return torch.load(work / f"done_{rank}.pt", weights_only=True)


def wait_for_step(work: Path, process: subprocess.Popen, step: int, checkpoint: bool = True) -> None:
    for _ in range(3000):
        rows = (work / "history.csv").read_text().split() if (work / "history.csv").exists() else []
        if len(rows) > 1 and int(rows[-1].split(",")[0]) >= step and (work / "checkpoint.pt").exists() >= checkpoint:
            return
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    raise AssertionError("no progress")


def test_killed_and_resumed_it_has_the_bits_of_the_uninterrupted_run(tmp_path):
    work = tmp_path / "killed"
    for step, number in ((20, signal.SIGKILL), (70, signal.SIGTERM)):
        process = start("Slow", work, seconds=0.02)
        wait_for_step(work, process, step)
        process.send_signal(number)
        assert process.wait(10) == (-9 if number == signal.SIGKILL else 143)
        assert not (work / "done_0.pt").exists()
    assert start("Slow", work).wait(60) == 0
    assert_same_bits(done(work), weights(run(tmp_path / "whole", steps=120)))
    assert (work / "history.csv").read_text() == (tmp_path / "whole" / "history.csv").read_text()


def test_a_gradient_that_is_not_finite_stops_it_and_keeps_the_good_checkpoint(tmp_path):
    tmp_path.joinpath("w").mkdir()
    with pytest.raises(
        UserError, match=r"not finite before step (1[5-9]|20); lower the learning rates; the checkpoint"
    ):
        run(tmp_path / "w", lambda: Toy(pause=0.005, broken_at=15), checkpoint_seconds=0.02)
    saved = torch.load(tmp_path / "w" / "checkpoint.pt", weights_only=True)
    assert 0 < saved["step"] < 15
    assert all(tensor.isfinite().all() for tensor in saved["model"].values())


def test_a_checkpoint_of_another_recipe_is_not_resumed(tmp_path):
    with pytest.raises(UserError):
        run(tmp_path, lambda: Toy(broken_at=15), checkpoint_seconds=0)
    torch.manual_seed(0)
    fresh = descend(Toy(), toy_data(), toy_data(), settings(), tmp_path, "another", 1e9)
    assert_same_bits(weights(fresh), weights(run(tmp_path / "whole")))


class Poison:
    def __reduce__(self):
        return os.mkdir, ("poisoned",)


def test_a_poisoned_checkpoint_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(pickle.dumps(Poison()))
    with pytest.raises(UserError, match="refused"):
        run(tmp_path)
    torch.save({"fingerprint": Poison()}, tmp_path / "checkpoint.pt")
    with pytest.raises(UserError, match="refused"):
        run(tmp_path)
    assert not (tmp_path / "poisoned").exists()


def test_a_batch_larger_than_the_data_is_a_users_mistake(tmp_path):
    with pytest.raises(UserError, match="batch_size: 57 should be at most the 56"):
        run(tmp_path, batch_size=57)


class Showing(Toy):
    """Shows what the weights, its mode and a draw are; it also draws from the generator that training draws from."""

    def preview(self, generator):
        torch.rand(3)
        shown = [self.head.bias.item(), float(self.training), torch.rand((), generator=generator).item()]
        return torch.tensor(shown)


def test_a_model_shows_what_it_draws_and_trains_to_the_same_bits(tmp_path):
    shown = {}
    model = run(tmp_path / "shown", Showing, on_preview=shown.__setitem__)
    assert_same_bits(weights(model), weights(run(tmp_path / "silent")))
    assert (tmp_path / "shown/history.csv").read_text() == (tmp_path / "silent/history.csv").read_text()
    assert list(shown) == [10, 20, 30, 40, 50, 60]
    bias, training, draw = np.stack(list(shown.values())).T
    assert bias[-1] == model.head.bias.item(), "the average of the weights is what is shown"
    assert len(set(bias)) == 6 and not training.any() and len(set(draw)) == 1


@pytest.mark.parametrize(
    ("steps", "every", "expected"),
    [
        (900, 50, [150, 300, 450, 600, 750, 900]),
        (1000, 125, [125, 250, 375, 500, 625, 750, 875, 1000]),
        (130, 60, [60, 120, 130]),
        (5, 50, [5]),
    ],
)
def test_previews_are_rows_of_the_history_evenly_and_the_last(steps, every, expected):
    assert sorted(preview_steps(settings(steps=steps, validate_every=every))) == expected


def test_there_are_at_most_eight_previews_and_the_last_step_is_one():
    for steps in range(1, 200):
        found = preview_steps(settings(steps=steps, validate_every=3))
        assert 1 <= len(found) <= 8 and steps in found


def test_previews_of_an_abandoned_training_go_and_those_of_a_resumed_one_stay(tmp_path):
    old = tmp_path / "previews" / "10.txt"
    old.parent.mkdir()
    old.write_text("of another training")
    with pytest.raises(UserError):
        run(tmp_path, lambda: Toy(broken_at=15), checkpoint_seconds=0)
    assert not old.exists()
    old.parent.mkdir()
    old.write_text("of this one")
    run(tmp_path)
    assert old.exists()


@pytest.mark.parametrize(
    ("capabilities", "faster"),
    [
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True, "amx_bf16": False}, True),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": False}, False),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, True),
        ({"cpu_name": "AMD Ryzen", "avx512_bf16": False}, False),
        ({}, False),
    ],
)
def test_bfloat16_is_for_processors_that_are_faster_in_it(capabilities, faster, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert devices.has_bf16(torch.device("cpu")) is faster


def test_denormal_numbers_are_flushed_in_training(tmp_path):
    torch.set_flush_denormal(False)
    run(tmp_path, steps=1)
    assert torch.tensor([1e-40]).mul(1.0).item() == 0


class Drawn(Toy):
    """Learns from a part of each batch, another number of examples each time, as masked diffusion does."""

    changes: ClassVar = {"steps": 6, "warmup": 0.0, "decay": 0.0}

    def loss(self, batch):
        kept = torch.rand(len(batch["x"])) < 0.7
        x = torch.dropout(self.hidden(self.embedding(batch["x"][kept])), 0.1, self.training).relu()
        return (self.head(x).squeeze(1) - batch["y"][kept]).square().mean()


class OnlyFused:
    """Ends a training whose loss is not compiled."""

    def loss(self, batch):
        assert torch.compiler.is_compiling() or not self.training
        return super().loss(batch)


class Fused(OnlyFused, Drawn):
    changes: ClassVar = Drawn.changes | {"compile": True}


class FusedHalf(Fused):
    changes: ClassVar = Fused.changes | {"steps": 3}


@pytest.mark.skipif(not devices.has_compiler(torch.device("cpu")), reason="no C++ compiler")
def test_fused_kernels_learn_the_same_and_have_the_bits_of_an_interrupted_run(tmp_path):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    runs = [start("Fused", whole), start("FusedHalf", halves, seconds=0.0)]
    assert [run.wait(500) for run in runs] == [0, 0]
    assert torch.load(halves / "checkpoint.pt", weights_only=True)["step"] == 3
    assert start("Fused", halves).wait(500) == 0
    assert_same_bits(done(halves), done(whole))
    for name, tensor in run(tmp_path, Drawn).state_dict().items():
        torch.testing.assert_close(done(whole)[name], tensor, rtol=1e-3, atol=1e-4)


def test_without_a_compiler_it_trains_as_if_not_asked_to_fuse(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    fused = run(tmp_path / "fused", Drawn, compile=True)
    assert_same_bits(weights(fused), weights(run(tmp_path / "plain", Drawn)))


class Exact(Toy):
    """Without draws and without statistics of a batch, which differ between shares of it."""

    changes: ClassVar = {"steps": 30}

    def __init__(self):
        super().__init__()
        self.norm.requires_grad_(False)

    def loss(self, batch):
        return (self.head(self.hidden(self.embedding(batch["x"])).relu()).squeeze(1) - batch["y"]).square().mean()


class FusedExact(OnlyFused, Exact):
    changes: ClassVar = Exact.changes | {"compile": True}


class Drawing(Exact):
    """Keeps what each step drew and which examples it saw, and gives that for its weights."""

    changes: ClassVar = {"steps": 6, "batch_size": 28, "ema": None}

    def __init__(self):
        super().__init__()
        self.drawn = []

    def loss(self, batch):
        if self.training:
            mask = torch.dropout(torch.ones(64), 0.5, True)
            self.drawn.append((mask, batch["number"]))
        return super().loss(batch)

    def state_dict(self, *arguments, **options):
        return {"masks": torch.stack([mask for mask, _ in self.drawn]), "seen": torch.stack([x for _, x in self.drawn])}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A folder for each model that two processes trained."""
    work = tmp_path_factory.mktemp("shared")
    assert start("Exact", work / "Exact", "Drawing", work / "Drawing", processes=2).wait(60) == 0
    return work


def test_two_processes_share_a_batch_and_learn_what_one_learns(shared, tmp_path):
    for name, tensor in run(tmp_path, Exact).state_dict().items():
        torch.testing.assert_close(done(shared / "Exact")[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not devices.has_compiler(torch.device("cpu")), reason="no C++ compiler")
def test_two_processes_with_fused_kernels_learn_it_too(tmp_path):
    assert start("FusedExact", tmp_path / "fused", processes=2).wait(500) == 0
    for name, tensor in run(tmp_path / "plain", Exact).state_dict().items():
        torch.testing.assert_close(done(tmp_path / "fused")[name], tensor, rtol=1e-4, atol=1e-5)


def test_each_process_draws_its_own_dropout_and_every_step_another(shared):
    masks = torch.cat([done(shared / "Drawing", rank)["masks"] for rank in (0, 1)])
    assert len(masks.unique(dim=0)) == len(masks) == 12


def test_two_processes_see_each_example_once_an_epoch(shared):
    # 56 examples, 28 a step: an epoch is two steps
    for epoch in range(3):
        seen = [done(shared / "Drawing", rank)["seen"][2 * epoch : 2 * epoch + 2] for rank in (0, 1)]
        assert sorted(torch.cat(seen).flatten().tolist()) == list(range(56))


def test_two_processes_of_which_one_gets_a_signal_both_leave_and_resume_to_the_same_bits(tmp_path):
    work, whole = tmp_path / "stopped", tmp_path / "whole"
    process = start("Slow", work, processes=2)
    wait_for_step(work, process, 20, checkpoint=False)
    os.kill(int((work / "pid_1").read_text()), signal.SIGTERM)
    assert process.wait(30) != 0
    assert not list(work.glob("done_*"))
    assert 20 <= torch.load(work / "checkpoint.pt", weights_only=True)["step"] < 120
    assert start("Slow", work, "Slow", whole, processes=2).wait(60) == 0
    assert_same_bits(done(work), done(whole))
    assert (work / "history.csv").read_text() == (whole / "history.csv").read_text()


def test_a_signal_that_comes_while_the_processes_agree_counts_at_the_next_step(monkeypatch):
    def all_reduce(flag, op):  # all of them answer what this one said, and the signal comes just then
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(devices.dist, "get_backend", lambda: "gloo")
    monkeypatch.setattr(devices.dist, "all_reduce", all_reduce)
    with devices.Signals() as signals:
        assert [signals.stop(world=2), signals.stop(world=2)] == [False, True]
        with pytest.raises(SystemExit, match="143"):
            signals.leave()
