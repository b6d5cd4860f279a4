// The lab in place of its picture, where a server hands it out: modules and WebAssembly do not load from files.
addEventListener("DOMContentLoaded", () => {
  const lab = document.querySelector("[data-lab]");
  if (!lab || !location.protocol.startsWith("http")) return;
  const [root, language] = document.documentElement.lang === "en" ? ["", "en"] : ["../", "zh"];
  const frame = document.createElement("iframe");
  const dress = () => { // in the reader's choice of light and dark
    const { theme } = document.body.dataset;
    frame.contentDocument.documentElement.style.colorScheme = theme === "auto" ? "" : theme;
  };
  frame.addEventListener("load", dress);
  new MutationObserver(dress).observe(document.body, { attributeFilter: ["data-theme"] });
  Object.assign(frame, { src: `${root}${lab.dataset.lab}#${language}`, title: lab.dataset.title });
  lab.replaceChildren(frame);
});

// What scrolls in its own place can be reached by keyboard, also when a fold opens or the window narrows.
const scrolls = new ResizeObserver((entries) => {
  for (const { target } of entries) target[target.scrollWidth > target.clientWidth ? "setAttribute" : "removeAttribute"]("tabindex", "0");
});
addEventListener("DOMContentLoaded", () => {
  for (const part of document.querySelectorAll("article pre, article table, article .table-wrapper")) scrolls.observe(part);
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
