// Pushes pieces of a slow device through the page's player, on a clock of its own. Run by tests/course/test_page_client.py.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const { player: file, rate, samples, pieces, slowness } = JSON.parse(readFileSync(0, "utf8"));
const started = [];
let now = 0;
const context = {
  get currentTime() { return now; },
  createGain: () => ({ gain: { value: 1 }, connect() {} }),
  createBuffer: () => ({ copyToChannel() {} }),
};
globalThis.AudioBufferSourceNode = class {
  connect() {}
  start(time) { started.push({ time, now }); }
};
Object.defineProperty(globalThis, "navigator", { value: {} });

const { Player } = await import(pathToFileURL(file));
const player = new Player();
player.start(rate, 0, context);
for (let n = 0; n < pieces; n++) {
  now += (slowness * samples) / rate;
  player.push(new Float32Array(samples), new Float32Array(0));
}
process.stdout.write(JSON.stringify({ started, dry: player.dry }));
