/** The page: its controls, and what they do to the stream, its sound and its pictures. */

import { ask, halt } from "./calls.js";
import { json } from "./files.js";
import { CUT_SAMPLES, TRAPS, schedule } from "./lab.js";
import { Line, msText, withStates } from "./line.js";
import { Pictures } from "./pictures.js";
import { Player } from "./player.js";
import { LANGUAGES, fillDocument, know, language, otherLanguage, toggleLanguage, words } from "./words.js";

const $ = (id) => document.getElementById(id);
const DESIGNS = ["exact", "windowed", "one-shot"];
const GUIDE = [
  { utterance: "en_small", design: "exact", chunk: 3, trap: "none" },
  { utterance: "en_small", design: "exact", chunk: 3, trap: "all" },
  { utterance: "en_passage", design: "windowed", chunk: 6, trap: "positions" },
];
// Traps that the line of layers shows; the others are in a list.
const LOST = ["all", "conv", "attention", "layer"];
// Where the notebooks speak of a trap; `pages.json` says which of them are here, in the book around this page.
const LINKS = {
  none: "00_hear_it.html#3.-A-right-stream",
  all: "00_hear_it.html#4.-Lose-one-state,-and-hear-which",
  conv: "00_hear_it.html#4.-Lose-one-state,-and-hear-which",
  attention: "00_hear_it.html#4.-Lose-one-state,-and-hear-which",
  layer: "00_hear_it.html#4.-Lose-one-state,-and-hear-which",
  other: "03_verify_wrapper.html#5.-Batch-rows-at-different-offsets",
  positions: "00_hear_it.html#6.-A-trap-that-waits",
  context: "07_trap_catalogue.html#5.-A-state-is-wrong-although-every-shape-is-right",
  samples: "07_trap_catalogue.html#9.-Around-the-graph:-servers,-clients-and-tests",
};

const player = new Player();
const pictures = new Pictures();
const line = new Line($("line"), $("layer"), (states) => lose(states.length ? "layer" : "none", states));

const abouts = {}; // of each design's graph, once it was asked for
let utterances = [], parts = [], pages = [];
let trap = "none", lost = []; // what is wrong, and the states of the one layer
// The last stream's numbers, the newest run, the sample where sound begins, and what the status line says.
let result, running = 0, from = 0, stage = "loading";

const status = (key) => ($("status").textContent = words((stage = key)));
const problem = (text) => ($("problem").textContent = text);
const failed = (error) => problem(words("failed") + error.message);
const settings = () => ({
  utterance: $("utterance").value,
  design: $("design").value,
  chunk: Number($("chunk").value),
  seed: $("cut").value === "random" ? Number($("seed").value) : undefined,
  trap,
  layer: lost,
});

