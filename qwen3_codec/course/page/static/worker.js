/** Runs the lab away from the page: messages {id, call, ...} in, {id, piece | result | reference | error | about} out. */

import * as ort from "./ort/ort.wasm.min.mjs";
import { fetched, json } from "./files.js";
import { Lab } from "./lab.js";

ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;

const lab = json("utterances.json").then((utterances) => new Lab(ort, utterances, async (name) => ({
  graph: new Uint8Array(await (await fetched(`graphs/${name}.onnx`)).arrayBuffer()),
  about: await json(`graphs/${name}.json`),
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
    if (call === "run") current = id;
    postMessage({ id, reference: await ready.reference(settings.utterance) });
    if (call === "reference") return postMessage({ id });
    const onPiece = async ({ state, ...piece }) => {
      postMessage({ id, piece });
      await new Promise((resolve) => setTimeout(resolve)); // lets a "stop" in
    };
    postMessage({ id, result: await ready.run(settings, onPiece, () => current !== id) });
  } catch (error) {
    postMessage({ id, error: String(error.message ?? error) });
  }
};
