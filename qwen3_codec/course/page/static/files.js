/** The page's own files; an error names the file. Servers that know no such file may answer with a web page and 200. */

export async function fetched(path) {
  const answer = await fetch(new URL(path, import.meta.url));
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  if (answer.headers.get("content-type")?.startsWith("text/html")) throw new Error(`${path}: the server gives a web page in its place`);
  return answer;
}

export async function json(path) {
  const answer = await fetched(path);
  return answer.json().catch((error) => Promise.reject(new Error(`${path}: ${error.message}`)));
}
