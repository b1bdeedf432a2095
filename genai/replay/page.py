"""How texts were written, as a page: a slider through the evaluations of the network, two ways of writing side by side.

One file, no network, no library: what the stages recorded (trace.py) and a script that sets nothing but the text and the
class of elements, so that no text is ever taken for markup.
"""

import json
from pathlib import Path
from typing import Any

from genai.core.dataset import write_text
from genai.replay.trace import LEVELS

RECORDED = "replay.json"  # in samples/NAME: {"name": NAME, "traces": [a trace with its "prompt" and "way", ...]}


def read(folder: Path) -> dict[str, Any] | None:
    """Return what a generator recorded in its folder of samples; None where it recorded nothing."""
    path = folder / RECORDED
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def write(replays: list[dict[str, Any]], path: Path) -> None:
    """Write the page of some generators' texts."""
    title = "How a text is written"
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>'
    body = f"<main>\n<h1>{title}</h1>\n{fragment(replays)}</main>"
    page = f'<!doctype html>\n<html lang="en">\n<head>{head}<link rel="icon" href="data:,">\n<style>{PAGE}</style>\n</head>'
    write_text(path, f"{page}\n<body>\n{body}\n</body>\n</html>\n")


def fragment(replays: list[dict[str, Any]]) -> str:
    """Return the replay as HTML to stand in a page, once; its colours are its own, its letters the page's."""
    data = json.dumps({"levels": LEVELS, "replays": replays}, ensure_ascii=False, separators=(",", ":"))
    data = data.replace("<", "\\u003c")  # so that no text ends the script
    return f"""<div class="replay" id="replay">
<style>{STYLE}</style>
{MARKUP}<script type="application/json" id="replay-data">{data}</script>
<script>{SCRIPT}</script>
</div>
"""


PAGE = """
:root { color-scheme: light dark; }
body { margin: 0; background: #fff; color: #1c1e21; font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 66rem; margin: 0 auto; padding: 1.5rem 1.25rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 1rem; letter-spacing: -.02em; }
@media (prefers-color-scheme: dark) { body { background: #15181c; color: #e4e7eb; } }
"""

# Levels of colour: p0 ... p5 from unsure to sure, orange to blue; e0 ... e5 from first to last, ever darker
STYLE = """
.replay { --ink: #1c1e21; --faint: #5c636b; --rule: #c9ced4; --card: #f5f6f8; --hidden: #dfe2e6; --accent: #0b5cad;
  --p0: #f4a063; --p1: #f9c9a0; --p2: #f3e3d6; --p3: #dbe8f4; --p4: #b0d3f1; --p5: #86bcec;
  --e0: #f6eefb; --e1: #e6d4f3; --e2: #d5b9ea; --e3: #c39ee0; --e4: #b68cd9; --e5: #a878d0; }
@media (prefers-color-scheme: dark) { .replay { --ink: #eef0f3; --faint: #a2aab4; --rule: #454c55; --card: #1f242a;
  --hidden: #343a42; --accent: #7ab8f5;
  --p0: #9a4a08; --p1: #6f4523; --p2: #4c4239; --p3: #34434f; --p4: #1f4d78; --p5: #125c9f;
  --e0: #2c2635; --e1: #40324f; --e2: #553f6b; --e3: #6a4b88; --e4: #7a549f; --e5: #885db5; } }
.replay { color: var(--ink); margin-bottom: 2.5rem; }
.replay .bar { display: flex; flex-wrap: wrap; align-items: center; gap: .6rem 1rem; margin: 0 0 .8rem; font-size: .9rem; }
.replay button, .replay select { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--rule);
  border-radius: .4rem; padding: .25rem .6rem; max-width: 100%; }
.replay button { min-width: 5.5rem; cursor: pointer; }
.replay :is(button, select, input):focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.replay input[type=range] { flex: 1 1 14rem; min-width: 8rem; accent-color: var(--accent); }
.replay label { display: inline-flex; align-items: center; gap: .35rem; max-width: 100%; }
.replay output { min-width: 8.5rem; font-variant-numeric: tabular-nums; }
.replay .sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1rem; }
.replay .side { background: var(--card); border-radius: .5rem; padding: .8rem 1rem; min-width: 0; }
.replay .side select { width: 100%; background: transparent; font-weight: 600; }
.replay .side p { margin: .5rem .1rem; max-width: none; color: var(--faint); font-size: .85rem; font-variant-numeric: tabular-nums; }
.replay .text { white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.75; }
.replay .text span { border-radius: .2rem; padding: .12rem .06rem; margin: 0 -.03rem; }
.replay .text span:empty { display: none; }
.replay .given { font-weight: 600; }
.replay .hidden { background: var(--hidden); color: transparent; user-select: none; }
.replay .again { box-shadow: inset 0 -2px var(--faint); }
.replay .new { box-shadow: 0 0 0 2px var(--ink); }
.replay .key { display: inline-flex; align-items: center; gap: .4rem; color: var(--faint); }
.replay .key i { display: inline-block; width: 1.4rem; height: .9rem; }
.replay .key i + i { margin-left: -.4rem; }
""" + "".join(
    f".replay .{level} {{ background: var(--{level}); }}\n"
    for level in [*map("p{}".format, range(6)), *map("e{}".format, range(6))]
)

MARKUP = """<p class="off">Here a script shows how these texts were written; where it does not run, open this page, or
samples/NAME/replay.html, in a browser.</p>
<div class="on" hidden>
<div class="bar"><label>Text <select class="prompt"></select></label>
<label>Colour <select class="colour"><option value="p">how sure the model was</option><option value="e">when it was written</option></select></label>
<span class="key"><span class="low"></span><i></i><i></i><i></i><i></i><i></i><i></i><span class="high"></span></span></div>
<div class="bar"><button type="button" class="play">&#9654; Play</button>
<input type="range" class="slider" min="0" value="0" aria-label="evaluations of the network"><output></output></div>
<div class="sides"></div>
</div>
"""

