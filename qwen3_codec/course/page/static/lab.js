/** One stream under chosen settings, beside the full-sequence decode: what the worker runs. No page is needed for it. */

import { CodecSession } from "./codec.js";

const zeros = (ort, tensor) => new ort.Tensor(tensor.type, new tensor.data.constructor(tensor.data.length), tensor.dims);
/** The state with zeros in place of the tensors whose name is `hit`. */
const losing = (ort, state, hit) =>
  Object.fromEntries(Object.entries(state).map(([name, tensor]) => [name, hit(name) ? zeros(ort, tensor) : tensor]));
const begins = (...starts) => (name) => starts.some((start) => name.startsWith(start));

/** Samples that the trap `samples` takes off the front of each chunk but the first. */
export const CUT_SAMPLES = 40;

/** What each trap does to a stream: `designs` where it means something, `lost` the states it touches, by name. */
export const TRAPS = {
  none: { designs: ["exact", "windowed", "one-shot"], lost: () => false },
  all: { designs: ["exact", "windowed"], lost: () => true },
  conv: { designs: ["exact", "windowed"], lost: begins("conv_", "pre_conv_h") },
  attention: { designs: ["exact", "windowed"], lost: begins("past_", "key_", "value_") },
  layer: { designs: ["exact", "windowed"], lost: (name, layer) => layer.includes(name) },
  other: { designs: ["exact"], lost: () => true, other: true },
  positions: { designs: ["windowed"], lost: () => false, graph: "saturating" },
  context: { designs: ["windowed"], lost: () => false, graph: "short" },
  samples: { designs: ["exact", "windowed"], lost: () => false, cut: CUT_SAMPLES },
};

/** Lengths of the calls: equal ones, or random ones of a seed (the generator of Park and Miller). */
export function schedule(frames, chunk, seed) {
  const lengths = [];
  for (let left = frames, value = (seed ?? 0) + 1; left > 0; ) {
    value = (16807 * value) % 2147483647;
    const length = Math.min(left, seed === undefined ? chunk : 1 + (value % chunk));
    lengths.push(length);
    left -= length;
  }
  return lengths;
}

/** Signal to noise in dB and the largest difference, over the samples that both have. */
export function compare(reference, found) {
  let signal = 0, noise = 0, largest = 0;
  for (let i = 0; i < reference.length; i++) {
    const apart = (found[i] ?? 0) - reference[i];
    signal += reference[i] ** 2;
    noise += apart ** 2;
    largest = Math.max(largest, Math.abs(apart));
  }
  return { snr: Math.min(200, 10 * Math.log10(signal / noise)), maxError: largest };
}

export class Lab {
  /** `load(name)` gives {graph, about} of a graph by its name. */
  constructor(ort, utterances, load) {
    this.ort = ort;
    this.utterances = utterances;
    this.load = load;
    this.sessions = new Map();
    this.references = new Map();
  }

  async session(name) {
    if (!this.sessions.has(name)) {
      const { graph, about } = await this.load(name);
      const told = (error) => Promise.reject(new Error(`graphs/${name}.onnx: ${error.message ?? error}`));
      this.sessions.set(name, await CodecSession.load(this.ort, graph, about).catch(told));
    }
    return this.sessions.get(name);
  }

  codes(name) {
    const found = this.utterances.find((entry) => entry.name === name);
    if (!found) throw new Error(`no utterance ${name}`);
    return found.codes;
  }

  /** The full-sequence waveform of an utterance. */
  async reference(name) {
    if (!this.references.has(name)) {
      const session = await this.session("one-shot");
      this.references.set(name, await session.stream().push(this.codes(name), true));
    }
    return this.references.get(name);
  }

  /**
   * Stream an utterance; `onPiece({index, frames, start, samples, ms, state})` after each call, `stopped()` ends it.
   * Gives {snr, maxError, samples, msPerChunk, firstMs, frames}.
   */
  async run({ utterance, design = "exact", chunk = 3, seed, trap = "none", layer = [] }, onPiece = () => {}, stopped = () => false) {
    const what = TRAPS[trap];
    if (!what?.designs.includes(design)) throw new Error(`the ${design} design has no trap ${trap}`);
    const session = await this.session(what.graph ?? design);
    const codes = this.codes(utterance);
    const reference = await this.reference(utterance);
    const lengths = schedule(codes.length, chunk, seed);
    const stream = session.stream();
    const other = what.other ? session.stream() : null;
    const pieces = [], times = [];
    const lost = (name) => what.lost(name, layer);
    for (let index = 0, start = 0, sample = 0; index < lengths.length && !stopped(); start += lengths[index++]) {
      const part = codes.slice(start, start + lengths[index]);
      const began = performance.now();
      // A graph without a state decodes each chunk as if the stream began there.
      if (design === "one-shot") await stream.reset();
      let samples = await stream.push(part, design !== "one-shot" && index === lengths.length - 1);
      times.push(performance.now() - began);
      if (what.cut && index) samples = samples.slice(what.cut);
      stream.state = losing(this.ort, stream.state, lost);
      if (other) {
        await other.push(part.map((frame) => frame.map((code) => session.codebookSize - 1 - code)));
        stream.state = { ...other.state };
      }
      pieces.push(...samples);
      await onPiece({ index, frames: lengths[index], start: sample, samples, ms: times.at(-1), state: stream.state });
      sample += samples.length;
    }
    const sorted = [...times].sort((a, b) => a - b);
    return {
      ...compare(reference, pieces),
      samples: pieces.length,
      msPerChunk: sorted[Math.floor(sorted.length / 2)],
      firstMs: times[0],
      frames: codes.length,
    };
  }
}
