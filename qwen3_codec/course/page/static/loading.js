/**
 * Says on the page which of its programs the server gives under a type that no browser runs; else its console alone hears
 * of it. An old kind of script, which browsers run under any type.
 */

const MODULES = ["main.js", "calls.js", "files.js", "lab.js", "codec.js", "line.js", "pictures.js", "player.js", "words.js", "texts/en.js", "texts/zh.js", "worker.js", "ort/ort.wasm.min.mjs"];

/** The first module that a browser would not run, and why; nothing where all are right. */
async function wrongModule() {
  for (const name of MODULES) {
    const answer = await fetch(name);
    const type = answer.headers.get("content-type") ?? "without a type";
    if (!answer.ok) return `${name}: ${answer.status}`;
    if (!/(java|ecma)script/.test(type)) return `${name}: the server sends it as ${type}, and browsers run modules as text/javascript alone`;
  }
}

addEventListener("error", async ({ target }) => {
  if (target.tagName !== "SCRIPT") return;
  document.getElementById("status").textContent = "";
  document.getElementById("problem").textContent = `This could not be loaded or run: ${(await wrongModule().catch(() => {})) ?? target.src}`;
}, true);
