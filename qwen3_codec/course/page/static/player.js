/** Plays pieces one behind the other, to the sample; both the stream and the one-shot sound, one of them muted. */

/** Seconds by which the sound follows its first piece; after each gap twice as many, so that a slow device has few. */
const LEAD = 0.1;
/** A piece that is due sooner is late: the clock goes on while it is handed over, and a time in the past overlaps. */
const MARGIN = 0.02;
/** Seconds that a browser has to turn the sound on. Where it waits for a click, `resume()` is never answered. */
const PATIENCE = 1;

export class Player {
  /** A new context of `rate` samples a second. The old one's sound ends. */
  start(rate) {
    this.close();
    // Else an iPhone whose switch is on silent plays nothing.
    if (navigator.audioSession) navigator.audioSession.type = "playback";
    this.context = new AudioContext({ sampleRate: rate });
    this.rate = rate;
    this.queued = 0; // samples
    this.log = [];
    this.began = undefined;
    this.lead = LEAD;
    this.dry = false;
    [this.stream, this.whole] = [0, 1].map(() => {
      const gain = this.context.createGain();
      gain.connect(this.context.destination);
      return gain;
    });
    this.listen(this.toWhole ?? false);
    return this.context;
  }

  /** Whether the browser lets it sound. */
  async allowed() {
    const { context } = this;
    await Promise.race([context.resume(), new Promise((resolve) => setTimeout(resolve, 1000 * PATIENCE))]).catch(() => {});
    return context.state === "running";
  }

  listen(toWhole) {
    this.toWhole = toWhole;
    if (!this.context) return;
    this.stream.gain.value = toWhole ? 0 : 1;
    this.whole.gain.value = toWhole ? 1 : 0;
  }

  push(samples, reference) {
    if (!samples.length || !this.context) return;
    const played = this.queued / this.rate, now = this.context.currentTime;
    this.began ??= now + this.lead;
    if (this.began + played < now + MARGIN) {
      this.dry = true;
      this.lead *= 2;
      this.began = now + this.lead - played;
    }
    const time = this.began + played;
    for (const [data, gain] of [[samples, this.stream], [reference, this.whole]]) {
      if (!data.length) continue;
      const buffer = this.context.createBuffer(1, data.length, this.rate);
      buffer.copyToChannel(data, 0);
      const source = new AudioBufferSourceNode(this.context, { buffer });
      source.connect(gain);
      source.start(time);
    }
    this.log.push({ at: this.queued, length: samples.length, time, now });
    this.queued += samples.length;
  }

  close() {
    this.context?.close();
    this.context = undefined;
  }
}
