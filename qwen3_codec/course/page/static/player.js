/**
 * Plays pieces as they are decoded, one behind the other to the sample, and lets the ear switch without a gap.
 *
 * A position is a sample of the utterance, and every sound lies on the same positions of the same clock: the stream, the
 * full-sequence waveform beside it, and the stream that is decoded anew when something was changed (a `track` each).
 * Two sounds change places in a short crossfade that begins at a sample; where they are equal nothing is heard of it.
 * The clock counts samples too: `began` is where the utterance's sample 0 lies on it.
 */

/** Seconds by which the sound follows its first piece; after each gap twice as many, so that a slow device has few. */
const LEAD = 0.1;
/** A piece that is due sooner is late: the clock goes on while it is handed over, and a time in the past overlaps. */
const MARGIN = 0.02;
/** Seconds of a crossfade. */
export const FADE = 0.005;
/** Seconds that a browser has to turn the sound on. Where it waits for a click, `resume()` is never answered. */
const PATIENCE = 1;

/** From silence to full (`to` 1) or back (0). */
function fade(gain, to, time) {
  gain.cancelScheduledValues(time);
  gain.setValueAtTime(1 - to, time);
  gain.linearRampToValueAtTime(to, time + FADE);
}

export class Player {
  toWhole = false;

  /** A new clock of `rate` samples a second, that begins at sample `from`. The old one's sound ends. */
  start(rate, from = 0, context = new AudioContext({ sampleRate: rate })) {
    this.close();
    // Else an iPhone whose switch is on silent plays nothing.
    if (navigator.audioSession) navigator.audioSession.type = "playback";
    Object.assign(this, { context, rate, from, began: undefined, lead: LEAD, dry: false, log: [], playing: undefined });
    [this.stream, this.whole] = [!this.toWhole, this.toWhole].map((heard) => {
      const gain = context.createGain();
      gain.gain.value = Number(heard);
      gain.connect(context.destination);
      return gain;
    });
    this.track();
    return context;
  }

  /** Whether the browser lets it sound. */
  async allowed() {
    const { context } = this;
    await Promise.race([context.resume(), new Promise((resolve) => setTimeout(resolve, 1000 * PATIENCE))]).catch(() => {});
    return context.state === "running";
  }

  /** A/B: the full-sequence waveform in place of the stream, from `time` on. */
  listen(toWhole, time = this.context?.currentTime) {
    if (toWhole === this.toWhole) return;
    this.toWhole = toWhole;
    if (!this.context) return;
    fade(this.stream.gain, toWhole ? 0 : 1, time);
    fade(this.whole.gain, toWhole ? 1 : 0, time);
  }

  /** A stream from sample 0 on: what is pushed next. What sounds now goes on until it has come as far. */
  track() {
    const gains = [this.stream, this.whole].map((to) => {
      const gain = this.context.createGain();
      gain.connect(to);
      return gain;
    });
    this.next = { gains, pieces: [], sources: [], length: 0, whole: false };
  }

  /** The next samples of the newest stream, and of the full-sequence waveform there. */
  push(samples, reference) {
    if (!samples.length || !this.context) return;
    const track = this.next, piece = { at: track.length, sounds: [samples, reference] };
    track.pieces.push(piece);
    track.length += samples.length;
    const { now } = this, margin = MARGIN * this.rate;
    const heldAt = this.playing ? this.playing.length : this.from; // here what sounds comes to its end
    let join = piece.at;
    if (track !== this.playing) {
      const head = this.began === undefined ? heldAt : Math.ceil(now + margin - this.began);
      join = Math.max(piece.at, Math.min(head, heldAt));
      if (track.length <= join) return; // has not come as far as what sounds
    }
    if (this.began === undefined || this.began + join < now + margin) {
      if (this.began !== undefined) {
        this.dry = true;
        this.lead *= 2;
      }
      this.began = now + Math.ceil(this.lead * this.rate) - join;
    }
    const time = this.time(join);
    if (track !== this.playing) this.swap(track, time);
    this.schedule(track, piece, join);
    this.log.push({ at: join, length: track.length - join, time, now: now / this.rate });
  }

  /** The clock's sample. */
  get now() {
    return Math.round(this.context.currentTime * this.rate);
  }

  /** The clock's second at which a position sounds. */
  time(position) {
    return (this.began + position) / this.rate;
  }

  /** No more will be pushed to the newest stream. Gives whether it sounds: else the old one ended before it came as far. */
  end() {
    this.next.whole = true;
    return this.next === this.playing;
  }

  swap(track, time) {
    const old = this.playing;
    this.playing = track;
    if (!old) return;
    for (const { gain } of track.gains) {
      gain.value = 0;
      fade(gain, 1, time);
    }
    for (const { gain } of old.gains) fade(gain, 0, time);
    for (const source of old.sources) source.stop(time + FADE);
  }

  schedule(track, { at, sounds }, from) {
    const skipped = Math.max(0, from - at);
    sounds.forEach((data, i) => {
      if (data.length <= skipped) return;
      const buffer = this.context.createBuffer(1, data.length - skipped, this.rate);
      buffer.copyToChannel(data.subarray(skipped), 0);
      const source = new AudioBufferSourceNode(this.context, { buffer });
      source.connect(track.gains[i]);
      source.start(this.time(at + skipped));
      track.sources.push(source);
    });
  }

  /** The sample that sounds now. */
  head() {
    if (!this.context || this.began === undefined) return this.from ?? 0;
    return Math.max(0, Math.min(this.playing.length, this.now - this.began));
  }

  /** Go on from sample `from`, as far as it is decoded. */
  seek(from) {
    const { playing: track } = this;
    if (!track || this.began === undefined) return void (this.from = from);
    for (const source of track.sources) source.stop();
    track.sources = [];
    const place = Math.min(from, track.length);
    this.began = this.now + Math.ceil(MARGIN * this.rate) - place;
    for (const piece of track.pieces) if (piece.at + piece.sounds[0].length > place) this.schedule(track, piece, place);
  }

  /** All of it was decoded and has sounded. */
  get over() {
    return !this.context || (this.playing === this.next && this.next.whole && this.head() >= this.playing.length);
  }

  close() {
    this.context?.close?.();
    this.context = undefined;
  }
}
