/** The page: controls, sound, pictures and words around the worker that decodes. */

import { json } from "./files.js";
import { TRAPS, groups } from "./lab.js";
import { Player } from "./player.js";
import en from "./texts/en.js";
import zh from "./texts/zh.js";

const $ = (id) => document.getElementById(id);
const TEXTS = { en, zh };
const DESIGNS = ["exact", "windowed", "one-shot"];
const GUIDE = [
  { utterance: "en_small", design: "exact", chunk: 3, trap: "none" },
  { utterance: "en_small", design: "exact", chunk: 3, trap: "all" },
  { utterance: "en_passage", design: "windowed", chunk: 6, trap: "positions" },
];
// Where the notebooks speak of it; `pages.json` says which of them are here as pages.
const LOST = "00_hear_it.html#2.-One-trap-is-on";
const SECTIONS = {
  none: "00_hear_it.html#1.-A-right-stream-shows-nothing",
  all: LOST,
  conv: LOST,
  attention: LOST,
  layer: LOST,
  other: "05_exact_streaming.html#5.-Streams-of-different-ages-share-a-call",
  positions: "00_hear_it.html#3.-This-trap-waits",
  history: "07_trap_catalogue.html#6.-A-state-is-wrong-although-every-shape-is-right",
  samples: "07_trap_catalogue.html#Samples-cut-in-proportion",
};
const FLOOR = 1e-8;

const remembered = { get: () => { try { return localStorage.getItem("language"); } catch { return null; } }, set: (value) => { try { localStorage.setItem("language", value); } catch { /* private mode */ } } };
let language = remembered.get() ?? ((navigator.language ?? "en").startsWith("zh") ? "zh" : "en");
const text = () => TEXTS[language];

// --- the worker ---------------------------------------------------------------------------------------------------

let worker, calls = 0;
const waiting = new Map();
function employ() {
  worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  worker.onmessage = ({ data }) => waiting.get(data.id)?.(data);
  worker.onerror = async (event) => {
    worker = undefined; // the next call tries again
    const error = event.message || (await wrongModule().catch(() => {})) || "worker.js"; // of loading.js
    for (const [id, answer] of waiting) answer({ id, error });
  };
}

/** A call of the worker; `onMessage` hears of pieces and of the reference before the promise is kept. */
function ask(call, settings, onMessage = () => {}) {
  const id = ++calls;
  return new Promise((resolve, reject) => {
    waiting.set(id, (data) => {
      if (data.piece || data.reference) return onMessage(data);
      waiting.delete(id);
      if (data.error) reject(new Error(data.error));
      else resolve(data);
    });
    if (!worker) employ();
    worker.postMessage({ id, call, settings });
  });
}

// --- sound ----------------------------------------------------------------------------------------------------------

const player = new Player();

// --- pictures -------------------------------------------------------------------------------------------------------