function element(tag, content, attributes = {}) {
  const made = document.createElement(tag);
  made.append(...[content].flat());
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

// --- what is shown ------------------------------------------------------------------------------------------------------

function fill(id, entries) {
  const kept = $(id).value;
  $(id).replaceChildren(...entries.map(([value, label]) => element("option", label, { value })));
  if (entries.some(([value]) => value === kept)) $(id).value = kept;
}

const frameMs = () => (1000 * abouts.exact.spec.samples_per_frame) / abouts.exact.spec.sample_rate;

/** The beginning of a text, as long as a list on a phone has room for; a Chinese character takes the room of two. */
function shortened(text, room = 26) {
  let end = 0;
  for (let taken = 0; end < text.length && taken < room; end++) taken += text[end] > "\u2e80" ? 2 : 1;
  return text.slice(0, end) + (end < text.length ? "…" : "");
}

function showUtterances() {
  const seconds = (frames) => words("placeText", { seconds: ((frames * frameMs()) / 1000).toFixed(1) });
  fill("utterance", utterances.map(({ name, text, frames }) => [name, `${shortened(text)} (${seconds(frames)})`]));
}

/** Everything that has words, in the language that was chosen. */
function showWords() {
  fillDocument();
  $("language").lang = LANGUAGES[otherLanguage()];
  fill("design", DESIGNS.map((name) => [name, words(`designs.${name}`)]));
  fill("cut", ["equal", "random"].map((name) => [name, words(`cuts.${name}`)]));
  $("guide").replaceChildren(...words("guide").map((label, index) => {
    const button = element("button", label, { type: "button" });
    button.onclick = () => follow(GUIDE[index]);
    return element("li", button);
  }));
  if (abouts.exact) showUtterances();
  showLine();
  showChoices();
  showNumbers();
  status(stage);
}

function showLine() {
  $("line-why").textContent = words(`lineWhy.${$("design").value}`);
  const about = abouts[$("design").value];
  if (!about) return;
  const layer = ({ names: [name], kinds, ms, bytes, states, then }) =>
    words(kinds.length ? "layer" : ms ? "waiting" : "counter", { name, kind: kinds[0], ms: msText(ms), bytes: bytes.toLocaleString(language), states: states.join(", ") })
    + (kinds.length && then.length ? words("then", { kinds: then.join(" · ") }) : "");
  line.show(withStates(parts, about), { codes: words("codesEnd"), waveform: words("waveformEnd"), none: words("noLayer"), layer });
}

/** What follows from the controls: offers, marks, borders, the card. */
function showChoices() {
  const design = $("design").value, name = (trap) => words(`trapNames.${trap}`, { layer: lost.map((state) => abouts[design].spec.modules[state])[0] });
  if (!TRAPS[trap].designs.includes(design)) [trap, lost] = ["none", []];
  fill("trap", Object.keys(TRAPS).filter((name) => !LOST.includes(name) && TRAPS[name].designs.includes(design)).map((trap) => [trap, name(trap)]));
  $("trap").value = LOST.includes(trap) ? "none" : trap;
  for (const button of $("lose").querySelectorAll("button")) {
    button.ariaPressed = String(button.dataset.trap === trap);
    button.disabled = !TRAPS[button.dataset.trap].designs.includes(design);
  }
  const states = abouts[design]?.spec.states.map(([{ name }]) => name) ?? [];
  line.mark(LOST.includes(trap) ? states.filter((state) => TRAPS[trap].lost(state, lost)) : []);
  line.tell(document.activeElement);
  $("chunk-value").textContent = $("chunk").value;
  $("seed").disabled = $("cut").value !== "random";
  const utterance = utterances.find(({ name }) => name === $("utterance").value);
  if (utterance) pictures.cut(schedule(utterance.frames, settings().chunk, settings().seed), abouts.exact.spec.samples_per_frame);
  showCard(trap, name(trap));
}

function showCard(trap, name) {
  $("card-title").textContent = trap === "none" ? words("rightTitle") : `${words("cardTitle")}: ${name}`;
  const [what, how, find] = words(`cards.${trap}`);
  $("card-text").replaceChildren(...Object.entries({ what, how, find }).flatMap(([key, said]) => [element("dt", words(key)), element("dd", said)]));
  $("card-link").href = `../${LINKS[trap]}`;
  $("card-link").hidden = !pages.includes(LINKS[trap].split("#")[0]);
}

function showNumbers() {
  const entries = result && {
    snr: `${result.snr.toFixed(1)} dB`,
    maxError: result.maxError.toExponential(1),
    msPerChunk: `${result.msPerChunk.toFixed(1)} ms`,
    firstMs: `${(result.firstMs + result.chunk * frameMs()).toFixed(0)} ms`,
    samples: result.samples.toLocaleString(language),
  };
  $("numbers").replaceChildren(...Object.entries(entries ?? {}).map(([name, value]) => element("div", [element("dt", words(name)), element("dd", value)])));
  const measured = entries && `${words("snr")}: ${entries.snr}, ${words("maxError")}: ${entries.maxError}`;
  pictures.label({ waves: words("waves"), difference: words("difference"), errors: words("errors"), measured });
}

function showHead() {
  const sounds = player.context && !player.over;
  const place = sounds ? player.head() : from;
  pictures.head(sounds || from ? place : undefined);
  $("place").value = place;
  const seconds = words("placeText", { seconds: (place / abouts.exact.spec.sample_rate).toFixed(1) });
  if ($("place-value").textContent !== seconds) $("place").ariaValueText = $("place-value").textContent = seconds;
  if (player.context && player.over) finish();
  requestAnimationFrame(showHead);
}

// --- what is loaded -----------------------------------------------------------------------------------------------------

async function about(design) {
  if (abouts[design]) return;
  const found = await ask("about", { design });
  abouts[design] = found.about;
  utterances = found.utterances;
}

/** The full-sequence waveform of the chosen utterance, so that there is something to see before a stream is decoded. */
async function showReference() {
  const utterance = $("utterance").value;
  await ask("reference", { utterance }, ({ reference }) => {
    if (utterance === $("utterance").value) seen(reference);
  });
}

function seen(reference) {
  pictures.clear(reference);
  Object.assign($("place"), { max: reference.length, step: abouts.exact.spec.samples_per_frame });
}

// --- a run --------------------------------------------------------------------------------------------------------------

/** Stream as `wanted` says; with `audible` it sounds while it is decoded. The same for the buttons and for tests. */
async function run(wanted, audible = false) {
  const mine = ++running;
  status("running");
  const { result: measured } = await ask("run", wanted, ({ reference, piece }) => {
    if (mine !== running) return;
    if (reference) seen(reference);
    if (!piece) return;
    pictures.add(piece);
    if (audible) player.push(piece.samples, pictures.reference.subarray(piece.start, piece.start + piece.samples.length));
    if (audible && player.dry) problem(words("dry"));
    line.beat(piece.index);
  });
  if (mine !== running) return measured;
  result = { ...measured, chunk: wanted.chunk ?? 3 };
  showNumbers();
  status("done");
  if (audible && player.context && !player.end()) play();
  return measured;
}

const busy = (on) => {
  for (const id of ["pause", "stop"]) $(id).disabled = !on;
  $("pause").textContent = words("pause");
};

/** Words about a sound that the browser blocks, until it sounds: after a click it may. */
async function soundOn(context) {
  if ((await player.allowed()) || context !== player.context) return;
  problem(words("blocked"));
  $("pause").textContent = words("resume");
  const sounds = () => {
    if (context.state !== "running") return;
    context.onstatechange = null;
    problem("");
    $("pause").textContent = words("pause");
  };
  context.onstatechange = sounds;
  sounds(); // it may have begun while nobody listened
}

async function play() {
  let context;
  problem("");
  try {
    if (!abouts.exact) await about("exact"); // no pause where none is needed: a browser lets a click sound at once
    context = player.start(abouts.exact.spec.sample_rate, from);
    busy(true);
    await soundOn(context);
    await about($("design").value);
    if (context === player.context) await run(settings(), true);
  } catch (error) {
    if (context === player.context) failed(error);
  }
}

/** After a change: the stream anew. Where one sounds, the new one takes its place where it is; with `sound`, one begins. */
function again(sound) {
  if (player.context && !player.over) {
    player.track();
    run(settings(), true).catch(failed);
  } else if (sound) play();
  else if (result) run(settings()).catch(failed);
}

function stop() {
  running++;
  halt();
  player.close();
  busy(false);
  status("stopped");
}

/** All has sounded: the next press sounds at the place where this one began. */
function finish() {
  player.close();
  busy(false);
}

/** Another trap, at once to be heard. */
function lose(wanted, states = []) {
  [trap, lost] = [wanted, states];
  showChoices();
  again(true);
}

/** A step of the guide. */
async function follow({ trap: wanted, ...controls }) {
  const { design, utterance } = controls;
  if (utterance !== $("utterance").value) from = 0;
  for (const [id, value] of Object.entries({ ...controls, cut: "equal" })) $(id).value = value;
  [trap, lost] = [wanted, []];
  showChoices();
  const playing = play();
  await about(design).catch(() => {}); // `play` tells
  showLine();
  showChoices();
  return playing;
}

// --- the controls -------------------------------------------------------------------------------------------------------

for (const button of $("lose").querySelectorAll("button")) button.onclick = () => lose(button.dataset.trap);
$("trap").onchange = () => lose($("trap").value);
for (const id of ["chunk", "seed"]) $(id).oninput = showChoices;
for (const id of ["chunk", "seed", "cut"]) $(id).onchange = () => (showChoices(), again());
$("utterance").onchange = async () => {
  stop();
  from = 0;
  result = undefined;
  showNumbers();
  await showReference().catch(failed);
  showChoices();
};
$("design").onchange = async () => {
  [trap, lost] = ["none", []];
  showChoices();
  await about($("design").value).catch(failed);
  showLine();
  showChoices();
  again();
};
$("controls").onsubmit = (event) => event.preventDefault();
$("play").onclick = play;
$("stop").onclick = stop;
$("pause").onclick = async () => {
  const { context } = player, held = context.state === "running";
  const done = held ? (await context.suspend(), true) : await player.allowed();
  if (context !== player.context) return; // it was stopped meanwhile
  if (done) $("pause").textContent = words(held ? "resume" : "pause");
  else problem(words("blocked"));
};
$("compare").onclick = () => {
  player.listen(!player.toWhole);
  $("compare").ariaPressed = String(player.toWhole);
};
$("place").oninput = () => {
  from = Math.min(Number($("place").value), Math.max(0, pictures.total - abouts.exact.spec.samples_per_frame));
  if (player.context && !player.over) player.seek(from);
};
$("language").onclick = () => {
  toggleLanguage();
  showWords();
};

// --- the beginning ------------------------------------------------------------------------------------------------------

/** Whether WebAssembly has SIMD: a module with one v128 instruction. */
const SIMD = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];

