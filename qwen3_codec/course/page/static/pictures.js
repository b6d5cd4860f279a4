/** The pictures: both waveforms with the chunks' borders, their difference, the error of each chunk, the play head. */

const $ = (id) => document.getElementById(id);
const FLOOR = 1e-8; // of the errors' log scale
export const LIMIT = 5e-5; // an error above it is none of float32's rounding
const PICTURES = ["waves", "difference", "errors"];

const probe = document.body.appendChild(document.createElement("span"));
probe.hidden = true;
/** A colour of the style sheet as a canvas takes it: one of the two that light-dark() has. */
function colour(name) {
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

function plane(id) {
  const canvas = $(id), ratio = window.devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * ratio;
  canvas.height = canvas.clientHeight * ratio;
  return canvas.getContext("2d");
}

/** Largest and smallest of the first `length` samples of `data` in each column; all of them are `total`. */
function envelope(context, data, length, total, fill) {
  const { width, height } = context.canvas;
  context.fillStyle = fill;
  for (let x = 0; x < width; x++) {
    const end = Math.min(length, ((x + 1) / width) * total);
    let low = 0, high = 0;
    for (let i = Math.floor((x / width) * total); i < end; i++) {
      if (data[i] < low) low = data[i];
      else if (data[i] > high) high = data[i];
    }
    if (high > low) context.fillRect(x, ((1 - high) * height) / 2, 1, Math.max(1, ((high - low) * height) / 2));
  }
}

export class Pictures {
  reference = new Float32Array(0);
  borders = []; // the samples at which chunks begin

  constructor() {
    this.clear();
    addEventListener("resize", () => this.draw());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  get total() {
    return this.reference.length || 1;
  }

  /** The full-sequence waveform; what was streamed is forgotten. */
  clear(reference = this.reference) {
    Object.assign(this, { reference, streamed: new Float32Array(reference.length), length: 0, chunks: [] });
    this.redraw();
  }

  /** A piece of the stream. */
  add({ start, samples }) {
    const kept = samples.subarray(0, Math.max(0, this.reference.length - start));
    this.streamed.set(kept, start);
    this.length = start + kept.length;
    const error = kept.reduce((most, sample, i) => Math.max(most, Math.abs(sample - this.reference[start + i])), 0);
    this.chunks.push({ start, length: samples.length, error });
    this.redraw();
  }

  /** The borders of the chunk schedule: {frames} of each call. */
  cut(schedule, samplesPerFrame) {
    let start = 0;
    this.borders = schedule.slice(0, -1).map((frames) => (start += frames * samplesPerFrame));
    this.redraw();
  }

  /** Draws once a frame: what waits for a picture of each piece comes late to the sound. */
  redraw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = undefined;
      this.draw();
    });
  }

  draw() {
    const { reference, streamed, length, chunks, total } = this;
    const waves = plane("waves");
    envelope(waves, reference, reference.length, total, colour("--line"));
    waves.globalAlpha = 0.75;
    envelope(waves, streamed, length, total, colour("--accent"));
    waves.globalAlpha = 1;
    this.drawBorders(waves);
    const difference = plane("difference");
    envelope(difference, streamed.map((sample, i) => sample - reference[i]), length, total, colour("--bad"));
    this.drawBorders(difference);
    const errors = plane("errors"), { width, height } = errors.canvas;
    for (const { start, length: samples, error } of chunks) {
      const part = Math.min(1, Math.max(0, Math.log10(Math.max(error, FLOOR) / FLOOR) / -Math.log10(FLOOR)));
      errors.fillStyle = colour(error > LIMIT ? "--bad" : "--accent");
      errors.fillRect((start / total) * width, height * (1 - part) - 1, Math.max(1, (samples / total) * width - 1), height * part + 1);
    }
  }

  drawBorders(context) {
    const { width, height } = context.canvas, ratio = window.devicePixelRatio || 1;
    context.strokeStyle = colour("--text");
    context.globalAlpha = 0.55;
    context.setLineDash([4 * ratio, 3 * ratio]);
    context.lineWidth = ratio;
    context.beginPath();
    for (const border of this.borders) {
      const x = Math.round((border / this.total) * width) + 0.5;
      context.moveTo(x, 0);
      context.lineTo(x, height);
    }
    context.stroke();
    context.globalAlpha = 1;
  }

  /** The play head at a sample; nowhere without one. */
  head(sample) {
    $("head").hidden = sample === undefined;
    if (sample !== undefined) $("head").style.left = `${(100 * sample) / this.total}%`;
  }

  /** What a reader who does not see them is told. */
  label(words) {
    for (const id of PICTURES) $(id).setAttribute("aria-label", `${words[id]}. ${words.measured ?? ""}`.trim());
  }
}