SCRIPT = """
(() => {
  const root = document.getElementById("replay"), find = (name) => root.querySelector(name);
  const {levels, replays} = JSON.parse(document.getElementById("replay-data").textContent);
  const traces = replays.flatMap((r) => r.traces.map((t) => ({...t, name: r.name})));
  const [prompt, colour, play, slider, told] = [".prompt", ".colour", ".play", ".slider", "output"].map(find);
  let sides = [], timer = null;

  const make = (tag, name) => Object.assign(document.createElement(tag), {className: name ?? ""});

  // What stands at each position after n evaluations; what is hidden keeps the room of what is to come
  const cells = (trace, n) => {
    const now = trace.tokens.map((text, i) => ({text, name: trace.given[i] ? "given" : "hidden"}));
    for (const [e, i, p, text] of trace.events) {
      if (e > n) break;
      now[i] = p === undefined ? {text: trace.tokens[i], name: "hidden again"} : {text: text ?? trace.tokens[i], e, p};
    }
    return now;
  };

  const level = (cell, trace) => colour.value === "p"
    ? "p" + levels.filter((edge) => cell.p >= edge).length
    : "e" + Math.min(5, Math.floor(6 * (cell.e - 1) / trace.evaluations));

  function draw() {
    const n = Number(slider.value);
    told.textContent = `${n} of ${slider.max} evaluations`;
    for (const side of sides) {
      const now = cells(side.trace, n), written = now.filter((cell) => cell.e);
      now.forEach((cell, i) => {
        const [space, span] = side.spans[i], isNew = cell.e === n && n < slider.max;
        [, space.textContent, span.textContent] = cell.text.match(/^(\\s*)(.*)$/s);
        span.className = cell.name ?? level(cell, side.trace) + (isNew ? " new" : "");
        span.title = cell.e ? `evaluation ${cell.e}, probability ${cell.p.toPrecision(2)}` : "";
        span.setAttribute("aria-hidden", cell.name?.startsWith("hidden") ?? false);
      });
      const all = side.trace.given.filter((given) => !given).length;
      side.state.textContent = n >= side.trace.evaluations
        ? `done in ${side.trace.evaluations} evaluations of the network: ${all} tokens`
        : `${written.length} of ${all} tokens after ${n} of ${side.trace.evaluations} evaluations of the network`;
    }
    const prefix = colour.value;
    root.querySelectorAll(".key i").forEach((key, i) => { key.className = prefix + i; });
    find(".low").textContent = prefix === "p" ? `under ${100 * levels[0]} %` : "first";
    find(".high").textContent = prefix === "p" ? `over ${100 * levels.at(-1)} %` : "last";
  }

  function choose(side, trace) {
    side.trace = trace;
    side.spans = trace.tokens.map(() => [document.createTextNode(""), make("span")]);  // white space has no colour
    side.text.replaceChildren(...side.spans.flat());
  }

  function measure(value) {
    slider.max = Math.max(1, ...sides.map((side) => side.trace.evaluations));
    slider.value = value ?? slider.max;
    draw();
  }

  function fill() {
    const of = traces.filter((trace) => trace.prompt === traces[prompt.value].prompt);
    const other = of.findIndex((trace) => trace.name !== of[0].name);
    sides = [0, other > 0 ? other : 1].filter((k) => k < of.length).map((k) => {
      const side = {box: make("div", "side"), select: make("select"), state: make("p"), text: make("div", "text")};
      side.select.setAttribute("aria-label", "model and sampler");
      of.forEach((trace, i) => side.select.add(new Option(`${trace.name}: ${trace.way}`, i, i === k, i === k)));
      side.select.addEventListener("change", () => {
        const end = slider.value === slider.max;
        choose(side, of[side.select.value]);
        measure(end ? undefined : slider.value);
      });
      side.box.append(side.select, side.state, side.text);
      choose(side, of[k]);
      return side;
    });
    find(".sides").replaceChildren(...sides.map((side) => side.box));
    measure();
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    play.textContent = "\\u25b6 Play";
  }

  function start() {
    if (slider.value === slider.max) slider.value = 0;
    play.textContent = "\\u23f8 Pause";
    const stride = Math.ceil(slider.max / 160);
    timer = setInterval(() => {
      slider.value = Number(slider.value) + stride;
      draw();
      if (slider.value === slider.max) stop();
    }, Math.max(70, Math.min(400, 8000 / slider.max)));
    draw();
  }

  const toggle = () => timer ? stop() : start();
  play.addEventListener("click", toggle);
  slider.addEventListener("input", () => { stop(); draw(); });
  slider.addEventListener("keydown", (event) => { if (event.key === " ") { event.preventDefault(); toggle(); } });
  colour.addEventListener("change", draw);
  prompt.addEventListener("change", () => { stop(); fill(); });

  const shared = (trace) => replays.every((r) => r.traces.some((t) => t.prompt === trace.prompt));
  const first = traces.map((_, i) => i).filter((i) => traces.findIndex((t) => t.prompt === traces[i].prompt) === i);
  const shown = first.find((i) => traces[i].prompt !== null && shared(traces[i])) ?? first[0];
  first.forEach((i) => prompt.add(new Option(traces[i].prompt ?? "without a prompt", i, i === shown, i === shown)));
  find(".off").remove();
  find(".on").hidden = false;
  fill();
})();
"""
