/** The page's words, in the language that was chosen, with the numbers that the graph says of itself. */

import en from "./texts/en.js";
import zh from "./texts/zh.js";

export const TEXTS = { en, zh };
export const LANGUAGES = { en: "en", zh: "zh-Hans" };

const store = {
  get: () => { try { return localStorage.getItem("language"); } catch { return null; } }, // private mode
  set: (value) => { try { localStorage.setItem("language", value); } catch { /* the same */ } },
};
// The book around this page says in the address which language it has.
const known = [location.hash.slice(1), store.get()].find((each) => each in TEXTS);
export let language = known ?? ((navigator.language ?? "en").startsWith("zh") ? "zh" : "en");
const facts = {};

export function toggleLanguage() {
  store.set((language = otherLanguage()));
}
export const otherLanguage = () => (language === "zh" ? "en" : "zh");

/** What the texts may name in braces, {codes}. */
export function know(more) {
  Object.assign(facts, more);
}

const filled = (text, more) => text.replace(/\{(\w+)\}/g, (_, name) => more[name] ?? facts[name] ?? "…");

/** The text under a key, `cards.layer` for one inside; an array is one of texts. */
export function words(key, more = {}) {
  const found = key.split(".").reduce((inner, name) => inner[name], TEXTS[language]);
  return Array.isArray(found) ? found.map((text) => filled(text, more)) : filled(found, more);
}

/** Fill all of the document that has a text of its own. */
export function fillDocument() {
  document.documentElement.lang = LANGUAGES[language];
  for (const node of document.querySelectorAll("[data-text]")) node.textContent = words(node.dataset.text);
  for (const node of document.querySelectorAll("[data-label]")) node.setAttribute("aria-label", words(node.dataset.label));
}
