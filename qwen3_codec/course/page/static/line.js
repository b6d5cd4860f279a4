/** The decoder as one line of layers, from codes to waveform: what each keeps from call to call, and a button for it. */

const BYTES = { float32: 4, float16: 2, int64: 8 };

/** What states of a module are: bytes, and ms that they reach back; `steps` of its input make a frame. */
export function memory(spec, states, steps) {
  let bytes = 0, ms = 0;
  for (const { shape, dtype } of states) {
    const lengths = shape.map((axis) => (typeof axis === "number" ? axis : spec.limits[axis] ?? 1));
    bytes += BYTES[dtype] * lengths.reduce((product, length) => product * length, 1);
    // [batch, channels, time] and [batch, heads, time, head_dim]; a counter has no axis of time
    if (lengths.length > 2) ms = Math.max(ms, (1000 * lengths[2] * spec.samples_per_frame) / (spec.sample_rate * steps));
  }
  return { bytes, ms };
}

/** `parts` of the decoder (layers.json) with each layer's states in the graph that `about` describes, and their memory. */
export function withStates(parts, { spec }) {
  const states = spec.states.map(([before]) => before);
  const kept = (layer) => {
    const own = states.filter(({ name }) => layer.names.includes(spec.modules[name]));
    return { ...layer, states: own.map(({ name }) => name), ...memory(spec, own, layer.steps) };
  };
  return parts.map(({ name, layers }) => {
    // A state of the part as a whole: a counter, or frames that wait.
    const whole = kept({ names: [name], kinds: [], steps: layers[0].steps, stride: 1, alone: false });
    const separate = whole.states.length && !layers.some(({ names }) => names.includes(name));
    const all = [...(separate ? [whole] : []), ...layers.map(kept)];
    all.forEach((layer, i) => (layer.then = all[i + 1]?.states.length === 0 ? all[i + 1].kinds : []));
    return { name, layers: all };
  });
}

export const msText = (ms) => (ms >= 1000 ? `${(ms / 1000).toPrecision(3)} s` : `${Number(ms.toPrecision(2))} ms`);
export const bytesText = (bytes) => (bytes >= 1000 ? `${(bytes / 1000).toPrecision(3)} kB` : `${bytes} B`);

const LONGEST_MS = 10_000, SHORTEST_MS = 0.1; // of the bars
const height = (ms) => Math.max(0, Math.min(1, Math.log(ms / SHORTEST_MS) / Math.log(LONGEST_MS / SHORTEST_MS)));

function element(tag, className, content = []) {
  const made = document.createElement(tag);
  made.className = className;
  made.append(...[content].flat());
  return made;
}

export class Line {
  /** `root` gets the buttons, `readout` the words about one layer; `onPress(states, layer)` is told of a press. */
  constructor(root, readout, onPress) {
    Object.assign(this, { root, readout, onPress, lost: [] });
    root.addEventListener("keydown", (event) => this.walk(event));
    root.addEventListener("focusin", ({ target }) => this.tell(target));
    root.addEventListener("pointerover", ({ target }) => this.tell(target.closest("button")));
  }

  /** Draw `parts` (`withStates`); `words` has `codes`, `waveform`, and `layer(layer)`: a sentence on it. */
  show(parts, words) {
    this.words = words;
    this.layers = new Map();
    const drawn = parts.map(({ name, layers }) => {
      const own = layers.map((layer) => (layer.states.length ? this.button(name, layer) : this.bare(layer)));
      const label = element("span", "part-name", layers.some(({ names, kinds }) => names[0] === name && kinds.length) ? [] : name);
      const drawn = element("div", "part", [element("div", "layers", own), label]);
      Object.assign(drawn, { role: "group", ariaLabel: name });
      return drawn;
    });
    this.root.replaceChildren(element("span", "end", words.codes), ...drawn, element("span", "end", words.waveform));
    this.mark(this.lost);
    this.hold(this.buttons[0]);
    this.tell(null);
  }

  get buttons() {
    return [...this.root.querySelectorAll("button")];
  }

  button(partName, layer) {
    const [name] = layer.names;
    const times = layer.stride > 1 ? ` ×${layer.stride}` : "";
    const numbers = `${layer.ms ? `${msText(layer.ms)} · ` : ""}${bytesText(layer.bytes)}`;
    const inside = name.startsWith(`${partName}.`) && name.slice(partName.length + 1);
    const shown = inside && isNaN(inside) ? inside : layer.kinds.length ? name : layer.states[0];
    const button = element("button", "layer", [element("span", "name", shown + times), element("span", "numbers", numbers)]);
    button.type = "button";
    button.tabIndex = -1;
    button.setAttribute("aria-describedby", this.readout.id);
    Object.assign(button.dataset, { module: name, states: layer.states.join(" "), ms: layer.ms, bytes: layer.bytes });
    button.style.setProperty("--part", height(layer.ms));
    button.onclick = () => {
      this.hold(button);
      this.onPress(button.ariaPressed === "true" ? [] : layer.states);
    };
    this.layers.set(button, layer);
    return button;
  }

  /** Modules without a state: what they do at a step depends on that step alone. */
  bare(layer) {
    const mark = element("span", "bare", layer.stride > 1 ? `×${layer.stride}` : []);
    mark.title = layer.names.map((name, i) => `${name} (${layer.kinds[i]})`).join("\n");
    mark.ariaHidden = "true";
    return mark;
  }

  /** The states `lost` are set to zero after every call. */
  mark(lost) {
    this.lost = lost;
    for (const button of this.buttons) button.ariaPressed = String(this.layers.get(button).states.some((name) => lost.includes(name)));
  }

  /** The states light up with each call. */
  beat(call) {
    this.root.dataset.beat = call % 2;
  }

  /** One stop for the tab key; the arrows go along the line from there. */
  hold(button) {
    for (const other of this.buttons) other.tabIndex = other === button ? 0 : -1;
  }

  walk(event) {
    const { buttons } = this, at = buttons.indexOf(document.activeElement), last = buttons.length - 1;
    const steps = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: last };
    if (at < 0 || !(event.key in steps)) return;
    event.preventDefault();
    const next = buttons[Math.max(0, Math.min(last, steps[event.key]))];
    this.hold(next);
    next.focus();
  }

  tell(button) {
    const shown = this.layers?.get(button) ?? this.layers?.get(this.buttons.find((each) => each.ariaPressed === "true"));
    if (this.words) this.readout.textContent = shown ? this.words.layer(shown) : this.words.none;
  }
}
