/** Calls of the worker that decodes. */

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
export function ask(call, settings, onMessage = () => {}) {
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

/** End the stream that is being decoded; what it gave so far is its result. */
export function halt() {
  worker?.postMessage({ call: "stop" });
}