/** The numbers that the texts name, from the graphs. */
function facts({ spec, metadata }, short) {
  const { sliding_window } = metadata.config.decoder_config;
  const convolutions = withStates(parts, { spec }).flatMap(({ layers }) => layers).filter(({ kinds }) => kinds[0]?.startsWith("Conv"));
  return {
    codes: spec.inputs[0].shape.at(-1),
    frameMs: frameMs(),
    samplesPerFrame: spec.samples_per_frame,
    sentences: utterances.length,
    window: sliding_window,
    windowSeconds: Math.round((sliding_window * frameMs()) / 1000),
    convMs: Math.round(Math.max(...convolutions.map(({ ms }) => ms))),
    shortContext: short.spec.settings.conv_history_frames,
    cutSamples: CUT_SAMPLES,
  };
}

async function begin() {
  showWords();
  if (typeof WebAssembly !== "object" || !WebAssembly.validate(new Uint8Array(SIMD))) return problem(words("noSimd"));
  status("loading");
  try {
    pages = await json("pages.json");
    parts = await json("graphs/layers.json");
    await about("exact");
    know(facts(abouts.exact, await json("graphs/short.json")));
    showUtterances();
    $("utterance").value = GUIDE[0].utterance;
    showWords();
    await showReference();
  } catch (error) {
    return failed(error);
  }
  status("ready");
  showHead();
}

// The first visit's files are asked for before the service worker is there to keep them: it is waited for.
const keeping = navigator.serviceWorker?.register("sw.js").then(() => navigator.serviceWorker.ready).catch(() => {});
const ready = Promise.race([keeping, new Promise((resolve) => setTimeout(resolve, 2000))]).then(begin);
window.codecLab = { run: async (wanted) => (await ready, problem(""), run(wanted)), player, pictures, line, ready };