function plane(id) {
  const canvas = $(id), ratio = window.devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * ratio;
  canvas.height = Number(canvas.getAttribute("height")) && canvas.clientHeight * ratio;
  return canvas.getContext("2d");
}
const probe = document.body.appendChild(document.createElement("span"));
probe.hidden = true;
/** A colour of the style sheet as a canvas takes it: one of the two that light-dark() has. */
function colour(name) {
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

/** Largest and smallest sample of each column. */
function envelope(context, data, total, scale, fill) {
  const { width, height } = context.canvas;
  context.fillStyle = fill;
  for (let x = 0; x < width; x++) {
    let low = 0, high = 0;
    for (let i = Math.floor((x / width) * total); i < Math.min(data.length, ((x + 1) / width) * total); i++) {
      low = Math.min(low, data[i]);
      high = Math.max(high, data[i]);
    }
    const top = height / 2 - (high * scale * height) / 2;
    if (high > low) context.fillRect(x, top, 1, Math.max(1, ((high - low) * scale * height) / 2));
  }
}

const shown = { reference: new Float32Array(0), streamed: [], chunks: [] };
function draw() {
  const { reference, streamed, chunks } = shown, total = reference.length || 1;
  const waves = plane("waves");
  envelope(waves, reference, total, 1, colour("--line"));
  waves.globalAlpha = 0.75;
  envelope(waves, streamed, total, 1, colour("--accent"));
  envelope(plane("difference"), streamed.map((sample, i) => sample - (reference[i] ?? 0)), total, 1, colour("--bad"));
  const errors = plane("errors"), { width, height } = errors.canvas;
  for (const { start, length, error } of chunks) {
    const part = Math.min(1, Math.max(0, Math.log10(Math.max(error, FLOOR) / FLOOR) / -Math.log10(FLOOR)));
    errors.fillStyle = colour(error > 5e-5 ? "--bad" : "--accent");
    errors.fillRect((start / total) * width, height * (1 - part) - 1, Math.max(1, (length / total) * width - 1), height * part + 1);
  }
}

/** Draws once a frame: what waits for a picture of each piece comes late to the sound. */
let frame;
const redraw = () => (frame ??= requestAnimationFrame(() => {
  frame = undefined;
  draw();
}));

function showNumbers(result) {
  const words = text();
  const entries = {
    snr: `${result.snr.toFixed(1)} dB`,
    maxError: result.maxError.toExponential(1),
    msPerChunk: `${result.msPerChunk.toFixed(1)} ms`,
    firstMs: `${(result.firstMs + result.chunk * 80).toFixed(0)} ms`,
    samples: result.samples.toLocaleString(language),
  };
  $("numbers").replaceChildren(...Object.entries(entries).map(([name, value]) => element("div", [element("dt", words[name]), element("dd", value)])));
  for (const id of ["waves", "difference", "errors"]) $(id).setAttribute("aria-label", `${words[id]}. ${words.snr}: ${entries.snr}, ${words.maxError}: ${entries.maxError}`);
}

function element(tag, content, attributes = {}) {
  const made = document.createElement(tag);
  made.append(...[content].flat());
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

// --- words and controls ------------------------------------------------------------------------------------------------

let abouts = {}, utterances = [], pages = [], chosen = [], result = null, running = 0;
const status = (words) => ($("status").textContent = words);
const problem = (words) => ($("problem").textContent = words);
const settings = () => ({
  utterance: $("utterance").value,
  design: $("design").value,
  chunk: Number($("chunk").value),
  seed: $("cut").value === "random" ? Number($("seed").value) : undefined,
  trap: $("trap").value,
  layer: chosen,
});

function fill(id, entries) {
  const kept = $(id).value;
  $(id).replaceChildren(...entries.map(([value, label]) => element("option", label, { value })));
  if (entries.some(([value]) => value === kept)) $(id).value = kept;
}

function showStates() {
  const about = abouts[$("design").value], trap = TRAPS[$("trap").value];
  const lost = (names) => names.some((name) => trap.lost(name, chosen));
  $("states").replaceChildren(
    ...(about ? groups(about) : []).map(({ label, names }) => {
      const gone = lost(names);
      const button = element("button", label, { type: "button", "aria-pressed": chosen.includes(names[0]), "data-lost": gone, "data-carried": !gone });
      button.onclick = () => {
        chosen = names;
        $("trap").value = "layer";
        changed();
        $("states").querySelector('[aria-pressed="true"]')?.focus();
      };
      return button;
    }),
  );
}

function showWords() {
  const words = text();
  document.documentElement.lang = language === "zh" ? "zh-Hans" : "en";
  for (const node of document.querySelectorAll("[data-text]")) node.textContent = words[node.dataset.text];
  for (const { id } of document.querySelectorAll("canvas")) $(id).setAttribute("aria-label", words[id]);
  $("language").lang = language === "zh" ? "en" : "zh-Hans";
  fill("utterance", utterances.map(({ name, text: said, frames }) => [name, `${said.slice(0, 40)}${said.length > 40 ? " …" : ""} (${(frames * 0.08).toFixed(1)} s)`]));
  fill("design", DESIGNS.map((name) => [name, words.designs[name]]));
  fill("cut", Object.entries(words.cuts));
  $("guide").replaceChildren(...GUIDE.map((step, index) => {
    const button = element("button", words.guide[index], { type: "button" });
    button.onclick = () => {
      const { trap, ...others } = step;
      for (const [id, value] of Object.entries({ ...others, cut: "equal" })) $(id).value = value;
      changed(); // offers the traps of the design
      $("trap").value = trap;
      changed();
      play();
    };
    return element("li", button);
  }));
  changed();
  if (result) showNumbers(result);
}

function changed() {
  const words = text(), design = $("design").value;
  fill("trap", Object.keys(TRAPS).filter((name) => TRAPS[name].designs.includes(design)).map((name) => [name, words.trapNames[name]]));
  if ($("trap").value !== "layer") chosen = [];
  $("chunk-value").textContent = $("chunk").value;
  $("seed").disabled = $("cut").value !== "random";
  const [what, how, find] = words.cards[$("trap").value];
  const trap = $("trap").value;
  $("card-title").textContent = trap === "none" ? words.rightTitle : `${words.cardTitle}: ${words.trapNames[trap]}`;
  $("card-text").replaceChildren(...[["what", what], ["how", how], ["find", find]].flatMap(([key, said]) => [element("dt", words[key]), element("dd", said)]));
  const section = SECTIONS[trap];
  $("card-link").href = `walkthrough/${section}`;
  $("card-link").hidden = !pages.includes(section.split("#")[0]);
  showStates();
}

// --- a run ------------------------------------------------------------------------------------------------------------

/** Stream as `wanted` says; with `audible` it sounds while it is decoded. The same for the buttons and for tests. */
async function run(wanted, audible = false) {
  const mine = ++running;
  status(text().running);
  Object.assign(shown, { reference: new Float32Array(0), streamed: [], chunks: [] });
  const { result: measured } = await ask("run", wanted, ({ reference, piece }) => {
    if (mine !== running) return;
    if (reference) shown.reference = reference;
    if (!piece) return;
    const { samples, start } = piece, whole = shown.reference.slice(start, start + samples.length);
    shown.chunks.push({ start, length: samples.length, error: samples.reduce((most, sample, i) => Math.max(most, Math.abs(sample - (whole[i] ?? 0))), 0) });
    for (const sample of samples) shown.streamed.push(sample);
    if (audible) player.push(samples, whole);
    if (audible && player.dry) problem(text().dry);
    $("states").dataset.beat = piece.index % 2; // the states light up with each call
    redraw();
  });
  if (mine !== running) return measured;
  result = { ...measured, chunk: wanted.chunk ?? 3 };
  showNumbers(result);
  draw();
  status(text().done);
  return measured;
}

const busy = (on) => {
  for (const id of ["pause", "stop"]) $(id).disabled = !on;
  $("pause").textContent = text().pause;
};

/** Words about a sound that the browser holds back, until it sounds: after a click it may. */
async function soundOn(context) {
  if ((await player.allowed()) || context !== player.context) return;
  problem(text().blocked);
  $("pause").textContent = text().resume;
  const sounds = () => {
    if (context.state !== "running") return;
    context.onstatechange = null;
    problem("");
    $("pause").textContent = text().pause;
  };
  context.onstatechange = sounds;
  sounds(); // it may have begun while nobody listened
}

async function play() {
  let context;
  problem("");
  try {
    if (!abouts.exact) await about("exact"); // no pause where none is needed: a browser lets a click sound at once
    context = player.start(abouts.exact.spec.sample_rate);
    busy(true);
    await soundOn(context);
    await about($("design").value);
    showStates();
    if (context === player.context) await run(settings(), true);
  } catch (error) {
    if (context === player.context) problem(text().failed + error.message);
  }
}

function stop() {
  running++;
  worker?.postMessage({ call: "stop" });
  player.close();
  busy(false);
  status(text().stopped);
}

async function about(design) {
  if (abouts[design]) return;
  const found = await ask("about", { design });
  abouts[design] = found.about;
  utterances = found.utterances;
}

/** Whether WebAssembly has SIMD: a module with one v128 instruction. */
const SIMD = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];

async function begin() {
  showWords();
  if (typeof WebAssembly !== "object" || !WebAssembly.validate(new Uint8Array(SIMD))) return problem(text().noSimd);
  status(text().loading);
  try {
    pages = await json("pages.json");
    await about("exact");
  } catch (error) {
    return problem(text().failed + error.message);
  }
  showWords();
  $("utterance").value = GUIDE[0].utterance;
  status(text().ready);
}

for (const id of ["utterance", "trap", "cut", "chunk", "seed"]) for (const event of ["input", "change"]) $(id).addEventListener(event, changed);
$("design").addEventListener("change", async () => {
  chosen = [];
  changed();
  await about($("design").value).then(showStates, (error) => problem(text().failed + error.message));
});
$("controls").addEventListener("submit", (event) => event.preventDefault());
$("play").onclick = play;
$("stop").onclick = stop;
$("pause").onclick = async () => {
  const held = player.context.state === "running";
  if (held) await player.context.suspend();
  else if (!(await player.allowed())) return problem(text().blocked);
  $("pause").textContent = held ? text().resume : text().pause;
};
$("compare").onclick = () => {
  player.listen(!player.toWhole);
  $("compare").setAttribute("aria-pressed", player.toWhole);
};
$("language").onclick = () => {
  language = language === "zh" ? "en" : "zh";
  remembered.set(language);
  showWords();
};
addEventListener("resize", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

// The first visit's files are asked for before the service worker is there to keep them: it is waited for.
const keeping = navigator.serviceWorker?.register("sw.js").then(() => navigator.serviceWorker.ready).catch(() => {});
const ready = Promise.race([keeping, new Promise((resolve) => setTimeout(resolve, 2000))]).then(begin);
window.codecLab = { run: async (wanted) => (await ready, problem(""), run(wanted)), player, ready };
