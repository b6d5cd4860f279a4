/** Runs the lab away from the page: messages {id, call, ...} in, {id, piece | result | error | about} out. */

import * as ort from "./ort/ort.wasm.min.mjs";
import { Lab } from "./lab.js";

ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;

const fetched = async (path) => {
  const answer = await fetch(new URL(path, import.meta.url));
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer;
};
const lab = fetched("utterances.json").then(async (answer) => new Lab(ort, await answer.json(), async (name) => ({
  graph: new Uint8Array(await (await fetched(`graphs/${name}.onnx`)).arrayBuffer()),
  about: await (await fetched(`graphs/${name}.json`)).json(),
})));

let current = 0;
onmessage = async ({ data: { id, call, settings } }) => {
  if (call === "stop") return void (current = 0);
  try {
    const ready = await lab;
    if (call === "about") {
      const session = await ready.session(settings.design);
      return postMessage({ id, about: session.about, utterances: ready.utterances.map(({ codes, ...rest }) => ({ ...rest, frames: codes.length })) });
    }
    current = id;
    const reference = await ready.reference(settings.utterance);
    postMessage({ id, reference });
    const onPiece = async (piece) => {
      postMessage({ id, piece });
      await new Promise((resolve) => setTimeout(resolve)); // lets a "stop" in
    };
    postMessage({ id, result: await ready.run(settings, onPiece, () => current !== id) });
  } catch (error) {
    postMessage({ id, error: String(error.message ?? error) });
  }
};
