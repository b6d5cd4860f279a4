/** Keeps what was loaded once, so that the page works offline; what is new on the server comes with the next visit. */

const KEPT = "qwen3-codec";

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method !== "GET" || new URL(request.url).origin !== self.location.origin) return;
  event.respondWith(
    caches.open(KEPT).then(async (cache) => {
      try {
        const answer = await fetch(request);
        if (answer.ok) cache.put(request, answer.clone());
        return answer;
      } catch (error) {
        const kept = await cache.match(request, { ignoreSearch: true });
        if (kept) return kept;
        throw error;
      }
    }),
  );
});
