// The lab in place of its picture, where a server hands it out: modules and WebAssembly do not load from files.
addEventListener("DOMContentLoaded", () => {
  const lab = document.querySelector("[data-lab]");
  if (!lab || !location.protocol.startsWith("http")) return;
  const root = document.documentElement.lang === "en" ? "" : "../";
  const frame = Object.assign(document.createElement("iframe"), { src: root + lab.dataset.lab, title: lab.dataset.title });
  lab.replaceChildren(frame);
});

// What scrolls in its own place can be reached by keyboard.
addEventListener("load", () => {
  for (const part of document.querySelectorAll("article pre, article table, article .table-wrapper")) {
    if (part.scrollWidth > part.clientWidth) part.tabIndex = 0;
  }
});

// A fold is called by the words on it.
addEventListener("DOMContentLoaded", () => {
  for (const fold of document.querySelectorAll("article summary[aria-label]")) fold.removeAttribute("aria-label");
});

// A link to an exercise shows it.
const unfold = () => {
  const place = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (place) for (const fold of place.querySelectorAll(":scope > details.exercise")) fold.open = true;
};
addEventListener("DOMContentLoaded", unfold);
addEventListener("hashchange", unfold);
