/**
 * A client for the codec's ONNX graphs, in a browser and in Node: audio from codes, chunk by chunk.
 *
 *     import * as ort from "onnxruntime-web";
 *     import { CodecSession } from "./codec.js";
 *
 *     const about = await (await fetch("decoder.json")).json();      // `describe decoder.onnx --json`
 *     const session = await CodecSession.load(ort, "decoder.onnx", about);
 *     const stream = session.stream();
 *     for (const codes of chunks) {                                  // frames of Q integers each
 *       play(await stream.push(codes));                              // Float32Array, `session.sampleRate` a second
 *     }
 *     play(await stream.finish());                                   // what a windowed graph still buffers
 *
 * ONNX Runtime Web does not show a file's metadata. All that this client knows of a graph is in `about`.
 */

const ARRAYS = { float32: Float32Array, int64: BigInt64Array };

// The run before, of any session. All sessions share one WebAssembly memory, and two runs at once corrupt it ("memory
// access out of bounds"). Such runs would be no faster: there is one thread.
let running = Promise.resolve();

/** Codes, or a graph and its description, that do not fit; the message names the value and its place. */
export class CodecError extends Error {}

/** One loaded graph. Streams share it; it keeps no state. */
export class CodecSession {
  /** `ort` is ONNX Runtime (Web or Node), `model` an address or the file's bytes, `about` its description. */
  static async load(ort, model, about, options = { executionProviders: ["wasm"] }) {
    return new CodecSession(ort, await ort.InferenceSession.create(model, options), about);
  }

  constructor(ort, inference, about) {
    this.ort = ort;
    this.inference = inference;
    this.about = about;
    const { spec } = about;
    this.sampleRate = spec.sample_rate;
    this.samplesPerFrame = spec.samples_per_frame;
    this.codebookSize = spec.codebook_size;
    this.numQuantizers = spec.inputs[0].shape.at(-1);
    this.waveform = spec.outputs[0].name;
    this.same("inputs", inference.inputNames, [...spec.inputs, ...spec.states.map(([before]) => before)]);
    this.same("outputs", inference.outputNames, [...spec.outputs, ...spec.states.map(([, after]) => after)]);
  }

  same(role, found, declared) {
    const names = declared.map(({ name }) => name);
    const odd = names.filter((name) => !found.includes(name)).concat(found.filter((name) => !names.includes(name)));
    if (odd.length) throw new CodecError(`the graph's ${role} are not those of its description: ${odd.join(", ")}`);
  }

  /** A new stream of one row. */
  stream() {
    return new CodecStream(this);
  }

  /** The state of a stream that has decoded nothing, {name: tensor}. */
  zeroState() {
    const feeds = this.about.first_call.feeds;
    return Object.fromEntries(this.about.spec.states.map(([{ name }]) => [name, this.filled(feeds[name])]));
  }

  filled({ dtype, shape }) {
    const length = shape.reduce((product, axis) => product * axis, 1);
    return new this.ort.Tensor(dtype, new ARRAYS[dtype](length), shape);
  }

  /** One call, {name: tensor} in and out. */
  async run(feeds) {
    for (const { name, dtype, shape } of this.about.spec.inputs.concat(this.about.spec.states.map(([before]) => before))) {
      const tensor = feeds[name];
      if (!tensor) throw new CodecError(`${name} is missing`);
      if (tensor.type !== dtype) throw new CodecError(`${name} is ${tensor.type}, must be ${dtype}`);
      const wrong = tensor.dims.length !== shape.length || shape.some((n, i) => typeof n === "number" && tensor.dims[i] !== n);
      if (wrong) throw new CodecError(`${name} has the shape [${tensor.dims}], must be [${shape}]`);
    }
    const outputs = running.then(() => this.inference.run(feeds));
    running = outputs.catch(() => {}); // the caller has the error
    return outputs;
  }

