"""The command line: python -m genai COMMAND [NAME] ...; every stage of dvc.yaml is one such command.

Only parses: what a command does stands in genai/commands, so that no stage depends on this file.
"""

import argparse
import importlib
import sys

from genai.core.config import UserError

STAGES = {
    "prepare": "prepare a data set: data/NAME",
    "train": "train an experiment's model: models/NAME",
    "evaluate": "measure a model on validation and test: metrics/NAME.json, scores/NAME.csv, figures/NAME",
    "samples": "draw what a generator shows people: samples/NAME",
    "grade": "draw from a generator and set it beside real examples: grades/NAME.json, generated/NAME",
    "learning_curve": "train an experiment's model on ever more examples: learning_curves/NAME.csv",
    "look": "look at what a model learned: looks/NAME",
}
WHOLE = {
    "report": "set every figure beside its baseline: reports/",
    "leaderboard": "print the leaderboard, what the generators write and where the figures are",
    "check": "validate params.yaml, the models' own sections included",
    "schema": "write params.schema.json, which editors read to complete and check params.yaml",
    "ui": "serve the page of it all, MLflow and Prefect on 127.0.0.1",
}


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    top = argparse.ArgumentParser(prog="python -m genai", description="every stage of dvc.yaml is one such command")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command, text in STAGES.items():
        commands.add_parser(command, help=text, allow_abbrev=False).add_argument("name", metavar="NAME")
    for command, text in WHOLE.items():
        commands.add_parser(command, help=text)
    one = commands.add_parser("sample", help="generate, to standard output or a file", allow_abbrev=False)
    one.add_argument("model", metavar="NAME", help="a generator of params.yaml, or models:/NAME@ALIAS")
    one.add_argument("--prompt", help="text to continue; [[N]] in it marks a gap of N tokens to fill")
    one.add_argument("--sampler", help="of a diffusion model: ancestral, confidence, heun, ddim, ...")
    one.add_argument("--steps", type=int, help="network evaluations from noise to sample")
    one.add_argument("--length", type=int, help="tokens in a text")
    one.add_argument("--temperature", type=float, help="below 1: likelier, less varied text")
    one.add_argument("--top-p", type=float, help="mass of the likeliest tokens that are drawn from")
    one.add_argument(
        "--guidance", type=float, help="above 1: more typical images, texts that hang more on their prompt"
    )
    one.add_argument("--block", type=int, help="tokens of a text written before those to their right")
    one.add_argument("--best-of", type=int, metavar="N", help="the likeliest of N texts")
    for number, sampler in (("noise", "confidence"), ("threshold", "threshold"), ("eta", "remdm or ddim")):
        one.add_argument(f"--{number}", type=float, help=f"of the sampler {sampler}")
    one.add_argument("--entropy-bound", type=float, metavar="NATS", help="of the sampler entropy_bounded")
    one.add_argument("--seed", type=int)
    one.add_argument("--watch", action="store_true", help="in a terminal: see the text as it is written, by how sure")
    one.add_argument("--out", metavar="FILE", help="where to write it (images: NAME.png where it is not given)")
    bits = commands.add_parser("likelihood", help="bits per character of held-out text, and by the share hidden")
    bits.add_argument("names", nargs="+", metavar="NAME", help="experiments on the same text")
    bits.add_argument("--windows", type=int, default=64, help="of the split, evenly spaced")
    bits.add_argument("--split", choices=("validation", "test"), default="validation")
    bits.add_argument("--out", metavar="FILE", help="where to draw the costs by the share hidden, a PNG")
    quality = commands.add_parser(
        "quality", help="texts of all samplers by evaluations of the network, beside real text"
    )
    quality.add_argument("name", metavar="NAME", help="a masked diffusion model's experiment")
    quality.add_argument("--judges", nargs="+", required=True, metavar="NAME", help="other models of the same text")
    quality.add_argument(
        "--evaluations", nargs="+", type=int, default=[8, 16, 32, 64, 128, 256], metavar="N", help="per text"
    )
    quality.add_argument("--texts", type=int, default=32, help="of each sampler")
    quality.add_argument("--temperature", type=float, default=1.0, help="1: as the model has learned it")
    quality.add_argument("--split", choices=("validation", "test"), default="validation", help="of the real text")
    quality.add_argument("--out", metavar="FILE", help="where to draw quality against entropy by temperature, a PNG")
    cloze = commands.add_parser("cloze", help="what a hidden span of held-out text costs, and how much of it is told")
    cloze.add_argument("names", nargs="+", metavar="NAME", help="experiments on the same text")
    cloze.add_argument("--spans", nargs="+", type=int, default=[1, 4, 16], metavar="N", help="tokens that are hidden")
    cloze.add_argument("--windows", type=int, default=64, help="of the split, evenly spaced")
    cloze.add_argument("--split", choices=("validation", "test"), default="validation")
    classify = commands.add_parser("classify", help="which label makes a held-out text cheapest, beside naive Bayes")
    classify.add_argument("names", nargs="+", metavar="NAME", help="experiments on the same text, its documents named")
    classify.add_argument("--labels", nargs="+", metavar="LABEL", help="names of documents without their number")
    classify.add_argument("--texts", type=int, default=25, metavar="N", help="held-out paragraphs of each label")
    classify.add_argument(
        "--contexts", type=int, default=2, metavar="M", help="of training text that stand for a label"
    )
    classify.add_argument("--split", choices=("validation", "test"), default="validation")
    mirror = commands.add_parser("track", help="mirror the files of all stages, and DVC's experiments, into MLflow")
    mirror.add_argument("--follow", action="store_true", help="until standard input ends, while stages run")
    mirror.add_argument("--release", action="store_true", help="then release")
    release = commands.add_parser("release", help="register the models; a better one becomes champion")
    release.add_argument("names", nargs="*", metavar="NAME")
    served = commands.add_parser("serve", help="answer over HTTP by a champion, behind GENAI_SERVE_PASSWORD")
    served.add_argument("name", metavar="NAME")
    served.add_argument("--host", default="127.0.0.1")
    served.add_argument("--port", type=int, default=5001)
    return top


def main() -> int:
    """Run one command; a user's mistake becomes one line and exit status 2."""
    arguments = vars(parser().parse_args())
    try:
        importlib.import_module(f"genai.commands.{arguments.pop('command')}").main(**arguments)
    except UserError as error:
        print(f"genai: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        print(f"genai: {error.filename or 'write'}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