  /** Frames [[Q codes], ...] as the tensor [1, N, Q]; a CodecError names the first value that is wrong. */
  codes(frames) {
    if (!frames.length) throw new CodecError("a chunk has at least one frame");
    const values = new BigInt64Array(frames.length * this.numQuantizers);
    frames.forEach((frame, n) => {
      if (frame.length !== this.numQuantizers) {
        throw new CodecError(`frame ${n} has ${frame.length} codes, must have ${this.numQuantizers}`);
      }
      frame.forEach((code, q) => {
        if (!Number.isInteger(code) || code < 0 || code >= this.codebookSize) {
          throw new CodecError(`code ${code} at frame ${n}, codebook ${q} is outside 0..${this.codebookSize - 1}`);
        }
        values[n * this.numQuantizers + q] = BigInt(code);
      });
    });
    return new this.ort.Tensor("int64", values, [1, frames.length, this.numQuantizers]);
  }
}

/**
 * One stream: the state that goes from call to call. A call that fails leaves it as it was.
 *
 * `push`, `finish` and `reset` that are not awaited take their turns, in the order in which they were called. They are
 * queued and not refused, because the handler of a message or an event cannot make the next one wait: a refused chunk
 * would be missing from the audio. `waiting` counts the calls without an answer; it grows where codes come faster than
 * this device decodes them.
 */
export class CodecStream {
  constructor(session) {
    this.session = session;
    this.waiting = 0;
    this.turn = Promise.resolve();
    this.start();
  }

  start() {
    this.state = this.session.zeroState();
    this.frames = 0;
    this.finished = false;
    this.pending = new Float32Array(0);
  }

  /** Calls `action` when all calls before it are over, also those that failed. */
  inTurn(action) {
    this.waiting += 1;
    const answer = this.turn.then(action).finally(() => (this.waiting -= 1));
    this.turn = answer.catch(() => {}); // the caller has the error: `async` methods give a promise of their own
    return answer;
  }

  /** Back to the start: nothing decoded, nothing buffered. */
  async reset() {
    return this.inTurn(() => this.start());
  }

  /** An independent copy, after the calls that are waiting. Tensors are never written in place, so both may go on. */
  fork() {
    const other = new CodecStream(this.session);
    const copy = () => {
      const { state, frames, finished, pending } = this;
      Object.assign(other, { state: { ...state }, frames, finished, pending });
    };
    if (!this.waiting) copy();
    else {
      other.turn = this.turn;
      other.inTurn(copy);
    }
    return other;
  }

  /** Decode frames and give the samples that are final with them. `last`: no more will come, nothing stays buffered. */
  async push(frames, last = false) {
    const { ort, about, waveform } = this.session;
    // Taken now: the caller may fill the same array anew while this call waits.
    const codes = this.session.codes(frames);
    const inputs = { audio_codes: codes, is_last: new ort.Tensor("float32", [last ? 1 : 0], [1]) };
    const feeds = Object.fromEntries(about.spec.inputs.map(({ name }) => [name, inputs[name]]));
    return this.inTurn(async () => {
      if (this.finished) throw new CodecError("the stream is finished; reset() starts a new one");
      const outputs = await this.session.run({ ...feeds, ...this.state });
      const samples = outputs[waveform].data;
      const valid = outputs.valid_samples ? Number(outputs.valid_samples.data[0]) : samples.length;
      const state = Object.fromEntries(about.spec.states.map(([before, after]) => [before.name, outputs[after.name]]));
      Object.assign(this, { state, frames: this.frames + codes.dims[1], finished: last, pending: samples.slice(valid) });
      return samples.slice(0, valid);
    });
  }

  /** End the stream, and give what was buffered: the graph had decoded it already. A stream that has ended gives none. */
  async finish() {
    return this.inTurn(() => {
      const rest = this.pending;
      Object.assign(this, { pending: new Float32Array(0), finished: true });
      return rest;
    });
  }
}
